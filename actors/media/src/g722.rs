//! G.722 at 64 kbit/s: two bands of 8000 samples a second, each an adaptive differential coding with a predictor of two poles
//! and six zeros. Names are those of the Recommendation's blocks (6.2). Our own, because the crates there are begin with other
//! step sizes than its decoder and encoder (DETL is 32, DETH 8), and so fail the test sequences of Appendix II.

/// Samples on both sides of the band filters' middle (table 11); the other half mirrors it.
const QMF: [i32; 12] = [3, -11, -11, 53, 12, -156, 32, 362, -210, -805, 951, 3876];

/// Decision levels of the lower band's quantizer (Q6, table 14).
const Q6: [i32; 30] = [
    0, 35, 72, 110, 150, 190, 233, 276, 323, 370, 422, 473, 530, 587, 650, 714, 786, 858, 940, 1023, 1121,
    1219, 1339, 1458, 1612, 1765, 1980, 2195, 2557, 2919,
];
/// And of the higher band's: one.
const Q2: i32 = 564;

/// Differences that codes stand for, by the lower band's 6 and 4 bits, and the higher band's 2 (tables 17, 16 and 19).
#[rustfmt::skip]
const QQ6: [i32; 64] = [
    -136, -136, -136, -136, -24808, -21904, -19008, -16704, -14984, -13512, -12280, -11192, -10232, -9360, -8576, -7856,
    -7192, -6576, -6000, -5456, -4944, -4464, -4008, -3576, -3168, -2776, -2400, -2032, -1688, -1360, -1040, -728,
    24808, 21904, 19008, 16704, 14984, 13512, 12280, 11192, 10232, 9360, 8576, 7856, 7192, 6576, 6000, 5456,
    4944, 4464, 4008, 3576, 3168, 2776, 2400, 2032, 1688, 1360, 1040, 728, 432, 136, -432, -136,
];
const QQ4: [i32; 16] =
    [0, -20456, -12896, -8968, -6288, -4240, -2584, -1200, 20456, 12896, 8968, 6288, 4240, 2584, 1200, 0];
const QQ2: [i32; 4] = [-7408, -1616, 7408, 1616];

/// How a code changes the step size's logarithm: of the lower band by its 4 bits, of the higher by its 2 (tables 18 and 20).
const WL: [i32; 16] = [-60, 3042, 1198, 538, 334, 172, 58, -30, 3042, 1198, 538, 334, 172, 58, -30, -60];
const WH: [i32; 4] = [798, -214, 798, -214];

/// Powers of two in steps of a 32nd (table 21).
const ILB: [i32; 32] = [
    2048, 2093, 2139, 2186, 2233, 2282, 2332, 2383, 2435, 2489, 2543, 2599, 2656, 2714, 2774, 2834, 2896,
    2960, 3025, 3091, 3158, 3228, 3298, 3371, 3444, 3520, 3597, 3676, 3756, 3838, 3922, 4008,
];

fn saturated(n: i32) -> i32 {
    n.clamp(i32::from(i16::MIN), i32::from(i16::MAX))
}

/// One band's step size and predictor; the same on both sides.
struct Band {
    /// Logarithm of the step size, and where it ends; the step size.
    nb: i32,
    most: i32,
    det: i32,
    /// The exponent of table 21's first entry.
    base: i32,
    /// Prediction, and its part of the zeros.
    s: i32,
    sz: i32,
    /// Reconstructed, and partially reconstructed signal; differences. The newest comes first.
    r: [i32; 2],
    p: [i32; 2],
    d: [i32; 6],
    /// Coefficients of poles and zeros.
    a: [i32; 2],
    b: [i32; 6],
}

impl Band {
    fn new(det: i32, most: i32, base: i32) -> Self {
        Self { nb: 0, most, det, base, s: 0, sz: 0, r: [0; 2], p: [0; 2], d: [0; 6], a: [0; 2], b: [0; 6] }
    }

    fn lower() -> Self {
        Self::new(32, 18_432, 8)
    }

    fn higher() -> Self {
        Self::new(8, 22_528, 10)
    }

    /// The difference that a code stands for, in steps of now (INVQAL, INVQAH).
    fn difference(&self, table: i32) -> i32 {
        (self.det * table) >> 15
    }

    /// LOGSCL and SCALEL, or LOGSCH and SCALEH.
    fn scale(&mut self, change: i32) {
        self.nb = (((self.nb * 127) >> 7) + change).clamp(0, self.most);
        let (entry, shift) = (ILB[(self.nb >> 6 & 31) as usize], self.base - (self.nb >> 11));
        self.det = if shift < 0 { entry << -shift << 2 } else { entry >> shift << 2 };
    }

