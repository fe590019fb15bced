//! What `rbd export` and `rbd export-diff` write (Ceph's doc/dev/rbd-export.rst and rbd-diff.rst, and the code of
//! src/tools/rbd/action). All numbers are little-endian. Version 1 of `rbd export` is the raw disk.
//!
//! ```text
//! rbd image v2\n   records: tag, u64 length, data; ended by 'E' alone
//! rbd image diffs v2\n   u64 number of diffs, and then each:
//!   rbd diff v2\n   records: tag, u64 length, data; ended by 'e' alone
//! rbd diff v1\n    records: tag and data, whose length the tag tells; ended by 'e'
//! ```
//!
//! | tag | of a diff | data |
//! |---|---|---|
//! | f, t | the snapshots it goes from and to | u32 length and name |
//! | s | the disk's size | u64 |
//! | w | bytes that are written | u64 offset, u64 length, bytes |
//! | z | bytes that are zeroes now | u64 offset, u64 length |
//!
//! An exported image is its diffs laid over each other in their order, each from the snapshot that the one before led to. A
//! diff in a file of its own, which begins at a snapshot, lies over the disk as it was then: over the file among those that
//! were named which leads to that snapshot, or over one that tells no snapshot, such as a raw export. So does a chain of them
//! over an image that was opened. No crate reads it.

use std::sync::Arc;

use super::Format;
use super::below::Below;
use super::fields;
use super::joined::Joined;
use super::map::Mapped;
use super::parent::{Kin, Named, Wanted, give_it};
use super::runs::{Runs, RunsDisk, Source};
use crate::error::{Condition, Error, Result, escape};
use crate::io::ReadAt;
use crate::limits::{CONTAINER_PARENTS_MAX, RBD_RECORDS_MAX};
use crate::num::{to_u64, to_usize};

/// The banner of `rbd export --export-format 2`.
pub(super) const IMAGE: &[u8] = b"rbd image v2\n";
/// The banner of `rbd export-diff`.
pub(super) const DIFF_1: &[u8] = b"rbd diff v1\n";
/// The banner of each diff of an image, and of `rbd export-diff --export-format 2`.
pub(super) const DIFF_2: &[u8] = b"rbd diff v2\n";
const DIFFS: &[u8] = b"rbd image diffs v2\n";

/// The longest name of a snapshot that is kept.
const NAME_MAX: u64 = 4096;

/// Which state of an image a disk is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// Nothing tells.
    Unknown,
    /// That of a snapshot.
    Snapshot(String),
    /// The one behind all snapshots that are exported.
    Head,
}

/// A disk that was exported.
pub(super) struct Exported {
    pub disk: Arc<dyn ReadAt>,
    pub state: State,
}

/// Reads all records, and gives the disk, with its parent below it where it is a diff from a snapshot on.
pub(super) fn open(file: Arc<dyn ReadAt>, kin: &Kin<'_>, notes: &mut Vec<String>) -> Result<Exported> {
    let parsed = Disk::read(&*file)?;
    let Some(from) = &parsed.from else {
        let state = parsed.state();
        return Ok(Exported { disk: parsed.over(file, None)?, state });
    };
    let leads_there = |file: &Arc<dyn ReadAt>| ends(&**file).is_some_and(|ends| ends.to.as_ref() == Some(from));
    let wanted = Wanted::Proven { format: Format::Rbd, by: &leads_there };
    let below = match kin.parent(&wanted, notes)? {
        Some(below) => below,
        None => base(from, kin, notes)?,
    };
    let state = parsed.state();
    Ok(Exported { disk: parsed.over(file, Some(below))?, state })
}

