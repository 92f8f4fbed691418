//! Streams: TCP, TLS and WebSocket connections, each a task that cuts what it reads into messages.

use std::{net::SocketAddr, time::Duration};

use bytes::{Buf, Bytes, BytesMut};
use futures::{SinkExt, StreamExt};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio_tungstenite::tungstenite::{self, Message as Frame, protocol::WebSocketConfig};

use kit::intake::SipIntake;

use super::queue::Receiver;
use crate::wire::message::{MAX_MESSAGE, announced_length, header_end_from};

/// Reads a plain stream until it ends, and writes what is sent to it. A keep-alive is told of as a message without bytes.
pub(super) async fn serve<S>(stream: S, mut out: Receiver, intake: SipIntake, mut got: impl FnMut(Bytes))
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (mut reader, mut writer) = tokio::io::split(stream);
    let mut buffer = BytesMut::with_capacity(4096);
    let (mut looked, mut spoken) = (0, false);
    let mut deadline = tokio::time::Instant::now() + intake.message();
    loop {
        tokio::select! {
            read = tokio::time::timeout_at(deadline, reader.read_buf(&mut buffer)) => {
                let before = match read {
                    Ok(Ok(n)) if n > 0 => buffer.len() - n,
                    _ => return,
                };
                let mut cuts = 0;
                loop {
                    match cut_from(&mut buffer, &mut looked, &intake) {
                        Cut::Message(message) => {
                            (spoken, cuts) = (true, cuts + 1);
                            got(message);
                        }
                        Cut::Ping => {
                            cuts += 1;
                            got(Bytes::new());
                            // RFC 5626, 4.4.1.
                            if !written(&mut writer, b"\r\n", intake.unread()).await {
                                return;
                            }
                        }
                        Cut::More => break,
                        Cut::Garbage => return,
                    }
                }
                // The time of a message counts from its first byte, however slowly the others follow.
                if buffer.is_empty() && spoken {
                    deadline = tokio::time::Instant::now() + intake.idle();
                } else if before == 0 && spoken || cuts > 0 {
                    deadline = tokio::time::Instant::now() + intake.message();
                }
            }
            bytes = out.recv() => {
                let Some(bytes) = bytes else { return };
                if !written(&mut writer, &bytes, intake.unread()).await {
                    return;
                }
            }
        }
    }
}

/// Whether the peer has taken what was written to it in time.
async fn written(writer: &mut (impl AsyncWrite + Unpin), bytes: &[u8], limit: Duration) -> bool {
    matches!(tokio::time::timeout(limit, writer.write_all(bytes)).await, Ok(Ok(())))
}

/// What stands at the beginning of a stream.
#[derive(Debug, PartialEq, Eq)]
pub enum Cut {
    Message(Bytes),
    /// Two line ends: a keep-alive that wants an answer.
    Ping,
    More,
    /// Nothing that could be cut; the connection is given up.
    Garbage,
}

/// Cuts one message off.
pub fn cut(buffer: &mut BytesMut) -> Cut {
    cut_from(buffer, &mut 0, &SipIntake::default())
}

/// As [`cut`]; `looked` bytes have been looked at before, so that a header that comes byte by byte is not read from its
/// beginning each time.
fn cut_from(buffer: &mut BytesMut, looked: &mut usize, intake: &SipIntake) -> Cut {
    if buffer.starts_with(b"\r\n\r\n") {
        buffer.advance(4);
        *looked = 0;
        return Cut::Ping;
    }
    while buffer.starts_with(b"\r\n") && buffer.len() > 2 && !b"\r\n\r\n".starts_with(buffer) {
        buffer.advance(2);
        *looked = 0;
    }
    let Some(body) = header_end_from(buffer, *looked) else {
        *looked = buffer.len();
        return if buffer.len() > intake.header_bytes { Cut::Garbage } else { Cut::More };
    };
    let length = announced_length(&buffer[..body]).unwrap_or(0);
    let whole = body.saturating_add(length);
    if whole > intake.message_bytes.min(MAX_MESSAGE) {
        return Cut::Garbage;
    }
    if buffer.len() < whole {
        return Cut::More;
    }
    *looked = 0;
    Cut::Message(buffer.split_to(whole).freeze())
}

/// As [`serve`], for SIP over WebSocket (RFC 7118): each frame is a message.
pub(super) async fn serve_web<S>(stream: S, mut out: Receiver, intake: SipIntake, mut got: impl FnMut(Bytes))
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    use tungstenite::handshake::server::{ErrorResponse, Request, Response};
    #[allow(clippy::result_large_err, reason = "the library's own type")]
    let check = |request: &Request, mut response: Response| -> Result<Response, ErrorResponse> {
        let offered = request.headers().get("Sec-WebSocket-Protocol").and_then(|v| v.to_str().ok());
        if offered.is_some_and(|all| all.split(',').any(|p| p.trim().eq_ignore_ascii_case("sip"))) {
            response
                .headers_mut()
                .insert("Sec-WebSocket-Protocol", tungstenite::http::HeaderValue::from_static("sip"));
            return Ok(response);
        }
        let mut refusal = ErrorResponse::new(Some("the WebSocket protocol here is sip\n".into()));
        *refusal.status_mut() = tungstenite::http::StatusCode::BAD_REQUEST;
        Err(refusal)
    };
    // Connections are many, and say little: the library's own buffers are 128 KB each.
    let config = WebSocketConfig::default()
        .max_message_size(Some(intake.message_bytes))
        .max_frame_size(Some(intake.message_bytes))
        .read_buffer_size(4096)
        .write_buffer_size(4096);
    let accepted = tokio_tungstenite::accept_hdr_async_with_config(stream, check, Some(config));
    let Ok(Ok(socket)) = tokio::time::timeout(intake.handshake(), accepted).await else { return };
    let (mut writer, mut reader) = socket.split();
    let mut patience = intake.message();
    loop {
        tokio::select! {
            frame = tokio::time::timeout(patience, reader.next()) => match frame {
                Ok(Some(Ok(Frame::Text(text)))) => {
                    patience = intake.idle();
                    got(Bytes::copy_from_slice(text.as_bytes()));
                }
                Ok(Some(Ok(Frame::Binary(bytes)))) => {
                    patience = intake.idle();
                    got(bytes);
                }
                Ok(Some(Ok(Frame::Ping(_) | Frame::Pong(_) | Frame::Frame(_)))) => got(Bytes::new()),
                _ => return,
            },
            bytes = out.recv() => {
                let Some(bytes) = bytes else { return };
                // Browsers want text where it is text.
                let frame = match std::str::from_utf8(&bytes) {
                    Ok(text) => Frame::text(text),
                    Err(_) => Frame::Binary(bytes),
                };
                if !matches!(tokio::time::timeout(intake.unread(), writer.send(frame)).await, Ok(Ok(()))) {
                    return;
                }
            }
        }
    }
}

