//! One error for the whole library: a stable kind, the rule or field that failed, where, and what to do next.

mod words;

use std::borrow::Cow;
use std::fmt;
use std::path::Path;

pub use words::{bytes, choice, counted, seconds};

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
    /// There is no file of that name in the image.
    Absent,
    /// The process that read files of the image has ended, or was ended.
    ReaderEnded,
    /// There is no LUKS header where one was looked for.
    NoHeader,
    /// The source ends too early, and what is there of it can be used where the caller allows that.
    Truncated,
    /// The bytes are of a file format that is not the one asked for, or is not read.
    OtherFormat,
    /// A table of a file format, or what one names, lies beyond the end of its file.
    TableBeyondEnd,
    /// A disk that is a part of a set was not given.
    MissingMember,
    /// The journal of dm-integrity is damaged; the data can be read without it.
    IntegrityJournal,
    /// Whoever fed a stream went away: the cause is that side's own error.
    Feed,
    /// It is an error in unluks itself.
    Panic,
    /// It is an error of an output, which it names: the input has no part in it.
    Output,
}

/// What a caller can do next. Those that name something which a caller of the library sets are words of the library here;
/// a program has words of its own for them.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Hint {
    /// What is to be done outside of unluks.
    Text(Cow<'static, str>),
    /// Several, in their order.
    All(Vec<Hint>),
    /// The file is a header backup, which goes with its image.
    HeaderBackup,
    /// Give the log of an offline reencryption, with the two headers beside it.
    OfflineLog,
    /// Take what is left of the header, without what breaks the rules.
    Recover,
    /// Take segments that cryptsetup would not activate.
    ForeignSegments,
    /// Take the whole sectors that are there of a source that is cut off.
    AllowTruncated,
    /// Allow key derivations more memory.
    RaiseKdfMemory,
    /// Allow key derivations more time.
    RaiseKdfTime,
    /// Allow a file format to declare a larger disk.
    RaiseMaxSize,
    /// Read the file as it is, whatever it looks like.
    RawFormat,
    /// Read the file as a VHD.
    VhdFormat,
    /// Choose a partition.
    NamePartition,
    /// Name a volume of LVM.
    NameVolume,
    /// Name the other disks of a set.
    NameMembers,
    /// Name the file that an image lies on top of.
    NameParent,
    /// Name an internal snapshot.
    NameSnapshot,
    /// Take an offset into a part of a set all the same.
    ForceOffset,
    /// Name the byte where the container starts.
    NameOffset,
    /// Take all of the image, from its first byte on.
    WholeImage,
    /// Search the whole disk for headers.
    Scan,
    /// Look at one header by its place.
    InspectAt,
    /// Say where the header is: in another file, or deeper in this one.
    NoHeader,
    /// Give a header that lies in another file.
    DetachedHeader,
    /// Name a keyslot.
    NameKeyslot,
    /// Name no keyslot: all are tried then.
    AnyKeyslot,
    /// Give all passphrases that the image wants.
    MorePassphrases,
    /// Give the volume key itself.
    VolumeKey,
    /// Try the forms that a key is known in.
    GuessKey,
    /// Name the socket that a server listens on.
    NameSocket,
    /// Take a part of the key file.
    KeyFilePart,
    /// Take the whole key file, and not its first line.
    WholeKeyFile,
    /// Go on past sectors that cannot be proved.
    BadSectors,
    /// Replace what is there.
    Force,
    /// Resume an output, or replace it.
    ResumeOrForce,
    /// Pass over the terminal's safety.
    ForceTerminal,
    /// Overwrite a block device.
    ForceDevice,
    /// Write a part.
    Length,
    /// Let zeroes become holes.
    Sparse,
    /// Make no hashes.
    NoHash,
    /// Resume the output that was left unfinished.
    Resume,
    /// Start again from the first byte.
    StartAgain,
    /// Give a folder with a certificate and its key.
    TlsFolder,
    /// Name a cloud.
    NameCloud,
    /// Name the type of a volume.
    NameVolumeType,
    /// A backup of a volume in use has to be asked for.
    ForceBackup,
    /// Name one of several backups.
    NameBackup,
}

