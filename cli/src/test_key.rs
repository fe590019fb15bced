//! `unluks test-key`: whether a key opens, without a byte of the data.

use std::io::Write;
use std::process::ExitCode;

use serde::Serialize;
use unluks::luks::metadata::{KeyslotKind, Priority};
use unluks::luks::unlock::UnlockOptions;
use unluks::{Error, ErrorKind, Result};

use crate::args::TestKeyArgs;
use crate::hint;
use crate::key::{self, Material, Saying};
use crate::open::Opened;
use crate::source::{is_dash, shown};

/// What is said of an image. Its names are those of `--json`.
#[derive(Serialize)]
struct Report {
    image: String,
    opens: bool,
    keyslots: Vec<Slot>,
    /// Why it stays closed.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

#[derive(Serialize)]
struct Slot {
    keyslot: u32,
    result: Answer,
    /// What was done to the key to open it.
    #[serde(skip_serializing_if = "Option::is_none")]
    rule: Option<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Answer {
    Opens,
    DoesNotOpen,
    /// It has priority 0, and was not named; or it holds no volume key.
    NotTried,
    /// It cannot be tried: over a limit, damaged, or unknown.
    CannotBeTried,
}

impl Answer {
    fn words(self) -> &'static str {
        match self {
            Self::Opens => "opens",
            Self::DoesNotOpen => "does not open",
            Self::NotTried => "not tried",
            Self::CannotBeTried => "cannot be tried",
        }
    }
}

/// Tests the key; `exit_code` is that of an error.
pub fn run(args: &TestKeyArgs, exit_code: impl Fn(&Error) -> ExitCode) -> Result<ExitCode> {
    key::check(&args.key, stdin_is_image(args))?;
    // The key is read once, and asked for once.
    let mut shared = None;
    let (mut all_open, mut worst) = (true, None);
    for image in &args.images {
        let (report, error) = match test(args, image, &mut shared) {
            Ok(tested) => tested,
            Err(e) => (closed(shown(image), Vec::new(), &e), Some(e)),
        };
        let mut out = std::io::stdout().lock();
        let line = if args.json { json(&report)? } else { text(&report) };
        writeln!(out, "{line}").map_err(|e| Error::io("writing to the standard output", e))?;
        all_open &= report.opens;
        // That an image cannot be looked at is worse than that a key is wrong.
        worst = match (worst, error) {
            (Some(worst), _) => Some(worst),
            (None, Some(e)) if e.kind() != ErrorKind::WrongKey => Some(e),
            (None, _) => None,
        };
    }
    match worst {
        Some(e) => Ok(exit_code(&e)),
        None if all_open => Ok(ExitCode::SUCCESS),
        None => Ok(ExitCode::from(3)),
    }
}

fn test(args: &TestKeyArgs, image: &std::path::Path, shared: &mut Option<Material>) -> Result<(Report, Option<Error>)> {
    let opened = Opened::open(&mut args.source(image))?;
    let own = match &opened.backup {
        // A backup's own key is of no other image.
        Some(_) => Some(key::asked(key::read(&args.key, stdin_is_image(args), opened.backup.as_ref())?, image)?),
        None => None,
    };
    let material = match &own {
        Some(own) => own,
        None => match shared {
            Some(shared) => shared,
            none => none.insert(key::asked(key::read(&args.key, stdin_is_image(args), None)?, image)?),
        },
    };
    let options = key::options(false, &args.key, &args.limits);
    let saying = Saying { image: shown(image), quiet: true };
    let unlocked = key::unlock(&opened.image, material, &options, &saying);
    let Material::Passphrases(given) = material else {
        return Ok(answer(image, Vec::new(), unlocked.map(|_| ())));
    };
    let rule = |n: usize| given.key.candidates().get(n).map(|c| c.rule.describe());
    let mut slots = Vec::new();
    for (id, keyslot) in &opened.image.metadata().keyslots {
        let is_meant = match args.key.key_slot {
            Some(named) => named == *id,
            None => matches!(keyslot.priority, Priority::Normal | Priority::Prefer),
        };
        let one = UnlockOptions { keyslot: Some(*id), ..options.clone() };
        let first = unlocked.as_ref().map(|u| u.opened().iter().find(|o| o.keyslot == *id));
        let (result, rule) = match first {
            _ if !is_meant || !matches!(keyslot.kind, KeyslotKind::Luks2(_)) => (Answer::NotTried, None),
            Ok(Some(opened)) => (Answer::Opens, rule(opened.candidate)),
            // One that opened was enough to open the image: what of the others?
            Ok(None) => match opened.image.unlock(&given.key, &one) {
                Ok(u) => (Answer::Opens, u.opened().first().and_then(|o| rule(o.candidate))),
                Err(e) if e.kind() == ErrorKind::WrongKey => (Answer::DoesNotOpen, None),
                Err(_) => (Answer::CannotBeTried, None),
            },
            Err(e) if e.kind() == ErrorKind::WrongKey => (Answer::DoesNotOpen, None),
            Err(_) => (Answer::CannotBeTried, None),
        };
        slots.push(Slot { keyslot: *id, result, rule });
    }
    Ok(answer(image, slots, unlocked.map(|_| ())))
}

fn answer(image: &std::path::Path, keyslots: Vec<Slot>, unlocked: Result<()>) -> (Report, Option<Error>) {
    match unlocked {
        Ok(()) => (Report { image: shown(image), opens: true, keyslots, error: None }, None),
        Err(e) => (closed(shown(image), keyslots, &e), Some(e)),
    }
}

fn stdin_is_image(args: &TestKeyArgs) -> bool {
    args.images.iter().any(|image| is_dash(image))
}

fn closed(image: String, keyslots: Vec<Slot>, e: &Error) -> Report {
    Report { image, opens: false, keyslots, error: Some(hint::line(e)) }
}

fn json(report: &Report) -> Result<String> {
    serde_json::to_string(report).map_err(|e| Error::invalid(format!("writing JSON: {e}")))
}

fn text(report: &Report) -> String {
    let mut line = format!("{}: {}", report.image, if report.opens { "opens" } else { "stays closed" });
    for (n, slot) in report.keyslots.iter().enumerate() {
        let rule = slot.rule.as_ref().map_or(String::new(), |rule| format!(" ({rule})"));
        let before = if n == 0 { ": " } else { ", " };
        line += &format!("{before}keyslot {} {}{rule}", slot.keyslot, slot.result.words());
    }
    if let Some(error) = &report.error {
        line += &format!("; {error}");
    }
    line
}
