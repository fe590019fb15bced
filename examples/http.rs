//! Ranges of a plaintext over HTTP, with nothing but the standard library. Any number of threads read a volume at once, and
//! nothing is decrypted but what is asked for.
//!
//! ```text
//! cargo run --example http -- testdata/openstack-volume.img testdata/openstack-volume.key 127.0.0.1:8080
//! curl --range 0-43 http://127.0.0.1:8080/
//! ```
//!
//! It is an example: it has no TLS, no limit on clients and asks nobody who they are. Keep it on the loopback address.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;

use unluks::{Image, Key, OpenOptions, ReadAt, SecretBytes, Volume};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [image, key, address] = &args[..] else {
        return Err("usage: http IMAGE BARBICAN_KEY ADDRESS".into());
    };
    let payload = SecretBytes::copy_of(&std::fs::read(key)?)?;
    let unlocked =
        Image::open_path(image, &OpenOptions::default())?.unlock(&Key::barbican(&payload)?, &Default::default())?;
    let volume = Arc::new(unlocked.volume(Default::default())?);
    let listener = TcpListener::bind(address)?;
    println!("http://{}/", listener.local_addr()?);
    for stream in listener.incoming() {
        let (stream, volume) = (stream?, Arc::clone(&volume));
        std::thread::spawn(move || {
            if let Err(e) = answer(&stream, &volume) {
                eprintln!("{e}");
            }
        });
    }
    Ok(())
}

/// Answers one request, and closes the connection.
fn answer(mut stream: &TcpStream, volume: &Volume) -> Result<(), Box<dyn std::error::Error>> {
    let mut lines = BufReader::new(stream).lines();
    let request = lines.next().ok_or("no request")??;
    let mut range = None;
    for line in lines {
        let line = line?;
        if line.is_empty() {
            break;
        }
        let (name, value) = line.split_once(':').ok_or("a header line without a colon")?;
        if name.eq_ignore_ascii_case("range") {
            range = Some(value.trim().to_owned());
        }
    }
    let size = volume.len();
    let wanted = match &range {
        None => Some((0, size)),
        Some(range) => parse(range, size),
    };
    let Some((start, end)) = wanted else {
        write!(
            stream,
            "HTTP/1.1 416 Range Not Satisfiable\r\nContent-Range: bytes */{size}\r\nContent-Length: 0\r\n\r\n"
        )?;
        return Ok(());
    };
    let status = if range.is_some() { "206 Partial Content" } else { "200 OK" };
    write!(stream, "HTTP/1.1 {status}\r\nAccept-Ranges: bytes\r\nContent-Length: {}\r\n", end - start)?;
    if range.is_some() {
        write!(stream, "Content-Range: bytes {start}-{}/{size}\r\n", end - 1)?;
    }
    write!(stream, "Connection: close\r\n\r\n")?;
    if request.starts_with("HEAD ") {
        return Ok(());
    }
    let mut buffer = vec![0u8; 1 << 20];
    let mut at = start;
    while at < end {
        let n = buffer.len().min(usize::try_from(end - at)?);
        volume.read_exact_at(&mut buffer[..n], at)?;
        stream.write_all(&buffer[..n])?;
        at += u64::try_from(n)?;
    }
    Ok(())
}

/// `bytes=FIRST-LAST`, `bytes=FIRST-` or `bytes=-SUFFIX` as start and end; `None` where there are no such bytes.
fn parse(range: &str, size: u64) -> Option<(u64, u64)> {
    let (first, last) = range.strip_prefix("bytes=")?.split_once('-')?;
    let (start, end) = match (first.parse::<u64>(), last.parse::<u64>()) {
        (Ok(first), Ok(last)) => (first, last.saturating_add(1).min(size)),
        (Ok(first), Err(_)) if last.is_empty() => (first, size),
        (Err(_), Ok(suffix)) if first.is_empty() => (size.saturating_sub(suffix), size),
        _ => return None,
    };
    (start < end).then_some((start, end))
}
