//! Sounds of our own, 8000 samples a second: tones, music, files; and keys heard in-band.

use std::{
    collections::HashMap,
    f32::consts::TAU,
    path::{Path, PathBuf},
    sync::Arc,
};

use call::media::Tone;

pub const RATE: u32 = 8000;
/// Samples of 20 ms.
pub const FRAME: usize = 160;

/// A sound that is played from its beginning, once or again and again.
#[derive(Debug, Clone)]
pub struct Sound {
    samples: Arc<[i16]>,
    at: usize,
    repeat: bool,
}

#[derive(Debug, thiserror::Error)]
pub enum SoundError {
    #[error("{0}")]
    Wav(#[from] hound::Error),
    #[error("mono or stereo PCM of 16 bits at 8000, 16000, 32000 or 48000 Hz is wanted")]
    Format,
    #[error("longer than {MINUTES} minutes")]
    Long,
}

const MINUTES: u32 = 30;

impl Sound {
    pub fn new(samples: Arc<[i16]>, repeat: bool) -> Self {
        Self { samples, at: 0, repeat }
    }

    /// The next 20 ms; none when it is over.
    pub fn frame(&mut self) -> Option<[i16; FRAME]> {
        if self.samples.is_empty() || (!self.repeat && self.at >= self.samples.len()) {
            return None;
        }
        let mut frame = [0; FRAME];
        for sample in &mut frame {
            if self.at >= self.samples.len() {
                if !self.repeat {
                    break;
                }
                self.at = 0;
            }
            *sample = self.samples[self.at];
            self.at += 1;
        }
        Some(frame)
    }
}

/// Reads a WAV file.
pub fn wav(path: &Path) -> Result<Arc<[i16]>, SoundError> {
    let mut reader = hound::WavReader::open(path)?;
    let spec = reader.spec();
    let good = spec.bits_per_sample == 16
        && spec.sample_format == hound::SampleFormat::Int
        && (1..=2).contains(&spec.channels)
        && matches!(spec.sample_rate, 8000 | 16_000 | 32_000 | 48_000);
    if !good {
        return Err(SoundError::Format);
    }
    if reader.duration() > spec.sample_rate * 60 * MINUTES {
        return Err(SoundError::Long);
    }
    // One value for all that becomes one sample: channels, and samples of the higher rate.
    let together = usize::from(spec.channels) * (spec.sample_rate / RATE) as usize;
    let all: Vec<i16> = reader.samples::<i16>().collect::<Result<_, _>>()?;
    let mean = |c: &[i16]| (c.iter().map(|s| i32::from(*s)).sum::<i32>() / c.len() as i32) as i16;
    Ok(all.chunks(together).map(mean).collect())
}

/// What is read once: calls hear it again and again, and the threads they are heard on wait for no disk.
#[derive(Debug, Clone)]
pub struct Library {
    music: Arc<[i16]>,
    files: HashMap<PathBuf, Arc<[i16]>>,
}

impl Library {
    pub fn new(music: Arc<[i16]>) -> Self {
        Self { music, files: HashMap::new() }
    }

    pub fn keep(&mut self, path: &Path) -> Result<(), SoundError> {
        self.files.insert(path.to_owned(), wav(path)?);
        Ok(())
    }

    pub fn music(&self) -> Arc<[i16]> {
        self.music.clone()
    }

