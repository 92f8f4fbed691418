//! Recognition of names by voices that the acoustic model was not trained on: espeak-ng's plain Russian, and RHVoice's anna and
//! aleksandr where RHVoice is installed. Beside it the engine's own program, on the same model, grammar and files.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Arc,
};

use nix::sys::{
    resource::{UsageWho, getrusage},
    time::TimeValLike,
};
use speech::{
    audio,
    clerk::state::{Table, Taught},
    dictionary::Dictionary,
    grammar::Grammar,
    recogniser::{Engine, RATE, Task},
    sphinx::Sphinx,
    whisper::Whisper,
};

/// Names that each voice says.
const SAID: usize = 40;

/// A voice, and what it has said.
pub struct Voice {
    pub name: &'static str,
    files: Vec<PathBuf>,
}

/// Random names, without one that comes twice; the same ones each time.
pub fn names(count: usize) -> Vec<String> {
    let taught = Taught::default();
    let rows = |table| taught.rows(table).map(|(_, row)| row.name.clone()).collect::<Vec<_>>();
    let (first, last) = (rows(Table::FullNames), rows(Table::Words));
    let mut state = 20_261_125_u64;
    let mut draw = move |from: &[String]| {
        // Knuth's MMIX generator: whoever runs this hears the same names.
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        from[(state >> 33) as usize % from.len()].clone()
    };
    let (mut seen, mut out) = (BTreeSet::new(), Vec::new());
    while out.len() < count {
        let name = format!("{} {}", draw(&first), draw(&last));
        if seen.insert(name.clone()) {
            out.push(name);
        }
    }
    out
}

/// Processor time so far, seconds; what others do on the machine is not in it.
fn processor(by: UsageWho) -> f64 {
    let usage = getrusage(by).expect("the system's count");
    (usage.user_time() + usage.system_time()).num_microseconds() as f64 / 1e6
}

fn run(command: &mut Command) {
    let done = command.stdout(Stdio::null()).stderr(Stdio::null()).status();
    assert!(done.is_ok_and(|s| s.success()), "{command:?}");
}

/// Has the voices say the first names, as a telephone hears them.
pub fn say(directory: &Path, names: &[String]) -> Vec<Voice> {
    let rhvoice = Command::new("RHVoice-test").arg("--version").output().is_ok();
    let voices: &[&'static str] = if rhvoice { &["espeak-ng", "anna", "aleksandr"] } else { &["espeak-ng"] };
    let one = |voice: &'static str| {
        let file = |(n, name): (usize, &String)| {
            let (raw, file) = (directory.join("raw.wav"), directory.join(format!("{voice}_{n:02}.wav")));
            match voice {
                "espeak-ng" => run(Command::new("espeak-ng").args(["-v", "ru", "-w"]).arg(&raw).arg(name)),
                voice => {
                    let text = directory.join("text");
                    fs::write(&text, name).expect("written");
                    let input = fs::File::open(&text).expect("opened");
                    run(Command::new("RHVoice-test").args(["-p", voice, "-o"]).arg(&raw).stdin(input));
                }
            }
            let shape = ["-r", "8000", "-c", "1", "-b", "16"];
            run(Command::new("sox")
                .arg(&raw)
                .args(shape)
                .arg(&file)
                .args(["norm", "-6", "pad", "0.3", "0.3"]));
            file
        };
        Voice { name: voice, files: names.iter().take(SAID).enumerate().map(file).collect() }
    };
    voices.iter().map(|v| one(v)).collect()
}

/// What one run showed.
pub struct Seen {
    /// Of all names said, those that were understood.
    pub right: f64,
    /// Words put in, left out or taken for others, of all words said.
    pub errors: f64,
    /// Processor seconds for a second of sound, on one thread.
    pub factor: f64,
}

/// How many words of what was said were put in, left out or taken for others.
fn wrong(said: &str, heard: &str) -> usize {
    let (said, heard): (Vec<&str>, Vec<&str>) =
        (said.split(' ').collect(), heard.split_whitespace().collect());
    let mut row: Vec<usize> = (0..=heard.len()).collect();
    for (i, word) in said.iter().enumerate() {
        let mut corner = std::mem::replace(&mut row[0], i + 1);
        for (j, other) in heard.iter().enumerate() {
            let best = (corner + usize::from(word != other)).min(row[j] + 1).min(row[j + 1] + 1);
            corner = std::mem::replace(&mut row[j + 1], best);
        }
    }
    row[heard.len()]
}

/// Names as any speech, by Whisper; none where `ops/speech-weights` has not put its weights together.
pub fn whisper(voice: &Voice, names: &[String]) -> Option<Seen> {
    let weights = Path::new("target/whisper/ggml-base-q8_0.bin");
    let mut engine = weights.is_file().then(|| Whisper::new(weights).expect("its weights"))?;
    let task = Task::whole(Grammar::Open, Arc::new(Dictionary::default()));
    Some(hear(&mut engine, &task, voice, names, 20))
}