impl fmt::Display for Hint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Text(text) => text,
            Self::All(hints) => {
                for (n, hint) in hints.iter().enumerate() {
                    write!(f, "{}{hint}", if n == 0 { "" } else { "; " })?;
                }
                return Ok(());
            }
            Self::OfflineLog => "its log as a detached header, with the .org and .new beside it, opens both parts",
            Self::HeaderBackup => "get a whole copy; a header backup goes with its image as a detached header",
            Self::Recover => "Rules::Recover takes what is left of it",
            Self::ForeignSegments => "if you trust the header, allow_foreign_segments takes it",
            Self::AllowTruncated => "get a whole copy, or take the whole sectors that are there (allow_truncated)",
            Self::RaiseKdfMemory => "Limits::kdf_memory allows more",
            Self::RaiseKdfTime => "Limits::kdf_time allows more",
            Self::RaiseMaxSize => "if you know the disk to be that large, max_size allows it",
            Self::RawFormat => "Format::Raw reads the file as it is",
            Self::VhdFormat => "Format::Vhd leaves them out",
            Self::NamePartition => "choose a partition",
            Self::NameVolume => "choose a volume",
            Self::NameMembers => "give the other members too",
            Self::NameParent => "give the parent too, if you trust the image",
            Self::NameSnapshot => "choose a snapshot",
            Self::ForceOffset => "foreign_offset takes it all the same",
            Self::NameOffset => "an offset takes any place",
            Self::WholeImage => "offset 0 takes all of the image",
            Self::Scan => "a scan finds headers anywhere",
            Self::InspectAt => "open it at its offset",
            Self::NoHeader => "a detached header, a partition or an offset can be given",
            Self::DetachedHeader => "a detached header, or a header backup, can be given",
            Self::NameKeyslot => "name the keyslot",
            Self::AnyKeyslot => "without a keyslot's number all keyslots are tried",
            Self::MorePassphrases => "give the other passphrase too (Key::and)",
            Self::VolumeKey => "the volume key opens it without a keyslot",
            Self::GuessKey => "is it hexlified, with a newline, or of another image? Key::guess tries the usual forms",
            Self::NameSocket => "name a socket in a folder that is there",
            Self::KeyFilePart => "is it the right file? A size takes a part of it",
            Self::WholeKeyFile => "a key that is no line of text is read whole (read_key_file)",
            Self::BadSectors => "a BadSectorPolicy lists such sectors and goes on",
            Self::Force => "allow it to be replaced",
            Self::ResumeOrForce => "resume it, or allow it to be discarded",
            Self::ForceTerminal => "redirect it, or allow it",
            Self::ForceDevice => "allow it to be overwritten",
            Self::Length => "write to a larger device, or a part",
            Self::Sparse => "make room, write elsewhere, or let zeroes become holes",
            Self::NoHash => "make no hashes, or let the process have more threads",
            Self::Resume => "resume it",
            Self::StartAgain => "start again without resuming",
            Self::TlsFolder => "a folder with server-cert.pem, server-key.pem and ca-cert.pem is wanted",
            Self::NameCloud => "name a cloud",
            Self::NameVolumeType => "name a volume type that is encrypted by LUKS",
            Self::ForceBackup => "ask for a backup of a volume in use, or name a snapshot",
            Self::NameBackup => "name a backup",
        })
    }
}

impl From<&'static str> for Hint {
    fn from(text: &'static str) -> Self {
        Self::Text(text.into())
    }
}

impl From<String> for Hint {
    fn from(text: String) -> Self {
        Self::Text(text.into())
    }
}

impl<const N: usize> From<[Hint; N]> for Hint {
    fn from(hints: [Hint; N]) -> Self {
        Self::All(hints.into())
    }
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
    hint: Option<Hint>,
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
    pub fn with_hint(mut self, hint: impl Into<Hint>) -> Self {
        self.inner.hint = Some(hint.into());
        self
    }

    /// The same error, with `prefix: ` in front of it: the file or the part it happened in.
    #[must_use]
    pub fn within(mut self, prefix: impl fmt::Display) -> Self {
        self.inner.context = format!("{prefix}: {}", self.inner.context);
        self
    }

    /// Whether it is of the part of that name, by what stands in front of its message or in it.
    #[cfg(feature = "unlock")]
    pub(crate) fn names(&self, name: &str) -> bool {
        let names = [name, &escape(name)];
        names.iter().any(|name| self.inner.context.contains(name) || self.inner.message.contains(name))
    }

