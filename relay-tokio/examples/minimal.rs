//! The least that an adapter can be: one thread, plain text, no signals. It passes the suite;
//! `docs/writing-an-adapter.md` goes through it.

use std::convert::Infallible;
use std::error::Error;
use std::future::pending;
use std::io;
use std::net::IpAddr;
use std::pin::pin;
use std::rc::Rc;

use relay_host::decode::{Decoding, Next, Unfinished};
use relay_host::net;
use relay_proto::http::Head;
use relay_proto::hub::{Connection, Verdict, Write};
use relay_proto::{Fault, Hub, Settings};
use tokio::io::AsyncWriteExt;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, LocalOptions};
use tokio::task::spawn_local;
use tokio::time::sleep_until;

const READ_BYTES: usize = 4096;

fn main() -> Result<(), Box<dyn Error>> {
    let vars: Vec<(String, String)> = std::env::vars().collect();
    let settings = Settings::from_vars(vars.iter().map(|(name, value)| (name.as_str(), value.as_str())))?;
    let mut listeners = net::listen("RELAY_ADDR", &settings.addr)?;
    let runtime =
        Builder::new_current_thread().enable_io().enable_time().build_local(LocalOptions::default())?;
    runtime.block_on(async {
        let listener = TcpListener::from_std(listeners.remove(0))?;
        eprintln!("listening addr={}", listener.local_addr()?);
        let hub = relay_host::new_hub(&settings)?;
        let decoding = Rc::new(Decoding::new(&settings.relay));
        spawn_local(keep_time(hub.clone()));
        loop {
            let (socket, peer) = listener.accept().await?;
            net::tune(&socket);
            spawn_local(serve(hub.clone(), decoding.clone(), socket, peer.ip()));
        }
    })
}

/// Sends a tick whenever one is due, and thereby ends each turn.
async fn keep_time(hub: Hub) {
    hub.run_timer(async |deadline| match deadline {
        Some(at) => sleep_until(at.into()).await,
        None => pending().await,
    })
    .await;
}

/// One socket from accept to close.
async fn serve(hub: Hub, decoding: Rc<Decoding>, socket: TcpStream, ip: IpAddr) {
    // None: one socket too many. Dropping it closes it.
    let Some(conn) = hub.open(ip).map(Rc::new) else { return };
    let (input, output) = socket.into_split();
    let input = Rc::new(input);
    let reading = spawn_local(read(conn.clone(), input.clone(), decoding));
    let socket: &TcpStream = (*input).as_ref();
    conn.until_end(|| net::progress(socket), pin!(write(&conn, output))).await;
    reading.abort();
}

/// Carries out what the machine wants written, one write at a time.
async fn write(conn: &Connection, mut output: OwnedWriteHalf) {
    if write_all(conn, &mut output).await.is_err() {
        // What the peer sent before is still to be read.
        conn.write_failed();
    }
    pending::<()>().await;
}

async fn write_all(conn: &Connection, output: &mut OwnedWriteHalf) -> io::Result<Infallible> {
    loop {
        match conn.next_write().await {
            Write::Continue(mut batch) => {
                output.write_all_buf(&mut batch).await?;
                conn.sent();
            }
            Write::Finish(mut batch) => {
                output.write_all_buf(&mut batch).await?;
                conn.sent();
                output.shutdown().await?;
                return pending().await;
            }
        }
    }
}

/// Tells the machine what the peer sends, until the socket ends.
async fn read(conn: Rc<Connection>, input: Rc<OwnedReadHalf>, decoding: Rc<Decoding>) {
    // An error is an end like any other.
    let _ = read_all(&conn, &input, &decoding).await;
    conn.disconnect();
}

async fn read_all(conn: &Connection, input: &OwnedReadHalf, decoding: &Decoding) -> io::Result<()> {
    if let Some(ahead) = read_head(conn, input).await? {
        read_frames(conn, input, decoding, ahead).await?;
    }
    // So that the last answer is not lost to a reset.
    while !read_some(input).await?.is_empty() {}
    conn.finished().await;
    Ok(())
}

/// Returns what came behind the head if frames follow.
async fn read_head(conn: &Connection, input: &OwnedReadHalf) -> io::Result<Option<Vec<u8>>> {
    let mut head = Head::new();
    loop {
        let bytes = read_some(input).await?;
        if bytes.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let whole: Result<bool, Fault> = head.push(&bytes);
        match whole {
            Ok(false) => {}
            Ok(true) => {
                // One machine, so never `Elsewhere`.
                let verdict = head.request().map(|request| conn.connect(&request));
                return Ok((verdict == Some(Verdict::Upgraded)).then(|| head.into_rest()));
            }
            Err(fault) => {
                conn.fault(fault);
                return Ok(None);
            }
        }
    }
}

/// Returns when nothing more is to be understood.
async fn read_frames(
    conn: &Connection,
    input: &OwnedReadHalf,
    decoding: &Decoding,
    ahead: Vec<u8>,
) -> io::Result<()> {
    let mut unfinished = Unfinished::default();
    let mut next = decoding.decode(&mut unfinished, &ahead, conn);
    while next != Next::Discard {
        conn.readable().await;
        let bytes = if unfinished.has_more() { Vec::new() } else { read_some(input).await? };
        if bytes.is_empty() && !unfinished.has_more() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        next = decoding.decode(&mut unfinished, &bytes, conn);
    }
    Ok(())
}

/// Whatever is there, at least a byte; nothing at the end.
async fn read_some(input: &OwnedReadHalf) -> io::Result<Vec<u8>> {
    loop {
        input.readable().await?;
        let mut bytes = vec![0; READ_BYTES];
        match input.try_read(&mut bytes) {
            Ok(len) => {
                bytes.truncate(len);
                return Ok(bytes);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
}
