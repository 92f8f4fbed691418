//! Identifiers that peers see: branches, tags and Call-IDs (RFC 3261, 8.1.1 and 19.3). Each is an internal number sealed
//! under a key of the process: it opens here again, without a table, and tells a peer nothing about any other.

use hmac::{Hmac, Mac};
use sha2::Sha256;
use subtle::ConstantTimeEq;

/// The use of an identifier; identifiers of one kind do not open as another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The branch of a request: the number of its transaction.
    Branch = 1,
    /// The branch of an ACK to a 2xx, which has no transaction.
    AckBranch,
    /// Our tag of a dialog: the number of its leg.
    Tag,
    /// The Call-ID of a dialog that we begin.
    CallId,
    /// The client nonce of a digest answer.
    ClientNonce,
}

/// Bytes of the hash that authenticates an identifier: 96 bits.
const HASH: usize = 12;

/// Seals numbers of one process. Clones have the same key.
#[derive(Clone)]
pub struct Identifiers(Hmac<Sha256>);

impl Identifiers {
    /// `key` is secret, random, and lives as long as the process.
    pub fn new(key: &[u8; 32]) -> Self {
        // A shorter key is filled up with zeros to the hash's block (RFC 2104, 2).
        let mut block = [0; 64];
        block[..key.len()].copy_from_slice(key);
        Self(Hmac::new(&block.into()))
    }

    fn hash<const N: usize>(&self, context: u8, parts: &[&[u8]]) -> [u8; N] {
        let mut mac = self.0.clone();
        mac.update(&[context]);
        parts.iter().for_each(|p| mac.update(p));
        let full = mac.finalize().into_bytes();
        std::array::from_fn(|i| full[i])
    }

    /// The mask of a sealed number, which its hash decides.
    fn mask(&self, hash: &[u8; HASH]) -> u64 {
        u64::from_be_bytes(self.hash(0, &[hash]))
    }

    /// The number as peers see it: 40 hexadecimal digits.
    pub fn seal(&self, kind: Kind, number: u64) -> String {
        let hash: [u8; HASH] = self.hash(kind as u8, &[&number.to_be_bytes()]);
        format!("{}{:016x}", hex::encode(hash), number ^ self.mask(&hash))
    }

    /// The number that [`Identifiers::seal`] was given; nothing for text that is not ours.
    pub fn open(&self, kind: Kind, text: &str) -> Option<u64> {
        let (hash, number) = text.split_at_checked(2 * HASH).filter(|(_, n)| n.len() == 16)?;
        let mut given = [0; HASH];
        hex::decode_to_slice(hash, &mut given).ok()?;
        let mut sealed = [0; 8];
        hex::decode_to_slice(number, &mut sealed).ok()?;
        let number = u64::from_be_bytes(sealed) ^ self.mask(&given);
        let right: [u8; HASH] = self.hash(kind as u8, &[&number.to_be_bytes()]);
        bool::from(right.ct_eq(&given)).then_some(number)
    }

    /// An identifier that never has to be opened, the same for the same pair of numbers.
    pub fn derive(&self, kind: Kind, number: u64, turn: u32) -> u64 {
        u64::from_be_bytes(self.hash(kind as u8, &[&number.to_be_bytes(), &turn.to_be_bytes()]))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn identifiers_of_another_key_or_kind_do_not_open() {
        let (ours, other) = (Identifiers::new(&[1; 32]), Identifiers::new(&[2; 32]));
        let tag = ours.seal(Kind::Tag, 7);
        assert_eq!(ours.open(Kind::Tag, &tag), Some(7));
        assert_eq!(ours.open(Kind::Tag, &tag.to_uppercase()), Some(7), "tokens have no case");
        assert_eq!((ours.open(Kind::Branch, &tag), other.open(Kind::Tag, &tag)), (None, None));
        for foreign in ["", "h1.2", &tag[1..], &format!("{tag}0"), "ж".repeat(20).as_str()] {
            assert_eq!(ours.open(Kind::Tag, foreign), None, "{foreign}");
        }
    }

    #[test]
    fn one_identifier_says_nothing_about_the_next() {
        let ids = Identifiers::new(&[1; 32]);
        // Neighbouring numbers differ in about half of their bits, in each half of the text.
        for part in [0..24usize, 24..40] {
            let differing: u32 = (0..200u64)
                .map(|n| {
                    let bits = |n| {
                        let text = ids.seal(Kind::Branch, n);
                        u128::from_str_radix(&text[part.clone()], 16).expect("hexadecimal")
                    };
                    (bits(n) ^ bits(n + 1)).count_ones()
                })
                .sum();
            let expected = 200 * 2 * part.len() as u32;
            assert!(differing.abs_diff(expected) < expected / 10, "{differing} of {expected}");
        }
    }

    proptest! {
        #[test]
        fn a_changed_identifier_does_not_open(number: u64, at in 0usize..40, digit in 0u8..16) {
            let ids = Identifiers::new(&[3; 32]);
            let sealed = ids.seal(Kind::CallId, number);
            prop_assert_eq!(ids.open(Kind::CallId, &sealed), Some(number));
            let mut forged = sealed.clone().into_bytes();
            forged[at] = b"0123456789abcdef"[usize::from(digit)];
            let forged = String::from_utf8(forged).expect("ASCII");
            prop_assert!(forged == sealed || ids.open(Kind::CallId, &forged).is_none());
        }
    }
}
