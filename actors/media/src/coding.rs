//! Codings that the node makes and understands itself: G.711, G.722 and Opus. Each at its own rate: 8000 samples a second for
//! G.711, 16,000 for the wide-band ones.

use audio_codec::{
    Decoder as _, Encoder as _,
    pcma::{PcmaDecoder, PcmaEncoder},
    pcmu::{PcmuDecoder, PcmuEncoder},
};

use crate::{
    g722,
    resample::{Doubler, Halver},
    sdp::Codec,
};

/// Samples a second of wide band; mixing happens there.
pub const WIDE: u32 = 16_000;
/// And of the telephone band.
pub const NARROW: u32 = 8000;
/// Longest Opus packet, samples at [`WIDE`] (RFC 6716, 3.2.5: 120 ms).
const LONGEST: usize = 1920;
/// Opus frames that we make, samples at [`WIDE`]: 20 ms.
const OPUS_FRAME: usize = 320;
/// Bits a second of Opus: with fewer than 24,000 there is no room for repairs of lost packets (in-band FEC).
const BITRATE: i32 = 24_000;
/// Losses that repairs are made for, percent.
const EXPECTED_LOSS: u8 = 10;

/// Samples with their rate, [`NARROW`] or [`WIDE`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pcm {
    pub rate: u32,
    pub samples: Vec<i16>,
}

/// Brings samples of one stream to a rate. Its filters go on from call to call.
#[derive(Debug, Clone, Default)]
pub struct Rates {
    doubler: Option<Box<Doubler>>,
    halver: Option<Box<Halver>>,
}

impl Rates {
    pub fn to(&mut self, rate: u32, pcm: &Pcm) -> Vec<i16> {
        match (pcm.rate, rate) {
            (NARROW, WIDE) => self.doubler.get_or_insert_default().feed(&pcm.samples),
            (WIDE, NARROW) => self.halver.get_or_insert_default().feed(&pcm.samples),
            _ => pcm.samples.clone(),
        }
    }
}

pub enum Decoder {
    Pcma(PcmaDecoder),
    Pcmu(PcmuDecoder),
    G722(Box<g722::Decoder>),
    Opus(opus::Decoder),
}

impl Decoder {
    /// None for a coding that is not ours.
    pub fn of(codec: &Codec) -> Option<Self> {
        match codec.name.to_ascii_uppercase().as_str() {
            "PCMA" => Some(Self::Pcma(PcmaDecoder::new())),
            "PCMU" => Some(Self::Pcmu(PcmuDecoder::new())),
            "G722" => Some(Self::G722(Box::new(g722::Decoder::new()))),
            "OPUS" => opus::Decoder::new(WIDE, opus::Channels::Mono).ok().map(Self::Opus),
            _ => None,
        }
    }

    pub fn rate(&self) -> u32 {
        match self {
            Self::Pcma(_) | Self::Pcmu(_) => NARROW,
            Self::G722(_) | Self::Opus(_) => WIDE,
        }
    }

    /// The samples of a packet; none where it cannot be read.
    pub fn decode(&mut self, payload: &[u8]) -> Pcm {
        let samples = match self {
            Self::Pcma(d) => d.decode(payload),
            Self::Pcmu(d) => d.decode(payload),
            Self::G722(d) => d.decode(payload),
            Self::Opus(_) if payload.is_empty() => Vec::new(),
            Self::Opus(d) => opus(d, payload, LONGEST, false),
        };
        Pcm { rate: self.rate(), samples }
    }

    /// A lost packet of so many samples, as the packet behind it repeats it; none where it does not.
    pub fn repaired(&mut self, next: &[u8], samples: usize) -> Option<Pcm> {
        let Self::Opus(d) = self else { return None };
        let repaired = opus(d, next, samples.clamp(OPUS_FRAME / 2, LONGEST), true);
        (!repaired.is_empty()).then_some(Pcm { rate: WIDE, samples: repaired })
    }
}

fn opus(decoder: &mut opus::Decoder, payload: &[u8], most: usize, repair: bool) -> Vec<i16> {
    let mut samples = vec![0; most];
    let count = decoder.decode(payload, &mut samples, repair).unwrap_or(0);
    samples.truncate(count);
    samples
}

pub enum Encoder {
    Pcma(PcmaEncoder),
    Pcmu(PcmuEncoder),
    G722(Box<g722::Encoder>),
    /// With samples that do not fill a frame yet.
    Opus(Box<opus::Encoder>, Vec<i16>),
}

impl Encoder {
    /// None for a coding that is not ours.
    pub fn of(codec: &Codec) -> Option<Self> {
        match codec.name.to_ascii_uppercase().as_str() {
            "PCMA" => Some(Self::Pcma(PcmaEncoder::new())),
            "PCMU" => Some(Self::Pcmu(PcmuEncoder::new())),
            "G722" => Some(Self::G722(Box::new(g722::Encoder::new()))),
            "OPUS" => {
                let mut made =
                    opus::Encoder::new(WIDE, opus::Channels::Mono, opus::Application::Voip).ok()?;
                made.set_bitrate(opus::Bitrate::Bits(BITRATE)).ok()?;
                made.set_inband_fec(true).ok()?;
                made.set_packet_loss_perc(EXPECTED_LOSS.into()).ok()?;
                Some(Self::Opus(Box::new(made), Vec::new()))
            }
            _ => None,
        }
    }

    pub fn rate(&self) -> u32 {
        match self {
            Self::Pcma(_) | Self::Pcmu(_) => NARROW,
            Self::G722(_) | Self::Opus(..) => WIDE,
        }
    }

    /// Whether packets have a length of their own making rather than that of the samples given.
    pub fn frames(&self) -> bool {
        matches!(self, Self::Opus(..))
    }

