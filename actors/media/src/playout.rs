//! Playing out what a party says, for those who hear it mixed or taped: packets are put in order, wait as long as the network
//! asks for, and where one is lost its sound goes on for a while.
//!
//! Without clock or socket: packets come with their time, and a frame is asked for every 20 ms.

use std::collections::BTreeMap;

use crate::{
    coding::{Decoder, Pcm, Rates, WIDE},
    sdp::Codec,
};

/// Samples of 20 ms at [`WIDE`].
pub const FRAME: usize = (WIDE / 50) as usize;
/// Least and most that packets wait before they are played, milliseconds.
const LEAST: f64 = 20.0;
const MOST: f64 = 200.0;
/// Packets kept at most: one a thousandth of a second for [`MOST`], and some.
const WAITING: usize = 256;
/// Arrivals whose delays tell what the network does: about five seconds.
const LOOKED_AT: usize = 250;
/// Milliseconds that a lost sound goes on before it is silence.
const FADED: f64 = 60.0;
/// More waiting than wanted, milliseconds, before some of it is left out.
const SLACK: f64 = 40.0;

/// One packet that waits.
#[derive(Debug)]
struct Waiting {
    payload: Vec<u8>,
    payload_type: u8,
    /// Milliseconds since the stream began, by its timestamp.
    at: f64,
}

/// See the module.
#[derive(Default)]
pub struct Playout {
    /// By extended sequence number.
    waiting: BTreeMap<u32, Waiting>,
    decoder: Option<(u8, Decoder)>,
    rates: Rates,
    /// The packet that was played last, and its length in samples at [`WIDE`].
    played: Option<u32>,
    length: usize,
    /// Decoded and not played yet.
    ready: Vec<i16>,
    /// Between two spells of talk nothing is played; the first packet of one waits its time.
    playing: bool,
    /// Frames made since packets began to wait for this spell.
    waited: f64,
    /// Delays of the last arrivals against their timestamps, milliseconds.
    delays: Vec<f64>,
    next_delay: usize,
    wanted: Option<f64>,
    conceal: Concealment,
    /// Frames that had to be made up, of all.
    pub concealed: u64,
    pub frames: u64,
}

impl Playout {
    /// Takes a packet. `at` is its timestamp and `arrived` its time, both in milliseconds of the stream.
    pub fn insert(&mut self, number: u32, payload_type: u8, payload: &[u8], at: f64, arrived: f64) {
        let delay = arrived - at;
        if self.delays.len() < LOOKED_AT {
            self.delays.push(delay);
        } else {
            self.delays[self.next_delay] = delay;
        }
        self.next_delay = (self.next_delay + 1) % LOOKED_AT;
        if self.next_delay.is_multiple_of(8) || self.delays.len() < 8 {
            self.wanted = self.measured();
        }
        // Too late: its time has been made up.
        if self.playing && self.played.is_some_and(|p| number.wrapping_sub(p) as i32 <= 0) {
            return;
        }
        if self.waiting.len() >= WAITING {
            self.waiting.pop_first();
        }
        self.waiting.insert(number, Waiting { payload: payload.to_vec(), payload_type, at });
    }

    /// Begins anew: the peer's stream is another.
    pub fn restart(&mut self) {
        let (concealed, frames) = (self.concealed, self.frames);
        *self = Self { concealed, frames, ..Self::default() };
    }

    /// How long packets shall wait, milliseconds: as long as the latest of 97 in 100 was late, and a packet more.
    pub fn wanted(&self) -> f64 {
        self.wanted.unwrap_or(3.0 * LEAST)
    }

    fn measured(&self) -> Option<f64> {
        if self.delays.len() < 5 {
            return None;
        }
        let mut sorted = self.delays.clone();
        sorted.sort_by(f64::total_cmp);
        let late = sorted[(sorted.len() - 1) * 97 / 100] - sorted[0];
        Some((late + LEAST).clamp(LEAST, MOST))
    }

    /// Sound that waits, milliseconds.
    fn depth(&self) -> f64 {
        let ready = self.ready.len() as f64 * 1000.0 / f64::from(WIDE);
        match (self.waiting.first_key_value(), self.waiting.last_key_value()) {
            (Some((_, first)), Some((_, last))) => ready + last.at - first.at + 20.0,
            _ => ready,
        }
    }

