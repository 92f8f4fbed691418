//! Telephone numbers and times as the protocol writes them.

use chrono::{DateTime, Datelike, TimeZone, Timelike};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Digits of a number at most.
const MOST: usize = 18;
/// What order 268 lets stand for 0 beside 0 itself.
const ZERO: u8 = 0xA;
const SYMBOLS: &[u8; 16] = b"0123456789\0*#\0\0\0";

/// A number of 1 to 18 symbols `0-9 * #`, or none; as it goes over the wire, two symbols a byte, the first one low.
/// `Debug` does not show it: it may be under control.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digits {
    packed: [u8; 9],
    length: u8,
}

impl Default for Digits {
    fn default() -> Self {
        Self::NONE
    }
}

impl std::fmt::Debug for Digits {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(kit::MARK)
    }
}

/// Only ever written to a sealed journal.
impl Serialize for Digits {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&self.reveal())
    }
}

impl<'d> Deserialize<'d> for Digits {
    fn deserialize<D: Deserializer<'d>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        Self::new(&text).ok_or_else(|| serde::de::Error::custom("no number"))
    }
}

impl Digits {
    pub const NONE: Self = Self { packed: [0xFF; 9], length: 0 };

    /// Reads a number; `None` where a symbol is none of ours or there are too many.
    pub fn new(text: &str) -> Option<Self> {
        let mut digits = Self::default();
        for symbol in text.bytes() {
            let code = SYMBOLS.iter().position(|s| *s == symbol && symbol != 0)?;
            digits.push(u8::try_from(code).ok()?)?;
        }
        Some(digits)
    }

    fn push(&mut self, code: u8) -> Option<()> {
        let at = usize::from(self.length);
        let byte = self.packed.get_mut(at / 2)?;
        *byte = if at % 2 == 0 { 0xF0 | code } else { (*byte & 0x0F) | (code << 4) };
        self.length += 1;
        Some(())
    }

    /// The first symbols of a number that may be longer or hold what is no symbol.
    pub fn lossy(text: &str) -> Self {
        let good: String =
            text.chars().filter(|c| c.is_ascii_digit() || matches!(c, '*' | '#')).take(MOST).collect();
        Self::new(&good).unwrap_or_default()
    }

    /// From a field of the wire and the number of symbols in it.
    pub(super) fn read(length: u8, packed: [u8; 9]) -> Option<Self> {
        if length == 0xFF {
            return (packed == [0xFF; 9]).then(Self::default);
        }
        let mut digits = Self::default();
        for at in 0..usize::from(length) {
            let code = match packed.get(at / 2)? >> (at % 2 * 4) & 0x0F {
                ZERO => 0,
                code if SYMBOLS.get(usize::from(code)).is_some_and(|s| *s != 0) => code,
                _ => return None,
            };
            digits.push(code)?;
        }
        (length > 0).then_some(digits)
    }

    pub(super) fn write(&self, out: &mut Vec<u8>) {
        out.push(if self.length == 0 { 0xFF } else { self.length });
        out.extend(self.packed);
    }

    /// The first three symbols as a number below 4096; none where there are fewer.
    pub fn lead(&self) -> Option<usize> {
        (self.length >= 3).then(|| usize::from(self.packed[0]) | usize::from(self.packed[1] & 15) << 8)
    }

    /// Symbols in it.
    pub fn len(&self) -> usize {
        self.length.into()
    }

    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// The number to read. Whoever calls this says who may see it.
    pub fn reveal(&self) -> String {
        let code = |at: usize| usize::from(self.packed[at / 2] >> (at % 2 * 4) & 0x0F);
        (0..self.len()).map(|at| char::from(SYMBOLS[code(at)])).collect()
    }

    /// Its first symbols.
    pub fn first(&self, symbols: usize) -> Self {
        let mut digits = Self::default();
        for at in 0..symbols.min(self.len()).min(MOST) {
            let _ = digits.push(self.packed[at / 2] >> (at % 2 * 4) & 0x0F);
        }
        digits
    }
}

/// Turns each 0 of a number in a unit into `A`, where the agency wants it so: the field of 9 bytes behind its length.
pub(super) fn zero_as_a(length: u8, field: &mut [u8]) {
    for at in 0..usize::from(length).min(field.len() * 2) {
        let shift = at % 2 * 4;
        if length != 0xFF && field[at / 2] >> shift & 0x0F == 0 {
            field[at / 2] |= ZERO << shift;
        }
    }
}

/// Day of the month, hour, minute and second; each is written with its units first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Moment {
    pub day: u8,
    pub hour: u8,
    pub minute: u8,
    pub second: u8,
}

impl Moment {
    pub fn of<Z: TimeZone>(at: &DateTime<Z>) -> Self {
        let small = |n: u32| u8::try_from(n).unwrap_or_default();
        Self {
            day: small(at.day()),
            hour: small(at.hour()),
            minute: small(at.minute()),
            second: small(at.second()),
        }
    }

    pub(super) fn write(self, out: &mut Vec<u8>) {
        out.extend([self.day, self.hour, self.minute, self.second].map(|n| ((n % 10) << 4) | (n / 10)));
    }

    pub(super) fn read(field: [u8; 4]) -> Option<Self> {
        let one = |b: u8, most: u8| {
            let (tens, units) = (b & 0x0F, b >> 4);
            (tens < 10 && units < 10).then(|| tens * 10 + units).filter(|n| *n <= most)
        };
        let [day, hour, minute, second] = field;
        Some(Self {
            day: one(day, 31)?,
            hour: one(hour, 23)?,
            minute: one(minute, 59)?,
            second: one(second, 60)?,
        })
    }
}
