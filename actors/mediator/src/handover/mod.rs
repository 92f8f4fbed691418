//! The handover to agencies elsewhere (ETSI TS 102 232-1 style, over TLS): events wait for it in the outbox as they do for a
//! control point, and go again until the other side has answered a keep-alive behind them; content goes as it comes.

pub mod pdu;

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use chrono::{DateTime, Utc};
use kit::{journal::Origin, ledger};
use parking_lot::Mutex;
use serde_json::json;
use sorm::{
    audit::Entry,
    protocol::{Digits, Event, Party, Reply, Said, Told},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::mpsc,
    time::{Instant, sleep_until, timeout},
};
use tokio_rustls::{
    TlsConnector,
    rustls::{
        ClientConfig, RootCertStore,
        pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
    },
};

use crate::{
    outbox::{self, Channel, Communication, OutboxBook, OutboxCommand},
    services::Services,
    settings::Settings,
};
use pdu::{IriType, Payload, Pdu, Sender, cut};

pub const NAME: &str = "mediator/handover";
/// How long a connection, or what is written, may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// Packets of content that wait; further ones are lost, and counted.
const WAITING: usize = 2048;
/// Events that are written before a keep-alive asks for them.
const BATCH: u64 = 64;

/// A packet of content on its way.
pub struct Content {
    of: Communication,
    at: DateTime<Utc>,
    packet: Vec<u8>,
}

/// Where packets of content go, and the numbers of PDUs; clones share it.
#[derive(Clone, Default)]
pub struct Tap(Arc<Tapped>);

#[derive(Default)]
struct Tapped {
    queue: Mutex<Option<mpsc::Sender<Content>>>,
    /// Numbers of the next PDUs of each communication.
    numbers: Mutex<BTreeMap<(String, Option<u32>), Numbers>>,
}

#[derive(Default)]
struct Numbers {
    events: u32,
    content: u32,
}

impl Tap {
    /// Takes a packet of speech, where it is of a communication and somebody wants it; `false` where it was lost.
    pub fn hear(
        &self,
        of: Option<Communication>,
        rtp: &[u8],
        [from, to]: [SocketAddr; 2],
        at: DateTime<Utc>,
    ) -> bool {
        let queue = self.0.queue.lock();
        let (Some(queue), Some(of)) = (queue.as_ref(), of) else { return true };
        let Some(packet) = ip_packet(rtp, from, to) else { return true };
        queue.try_send(Content { of, at, packet }).is_ok()
    }

    fn listen(&self, queue: mpsc::Sender<Content>) -> Listening {
        *self.0.queue.lock() = Some(queue.clone());
        Listening(self.clone(), queue)
    }

    fn number(&self, liid: &str, cin: Option<u32>, of: fn(&mut Numbers) -> &mut u32) -> u32 {
        let mut numbers = self.0.numbers.lock();
        let next = of(numbers.entry((liid.to_owned(), cin)).or_default());
        let number = *next;
        *next = next.wrapping_add(1);
        number
    }

    /// A communication that has ended begins anew with its number's next use.
    fn ended(&self, liid: &str, cin: Option<u32>) {
        self.0.numbers.lock().remove(&(liid.to_owned(), cin));
    }

    fn is_new(&self) -> bool {
        self.0.numbers.lock().is_empty()
    }
}

fn liid(object: u16, settings: &Settings) -> String {
    format!("{}{object}", settings.liid_prefix)
}

