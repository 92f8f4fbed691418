//! Where somebody speaks: a stream cut into utterances at its pauses.

use earshot::Detector;

use crate::recogniser::RATE;

/// Samples the detector looks at together: 16 ms.
const FRAME: usize = 256;
/// How likely speech must be.
const SPEECH: f32 = 0.5;
/// Frames of silence before an utterance whose beginning was heard: longer than within a word (224 ms at most, measured with words
/// of festival's and espeak-ng's that were cut every 20 ms), and nobody answers a question so fast.
const QUIET: u32 = 16;

/// When an utterance begins and ends, in frames of 16 ms.
#[derive(Debug, Clone, Copy)]
pub struct Pauses {
    /// Speech for so long is no click.
    pub begins: u32,
    /// Silence for so long ends it.
    pub ends: u32,
    /// Longest utterance; it is cut then, at its quietest of late.
    pub longest: u32,
    /// What is kept before the first and behind the last frame of speech.
    pub around: u32,
}

impl Pauses {
    /// For a recording: words belong together over short pauses.
    pub const RECORDING: Self = Self { begins: 4, ends: 40, longest: 1500, around: 16 };
    /// For a dialogue: who has said something waits for an answer.
    pub const DIALOGUE: Self = Self { begins: 5, ends: 38, longest: 900, around: 16 };
}

/// Speech without its pauses.
#[derive(Debug, Clone, PartialEq)]
pub struct Utterance {
    /// Seconds from the beginning of the stream.
    pub start: f64,
    /// At [`RATE`].
    pub samples: Vec<f32>,
    /// Whether its beginning was heard. Somebody may have been speaking when the stream began, or for longer than an utterance may
    /// last: what is left of a name sounds like another.
    pub whole: bool,
}

/// One stream.
pub struct Cutter {
    detector: Detector,
    pauses: Pauses,
    waiting: Vec<f32>,
    /// What may yet belong to an utterance: before it begins, the last frames; then all of it.
    kept: Vec<f32>,
    /// Frames of the stream before what is kept.
    before: u64,
    frames: u64,
    speech: u32,
    silence: u32,
    speaking: bool,
    /// It was quiet before what comes now.
    whole: bool,
}

impl Cutter {
    pub fn new(pauses: Pauses) -> Self {
        Self {
            detector: Detector::default(),
            pauses,
            waiting: Vec::new(),
            kept: Vec::new(),
            before: 0,
            frames: 0,
            speech: 0,
            silence: 0,
            speaking: false,
            whole: false,
        }
    }

    /// Whether somebody is speaking now.
    pub fn speaking(&self) -> bool {
        self.speaking
    }

    /// Whether the beginning was heard of what somebody is saying now; see [`Utterance::whole`].
    pub fn whole(&self) -> bool {
        self.whole
    }

    /// Before this, seconds from the beginning, no utterance begins any more.
    pub fn begins(&self) -> f64 {
        self.before as f64 * FRAME as f64 / f64::from(RATE)
    }

    /// Takes samples; utterances that have ended.
    pub fn push(&mut self, samples: &[f32]) -> Vec<Utterance> {
        self.waiting.extend_from_slice(samples);
        let mut out = Vec::new();
        let mut at = 0;
        while self.waiting.len() - at >= FRAME {
            let frame: Vec<f32> = self.waiting[at..at + FRAME].to_vec();
            at += FRAME;
            out.extend(self.frame(&frame));
        }
        self.waiting.drain(..at);
        out
    }

    /// The stream has ended.
    pub fn finish(&mut self) -> Option<Utterance> {
        if !self.waiting.is_empty() {
            let mut frame = std::mem::take(&mut self.waiting);
            frame.resize(FRAME, 0.0);
            if let Some(last) = self.frame(&frame) {
                return Some(last);
            }
        }
        self.speaking.then(|| self.cut())
    }

