//! The way of a connection: TLS if there is any, a request head, and then bytes in and bytes out, each at its
//! own pace.

use std::convert::Infallible;
use std::future::{pending, poll_fn};
use std::io;
use std::net::IpAddr;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Poll, ready};

use relay_host::decode::{Decoding, Next, Unfinished};
use relay_host::net::READ_BUFFER_BYTES;
use relay_proto::config::Config;
use relay_proto::http::Head;
use relay_proto::hub::{Connection, Verdict, Write};
use relay_proto::{Fault, Hub, Pass, Progress};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::mpsc::UnboundedSender;
use tokio::task::{AbortHandle, spawn_local};

use crate::stream::{Parked, Shared, Socket, Stream};
use crate::tls::Tls;

/// What every connection of a shard is served with.
pub(crate) struct Service {
    hub: Hub,
    tls: Option<Tls>,
    decoding: Rc<Decoding>,
    /// The ways to all shards.
    doors: Vec<UnboundedSender<Arrival>>,
}

/// What there is of a connection when its handshake is over. Boxed, or the task would have room for it from the start
/// and beside that for what comes before.
type Talk = Pin<Box<dyn Future<Output = ()>>>;

/// A connection whose room is in another shard than that which has read its head.
pub(crate) struct Arrival {
    pass: Pass,
    head: Head,
    stream: io::Result<Parked>,
}

impl Service {
    pub(crate) fn new(
        hub: Hub,
        tls: Option<Tls>,
        config: &Config,
        doors: Vec<UnboundedSender<Arrival>>,
    ) -> Self {
        Self { hub, tls, decoding: Rc::new(Decoding::new(config)), doors }
    }

    /// Serves one socket from accept to close.
    pub(crate) async fn serve(self: Rc<Self>, socket: TcpStream, ip: IpAddr) {
        // Boxed, or the largest state of the handshake would stay with the connection for ever.
        let talk = Box::pin(self.accept(socket, ip)).await;
        drop(self);
        if let Some(talk) = talk {
            talk.await;
        }
    }

    /// Serves one that another shard has handed over.
    pub(crate) async fn take_over(self: Rc<Self>, arrival: Arrival) {
        let Some(conn) = self.hub.take_over(arrival.pass) else { return };
        let talk = match arrival.stream.and_then(Parked::resume) {
            Ok(stream) => self.answer(conn, stream, Ok(arrival.head)),
            Err(error) => return lost(&error),
        };
        drop(self);
        if let Some(talk) = talk {
            talk.await;
        }
    }

    /// TLS if there is any, and a head. Returns what follows, if that is here.
    async fn accept(&self, socket: TcpStream, ip: IpAddr) -> Option<Talk> {
        let conn = self.hub.open(ip)?;
        let listening = pin!(self.listen(Socket::new(socket)));
        match conn.until_end(Progress::default, listening).await? {
            Ok((stream, head)) => self.answer(conn, stream, head),
            Err(error) => {
                lost(&error);
                None
            }
        }
    }

    async fn listen(&self, socket: Socket) -> io::Result<(Shared, Result<Head, Fault>)> {
        let mut stream = Shared::new(match &self.tls {
            None => Stream::Plain(socket),
            Some(tls) => Stream::Tls(Box::new(tls.accept(socket).await?)),
        });
        let head = read_head(&mut stream).await?;
        Ok((stream, head))
    }

    /// Gives the machine the head that was read. Returns what follows, unless that is in another shard.
    fn answer(&self, conn: Connection, stream: Shared, head: Result<Head, Fault>) -> Option<Talk> {
        let ahead = match head {
            Err(fault) => {
                conn.fault(fault);
                None
            }
            Ok(head) => match head.request().map(|request| conn.connect(&request)) {
                Some(Verdict::Elsewhere { shard, pass }) => {
                    // Only a relay that has ended takes nobody in.
                    let _ = self.doors[shard].send(Arrival { pass, head, stream: stream.park() });
                    return None;
                }
                Some(Verdict::Upgraded) => Some(head.into_rest()),
                Some(Verdict::Answered) | None => None,
            },
        };
        Some(self.talk(Rc::new(conn), stream, ahead))
    }

    /// Reads and writes until the end.
    fn talk(&self, conn: Rc<Connection>, stream: Shared, ahead: Option<Vec<u8>>) -> Talk {
        let reading = spawn_local(read(conn.clone(), stream.clone(), ahead, self.decoding.clone()));
        let reading = Guard(reading.abort_handle());
        Box::pin(work(conn, stream, reading))
    }
}

fn lost(error: &io::Error) {
    tracing::debug!(target: "relay", %error, "connection lost");
}

/// Ends the reading task with the one that writes.
struct Guard(AbortHandle);

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.abort();
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
async fn read(conn: Rc<Connection>, stream: Shared, ahead: Option<Vec<u8>>, decoding: Rc<Decoding>) {
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
async fn read_frames(
    conn: &Connection,
    mut stream: Shared,
    ahead: Vec<u8>,
    decoding: &Decoding,
) -> Option<Shared> {
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
                let mut buffer = ReadBuf::new(chunk);
                ready!(Pin::new(&mut stream).poll_read(cx, &mut buffer))?;
                let bytes = buffer.filled();
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

/// Writes and answers the machine's questions, while the other task reads.
async fn work(conn: Rc<Connection>, stream: Shared, _reading: Guard) {
    let writing = pin!(write_until_it_fails(&conn, stream.clone()));
    conn.until_end(|| stream.progress(), writing).await;
}

/// Writes what the machine wants written, and goes on for ever.
async fn write_until_it_fails(conn: &Connection, stream: Shared) {
    let Err(error) = write(conn, stream).await;
    tracing::debug!(target: "relay", %error, "nothing can be written any more");
    conn.write_failed();
    // The reading task sees the end, behind all that was sent before it.
    pending::<()>().await;
}

/// Writes what the machine wants written. Returns only if that fails.
async fn write(conn: &Connection, mut stream: Shared) -> io::Result<Infallible> {
    loop {
        let (mut batch, last) = match conn.next_write().await {
            Write::Continue(batch) => (batch, false),
            Write::Finish(batch) => (batch, true),
        };
        stream.write_all_buf(&mut batch).await?;
        stream.flush().await?;
        conn.sent();
        if last {
            stream.shutdown().await?;
            // The reading task sees the end, or the machine does not wait for it.
            return pending().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size<A, F: Future>(_: impl Fn(A) -> F) -> usize {
        size_of::<F>()
    }

    #[test]
    fn what_a_connection_keeps_is_small() {
        let serve = size(|(service, socket, ip)| Service::serve(service, socket, ip));
        let work = size(|(conn, stream, reading)| work(conn, stream, reading));
        let read = size(|(conn, stream, ahead, decoding)| read(conn, stream, ahead, decoding));
        eprintln!("a connection: {serve} bytes for its task, {work} to write, {read} to read");
        assert!(serve + work + read < 768, "{serve} + {work} + {read}");
    }
}
