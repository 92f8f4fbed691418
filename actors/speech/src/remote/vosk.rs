//! vosk-server: JSON and PCM over a WebSocket. Each message is answered by one; `{"eof": 1}` asks for what was heard in the end.

use futures::{SinkExt, StreamExt};
use serde::Deserialize;
use tokio::net::TcpStream;
use tokio_tungstenite::{
    client_async_with_config,
    tungstenite::{Message, protocol::WebSocketConfig},
};

use super::{ANSWER, Talk, Told, failed, soon};
use crate::{
    grammar,
    recogniser::{Heard, RecogniserError, Word},
};

#[derive(Debug, Deserialize)]
struct VoskWord {
    word: String,
    #[serde(default)]
    start: f32,
    #[serde(default)]
    end: f32,
    #[serde(default = "sure")]
    conf: f32,
}

fn sure() -> f32 {
    1.0
}

/// One answer: a text so far, or a stretch that is done, perhaps with others it may have been.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Said {
    partial: Option<String>,
    text: Option<String>,
    result: Vec<VoskWord>,
    alternatives: Vec<Alternative>,
}

#[derive(Debug, Deserialize)]
struct Alternative {
    text: String,
    #[serde(default)]
    result: Vec<VoskWord>,
}

/// What the server's answers have come to.
#[derive(Debug, Default)]
pub struct Sum {
    told: Told,
    words: Vec<Word>,
    /// What else it may have been, as the server says.
    others: Vec<String>,
}

impl Sum {
    /// Takes an answer; the text so far, where that is news. Who talks without end is refused.
    pub fn take(&mut self, json: &str) -> Result<Option<String>, RecogniserError> {
        self.told.read(json.len())?;
        let said: Said = serde_json::from_str(json).map_err(failed)?;
        if let Some(partial) = said.partial {
            return Ok(self.told.thinks(&partial));
        }
        let mut alternatives = said.alternatives.into_iter();
        let (text, words) = match alternatives.next() {
            Some(first) => (first.text, first.result),
            None => (said.text.unwrap_or_default(), said.result),
        };
        self.others.extend(alternatives.map(|a| a.text));
        if text.trim().is_empty() {
            return Ok(None);
        }
        self.words.extend(words.into_iter().map(|w| Word {
            text: grammar::normal(&w.word),
            start: w.start.max(0.0),
            duration: (w.end - w.start).max(0.0),
            confidence: w.conf.clamp(0.0, 1.0),
        }));
        self.told.heard(&text)?;
        Ok(Some(self.told.text.clone()))
    }

    /// What was heard in the end.
    pub fn heard(self) -> Heard {
        let sure = match self.words.len() {
            0 => 1.0,
            n => self.words.iter().map(|w| w.confidence).sum::<f32>() / n as f32,
        };
        Heard { hypotheses: self.told.hypotheses(sure, &self.others), words: self.words, score: None }
    }
}

