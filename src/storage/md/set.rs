//! Which of the sources are members of one array, and which of them have its data.
//!
//! The rules are those of the kernel (`super_1_validate`, `super_90_validate`) and of mdadm: the newest superblock tells
//! what the array is; a member that is more than one event behind it, or that it says has failed, does not count.

use std::collections::BTreeMap;

use crate::error::{Error, Result, escape};
use crate::limits::MD_MEMBERS_MAX;
use crate::num::from_u32;

use super::superblock::{Role, SetUuid, Superblock};
use super::{MemberInfo, MemberState, Source};

/// The sources of one array, sorted out.
pub(super) struct Set {
    /// The newest superblock.
    pub newest: Superblock,
    /// By the member's number: the source that has its data, and its superblock.
    pub members: Vec<Option<(usize, Superblock)>>,
    /// What became of each source, and the members that none has.
    pub infos: Vec<MemberInfo>,
    /// What the user should know.
    pub notes: Vec<String>,
    /// Which sources do not count, and why: words for a note, or for the refusal of an array that wants them.
    pub left_out: Vec<String>,
}

/// Sorts out the sources.
pub(super) fn sort_out(sources: &[Source]) -> Result<Set> {
    if sources.len() > MD_MEMBERS_MAX {
        let message = format!("found {} sources; an array has {MD_MEMBERS_MAX} members at most", sources.len());
        return Err(Error::limit("md.members", message));
    }
    let (superblocks, notes) = of_one_array(sources)?;
    let counts = |sb: &&Superblock| matches!(sb.role(), Role::Member(_) | Role::Journal);
    let newest_of = |all: &mut dyn Iterator<Item = &Superblock>| {
        // The first of equals.
        all.fold(
            None,
            |best: Option<&Superblock>, sb| if best.is_some_and(|b| b.events >= sb.events) { best } else { Some(sb) },
        )
        .cloned()
    };
    let newest = newest_of(&mut superblocks.iter().filter(counts)).or_else(|| newest_of(&mut superblocks.iter()));
    let Some(newest) = newest else {
        return Err(Error::invalid("an md array is read from its members, but none was given"));
    };
    check_state(&newest)?;
    let mut members: Vec<Option<(usize, Superblock)>> = vec![None; from_u32(newest.raid_disks)];
    let mut infos = Vec::new();
    for (n, sb) in superblocks.into_iter().enumerate() {
        let mut state = state(&newest, &sb);
        let (role, events, name) = (sb.role(), sb.events, sources[n].name.clone());
        let slot = match role {
            Role::Member(number) => usize::try_from(number).ok().and_then(|n| members.get_mut(n)),
            _ => None,
        };
        if let (MemberState::InSync, Some(slot)) = (state, slot) {
            check_same_shape(&newest, &sb, &name)?;
            match slot {
                None => *slot = Some((n, sb)),
                Some(_) if sb.replacement => state = MemberState::Replacement,
                Some((other, there)) if there.replacement => {
                    if let Some(info) = infos.get_mut(*other) {
                        let info: &mut MemberInfo = info;
                        info.state = MemberState::Replacement;
                    }
                    *slot = Some((n, sb));
                }
                Some((other, _)) => {
                    let message = format!(
                        "{}: {} and {} are both {role}, and equally new",
                        newest.array(),
                        escape(&sources[*other].name),
                        escape(&name)
                    );
                    return Err(Error::invalid(message).with_rule("md.member.twice").with_hint("give one of them"));
                }
            }
        }
        infos.push(MemberInfo { source: Some(n), name, role, events, state });
    }
    let without = infos.iter().filter(|info| info.state != MemberState::InSync);
    let left_out =
        without.map(|info| format!("{} is left out: {}", escape(&info.name), describe(info, &newest))).collect();
    for number in (0..newest.raid_disks).filter(|n| members[from_u32(*n)].is_none()) {
        let (role, state) = (Role::Member(number), MemberState::Missing);
        infos.push(MemberInfo { source: None, name: String::new(), role, events: 0, state });
    }
    Ok(Set { newest, members, infos, notes, left_out })
}

/// Why a source does not count, for a note.
fn describe(info: &MemberInfo, newest: &Superblock) -> String {
    match info.state {
        MemberState::Stale => {
            format!("as {} it stands at event {}, the array at {}", info.role, info.events, newest.events)
        }
        MemberState::Failed => format!("the newest member says that this {} failed or was replaced", info.role),
        MemberState::Recovering => format!("it was being rebuilt as {}", info.role),
        MemberState::Replacement => format!("it replaces {}, which is there", info.role),
        MemberState::Spare => "it is a spare".into(),
        MemberState::Faulty => "it says of itself that it failed".into(),
        MemberState::Journal => "it is the journal".into(),
        MemberState::InSync | MemberState::Missing => info.role.to_string(),
    }
}

