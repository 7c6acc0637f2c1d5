//! The way of a connection: TLS if there is any, a request head, and then bytes in and bytes out, each at its
//! own pace.
//!
//! tungstenite only decodes. What it would write by itself goes nowhere: the machine answers pings and close
//! frames in its own order, and nothing can cut into a frame that is half written.

use std::convert::Infallible;
use std::future::{pending, poll_fn};
use std::io::{self, IoSlice};
use std::net::IpAddr;
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::task::{Context, Poll};

use async_tungstenite::{WebSocketStream, tungstenite};
use bytes::Buf;
use futures_util::StreamExt;
use relay_host::net::{READ_BUFFER_BYTES, SLICES_PER_WRITE};
use relay_proto::config::Config;
use relay_proto::frame::Batch;
use relay_proto::http::Head;
use relay_proto::hub::{Connection, Write};
use relay_proto::{Fault, Hub};
use smol::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use smol::net::TcpStream;
use smol::{LocalExecutor, Task};
use tungstenite::error::ProtocolError;
use tungstenite::protocol::frame::CloseFrame;
use tungstenite::protocol::frame::coding::CloseCode;
use tungstenite::protocol::{Role, WebSocketConfig};
use tungstenite::{Error, Message};

use crate::shared::Shared;
use crate::tls::Tls;

/// What every connection is served with.
pub(crate) struct Service {
    /// Weak, because it owns the tasks that own this.
    executor: Weak<LocalExecutor<'static>>,
    hub: Hub,
    tls: Option<Tls>,
    decoder: WebSocketConfig,
}

impl Service {
    pub(crate) fn new(
        executor: &Rc<LocalExecutor<'static>>,
        hub: Hub,
        tls: Option<Tls>,
        config: &Config,
    ) -> Self {
        let limit = Some(config.max_message_size);
        let decoder = WebSocketConfig::default()
            .read_buffer_size(READ_BUFFER_BYTES)
            // A header that declares more is refused before anything is reserved for it.
            .max_frame_size(limit)
            .max_message_size(limit)
            // Nothing waits here: see `Inbound`.
            .write_buffer_size(0);
        Self { executor: Rc::downgrade(executor), hub, tls, decoder }
    }

    /// Runs a task until it is done or its handle is dropped. None is started any more at the very end.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + 'static) -> Option<Task<()>> {
        Some(self.executor.upgrade()?.spawn(task))
    }

    /// Serves one socket from accept to close.
    pub(crate) async fn serve(self: Rc<Self>, socket: TcpStream, ip: IpAddr) {
        let Some(conn) = self.hub.open(ip) else { return };
        let conn = Rc::new(conn);
        let socket = Shared::new(socket);
        let asked = socket.clone();
        let work = async {
            match &self.tls {
                None => self.talk(&conn, socket).await,
                // Boxed, or the largest state of the handshake would stay with the connection for ever.
                Some(tls) => self.talk(&conn, Shared::new(Box::pin(tls.accept(socket)).await?)).await,
            }
        };
        if let Some(Err(error)) = conn.until_end(|| asked.progress(), work).await {
            tracing::debug!(target: "relay", %error, "connection lost");
        }
    }

    async fn talk<S>(&self, conn: &Rc<Connection>, mut stream: Shared<S>) -> io::Result<()>
    where
        S: AsyncRead + AsyncWrite + Unpin + 'static,
    {
        let ahead = match Box::pin(read_head(&mut stream)).await? {
            Ok(head) => {
                let upgraded = head.request().is_some_and(|request| conn.connect(&request));
                upgraded.then(|| head.into_rest())
            }
            Err(fault) => {
                conn.fault(fault);
                None
            }
        };
        let _reading = self.spawn(read(conn.clone(), stream.clone(), ahead, self.decoder));
        let Err(error) = write(conn, stream).await;
        tracing::debug!(target: "relay", %error, "nothing can be written any more");
        conn.write_failed();
        // The reading task sees the end, behind all that was sent before it.
        pending().await
    }
}