/// Opens a connection of our own.
pub(super) async fn connect(peer: SocketAddr, limit: Duration) -> std::io::Result<tokio::net::TcpStream> {
    let connected = tokio::time::timeout(limit, tokio::net::TcpStream::connect(peer)).await;
    let stream = connected.map_err(|_| std::io::Error::from(std::io::ErrorKind::TimedOut))??;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// TLS over it, with a neighbour that proves to have this name or address.
pub(super) async fn seal(
    connector: &tokio_rustls::TlsConnector,
    name: &str,
    stream: tokio::net::TcpStream,
    limit: Duration,
) -> Result<tokio_rustls::client::TlsStream<tokio::net::TcpStream>, String> {
    let name =
        tokio_rustls::rustls::pki_types::ServerName::try_from(name.to_owned()).map_err(|e| e.to_string())?;
    match tokio::time::timeout(limit, connector.connect(name, stream)).await {
        Ok(sealed) => sealed.map_err(|e| e.to_string()),
        Err(_) => Err("it took too long".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_stream_is_cut_into_messages() {
        let one = b"OPTIONS sip:a SIP/2.0\r\nl: 3\r\n\r\nabc";
        let mut buffer = BytesMut::from(&b"\r\n\r\n\r\n"[..]);
        assert_eq!(cut(&mut buffer), Cut::Ping);
        buffer.extend_from_slice(one);
        buffer.extend_from_slice(&one[..20]);
        assert_eq!(cut(&mut buffer), Cut::Message(Bytes::from_static(one)));
        assert_eq!(cut(&mut buffer), Cut::More);
        assert_eq!(
            cut(&mut BytesMut::from(&b"Content-Length: 99999999\r\n\r\n"[..])),
            Cut::Message(Bytes::from_static(b"Content-Length: 99999999\r\n\r\n"))
        );
        assert_eq!(cut(&mut BytesMut::from(&b"X\r\nContent-Length: 99999999\r\n\r\n"[..])), Cut::Garbage);
        assert_eq!(cut(&mut BytesMut::from(vec![b'x'; 40_000].as_slice())), Cut::Garbage);
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_says_nothing_or_never_finishes_is_let_go() {
        for (says, every) in
            [(&b""[..], 0), (b"OPTIONS sip:a SIP/2.0\r\n", 0), (b"OPTIONS sip:a SIP/2.0\r\nX: ", 5)]
        {
            let (mut peer, ours) = tokio::io::duplex(4096);
            let (_out, waiting) = crate::endpoint::queue::Waiting::default().queue();
            let served = tokio::spawn(serve(ours, waiting, SipIntake::default(), |_| {}));
            peer.write_all(says).await.expect("taken");
            let began = tokio::time::Instant::now();
            while every > 0 && began.elapsed() < Duration::from_secs(60) && !served.is_finished() {
                // One byte now and then.
                let _ = peer.write_all(b"x").await;
                tokio::time::sleep(Duration::from_secs(every)).await;
            }
            served.await.expect("no panic");
            assert!(began.elapsed() <= Duration::from_secs(30), "{says:?}");
        }
        // One that has spoken may be silent.
        let (mut peer, ours) = tokio::io::duplex(4096);
        let (_out, waiting) = crate::endpoint::queue::Waiting::default().queue();
        let served = tokio::spawn(serve(ours, waiting, SipIntake::default(), |_| {}));
        peer.write_all(b"OPTIONS sip:a SIP/2.0\r\nl: 0\r\n\r\n").await.expect("taken");
        tokio::time::sleep(Duration::from_secs(300)).await;
        assert!(!served.is_finished());
    }

    proptest! {
        #[test]
        fn however_it_arrives_the_same_messages_come(pieces in prop::collection::vec(1usize..40, 1..20)) {
            let one = b"OPTIONS sip:a SIP/2.0\r\nContent-Length: 5\r\n\r\nhello";
            let all = one.repeat(3);
            let (mut buffer, mut found, mut at) = (BytesMut::new(), 0, 0);
            for piece in pieces.into_iter().chain([all.len()]) {
                let to = (at + piece).min(all.len());
                buffer.extend_from_slice(&all[at..to]);
                at = to;
                while let Cut::Message(m) = cut(&mut buffer) {
                    prop_assert_eq!(&m[..], &one[..]);
                    found += 1;
                }
            }
            prop_assert_eq!(found, 3);
        }
    }
}
