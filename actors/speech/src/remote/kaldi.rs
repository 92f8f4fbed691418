//! Kaldi's `online2-tcp-nnet3-decode-faster`: PCM goes in as it is; a line that ends with CR is what it thinks so far, one that
//! ends with LF is what it heard. The end of what is sent is the utterance's end.

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::{Talk, Told, failed, soon};
use crate::{
    grammar,
    recogniser::{Heard, RecogniserError, Word},
};

/// What the server's lines have come to.
#[derive(Debug, Default)]
pub struct Lines {
    told: Told,
    /// The line that has not ended yet.
    rest: Vec<u8>,
}

impl Lines {
    /// Takes bytes as they come; the newest text so far. Who talks without end is refused.
    pub fn take(&mut self, bytes: &[u8]) -> Result<Option<String>, RecogniserError> {
        self.told.read(bytes.len())?;
        let mut newest = None;
        for byte in bytes {
            if !matches!(byte, b'\r' | b'\n') {
                self.rest.push(*byte);
                continue;
            }
            let line = std::mem::take(&mut self.rest);
            let line = String::from_utf8_lossy(&line);
            newest = self.told.thinks(&line).or(newest);
            if *byte == b'\n' && !line.trim().is_empty() {
                self.told.heard(&line)?;
            }
        }
        Ok(newest)
    }

    /// What was heard in the end, of so many seconds of sound.
    pub fn heard(self, seconds: f32) -> Heard {
        // It tells neither times nor how sure it is: words share the time until somebody aligns them.
        let words = grammar::words(&self.told.text);
        let each = seconds / words.len().max(1) as f32;
        let word = |(n, text): (usize, String)| Word {
            text,
            start: n as f32 * each,
            duration: each,
            confidence: 1.0,
        };
        Heard {
            words: words.into_iter().enumerate().map(word).collect(),
            hypotheses: self.told.hypotheses(1.0, &[]),
            score: None,
        }
    }
}

pub(super) async fn converse(address: &str, mut talk: Talk) -> Result<Heard, RecogniserError> {
    let mut stream = soon(TcpStream::connect(address)).await?;
    let (mut from, mut to) = stream.split();
    let (mut lines, mut sent, mut buffer) = (Lines::default(), 0_usize, [0; 4096]);
    loop {
        tokio::select! {
            read = from.read(&mut buffer) => match read.map_err(failed)? {
                0 => return Err(failed("Kaldi hung up")),
                n => if let Some(text) = lines.take(&buffer[..n])? {
                    let _ = talk.partial.send(text);
                },
            },
            piece = talk.pieces.recv() => match piece {
                Some(piece) => {
                    sent += piece.len();
                    soon(to.write_all(&piece)).await?;
                }
                None => break,
            },
        }
    }
    soon(to.shutdown()).await?;
    loop {
        match soon(from.read(&mut buffer)).await? {
            0 => return Ok(lines.heard(sent as f32 / 2.0 / talk.rate as f32)),
            n => drop(lines.take(&buffer[..n])?),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read, Write},
        net::TcpListener,
        sync::Arc,
    };

    use proptest::prelude::*;

    use super::*;
    use crate::{
        grammar::Grammar,
        recogniser::{Engine, Task},
        remote::{Remote, RemoteEngine},
    };

    /// A server that says what Kaldi's does, once it has heard a second.
    fn server() -> (String, std::thread::JoinHandle<usize>) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("its address").to_string();
        let served = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("a client");
            let (mut taken, mut buffer, mut told) = (0, [0; 4096], false);
            loop {
                match stream.read(&mut buffer).expect("read") {
                    0 => break,
                    n => taken += n,
                }
                if taken >= 16_000 && !told {
                    told = true;
                    stream.write_all("алексей\rалексей лосев\r".as_bytes()).expect("written");
                }
            }
            stream.write_all("алексей лысенко\n".as_bytes()).expect("written");
            taken
        });
        (address, served)
    }

    #[test]
    fn a_conversation_as_kaldis_server_has_it() {
        let (address, served) = server();
        let mut engine = RemoteEngine::new(Remote::Kaldi { address }, 8000).expect("an engine");
        let mut ear = engine.open(&Task::whole(Grammar::Open, Arc::default())).expect("open");
        let mut partial = None;
        for _ in 0..100 {
            partial = ear.feed(&[0.1; 320]).expect("taken").or(partial);
        }
        // What it thinks comes when it comes: more silence is fed until it has.
        while partial.is_none() {
            partial = ear.feed(&[0.0; 32]).expect("taken");
            std::thread::yield_now();
        }
        let heard = ear.finish().expect("heard");
        let texts: Vec<&str> = heard.hypotheses.iter().map(|h| h.text.as_str()).collect();
        assert_eq!(texts, ["алексей лысенко", "алексей лосев", "алексей"]);
        assert_eq!(heard.words.len(), 2);
        assert!(served.join().expect("served") >= 30_000, "all of it arrived");
    }

    proptest! {
        #[test]
        fn any_bytes_are_taken(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            // However they are cut.
            let heard = |size: usize| {
                let mut lines = Lines::default();
                for piece in bytes.chunks(size) {
                    let _ = lines.take(piece);
                }
                lines.heard(1.0)
            };
            prop_assert_eq!(format!("{:?}", heard(7)), format!("{:?}", heard(1000)));
        }
    }
}
