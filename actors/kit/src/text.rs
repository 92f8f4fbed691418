//! Texts of strangers, before a person or a spreadsheet reads them.

/// Whether a character is no letter of a text but acts on it: control characters, ends of lines and paragraphs, marks that turn
/// the direction of writing or have no width.
///
/// ```
/// assert!(['\u{1b}', '\n', '\u{85}', '\u{2028}', '\u{202e}', '\u{200b}', '\u{feff}'].into_iter().all(kit::text::acts));
/// assert!(!"Пётр 1-а 王".chars().any(kit::text::acts));
/// ```
pub fn acts(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}')
        || matches!(c, '\u{2060}'..='\u{206f}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}')
        || matches!(c, '\u{e0000}'..='\u{e007f}')
}
