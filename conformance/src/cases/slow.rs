//! Receivers that do not keep up (rules S1 to S5).

use std::time::Duration;

use super::{Needs, cases};
use crate::host::Received;
use crate::peer::{Peer, Pings, Seen};
use crate::stage::Stage;

/// What is sent to fill the buffers of the kernels.
const CHUNK_BYTES: usize = 16 * 1024;
/// 64 MiB: more than any kernel takes for one connection.
const MANY: usize = 4096;

const NARROW: &[(&str, &str)] = &[("RELAY_MAX_MESSAGE_SIZE", "16384"), ("RELAY_DATA_QUEUE_BYTES", "65536")];
const FEW_VOICE: &[(&str, &str)] = &[("RELAY_VOICE_QUEUE", "8"), ("RELAY_VOICE_MAX_AGE_MS", "0")];
const SMALL_POOL: &[(&str, &str)] =
    &[("RELAY_MAX_MESSAGE_SIZE", "16384"), ("RELAY_MAX_QUEUED_BYTES", "100000")];
const SHORT_LIVED: &[(&str, &str)] = &[
    ("RELAY_PING_INTERVAL", "0.5"),
    ("RELAY_PONG_TIMEOUT", "1"),
    ("RELAY_DATA_QUEUE_BYTES", "0"),
    ("RELAY_MAX_QUEUED_BYTES", "0"),
];

cases! {
    "slow::stalled_reader" ["S1" "S3" "R6"] Needs::Settings(NARROW), stalled_reader;
    "slow::stalled_reader_elsewhere" ["S1"] Needs::Settings(NARROW), stalled_reader_elsewhere;
    "slow::stalled_reader_still_speaks" ["S1"] Needs::Nothing, stalled_reader_still_speaks;
    "slow::closed_while_stalled" ["S3"] Needs::Settings(NARROW), closed_while_stalled;
    "slow::voice_is_dropped" ["S2"] Needs::Settings(FEW_VOICE), voice_is_dropped;
    "slow::all_queues_together" ["S4"] Needs::Settings(SMALL_POOL), all_queues_together;
    "slow::steady_reader" ["S5"] Needs::Settings(SHORT_LIVED), steady_reader;
}

/// The n-th chunk of data.
fn chunk(n: usize) -> Vec<u8> {
    let mut chunk = format!("[{n}]").into_bytes();
    chunk.resize(CHUNK_BYTES, b' ');
    chunk
}

/// Which chunk it is.
fn number(chunk: &[u8]) -> usize {
    let text = String::from_utf8_lossy(chunk);
    let digits = text.trim_start_matches("KV").trim_start_matches('[').split(']').next();
    digits.and_then(|digits| digits.parse().ok()).unwrap_or_else(|| panic!("no chunk: {text:.20}"))
}

/// The host sends and the guest reads, message by message, until the guest hears that `stalled` was closed.
fn talk_until_left(host: &mut Peer<'_>, guest: &mut Peer<'_>, stalled: &str) {
    for n in 0..MANY {
        host.send(chunk(n));
        match guest.see() {
            Seen::Message(message) if message == chunk(n) => {}
            Seen::Message(message) if message.starts_with(b"{") => {
                let notice = String::from_utf8_lossy(&message).into_owned();
                assert!(notice.contains("session:leave") && notice.contains(stalled), "{notice}");
                guest.expect(chunk(n));
                return;
            }
            other => panic!("guest: expected chunk {n}, saw {other:?}"),
        }
    }
    panic!("{stalled} was never closed");
}

fn stalled_reader(stage: &Stage<'_>) {
    let room = stage.room("stalled");
    let mut host = stage.host(&room, "host");
    let mut guest = stage.guest(&room, "guest");
    let mut stalled = stage.guest(&room, "stalled guest");
    stage.transcript.unrecorded(|| talk_until_left(&mut host, &mut guest, "stalled guest"));
    host.expect_leave("stalled guest");
    stage.transcript.note("guest got all of it");

    // What had left before is complete and in order; what waited was let go.
    let closed = stage.transcript.unrecorded(|| {
        (0..MANY).find_map(|n| match stalled.see() {
            Seen::Message(message) => {
                assert_eq!(number(&message), n, "a gap");
                None
            }
            seen => Some(seen),
        })
    });
    assert_eq!(closed, Some(Seen::Close(Some(1013), "slow consumer".to_owned())));
    stalled.expect_end();
    stage.transcript.note("stalled guest < a gapless beginning, close 1013 slow consumer");
}

fn stalled_reader_elsewhere(stage: &Stage<'_>) {
    let room = stage.room("stalled");
    let mut host = stage.host(&room, "host");
    let _stalled = stage.guest(&room, "stalled guest");
    let other_room = stage.room("lively");
    let mut other_host = stage.host(&other_room, "other host");
    let mut other_guest = stage.guest(&other_room, "other guest");
    stage.transcript.unrecorded(|| {
        for n in 0..MANY {
            // The room with the stalled guest is busy all the time.
            host.send(chunk(n));
            if n % 64 == 0 {
                other_host.send(format!("[{n}]"));
                other_guest.expect(format!("[{n}]"));
            }
        }
    });
    stage.transcript.note("the other room got all of it");
    host.expect_leave("stalled guest");
}

