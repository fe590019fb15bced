//! One error for the whole library: a stable kind, the rule or field that failed, where, and what to do next.

use std::borrow::Cow;
use std::fmt;
use std::path::Path;

/// What a caller can do about an error. Exit codes and NBD error numbers are a total match on this, so that a new kind
/// finds each of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// The operating system refused a read, a write or an allocation.
    Io,
    /// The bytes break a rule of their format.
    Corrupt,
    /// The bytes are right, but ask for something this build does not do.
    Unsupported,
    /// The bytes ask for more than a limit allows.
    LimitExceeded,
    /// No keyslot opened, or a digest did not match.
    WrongKey,
    /// The caller asked for something that cannot be.
    InvalidInput,
    /// Somebody stopped the work before its end.
    Cancelled,
}

/// What code may decide by, beside the kind. Rules are for people and reports: none of them is matched on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Condition {
    /// There is no LUKS header where one was looked for.
    NoHeader,
    /// The source ends too early, and what is there of it can be used where the caller allows that.
    Truncated,
    /// The bytes are of a file format that is not the one asked for, or is not read.
    OtherFormat,
    /// The journal of dm-integrity is damaged; the data can be read without it.
    IntegrityJournal,
    /// Whoever fed a stream went away: the cause is that side's own error.
    Feed,
    /// It is an error of an output, which it names: the input has no part in it.
    Output,
}

/// A `Result` whose error is [`Error`].
pub type Result<T> = std::result::Result<T, Error>;

/// What went wrong, in one line: `CONTEXT: RULE: MESSAGE (at byte OFFSET); HINT`.
///
/// The rule is a stable code such as `segments.0.sector_size` for reports; the message says what
/// was found and what is allowed. Text that came out of an image is escaped before it gets here.
pub struct Error {
    inner: Box<Inner>,
}

struct Inner {
    kind: ErrorKind,
    context: String,
    condition: Option<Condition>,
    rule: Cow<'static, str>,
    message: String,
    offset: Option<u64>,
    hint: Option<Cow<'static, str>>,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    /// An error of `kind`, without a rule, a position or a hint.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        let inner = Inner {
            kind,
            context: String::new(),
            condition: None,
            rule: Cow::Borrowed(""),
            message: message.into(),
            offset: None,
            hint: None,
            source: None,
        };
        Self { inner: Box::new(inner) }
    }

    /// An [`ErrorKind::Corrupt`] error: `rule` broke, `message` says what was found and what is allowed.
    pub fn corrupt(rule: impl Into<Cow<'static, str>>, message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Corrupt, message).with_rule(rule)
    }

    /// An [`ErrorKind::Unsupported`] error.
    pub fn unsupported(rule: impl Into<Cow<'static, str>>, message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Unsupported, message).with_rule(rule)
    }

    /// An [`ErrorKind::LimitExceeded`] error; the hint names the flag that raises the limit.
    pub fn limit(rule: impl Into<Cow<'static, str>>, message: impl Into<String>) -> Self {
        Self::new(ErrorKind::LimitExceeded, message).with_rule(rule)
    }

    /// An [`ErrorKind::InvalidInput`] error.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::InvalidInput, message)
    }

    /// An [`ErrorKind::Io`] error: `what` was being done when `source` came.
    pub fn io(what: impl Into<String>, source: std::io::Error) -> Self {
        let mut e = Self::new(ErrorKind::Io, what);
        e.inner.source = Some(Box::new(source));
        e
    }

    /// An [`ErrorKind::Cancelled`] error.
    pub fn cancelled() -> Self {
        Self::new(ErrorKind::Cancelled, "stopped before the end").with_rule("cancelled")
    }

    /// The same error, with what code may decide by.
    #[must_use]
    pub fn with_condition(mut self, condition: Condition) -> Self {
        self.inner.condition = Some(condition);
        self
    }

    /// Whether this is so.
    pub fn is(&self, condition: Condition) -> bool {
        self.inner.condition == Some(condition)
    }

    /// The same error, with the rule or field that failed.
    #[must_use]
    pub fn with_rule(mut self, rule: impl Into<Cow<'static, str>>) -> Self {
        self.inner.rule = rule.into();
        self
    }

    /// The same error, with the byte offset in the source it was found at.
    #[must_use]
    pub fn at(mut self, offset: u64) -> Self {
        self.inner.offset = Some(offset);
        self
    }

    /// The same error, with what to do next.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<Cow<'static, str>>) -> Self {
        self.inner.hint = Some(hint.into());
        self
    }

    /// The same error, with `prefix: ` in front of it: the file or the part it happened in.
    #[must_use]
    pub fn within(mut self, prefix: impl fmt::Display) -> Self {
        self.inner.context = format!("{prefix}: {}", self.inner.context);
        self
    }

    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        self.inner.kind
    }

    /// The stable code of the rule that failed, or `""`.
    pub fn rule(&self) -> &str {
        &self.inner.rule
    }

    /// What was found and what is allowed, without rule, position and hint.
    pub fn message(&self) -> &str {
        &self.inner.message
    }

    /// The byte offset in the source, where one is known.
    pub fn offset(&self) -> Option<u64> {
        self.inner.offset
    }

    /// What to do next, where something can be done.
    pub fn hint(&self) -> Option<&str> {
        self.inner.hint.as_deref()
    }

    /// The operating system's error below this one, if there is one.
    pub fn io_error(&self) -> Option<&std::io::Error> {
        self.inner.source.as_deref().and_then(|s| s.downcast_ref())
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let i = &self.inner;
        f.write_str(&i.context)?;
        if !i.rule.is_empty() {
            write!(f, "{}: ", i.rule)?;
        }
        f.write_str(&i.message)?;
        if let Some(offset) = i.offset {
            write!(f, " (at byte {offset})")?;
        }
        if let Some(source) = &i.source {
            write!(f, ": {source}")?;
        }
        if let Some(hint) = &i.hint {
            write!(f, "; {hint}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {self}", self.inner.kind)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        // The source's text is part of this error's own line.
        None
    }
}

/// A path as messages show it.
pub fn shown(path: &Path) -> String {
    escape(&path.display().to_string())
}

/// `text` with everything but printable ASCII and plain letters escaped, and cut at 96 characters: fit for a message.
pub fn escape(text: &str) -> String {
    const LONGEST: usize = 96;
    let mut out = String::new();
    for (n, c) in text.chars().enumerate() {
        if n == LONGEST {
            out.push('…');
            break;
        }
        match c {
            '\\' => out.push_str("\\\\"),
            ' '..='~' => out.push(c),
            c if c.is_alphanumeric() => out.push(c),
            c => out.extend(c.escape_default()),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_with_rule_place_and_hint() {
        let e = Error::corrupt("segments.0.sector_size", "found 100; a non-zero multiple of 512 is allowed")
            .at(4096)
            .with_hint("try --header");
        assert_eq!(
            e.to_string(),
            "segments.0.sector_size: found 100; a non-zero multiple of 512 is allowed (at byte 4096); try --header"
        );
        assert_eq!(e.kind(), ErrorKind::Corrupt);
    }

    #[test]
    fn hostile_text_is_escaped_and_cut() {
        assert_eq!(escape("a\u{1b}[31m\n\u{202e}ü"), "a\\u{1b}[31m\\n\\u{202e}ü");
        assert_eq!(escape(&"x".repeat(500)).chars().count(), 97);
    }
}
