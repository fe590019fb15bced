//! The record of a decryption: all that `unluks verify` says of the image, with what was written read back and compared.

use std::path::PathBuf;

use unluks::volume::BadSectorPolicy;
use unluks::{Error, Result};

use crate::args::DecryptArgs;
use crate::args::out::BadSectors;
use crate::args::plain::Kind;
use crate::args::verify::{Decrypted, FleetArgs, ProofArgs, VerifyArgs};
use crate::key;
use crate::sign::Signer;
use crate::source::{is_dash, shown};
use crate::verify;

/// What the record is made by; `None` where none is wanted. It is refused here where it could not be made.
pub fn wanted(args: &DecryptArgs) -> Result<Option<VerifyArgs>> {
    let record = &args.record;
    if !record.writes() {
        return match record.given() {
            Some(flag) => Err(Error::invalid(format!("{flag} is for a record: --report, --attestation or --dfxml"))),
            None => Ok(None),
        };
    }
    let source = &args.source;
    let bad_sectors = BadSectors::policy(args.part.bad_sectors);
    let reads_stdin = key::paths(&args.key).any(|path| is_dash(path));
    let unfit = [
        ("an image that comes through a pipe", is_dash(&source.image)),
        ("an output that is a pipe", is_dash(&args.output)),
        ("a key that is typed, or comes through a pipe", reads_stdin || !has_key(args)),
        ("--skip and --length", args.part.skip.is_some() || args.part.length.is_some()),
        // What was left out cannot be read back.
        ("--bad-sectors skip", bad_sectors == BadSectorPolicy::Skip),
        ("--type plain", args.plain.kind != Kind::Luks),
        ("--allow-truncated", source.allow_truncated),
        ("--allow-foreign-segments", source.allow_foreign_segments),
        ("--force-header", source.force_header),
        ("--force-offset", source.force_offset),
    ];
    if let Some((what, _)) = unfit.into_iter().find(|(_, is_given)| *is_given) {
        return Err(Error::invalid(format!("a record is of all of an image, read twice: it does not go with {what}")));
    }
    if let Some(path) = record.paths().find(|path| **path == args.output) {
        return Err(Error::invalid(format!("{} is named for two outputs", shown(path))));
    }
    let made = VerifyArgs {
        images: vec![source.image.clone()],
        header: source.header.clone(),
        format: source.format,
        max_size: source.max_size,
        partition: source.partition.clone(),
        with: source.with.clone(),
        volume: source.volume.clone(),
        backup: source.backup.clone(),
        offset: source.offset,
        expect: Vec::new(),
        must_be: None,
        compare: None,
        tree: None,
        force: args.out.force,
        policy: None,
        hash: args.out.hash.clone(),
        quick: false,
        strict: false,
        json: None,
        threads: args.out.threads,
        quiet: args.out.quiet,
        progress: args.out.progress,
        proof: ProofArgs::default(),
        record: record.clone(),
        fleet: FleetArgs::default(),
        key: args.key.clone(),
        limits: args.limits.clone(),
        decrypted: Decrypted {
            snapshot: source.snapshot.clone(),
            image_map: source.image_map.clone(),
            recover: source.recover,
            bad_sectors,
            output: Some(args.output.clone()),
        },
    };
    verify::check_outputs(&made)?;
    // Neither is found out when all of the image is decrypted.
    if let Some(key) = &record.sign {
        Signer::check(key, record.sign_passphrase_file.as_deref())?;
    }
    if let Some(key) = record.attestation_key.as_deref().filter(|key| !key.metadata().is_ok_and(|meta| !meta.is_file()))
    {
        verify::dsse::Key::open(key)?;
    }
    Ok(Some(made))
}

/// A key that can be read twice: a file's, or a backup's own.
fn has_key(args: &DecryptArgs) -> bool {
    let is_regular = |path: &PathBuf| path.metadata().is_ok_and(|meta| meta.is_file());
    let mut paths = key::paths(&args.key).peekable();
    if paths.peek().is_some() { paths.all(is_regular) } else { args.source.image.is_dir() }
}
