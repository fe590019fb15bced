//! Whether an image restores: all of it is read once, and all that the other modules know of it comes to one verdict.
//!
//! ```text
//! file ─► layers ─► header ─► key ─► length ─► contents (some milliseconds, at its roots)
//!                                       │
//!                                       └► one pass: decrypt ─► tags of dm-integrity, SHA-256, tree, zeroes, comparison
//!                                                    └► the bytes of the file on their way, to its own hashes
//! ```
//!
//! What is read and cannot be is zeroes for the pass, and an error of the report: the pass goes on, so that all places are
//! known at its end. Memory does not grow with the image: one hash a level of the tree, and a chunk a thread.
//!
//! `judge` has what weighs how much. What was *not* checked is said in [`Coverage`]: that a flipped bit in a file of an
//! ext4 shows nowhere is no reason to imply that there is none.

#![cfg_attr(not(test), warn(clippy::arithmetic_side_effects))]

mod books;
mod container;
mod counts;
mod elsewhere;
pub mod fleet;
#[cfg(feature = "reader")]
mod hashing;
mod judge;
#[cfg(feature = "reader")]
mod listed;
#[cfg(feature = "reader")]
mod manifest;
mod must_be;
#[cfg(feature = "reader")]
mod packages;
mod pass;
mod patient;
mod places;
mod policy;
mod ranges;
mod record;
mod refusal;
mod report;
mod seal;
mod tree;
mod unencrypted;
mod words;

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::SystemTime;

use crate::decrypt::hash::{Algorithm, Hashed, Hashers, Of, Wanted};
use crate::decrypt::{self, Job};
use crate::error::{Condition, Error, ErrorKind, Result, catch_panic, escape};
use crate::image::{Image, UnlockedImage};
use crate::inside::{Contents, Level};
use crate::io::ReadAt;
use crate::progress::Progress;
use crate::volume::{BadSectorPolicy, Cause, Volume, VolumeOptions};
use container::is_authenticated;
use judge::Findings;
use pass::{Pass, Passed};
use patient::Patient;
use refusal::Clock;

#[cfg(feature = "reader")]
pub use listed::{FileProof, OpenFiles};
#[cfg(feature = "reader")]
pub use manifest::{Listed, Manifest};
pub use must_be::MustBe;
pub use pass::Compare;
pub use policy::{Policy, Rule};
pub use record::*;
pub use report::*;
pub use tree::{LEAF, TreeFile};

/// A hash that bytes must have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expected {
    /// Of the plaintext, or of the image's file.
    pub of: Of,
    /// Which hash.
    pub algorithm: Algorithm,
    /// The hash in lower-case hex.
    pub hex: String,
    /// Who says so, for messages: `backup.json`.
    pub by: String,
}

/// What is wanted of a verification.
#[derive(Default)]
pub struct Options {
    /// Hashes beside the plaintext's SHA-256, which is always made.
    pub hashes: Vec<Wanted>,
    /// Hashes that must come out.
    pub expected: Vec<Expected>,
    /// Why a hash that was recorded of the image is not among them, where one was.
    pub not_compared: Option<String>,
    /// Bytes that the plaintext must have, where somebody recorded them.
    pub plaintext_bytes: Option<u64>,
    /// What must be recognised in the plaintext.
    pub must_be: Option<MustBe>,
    /// How far the contents are looked at.
    pub level: Level,
    /// What the plaintext is compared with.
    pub compare: Option<Compare>,
    /// What the header must be like.
    pub policy: Option<Policy>,
    /// When the backup was fetched, for the policy: RFC 3339, UTC.
    pub fetched_at: Option<String>,
    /// Which files in the contents are held against which hashes.
    #[cfg(feature = "reader")]
    pub files: Option<FileProof>,
    /// Where the leaves of the tree go.
    pub tree: Option<TreeFile>,
    /// What is read of sectors that are bad. All are listed: with [`Zero`](BadSectorPolicy::Zero) they are zeroes, as in an
    /// output that was made so; with all others they are decrypted all the same.
    pub bad_sectors: BadSectorPolicy,
    /// How many threads decrypt; as many as the machine has cores where it is `None`.
    pub threads: Option<NonZeroUsize>,
}

