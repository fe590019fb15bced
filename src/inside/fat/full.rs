//! FAT12, FAT16 and FAT32: the tables compared over all of their length, each chain that a directory leads to, and the
//! clusters that none has.
//!
//! | bytes of an entry | field | bytes of a long name's | field |
//! |---|---|---|---|
//! | 0, 8 | name, extension | 0 | its number, with 0x40 in the first |
//! | 11 | attributes: 0x08 label, 0x10 directory, 0x0f a long name | 1, 14, 28 | 5, 6 and 2 units of UTF-16 |
//! | 20, 26 | first cluster, high and low | | |
//! | 28 | size | | |
//!
//! A FAT has no checksums: only what does not agree shows. The source is Microsoft's "FAT: General Overview of On-Disk Format".

use std::rc::Rc;

use super::{ATTR_LONG_NAME, ATTR_VOLUME_ID, Boot, Contents, ENTRY, Kind, Severity, State};
use crate::error::Error;
use crate::error::counted;
use crate::inside::full::{self, Claims, Coverage};
use crate::inside::look::{Look, field, le16, le32};
use crate::limits::{INSIDE_CLAIMS_MAX, INSIDE_DIRECTORIES_MAX};
use crate::num::{from_u32, to_u64, to_usize};

const ATTR_DIRECTORY: u8 = 0x10;
/// How much of two tables is compared at once.
const WINDOW: u64 = 1 << 20;
/// Directories that wait to be gone into.
const WAITING_MAX: usize = INSIDE_DIRECTORIES_MAX / 4;

/// By its first cluster.
type Dir = full::Dir<u32>;

struct Full<'a, 'b> {
    look: &'a Look<'a>,
    boot: &'a Boot,
    contents: &'b mut Contents,
    table: Vec<u8>,
    /// One behind the last cluster.
    end: u32,
    claims: Claims,
    waiting: Vec<Rc<Dir>>,
    is_partial: bool,
}

/// A chain of clusters, as far as it goes, and what ends it where that is no end.
struct Chain {
    clusters: Vec<u32>,
    fault: Option<(&'static str, u32, String, &'static str)>,
}

pub(super) fn check(look: &Look<'_>, boot: &Boot, contents: &mut Contents) {
    let active = boot.active();
    compare(look, boot, contents, active);
    let len = boot.table.saturating_mul(boot.sector);
    if len > to_u64(INSIDE_CLAIMS_MAX) {
        return contents
            .note("fat: its tables are larger than is kept in memory, and its chains were not gone through");
    }
    let at = boot.table_at(active);
    let table = match to_usize(len).and_then(|len| look.read(at, len)) {
        Ok(table) => table,
        Err(e) => return contents.unread(look, (format!("table {active}"), at), len, &e),
    };
    let clusters = boot.clusters();
    let end = u32::try_from(clusters.saturating_add(2)).unwrap_or(0);
    let claims = Claims::new(clusters.saturating_add(2));
    let mut full = Full { look, boot, contents, table, end, claims, waiting: Vec::new(), is_partial: false };
    full.root();
    while let Some(dir) = full.waiting.pop() {
        if look.is_cancelled() {
            return;
        }
        full.directory(&dir);
    }
    full.lost();
}

/// Compares the tables with the first that counts.
fn compare(look: &Look<'_>, boot: &Boot, contents: &mut Contents, active: u64) {
    if !boot.is_mirrored() {
        return;
    }
    let len = boot.table.saturating_mul(boot.sector);
    for n in (0..boot.tables).filter(|n| *n != active) {
        let (first, at) = (boot.table_at(active), boot.table_at(n));
        let (mut differ, mut place, mut start) = (0u64, None, 0);
        while start < len {
            let size = WINDOW.min(len.saturating_sub(start));
            let read = |at: u64| to_usize(size).and_then(|size| look.read(at.saturating_add(start), size));
            let (a, b) = match (read(first), read(at)) {
                (Ok(a), Ok(b)) => (a, b),
                (Err(e), _) | (_, Err(e)) => {
                    return contents.unread(look, (format!("table {n}"), at.saturating_add(start)), size, &e);
                }
            };
            if a != b {
                for (k, _) in a.iter().zip(&b).enumerate().filter(|(_, (a, b))| a != b) {
                    differ = differ.saturating_add(1);
                    place = place.or(Some(at.saturating_add(start).saturating_add(to_u64(k))));
                }
            }
            start = start.saturating_add(size);
        }
        // The first entries have been compared.
        let first = match boot.kind {
            Kind::Fat32 => 8,
            Kind::Fat16 => 4,
            _ => 3,
        };
        if let Some(place) = place.filter(|place| *place >= at.saturating_add(first)) {
            let found = format!("{differ} bytes that differ");
            let expected = format!("those of table {active} are wanted");
            contents.find(
                Severity::Warning,
                "contents.fat.tables-differ",
                (format!("table {n}"), place),
                found,
                expected,
            );
        }
    }
}

