//! Where datagrams go: a real socket, or a network of this process, in which replays run in virtual time.

use std::{
    collections::{HashMap, VecDeque},
    io::{Error, ErrorKind, Result},
    net::SocketAddr,
    sync::{Arc, Weak},
};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::{net::UdpSocket, sync::Notify};

/// Datagrams that wait at an address of a virtual network; more are lost, as datagrams are.
const WAITING: usize = 10_000;

/// What has arrived at an address.
#[derive(Debug, Default)]
pub struct Inbox {
    queue: Mutex<VecDeque<(SocketAddr, Bytes)>>,
    arrived: Notify,
}

/// A network without sockets: datagrams arrive in the order they were sent. Clones are one network.
#[derive(Debug, Clone, Default)]
pub struct Network(Arc<Mutex<HashMap<SocketAddr, Weak<Inbox>>>>);

impl Network {
    /// Takes an address, until its port is dropped.
    pub fn open(&self, at: SocketAddr) -> Result<Port> {
        let inbox = Arc::<Inbox>::default();
        let mut all = self.0.lock();
        if all.get(&at).is_some_and(|known| known.strong_count() > 0) {
            return Err(ErrorKind::AddrInUse.into());
        }
        all.insert(at, Arc::downgrade(&inbox));
        Ok(Port::Virtual { at, network: self.clone(), inbox })
    }
}

/// One end of datagrams.
#[derive(Debug)]
pub enum Port {
    /// A socket, and whether it serves both families.
    Socket(UdpSocket, bool),
    Virtual {
        at: SocketAddr,
        network: Network,
        inbox: Arc<Inbox>,
    },
}

impl Port {
    pub fn of(socket: UdpSocket) -> Result<Self> {
        let both = socket.local_addr()?.is_ipv6();
        Ok(Self::Socket(socket, both))
    }

    pub fn local(&self) -> Result<SocketAddr> {
        match self {
            Self::Socket(socket, _) => socket.local_addr(),
            Self::Virtual { at, .. } => Ok(*at),
        }
    }

    /// Sends at once; what does not fit now is lost.
    pub fn send(&self, bytes: &Bytes, to: SocketAddr) -> Result<()> {
        match self {
            Self::Socket(socket, both) => {
                // It knows IPv4 by mapped addresses; nothing else here does.
                let to = match to {
                    SocketAddr::V4(v4) if *both => SocketAddr::from((v4.ip().to_ipv6_mapped(), v4.port())),
                    to => to,
                };
                socket.try_send_to(bytes, to).map(drop)
            }
            Self::Virtual { at, network, .. } => {
                let there = network.0.lock().get(&to).and_then(Weak::upgrade);
                let there = there.ok_or_else(|| Error::from(ErrorKind::ConnectionRefused))?;
                let mut queue = there.queue.lock();
                if queue.len() >= WAITING {
                    return Err(ErrorKind::WouldBlock.into());
                }
                queue.push_back((*at, bytes.clone()));
                there.arrived.notify_one();
                Ok(())
            }
        }
    }

    /// Waits until [`Port::take`] may have something.
    pub async fn readable(&self) -> Result<()> {
        match self {
            Self::Socket(socket, _) => socket.readable().await,
            Self::Virtual { inbox, .. } => {
                while inbox.queue.lock().is_empty() {
                    inbox.arrived.notified().await;
                }
                Ok(())
            }
        }
    }

    /// The next datagram, if one is there.
    pub fn take(&self, buffer: &mut [u8]) -> Result<(usize, SocketAddr)> {
        match self {
            Self::Socket(socket, _) => {
                let (length, from) = socket.try_recv_from(buffer)?;
                Ok((length, kit::net::canonical(from)))
            }
            Self::Virtual { inbox, .. } => {
                let (from, bytes) =
                    inbox.queue.lock().pop_front().ok_or_else(|| Error::from(ErrorKind::WouldBlock))?;
                let length = bytes.len().min(buffer.len());
                buffer[..length].copy_from_slice(&bytes[..length]);
                Ok((length, from))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn datagrams_of_a_virtual_network_arrive_in_order_or_not_at_all() {
        let network = Network::default();
        let at = |port| SocketAddr::from(([10, 0, 0, 1], port));
        let (one, two) = (network.open(at(1)).expect("free"), network.open(at(2)).expect("free"));
        assert!(network.open(at(1)).is_err());
        for text in ["a", "b"] {
            one.send(&Bytes::from(text), at(2)).expect("sent");
        }
        let mut buffer = [0; 10];
        two.readable().await.expect("something is there");
        assert_eq!(two.take(&mut buffer).expect("the first"), (1, at(1)));
        assert_eq!((two.take(&mut buffer).expect("the second"), buffer[0]), ((1, at(1)), b'b'));
        assert!(two.take(&mut buffer).is_err());
        drop(two);
        assert!(one.send(&Bytes::from("c"), at(2)).is_err() && network.open(at(2)).is_ok());
    }
}
