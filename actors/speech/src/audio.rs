//! Sound from files: WAV of any rate and width, G.711 inside WAV too, or bare PCM; read as it comes, never whole.

use std::io::{self, Read};

use rubato::{
    Fft, FixedSync, Resampler, audioadapter::Adapter, audioadapter_buffers::direct::SequentialSliceOfVecs,
};
use symphonia::core::{
    codecs::audio::{AudioDecoder, AudioDecoderOptions},
    errors::Error as Symphonia,
    formats::{FormatOptions, FormatReader, TrackType, probe::Hint},
    io::{MediaSourceStream, ReadOnlySource},
    meta::MetadataOptions,
};

/// Channels that are looked at: of two parties, or of a conference recorded apart.
pub const CHANNELS: usize = 8;
const RATES: std::ops::RangeInclusive<u32> = 4_000..=192_000;
/// Frames that the resampler takes at a time.
const CHUNK: usize = 1024;

#[derive(Debug, thiserror::Error)]
pub enum AudioError {
    #[error("no WAV file: {0}")]
    Format(String),
    #[error("the file is cut off")]
    Truncated,
    #[error("{0} channels: 1 to {CHANNELS} are taken")]
    Channels(usize),
    #[error("{0} samples a second: {low} to {high} are taken", low = RATES.start(), high = RATES.end())]
    Rate(u32),
    #[error("{0}")]
    Io(#[from] io::Error),
}

fn symphonia(e: Symphonia) -> AudioError {
    match e {
        Symphonia::IoError(e) if e.kind() == io::ErrorKind::UnexpectedEof => AudioError::Truncated,
        Symphonia::IoError(e) => AudioError::Io(e),
        other => AudioError::Format(other.to_string()),
    }
}

/// A file being read.
pub struct Reader {
    format: Box<dyn FormatReader>,
    decoder: Box<dyn AudioDecoder>,
    track: u32,
    pub rate: u32,
    pub channels: usize,
    /// Frames that the header promises; none where it was written before they were known.
    pub frames: Option<u64>,
    seen: u64,
}

impl Reader {
    pub fn open(source: impl Read + Send + Sync + 'static) -> Result<Self, AudioError> {
        let stream = MediaSourceStream::new(Box::new(ReadOnlySource::new(source)), Default::default());
        let mut hint = Hint::new();
        hint.with_extension("wav");
        let format = symphonia::default::get_probe()
            .probe(&hint, stream, FormatOptions::default(), MetadataOptions::default())
            .map_err(symphonia)?;
        let track = format.default_track(TrackType::Audio);
        let track = track.ok_or_else(|| AudioError::Format("no sound in it".into()))?;
        let params = track.codec_params.as_ref().and_then(|p| p.audio());
        let params = params.ok_or_else(|| AudioError::Format("an unknown coding".into()))?;
        let rate = params.sample_rate.unwrap_or_default();
        if !RATES.contains(&rate) {
            return Err(AudioError::Rate(rate));
        }
        let channels = params.channels.as_ref().map_or(0, |c| c.count());
        if !(1..=CHANNELS).contains(&channels) {
            return Err(AudioError::Channels(channels));
        }
        let decoder = symphonia::default::get_codecs()
            .make_audio_decoder(params, &AudioDecoderOptions::default())
            .map_err(symphonia)?;
        // A header written before the end was known says 0, or as much as it can.
        let frames = track.num_frames.filter(|n| (1..u64::from(u32::MAX) / 8).contains(n));
        let track = track.id;
        Ok(Self { format, decoder, track, rate, channels, frames, seen: 0 })
    }

    /// The next samples, a vector for each channel; none at the end.
    pub fn read(&mut self) -> Result<Option<Vec<Vec<f32>>>, AudioError> {
        loop {
            let packet = match self.format.next_packet() {
                Ok(Some(packet)) => packet,
                Ok(None) => return self.ended(),
                Err(Symphonia::IoError(e)) if e.kind() == io::ErrorKind::UnexpectedEof => {
                    return self.ended();
                }
                Err(e) => return Err(symphonia(e)),
            };
            if packet.track_id != self.track {
                continue;
            }
            let decoded = self.decoder.decode(&packet).map_err(symphonia)?;
            let mut interleaved: Vec<f32> = Vec::new();
            decoded.copy_to_vec_interleaved(&mut interleaved);
            self.seen += (interleaved.len() / self.channels) as u64;
            let channel = |c: usize| interleaved.iter().skip(c).step_by(self.channels).copied().collect();
            return Ok(Some((0..self.channels).map(channel).collect()));
        }
    }

