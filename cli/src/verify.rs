//! `unluks verify`: whether an image restores, in words, as JSON and as an exit code.

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use unluks::decrypt::hash::Of;
use unluks::error::escape;
use unluks::files::{Existing, Role, names};
use unluks::progress::Progress;
use unluks::verify::{
    self, Compare, Expected, Finding, Options, Outcome, Report, Severity, Subject, TreeFile, Verdict,
};
use unluks::{Error, ErrorKind, Image, Result, UnlockedImage, json};

use crate::args::verify::VerifyArgs;
use crate::backup::InBackup;
use crate::cinder;
use crate::hashes;
use crate::key::{self, Material, Saying};
use crate::open::Opened;
use crate::progress::ProgressView;
use crate::signals;
use crate::source::{is_dash, shown};

/// Exit codes beside those of errors.
const WITH_FINDINGS: u8 = 7;
const WRONG_KEY: u8 = 3;
const NOT_RESTORABLE: u8 = 4;
/// Of several images, the code that comes first here.
const WORST_FIRST: [u8; 8] = [NOT_RESTORABLE, WRONG_KEY, 5, 6, 2, 1, WITH_FINDINGS, 0];

/// Verifies the images one after the other; `code` is the exit code of an error.
pub fn run(args: &VerifyArgs, code: impl Fn(&Error) -> u8) -> Result<ExitCode> {
    check(args)?;
    // The key is read once, and asked for once.
    let mut shared = None;
    let mut worst = 0;
    for image in &args.images {
        let ended = match one(args, image, &mut shared) {
            Ok(report) => {
                print(args, &report)?;
                code_of(&report, args.strict)
            }
            Err(e) if e.kind() == ErrorKind::Cancelled || args.images.len() == 1 => return Err(e),
            Err(e) => {
                let _ = writeln!(anstream::stderr(), "unluks: {}", crate::hint::line(&e));
                code(&e)
            }
        };
        let rank = |code: u8| WORST_FIRST.iter().position(|c| *c == code);
        if rank(ended) < rank(worst) {
            worst = ended;
        }
    }
    Ok(ExitCode::from(worst))
}

fn check(args: &VerifyArgs) -> Result<()> {
    if args.images.iter().any(|image| is_dash(image)) {
        return Err(Error::invalid("verify wants an image that can be read at any place, not a pipe"));
    }
    key::check(&args.key, false)?;
    let single = [
        ("--tree", args.tree.is_some()),
        ("--compare", args.compare.is_some()),
        ("--expect", !args.expect.is_empty()),
        ("--header", args.header.is_some()),
    ];
    match single.iter().find(|(_, is_given)| *is_given && args.images.len() > 1) {
        Some((flag, _)) => {
            Err(Error::invalid(format!("{flag} is for one image, and {} were named", args.images.len())))
        }
        None => Ok(()),
    }
}

fn code_of(report: &Report, strict: bool) -> u8 {
    match report.verdict {
        Verdict::RestorableWithFindings if strict => WITH_FINDINGS,
        Verdict::Restorable | Verdict::RestorableWithFindings => 0,
        Verdict::WrongKey => WRONG_KEY,
        Verdict::NotRestorable => NOT_RESTORABLE,
    }
}

