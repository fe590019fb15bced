//! The passphrases that saved bytes may stand for.
//!
//! First the *views*: the bytes as they are, and what may be left of them without a mark, a newline, or what a client
//! printed around a payload. Of each view, the *forms*: itself, hexlified, decoded, in other letters. What cannot be is
//! left out (hex of what is no hex), what came out twice is tried once, and all are put in the order of their rank.

use super::rule::{KeyRule, Step};
use super::{Candidate, codec, payload, qnap, recovery, text};
use crate::error::Result;
use crate::limits::{KEY_FORMS_MAX, KEY_TEXT_MAX};
use crate::secret::{Passphrase, SecretBytes};

/// How likely a form is; the likeliest is the least.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    /// What was saved, or its line.
    Itself,
    /// What has a shape that hardly anything else has.
    Known,
    /// As OpenStack has it.
    Hexlified,
    /// The same text in other bytes.
    Text,
    /// What is seldom, and could be of any bytes.
    Seldom,
}

struct View {
    rule: KeyRule,
    bytes: SecretBytes,
    rank: Rank,
}

#[derive(Default)]
struct Forms(Vec<(Rank, Candidate)>);

/// All forms of `saved`, the likeliest first: [`KEY_FORMS_MAX`] at most, the bytes as they are among them.
pub(super) fn candidates(saved: &[u8]) -> Result<Vec<Candidate>> {
    let mut forms = Forms::default();
    for view in views(saved)? {
        forms.of(&view)?;
    }
    forms.0.sort_by_key(|(rank, _)| *rank);
    let mut all: Vec<Candidate> = Vec::new();
    for (_, form) in forms.0 {
        if all.len() < KEY_FORMS_MAX && all.iter().all(|c| c.passphrase.expose() != form.passphrase.expose()) {
            all.push(form);
        }
    }
    Ok(all)
}

fn views(saved: &[u8]) -> Result<Vec<View>> {
    let mut views = Vec::new();
    let mut add = |rule: &KeyRule, bytes: &[u8], rank: Rank| -> Result<()> {
        views.push(View { rule: rule.clone(), bytes: SecretBytes::copy_of(bytes)?, rank });
        Ok(())
    };
    let as_is = KeyRule::default();
    add(&as_is, saved, Rank::Itself)?;
    let (mut rule, mut decoded) = (as_is, None);
    if saved.len() <= KEY_TEXT_MAX {
        if let Some(text) = text::utf16(saved)? {
            (rule, decoded) = (rule.then(Step::FromUtf16), Some(text));
        } else if let Some(text) = saved.strip_prefix("\u{feff}".as_bytes()) {
            (rule, decoded) = (rule.then(Step::WithoutMark), Some(SecretBytes::copy_of(text)?));
        }
    }
    let whole = decoded.as_ref().map_or(saved, SecretBytes::expose);
    if decoded.is_some() {
        add(&rule, whole, Rank::Itself)?;
    }
    let line = text::without_newline(whole);
    if line.len() < whole.len() {
        add(&rule.then(Step::WithoutNewline), line, Rank::Itself)?;
    }
    if saved.len() > KEY_TEXT_MAX {
        return Ok(views);
    }
    let Some(printable) = text::printable(whole) else {
        return Ok(views);
    };
    let trimmed = printable.trim();
    if let Some((step, value)) = payload::find(trimmed)? {
        let rule = rule.then(step);
        add(&rule, value.expose(), Rank::Itself)?;
        if let Some(bytes) = text::printable(value.expose()).map(payload::python_bytes).transpose()?.flatten() {
            add(&rule.then(Step::PythonBytes), bytes.expose(), Rank::Itself)?;
        }
    } else if let Some(bytes) = payload::python_bytes(trimmed)? {
        add(&rule.then(Step::PythonBytes), bytes.expose(), Rank::Itself)?;
    }
    if trimmed.len() < line.len() {
        add(&rule.then(Step::Trimmed), trimmed.as_bytes(), Rank::Text)?;
    }
    if let Some(first) = text::first_line(whole).filter(|first| first.len() < line.len()) {
        add(&rule.then(Step::FirstLine), first, Rank::Text)?;
    }
    if let Some(lines) = text::line_feeds(whole)? {
        add(&rule.then(Step::LineFeeds), lines.expose(), Rank::Text)?;
    }
    Ok(views)
}

impl Forms {
    fn add(&mut self, view: &View, rank: Rank, steps: &[Step], bytes: SecretBytes) {
        let rule = steps.iter().fold(view.rule.clone(), |rule, step| rule.then(*step));
        // What is seldom of a seldom view is not more likely for it.
        self.0.push((rank.max(view.rank), Candidate { rule, passphrase: Passphrase(bytes) }));
    }

