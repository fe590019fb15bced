//! Lengths of memory and numbers of an image, each as the other. There is no `as` elsewhere, and no default for a number
//! that does not fit.

use crate::error::{Error, ErrorKind, Result};

/// A length of memory is a number of at most 64 bits, wherever Rust runs today.
const _: () = assert!(usize::BITS <= u64::BITS);

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
        assert_eq!((at_most(5, 3), at_most(3, 5), at_most(u64::MAX, 7)), (3, 3, 7));
    }
}
