//! What md's superblocks say, in whichever of their versions: `v0` and `v1` read them, `probe` finds them.

use std::fmt;

use crate::error::{Error, Result, counted, escape};
use crate::limits::MD_MEMBERS_MAX;
use crate::num::from_u32;

pub(super) const SECTOR: u64 = 512;
pub(super) const MAGIC: u32 = 0xa92b_4efc;

/// A superblock's version, which also says where it lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// 0.90, 64 to 128 KiB before the end; in the byte order of the machine that made it.
    V0_90,
    /// 1.0, 8 to 12 KiB before the end.
    V1_0,
    /// 1.1, at the start.
    V1_1,
    /// 1.2, at 4 KiB.
    V1_2,
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V0_90 => "0.90",
            Self::V1_0 => "1.0",
            Self::V1_1 => "1.1",
            Self::V1_2 => "1.2",
        })
    }
}

/// How an array's members make one disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// One member after the other.
    Linear,
    /// Chunks in turn.
    Raid0,
    /// Each member has everything.
    Raid1,
    /// Chunks in turn, and their parity on the last member.
    Raid4,
    /// Chunks in turn, and their parity on one member after the other.
    Raid5,
    /// The same with two parities.
    Raid6,
    /// Chunks in turn, each of them several times.
    Raid10,
    /// A number that is none of these, and that is not read: multipath, faulty, container.
    Other(i32),
}

impl Level {
    pub(super) fn from_number(number: i32) -> Self {
        match number {
            -1 => Self::Linear,
            0 => Self::Raid0,
            1 => Self::Raid1,
            4 => Self::Raid4,
            5 => Self::Raid5,
            6 => Self::Raid6,
            10 => Self::Raid10,
            other => Self::Other(other),
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Linear => f.write_str("linear"),
            Self::Raid0 => f.write_str("RAID0"),
            Self::Raid1 => f.write_str("RAID1"),
            Self::Raid4 => f.write_str("RAID4"),
            Self::Raid5 => f.write_str("RAID5"),
            Self::Raid6 => f.write_str("RAID6"),
            Self::Raid10 => f.write_str("RAID10"),
            Self::Other(-4) => f.write_str("multipath"),
            Self::Other(-5) => f.write_str("faulty"),
            Self::Other(-100) => f.write_str("container"),
            Self::Other(number) => write!(f, "level {number}"),
        }
    }
}

/// What an array's superblock calls a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The member with this number.
    Member(u32),
    /// A spare, which holds nothing.
    Spare,
    /// A member that failed.
    Faulty,
    /// The journal of writes.
    Journal,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Member(number) => write!(f, "member {number}"),
            Self::Spare => f.write_str("spare"),
            Self::Faulty => f.write_str("faulty"),
            Self::Journal => f.write_str("journal"),
        }
    }
}

/// An array's UUID, which all its members have. It is written as mdadm writes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SetUuid(pub [u8; 16]);

impl fmt::Display for SetUuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, byte) in self.0.iter().enumerate() {
            let colon = if n > 0 && n % 4 == 0 { ":" } else { "" };
            write!(f, "{colon}{byte:02x}")?;
        }
        Ok(())
    }
}

/// A range of bytes of a member that its list of bad blocks names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadBlocks {
    /// The first byte, from the member's own start.
    pub start: u64,
    /// How many bytes.
    pub len: u64,
}

/// What one member says of itself and of its array. Offsets and sizes are in bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Superblock {
    /// Its version.
    pub version: Version,
    /// Where it lies on the member.
    pub offset: u64,
    /// The array's UUID.
    pub set_uuid: SetUuid,
    /// The array's name as it stands there, often `host:name`; empty in version 0.90, which has none.
    pub name: String,
    /// When the array was made, in seconds since 1970.
    pub ctime: u64,
    /// How the members make one disk.
    pub level: Level,
    /// The layout's number, which means something else in each level; of RAID0 only where the feature says so.
    pub layout: Option<u32>,
    /// The size of a chunk; 0 where the level has none.
    pub chunk: u64,
    /// How many members a whole array has.
    pub raid_disks: u32,
    /// How much of each member the array uses, for all levels but linear and RAID0.
    pub size: u64,
    /// Where the member's data begins.
    pub data_offset: u64,
    /// How much room for data there is.
    pub data_size: u64,
    /// How often the superblock was written: the newest member of an array has the most.
    pub events: u64,
    /// The bytes of each member (RAID10: of the array) that are known to be in sync; `None` where all are.
    pub resync_offset: Option<u64>,
    /// The member's own number among all devices that the array ever had: the index in `roles`.
    pub dev_number: u32,
    /// The member's own UUID; version 0.90 has none.
    pub device_uuid: Option<[u8; 16]>,
    /// What each device is to the array, by its number.
    pub roles: Vec<Role>,
    /// How many bytes of the member were rebuilt, where it is being rebuilt.
    pub recovery_offset: Option<u64>,
    /// The array is being brought into another shape.
    pub reshape: bool,
    /// The array has a journal of writes.
    pub journal: bool,
    /// The array keeps a bitmap of writes.
    pub bitmap: bool,
    /// The array has a log of partial parity.
    pub ppl: bool,
    /// The member replaces another one of the same number.
    pub replacement: bool,
    /// What the member cannot give.
    pub bad_blocks: Vec<BadBlocks>,
    /// What the user should know, one line each: other superblocks that were passed over.
    pub notes: Vec<String>,
}

impl Superblock {
    /// What the member says that it is.
    pub fn role(&self) -> Role {
        self.role_of(self.dev_number)
    }

    /// What the device with this number is to the array, in this member's eyes.
    pub(super) fn role_of(&self, dev_number: u32) -> Role {
        let role = self.roles.get(from_u32(dev_number)).copied().unwrap_or(Role::Spare);
        match role {
            Role::Member(number) if number >= self.raid_disks => Role::Spare,
            role => role,
        }
    }

    /// The array, for a message: `RAID5 array "host:0" (UUID …)`.
    pub(super) fn array(&self) -> String {
        if self.name.is_empty() {
            format!("{} array {}", self.level, self.set_uuid)
        } else {
            format!("{} array \"{}\" ({})", self.level, escape(&self.name), self.set_uuid)
        }
    }
}

/// A field that has what is not allowed.
pub(super) fn wrong(field: &'static str, at: u64, message: String) -> Error {
    Error::corrupt(field, message).at(at)
}

pub(super) fn check_members(raid_disks: u32, at: u64) -> Result<()> {
    match usize::try_from(raid_disks).ok() {
        Some(1..=MD_MEMBERS_MAX) => Ok(()),
        Some(0) => Err(wrong("md.raid_disks", at, "found 0; an array has at least one member".into())),
        _ => {
            let message = format!("found {}; {MD_MEMBERS_MAX} are allowed", counted(raid_disks, "member"));
            Err(Error::limit("md.raid_disks", message).at(at))
        }
    }
}
