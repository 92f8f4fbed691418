//! What phones an acoustic model knows: read from its `mdef`, as text or in the library's own binary form.

use std::path::Path;

/// Bytes of an mdef that are read: its phones stand at its beginning.
const BYTES: usize = 1 << 20;
/// Phones at most.
const PHONES: usize = 1_000;

/// The phones of a model, without silence and noises; none where its `mdef` cannot be read.
pub(super) fn phones(model: &Path) -> Vec<String> {
    let mut bytes = Vec::new();
    let read = std::fs::File::open(model.join("mdef")).and_then(|f| {
        use std::io::Read;
        f.take(BYTES as u64).read_to_end(&mut bytes)
    });
    if read.is_err() {
        return Vec::new();
    }
    let all = match bytes.starts_with(b"BMDF") || bytes.starts_with(b"FDMB") {
        true => binary(&bytes).unwrap_or_default(),
        false => text(&String::from_utf8_lossy(&bytes)),
    };
    let filler = |p: &str| p == "SIL" || p.starts_with(['+', '<', '_']);
    all.into_iter().filter(|p| !filler(p) && !p.is_empty()).take(PHONES).collect()
}

/// `BASE - - - …` is a phone without neighbours.
fn text(mdef: &str) -> Vec<String> {
    let row = |line: &str| {
        let mut words = line.split_whitespace();
        let base = words.next().filter(|b| !b.starts_with('#'))?;
        (words.next() == Some("-") && words.next() == Some("-")).then(|| base.to_owned())
    };
    mdef.lines().filter_map(row).collect()
}

/// Magic, version, length and text of the format, ten counts, of which the first is the phones', then their names.
fn binary(bytes: &[u8]) -> Option<Vec<String>> {
    // The magic shows which way round numbers are.
    let little = bytes.starts_with(b"BMDF");
    let number = |at: usize| {
        let four: [u8; 4] = bytes.get(at..at + 4)?.try_into().ok()?;
        usize::try_from(if little { u32::from_le_bytes(four) } else { u32::from_be_bytes(four) }).ok()
    };
    let counts = 12_usize.checked_add(number(8)?)?;
    let count = number(counts)?.min(PHONES);
    let names = bytes.get(counts.checked_add(40)?..)?;
    let all = names.split(|b| *b == 0).take(count);
    Some(all.map(|name| String::from_utf8_lossy(name).into_owned()).collect())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn phones_of_both_forms_are_found() {
        let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/speech/ru-8k");
        let mut known = phones(&own);
        let mut wanted: Vec<String> = crate::phones::PHONES.iter().map(|p| (*p).to_owned()).collect();
        known.sort();
        wanted.sort();
        assert_eq!(known, wanted, "our own model has the phones of our own rules");
        let mut made = b"BMDF".to_vec();
        let mut put = |n: u32| made.extend(n.to_le_bytes());
        put(1);
        put(4);
        made.extend(b"text");
        let mut put = |n: u32| made.extend(n.to_le_bytes());
        put(4);
        (1..10).for_each(&mut put);
        made.extend(b"+NSN+\0SIL\0AA\0B\0\0\0");
        assert_eq!(binary(&made).expect("read"), ["+NSN+", "SIL", "AA", "B"]);
    }

    proptest! {
        #[test]
        fn any_bytes_are_looked_through(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = binary(&[b"BMDF", bytes.as_slice()].concat());
            text(&String::from_utf8_lossy(&bytes));
        }
    }
}
