//! What outsiders give to speech and to scripts: sound, dictionaries, grammars, phone books, other recognisers' answers,
//! scripts, conditions.
#![no_main]

use std::io::Cursor;

use ivr::{condition::Condition, script::Script, vars::Vars};
use libfuzzer_sys::fuzz_target;
use speech::{
    audio,
    clerk::{
        book::Book,
        search::{Aliases, search},
    },
    dictionary::Dictionary,
    grammar::{self, Grammar},
    graph::Graph,
    numbers, phones,
    remote::{kaldi, vosk},
};

fuzz_target!(|data: &[u8]| {
    if let Ok(samples) = audio::mono(Cursor::new(data.to_vec()), 8000, 10) {
        assert!(samples.len() <= 81_000);
    }
    // However it is cut, it says the same.
    let (mut whole, mut cut) = (kaldi::Lines::default(), kaldi::Lines::default());
    let taken = whole.take(data).is_ok();
    if data.chunks(7).all(|piece| cut.take(piece).is_ok()) && taken {
        assert_eq!(cut.heard(1.0).hypotheses, whole.heard(1.0).hypotheses);
    }
    let Ok(text) = std::str::from_utf8(data) else { return };
    let mut sum = vosk::Sum::default();
    for answer in text.lines() {
        let _ = sum.take(answer);
    }
    assert!(sum.heard().words.iter().all(|w| w.start >= 0.0 && (0.0..=1.0).contains(&w.confidence)));
    if let Ok(dictionary) = Dictionary::parse(text.as_bytes()) {
        assert!(Dictionary::parse(dictionary.written().as_bytes()).is_ok());
    }
    Grammar::Jsgf(text.to_owned()).vocabulary();
    let phrases = Grammar::phrases(text.lines());
    if let Ok(graph) = Graph::of(&phrases) {
        let fsg = graph.fsg(|word| vec![word.to_owned()]);
        // What is said stays on its line.
        assert!(
            fsg.lines().skip(4).all(|l| l == "FSG_END" || (4..=5).contains(&l.split_whitespace().count()))
        );
    }
    assert!(phones::readings(text).len() <= phones::READINGS);
    assert_eq!(grammar::normal(&grammar::normal(text)), grammar::normal(text));
    numbers::written(&numbers::said(text));
    if let Ok(book) = Book::from_xml(text) {
        search(&[text.to_owned()], &book, &Aliases::default());
    }
    let _ = Script::parse(text);
    if let Ok(condition) = Condition::parse(text) {
        condition.holds(&Vars::default());
    }
    Vars::default().fill(text);
});
