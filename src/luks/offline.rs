//! An offline reencryption that was not finished: what `cryptsetup-reencrypt` (cryptsetup 1.5 to 2.4) leaves beside an
//! image.
//!
//! | file | what it is |
//! |---|---|
//! | `LUKS-UUID.log` | 512 bytes of text: `version`, `UUID`, `direction`, `mode`, `offset`, `shift`, each `name = value` |
//! | `LUKS-UUID.org` | the header of the data that was not reached yet |
//! | `LUKS-UUID.new` | the header of the data that was |
//!
//! Forward (0), what lies before `offset` of the plaintext is new and the rest old; backward (1), as room for a header is
//! made, it is the other way round, and an `offset` of 2^64-1 says that nothing was done yet. Where plaintext is
//! encrypted (mode 1) or a volume decrypted (2), one of the two headers is made up: its cipher is `cipher_null`, and its
//! data lies there as it is.
//!
//! The three come to one header here: two segments, with the digests and keyslots of both, the new ones numbered behind
//! the old. [`join`] lays them behind each other, so that they are one source as any header is.
//!
//! Source: `cryptsetup_reencrypt.c` of cryptsetup 2.3 (`write_log`, `parse_log`, `copy_data_forward`,
//! `copy_data_backward`).

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
#[cfg(feature = "unlock")]
use std::sync::Arc;

use super::metadata::*;
use super::{MAGIC_OFFLINE, OFFLINE_UUID, v1, v2};
use crate::crypto::spec::CipherSpec;
use crate::error::{Error, Result, escape};
#[cfg(feature = "unlock")]
use crate::format::Joined;
use crate::io::{ReadAt, Window};
use crate::limits::KEYSLOTS_MAX;
#[cfg(feature = "unlock")]
use crate::num::to_usize;

/// How the log starts.
const LOG: &[u8] = b"# LUKS reencryption log";
/// Bytes of the log.
const LOG_LEN: usize = 512;
/// What stands behind the log where the two headers do, too, and where they end.
const JOINED: &[u8; 16] = b"\0log, old, new\0\0";
/// Where the headers begin behind it.
const HEADERS: u64 = 4096;
/// What cryptsetup asks for where a LUKS2 header is not to be opened meanwhile.
const REQUIREMENT: &str = "offline-reencrypt";

/// Whether a source begins as the log does.
pub fn is_log(source: &(impl ReadAt + ?Sized)) -> bool {
    let mut start = [0u8; LOG.len()];
    source.read_exact_at(&mut start, 0).is_ok() && start == LOG
}

/// The paths of the old header and of the new, which lie beside the log.
pub fn headers_beside(log: &Path) -> [PathBuf; 2] {
    ["org", "new"].map(|extension| log.with_extension(extension))
}

/// The path of the log beside this image, where the image's header says that there is one, and it is there.
pub fn log_beside(image: &Path, data: &(impl ReadAt + ?Sized)) -> Option<PathBuf> {
    let mut start = [0u8; 208];
    data.read_exact_at(&mut start, 0).ok()?;
    let is_marked = start.starts_with(&MAGIC_OFFLINE)
        || super::open(data).is_ok_and(|m| m.requirements.iter().any(|r| r == REQUIREMENT));
    // The name comes out of the image: nothing but a UUID is made a path of.
    let uuid = start.get(168..204).filter(|uuid| uuid.iter().all(|b| matches!(b, b'-' | b'0'..=b'9' | b'a'..=b'f')))?;
    let name = format!("LUKS-{}.log", String::from_utf8_lossy(uuid));
    is_marked.then(|| image.with_file_name(OsString::from(name))).filter(|log| log.exists())
}

/// One header of the log and the two headers.
///
/// # Errors
/// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) where the first is no log. What they say is checked when
/// the header is opened.
#[cfg(feature = "unlock")]
pub fn join(log: &dyn ReadAt, old: Arc<dyn ReadAt>, new: Arc<dyn ReadAt>) -> Result<Arc<dyn ReadAt>> {
    if !is_log(log) {
        return Err(Error::invalid("this is no log of an offline reencryption").with_rule("reencryption-log"));
    }
    let mut head = vec![0; to_usize(HEADERS)?];
    let len = LOG_LEN.min(to_usize(log.len())?);
    log.read_exact_at(&mut head[..len], 0)?;
    let tail = JOINED.iter().copied().chain(old.len().to_be_bytes()).chain(new.len().to_be_bytes());
    head[LOG_LEN..].iter_mut().zip(tail).for_each(|(to, from)| *to = from);
    Ok(Arc::new(Joined::new([Arc::new(head), old, new])?))
}