/// The image to verify.
pub struct Subject<'a> {
    /// Its path as it was given.
    pub path: String,
    /// The image, with the key that opens it.
    pub unlocked: &'a UnlockedImage,
    /// The whole files of the image, byte for byte, in their order.
    pub files: Vec<Arc<dyn ReadAt>>,
    /// The only file is what the volume reads.
    pub passes_by: bool,
    /// What was done to make the passphrase, for each keyslot that opened.
    pub forms: Vec<String>,
}

/// Verifies an image.
///
/// # Errors
/// None for what is wrong with the image: that is what the report is about. [`ErrorKind::Unsupported`] for what cannot be
/// read here; [`ErrorKind::Cancelled`] where somebody stopped it; those of the outputs.
pub fn verify(subject: &Subject<'_>, mut options: Options, progress: &Progress) -> Result<Report> {
    let clock = Clock::start();
    let image = subject.unlocked.image();
    let tree = options.tree.take();
    let mut work = Work::new(subject, image, &options);
    work.check_books(progress)?;
    let volume = work.open()?;
    let contents = match &volume {
        Some(volume) => work.look(volume, options.level, progress)?,
        None => None,
    };
    #[cfg(feature = "reader")]
    if let (Some(volume), Some(wanted)) = (&volume, &options.files) {
        work.prove_files(volume, wanted, progress)?;
    }
    let passed = match &volume {
        Some(volume) => work.pass(volume, tree, &options.compare, progress)?,
        None => None,
    };
    Ok(work.report(volume.as_deref(), contents.as_ref(), passed, &clock))
}

/// What the stages share.
struct Work<'a> {
    subject: &'a Subject<'a>,
    image: &'a Image,
    wanted: Vec<Wanted>,
    expected: &'a [Expected],
    not_compared: Option<&'a str>,
    plaintext_bytes: Option<u64>,
    must_be: Option<MustBe>,
    policy: Option<(&'a Policy, Option<&'a str>)>,
    threads: Option<NonZeroUsize>,
    bad_sectors: BadSectorPolicy,
    /// The data, and all files, each read patiently. Where the file is the data, they are one.
    data: Arc<Patient>,
    files: Vec<Arc<Patient>>,
    findings: Findings,
    coverage: Coverage,
    hashes: Hashes,
    files_used: Option<FilesUsed>,
    packages_used: Option<PackagesUsed>,
}

/// What went through the pass, and how many bytes it had.
struct Through {
    bytes: u64,
    passed: Passed,
}

impl<'a> Work<'a> {
    fn new(subject: &'a Subject<'a>, image: &'a Image, options: &'a Options) -> Self {
        let data = Arc::new(Patient::new(Arc::clone(image.data())));
        let files = if subject.passes_by {
            vec![Arc::clone(&data)]
        } else {
            subject.files.iter().map(|file| Arc::new(Patient::new(Arc::clone(file)))).collect()
        };
        let mut wanted = vec![Wanted { of: Of::Plaintext, algorithm: Algorithm::Sha256 }];
        let expected = options.expected.iter().map(|e| Wanted { of: e.of, algorithm: e.algorithm });
        for more in options.hashes.iter().copied().chain(expected) {
            if !wanted.contains(&more) {
                wanted.push(more);
            }
        }
        Self {
            subject,
            image,
            wanted,
            expected: &options.expected,
            not_compared: options.not_compared.as_deref(),
            plaintext_bytes: options.plaintext_bytes,
            must_be: options.must_be.or(options.policy.as_ref().and_then(Policy::must_be)),
            policy: options.policy.as_ref().map(|policy| (policy, options.fetched_at.as_deref())),
            threads: options.threads,
            bad_sectors: options.bad_sectors,
            data,
            files,
            findings: Findings::default(),
            coverage: Coverage { contents: "none".into(), ..Coverage::default() },
            hashes: Hashes::default(),
            files_used: None,
            packages_used: None,
        }
    }

