//! Numbers, dates and times of day as Russians say them, and back: recognisers know words, not digits.

const UNITS: [&str; 20] = [
    "ноль",
    "один",
    "два",
    "три",
    "четыре",
    "пять",
    "шесть",
    "семь",
    "восемь",
    "девять",
    "десять",
    "одиннадцать",
    "двенадцать",
    "тринадцать",
    "четырнадцать",
    "пятнадцать",
    "шестнадцать",
    "семнадцать",
    "восемнадцать",
    "девятнадцать",
];
const TENS: [&str; 10] = [
    "",
    "",
    "двадцать",
    "тридцать",
    "сорок",
    "пятьдесят",
    "шестьдесят",
    "семьдесят",
    "восемьдесят",
    "девяносто",
];
const HUNDREDS: [&str; 10] =
    ["", "сто", "двести", "триста", "четыреста", "пятьсот", "шестьсот", "семьсот", "восемьсот", "девятьсот"];
const MONTHS: [&str; 12] = [
    "января",
    "февраля",
    "марта",
    "апреля",
    "мая",
    "июня",
    "июля",
    "августа",
    "сентября",
    "октября",
    "ноября",
    "декабря",
];
/// Stems of ordinals 0 to 19; endings are put behind.
const ORDINALS: [&str; 20] = [
    "нулев",
    "перв",
    "втор",
    "трет",
    "четвёрт",
    "пят",
    "шест",
    "седьм",
    "восьм",
    "девят",
    "десят",
    "одиннадцат",
    "двенадцат",
    "тринадцат",
    "четырнадцат",
    "пятнадцат",
    "шестнадцат",
    "семнадцат",
    "восемнадцат",
    "девятнадцат",
];
const ORDINAL_TENS: [&str; 10] = [
    "",
    "",
    "двадцат",
    "тридцат",
    "сороков",
    "пятидесят",
    "шестидесят",
    "семидесят",
    "восьмидесят",
    "девяност",
];
const ORDINAL_HUNDREDS: [&str; 10] = [
    "",
    "сот",
    "двухсот",
    "трёхсот",
    "четырёхсот",
    "пятисот",
    "шестисот",
    "семисот",
    "восьмисот",
    "девятисот",
];
/// Digits of a number said as one; longer runs are said one by one, as telephone numbers are.
const ONE: usize = 4;

fn below_thousand(n: usize, feminine: bool, out: &mut Vec<String>) {
    let mut push = |word: &str| out.push(word.to_owned());
    if n >= 100 {
        push(HUNDREDS[n / 100]);
    }
    let rest = n % 100;
    if rest >= 20 {
        push(TENS[rest / 10]);
    }
    let unit = if rest < 20 { rest } else { rest % 10 };
    match unit {
        0 => {}
        1 if feminine => push("одна"),
        2 if feminine => push("две"),
        unit => push(UNITS[unit]),
    }
}

/// A number in the nominative.
pub fn cardinal(n: u32) -> String {
    let n = n as usize;
    if n == 0 {
        return UNITS[0].to_owned();
    }
    let mut out = Vec::new();
    for (scale, feminine, forms) in [
        (1_000_000_000, false, ["миллиард", "миллиарда", "миллиардов"]),
        (1_000_000, false, ["миллион", "миллиона", "миллионов"]),
        (1_000, true, ["тысяча", "тысячи", "тысяч"]),
    ] {
        let part = n / scale % 1000;
        if part > 0 {
            below_thousand(part, feminine, &mut out);
            out.push(plural(part, forms).to_owned());
        }
    }
    below_thousand(n % 1000, false, &mut out);
    out.join(" ")
}

