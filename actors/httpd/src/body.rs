//! Bodies of requests: into a file that goes by itself, bounded in size and time.

use std::{
    fs::File,
    io::{Seek, SeekFrom, Write},
    time::Duration,
};

use actix_web::{HttpRequest, web::Payload};
use futures::StreamExt;

use crate::BodyError;

/// How long nothing may come.
const PATIENCE: Duration = Duration::from_secs(30);

/// Who may ask: anybody where the door is on loopback, else who shows the token.
#[derive(Clone)]
pub struct Guard {
    pub open: bool,
    pub token: kit::Secret<String>,
}

impl Guard {
    pub fn check(&self, request: &HttpRequest) -> Result<(), BodyError> {
        if self.open {
            return if of_this_machine(request) { Ok(()) } else { Err(BodyError::Foreign) };
        }
        let shown = request.headers().get("Authorization").and_then(|v| v.to_str().ok());
        let shown = shown.and_then(|v| v.strip_prefix("Bearer ")).unwrap_or_default();
        let right = subtle::ConstantTimeEq::ct_eq(shown.trim().as_bytes(), self.token.expose().as_bytes());
        if bool::from(right) { Ok(()) } else { Err(BodyError::Token) }
    }
}

/// Whether a request on loopback is one of this machine's programs, not of a page in its browser: such a page names its own site as
/// the host, if its name leads here (DNS rebinding), or as the origin.
fn of_this_machine(request: &HttpRequest) -> bool {
    let text = |name: &str| request.headers().get(name).map(|v| v.to_str().unwrap_or("?"));
    let near = |authority: &str| {
        let authority = authority.rsplit_once("://").map_or(authority, |(_, a)| a);
        let name = match authority.strip_prefix('[') {
            Some(v6) => v6.split(']').next().unwrap_or_default(),
            None => authority.split(':').next().unwrap_or_default(),
        };
        // A name without a dot is in nobody else's hands.
        name.parse::<std::net::IpAddr>().is_ok() || !name.contains('.') || name.ends_with(".localhost")
    };
    text("host").is_none_or(near) && text("origin").is_none_or(|o| o != "null" && near(o))
}

/// The body in a file without a name, read from its beginning.
pub async fn spooled(mut payload: Payload, limit: u64) -> Result<(File, u64), BodyError> {
    let mut file = tempfile::tempfile()?;
    let mut length = 0;
    loop {
        let next = tokio::time::timeout(PATIENCE, payload.next()).await;
        let Some(piece) = next.map_err(|_| BodyError::Slow(PATIENCE.as_secs()))? else { break };
        let piece = piece.map_err(|e| BodyError::Body(e.to_string()))?;
        length += piece.len() as u64;
        if length > limit {
            return Err(BodyError::Large(limit));
        }
        // To the page cache, a piece at a time: a disk that stands still stands still for all.
        file.write_all(&piece)?;
    }
    if length == 0 {
        return Err(BodyError::Body("a file is wanted: curl … -T file.wav".into()));
    }
    file.seek(SeekFrom::Start(0))?;
    Ok((file, length))
}

/// A label of a header, in UTF-8.
pub fn label(request: &HttpRequest, name: &str) -> Option<String> {
    let value = request.headers().get(name)?.as_bytes();
    let text = String::from_utf8_lossy(value);
    let text: String = text.trim().chars().filter(|c| !c.is_control()).take(100).collect();
    (!text.is_empty()).then_some(text)
}
