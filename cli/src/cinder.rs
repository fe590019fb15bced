//! A directory of Cinder backups in place of an image.

use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;

use unluks::cinder::{Backup, Chain, Tree, is_tree};
use unluks::error::{counted, escape, shown};
use unluks::files::{Inputs, Role};
use unluks::progress::Progress;
use unluks::{Error, ReadAt, Result};

use crate::args::{ProgressKind, SourceArgs};
use crate::progress::ProgressView;

/// Opens the backup that the command line chooses, and says which; `None` where it names no directory of backups.
pub fn open(args: &SourceArgs, inputs: &mut Inputs) -> Result<Option<(Arc<Chain>, String)>> {
    if !args.image.is_dir() || !is_tree(&args.image) {
        return match &args.backup {
            Some(_) => Err(Error::invalid("--backup chooses one of a directory of Cinder backups, and this is none")
                .within(shown(&args.image))),
            None => Ok(None),
        };
    }
    let mut of_tree = || {
        let tree = Tree::open(&args.image)?;
        let backup = tree.choose(args.backup.as_deref())?;
        let chain = tree.chain(backup)?;
        for folder in tree.folders(backup)? {
            for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
                inputs.add_path(&entry.path(), Role::Image);
            }
        }
        let depth = match chain.depth() {
            1 => "full".to_owned(),
            n => format!("an increment, the last of {n} in its chain"),
        };
        let of = match tree.backups().len() {
            1 => String::new(),
            n => format!(", one of {n} here"),
        };
        let (id, volume, made) = (escape(&backup.id), escape(&backup.volume), escape(&backup.created_at));
        Ok((Arc::new(chain), format!("backup {id} of volume {volume}, made {made}, {depth}{of}")))
    };
    of_tree().map(Some).map_err(|e: Error| e.within(shown(&args.image)))
}

/// The backups of a directory, the oldest first; `None` where it is none of backups.
pub fn backups(image: &Path) -> Result<Option<Vec<Backup>>> {
    if !image.is_dir() || !is_tree(image) {
        return Ok(None);
    }
    let tree = Tree::open(image).map_err(|e| e.within(shown(image)))?;
    Ok(Some(tree.backups().to_vec()))
}

/// The same for people, a line each.
pub fn list(backups: &[Backup]) -> String {
    let mut text = String::from("Backups of Cinder, the oldest first:\n");
    for backup in backups {
        let _ = writeln!(text, "  {}", line(backup));
    }
    text + "\n"
}

fn line(backup: &Backup) -> String {
    let kind = match &backup.parent {
        None => "full".to_owned(),
        Some(parent) => format!("increment of {}", escape(parent)),
    };
    let name = backup.volume_name.as_ref().map_or(String::new(), |name| format!(" \"{}\"", escape(name)));
    let state = match &backup.problem {
        None => "complete".to_owned(),
        Some(problem) => format!("NOT COMPLETE: {problem}"),
    };
    if backup.volume.is_empty() {
        return format!("{}  {state}", escape(&backup.id));
    }
    format!(
        "{}  volume {}{name}  {}  {kind}  {} bytes in {}  {state}",
        escape(&backup.id),
        escape(&backup.volume),
        escape(&backup.created_at),
        backup.bytes,
        counted(backup.objects, "object")
    )
}

/// How much of a backup is compared before it is taken.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Compare {
    /// Each object with its MD5.
    Objects,
    /// Each block of the volume with its SHA-256, too.
    Blocks,
}

/// Compares a backup with its own hashes, and says so.
pub fn check(chain: &Chain, what: Compare, how: ProgressKind, quiet: bool, progress: &Progress) -> Result<()> {
    let passes = if what == Compare::Blocks { 2 } else { 1 };
    let view = ProgressView::new(how, quiet, chain.len().checked_mul(passes), 0);
    let said = view.beside(progress, || match what {
        Compare::Objects => {
            chain.check_objects(progress).map(|objects| format!("{} by MD5", counted(objects, "object")))
        }
        Compare::Blocks => chain.check(progress).map(|checked| {
            format!(
                "{} by MD5, {} of the volume by SHA-256",
                counted(checked.objects, "object"),
                counted(checked.blocks, "block")
            )
        }),
    });
    view.finish(progress.bytes());
    let said = said?;
    if !quiet {
        let _ = std::io::Write::write_fmt(
            &mut anstream::stderr(),
            format_args!("the backup is as Cinder made it: {said}\n"),
        );
    }
    Ok(())
}