/// The report of an image; an error where nothing is known of it.
fn one(args: &VerifyArgs, path: &Path, shared: &mut Option<Material>) -> Result<Report> {
    let name = path.to_string_lossy().into_owned();
    let refused = |image: Option<&Image>, e: Error| {
        let report = Report::of_refusal(&name, image, &e);
        if report.is_some() && !args.quiet {
            // The report says what is wrong, and this what to do next.
            let _ = writeln!(anstream::stderr(), "note: {}", crate::hint::line(&e));
        }
        report.ok_or(e)
    };
    let mut source = args.source(path);
    let mut opened = match Opened::open(&mut source) {
        Ok(opened) => opened,
        Err(e) => return refused(None, e),
    };
    if opened.source.pipe().is_some() {
        return Err(Error::invalid("verify wants an image that can be read at any place, not a pipe"));
    }
    let mut options = options(args, opened.backup.as_ref())?;
    key::note(&args.key, &mut opened.source.inputs)?;
    check_tree(args, &mut opened)?;
    if let Some(doubt) = opened.doubts().into_iter().next() {
        return refused(Some(&opened.image), doubt);
    }
    if let Some(chain) = &opened.source.cinder {
        let progress = Progress::default();
        signals::stop_by(&progress.cancel_flag())?;
        match cinder::check(chain, cinder::Compare::Blocks, args.progress, args.quiet, &progress) {
            Err(e) if e.kind() == ErrorKind::Corrupt => return refused(Some(&opened.image), e),
            other => other.map_err(|e| opened.source.named(e))?,
        }
    }
    let (unlocked, forms) = match unlock(args, &opened, path, shared) {
        Ok(unlocked) => unlocked,
        Err(e) => return refused(Some(&opened.image), e),
    };
    let source = &opened.source;
    let files = std::iter::once(&source.file).chain(source.segments.iter().map(|segment| &segment.file));
    let files: Vec<_> = files.map(Arc::clone).collect();
    let passes_by = source.is_plain_file() && files.len() == 1;
    let subject = Subject { path: name, unlocked: &unlocked, files, passes_by, forms };
    let existing = if args.force { Existing::Replace } else { Existing::Keep };
    options.tree = args.tree.as_ref().map(|tree| TreeFile::create(tree, existing)).transpose()?;
    let progress = Progress::default();
    signals::stop_by(&progress.cancel_flag())?;
    let view = ProgressView::new(args.progress, args.quiet, None, 0);
    let report = view.beside(&progress, || verify::verify(&subject, options, &progress));
    view.finish(progress.bytes());
    report.map_err(|e| source.named(e))
}

fn options(args: &VerifyArgs, backup: Option<&InBackup>) -> Result<Options> {
    let mut expected = args.expect.iter().map(|text| expect(text)).collect::<Result<Vec<_>>>()?;
    expected.extend(backup.into_iter().flat_map(InBackup::expected));
    Ok(Options {
        hashes: hashes::parse(&args.hash)?,
        expected,
        plaintext_bytes: backup.and_then(InBackup::plaintext_bytes),
        must_be: args.must_be.or(backup.and_then(InBackup::must_be)),
        compare: args.compare.as_deref().map(Compare::open).transpose()?,
        tree: None,
        threads: args.threads,
    })
}

/// Reads `sha256:HEX`, `image:sha256:HEX` and `plaintext:sha256:HEX`.
fn expect(text: &str) -> Result<Expected> {
    let (of, rest) = match text.split_once(':') {
        Some(("plaintext", rest)) => (Of::Plaintext, rest),
        Some(("image", rest)) => (Of::Image, rest),
        _ => (Of::Image, text),
    };
    let bad = || Error::invalid(format!("--expect {}: a hash and its hex are wanted, as sha256:HEX", escape(text)));
    let (name, hex) = rest.split_once(':').ok_or_else(bad)?;
    let algorithm: unluks::decrypt::hash::Algorithm = name.parse()?;
    let digits = match algorithm.name() {
        "md5" => 32,
        "sha1" => 40,
        "sha512" => 128,
        _ => 64,
    };
    let hex = hex.to_ascii_lowercase();
    if hex.len() != digits || !hex.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Err(bad());
    }
    Ok(Expected { of, algorithm, hex, by: "--expect".into() })
}

/// Refuses a tree that would take the place of something that is read.
fn check_tree(args: &VerifyArgs, opened: &mut Opened) -> Result<()> {
    let Some(tree) = &args.tree else { return Ok(()) };
    if is_dash(tree) {
        return Err(Error::invalid("--tree names a file: what is printed is the verdict"));
    }
    if let Some(compare) = &args.compare {
        opened.source.inputs.add_path(compare, Role::Compared);
    }
    let [_, unfinished, _] = names(tree)?;
    [tree, &unfinished].into_iter().try_for_each(|name| opened.source.inputs.refuse(name))
}

