//! Key derivation: a passphrase and a salt become the key of a keyslot, at a cost that the header sets.
//!
//! | LUKS2 `kdf.type` | rule | cost |
//! |---|---|---|
//! | `pbkdf2`, and all of LUKS1 | RFC 8018 §5.2 with HMAC | `iterations` for each hash-sized block of the key |
//! | `argon2i`, `argon2id` | RFC 9106, version 0x13 | `time` passes over `memory` KiB, in `cpus` lanes |
//!
//! # Security
//! Whoever wrote the header chose the cost, up to years and terabytes. [`Kdf::check`] weighs it against the caller's
//! [`Limits`] before anything is allocated; [`Kdf::derive`] does not, and is only for what was checked.

use std::num::NonZero;
use std::thread;
use std::time::Duration;

use crate::crypto::hash::Hash;
use crate::error::{Error, Hint, Result, bytes, counted, seconds};
use crate::limits::{ARGON2_LANES_MAX, Limits};
use crate::num::to_u64;
use crate::secret::SecretBytes;

mod argon2;
mod cost;
mod pbkdf2;

/// Fewer iterations of PBKDF2 than this take less time than starting a thread is worth.
const ITERATIONS_FOR_THREADS: u32 = 4096;

/// A key derivation function with its cost and salt, as a keyslot or a digest names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kdf {
    /// PBKDF2 with HMAC of `hash`.
    Pbkdf2 {
        /// The hash below HMAC.
        hash: Hash,
        /// How often HMAC runs for each hash-sized block of the key.
        iterations: u32,
        /// The salt, of any length.
        salt: Vec<u8>,
    },
    /// Argon2, version 0x13.
    Argon2 {
        /// Which of the Argon2 functions.
        variant: Argon2Variant,
        /// Passes over the memory.
        time: u32,
        /// Memory in KiB.
        memory_kib: u32,
        /// Lanes, each of which may have a thread.
        cpus: u32,
        /// The salt, of at least 8 bytes.
        salt: Vec<u8>,
    },
}

/// The Argon2 functions that LUKS2 knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Argon2Variant {
    /// `argon2i`: memory is read in an order that does not depend on the passphrase.
    I,
    /// `argon2id`: the first half of the first pass as `argon2i`, then in an order that depends on it.
    Id,
}

impl Argon2Variant {
    /// The name in `kdf.type`.
    pub fn name(self) -> &'static str {
        match self {
            Self::I => "argon2i",
            Self::Id => "argon2id",
        }
    }
}

impl Kdf {
    /// How many bytes of memory one derivation takes; 0 for PBKDF2, whose few hundred bytes do not count.
    pub fn memory(&self) -> u64 {
        match self {
            Self::Pbkdf2 { .. } => 0,
            Self::Argon2 { memory_kib, .. } => u64::from(*memory_kib) << 10,
        }
    }

    /// About how long one derivation of `output_len` bytes takes on this machine.
    ///
    /// Up to 30 s the answer comes from a table of what slow machines do, and costs nothing: a fast machine needs a
    /// tenth of it. Beyond, this machine is measured for some 20 ms (and up to 64 MiB), so that a slow machine's
    /// figure does not refuse what a fast one can do.
    pub fn estimate(&self, output_len: usize) -> Duration {
        cost::estimate(self, output_len, cost::MEASURE_ABOVE)
    }

    /// Refuses a derivation of `output_len` bytes that cannot be, or that costs more than `limits` allow, before
    /// anything is allocated.
    ///
    /// The limit on time is meant for all derivations of an unlock together; whoever tries several adds up their
    /// [`Kdf::estimate`]s.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`](crate::ErrorKind::Corrupt) for parameters that the function itself does not allow (as
    /// libargon2's `validate_inputs`, and as cryptsetup's backends refuse 0 iterations), and
    /// [`ErrorKind::LimitExceeded`](crate::ErrorKind::LimitExceeded) with the rule `kdf.cpus`, `kdf.memory` or
    /// `kdf.time`.
    pub fn check(&self, limits: &Limits, output_len: usize) -> Result<()> {
        self.validate(output_len)?;
        if let Self::Argon2 { cpus, .. } = self
            && *cpus > ARGON2_LANES_MAX
        {
            let message = format!("found {}; at most {ARGON2_LANES_MAX} are allowed", counted(cpus, "lane"));
            return Err(Error::limit("kdf.cpus", message).with_hint("nothing raises this limit"));
        }
        if self.memory() > limits.kdf_memory {
            let message = format!("found {}; at most {} are allowed", bytes(self.memory()), bytes(limits.kdf_memory));
            return Err(Error::limit("kdf.memory", message).with_hint(Hint::RaiseKdfMemory));
        }
        let estimate = cost::estimate(self, output_len, cost::MEASURE_ABOVE.min(limits.kdf_time));
        if estimate > limits.kdf_time {
            let message = format!(
                "found {}, {} on this machine; at most {} s are allowed",
                self.work(),
                seconds(estimate.as_secs_f64()),
                limits.kdf_time.as_secs_f32()
            );
            return Err(Error::limit("kdf.time", message).with_hint(Hint::RaiseKdfTime));
        }
        Ok(())
    }

