//! The header parsers alone, with no key derivation and no cipher in the build:
//!
//! ```text
//! cargo run --no-default-features --example parsers -- testdata/openstack-volume.img
//! ```

use std::process::ExitCode;

fn main() -> ExitCode {
    let Some(path) = std::env::args_os().nth(1) else {
        eprintln!("usage: parsers IMAGE");
        return ExitCode::from(2);
    };
    // Any `ReadAt` will do: a file, a slice, bytes from a fuzzer. Nothing but the header is read of it.
    let header = unluks::FileSource::open(&path).and_then(|file| unluks::open(&file));
    match header {
        Ok(header) => {
            println!("LUKS{} {}", header.version.number(), header.uuid);
            for (id, segment) in header.live_segments() {
                println!("segment {id}: from byte {}, {:?}", segment.offset, segment.size);
            }
            println!("keyslots: {:?}", header.keyslots.keys().collect::<Vec<_>>());
            ExitCode::SUCCESS
        }
        // One line: the rule, what was found, what is allowed, where. Code decides by the kind and never by the text.
        Err(e) => {
            eprintln!("{:?}: {e}", e.kind());
            ExitCode::FAILURE
        }
    }
}
