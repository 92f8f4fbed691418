//! The accounting server that the station's notifications come to. What is answered has been kept.

use std::{net::SocketAddr, sync::atomic::Ordering::Relaxed};

use kit::{Secret, journal::Origin, ledger};
use serde_json::json;
use sorm::{audit::Entry, intercept::radius};
use tokio::net::UdpSocket;

use crate::{
    outbox::{self, OutboxBook, OutboxCommand, Taken},
    services::{Bound, Services},
    settings::Property,
};

pub const NAME: &str = "mediator/radius";

/// Takes notifications for as long as it is not told to end.
pub async fn serve(services: Services) -> Result<(), String> {
    let settings = services.settings.load_full();
    let Some(sealed) = &settings.secret else {
        services.board.say(NAME, "it has no secret");
        return std::future::pending().await;
    };
    let secret = services.vault.open(&Property::Secret.to_string(), sealed).map_err(|e| e.to_string())?;
    let at = SocketAddr::new(settings.radius_address, settings.radius_port);
    let socket = UdpSocket::bind(at).await.map_err(|e| format!("cannot take notifications on {at}: {e}"))?;
    let local = socket.local_addr().map_err(|e| e.to_string())?;
    let _bound = Bound::new(&services.board, NAME, local);
    services.board.say(NAME, format!("listening on {local}"));
    tracing::info!(%local, "listening for notifications");
    let mut packet = vec![0; radius::MOST + 1];
    loop {
        let Ok((length, from)) = socket.recv_from(&mut packet).await else { continue };
        if let Some(answer) = take(&services, &packet[..length], from, &secret).await {
            // One that is lost is asked for again.
            let _ = socket.send_to(&answer, from).await;
        }
    }
}

async fn take(
    services: &Services,
    packet: &[u8],
    from: SocketAddr,
    secret: &Secret<String>,
) -> Option<Vec<u8>> {
    let board = &services.board;
    let received = radius::read(packet, secret).filter(|r| r.sequence > 0 && !r.unit.is_empty());
    let Some(received) = received else {
        if board.strange.fetch_add(1, Relaxed) == 0 {
            tracing::warn!(%from, "a packet that has not our secret, or is no notification; others are counted");
        }
        return None;
    };
    let (station, number) = (received.station.clone(), received.sequence);
    let command = OutboxCommand::Take(received);
    match ledger::change_at::<OutboxBook>(&services.node, outbox::NAME, command, Origin::system()).await {
        Ok(Taken::Again) => drop(board.again.fetch_add(1, Relaxed)),
        Ok(taken) => {
            board.received.fetch_add(1, Relaxed);
            if let Taken::Gap(missing) = taken {
                board.missing.fetch_add(missing, Relaxed);
                metrics::counter!("hypha_mediator_missing_total").increment(missing);
                tracing::error!(%station, number, missing, "notifications are missing");
                let details = json!({ "number": number, "missing": missing });
                services.audit.write(Entry::new(&station, "system", "notifications are missing", details));
            }
        }
        Err(e) => {
            tracing::error!(error = %e, "a notification was not kept; the station sends it again");
            return None;
        }
    }
    radius::response(packet, secret)
}
