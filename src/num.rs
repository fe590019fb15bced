//! Lengths of memory and numbers of an image, each as the other. There is no `as` elsewhere, and no default for a number
//! that does not fit.

use crate::error::{Error, ErrorKind, Result};

/// A length of memory is a number of 32 to 64 bits, wherever the standard library has files and threads.
const _: () = assert!(u32::BITS <= usize::BITS && usize::BITS <= u64::BITS);

/// A length of memory as a number of bytes. It always fits: see the assertion.
#[allow(clippy::as_conversions)]
pub const fn to_u64(len: usize) -> u64 {
    len as u64
}

/// A number as a length of memory.
///
/// # Errors
/// [`ErrorKind::LimitExceeded`] where the machine cannot address so much.
pub fn to_usize(number: u64) -> Result<usize> {
    let too_much = |_| Error::new(ErrorKind::LimitExceeded, format!("{number} bytes are more than memory can have"));
    usize::try_from(number).map_err(too_much)
}

/// A number of 32 bits as a length of memory. It always fits: see the assertion.
#[allow(clippy::as_conversions)]
pub const fn from_u32(number: u32) -> usize {
    number as usize
}

/// The low 32 bits of a number; what is above them is of no account to the caller, or is not there.
#[allow(clippy::as_conversions)]
pub const fn low_u32(number: u64) -> u32 {
    (number & 0xffff_ffff) as u32
}

/// The low 64 bits of a number; what is above them is of no account to the caller, or is not there.
#[allow(clippy::as_conversions)]
pub const fn low_u64(number: u128) -> u64 {
    (number & 0xffff_ffff_ffff_ffff) as u64
}

/// A time or an amount of work, of which more than 64 bits hold is as good as what they hold: 584 years of nanoseconds.
pub const fn saturated(number: u128) -> u64 {
    if number >> 64 == 0 { low_u64(number) } else { u64::MAX }
}

/// As much of `number` as a buffer of `most` bytes takes.
pub fn at_most(number: u64, most: usize) -> usize {
    // What does not fit is more than any buffer has.
    usize::try_from(number).map_or(most, |number| number.min(most))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_fit_or_say_so() {
        assert_eq!(to_u64(usize::MAX), u64::try_from(usize::MAX).unwrap());
        assert_eq!(to_usize(5).unwrap(), 5);
        assert_eq!((from_u32(u32::MAX), low_u32(0x1_0000_0002)), (usize::try_from(u32::MAX).unwrap(), 2));
        assert_eq!((low_u64(u128::MAX), low_u64(5 << 64)), (u64::MAX, 0));
        assert_eq!((saturated(7), saturated(u64::MAX.into()), saturated(1 << 64)), (7, u64::MAX, u64::MAX));
        assert_eq!((at_most(5, 3), at_most(3, 5), at_most(u64::MAX, 7)), (3, 3, 7));
    }
}