/// Reads a request head, or as much of it as shows that it is none.
pub(crate) async fn read_head(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Result<Head, Fault>> {
    let mut head = Head::new();
    let mut buffer = [0; READ_BUFFER_BYTES];
    loop {
        let len = stream.read(&mut buffer).await?;
        if len == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        match head.push(&buffer[..len]) {
            Ok(false) => {}
            Ok(true) => return Ok(Ok(head)),
            Err(fault) => return Ok(Err(fault)),
        }
    }
}

/// The reading task: frames, as long as there are any to come, then whatever else there is until the end.
async fn read<S>(conn: Rc<Connection>, stream: Shared<S>, ahead: Option<Vec<u8>>, decoder: WebSocketConfig)
where
    S: AsyncRead + Unpin,
{
    let rest = match ahead {
        Some(bytes) => read_frames(&conn, stream, bytes, decoder).await,
        None => Some(stream),
    };
    if let Some(stream) = rest {
        // So that what was written last is not lost to a reset (RFC 9112 section 9.6).
        discard(stream).await;
        conn.finished().await;
    }
    conn.disconnect();
}

/// Hands messages to the machine. Returns the stream if more may come that is not to be understood.
async fn read_frames<S>(
    conn: &Connection,
    stream: Shared<S>,
    ahead: Vec<u8>,
    decoder: WebSocketConfig,
) -> Option<Shared<S>>
where
    S: AsyncRead + Unpin,
{
    let inbound = Inbound(stream);
    let mut frames = WebSocketStream::from_partially_read(inbound, ahead, Role::Server, Some(decoder)).await;
    loop {
        conn.readable().await;
        match frames.next().await {
            Some(Ok(Message::Text(text))) => conn.message(text.into()),
            Some(Ok(Message::Binary(payload))) => conn.message(payload),
            Some(Ok(Message::Ping(payload))) => conn.ping(payload),
            Some(Ok(Message::Pong(_))) => conn.pong(),
            Some(Ok(Message::Close(frame))) => {
                close(conn, frame);
                break;
            }
            Some(Ok(Message::Frame(_))) => unreachable!("tungstenite reads no raw frames"),
            Some(Err(error)) => {
                conn.fault(fault(&error)?);
                break;
            }
            None => return None,
        }
    }
    // After an error tungstenite must not be asked again.
    Some(frames.into_inner().0)
}

/// tungstenite turns a code that must not be on the wire (RFC 6455 section 7.4) into 1002 with a text of its
/// own. A peer that really sent these two gets the same answer.
fn close(conn: &Connection, frame: Option<CloseFrame>) {
    match frame {
        Some(frame) if frame.code == CloseCode::Protocol && frame.reason.as_str() == "Protocol violation" => {
            conn.fault(Fault::Protocol);
        }
        Some(frame) => conn.peer_close(Some(frame.code.into())),
        None => conn.peer_close(None),
    }
}

/// What the peer did wrong; nothing, if it is just gone.
fn fault(error: &Error) -> Option<Fault> {
    match error {
        Error::Capacity(_) => Some(Fault::TooBig),
        Error::Utf8(_) => Some(Fault::InvalidUtf8),
        Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => None,
        Error::Protocol(_) => Some(Fault::Protocol),
        // Of the stream, or of what only clients and writers meet.
        _ => None,
    }
}

/// Reads until there is an end to it.
pub(crate) async fn discard(mut stream: impl AsyncRead + Unpin) {
    let mut buffer = vec![0; READ_BUFFER_BYTES];
    while stream.read(&mut buffer).await.is_ok_and(|len| len > 0) {}
}

/// Writes what the machine wants written. Returns only if that fails.
async fn write(conn: &Connection, mut stream: impl AsyncWrite + Unpin) -> io::Result<Infallible> {
    loop {
        let (mut batch, last) = match conn.next_write().await {
            Write::Continue(batch) => (batch, false),
            Write::Finish(batch) => (batch, true),
        };
        write_all_buf(&mut stream, &mut batch).await?;
        stream.flush().await?;
        conn.sent();
        if last {
            stream.close().await?;
            // The reading task sees the end, or the machine does not wait for it.
            return pending().await;
        }
    }
}

/// Writes a batch with as few calls as there can be.
async fn write_all_buf(stream: &mut (impl AsyncWrite + Unpin), batch: &mut Batch) -> io::Result<()> {
    while batch.has_remaining() {
        let written = poll_fn(|cx| {
            let mut slices = [IoSlice::new(&[]); SLICES_PER_WRITE];
            let filled = batch.chunks_vectored(&mut slices);
            Pin::new(&mut *stream).poll_write_vectored(cx, &slices[..filled])
        });
        match written.await? {
            0 => return Err(io::ErrorKind::WriteZero.into()),
            len => batch.advance(len),
        }
    }
    Ok(())
}

/// What tungstenite reads from. Its pongs and close frames go nowhere: see the top of this file.
struct Inbound<S>(Shared<S>);

impl<S: AsyncRead + Unpin> AsyncRead for Inbound<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut [u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_read(cx, into)
    }
}

impl<S: Unpin> AsyncWrite for Inbound<S> {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, from: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(from.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
