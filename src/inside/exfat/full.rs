//! exFAT: each chain that a directory leads to, the checksums of the sets of entries and of the up-case table, and the bitmap.
//!
//! | entry | type | bytes |
//! |---|---|---|
//! | bitmap, up-case table | 0x81, 0x82 | 4: checksum of the table, 20: first cluster, 24: length |
//! | file | 0x85 | 1: entries behind it, 2: checksum of the set, 4: attributes |
//! | its stream | 0xc0 | 1: flags, bit 1 without a chain, 3: length of the name, 20: first cluster, 24: length |
//! | its name | 0xc1 | 2: 15 units of UTF-16 |
//!
//! The source is Microsoft's "exFAT file system specification", 6.3.3, 7.1.5 and 7.2.2.

use std::rc::Rc;

use super::{Boot, Contents, Severity, State};
use crate::error::counted;
use crate::inside::full::{self, Claims, Coverage, words};
use crate::inside::look::{Look, checksum_is, field, hex, le16, le32, le64};
use crate::limits::{INSIDE_CLAIMS_MAX, INSIDE_DIRECTORIES_MAX};
use crate::num::{to_u64, to_usize};

const ENTRY: usize = 32;
const DIRECTORY: u16 = 0x10;
const END: u32 = 0xffff_fff8;
/// The most that a directory may have.
const DIRECTORY_MAX: usize = 256 << 20;
const WAITING_MAX: usize = INSIDE_DIRECTORIES_MAX / 4;

/// A run of clusters that is a file or a directory.
#[derive(Clone, Copy)]
struct Stream {
    cluster: u32,
    len: u64,
    has_chain: bool,
}

/// By its run of clusters.
type Dir = full::Dir<Stream>;

/// A directory's path, also the root's.
fn shown(dir: &Dir) -> String {
    if dir.is_root() { "/".to_owned() } else { dir.path() }
}

struct Full<'a, 'b> {
    look: &'a Look<'a>,
    boot: &'a Boot,
    contents: &'b mut Contents,
    table: Vec<u8>,
    end: u32,
    claims: Claims,
    waiting: Vec<Rc<Dir>>,
    bitmap: Option<Stream>,
    verified: u64,
    is_partial: bool,
}

pub(super) fn check(look: &Look<'_>, boot: &Boot, contents: &mut Contents) {
    let clusters = u64::from(le32(&boot.bytes, 92));
    let at = u64::from(le32(&boot.bytes, 80)).saturating_mul(boot.sector);
    let len = clusters.saturating_add(2).saturating_mul(4);
    if len > to_u64(INSIDE_CLAIMS_MAX) {
        return contents
            .note("exfat: its table is larger than is kept in memory, and its chains were not gone through");
    }
    let table = match to_usize(len).and_then(|len| look.read(at, len)) {
        Ok(table) => table,
        Err(e) => return contents.unread(look, ("the table", at), len, &e),
    };
    let end = le32(&boot.bytes, 92).saturating_add(2);
    let claims = Claims::new(clusters.saturating_add(2));
    let regions = boot.sector.saturating_mul(2).saturating_mul(super::SECTORS);
    let verified = if contents.findings.is_empty() { regions } else { 0 };
    let mut full = Full {
        look,
        boot,
        contents,
        table,
        end,
        claims,
        waiting: Vec::new(),
        bitmap: None,
        verified,
        is_partial: false,
    };
    let root = Stream { cluster: le32(&boot.bytes, 96), len: u64::MAX, has_chain: true };
    full.waiting.push(Dir::root(root));
    while let Some(dir) = full.waiting.pop() {
        if look.is_cancelled() {
            return;
        }
        full.directory(&dir);
    }
    full.compare();
}

impl Full<'_, '_> {
    fn find(
        &mut self,
        severity: Severity,
        code: &'static str,
        place: (String, u64),
        says: (String, String),
        path: &str,
    ) {
        self.is_partial |= severity == Severity::Error;
        let nth = self.contents.find_nth(severity, code, place, says.0, says.1);
        let found = nth.and_then(|n| self.contents.findings.get_mut(n)).filter(|_| !path.is_empty());
        found.into_iter().for_each(|finding| finding.path = Some(path.to_owned()));
    }

    fn cluster_at(&self, cluster: u32) -> u64 {
        let heap = u64::from(le32(&self.boot.bytes, 88)).saturating_mul(self.boot.sector);
        u64::from(cluster).saturating_sub(2).saturating_mul(self.boot.cluster).saturating_add(heap)
    }

    fn next(&self, cluster: u32) -> u32 {
        le32(&self.table, to_usize(u64::from(cluster).saturating_mul(4)).unwrap_or(usize::MAX))
    }