/// The sum of the internet's protocols (RFC 1071).
fn sum(octets: &[u8]) -> u16 {
    let word = |w: &[u8]| u32::from(w[0]) << 8 | u32::from(w.get(1).copied().unwrap_or(0));
    let mut sum: u32 = octets.chunks(2).map(word).sum();
    while sum > 0xFFFF {
        sum = (sum & 0xFFFF) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or_default()
}

/// RTP in UDP in IP, as the standard's ipFrame wants it.
fn ip_packet(rtp: &[u8], from: SocketAddr, to: SocketAddr) -> Option<Vec<u8>> {
    const UDP: u8 = 17;
    const HOPS: u8 = 64;
    let length = u16::try_from(rtp.len() + 8).ok()?;
    let mut udp: Vec<u8> = [from.port(), to.port(), length, 0].iter().flat_map(|w| w.to_be_bytes()).collect();
    udp.extend(rtp);
    let (mut packet, ends) = match (from.ip(), to.ip()) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let ends = [source.octets(), destination.octets()].concat();
            let [high, low] = length.checked_add(20)?.to_be_bytes();
            let mut header = vec![0x45, 0, high, low, 0, 0, 0x40, 0, HOPS, UDP, 0, 0];
            header.extend(&ends);
            let check = sum(&header);
            header[10..12].copy_from_slice(&check.to_be_bytes());
            (header, ends)
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            let ends = [source.octets(), destination.octets()].concat();
            let [high, low] = length.to_be_bytes();
            let mut header = vec![0x60, 0, 0, 0, high, low, UDP, HOPS];
            header.extend(&ends);
            (header, ends)
        }
        _ => return None,
    };
    // With the addresses, the protocol and the length before it.
    let pseudo = [&ends[..], &[0, UDP], &length.to_be_bytes(), &udp].concat();
    let check = match sum(&pseudo) {
        0 => 0xFFFF,
        check => check,
    };
    udp[6..8].copy_from_slice(&check.to_be_bytes());
    packet.extend(udp);
    Some(packet)
}

fn party(party: &Party) -> serde_json::Value {
    let number = |n: &Digits| if n.is_empty() { None } else { Some(n.reveal()) };
    json!({ "number": number(&party.number), "sign": party.sign })
}

/// An event for the agency: what it is, and its contents, which `docs/sorm.md` describes. Nothing for answers to tests.
fn iri(unit: &[u8], settings: &Settings) -> Option<(String, Option<u32>, IriType, Vec<u8>)> {
    let hex = hex::encode(unit);
    if let Ok(Event::Call { call, object, attribute, event, .. }) = Event::read(unit) {
        let kind = match event.said {
            Said::Number => IriType::Begin,
            Said::Release => IriType::End,
            _ => IriType::Continue,
        };
        let contents = json!({
            "event": event.said, "calling": party(&event.calling), "called": party(&event.called),
            "direction": attribute, "operation": event.operation.0, "service": event.service, "trunk": event.trunk,
            "unit": hex,
        });
        return Some((liid(object, settings), Some(call.into()), kind, contents.to_string().into_bytes()));
    }
    let Ok(Reply { told: Told::Text(text), .. }) = Reply::read(unit) else { return None };
    let contents = json!({
        "event": "text", "sender": party(&text.sender), "receiver": party(&text.receiver), "unit": hex,
    });
    Some((liid(text.object, settings), None, IriType::Report, contents.to_string().into_bytes()))
}

/// What goes to whom; files are read at each connection.
fn connector(settings: &Settings) -> Result<TlsConnector, String> {
    let file = |path: &str, e: &dyn std::fmt::Display| format!("{path}: {e}");
    let mut roots = RootCertStore::empty();
    let ca = &settings.handover_ca;
    for certificate in CertificateDer::pem_file_iter(ca).map_err(|e| file(ca, &e))? {
        roots.add(certificate.map_err(|e| file(ca, &e))?).map_err(|e| file(ca, &e))?;
    }
    let config = ClientConfig::builder().with_root_certificates(roots);
    let (chain, key) = (&settings.handover_certificate, &settings.handover_key);
    let config = if chain == "-" {
        config.with_no_client_auth()
    } else {
        let certificates = CertificateDer::pem_file_iter(chain).map_err(|e| file(chain, &e))?;
        let certificates: Result<Vec<_>, _> = certificates.collect();
        let secret = PrivateKeyDer::from_pem_file(key).map_err(|e| file(key, &e))?;
        config
            .with_client_auth_cert(certificates.map_err(|e| file(chain, &e))?, secret)
            .map_err(|e| e.to_string())?
    };
    Ok(TlsConnector::from(Arc::new(config)))
}

