//! An E1 stream towards the control point: its line on the thread of lines, and the X.25 of its data channels.

use std::{net::UdpSocket, time::Duration};

use e1::{
    channel::{self, Out, Way},
    line::Layout,
    port::{Port, frames},
};
use kit::Mailbox;
use sorm::protocol::{self, Cut, cut};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until},
};

use crate::{
    actor::{DeskMsg, desk},
    desk::Link,
    outbox::{Channel, Unit},
    point::Down,
    services::{Board, Bound, Services},
    settings,
};

const WAITING: usize = 16;

/// The actor's name for a stream.
pub fn name(stream: usize) -> String {
    format!("mediator/stream/{stream}")
}

/// The port is on the board for as long as this lives.
struct Shown(Board, usize);

impl Drop for Shown {
    fn drop(&mut self) {
        self.0.set_port(self.1, None);
    }
}

/// A data channel, and how units come to it.
struct Data {
    link: Link,
    channel: channel::Channel,
    units: mpsc::Receiver<Vec<u8>>,
    _down: Down,
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
    services.board.set_port(number, Some(port.clone()));
    let _shown = Shown(services.board.clone(), number);
    services.board.say(&name, format!("{} at {local}, the other side at {peer}", stream.mode));
    let (frames_out, mut frames_in) = frames();
    let mut line = services.lines.spawn(port.clone().run(socket, peer, frames_out, |_| {}));
    let desk = desk(&services)?;
    let begun = Instant::now();
    let mut data = Vec::new();
    if over_x25 {
        let way = Way { side: stream.mode, circuit: settings.circuit, number: settings.logical_channel };
        for which in Channel::BOTH {
            let link = Link { channel: which, stream: u8::try_from(number).unwrap_or_default() };
            let mut out = Vec::new();
            let channel = channel::Channel::new(way, Duration::ZERO, &mut out);
            let (_, units) = mpsc::channel(1);
            let mut one = Data { link, channel, units, _down: Down(desk.clone(), link) };
            one.carry_out(out, &port, &desk).await?;
            data.push(one);
        }
    }
    loop {
        let deadline = data.iter().map(|d| d.channel.deadline()).min();
        let timer = async {
            match deadline {
                Some(at) => sleep_until(begun + at).await,
                None => std::future::pending().await,
            }
        };
        let [first, second] = &mut data[..] else {
            // Without data channels the line carries speech alone.
            return ended((&mut line).await);
        };
        let (at, frame, unit) = tokio::select! {
            frame = frames_in.recv() => {
                let Some((at, frame)) = frame else { return ended((&mut line).await) };
                (Some(at), Some(frame), None)
            }
            Some(unit) = first.units.recv() => (Some(0), None, Some(unit)),
            Some(unit) = second.units.recv() => (Some(1), None, Some(unit)),
            () = timer => (None, None, None),
        };
        let now = begun.elapsed();
        for (n, one) in data.iter_mut().enumerate() {
            let mut out = Vec::new();
            if at == Some(n) {
                frame.iter().for_each(|f| one.channel.receive(f, now, &mut out));
                if let Some(unit) = &unit {
                    one.channel.send(unit, now, &mut out);
                }
            }
            one.channel.poll(now, &mut out);
            one.carry_out(out, &port, &desk).await?;
        }
    }
}

fn ended(line: Result<std::io::Result<()>, tokio::task::JoinError>) -> Result<(), String> {
    match line {
        Ok(Ok(())) => Ok(()),
        Ok(Err(e)) => Err(format!("the line has ended: {e}")),
        Err(e) => Err(format!("the line has crashed: {e}")),
    }
}

impl Data {
    async fn carry_out(&mut self, out: Vec<Out>, port: &Port, desk: &Mailbox<DeskMsg>) -> Result<(), String> {
        let link = self.link;
        for event in out {
            let msg = match event {
                Out::Frame(frame) => {
                    port.send(link.channel.index(), &frame);
                    continue;
                }
                Out::Open => {
                    let (units, waiting) = mpsc::channel(WAITING);
                    self.units = waiting;
                    DeskMsg::LinkUp(link, units)
                }
                Out::Closed => DeskMsg::LinkDown(link),
                Out::Taken => DeskMsg::Taken(link),
                Out::Unit(unit) => {
                    let whole = cut(&unit, protocol::Way::Command) == Cut::Unit(unit.len());
                    match link.channel {
                        Channel::First if whole => DeskMsg::Command(link, Unit(unit)),
                        _ => DeskMsg::Garbage(unit.len()),
                    }
                }
            };
            desk.send(msg).await.map_err(|_| "the desk is gone".to_owned())?;
        }
        Ok(())
    }
}
