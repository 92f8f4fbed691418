//! Speech from the station: a socket for each control channel (КСЛ), whose packets go into its time slot.

use std::{net::SocketAddr, sync::atomic::Ordering::Relaxed};

use media::rtp::Packet;
use sorm::protocol::Channel;
use tokio::{net::UdpSocket, task::JoinSet};

use crate::{
    services::{Bound, Services},
    settings::Settings,
};

pub const NAME: &str = "mediator/speech";
/// Payload type of A-law (RFC 3551).
const PCMA: u8 = 8;
/// Never speech: frame alignment, and what signalling has by custom (G.704).
const NOT_SPEECH: [u8; 2] = [0, 16];
const MTU: usize = 2048;

/// Channels of a stream: 1 to 15 and 17 to 29, where the data channels are in 30 and 31.
pub fn channels(settings: &Settings, stream: u8) -> impl Iterator<Item = Channel> {
    let not = [NOT_SPEECH[0], NOT_SPEECH[1], settings.slots[0], settings.slots[1]];
    (0..32u8).filter(move |slot| !not.contains(slot)).map(move |slot| Channel(stream << 5 | slot))
}

/// Takes packets for as long as it is not told to end.
pub async fn serve(services: Services) -> Result<(), String> {
    let settings = services.settings.load_full();
    let mut sockets = JoinSet::new();
    let mut count = 0;
    for stream in settings.speaking() {
        for channel in channels(&settings, u8::try_from(stream).unwrap_or_default()) {
            // Channel `n` of the station is at the first port and `2 n`.
            let port = settings.rtp_port.saturating_add(u16::from(channel.0) * 2);
            let at = SocketAddr::new(settings.rtp_address, port);
            let socket =
                std::net::UdpSocket::bind(at).map_err(|e| format!("cannot take speech on {at}: {e}"))?;
            socket.set_nonblocking(true).map_err(|e| e.to_string())?;
            sockets.spawn(on_lines(services.clone(), socket, channel));
            count += 1;
        }
    }
    let _bound = Bound::new(&services.board, NAME, SocketAddr::new(settings.rtp_address, settings.rtp_port));
    services.board.say(NAME, format!("{count} channels"));
    match sockets.join_next().await {
        Some(Ok(Err(e))) => Err(e),
        Some(_) => Err("a channel has ended".into()),
        None => std::future::pending().await,
    }
}

/// Aborts what runs on the other thread when this side ends.
struct Abort<T>(tokio::task::JoinHandle<T>);

impl<T> Drop for Abort<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn on_lines(services: Services, socket: std::net::UdpSocket, channel: Channel) -> Result<(), String> {
    let lines = services.lines.clone();
    let mut carried = Abort(lines.spawn(carry(services, socket, channel)));
    (&mut carried.0).await.map_err(|e| e.to_string())?
}

async fn carry(services: Services, socket: std::net::UdpSocket, channel: Channel) -> Result<(), String> {
    let socket = UdpSocket::from_std(socket).map_err(|e| e.to_string())?;
    let here = socket.local_addr().map_err(|e| e.to_string())?;
    let mut packet = [0; MTU];
    // Source and sequence number of the last: what comes late or twice is not heard.
    let mut last: Option<(u32, u16)> = None;
    loop {
        let Ok((length, from)) = socket.recv_from(&mut packet).await else { continue };
        let found = Packet::parse(&packet[..length]).filter(|p| p.payload_type == PCMA);
        let station = services.settings.load().is_station(from.ip());
        let (Some(found), true) = (found, station) else {
            services.board.stray.fetch_add(1, Relaxed);
            continue;
        };
        let new = last.is_none_or(|(ssrc, sequence)| {
            ssrc != found.ssrc || (1..0x8000).contains(&found.sequence.wrapping_sub(sequence))
        });
        if !new {
            continue;
        }
        last = Some((found.ssrc, found.sequence));
        if let Some(port) = services.board.port(channel.stream().into()) {
            port.speak(channel.number().into(), found.payload);
        }
        let of = services.kept.load().communication(channel);
        if !services.tap.hear(of, &packet[..length], [from, here], services.node.clock().now()) {
            services.board.stray.fetch_add(1, Relaxed);
        }
    }
}
