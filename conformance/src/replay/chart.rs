//! A recording for people: a line for each event, and below it what followed.
//!
//! ```text
//!       0.000812       ──► a connection from fd01::1
//!                      ◄── accept c1
//!       0.000934    c1 ──► GET /ws, room 0, host with key 0, token for host "0"
//!                        · "0" joined
//!                      ◄── upgrade c1 129
//!       0.104220    c2 ──► message, 84 bytes, voice
//!                      ◄── send c1 voice:84
//! ```

use std::io::{self, Write};
use std::time::Duration;

use relay_proto::record::line::{Asked, Content, Happened, Line, Pubkey, Query, Room, Token, Verdict};
use relay_proto::{Initiator, Notice};

use super::Decided;
use super::stand_in::{method, path};

pub(super) fn draw(chart: &mut dyn Write, line: &Line, decided: &Decided) -> io::Result<()> {
    let seconds = Duration::from_nanos(line.at).as_secs_f64();
    let (who, what) = event(&line.event);
    writeln!(chart, "{seconds:>14.6} {who:>5} ──► {what}")?;
    decided.notices.iter().try_for_each(|notice| writeln!(chart, "{:>20}   · {notice}", ""))?;
    decided.actions.iter().try_for_each(|action| writeln!(chart, "{:>20} ◄── {action}", ""))
}

/// Who did what.
fn event(happened: &Happened) -> (String, String) {
    let (conn, what) = match happened {
        Happened::Open { from } => return (String::new(), format!("a connection from {from}")),
        Happened::Connect { conn, request } => (conn, asks(request)),
        Happened::Message { conn, bytes, content } => {
            let kind = match content {
                Content::Voice => "voice".to_owned(),
                Content::Joinable => "data that may be joined".to_owned(),
                Content::Data => "data".to_owned(),
                Content::Named { from, .. } => format!("data that announces {from:?}"),
            };
            (conn, format!("message, {bytes} bytes, {kind}"))
        }
        Happened::Ping { conn, bytes } => (conn, format!("ping, {bytes} bytes")),
        Happened::Pong { conn } => (conn, "pong".to_owned()),
        Happened::PeerClose { conn, code: Some(code) } => (conn, format!("close {code}")),
        Happened::PeerClose { conn, code: None } => (conn, "close".to_owned()),
        Happened::Fault { conn, fault } => (conn, format!("fault: {fault:?}")),
        Happened::Sent { conn } => (conn, "took all that was sent".to_owned()),
        Happened::Acked { conn, acked, waiting, received } => {
            (conn, format!("probed: {acked} acknowledged, {waiting} waiting, {received} received"))
        }
        Happened::Disconnect { conn } => (conn, "is gone".to_owned()),
        Happened::Tick => return (String::new(), "tick".to_owned()),
        Happened::Drain => return (String::new(), "drain".to_owned()),
    };
    (format!("c{conn}"), what)
}

fn asks(asked: &Asked) -> String {
    let mut parts = vec![format!("{} {}", method(asked.method), path(asked.path))];
    match &asked.query {
        None => {}
        Some(Query::Undecodable) => parts.push("a query that is not UTF-8".to_owned()),
        Some(Query::Readable { room, pubkey, token }) => parts.extend([
            match room {
                Room::Missing => "no room".to_owned(),
                Room::Invalid => "invalid room".to_owned(),
                Room::Is { number, bound: None } => format!("room {number}"),
                Room::Is { number, bound: Some(key) } => format!("room {number} of key {key}"),
            },
            match pubkey {
                Pubkey::Missing => "guest".to_owned(),
                Pubkey::Invalid => "invalid key".to_owned(),
                Pubkey::Key(key) => format!("host with key {key}"),
            },
            match token {
                Token::Missing => "no token".to_owned(),
                Token::Unread => "token not looked at".to_owned(),
                Token::Judged { verdict: Verdict::Refused(reason), .. } => reason.to_string(),
                Token::Judged { verdict: Verdict::Holds { for_room, role, peer }, .. } => {
                    let elsewhere = if *for_room { "" } else { " for another room" };
                    format!("token for {} {peer:?}{elsewhere}", role.as_str())
                }
            },
        ]),
    }
    parts.extend(asked.client.map(|client| format!("for {client}")));
    parts.join(", ")
}

pub(super) fn describe(notice: &Notice<'_>) -> String {
    match notice {
        Notice::Joined { peer, .. } => format!("{peer:?} joined"),
        Notice::Left { peer, initiator, code, .. } => {
            let by = match initiator {
                Initiator::Peer => "by itself",
                Initiator::Relay => "by the relay",
            };
            format!("{peer:?} left, {by}, {code}")
        }
        Notice::Refused { refusal, .. } => format!("refused: {}", refusal.code()),
        Notice::LetGo { conn } => format!("{conn} is let go while draining"),
        Notice::Draining { rooms } => format!("draining {rooms} rooms"),
        Notice::Misuse { what } => format!("misuse: {what}"),
    }
}
