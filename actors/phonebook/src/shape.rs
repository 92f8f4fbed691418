//! How phones want a book: the elements of each maker's directories.

use std::fmt::Write as _;

use strum::EnumString;

use crate::Entry;

/// Who reads it (`user_agent`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, EnumString, strum::Display)]
#[strum(serialize_all = "snake_case")]
pub enum Reader {
    /// Cisco IP Phone Services, and programs: all entries in one answer.
    #[default]
    CiscoSearch,
    /// Cisco's phones take 32 entries at a time, with keys to go on.
    Cisco,
    Yealink,
    Grandstream,
}

/// Entries that a Cisco phone takes at a time (Cisco Unified IP Phone Services, CiscoIPPhoneDirectory).
pub const PAGE: usize = 32;

fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            // Not even as a reference may XML 1.0 have them.
            c if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') => {}
            c => out.push(c),
        }
    }
    out
}

/// The book as XML. `next` is where a phone that reads page by page finds the next one.
pub fn xml(reader: Reader, entries: &[Entry], next: Option<&str>) -> String {
    let mut out = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n".to_owned();
    let root = match reader {
        Reader::Cisco | Reader::CiscoSearch => "CiscoIPPhoneDirectory",
        Reader::Yealink => "YealinkIPPhoneDirectory",
        Reader::Grandstream => "AddressBook",
    };
    // Writing to memory does not fail.
    let _ = writeln!(out, "<{root}>");
    for entry in entries {
        let (name, number) = (escaped(&entry.name), escaped(&entry.number));
        let _ = match reader {
            Reader::Grandstream => {
                let (last, first) = name.split_once(' ').unwrap_or((&name, ""));
                writeln!(
                    out,
                    "  <Contact><LastName>{last}</LastName><FirstName>{first}</FirstName><Phone><phonenumber>{number}\
                     </phonenumber><accountindex>0</accountindex></Phone></Contact>"
                )
            }
            _ => writeln!(
                out,
                "  <DirectoryEntry><Name>{name}</Name><Telephone>{number}</Telephone></DirectoryEntry>"
            ),
        };
    }
    if let Some(next) = next {
        let _ = writeln!(
            out,
            "  <SoftKeyItem><Name>Next</Name><URL>{}</URL><Position>2</Position></SoftKeyItem>",
            escaped(next)
        );
    }
    let _ = writeln!(out, "</{root}>");
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn entry(name: &str, number: &str) -> Entry {
        Entry::new(name, number, None).expect("a number")
    }

    #[test]
    fn each_reader_has_its_elements() {
        let all = [entry("Казарцев Евгений", "4819")];
        assert!(xml(Reader::CiscoSearch, &all, None).contains(
            "<DirectoryEntry><Name>Казарцев Евгений</Name><Telephone>4819</Telephone></DirectoryEntry>"
        ));
        assert!(xml(Reader::Yealink, &all, None).contains("<YealinkIPPhoneDirectory>"));
        let grandstream = xml(Reader::Grandstream, &all, None);
        assert!(grandstream.contains("<LastName>Казарцев</LastName><FirstName>Евгений</FirstName>"));
        let paged = xml(Reader::Cisco, &all, Some("/ssw?a=1&start=32"));
        assert!(paged.contains("<URL>/ssw?a=1&amp;start=32</URL>"), "{paged}");
    }

    proptest! {
        #[test]
        fn any_name_makes_xml(name in "\\PC{0,30}", number in "\\PC{1,10}", which in 0..4_usize) {
            let reader = [Reader::Cisco, Reader::CiscoSearch, Reader::Yealink, Reader::Grandstream][which];
            if let Some(entry) = Entry::new(&name, &number, None) {
                let text = xml(reader, &[entry], Some(&name));
                prop_assert!(roxmltree::Document::parse(&text).is_ok(), "{}", text);
            }
        }
    }
}
