//! Where what is heard of a call goes beside its parties: files, written by a thread of their own, and RTP to somebody who
//! listens in.

use std::{
    collections::HashMap,
    fs::File,
    io::BufWriter,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    path::{Path, PathBuf},
};

use audio_codec::{Encoder, pcma::PcmaEncoder};
use call::media;
use crossbeam::channel::{Receiver, Sender, bounded};
use kit::alarm::{Alarms, Condition, Severity};

use crate::{rtp::Packet, sound::FRAME};

/// Frames that may wait for the disk: 20 s of a hundred recordings.
const WAITING: usize = 100_000;
/// Frames between two updates of a file's header: what a crash can cost.
const HEADER: u32 = 250;

pub(crate) type Frames = Box<[[i16; FRAME]; 2]>;

#[derive(Debug)]
pub(crate) enum Page {
    Open(u64, PathBuf),
    Frames(u64, Frames),
    Close(u64),
}

/// The way to the thread that writes recordings.
#[derive(Clone)]
pub(crate) struct Recorder {
    pages: Sender<Page>,
    alarms: Alarms,
}

/// Starts that thread; it ends with the last recorder.
pub(crate) fn recorder(alarms: Alarms) -> std::io::Result<Recorder> {
    let (pages, written) = bounded(WAITING);
    let told = alarms.clone();
    std::thread::Builder::new().name("media-files".into()).spawn(move || record(&written, &told))?;
    Ok(Recorder { pages, alarms })
}

/// A part of a recording, or all of it, is lost.
fn lost(alarms: &Alarms, why: &impl ToString) {
    let lost = Condition::new("media::recording::lost", Severity::Major, "recordings");
    alarms.raise(lost.cause(why.to_string()).lasting(std::time::Duration::from_secs(600)));
}

struct Recording {
    writer: hound::WavWriter<BufWriter<File>>,
    frames: u32,
}

fn open(path: &Path) -> Result<Recording, hound::Error> {
    if let Some(directory) = path.parent() {
        std::fs::create_dir_all(directory)?;
    }
    let spec = hound::WavSpec {
        channels: 2,
        sample_rate: 8000,
        bits_per_sample: 16,
        sample_format: hound::SampleFormat::Int,
    };
    Ok(Recording { writer: hound::WavWriter::create(path, spec)?, frames: 0 })
}

impl Recording {
    fn add(&mut self, [left, right]: &[[i16; FRAME]; 2]) -> Result<(), hound::Error> {
        for (l, r) in left.iter().zip(right) {
            self.writer.write_sample(*l)?;
            self.writer.write_sample(*r)?;
        }
        self.frames += 1;
        if self.frames.is_multiple_of(HEADER) { self.writer.flush() } else { Ok(()) }
    }
}

fn record(pages: &Receiver<Page>, alarms: &Alarms) {
    let mut all: HashMap<u64, Recording> = HashMap::new();
    for page in pages {
        let (number, done) = match page {
            Page::Open(number, path) => (number, open(&path).map(|r| drop(all.insert(number, r)))),
            Page::Frames(number, frames) => match all.get_mut(&number) {
                Some(recording) => (number, recording.add(&frames)),
                None => continue,
            },
            Page::Close(number) => match all.remove(&number) {
                Some(recording) => (number, recording.writer.finalize()),
                None => continue,
            },
        };
        if let Err(e) = done {
            lost(alarms, &format!("a recording is not written: {e}"));
            all.remove(&number);
        }
    }
}

/// A stream of our own making.
pub(crate) struct Stream {
    to: SocketAddr,
    encoder: PcmaEncoder,
    ssrc: u32,
    sequence: u16,
    timestamp: u32,
    begun: bool,
}

impl Stream {
    fn new(to: SocketAddr) -> Self {
        let ssrc: u32 = rand::random();
        let (sequence, timestamp) = (ssrc as u16, ssrc.rotate_left(9));
        Self { to, encoder: PcmaEncoder::new(), ssrc, sequence, timestamp, begun: false }
    }

    fn packet(&mut self, samples: &[i16]) -> Vec<u8> {
        let payload = self.encoder.encode(samples);
        self.sequence = self.sequence.wrapping_add(1);
        self.timestamp = self.timestamp.wrapping_add(FRAME as u32);
        let marker = !std::mem::replace(&mut self.begun, true);
        let (sequence, timestamp, ssrc) = (self.sequence, self.timestamp, self.ssrc);
        Packet { marker, payload_type: 8, sequence, timestamp, ssrc, payload: &payload }.write()
    }
}

