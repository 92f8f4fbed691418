//! Counts of calls for `/metrics`: attempts, ends by cause and by trunk, the time until a caller hears that it rings, the
//! length of conversations, and how well they sound. Labels are names of the configuration and causes, so their number is bounded.

use std::{collections::BTreeMap, time::Instant};

use domain::Picture;

use crate::{
    LegCommand, LegId,
    media::Quality,
    record::{Cdr, RecordEvent},
};

/// Of one call.
#[derive(Default)]
pub(crate) struct Meter {
    began: Option<Instant>,
    /// The caller has been told that it rings, or that it is answered.
    progressed: bool,
    quality: BTreeMap<LegId, Quality>,
}

impl Meter {
    /// A call has come in.
    pub(crate) fn begin(&mut self, domain: &str) {
        self.began = Some(Instant::now());
        metrics::counter!("hypha_calls_attempted_total", "domain" => domain.to_owned()).increment(1);
    }

    /// A command to a leg.
    pub(crate) fn told(&mut self, command: &LegCommand) {
        let rings = matches!(command, LegCommand::Progress { .. } | LegCommand::Answer { .. });
        if rings
            && !std::mem::replace(&mut self.progressed, true)
            && let Some(began) = self.began
        {
            metrics::histogram!("hypha_call_setup_seconds").record(began.elapsed().as_secs_f64());
        }
    }

    pub(crate) fn heard(&mut self, leg: LegId, quality: &Quality) {
        self.quality.insert(leg, quality.clone());
    }

    /// A record that is kept.
    pub(crate) fn kept(&self, event: &RecordEvent, picture: &Picture) {
        match event {
            RecordEvent::Answered { cdr } => {
                let domain = domain(cdr);
                metrics::counter!("hypha_calls_answered_total", "domain" => domain).increment(1);
                let rang = cdr.answered.map_or(0, |at| (at - cdr.setup).num_milliseconds().max(0));
                metrics::histogram!("hypha_call_answer_seconds").record(rang as f64 / 1000.0);
            }
            RecordEvent::Ended { cdr, .. } => ended(cdr, picture),
            RecordEvent::Traced { .. } | RecordEvent::Alive { .. } => {}
        }
    }

    /// The call is over: how well it sounded.
    pub(crate) fn over(&mut self) {
        for quality in std::mem::take(&mut self.quality).into_values() {
            let lost = lost_percent(&quality);
            metrics::histogram!("hypha_call_mos").record(mos(&quality));
            metrics::histogram!("hypha_call_lost_percent").record(lost);
            metrics::histogram!("hypha_call_jitter_seconds").record(quality.jitter_ms / 1000.0);
        }
    }
}

fn domain(cdr: &Cdr) -> String {
    cdr.sides.first().map(|s| s.domain.clone()).unwrap_or_default()
}

fn ended(cdr: &Cdr, picture: &Picture) {
    let cause = cdr.cause.map(|c| c.0.to_string()).unwrap_or_default();
    let answered = if cdr.answered.is_some() { "true" } else { "false" };
    let labels = [("domain", domain(cdr)), ("cause", cause.clone()), ("answered", answered.to_owned())];
    metrics::counter!("hypha_calls_ended_total", &labels).increment(1);
    if cdr.answered.is_some() {
        metrics::histogram!("hypha_call_talk_seconds").record(cdr.seconds() as f64);
    }
    for side in &cdr.sides {
        let Some(known) = picture.domains.get(&side.domain) else { continue };
        for (trunk, direction) in [(&side.from, "in"), (&side.to, "out")] {
            if known.trunks.contains_key(trunk) {
                let labels = [
                    ("domain", side.domain.clone()),
                    ("trunk", trunk.clone()),
                    ("direction", direction.to_owned()),
                    ("cause", cause.clone()),
                ];
                metrics::counter!("hypha_trunk_calls_ended_total", &labels).increment(1);
            }
        }
    }
}

fn lost_percent(quality: &Quality) -> f64 {
    let expected = (quality.received + quality.lost).max(1);
    quality.lost as f64 * 100.0 / expected as f64
}

/// Mean opinion score of a leg, 1 to 4.5, by the E-model (ITU-T G.107, Annex B of G.107 for the last step): loss and delay count, with
/// the impairment factors of G.113, Appendix I.
fn mos(quality: &Quality) -> f64 {
    // Ie, and how well the coding bears loss (Bpl).
    let (ie, bpl) = match quality.codec.to_ascii_uppercase().as_str() {
        "G729" => (11.0, 19.0),
        "OPUS" | "G722" => (0.0, 20.0),
        _ => (0.0, 25.1),
    };
    let lost = lost_percent(quality);
    let delay = f64::from(quality.round_trip_ms.unwrap_or(0)) / 2.0 + 2.0 * quality.jitter_ms + 20.0;
    let late = if delay > 177.3 { 0.11 * (delay - 177.3) } else { 0.0 };
    let r = 93.2 - 0.024 * delay - late - (ie + (95.0 - ie) * lost / (lost + bpl));
    match r {
        r if r <= 0.0 => 1.0,
        r if r >= 100.0 => 4.5,
        r => (1.0 + 0.035 * r + r * (r - 60.0) * (100.0 - r) * 7e-6).max(1.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(lost: u64, jitter_ms: f64, round_trip_ms: u32) -> f64 {
        mos(&Quality {
            codec: "PCMA".into(),
            received: 1000 - lost,
            lost,
            jitter_ms,
            sent: 1000,
            peer_lost_percent: None,
            round_trip_ms: Some(round_trip_ms),
        })
    }

    #[test]
    fn scores_are_those_of_the_model() {
        // G.107's own default case is R 93.2, MOS 4.41.
        assert!((heard(0, 0.0, 0) - 4.4).abs() < 0.02, "{}", heard(0, 0.0, 0));
        assert!((3.5..3.9).contains(&heard(50, 5.0, 40)), "{}", heard(50, 5.0, 40));
        assert!(heard(300, 5.0, 40) < 2.2);
        assert!(heard(0, 5.0, 800) < heard(0, 5.0, 200));
        assert!(heard(900, 200.0, 2000) >= 1.0);
    }
}
