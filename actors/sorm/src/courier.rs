//! Packets to mediators over UDP.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use futures::future::{BoxFuture, FutureExt};
use kit::Secret;
use parking_lot::Mutex;
use tokio::{net::UdpSocket, time::timeout};

use crate::{
    intercept::{Courier, radius},
    settings::Mediator,
};

/// Waits for an answer, each longer than the last (RFC 5080, 2.2.1); then it is tried anew, with the settings of then.
const WAITS: [Duration; 4] =
    [Duration::from_millis(500), Duration::from_secs(1), Duration::from_secs(2), Duration::from_secs(4)];

/// Sends and waits; a packet that got no answer is sent again as it is.
pub struct Datagrams;

impl Courier for Datagrams {
    fn bring(&self, to: Mediator, packet: Vec<u8>, secret: Secret<String>) -> BoxFuture<'static, bool> {
        async move { bring(to.0, &packet, &secret).await.unwrap_or(false) }.boxed()
    }
}

/// Mediators of a replay: they take what is brought at once, and show it in order.
#[derive(Clone, Default)]
pub struct Collected(Arc<Mutex<Vec<(Mediator, radius::Received)>>>);

impl Collected {
    /// What has been brought since it was asked last.
    pub fn take(&self) -> Vec<(Mediator, radius::Received)> {
        std::mem::take(&mut self.0.lock())
    }
}

impl Courier for Collected {
    fn bring(&self, to: Mediator, packet: Vec<u8>, secret: Secret<String>) -> BoxFuture<'static, bool> {
        let received = radius::read(&packet, &secret);
        let taken = received.is_some();
        self.0.lock().extend(received.map(|r| (to, r)));
        futures::future::ready(taken).boxed()
    }
}

async fn bring(to: SocketAddr, packet: &[u8], secret: &Secret<String>) -> std::io::Result<bool> {
    let any: SocketAddr = if to.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0u16; 8], 0).into() };
    let socket = UdpSocket::bind(any).await?;
    // Connected: what others send does not arrive.
    socket.connect(to).await?;
    let mut answer = vec![0; radius::MOST];
    for wait in WAITS {
        socket.send(packet).await?;
        let heard = timeout(wait, async {
            loop {
                let length = socket.recv(&mut answer).await?;
                if radius::answers(&answer[..length], packet, secret) {
                    return std::io::Result::Ok(());
                }
            }
        });
        match heard.await {
            Ok(Ok(())) => return Ok(true),
            // Nobody listens there yet.
            Ok(Err(_)) => tokio::time::sleep(wait).await,
            Err(_) => {}
        }
    }
    Ok(false)
}