/// Reading and writing go on independently: who does not read is still heard.
fn stalled_reader_still_speaks(stage: &Stage<'_>) {
    let room = stage.room("speaks");
    let mut host = stage.host(&room, "host");
    let mut stalled = stage.guest(&room, "stalled guest");
    stage.transcript.unrecorded(|| (0..64).for_each(|n| host.send(chunk(n))));
    for n in 0..64 {
        stalled.send(format!("[{n}]"));
        host.expect(format!("[{n}]"));
    }
    stage.transcript.unrecorded(|| (0..64).for_each(|n| stalled.expect(chunk(n))));
    stage.transcript.note("stalled guest < all of it, when it read at last");
}

/// The close frame waits for the socket, but not for ever.
fn closed_while_stalled(stage: &Stage<'_>) {
    let room = stage.room("closed");
    let mut host = stage.host(&room, "host");
    let mut guest = stage.guest(&room, "guest");
    let mut stalled = stage.guest(&room, "stalled guest");
    stage.transcript.unrecorded(|| talk_until_left(&mut host, &mut guest, "stalled guest"));
    stage.host.pass(Duration::from_secs(6));
    // What the kernels hold may still come, but neither a close frame nor life.
    stage.transcript.unrecorded(|| {
        let deadline = stage.host.elapsed() + crate::host::PATIENCE;
        while let Received::Bytes(_) = stalled.fill(deadline) {}
    });
    assert!(stalled.fill(stage.host.elapsed()) != Received::Nothing, "the socket was not dropped");
    stage.transcript.note("stalled guest < gone");
    host.expect_leave("stalled guest");
    stage.fence(&mut host, &mut [&mut guest]);
}

fn voice_is_dropped(stage: &Stage<'_>) {
    let room = stage.room("voice");
    let mut host = stage.host(&room, "host");
    let mut stalled = stage.guest(&room, "stalled guest");
    let packet = |n: usize| [b"KV".as_slice(), &chunk(n)].concat();
    let last = MANY / 2;
    let seen = stage.transcript.unrecorded(|| {
        (0..=last).for_each(|n| host.send(packet(n)));
        // Data comes behind all of it: it says that the relay has taken the last packet.
        host.send("[done]");
        host.ping("done");
        host.expect_pong("done");
        let mut seen = Vec::new();
        while seen.last() != Some(&last) {
            match stalled.see() {
                Seen::Message(message) if message == b"[done]" => {}
                Seen::Message(message) => seen.push(number(&message)),
                other => panic!("after {} packets: {other:?}", seen.len()),
            }
        }
        seen
    });
    assert!(seen.is_sorted(), "out of order");
    assert!(seen.len() < last, "nothing was dropped");
    // What comes behind the gap is what waited: the newest packets.
    let kept = seen.windows(2).rev().take_while(|pair| pair[0] + 1 == pair[1]).count() + 1;
    assert!(kept <= 9, "{kept} packets waited");
    stage.transcript.note("stalled guest < the first packets, a gap, the newest");
    // It was no reason to close.
    stalled.send("[still here]");
    host.expect("[still here]");
}

fn all_queues_together(stage: &Stage<'_>) {
    let room = stage.room("pool");
    let mut host = stage.host(&room, "host");
    let mut guest = stage.guest(&room, "guest");
    let _stalled = stage.guest(&room, "stalled guest");
    // The queue of each may hold 4 MiB; all together less.
    stage.transcript.unrecorded(|| talk_until_left(&mut host, &mut guest, "stalled guest"));
    host.expect_leave("stalled guest");
    stage.fence(&mut host, &mut [&mut guest]);
}

/// A reader to which bytes move is alive, although all that it could answer is behind megabytes.
fn steady_reader(stage: &Stage<'_>) {
    const SENT_PER_STEP: usize = 32;
    const READ_PER_STEP: usize = 8;
    /// After so many steps more waits than the kernels hold.
    const FILLING_STEPS: usize = 32;
    /// Four time-outs long.
    const SILENT_STEPS: usize = 40;
    const STEP: Duration = Duration::from_millis(100);

    let room = stage.room("steady");
    let mut host = stage.host(&room, "host");
    let mut steady = stage.guest(&room, "steady guest");
    let (mut sent, mut read) = (0, 0);
    let mut step = |steady: &mut Peer<'_>, sending: usize, reading: usize| {
        (sent..sent + sending).for_each(|n| host.send(chunk(n)));
        (read..read + reading).for_each(|n| match steady.see() {
            Seen::Message(message) => assert_eq!(number(&message), n, "a gap"),
            other => panic!("steady guest: expected chunk {n}, saw {other:?}"),
        });
        (sent, read) = (sent + sending, read + reading);
        // The host is no subject of this case: it says something, and answers its pings.
        host.ping("");
        host.expect_pong("");
        sent - read
    };
    stage.transcript.unrecorded(|| {
        (0..FILLING_STEPS).for_each(|_| {
            step(&mut steady, SENT_PER_STEP, READ_PER_STEP);
        });
        steady.pings(Pings::Ignored);
        for _ in 0..SILENT_STEPS {
            stage.host.pass(STEP);
            step(&mut steady, READ_PER_STEP, READ_PER_STEP);
        }
        // What is left now goes to the kernels at once, and then only an answer is a sign of life.
        steady.pings(Pings::Answered);
        let mut left = step(&mut steady, 0, 0);
        // Not all in one step: on a busy machine the host would be silent for too long itself.
        while left > 0 {
            left = step(&mut steady, 0, READ_PER_STEP.min(left));
        }
    });
    stage.transcript.note("steady guest < all of it");
}
