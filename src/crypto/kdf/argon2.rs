//! Argon2 (RFC 9106, version 0x13) with the crate `argon2`: a thread for each lane, and memory that is wiped.

use ::argon2::{Algorithm, Argon2, Block, Params, Version};
use rayon::prelude::*;
use rayon::{ThreadPool, ThreadPoolBuilder};
use zeroize::Zeroize;

use super::Argon2Variant;
use crate::error::{Error, Result};
use crate::limits::ARGON2_LANES_MAX;
use crate::num::from_u32;

/// The shortest salt that Argon2 allows (`ARGON2_MIN_SALT_LENGTH`).
pub(super) const SALT_MIN: usize = ::argon2::MIN_SALT_LEN;
/// The shortest key that Argon2 gives (`ARGON2_MIN_OUTLEN`).
pub(super) const OUTPUT_MIN: usize = Params::MIN_OUTPUT_LEN;
/// The most lanes that Argon2 allows (`ARGON2_MAX_LANES`).
pub(super) const LANES_MAX: u32 = Params::MAX_P_COST;

/// The least memory for `lanes` lanes: two blocks for each in each of the four slices of a pass.
pub(super) fn memory_min_kib(lanes: u32) -> u32 {
    lanes.saturating_mul(8)
}

/// How many blocks a thread touches at a time when the memory is made and wiped: 4 MiB.
const BLOCKS_AT_ONCE: usize = 4096;

/// What the four numbers of an Argon2 derivation are.
#[derive(Clone, Copy)]
pub(super) struct Cost {
    pub variant: Argon2Variant,
    /// Passes over the memory.
    pub time: u32,
    pub memory_kib: u32,
    pub lanes: u32,
}

/// Fills `out` with the key.
pub(super) fn derive(cost: Cost, passphrase: &[u8], salt: &[u8], out: &mut [u8]) -> Result<()> {
    let refused = |e| Error::corrupt("kdf", format!("argon2: {e}"));
    let algorithm = match cost.variant {
        Argon2Variant::I => Algorithm::Argon2i,
        Argon2Variant::Id => Algorithm::Argon2id,
    };
    let params = Params::new(cost.memory_kib, cost.time, cost.lanes, None).map_err(refused)?;
    let blocks = params.block_count();
    let argon2 = Argon2::new(algorithm, Version::V0x13, params);

    // Rayon's global pool would panic where no thread can be had, and keep its threads for ever.
    let pool = pool(from_u32(cost.lanes.clamp(1, ARGON2_LANES_MAX)))?;
    pool.install(|| {
        let mut memory = Memory::zeroed(blocks)?;
        argon2.hash_password_into_with_memory(passphrase, salt, out, memory.0.as_mut_slice()).map_err(refused)
    })
}

/// A pool of `threads` threads, or of fewer where no more can be had: the lanes are then worked off by those there are.
fn pool(mut threads: usize) -> Result<ThreadPool> {
    loop {
        let pool = ThreadPoolBuilder::new().num_threads(threads).thread_name(|n| format!("argon2-{n}")).build();
        match pool {
            Ok(pool) => return Ok(pool),
            Err(_) if threads > 1 => threads /= 2,
            Err(e) => return Err(Error::io("starting a thread for argon2", std::io::Error::other(e))),
        }
    }
}

/// The blocks that Argon2 works in; wiped when dropped, by the pool that they are dropped in.
struct Memory(Vec<Block>);

impl Memory {
    /// Memory that every thread of the pool has touched its part of: this is where the system finds the pages, which
    /// takes a tenth of the whole derivation in one thread.
    fn zeroed(blocks: usize) -> Result<Self> {
        let mut memory = Vec::new();
        memory.try_reserve_exact(blocks).map_err(|e| {
            let source = std::io::Error::new(std::io::ErrorKind::OutOfMemory, e);
            Error::io(format!("allocating {blocks} KiB for argon2"), source)
                .with_hint("free memory, or use a machine that has more")
        })?;
        let zeroes = (0..blocks).into_par_iter().with_min_len(BLOCKS_AT_ONCE).map(|_| Block::new());
        zeroes.collect_into_vec(&mut memory);
        Ok(Self(memory))
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        self.0.par_chunks_mut(BLOCKS_AT_ONCE).for_each(|blocks| blocks.iter_mut().for_each(Zeroize::zeroize));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;

    #[test]
    fn memory_that_cannot_be_had_is_an_error_and_not_an_abort() {
        // As many KiB as the address space has.
        let error = Memory::zeroed(usize::MAX >> 10).err().unwrap();
        assert_eq!(error.kind(), ErrorKind::Io);
        assert_eq!(error.io_error().unwrap().kind(), std::io::ErrorKind::OutOfMemory);
    }

    #[test]
    fn more_lanes_than_threads_are_worked_off() {
        let cost = Cost { variant: Argon2Variant::Id, time: 1, memory_kib: 8 * 200, lanes: 200 };
        let mut out = [0; 32];
        derive(cost, b"passphrase", b"somesalt", &mut out).unwrap();
        assert_ne!(out, [0; 32]);
    }
}
