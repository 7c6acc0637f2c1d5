//! Opens a room, or joins one: `client ws://HOST:PORT/ws NAME` or `client INVITATION NAME`. Lines are said; the end
//! of the input leaves.
#![expect(clippy::print_stdout, clippy::disallowed_methods, reason = "a client talks, and reads the clock")]

mod session;

use std::time::{Duration, Instant};
use std::{env, io, process::ExitCode, thread};

use futures_util::{SinkExt, StreamExt};
use session::Session;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio_tungstenite::tungstenite::{Error, Message, protocol::CloseFrame};

/// How a connection ends, which tells whether another one makes sense.
enum End {
    Left,
    Closed(CloseFrame),
    Failed(Error),
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let arguments: Vec<_> = env::args().skip(1).collect();
    let session = if let [url, name] = &arguments[..] { Session::new(url, name) } else { None };
    let Some(session) = session else { panic!("client ws://HOST:PORT/ws NAME, or client INVITATION NAME") };
    if let Some(invitation) = session.invitation() {
        println!("invitation: {invitation}");
    }
    let (tell, mut lines) = unbounded_channel();
    thread::spawn(move || io::stdin().lines().map_while(Result::ok).try_for_each(|line| tell.send(line)));
    let mut attempt = 0;
    loop {
        let began = Instant::now();
        let end = call(&session, &mut lines).await.unwrap_or_else(End::Failed);
        attempt = if began.elapsed() > Duration::from_secs(60) { 0 } else { attempt };
        let what = match &end {
            End::Left => return ExitCode::SUCCESS,
            End::Closed(CloseFrame { code, reason }) => format!("closed with {code} {reason}"),
            End::Failed(error) => error.to_string(),
        };
        let Some(wait) = pause(&end, attempt) else {
            println!("{what}: not again");
            return ExitCode::FAILURE;
        };
        println!("{what}: again in {:.1} s", wait.as_secs_f64());
        tokio::time::sleep(wait).await;
        attempt += 1;
    }
}

async fn call(session: &Session, lines: &mut UnboundedReceiver<String>) -> Result<End, Error> {
    let (mut socket, _) = tokio_tungstenite::connect_async(session.url()).await?;
    println!("joined");
    socket.send(session.message("hello", "").into()).await?; // the relay learns the name, too
    loop {
        tokio::select! {
            received = socket.next() => match received.unwrap_or(Err(Error::ConnectionClosed))? {
                Message::Close(Some(frame)) => return Ok(End::Closed(frame)),
                // Messages that waited may come joined.
                Message::Binary(data) => for line in data.split(|byte| *byte == b'\n') {
                    let Some((kind, from, text)) = session.open(line) else { continue };
                    println!("{}", said(&kind, &from, &text).replace(char::is_control, "?"));
                    if kind == "hello" { socket.send(session.message("here", "").into()).await? }
                },
                _ => {} // a ping; it is answered already
            },
            line = lines.recv() => match line {
                Some(line) => socket.send(session.message("chat", &line).into()).await?,
                None => return socket.close(None).await.map(|()| End::Left),
            },
        }
    }
}

fn said(kind: &str, from: &str, text: &str) -> String {
    match kind {
        "chat" => format!("{from}: {text}"),
        "session:leave" => format!("{from} has left"),
        _ => format!("{from} is here"),
    }
}

/// How long to wait before the next attempt, with full jitter. None: it would end in the same way.
fn pause(end: &End, attempt: u32) -> Option<Duration> {
    let jitter = rand::random_range(0.0..f64::from(2_u32.saturating_pow(attempt).min(30)));
    let after = match end {
        End::Closed(frame) if matches!(frame.code.into(), 1012 | 1013) => 0,
        End::Closed(frame) if frame.reason == "ping timeout" => 0,
        End::Left | End::Closed(_) | End::Failed(Error::Url(_)) => return None,
        End::Failed(Error::Http(answer)) => match answer.headers().get("Retry-After") {
            Some(after) => after.to_str().ok()?.parse().ok()?,
            None => answer.status().is_server_error().then_some(0_u32)?,
        },
        End::Failed(_) => 0, // no close frame, no connection, no handshake: the network
    };
    Some(Duration::from_secs_f64(f64::from(after) + jitter))
}