/// Content is taken for as long as this lives, or by whoever listens since.
struct Listening(Tap, mpsc::Sender<Content>);

impl Drop for Listening {
    fn drop(&mut self) {
        let mut queue = self.0.0.queue.lock();
        if queue.as_ref().is_some_and(|q| q.same_channel(&self.1)) {
            *queue = None;
        }
    }
}

/// Hands over for as long as the connection lasts.
pub async fn serve(services: Services) -> Result<(), String> {
    let settings = services.settings.load_full();
    let Some(at) = settings.handover else {
        services.board.say(NAME, "it has no address");
        return std::future::pending().await;
    };
    let name = ServerName::try_from(settings.handover_name.clone())
        .map_err(|_| "handover_name is no name of a server".to_owned())?;
    let connector = connector(&settings)?;
    services.board.say(NAME, format!("connecting to {at}"));
    let text = |e: std::io::Error| format!("{at}: {e}");
    let connected = timeout(PATIENCE, async { connector.connect(name, TcpStream::connect(at).await?).await });
    let stream = connected.await.map_err(|_| format!("{at} does not answer"))?.map_err(text)?;
    services.board.say(NAME, format!("connected with {at}"));
    services.audit.write(Entry::new("", "agency", "handover connected", json!({ "at": at })));
    let (queue, mut content) = mpsc::channel(WAITING);
    let _listening = services.tap.listen(queue);
    let (mut read, write) = tokio::io::split(stream);
    let mut out = Out { services: &services, settings: &settings, write };
    if services.tap.is_new() {
        out.tri(Payload::CinReset, 0).await?;
    }
    let keep_alive = Duration::from_secs(settings.keep_alive.into());
    let mut changed = services.changed.subscribe();
    // The next event to go, the keep-alive that is not answered yet with what it asks for, and what was read.
    let mut next = services.kept.load().range(Channel::Handover).start;
    let (mut asked, mut asks, mut held): (Option<(u32, u64)>, u32, Vec<u8>) = (None, 0, Vec::new());
    let mut deadline = Instant::now() + keep_alive;
    let told = |before: u64| {
        let (node, audit) = (services.node.clone(), services.audit.clone());
        async move {
            audit.write(Entry::new("", "agency", "delivered", json!({ "before": before })));
            let command = OutboxCommand::Gone { channel: Channel::Handover, before };
            let told = ledger::change_at::<OutboxBook>(&node, outbox::NAME, command, Origin::system()).await;
            told.map(drop).map_err(|e| e.to_string())
        }
    };
    loop {
        let kept = services.kept.load_full();
        let first = next;
        while asked.is_none()
            && next < first + BATCH
            && let Some(unit) = kept.unit(Channel::Handover, next)
        {
            out.event(&unit.0).await?;
            next += 1;
        }
        if next > first {
            if keep_alive.is_zero() {
                told(next).await?;
                continue;
            }
            deadline = Instant::now();
        }
        // Behind events at once, otherwise in its time. What is before it has arrived when it is answered.
        if asked.is_none() && !keep_alive.is_zero() && deadline <= Instant::now() {
            asks = asks.wrapping_add(1);
            out.tri(Payload::KeepAlive, asks).await?;
            (asked, deadline) = (Some((asks, next)), Instant::now() + keep_alive);
        }
        tokio::select! {
            changed = changed.changed() => changed.map_err(|_| "the outbox is gone".to_owned())?,
            Some(packet) = content.recv() => out.content(packet).await?,
            length = read.read_buf(&mut held) => {
                if length.map_err(text)? == 0 {
                    return Err(format!("{at} has ended the connection"));
                }
                while let Some(length) = cut(&held).map_err(|e| format!("{at}: {e}"))? {
                    let pdu: Vec<u8> = held.drain(..length).collect();
                    let Ok(Pdu { payload, sequence, .. }) = Pdu::read(&pdu) else { continue };
                    match payload {
                        Payload::KeepAlive => out.tri(Payload::KeepAliveResponse, sequence).await?,
                        Payload::KeepAliveResponse if asked.is_some_and(|(ask, _)| ask == sequence) => {
                            let before = asked.take().map_or(next, |(_, before)| before);
                            deadline = Instant::now() + keep_alive;
                            told(before).await?;
                        }
                        _ => {}
                    }
                }
            }
            () = sleep_until(deadline), if !keep_alive.is_zero() => if asked.is_some() {
                return Err(format!("{at} does not answer keep-alives"));
            }
        }
    }
}

