//! How a passphrase was made from what was saved: the words of reports.

/// One thing that was done to the saved bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Step {
    /// UTF-16, with or without its byte order mark, became UTF-8.
    FromUtf16,
    /// The byte order mark of UTF-8 was left out.
    WithoutMark,
    /// One newline at the end, LF or CRLF, was left out.
    WithoutNewline,
    /// One carriage return at the end was left out.
    WithoutReturn,
    /// White space around the text was left out.
    Trimmed,
    /// Only the first line was taken.
    FirstLine,
    /// All CRLF became LF.
    LineFeeds,
    /// A newline was put at the end.
    WithNewline,
    /// The payload was taken out of JSON.
    Json,
    /// The payload was taken out of a table.
    Table,
    /// The payload was taken out of a line `payload=VALUE` or `Payload: VALUE`.
    Assignment,
    /// A bytes literal of Python became what it stands for.
    PythonBytes,
    /// The lower-case hex of the bytes.
    Hexlified,
    /// The upper-case hex of the bytes.
    UpperHexlified,
    /// Hex digits in lower case, without what stood between them.
    LowerHex,
    /// Hex digits in upper case, without what stood between them.
    UpperHex,
    /// What hex digits stand for.
    UnHexed,
    /// What Base64 or its form for URLs stands for.
    Base64Decoded,
    /// The Base64 of the bytes.
    Base64Encoded,
    /// The Base64 of the bytes, in its form for URLs.
    Base64UrlEncoded,
    /// Unicode's composed form, NFC.
    Nfc,
    /// Unicode's decomposed form, NFD, as macOS writes it.
    Nfd,
    /// UTF-8 became UTF-16, little-endian, without a mark.
    ToUtf16,
    /// UTF-8 became Latin-1.
    ToLatin1,
    /// Latin-1 became UTF-8.
    FromLatin1,
    /// UTF-8 became Windows-1252.
    ToWindows1252,
    /// Windows-1252 became UTF-8.
    FromWindows1252,
    /// A recovery key of systemd in its canonical form.
    SystemdRecovery,
    /// The 16 bytes of a recovery key of Ubuntu.
    UbuntuRecovery,
    /// QNAP's hash of a password.
    Qnap,
}

impl Step {
    fn describe(self) -> &'static str {
        match self {
            Self::FromUtf16 => "UTF-16 as UTF-8",
            Self::WithoutMark => "without the byte order mark",
            Self::WithoutNewline => "without the trailing newline",
            Self::WithoutReturn => "without the trailing carriage return",
            Self::Trimmed => "without the white space around it",
            Self::FirstLine => "the first line",
            Self::LineFeeds => "with LF for CRLF",
            Self::WithNewline => "with a newline at the end",
            Self::Json => "the payload of the JSON",
            Self::Table => "the payload of the table",
            Self::Assignment => "the payload's value",
            Self::PythonBytes => "the bytes of Python's literal",
            Self::Hexlified => "hexlified",
            Self::UpperHexlified => "hexlified in upper case",
            Self::LowerHex => "hex in lower case",
            Self::UpperHex => "hex in upper case",
            Self::UnHexed => "un-hexed",
            Self::Base64Decoded => "base64-decoded",
            Self::Base64Encoded => "as base64",
            Self::Base64UrlEncoded => "as base64 for URLs",
            Self::Nfc => "in Unicode's form NFC",
            Self::Nfd => "in Unicode's form NFD",
            Self::ToUtf16 => "as UTF-16",
            Self::ToLatin1 => "as Latin-1",
            Self::FromLatin1 => "Latin-1 as UTF-8",
            Self::ToWindows1252 => "as Windows-1252",
            Self::FromWindows1252 => "Windows-1252 as UTF-8",
            Self::SystemdRecovery => "systemd's recovery key",
            Self::UbuntuRecovery => "Ubuntu's recovery key",
            Self::Qnap => "QNAP's hash of the password",
        }
    }
}

/// How a passphrase was made from the saved bytes: step after step, none for the bytes as they are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyRule(Vec<Step>);

impl KeyRule {
    /// These steps, in their order.
    pub fn of(steps: &[Step]) -> Self {
        Self(steps.to_vec())
    }

    /// The steps, in their order.
    pub fn steps(&self) -> &[Step] {
        &self.0
    }

    /// These steps, and one more.
    pub(super) fn then(&self, step: Step) -> Self {
        let mut steps = self.0.clone();
        steps.push(step);
        Self(steps)
    }

    /// What was done to the bytes, for reports.
    pub fn describe(&self) -> String {
        if self.0.is_empty() {
            return "the bytes as they are".into();
        }
        self.0.iter().map(|step| step.describe()).collect::<Vec<_>>().join(", then ")
    }
}