    /// The next 20 ms. `codecs` are what the peer may send.
    pub fn frame(&mut self, codecs: &[Codec]) -> [i16; FRAME] {
        if !self.playing {
            if self.waiting.is_empty() {
                self.waited = 0.0;
                return [0; FRAME];
            }
            self.waited += 20.0;
            let wanted = self.wanted();
            if self.waited <= wanted && self.depth() < wanted {
                return [0; FRAME];
            }
            (self.playing, self.played) = (true, None);
        }
        self.frames += 1;
        while self.ready.len() < FRAME {
            if !self.decode_next(codecs) {
                break;
            }
        }
        // Too much waits: the quietest moment to leave some out is a quiet frame.
        if self.ready.len() >= FRAME && self.depth() > self.wanted() + SLACK + 20.0 {
            let loud = self.depth() < 2.0 * self.wanted() + 2.0 * SLACK && !quiet(&self.ready[..FRAME]);
            if !loud {
                self.ready.drain(..FRAME);
                while self.ready.len() < FRAME && self.decode_next(codecs) {}
            }
        }
        if self.ready.len() >= FRAME {
            let mut frame = [0; FRAME];
            frame.copy_from_slice(&self.ready[..FRAME]);
            self.ready.drain(..FRAME);
            return frame;
        }
        // Nothing to play in time: the sound goes on for a while.
        let had = std::mem::take(&mut self.ready);
        self.concealed += 1;
        let frame = self.conceal.lost(&had);
        if self.conceal.gone_ms() >= FADED && self.waiting.is_empty() {
            (self.playing, self.waited) = (false, 0.0);
        }
        frame
    }

    /// Makes the next packet ready. Whether there was one whose time has come.
    fn decode_next(&mut self, codecs: &[Codec]) -> bool {
        let Some((&number, _)) = self.waiting.first_key_value() else { return false };
        let missing = self.played.map_or(0, |p| number.wrapping_sub(p).saturating_sub(1));
        // One is missing and may come yet, while enough waits behind it.
        if missing > 0 && missing < 10 && self.length > 0 {
            let repaired = (missing == 1).then(|| {
                let next = self.waiting.first_key_value()?.1;
                let length = self.length;
                let (pt, decoder) = self.decoder.as_mut()?;
                (*pt == next.payload_type).then(|| decoder.repaired(&next.payload, length)).flatten()
            });
            self.played = self.played.map(|p| p.wrapping_add(1));
            match repaired.flatten() {
                Some(pcm) => {
                    let samples = self.rates.to(WIDE, &pcm);
                    self.ready.extend(samples);
                }
                None => {
                    self.concealed += 1;
                    let length = self.length.min(4 * FRAME);
                    let made = self.conceal.extend(length);
                    self.ready.extend(made);
                }
            }
            return true;
        }
        let Some((number, packet)) = self.waiting.pop_first() else { return false };
        self.played = Some(number);
        if self.decoder.as_ref().is_none_or(|(pt, _)| *pt != packet.payload_type) {
            let codec = codecs.iter().find(|c| c.payload == packet.payload_type);
            match codec.and_then(Decoder::of) {
                Some(decoder) => self.decoder = Some((packet.payload_type, decoder)),
                None => return true,
            }
        }
        let Some((_, decoder)) = self.decoder.as_mut() else { return true };
        let pcm: Pcm = decoder.decode(&packet.payload);
        let mut samples = self.rates.to(WIDE, &pcm);
        self.length = samples.len();
        self.conceal.join(&mut samples);
        self.conceal.learn(&samples);
        self.ready.extend(samples);
        true
    }
}

fn quiet(samples: &[i16]) -> bool {
    let power: f64 = samples.iter().map(|s| f64::from(*s) * f64::from(*s)).sum();
    // −40 dBFS
    power / (samples.len().max(1) as f64) < 328.0 * 328.0
}

/// Samples kept to find a pitch in: 50 ms.
const HISTORY: usize = 800;
/// Pitches looked for, samples at [`WIDE`]: 66 to 400 Hz, as ITU-T G.711 Appendix I has them.
const SHORTEST: usize = 40;
const LONGEST_PITCH: usize = 240;
/// Samples over which what was made up goes over into what is heard again: 5 ms.
const OVERLAP: usize = 80;

/// Goes on with a sound whose packets are lost, after the idea of ITU-T G.711 Appendix I: the last period of its pitch is
/// repeated, quieter every 10 ms after the first, and gone after 60 ms.
#[derive(Debug, Default)]
struct Concealment {
    /// The samples decoded last.
    history: Vec<i16>,
    /// Samples made up since.
    gone: usize,
    period: Vec<i16>,
}

impl Concealment {
    /// Keeps what was heard.
    fn learn(&mut self, samples: &[i16]) {
        self.history.extend_from_slice(samples);
        let over = self.history.len().saturating_sub(HISTORY);
        self.history.drain(..over);
    }

