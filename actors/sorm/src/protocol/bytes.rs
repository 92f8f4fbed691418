//! Reading and writing fields.

/// Fields from the front of some bytes.
pub(super) struct Reader<'a>(pub &'a [u8]);

impl<'a> Reader<'a> {
    pub fn u8(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    pub fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_le_bytes)
    }

    pub fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (first, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*first)
    }

    pub fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.0)
    }
}

/// Text in a field of fixed width: Latin-1, `FF` behind it; what does not fit is cut, what has no letter there is `?`.
pub(super) fn put_text(out: &mut Vec<u8>, text: &str, width: usize) {
    let end = out.len() + width;
    out.extend(
        text.chars()
            .take(width)
            .map(|c| u8::try_from(u32::from(c)).ok().filter(|b| *b != 0xFF).unwrap_or(b'?')),
    );
    out.resize(end, 0xFF);
}

pub(super) fn take_text(field: &[u8]) -> String {
    let end = field.iter().rposition(|b| *b != 0xFF).map_or(0, |at| at + 1);
    // FF stands for nothing, also in the middle.
    field[..end].iter().map(|b| if *b == 0xFF { '?' } else { char::from(*b) }).collect()
}