/// The one file that is no diff, which is taken for the disk at the snapshot `from`.
fn base(from: &str, kin: &Kin<'_>, notes: &mut Vec<String>) -> Result<Below> {
    let missing = |what: &str| {
        let message = format!(
            "this is an rbd diff from the snapshot \"{}\" on: what did not change since is not in it{what}",
            escape(from)
        );
        Error::unsupported("rbd.from_snap", message)
    };
    let (diffs, others): (Vec<_>, Vec<_>) =
        kin.free().map(|(n, named)| (n, named, ends(&*named.file))).partition(|(.., ends)| ends.is_some());
    if let Some((_, named, Some(found))) = diffs.first() {
        let message = format!(", and no file leads there; {} goes {}", named.name, found.said());
        return Err(missing(&message).with_rule("rbd.chain").with_hint(
            "a diff is missing between them: name all from the base on, the base and the diffs of one image",
        ));
    }
    match others[..] {
        [(n, named, _)] => {
            let below = kin.parent(&Wanted::Chosen(n), notes)?.ok_or_else(|| missing(""))?;
            notes.push(format!(
                "nothing in {} tells that it is the snapshot \"{}\": it is taken for it",
                named.name,
                escape(from)
            ));
            Ok(below)
        }
        [] => Err(missing("").with_hint(give_it(kin))),
        _ => {
            Err(missing(", and several files that were named could be the disk at that snapshot")
                .with_rule("rbd.chain"))
        }
    }
}

/// Lays the diffs that were named and lie below nothing over an opened image, in the order in which they were named; `None`
/// where there are none.
///
/// # Errors
/// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) with the rule `rbd.chain` where one does not go on from where
/// the one before ended.
pub(super) fn with_diffs(
    disk: &Arc<dyn ReadAt>,
    mut state: State,
    kin: &Kin<'_>,
    notes: &mut Vec<String>,
) -> Result<Option<Arc<dyn ReadAt>>> {
    // A parent is what is below, and nothing else.
    if !kin.chain.is_empty() {
        return Ok(None);
    }
    let free = kin.free().filter(|(_, named)| !named.is_used());
    let diffs: Vec<(&Named, Ends)> = free
        .filter_map(|(_, named)| Some((named, ends(&*named.file)?)))
        .filter(|(_, ends)| ends.from.is_some())
        .collect();
    if diffs.len() > CONTAINER_PARENTS_MAX {
        let message = format!("more than {CONTAINER_PARENTS_MAX} images lie on top of each other");
        return Err(Error::limit("container.parents", message));
    }
    let starts: Vec<Option<String>> = diffs.iter().map(|(_, ends)| ends.from.clone()).collect();
    let mut laid: Option<Arc<dyn ReadAt>> = None;
    let mut before = "the image".to_owned();
    for (named, ends) in diffs {
        let from = ends.from.clone().unwrap_or_default();
        let wrong = |ended: &str| {
            let message = format!("{} goes {}, and {before} {ended}", named.name, ends.said());
            let e = Error::invalid(message).with_rule("rbd.chain").with_hint(
                "name the diffs in the order in which they were made; where one is missing, the others are of no use",
            );
            // In no order would it be a chain.
            let goes_on =
                matches!(&state, State::Snapshot(name) if starts.iter().any(|from| from.as_ref() == Some(name)));
            if goes_on { e } else { e.with_condition(Condition::MissingMember) }
        };
        match &state {
            State::Unknown => notes.push(format!(
                "nothing in {before} tells that it is the snapshot \"{}\": it is taken for it",
                escape(&from)
            )),
            State::Snapshot(name) if *name == from => {}
            State::Snapshot(name) => return Err(wrong(&format!("is the snapshot \"{}\"", escape(name)))),
            State::Head => return Err(wrong("is the image's last state, over which nothing lies")),
        }
        let file: Arc<dyn ReadAt> = if named.segments.is_empty() {
            Arc::clone(&named.file)
        } else {
            Arc::new(Joined::new(std::iter::once(Arc::clone(&named.file)).chain(named.segments.iter().cloned()))?)
        };
        let parsed = Disk::read(&*file).map_err(|e| e.within(&named.name))?;
        state = parsed.state();
        let name = if laid.is_some() { before.as_str() } else { "" };
        let below = Below::new(Arc::clone(laid.as_ref().unwrap_or(disk)), name);
        laid = Some(parsed.over(file, Some(below)).map_err(|e| e.within(&named.name))?);
        named.mark_used();
        notes.push(format!("with {} over it, an rbd diff {}", named.name, ends.said()));
        before.clone_from(&named.name);
    }
    Ok(laid)
}