    /// The same error, whose message has in it what stood in front of it, and its place: those are of another file.
    #[cfg(feature = "unlock")]
    #[must_use]
    pub(crate) fn told(mut self) -> Self {
        let place = self.inner.offset.take().map_or(String::new(), |offset| format!(" (at its byte {offset})"));
        let context = std::mem::take(&mut self.inner.context);
        self.inner.message = format!("{context}{}{place}", self.inner.message);
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
    pub fn hint(&self) -> Option<&Hint> {
        self.inner.hint.as_ref()
    }

    /// The one line of [`Display`](fmt::Display), with the hint in a program's own words.
    pub fn line(&self, word: impl Fn(&Hint) -> String) -> String {
        let mut line = self.without_hint();
        if let Some(hint) = &self.inner.hint {
            line = format!("{line}; {}", word(hint));
        }
        line
    }

    /// The one line of [`Display`](fmt::Display) without its hint, for who is told elsewhere what to do.
    pub(crate) fn without_hint(&self) -> String {
        let i = &self.inner;
        let rule = if i.rule.is_empty() { String::new() } else { format!("{}: ", i.rule) };
        let place = i.offset.map_or(String::new(), |offset| format!(" (at byte {offset})"));
        let source = i.source.as_ref().map_or(String::new(), |source| format!(": {source}"));
        format!("{}{rule}{}{place}{source}", i.context, i.message)
    }

    /// The operating system's error below this one, if there is one.
    pub fn io_error(&self) -> Option<&std::io::Error> {
        self.inner.source.as_deref().and_then(|s| s.downcast_ref())
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.line(Hint::to_string))
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

/// A path as messages show it: of a long one the end, which has the file's name.
pub fn shown(path: &Path) -> String {
    let text = path.display().to_string();
    match text.char_indices().rev().nth(LONGEST.saturating_sub(1)) {
        Some((at @ 1.., _)) => format!("…{}", escape(&text[at..])),
        _ => escape(&text),
    }
}

/// What `work` gives, or an error where it panics: a thread that ends without a word leaves others waiting for ever.
#[cfg(feature = "unlock")]
pub(crate) fn catch_panic<T>(what: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    // What `work` left half done is not used again: its caller gives up.
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(work)).unwrap_or_else(|_| {
        let message = format!("{what} ended by a panic, which is an error in unluks itself");
        Err(Error::new(ErrorKind::Io, message)
            .with_rule("panic")
            .with_condition(Condition::Panic)
            .with_hint("please report it"))
    })
}

/// How many characters of a text a message shows.
const LONGEST: usize = 96;

/// `text` with everything but printable ASCII and plain letters escaped, and cut at 96 characters: fit for a message.
pub fn escape(text: &str) -> String {
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

/// `text` with everything escaped that turns, hides or moves other text: controls, marks of direction, characters that join
/// others. It is not cut, and what [`escape`] has escaped stays as it is: fit for a page.
pub fn visible(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        match c {
            ' '..='~' | '…' | '–' | '—' | '‘'..='‟' => out.push(c),
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
            .with_hint(Hint::DetachedHeader);
        assert_eq!(
            e.to_string(),
            "segments.0.sector_size: found 100; a non-zero multiple of 512 is allowed (at byte 4096); a detached header, or a header backup, can be given"
        );
        assert_eq!(e.kind(), ErrorKind::Corrupt);
        let words = e.line(|hint| format!("{hint:?}"));
        assert!(words.ends_with("(at byte 4096); DetachedHeader"), "{words}");
    }

    #[test]
    fn hostile_text_is_escaped_and_cut() {
        assert_eq!(escape("a\u{1b}[31m\n\u{202e}ü"), "a\\u{1b}[31m\\n\\u{202e}ü");
        assert_eq!(escape(&"x".repeat(500)).chars().count(), 97);
        let long = "x".repeat(500);
        assert_eq!(visible(&long), long);
        assert_eq!(visible(&escape("a\u{202e}b")), "a\\u{202e}b");
        assert_eq!(visible("\u{feff}\u{fffd}a\u{301}\u{9b}–"), "\\u{feff}\\u{fffd}a\\u{301}\\u{9b}–");
    }
}
