//! Bytes of messages that have begun and are not whole, over all connections: there are many, each may have begun a long
//! message, and none has to prove anything first.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    io,
    net::IpAddr,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
};

use kit::alarm::Alarms;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// All together; beyond it, a network that has more than [`FEW`] gets no more.
const ALL: usize = 16 << 20;
/// Of one network: a site's phones behind one address.
const ONE: usize = 4 << 20;
/// Two long messages: so much a network has, however much others take, until there are more of them than [`MOST`].
const FEW: usize = 128 << 10;
const MOST: usize = 32 << 20;
/// An ordinary message, for which there is always room.
const ORDINARY: usize = 8 << 10;

/// The bytes taken so far, in all and by network. Clones share it.
#[derive(Clone, Default)]
pub(super) struct Budget {
    all: Rc<Cell<usize>>,
    of: Rc<RefCell<HashMap<IpAddr, usize>>>,
}

impl Budget {
    /// The part of a new connection.
    pub(super) fn share(&self, network: IpAddr) -> Rc<Share> {
        Rc::new(Share { budget: self.clone(), network, own: Cell::new(0) })
    }
}

/// The part of one connection; it is given back with it.
pub(super) struct Share {
    budget: Budget,
    network: IpAddr,
    own: Cell<usize>,
}

impl Share {
    fn take(&self, bytes: usize) -> bool {
        let mut of = self.budget.of.borrow_mut();
        let mine = of.entry(self.network).or_default();
        let all = self.budget.all.get() + bytes;
        let wanted = *mine + bytes;
        let room = match () {
            () if wanted <= ORDINARY => true,
            () if wanted <= FEW => all <= MOST,
            () => wanted <= ONE && all <= ALL,
        };
        if !room {
            return false;
        }
        *mine += bytes;
        self.budget.all.set(all);
        self.own.set(self.own.get() + bytes);
        true
    }

    /// A message was whole.
    pub(super) fn clear(&self) {
        let own = self.own.take();
        self.budget.all.set(self.budget.all.get() - own);
        let mut of = self.budget.of.borrow_mut();
        if let Some(mine) = of.get_mut(&self.network) {
            *mine -= own;
            if *mine == 0 {
                of.remove(&self.network);
            }
        }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.clear();
    }
}

/// A connection whose bytes count; it ends where they are too many.
pub(super) struct Counted<S> {
    pub(super) stream: S,
    pub(super) share: Rc<Share>,
    pub(super) alarms: Alarms,
}

impl<S: AsyncRead + Unpin> AsyncRead for Counted<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        let came = buf.filled().len() - before;
        if came > 0 && !self.share.take(came) {
            metrics::counter!("hypha_sip_refused_total", "reason" => "unfinished").increment(1);
            kit::intake::crowded(&self.alarms, "SIP messages that are not whole", "sip");
            return Poll::Ready(Err(io::Error::other("too much of messages that are not whole")));
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Counted<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use kit::alarm::Alarms;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    fn network(n: u8) -> IpAddr {
        [10, 0, 0, n].into()
    }

    #[test]
    fn one_network_takes_its_part_and_leaves_others_theirs() {
        let budget = Budget::default();
        let greedy: Vec<_> = (0..1_000).map(|_| budget.share(network(1))).collect();
        assert_eq!(greedy.iter().filter(|s| s.take(60_000)).count(), ONE / 60_000);
        // Many of them fill it all; each network still has a little.
        let many: Vec<_> =
            (2..=100).flat_map(|n| (0..20).map(move |_| n)).map(|n| budget.share(network(n))).collect();
        assert!(many.iter().filter(|s| s.take(60_000)).count() * 60_000 <= ALL + 100 * FEW);
        let phone = budget.share(network(250));
        assert!(phone.take(60_000) && phone.take(60_000) && !phone.take(60_000));
        // Thousands of networks fill the rest; an ordinary message still passes.
        let thousands: Vec<_> =
            (0..4_000u32).map(|n| budget.share(IpAddr::from((0x0b00_0000 + n).to_be_bytes()))).collect();
        let taken = thousands.iter().filter(|s| s.take(60_000)).count();
        assert!(taken > 0 && budget.all.get() <= MOST, "{taken}");
        let late = budget.share(network(251));
        assert!(late.take(2_000) && !late.take(60_000));
        drop((greedy, many, thousands, late));
        phone.clear();
        assert!(budget.all.get() == 0 && budget.of.borrow().is_empty(), "all is given back");
    }

    #[tokio::test]
    async fn a_connection_beyond_its_part_ends_and_one_whose_messages_are_whole_goes_on() {
        let (ours, mut theirs) = tokio::io::duplex(1 << 16);
        let share = Budget::default().share(network(1));
        let mut counted =
            Counted { stream: ours, share: share.clone(), alarms: Alarms::new("n", kit::Clock::System) };
        let mut buffer = vec![0; 1 << 16];
        let piece = vec![b'x'; 1 << 16];
        for _ in 0..2 * ONE / piece.len() {
            theirs.write_all(&piece).await.expect("taken");
            counted.read_exact(&mut buffer).await.expect("read");
            share.clear();
        }
        let mut taken = 0;
        loop {
            theirs.write_all(&piece).await.expect("taken");
            if counted.read_exact(&mut buffer).await.is_err() {
                break;
            }
            taken += piece.len();
        }
        assert_eq!(taken, ONE);
    }
}
