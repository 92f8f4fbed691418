//! `hypha control-point`: a control point (ПУ) to try a mediator with: commands in words come from standard input, what is
//! told goes to standard output, and what is heard in the streams' channels goes into WAV files.

use std::{
    collections::BTreeMap,
    fs::File,
    io::BufWriter,
    net::{IpAddr, SocketAddr, UdpSocket},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use audio_codec::{Decoder, pcma::PcmaDecoder};
use clap::Parser;
use e1::{
    Frame, IDLE,
    channel::Way,
    lapb::Side,
    line::{Layout, Provoke, State},
    port::{Port, Told, frames, talk},
    x25::Circuit,
};
use hound::{SampleFormat, WavSpec, WavWriter};
use parking_lot::Mutex;
use sorm::{
    point,
    protocol::{self, Command, Cut, Event, Password, Reply, Request, Way as Heading, cut},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::mpsc,
    time::{Instant, interval, sleep, timeout},
};

type Error = Box<dyn std::error::Error>;

const HELP: &str = "\
raw HEX                          sends bytes as they are on the first data channel
line STREAM work|los|ais|rai|lomf
                                 what our end of a stream does; each is an alarm at the other one
help, quit";
/// How long commands may take once there are no more.
const PATIENCE: Duration = Duration::from_secs(30);
/// Between two looks at the lines.
const LOOK: Duration = Duration::from_millis(100);
/// Between two tries of a connection.
const AGAIN: Duration = Duration::from_millis(500);

#[derive(Parser, Clone)]
pub struct Options {
    /// The mediator's address, where its link is TCP.
    #[arg(long, required_unless_present = "stream")]
    tcp: Option<IpAddr>,
    /// Its ports for the first and the second data channel.
    #[arg(long, value_parser = two::<u16>, default_value = "1001,1002")]
    ports: [u16; 2],
    /// An E1 stream: the address of our end and that of the mediator's, LOCAL=PEER; once for each stream, from 0 on.
    #[arg(long, value_parser = ends)]
    stream: Vec<(SocketAddr, SocketAddr)>,
    /// Our side of X.25: the other than the mediator's.
    #[arg(long, default_value = "dce")]
    mode: Side,
    /// How the data channels are reached: pvc or svc.
    #[arg(long, default_value = "pvc")]
    circuit: Circuit,
    /// Number of their logical channels.
    #[arg(long, default_value_t = 1)]
    logical_channel: u16,
    /// Time slots of the data channels.
    #[arg(long, value_parser = two::<usize>, default_value = "30,31")]
    slots: [usize; 2],
    /// Directory for what is heard: STREAM-SLOT.wav from the first sound on.
    #[arg(long)]
    record: Option<PathBuf>,
    /// Number of the station's interception equipment.
    #[arg(long, default_value_t = 1)]
    sorm: u8,
    /// File with the password of commands, six digits; without one, 123456.
    #[arg(long)]
    password_file: Option<PathBuf>,
    /// Stay when standard input has ended, until interrupted.
    #[arg(long)]
    stay: bool,
}

fn ends(text: &str) -> Result<(SocketAddr, SocketAddr), String> {
    let (local, peer) = text.split_once('=').ok_or("a stream is LOCAL=PEER")?;
    let address = |a: &str| a.parse().map_err(|_| format!("{a:?} is no ADDRESS:PORT"));
    Ok((address(local)?, address(peer)?))
}

fn two<T: std::str::FromStr>(text: &str) -> Result<[T; 2], String> {
    let numbers = text.split_once(',').and_then(|(a, b)| Some([a.parse().ok()?, b.parse().ok()?]));
    numbers.ok_or_else(|| "two numbers are wanted, such as 1,2".to_owned())
}

/// What comes from outside.
enum Heard {
    Up(usize, usize),
    Down(usize, usize),
    Unit(usize, Vec<u8>),
    Line(String),
    End,
}

type Inbox = mpsc::Sender<Heard>;

/// Runs until it is told to quit, or its input ends and all is answered.
pub fn run(options: &Options) -> Result<(), Error> {
    let password = match &options.password_file {
        None => Password::FIRST,
        Some(file) => password_of(std::fs::read_to_string(file)?.trim())
            .ok_or_else(|| format!("{} does not hold six digits", file.display()))?,
    };
    if let Some(dir) = &options.record {
        std::fs::create_dir_all(dir).map_err(|e| format!("cannot make {}: {e}", dir.display()))?;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(serve(options, password))
}

fn password_of(text: &str) -> Option<Password> {
    text.as_bytes().try_into().ok().filter(|p: &[u8; 6]| p.iter().all(u8::is_ascii_digit)).map(Password)
}

/// Where units go: a queue for each link that is up.
type Links = Arc<Mutex<BTreeMap<(usize, usize), mpsc::Sender<Vec<u8>>>>>;

async fn serve(options: &Options, mut password: Password) -> Result<(), Error> {
    let (inbox, mut heard) = mpsc::channel(256);
    let links = Links::default();
    let mut ports = Vec::new();
    for (number, (local, peer)) in options.stream.iter().enumerate() {
        let data = options.tcp.is_none().then_some(options.slots);
        let port = Port::new(Layout { data });
        let socket = UdpSocket::bind(local).map_err(|e| format!("cannot take packets on {local}: {e}"))?;
        ports.push(port.clone());
        tokio::spawn(stream(options.clone(), number, port, socket, *peer, inbox.clone(), links.clone()));
    }
    if let Some(address) = options.tcp {
        for channel in [0, 1] {
            let at = SocketAddr::new(address, options.ports[channel]);
            tokio::spawn(connect(channel, at, inbox.clone(), links.clone()));
        }
    }
    let lines = inbox.clone();
    std::thread::spawn(move || read_lines(&lines));
    let (mut states, mut looks) = (vec![State::Off; ports.len()], interval(LOOK));
    // Commands that were typed before there was a link, and those that are not answered yet.
    let (mut waiting, mut open, mut ending) = (Vec::<Vec<u8>>::new(), Vec::<Command>::new(), None);
    loop {
        let first_up = links.lock().keys().any(|(channel, _)| *channel == 0);
        if first_up {
            for unit in waiting.drain(..) {
                send(&links, unit);
            }
        }
        if let Some(deadline) = ending
            && (open.is_empty() && waiting.is_empty() || Instant::now() > deadline)
        {
            return if open.is_empty() && waiting.is_empty() {
                Ok(())
            } else {
                Err("not all was answered".into())
            };
        }
        let event = tokio::select! {
            event = heard.recv() => event,
            _ = looks.tick() => {
                for (number, (port, state)) in ports.iter().zip(&mut states).enumerate() {
                    let now = port.look().0;
                    if *state != now {
                        println!("stream {number} {now}");
                        *state = now;
                    }
                }
                continue;
            }
        };
        match event {
            None | Some(Heard::End) if !options.stay => ending = Some(Instant::now() + PATIENCE),
            None | Some(Heard::End) => {}
            Some(Heard::Up(channel, stream)) => println!("channel {} of stream {stream} up", channel + 1),
            Some(Heard::Down(channel, stream)) => println!("channel {} of stream {stream} down", channel + 1),
            Some(Heard::Unit(channel, unit)) => {
                let (text, answered) = shown(channel, &unit);
                println!("{} {text}", channel + 1);
                if let Some((code, good)) = answered
                    && let Some(at) = open.iter().position(|c| c.code() == code)
                    && let Command::SetPassword(new) = open.remove(at)
                    && good
                {
                    password = new;
                }
            }
            Some(Heard::Line(line)) => match line.split_whitespace().collect::<Vec<_>>()[..] {
                [] => {}
                ["quit"] => return Ok(()),
                ["help"] => println!("{}\n{HELP}", point::HELP),
                ["raw", digits] => match hex::decode(digits) {
                    Ok(bytes) => waiting.push(bytes),
                    Err(_) => println!("error those are no hexadecimal digits"),
                },
                ["line", number, what] => {
                    let port = number.parse().ok().and_then(|n: usize| ports.get(n));
                    match (port, what.parse::<Provoke>()) {
                        (Some(port), Ok(what)) => port.provoke(what),
                        _ => println!("error line wants a stream and what it shall do; help shows all"),
                    }
                }
                _ => match point::parse(&line) {
                    Ok(command) => {
                        let request = Request {
                            sorm: options.sorm,
                            password: password.clone(),
                            command: command.clone(),
                        };
                        waiting.push(request.to_bytes());
                        open.push(command);
                    }
                    Err(e) => println!("error {e}"),
                },
            },
        }
    }
}

fn send(links: &Links, unit: Vec<u8>) {
    let links = links.lock();
    let first = links.iter().find(|((channel, _), _)| *channel == 0);
    if first.is_none_or(|(_, link)| link.try_send(unit).is_err()) {
        println!("error the data channel takes nothing now");
    }
}

/// A unit in words; of an answer that ends a command, its code and whether it was carried out.
fn shown(channel: usize, unit: &[u8]) -> (String, Option<(u8, bool)>) {
    if channel == 1 {
        let text =
            Event::read(unit).map_or_else(|e| format!("{e}: {}", hex::encode(unit)), |e| point::event(&e));
        return (text, None);
    }
    match Reply::read(unit) {
        Ok(reply) => {
            let ends = match reply.told {
                protocol::Told::Received { command, status } if status != 0 => Some((command, false)),
                protocol::Told::Done { command, status } => Some((command, status == 0)),
                _ => None,
            };
            (point::told(&reply.told), ends)
        }
        Err(e) => (format!("{e}: {}", hex::encode(unit)), None),
    }
}

/// On a thread of its own, which only another line would end.
fn read_lines(inbox: &Inbox) {
    for line in std::io::stdin().lines().map_while(Result::ok) {
        if inbox.blocking_send(Heard::Line(line)).is_err() {
            return;
        }
    }
    let _ = inbox.blocking_send(Heard::End);
}

/// A data channel over TCP, called until it is there, and again.
async fn connect(channel: usize, at: SocketAddr, inbox: Inbox, links: Links) {
    loop {
        if let Ok(Ok(stream)) = timeout(AGAIN, TcpStream::connect(at)).await {
            let (units, waiting) = mpsc::channel(64);
            links.lock().insert((channel, 0), units);
            let _ = inbox.send(Heard::Up(channel, 0)).await;
            let _ = over_tcp(channel, stream, waiting, &inbox).await;
            links.lock().remove(&(channel, 0));
            let _ = inbox.send(Heard::Down(channel, 0)).await;
        }
        if inbox.is_closed() {
            return;
        }
        sleep(AGAIN).await;
    }
}

async fn over_tcp(
    channel: usize,
    stream: TcpStream,
    mut waiting: mpsc::Receiver<Vec<u8>>,
    inbox: &Inbox,
) -> std::io::Result<()> {
    let (mut read, mut write) = stream.into_split();
    let heading = if channel == 0 { Heading::Reply } else { Heading::Event };
    let mut held = Vec::new();
    loop {
        tokio::select! {
            unit = waiting.recv() => match unit {
                Some(unit) => write.write_all(&unit).await?,
                None => return Ok(()),
            },
            length = read.read_buf(&mut held) => {
                if length? == 0 {
                    return Ok(());
                }
                loop {
                    let length = match cut(&held, heading) {
                        Cut::More => break,
                        Cut::Unit(length) | Cut::Garbage(length) => length,
                    };
                    let unit = held.drain(..length).collect();
                    if inbox.send(Heard::Unit(channel, unit)).await.is_err() {
                        return Ok(());
                    }
                }
            }
        }
    }
}

/// Writes each channel of a stream into a file of its own, from the first sound on.
struct Recorder {
    stream: usize,
    dir: PathBuf,
    slots: BTreeMap<usize, WavWriter<BufWriter<File>>>,
    not: Vec<usize>,
    frames: u32,
}

impl Recorder {
    fn take(&mut self, frame: &Frame) {
        self.frames += 1;
        for (slot, octet) in frame.iter().enumerate().skip(1).filter(|(slot, _)| !self.not.contains(slot)) {
            if *octet != IDLE && !self.slots.contains_key(&slot) {
                let spec = WavSpec {
                    channels: 1,
                    sample_rate: 8000,
                    bits_per_sample: 16,
                    sample_format: SampleFormat::Int,
                };
                match WavWriter::create(self.dir.join(file(self.stream, slot)), spec) {
                    Ok(mut writer) => {
                        let _ = writer.flush();
                        self.slots.insert(slot, writer);
                    }
                    Err(e) => return eprintln!("cannot record: {e}"),
                }
            }
        }
        let mut decoder = PcmaDecoder::new();
        for (slot, writer) in &mut self.slots {
            for sample in decoder.decode(&frame[*slot..=*slot]) {
                let _ = writer.write_sample(sample);
            }
            // Whoever looks finds whole files.
            if self.frames.is_multiple_of(e1::RATE / 2) {
                let _ = writer.flush();
            }
        }
    }
}

fn file(stream: usize, slot: usize) -> String {
    format!("{stream}-{slot}.wav")
}

fn recorder(options: &Options, stream: usize, dir: &Path) -> Recorder {
    let not = if options.tcp.is_none() { options.slots.to_vec() } else { Vec::new() };
    Recorder { stream, dir: dir.to_owned(), slots: BTreeMap::new(), not, frames: 0 }
}

/// A stream with its two data channels.
async fn stream(
    options: Options,
    number: usize,
    port: Port,
    socket: UdpSocket,
    peer: SocketAddr,
    inbox: Inbox,
    links: Links,
) {
    let (frames_out, mut frames_in) = frames();
    let mut record = options.record.as_deref().map(|dir| recorder(&options, number, dir));
    let heard = move |frame: &Frame| {
        if let Some(record) = &mut record {
            record.take(frame);
        }
    };
    tokio::spawn(port.clone().run(socket, peer, frames_out, heard));
    if options.tcp.is_some() {
        // Speech alone; the queue is held so that the line goes on.
        while frames_in.recv().await.is_some() {}
        return;
    }
    let way = Way { side: options.mode, circuit: options.circuit, number: options.logical_channel };
    let (tell, mut told) = mpsc::channel(64);
    tokio::spawn(talk(port, frames_in, way, tell));
    while let Some((at, event)) = told.recv().await {
        let key = (at, number);
        let heard = match event {
            Told::Open(units) => {
                links.lock().insert(key, units);
                Heard::Up(at, number)
            }
            Told::Closed => {
                links.lock().remove(&key);
                Heard::Down(at, number)
            }
            Told::Unit(unit) => Heard::Unit(at, unit),
            Told::Taken => continue,
        };
        let _ = inbox.send(heard).await;
    }
}
