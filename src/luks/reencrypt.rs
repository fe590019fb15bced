//! A reencryption that was not finished: what the header says of it, checked, and the proof that nobody changed it.
//!
//! While cryptsetup encrypts, decrypts or reencrypts in place, three kinds of segments stand behind the live ones as
//! notes: `backup-previous` is the whole volume as it was, `backup-final` as it shall be, and `backup-moved-segment` the
//! first segment, where it was moved out of the way. A live segment with the flag `in-reencryption` is the *hot zone*:
//! there the old data was being overwritten when the work stopped, and the `reencrypt` keyslot says how to find out
//! what is old.
//!
//! Source: cryptsetup, `luks2_reencrypt.c`, `luks2_reencrypt_digest.c`, `luks2_keyslot_reenc.c` and
//! `validate_reencrypt_segments` of `luks2_json_metadata.c`.

use super::metadata::*;
use crate::crypto::hash::Hash;
use crate::error::{Error, Result, counted, escape};
use crate::limits::REENCRYPT_BLOCK_MAX;
use crate::num::to_u64;
use crate::secret::SecretBytes;

/// The longest text in the verified metadata (`MAX_STR`).
const VERIFIED_TEXT_MAX: usize = 64;

/// A segment and its number.
pub type Numbered<'m> = (u32, &'m Segment);

/// The state of a reencryption.
pub struct Reencryption<'m> {
    /// The number of the `reencrypt` keyslot.
    pub keyslot: u32,
    /// The keyslot.
    pub state: &'m ReencryptKeyslot,
    /// Where checksums or the journal lie, from the header's start.
    pub area: Area,
    /// The version of the requirement: which fields the digest proves.
    pub version: u8,
    /// The volume as it was.
    pub previous: Numbered<'m>,
    /// The volume as it shall be.
    pub last: Numbered<'m>,
    /// The first segment, where it was moved away at the start.
    pub moved: Option<Numbered<'m>>,
    /// The live segment that was being overwritten.
    pub hot: Option<HotZone<'m>>,
}

/// The live segment that was being overwritten when the reencryption stopped.
pub struct HotZone<'m> {
    /// The segment.
    pub segment: Numbered<'m>,
    /// Bytes of it.
    pub size: u64,
    /// What is added to the IV's sector number, for old and new data alike.
    pub iv_tweak: u64,
    /// How old data is told from new.
    pub recovery: Recovery,
}

/// How the hot zone's plaintext is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recovery {
    /// The keyslot's area holds the hashes of the old ciphertext, one for each block: a block whose hash matches is
    /// still old, any other is new.
    Checksum {
        /// The hash.
        hash: Hash,
        /// Bytes of a block.
        block: u64,
    },
    /// The keyslot's area holds the old ciphertext.
    Journal,
    /// The old ciphertext is still where it was, as new data goes elsewhere.
    Shift {
        /// Where it starts in the data file.
        offset: u64,
        /// What is added to the IV's sector number there.
        iv_tweak: u64,
    },
}

impl<'m> Reencryption<'m> {
    /// The state of the reencryption, or `None` where there is none.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`](crate::ErrorKind::Corrupt) for a state that contradicts itself;
    /// [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported) for a state without a proof, or one whose hot zone
    /// nobody can recover.
    pub fn of(metadata: &'m Metadata) -> Result<Option<Self>> {
        let Some((keyslot, slot, state)) = metadata.reencrypt_keyslot() else { return Ok(None) };
        let version = version(metadata)?;
        let (previous, last) = (flagged(metadata, "backup-previous")?, flagged(metadata, "backup-final")?);
        let missing = |flag| Error::corrupt("segments", format!("no segment has the flag \"{flag}\""));
        let previous = previous.ok_or_else(|| missing("backup-previous"))?;
        let last = last.ok_or_else(|| missing("backup-final"))?;
        let moved = flagged(metadata, "backup-moved-segment")?;
        let mut hot = None;
        for (id, segment) in metadata.live_segments() {
            if segment.has_flag("in-reencryption") {
                if !alike(segment, last.1) {
                    return Err(mismatch(id, "backup-final"));
                }
                if let Some((first, _)) = hot.replace((id, segment)) {
                    let message = format!("segments {first} and {id} are both in reencryption; one is allowed");
                    return Err(Error::corrupt("segments", message));
                }
            } else if !alike(segment, last.1) && !alike(segment, previous.1) {
                return Err(mismatch(id, "backup-final, nor that of backup-previous"));
            }
        }
        let mut found = Self { keyslot, state, area: slot.area, version, previous, last, moved, hot: None };
        found.hot = hot.map(|segment| found.hot_zone(segment)).transpose()?;
        Ok(Some(found))
    }

