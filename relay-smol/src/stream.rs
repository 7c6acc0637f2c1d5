//! The stream of a connection, plain or with TLS: in several hands of one thread, and on its way to another.

use std::cell::RefCell;
use std::io::{self, IoSlice, Read};
use std::net::{Shutdown, TcpStream};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use relay_host::net;
use relay_proto::Progress;
use smol::Async;
use smol::io::{AsyncRead, AsyncWrite};

use crate::tls::TlsStream;

/// A socket that is read only when there may be something. async-io would try first and wait then, which is a system
/// call more for each message.
#[derive(Clone)]
pub(crate) struct Socket {
    /// Shared, because async-tls does not give back what is below it.
    tcp: Arc<Async<TcpStream>>,
    drained: bool,
}

impl Socket {
    pub(crate) fn new(socket: Async<TcpStream>) -> Self {
        Self { tcp: Arc::new(socket), drained: false }
    }
}

/// What a client is spoken to through.
pub(crate) enum Stream {
    Plain(Socket),
    Tls(Box<TlsStream<Socket>>),
}

impl Stream {
    fn socket(&mut self) -> &mut Socket {
        match self {
            Self::Plain(socket) => socket,
            Self::Tls(stream) => stream.get_mut().0,
        }
    }

    fn bytes(&mut self) -> Pin<&mut dyn Bytes> {
        match self {
            Self::Plain(socket) => Pin::new(socket),
            Self::Tls(stream) => Pin::new(&mut **stream),
        }
    }
}

trait Bytes: AsyncRead + AsyncWrite + Unpin {}

impl<S: AsyncRead + AsyncWrite + Unpin> Bytes for S {}

/// A handle to a stream. At most one task reads and one writes; all of them see one socket.
#[derive(Clone)]
pub(crate) struct Shared(Rc<RefCell<Stream>>);

impl Shared {
    pub(crate) fn new(stream: Stream) -> Self {
        Self(Rc::new(RefCell::new(stream)))
    }

    /// Takes leave of this thread. Nobody else may have it in hand.
    #[expect(clippy::unnecessary_wraps, reason = "as on a runtime that may refuse it")]
    pub(crate) fn park(self) -> io::Result<Parked> {
        Ok(Parked(Rc::into_inner(self.0).expect("it is in one hand").into_inner()))
    }

    /// How far what was written has come (rule S5).
    pub(crate) fn progress(&self) -> Progress {
        net::progress(&*self.0.borrow_mut().socket().tcp)
    }
}

/// A stream on its way to another thread.
pub(crate) struct Parked(Stream);

impl Parked {
    /// Arrives in this one.
    #[expect(clippy::unnecessary_wraps, reason = "as on a runtime that may refuse it")]
    pub(crate) fn resume(self) -> io::Result<Shared> {
        Ok(Shared::new(self.0))
    }
}

impl AsyncRead for Shared {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut [u8]) -> Poll<io::Result<usize>> {
        self.0.borrow_mut().bytes().poll_read(cx, into)
    }
}

impl AsyncWrite for Shared {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, from: &[u8]) -> Poll<io::Result<usize>> {
        self.0.borrow_mut().bytes().poll_write(cx, from)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        from: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut stream = self.0.borrow_mut();
        match from {
            // The kernel takes less for one slice if it is not told of a list.
            [one] => stream.bytes().poll_write(cx, one),
            several => stream.bytes().poll_write_vectored(cx, several),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.borrow_mut().bytes().poll_flush(cx)
    }

    fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.borrow_mut().bytes().poll_close(cx)
    }
}

impl AsyncRead for Socket {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut [u8]) -> Poll<io::Result<usize>> {
        loop {
            if self.drained {
                ready!(self.tcp.poll_readable(cx))?;
                self.drained = false;
            }
            match self.tcp.get_ref().read(into) {
                Ok(len) => {
                    // At the end every read is one of nothing.
                    self.drained = 0 < len && len < into.len();
                    return Poll::Ready(Ok(len));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.drained = true,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, from: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut &*self.tcp).poll_write(cx, from)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        from: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut &*self.tcp).poll_write_vectored(cx, from)
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.tcp.get_ref().shutdown(Shutdown::Write))
    }
}