    /// Layers, header and key, and on to the plaintext; `None` where there is none.
    fn open(&mut self) -> Result<Option<Arc<Volume>>> {
        self.findings.add_all(self.image.notes().iter().filter_map(|note| judge::of_note(note)));
        let opened: Vec<u32> = self.subject.unlocked.opened().iter().map(|o| o.keyslot).collect();
        let report = self.image.report(std::path::Path::new(&self.subject.path), None);
        let of_header = judge::of_header(&report.findings, self.image.metadata(), Some(&opened));
        self.findings.add_all(of_header.into_iter().chain(elsewhere::finding(self.image)));
        self.findings.add_all(self.image.is_unencrypted().then(unencrypted::finding));
        if let Some((policy, fetched_at)) = self.policy {
            let is_encrypted = !self.image.is_unencrypted();
            let broken = if is_encrypted { policy.judge(self.image.metadata()) } else { policy.judge_unencrypted() };
            self.findings.add_all(broken);
            self.findings.add_all(fetched_at.and_then(|at| policy.judge_age(at, SystemTime::now())));
        }
        self.findings.add_all(self.subject.unlocked.passed_over().iter().map(|e| {
            Finding::new(Severity::Warning, "keyslot.passed-over", "keyslots", e.message().to_owned()).at(e.offset())
        }));
        // The volume itself makes zeroes of what cannot be read: sectors, and not the ciphertext of some.
        let (data, bad_sectors): (Arc<dyn ReadAt>, _) = match self.bad_sectors {
            BadSectorPolicy::Zero => (Arc::clone(self.image.data()), BadSectorPolicy::Zero),
            _ => (Arc::<Patient>::clone(&self.data), BadSectorPolicy::Report),
        };
        let options = VolumeOptions { allow_truncated: true, bad_sectors };
        let volume = match self.subject.unlocked.volume_over(data, options) {
            Ok(volume) => volume,
            Err(e) => {
                let finding = judge::of_error(&e).ok_or(e)?;
                self.findings.add(finding);
                return Ok(None);
            }
        };
        self.coverage.plaintext_bytes = Some(volume.len());
        let said = |f: &Finding| f.code == "length.truncated";
        if let Some(missing) = volume.missing().filter(|_| !self.findings.list.iter().any(said)) {
            let message = format!("{missing} of the data are missing at its end");
            self.findings.add(Finding::new(Severity::Error, "length.truncated", "data", message));
        }
        if let Some(recorded) = self.plaintext_bytes.filter(|recorded| *recorded != volume.len()) {
            let message = format!("the plaintext has {} bytes; {recorded} were recorded", volume.len());
            let finding = Finding::new(Severity::Error, "length.recorded", "plaintext", message);
            self.findings.add(finding.says(volume.len(), recorded));
        }
        Ok(Some(Arc::new(volume)))
    }

