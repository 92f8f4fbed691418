//! An E1 stream towards the control point: its line on the thread of lines, and the X.25 of its data channels.

use std::net::UdpSocket;

use e1::{
    channel::Way,
    line::Layout,
    port::{Port, Told, frames, talk},
};
use sorm::protocol::{self, Cut, cut};
use tokio::sync::mpsc;

use crate::{
    actor::{DeskMsg, desk},
    desk::Link,
    outbox::{Channel, Unit},
    point::Down,
    services::{Board, Bound, Services},
    settings,
};

/// Events of data channels that wait for the desk.
const WAITING: usize = 64;

/// The actor's name for a stream.
pub fn name(stream: usize) -> String {
    format!("mediator/stream/{stream}")
}

/// The port is on the board for as long as this lives.
struct Shown(Board, usize, Port);

impl Shown {
    fn new(board: &Board, stream: usize, port: &Port) -> Self {
        board.set_port(stream, port.clone());
        Self(board.clone(), stream, port.clone())
    }
}

impl Drop for Shown {
    fn drop(&mut self) {
        self.0.clear_port(self.1, &self.2);
    }
}

/// Carries the stream for as long as it is not told to end.
pub async fn serve(services: Services, number: usize) -> Result<(), String> {
    let (settings, name) = (services.settings.load_full(), name(number));
    let connected = settings.connected().find(|(n, ..)| *n == number);
    let Some((_, stream, local, peer)) = connected else {
        let on = settings.streams.get(number).is_some_and(|s| s.enabled);
        services.board.say(&name, if on { "it has no addresses" } else { "switched off" });
        return std::future::pending().await;
    };
    let socket = UdpSocket::bind(local).map_err(|e| format!("cannot take packets on {local}: {e}"))?;
    let local = socket.local_addr().map_err(|e| e.to_string())?;
    let _bound = Bound::new(&services.board, &name, local);
    let over_x25 = settings.link == settings::Link::X25;
    let port = Port::new(Layout { data: over_x25.then(|| settings.slots.map(usize::from)) });
    let _shown = Shown::new(&services.board, number, &port);
    services.board.say(&name, format!("{} at {local}, the other side at {peer}", stream.mode));
    let (frames_out, frames_in) = frames();
    let mut line = services.lines.spawn(port.clone().run(socket, peer, frames_out, |_| {}));
    let desk = desk(&services)?;
    if !over_x25 {
        // Without data channels the line carries speech alone.
        let _frames = frames_in;
        return ended((&mut line).await);
    }
    let way = Way { side: stream.mode, circuit: settings.circuit, number: settings.logical_channel };
    let stream = u8::try_from(number).unwrap_or_default();
    let _down = Channel::BOTH.map(|channel| Down(desk.clone(), Link { channel, stream }));
    let (tell, mut told) = mpsc::channel(WAITING);
    let listens = async {
        while let Some((at, event)) = told.recv().await {
            let channel = if at == 0 { Channel::First } else { Channel::Second };
            let link = Link { channel, stream };
            let msg = match event {
                Told::Open(units) => DeskMsg::LinkUp(link, units),
                Told::Closed => DeskMsg::LinkDown(link),
                Told::Taken => DeskMsg::Taken(link),
                Told::Unit(unit) => match (cut(&unit, protocol::Way::Command), channel) {
                    (Cut::Unit(length), Channel::First) if length == unit.len() => {
                        DeskMsg::Command(link, Unit(unit))
                    }
                    _ => DeskMsg::Garbage(unit.len()),
                },
            };
            desk.send(msg).await.map_err(|_| "the desk is gone".to_owned())?;
        }
        Ok(())
    };
    tokio::select! {
        () = talk(port, frames_in, way, tell) => ended(line.await),
        listened = listens => listened,
    }
}

fn ended(line: Result<std::io::Result<()>, tokio::task::JoinError>) -> Result<(), String> {
    match line {
        Ok(Ok(())) => Ok(()),
        Ok(Err(e)) => Err(format!("the line has ended: {e}")),
        Err(e) => Err(format!("the line has crashed: {e}")),
    }
}
