//! A line's end on a UDP socket: a packet goes out each millisecond of its own clock, what comes is taken as it comes.

use std::{collections::VecDeque, io, net::SocketAddr, sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::{
    net::UdpSocket,
    sync::mpsc,
    time::{Instant, MissedTickBehavior, interval, sleep_until},
};

use crate::{
    Frame, IDLE, SLOTS,
    channel::{Channel, Out, Way},
    line::{Counters, Layout, Line, Provoke, State},
    packet::WHOLE,
};

/// Octets of speech that wait for their slot: half a second.
const WAITING: usize = 4000;
/// Octets that are gathered before a slot begins to speak: what packets of speech may come late.
const CUSHION: usize = 320;
/// Frames of data channels that wait for whoever reads them.
const FRAMES_WAITING: usize = 256;

/// A frame of a data channel, and the channel's number.
pub type Data = (usize, Vec<u8>);

/// What a line carries for others, and what it is told; clones share it.
#[derive(Clone)]
pub struct Port(Arc<Mutex<Inner>>);

struct Inner {
    line: Line,
    speech: Vec<Slot>,
    begun: Instant,
}

/// Speech for a slot.
#[derive(Default)]
struct Slot {
    waiting: VecDeque<u8>,
    speaks: bool,
}

impl Slot {
    fn next(&mut self) -> u8 {
        if !self.speaks {
            return IDLE;
        }
        self.waiting.pop_front().unwrap_or_else(|| {
            // It ran dry: it gathers anew.
            self.speaks = false;
            IDLE
        })
    }
}

impl Port {
    pub fn new(layout: Layout) -> Self {
        let speech = (0..SLOTS).map(|_| Slot::default()).collect();
        Self(Arc::new(Mutex::new(Inner {
            line: Line::new(layout, Duration::ZERO),
            speech,
            begun: Instant::now(),
        })))
    }

    /// Whether both are one.
    pub fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Speech for a time slot, in A-law.
    pub fn speak(&self, slot: usize, octets: &[u8]) {
        if let Some(slot) = self.0.lock().speech.get_mut(slot) {
            let room = WAITING.saturating_sub(slot.waiting.len());
            slot.waiting.extend(&octets[..octets.len().min(room)]);
            slot.speaks |= slot.waiting.len() >= CUSHION;
        }
    }

    /// A frame for a data channel.
    pub fn send(&self, channel: usize, frame: &[u8]) {
        self.0.lock().line.send(channel, frame);
    }

    pub fn provoke(&self, what: Provoke) {
        self.0.lock().line.provoke = what;
    }

    pub fn look(&self) -> (State, Counters) {
        let inner = self.0.lock();
        let now = inner.begun.elapsed();
        (inner.line.state(now), inner.line.counters(now))
    }

    pub fn clear(&self) {
        let mut inner = self.0.lock();
        let now = inner.begun.elapsed();
        inner.line.clear(now);
    }

    /// Carries the line until `data` is not read any more. Packets of others than the peer are not taken.
    pub async fn run(
        self,
        socket: std::net::UdpSocket,
        peer: SocketAddr,
        data: mpsc::Sender<Data>,
        mut heard: impl FnMut(&Frame),
    ) -> io::Result<()> {
        // A hiccup of the machine must not lose bits.
        socket2::SockRef::from(&socket).set_recv_buffer_size(1 << 20)?;
        socket.set_nonblocking(true)?;
        let socket = UdpSocket::from_std(socket)?;
        let mut clock = interval(Duration::from_millis(1));
        clock.set_missed_tick_behavior(MissedTickBehavior::Burst);
        let mut packet = [0; WHOLE + 1];
        loop {
            tokio::select! {
                _ = clock.tick() => {
                    let out = {
                        let mut inner = self.0.lock();
                        let now = inner.begun.elapsed();
                        let Inner { line, speech, .. } = &mut *inner;
                        line.tick(now, |slot| speech.get_mut(slot).map_or(IDLE, Slot::next))
                    };
                    if let Some(out) = out && socket.try_send_to(&out, peer).is_err() {
                        self.0.lock().line.failed();
                    }
                    if data.is_closed() {
                        return Ok(());
                    }
                }
                received = socket.recv_from(&mut packet) => {
                    // On loopback, an answer that nobody listens at the peer's is an error of the next call.
                    let Ok((length, from)) = received else { continue };
                    if from != peer {
                        continue;
                    }
                    let mut frames = Vec::new();
                    {
                        let mut inner = self.0.lock();
                        let now = inner.begun.elapsed();
                        inner.line.packet(&packet[..length], now, |channel, frame| frames.push((channel, frame)), &mut heard);
                    }
                    for frame in frames {
                        // Who reads too slowly loses frames, which the link layer asks for again.
                        if let Err(mpsc::error::TrySendError::Closed(_)) = data.try_send(frame) {
                            return Ok(());
                        }
                    }
                }
            }
        }
    }
}

/// What is told of a data channel.
#[derive(Debug)]
pub enum Told {
    /// Units can be sent, by this queue; what was on its way before is lost.
    Open(mpsc::Sender<Vec<u8>>),
    Closed,
    Unit(Vec<u8>),
    /// The oldest unit that was sent has arrived.
    Taken,
}

/// Units that wait for a channel.
const UNITS: usize = 64;

struct Talker {
    channel: Channel,
    units: mpsc::Receiver<Vec<u8>>,
}

/// X.25 in both data channels of a line, until its frames end or nobody listens. A unit for which there is no room is lost,
/// as are those of a channel that closes: [`Told::Taken`] says which have arrived.
pub async fn talk(port: Port, mut frames: mpsc::Receiver<Data>, way: Way, told: mpsc::Sender<(usize, Told)>) {
    let begun = Instant::now();
    let mut out = [Vec::new(), Vec::new()];
    let mut talkers = out
        .each_mut()
        .map(|out| Talker { channel: Channel::new(way, Duration::ZERO, out), units: mpsc::channel(1).1 });
    loop {
        for (at, out) in out.iter_mut().enumerate() {
            for event in out.drain(..) {
                let event = match event {
                    Out::Frame(frame) => {
                        port.send(at, &frame);
                        continue;
                    }
                    Out::Open => {
                        let (units, waiting) = mpsc::channel(UNITS);
                        talkers[at].units = waiting;
                        Told::Open(units)
                    }
                    Out::Closed => Told::Closed,
                    Out::Unit(unit) => Told::Unit(unit),
                    Out::Taken => Told::Taken,
                };
                if told.send((at, event)).await.is_err() {
                    return;
                }
            }
        }
        let [first, second] = &mut talkers;
        let deadline = begun + first.channel.deadline().min(second.channel.deadline());
        let now = || begun.elapsed();
        tokio::select! {
            frame = frames.recv() => match frame {
                Some((at, frame)) => {
                    if let (Some(talker), Some(out)) = (talkers.get_mut(at), out.get_mut(at)) {
                        talker.channel.receive(&frame, now(), out);
                    }
                }
                None => return,
            },
            Some(unit) = first.units.recv() => {
                first.channel.send(&unit, now(), &mut out[0]);
            }
            Some(unit) = second.units.recv() => {
                second.channel.send(&unit, now(), &mut out[1]);
            }
            () = sleep_until(deadline) => {}
            () = told.closed() => return,
        }
        for (talker, out) in talkers.iter_mut().zip(&mut out) {
            talker.channel.poll(now(), out);
        }
    }
}

/// A queue for the frames of a line's data channels.
pub fn frames() -> (mpsc::Sender<Data>, mpsc::Receiver<Data>) {
    mpsc::channel(FRAMES_WAITING)
}