    /// The clusters of a stream, claimed. It ends at the latest where a cluster comes a second time.
    fn clusters(&mut self, stream: Stream, path: &str) -> Vec<u32> {
        let wanted = stream.len.div_ceil(self.boot.cluster);
        let (mut found, mut at) = (Vec::new(), stream.cluster);
        let is_root = stream.len == u64::MAX;
        while to_u64(found.len()) < wanted {
            let table = u64::from(le32(&self.boot.bytes, 80)).saturating_mul(self.boot.sector);
            let entry = table.saturating_add(u64::from(found.last().copied().unwrap_or(at)).saturating_mul(4));
            let place = || (format!("the chain at cluster {at}"), entry);
            if !(2..self.end).contains(&at) {
                let says = (format!("cluster {at}"), "one that is there is wanted".to_owned());
                self.find(Severity::Error, "contents.exfat.chain-broken", place(), says, path);
                break;
            }
            if self.claims.claim(at.into(), 1).is_some() || self.claims.is_full() {
                let says = (format!("cluster {at} a second time"), "each is in one chain, once".to_owned());
                self.find(Severity::Error, "contents.exfat.chain-crosses", place(), says, path);
                break;
            }
            found.push(at);
            let next = if stream.has_chain { self.next(at) } else { at.saturating_add(1) };
            if stream.has_chain && next >= END {
                let room = to_u64(found.len());
                if room < wanted && !is_root {
                    let says = (counted(room, "cluster"), format!("{wanted} by its length"));
                    self.find(Severity::Error, "contents.exfat.chain-short", place(), says, path);
                }
                break;
            }
            at = next;
        }
        found
    }

    fn read(&mut self, clusters: &[u32], most: u64) -> Vec<u8> {
        let mut bytes = Vec::new();
        for cluster in clusters {
            let left = most.saturating_sub(to_u64(bytes.len()));
            if left == 0 || bytes.len() >= DIRECTORY_MAX {
                break;
            }
            let (at, len) = (self.cluster_at(*cluster), self.boot.cluster);
            match to_usize(len.min(left)).and_then(|len| self.look.read(at, len)) {
                Ok(more) => bytes.extend(more),
                Err(e) => {
                    self.is_partial = true;
                    self.contents.unread(self.look, ("a cluster", at), len, &e);
                    break;
                }
            }
        }
        bytes
    }

    fn directory(&mut self, dir: &Rc<Dir>) {
        let path = shown(dir);
        let clusters = self.clusters(dir.at, &path);
        let bytes = self.read(&clusters, u64::MAX);
        let place = |n: usize| {
            let at = to_u64(n).saturating_mul(to_u64(ENTRY));
            let cluster = clusters.get(to_usize(at.checked_div(self.boot.cluster).unwrap_or(0)).unwrap_or(0));
            let within = at.checked_rem(self.boot.cluster).unwrap_or(0);
            (cluster.copied().unwrap_or(2), within)
        };
        let entries: Vec<&[u8]> = bytes.chunks_exact(ENTRY).collect();
        let mut n = 0usize;
        while let Some(entry) = entries.get(n).filter(|entry| entry.first() != Some(&0)) {
            let (cluster, within) = place(n);
            let at = self.cluster_at(cluster).saturating_add(within);
            let stream = Stream { cluster: le32(entry, 20), len: le64(entry, 24), has_chain: true };
            let mut step = 1;
            match entry.first() {
                Some(0x81) if dir.is_root() => {
                    self.bitmap = Some(stream);
                    self.clusters(stream, "");
                }
                Some(0x82) if dir.is_root() => self.up_case(stream, le32(entry, 4)),
                Some(0x85) => {
                    let [count] = field(entry, 1);
                    step = usize::from(count).saturating_add(1);
                    let set = entries.get(n..n.saturating_add(step)).unwrap_or_default();
                    self.set(dir, set, at);
                }
                _ => {}
            }
            n = n.saturating_add(step);
        }
    }

    fn up_case(&mut self, stream: Stream, stored: u32) {
        let clusters = self.clusters(stream, "");
        let bytes = self.read(&clusters, stream.len);
        let right = bytes.iter().fold(0u32, |sum, byte| sum.rotate_right(1).wrapping_add(u32::from(*byte)));
        if right == stored {
            self.verified = self.verified.saturating_add(to_u64(bytes.len()));
        } else {
            let place = ("the up-case table".to_owned(), self.cluster_at(stream.cluster));
            self.find(Severity::Error, "contents.exfat.up-case", place, (hex(stored), checksum_is(right)), "");
        }
    }

