//! `unluks ls`.

use std::process::ExitCode;

use unluks::error::{escape, visible};
use unluks::inside::Kind;
use unluks::reader::volumes::Volume;
use unluks::reader::walk::{self, Follow};
use unluks::reader::{FileKind, FileSystem, Metadata, Xattr, is_read, join};
use unluks::{Error, Result};

use serde::Serialize;

use super::hash::sha256;
use super::print::{Line, Out, XattrLine, columns};
use super::{Faults, Files, from_root};
use crate::args::files::LsArgs;
use crate::progress::ProgressView;

pub fn run(args: &mut LsArgs, code: fn(&Error) -> u8) -> Result<ExitCode> {
    let mut files = Files::open(&mut args.source, &args.inside)?;
    let path = args.path.as_deref().map_or_else(|| b"/".to_vec(), from_root);
    let mut faults = Faults::new(code);
    let mut out = Out::new();
    let done = list(args, &mut files, &path, &mut out, &mut faults);
    out.finish(done)?;
    Ok(faults.exit())
}

/// A volume as JSON has it.
#[derive(Serialize)]
struct VolumeLine {
    volume: String,
    kind: Kind,
    label: Option<String>,
    bytes: u64,
    /// Whether files in it are read.
    is_read: bool,
}

fn volumes(args: &LsArgs, all: &[&Volume], out: &mut Out) -> Result<()> {
    for volume in all {
        let (path, kind) = (String::from_utf8_lossy(&volume.path), volume.kind);
        if args.json {
            let label = volume.label.clone();
            let (volume, bytes) = (path.into_owned(), volume.len);
            out.json(&VolumeLine { volume, kind, label, bytes, is_read: is_read(kind) })?;
            continue;
        }
        let label = volume.label.as_ref().map_or(String::new(), |label| format!(" \"{}\"", escape(label)));
        let not = if is_read(kind) { "" } else { ", whose files are not read" };
        let line = format!("  {kind}{label}, {} bytes{not}\n", volume.len);
        let name = out.name(&volume.path);
        out.write(&[name, line.into_bytes()].concat())?;
    }
    Ok(())
}

fn list(args: &LsArgs, files: &mut Files, path: &[u8], out: &mut Out, faults: &mut Faults) -> Result<()> {
    let below = files.below(path);
    if !below.is_empty() {
        return volumes(args, &below, out);
    }
    let named = match files.named(path, Follow::NotLast) {
        // What a link leads to is listed, if it is a directory, and else the link itself.
        Ok(named) if named.metadata.kind == FileKind::Link && !args.long => match files.named(path, Follow::Last) {
            Ok(to) if to.metadata.is_dir() => to,
            _ => named,
        },
        Ok(named) => named,
        Err(e) => return faults.say(path, e),
    };
    let full = files.full(&named, &named.path);
    if !named.metadata.is_dir() {
        let reader = files.of(&named)?;
        return line(args, reader, (&named.path, &full), &full, &named.metadata, out, faults);
    }
    let listed = walk::list(files.of(&named)?, &named.path);
    let (entries, wrong) = match listed {
        Ok(listed) => listed,
        Err(e) => return faults.say(&full, e),
    };
    for e in wrong {
        faults.say(&full, e)?;
    }
    for entry in entries {
        let (path, full) = (join(&named.path, &entry.name)?, join(&full, &entry.name)?);
        match entry.metadata {
            Ok(metadata) => {
                let reader = files.of(&named)?;
                line(args, reader, (&path, &full), &entry.name, &metadata, out, faults)?;
            }
            Err(why) => faults.say(&full, Error::corrupt("reader.entry", escape(&why)))?,
        }
    }
    Ok(())
}

/// One line. What cannot be read for it is said, and left out of it.
fn line(
    args: &LsArgs,
    reader: &mut dyn FileSystem,
    (path, full): (&[u8], &[u8]),
    name: &[u8],
    metadata: &Metadata,
    out: &mut Out,
    faults: &mut Faults,
) -> Result<()> {
    let mut target = None;
    if metadata.kind == FileKind::Link && (args.long || args.json) {
        match reader.read_link(path) {
            Ok(to) => target = Some(to),
            Err(e) => faults.say(full, e)?,
        }
    }
    let mut hash = None;
    if args.hash.is_some() && metadata.kind == FileKind::File {
        match sha256(reader, path, metadata, &ProgressView::Nothing) {
            Ok(hex) => hash = Some(hex),
            Err(e) => faults.say(full, e)?,
        }
    }
    let mut xattrs = None;
    if args.xattrs {
        match reader.xattrs(path) {
            Ok(all) => xattrs = Some(all),
            Err(e) => faults.say(full, e)?,
        }
    }
    if args.json {
        let xattrs = xattrs.map(|all| all.iter().map(XattrLine::of).collect());
        let target = target.map(|to| String::from_utf8_lossy(&to).into_owned());
        return out.json(&Line { target, sha256: hash, xattrs, ..Line::new(full, metadata) });
    }
    let mut text = Vec::new();
    if args.hash.is_some() {
        text.extend(hash.unwrap_or_else(|| "-".repeat(64)).into_bytes());
        text.extend(b"  ");
    }
    if args.long {
        text.extend(columns(metadata).into_bytes());
    }
    text.extend(out.name(name));
    if let Some(to) = target {
        text.extend(b" -> ");
        text.extend(out.name(&to));
    }
    text.push(b'\n');
    for Xattr { name, value } in xattrs.iter().flatten() {
        let name = visible(&String::from_utf8_lossy(name));
        text.extend(format!("    {name}={}\n", value_of(value)).into_bytes());
    }
    out.write(&text)
}

/// The value of an attribute as getfattr writes it: text in quotes, and all else in hex.
fn value_of(value: &[u8]) -> String {
    // What is set for a C program ends with a zero.
    let text = std::str::from_utf8(value.strip_suffix(b"\0").unwrap_or(value)).ok();
    match text.filter(|text| visible(text) == *text && !text.contains(['"', '\\'])) {
        Some(text) => format!("\"{text}\""),
        None => format!("0x{}", hex::encode(value)),
    }
}
