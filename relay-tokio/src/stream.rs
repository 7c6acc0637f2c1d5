//! The stream of a connection, plain or with TLS: in several hands of one thread, and on its way to another.

use std::cell::RefCell;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use relay_host::net;
use relay_proto::Progress;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use crate::tls::TlsStream;

/// A socket. It is missing only on its way between two threads, whose runtimes watch none but their own.
pub(crate) struct Socket(Option<TcpStream>);

impl Socket {
    pub(crate) fn new(socket: TcpStream) -> Self {
        Self(Some(socket))
    }

    fn tcp(&mut self) -> Pin<&mut TcpStream> {
        Pin::new(self.0.as_mut().expect("nobody reads or writes on the way"))
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
    pub(crate) fn park(self) -> io::Result<Parked> {
        let mut stream = Rc::into_inner(self.0).expect("it is in one hand").into_inner();
        let socket = stream.socket().0.take().expect("it is parked once");
        Ok(Parked { socket: socket.into_std()?, stream })
    }

    /// How far what was written has come (rule S5).
    pub(crate) fn progress(&self) -> Progress {
        net::progress(&*self.0.borrow_mut().socket().tcp())
    }
}

/// A stream on its way to another thread.
pub(crate) struct Parked {
    stream: Stream,
    socket: std::net::TcpStream,
}

impl Parked {
    /// Arrives in this one.
    pub(crate) fn resume(mut self) -> io::Result<Shared> {
        self.stream.socket().0 = Some(TcpStream::from_std(self.socket)?);
        Ok(Shared::new(self.stream))
    }
}

impl AsyncRead for Shared {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
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

    fn is_write_vectored(&self) -> bool {
        self.0.borrow_mut().bytes().is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.borrow_mut().bytes().poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.borrow_mut().bytes().poll_shutdown(cx)
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.tcp().poll_read(cx, into)
    }
}

impl AsyncWrite for Socket {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, from: &[u8]) -> Poll<io::Result<usize>> {
        self.tcp().poll_write(cx, from)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        from: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.tcp().poll_write_vectored(cx, from)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.tcp().poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.tcp().poll_shutdown(cx)
    }
}
