//! Segments with dm-integrity below them: sectors that dm-crypt encrypted and authenticated, with their tags in areas
//! between the data, and a journal.
//!
//! ```text
//!  Integrity ─► Layout: where a run of sectors and their tags lie ─┐
//!      │                                                           ├─► SectorAead: decrypts, checks each tag
//!      └──────► Journal: which of them are newer in the journal ───┘
//! ```
//!
//! Nothing is written: what the kernel would copy from the journal to its place is read from the journal.

mod journal;
mod layout;
mod superblock;

use std::sync::Arc;

use zeroize::Zeroize;

use super::bad_sectors::{BadRun, BadSectorPolicy, BadSectors, Cause};
use super::{Layer, Size};
use crate::crypto::aead::SectorAead;
use crate::error::{Condition, Error, Hint, Result, counted, escape};
use crate::io::ReadAt;
use crate::luks::findings::{Finding, Severity};
use crate::luks::metadata::{CryptSegment, Integrity as Names, Metadata, Segment, SegmentKind};
use crate::num::{at_most, to_u64, to_usize};
use crate::secret::VolumeKey;
use journal::Journal;
use layout::Layout;
use superblock::Superblock;

/// Data that dm-crypt authenticated.
pub struct Integrity {
    aead: SectorAead,
    layout: Layout,
    journal: Journal,
    iv_tweak: u64,
    sector_size: u32,
    /// Where the part starts in the plaintext of the volume.
    start: u64,
    bad: Arc<BadSectors>,
    /// That the superblock says less than there is room for.
    note: Option<String>,
}

/// What there is to say of dm-integrity's superblocks below the segments of `metadata`, without a key; a superblock that
/// cannot be read is what unlocking tells of.
pub fn findings(metadata: &Metadata, data: &dyn ReadAt) -> Vec<Finding> {
    let message = |segment: &Segment| match &segment.kind {
        SegmentKind::Crypt(CryptSegment { integrity: Some(_), sector_size, .. }) => {
            let superblock = Superblock::read(data, segment.offset, *sector_size, None).ok()?;
            shorter(&Layout::new(&superblock, segment.offset).ok()?, segment, data)
        }
        _ => None,
    };
    let about =
        metadata.live_segments().filter_map(|(id, segment)| Some((format!("segments.{id}"), message(segment)?)));
    let code = "integrity-shorter";
    about.map(|(about, message)| Finding { severity: Severity::Warning, code, about, message }).collect()
}

/// Says that the superblock, which has no checksum, gives fewer sectors than the segment has room for. The kernel makes
/// it give all of them, in eights (`initialize_superblock`).
fn shorter(layout: &Layout, segment: &Segment, data: &dyn ReadAt) -> Option<String> {
    let end = segment.size.map_or(u64::MAX, |size| segment.offset.saturating_add(size)).min(data.len());
    let (said, room) = (layout.provided_data_sectors, layout.sectors_before(end));
    (room.saturating_sub(said) >= 8).then(|| {
        format!(
            "dm-integrity's superblock says that there are {} of plaintext, but there is room for {room}: \
             somebody changed it, or the file is longer than the volume was; what lies behind is not read",
            counted(said, "sector")
        )
    })
}

impl Integrity {
    /// Segment `id`, whose plaintext is at `start` of the volume's.
    pub fn new(
        id: u32,
        (segment, c, names): (&Segment, &CryptSegment, &Names),
        key: &VolumeKey,
        data: &dyn ReadAt,
        (start, bad): (u64, Arc<BadSectors>),
    ) -> Result<Self> {
        let field = |name: &str| format!("segments.{id}.{name}");
        if data.pipe().is_some() {
            let message = "this image cannot come through a pipe: its integrity tags do not lie beside the data";
            return Err(Error::unsupported("pipe", message).with_hint("save it to a file first"));
        }
        for (name, value) in
            [("journal_encryption", &names.journal_encryption), ("journal_integrity", &names.journal_integrity)]
        {
            if value != "none" {
                let message = format!("found \"{}\"; none is known", escape(value));
                return Err(Error::unsupported(field(&format!("integrity.{name}")), message));
            }
        }
        if !matches!(c.sector_size, 512 | 1024 | 2048 | 4096) {
            let message = format!("found {}; 512, 1024, 2048 and 4096 can be decrypted", c.sector_size);
            return Err(Error::unsupported(field("sector_size"), message));
        }
        let aead = SectorAead::new(&c.encryption, &names.kind, names.key_size, key.expose(), c.sector_size);
        let aead = aead.map_err(|e| match e.rule() {
            "integrity.type" | "integrity.key_size" => {
                let rule = field(e.rule());
                e.with_rule(rule)
            }
            _ => e.with_rule(field("encryption")),
        })?;
        let superblock = Superblock::read(data, segment.offset, c.sector_size, Some(aead.stored_size()))?;
        let layout = Layout::new(&superblock, segment.offset)?;
        // A dirty bitmap stands in the journal's place: there is nothing to replay.
        let journal = if superblock.dirty_bitmap { Journal::default() } else { replay(data, &layout, &bad)? };
        let note = shorter(&layout, segment, data);
        Ok(Self { aead, layout, journal, iv_tweak: c.iv_tweak, sector_size: c.sector_size, start, bad, note })
    }

