//! ext: hashes of names, by which its directories are ordered.
//!
//! The kinds are those of a tree's root: 0 the first one, 1 half of MD4, 2 TEA; 3 to 5 are the same for names whose bytes
//! have no sign. The source is Linux's `fs/ext4/hash.c`; what debugfs(8) calls `dx_hash` agrees.

/// The hash of a name without its lowest bit; `None` where its kind is not known.
pub(super) fn hash(kind: u8, seed: [u32; 4], name: &[u8]) -> Option<u32> {
    let is_signed = kind < 3;
    let mut state = if seed == [0; 4] { [0x6745_2301, 0xefcd_ab89, 0x98ba_dcfe, 0x1032_5476] } else { seed };
    let hash = match kind % 3 {
        _ if kind > 5 => return None,
        0 => first(name, is_signed),
        1 => {
            pieces::<8>(name, is_signed).for_each(|input| half_md4(&mut state, &input));
            state[1]
        }
        _ => {
            pieces::<4>(name, is_signed).for_each(|input| tea(&mut state, &input));
            state[0]
        }
    };
    Some(hash & !1)
}

fn byte(byte: u8, is_signed: bool) -> u32 {
    if is_signed { i32::from(byte.cast_signed()).cast_unsigned() } else { u32::from(byte) }
}

fn first(name: &[u8], is_signed: bool) -> u32 {
    let (mut last, mut before) = (0x12a3_fe2d_u32, 0x37ab_e8f9_u32);
    for c in name {
        let hash = before.wrapping_add(last ^ byte(*c, is_signed).wrapping_mul(7_152_373));
        let hash = if hash & 0x8000_0000 == 0 { hash } else { hash.wrapping_sub(0x7fff_ffff) };
        (before, last) = (last, hash);
    }
    last << 1
}

/// A name in pieces of `4 * N` bytes, as big-endian words, filled up with the length of what is left.
fn pieces<const N: usize>(name: &[u8], is_signed: bool) -> impl Iterator<Item = [u32; N]> {
    let size = N.saturating_mul(4).max(1);
    (0..name.len().div_ceil(size)).map(move |n| {
        let rest = name.get(n.saturating_mul(size)..).unwrap_or_default();
        let len = u32::try_from(rest.len() & 0xff).unwrap_or(0);
        let pad = len.wrapping_mul(0x0101_0101);
        let mut words = [pad; N];
        for (word, bytes) in words.iter_mut().zip(rest.chunks(4)) {
            *word = bytes.iter().fold(pad, |word, c| byte(*c, is_signed).wrapping_add(word << 8));
        }
        words
    })
}

fn half_md4(state: &mut [u32; 4], input: &[u32; 8]) {
    type Round = (fn(u32, u32, u32) -> u32, u32, [usize; 8], [u32; 4]);
    const ROUNDS: [Round; 3] = [
        (|x, y, z| z ^ x & (y ^ z), 0, [0, 1, 2, 3, 4, 5, 6, 7], [3, 7, 11, 19]),
        (|x, y, z| (x & y).wrapping_add((x ^ y) & z), 0x5a82_7999, [1, 3, 5, 7, 0, 2, 4, 6], [3, 5, 9, 13]),
        (|x, y, z| x ^ y ^ z, 0x6ed9_eba1, [3, 7, 2, 6, 1, 5, 0, 4], [3, 9, 11, 15]),
    ];
    let [mut a, mut b, mut c, mut d] = *state;
    for (mix, constant, order, shifts) in ROUNDS {
        for (word, shift) in order.iter().zip(shifts.iter().cycle()) {
            let word = input.get(*word).copied().unwrap_or(0);
            let sum = a.wrapping_add(mix(b, c, d)).wrapping_add(word).wrapping_add(constant);
            (a, b, c, d) = (d, sum.rotate_left(*shift), b, c);
        }
    }
    state.iter_mut().zip([a, b, c, d]).for_each(|(state, new)| *state = state.wrapping_add(new));
}

fn tea(state: &mut [u32; 4], [a, b, c, d]: &[u32; 4]) {
    let [mut x, mut y, ..] = *state;
    let mut sum = 0u32;
    for _ in 0..16 {
        sum = sum.wrapping_add(0x9e37_79b9);
        x = x.wrapping_add((y << 4).wrapping_add(*a) ^ y.wrapping_add(sum) ^ (y >> 5).wrapping_add(*b));
        y = y.wrapping_add((x << 4).wrapping_add(*c) ^ x.wrapping_add(sum) ^ (x >> 5).wrapping_add(*d));
    }
    state.iter_mut().zip([x, y]).for_each(|(state, new)| *state = state.wrapping_add(new));
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As debugfs has them.
    #[test]
    fn hashes_are_those_of_debugfs() {
        let names: [&[u8]; 3] = [b"a", b"some name of 33 bytes and not more", "café".as_bytes()];
        let known = [
            (0, [0xe74b_53e2, 0x7523_d3d0, 0x96ca_5a2c]),
            (1, [0xd5fa_7d7a, 0x358c_e836, 0xfb9c_5e5c]),
            (2, [0x6d0e_a4c0, 0x9b64_a356, 0x1058_42ea]),
        ];
        for (kind, wanted) in known {
            assert_eq!(names.map(|name| hash(kind, [0; 4], name)), wanted.map(Some), "{kind}");
            // Without a sign, what is ASCII is the same.
            assert_eq!(hash(kind + 3, [0; 4], b"a"), Some(wanted[0]));
            assert_ne!(hash(kind + 3, [0; 4], names[2]), Some(wanted[2]));
        }
        assert_ne!(hash(1, [1, 2, 3, 4], b"a"), hash(1, [0; 4], b"a"));
        assert_eq!(hash(6, [0; 4], b"a"), None);
    }
}
