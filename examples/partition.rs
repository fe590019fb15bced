//! The plaintext of a partition of a virtual machine's disk: a LUKS container in a GPT in a qcow2. The format is recognised,
//! and the partition table is found; where one partition alone holds LUKS, it need not be named.
//!
//! ```text
//! cargo run --example partition -- disk.qcow2 3 key-file plain.raw
//! ```

use std::fs::File;
use std::io::{BufWriter, Write};

use unluks::key::read_key_file;
use unluks::{Image, Key, OpenOptions, ReadAt};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [disk, partition, key, output] = &args[..] else {
        return Err("usage: partition DISK PARTITION KEY_FILE OUTPUT".into());
    };
    let options = OpenOptions { partition: Some(partition.clone()), ..OpenOptions::default() };
    let image = Image::open_path(disk, &options)?;
    let passphrase = read_key_file(&mut File::open(key)?, 0, None)?;
    let unlocked = image.unlock(&Key::passphrase(passphrase), &Default::default())?;
    let volume = unlocked.volume(Default::default())?;

    // `decrypt` has a parallel stream and an output that appears when it is whole; this is the plain way.
    let mut out = BufWriter::new(File::create_new(output)?);
    let mut buffer = vec![0u8; 1 << 20];
    let mut at = 0;
    while at < volume.len() {
        let n = buffer.len().min(usize::try_from(volume.len() - at)?);
        volume.read_exact_at(&mut buffer[..n], at)?;
        out.write_all(&buffer[..n])?;
        at += u64::try_from(n)?;
    }
    out.flush()?;
    println!("{at} bytes");
    Ok(())
}
