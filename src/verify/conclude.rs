//! What the stages came to: bytes that were lost, what lies behind file systems, an output that was read back; and the report.

use super::behind::{self, Behind};
use super::container::is_authenticated;
use super::pass::{Compare, Passed};
use super::refusal::Clock;
use super::report::{
    Container, FilesUsed, Finding, ImageFile, KeyUsed, Outcome, Output, Report, SCHEMA, Severity, Stage, StageName,
};
use super::{Through, Work, judge, places, unencrypted, words};
use crate::decrypt::hash::{Algorithm, Hashed, Of};
use crate::error::escape;
use crate::inside::Contents;
use crate::io::ReadAt;
use crate::volume::{BadSectorPolicy, Cause, Volume};

impl Work<'_> {
    /// What lies behind file systems.
    pub(super) fn take_behind(&mut self, all: Vec<Behind>) {
        let (findings, data) = behind::findings(all);
        self.findings.add_all(findings);
        self.coverage.behind_data_bytes = self.coverage.behind_bytes.map(|_| data);
    }

    /// The output that the plaintext was compared with.
    pub(super) fn read_back(
        &self,
        path: &str,
        output: &Compare,
        bytes: u64,
        lost: u64,
        passed: &Passed,
        hashed: &[Hashed],
    ) -> Output {
        let read_back = output.size() == bytes && passed.differences.1 == 0;
        let sha256 = hashed.iter().find(|hash| hash.of == Of::Plaintext && hash.algorithm == Algorithm::Sha256);
        let stand_in = if self.bad_sectors == BadSectorPolicy::Zero { "zeroes" } else { "noise" };
        Output {
            path: path.to_owned(),
            bytes: output.size(),
            sha256: sha256.filter(|_| read_back).map(|hash| hash.hex.clone()),
            read_back,
            stand_in_bytes: lost,
            stand_in: (lost > 0).then(|| stand_in.into()),
        }
    }

    /// Sectors whose tags are wrong, and a journal that was not replayed.
    pub(super) fn note_bad(&mut self, volume: &Volume, passed: u64) {
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
            self.coverage.authenticated_bytes = passed.saturating_sub(lost).min(self.coverage.read_bytes);
        }
    }

    /// Bytes that could not be read.
    pub(super) fn note_unread(&mut self, volume: &Volume) {
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

    /// The report, when all stages are through.
    pub(super) fn report(
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
        let read_back = self.output.as_ref().map(words::of_output);
        self.coverage.statements.extend(read_back);
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
            StageName::Integrity => super::report::UNAUTHENTICATED.into(),
            StageName::Contents => contents.map_or("not looked at".into(), ToString::to_string),
            StageName::Plaintext => match &through {
                Some(Through { bytes, lost, passed }) if *lost > 0 => {
                    let read = bytes.saturating_sub(*lost);
                    format!("{read} of {bytes} bytes read, {} of them zero; {lost} were not read", passed.zero)
                }
                Some(t) => format!("{} bytes read, {} of them zero", t.bytes, t.passed.zero),
                None => "not all of it was read".into(),
            },
        };
        let mut stages: Vec<Stage> = StageName::ALL.into_iter().map(|s| self.findings.stage(s, says(s))).collect();
        for stage in stages.iter_mut().filter(|stage| stage.result == Outcome::Ok) {
            let is_of_nothing = match stage.stage {
                StageName::Integrity => !is_authenticated(metadata),
                StageName::Header | StageName::Key => is_unencrypted,
                _ => false,
            };
            if is_of_nothing {
                stage.result = Outcome::None;
            }
        }
        if through.as_ref().is_some_and(|through| through.lost > 0) {
            stages.last_mut().into_iter().for_each(|last| last.result = Outcome::Failed);
        }
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
            output: self.output,
            map: through.map(|through| through.passed.map),
            layers: self.image.layers().to_vec(),
            run: clock.run(),
        }
    }
}
