//! The files that a verification writes: each has its name when it is whole, takes the place of no input, and with --force
//! that of an earlier one of its own kind alone.

use std::io::Read;
use std::path::{Path, PathBuf};

use unluks::error::Condition;
use unluks::files::{Existing, Inputs, Role, Whole, names};
use unluks::verify::{Report, TreeFile};
use unluks::{Error, Result};

use super::{attestation, dfxml, dsse, page, timestamp};
use crate::args::verify::VerifyArgs;
use crate::sign::{SIGNATURE, Signer, beside};
use crate::source::{WithinFile, is_dash, shown};

/// What a file is, by which an earlier one of the kind is known.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Json,
    Page,
    Attestation,
    Envelope,
    Dfxml,
    Signature,
    TimestampQuery,
    /// An authority's: it is never written here.
    TimestampAnswer,
}

impl Kind {
    fn begins_with(self) -> &'static [u8] {
        match self {
            Self::Json => b"{\"schema\":",
            Self::Page => page::BEGINS.as_bytes(),
            Self::Attestation => attestation::BEGINS.as_bytes(),
            Self::Envelope => dsse::BEGINS.as_bytes(),
            Self::Dfxml => dfxml::BEGINS.as_bytes(),
            Self::Signature => b"untrusted comment:",
            Self::TimestampQuery => timestamp::BEGINS,
            Self::TimestampAnswer => b"\x30",
        }
    }
}

/// Files that are begun.
pub struct Outputs {
    files: Vec<(Kind, PathBuf, Whole)>,
    tree: Option<PathBuf>,
    existing: Existing,
    /// What proves earlier files of these names, and would be wrong of the new ones.
    stale: Vec<PathBuf>,
}

impl Outputs {
    /// Begins the files that the command line names.
    pub fn begin(args: &VerifyArgs) -> Result<Self> {
        let record = &args.record;
        let statement = if record.attestation_key.is_some() { Kind::Envelope } else { Kind::Attestation };
        let wanted = [
            (Kind::Json, args.json_file()),
            (Kind::Page, record.report.as_deref()),
            (statement, record.attestation.as_deref()),
            (Kind::Dfxml, record.dfxml.as_deref()),
        ];
        let wanted = wanted.into_iter().filter_map(|(kind, path)| Some((kind, path?.to_owned())));
        Self::of(wanted.collect(), args)
    }

    /// Begins the files of one image of many.
    pub fn in_folder(report: &Path, args: &VerifyArgs) -> Result<Self> {
        let mut wanted = vec![(Kind::Json, report.to_owned())];
        if args.fleet.pages {
            wanted.push((Kind::Page, report.with_extension("html")));
        }
        let outputs = Self::of_existing(wanted, args, Existing::Replace)?;
        Ok(Self { tree: None, ..outputs })
    }

    fn of(wanted: Vec<(Kind, PathBuf)>, args: &VerifyArgs) -> Result<Self> {
        Self::of_existing(wanted, args, if args.force { Existing::Replace } else { Existing::Keep })
    }

    fn of_existing(mut wanted: Vec<(Kind, PathBuf)>, args: &VerifyArgs, existing: Existing) -> Result<Self> {
        let files: Vec<PathBuf> = wanted.iter().map(|(_, path)| path.clone()).collect();
        if args.record.sign.is_some() {
            wanted.extend(files.iter().map(|path| (Kind::Signature, beside(path, SIGNATURE))));
        }
        if args.record.timestamp_query {
            wanted.extend(files.iter().map(|path| (Kind::TimestampQuery, beside(path, timestamp::SUFFIX))));
        }
        let stale = stale(&files, &wanted, existing)?;
        let inputs = inputs(args);
        stale.iter().try_for_each(|path| inputs.refuse(path))?;
        let tree = args.tree.clone();
        let mut paths: Vec<&Path> = wanted.iter().map(|(_, path)| path.as_path()).chain(tree.as_deref()).collect();
        if paths.iter().any(|path| is_dash(path)) {
            return Err(Error::invalid(
                "--tree, --report, --attestation and --dfxml name files: what is printed is the verdict",
            ));
        }
        paths.iter().try_for_each(|path| refuse(&inputs, path))?;
        paths.sort_unstable();
        if let Some(twice) = paths.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(Error::invalid(format!("{} is named for two outputs", shown(twice[0]))));
        }
        let mut files = Vec::new();
        for (kind, path) in wanted {
            check_kind(kind, &path)?;
            let whole = Whole::create(&path, existing)?;
            files.push((kind, path, whole));
        }
        Ok(Self { files, tree, existing, stale })
    }

    /// Begins the tree, where one is wanted.
    pub fn tree(&self) -> Result<Option<TreeFile>> {
        self.tree.as_deref().map(|tree| TreeFile::create(tree, self.existing)).transpose()
    }

    /// Refuses them where one would take the place of something that was opened since.
    pub fn refuse_inputs(&self, inputs: &Inputs) -> Result<()> {
        let paths = self.files.iter().map(|(_, path, _)| path.as_path()).chain(self.tree.as_deref());
        paths.into_iter().try_for_each(|path| refuse(inputs, path))
    }

    /// Writes them.
    pub fn finish(self, report: &Report, line: &str, seals: Seals<'_>) -> Result<()> {
        let says = format!("{} run:{}", report.verdict.name(), report.run.id);
        for path in &self.stale {
            let failed = |e| Error::io(format!("removing {}", shown(path)), e).with_condition(Condition::Output);
            std::fs::remove_file(path).map_err(failed)?;
        }
        let mut made = Vec::new();
        let (about_files, files): (Vec<_>, Vec<_>) =
            self.files.into_iter().partition(|(kind, ..)| matches!(kind, Kind::Signature | Kind::TimestampQuery));
        for (kind, path, whole) in files {
            let text = match (kind, seals.envelope) {
                (Kind::Page, _) => page::render(report, line)?,
                (Kind::Dfxml, _) => dfxml::render(report)?,
                (Kind::Envelope, Some(key)) => key.envelope(&attestation::statement(report)?)?,
                (Kind::Attestation | Kind::Envelope, _) => attestation::statement(report)?,
                (Kind::Json | Kind::Signature | Kind::TimestampQuery | Kind::TimestampAnswer, _) => format!("{line}\n"),
            };
            if let Some(signer) = seals.signer {
                made.push((beside(&path, SIGNATURE), signer.sign(text.as_bytes(), &says)?.into_bytes()));
            }
            made.push((beside(&path, timestamp::SUFFIX), timestamp::query(text.as_bytes())));
            write(whole, text.as_bytes())?;
        }
        for (_, path, whole) in about_files {
            if let Some((_, bytes)) = made.iter().find(|(name, _)| *name == path) {
                write(whole, bytes)?;
            }
        }
        Ok(())
    }
}