    /// A file's entries.
    fn set(&mut self, dir: &Rc<Dir>, set: &[&[u8]], at: u64) {
        let place = || ("a set of entries".to_owned(), at);
        let above = shown(dir);
        let (Some(file), Some(stream)) = (set.first(), set.get(1).filter(|entry| entry.first() == Some(&0xc0))) else {
            let says = ("no stream behind a file".to_owned(), "one is wanted".to_owned());
            return self.find(Severity::Error, "contents.exfat.entries", place(), says, &above);
        };
        let bytes = set.iter().flat_map(|entry| entry.iter()).enumerate().filter(|(n, _)| !matches!(n, 2 | 3));
        let right = bytes.fold(0u16, |sum, (_, byte)| sum.rotate_right(1).wrapping_add(u16::from(*byte)));
        let stored = le16(file, 2);
        if right != stored {
            let says = (format!("{stored:#06x}"), format!("the checksum is {right:#06x}"));
            return self.find(Severity::Error, "contents.exfat.entries-checksum", place(), says, &above);
        }
        self.verified = self.verified.saturating_add(to_u64(set.len().saturating_mul(ENTRY)));
        let [flags] = field(stream, 1);
        let [len] = field(stream, 3);
        let names = set.iter().skip(2).filter(|entry| entry.first() == Some(&0xc1));
        let units =
            names.flat_map(|entry| entry.get(2..).unwrap_or_default().chunks_exact(2).map(|unit| le16(unit, 0)));
        let name = String::from_utf16_lossy(&units.take(len.into()).collect::<Vec<_>>());
        let found = Stream { cluster: le32(stream, 20), len: le64(stream, 24), has_chain: flags & 2 == 0 };
        let parts = set.iter().skip(2).filter(|entry| entry.first() == Some(&0xc1)).count();
        if parts != usize::from(len).div_ceil(15) || len == 0 {
            let says = (format!("a name of {len} units"), format!("there are {}", counted(to_u64(parts), "part")));
            self.find(Severity::Error, "contents.exfat.entries", place(), says, &above);
        }
        if le64(stream, 8) > found.len {
            let says = (format!("{} bytes that are written", le64(stream, 8)), format!("its length is {}", found.len));
            self.find(Severity::Error, "contents.exfat.size", place(), says, &format!("{}/{name}", dir.path()));
        }
        if found.len == 0 {
            return;
        }
        if le16(file, 4) & DIRECTORY == 0 {
            let path = format!("{}/{name}", dir.path());
            self.clusters(found, &path);
            return;
        }
        match dir.child(found, name).filter(|_| self.waiting.len() < WAITING_MAX) {
            Some(dir) => self.waiting.push(dir),
            None => {
                self.is_partial = true;
                self.contents.note("exfat: directories that lie too deep were not gone into");
            }
        }
    }

    /// Compares the bitmap with what is claimed.
    fn compare(mut self) {
        let Some(bitmap) = self.bitmap.take() else {
            let place = ("the root directory".to_owned(), self.cluster_at(le32(&self.boot.bytes, 96)));
            let says = ("no bitmap".to_owned(), "one is wanted".to_owned());
            return self.find(Severity::Error, "contents.exfat.bitmap", place, says, "");
        };
        let count = u64::from(self.end.saturating_sub(2));
        // It has been claimed, so that its chain is sound as far as it goes.
        let (mut clusters, mut at) = (Vec::new(), bitmap.cluster);
        while (2..self.end).contains(&at) && to_u64(clusters.len()) < bitmap.len.div_ceil(self.boot.cluster) {
            clusters.push(at);
            at = self.next(at);
        }
        let bytes = self.read(&clusters, count.div_ceil(8));
        let (mut used, mut lost, mut idle) = (0u64, (0u64, None), (0u64, None));
        for (first, word) in words(&bytes, count) {
            used = used.saturating_add(word.count_ones().into());
            let valid = u64::MAX >> 64u64.saturating_sub(count.saturating_sub(first).min(64));
            let claimed = self.claims.word(first.saturating_add(2)) & valid;
            for (sum, differ) in [(&mut lost, claimed & !word), (&mut idle, word & !claimed)] {
                sum.0 = sum.0.saturating_add(differ.count_ones().into());
                if differ != 0 && sum.1.is_none() {
                    sum.1 = Some(first.saturating_add(differ.trailing_zeros().into()).saturating_add(2));
                }
            }
        }
        let place = || ("the bitmap".to_owned(), self.cluster_at(bitmap.cluster));
        let code = "contents.exfat.bitmap";
        let is_clean = self.contents.state == State::Clean;
        let (place, whole) = (place(), !self.is_partial && is_clean);
        if let (count, Some(cluster)) = lost {
            let says =
                (format!("{} free, the first {cluster}", counted(count, "cluster")), "they are in use".to_owned());
            let severity = if is_clean { Severity::Error } else { Severity::Note };
            self.find(severity, code, place.clone(), says, "");
        }
        if let ((count, Some(cluster)), true) = (idle, whole) {
            let says =
                (format!("{} in use, the first {cluster}", counted(count, "cluster")), "nothing has them".to_owned());
            self.find(Severity::Warning, code, place, says, "");
        }
        let len = self.look.len();
        let behind = len.saturating_sub(self.boot.sectors.saturating_mul(self.boot.sector));
        let free = count.saturating_sub(used).saturating_mul(self.boot.cluster).saturating_add(behind);
        self.contents.coverage = Some(Coverage::of(len, self.verified, free));
    }
}