    fn ended(&self) -> Result<Option<Vec<Vec<f32>>>, AudioError> {
        match self.frames {
            Some(promised) if self.seen < promised => Err(AudioError::Truncated),
            _ => Ok(None),
        }
    }
}

/// Brings one channel to another rate, piece by piece.
pub struct Rate {
    resampler: Option<Fft<f32>>,
    waiting: Vec<f32>,
    /// Samples at the beginning that are the resampler's own delay.
    delay: usize,
    given: u64,
    taken: u64,
    ratio: f64,
}

impl Rate {
    pub fn new(from: u32, to: u32) -> Result<Self, AudioError> {
        let resampler = match from == to {
            true => None,
            false => {
                let made = Fft::new(from as usize, to as usize, CHUNK, 1, FixedSync::Input);
                Some(made.map_err(|e| AudioError::Format(e.to_string()))?)
            }
        };
        let delay = resampler.as_ref().map_or(0, Resampler::output_delay);
        let ratio = f64::from(to) / f64::from(from);
        Ok(Self { resampler, waiting: Vec::new(), delay, given: 0, taken: 0, ratio })
    }

    fn step(&mut self, input: Vec<f32>) -> Result<Vec<f32>, AudioError> {
        let Some(resampler) = self.resampler.as_mut() else { return Ok(input) };
        let length = input.len();
        let both = [input];
        let bad = |e: &dyn std::fmt::Display| AudioError::Format(e.to_string());
        let adapter = SequentialSliceOfVecs::new(&both, 1, length).map_err(|e| bad(&e))?;
        let out = resampler.process(&adapter as &dyn Adapter<f32>, None).map_err(|e| bad(&e))?;
        let mut out = out.take_data();
        let late = self.delay.min(out.len());
        out.drain(..late);
        self.delay -= late;
        Ok(out)
    }

    pub fn push(&mut self, samples: &[f32]) -> Result<Vec<f32>, AudioError> {
        if self.resampler.is_none() {
            return Ok(samples.to_vec());
        }
        self.taken += samples.len() as u64;
        self.waiting.extend_from_slice(samples);
        let mut out = Vec::new();
        while let Some(wanted) = self.resampler.as_ref().map(Resampler::input_frames_next)
            && self.waiting.len() >= wanted
        {
            let chunk: Vec<f32> = self.waiting.drain(..wanted).collect();
            out.extend(self.step(chunk)?);
        }
        self.given += out.len() as u64;
        Ok(out)
    }

    /// What is still in it.
    pub fn finish(&mut self) -> Result<Vec<f32>, AudioError> {
        let mut out = Vec::new();
        let wanted = (self.taken as f64 * self.ratio).round() as u64;
        while self.resampler.is_some() && self.given + (out.len() as u64) < wanted {
            let next = self.resampler.as_ref().map_or(0, Resampler::input_frames_next);
            let mut chunk: Vec<f32> = std::mem::take(&mut self.waiting);
            chunk.resize(next, 0.0);
            out.extend(self.step(chunk)?);
        }
        out.truncate(wanted.saturating_sub(self.given) as usize);
        Ok(out)
    }
}

/// Samples between -1 and 1 as 16 bits.
pub fn to_i16(samples: &[f32]) -> Vec<i16> {
    // Louder ones saturate.
    samples.iter().map(|s| (s * 32_768.0).round() as i16).collect()
}

/// Samples of 16 bits between -1 and 1.
pub fn to_f32(samples: &[i16]) -> Vec<f32> {
    samples.iter().map(|s| f32::from(*s) / 32_768.0).collect()
}

/// A whole utterance as calls hear it, 8000 Hz, as recognisers take it.
pub fn wide(samples: &[i16]) -> Result<Vec<f32>, AudioError> {
    let mut rate = Rate::new(8000, crate::recogniser::RATE)?;
    let mut out = rate.push(&to_f32(samples))?;
    out.extend(rate.finish()?);
    Ok(out)
}

/// Writes a WAV file of 8000 Hz, 16 bits, one channel, as calls hear it.
pub fn write(path: &std::path::Path, samples: &[i16]) -> Result<(), hound::Error> {
    let spec = hound::WavSpec {
        channels: 1,
        sample_rate: 8000,
        bits_per_sample: 16,
        sample_format: hound::SampleFormat::Int,
    };
    let mut writer = hound::WavWriter::create(path, spec)?;
    for sample in samples {
        writer.write_sample(*sample)?;
    }
    writer.finalize()
}

/// One channel of a whole file at a rate; for short files.
pub fn mono(
    source: impl Read + Send + Sync + 'static,
    to: u32,
    longest: u32,
) -> Result<Vec<i16>, AudioError> {
    let mut reader = Reader::open(source)?;
    let mut rate = Rate::new(reader.rate, to)?;
    let mut out = Vec::new();
    while let Some(mut channels) = reader.read()? {
        out.extend(to_i16(&rate.push(&channels.swap_remove(0))?));
        if out.len() > (to * longest) as usize {
            return Err(AudioError::Format(format!("longer than {longest} s")));
        }
    }
    out.extend(to_i16(&rate.finish()?));
    Ok(out)
}

#[cfg(test)]
mod tests {
    use std::{f32::consts::TAU, io::Cursor};

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn samples_of_16_bits_survive_there_and_back() {
        let all: Vec<i16> = (i16::MIN..=i16::MAX).collect();
        assert_eq!(to_i16(&to_f32(&all)), all);
        assert_eq!(to_i16(&[2.0, -2.0, f32::NAN, 0.4 / 32_768.0]), [i16::MAX, i16::MIN, 0, 0]);
    }