/// Between which snapshots a diff is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Ends {
    from: Option<String>,
    to: Option<String>,
}

impl Ends {
    fn said(&self) -> String {
        let name = |name: &Option<String>, without: &str| {
            name.as_ref().map_or_else(|| without.to_owned(), |name| format!("the snapshot \"{}\"", escape(name)))
        };
        format!("from {} to {}", name(&self.from, "the beginning"), name(&self.to, "the image's last state"))
    }
}

/// What a diff says of itself before its data; `None` where the file is no diff.
fn ends(file: &dyn ReadAt) -> Option<Ends> {
    let mut reader = Reader { file, at: 0, records: 0 };
    let lengths = if reader.skip_banner(DIFF_1).ok()? {
        false
    } else if reader.skip_banner(DIFF_2).ok()? {
        true
    } else {
        return None;
    };
    let mut ends = Ends::default();
    for _ in 0..16 {
        let [tag] = reader.bytes().ok()?;
        let len = if lengths && tag != b'e' { reader.u64().ok()? } else { 0 };
        match tag {
            b'f' => ends.from = Some(reader.name().ok()?),
            b't' => ends.to = Some(reader.name().ok()?),
            b's' if !lengths => drop(reader.u64().ok()?),
            b'w' | b'z' | b'e' => break,
            _ => reader.skip(len).ok()?,
        }
    }
    Some(ends)
}

/// What the records say so far.
#[derive(Default)]
struct Disk {
    size: Option<u64>,
    from: Option<String>,
    to: Option<String>,
    /// Whether it is a diff in a file of its own.
    is_diff: bool,
    runs: Runs,
}

impl Disk {
    fn read(file: &dyn ReadAt) -> Result<Self> {
        let mut reader = Reader { file, at: 0, records: 0 };
        let mut disk = Self::default();
        if reader.skip_banner(IMAGE)? {
            reader.image_header()?;
            if !reader.skip_banner(DIFFS)? {
                return Err(reader.wrong("there is no list of diffs where one is wanted"));
            }
            for _ in 0..reader.u64()? {
                if !reader.skip_banner(DIFF_2)? {
                    return Err(reader.wrong("there is no diff where one is wanted"));
                }
                let before = disk.to.take();
                disk.from = None;
                reader.diff(&mut disk, true)?;
                if disk.from.is_some() && disk.from != before {
                    let name = |name: &Option<String>| escape(name.as_deref().unwrap_or_default());
                    let message = format!(
                        "a diff of the image goes on from the snapshot \"{}\"; the one before leads to \"{}\"",
                        name(&disk.from),
                        name(&before)
                    );
                    return Err(Error::corrupt("rbd.chain", message).at(reader.at));
                }
            }
            disk.from = None;
        } else if reader.skip_banner(DIFF_1)? {
            disk.is_diff = true;
            reader.diff(&mut disk, false)?;
        } else if reader.skip_banner(DIFF_2)? {
            disk.is_diff = true;
            reader.diff(&mut disk, true)?;
        } else {
            return Err(reader.wrong("the file does not begin as one of rbd"));
        }
        Ok(disk)
    }

    fn state(&self) -> State {
        match &self.to {
            Some(name) => State::Snapshot(name.clone()),
            // An export of a snapshot does not name it, either.
            None if !self.is_diff => State::Unknown,
            None => State::Head,
        }
    }

    fn over(self, file: Arc<dyn ReadAt>, below: Option<Below>) -> Result<Arc<dyn ReadAt>> {
        let size = self.size.ok_or_else(|| Error::corrupt("rbd.size", "no record says how large the disk is"))?;
        Ok(Arc::new(Mapped::new(RunsDisk { file, size, runs: self.runs, below })))
    }
}

struct Reader<'a> {
    file: &'a dyn ReadAt,
    at: u64,
    records: u64,
}

