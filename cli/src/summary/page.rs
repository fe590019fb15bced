//! A summary of many images as a page: one file that asks for nothing and runs nothing, as the page of one image is.

use std::time::SystemTime;

use askama::Template;
use unluks::backup::rfc3339;
use unluks::error::{counted, visible};
use unluks::verify::Verdict;
use unluks::verify::fleet::{Fleet, Proof};
use unluks::{Error, Result};

use crate::page::Frame;

const BEGINS: &str = "<!DOCTYPE html>\n<!-- unluks verify --batch -->";
const DAY: u64 = 86_400;

#[derive(Template)]
#[template(path = "fleet.html")]
struct Page {
    frame: Frame,
    program: String,
    made_at: String,
    oldest: Option<String>,
    count: String,
    headline: String,
    class: &'static str,
    counts: Vec<(&'static str, String)>,
    superseded: u64,
    images: Vec<Row>,
}

struct Row {
    class: &'static str,
    verdict: &'static str,
    path: String,
    size: Option<u64>,
    reason: String,
    verified_at: String,
    age: String,
    findings: String,
    report: String,
    plaintext: String,
}

/// The page, as of a moment.
pub fn render(fleet: &Fleet, now: SystemTime) -> Result<String> {
    let mut images: Vec<&Proof> = fleet.images.iter().collect();
    images.sort_by_key(|proof| rank(proof.verdict));
    let worst = images.first().map_or(Some(Verdict::Restorable), |proof| proof.verdict);
    let not_sound = images.iter().filter(|proof| rank(proof.verdict) < 3).count();
    let headline = match not_sound {
        0 if images.is_empty() => "There are none".to_owned(),
        0 => "All of them restore".to_owned(),
        n => format!("{n} of {} are not proven to restore", images.len()),
    };
    let count = |name: &str, count: u64| {
        let known = [Verdict::Restorable, Verdict::RestorableWithFindings, Verdict::NotRestorable, Verdict::WrongKey];
        let verdict = known.into_iter().find(|verdict| verdict.name() == name);
        (word(verdict).0, format!("{count} {}", word(verdict).1))
    };
    let page = Page {
        frame: Frame::of(BEGINS),
        program: format!("unluks {}", env!("CARGO_PKG_VERSION")),
        made_at: rfc3339(now),
        oldest: images.iter().filter_map(|proof| proof.verified_at.as_deref()).min().map(visible),
        count: counted(images.len(), "image"),
        headline,
        class: word(worst).0,
        counts: fleet.counts.iter().map(|(name, n)| count(name, *n)).collect(),
        superseded: fleet.superseded,
        images: images.into_iter().map(|proof| row(proof, now)).collect(),
    };
    let text = page.render().map_err(|e| Error::invalid(format!("writing the page: {e}")))?;
    Ok(text + "\n")
}

/// What somebody has to see to is first.
fn rank(verdict: Option<Verdict>) -> u8 {
    match verdict {
        Some(Verdict::NotRestorable) => 0,
        Some(Verdict::WrongKey) => 1,
        None => 2,
        Some(Verdict::RestorableWithFindings) => 3,
        Some(Verdict::Restorable) => 4,
    }
}

fn word(verdict: Option<Verdict>) -> (&'static str, &'static str) {
    match verdict {
        Some(Verdict::Restorable) => ("good", "restorable"),
        Some(Verdict::RestorableWithFindings) => ("some", "restorable with findings"),
        Some(Verdict::NotRestorable) => ("bad", "not restorable"),
        Some(Verdict::WrongKey) => ("bad", "wrong key"),
        None => ("bad", "no report"),
    }
}

fn row(proof: &Proof, now: SystemTime) -> Row {
    let text = |text: &Option<String>| text.as_deref().map(visible).unwrap_or_default();
    let (class, verdict) = word(proof.verdict);
    Row {
        class,
        verdict,
        path: visible(&proof.path),
        size: proof.size,
        reason: text(&proof.reason),
        // Between date and time a line may break.
        verified_at: text(&proof.verified_at).replacen('T', " ", 1),
        age: proof.verified_at.as_deref().map_or(String::new(), |at| age(at, now)),
        findings: if proof.verdict.is_some() {
            format!("{}, {}", counted(proof.errors, "error"), counted(proof.warnings, "warning"))
        } else {
            String::new()
        },
        report: text(&proof.report),
        plaintext: text(&proof.plaintext_sha256),
    }
}

/// How long ago a moment was, in whole days. Moments of this one form are in the order of their texts.
fn age(at: &str, now: SystemTime) -> String {
    let is_before = |days: u64| {
        let then = now.checked_sub(std::time::Duration::from_secs(days * DAY));
        then.is_some_and(|then| at <= rfc3339(then).as_str())
    };
    // The most days that can have passed since 1970.
    let (mut low, mut high) = (0, 36_525);
    if !is_before(0) {
        return "its time is still to come".into();
    }
    while high - low > 1 {
        let middle = low + (high - low) / 2;
        if is_before(middle) {
            low = middle;
        } else {
            high = middle;
        }
    }
    if low == 0 { "less than a day old".into() } else { format!("{} old", counted(low, "day")) }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_worst_is_first_and_hostile_names_are_text() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        let hostile = "<b onload=\"x\">\u{202e}gnp.img";
        let mut sound = Proof::missing("a.img", "no report");
        (sound.verdict, sound.reason) = (Some(Verdict::Restorable), None);
        sound.verified_at = Some(rfc3339(now - Duration::from_secs(3 * DAY + 5)));
        let page = render(&Fleet::new(vec![sound, Proof::missing(hostile, "no report")]), now).unwrap();
        assert!(!page.contains("<b onload") && !page.contains('\u{202e}'), "{page}");
        let (lost, proven) = (page.find("gnp.img").unwrap(), page.find("a.img").unwrap());
        assert!(
            lost < proven && page.contains("3 days old") && page.contains("1 of 2 are not proven to restore"),
            "{page}"
        );
        assert!(page.contains("1 no report") && page.contains("1 restorable"), "{page}");
    }

    #[test]
    fn ages_are_whole_days() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        let of = |seconds: u64| age(&rfc3339(now - Duration::from_secs(seconds)), now);
        assert_eq!(
            (of(10), of(DAY), of(400 * DAY + 9)),
            ("less than a day old".into(), "1 day old".into(), "400 days old".into())
        );
        assert_eq!(age(&rfc3339(now + Duration::from_secs(5)), now), "its time is still to come");
    }
}