    fn gone_ms(&self) -> f64 {
        self.gone as f64 * 1000.0 / f64::from(WIDE)
    }

    /// Speech that follows concealment is faded in.
    fn join(&mut self, samples: &mut [i16]) {
        if self.gone > 0 {
            let made = self.go_on(OVERLAP);
            for (n, (sample, made)) in samples.iter_mut().zip(made).enumerate() {
                let share = n as f32 / OVERLAP as f32;
                *sample = (f32::from(*sample) * share + f32::from(made) * (1.0 - share)) as i16;
            }
            (self.gone, self.period) = (0, Vec::new());
        }
    }

    /// A frame of which only the beginning was there.
    fn lost(&mut self, had: &[i16]) -> [i16; FRAME] {
        let mut frame = [0; FRAME];
        let made = self.go_on(FRAME - had.len().min(FRAME));
        for (sample, from) in frame.iter_mut().zip(had.iter().chain(&made)) {
            *sample = *from;
        }
        frame
    }

    /// Samples in the place of a packet that is missing between two others.
    fn extend(&mut self, count: usize) -> Vec<i16> {
        self.go_on(count)
    }

    /// The next made-up samples.
    fn go_on(&mut self, count: usize) -> Vec<i16> {
        if self.period.is_empty() {
            self.period = period(&self.history);
        }
        let length = self.period.len();
        let made = (0..count).map(|n| {
            if length == 0 {
                return 0;
            }
            let at = self.gone + n;
            let ms = at as f32 * 1000.0 / WIDE as f32;
            // 10 ms as they were, then a fifth less every 10 ms.
            let gain = (1.0 - (ms - 10.0).max(0.0) / 50.0).max(0.0);
            (f32::from(self.period[at % length]) * gain) as i16
        });
        let made: Vec<i16> = made.collect();
        self.gone += count;
        made
    }
}