    /// Fills `out` with the key derived from `passphrase`.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`](crate::ErrorKind::Corrupt) for parameters that the function does not allow, and
    /// [`ErrorKind::Io`](crate::ErrorKind::Io) where memory or threads cannot be had.
    ///
    /// # Security
    /// Takes whatever memory and time the parameters ask for: call [`Kdf::check`] first. Argon2's memory is wiped
    /// before it is freed, but is neither locked nor kept out of core dumps.
    pub fn derive(&self, passphrase: &[u8], out: &mut SecretBytes) -> Result<()> {
        self.validate(out.len())?;
        match self {
            Self::Pbkdf2 { hash, iterations, salt } => {
                let threads = if *iterations < ITERATIONS_FOR_THREADS { 1 } else { threads() };
                pbkdf2::derive(*hash, passphrase, salt, *iterations, out.expose_mut(), threads)
            }
            Self::Argon2 { variant, time, memory_kib, cpus, salt } => {
                let cost = argon2::Cost { variant: *variant, time: *time, memory_kib: *memory_kib, lanes: *cpus };
                argon2::derive(cost, passphrase, salt, out.expose_mut())
            }
        }
    }

    /// Refuses what the function itself does not allow.
    fn validate(&self, output_len: usize) -> Result<()> {
        let at_least = |rule: &'static str, found: u64, min: u64| {
            if found >= min {
                return Ok(());
            }
            Err(Error::corrupt(rule, format!("found {found}; at least {min} is allowed")))
        };
        let length = |len: usize| to_u64(len);
        let output_len = length(output_len);
        let output_max = match self {
            Self::Pbkdf2 { hash, iterations, .. } => {
                at_least("kdf.iterations", u64::from(*iterations), 1)?;
                at_least("kdf.output", output_len, 1)?;
                // The blocks of the key are counted in 32 bits.
                length(hash.output_len()).saturating_mul(u64::from(u32::MAX))
            }
            Self::Argon2 { time, memory_kib, cpus, salt, .. } => {
                at_least("kdf.time", u64::from(*time), 1)?;
                at_least("kdf.cpus", u64::from(*cpus), 1)?;
                at_least("kdf.memory", u64::from(*memory_kib), u64::from(argon2::memory_min_kib(*cpus)))?;
                at_least("kdf.salt", length(salt.len()), length(argon2::SALT_MIN))?;
                at_least("kdf.output", output_len, length(argon2::OUTPUT_MIN))?;
                if *cpus > argon2::LANES_MAX {
                    let message = format!("found {cpus}; at most {} is allowed", argon2::LANES_MAX);
                    return Err(Error::corrupt("kdf.cpus", message));
                }
                u64::from(u32::MAX)
            }
        };
        if output_len > output_max {
            let message = format!("found {output_len} bytes of key; at most {output_max} are allowed");
            return Err(Error::corrupt("kdf.output", message));
        }
        Ok(())
    }

    /// What there is to do, for a message.
    fn work(&self) -> String {
        match self {
            Self::Pbkdf2 { hash, iterations, .. } => {
                format!("{} of pbkdf2-{}", counted(iterations, "iteration"), hash.name())
            }
            Self::Argon2 { variant, time, memory_kib, .. } => {
                format!("{} of {} over {memory_kib} KiB", counted(time, "pass"), variant.name())
            }
        }
    }
}

/// How many threads this machine runs at once, as far as this process may use them.
fn threads() -> usize {
    thread::available_parallelism().map_or(1, NonZero::get)
}

#[cfg(test)]
mod tests;