/// Which of the three forms stands behind a number: один час, два часа, пять часов.
pub fn plural(n: usize, forms: [&'static str; 3]) -> &'static str {
    match (n % 10, n % 100) {
        (_, 11..=14) => forms[2],
        (1, _) => forms[0],
        (2..=4, _) => forms[1],
        _ => forms[2],
    }
}

/// An ordinal below 10,000; `genitive` as in years, else the neuter of days.
fn ordinal(n: usize, genitive: bool) -> String {
    let ended = |stem: &str, third: bool| match (genitive, third) {
        (true, true) => format!("{stem}ьего"),
        (true, false) => format!("{stem}ого"),
        (false, true) => format!("{stem}ье"),
        (false, false) => format!("{stem}ое"),
    };
    let mut out = Vec::new();
    let (thousands, rest) = (n / 1000, n % 1000);
    if thousands > 0 && rest == 0 {
        let stem = ["", "тысячн", "двухтысячн", "трёхтысячн", "четырёхтысячн"].get(thousands).copied();
        return ended(stem.unwrap_or("тысячн"), false);
    }
    if thousands > 0 {
        // The year says "тысяча девятьсот", not "одна тысяча".
        if thousands > 1 {
            below_thousand(thousands, true, &mut out);
        }
        out.push(plural(thousands, ["тысяча", "тысячи", "тысяч"]).to_owned());
    }
    let (hundreds, low) = (rest / 100, rest % 100);
    if hundreds > 0 {
        out.push(if low == 0 {
            ended(ORDINAL_HUNDREDS[hundreds], false)
        } else {
            HUNDREDS[hundreds].to_owned()
        });
    }
    match low {
        0 if hundreds > 0 => {}
        0..20 => out.push(ended(ORDINALS[low], low == 3)),
        _ if low % 10 == 0 => out.push(ended(ORDINAL_TENS[low / 10], false)),
        _ => {
            out.push(TENS[low / 10].to_owned());
            out.push(ended(ORDINALS[low % 10], low % 10 == 3));
        }
    }
    out.join(" ")
}

/// `12.05.2024` or `12.05`.
fn date(token: &str) -> Option<String> {
    let mut parts = token.split('.');
    let number =
        |p: Option<&str>| p.filter(|p| (1..=4).contains(&p.len())).and_then(|p| p.parse::<usize>().ok());
    let (day, month) = (number(parts.next())?, number(parts.next())?);
    let year = match parts.next() {
        None => None,
        year => Some(number(year).filter(|y| (1000..3000).contains(y))?),
    };
    if parts.next().is_some() || !(1..=31).contains(&day) || !(1..=12).contains(&month) {
        return None;
    }
    let year = year.map(|y| format!(" {} года", ordinal(y, true))).unwrap_or_default();
    Some(format!("{} {}{year}", ordinal(day, false), MONTHS[month - 1]))
}

/// `9:05`
fn time(token: &str) -> Option<String> {
    let (hours, minutes) = token.split_once(':')?;
    let number = |t: &str| Some(t).filter(|t| (1..=2).contains(&t.len())).and_then(|t| t.parse::<u32>().ok());
    let (h, m) = (number(hours)?, number(minutes).filter(|_| minutes.len() == 2)?);
    if h > 23 || m > 59 {
        return None;
    }
    let hour = plural(h as usize, ["час", "часа", "часов"]);
    let minute = plural(m as usize, ["минута", "минуты", "минут"]);
    let mut said = Vec::new();
    below_thousand(m as usize, true, &mut said);
    let minutes = if m == 0 { "ноль".to_owned() } else { said.join(" ") };
    Some(format!("{} {hour} {minutes} {minute}", cardinal(h)))
}

fn digits(run: &str) -> String {
    match run.parse::<u32>() {
        Ok(n) if run.len() <= ONE && !(run.len() > 1 && run.starts_with('0')) => cardinal(n),
        _ => run.bytes().map(|b| UNITS[usize::from(b - b'0')]).collect::<Vec<_>>().join(" "),
    }
}

/// A text with its numbers, dates and times in words.
pub fn said(text: &str) -> String {
    if !text.bytes().any(|b| b.is_ascii_digit()) {
        return text.to_owned();
    }
    let word = |token: &str| {
        let core = token.trim_matches(|c: char| !c.is_ascii_digit());
        if let Some(said) = date(core).or_else(|| time(core)).filter(|_| !core.is_empty()) {
            return token.replacen(core, &said, 1);
        }
        let mut out = String::new();
        let mut rest = token;
        while !rest.is_empty() {
            let number = rest.bytes().take_while(u8::is_ascii_digit).count();
            if number > 0 {
                if out.chars().next_back().is_some_and(|c| !c.is_whitespace()) {
                    out.push(' ');
                }
                out.push_str(&digits(&rest[..number]));
                rest = &rest[number..];
                if !rest.is_empty() {
                    out.push(' ');
                }
            } else {
                let other = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
                out.push_str(&rest[..other]);
                rest = &rest[other..];
            }
        }
        out
    };
    text.split(' ').map(word).collect::<Vec<_>>().join(" ")
}

/// What a word adds to a number: its value, and how high it stands.
fn value(word: &str) -> Option<(u64, u32)> {
    let word = word.replace('ё', "е");
    let at = |all: &[&str]| all.iter().position(|w| !w.is_empty() && w.replace('ё', "е") == word);
    match word.as_str() {
        "одна" | "одно" => return Some((1, 0)),
        "две" => return Some((2, 0)),
        "тысяча" | "тысячи" | "тысяч" => return Some((1_000, 3)),
        "миллион" | "миллиона" | "миллионов" => return Some((1_000_000, 6)),
        _ => {}
    }
    if let Some(n) = at(&UNITS) {
        return Some((n as u64, u32::from(n >= 10)));
    }
    at(&TENS).map(|n| (n as u64 * 10, 1)).or_else(|| at(&HUNDREDS).map(|n| (n as u64 * 100, 2)))
}

/// An ordinal's value and how high it stands.
fn ordinal_value(word: &str) -> Option<(u64, u32)> {
    let word = word.replace('ё', "е");
    let stem = ["ьего", "ого", "ье", "ое"].iter().find_map(|e| word.strip_suffix(e))?;
    let at = |all: &[&str]| all.iter().position(|w| !w.is_empty() && w.replace('ё', "е") == stem);
    if let Some(n) = at(&ORDINALS) {
        return Some((n as u64, u32::from(n >= 10)));
    }
    if let Some(n) = at(&ORDINAL_TENS) {
        return Some((n as u64 * 10, 1));
    }
    if let Some(n) = at(&ORDINAL_HUNDREDS) {
        return Some((n as u64 * 100, 2));
    }
    ["тысячн", "двухтысячн", "трехтысячн"].iter().position(|s| *s == stem).map(|n| ((n as u64 + 1) * 1000, 3))
}

/// A number from the first words, with how many they are. An ordinal ends it.
fn number(words: &[&str]) -> Option<(u64, usize, bool)> {
    let (mut total, mut part, mut rank, mut used) = (0_u64, 0_u64, u32::MAX, 0);
    for word in words {
        let (plain, ordinal) = (value(word), ordinal_value(word));
        let Some((n, height)) = plain.or(ordinal) else { break };
        let is_ordinal = plain.is_none();
        if height >= 3 && !(is_ordinal && n > 1000) {
            // Thousands: what came before is how many.
            if total > 0 && total < n {
                break;
            }
            total += part.max(1) * n;
            (part, rank) = (0, 3);
        } else {
            // Zero joins nothing; ten to nineteen join hundreds only.
            let joins =
                if n == 0 { used == 0 } else { height < rank && !(rank == 1 && part % 100 < 20 && used > 0) };
            if !joins {
                break;
            }
            part += n;
            rank = if n == 0 || (10..20).contains(&n) { 0 } else { height };
        }
        used += 1;
        if is_ordinal {
            return Some((total + part, used, true));
        }
    }
    (used > 0).then_some((total + part, used, false))
}

/// A text with its numbers and dates in digits; single digits one after another become one number.
pub fn written(text: &str) -> String {
    let words: Vec<&str> = text.split_whitespace().collect();
    let mut out: Vec<String> = Vec::new();
    let (mut at, mut joins) = (0, false);
    while at < words.len() {
        let month = |i: usize| words.get(i).and_then(|w| MONTHS.iter().position(|m| m == w));
        match number(&words[at..]) {
            Some((day, used, _)) if (1..=31).contains(&day) && month(at + used).is_some() => {
                let month = month(at + used).unwrap_or_default() + 1;
                at += used + 1;
                match number(&words[at..]) {
                    Some((year, used, _)) if (1000..3000).contains(&year) => {
                        at += used + usize::from(matches!(words.get(at + used), Some(&"года" | &"год")));
                        out.push(format!("{day:02}.{month:02}.{year}"));
                    }
                    _ => out.push(format!("{day:02}.{month:02}")),
                }
                joins = false;
            }
            Some((n, used, false)) => {
                at += used;
                let single = used == 1 && n < 10;
                match out.last_mut().filter(|_| joins && single) {
                    Some(last) => last.push_str(&n.to_string()),
                    None => out.push(n.to_string()),
                }
                joins = single;
            }
            _ => {
                out.push(words[at].to_owned());
                (at, joins) = (at + 1, false);
            }
        }
    }
    out.join(" ")
}

/// The digits of what was said as a number to dial: `сорок восемь девятнадцать` is 4819. None where anything else was said.
pub fn dialled(text: &str) -> Option<String> {
    let text = written(text);
    let digits: String = text.split(' ').collect();
    (!digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit())).then_some(digits)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn numbers_dates_and_times_are_said() {
        for (text, words) in [
            ("12.05.2024", "двенадцатое мая две тысячи двадцать четвёртого года"),
            ("3.01.2000", "третье января двухтысячного года"),
            ("9.05.1945", "девятое мая тысяча девятьсот сорок пятого года"),
            ("кабинет 215", "кабинет двести пятнадцать"),
            ("89001", "восемь девять ноль ноль один"),
            ("в 9:05", "в девять часов пять минут"),
            ("в 21:02", "в двадцать один час две минуты"),
            ("1002", "одна тысяча два"),
            ("без чисел", "без чисел"),
        ] {
            assert_eq!(said(text), words);
        }
    }

    #[test]
    fn words_become_digits() {
        for (words, text) in [
            ("двенадцатое мая две тысячи двадцать четвёртого года", "12.05.2024"),
            ("девятое мая", "09.05"),
            ("один два три", "123"),
            ("сорок восемь девятнадцать", "48 19"),
            ("сто двадцать пять рублей", "125 рублей"),
            ("две тысячи", "2000"),
            ("ноль пять", "05"),
            ("какими деньгами", "какими деньгами"),
        ] {
            assert_eq!(written(words), text, "{words}");
        }
        assert_eq!(dialled("сорок восемь девятнадцать").as_deref(), Some("4819"));
        assert_eq!(dialled("сорок рублей"), None);
    }

    proptest! {
        #[test]
        fn every_number_comes_back(n in 0_u32..10_000) {
            prop_assert_eq!(written(&cardinal(n)), n.to_string());
        }

        #[test]
        fn every_date_comes_back(day in 1_u32..=28, month in 1_u32..=12, year in 1900_u32..2100) {
            let text = format!("{day:02}.{month:02}.{year}");
            prop_assert_eq!(written(&said(&text)), text);
        }

        #[test]
        fn any_text_is_said(text in "\\PC{0,40}") {
            let said = said(&text);
            prop_assert!(!said.bytes().any(|b| b.is_ascii_digit()));
            written(&said);
        }
    }
}