impl Full<'_, '_> {
    /// What follows a cluster in the table.
    fn next(&self, cluster: u32) -> u32 {
        let n = from_u32(cluster);
        match self.boot.kind {
            Kind::Fat32 => le32(&self.table, n.saturating_mul(4)) & 0x0fff_ffff,
            Kind::Fat16 => le16(&self.table, n.saturating_mul(2)).into(),
            _ => {
                let pair = le16(&self.table, n.saturating_add(n / 2));
                u32::from(if n.is_multiple_of(2) { pair & 0xfff } else { pair >> 4 })
            }
        }
    }

    fn is_end(&self, next: u32) -> bool {
        next >= match self.boot.kind {
            Kind::Fat32 => 0x0fff_fff8,
            Kind::Fat16 => 0xfff8,
            _ => 0xff8,
        }
    }

    fn is_bad(&self, next: u32) -> bool {
        next == match self.boot.kind {
            Kind::Fat32 => 0x0fff_fff7,
            Kind::Fat16 => 0xfff7,
            _ => 0xff7,
        }
    }

    /// Where the entry of a cluster is in the table.
    fn entry_at(&self, cluster: u32) -> u64 {
        let n = u64::from(cluster);
        let within = match self.boot.kind {
            Kind::Fat32 => n.saturating_mul(4),
            Kind::Fat16 => n.saturating_mul(2),
            _ => n.saturating_add(n / 2),
        };
        self.boot.table_at(self.boot.active()).saturating_add(within)
    }

    /// Goes along a chain and claims it. It ends at the latest where a cluster comes a second time.
    fn chain(&mut self, first: u32) -> Chain {
        let mut chain = Chain { clusters: Vec::new(), fault: None };
        let (mut at, mut from) = (first, None::<u32>);
        loop {
            let place = from.unwrap_or(first);
            if !(2..self.end).contains(&at) {
                let (found, expected) = (format!("cluster {at}"), "one that is there, or an end, is wanted");
                chain.fault = Some(("contents.fat.chain-broken", place, found, expected));
                return chain;
            }
            if self.claims.claim(at.into(), 1).is_some() || self.claims.is_full() {
                let found = format!("cluster {at} a second time");
                chain.fault = Some(("contents.fat.chain-crosses", place, found, "each is in one chain, once"));
                return chain;
            }
            chain.clusters.push(at);
            let next = self.next(at);
            if self.is_end(next) {
                return chain;
            }
            from = Some(at);
            at = next;
        }
    }

    fn say(&mut self, chain: &Chain, path: &str) {
        let Some((code, cluster, found, expected)) = &chain.fault else { return };
        self.is_partial = true;
        let place = (format!("the chain at cluster {cluster}"), self.entry_at(*cluster));
        self.find(Severity::Error, code, place, (found.clone(), (*expected).to_owned()), path);
    }

    fn find(
        &mut self,
        severity: Severity,
        code: &'static str,
        place: (String, u64),
        says: (String, String),
        path: &str,
    ) {
        let nth = self.contents.find_nth(severity, code, place, says.0, says.1);
        let found = nth.and_then(|n| self.contents.findings.get_mut(n));
        found.into_iter().for_each(|finding| finding.path = Some(path.to_owned()));
    }

    fn root(&mut self) {
        let cluster = if self.boot.is_32() { le32(&self.boot.bytes, 44) } else { 0 };
        let root = Dir::root(cluster);
        if self.boot.is_32() {
            return self.waiting.push(root);
        }
        let (at, len) = self.boot.root();
        match to_usize(len).and_then(|len| self.look.read(at, len)) {
            Ok(bytes) => self.entries(&root, &bytes, &[(at, bytes.len())]),
            Err(e) => self.unread((at, len), &e),
        }
    }

    fn unread(&mut self, (at, len): (u64, u64), e: &Error) {
        self.is_partial = true;
        self.contents.unread(self.look, ("a directory", at), len, e);
    }

    fn directory(&mut self, dir: &Rc<Dir>) {
        let chain = self.chain(dir.at);
        self.say(&chain, &format!("{}/", dir.path()));
        let (mut bytes, mut places) = (Vec::new(), Vec::new());
        for cluster in &chain.clusters {
            // 2 MiB is the most that a directory may have.
            if bytes.len() >= 2 << 20 {
                break;
            }
            let at = self.boot.cluster_at(*cluster);
            match to_usize(self.boot.cluster).and_then(|len| self.look.read(at, len)) {
                Ok(more) => {
                    places.push((at, more.len()));
                    bytes.extend(more);
                }
                Err(e) => return self.unread((at, self.boot.cluster), &e),
            }
        }
        self.entries(dir, &bytes, &places);
    }

