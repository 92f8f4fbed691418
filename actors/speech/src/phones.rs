//! Russian spelling to phones: what a recogniser's dictionary says of a word nobody has transcribed.
//!
//! Where the stress falls decides how vowels sound, and spelling does not show it. A word whose stress is given (`+` before the
//! vowel, or ё) has one reading; any other has one for each vowel that may be stressed, the likeliest first.

/// Readings of one word at most.
pub const READINGS: usize = 6;
/// Letters of a word at most: longer ones are no words.
pub const LETTERS: usize = 40;

/// Phones of the acoustic model, without silence; `1` marks a soft consonant.
pub const PHONES: &[&str] = &[
    "A", "B", "B1", "CH", "D", "D1", "E", "F", "F1", "G", "G1", "H", "H1", "I", "J", "K", "K1", "L", "L1",
    "M", "M1", "N", "N1", "O", "P", "P1", "R", "R1", "S", "S1", "SCH", "SH", "T", "T1", "TS", "U", "V", "V1",
    "Y", "Z", "Z1", "ZH",
];

/// What a dictionary calls a word: small letters, without the mark of stress.
pub fn normal(word: &str) -> String {
    word.chars().filter(|c| *c != '+').flat_map(char::to_lowercase).collect()
}

/// Whether a word can be read: Russian letters, perhaps with hyphens and one mark of stress.
pub fn readable(word: &str) -> bool {
    let letters = normal(word);
    let count = letters.chars().count();
    (1..=LETTERS).contains(&count)
        && letters.chars().any(|c| c != '-')
        && letters.chars().all(|c| matches!(c, 'а'..='я' | 'ё' | '-'))
}

fn vowel(c: char) -> bool {
    "аеёиоуыэюя".contains(c)
}

/// Readings of a word, the likeliest first; none when it is not Russian.
pub fn readings(word: &str) -> Vec<String> {
    if !readable(word) {
        return Vec::new();
    }
    let lower: String = word.chars().flat_map(char::to_lowercase).filter(|c| *c != '-').collect();
    let letters: Vec<char> = lower.chars().filter(|c| *c != '+').collect();
    let vowels: Vec<usize> = (0..letters.len()).filter(|i| vowel(letters[*i])).collect();
    let marked =
        lower.chars().position(|c| c == '+').filter(|at| letters.get(*at).is_some_and(|c| vowel(*c)));
    let yo = letters.iter().position(|c| *c == 'ё');
    let mut out: Vec<String> = Vec::new();
    let mut add = |letters: &[char], stress: Option<usize>| {
        let reading = read(letters, stress).join(" ");
        if !reading.is_empty() && !out.contains(&reading) {
            out.push(reading);
        }
    };
    match marked.or(yo) {
        Some(stress) => add(&letters, Some(stress)),
        None if vowels.is_empty() => add(&letters, None),
        None => {
            for stress in likely(&vowels) {
                add(&letters, Some(stress));
            }
            // Names are written with е where ё is said.
            for stress in likely(&vowels).into_iter().filter(|i| letters[*i] == 'е') {
                let mut with = letters.clone();
                with[stress] = 'ё';
                add(&with, Some(stress));
            }
        }
    }
    out.truncate(READINGS);
    out
}

/// Stress falls late more often than early, on the last but one most of all.
fn likely(vowels: &[usize]) -> Vec<usize> {
    let mut order: Vec<usize> = Vec::new();
    let count = vowels.len();
    for from_end in [1, 0, 2, 3, 4, 5, 6] {
        if let Some(at) = count.checked_sub(1 + from_end) {
            order.push(vowels[at]);
        }
    }
    order
}

/// A consonant's phone, hard.
fn hard(c: char) -> Option<&'static str> {
    Some(match c {
        'б' => "B",
        'в' => "V",
        'г' => "G",
        'д' => "D",
        'ж' => "ZH",
        'з' => "Z",
        'й' => "J",
        'к' => "K",
        'л' => "L",
        'м' => "M",
        'н' => "N",
        'п' => "P",
        'р' => "R",
        'с' => "S",
        'т' => "T",
        'ф' => "F",
        'х' => "H",
        'ц' => "TS",
        'ч' => "CH",
        'ш' => "SH",
        'щ' => "SCH",
        _ => return None,
    })
}

const VOICED: &[(&str, &str)] = &[("B", "P"), ("V", "F"), ("G", "K"), ("D", "T"), ("ZH", "SH"), ("Z", "S")];

/// Sequences that are not said as they are written.
const SPELT: &[(&str, &str)] = &[
    ("тся", "ца"),
    ("ться", "ца"),
    ("стн", "сн"),
    ("здн", "зн"),
    ("рдц", "рц"),
    ("лнц", "нц"),
    ("сч", "щ"),
    ("зч", "щ"),
    ("жч", "щ"),
    ("тц", "ц"),
    ("дц", "ц"),
    ("сш", "ш"),
    ("зш", "ш"),
    ("сж", "ж"),
    ("зж", "ж"),
];