    /// The names of the fields of the keyslot, for errors.
    fn field(&self, name: &str) -> String {
        format!("keyslots.{}.{name}", self.keyslot)
    }

    /// How the hot zone is recovered (`reencrypt_recover_segment`).
    fn hot_zone(&self, segment: Numbered<'m>) -> Result<HotZone<'m>> {
        let (id, hot) = segment;
        let size = hot.size.ok_or_else(|| {
            Error::corrupt(format!("segments.{id}.size"), "the segment in reencryption is dynamic; bytes are wanted")
        })?;
        let inside = hot.offset.checked_sub(self.last.1.offset).ok_or_else(|| {
            let message = format!("found {}: before the start of the volume at {}", hot.offset, self.last.1.offset);
            Error::corrupt(format!("segments.{id}.offset"), message)
        })?;
        let iv_tweak = match &hot.kind {
            SegmentKind::Crypt(c) => c.iv_tweak,
            _ => inside / 512,
        };
        let recovery = match self.state.resilience.as_str() {
            "checksum" => self.checksum(size)?,
            "journal" => self.journal(size)?,
            "datashift-checksum" if inside == 0 => self.checksum(size)?,
            "datashift-journal" if inside == 0 => self.journal(size)?,
            "datashift" | "datashift-checksum" | "datashift-journal" => self.shift(segment, inside, size, iv_tweak)?,
            _ => return Err(self.unknowable(hot, size)),
        };
        Ok(HotZone { segment, size, iv_tweak, recovery })
    }

    /// Refuses a hot zone whose old data nothing keeps apart from the new.
    fn unknowable(&self, hot: &Segment, size: u64) -> Error {
        let message = format!(
            "found \"{}\": nobody can know which of the {size} bytes from {} on of the data file are old and which new",
            escape(&self.state.resilience),
            hot.offset
        );
        Error::unsupported(self.field("area.type"), message).at(hot.offset)
    }

    fn checksum(&self, size: u64) -> Result<Recovery> {
        let (Some(name), Some(block)) = (&self.state.hash, self.state.sector_size) else {
            return Err(Error::corrupt(self.field("area"), "checksums without a hash or a sector size"));
        };
        let hash = Hash::from_name(name).map_err(|e| e.with_rule(self.field("area.hash")))?;
        let block = u64::from(block);
        if block > REENCRYPT_BLOCK_MAX {
            let message = format!("found {block}; at most {REENCRYPT_BLOCK_MAX} is allowed");
            return Err(Error::limit(self.field("area.sector_size"), message));
        }
        if block == 0 || !size.is_multiple_of(block) {
            let message = format!("found {block}; the {size} bytes in reencryption are no multiple of it");
            return Err(Error::corrupt(self.field("area.sector_size"), message));
        }
        let hash_len = to_u64(hash.output_len());
        let blocks = size.checked_div(block).unwrap_or(0);
        match blocks.checked_mul(hash_len) {
            Some(wanted) if wanted <= self.area.size => Ok(Recovery::Checksum { hash, block }),
            _ => Err(self.area_too_small(format!("the hashes of {}", counted(blocks, "block")))),
        }
    }

    fn journal(&self, size: u64) -> Result<Recovery> {
        if size <= self.area.size {
            Ok(Recovery::Journal)
        } else {
            Err(self.area_too_small(format!("the {size} bytes in reencryption")))
        }
    }

    fn area_too_small(&self, what: String) -> Error {
        let message = format!("found {}, which cannot hold {what}", self.area.size);
        Error::corrupt(self.field("area.size"), message)
    }

    /// Where the old data of the hot zone is that starts `inside` bytes from the volume's start.
    fn shift(&self, hot: Numbered<'_>, inside: u64, size: u64, iv_tweak: u64) -> Result<Recovery> {
        let (id, hot) = hot;
        if let (0, Some((moved, segment))) = (id, self.moved) {
            if segment.size.is_none_or(|s| s < size) {
                let message = format!("the moved segment is smaller than the {size} bytes in reencryption");
                return Err(Error::corrupt(format!("segments.{moved}.size"), message));
            }
            if !alike(segment, self.previous.1) {
                return Err(mismatch(moved, "backup-previous"));
            }
            if segment.offset.abs_diff(hot.offset) < size {
                return Err(self.unknowable(hot, size));
            }
            return Ok(Recovery::Shift { offset: segment.offset, iv_tweak: 0 });
        }
        let by = self.state.shift_size.unwrap_or(0);
        let (first, second) = if self.state.is_forward() {
            (self.last.1.offset, self.previous.1.offset)
        } else {
            (self.previous.1.offset, self.last.1.offset)
        };
        if by == 0 || first.checked_add(by) != Some(second) {
            let message = format!(
                "found {by}; the volume moves from byte {} to byte {}",
                self.previous.1.offset, self.last.1.offset
            );
            return Err(Error::corrupt(self.field("area.shift_size"), message));
        }
        // Where the two would overlap, the writing of the new has destroyed some of the old.
        if size > by {
            let message = format!("found {by}; the {size} bytes in reencryption are more");
            return Err(Error::corrupt(self.field("area.shift_size"), message));
        }
        let beyond = || Error::corrupt(format!("segments.{id}.offset"), "the old data would lie beyond 2^64 bytes");
        let offset = self.previous.1.offset.checked_add(inside).ok_or_else(beyond)?;
        Ok(Recovery::Shift { offset, iv_tweak })
    }

    /// What the keyslot's digest is a digest of: a version, the old and the new volume key where there are two, the
    /// keyslot and the backup segments (`reencrypt_assembly_verification_data`).
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`](crate::ErrorKind::Corrupt) for a field that cannot be in it.
    pub fn verification_data(&self, keys: &[&[u8]]) -> Result<SecretBytes> {
        let mut fields = Fields(Vec::new());
        let slot = |name: &str| self.field(name);
        fields.text(&slot("mode"), &self.state.mode)?;
        fields.text(&slot("direction"), &self.state.direction)?;
        fields.text(&slot("area.type"), &self.state.resilience)?;
        fields.number(self.area.offset);
        fields.number(self.area.size);
        if let (Some(hash), Some(block)) = (&self.state.hash, self.state.sector_size) {
            fields.text(&slot("area.hash"), hash)?;
            fields.0.extend(block.to_be_bytes());
        }
        if let Some(shift) = self.state.shift_size {
            fields.number(shift);
        }
        for (id, segment) in [Some(self.previous), Some(self.last), self.moved].into_iter().flatten() {
            fields.segment(id, segment)?;
        }
        let head = [b'v', b'0'.saturating_add(self.version)];
        let keys_len: usize = keys.iter().map(|k| k.len()).sum();
        let len = head.len().saturating_add(keys_len).saturating_add(fields.0.len());
        let mut data = SecretBytes::zeroed(len)?;
        let mut rest = data.expose_mut();
        for part in std::iter::once(head.as_slice()).chain(keys.iter().copied()).chain([fields.0.as_slice()]) {
            let (now, behind) = rest.split_at_mut(part.len());
            now.copy_from_slice(part);
            rest = behind;
        }
        Ok(data)
    }
}

/// The fields that a digest proves, one behind the other.
struct Fields(Vec<u8>);

impl Fields {
    fn text(&mut self, field: &str, text: &str) -> Result<()> {
        if text.is_empty() || text.len() > VERIFIED_TEXT_MAX {
            let message = format!("found {} bytes of text; 1 to {VERIFIED_TEXT_MAX} are allowed", text.len());
            return Err(Error::corrupt(field.to_owned(), message));
        }
        self.0.extend(text.as_bytes());
        Ok(())
    }

    fn number(&mut self, n: u64) {
        self.0.extend(n.to_be_bytes());
    }

    fn segment(&mut self, id: u32, segment: &Segment) -> Result<()> {
        let field = |name: &str| format!("segments.{id}.{name}");
        let name = match &segment.kind {
            SegmentKind::Crypt(_) => "crypt",
            SegmentKind::Linear => "linear",
            SegmentKind::Unknown { kind } => {
                let message = format!("found \"{}\"; crypt and linear are allowed in a reencryption", escape(kind));
                return Err(Error::corrupt(field("type"), message));
            }
        };
        self.text(&field("type"), name)?;
        self.number(segment.offset);
        match segment.size {
            Some(size) => self.number(size),
            None => self.0.extend(b"dynamic"),
        }
        if let SegmentKind::Crypt(c) = &segment.kind {
            self.number(c.iv_tweak);
            self.text(&field("encryption"), &c.encryption)?;
            self.0.extend(c.sector_size.to_be_bytes());
        }
        Ok(())
    }
}

/// The version of the `online-reencrypt` requirement.
fn version(metadata: &Metadata) -> Result<u8> {
    let rule = "config.requirements";
    match metadata.requirements.iter().map(String::as_str).find(|r| super::validate::is_online_reencrypt(r)) {
        Some("online-reencrypt-v2") => Ok(2),
        Some("online-reencrypt-v3") => Ok(3),
        // CVE-2021-4122: without the digest anybody who can write to the header can move the border between encrypted
        // and plain data. cryptsetup refuses such a header too, until its user has confirmed that it is genuine.
        Some("online-reencrypt") => Err(Error::unsupported(
            rule,
            "found \"online-reencrypt\": a reencryption by cryptsetup before 2.4.3, whose state nothing proves to be genuine",
        )
        .with_hint("if you trust the image, run cryptsetup repair on a copy")),
        Some(other) => {
            let message = format!("found \"{}\"; online-reencrypt-v2 and -v3 are known", escape(other));
            Err(Error::unsupported(rule, message).with_hint("use the cryptsetup that wrote the header"))
        }
        None => Err(Error::corrupt(rule, "there is a reencrypt keyslot, but no online-reencrypt requirement")),
    }
}

/// The one segment with the flag.
fn flagged<'m>(metadata: &'m Metadata, flag: &str) -> Result<Option<Numbered<'m>>> {
    let mut all = (0u32..).zip(&metadata.segments).filter(|(_, s)| s.has_flag(flag));
    match (all.next(), all.next()) {
        (first, None) => Ok(first),
        _ => Err(Error::corrupt("segments", format!("several have the flag \"{flag}\"; one is allowed"))),
    }
}

/// Whether two segments are encrypted in the same way (`json_segment_cmp`).
fn alike(a: &Segment, b: &Segment) -> bool {
    match (&a.kind, &b.kind) {
        (SegmentKind::Crypt(a), SegmentKind::Crypt(b)) => {
            a.sector_size == b.sector_size && a.encryption == b.encryption
        }
        (SegmentKind::Linear, SegmentKind::Linear) => true,
        _ => false,
    }
}

fn mismatch(id: u32, with: &str) -> Error {
    let message = format!("its type, encryption or sector size is not that of {with}");
    Error::corrupt(format!("segments.{id}"), message)
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;
    use crate::ErrorKind;

    /// The metadata of a golden image, to be changed field by field.
    fn golden(file: &str) -> Metadata {
        let path = format!("{}/testdata/{file}.gz", env!("CARGO_MANIFEST_DIR"));
        let mut image = Vec::new();
        flate2::read::GzDecoder::new(std::fs::File::open(path).unwrap()).read_to_end(&mut image).unwrap();
        crate::open(&image).unwrap()
    }

    fn state(m: &mut Metadata) -> &mut ReencryptKeyslot {
        let kinds = m.keyslots.values_mut().map(|k| &mut k.kind);
        kinds.filter_map(|k| if let KeyslotKind::Reencrypt(s) = k { Some(s) } else { None }).next().unwrap()
    }

    fn area(m: &mut Metadata) -> &mut Area {
        &mut m.keyslots.values_mut().find(|k| matches!(k.kind, KeyslotKind::Reencrypt(_))).unwrap().area
    }

    fn with_flag<'m>(m: &'m mut Metadata, flag: &str) -> &'m mut Segment {
        m.segments.iter_mut().find(|s| s.has_flag(flag)).unwrap()
    }

    fn recovery(m: &Metadata) -> Recovery {
        Reencryption::of(m).unwrap().unwrap().hot.unwrap().recovery
    }

    /// Each change to a golden image's metadata is refused for this reason.
    #[track_caller]
    fn refused(file: &str, kind: ErrorKind, rule: &str, change: impl FnOnce(&mut Metadata)) {
        let mut m = golden(file);
        change(&mut m);
        let e = Reencryption::of(&m).err().unwrap_or_else(|| panic!("{rule}: was accepted"));
        assert_eq!((e.kind(), e.rule()), (kind, rule), "{e}");
    }

    const CHECKSUM: &str = "l2-reencrypt-crash-checksum.img";
    const JOURNAL: &str = "l2-reencrypt-crash-journal.img";
    const SHIFT: &str = "l2-reencrypt-shift-crash.img";
    const MOVED: &str = "l2-encrypt-crash-last.img";
    use ErrorKind::{Corrupt, LimitExceeded, Unsupported};

    #[test]
    fn each_resilience_has_its_recovery() {
        assert!(matches!(recovery(&golden(CHECKSUM)), Recovery::Checksum { hash: Hash::Sha256, block: 512 }));
        assert!(matches!(
            recovery(&golden("l2-reencrypt-crash-sector-512.img")),
            Recovery::Checksum { block: 4096, .. }
        ));
        assert_eq!(recovery(&golden(JOURNAL)), Recovery::Journal);
        // The old data of a shift backwards lie as far in front as the volume moves.
        let m = golden(SHIFT);
        let hot = m.segments.iter().find(|s| s.has_flag("in-reencryption")).unwrap();
        assert_eq!(recovery(&m), Recovery::Shift { offset: hot.offset - 32_768, iv_tweak: 64 });
        // Without a moved segment this holds for the last hot zone too.
        assert_eq!(
            recovery(&golden("l2-reencrypt-shift-crash-last.img")),
            Recovery::Shift { offset: 196_608, iv_tweak: 0 }
        );
        let moved = golden(MOVED);
        let at = moved.segments.iter().find(|s| s.has_flag("backup-moved-segment")).unwrap().offset;
        assert_eq!(recovery(&moved), Recovery::Shift { offset: at, iv_tweak: 0 });
        // Forwards the old data lie behind, but the moved segment is decrypted in its place.
        assert_eq!(recovery(&golden("l2-decrypt-crash.hdr")), Recovery::Shift { offset: 253_952, iv_tweak: 264 });
        assert!(matches!(recovery(&golden("l2-decrypt-crash-last-checksum.hdr")), Recovery::Checksum { .. }));
        assert_eq!(recovery(&golden("l2-decrypt-crash-last-journal.hdr")), Recovery::Journal);
        // Nothing was being overwritten.
        assert!(Reencryption::of(&golden("l2-reencrypt-half.img")).unwrap().unwrap().hot.is_none());
        assert!(Reencryption::of(&golden("l2-argon2id.img")).unwrap().is_none());
    }

    #[test]
    fn a_hot_zone_without_resilience_is_refused_with_its_bytes() {
        let mut m = golden(CHECKSUM);
        state(&mut m).resilience = "none".into();
        let e = Reencryption::of(&m).err().unwrap();
        assert_eq!(e.kind(), Unsupported);
        assert!(e.to_string().contains("16384 bytes from 212992 on"), "{e}");
        // Where nothing was being overwritten, there is nothing to recover.
        let mut m = golden("l2-reencrypt-half.img");
        state(&mut m).resilience = "none".into();
        assert!(Reencryption::of(&m).is_ok());
        refused(CHECKSUM, Unsupported, "keyslots.2.area.type", |m| state(m).resilience = "backup".into());
        // The old data of a moved segment that was never moved are where the new are written.
        refused(MOVED, Unsupported, "keyslots.1.area.type", |m| {
            with_flag(m, "backup-moved-segment").offset = with_flag(m, "in-reencryption").offset;
        });
    }

    #[test]
    fn segments_must_agree_with_their_backups() {
        refused(CHECKSUM, Corrupt, "segments", |m| m.segments.retain(|s| !s.has_flag("backup-final")));
        refused(CHECKSUM, Corrupt, "segments", |m| m.segments.retain(|s| !s.has_flag("backup-previous")));
        refused(CHECKSUM, Corrupt, "segments", |m| with_flag(m, "backup-final").flags.push("backup-previous".into()));
        refused(CHECKSUM, Corrupt, "segments", |m| m.segments[0].flags.push("in-reencryption".into()));
        refused(CHECKSUM, Corrupt, "segments.0", |m| m.segments[0].kind = SegmentKind::Linear);
        refused(CHECKSUM, Corrupt, "segments.1", |m| with_flag(m, "in-reencryption").kind = SegmentKind::Linear);
        refused(CHECKSUM, Corrupt, "segments.2", |m| {
            if let SegmentKind::Crypt(c) = &mut m.segments[2].kind {
                c.sector_size = 4096;
            }
        });
        refused(CHECKSUM, Corrupt, "segments.1.size", |m| with_flag(m, "in-reencryption").size = None);
        refused(CHECKSUM, Corrupt, "segments.1.offset", |m| with_flag(m, "in-reencryption").offset = 512);
    }

    #[test]
    fn checksums_and_journals_must_fit() {
        refused(CHECKSUM, Unsupported, "keyslots.2.area.hash", |m| state(m).hash = Some("crc32".into()));
        refused(CHECKSUM, Corrupt, "keyslots.2.area", |m| state(m).hash = None);
        refused(CHECKSUM, Corrupt, "keyslots.2.area", |m| state(m).sector_size = None);
        refused(CHECKSUM, Corrupt, "keyslots.2.area.sector_size", |m| state(m).sector_size = Some(0));
        refused(CHECKSUM, Corrupt, "keyslots.2.area.sector_size", |m| state(m).sector_size = Some(32_768));
        refused(CHECKSUM, LimitExceeded, "keyslots.2.area.sector_size", |m| state(m).sector_size = Some(1 << 31));
        refused(CHECKSUM, Corrupt, "keyslots.2.area.size", |m| area(m).size = 512);
        refused(CHECKSUM, Corrupt, "keyslots.2.area.size", |m| with_flag(m, "in-reencryption").size = Some(1 << 62));
        refused(JOURNAL, Corrupt, "keyslots.2.area.size", |m| area(m).size = 16_383);
    }

    #[test]
    fn a_shift_must_be_what_the_volume_moves_by() {
        let rule = "keyslots.2.area.shift_size";
        for shift in [None, Some(0), Some(512), Some(u64::MAX), Some(u64::MAX - 511)] {
            refused(SHIFT, Corrupt, rule, |m| state(m).shift_size = shift);
        }
        refused(SHIFT, Corrupt, rule, |m| state(m).direction = "forward".into());
        refused(SHIFT, Corrupt, rule, |m| with_flag(m, "backup-previous").offset = u64::MAX - 511);
        // More than the shift was being overwritten: the old data have been overwritten too.
        refused(SHIFT, Corrupt, rule, |m| with_flag(m, "in-reencryption").size = Some(65_536));
        refused(MOVED, Corrupt, "segments.4.size", |m| with_flag(m, "backup-moved-segment").size = Some(512));
        refused(MOVED, Corrupt, "segments.4.size", |m| with_flag(m, "backup-moved-segment").size = None);
        refused(MOVED, Corrupt, "segments.4", |m| {
            with_flag(m, "backup-moved-segment").kind = SegmentKind::Unknown { kind: "x".into() };
        });
    }

    #[test]
    fn only_states_with_a_proof_are_taken() {
        let rule = "config.requirements";
        for old in ["online-reencrypt", "online-reencrypt-v1", "online-reencrypt-v4", "online-reencrypt-v20"] {
            refused(CHECKSUM, Unsupported, rule, |m| m.requirements = vec![old.into()]);
        }
        refused(CHECKSUM, Corrupt, rule, |m| m.requirements.clear());
    }

    #[test]
    fn the_verified_data_are_as_cryptsetup_lays_them_out() {
        let mut m = golden(MOVED);
        *area(&mut m) = Area { offset: 0x1_0000, size: 4096 };
        let r = Reencryption::of(&m).unwrap().unwrap();
        let data = r.verification_data(&[b"old", b"new"]).unwrap();
        let n = u64::to_be_bytes;
        let expected = [
            b"v2oldnewencryptbackwarddatashift".as_slice(),
            &n(0x1_0000),
            &n(4096),
            &n(102_400),
            b"linear",
            &n(0),
            &n(135_168),
            b"crypt",
            &n(102_400),
            b"dynamic",
            &n(0),
            b"aes-cbc-plain64",
            &512u32.to_be_bytes(),
            b"linear",
            &n(237_568),
            &n(102_400),
        ];
        assert_eq!(data.expose(), expected.concat());
        let m = golden(CHECKSUM);
        let data = Reencryption::of(&m).unwrap().unwrap().verification_data(&[]).unwrap();
        let hashes = [b"sha256".as_slice(), &512u32.to_be_bytes(), b"crypt"].concat();
        assert!(data.expose().windows(hashes.len()).any(|w| w == hashes));
        let mut long = golden(CHECKSUM);
        for s in &mut long.segments {
            if let SegmentKind::Crypt(c) = &mut s.kind {
                c.encryption = "x".repeat(65);
            }
        }
        let e = Reencryption::of(&long).unwrap().unwrap().verification_data(&[]).err().unwrap();
        assert_eq!((e.kind(), e.rule()), (Corrupt, "segments.3.encryption"));
    }

    #[test]
    fn a_shift_takes_its_bytes_from_the_end() {
        let m = golden("l2-reencrypt-shift-init.img");
        assert_eq!(m.plaintext_size(196_608 + 98_304), Some(65_536));
        assert_eq!(m.plaintext_size(196_608), None);
        assert_eq!(golden("l2-decrypt-init.hdr").plaintext_size(118_784 + 151_552), Some(151_552));
        assert_eq!(golden("l2-reencrypt-half.img").plaintext_size(262_144 + 393_216), Some(393_216));
    }
}
