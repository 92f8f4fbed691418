//! A channel both of whose directions go on by themselves: the connection's task waits for a full channel, and reads nothing
//! more meanwhile, not even that the other side has room for answers.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
};

use bytes::Bytes;
use russh::{Channel, ChannelMsg, ChannelWriteHalf, server::Msg};
use tokio::sync::{mpsc, watch};

/// Most that may wait to be read, bytes.
pub(crate) const LIMIT: usize = 64 << 20;

/// The other side has gone, or the session was ended.
#[derive(Debug, thiserror::Error)]
#[error("the session is over")]
pub(crate) struct Over;

pub(crate) struct Pipe {
    input: mpsc::UnboundedReceiver<Bytes>,
    held: Arc<AtomicUsize>,
    flooded: Arc<AtomicBool>,
    output: ChannelWriteHalf<Msg>,
    alive: watch::Receiver<()>,
}

impl Pipe {
    /// Takes what comes from now on; `alive` ends it.
    pub(crate) fn new(channel: Channel<Msg>, alive: watch::Receiver<()>) -> Self {
        let (mut reader, output) = channel.split();
        let (sender, input) = mpsc::unbounded_channel();
        let (held, flooded) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let (holds, floods, mut ends) = (held.clone(), flooded.clone(), alive.clone());
        tokio::spawn(async move {
            let mut sender = Some(sender);
            loop {
                let message = tokio::select! {
                    message = reader.wait() => message,
                    _ = ends.changed() => return,
                };
                match message {
                    Some(ChannelMsg::Data { data }) => {
                        let Some(open) = &sender else { continue };
                        let full = holds.fetch_add(data.len(), Relaxed) + data.len() > LIMIT;
                        if full {
                            floods.store(true, Relaxed);
                        }
                        if full || open.send(data).is_err() {
                            sender = None;
                        }
                    }
                    Some(ChannelMsg::Eof) => sender = None,
                    Some(ChannelMsg::Close) | None => return,
                    // Read and dropped: what is not read would stop the connection.
                    Some(_) => {}
                }
            }
        });
        Self { input, held, flooded, output, alive }
    }

    /// The next piece of input; none at its end.
    pub(crate) async fn read(&mut self) -> Option<Bytes> {
        let data = tokio::select! {
            data = self.input.recv() => data?,
            _ = self.alive.changed() => return None,
        };
        self.held.fetch_sub(data.len(), Relaxed);
        Some(data)
    }

    /// Whether more than [`LIMIT`] came before it was read; the rest is lost.
    pub(crate) fn flooded(&self) -> bool {
        self.flooded.load(Relaxed)
    }

    pub(crate) async fn write(&mut self, text: &[u8]) -> Result<(), Over> {
        tokio::select! {
            written = self.output.data(text) => written.map_err(|_| Over),
            _ = self.alive.changed() => Err(Over),
        }
    }

    /// To the standard error of the other side.
    pub(crate) async fn complain(&mut self, text: &[u8]) -> Result<(), Over> {
        tokio::select! {
            written = self.output.extended_data(1, text) => written.map_err(|_| Over),
            _ = self.alive.changed() => Err(Over),
        }
    }

    /// Ends it with a status.
    pub(crate) async fn finish(self, status: u32) -> Result<(), Over> {
        let all = async {
            self.output.exit_status(status).await?;
            self.output.eof().await?;
            self.output.close().await
        };
        all.await.map_err(|_| Over)
    }
}