    /// Adapts the predictor to a difference and predicts the next sample (block 4).
    fn adapt(&mut self, d: i32) {
        let (r, p) = (saturated(self.s + d), saturated(self.sz + d));
        let alike = |other: i32| (p < 0) == (other < 0);
        // UPPOL2
        let a1 = saturated(self.a[0] << 2);
        let turned = (if alike(self.p[0]) { -a1 } else { a1 }).min(32_767);
        let pull = if alike(self.p[1]) { 128 } else { -128 };
        let a2 = ((turned >> 7) + pull + ((self.a[1] * 32_512) >> 15)).clamp(-12_288, 12_288);
        // UPPOL1
        let pull = if alike(self.p[0]) { 192 } else { -192 };
        let limit = saturated(15_360 - a2);
        let a1 = saturated(pull + ((self.a[0] * 32_640) >> 15)).clamp(-limit, limit);
        // UPZERO
        let step = if d == 0 { 0 } else { 128 };
        for (b, past) in self.b.iter_mut().zip(&self.d) {
            let pull = if (*past < 0) == (d < 0) { step } else { -step };
            *b = saturated(pull + ((*b * 32_640) >> 15));
        }
        // DELAYA
        (self.r, self.p, self.a) = ([r, self.r[0]], [p, self.p[0]], [a1, a2]);
        self.d.rotate_right(1);
        self.d[0] = d;
        // FILTEP, FILTEZ, PREDIC
        let part = |coefficient: &i32, signal: &i32| (coefficient * saturated(signal << 1)) >> 15;
        let poles = saturated(self.a.iter().zip(&self.r).map(|(a, r)| part(a, r)).sum());
        self.sz = saturated(self.b.iter().zip(&self.d).map(|(b, d)| part(b, d)).sum());
        self.s = saturated(poles + self.sz);
    }

    /// The predictor's error, and its size as the quantizers count it.
    fn missed(&self, sample: i32) -> (i32, i32) {
        let e = saturated(sample - self.s);
        (e, if e < 0 { -(e + 1) } else { e })
    }

    fn encode_low(&mut self, sample: i32) -> u8 {
        let (e, size) = self.missed(sample);
        let above = |level: &&i32| size >= (**level * self.det) >> 12;
        // The first level is 0: it counts at least one.
        let level = 1 + Q6[1..].iter().take_while(above).count();
        // Negative differences: 63, 62, then down from 31; others: down from 61.
        let code = match (e < 0, level) {
            (true, 1 | 2) => 64 - level,
            (true, level) => 34 - level,
            (false, level) => 62 - level,
        };
        self.take_low(code);
        code as u8
    }

    fn take_low(&mut self, code: usize) {
        let d = self.difference(QQ4[code >> 2]);
        self.scale(WL[code >> 2]);
        self.adapt(d);
    }

    fn encode_high(&mut self, sample: i32) -> u8 {
        let (e, size) = self.missed(sample);
        let far = size >= (Q2 * self.det) >> 12;
        let code = match (e < 0, far) {
            (true, true) => 0,
            (true, false) => 1,
            (false, true) => 2,
            (false, false) => 3,
        };
        self.take_high(code);
        code as u8
    }

    fn take_high(&mut self, code: usize) {
        let d = self.difference(QQ2[code]);
        self.scale(WH[code]);
        self.adapt(d);
    }

    /// The sample of a code in mode 1.
    fn decode_low(&mut self, code: usize) -> i32 {
        let sample = (self.s + self.difference(QQ6[code])).clamp(-16_384, 16_383);
        self.take_low(code);
        sample
    }

    fn decode_high(&mut self, code: usize) -> i32 {
        let sample = (self.s + self.difference(QQ2[code])).clamp(-16_384, 16_383);
        self.take_high(code);
        sample
    }
}

/// Both bands' filter: every other sample of 24, with every other coefficient.
#[derive(Default)]
struct Half([i32; 12]);

impl Half {
    /// Takes a sample, and filters with the coefficients of even places or of odd ones.
    fn filtered(&mut self, sample: i32, odd: bool) -> i32 {
        self.0.rotate_right(1);
        self.0[0] = sample;
        let coefficient = |i: usize| {
            let at = 2 * i + usize::from(odd);
            QMF[at.min(23 - at)]
        };
        self.0.iter().enumerate().map(|(i, x)| x * coefficient(i)).sum()
    }
}

/// 16,000 samples a second in, 8000 octets out.
pub(crate) struct Encoder {
    lower: Band,
    higher: Band,
    newer: Half,
    older: Half,
}

impl Encoder {
    pub(crate) fn new() -> Self {
        Self { lower: Band::lower(), higher: Band::higher(), newer: Half::default(), older: Half::default() }
    }