    /// Payloads of these samples, at [`Encoder::rate`]: one, or of a coding that [`Encoder::frames`] as many as are full.
    pub fn encode(&mut self, samples: &[i16]) -> Vec<Vec<u8>> {
        match self {
            Self::Pcma(e) => vec![e.encode(samples)],
            Self::Pcmu(e) => vec![e.encode(samples)],
            Self::G722(e) => vec![e.encode(samples)],
            Self::Opus(e, waiting) => {
                waiting.extend_from_slice(samples);
                let full = waiting.len() / OPUS_FRAME * OPUS_FRAME;
                let payloads = waiting[..full]
                    .chunks_exact(OPUS_FRAME)
                    .filter_map(|frame| e.encode_vec(frame, 1275).ok())
                    .collect();
                waiting.drain(..full);
                payloads
            }
        }
    }

    /// Forgets samples that wait for a full frame: what follows is of another time.
    pub fn restart(&mut self) {
        if let Self::Opus(_, waiting) = self {
            waiting.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use sha2::{Digest, Sha256};

    use super::*;
    use crate::sdp;

    fn wave(rate: u32, frequency: f32, seconds: f32) -> Vec<i16> {
        let count = (rate as f32 * seconds) as usize;
        let sample = |n: usize| (n as f32 * frequency * std::f32::consts::TAU / rate as f32).sin() * 8000.0;
        (0..count).map(|n| sample(n) as i16).collect()
    }

    /// Share of the power that is at a frequency.
    fn share(samples: &[i16], rate: u32, frequency: f32) -> f32 {
        let (mut re, mut im, mut all) = (0.0f64, 0.0f64, 0.0f64);
        for (n, s) in samples.iter().enumerate() {
            let (w, s) =
                (std::f64::consts::TAU * f64::from(frequency) * n as f64 / f64::from(rate), f64::from(*s));
            re += s * w.cos();
            im += s * w.sin();
            all += s * s;
        }
        (2.0 * (re * re + im * im) / samples.len() as f64 / all) as f32
    }

    #[test]
    fn every_coding_of_ours_carries_a_tone_and_wide_band_carries_wide_ones() {
        for codec in sdp::own() {
            let (mut encoder, mut decoder) =
                (Encoder::of(&codec).expect("ours"), Decoder::of(&codec).expect("ours"));
            assert_eq!(encoder.rate(), decoder.rate());
            let rate = encoder.rate();
            let frequencies: &[f32] = if rate == WIDE { &[400.0, 1000.0, 6000.0] } else { &[400.0, 1000.0] };
            for frequency in frequencies {
                let samples = wave(rate, *frequency, 1.0);
                let mut heard = Vec::new();
                for frame in samples.chunks(rate as usize / 50) {
                    for payload in encoder.encode(frame) {
                        heard.extend(decoder.decode(&payload).samples);
                    }
                }
                assert!(heard.len() + 2 * OPUS_FRAME >= samples.len(), "{}: {}", codec.name, heard.len());
                let settled = &heard[heard.len() / 4..];
                let share = share(settled, rate, *frequency);
                assert!(share > 0.95, "{} at {frequency} Hz: {share}", codec.name);
            }
        }
    }

    #[test]
    fn g_711_is_that_of_the_recommendation() {
        // ITU-T G.711, tables 1a and 2a: character signals of decision values, as 16-bit samples.
        let a = Codec { name: "PCMA".into(), ..sdp::own()[0].clone() };
        let u = Codec { name: "PCMU".into(), ..sdp::own()[0].clone() };
        let code = |codec: &Codec, sample: i16| Encoder::of(codec).expect("ours").encode(&[sample])[0][0];
        assert_eq!([code(&a, 0), code(&a, 32_767), code(&a, -32_768)], [0xd5, 0xaa, 0x2a]);
        assert_eq!([code(&u, 0), code(&u, 32_767), code(&u, -32_768)], [0xff, 0x80, 0x00]);
        let all: Vec<u8> = (0..=255).collect();
        for codec in [a, u] {
            let decoded = Decoder::of(&codec).expect("ours").decode(&all).samples;
            let again = Encoder::of(&codec).expect("ours").encode(&decoded);
            let same = all.iter().zip(&again[0]).filter(|(x, y)| x == y).count();
            // Both zeros of µ-law are one sample.
            assert!(same >= 255, "{}: {same}", codec.name);
        }
    }

    #[test]
    fn lost_opus_packets_are_repaired_by_the_next() {
        let codec = sdp::own()[3].clone();
        let (mut encoder, mut decoder) =
            (Encoder::of(&codec).expect("ours"), Decoder::of(&codec).expect("ours"));
        let samples = wave(WIDE, 300.0, 1.0);
        let payloads = encoder.encode(&samples);
        for payload in &payloads[..20] {
            decoder.decode(payload);
        }
        let repaired = decoder.repaired(&payloads[21], OPUS_FRAME).expect("a repair");
        assert_eq!(repaired.samples.len(), OPUS_FRAME);
        let loud = repaired.samples.iter().map(|s| i32::from(*s).abs()).max().unwrap_or(0);
        assert!(loud > 3000, "{loud}");
        assert!(Decoder::of(&sdp::own()[0]).expect("ours").repaired(&[0; 160], 160).is_none());
    }

    #[test]
    fn whatever_a_packet_holds_it_is_read_or_nothing() {
        let noise: Vec<u8> = (0u8..64).flat_map(|n| Sha256::digest([n]).to_vec()).collect();
        for codec in sdp::own() {
            let mut decoder = Decoder::of(&codec).expect("ours");
            for length in 0..noise.len() {
                assert!(decoder.decode(&noise[..length]).samples.len() <= 2 * length + LONGEST);
            }
        }
    }
}
