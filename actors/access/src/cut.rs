//! A stream that can be ended from outside, whatever its reader waits for: a library that is in the middle of a key exchange
//! takes no order to disconnect.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    task::{Context, Poll},
};

use futures::task::AtomicWaker;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

#[derive(Debug, Default)]
struct State {
    cut: AtomicBool,
    reader: AtomicWaker,
    writer: AtomicWaker,
}

/// Ends its [`Cut`]; clones are one.
#[derive(Debug, Clone)]
pub(crate) struct Switch(Arc<State>);

impl Switch {
    pub(crate) fn cut(&self) {
        self.0.cut.store(true, SeqCst);
        self.0.reader.wake();
        self.0.writer.wake();
    }
}

/// A connection with its [`Switch`].
#[derive(Debug)]
pub(crate) struct Cut {
    stream: TcpStream,
    state: Arc<State>,
}

impl Cut {
    pub(crate) fn new(stream: TcpStream) -> (Self, Switch) {
        let state = Arc::<State>::default();
        (Self { stream, state: state.clone() }, Switch(state))
    }
}

fn aborted<T>() -> Poll<io::Result<T>> {
    Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()))
}

impl AsyncRead for Cut {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.state.reader.register(cx.waker());
        match self.state.cut.load(SeqCst) {
            true => aborted(),
            false => Pin::new(&mut self.stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Cut {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.state.writer.register(cx.waker());
        match self.state.cut.load(SeqCst) {
            true => aborted(),
            false => Pin::new(&mut self.stream).poll_write(cx, bytes),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::{io::AsyncReadExt, net::TcpListener};

    use super::*;

    #[tokio::test]
    async fn a_reader_that_waits_is_ended_from_outside() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let _peer = TcpStream::connect(listener.local_addr().expect("bound")).await.expect("a connection");
        let (stream, _) = listener.accept().await.expect("a connection");
        let (mut cut, switch) = Cut::new(stream);
        let reads = tokio::spawn(async move { cut.read_u8().await.map_err(|e| e.kind()) });
        tokio::task::yield_now().await;
        switch.cut();
        assert_eq!(reads.await.expect("no panic"), Err(io::ErrorKind::ConnectionAborted));
    }
}
