//! Hearing a caller: a stream being recognised is an actor, `domain/<D>/ivr/<ID>/asr/<N>`, from the menu's prompt to its outcome.

use std::{sync::Arc, time::Duration};

use kit::{Actor, Address, ChildSpec, Cx, ExitReason, Node};
use parking_lot::Mutex;
use speech::{
    Speech,
    audio::{AudioError, Rate, to_f32, to_i16},
    grammar::Grammar,
    recogniser::{RATE, Task},
    vad::{Cutter, Pauses, Utterance},
};
use strum::IntoStaticStr;
use tokio::sync::mpsc;

use crate::{
    Reach,
    actor::RUNS,
    run::{Answer, Event},
    tree,
};

/// How long an attendant may take for a piece of speech.
const PATIENCE: Duration = Duration::from_secs(20);

/// Pieces of speech that wait for the one before to be understood, at most.
const PIECES: usize = 4;

/// What a caller says, 20 ms at a time.
pub(crate) type Hearing = mpsc::Receiver<Box<[i16; 160]>>;

/// A caller's voice, as recognisers take it and cut at its pauses.
pub(crate) struct Voice {
    rate: Rate,
    cutter: Cutter,
    speaking: bool,
}

/// What a frame has brought.
pub(crate) struct Heard {
    /// The caller begins to speak.
    pub begins: bool,
    pub utterances: Vec<Utterance>,
}

impl Voice {
    pub(crate) fn new() -> Result<Self, AudioError> {
        let rate = Rate::new(8000, RATE)?;
        Ok(Self { rate, cutter: Cutter::new(Pauses::DIALOGUE), speaking: false })
    }

    pub(crate) fn take(&mut self, frame: &[i16]) -> Result<Heard, AudioError> {
        let utterances = self.cutter.push(&self.rate.push(&to_f32(frame))?);
        let before = std::mem::replace(&mut self.speaking, self.cutter.speaking());
        Ok(Heard { begins: self.speaking && !before, utterances })
    }

    pub(crate) fn speaking(&self) -> bool {
        self.speaking
    }
}

/// Cuts what a caller says at its pauses. What had begun before anybody listened is nobody's answer: its end alone may sound like
/// another name.
async fn cut(
    mut hearing: Hearing,
    pieces: mpsc::Sender<Utterance>,
    tell: mpsc::UnboundedSender<Event>,
) -> Result<(), mpsc::error::SendError<Event>> {
    let Ok(mut voice) = Voice::new() else { return Ok(()) };
    while let Some(frame) = hearing.recv().await {
        let Ok(heard) = voice.take(&frame[..]) else { return Ok(()) };
        if heard.begins && voice.cutter.whole() {
            tell.send(Event::Speaks)?;
        }
        for utterance in heard.utterances.into_iter().filter(|u| u.whole) {
            if pieces.try_send(utterance).is_err() {
                tracing::warn!("a caller says more than can be understood, a piece is lost");
                tell.send(Event::Unheard)?;
            }
        }
    }
    Ok(())
}

/// A stream, and what it is heard with.
struct Stream {
    parts: Option<(Listener, Hearing, mpsc::UnboundedSender<Event>)>,
    service: Option<String>,
    phrases: usize,
}

#[derive(Debug, IntoStaticStr)]
enum StreamMsg {}

impl Actor for Stream {
    type Msg = StreamMsg;

    fn started(&mut self, cx: &mut Cx<'_, Self>) -> Result<(), ExitReason> {
        let Some((listener, hearing, tell)) = self.parts.take() else { return Err(ExitReason::Normal) };
        cx.spawn(listener.run(hearing, tell), |_, (), _| Err(ExitReason::Normal));
        Ok(())
    }

    fn handle(&mut self, msg: StreamMsg, _: &mut Cx<'_, Self>) -> Result<(), ExitReason> {
        match msg {}
    }

    fn inspect(&self) -> serde_json::Value {
        serde_json::json!({ "service": self.service, "phrases": self.phrases })
    }
}

/// Starts a stream; it ends when nothing more comes of the caller, and tells what it understands until then.
pub(crate) async fn start(
    node: Node,
    name: String,
    listener: Listener,
    hearing: Hearing,
    tell: mpsc::UnboundedSender<Event>,
) -> Result<(), String> {
    let (service, phrases) = (listener.service.clone(), listener.phrases.len());
    let parts = Arc::new(Mutex::new(Some((listener, hearing, tell))));
    let name = Address::new(name).map_err(|e| e.to_string())?;
    let spec = ChildSpec::worker(name, move |_| {
        let stream = Stream { parts: parts.lock().take(), service: service.clone(), phrases };
        async move { Ok(stream) }
    });
    tree::start(&node, RUNS, spec).await
}

/// Listens to a caller: cuts what it says at its pauses, and has each piece understood.
pub(crate) struct Listener {
    pub(crate) speech: Speech,
    pub(crate) service: Option<String>,
    pub(crate) phrases: Vec<String>,
    pub(crate) grammar: Option<String>,
    pub(crate) name: String,
    pub(crate) reach: Reach,
}