    /// The entries of a directory, whose pieces lie at `places`.
    fn entries(&mut self, dir: &Rc<Dir>, bytes: &[u8], places: &[(u64, usize)]) {
        let place = |n: usize| {
            let mut at = n.saturating_mul(ENTRY);
            for (start, len) in places {
                if at < *len {
                    return start.saturating_add(to_u64(at));
                }
                at = at.saturating_sub(*len);
            }
            0
        };
        let mut long: Vec<u16> = Vec::new();
        let mut slots = Slots::default();
        for (n, entry) in bytes.chunks_exact(ENTRY).enumerate() {
            let [first] = field(entry, 0);
            let [attributes] = field(entry, 11);
            if first == 0 {
                break;
            }
            if first == 0xe5 {
                long.clear();
                continue;
            }
            if attributes & ATTR_LONG_NAME == ATTR_LONG_NAME {
                let parts = [entry.get(1..11), entry.get(14..26), entry.get(28..32)].into_iter().flatten();
                let units = parts.flat_map(|part| part.chunks_exact(2)).map(|unit| le16(unit, 0));
                let mut part: Vec<u16> = units.take_while(|unit| *unit != 0).collect();
                slots.take(entry);
                // The last part comes first.
                if first & 0x40 != 0 {
                    long.clear();
                }
                if long.len() < 260 {
                    part.append(&mut long);
                    long = part;
                }
                continue;
            }
            let short = short_name(entry);
            let name = if long.is_empty() { short.clone() } else { String::from_utf16_lossy(&long) };
            if let Some(found) = std::mem::take(&mut slots).wrong(entry).filter(|_| !long.is_empty()) {
                let says = (found.to_owned(), "each part fits its short name".to_owned());
                let path = format!("{}/{short}", dir.path());
                self.find(
                    Severity::Warning,
                    "contents.fat.long-name",
                    (format!("the long name of {short:?}"), place(n)),
                    says,
                    &path,
                );
            }
            long.clear();
            let is_dot = |dots: &str| short == dots && attributes & ATTR_DIRECTORY != 0;
            let wanted = if n == 0 { "." } else { ".." };
            if !dir.is_root() && n < 2 && !is_dot(wanted) {
                let says = (format!("{short:?} as entry {n}"), format!("{wanted:?} is wanted"));
                let path = dir.path();
                self.find(
                    Severity::Warning,
                    "contents.fat.directory",
                    (format!("the directory {path:?}"), place(n)),
                    says,
                    &path,
                );
            }
            if attributes & ATTR_VOLUME_ID != 0 || matches!(short.as_str(), "." | "..") {
                continue;
            }
            self.entry(dir, entry, (name, place(n)));
        }
    }

    fn entry(&mut self, dir: &Rc<Dir>, entry: &[u8], (name, place): (String, u64)) {
        let [attributes] = field(entry, 11);
        let high = if self.boot.is_32() { u32::from(le16(entry, 20)) << 16 } else { 0 };
        let (cluster, size) = (high | u32::from(le16(entry, 26)), u64::from(le32(entry, 28)));
        let path = format!("{}/{name}", dir.path());
        if attributes & ATTR_DIRECTORY != 0 {
            let Some(dir) = dir.child(cluster, name).filter(|_| self.waiting.len() < WAITING_MAX) else {
                self.is_partial = true;
                return self.contents.note("fat: directories that lie too deep were not gone into");
            };
            return self.waiting.push(dir);
        }
        if cluster == 0 && size == 0 {
            return;
        }
        let chain = self.chain(cluster);
        self.say(&chain, &path);
        let room = to_u64(chain.clusters.len()).saturating_mul(self.boot.cluster);
        if chain.fault.is_some() {
            return;
        }
        let says = (format!("{size} bytes"), format!("its chain has room for {room}"));
        if size > room {
            self.find(Severity::Error, "contents.fat.size", (format!("the entry of {path:?}"), place), says, &path);
        } else if room.saturating_sub(size) >= self.boot.cluster && self.contents.state == State::Clean {
            self.find(Severity::Warning, "contents.fat.size", (format!("the entry of {path:?}"), place), says, &path);
        }
    }