struct Out<'s, W> {
    services: &'s Services,
    settings: &'s Settings,
    write: W,
}

impl<W: AsyncWriteExt + Unpin> Out<'_, W> {
    async fn send(&mut self, pdu: &Pdu) -> Result<(), String> {
        let sender = Sender {
            country: self.settings.country.clone(),
            operator: self.settings.operator.clone(),
            network_element: self.settings.network_element.clone(),
        };
        let der = pdu.to_der(&sender);
        let written = timeout(PATIENCE, async {
            self.write.write_all(&der).await?;
            self.write.flush().await
        });
        written.await.map_err(|_| "the agency takes nothing any more".to_owned())?.map_err(|e| e.to_string())
    }

    async fn tri(&mut self, payload: Payload, sequence: u32) -> Result<(), String> {
        let at = stamp(self.services.node.clock().now());
        // One octet at least, and none of an object.
        self.send(&Pdu { liid: "-".into(), cin: None, sequence, at, payload }).await
    }

    async fn event(&mut self, unit: &[u8]) -> Result<(), String> {
        let Some((liid, cin, kind, contents)) = iri(unit, self.settings) else { return Ok(()) };
        let sequence = self.services.tap.number(&liid, cin, |n| &mut n.events);
        let at = stamp(self.services.node.clock().now());
        let pdu = Pdu { liid, cin, sequence, at, payload: Payload::Iri { kind, contents } };
        self.send(&pdu).await?;
        if kind == IriType::End {
            self.services.tap.ended(&pdu.liid, cin);
        }
        Ok(())
    }

    async fn content(&mut self, Content { of, at, packet }: Content) -> Result<(), String> {
        let (liid, cin) = (liid(of.object, self.settings), Some(of.call.into()));
        let sequence = self.services.tap.number(&liid, cin, |n| &mut n.content);
        let payload = Payload::Cc { direction: of.direction, packet };
        self.send(&Pdu { liid, cin, sequence, at: stamp(at), payload }).await
    }
}

fn stamp(at: DateTime<Utc>) -> (i64, u32) {
    (at.timestamp(), at.timestamp_subsec_micros())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_is_an_ip_packet() {
        let at = |text: &str| text.parse::<SocketAddr>().expect("an address");
        for (from, to, header, source) in [
            ("192.0.2.1:4000", "192.0.2.2:5000", 20, 12..20),
            ("[2001:db8::1]:4000", "[2001:db8::2]:5000", 40, 8..40),
        ] {
            let packet = ip_packet(&[0x80, 8, 0, 1, 7], at(from), at(to)).expect("of one kind");
            let udp = &packet[header..];
            assert_eq!((packet.len(), &udp[..6]), (header + 13, &[0x0F, 0xA0, 0x13, 0x88, 0, 13][..]));
            // A sum over what holds its own sum is nothing.
            let pseudo = [&packet[source], &[0, 17, 0, 13], udp].concat();
            assert_eq!(sum(&pseudo), 0, "{from}");
            assert!(header == 40 || sum(&packet[..20]) == 0);
        }
        assert!(ip_packet(&[0], at("192.0.2.1:1"), at("[::1]:1")).is_none());
    }
}
