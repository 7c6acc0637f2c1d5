//! The way of a connection: TLS if there is any, a request head, and then bytes in and bytes out, each at its
//! own pace.

use std::convert::Infallible;
use std::future::{pending, poll_fn};
use std::io::{self, IoSlice};
use std::net::IpAddr;
use std::pin::{Pin, pin};
use std::rc::{Rc, Weak};
use std::task::{Poll, ready};

use bytes::Buf;
use relay_host::decode::{Decoding, Next, Unfinished};
use relay_host::net::{READ_BUFFER_BYTES, SLICES_PER_WRITE};
use relay_proto::config::Config;
use relay_proto::frame::Batch;
use relay_proto::http::Head;
use relay_proto::hub::{Connection, Write};
use relay_proto::{Fault, Hub};
use smol::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use smol::{LocalExecutor, Task};

use crate::shared::{Shared, Socket};
use crate::tls::{Tls, TlsStream};

/// What every connection is served with.
pub(crate) struct Service {
    /// Weak, because it owns the tasks that own this.
    executor: Weak<LocalExecutor<'static>>,
    hub: Hub,
    tls: Option<Tls>,
    decoding: Rc<Decoding>,
}

impl Service {
    pub(crate) fn new(
        executor: &Rc<LocalExecutor<'static>>,
        hub: Hub,
        tls: Option<Tls>,
        config: &Config,
    ) -> Self {
        let decoding = Rc::new(Decoding::new(config));
        Self { executor: Rc::downgrade(executor), hub, tls, decoding }
    }

    /// Runs a task until it is done or its handle is dropped. None is started any more at the very end.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + 'static) -> Option<Task<()>> {
        Some(self.executor.upgrade()?.spawn(task))
    }

    /// Serves one socket from accept to close.
    pub(crate) async fn serve(self: Rc<Self>, socket: Socket, ip: IpAddr) {
        let Some(conn) = self.hub.open(ip) else { return };
        let conn = Rc::new(conn);
        let socket = Shared::new(socket);
        let asked = socket.clone();
        let work = pin!(async {
            match &self.tls {
                None => self.talk(&conn, socket).await,
                // Boxed, or the largest state of the handshake would stay with the connection for ever.
                Some(tls) => self.talk(&conn, Box::pin(secure(tls, socket)).await?).await,
            }
        });
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
        let _reading = self.spawn(read(conn.clone(), stream.clone(), ahead, self.decoding.clone()));
        let Err(error) = write(conn, stream).await;
        tracing::debug!(target: "relay", %error, "nothing can be written any more");
        conn.write_failed();
        // The reading task sees the end, behind all that was sent before it.
        pending().await
    }
}

async fn secure(tls: &Tls, socket: Shared<Socket>) -> io::Result<Shared<TlsStream<Shared<Socket>>>> {
    Ok(Shared::new(tls.accept(socket).await?))
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
async fn read<S>(conn: Rc<Connection>, stream: Shared<S>, ahead: Option<Vec<u8>>, decoding: Rc<Decoding>)
where
    S: AsyncRead + Unpin,
{
    let rest = match ahead {
        Some(bytes) => read_frames(&conn, stream, bytes, &decoding).await,
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
    mut stream: Shared<S>,
    ahead: Vec<u8>,
    decoding: &Decoding,
) -> Option<Shared<S>>
where
    S: AsyncRead + Unpin,
{
    let mut unfinished = Unfinished::default();
    let mut next = decoding.decode(&mut unfinished, &ahead, conn);
    drop(ahead);
    while next != Next::Discard {
        conn.readable().await;
        if unfinished.has_more() {
            next = decoding.decode(&mut unfinished, &[], conn);
            continue;
        }
        let read = poll_fn(|cx| {
            decoding.with_chunk(|chunk| {
                let len = ready!(Pin::new(&mut stream).poll_read(cx, chunk))?;
                let bytes = &chunk[..len];
                Poll::Ready(Ok((!bytes.is_empty()).then(|| decoding.decode(&mut unfinished, bytes, conn))))
            })
        });
        let read: io::Result<Option<Next>> = read.await;
        // At the end, or after a failure, nobody is there any more.
        next = read.ok()??;
    }
    Some(stream)
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