    /// What the plaintext is.
    fn look(&mut self, volume: &Arc<Volume>, level: Level, progress: &Progress) -> Result<Option<Contents>> {
        let disk: Arc<dyn ReadAt> = Arc::<Volume>::clone(volume);
        let looked = match level {
            Level::Quick => Contents::probe(disk),
            Level::Full => Contents::check(disk, progress),
        };
        let contents = match looked {
            Ok(contents) => contents,
            Err(e) if e.kind() == ErrorKind::Cancelled => return Err(e),
            Err(e) => {
                let message = format!("what is in the plaintext cannot be looked at: {}", e.message());
                let finding = Finding::new(Severity::Error, "contents.unreadable", "contents", message);
                self.findings.add(finding.at_plaintext(e.offset()));
                return Ok(None);
            }
        };
        self.coverage.contents = level.name().into();
        if let Some(covered) = contents.coverage() {
            self.coverage.checksummed_bytes = Some(covered.verified);
            self.coverage.unchecked_bytes = Some(covered.used_without_checksum);
            self.coverage.free_bytes = Some(covered.free);
        }
        let fits = contents.fits(volume.len());
        if let Err(e) = &fits {
            let finding = Finding::new(Severity::Error, "length.contents", "contents", e.message().to_owned());
            self.findings.add(finding.says(volume.len(), contents.size().unwrap_or_default()));
        }
        let found = judge::of_contents(&contents);
        self.findings.add_all(found.into_iter().filter(|f| f.code != "contents.size" || fits.is_ok()));
        self.findings.more = self.findings.more.saturating_add(contents.more_findings);
        if self.image.is_unencrypted() {
            self.findings.add_all(unencrypted::noise(&contents, volume));
        }
        let unmet = match self.must_be {
            Some(wanted) if !wanted.is_met(&contents) => Some((Severity::Error, wanted.word())),
            _ if !contents.is_known() => Some((Severity::Note, "any")),
            _ => None,
        };
        if let Some((severity, wanted)) = unmet {
            let message = match severity {
                Severity::Error if wanted != "any" => format!("the plaintext is {}, not {wanted}", contents.kind),
                Severity::Error => "nothing is recognised in the plaintext, and something must be there".to_owned(),
                _ => format!("no structure of the plaintext could be checked: it is {}", contents.kind),
            };
            let code = if severity == Severity::Error { "contents.must-be" } else { judge::UNRECOGNISED };
            self.findings.add(Finding::new(severity, code, "contents", message).says(contents.kind, wanted));
        }
        Ok(Some(contents))
    }

    /// Files in the contents, and the hashes that they must have.
    #[cfg(feature = "reader")]
    fn prove_files(&mut self, volume: &Arc<Volume>, wanted: &FileProof, progress: &Progress) -> Result<()> {
        let disk: Arc<dyn ReadAt> = Arc::<Volume>::clone(volume);
        let proven = listed::prove(wanted, disk, &mut self.findings, progress)?;
        self.coverage.listed_bytes = proven.files.as_ref().map(|used| used.matched_bytes);
        let of_packages =
            |used: &PackagesUsed| used.databases.iter().map(|d| d.matched_bytes).fold(0, u64::saturating_add);
        self.coverage.package_bytes = proven.packages.as_ref().map(of_packages);
        (self.files_used, self.packages_used) = (proven.files, proven.packages);
        Ok(())
    }

