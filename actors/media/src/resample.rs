//! Between 8000 and 16,000 samples a second: a half-band filter, half of whose taps are zero.

use std::f32::consts::PI;

/// Taps of the filter that are not zero, on one side of its centre: with them 3.4 kHz passes, and 4.7 kHz is 45 dB lower.
const SIDE: usize = 16;
/// Samples at the higher rate that the filter sees at once.
const TAPS: usize = 4 * SIDE - 1;

/// Odd taps right of the centre: a windowed sinc (Blackman).
fn side() -> [f32; SIDE] {
    std::array::from_fn(|i| {
        let n = (2 * i + 1) as f32;
        let reach = (2 * SIDE) as f32;
        let window = 0.42 + 0.5 * (PI * n / reach).cos() + 0.08 * (2.0 * PI * n / reach).cos();
        (PI * n / 2.0).sin() / (PI * n) * window
    })
}

fn clamped(value: f32) -> i16 {
    value.round().clamp(f32::from(i16::MIN), f32::from(i16::MAX)) as i16
}

/// From 16,000 to 8000 samples a second.
#[derive(Debug, Clone)]
pub struct Halver {
    side: [f32; SIDE],
    /// The newest samples, and one that has no partner yet.
    past: Vec<f32>,
}

impl Default for Halver {
    fn default() -> Self {
        Self { side: side(), past: vec![0.0; TAPS - 1] }
    }
}

impl Halver {
    /// Half as many samples; an odd one waits for the next call.
    pub fn feed(&mut self, samples: &[i16]) -> Vec<i16> {
        self.past.extend(samples.iter().map(|s| f32::from(*s)));
        let mut out = Vec::with_capacity(samples.len() / 2 + 1);
        let mut at = 0;
        while at + TAPS < self.past.len() {
            let centre = at + TAPS / 2;
            let mut sum = 0.5 * self.past[centre];
            for (i, tap) in self.side.iter().enumerate() {
                let n = 2 * i + 1;
                sum += tap * (self.past[centre - n] + self.past[centre + n]);
            }
            out.push(clamped(sum));
            at += 2;
        }
        self.past.drain(..at);
        out
    }
}

/// From 8000 to 16,000 samples a second.
#[derive(Debug, Clone)]
pub struct Doubler {
    side: [f32; SIDE],
    past: Vec<f32>,
}

impl Default for Doubler {
    fn default() -> Self {
        Self { side: side(), past: vec![0.0; 2 * SIDE - 1] }
    }
}

impl Doubler {
    /// Twice as many samples.
    pub fn feed(&mut self, samples: &[i16]) -> Vec<i16> {
        self.past.extend(samples.iter().map(|s| f32::from(*s)));
        let mut out = Vec::with_capacity(2 * samples.len());
        for at in 0..samples.len() {
            // One sample as it is, then the one between it and the next.
            let left = at + SIDE - 1;
            out.push(clamped(self.past[left]));
            let mut sum = 0.0;
            for (i, tap) in self.side.iter().enumerate() {
                sum += tap * (self.past[left - i] + self.past[left + 1 + i]);
            }
            out.push(clamped(2.0 * sum));
        }
        self.past.drain(..samples.len());
        out
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn tone(rate: f32, frequency: f32, count: usize) -> Vec<i16> {
        (0..count).map(|n| ((2.0 * PI * frequency * n as f32 / rate).sin() * 10_000.0) as i16).collect()
    }

    /// Level against a tone of the same height, dB, without the filter's beginning.
    fn level(samples: &[i16]) -> f32 {
        let settled = &samples[200..];
        let power: f32 = settled.iter().map(|s| f32::from(*s) * f32::from(*s)).sum();
        10.0 * (power / settled.len() as f32 / 5e7).log10()
    }

    #[test]
    fn the_telephone_band_passes_and_what_would_fold_into_it_does_not() {
        for frequency in [300.0, 1000.0, 3400.0] {
            let halved = level(&Halver::default().feed(&tone(16_000.0, frequency, 3200)));
            let doubled = level(&Doubler::default().feed(&tone(8000.0, frequency, 1600)));
            assert!(halved.abs() < 0.5 && doubled.abs() < 0.5, "{frequency} Hz: {halved} and {doubled} dB");
        }
        for frequency in [4700.0, 6000.0, 7500.0] {
            let folded = level(&Halver::default().feed(&tone(16_000.0, frequency, 3200)));
            assert!(folded < -45.0, "{frequency} Hz is at {folded} dB");
        }
        // The image of 1 kHz that doubling leaves at 7 kHz.
        let doubled = Doubler::default().feed(&tone(8000.0, 1000.0, 1600));
        let (mut re, mut im) = (0.0f32, 0.0f32);
        for (n, s) in doubled[200..].iter().enumerate() {
            let w = 2.0 * PI * 7000.0 * n as f32 / 16_000.0;
            re += f32::from(*s) * w.cos();
            im += f32::from(*s) * w.sin();
        }
        let image = (re * re + im * im).sqrt() / (doubled.len() - 200) as f32 * 2.0;
        assert!(image < 10_000.0 * 0.004, "{image}");
    }

    proptest! {
        #[test]
        fn however_it_is_cut_the_same_comes(cuts in prop::collection::vec(1usize..90, 1..12)) {
            let all = tone(16_000.0, 700.0, cuts.iter().sum());
            let (mut halver, mut doubler) = (Halver::default(), Doubler::default());
            let (mut halved, mut doubled, mut at) = (Vec::new(), Vec::new(), 0);
            for cut in cuts {
                halved.extend(halver.feed(&all[at..at + cut]));
                doubled.extend(doubler.feed(&all[at..at + cut]));
                at += cut;
            }
            prop_assert_eq!(halved, Halver::default().feed(&all));
            prop_assert_eq!(&doubled, &Doubler::default().feed(&all));
            prop_assert_eq!(doubled.len(), 2 * all.len());
        }
    }
}