/// What proves the files that are written.
#[derive(Clone, Copy)]
pub struct Seals<'a> {
    /// Signs each file.
    pub signer: Option<&'a Signer>,
    /// Signs the statement in its envelope.
    pub envelope: Option<&'a dsse::Key>,
}

fn write(mut whole: Whole, bytes: &[u8]) -> Result<()> {
    whole.write(bytes)?;
    whole.finish()
}

/// All files that are named to be read.
fn inputs(args: &VerifyArgs) -> Inputs {
    let mut inputs = Inputs::default();
    args.images.iter().chain(&args.with).for_each(|path| inputs.add_path(path, Role::Image));
    args.header.iter().for_each(|path| inputs.add_path(path, Role::Header));
    args.compare.iter().chain(&args.decrypted.output).for_each(|path| inputs.add_path(path, Role::Compared));
    args.policy.iter().for_each(|path| inputs.add_path(path, Role::Policy));
    args.proof.manifest().iter().for_each(|path| inputs.add_path(path, Role::Manifest));
    let record = &args.record;
    record
        .sign
        .iter()
        .chain(&record.sign_passphrase_file)
        .chain(&record.attestation_key)
        .for_each(|path| inputs.add_path(path, Role::Key));
    crate::key::paths(&args.key).filter(|path| !is_dash(path)).for_each(|path| inputs.add_path(path, Role::Key));
    inputs
}

fn refuse(inputs: &Inputs, path: &Path) -> Result<()> {
    let [_, unfinished, _] = names(path)?;
    [path, &unfinished].into_iter().try_for_each(|name| inputs.refuse(name))
}

/// What lies beside files that will be written, proves earlier ones, and is not written anew. Without --force it is refused:
/// it would look like a proof of the new file that is not good.
fn stale(files: &[PathBuf], wanted: &[(Kind, PathBuf)], existing: Existing) -> Result<Vec<PathBuf>> {
    let suffixes = [
        (Kind::Signature, SIGNATURE),
        (Kind::TimestampQuery, timestamp::SUFFIX),
        (Kind::TimestampAnswer, timestamp::ANSWER),
    ];
    let mut stale = Vec::new();
    for (kind, suffix) in suffixes {
        for path in files.iter().map(|path| beside(path, suffix)) {
            if wanted.iter().any(|(_, name)| *name == path) || path.symlink_metadata().is_err() {
                continue;
            }
            if matches!(existing, Existing::Keep) {
                let message =
                    "it is there already, and would be of another file than the one that is written beside it";
                let e = Error::invalid(message).within_file(&path).with_condition(Condition::Output);
                return Err(e.with_hint("use --force to remove it"));
            }
            check_kind(kind, &path)?;
            stale.push(path);
        }
    }
    Ok(stale)
}

/// Refuses a file that is there, and is none of the kind: a piece of an image that could not be opened is no input that is
/// known.
fn check_kind(kind: Kind, path: &Path) -> Result<()> {
    let meta = match std::fs::metadata(path) {
        Ok(meta) if meta.is_file() && meta.len() > 0 => meta,
        _ => return Ok(()),
    };
    let wanted = kind.begins_with();
    let mut start = vec![0; wanted.len()];
    let begins = std::fs::File::open(path).and_then(|mut file| file.read_exact(&mut start)).is_ok() && start == wanted;
    let is_answer =
        || meta.len() <= timestamp::ANSWER_MAX && std::fs::read(path).is_ok_and(|b| timestamp::is_answer(&b));
    let is_kind = begins && (kind != Kind::TimestampAnswer || is_answer());
    if is_kind {
        return Ok(());
    }
    let message = format!("it is there with {} bytes, and is none of those that verify writes here", meta.len());
    Err(Error::invalid(message).within_file(path).with_condition(Condition::Output))
}
