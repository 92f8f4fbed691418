//! What a recogniser tells while somebody speaks, in festival's voice.

use std::{
    io::Write,
    process::{Command, Stdio},
    sync::Arc,
};

use speech::{
    audio,
    grammar::Grammar,
    recogniser::{Engine, RATE, Task},
    sphinx::Sphinx,
};

/// A text as samples for recognisers.
fn spoken(text: &str) -> Vec<f32> {
    let wav = tempfile::NamedTempFile::new().expect("a file");
    let mut child = Command::new("text2wave")
        .args(["-eval", "(voice_msu_ru_nsh_clunits)", "-F", "8000", "-o"])
        .arg(wav.path())
        .stdin(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("ops/test installs it");
    child.stdin.take().expect("a pipe").write_all(text.as_bytes()).expect("written");
    assert!(child.wait().expect("it ends").success());
    let samples = audio::mono(wav.reopen().expect("open"), RATE, 60).expect("read");
    samples.iter().map(|s| f32::from(*s) / 32_768.0).collect()
}

#[test]
fn texts_come_with_the_piece_that_brought_them_and_words_with_their_times() {
    let data = tempfile::tempdir().expect("a directory");
    let model = speech::unpack(data.path()).expect("unpacked");
    let mut engine = Sphinx::new(&model).expect("the program's own model");
    let grammar =
        Grammar::phrases(["соедините с отделом продаж", "соедините с бухгалтерией", "перезвоните завтра"]);
    let task = Task { partial: true, others: true, ..Task::whole(grammar, Arc::default()) };
    let samples = spoken("соедините с отделом продаж");
    let mut ear = engine.open(&task).expect("open");
    // Each feed is 100 ms of speech: what it tells is told before the next 100 ms are spoken.
    let mut told = Vec::new();
    for (n, piece) in samples.chunks(RATE as usize / 10).enumerate() {
        told.extend(ear.feed(piece).expect("taken").map(|text| (n, text)));
    }
    let heard = ear.finish().expect("heard");
    assert_eq!(heard.text(), "соедините с отделом продаж");
    assert!(heard.hypotheses[0].confidence > 0.5, "{:?}", heard.hypotheses);
    // Something else that was said is not taken for one of the phrases.
    let mut other = engine.open(&Task { partial: false, ..task.clone() }).expect("open");
    other.feed(&spoken("вчера шёл сильный дождь")).expect("taken");
    let unlike = other.finish().expect("heard");
    assert!(unlike.hypotheses.first().is_none_or(|h| h.confidence < 0.5), "{:?}", unlike.hypotheses);
    let pieces = samples.len().div_ceil(RATE as usize / 10);
    let first = told.iter().find(|(_, t)| t.contains("соедините")).expect("a text while it is spoken");
    assert!(first.0 + 5 < pieces, "the first word is told before the phrase is over: {told:?} of {pieces}");
    assert!(told.windows(2).all(|w| w[0].1 != w[1].1), "nothing is told twice");
    let times: Vec<f32> = heard.words.iter().map(|w| w.start).collect();
    assert!(heard.words.len() == 4 && times.is_sorted(), "{:?}", heard.words);
    let end = heard.words.last().map(|w| w.start + w.duration).expect("a word");
    assert!(end <= samples.len() as f32 / RATE as f32 + 0.05, "{:?}", heard.words);
}