    /// The one pass over all of it; `None` where it broke off.
    fn pass(
        &mut self,
        volume: &Volume,
        tree: Option<TreeFile>,
        compare: &Option<Compare>,
        progress: &Progress,
    ) -> Result<Option<Through>> {
        let pass = Pass::new(tree, compare.as_ref(), volume.len());
        let mut hashers = Hashers::default();
        for wanted in &self.wanted {
            match wanted.of {
                Of::Plaintext => hashers.plaintext(wanted.algorithm, None),
                Of::Image => {
                    let file = |file: &Arc<Patient>| -> Arc<dyn ReadAt> { Arc::<Patient>::clone(file) };
                    let files = self.files.iter().map(file).collect();
                    hashers.image(wanted.algorithm, files, self.subject.passes_by);
                }
            }
        }
        let job = Job { volume, start: 0, len: None };
        let options = decrypt::Options { threads: self.threads, allow_truncated: true, drop_behind: false };
        let checks = self.image.checks();
        let (ran, compared) = std::thread::scope(|scope| {
            let compared = scope.spawn(|| catch_panic("comparing", || books::compare(checks, progress)));
            let ran = decrypt::run(&job, 0, &pass, &hashers, options, progress);
            (ran, compared.join().unwrap_or_else(|_| Err(Error::cancelled())))
        });
        self.take_compared(compared)?;
        let bytes = match ran.and_then(|bytes| hashers.results().map(|hashed| (bytes, hashed))) {
            Ok((bytes, hashed)) => {
                self.take_hashes(hashed, volume);
                bytes
            }
            Err(e) if !e.is(Condition::Output) && matches!(e.kind(), ErrorKind::Corrupt | ErrorKind::Io) => {
                let message = format!("the plaintext cannot all be read: {}", e.message());
                let finding = Finding::new(Severity::Error, "integrity.unreadable", "plaintext", message);
                self.findings.add(finding.at(e.offset()));
                self.note_bad(volume);
                return Ok(None);
            }
            Err(e) => return Err(e),
        };
        self.coverage.read_bytes = bytes;
        let passed = pass.finish(bytes)?;
        (self.coverage.zero_bytes, self.coverage.data_bytes) = (passed.zero, passed.data);
        self.note_bad(volume);
        self.note_unread(volume);
        self.check_expected();
        if let Some(compare) = compare {
            self.compared(compare, bytes, &passed);
        }
        Ok(Some(Through { bytes, passed }))
    }

    fn take_hashes(&mut self, hashed: Vec<Hashed>, volume: &Volume) {
        let is_whole = self.data.unread().is_none()
            && !volume.bad_sectors().runs().iter().any(|run| run.cause == Cause::Unreadable);
        let files_are_whole = self.files.iter().all(|file| file.unread().is_none());
        for Hashed { of, algorithm, hex } in hashed {
            match of {
                Of::Plaintext if is_whole => drop(self.hashes.plaintext.insert(algorithm.name().to_owned(), hex)),
                Of::Image if files_are_whole => {
                    self.hashes.image.entry(algorithm.name().to_owned()).or_default().push(hex)
                }
                Of::Plaintext | Of::Image => {}
            }
        }
    }

    /// Sectors whose tags are wrong, and a journal that was not replayed.
    fn note_bad(&mut self, volume: &Volume) {
        let bad = volume.bad_sectors();
        let runs = bad.runs();
        let bytes = runs.iter().fold(0u64, |sum, run| sum.saturating_add(run.len));
        let place = if self.subject.passes_by { judge::Place::Own } else { judge::Place::Within };
        // What cannot be read is said where it is read as it lies.
        let is_said = self.data.unread().is_some();
        let to_say = runs.iter().filter(|run| !(is_said && run.cause == Cause::Unreadable));
        self.findings.add_all(to_say.clone().map(|run| judge::of_bad(run, place)));
        let lost =
            to_say.filter(|run| run.cause == Cause::Unreadable).fold(0u64, |sum, run| sum.saturating_add(run.len));
        self.coverage.unreadable_bytes = self.coverage.unreadable_bytes.max(lost);
        self.findings.more = self.findings.more.saturating_add(bad.unlisted());
        if let Some(damage) = bad.journal_damage() {
            let message = format!("the journal is damaged, and the newest data of some sectors may be lost: {damage}");
            self.findings.add(Finding::new(Severity::Error, "integrity.journal", "journal", message));
        }
        if is_authenticated(self.image.metadata()) {
            let lost = bytes.saturating_add(bad.unlisted().saturating_mul(u64::from(volume.sector_size())));
            self.coverage.authenticated_bytes = self.coverage.read_bytes.saturating_sub(lost);
        }
    }

