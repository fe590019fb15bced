//! Partition tables, through [`storage`](crate::storage): both copies of a GPT, and what lies in the partitions.

use std::sync::Arc;

use super::look::{Look, Metered};
use super::{Contents, Kind, Part, Severity};
use crate::error::{ErrorKind, counted, escape};
use crate::io::ReadAt;
use crate::limits::INSIDE_PARTS_MAX;
use crate::storage::{self, GptCopies, Scheme, Table};

fn table(look: &Look<'_>) -> crate::Result<Option<Table>> {
    storage::list(&**look.disk(), None)
}

pub(super) fn probe(look: &Look<'_>) -> Option<Contents> {
    match table(look) {
        Ok(Some(table)) => {
            let kind = match table.scheme {
                Scheme::Gpt => Kind::Gpt,
                Scheme::Mbr => Kind::Mbr,
            };
            // Four bytes that happen to be zeroes, and two that end a boot sector, are no table.
            let in_front = |entry: &storage::Entry| entry.start < 512;
            if kind == Kind::Mbr && (table.entries.is_empty() || table.entries.iter().any(in_front)) {
                return None;
            }
            let mut contents = Contents::new(kind, look);
            contents.block_size = Some(u64::from(table.sector_size));
            let partitions = table.entries.iter().filter_map(|entry| entry.start.checked_add(entry.len)).max();
            let copies = copies(look, kind, &table);
            contents.size = partitions.max(copies.as_ref().and_then(GptCopies::end));
            contents.uuid = match copies.and_then(|copies| copies.disk_guid().map(|guid| guid.to_string())) {
                None => table.entries.first().and_then(|entry| entry.uuid.get(..8)).map(str::to_owned),
                guid => guid,
            };
            Some(contents)
        }
        Ok(None) => None,
        // Both copies are damaged, or the protective record says that there should be one.
        Err(e) if matches!(e.kind(), ErrorKind::Corrupt | ErrorKind::LimitExceeded) && e.rule().starts_with("gpt.") => {
            let mut contents = Contents::new(Kind::Gpt, look);
            let structure = ("the partition table", e.offset().unwrap_or(512));
            let expected = "no copy of it is whole";
            contents.find(Severity::Error, "contents.gpt.table", structure, escape(e.message()), expected);
            Some(contents)
        }
        Err(_) => None,
    }
}

fn copies(look: &Look<'_>, kind: Kind, table: &Table) -> Option<GptCopies> {
    (kind == Kind::Gpt).then(|| storage::gpt_copies(&**look.disk(), table.sector_size))
}

pub(super) fn check(look: &Look<'_>, contents: &mut Contents) {
    let Ok(Some(table)) = table(look) else { return };
    for note in &table.notes {
        contents.notes.push(note.clone());
    }
    let Some(copies) = copies(look, contents.kind, &table) else { return };
    for (name, copy) in [("the first copy of the table", &copies.first), ("the spare copy of the table", &copies.spare)]
    {
        // One behind the end is cut off, which the size has said.
        let out_of_reach = copy.state.as_ref().err().is_some_and(|e| e.kind() == ErrorKind::LimitExceeded);
        if let (Err(e), true) = (&copy.state, copy.offset < look.len() && !out_of_reach) {
            let code = "contents.gpt.table";
            let structure = (name, copy.offset);
            let expected = "a whole copy is wanted";
            contents.find(Severity::Warning, code, structure, escape(e.message()), expected);
        }
    }
    if let (true, true, Some(what)) = (copies.first.state.is_ok(), copies.spare.state.is_ok(), copies.differ) {
        let structure = ("the spare copy of the table", copies.spare.offset);
        let expected = "both copies say the same";
        contents.find(
            Severity::Warning,
            "contents.gpt.copies-differ",
            structure,
            format!("another value for {what}"),
            expected,
        );
    }
}

/// Looks at what is in the partitions.
pub(super) fn open(disk: &Arc<Metered>, contents: &mut Contents, depth: usize) {
    let Ok(Some(table)) = storage::list(&**disk, None) else { return };
    for entry in table.entries.iter().take(INSIDE_PARTS_MAX) {
        let name = entry.number.to_string();
        let part = entry.open_as_far_as_it_is_there(Arc::clone(disk));
        let title = format!("partition {name}");
        let inside = part.and_then(|part| {
            let whole = Arc::new(Whole { part, len: entry.len });
            super::probe_part(whole, &title, Some(entry.start), (disk, depth))
        });
        let (start, len) = (Some(entry.start), entry.len);
        contents.parts.push(Part { name, start, len, contents: inside.ok() });
    }
    if let more @ 1.. = table.entries.len().saturating_sub(INSIDE_PARTS_MAX) {
        contents.notes.push(format!("not looked at: {} more", counted(more, "partition")));
    }
}

/// A partition with the length that it has by its table: what is in one that is cut off is not too large for it.
struct Whole<S> {
    part: S,
    len: u64,
}

impl<S: ReadAt> ReadAt for Whole<S> {
    fn len(&self) -> u64 {
        self.len
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> crate::Result<()> {
        self.part.read_exact_at(buf, offset).map_err(|e| {
            let end = offset.saturating_add(crate::num::to_u64(buf.len()));
            // That the disk ends there has been said of the disk.
            if end > self.part.len() { crate::Error::limit("contents.read", "the disk is cut off there") } else { e }
        })
    }
}
