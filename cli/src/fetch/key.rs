//! `unluks fetch key`.

use std::io::Write;
use std::process::ExitCode;

use unluks::backup::Becomes;
use unluks::progress::Progress;
use unluks::{Error, Result};
use unluks_openstack::secret;

use super::{connect, describe, write_key};
use crate::args::fetch::KeyArgs;
use crate::source::shown;

pub fn run(args: &KeyArgs) -> Result<ExitCode> {
    if args.output.symlink_metadata().is_ok() {
        return Err(Error::invalid(format!("{} is there already", shown(&args.output)))
            .with_hint("a key is not overwritten: name another file, or move it away"));
    }
    let cloud = connect(&args.cloud, &Progress::default())?;
    let secret = secret::fetch(&cloud, &args.secret)?;
    write_key(&args.output, &secret)?;
    let file = args.output.file_name().unwrap_or_default().to_string_lossy();
    let key = describe(&secret, &file, None);
    let json = serde_json::to_string_pretty(&key).map_err(|e| Error::invalid(e.to_string()))?;
    // The attributes are text that somebody else wrote: a terminal must obey none of it.
    let plain: String = json.chars().flat_map(|c| if c == '\n' { vec![c] } else { escaped(c) }).collect();
    writeln!(std::io::stdout(), "{plain}").map_err(|e| Error::io("printing the key's attributes", e))?;
    let flag = match key.becomes {
        Becomes::Hexlify => "--barbican-key",
        Becomes::Direct => "--key-file",
    };
    let _ = writeln!(anstream::stderr(), "it opens an image with {flag} {}", shown(&args.output));
    Ok(ExitCode::SUCCESS)
}

/// A character of JSON as it is, or escaped as JSON has it.
fn escaped(c: char) -> Vec<char> {
    match c {
        ' '..='~' => vec![c],
        c if c.is_alphanumeric() => vec![c],
        c => c
            .encode_utf16(&mut [0; 2])
            .iter()
            .flat_map(|unit| format!("\\u{unit:04x}").chars().collect::<Vec<_>>())
            .collect(),
    }
}