    /// Bytes that could not be read.
    fn note_unread(&mut self, volume: &Volume) {
        let files = self.files.iter().enumerate().filter(|_| !self.subject.passes_by);
        let files = files.filter_map(|(n, file)| Some((format!("file {}", n.saturating_add(1)), file.unread()?)));
        let data = self.data.unread().map(|unread| ("data".to_owned(), unread));
        for (n, (structure, unread)) in data.into_iter().chain(files).enumerate() {
            self.coverage.unreadable_bytes = self.coverage.unreadable_bytes.max(unread.bytes);
            let code = if unread.is_damage { "format.damaged" } else { "file.unreadable" };
            let of_data = n == 0 && structure == "data";
            self.findings.add_all(unread.ranges.iter().map(|range| {
                let len = range.end.saturating_sub(range.start);
                let message =
                    format!("{len} bytes from byte {} on cannot be read: {}", range.start, escape(&unread.error));
                let plaintext = if of_data { places::in_plaintext(volume, range) } else { None };
                Finding::new(Severity::Error, code, structure.as_str(), message)
                    .at(Some(range.start))
                    .at_plaintext(plaintext)
            }));
        }
    }

    /// The hashes that must come out.
    fn check_expected(&mut self) {
        if let Some(why) = self.not_compared {
            let message = format!("the image was not compared: {why}");
            self.findings.add(Finding::new(Severity::Warning, "file.not-compared", "image", message));
        }
        for expected in self.expected {
            let name = expected.algorithm.name();
            let made = match expected.of {
                Of::Plaintext => self.hashes.plaintext.get(name),
                Of::Image => self.hashes.image.get(name).filter(|all| all.len() == 1).and_then(|all| all.first()),
            };
            let (code, what) = match expected.of {
                Of::Plaintext => ("plaintext.hash", "plaintext"),
                Of::Image => ("file.hash", "image"),
            };
            match made {
                Some(made) if *made == expected.hex => {
                    if expected.of == Of::Image {
                        self.coverage.hashed_bytes = self.files.iter().fold(0, |n: u64, f| n.saturating_add(f.len()));
                    } else {
                        self.coverage.compared_bytes = self.coverage.read_bytes;
                    }
                }
                Some(made) => {
                    let by = &expected.by;
                    let message = format!("the {what}'s {name} is {made}; by {by} it was {}", expected.hex);
                    let finding = Finding::new(Severity::Error, code, what, message);
                    self.findings.add(finding.says(made, &expected.hex));
                }
                // What is in several files has no hash as one; what could not be read is an error already.
                None if self.files.iter().all(|file| file.unread().is_none()) => {
                    let message =
                        format!("the {name} by {} was not compared: the image is in several files", expected.by);
                    self.findings.add(Finding::new(Severity::Warning, "file.not-compared", what, message));
                }
                None => {}
            }
        }
    }

    fn compared(&mut self, compare: &Compare, bytes: u64, passed: &Passed) {
        let (ranges, differing) = &passed.differences;
        if compare.size() != bytes {
            let message = format!("the plaintext has {bytes} bytes; what it is compared with has {}", compare.size());
            let finding = Finding::new(Severity::Error, "plaintext.size-differs", "plaintext", message);
            self.findings.add(finding.says(bytes, compare.size()));
        }
        let leaves = matches!(compare, Compare::Tree(_));
        self.findings.add_all(ranges.iter().map(|range| {
            let within = if leaves { "somewhere in the " } else { "" };
            let len = range.end.saturating_sub(range.start);
            let message = format!(
                "the plaintext is another one than it is compared with, {within}{len} bytes from byte {} on ({} in all)",
                range.start,
                judge::places(ranges, *differing)
            );
            Finding::new(Severity::Error, "plaintext.differs", "plaintext", message).at_plaintext(Some(range.start))
        }));
        self.coverage.compared_bytes = bytes.min(compare.size()).saturating_sub(*differing);
    }

