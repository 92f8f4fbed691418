//! The control point over TCP: a port for each data channel, one connection at a time.

use std::{net::SocketAddr, time::Duration};

use kit::Mailbox;
use socket2::{SockRef, TcpKeepalive};
use sorm::protocol::{Cut, Way, cut};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::mpsc,
};

use crate::{
    actor::{DeskMsg, desk},
    desk::Link,
    outbox::{Channel, Unit},
    services::{Bound, Services},
    settings::{self, Settings},
};

/// Units on their way to a connection.
const WAITING: usize = 16;
/// How long the other side may leave a message in our buffers.
const PATIENCE: Duration = Duration::from_secs(30);
/// Silence after which it is asked whether it is there, and between two questions.
const SILENCE: Duration = Duration::from_secs(10);
/// Where the system has no more sockets.
const PAUSE: Duration = Duration::from_millis(100);

/// The actor's name for a data channel.
pub fn name(channel: Channel) -> String {
    format!("mediator/point/{}", channel.index() + 1)
}

/// Takes connections for as long as it is not told to end.
pub async fn serve(services: Services, channel: Channel) -> Result<(), String> {
    let (settings, name) = (services.settings.load_full(), name(channel));
    if settings.link != settings::Link::Tcp {
        services.board.say(&name, format!("the link is {}", settings.link));
        return std::future::pending().await;
    }
    let at = SocketAddr::new(settings.listen_address, settings.tcp_ports[channel.index()]);
    let listener = TcpListener::bind(at).await.map_err(|e| format!("cannot listen on {at}: {e}"))?;
    let local = listener.local_addr().map_err(|e| e.to_string())?;
    let _bound = Bound::new(&services.board, &name, local);
    tracing::info!(%local, channel = channel.index() + 1, "listening for the control point");
    let desk = desk(&services)?;
    let mut next = None;
    loop {
        services.board.say(&name, format!("listening on {local}"));
        let (stream, peer) = match next.take() {
            Some(arrived) => arrived,
            None => admitted(&listener, &settings).await,
        };
        services.board.say(&name, format!("connected with {peer}"));
        let link = Link { channel, stream: 0 };
        let _down = Down(desk.clone(), link);
        tokio::select! {
            ended = talk(stream, &desk, link) => if let Err(e) = ended {
                tracing::info!(%peer, error = %e, "the control point's connection has ended");
            },
            // One that was started anew may have left a connection that nobody ends.
            arrived = admitted(&listener, &settings) => {
                tracing::warn!(peer = %arrived.1, "the control point is here anew; its earlier connection is given up");
                next = Some(arrived);
            }
        }
    }
}

/// The next connection of the control point; others are sent away.
async fn admitted(listener: &TcpListener, settings: &Settings) -> (TcpStream, SocketAddr) {
    loop {
        match listener.accept().await {
            Ok((stream, peer)) if settings.admits(peer.ip()) => return (stream, peer),
            Ok((_, peer)) => tracing::warn!(%peer, "somebody who is not the control point was sent away"),
            Err(e) => {
                tracing::warn!(error = %e, "no connection can be taken now");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

/// A link goes down when whoever carries it ends.
pub struct Down(pub Mailbox<DeskMsg>, pub Link);

impl Drop for Down {
    fn drop(&mut self) {
        let _ = self.0.tell(DeskMsg::LinkDown(self.1));
    }
}

async fn talk(stream: TcpStream, desk: &Mailbox<DeskMsg>, link: Link) -> Result<(), String> {
    let text = |e: std::io::Error| e.to_string();
    stream.set_nodelay(true).map_err(text)?;
    // One that is gone without a word is missed.
    let alive = TcpKeepalive::new().with_time(SILENCE).with_interval(SILENCE).with_retries(3);
    SockRef::from(&stream).set_tcp_keepalive(&alive).map_err(text)?;
    let (mut read, mut write) = stream.into_split();
    let (units, mut waiting) = mpsc::channel::<Vec<u8>>(WAITING);
    let gone = |_| "the desk is gone".to_owned();
    desk.send(DeskMsg::LinkUp(link, units)).await.map_err(gone)?;
    let writes = async {
        while let Some(unit) = waiting.recv().await {
            tokio::time::timeout(PATIENCE, write.write_all(&unit))
                .await
                .map_err(|_| "it takes nothing any more".to_owned())?
                .map_err(text)?;
            desk.send(DeskMsg::Taken(link)).await.map_err(gone)?;
        }
        Ok(())
    };
    let reads = async {
        let mut held = Vec::new();
        loop {
            let length = read.read_buf(&mut held).await.map_err(text)?;
            if length == 0 {
                return Ok(());
            }
            // The second channel has no way back; what comes there is not looked at.
            if link.channel == Channel::Second {
                desk.send(DeskMsg::Garbage(length)).await.map_err(gone)?;
                held.clear();
            }
            loop {
                let msg = match cut(&held, Way::Command) {
                    Cut::More => break,
                    Cut::Unit(length) => DeskMsg::Command(link, Unit(held.drain(..length).collect())),
                    Cut::Garbage(length) => {
                        held.drain(..length);
                        DeskMsg::Garbage(length)
                    }
                };
                desk.send(msg).await.map_err(gone)?;
            }
        }
    };
    tokio::select! {
        ended = writes => ended,
        ended = reads => ended,
    }
}