    /// A file that is kept; another has to be read, which no media thread may do.
    pub fn kept(&self, path: &Path) -> Option<Arc<[i16]>> {
        self.files.get(path).cloned()
    }
}

fn sine(frequency: f32, seconds: f32, volume: f32) -> impl Iterator<Item = i16> {
    let count = (seconds * RATE as f32) as usize;
    (0..count).map(move |n| ((TAU * frequency * n as f32 / RATE as f32).sin() * volume * 32_767.0) as i16)
}

fn silence(seconds: f32) -> impl Iterator<Item = i16> {
    std::iter::repeat_n(0, (seconds * RATE as f32) as usize)
}

/// Tones as Russian networks have them: 425 Hz (ITU-T E.180, supplement 2).
pub fn tone(tone: Tone) -> Sound {
    let samples: Vec<i16> = match tone {
        Tone::Ringback => sine(425.0, 1.0, 0.2).chain(silence(4.0)).collect(),
        Tone::Busy => sine(425.0, 0.35, 0.2).chain(silence(0.35)).collect(),
        Tone::Confirm => sine(425.0, 0.1, 0.2)
            .chain(silence(0.1))
            .chain(sine(850.0, 0.1, 0.2))
            .chain(silence(1.7))
            .collect(),
        Tone::Error => sine(950.0, 0.33, 0.2)
            .chain(sine(1400.0, 0.33, 0.2))
            .chain(sine(1800.0, 0.33, 0.2))
            .chain(silence(1.0))
            .collect(),
    };
    Sound::new(samples.into(), true)
}

/// What is heard on hold where no file is configured: a slow broken chord.
pub fn music() -> Arc<[i16]> {
    let notes = [261.63, 329.63, 392.0, 523.25, 392.0, 329.63, 220.0, 261.63, 329.63, 440.0, 329.63, 261.63];
    let mut all = Vec::new();
    for note in notes {
        let count = RATE as usize / 2;
        all.extend((0..count).map(|n| {
            let t = n as f32 / RATE as f32;
            let fade = (t * 40.0).min(1.0) * (-3.0 * t).exp();
            let wave = (TAU * note * t).sin() + 0.3 * (2.0 * TAU * note * t).sin();
            (wave * fade * 0.12 * 32_767.0) as i16
        }));
    }
    all.into()
}

/// Tells speech from silence by its level (the manual's `silence-threshold` and `finalsilence`).
#[derive(Debug, Clone, Default)]
pub struct Gate {
    /// Frames since the level was last reached; none when it never was.
    since: Option<u32>,
}

/// Frames for which silence counts as a pause of speech: 1 s.
const PAUSE: u32 = 50;

impl Gate {
    /// Whether somebody speaks: this frame reaches the threshold, dBFS, or one of the last second did.
    pub fn passes(&mut self, frame: &[i16], threshold: i8) -> bool {
        let energy: f64 = frame.iter().map(|s| f64::from(*s) * f64::from(*s)).sum();
        let level = 10.0 * (energy / frame.len().max(1) as f64 / (32_768.0 * 32_768.0)).log10();
        self.since = match (level >= f64::from(threshold), self.since) {
            (true, _) => Some(0),
            (false, since) => since.map(|n| n.saturating_add(1)),
        };
        self.since.is_some_and(|n| n <= PAUSE)
    }
}

/// Finds keys in audio (ITU-T Q.23, Q.24) with Goertzel's algorithm.
#[derive(Debug, Clone, Default)]
pub struct KeyFinder {
    block: Vec<f32>,
    last: Option<char>,
    told: Option<char>,
}

/// Samples looked at together: 25.6 ms, where the eight frequencies fall apart best.
const BLOCK: usize = 205;
const LOW: [f32; 4] = [697.0, 770.0, 852.0, 941.0];
const HIGH: [f32; 4] = [1209.0, 1336.0, 1477.0, 1633.0];
const PAD: [[char; 4]; 4] =
    [['1', '2', '3', 'A'], ['4', '5', '6', 'B'], ['7', '8', '9', 'C'], ['*', '0', '#', 'D']];

fn power(block: &[f32], frequency: f32) -> f32 {
    let coefficient = 2.0 * (TAU * frequency / RATE as f32).cos();
    let (mut one, mut two) = (0.0, 0.0);
    for sample in block {
        let next = sample + coefficient * one - two;
        two = one;
        one = next;
    }
    one * one + two * two - coefficient * one * two
}

impl KeyFinder {
    /// The key that has just been recognised, once for each press.
    pub fn feed(&mut self, samples: &[i16]) -> Option<char> {
        let mut found = None;
        for sample in samples {
            self.block.push(f32::from(*sample));
            if self.block.len() == BLOCK {
                let key = Self::key(&self.block);
                self.block.clear();
                // Two blocks alike are a key (40 ms at least), one block of something else is none.
                if key.is_some() && key == self.last && key != self.told {
                    self.told = key;
                    found = key;
                }
                if key.is_none() && self.last.is_none() {
                    self.told = None;
                }
                self.last = key;
            }
        }
        found
    }

