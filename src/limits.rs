//! Every cap on what an image may ask for, with its reason. A cap is checked before anything is allocated or derived;
//! what is over it is refused with the number that was asked for, and never clamped.

use std::time::Duration;

/// LUKS2: the largest header copy, binary header and JSON area together (luks2_disk_metadata.c).
pub const LUKS2_HDR_SIZE_MAX: u64 = 0x40_0000;
/// LUKS2: the smallest header copy.
pub const LUKS2_HDR_SIZE_MIN: u64 = 0x4000;
/// LUKS2: the largest keyslots area (`LUKS2_MAX_KEYSLOTS_SIZE`).
pub const LUKS2_KEYSLOTS_SIZE_MAX: u64 = 128 << 20;
/// How deep JSON may nest: json-c's own default, so that what cryptsetup reads is read.
pub const JSON_DEPTH_MAX: usize = 32;
/// How many values the JSON area may hold: a 4 MiB area of `[0,0,…` would otherwise become a hundred times its size.
pub const JSON_VALUES_MAX: usize = 65_536;
/// The largest volume key: four times the largest that any cipher of dm-crypt takes (`LUKS_MAX_KEY` is 512 bytes too).
pub const KEY_SIZE_MAX: u32 = 512;
/// How many keyslots are tried, by their numbers from 0 on: cryptsetup opens no others (`LUKS2_KEYSLOTS_MAX`), and each
/// that is tried may be measured before it counts against the time limit.
pub const KEYSLOTS_MAX: u32 = 32;
/// LUKS has 4000 stripes, whatever a header says (`LUKS_STRIPES`).
pub const STRIPES: u32 = 4000;
/// The largest passphrase or key file, as cryptsetup reads it (`DEFAULT_KEYFILE_SIZE_MAXKB`).
pub const KEYFILE_SIZE_MAX: usize = 8 << 20;
/// The most lanes Argon2 may ask for: one thread each. cryptsetup writes 4 at most.
pub const ARGON2_LANES_MAX: u32 = 64;

/// The limits that a caller may set.
#[derive(Clone, Debug)]
pub struct Limits {
    /// The most memory in bytes that a key derivation may take (`--max-kdf-memory`).
    pub kdf_memory: u64,
    /// The time that all key derivations of one unlock may take together (`--max-kdf-time`).
    pub kdf_time: Duration,
}

impl Limits {
    /// 4 GiB: what cryptsetup itself caps Argon2 at (`DEFAULT_LUKS2_MEMORY_KB` may be set up to it).
    pub const KDF_MEMORY: u64 = 4 << 30;
    /// Ten minutes: three hundred times what cryptsetup aims at when it makes a keyslot.
    pub const KDF_TIME: Duration = Duration::from_secs(600);

    /// The defaults on a machine with `memory` bytes: no key derivation takes more than three quarters of it.
    pub fn for_memory(memory: u64) -> Self {
        Self { kdf_memory: Self::KDF_MEMORY.min(memory / 4 * 3), kdf_time: Self::KDF_TIME }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self { kdf_memory: Self::KDF_MEMORY, kdf_time: Self::KDF_TIME }
    }
}
