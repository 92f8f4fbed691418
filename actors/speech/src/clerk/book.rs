//! The phone book the auto-attendant looks into: names with numbers, and what of a name says enough.

use std::collections::BTreeMap;

/// Entries of a book at most.
pub const ENTRIES: usize = 100_000;
/// Letters of a name and of a number at most.
const LONGEST: usize = 200;

/// How names are compared: small letters, е for ё, one space between words.
pub fn key(text: &str) -> String {
    crate::grammar::normal(text).replace('ё', "е")
}

#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Entry {
    pub name: String,
    pub number: String,
}

impl Entry {
    pub fn new(name: &str, number: &str) -> Self {
        Self { name: name.trim().to_owned(), number: number.trim().to_owned() }
    }
}

/// The book, and its second table: unique names, each with the full one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Book {
    entries: BTreeMap<String, Entry>,
    unique: BTreeMap<String, String>,
}

#[derive(Debug, thiserror::Error)]
pub enum BookError {
    #[error("no XML: {0}")]
    Xml(#[from] roxmltree::Error),
    #[error("more than {ENTRIES} entries")]
    Many,
    #[error("not one DirectoryEntry with a Name and a Telephone")]
    Empty,
}

impl Book {
    /// Of two entries with one name the first stays.
    pub fn new(all: impl IntoIterator<Item = Entry>) -> Self {
        let mut entries = BTreeMap::new();
        for entry in all {
            let key = key(&entry.name);
            if !key.is_empty() && !entry.number.is_empty() {
                entries.entry(key).or_insert(entry);
            }
        }
        // Parts of names, and whose they are as long as they are one entry's: each word, and each two words of a longer name.
        let mut parts: BTreeMap<String, Option<String>> = BTreeMap::new();
        for full in entries.keys() {
            let words: Vec<&str> = full.split(' ').collect();
            let mut add = |part: String| {
                let owner = parts.entry(part).or_insert_with(|| Some(full.clone()));
                if owner.as_ref() != Some(full) {
                    *owner = None;
                }
            };
            words.iter().for_each(|w| add((*w).to_owned()));
            if words.len() > 2 {
                for i in 0..words.len() {
                    for j in (0..words.len()).filter(|j| *j != i) {
                        add(format!("{} {}", words[i], words[j]));
                    }
                }
            }
        }
        let unique = parts.into_iter().filter_map(|(part, owner)| Some((part, owner?))).collect();
        Self { entries, unique }
    }

    /// Reads the phone book service's XML: `DirectoryEntry` elements with `Name` and `Telephone`, as Cisco's phones have it.
    pub fn from_xml(text: &str) -> Result<Self, BookError> {
        let options = roxmltree::ParsingOptions {
            allow_dtd: false,
            nodes_limit: 10 * ENTRIES as u32,
            ..Default::default()
        };
        let document = roxmltree::Document::parse_with_options(text, options)?;
        let text_of = |entry: roxmltree::Node<'_, '_>, name: &str| {
            let child = entry.children().find(|c| c.has_tag_name(name))?;
            child.text().map(str::trim).filter(|t| !t.is_empty() && t.len() <= LONGEST).map(str::to_owned)
        };
        let mut all = Vec::new();
        for entry in document.descendants().filter(|n| n.tag_name().name() == "DirectoryEntry") {
            if let Some((name, number)) = text_of(entry, "Name").zip(text_of(entry, "Telephone")) {
                if all.len() >= ENTRIES {
                    return Err(BookError::Many);
                }
                all.push(Entry { name, number });
            }
        }
        // A directory may be empty; something else is none.
        let directory = document.root_element().tag_name().name() == "CiscoIPPhoneDirectory";
        if all.is_empty() && !directory { Err(BookError::Empty) } else { Ok(Self::new(all)) }
    }

    /// As XML that [`Book::from_xml`] reads.
    pub fn xml(&self) -> String {
        let escaped = |t: &str| t.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
        let entry = |e: &Entry| {
            format!(
                "  <DirectoryEntry><Name>{}</Name><Telephone>{}</Telephone></DirectoryEntry>\n",
                escaped(&e.name),
                escaped(&e.number)
            )
        };
        let all: String = self.entries.values().map(entry).collect();
        format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<CiscoIPPhoneDirectory>\n{all}</CiscoIPPhoneDirectory>\n"
        )
    }

    pub fn len(&self) -> usize {
        self.entries.len()
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub fn entries(&self) -> impl Iterator<Item = (&str, &Entry)> {
        self.entries.iter().map(|(key, entry)| (key.as_str(), entry))
    }

    pub(super) fn find(&self, key: &str) -> Option<&Entry> {
        self.entries.get(key)
    }

    /// The full name of which this is enough.
    pub(super) fn unique(&self, part: &str) -> Option<String> {
        self.unique.get(part).cloned()
    }

    pub(super) fn unique_names(&self) -> impl Iterator<Item = &str> {
        self.unique.keys().map(String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_services_xml_is_read_and_written() {
        let text = "<CiscoIPPhoneDirectory><Title>x</Title>\n<DirectoryEntry><Name>Казарцев Евгений</Name>\
                    <Telephone>4819</Telephone></DirectoryEntry><DirectoryEntry><Name>Без номера</Name></DirectoryEntry>\
                    <DirectoryEntry><Name>A &amp; B</Name><Telephone>1</Telephone></DirectoryEntry></CiscoIPPhoneDirectory>";
        let book = Book::from_xml(text).expect("read");
        assert_eq!(book.len(), 2);
        assert_eq!(Book::from_xml(&book.xml()).expect("read again"), book);
        assert!(matches!(Book::from_xml("<a/>"), Err(BookError::Empty)));
        assert!(Book::from_xml("<!DOCTYPE a [<!ENTITY x \"y\">]><a>&x;</a>").is_err(), "no entities");
    }

    proptest! {
        #[test]
        fn any_names_make_a_book(names in proptest::collection::vec("\\PC{0,12}", 0..6)) {
            let book = Book::new(names.iter().map(|n| Entry::new(n, "1")));
            if !book.is_empty() {
                prop_assert_eq!(Book::from_xml(&book.xml()).expect("read").len(), book.len());
            }
        }

        #[test]
        fn any_text_is_xml_or_refused(text in "\\PC{0,60}") {
            prop_assert!(Book::from_xml(&text).is_err(), "no directory is in it");
        }

        #[test]
        fn any_name_comes_back_from_xml(name in "[а-яА-Я<&>\"' ]{0,30}") {
            let book = Book::new(vec![Entry { name: format!("Я{name}Я"), number: "1".into() }]);
            prop_assert_eq!(Book::from_xml(&book.xml()).ok(), Some(book));
        }
    }
}