    /// Compares the number of free clusters that FSInfo has, where it knows one.
    fn count(&mut self, free: u64) {
        let at = u64::from(le16(&self.boot.bytes, 48)).saturating_mul(self.boot.sector);
        let is_there = self.boot.is_32() && at > 0 && at < self.boot.reserved.saturating_mul(self.boot.sector);
        let Some(sector) = self.look.bytes(at, 512).filter(|_| is_there) else { return };
        let says = le32(&sector, 488);
        let is_known = says != u32::MAX && sector.starts_with(b"RRaA") && self.contents.state == State::Clean;
        if is_known && u64::from(says) != free {
            let place = ("FSInfo", at.saturating_add(488));
            let (found, expected) = (format!("{says} free clusters"), format!("{free} are free"));
            self.contents.find(Severity::Warning, "contents.fat.counts", place, found, expected);
        }
    }

    /// Clusters in use that no chain has, and those that are free.
    fn lost(mut self) {
        let (mut free, mut count, mut first) = (0u64, 0u64, None);
        for cluster in 2..self.end {
            let next = self.next(cluster);
            if next == 0 {
                free = free.saturating_add(1);
            } else if !self.is_bad(next) && self.claims.word(cluster.into()) & 1 == 0 {
                count = count.saturating_add(1);
                first = first.or(Some(cluster));
            }
        }
        if let Some(cluster) = first.filter(|_| !self.is_partial && self.contents.state == State::Clean) {
            let place = (format!("cluster {cluster}"), self.entry_at(cluster));
            let found = format!("{} in use, the first {cluster}", counted(count, "cluster"));
            let expected = "no file has them";
            self.contents.find(Severity::Warning, "contents.fat.clusters-lost", place, found, expected);
        }
        self.count(free);
        let len = self.look.len();
        let behind = len.saturating_sub(self.boot.sectors.saturating_mul(self.boot.sector));
        let free = free.saturating_mul(self.boot.cluster).saturating_add(behind);
        self.contents.coverage = Some(Coverage::of(len, 0, free));
    }
}

/// The parts of a long name, which come from its last to its first.
#[derive(Default)]
struct Slots {
    next: u8,
    sum: u8,
    is_odd: bool,
}

impl Slots {
    fn take(&mut self, entry: &[u8]) {
        let ([number], [sum]) = (field(entry, 0), field(entry, 13));
        if number & 0x40 != 0 {
            *self = Self { next: number & 0x1f, sum, is_odd: false };
        }
        self.is_odd |= self.next == 0 || number & 0x1f != self.next || sum != self.sum || le16(entry, 26) != 0;
        self.next = self.next.saturating_sub(1);
    }

    /// What does not fit the short entry behind them.
    fn wrong(self, entry: &[u8]) -> Option<&'static str> {
        let name = entry.get(..11).unwrap_or_default();
        let right = name.iter().fold(0u8, |sum, byte| sum.rotate_right(1).wrapping_add(*byte));
        if self.is_odd || self.next != 0 {
            Some("parts that do not follow each other")
        } else {
            (self.sum != right).then_some("the checksum of another short name")
        }
    }
}

/// A name of eight and three bytes.
fn short_name(entry: &[u8]) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_end().to_owned();
    let (name, extension) = (entry.get(..8).unwrap_or_default(), entry.get(8..11).unwrap_or_default());
    let (name, extension) = (text(name), text(extension));
    if extension.is_empty() { name } else { format!("{name}.{extension}") }
}

impl Boot {
    fn clusters(&self) -> u64 {
        let root = self.root_entries.saturating_mul(to_u64(ENTRY)).div_ceil(self.sector.max(1));
        let before = self.table.saturating_mul(self.tables).saturating_add(self.reserved).saturating_add(root);
        let data = self.sectors.saturating_sub(before).saturating_mul(self.sector);
        data.checked_div(self.cluster).unwrap_or(0)
    }

    fn cluster_at(&self, cluster: u32) -> u64 {
        let root = self.root_entries.saturating_mul(to_u64(ENTRY)).div_ceil(self.sector.max(1));
        let data = self.table_at(self.tables).saturating_add(root.saturating_mul(self.sector));
        u64::from(cluster).saturating_sub(2).saturating_mul(self.cluster).saturating_add(data)
    }

    /// Whether all tables are written alike.
    fn is_mirrored(&self) -> bool {
        !self.is_32() || le16(&self.bytes, 40) & 0x80 == 0
    }

    /// The table that counts.
    fn active(&self) -> u64 {
        let chosen = u64::from(le16(&self.bytes, 40) & 0xf);
        if self.is_mirrored() || chosen >= self.tables { 0 } else { chosen }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_names_have_no_blanks_at_their_ends() {
        assert_eq!(short_name(b"README  TXT "), "README.TXT");
        assert_eq!(short_name(b"..          "), "..");
    }
}