/// Where we send from: what is for this machine stays on it.
fn own(to: SocketAddr) -> IpAddr {
    match to {
        _ if to.ip().is_loopback() => to.ip(),
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    }
}

/// One listener of a session.
pub(crate) enum Sink {
    File { number: u64, recorder: Recorder },
    Rtp { socket: UdpSocket, streams: Vec<Stream> },
    Feed(call::Feed),
}

impl Sink {
    /// `number` is of this sink alone.
    pub fn new(number: u64, wanted: media::Sink, recorder: &Recorder) -> std::io::Result<Self> {
        match wanted {
            media::Sink::File(path) => {
                let full = |_| std::io::Error::from(std::io::ErrorKind::StorageFull);
                recorder.pages.try_send(Page::Open(number, path)).map_err(full)?;
                Ok(Self::File { number, recorder: recorder.clone() })
            }
            media::Sink::Feed(feed) => Ok(Self::Feed(feed)),
            media::Sink::Rtp { to, others } => {
                let socket = UdpSocket::bind(SocketAddr::new(own(to), 0))?;
                socket.set_nonblocking(true)?;
                let streams = std::iter::once(to).chain(others).map(Stream::new).collect();
                Ok(Self::Rtp { socket, streams })
            }
        }
    }

    pub fn take(&mut self, frames: Frames) {
        match self {
            Self::File { number, recorder } => {
                if recorder.pages.try_send(Page::Frames(*number, frames)).is_err() {
                    lost(&recorder.alarms, &"the disk does not keep up with the recordings");
                }
            }
            Self::Feed(feed) => {
                let [left, _] = *frames;
                // What somebody who does not keep up misses is lost.
                let _ = feed.0.try_send(Box::new(left));
            }
            Self::Rtp { socket, streams } => {
                let packets: Vec<(SocketAddr, Vec<u8>)> = match streams.as_mut_slice() {
                    [one] => {
                        let [left, right] = *frames;
                        let all: Vec<i16> =
                            left.iter().zip(&right).map(|(l, r)| l.saturating_add(*r)).collect();
                        vec![(one.to, one.packet(&all))]
                    }
                    both => both.iter_mut().zip(frames.iter()).map(|(s, f)| (s.to, s.packet(f))).collect(),
                };
                for (to, bytes) in packets {
                    // What does not fit now is lost, as packets are.
                    let _ = socket.send_to(&bytes, to);
                }
            }
        }
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        if let Self::File { number, recorder } = self {
            // Where the disk is behind, the page waits for room elsewhere: a file without its end would be cut short.
            if let Err(full) = recorder.pages.try_send(Page::Close(*number)) {
                let recorder = recorder.pages.clone();
                std::thread::spawn(move || recorder.send(full.into_inner()));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use audio_codec::{Decoder, pcma::PcmaDecoder};

    use super::*;

    /// What came to a socket, decoded.
    fn heard(socket: &UdpSocket) -> Vec<i16> {
        let mut buffer = [0; 400];
        let length = socket.recv(&mut buffer).expect("a packet");
        let packet = Packet::parse(&buffer[..length]).expect("RTP");
        assert_eq!(packet.payload_type, 8);
        PcmaDecoder::new().decode(packet.payload)
    }

    #[test]
    fn who_listens_in_gets_both_sides_apart_or_together() {
        let socket = || UdpSocket::bind("127.0.0.1:0").expect("a port");
        let (left, right) = (socket(), socket());
        let (to, others) = (left.local_addr().expect("bound"), right.local_addr().expect("bound"));
        let alarms = Alarms::new("n", kit::Clock::System);
        let recorder = recorder(alarms).expect("a thread");
        let frames = || Box::new([[8000; FRAME], [-2000; FRAME]]);
        let near =
            |samples: &[i16], wanted: i16| samples.iter().all(|s| (s - wanted).abs() < wanted.abs() / 10);
        let mut apart =
            Sink::new(1, media::Sink::Rtp { to, others: Some(others) }, &recorder).expect("a sink");
        apart.take(frames());
        assert!(near(&heard(&left), 8000) && near(&heard(&right), -2000));
        let mut together = Sink::new(2, media::Sink::Rtp { to, others: None }, &recorder).expect("a sink");
        together.take(frames());
        assert!(near(&heard(&left), 6000));
    }
}