    fn report(
        mut self,
        volume: Option<&Volume>,
        contents: Option<&Contents>,
        through: Option<Through>,
        clock: &Clock,
    ) -> Report {
        let metadata = self.image.metadata();
        if let Some(volume) = volume.filter(|_| self.subject.passes_by) {
            places::of_plaintext(volume, &mut self.findings.list);
        }
        self.hashes.tree =
            through.as_ref().map(|t| t.passed.tree.clone()).filter(|_| !self.hashes.plaintext.is_empty());
        let (verdict, reason) = self.findings.verdict();
        let whole = self.coverage.plaintext_bytes == Some(self.coverage.read_bytes) && self.coverage.read_bytes > 0;
        let all = |bytes: u64| whole && bytes >= self.coverage.read_bytes;
        let c = &self.coverage;
        let by_contents = whole && c.unchecked_bytes == Some(0) && c.checksummed_bytes.is_some_and(|bytes| bytes > 0);
        let by_manifest = self.files_used.as_ref().is_some_and(FilesUsed::is_all);
        // What is cut off, or hangs on a damaged structure, is not among the bytes that are there.
        let has_error =
            |layer: &str| self.findings.list.iter().any(|f| f.severity == Severity::Error && f.code.starts_with(layer));
        self.coverage.file_data_proven = !has_error("length.")
            && (all(c.authenticated_bytes)
                || all(c.compared_bytes)
                || (whole && (c.hashed_bytes > 0 || self.is_as_recorded()))
                || (by_contents && !has_error("contents."))
                || by_manifest);
        self.coverage.statements =
            words::statements(&self.coverage, self.files_used.as_ref(), self.packages_used.as_ref());
        let is_unencrypted = self.image.is_unencrypted();
        if is_unencrypted {
            self.coverage.statements.insert(0, unencrypted::STATEMENT.to_owned());
        }
        let size = self.files.iter().fold(0, |sum: u64, file| sum.saturating_add(file.len()));
        let policy = self.policy.map(|(policy, _)| policy.used(&self.findings.list));
        let key = KeyUsed {
            keyslots: self.subject.unlocked.opened().iter().map(|o| o.keyslot).collect(),
            forms: self.subject.forms.clone(),
        };
        let says = |stage| match stage {
            StageName::File => {
                format!("{size} bytes{}", if self.coverage.hashed_bytes > 0 { ", as recorded" } else { "" })
            }
            StageName::Layers => words::layers(self.image),
            StageName::Header if is_unencrypted => "none: it is not encrypted".into(),
            StageName::Header => words::header(self.image),
            StageName::Key if is_unencrypted => "none is needed".into(),
            StageName::Key => words::keyslots(&key),
            StageName::Length => match volume {
                Some(volume) => format!("{} bytes of plaintext", volume.len()),
                None => "no plaintext".into(),
            },
            StageName::Integrity if is_authenticated(metadata) => {
                format!("{} bytes are authenticated", self.coverage.authenticated_bytes)
            }
            StageName::Integrity => report::UNAUTHENTICATED.into(),
            StageName::Contents => contents.map_or("not looked at".into(), ToString::to_string),
            StageName::Plaintext => match &through {
                Some(t) => format!("{} bytes read, {} of them zero", t.bytes, t.passed.zero),
                None => "not all of it was read".into(),
            },
        };
        let mut stages: Vec<Stage> = StageName::ALL.into_iter().map(|s| self.findings.stage(s, says(s))).collect();
        if through.is_none() {
            stages.last_mut().into_iter().for_each(|last| last.result = Outcome::NotReached);
        }
        debug_assert!(through.is_some() || self.findings.has_error());
        Report {
            schema: SCHEMA,
            verdict,
            reason,
            image: ImageFile { path: self.subject.path.clone(), size: Some(size) },
            container: (!is_unencrypted).then(|| Container::of(metadata)),
            policy,
            stages,
            key: (!is_unencrypted).then_some(key),
            files: self.files_used,
            packages: self.packages_used,
            findings: self.findings.list,
            more_findings: self.findings.more,
            coverage: self.coverage,
            hashes: self.hashes,
            map: through.map(|through| through.passed.map),
            layers: self.image.layers().to_vec(),
            run: clock.run(),
        }
    }
}
