//! What a header says, and what is wrong or weak about it:
//!
//! ```text
//! cargo run --example header -- testdata/openstack-volume.img
//! ```

use unluks::{Image, OpenOptions};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let path = std::env::args_os().nth(1).ok_or("usage: header IMAGE")?;
    let image = Image::open_path(&path, &OpenOptions::default())?;
    // What was found and chosen on the way, such as a partition.
    for note in image.notes() {
        println!("note: {note}");
    }
    let metadata = image.metadata();
    println!("LUKS{} {}", metadata.version.number(), metadata.uuid);
    for (id, keyslot) in &metadata.keyslots {
        println!("keyslot {id}: {:?}, priority {:?}", keyslot.kind, keyslot.priority);
    }
    for finding in unluks::luks::findings::findings(metadata, None) {
        println!("{}: {}: {} [{}]", finding.severity.name(), finding.about, finding.message, finding.code);
    }
    Ok(())
}
