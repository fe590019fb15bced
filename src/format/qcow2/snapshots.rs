//! qcow2's internal snapshots: states of the disk that the image keeps, each with an L1 table of its own.
//!
//! | bytes | field | bytes | field |
//! |---|---|---|---|
//! | 0..8 | l1_table_offset | 20..24, 24..32 | nanoseconds, time of the guest's clock |
//! | 8..12 | l1_size | 32..36 | size of the machine's state, which lies behind the disk |
//! | 12..14 | length of the id | 36..40 | length of the extra data |
//! | 14..16 | length of the name | 40.. | extra data: 8 bytes of the state's size, 8 of the disk's |
//! | 16..20 | seconds since 1970 | behind it | id and name, and padding to a multiple of 8 |

use zerocopy::byteorder::big_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::Header;
use crate::error::{Error, Hint, Result, counted, escape};
use crate::format::fields;
use crate::io::ReadAt;
use crate::limits::{QCOW2_SNAPSHOT_EXTRA_MAX, QCOW2_SNAPSHOTS_MAX, QCOW2_SNAPSHOTS_SIZE_MAX};
use crate::num::to_u64;

/// How many snapshots a line names.
const NAMED_MAX: usize = 16;
/// How many characters of an id or a name a line has.
const NAME_SHOWN: usize = 64;

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Entry {
    l1_table_offset: U64,
    l1_size: U32,
    id_str_size: U16,
    name_size: U16,
    date_sec: U32,
    date_nsec: U32,
    vm_clock_nsec: U64,
    vm_state_size: U32,
    extra_data_size: U32,
}
const _: () = assert!(size_of::<Entry>() == 40);

/// An internal snapshot of a qcow2 image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// Its id: the number that QEMU gave it. This is the image's text: escape it before it is printed.
    pub id: String,
    /// Its name. This is the image's text, too.
    pub name: String,
    /// When it was made, in seconds since 1970.
    pub date: u32,
    /// The disk's size in bytes then; `None` where the snapshot does not say it, and it is what it is now.
    pub size: Option<u64>,
    pub(super) l1_table_offset: u64,
    pub(super) l1_size: u64,
    /// Where its entry lies in the file, and the one behind it.
    pub(super) at: u64,
    pub(super) end: u64,
}

/// All snapshots of the image.
pub(super) fn read(file: &dyn ReadAt, header: &Header) -> Result<Vec<Snapshot>> {
    let count = header.nb_snapshots.get();
    if count > QCOW2_SNAPSHOTS_MAX {
        let found = format!("found {count}; {QCOW2_SNAPSHOTS_MAX} are allowed");
        return Err(Error::limit("qcow2.nb_snapshots", found).at(60));
    }
    let start = header.snapshots_offset.get();
    let mut at = start;
    let mut all = Vec::new();
    const WHAT: &str = "the table of internal snapshots";
    const RULE: &str = "qcow2.snapshots";
    let overflow = || Error::corrupt(RULE, "its place overflows").at(start);
    for _ in 0..count {
        let entry: Entry = fields::read(file, at, RULE, WHAT)?;
        let extra = entry.extra_data_size.get();
        if extra > QCOW2_SNAPSHOT_EXTRA_MAX {
            let found = format!("found {extra} bytes of extra data; {QCOW2_SNAPSHOT_EXTRA_MAX} are allowed");
            return Err(Error::limit(RULE, found).at(at));
        }
        let extra_at = at.checked_add(40).ok_or_else(overflow)?;
        let size = if extra >= 16 {
            let size: U64 = fields::read(file, extra_at.checked_add(8).ok_or_else(overflow)?, RULE, WHAT)?;
            Some(size.get())
        } else {
            None
        };
        let mut text_at = extra_at.checked_add(u64::from(extra)).ok_or_else(overflow)?;
        let mut text = |len: U16| {
            let mut bytes = vec![0; usize::from(len.get())];
            fields::fill(file, &mut bytes, text_at, RULE, WHAT)?;
            text_at = text_at.checked_add(to_u64(bytes.len())).ok_or_else(overflow)?;
            Ok::<_, Error>(String::from_utf8_lossy(&bytes).into_owned())
        };
        let (id, name) = (text(entry.id_str_size)?, text(entry.name_size)?);
        let (l1_table_offset, l1_size) = (entry.l1_table_offset.get(), u64::from(entry.l1_size.get()));
        let end = text_at.checked_next_multiple_of(8).ok_or_else(overflow)?;
        all.push(Snapshot { id, name, date: entry.date_sec.get(), size, l1_table_offset, l1_size, at, end });
        at = end;
        let taken = at.saturating_sub(start);
        if taken > QCOW2_SNAPSHOTS_SIZE_MAX {
            let found = format!("it has more than {taken} bytes; {QCOW2_SNAPSHOTS_SIZE_MAX} are allowed");
            return Err(Error::limit(RULE, found).at(start));
        }
    }
    Ok(all)
}

/// The snapshot with the name or the id, whose own name comes first.
pub(super) fn find<'a>(all: &'a [Snapshot], wanted: &str) -> Result<&'a Snapshot> {
    for same in [|s: &Snapshot, wanted: &str| s.name == wanted, |s: &Snapshot, wanted: &str| s.id == wanted] {
        let found: Vec<&Snapshot> = all.iter().filter(|snapshot| same(snapshot, wanted)).collect();
        match found.as_slice() {
            [] => {}
            [one] => return Ok(one),
            several => {
                let list = list(several.iter().copied());
                let message =
                    format!("{} are called {}: {list}", counted(several.len(), "internal snapshot"), escape(wanted));
                return Err(Error::invalid(message).with_rule("snapshot").with_hint("name one by its id"));
            }
        }
    }
    let list = if all.is_empty() { "the image has none".into() } else { format!("there are {}", list(all)) };
    let message = format!("no internal snapshot is called {}; {list}", escape(wanted));
    Err(Error::invalid(message).with_rule("snapshot"))
}

/// The snapshots in one line.
pub(crate) fn list<'a>(all: impl IntoIterator<Item = &'a Snapshot>) -> String {
    let shown = |text: &str| escape(&text.chars().take(NAME_SHOWN).collect::<String>());
    let mut all = all.into_iter();
    let named: Vec<String> =
        all.by_ref().take(NAMED_MAX).map(|s| format!("{} (id {})", shown(&s.name), shown(&s.id))).collect();
    let named = named.join(", ");
    match all.count() {
        0 => named,
        more => format!("{named} and {more} more"),
    }
}

/// Says of an error that the disk's last state has no LUKS header, which snapshots may have one.
pub(crate) fn hint(all: &[Snapshot]) -> Hint {
    Hint::All(vec![format!("the image keeps earlier states of the disk: {}", list(all)).into(), Hint::NameSnapshot])
}