    fn key(block: &[f32]) -> Option<char> {
        let energy: f32 = block.iter().map(|s| s * s).sum();
        // Below −36 dBm0 it is no key.
        if energy / (BLOCK as f32) < 300.0 * 300.0 {
            return None;
        }
        let strongest = |group: &[f32; 4]| {
            let powers = group.map(|f| power(block, f));
            let best = (0..4).max_by(|a, b| powers[*a].total_cmp(&powers[*b]))?;
            let second = (0..4).filter(|i| *i != best).map(|i| powers[i]).fold(0.0, f32::max);
            (powers[best] > 6.0 * second).then_some((best, powers[best]))
        };
        let ((low, p), (high, q)) = (strongest(&LOW)?, strongest(&HIGH)?);
        // Both tones are about as loud, and they are nearly all there is: speech is neither.
        let twist = (p / q).log10() * 10.0;
        let pure = (p + q) / (energy * BLOCK as f32 / 2.0);
        ((-8.0..=8.0).contains(&twist) && pure > 0.7).then(|| PAD[low][high])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pressed(key: char, seconds: f32) -> Vec<i16> {
        let at = |f: f32| sine(f, seconds, 0.25);
        let (row, column) = (0..4)
            .flat_map(|r| (0..4).map(move |c| (r, c)))
            .find(|(r, c)| PAD[*r][*c] == key)
            .expect("a key");
        at(LOW[row]).zip(at(HIGH[column])).map(|(a, b)| a + b).collect()
    }

    #[test]
    fn every_key_is_heard_once_for_each_press() {
        let mut finder = KeyFinder::default();
        let mut heard = String::new();
        for key in "0123456789*#ABCD11".chars() {
            let sound: Vec<i16> = pressed(key, 0.08).into_iter().chain(silence(0.08)).collect();
            heard.extend(sound.chunks(FRAME).filter_map(|c| finder.feed(c)));
        }
        assert_eq!(heard, "0123456789*#ABCD11");
    }

    #[test]
    fn speech_passes_the_gate_and_noise_does_not() {
        let mut gate = Gate::default();
        let frame = |volume: f32| sine(300.0, 0.02, volume).collect::<Vec<i16>>();
        assert!(!gate.passes(&frame(0.01), -30), "-43 dBFS");
        assert!(gate.passes(&frame(0.1), -30), "-23 dBFS");
        assert!((0..50).all(|_| gate.passes(&frame(0.0), -30)), "a pause");
        assert!(!gate.passes(&frame(0.0), -30), "silence");
    }

    #[test]
    fn music_and_tones_are_no_keys() {
        let mut finder = KeyFinder::default();
        assert!(music().chunks(FRAME).all(|c| finder.feed(c).is_none()));
        for t in [Tone::Ringback, Tone::Busy, Tone::Confirm, Tone::Error] {
            let mut sound = tone(t);
            assert!((0..200).all(|_| sound.frame().is_none_or(|f| finder.feed(&f).is_none())));
        }
    }

    #[test]
    fn a_sound_ends_or_begins_again() {
        let samples: Arc<[i16]> = vec![7; 200].into();
        let mut once = Sound::new(samples.clone(), false);
        assert_eq!(once.frame().map(|f| f[0]), Some(7));
        assert_eq!(once.frame().map(|f| (f[39], f[40])), Some((7, 0)));
        assert!(once.frame().is_none());
        let mut again = Sound::new(samples, true);
        assert!((0..10).all(|_| again.frame().is_some_and(|f| f.iter().all(|s| *s == 7))));
    }
}