/// The last period of a sound's pitch, its end going over into its beginning.
fn period(history: &[i16]) -> Vec<i16> {
    if history.len() < 2 * LONGEST_PITCH {
        return Vec::new();
    }
    let recent = &history[history.len() - LONGEST_PITCH..];
    let fit = |lag: usize| {
        let before = &history[history.len() - LONGEST_PITCH - lag..history.len() - lag];
        let (mut product, mut power) = (0.0f64, 1.0f64);
        for (x, y) in recent.iter().zip(before) {
            product += f64::from(*x) * f64::from(*y);
            power += f64::from(*y) * f64::from(*y);
        }
        product / power.sqrt()
    };
    let best = (SHORTEST..=LONGEST_PITCH).max_by(|a, b| fit(*a).total_cmp(&fit(*b))).unwrap_or(LONGEST_PITCH);
    let mut period = history[history.len() - best..].to_vec();
    // A quarter of it, so that the seam of each repetition is smooth.
    let seam = best / 4;
    let before = &history[history.len() - best - seam..history.len() - best];
    for (n, old) in before.iter().enumerate() {
        let share = n as f32 / seam as f32;
        let at = best - seam + n;
        period[at] = (f32::from(period[at]) * (1.0 - share) + f32::from(*old) * share) as i16;
    }
    period
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{coding::Encoder, sdp};

    /// A voice: a pitch of 120 Hz with its harmonics, packets of 20 ms in A-law.
    fn packets(count: usize) -> (Vec<Vec<u8>>, Vec<i16>) {
        let voice: Vec<i16> = (0..count * 160)
            .map(|n| {
                let t = n as f32 / 8000.0;
                let sum: f32 =
                    (1..8).map(|h| (std::f32::consts::TAU * 120.0 * h as f32 * t).sin() / h as f32).sum();
                (sum * 4000.0) as i16
            })
            .collect();
        let mut encoder = Encoder::of(&sdp::own()[0]).expect("ours");
        (voice.chunks(160).map(|c| encoder.encode(c).remove(0)).collect(), voice)
    }

    /// Plays packets that arrive with these delays; a negative one never comes. The frames, and the wait at the end.
    fn play(delays: &[f64]) -> (Vec<[i16; FRAME]>, Playout) {
        let (packets, _) = packets(delays.len());
        let codecs = sdp::own();
        let mut playout = Playout::default();
        let mut arrivals: Vec<(f64, usize)> = delays
            .iter()
            .enumerate()
            .filter(|(_, d)| **d >= 0.0)
            .map(|(n, d)| (n as f64 * 20.0 + d, n))
            .collect();
        arrivals.sort_by(|a, b| a.0.total_cmp(&b.0));
        let mut frames = Vec::new();
        let mut next = 0;
        for tick in 0..delays.len() + 20 {
            let now = tick as f64 * 20.0;
            while next < arrivals.len() && arrivals[next].0 <= now {
                let (arrived, n) = arrivals[next];
                playout.insert(n as u32 + 1000, 8, &packets[n], n as f64 * 20.0, arrived);
                next += 1;
            }
            frames.push(playout.frame(&codecs));
        }
        (frames, playout)
    }

    fn level(frame: &[i16]) -> f64 {
        let power: f64 = frame.iter().map(|s| f64::from(*s) * f64::from(*s)).sum();
        (power / frame.len() as f64).sqrt()
    }

    /// Numbers that look like chance, the same each time, from 0 to 1.
    fn chance(n: usize) -> f64 {
        let mixed = (n as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ 0x1234_5678;
        (mixed.wrapping_mul(0xBF58_476D_1CE4_E5B9) >> 40) as f64 / f64::from(1 << 24)
    }

    #[test]
    fn without_jitter_the_wait_is_short_and_with_jitter_as_long_as_it_takes() {
        let (_, calm) = play(&vec![5.0; 300]);
        assert!(calm.concealed <= 3, "only its end fades: {}", calm.concealed);
        assert!(calm.wanted() <= 25.0, "{}", calm.wanted());
        let jitter: Vec<f64> = (0..300).map(|n| chance(n) * 80.0).collect();
        let (_, rough) = play(&jitter);
        assert!((60.0..=120.0).contains(&rough.wanted()), "{}", rough.wanted());
        // After the first seconds, in which it learns, what is late is rare.
        assert!(rough.concealed * 100 <= rough.frames * 6, "{} of {}", rough.concealed, rough.frames);
        // And it comes down again.
        let calmer: Vec<f64> = (0..900).map(|n| if n < 300 { chance(n) * 80.0 } else { 5.0 }).collect();
        assert!(play(&calmer).1.wanted() <= 25.0);
    }

    #[test]
    fn a_lost_packet_is_bridged_and_a_long_loss_fades() {
        let mut delays = vec![2.0; 100];
        delays[50] = -1.0;
        let (frames, playout) = play(&delays);
        assert!(playout.concealed >= 1);
        let levels: Vec<f64> = frames[10..95].iter().map(|f| level(f)).collect();
        let usual = levels[5];
        assert!(levels.iter().all(|l| *l > 0.6 * usual && *l < 1.5 * usual), "no hole: {levels:.0?}");
        // Concealment sounds like the speech before it: the same pitch, without a click.
        let all: Vec<i16> = frames.concat();
        let steps = all[10 * FRAME..95 * FRAME].windows(2).map(|w| (i32::from(w[1]) - i32::from(w[0])).abs());
        let usual_step = all[10 * FRAME..40 * FRAME]
            .windows(2)
            .map(|w| (i32::from(w[1]) - i32::from(w[0])).abs())
            .max()
            .unwrap_or(0);
        assert!(steps.max().unwrap_or(0) <= 2 * usual_step, "no click above {usual_step}");
        delays[50..70].fill(-1.0);
        let (frames, _) = play(&delays);
        assert!(frames[60..64].iter().all(|f| level(f) < 0.05 * usual), "a long loss is silence");
        assert!(frames[80..95].iter().all(|f| level(f) > 0.6 * usual), "and it is heard again");
    }

    #[test]
    fn packets_out_of_order_are_put_in_order() {
        let mut delays = vec![2.0; 100];
        for n in (20..90).step_by(7) {
            delays[n] = 25.0;
        }
        let (frames, playout) = play(&delays);
        let usual = level(&frames[15]);
        assert!(frames[30..95].iter().all(|f| level(f) > 0.7 * usual));
        assert!(playout.concealed <= 3, "{}", playout.concealed);
    }

    proptest! {
        #[test]
        fn whatever_comes_the_memory_is_bounded(
            packets in prop::collection::vec((any::<u32>(), any::<u8>(), 0usize..300, -1e6f64..1e6), 0..600),
        ) {
            let codecs = sdp::own();
            let mut playout = Playout::default();
            for (n, (number, payload_type, length, at)) in packets.into_iter().enumerate() {
                playout.insert(number, payload_type % 16, &vec![0x55; length], at, n as f64);
                playout.frame(&codecs);
                prop_assert!(playout.waiting.len() <= WAITING && playout.delays.len() <= LOOKED_AT);
                prop_assert!(playout.ready.len() <= 16_000 && playout.conceal.history.len() <= HISTORY);
            }
        }
    }
}
