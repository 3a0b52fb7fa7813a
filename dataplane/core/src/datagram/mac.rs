//! SipHash-2-4 with 128-bit output over whole words: the MAC of the binary frames.
//!
//! Frames are authenticated over 5 and 7 words and never over anything else, so the words stay in registers: no buffer, no
//! length to keep, and the state that a key begins with is kept ready. A reply carries half of the output, and the half
//! it does not carry is not computed. What is authenticated is not known here.

/// The state that every MAC under one key begins with. As secret as the key: nothing prints it.
#[derive(Clone, Copy)]
pub(crate) struct MacKey {
    begin: [u64; 4],
}

impl MacKey {
    /// Nobody's: made of no key.
    pub(crate) const NONE: Self = Self { begin: [0; 4] };

    /// The state under this secret.
    pub(crate) const fn new(secret: &[u8; 16]) -> Self {
        let both = u128::from_le_bytes(*secret);
        let (low, high) = (both as u64, (both >> 64) as u64);
        // The 0xee tells the 128-bit variant from the 64-bit one.
        let begin = [
            low ^ 0x736f_6d65_7073_6575,
            high ^ 0x646f_7261_6e64_6f6d ^ 0xee,
            low ^ 0x6c79_6765_6e65_7261,
            high ^ 0x7465_6462_7974_6573,
        ];
        Self { begin }
    }

    /// Both halves of the output over `words`, little-endian as on the wire.
    #[inline]
    pub(crate) fn full<const N: usize>(&self, words: &[u64; N]) -> [u64; 2] {
        let mut state = self.absorb(words);
        let first = sum(&state);
        state[1] ^= 0xdd;
        (0..4).for_each(|_| round(&mut state));
        [first, sum(&state)]
    }

    /// The first half alone.
    #[inline]
    pub(crate) fn half<const N: usize>(&self, words: &[u64; N]) -> u64 {
        sum(&self.absorb(words))
    }

    #[inline]
    fn absorb<const N: usize>(&self, words: &[u64; N]) -> [u64; 4] {
        let mut state = self.begin;
        // Behind whole words stands one that holds nothing but the length's low byte.
        let length = (8 * N as u64) << 56;
        for word in words.iter().chain([&length]) {
            state[3] ^= word;
            round(&mut state);
            round(&mut state);
            state[0] ^= word;
        }
        state[2] ^= 0xee;
        (0..4).for_each(|_| round(&mut state));
        state
    }
}

#[inline]
const fn sum(state: &[u64; 4]) -> u64 {
    state[0] ^ state[1] ^ state[2] ^ state[3]
}

#[inline]
const fn round(state: &mut [u64; 4]) {
    let [mut a, mut b, mut c, mut d] = *state;
    a = a.wrapping_add(b);
    c = c.wrapping_add(d);
    b = b.rotate_left(13) ^ a;
    d = d.rotate_left(16) ^ c;
    a = a.rotate_left(32);
    c = c.wrapping_add(b);
    a = a.wrapping_add(d);
    b = b.rotate_left(17) ^ c;
    d = d.rotate_left(21) ^ a;
    c = c.rotate_left(32);
    *state = [a, b, c, d];
}

#[cfg(test)]
mod tests {
    use super::MacKey;
    use core::hash::Hasher;
    use proptest::prelude::*;
    use siphasher::sip128::{Hasher128, SipHasher24};

    /// From the reference implementation's `vectors_sip128`: key 00 01 … 0f, an empty message.
    #[test]
    fn nothing_at_all_as_in_the_reference() {
        let secret: [u8; 16] = core::array::from_fn(|at| at as u8);
        let seen = MacKey::new(&secret).full(&[]).map(u64::to_le_bytes).concat();
        let expected = 0xa381_7f04_ba25_a8e6_6df6_7214_c755_0293_u128.to_be_bytes();
        assert_eq!(seen, expected);
    }

    fn check<const N: usize>(secret: &[u8; 16], words: &[u64; N]) {
        let mut library = SipHasher24::new_with_key(secret);
        words.iter().for_each(|word| library.write(&word.to_le_bytes()));
        let expected = library.finish128().as_bytes();
        let key = MacKey::new(secret);
        assert_eq!(key.full(words).map(u64::to_le_bytes).concat(), expected);
        assert_eq!(key.half(words).to_le_bytes(), expected[..8]);
    }

    proptest! {
        #[test]
        fn any_words_as_the_library_has_it(secret: [u8; 16], five: [u64; 5], seven: [u64; 7]) {
            check(&secret, &five);
            check(&secret, &seven);
        }
    }
}