/// Unlocks an image, and says what was done to make the passphrase.
fn unlock(
    args: &VerifyArgs,
    opened: &Opened,
    path: &Path,
    shared: &mut Option<Material>,
) -> Result<(UnlockedImage, Vec<String>)> {
    let own = match &opened.backup {
        // A backup's own key is of no other image.
        Some(backup) => Some(key::asked(key::read(&args.key, false, Some(backup))?, path)?),
        None => None,
    };
    let material = match (&own, shared) {
        (Some(own), _) => own,
        (None, Some(shared)) => shared,
        (None, none) => none.insert(key::asked(key::read(&args.key, false, None)?, path)?),
    };
    let options = key::options(false, &args.key, &args.limits);
    let saying = Saying { image: opened.source.shown(), quiet: true };
    let unlocked = key::unlock(&opened.image, material, &options, &saying).map_err(|e| opened.source.named(e))?;
    let forms = match material {
        Material::Passphrases(given) => {
            let rule = |candidate: usize| given.key.candidates().get(candidate).map(|c| c.rule.describe());
            unlocked.opened().iter().filter_map(|o| rule(o.candidate)).collect()
        }
        Material::Ask { .. } | Material::VolumeKey(_) => Vec::new(),
    };
    Ok((unlocked, forms))
}

fn print(args: &VerifyArgs, report: &Report) -> Result<()> {
    let text = if args.json {
        json::compact(report)? + "\n"
    } else if args.quiet {
        last_line(report)
    } else {
        text(report)
    };
    let mut out = anstream::stdout().lock();
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .map_err(|e| Error::io("writing to the standard output", e))
}

fn last_line(report: &Report) -> String {
    let why = report.reason.as_deref().unwrap_or("no reason is known");
    match report.verdict {
        Verdict::Restorable => "restorable\n".into(),
        Verdict::RestorableWithFindings => "restorable with findings\n".into(),
        Verdict::NotRestorable => format!("not restorable: {why}\n"),
        Verdict::WrongKey => format!("wrong key: {why}\n"),
    }
}

fn text(report: &Report) -> String {
    let mut text = format!("{}\n", shown(Path::new(&report.image.path)));
    for stage in &report.stages {
        let result = match stage.result {
            Outcome::Ok => "ok",
            Outcome::Finding => "finding",
            Outcome::Failed => "failed",
            Outcome::NotReached => "-",
        };
        let line = format!("  {:<10} {result:<8} {}", stage.stage.name(), stage.says);
        text += &format!("{}\n", line.trim_end());
    }
    let is_shown = |f: &&Finding| f.severity > Severity::Note || f.code == "contents.unrecognised";
    for finding in report.findings.iter().filter(is_shown) {
        text += &line(finding);
    }
    let notes = report.findings.iter().filter(|f| !is_shown(f)).count();
    if notes > 0 {
        text += &format!("  {notes} notes change nothing; --json has them\n");
    }
    if report.more_findings > 0 {
        text += &format!("  {} findings more are left out\n", report.more_findings);
    }
    for (name, hex) in &report.hashes.plaintext {
        text += &format!("  plaintext {name} {hex}\n");
    }
    for (name, hexes) in &report.hashes.image {
        hexes.iter().for_each(|hex| text += &format!("  image {name} {hex}\n"));
    }
    if let Some(tree) = &report.hashes.tree {
        text += &format!("  tree of {} leaves, root {}\n", tree.leaves, tree.root);
    }
    for statement in &report.coverage.statements {
        text += &format!("  {statement}\n");
    }
    text + &last_line(report)
}

fn line(finding: &Finding) -> String {
    let place = |what: &str, offset: Option<u64>| offset.map_or(String::new(), |at| format!(" ({what} byte {at})"));
    let (image, plaintext) = (place("image", finding.image_offset), place("plaintext", finding.plaintext_offset));
    let Finding { severity, code, message, .. } = finding;
    format!("  {}: {code}: {message}{image}{plaintext}\n", severity.name())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_expected_is_a_hash_and_its_hex() {
        let hex = "AB".repeat(32);
        let read = expect(&format!("sha256:{hex}")).unwrap();
        assert_eq!((read.of, read.hex.as_str()), (Of::Image, "ab".repeat(32).as_str()));
        assert_eq!(expect(&format!("plaintext:blake3:{hex}")).unwrap().of, Of::Plaintext);
        for wrong in ["sha256", "sha256:", "sha256:ab", &format!("sha1:{hex}"), &format!("sha257:{hex}"), &hex] {
            assert!(expect(wrong).is_err(), "{wrong}");
        }
    }
}