    /// One octet for each two samples; an odd one at the end is left out.
    pub(crate) fn encode(&mut self, samples: &[i16]) -> Vec<u8> {
        let octet = |pair: &[i16]| {
            let older = self.older.filtered(i32::from(pair[0]), true);
            let newer = self.newer.filtered(i32::from(pair[1]), false);
            let low = self.lower.encode_low((newer + older) >> 14);
            let high = self.higher.encode_high((newer - older) >> 14);
            high << 6 | low
        };
        samples.chunks_exact(2).map(octet).collect()
    }
}

/// The way back.
pub(crate) struct Decoder {
    lower: Band,
    higher: Band,
    differences: Half,
    sums: Half,
}

impl Decoder {
    pub(crate) fn new() -> Self {
        Self {
            lower: Band::lower(),
            higher: Band::higher(),
            differences: Half::default(),
            sums: Half::default(),
        }
    }

    /// Two samples for each octet.
    pub(crate) fn decode(&mut self, octets: &[u8]) -> Vec<i16> {
        let pair = |octet: &u8| {
            let low = self.lower.decode_low(usize::from(octet & 0x3F));
            let high = self.higher.decode_high(usize::from(octet >> 6));
            let first = self.differences.filtered(low - high, false) >> 11;
            let second = self.sums.filtered(low + high, true) >> 11;
            [saturated(first) as i16, saturated(second) as i16]
        };
        octets.iter().flat_map(pair).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Words of a sequence. The octets of a line and its checksum add up to a multiple of 256.
    fn sequence(text: &str) -> Vec<u16> {
        let octets = |line: &str| {
            let pairs =
                (0..line.len() / 2).map(|i| u8::from_str_radix(&line[2 * i..2 * i + 2], 16).expect("hex"));
            pairs.collect::<Vec<_>>()
        };
        let words = |line: &str| {
            let all = octets(line);
            assert_eq!(all.len(), 33, "{line}");
            all[..32].chunks(2).map(|w| u16::from_be_bytes([w[0], w[1]])).collect::<Vec<_>>()
        };
        text.lines().flat_map(words).collect()
    }

    fn codes() -> Vec<u8> {
        let words = sequence(include_str!("../../../fixtures/g722/T2R2.COD"));
        words.iter().map(|w| w.to_be_bytes()[0]).collect()
    }

    #[test]
    fn the_decoder_does_as_the_sequences_of_itu_t_say() {
        let low = sequence(include_str!("../../../fixtures/g722/T3L2.RC1"));
        let high = sequence(include_str!("../../../fixtures/g722/T3H2.RC0"));
        let (mut lower, mut higher) = (Band::lower(), Band::higher());
        assert_eq!((codes().len(), low.len(), high.len()), (192, 192, 192));
        for (n, code) in codes().into_iter().enumerate() {
            let made =
                (lower.decode_low(usize::from(code & 0x3F)), higher.decode_high(usize::from(code >> 6)));
            assert_eq!(made, (i32::from(low[n] as i16) >> 1, i32::from(high[n] as i16) >> 1), "sample {n}");
        }
    }

    #[test]
    fn the_encoder_does_as_the_sequences_of_itu_t_say() {
        let (mut lower, mut higher) = (Band::lower(), Band::higher());
        for (n, code) in codes().into_iter().enumerate() {
            let sample = if n % 2 == 0 { -16_384 } else { 16_383 };
            let made = higher.encode_high(sample) << 6 | lower.encode_low(sample);
            assert_eq!(made, code, "sample {n}");
        }
    }

    #[test]
    fn what_is_encoded_is_heard_again() {
        for (frequency, decibels) in [(440.0f64, 25.0), (1000.0, 25.0), (3000.0, 20.0), (6000.0, 12.0)] {
            let spoken: Vec<i16> = (0..6400)
                .map(|n| {
                    ((f64::from(n) * frequency * std::f64::consts::TAU / 16_000.0).sin() * 8000.0) as i16
                })
                .collect();
            let heard = Decoder::new().decode(&Encoder::new().encode(&spoken));
            assert_eq!(heard.len(), spoken.len());
            // The filters of both sides take 22 samples.
            let pairs =
                || heard[1022..].iter().zip(&spoken[1000..]).map(|(h, s)| (f64::from(*h), f64::from(*s)));
            let noise: f64 = pairs().map(|(h, s)| (h - s).powi(2)).sum();
            let power: f64 = pairs().map(|(_, s)| s * s).sum();
            let ratio = 10.0 * (power / noise).log10();
            assert!(ratio > decibels, "{frequency} Hz: {ratio} dB");
        }
    }
}