/// Opens what [`join`] made. A log alone is no image, and is told so.
pub(super) fn open(source: &(impl ReadAt + ?Sized)) -> Result<Metadata> {
    let mut start = vec![0; LOG_LEN.saturating_add(32)];
    let is_joined = source.read_exact_at(&mut start, 0).is_ok() && start[LOG_LEN..].starts_with(JOINED);
    if !is_joined {
        let message = "this is the log of an offline reencryption by cryptsetup-reencrypt, and no image";
        let hint = "name the image itself, and this log as its header: its .org and .new lie beside it";
        return Err(Error::unsupported("magic", message).with_hint(hint));
    }
    let log = Log::parse(&start[..LOG_LEN])?;
    let len =
        |at: usize| start[LOG_LEN..].get(at..).and_then(|b| b.first_chunk()).map_or(0, |b| u64::from_be_bytes(*b));
    let (old, new) = (len(16), len(24));
    let read = |from: u64, len: u64, name: &str| {
        let header = Window::new(source, from, Some(len)).and_then(|window| {
            let mut magic = [0u8; 8];
            window.read_exact_at(&mut magic, 0)?;
            if magic == *b"LUKS\xba\xbe\0\x01" { v1::read(&window) } else { v2::read(&window) }
        });
        header.map_err(|e| e.within(format!("the {name} header of the offline reencryption")))
    };
    log.merge(read(HEADERS, old, "old")?, read(HEADERS.saturating_add(old), new, "new")?, old)
}

/// What the log says.
struct Log {
    uuid: String,
    state: Offline,
}

impl Log {
    fn parse(bytes: &[u8]) -> Result<Self> {
        let wrong = |field: &str, message: String| Error::corrupt(format!("reencryption-log.{field}"), message);
        let text = bytes.split(|b| *b == 0).next().unwrap_or_default();
        let text = std::str::from_utf8(text).map_err(|_| wrong("line", "is no text".to_owned()))?;
        let (mut version, mut uuid, mut direction, mut mode, mut offset) = (None, None, None, 0, None);
        for line in text.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
            let Some((name, value)) = line.split_once(" = ") else {
                return Err(wrong("line", format!("found \"{}\"; NAME = VALUE is wanted", escape(line))));
            };
            let number = || {
                value
                    .parse::<u64>()
                    .map_err(|_| wrong(name, format!("found \"{}\"; a number is wanted", escape(value))))
            };
            match name {
                "version" => version = Some(number()?),
                "UUID" => uuid = Some(value.to_owned()),
                "direction" => direction = Some(number()?),
                // Version 1 has none: it reencrypts.
                "mode" => mode = number()?,
                "offset" => offset = Some(number()?),
                // Where the data is, the headers say.
                "shift" => drop(number()?),
                _ => return Err(wrong("line", format!("found \"{}\", which is not known", escape(name)))),
            }
        }
        let missing = |field: &str| wrong(field, "is missing".to_owned());
        let version = version.ok_or_else(|| missing("version"))?;
        if !(1..=2).contains(&version) {
            let message = format!("found {version}; 1 and 2 are known");
            return Err(Error::unsupported("reencryption-log.version", message));
        }
        let is_forward = match direction.ok_or_else(|| missing("direction"))? {
            0 => true,
            1 => false,
            n => return Err(wrong("direction", format!("found {n}; 0 and 1 are allowed"))),
        };
        let mode = match mode {
            0 => OfflineMode::Reencrypt,
            1 => OfflineMode::Encrypt,
            2 => OfflineMode::Decrypt,
            n => return Err(wrong("mode", format!("found {n}; 0 to 2 are allowed"))),
        };
        let offset = match offset.ok_or_else(|| missing("offset"))? {
            u64::MAX if !is_forward => None,
            0 if is_forward => None,
            offset if offset.is_multiple_of(512) => Some(offset),
            offset => return Err(wrong("offset", format!("found {offset}; a multiple of 512 is wanted"))),
        };
        let uuid = uuid.ok_or_else(|| missing("UUID"))?;
        Ok(Self { uuid, state: Offline { mode, is_forward, offset } })
    }

    /// Both headers in one. The new one lies `behind` bytes behind the old.
    fn merge(&self, old: Metadata, new: Metadata, behind: u64) -> Result<Metadata> {
        let Offline { mode, is_forward, offset } = self.state;
        for (name, header) in [("old", &old), ("new", &new)] {
            let made_up = matches!((mode, name), (OfflineMode::Encrypt, "old") | (OfflineMode::Decrypt, "new"));
            // A volume that is only being encrypted has its UUID to come.
            let wanted = match (mode, made_up) {
                (OfflineMode::Encrypt, false) => None,
                (_, true) => Some(OFFLINE_UUID),
                (_, false) => Some(self.uuid.as_str()),
            };
            if let Some(wanted) = wanted.filter(|wanted| *wanted != header.uuid) {
                let message =
                    format!("the {name} header has the UUID {}; {} is wanted", escape(&header.uuid), escape(wanted));
                return Err(
                    Error::corrupt("reencryption-log.UUID", message).with_hint("they are not of one reencryption")
                );
            }
        }
        let old_part = Part::of(&old, mode == OfflineMode::Encrypt, "old")?;
        let new_part = Part::of(&new, mode == OfflineMode::Decrypt, "new")?;
        let parts = match (offset, is_forward) {
            (None, _) => vec![(0, old_part.segment(0, None))],
            (Some(0), false) => vec![(1, new_part.segment(0, None))],
            (Some(at), true) => vec![(1, new_part.segment(0, Some(at))), (0, old_part.segment(at, None))],
            (Some(at), false) => vec![(0, old_part.segment(0, Some(at))), (1, new_part.segment(at, None))],
        };
        let (mut keyslots, mut digests) = (BTreeMap::new(), BTreeMap::new());
        let first_new = old.keyslots.keys().max().map_or(0, |last| last.saturating_add(1).next_multiple_of(8));
        let sides = [(0, old_part.is_plain, &old, 0, 0), (1, new_part.is_plain, &new, first_new, behind)];
        for (side, is_plain, header, number, shift) in sides {
            // A header that was made up opens nothing.
            if is_plain {
                continue;
            }
            let segments = (0u32..).zip(&parts).filter(|(_, (of, _))| *of == side).map(|(id, _)| id).collect();
            let digest = header.segment_digest(0).map(|(_, digest)| digest.clone());
            let mut digest =
                digest.ok_or_else(|| Error::corrupt("segments.0.digest", "no digest names this segment"))?;
            digest.segments = segments;
            digest.keyslots.retain(|id| header.keyslots.contains_key(id));
            for id in &mut digest.keyslots {
                let keyslot = header.keyslots.get(id).cloned();
                *id = id.saturating_add(number);
                let Some(mut keyslot) = keyslot.filter(|_| *id < KEYSLOTS_MAX) else {
                    let message = format!("both headers together have more keyslots than {KEYSLOTS_MAX}");
                    return Err(Error::unsupported("keyslots", message));
                };
                keyslot.area.offset = keyslot.area.offset.saturating_add(HEADERS).saturating_add(shift);
                keyslots.insert(*id, keyslot);
            }
            digests.insert(side, digest);
        }
        let main = if new_part.is_plain { old } else { new };
        let requirements = main.requirements.into_iter().filter(|r| r != REQUIREMENT).collect();
        Ok(Metadata {
            keyslots,
            disabled_keyslots: Default::default(),
            segments: parts.into_iter().map(|(_, segment)| segment).collect(),
            digests,
            tokens: Default::default(),
            requirements,
            json: None,
            offline: Some(self.state),
            ..main
        })
    }
}

