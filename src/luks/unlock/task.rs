//! What must open, and what no key may open.

use super::UnlockOptions;
use crate::error::{Error, Hint, Result, escape};
use crate::luks::metadata::{Metadata, Segment, SegmentKind};
use crate::luks::reencrypt::Reencryption;
use crate::luks::validate::is_online_reencrypt;

/// What unlocking a header has to come to.
pub(super) struct Task<'m> {
    pub(super) reencryption: Option<Reencryption<'m>>,
    /// The digests whose keys are wanted: at least one.
    pub(super) wanted: Vec<u32>,
}

impl<'m> Task<'m> {
    pub(super) fn of(metadata: &'m Metadata, options: &UnlockOptions) -> Result<Self> {
        check_requirements(metadata)?;
        let reencryption = Reencryption::of(metadata)?;
        if reencryption.is_none() {
            check_segments(metadata, options)?;
        }
        let wanted = wanted_digests(metadata, reencryption.as_ref())?;
        if wanted.is_empty() {
            // No key would be proved, so that any key would do.
            let message = "no live segment is encrypted: there is nothing that a key opens";
            return Err(Error::unsupported("segments", message)
                .with_hint("unluks inspect shows where they lie; their bytes can be copied as they are"));
        }
        Ok(Self { reencryption, wanted })
    }
}

/// Refuses live segments that cryptsetup activates in no header without a reencryption: `LUKS2_activate` sets up one
/// dm-crypt device for one crypt segment. Somebody who has no key could have put them there: with the state of a
/// reencryption such segments are proved to be genuine (CVE-2021-4122), and leaving the state out is no way round that.
fn check_segments(metadata: &Metadata, options: &UnlockOptions) -> Result<()> {
    if let Some(r) = metadata.requirements.iter().find(|r| is_online_reencrypt(r)) {
        let message = format!("found \"{}\", but no reencrypt keyslot holds the state of a reencryption", escape(r));
        return Err(Error::corrupt("config.requirements", message));
    }
    if let Some((id, _)) = metadata.live_segments().find(|(_, s)| s.has_flag("in-reencryption")) {
        let message = "found in-reencryption, but no reencrypt keyslot holds the state of a reencryption";
        return Err(Error::corrupt(format!("segments.{id}.flags"), message));
    }
    // The log is the owner's word, and lies in no header.
    if options.allow_foreign_segments || metadata.offline.is_some() {
        return Ok(());
    }
    let is_linear = |s: &Segment| matches!(s.kind, SegmentKind::Linear);
    let (rule, message) = match metadata.live_segments().find(|(_, s)| is_linear(s)) {
        Some((id, segment)) => {
            let message = format!("found linear: what lies from byte {} on is not encrypted", segment.offset);
            (format!("segments.{id}.type"), message)
        }
        None => match metadata.live_segments().count() {
            0 | 1 => return Ok(()),
            n => ("segments".to_owned(), format!("found {n} live segments; 1 is allowed")),
        },
    };
    let message = format!("{message}, though no reencryption goes on; cryptsetup activates no such header");
    Err(Error::unsupported(rule, message).with_hint(Hint::ForeignSegments))
}

/// Refuses a header that demands what is not known here.
fn check_requirements(metadata: &Metadata) -> Result<()> {
    for r in &metadata.requirements {
        let why = match r.as_str() {
            "offline-reencrypt" => {
                let message = "the header demands \"offline-reencrypt\": an offline reencryption was not finished";
                return Err(Error::unsupported("config.requirements", message).with_hint(Hint::OfflineLog));
            }
            "opal" => "the data is encrypted by the drive itself (OPAL)",
            "inline-hw-tags" => "the integrity tags are kept by the drive itself",
            r if is_online_reencrypt(r) => continue,
            _ => "which is not known here",
        };
        let message = format!("the header demands \"{}\": {why}", escape(r));
        return Err(
            Error::unsupported("config.requirements", message).with_hint("use the cryptsetup that wrote the header")
        );
    }
    Ok(())
}

/// The digests of the keys that the live segments are encrypted with; in a reencryption, of the old key and the new.
fn wanted_digests(metadata: &Metadata, reencryption: Option<&Reencryption<'_>>) -> Result<Vec<u32>> {
    let backups = reencryption.into_iter().flat_map(|r| [r.previous.0, r.last.0]);
    let mut wanted: Vec<_> = backups.filter_map(|id| metadata.segment_digest(id).map(|(d, _)| d)).collect();
    for (id, segment) in metadata.live_segments() {
        match &segment.kind {
            SegmentKind::Crypt(_) => {
                let digest = metadata.segment_digest(id).map(|(d, _)| d);
                let missing = || Error::corrupt(format!("segments.{id}.digest"), "no digest names this segment");
                wanted.push(digest.ok_or_else(missing)?);
            }
            SegmentKind::Linear => {}
            SegmentKind::Unknown { kind } => {
                let message = format!("found \"{}\"; crypt is known", escape(kind));
                return Err(Error::unsupported(format!("segments.{id}.type"), message));
            }
        }
    }
    wanted.sort_unstable();
    wanted.dedup();
    Ok(wanted)
}