    /// What its user should know.
    pub fn note(&self) -> Option<String> {
        self.note.clone()
    }

    /// What is done with a sector of `data` whose tag is wrong.
    fn pass_over(&self, data: &mut [u8], inside: u64, stored_at: u64) -> Result<()> {
        let start = self.start.saturating_add(inside);
        match self.bad.policy() {
            BadSectorPolicy::Refuse => {
                let message = format!(
                    "sector {} (byte {start} of the plaintext) was changed or never written: its tag does not match",
                    inside / 512
                );
                return Err(Error::corrupt("integrity.tag", message).at(stored_at).with_hint(Hint::BadSectors));
            }
            BadSectorPolicy::Report => {}
            BadSectorPolicy::Zero | BadSectorPolicy::Skip => data.fill(0),
        }
        self.bad.note(BadRun { cause: Cause::Tag, start, len: self.sector_size.into(), stored_at });
        Ok(())
    }

    /// Reads blocks that lie side by side.
    #[expect(clippy::arithmetic_side_effects, reason = "the layout is within 2^63 bytes, and no sector has no bytes")]
    fn read_run(
        &self,
        data: &dyn ReadAt,
        buf: &mut [u8],
        tags: &mut [u8],
        block: u64,
        place: layout::Place,
    ) -> Result<()> {
        let size = u64::from(self.sector_size);
        let sector = self.aead.sector_size();
        let stored = self.aead.stored_size();
        data.read_exact_at(buf, place.data)?;
        data.read_exact_at(tags, place.tag)?;
        let count = to_u64(buf.len() / sector);
        // Where a block was read from, if not from its place.
        let mut elsewhere = Vec::new();
        for (newer, slot) in self.journal.of(block..block + count) {
            let n = to_usize(newer - block)?;
            let (buf, tag) = (&mut buf[n * sector..][..sector], &mut tags[n * stored..][..stored]);
            elsewhere.push((n, slot.read(data, &self.layout, buf, tag)?));
        }
        let inside = block * size;
        let number = inside / 512;
        for n in self.aead.decrypt(buf, tags, number, self.iv_tweak.wrapping_add(number))? {
            let before = to_u64(n) * size;
            let moved = elsewhere.iter().find(|(at, _)| *at == n).map(|(_, at)| *at);
            let stored_at = moved.unwrap_or(place.data + before);
            self.pass_over(&mut buf[n * sector..][..sector], inside + before, stored_at)?;
        }
        Ok(())
    }
}

/// Replays the journal; where it cannot be and bad sectors are passed over, so is the journal.
fn replay(data: &dyn ReadAt, layout: &Layout, bad: &BadSectors) -> Result<Journal> {
    Journal::replay(data, layout).or_else(|e| {
        if !e.is(Condition::IntegrityJournal) {
            return Err(e);
        }
        if bad.policy() == BadSectorPolicy::Refuse {
            return Err(e.with_hint([
                "the data can be read without the journal, and perhaps without the newest of it".into(),
                Hint::BadSectors,
            ]));
        }
        bad.note_journal(&e);
        Ok(Journal::default())
    })
}

impl Layer for Integrity {
    fn sector_size(&self) -> u32 {
        self.sector_size
    }

    fn size(&self, data_len: u64) -> Option<Size> {
        // The layout has no block beyond 2^63 bytes.
        let bytes = |blocks: u64| blocks.saturating_mul(u64::from(self.sector_size));
        Some(Size {
            whole: bytes(self.layout.blocks()),
            there: bytes(self.layout.blocks_before(data_len)),
            end: self.layout.end().unwrap_or(u64::MAX),
        })
    }

    #[expect(clippy::arithmetic_side_effects, reason = "the layout is within 2^63 bytes, and no sector has no bytes")]
    fn read(&self, data: &dyn ReadAt, mut buf: &mut [u8], inside: u64) -> Result<()> {
        let sector = self.aead.sector_size();
        let mut block = inside / u64::from(self.sector_size);
        let mut tags = Vec::new();
        while !buf.is_empty() {
            let place = self.layout.place(block);
            let blocks = at_most(place.blocks, buf.len() / sector).max(1);
            let (now, rest) = buf.split_at_mut((blocks * sector).min(buf.len()));
            tags.resize(blocks * self.aead.stored_size(), 0);
            if let Err(e) = self.read_run(data, now, &mut tags, block, place) {
                // What is not authentic goes to nobody.
                now.zeroize();
                return Err(e);
            }
            block += to_u64(blocks);
            buf = rest;
        }
        Ok(())
    }
}
