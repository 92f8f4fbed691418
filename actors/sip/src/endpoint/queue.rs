//! Messages that wait for the readers of streams, bounded by bytes: a peer that asks and does not read fills nothing but its share.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::Relaxed},
};

use bytes::Bytes;
use tokio::sync::mpsc;

/// Messages of one stream.
const MESSAGES: usize = 1000;
/// Bytes of one stream, and of all together.
const ONE: usize = 256 << 10;
const ALL: usize = 16 << 20;
/// So much a stream may have beyond that, up to as much again in all.
const LITTLE: usize = 8 << 10;

/// The bytes that wait, in all streams. Clones share it.
#[derive(Clone, Default)]
pub(super) struct Waiting(Arc<AtomicUsize>);

/// The end of a stream's queue that is written to.
pub(super) struct Sender {
    queue: mpsc::Sender<Bytes>,
    own: Arc<AtomicUsize>,
    all: Waiting,
}

/// The end that its task reads.
pub(super) struct Receiver {
    queue: mpsc::Receiver<Bytes>,
    own: Arc<AtomicUsize>,
    all: Waiting,
}

impl Waiting {
    /// The queue of a new stream.
    pub(super) fn queue(&self) -> (Sender, Receiver) {
        let (sender, receiver) = mpsc::channel(MESSAGES);
        let own = Arc::new(AtomicUsize::new(0));
        let sender = Sender { queue: sender, own: own.clone(), all: self.clone() };
        (sender, Receiver { queue: receiver, own, all: self.clone() })
    }
}

impl Sender {
    /// Whether there was room.
    pub(super) fn send(&self, bytes: Bytes) -> bool {
        let (length, own) = (bytes.len(), self.own.load(Relaxed) + bytes.len());
        let all = self.all.0.load(Relaxed) + length;
        let room = if own <= LITTLE { all <= 2 * ALL } else { own <= ONE && all <= ALL };
        // Counted first: the reader may be on another thread.
        self.own.fetch_add(length, Relaxed);
        self.all.0.fetch_add(length, Relaxed);
        let sent = room && self.queue.try_send(bytes).is_ok();
        if !sent {
            self.own.fetch_sub(length, Relaxed);
            self.all.0.fetch_sub(length, Relaxed);
        }
        sent
    }
}

impl Receiver {
    /// The next message; it counts until the one after it is asked for. None when nothing more will come.
    pub(super) async fn recv(&mut self) -> Option<Bytes> {
        let bytes = self.queue.recv().await?;
        self.own.fetch_sub(bytes.len(), Relaxed);
        self.all.0.fetch_sub(bytes.len(), Relaxed);
        Some(bytes)
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.queue.close();
        while let Ok(bytes) = self.queue.try_recv() {
            self.own.fetch_sub(bytes.len(), Relaxed);
            self.all.0.fetch_sub(bytes.len(), Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_does_not_read_fills_its_share_and_leaves_others_theirs() {
        let all = Waiting::default();
        let piece = || Bytes::from(vec![b'x'; 4000]);
        let mut streams: Vec<_> = (0..200).map(|_| all.queue()).collect();
        let greedy = (0..100).filter(|_| streams[0].0.send(piece())).count();
        assert_eq!(greedy, ONE / 4000);
        for (sender, _) in &streams[1..] {
            while sender.send(piece()) {}
        }
        let held = all.0.load(Relaxed);
        assert!(held <= ALL + 200 * LITTLE, "{held}");
        let (late, mut reader) = all.queue();
        assert!(late.send(piece()) && late.send(piece()) && !late.send(piece()), "a little always");
        assert!(reader.recv().await.is_some() && late.send(piece()), "what was read leaves room");
        drop((reader, late));
        streams.clear();
        assert_eq!(all.0.load(Relaxed), 0, "all is given back");
    }
}
