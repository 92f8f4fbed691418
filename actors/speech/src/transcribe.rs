//! Transcription: a recording's channels become words with times, and words become lines or subtitles.

use std::fmt::Write as _;

use crate::recogniser::Word;

/// A pause between two words of a speaker that begins another subtitle, seconds.
const PAUSE: f32 = 1.0;
/// Words of a subtitle at most.
const WORDS: usize = 14;

/// A word and which channel it was said on.
#[derive(Debug, Clone, PartialEq)]
pub struct Said {
    pub channel: usize,
    pub word: Word,
}

/// How a channel's speaker is called where nobody says: Абонент: А, Абонент: Б…
pub fn speaker(channel: usize) -> char {
    char::from_u32('А' as u32 + channel as u32).unwrap_or('?')
}

/// One line of the word list: name, channel, start, duration, word, confidence (the manual's example; NIST's CTM).
pub fn line(word: &Word) -> String {
    format!("decoder-test 1 {:.2} {:.2} {} {:.2}\n", word.start, word.duration, word.text, word.confidence)
}

/// What stands before a channel's words.
pub fn heading(channel: usize) -> String {
    format!("[Абонент: {}]\n", speaker(channel))
}

/// A subtitle.
#[derive(Debug, Clone, PartialEq)]
pub struct Cue {
    pub channel: usize,
    pub start: f32,
    pub end: f32,
    pub text: String,
    words: usize,
}

/// Gathers words that come in the order of their beginnings into subtitles.
#[derive(Debug, Default)]
pub struct Cues {
    open: Option<Cue>,
}

impl Cues {
    /// Takes a word; the subtitle before it, where this one begins another.
    pub fn add(&mut self, said: &Said) -> Option<Cue> {
        let (word, end) = (&said.word, said.word.start + said.word.duration);
        if let Some(cue) = &mut self.open
            && cue.channel == said.channel
            && word.start - cue.end < PAUSE
            && cue.words < WORDS
        {
            cue.text.push(' ');
            cue.text.push_str(&word.text);
            cue.end = cue.end.max(end);
            cue.words += 1;
            return None;
        }
        let next = Cue { channel: said.channel, start: word.start, end, text: word.text.clone(), words: 1 };
        self.open.replace(next)
    }

    pub fn finish(&mut self) -> Option<Cue> {
        self.open.take()
    }
}

fn clock(seconds: f32) -> String {
    let millis = (f64::from(seconds.max(0.0)) * 1000.0).round() as u64;
    let (hours, minutes) = (millis / 3_600_000, millis / 60_000 % 60);
    format!("{hours:02}:{minutes:02}:{:02}.{:03}", millis / 1000 % 60, millis % 1000)
}

/// Text of a subtitle or a label: what WebVTT would read as markup is written so that it is none.
fn escaped(text: &str) -> String {
    let clean: String = text.chars().filter(|c| !c.is_control()).collect();
    clean.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// A subtitle as WebVTT has it. The manual prints `<v> Алиса>`; a voice's name stands inside its tag.
pub fn vtt(number: usize, cue: &Cue, label: &str) -> String {
    let mut out = String::new();
    // Writing to memory does not fail.
    let _ = write!(
        out,
        "\n{number}\n{} --> {}\n<v {}>{}</v>\n",
        clock(cue.start),
        clock(cue.end),
        escaped(label),
        escaped(&cue.text)
    );
    out
}

/// The first line of a file of subtitles.
pub const WEBVTT: &str = "WEBVTT\n";

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn said(channel: usize, start: f32, duration: f32, text: &str) -> Said {
        Said { channel, word: Word { text: text.into(), start, duration, confidence: 1.0 } }
    }

    #[test]
    fn the_manuals_conversation_becomes_its_subtitles() {
        let words = [
            said(0, 0.99, 0.27, "да"),
            said(1, 1.65, 0.45, "алло"),
            said(0, 2.73, 0.21, "да"),
            said(0, 2.94, 0.36, "да"),
            said(1, 3.48, 0.15, "ну"),
            said(1, 3.63, 0.18, "как"),
            said(1, 3.81, 0.15, "там"),
            said(1, 3.96, 0.06, "с"),
            said(1, 4.02, 0.54, "деньгами"),
            said(0, 5.94, 0.33, "какими"),
            said(0, 6.27, 0.45, "деньгами"),
        ];
        let mut cues = Cues::default();
        let mut all: Vec<Cue> = words.iter().filter_map(|w| cues.add(w)).collect();
        all.extend(cues.finish());
        let labels = ["Алиса", "Боб"];
        let text: String =
            all.iter().enumerate().map(|(n, cue)| vtt(n + 1, cue, labels[cue.channel])).collect();
        assert!(text.starts_with("\n1\n00:00:00.990 --> 00:00:01.260\n<v Алиса>да</v>\n"), "{text}");
        assert!(text.contains("\n3\n00:00:02.730 --> 00:00:03.300\n<v Алиса>да да</v>\n"), "{text}");
        assert!(
            text.contains("\n4\n00:00:03.480 --> 00:00:04.560\n<v Боб>ну как там с деньгами</v>\n"),
            "{text}"
        );
        assert!(
            text.ends_with("\n5\n00:00:05.940 --> 00:00:06.720\n<v Алиса>какими деньгами</v>\n"),
            "{text}"
        );
        assert_eq!(line(&words[0].word), "decoder-test 1 0.99 0.27 да 1.00\n");
        assert_eq!(heading(1), "[Абонент: Б]\n");
    }

    proptest! {
        #[test]
        fn nothing_in_a_label_or_word_is_markup(label in "\\PC{0,20}", word in "\\PC{1,20}") {
            let cue = Cue { channel: 0, start: 0.0, end: 1.0, text: word, words: 1 };
            let text = vtt(1, &cue, &label);
            prop_assert_eq!(text.lines().count(), 4);
            let body = text.lines().last().unwrap_or_default();
            prop_assert_eq!(body.matches('<').count(), 2);
            prop_assert_eq!(body.matches('>').count(), 2);
        }
    }
}
