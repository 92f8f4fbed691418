//! Russian names in Latin letters, for phones without Cyrillic ones (ICAO 9303, part 3, as passports have them).

/// A text in Latin letters; what is no Cyrillic letter stays.
pub fn latin(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        let small = c.to_lowercase().next().unwrap_or(c);
        let latin = match small {
            'а' => "a",
            'б' => "b",
            'в' => "v",
            'г' => "g",
            'д' => "d",
            'е' | 'ё' | 'э' => "e",
            'ж' => "zh",
            'з' => "z",
            'и' | 'й' => "i",
            'к' => "k",
            'л' => "l",
            'м' => "m",
            'н' => "n",
            'о' => "o",
            'п' => "p",
            'р' => "r",
            'с' => "s",
            'т' => "t",
            'у' => "u",
            'ф' => "f",
            'х' => "kh",
            'ц' => "ts",
            'ч' => "ch",
            'ш' => "sh",
            'щ' => "shch",
            'ъ' => "ie",
            'ы' => "y",
            'ь' => "",
            'ю' => "iu",
            'я' => "ia",
            _ => {
                out.push(c);
                continue;
            }
        };
        let mut letters = latin.chars();
        match letters.next() {
            Some(first) if c.is_uppercase() => out.push(first.to_ascii_uppercase()),
            Some(first) => out.push(first),
            None => {}
        }
        out.extend(letters);
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::latin;

    #[test]
    fn names_are_written_as_in_passports() {
        assert_eq!(latin("Щербакова Юлия"), "Shcherbakova Iuliia");
        assert_eq!(latin("Подъячев, 12 (доб.)"), "Podieiachev, 12 (dob.)");
    }

    proptest! {
        #[test]
        fn no_russian_letter_stays(text in "[а-яёА-ЯЁ a-z0-9]{0,40}") {
            prop_assert!(latin(&text).is_ascii());
        }
    }
}