fn hear(engine: &mut dyn Engine, task: &Task, voice: &Voice, names: &[String], size: usize) -> Seen {
    let said = voice.files.iter().take(size).zip(names);
    let (mut right, mut count, mut seconds, mut spent) = (0, 0, 0.0, 0.0);
    let (mut errors, mut words) = (0, 0);
    for (file, name) in said {
        let file = fs::File::open(file).expect("opened");
        let samples = audio::to_f32(&audio::mono(file, RATE, 60).expect("read"));
        let before = processor(UsageWho::RUSAGE_SELF);
        let mut listener = engine.open(task).expect("a listener");
        listener.feed(&samples).expect("taken");
        let heard = listener.finish().expect("heard");
        spent += processor(UsageWho::RUSAGE_SELF) - before;
        seconds += samples.len() as f64 / f64::from(RATE);
        let name = speech::grammar::normal(name);
        right += usize::from(heard.text() == name);
        errors += wrong(&name, heard.text());
        words += name.split(' ').count();
        count += 1;
    }
    Seen { right: right as f64 / count as f64, errors: errors as f64 / words as f64, factor: spent / seconds }
}

/// As the engine's own program does it; or also saying how sure it is, which that does not.
pub fn ours(model: &Path, voice: &Voice, names: &[String], size: usize, sure: bool) -> Seen {
    let mut engine = Sphinx::new(model).expect("the program's own model");
    let task = Task::whole(Grammar::phrases(&names[..size]), Arc::new(Dictionary::default()));
    let task = if sure { task } else { task.plain() };
    // Making the grammar is no part of hearing.
    drop(engine.open(&task).expect("a listener"));
    hear(&mut engine, &task, voice, names, size)
}

/// The engine's own program; its start is measured apart and taken off.
pub fn program(model: &Path, directory: &Path, voice: &Voice, names: &[String], size: usize) -> Seen {
    let grammar = Grammar::phrases(&names[..size]);
    let mut dictionary = Dictionary::default();
    for word in grammar.vocabulary() {
        dictionary.add(&word);
    }
    let said: Vec<String> = names[..size].iter().map(|n| speech::grammar::normal(n)).collect();
    let jsgf = format!("#JSGF V1.0 UTF-8;\ngrammar names;\npublic <said> = {};\n", said.join(" | "));
    fs::write(directory.join("peer.jsgf"), jsgf).expect("written");
    fs::write(directory.join("peer.dic"), dictionary.written()).expect("written");
    let files: Vec<&PathBuf> = voice.files.iter().take(size).collect();
    let stem = |file: &PathBuf| file.file_stem().expect("a name").to_string_lossy().into_owned();
    let listen = |files: &[&PathBuf]| {
        let list: String = files.iter().map(|f| stem(f) + "\n").collect();
        fs::write(directory.join("peer.ctl"), list).expect("written");
        let at = |name: &str| directory.join(name);
        let mut command = Command::new("pocketsphinx_batch");
        command.arg("-hmm").arg(model).arg("-jsgf").arg(at("peer.jsgf")).arg("-dict").arg(at("peer.dic"));
        command.arg("-ctl").arg(at("peer.ctl")).arg("-cepdir").arg(directory).arg("-hyp").arg(at("peer.hyp"));
        command.args(
            "-cepext .wav -adcin yes -adchdr 44 -samprate 8000 -lw 1.0 -topn 1 -bestpath no".split(' '),
        );
        command
            .args("-beam 1e-160 -wbeam 1e-120 -pbeam 1e-100 -remove_noise no -remove_silence no".split(' '));
        let before = processor(UsageWho::RUSAGE_CHILDREN);
        run(&mut command);
        processor(UsageWho::RUSAGE_CHILDREN) - before
    };
    // Of several starts the quickest: a slow one would be taken off what it does.
    let start = (0..3).map(|_| listen(&files[..1])).reduce(f64::min).unwrap_or_default();
    // What it does with a short list lasts hardly longer than its start.
    let again = if size > 300 { 1 } else { 3 };
    let spent = listen(&files.repeat(again)) - start;
    let said = fs::read_to_string(directory.join("peer.hyp")).expect("its answers");
    let heard: Vec<(&str, String)> = said
        .lines()
        .map(|line| line.split(" (").next().unwrap_or_default().trim())
        .zip(names.iter().take(files.len()).map(|n| speech::grammar::normal(n)))
        .collect();
    let right = heard.iter().filter(|(text, name)| text == name);
    let errors: usize = heard.iter().map(|(text, name)| wrong(name, text)).sum();
    let words: usize = heard.iter().map(|(_, name)| name.split(' ').count()).sum();
    let length = |f: &&PathBuf| (fs::metadata(f).expect("a file").len() as f64 - 44.0) / 16_000.0;
    let seconds = again as f64 * files.iter().map(length).sum::<f64>() - files.first().map_or(0.0, length);
    Seen {
        right: right.count() as f64 / files.len() as f64,
        errors: errors as f64 / words.max(1) as f64,
        factor: spent / seconds,
    }
}