pub(super) async fn converse(url: &str, mut talk: Talk) -> Result<Heard, RecogniserError> {
    let address = url.trim_start_matches("ws://").split('/').next().unwrap_or_default().to_owned();
    let stream = soon(TcpStream::connect(address)).await?;
    let limits = WebSocketConfig::default().max_message_size(Some(ANSWER)).max_frame_size(Some(ANSWER));
    let (mut socket, _) = soon(client_async_with_config(url, stream, Some(limits))).await?;
    let mut config = serde_json::json!({ "sample_rate": talk.rate, "words": true });
    if !talk.phrases.is_empty() {
        config["phrase_list"] = talk.phrases.clone().into();
    }
    let config = serde_json::json!({ "config": config }).to_string();
    soon(socket.send(Message::text(config))).await?;
    let mut sum = Sum::default();
    // Answers owed: one for each piece.
    let mut owed = 0_usize;
    let mut over = false;
    while !over || owed > 0 {
        tokio::select! {
            answer = async { if over { soon(async { Ok::<_, RecogniserError>(socket.next().await) }).await } else { Ok(socket.next().await) } } => {
                match answer?.ok_or_else(|| failed("vosk-server hung up"))?.map_err(failed)? {
                    Message::Text(text) => {
                        owed = owed.saturating_sub(1);
                        if let Some(text) = sum.take(text.as_str())? {
                            let _ = talk.partial.send(text);
                        }
                    }
                    Message::Close(_) => return Err(failed("vosk-server hung up")),
                    _ => {}
                }
            },
            piece = talk.pieces.recv(), if !over => {
                let message = match piece {
                    Some(piece) => Message::binary(piece),
                    None => {
                        over = true;
                        Message::text("{\"eof\" : 1}")
                    }
                };
                soon(socket.send(message)).await?;
                owed += 1;
            },
        }
    }
    let _ = socket.close(None).await;
    Ok(sum.heard())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;
    use crate::{
        grammar::Grammar,
        recogniser::{Engine, Task},
        remote::{Remote, RemoteEngine},
    };

    /// A server that answers as vosk-server does; what it was sent, and the settings.
    fn server() -> (String, std::thread::JoinHandle<(serde_json::Value, usize)>) {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let url = format!("ws://{}", listener.local_addr().expect("its address"));
        let served = std::thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async {
                listener.set_nonblocking(true).expect("set");
                let listener = tokio::net::TcpListener::from_std(listener).expect("a listener");
                let (stream, _) = listener.accept().await.expect("a client");
                let mut socket = tokio_tungstenite::accept_async(stream).await.expect("a WebSocket");
                let (mut config, mut taken) = (serde_json::Value::Null, 0);
                while let Some(Ok(message)) = socket.next().await {
                    let answer = match message {
                        Message::Text(text) if text.as_str().contains("config") => {
                            config = serde_json::from_str(text.as_str()).expect("JSON");
                            continue;
                        }
                        Message::Text(_) => {
                            r#"{"result":[{"conf":0.9,"start":0.1,"end":0.5,"word":"отдел"},
                                {"conf":0.7,"start":0.5,"end":0.9,"word":"продаж"}],"text":"отдел продаж"}"#
                        }
                        Message::Binary(pcm) => {
                            taken += pcm.len();
                            r#"{"partial" : "отдел"}"#
                        }
                        _ => continue,
                    };
                    socket.send(Message::text(answer)).await.expect("sent");
                }
                (config, taken)
            })
        });
        (url, served)
    }

    #[test]
    fn a_conversation_as_vosk_server_has_it() {
        let (url, served) = server();
        let mut engine = RemoteEngine::new(Remote::Vosk { url }, 8000).expect("an engine");
        let phrases = Grammar::phrases(["отдел продаж", "отдел кадров"]);
        let mut ear = engine.open(&Task::whole(phrases, Arc::default())).expect("open");
        for _ in 0..10 {
            ear.feed(&[0.1; 1600]).expect("taken");
        }
        let heard = ear.finish().expect("heard");
        assert_eq!(heard.text(), "отдел продаж");
        assert_eq!(heard.hypotheses[1].text, "отдел");
        assert_eq!((heard.words[1].start, heard.words[1].confidence), (0.5, 0.7));
        let (config, taken) = served.join().expect("served");
        assert_eq!(config["config"]["phrase_list"][1], "отдел кадров");
        assert_eq!(config["config"]["sample_rate"], 8000);
        assert!(taken > 15_000, "{taken}");
    }

    #[test]
    fn others_that_it_names_come_before_what_it_thought() {
        let mut sum = Sum::default();
        sum.take(r#"{"partial": "от"}"#).expect("taken");
        sum.take(r#"{"alternatives":[{"text":"да"},{"text":"дар"},{"text":"дай"}]}"#).expect("taken");
        let all: Vec<String> = sum.heard().hypotheses.into_iter().map(|h| h.text).collect();
        assert_eq!(all, ["да", "дар", "дай", "от"]);
    }

    proptest! {
        #[test]
        fn any_answer_is_taken_or_refused(json in "\\PC{0,60}", word in "\\PC{0,5}", start in -1e6_f32..1e6) {
            let mut sum = Sum::default();
            let _ = sum.take(&json);
            let good = serde_json::json!({ "text": word, "result": [{ "word": word, "start": start, "end": 0 }] });
            prop_assert!(sum.take(&good.to_string()).is_ok());
            sum.heard();
        }
    }
}
