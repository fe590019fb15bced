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

mod behind;
mod books;
mod conclude;
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
mod output;
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
mod unread;
mod words;

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::SystemTime;

use crate::decrypt::hash::{Algorithm, Hashed, Hashers, Of, Wanted};
use crate::decrypt::{self, Job};
use crate::error::{Condition, Error, ErrorKind, Result, catch_panic};
use crate::image::{Image, UnlockedImage};
use crate::inside::{Contents, Level};
use crate::io::ReadAt;
use crate::progress::Progress;
use crate::volume::{BadSectorPolicy, Volume, VolumeOptions};
use behind::Behind;
use judge::Findings;
use pass::{Around, Pass, Passed};
use patient::Patient;
use refusal::Clock;
use unread::Plaintext;

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
    /// The path of what it is compared with, where that is the output of its decryption: then it is read back, which proves
    /// nothing of the image.
    pub output: Option<String>,
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
        Some(volume) => {
            let behind = contents.as_ref().map_or(Vec::new(), |contents| behind::of(contents, volume.len()));
            work.pass(volume, behind, tree, &options.compare, progress)?
        }
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
    output_path: Option<&'a str>,
    output: Option<Output>,
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
    /// Bytes of these that stand for what could not be read.
    lost: u64,
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
            output_path: options.output.as_deref(),
            output: None,
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
            // What stands in is to be the same as in the output.
            _ if self.output_path.is_some() => (Arc::clone(self.image.data()), BadSectorPolicy::Report),
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
        let behind = behind::bytes(&behind::of(&contents, volume.len()));
        self.coverage.behind_bytes = Some(behind);
        // It is free of the file system, but none of its own.
        let free = &mut self.coverage.free_bytes;
        *free = free.map(|free| free.saturating_sub(behind));
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
        // What stands for bytes that could not be read is no file's.
        let disk: Arc<dyn ReadAt> = Arc::new(self.plaintext(volume));
        let proven = listed::prove(wanted, disk, &mut self.findings, progress)?;
        self.coverage.listed_bytes = proven.files.as_ref().map(|used| used.matched_bytes);
        let of_packages =
            |used: &PackagesUsed| used.databases.iter().map(|d| d.matched_bytes).fold(0, u64::saturating_add);
        self.coverage.package_bytes = proven.packages.as_ref().map(of_packages);
        (self.files_used, self.packages_used) = (proven.files, proven.packages);
        Ok(())
    }

    fn plaintext(&self, volume: &Arc<Volume>) -> Plaintext {
        Plaintext { volume: Arc::clone(volume), data: Arc::clone(&self.data) }
    }

    /// The one pass over all of it; `None` where it broke off.
    fn pass(
        &mut self,
        volume: &Arc<Volume>,
        behind: Vec<Behind>,
        tree: Option<TreeFile>,
        compare: &Option<Compare>,
        progress: &Progress,
    ) -> Result<Option<Through>> {
        let plaintext = self.plaintext(volume);
        let unread = |range| plaintext.unread(range);
        let around = Around { unread: &unread, behind, compares_unread: self.output_path.is_some() };
        let pass = Pass::new(tree, compare.as_ref(), around, volume.len());
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
        let (bytes, hashed) = match ran.and_then(|bytes| hashers.results().map(|hashed| (bytes, hashed))) {
            Ok(done) => done,
            Err(e) if !e.is(Condition::Output) && matches!(e.kind(), ErrorKind::Corrupt | ErrorKind::Io) => {
                let message = format!("the plaintext cannot all be read: {}", e.message());
                let finding = Finding::new(Severity::Error, "integrity.unreadable", "plaintext", message);
                self.findings.add(finding.at(e.offset()));
                self.note_bad(volume, 0);
                return Ok(None);
            }
            Err(e) => return Err(e),
        };
        let mut passed = pass.finish(bytes)?;
        // Of what could not be placed in the plaintext, no more is known than how much it is.
        let unplaced = self.data.unread().map_or(0, |unread| unread.bytes.min(bytes));
        let lost = if passed.unread > 0 { passed.unread } else { unplaced };
        self.coverage.read_bytes = bytes.saturating_sub(lost);
        (self.coverage.zero_bytes, self.coverage.data_bytes) = (passed.zero, passed.data);
        self.take_behind(std::mem::take(&mut passed.behind));
        if let (Some(path), Some(compare)) = (self.output_path, compare) {
            self.output = Some(self.read_back(path, compare, bytes, lost, &passed, &hashed));
        }
        self.take_hashes(hashed, lost == 0);
        self.note_bad(volume, bytes);
        self.note_unread(volume);
        self.check_expected();
        if let Some(compare) = compare {
            self.compared(compare, bytes, lost, &passed);
        }
        Ok(Some(Through { bytes, lost, passed }))
    }

    fn take_hashes(&mut self, hashed: Vec<Hashed>, is_whole: bool) {
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

    fn compared(&mut self, compare: &Compare, bytes: u64, lost: u64, passed: &Passed) {
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
        if self.output_path.is_none() {
            let same = bytes.min(compare.size()).saturating_sub(*differing);
            self.coverage.compared_bytes = same.saturating_sub(lost);
        }
    }
}
