//! Arithmetic in GF(2^8) modulo x^8 + x^4 + x^3 + x^2 + 1, in which RAID6 computes its second parity (H. Peter Anvin,
//! "The mathematics of RAID-6"; Linux's `lib/raid6`).

/// A product with 2.
const fn twice(a: u8) -> u8 {
    let carry = if a & 0x80 == 0 { 0 } else { 0x1d };
    (a << 1) ^ carry
}

const fn product(a: u8, b: u8) -> u8 {
    let (mut a, mut b, mut sum) = (a, b, 0);
    while b != 0 {
        if b & 1 == 1 {
            sum ^= a;
        }
        a = twice(a);
        b >>= 1;
    }
    sum
}

/// 2 to the power of `exponent`.
pub(super) fn power_of_two(exponent: u64) -> u8 {
    (0..exponent % 255).fold(1, |power, _| twice(power))
}

/// 1 divided by `a`, which is not 0: `a` to the power of 254.
pub(super) fn inverse(a: u8) -> u8 {
    (0..254).fold(1, |power, _| product(power, a))
}

/// The products of one factor with everything: two tables of half a byte each, since multiplication is linear.
pub(super) struct Times {
    low: [u8; 16],
    high: [u8; 16],
}

impl Times {
    pub fn new(factor: u8) -> Self {
        let (mut low, mut high) = ([0; 16], [0; 16]);
        for ((low, high), n) in low.iter_mut().zip(&mut high).zip(0u8..) {
            *low = product(factor, n);
            *high = product(factor, n << 4);
        }
        Self { low, high }
    }

    fn of(&self, byte: u8) -> u8 {
        self.low[usize::from(byte & 15)] ^ self.high[usize::from(byte >> 4)]
    }

    /// Adds the product with each byte of `from` to `to`.
    pub fn add_to(&self, to: &mut [u8], from: &[u8]) {
        to.iter_mut().zip(from).for_each(|(to, from)| *to ^= self.of(*from));
    }

    /// Multiplies all bytes.
    pub fn scale(&self, bytes: &mut [u8]) {
        bytes.iter_mut().for_each(|byte| *byte = self.of(*byte));
    }
}

/// Adds `from` to `to`, which is XOR.
pub(super) fn add(to: &mut [u8], from: &[u8]) {
    to.iter_mut().zip(from).for_each(|(to, from)| *to ^= from);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_field_is_a_field() {
        // The first powers of 2, as the paper has them.
        let powers: Vec<u8> = (0..10).map(power_of_two).collect();
        assert_eq!(powers, [1, 2, 4, 8, 16, 32, 64, 128, 0x1d, 0x3a]);
        assert_eq!(power_of_two(255), 1);
        let mut all: Vec<u8> = (0..255).map(power_of_two).collect();
        all.sort_unstable();
        assert_eq!(all, (1..=255).collect::<Vec<_>>(), "2 generates the field");
        for a in 1..=255 {
            assert_eq!(product(a, inverse(a)), 1);
            let mut bytes: Vec<u8> = (0..=255).collect();
            Times::new(a).scale(&mut bytes);
            let mut sum = vec![1; 256];
            Times::new(a).add_to(&mut sum, &(0..=255).collect::<Vec<_>>());
            for (b, (scaled, sum)) in (0..=255).zip(bytes.iter().zip(&sum)) {
                assert_eq!((*scaled, *sum), (product(a, b), product(a, b) ^ 1));
            }
        }
    }
}