/// How one side of the data is stored.
struct Part<'m> {
    segment: &'m Segment,
    is_plain: bool,
}

impl<'m> Part<'m> {
    fn of(header: &'m Metadata, is_plain: bool, name: &str) -> Result<Self> {
        let live: Vec<_> = header.live_segments().map(|(_, segment)| segment).collect();
        let [segment] = live[..] else {
            let message = format!("the {name} header has {} live segments; 1 is wanted", live.len());
            return Err(Error::corrupt("segments", message));
        };
        let SegmentKind::Crypt(crypt) = &segment.kind else {
            return Err(Error::corrupt("segments.0.type", format!("the {name} header's segment is not encrypted")));
        };
        if is_plain && !CipherSpec::parse(&crypt.encryption).is_ok_and(|cipher| cipher.is_null()) {
            let message =
                format!("the {name} header is made up, and found {}; cipher_null is wanted", escape(&crypt.encryption));
            return Err(Error::corrupt("segments.0.encryption", message));
        }
        if crypt.integrity.is_some() {
            return Err(Error::unsupported("segments.0.integrity", "an offline reencryption knows no integrity"));
        }
        Ok(Self { segment, is_plain })
    }

    /// What lies from `from` of the plaintext on, `size` bytes or up to the end.
    fn segment(&self, from: u64, size: Option<u64>) -> Segment {
        let kind = match &self.segment.kind {
            SegmentKind::Crypt(crypt) if !self.is_plain => {
                let iv_tweak = crypt.iv_tweak.wrapping_add(from / 512);
                SegmentKind::Crypt(CryptSegment { iv_tweak, ..crypt.clone() })
            }
            _ => SegmentKind::Linear,
        };
        Segment { kind, offset: self.segment.offset.saturating_add(from), size, flags: Vec::new() }
    }
}
