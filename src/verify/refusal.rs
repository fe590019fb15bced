//! The reports of images that could not be opened, and when a run began.

use std::time::{Instant, SystemTime};

use super::judge::{self, Findings};
use super::record::Run;
use super::report::{Container, Coverage, Hashes, ImageFile, Outcome, Report, SCHEMA, Stage, StageName, Verdict};
use crate::backup::rfc3339;
use crate::error::{Error, ErrorKind};
use crate::image::Image;

/// When a run began.
pub struct Clock(SystemTime, Instant);

impl Clock {
    pub fn start() -> Self {
        Self(SystemTime::now(), Instant::now())
    }

    pub fn run(&self) -> Run {
        let (tool, version) = ("unluks".to_owned(), env!("CARGO_PKG_VERSION").to_owned());
        let millis = crate::num::saturated(self.1.elapsed().as_millis());
        let seconds = std::time::Duration::from_millis(millis).as_secs_f64();
        let (started_at, ended_at) = (rfc3339(self.0), rfc3339(SystemTime::now()));
        Run { tool, version, started_at, ended_at, seconds, ..Run::default() }
    }
}

/// What a key that opens nothing does not say.
const NO_KEYSLOT: &str = "Whether it is another key, or the area of the keyslot that it opened is damaged, nothing tells apart: a header \
                          backup may.";

impl Report {
    /// The report of an image that could not be opened; `None` where that is no fault of the image's or the key's, so that
    /// nothing is known of it. `image` is there where its header was read.
    pub fn of_refusal(path: &str, image: Option<&Image>, e: &Error) -> Option<Self> {
        let mut findings = Findings::default();
        if let Some(image) = image {
            let found = image.report(std::path::Path::new(path), None);
            findings.add_all(judge::of_header(&found.findings, image.metadata(), None));
        }
        if e.kind() == ErrorKind::WrongKey {
            let (verdict, why) = findings.verdict();
            let message = e.message().to_owned();
            // Where no key can open it any more, it is not the key that is wrong.
            return Some(match verdict {
                Verdict::NotRestorable => Self::closed(path, image, findings, (verdict, why), StageName::Key),
                _ => Self::closed(path, image, findings, (Verdict::WrongKey, Some(message)), StageName::Key),
            });
        }
        let finding = judge::of_error(e)?;
        let stage = StageName::of(&finding.code);
        let why = finding.message.clone();
        findings.add(finding);
        findings.verdict();
        Some(Self::closed(path, image, findings, (Verdict::NotRestorable, Some(why)), stage))
    }

    fn closed(
        path: &str,
        image: Option<&Image>,
        findings: Findings,
        (verdict, reason): (Verdict, Option<String>),
        reached: StageName,
    ) -> Self {
        let stage = |stage: StageName| {
            if stage > reached {
                let says = "not reached".into();
                return Stage { stage, result: Outcome::NotReached, says };
            }
            let mut outcome = findings.stage(stage, String::new());
            if stage == reached {
                (outcome.result, outcome.says) = (Outcome::Failed, reason.clone().unwrap_or_default());
            }
            outcome
        };
        let mut statements = vec!["Nothing of the plaintext was read.".to_owned()];
        if verdict == Verdict::WrongKey {
            statements.push(NO_KEYSLOT.to_owned());
        }
        Self {
            schema: SCHEMA,
            verdict,
            stages: StageName::ALL.into_iter().map(stage).collect(),
            reason,
            image: ImageFile { path: path.to_owned(), size: image.map(|image| image.file().len()) },
            container: image.map(|image| Container::of(image.metadata())),
            policy: None,
            key: None,
            files: None,
            packages: None,
            findings: findings.list,
            more_findings: findings.more,
            coverage: Coverage { contents: "none".into(), statements, ..Coverage::default() },
            hashes: Hashes::default(),
            output: None,
            map: None,
            layers: image.map_or(Vec::new(), |image| image.layers().to_vec()),
            run: Clock::start().run(),
        }
    }
}