    fn of(&mut self, view: &View) -> Result<()> {
        let bytes = view.bytes.expose();
        self.add(view, Rank::Itself, &[], SecretBytes::copy_of(bytes)?);
        self.add(view, Rank::Hexlified, &[Step::Hexlified], codec::hexlify(bytes)?);
        if bytes.len() > KEY_TEXT_MAX {
            return Ok(());
        }
        if let Some(text) = text::printable(bytes) {
            self.of_text(view, text)?;
            self.of_letters(view, text)?;
        } else if std::str::from_utf8(bytes).is_err() {
            self.of_one_byte_letters(view)?;
        }
        self.add(view, Rank::Seldom, &[Step::Base64Encoded], codec::base64(bytes)?);
        self.add(view, Rank::Seldom, &[Step::Base64UrlEncoded], codec::base64_url(bytes)?);
        self.add(view, Rank::Seldom, &[Step::UpperHexlified], codec::upper(codec::hexlify(bytes)?.expose())?);
        if text::without_newline(bytes).len() == bytes.len() {
            let line = [bytes, b"\n"];
            self.add(
                view,
                Rank::Seldom,
                &[Step::WithNewline],
                super::fill::bytes(line.into_iter().flatten().copied())?,
            );
        }
        Ok(())
    }

    /// Text that stands for bytes or for another text.
    fn of_text(&mut self, view: &View, text: &str) -> Result<()> {
        for key in recovery::systemd(text)? {
            self.add(view, Rank::Known, &[Step::SystemdRecovery], key);
        }
        for key in recovery::ubuntu(text)? {
            self.add(view, Rank::Known, &[Step::UbuntuRecovery], key);
        }
        let digits = codec::hex_digits(text.as_bytes())?;
        if let Some(digits) = &digits {
            self.of_hex(view, &[], digits)?;
        }
        // Hex is Base64 by chance alone.
        let rank = if digits.is_some() { Rank::Seldom } else { Rank::Known };
        if let Some(raw) = codec::unbase64(text.as_bytes())? {
            if let Some(digits) = codec::hex_digits(raw.expose())? {
                self.of_hex(view, &[Step::Base64Decoded], &digits)?;
            }
            let hex = codec::hexlify(raw.expose())?;
            self.add(view, rank, &[Step::Base64Decoded, Step::Hexlified], hex);
            // The other alphabet, padding that was lost, and lines that were folded.
            let (base64, url) = (codec::base64(raw.expose())?, codec::base64_url(raw.expose())?);
            self.add(view, Rank::Text, &[Step::Base64Decoded, Step::Base64Encoded], base64);
            self.add(view, Rank::Text, &[Step::Base64Decoded, Step::Base64UrlEncoded], url);
            self.add(view, rank, &[Step::Base64Decoded], raw);
        }
        let is_line = text::without_newline(text.as_bytes()).len() == text.len();
        if let Some(hash) = qnap::passphrase(text.as_bytes())?.filter(|_| is_line) {
            self.add(view, Rank::Seldom, &[Step::Qnap], hash);
        }
        if is_line {
            self.add(view, Rank::Seldom, &[Step::ToUtf16], text::to_utf16(text)?);
        }
        Ok(())
    }

    /// Hex digits, after these steps.
    fn of_hex(&mut self, view: &View, before: &[Step], digits: &SecretBytes) -> Result<()> {
        let then = |step: Step| [before, &[step]].concat();
        self.add(view, Rank::Known, &then(Step::LowerHex), codec::lower(digits.expose())?);
        if let Some(raw) = codec::unhex(digits.expose())? {
            let base64 = codec::base64(raw.expose())?;
            self.add(view, Rank::Seldom, &[&then(Step::UnHexed)[..], &[Step::Base64Encoded]].concat(), base64);
            self.add(view, Rank::Known, &then(Step::UnHexed), raw);
        }
        self.add(view, Rank::Known, &then(Step::UpperHex), codec::upper(digits.expose())?);
        Ok(())
    }

    /// The same letters in other bytes.
    fn of_letters(&mut self, view: &View, text: &str) -> Result<()> {
        if text.is_ascii() {
            return Ok(());
        }
        self.add(view, Rank::Text, &[Step::Nfc], text::nfc(text)?);
        self.add(view, Rank::Text, &[Step::Nfd], text::nfd(text)?);
        let encodings: [(Step, text::ToByte); 2] =
            [(Step::ToLatin1, text::latin1_byte), (Step::ToWindows1252, text::windows_1252_byte)];
        for (step, byte) in encodings {
            if let Some(bytes) = text::to_bytes(text, byte)? {
                self.add(view, Rank::Text, &[step], bytes);
            }
        }
        Ok(())
    }

    /// The letters of an encoding that has one byte for each, as UTF-8.
    fn of_one_byte_letters(&mut self, view: &View) -> Result<()> {
        let encodings: [(Step, text::FromByte); 2] =
            [(Step::FromLatin1, text::latin1_letter), (Step::FromWindows1252, text::windows_1252_letter)];
        for (step, letter) in encodings {
            if let Some(text) = text::from_bytes(view.bytes.expose(), letter)? {
                let decomposed = std::str::from_utf8(text.expose()).map(text::nfd);
                self.add(view, Rank::Text, &[step], text);
                if let Ok(decomposed) = decomposed {
                    self.add(view, Rank::Text, &[step, Step::Nfd], decomposed?);
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