fn read(letters: &[char], stress: Option<usize>) -> Vec<String> {
    // A mark stands before the stressed vowel while the spelling is changed.
    let mut text: String = String::new();
    for (i, c) in letters.iter().enumerate() {
        if stress == Some(i) {
            text.push('+');
        }
        text.push(*c);
    }
    let plain: String = letters.iter().collect();
    if plain == "что" || plain == "чтобы" {
        text = text.replacen('ч', "ш", 1);
    }
    let genitive = plain.chars().count() > 4 && (plain.ends_with("ого") || plain.ends_with("его"));
    if genitive
        && plain != "много"
        && let Some(at) = text.rfind('г')
    {
        text.replace_range(at..at + 'г'.len_utf8(), "в");
    }
    for (from, to) in SPELT {
        text = text.replace(from, to);
    }
    let chars: Vec<char> = text.chars().collect();
    let mut phones: Vec<(&'static str, bool)> = Vec::new();
    let (mut stressed, mut at) = (false, 0);
    while at < chars.len() {
        let c = chars[at];
        let next = chars[at + 1..].iter().copied().find(|c| *c != '+');
        // What comes before, as far as it decides between `е` and `йе`.
        let before = chars[..at].iter().rev().copied().find(|c| *c != '+');
        at += 1;
        if c == '+' {
            stressed = true;
            continue;
        }
        if let Some(phone) = hard(c) {
            if before == Some(c) {
                // A double consonant is one.
                continue;
            }
            let always_hard = matches!(c, 'ж' | 'ш' | 'ц');
            let always_soft = matches!(c, 'ч' | 'щ' | 'й');
            let soft = !always_hard && !always_soft && next.is_some_and(|n| "еёиюяь".contains(n));
            let double = next == Some(c)
                && chars[at..]
                    .iter()
                    .copied()
                    .filter(|n| *n != '+')
                    .nth(1)
                    .is_some_and(|n| "еёиюяь".contains(n));
            phones.push((phone, (soft || double && !always_hard && !always_soft) && c != 'й'));
            continue;
        }
        let open = before.is_none_or(|b| vowel(b) || matches!(b, 'ь' | 'ъ'));
        let hushing = before.is_some_and(|b| matches!(b, 'ж' | 'ш' | 'ц'));
        let on = std::mem::take(&mut stressed);
        let first = before.is_none();
        let last = next.is_none();
        let glide =
            open && matches!(c, 'е' | 'ё' | 'ю' | 'я') || before == Some('ь') && matches!(c, 'и' | 'о');
        let sound = match c {
            'а' if on || !before.is_some_and(|b| matches!(b, 'ч' | 'щ')) => "A",
            'а' => "I",
            'о' if on => "O",
            'о' => "A",
            'у' | 'ю' => "U",
            'ы' => "Y",
            'и' if hushing => "Y",
            'и' => "I",
            'ё' => "O",
            'э' if on || first => "E",
            'э' => "I",
            'е' if on => "E",
            'е' if hushing => "Y",
            'е' => "I",
            'я' if on || last => "A",
            'я' => "I",
            // The signs.
            _ => continue,
        };
        if glide {
            phones.push(("J", false));
        }
        phones.push((sound, false));
    }
    voicing(&mut phones);
    phones.into_iter().map(|(p, soft)| if soft { format!("{p}1") } else { p.to_owned() }).collect()
}

/// Obstruents take the voice of what follows, and have none at the end.
fn voicing(phones: &mut [(&'static str, bool)]) {
    let voiced = |p: &str| VOICED.iter().any(|(v, _)| *v == p);
    let voiceless = |p: &str| VOICED.iter().any(|(_, s)| *s == p) || matches!(p, "H" | "TS" | "CH" | "SCH");
    for at in (0..phones.len()).rev() {
        let next = phones.get(at + 1).map(|(p, _)| *p);
        let (phone, _) = phones[at];
        let without = next.is_none_or(voiceless);
        if without && voiced(phone) {
            if let Some((_, s)) = VOICED.iter().find(|(v, _)| *v == phone) {
                phones[at].0 = s;
            }
        } else if next.is_some_and(|n| voiced(n) && n != "V")
            && let Some((v, _)) = VOICED.iter().find(|(_, s)| *s == phone)
        {
            phones[at].0 = v;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn first(word: &str) -> String {
        readings(word).first().cloned().unwrap_or_default()
    }

    #[test]
    fn words_are_read_as_they_are_said() {
        for (word, said) in [
            ("од+ин", "A D1 I N"),
            ("дв+а", "D V A"),
            ("тр+и", "T R1 I"),
            ("чет+ыре", "CH I T Y R1 I"),
            ("п+ять", "P1 A T1"),
            ("н+оль", "N O L1"),
            ("евг+ений", "J I V G1 E N1 I J"),
            ("каз+арцев", "K A Z A R TS Y F"),
            ("соловьёв", "S A L A V1 J O F"),
            ("в+од", "V O T"),
            ("сд+ать", "Z D A T1"),
            ("учиться", "U CH I TS A"),
            ("+анна", "A N A"),
            ("счастье", "SCH A S T1 J I"),
        ] {
            assert!(readings(word).iter().any(|r| r == said), "{word}: {:?}", readings(word));
        }
        assert_eq!(first("женя"), "ZH E N1 A");
        assert_eq!(first("семёнов"), "S1 I M1 O N A F");
        assert!(readings("семенов").contains(&"S1 I M1 O N A F".to_owned()), "ё is written е");
    }

    #[test]
    fn what_is_not_russian_has_no_reading() {
        for no in ["", "abc", "123", "-", "анна1", "а б", "+", &"а".repeat(LETTERS + 1)] {
            assert!(readings(no).is_empty(), "{no}");
        }
    }

    proptest! {
        #[test]
        fn any_word_is_read_with_known_phones(word in "[а-яё+-]{1,12}") {
            let all = readings(&word);
            prop_assert!(all.len() <= READINGS);
            for phone in all.iter().flat_map(|r| r.split(' ')) {
                prop_assert!(PHONES.contains(&phone), "{word}: {phone}");
            }
        }

        #[test]
        fn any_text_is_refused_or_read(word in "\\PC{0,20}") {
            let all = readings(&word);
            prop_assert!(readable(&word) || all.is_empty());
            for reading in &all {
                prop_assert!(reading.split(' ').all(|p| !p.is_empty() && p.bytes().all(|b| b.is_ascii_lowercase())), "{reading}");
            }
        }
    }
}