    fn wav(rate: u32, channels: u16, bits: u16, seconds: f32) -> Vec<u8> {
        let mut out = Cursor::new(Vec::new());
        let spec = hound::WavSpec {
            channels,
            sample_rate: rate,
            bits_per_sample: bits,
            sample_format: hound::SampleFormat::Int,
        };
        let mut writer = hound::WavWriter::new(&mut out, spec).expect("a header");
        for n in 0..(rate as f32 * seconds) as usize {
            for c in 0..channels {
                let value = (TAU * 300.0 * n as f32 / rate as f32).sin() * 0.5 * f32::from(c == 0);
                writer.write_sample((value * ((1_i64 << (bits - 1)) - 1) as f32) as i32).expect("written");
            }
        }
        writer.finalize().expect("finished");
        out.into_inner()
    }

    /// Periods of the tone that are in these samples.
    fn crossings(samples: &[i16]) -> usize {
        samples.windows(2).filter(|w| w[0] < 0 && w[1] >= 0).count()
    }

    #[test]
    fn every_rate_and_width_sounds_the_same() {
        for (rate, bits) in [(8000, 8), (8000, 16), (11_025, 16), (16_000, 24), (44_100, 16), (48_000, 32)] {
            let samples = mono(Cursor::new(wav(rate, 2, bits, 1.0)), 8000, 10).expect("read");
            assert!(samples.len().abs_diff(8000) <= 2, "{rate} {bits}: {}", samples.len());
            assert!(crossings(&samples).abs_diff(300) <= 2, "{rate} {bits}: {}", crossings(&samples));
            assert!(samples.iter().any(|s| *s > 12_000), "{rate} {bits}");
        }
    }

    #[test]
    fn g711_inside_wav_is_read() {
        let mut file = b"RIFF\0\0\0\0WAVEfmt \x12\0\0\0\x06\0\x01\0".to_vec();
        file.extend([8000_u32.to_le_bytes(), 8000_u32.to_le_bytes()].concat());
        file.extend([1, 0, 8, 0, 0, 0]);
        file.extend(b"data");
        file.extend(800_u32.to_le_bytes());
        file.extend([0xd5_u8 ^ 0x80; 800]);
        let length = (file.len() as u32 - 8).to_le_bytes();
        file[4..8].copy_from_slice(&length);
        assert_eq!(mono(Cursor::new(file), 8000, 10).expect("read").len(), 800);
    }

    #[test]
    fn what_is_cut_off_or_no_sound_is_an_error() {
        let whole = wav(8000, 1, 16, 1.0);
        let cut = whole[..whole.len() / 2].to_vec();
        assert!(matches!(mono(Cursor::new(cut), 8000, 10), Err(AudioError::Truncated)));
        for bad in [&b""[..], b"RIFF", b"not a wav file at all, is it", &whole[..30]] {
            assert!(mono(Cursor::new(bad.to_vec()), 8000, 10).is_err());
        }
        assert!(mono(Cursor::new(whole), 8000, 0).is_err(), "too long");
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200), cut in 0_usize..100) {
            prop_assert!(mono(Cursor::new(bytes.clone()), 8000, 10).is_ok_and(|s| s.len() <= 80_000) || !bytes.starts_with(b"RIFF"));
            let mut header = wav(8000, 1, 16, 0.01);
            let at = cut.min(header.len());
            header.splice(at..at, bytes);
            if let Ok(samples) = mono(Cursor::new(header), 8000, 10) {
                prop_assert!(samples.len() <= 80_000, "ten seconds at most");
            }
        }
    }
}