impl Reader<'_> {
    fn wrong(&self, what: impl Into<String>) -> Error {
        Error::corrupt("rbd.record", what.into()).at(self.at)
    }

    fn bytes<const N: usize>(&mut self) -> Result<[u8; N]> {
        let mut bytes = [0; N];
        fields::fill(self.file, &mut bytes, self.at, "container.truncated", "a record of the rbd file")?;
        self.skip(to_u64(N))?;
        Ok(bytes)
    }

    fn u64(&mut self) -> Result<u64> {
        self.bytes().map(u64::from_le_bytes)
    }

    /// Goes on behind `len` bytes, which must be there.
    fn skip(&mut self, len: u64) -> Result<()> {
        let end = self.at.checked_add(len).filter(|end| *end <= self.file.len());
        self.at = end.ok_or_else(|| {
            let message = format!("a record takes {len} bytes, but the file ends at byte {}", self.file.len());
            Error::corrupt("container.truncated", message)
                .at(self.at)
                .with_hint("the image file is cut off or damaged: fetch it again")
        })?;
        Ok(())
    }

    fn skip_banner(&mut self, banner: &[u8]) -> Result<bool> {
        let mut found = vec![0; banner.len()];
        if fields::fill(self.file, &mut found, self.at, "rbd.banner", "a banner").is_err() || found != banner {
            return Ok(false);
        }
        self.skip(to_u64(banner.len()))?;
        Ok(true)
    }

    #[expect(
        clippy::arithmetic_side_effects,
        reason = "open() bounds each factor: the tables lie within the file, and the disk within 2^64"
    )]
    fn count(&mut self) -> Result<()> {
        self.records += 1;
        if self.records > RBD_RECORDS_MAX {
            let message = format!("found more than {RBD_RECORDS_MAX} records, the most that are read");
            return Err(Error::limit("rbd.records", message).at(self.at));
        }
        Ok(())
    }

    /// Passes over what an image says of itself: order, features, stripes and metadata.
    fn image_header(&mut self) -> Result<()> {
        loop {
            self.count()?;
            let [tag] = self.bytes()?;
            if tag == b'E' {
                return Ok(());
            }
            let len = self.u64()?;
            self.skip(len)?;
        }
    }

    /// Reads one diff; with `lengths`, each record says how long it is.
    fn diff(&mut self, disk: &mut Disk, lengths: bool) -> Result<()> {
        loop {
            self.count()?;
            let [tag] = self.bytes()?;
            if tag == b'e' {
                return Ok(());
            }
            let end = if lengths {
                let len = self.u64()?;
                Some(self.at.checked_add(len).ok_or_else(|| self.wrong(format!("a record takes {len} bytes")))?)
            } else {
                None
            };
            match tag {
                b'f' => disk.from = Some(self.name()?),
                b't' => disk.to = Some(self.name()?),
                b's' => disk.size = Some(self.u64()?),
                b'w' => {
                    let (start, len) = (self.u64()?, self.u64()?);
                    disk.runs.put(start, len, Source::Stored(self.at), "rbd.record")?;
                    self.skip(len)?;
                }
                b'z' => {
                    let (start, len) = (self.u64()?, self.u64()?);
                    disk.runs.put(start, len, Source::Zero, "rbd.record")?;
                }
                other => match end {
                    // Newer ones say more of snapshots.
                    Some(end) => self.skip(end.saturating_sub(self.at))?,
                    None => {
                        let tag = char::from(other).escape_default();
                        return Err(self.wrong(format!("found the tag '{tag}'; f, t, s, w, z and e are known")));
                    }
                },
            }
            if let Some(end) = end.filter(|end| *end != self.at) {
                let tag = char::from(tag).escape_default();
                return Err(self.wrong(format!("the record '{tag}' should end at byte {end}")));
            }
        }
    }

    fn name(&mut self) -> Result<String> {
        let len = u64::from(u32::from_le_bytes(self.bytes()?));
        if len > NAME_MAX {
            return Err(self.wrong(format!("a snapshot's name takes {len} bytes; at most {NAME_MAX} are allowed")));
        }
        let mut name = vec![0; to_usize(len)?];
        fields::fill(self.file, &mut name, self.at, "container.truncated", "a snapshot's name")?;
        self.skip(len)?;
        Ok(String::from_utf8_lossy(&name).into_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;
    use crate::format::{Contents, Options};

    fn record(tag: u8, data: &[&[u8]]) -> Vec<u8> {
        let data = data.concat();
        [&[tag][..], &u64::try_from(data.len()).unwrap().to_le_bytes(), &data].concat()
    }

    fn n(n: u64) -> [u8; 8] {
        n.to_le_bytes()
    }

    fn image() -> Vec<u8> {
        let name: &[u8] = b"\x02\0\0\0s1";
        [
            IMAGE,
            &record(b'O', &[&n(22)]),
            &record(b'M', &[b"\x01\0\0\0k\x01\0\0\0v"]),
            b"E",
            DIFFS,
            &n(2),
            DIFF_2,
            &record(b't', &[name]),
            &record(b'p', &[&[1]]),
            &record(b's', &[&n(20)]),
            &record(b'w', &[&n(2), &n(6), b"abcdef"]),
            b"e",
            DIFF_2,
            &record(b'f', &[name]),
            &record(b's', &[&n(16)]),
            &record(b'w', &[&n(4), &n(2), b"XY"]),
            &record(b'z', &[&n(7), &n(9)]),
            b"e",
        ]
        .concat()
    }

    fn alone(file: Vec<u8>) -> Result<Arc<dyn ReadAt>> {
        let options = Options { format: Some(Format::Rbd), ..Options::default() };
        opened(file, &[], options).map(|(disk, _)| disk)
    }

    fn opened(file: Vec<u8>, with: &[(&str, Vec<u8>)], options: Options) -> Result<(Arc<dyn ReadAt>, Vec<String>)> {
        let named = |(name, bytes): &(&str, Vec<u8>)| Named::new(*name, Arc::new(bytes.clone()));
        let opened =
            crate::format::open(Arc::new(file), Options { with: with.iter().map(named).collect(), ..options })?;
        match opened.contents {
            Contents::Disk(disk) => Ok((disk, opened.notes)),
            Contents::Qcow2Luks(_) => panic!("it is no qcow2"),
        }
    }

    fn chained(file: Vec<u8>, with: &[(&str, Vec<u8>)]) -> Result<(Vec<u8>, Vec<String>)> {
        opened(file, with, Options::default()).map(|(disk, notes)| (read(&disk), notes))
    }

    /// A diff of version 1 of a disk of eight bytes.
    fn diff(from: &str, to: &str, at: u64, data: &[u8]) -> Vec<u8> {
        let name = |tag: u8, name: &str| {
            let len = u32::try_from(name.len()).unwrap().to_le_bytes();
            if name.is_empty() { Vec::new() } else { [&[tag][..], &len, name.as_bytes()].concat() }
        };
        let len = u64::try_from(data.len()).unwrap();
        [DIFF_1, &name(b'f', from), &name(b't', to), b"s", &n(8), b"w", &n(at), &n(len), data, b"e"].concat()
    }

    /// The same of version 2.
    fn diff_2(from: &str, to: &str, at: u64, data: &[u8]) -> Vec<u8> {
        let name = |tag: u8, name: &str| {
            let len = u32::try_from(name.len()).unwrap().to_le_bytes();
            if name.is_empty() { Vec::new() } else { record(tag, &[&len, name.as_bytes()]) }
        };
        let len = u64::try_from(data.len()).unwrap();
        let data = record(b'w', &[&n(at), &n(len), data]);
        [DIFF_2, &name(b'f', from), &name(b't', to), &record(b's', &[&n(8)]), &data, b"e"].concat()
    }

    #[test]
    fn a_chain_of_diffs_is_laid_over_its_base_in_order() {
        let base = b"01234567".to_vec();
        let one = || ("one", diff("s1", "s2", 1, b"ab"));
        let two = || ("two", diff_2("s2", "s3", 2, b"XY"));
        let three = || ("three", diff("s3", "", 7, b"!"));
        let wanted = (b"0aXY456!".to_vec(), "it is taken for it");
        // The base with the diffs, and the last diff with what is below it, in any order: the snapshots say which is where.
        let is_right = |found: Result<(Vec<u8>, Vec<String>)>| {
            let (bytes, notes) = found.unwrap();
            assert!(bytes == wanted.0 && notes.iter().any(|note| note.contains(wanted.1)), "{bytes:?} {notes:?}");
        };
        is_right(chained(base.clone(), &[one(), two(), three()]));
        is_right(chained(three().1, &[("base", base.clone()), one(), two()]));
        is_right(chained(three().1, &[two(), one(), ("base", base.clone())]));
        // A base that says which snapshot it is, is no matter of trust.
        let full = || [DIFF_1, b"t\x02\0\0\0s1", b"s", &n(8), b"w", &n(0), &n(8), b"01234567", b"e"].concat();
        let (bytes, notes) = chained(full(), &[one(), two()]).unwrap();
        assert!(bytes == b"0aXY4567" && !notes.iter().any(|note| note.contains("taken for")), "{notes:?}");
        assert_eq!(chained(two().1, &[one(), ("full", full())]).unwrap().0, b"0aXY4567");

        let refused = |file: Vec<u8>, with: &[(&str, Vec<u8>)], words: &[&str]| {
            let e = chained(file, with).map(drop).unwrap_err();
            let text = e.to_string();
            assert!(e.rule() == "rbd.chain" && words.iter().all(|word| text.contains(word)), "{text}");
        };
        refused(base.clone(), &[two(), one()], &["one goes from the snapshot \"s1\"", "two is the snapshot \"s3\""]);
        refused(
            base.clone(),
            &[one(), three()],
            &["three goes from the snapshot \"s3\"", "one is the snapshot \"s2\""],
        );
        refused(base.clone(), &[three(), one()], &["three is the image's last state"]);
        refused(full(), &[two()], &["two goes from the snapshot \"s2\"", "the image is the snapshot \"s1\""]);
        refused(three().1, &[("base", base.clone()), one()], &["from the snapshot \"s3\"", "one goes from"]);
        refused(one().1, &[("base", base.clone()), ("other", base.clone())], &["several files"]);
        let e = chained(one().1, &[]).map(drop).unwrap_err();
        assert_eq!((e.kind(), e.rule()), (ErrorKind::Unsupported, "rbd.from_snap"));
        // One that leads to where it begins ends.
        assert!(chained(diff("s1", "s1", 0, b"x"), &[("same", diff("s1", "s1", 0, b"x"))]).is_err());
    }

    #[test]
    fn the_diffs_of_an_image_are_one_chain() {
        let mut broken = image();
        let at = broken.windows(6).rposition(|bytes| bytes == b"\x02\0\0\0s1").unwrap();
        broken[at + 5] = b'2';
        assert_eq!(alone(broken).map(drop).unwrap_err().rule(), "rbd.chain");
    }

    fn read(disk: &dyn ReadAt) -> Vec<u8> {
        let mut all = vec![9; usize::try_from(disk.len()).unwrap()];
        disk.read_exact_at(&mut all, 0).unwrap();
        all
    }

    #[test]
    fn an_image_is_its_diffs_one_over_the_other() {
        let disk = alone(image()).unwrap();
        assert_eq!(read(&disk), b"\0\0abXYe\0\0\0\0\0\0\0\0\0");
        let whole = image();
        for cut in 0..whole.len() {
            let e = alone(whole[..cut].to_vec()).err().unwrap_or_else(|| panic!("{cut} bytes open"));
            assert_eq!(e.kind(), ErrorKind::Corrupt, "{cut}: {e}");
        }
    }

    #[test]
    fn a_diff_from_the_beginning_is_a_disk_and_another_is_not() {
        let first =
            [DIFF_1, b"t\x02\0\0\0s1", b"s", &n(4), b"w", &n(1), &n(2), b"ab", b"z", &n(0), &n(1), b"e"].concat();
        assert_eq!(read(&alone(first).unwrap()), b"\0ab\0");
        let later = [DIFF_1, b"f\x02\0\0\0s1", b"s", &n(4), b"e"].concat();
        let e = alone(later).err().unwrap();
        assert_eq!((e.kind(), e.rule()), (ErrorKind::Unsupported, "rbd.from_snap"));
        let unknown = [DIFF_1, b"q"].concat();
        assert!(alone(unknown).err().unwrap().message().contains("the tag 'q'"));
        assert_eq!(alone([DIFF_1, b"e"].concat()).err().unwrap().rule(), "rbd.size");
    }
}
