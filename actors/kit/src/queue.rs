//! What waits for a thread that is no actor, bounded. When the thread ends, and its receiver with it, what waits is dropped, so that
//! who waits for an answer learns of it. A bounded channel of crossbeam's keeps it for as long as somebody may still send.

use crossbeam::channel::{Receiver, Sender, unbounded};

use crate::Refused;

/// The way into a thread; clones share it.
#[derive(Debug)]
pub struct Queue<T> {
    into: Sender<T>,
    bound: usize,
}

impl<T> Clone for Queue<T> {
    fn clone(&self) -> Self {
        Self { into: self.into.clone(), bound: self.bound }
    }
}

impl<T> Queue<T> {
    /// With what the thread takes from. Who puts at the same moment may pass the bound by one each.
    pub fn new(bound: usize) -> (Self, Receiver<T>) {
        let (into, from) = unbounded();
        (Self { into, bound }, from)
    }

    /// # Errors
    /// What waits has reached the bound, or the thread has ended.
    pub fn put(&self, item: T) -> Result<(), Refused<T>> {
        if self.into.len() >= self.bound {
            return Err(Refused::Full(item));
        }
        self.into.send(item).map_err(|e| Refused::Gone(e.into_inner()))
    }

    /// How many wait.
    pub fn waiting(&self) -> usize {
        self.into.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queue_has_an_end() {
        let (queue, from) = Queue::new(2);
        assert!(queue.put(1).is_ok() && queue.put(2).is_ok());
        assert!(matches!(queue.put(3), Err(Refused::Full(3))));
        assert_eq!((queue.waiting(), from.recv()), (2, Ok(1)));
        assert!(queue.put(3).is_ok());
    }

    #[test]
    fn what_waits_for_a_thread_that_ends_is_dropped() {
        let (queue, from) = Queue::new(2);
        let (answer, answered) = tokio::sync::oneshot::channel::<()>();
        assert!(queue.put(answer).is_ok());
        drop(from);
        assert!(answered.blocking_recv().is_err());
        assert!(matches!(queue.put(tokio::sync::oneshot::channel().0), Err(Refused::Gone(_))));
    }
}
