//! Where RAID4, RAID5 and RAID6 have a stripe's data and its parities: all layouts of `raid5_compute_sector` in the
//! kernel's `raid5.c`, with mdadm's names for them.
//!
//! A stripe is one chunk of each member. P is the XOR of its data; Q, of RAID6, is the sum of the data times powers of 2
//! in the field that `raid6` computes in. Which power belongs to which member is told by [`Parity::exponent`].

use crate::error::{Error, Result, counted};

use super::superblock::{Level, Superblock};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Algorithm {
    LeftAsymmetric,
    RightAsymmetric,
    LeftSymmetric,
    RightSymmetric,
    ParityFirst,
    ParityLast,
    /// RAID6 alone, after the DDF standard.
    ZeroRestart,
    NRestart,
    NContinue,
}

/// The layout of an array with parity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Parity {
    algorithm: Algorithm,
    level: Level,
    /// RAID6 that is a RAID5 with Q on a last member of its own.
    q_last: bool,
    disks: u64,
}

/// GF(2^8) tells no more than 255 members apart.
const RAID6_DISKS_MAX: u64 = 255;

impl Parity {
    pub fn new(sb: &Superblock) -> Result<Self> {
        use Algorithm::*;
        let number = sb.layout.unwrap_or(0);
        let (algorithm, q_last) = match (sb.level, number) {
            (Level::Raid4, _) => (ParityLast, false),
            (_, 0) => (LeftAsymmetric, false),
            (_, 1) => (RightAsymmetric, false),
            (_, 2) => (LeftSymmetric, false),
            (_, 3) => (RightSymmetric, false),
            (_, 4) => (ParityFirst, false),
            (_, 5) => (ParityLast, false),
            (Level::Raid6, 8) => (ZeroRestart, false),
            (Level::Raid6, 9) => (NRestart, false),
            (Level::Raid6, 10) => (NContinue, false),
            (Level::Raid6, 16) => (LeftAsymmetric, true),
            (Level::Raid6, 17) => (RightAsymmetric, true),
            (Level::Raid6, 18) => (LeftSymmetric, true),
            (Level::Raid6, 19) => (RightSymmetric, true),
            (Level::Raid6, 20) => (ParityFirst, true),
            _ => {
                let message = format!("{}: found layout {number}, which {} does not have", sb.array(), sb.level);
                return Err(Error::corrupt("md.layout", message));
            }
        };
        let disks = u64::from(sb.raid_disks);
        let least = if sb.level == Level::Raid6 { 4 } else { 2 };
        if disks < least || (sb.level == Level::Raid6 && disks > RAID6_DISKS_MAX) {
            let message = format!(
                "{}: found {}; {least} and more are allowed, of RAID6 {RAID6_DISKS_MAX} at most",
                sb.array(),
                counted(disks, "member")
            );
            return Err(Error::corrupt("md.raid_disks", message));
        }
        Ok(Self { algorithm, level: sb.level, q_last, disks })
    }

    /// How many members may be missing.
    pub fn parities(&self) -> u64 {
        if self.level == Level::Raid6 { 2 } else { 1 }
    }

    pub fn data_disks(&self) -> u64 {
        self.disks - self.parities()
    }

    pub fn disks(&self) -> u64 {
        self.disks
    }

    /// The member that has P of a stripe.
    pub fn p(&self, stripe: u64) -> u64 {
        use Algorithm::*;
        // Where Q has a member of its own, the others are a RAID5.
        let disks = self.disks - u64::from(self.q_last);
        match self.algorithm {
            LeftAsymmetric | LeftSymmetric | NContinue => disks - 1 - stripe % disks,
            RightAsymmetric | RightSymmetric | ZeroRestart => stripe % disks,
            NRestart => disks - 1 - (stripe + 1) % disks,
            ParityFirst => 0,
            ParityLast => self.data_disks(),
        }
    }

    /// The member that has Q of a stripe.
    pub fn q(&self, stripe: u64) -> Option<u64> {
        if self.level != Level::Raid6 {
            return None;
        }
        let p = self.p(stripe);
        Some(match self.algorithm {
            _ if self.q_last => self.disks - 1,
            Algorithm::NContinue => (p + self.disks - 1) % self.disks,
            _ => (p + 1) % self.disks,
        })
    }

    /// The member that has a stripe's data block `block`.
    pub fn data(&self, stripe: u64, block: u64) -> u64 {
        use Algorithm::*;
        let p = self.p(stripe);
        let rotating_q = self.level == Level::Raid6 && !self.q_last;
        let parities = 1 + u64::from(rotating_q);
        let disks = self.disks - u64::from(self.q_last);
        match self.algorithm {
            LeftSymmetric | RightSymmetric => (p + parities + block) % disks,
            // Q is before P.
            NContinue => (p + 1 + block) % disks,
            ParityFirst => block + parities,
            ParityLast => block,
            // P is the last member, and Q the first.
            _ if rotating_q && p == disks - 1 => block + 1,
            LeftAsymmetric | RightAsymmetric | ZeroRestart | NRestart => {
                if block >= p {
                    block + parities
                } else {
                    block
                }
            }
        }
    }

    /// The power of 2 that the data of `member` is multiplied with in Q.
    pub fn exponent(&self, stripe: u64, member: u64) -> u64 {
        // DDF counts all members, also those that have the parities.
        if matches!(self.algorithm, Algorithm::ZeroRestart | Algorithm::NRestart | Algorithm::NContinue) {
            return member;
        }
        // Otherwise the data is counted from the member behind Q on, around.
        let (p, q) = (self.p(stripe), self.q(stripe).unwrap_or(self.disks - 1));
        let from_q = |disk: u64| (disk + self.disks - q - 1) % self.disks;
        let steps = from_q(member);
        steps - u64::from(from_q(p) < steps)
    }

    pub fn name(&self) -> String {
        let name = match self.algorithm {
            _ if self.level == Level::Raid4 => "",
            Algorithm::LeftAsymmetric => "left-asymmetric",
            Algorithm::RightAsymmetric => "right-asymmetric",
            Algorithm::LeftSymmetric => "left-symmetric",
            Algorithm::RightSymmetric => "right-symmetric",
            Algorithm::ParityFirst => "parity-first",
            Algorithm::ParityLast => "parity-last",
            Algorithm::ZeroRestart => "ddf-zero-restart",
            Algorithm::NRestart => "ddf-N-restart",
            Algorithm::NContinue => "ddf-N-continue",
        };
        format!("{name}{}", if self.q_last { "-6" } else { "" })
    }
}