impl Listener {
    /// Who is being understood is heard on meanwhile.
    async fn run(self, hearing: Hearing, tell: mpsc::UnboundedSender<Event>) {
        let (give, mut take) = mpsc::channel::<Utterance>(PIECES);
        let understood = async {
            let mut piece = 0_u32;
            while let Some(utterance) = take.recv().await {
                piece += 1;
                tell.send(self.understand(utterance.samples, piece).await)?;
            }
            Ok(())
        };
        // Either ends with whom it tells.
        let _: Result<_, mpsc::error::SendError<Event>> =
            futures::try_join!(cut(hearing, give, tell.clone()), understood);
    }

    pub(crate) async fn understand(&self, samples: Vec<f32>, piece: u32) -> Event {
        let dictionary = || self.speech.clerk.picture().dictionary();
        let own =
            self.grammar.as_ref().map(|name| self.speech.clerk.lexicon.load().grammars.get(name).cloned());
        let task = match own {
            Some(Some(grammar)) => Some(Task::of(grammar, dictionary())),
            Some(None) => {
                let name = self.grammar.as_deref().unwrap_or_default();
                tracing::error!(grammar = name, "there is no such grammar among the operator's files");
                return Event::Unheard;
            }
            None if self.phrases.is_empty() => None,
            None => Some(Task::whole(Grammar::phrases(&self.phrases), dictionary())),
        };
        if let Some(task) = task {
            match self.speech.closed.hear(task, samples.clone()).await {
                Ok(heard) if heard.hypotheses.first().is_some_and(|h| h.confidence >= 0.5) => {
                    return Event::Phrase(heard.text().to_owned());
                }
                Ok(_) if self.service.is_none() => return Event::Phrase(String::new()),
                Ok(_) => {}
                Err(e) => {
                    tracing::warn!(error = %e, "what a caller said is lost");
                    return Event::Unheard;
                }
            }
        }
        let Some(service) = &self.service else { return Event::Unheard };
        match self.ask(service, samples, piece).await {
            Ok(answer) => Event::Answered(answer),
            Err(e) => {
                tracing::warn!(error = %e, "what a caller said is lost");
                Event::Unheard
            }
        }
    }

    /// Gives a piece to an auto-attendant (manual, "Автосекретарь").
    async fn ask(&self, service: &str, samples: Vec<f32>, piece: u32) -> Result<Answer, String> {
        let mut rate = Rate::new(RATE, 8000).map_err(|e| e.to_string())?;
        let mut low = rate.push(&samples).map_err(|e| e.to_string())?;
        low.extend(rate.finish().map_err(|e| e.to_string())?);
        let bytes: Vec<u8> = to_i16(&low).iter().flat_map(|s| s.to_le_bytes()).collect();
        let url = format!("http://{service}/{}-{piece}.pcm", self.name);
        let request =
            self.reach.request(awc::http::Method::POST, &url, PATIENCE).await.map_err(|e| e.to_string())?;
        let mut answer = request.send_body(bytes).await.map_err(|e| e.to_string())?;
        let status = answer.status();
        if status != awc::http::StatusCode::OK && status != awc::http::StatusCode::PARTIAL_CONTENT {
            return Err(format!("the attendant answers {status}"));
        }
        let body: serde_json::Value = answer.json().limit(64 << 10).await.map_err(|e| e.to_string())?;
        let text = |name: &str| body.get(name).and_then(|v| v.as_str()).unwrap_or_default().to_owned();
        Ok(Answer {
            recognised: text("recognized"),
            number: Some(text("number")).filter(|n| !n.is_empty()),
            positive: text("positive_url"),
            negative: text("negative_url"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    include!("../../../fixtures/speech/voice.rs");

    /// A caller's voice, and silence, at 8000 Hz.
    fn says(seconds: f32) -> Vec<i16> {
        to_i16(&voice(seconds, 8000))
    }

    fn pauses(seconds: usize) -> Vec<i16> {
        vec![0; seconds * 8000]
    }

    /// What is told of this sound, and how many pieces of it are to be understood.
    fn told(sound: &[i16]) -> (Vec<Event>, usize) {
        let (feed, hearing) = mpsc::channel(sound.len() / 160 + 1);
        for frame in sound.chunks_exact(160) {
            let frame: [i16; 160] = frame.try_into().expect("20 ms");
            feed.try_send(Box::new(frame)).expect("room");
        }
        drop(feed);
        let (give, mut take) = mpsc::channel(PIECES);
        let (tell, mut told) = mpsc::unbounded_channel();
        futures::executor::block_on(cut(hearing, give, tell)).expect("told");
        let pieces = std::iter::from_fn(|| take.try_recv().ok()).count();
        (std::iter::from_fn(|| told.try_recv().ok()).collect(), pieces)
    }

    #[test]
    fn what_had_begun_before_anybody_listened_is_no_answer() {
        let (end, pause) = (says(0.5), pauses(2));
        assert_eq!(told(&[&end[..], &pause].concat()), (vec![], 0));
        let (speaks, all) = (Event::Speaks, [&end[..], &pause, &says(1.0), &pause].concat());
        assert_eq!(told(&all), (vec![speaks], 1), "what comes then is one");
    }

    #[test]
    fn who_says_more_than_can_be_understood_is_told_so() {
        let one = [pauses(2), says(1.0)].concat();
        let all = [one.repeat(PIECES + 1), pauses(2)].concat();
        let (events, pieces) = told(&all);
        assert_eq!(pieces, PIECES);
        assert_eq!(events.last(), Some(&Event::Unheard));
        assert_eq!(events.len(), PIECES + 2, "{events:?}");
    }
}