    fn frame(&mut self, frame: &[f32]) -> Option<Utterance> {
        let clean: Vec<f32> =
            frame.iter().map(|s| if s.is_finite() { s.clamp(-1.0, 1.0) } else { 0.0 }).collect();
        let spoken = self.detector.predict_f32(&clean) >= SPEECH;
        self.frames += 1;
        self.kept.extend_from_slice(&clean);
        (self.speech, self.silence) = match spoken {
            true => (self.speech + 1, 0),
            // A frame or two of doubt do not begin the count anew.
            false => (self.speech.saturating_sub(1), self.silence + 1),
        };
        if !self.speaking {
            self.whole |= self.silence >= QUIET;
            if self.speech >= self.pauses.begins {
                self.speaking = true;
                self.silence = 0;
            } else {
                let keep = (self.pauses.around + self.pauses.begins + self.speech) as usize * FRAME;
                let over = self.kept.len().saturating_sub(keep) / FRAME * FRAME;
                self.kept.drain(..over);
                self.before += (over / FRAME) as u64;
            }
            return None;
        }
        let long = self.kept.len() / FRAME >= self.pauses.longest as usize;
        (self.silence >= self.pauses.ends || long).then(|| self.cut())
    }

    fn cut(&mut self) -> Utterance {
        let quiet = self.silence.saturating_sub(self.pauses.around) as usize * FRAME;
        let mut samples = std::mem::take(&mut self.kept);
        let start = self.before as f64 * FRAME as f64 / f64::from(RATE);
        self.before = self.frames;
        samples.truncate(samples.len().saturating_sub(quiet));
        let whole = std::mem::replace(&mut self.whole, self.silence >= QUIET);
        (self.speaking, self.speech, self.silence) = (false, 0, 0);
        Utterance { start, samples, whole }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    include!("../../../fixtures/speech/voice.rs");

    #[test]
    fn silence_has_no_utterances() {
        let mut cutter = Cutter::new(Pauses::RECORDING);
        assert!(cutter.push(&vec![0.0; 160_000]).is_empty());
        assert_eq!(cutter.finish(), None);
    }

    #[test]
    fn an_endless_sound_is_cut_and_keeps_all_its_samples() {
        let pauses = Pauses { longest: 100, ..Pauses::RECORDING };
        let mut cutter = Cutter::new(pauses);
        let sound = voice(6.0, RATE);
        let mut all = cutter.push(&sound);
        all.extend(cutter.finish());
        assert!(all.iter().all(|u| u.samples.len() <= 101 * FRAME));
        for pair in all.windows(2) {
            let end = pair[0].start + pair[0].samples.len() as f64 / f64::from(RATE);
            assert!(pair[1].start >= end - 0.02, "utterances do not overlap");
        }
    }

    #[test]
    fn only_what_comes_after_silence_is_whole() {
        // Longer than any silence within what is spoken here, so that only its length cuts it.
        let pauses = Pauses { ends: 60, longest: 100, ..Pauses::DIALOGUE };
        let heard = |before: f32| {
            let mut cutter = Cutter::new(pauses);
            let mut sound = vec![0.0; (before * RATE as f32) as usize];
            sound.extend(voice(2.4, RATE));
            sound.extend(vec![0.0; RATE as usize * 2]);
            sound.extend(voice(1.0, RATE));
            sound.extend(vec![0.0; RATE as usize * 2]);
            cutter.push(&sound).iter().map(|u| u.whole).collect::<Vec<_>>()
        };
        assert_eq!(heard(0.0), [false, false, true], "in the midst of it; cut; after a pause");
        assert_eq!(heard(0.1), [false, false, true]);
        assert_eq!(heard(0.5), [true, false, true]);
    }

    #[test]
    fn samples_that_are_no_numbers_do_no_harm() {
        let mut cutter = Cutter::new(Pauses::DIALOGUE);
        cutter.push(&[f32::NAN, f32::INFINITY, -5.0].repeat(1000));
        cutter.finish();
    }
}