/// The superblock of each source, all of the array that most of them are members of.
fn of_one_array(sources: &[Source]) -> Result<(Vec<Superblock>, Vec<String>)> {
    let mut all: Vec<Vec<Superblock>> = Vec::new();
    // By the array: how many sources have it, when it was made, and how new it is.
    let mut arrays: BTreeMap<SetUuid, (usize, u64, u64)> = BTreeMap::new();
    let mut notes = Vec::new();
    for source in sources {
        let name = escape(&source.name);
        let (found, wrong) = Superblock::probe_all(&source.disk);
        match wrong {
            Some(e) if found.is_empty() => return Err(e.within(name)),
            Some(e) => notes.push(format!("md: {name}: another superblock was passed over: {e}")),
            None if found.is_empty() => {
                let message = format!("{name} has no md superblock: it is no member of an array, or it is cut off");
                return Err(Error::invalid(message).with_rule("md.member"));
            }
            None => (),
        }
        let mut seen: Vec<SetUuid> = Vec::new();
        for sb in &found {
            let array = arrays.entry(sb.set_uuid).or_default();
            array.0 += usize::from(!seen.contains(&sb.set_uuid));
            *array = (array.0, array.1.max(sb.ctime), array.2.max(sb.events));
            seen.push(sb.set_uuid);
        }
        all.push(found);
    }
    let taken = arrays.iter().max_by_key(|(_, rank)| **rank).map(|(uuid, _)| *uuid);
    let mut superblocks: Vec<Superblock> = Vec::new();
    for (source, found) in sources.iter().zip(all) {
        let name = escape(&source.name);
        let (mut ours, others): (Vec<_>, Vec<_>) = found.into_iter().partition(|sb| Some(sb.set_uuid) == taken);
        ours.sort_by_key(|sb| sb.events);
        match (ours.pop(), others.first()) {
            (Some(sb), _) => {
                let passed = ours.iter().chain(&others);
                notes.extend(passed.map(|sb| {
                    format!(
                        "md: {name}: a superblock {} of {} at byte {} was passed over",
                        sb.version,
                        sb.array(),
                        sb.offset
                    )
                }));
                superblocks.push(sb);
            }
            (None, other) => {
                let its = other.map_or_else(String::new, Superblock::array);
                let of = superblocks.first().map_or_else(String::new, Superblock::array);
                let message = format!("{name} is a member of another array: {its}, not {of}");
                return Err(Error::invalid(message)
                    .with_rule("md.member.other")
                    .with_hint("give the members of one array"));
            }
        }
    }
    Ok((superblocks, notes))
}

/// Refuses an array whose members' data is not the array's.
fn check_state(newest: &Superblock) -> Result<()> {
    let refuse = |rule, what: &str| Err(Error::unsupported(rule, format!("{}: {what}", newest.array())));
    if newest.reshape {
        return refuse("md.reshape", "it is being brought into another shape (reshape); let md finish that first");
    }
    if newest.journal {
        return refuse("md.journal", "it has a journal of writes, and what lies in that is newer than the members");
    }
    Ok(())
}

/// What a superblock says of its member, and the newest one too.
fn state(newest: &Superblock, sb: &Superblock) -> MemberState {
    let role = sb.role();
    match role {
        Role::Journal => MemberState::Journal,
        Role::Faulty => MemberState::Faulty,
        Role::Spare => MemberState::Spare,
        // The kernel takes one that is a single event behind: not all members were told yet.
        Role::Member(_) if sb.events.saturating_add(1) < newest.events => MemberState::Stale,
        Role::Member(_) if newest.role_of(sb.dev_number) != role => MemberState::Failed,
        Role::Member(_) if sb.recovery_offset.is_some() => MemberState::Recovering,
        Role::Member(_) => MemberState::InSync,
    }
}

/// Members that are equally new agree on what their array is.
fn check_same_shape(newest: &Superblock, sb: &Superblock, name: &str) -> Result<()> {
    let differs: [(&'static str, bool); 6] = [
        ("level", newest.level != sb.level),
        ("layout", newest.layout != sb.layout),
        ("chunksize", newest.chunk != sb.chunk),
        ("raid_disks", newest.raid_disks != sb.raid_disks),
        ("size", newest.size != sb.size),
        ("major_version", newest.device_uuid.is_some() != sb.device_uuid.is_some()),
    ];
    match differs.iter().find(|(_, differs)| *differs) {
        None => Ok(()),
        Some((field, _)) => {
            let message = format!("{}: {} has another {field} than the newest member", newest.array(), escape(name));
            Err(Error::corrupt("md.member.differs", message).at(sb.offset))
        }
    }
}
