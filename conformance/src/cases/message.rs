//! Messages: what goes through, what ends a connection, what may be joined (rules M1 to M3, M5 to M7).

use std::time::Duration;

use super::{Needs, cases};
use crate::frame::{ClientFrame, opcode};
use crate::peer::Peer;
use crate::stage::Stage;

/// RFC 6455 section 7.4.1.
mod code {
    pub(super) const PROTOCOL_ERROR: u16 = 1002;
    pub(super) const INVALID_DATA: u16 = 1007;
    pub(super) const TOO_BIG: u16 = 1009;
}

const SMALL: &[(&str, &str)] = &[("RELAY_MAX_MESSAGE_SIZE", "1000")];
/// Long enough that what is sent in the meantime has arrived, whatever else the machine does.
const WINDOW: Duration = Duration::from_secs(1);
const SLOW_PACE: &[(&str, &str)] = &[("RELAY_COALESCE_MS", "1000")];
const SLOW_PACE_WITH_VOICE: &[(&str, &str)] =
    &[("RELAY_COALESCE_MS", "1000"), ("RELAY_VOICE_MAX_AGE_MS", "0")];
const SLOW_PACE_UNBATCHED: &[(&str, &str)] = &[("RELAY_COALESCE_MS", "1000"), ("RELAY_BATCH", "off")];

cases! {
    "message::text_and_binary" ["M1"] Needs::Nothing, text_and_binary;
    "message::opaque" ["M1"] Needs::Nothing, opaque;
    "message::fragments" ["M1"] Needs::Nothing, fragments;
    "message::large" ["M1"] Needs::Settings(&[("RELAY_MAX_MESSAGE_SIZE", "1048576")]), large;
    "message::voice_alone" ["M2" "M4" "M7"] Needs::Settings(SLOW_PACE_WITH_VOICE), voice_alone;
    "message::joined" ["M3" "M7"] Needs::Settings(SLOW_PACE), joined;
    "message::joined_up_to_a_size" ["M3"] Needs::Settings(SLOW_PACE), joined_up_to_a_size;
    "message::not_joined" ["M3"] Needs::Settings(SLOW_PACE_UNBATCHED), not_joined;
    "message::line_breaks" ["M3" "M1"] Needs::Nothing, line_breaks;
    "message::largest" ["M5" "C1"] Needs::Settings(SMALL), largest;
    "message::too_large" ["M5" "R6"] Needs::Settings(SMALL), too_large;
    "message::declared_too_large" ["M5"] Needs::Nothing, declared_too_large;
    "message::protocol_errors" ["M6"] Needs::Nothing, protocol_errors;
    "message::invalid_utf8" ["M6"] Needs::Nothing, invalid_utf8;
    "message::close_codes" ["M6"] Needs::Nothing, close_codes;
    "message::close_codes_to_a_half_closed_client" ["M6"] Needs::Nothing, close_codes_to_a_half_closed_client;
    "message::coalesced" ["M7"] Needs::Settings(SLOW_PACE), coalesced;
    "message::at_once" ["M7"] Needs::Settings(&[("RELAY_COALESCE_MS", "0")]), at_once;
}

/// A room with two in it.
fn pair<'h>(stage: &Stage<'h>, label: &str) -> (Peer<'h>, Peer<'h>) {
    let room = stage.room(label);
    (stage.host(&room, "host"), stage.guest(&room, "guest"))
}

fn text_and_binary(stage: &Stage<'_>) {
    let (mut host, mut guest) = pair(stage, "kinds");
    // The reading client refuses text, so all that comes is binary.
    host.text(r#"{"type":"text"}"#);
    guest.expect(r#"{"type":"text"}"#);
    host.send(r#"{"type":"binary"}"#);
    guest.expect(r#"{"type":"binary"}"#);
    host.text("");
    guest.expect("");
    host.send("");
    guest.expect("");
    guest.text("späte Grüße 🌙");
    host.expect("späte Grüße 🌙");
}

fn opaque(stage: &Stage<'_>) {
    let (mut host, mut guest) = pair(stage, "opaque");
    let all: Vec<u8> = (0..=u8::MAX).collect();
    for payload in [&all[..], b"\xff\xfe", b"\0", b"K", b"V", b"kv", b"{", b"\n", b"[1,\n2]", b"{\"a\":1}\n"]
    {
        host.send(payload);
        guest.expect(payload);
    }
    // Around the limits of the three forms of length (RFC 6455 section 5.2), and of copying.
    for length in [1, 124, 125, 126, 127, 128, 4095, 4096, 4097, 65_535, 65_536] {
        let payload: Vec<u8> = all.iter().copied().cycle().skip(length % 256).take(length).collect();
        host.send(&payload);
        guest.expect(&payload);
    }
}

fn fragments(stage: &Stage<'_>) {
    let (mut host, mut guest) = pair(stage, "fragments");
    host.frame(&ClientFrame::new(opcode::BINARY, "one ").unfinished());
    host.frame(&ClientFrame::new(opcode::CONTINUATION, "two ").unfinished());
    host.frame(&ClientFrame::new(opcode::CONTINUATION, "").unfinished());
    // Control frames may come in between (RFC 6455 section 5.4).
    host.ping("in between");
    host.frame(&ClientFrame::new(opcode::CONTINUATION, "three"));
    host.expect_pong("in between");
    guest.expect("one two three");
    // A character may be cut in two.
    let [first, rest] = ["ü".as_bytes()[0], "ü".as_bytes()[1]];
    host.frame(&ClientFrame::new(opcode::TEXT, [first]).unfinished());
    host.frame(&ClientFrame::new(opcode::CONTINUATION, [rest]));
    guest.expect("ü");
    host.frame(&ClientFrame::new(opcode::BINARY, "").unfinished());
    host.frame(&ClientFrame::new(opcode::CONTINUATION, ""));
    guest.expect("");
}

fn large(stage: &Stage<'_>) {
    let (mut host, mut guest) = pair(stage, "large");
    let payload: Vec<u8> =
        (0..1_048_576_u32).map(|n| n.wrapping_mul(2_654_435_761).to_be_bytes()[0]).collect();
    host.send(&payload);
    guest.expect(&payload);
    guest.send(&payload);
    host.expect(&payload);
}

/// Sends to a receiver that was just written to, so that all of it waits; gives back the frames that came.
fn while_it_waits(host: &mut Peer<'_>, guest: &mut Peer<'_>, messages: &[&[u8]]) -> Vec<Vec<u8>> {
    host.send("now");
    guest.expect("now");
    let burst = messages.iter().flat_map(|message| ClientFrame::new(opcode::BINARY, message).encode());
    host.bytes(&burst.collect::<Vec<_>>());
    host.send("end");
    let mut frames = Vec::new();
    while frames.last().is_none_or(|last| last != b"end") {
        frames.push(guest.see_framed());
    }
    frames.pop();
    frames
}

fn record_frames(stage: &Stage<'_>, frames: &[Vec<u8>]) {
    for frame in frames {
        stage.transcript.note(format!("guest < frame {}", String::from_utf8_lossy(frame).escape_default()));
    }
}

fn voice_alone(stage: &Stage<'_>) {
    let (mut host, mut guest) = pair(stage, "voice");
    let frames =
        while_it_waits(&mut host, &mut guest, &[b"KV1", b"{\"n\":1}", b"KV2", b"{\"n\":2}", b"KV", b"KV{}"]);
    let voice: Vec<_> = frames.iter().filter(|frame| frame.starts_with(b"KV")).collect();
    assert_eq!(voice, [b"KV1".as_slice(), b"KV2", b"KV", b"KV{}"]);
    // It overtook the data that waited with it (rule M4).
    assert!(frames[..4].iter().all(|frame| frame.starts_with(b"KV")), "{frames:?}");
    record_frames(stage, &frames);
}

fn joined(stage: &Stage<'_>) {
    let (mut host, mut guest) = pair(stage, "joined");
    let messages: [&[u8]; 9] =
        [b"{\"n\":1}", b"{\"n\":2}", b"[3]", b"{\"n\":4}", b"{\n}", b"{\"n\":5}", b"", b"{", b"{not JSON}"];
    let frames = while_it_waits(&mut host, &mut guest, &messages);
    let expected: [&[u8]; 7] =
        [b"{\"n\":1}\n{\"n\":2}", b"[3]", b"{\"n\":4}", b"{\n}", b"{\"n\":5}", b"", b"{\n{not JSON}"];
    assert_eq!(frames, expected);
    record_frames(stage, &frames);
}

fn joined_up_to_a_size(stage: &Stage<'_>) {
    let (mut host, mut guest) = pair(stage, "joined size");
    let message =
        |n: u8, length: usize| format!("{{{}}}", char::from(b'a' + n).to_string().repeat(length - 2));
    // Two of these are less than 64 KiB, three are more, and so is the last one alone.
    let messages = [message(0, 30_000), message(1, 30_000), message(2, 30_000), message(3, 70_000)];
    let slices: Vec<_> = messages.iter().map(String::as_bytes).collect();
    let frames = while_it_waits(&mut host, &mut guest, &slices);
    let lengths: Vec<_> = frames.iter().map(Vec::len).collect();
    assert_eq!(lengths, [60_001, 30_000, 70_000]);
    assert_eq!(frames.join(&b'\n'), messages.join("\n").as_bytes(), "nothing lost, nothing added");
    stage.transcript.note(format!("guest < frames of {lengths:?} bytes"));
}

fn not_joined(stage: &Stage<'_>) {
    let (mut host, mut guest) = pair(stage, "not joined");
    let messages: [&[u8]; 3] = [b"{\"n\":1}", b"{\"n\":2}", b"{\"n\":3}"];
    let frames = while_it_waits(&mut host, &mut guest, &messages);
    assert_eq!(frames, messages);
    record_frames(stage, &frames);
}

/// The first server joined whatever waited, and receivers cut it apart wherever a line ended.
fn line_breaks(stage: &Stage<'_>) {
    let (mut host, mut guest) = pair(stage, "line breaks");
    let messages: [&[u8]; 4] = [b"\x00\n\x01", b"{\n  \"pretty\": true\n}", b"\n", b"{\"a\":\"b\"}\r\n"];
    stage.repeat(20, |_| {
        let burst = messages.iter().flat_map(|message| ClientFrame::new(opcode::BINARY, message).encode());
        host.bytes(&burst.collect::<Vec<_>>());
        for message in messages {
            guest.expect(message);
        }
    });
}

fn largest(stage: &Stage<'_>) {
    let (mut host, mut guest) = pair(stage, "largest");
    host.send([1; 1000]);
    guest.expect([1; 1000]);
    host.frame(&ClientFrame::new(opcode::BINARY, [2; 500]).unfinished());
    host.frame(&ClientFrame::new(opcode::CONTINUATION, [2; 500]));
    guest.expect([2; 1000]);
}

fn too_large(stage: &Stage<'_>) {
    let room = stage.room("too large");
    let mut host = stage.host(&room, "host");
    let fragment = |opcode| ClientFrame::new(opcode, [3; 400]).unfinished();
    for frames in [
        vec![ClientFrame::new(opcode::BINARY, [3; 1001])],
        vec![ClientFrame::new(opcode::TEXT, [b'x'; 1001])],
        vec![ClientFrame::new(opcode::BINARY, [3; 100_000])],
        // No fragment is too large, and none is the last.
        vec![fragment(opcode::BINARY), fragment(opcode::CONTINUATION), fragment(opcode::CONTINUATION)],
        // It is not waited for.
        vec![ClientFrame::new(opcode::BINARY, []).declaring(1001)],
        vec![fragment(opcode::BINARY), ClientFrame::new(opcode::CONTINUATION, [3; 601])],
    ] {
        let mut guest = stage.guest(&room, "guest");
        for frame in &frames {
            guest.frame(frame);
        }
        guest.expect_close_code(code::TOO_BIG);
        host.expect_leave("guest");
    }
}

fn declared_too_large(stage: &Stage<'_>) {
    let room = stage.room("declared");
    let mut host = stage.host(&room, "host");
    for length in [1 << 32, 1 << 62, u64::MAX >> 1] {
        let mut guest = stage.guest(&room, "guest");
        guest.frame(&ClientFrame::new(opcode::BINARY, "beginning").declaring(length));
        guest.expect_close_code(code::TOO_BIG);
        host.expect_leave("guest");
    }
}

/// Sends each list of frames on a connection of its own and expects the close code. Nothing reaches the host.
fn each_is_closed(stage: &Stage<'_>, label: &str, code: u16, attempts: Vec<Vec<ClientFrame>>) {
    let room = stage.room(label);
    let mut host = stage.host(&room, "host");
    for frames in attempts {
        let mut guest = stage.guest(&room, "guest");
        for frame in &frames {
            guest.frame(frame);
        }
        guest.expect_close_code(code);
        host.expect_leave("guest");
    }
}

fn protocol_errors(stage: &Stage<'_>) {
    use opcode::{BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT};

    let mut attempts = vec![
        vec![ClientFrame::new(BINARY, "x").unmasked()],
        vec![ClientFrame::new(CONTINUATION, "without a beginning")],
        vec![ClientFrame::new(TEXT, "x").unfinished(), ClientFrame::new(TEXT, "y")],
        vec![ClientFrame::new(PING, "x").unfinished()],
        vec![ClientFrame::new(PONG, "x").unfinished()],
        vec![ClientFrame::new(CLOSE, "").unfinished()],
        vec![ClientFrame::new(PING, [0; 126])],
        vec![ClientFrame::close(1000, "x".repeat(124))],
        vec![ClientFrame::new(CLOSE, [3])],
    ];
    attempts.extend([1, 2, 4, 7].map(|bits| vec![ClientFrame::new(BINARY, "x").reserved(bits)]));
    attempts.extend([3, 7, 0xB, 0xF].map(|reserved| vec![ClientFrame::new(reserved, "x")]));
    each_is_closed(stage, "protocol", code::PROTOCOL_ERROR, attempts);
}

fn invalid_utf8(stage: &Stage<'_>) {
    use opcode::{CONTINUATION, TEXT};

    let mut attempts: Vec<_> = [
        b"\xff".as_slice(),
        b"fine until \xc3\x28",
        // Overlong, a surrogate, beyond U+10FFFF, cut short (RFC 3629 section 3).
        b"\xc0\xaf",
        b"\xed\xa0\x80",
        b"\xf4\x90\x80\x80",
        b"cut \xe2\x82",
    ]
    .map(|text| vec![ClientFrame::new(TEXT, text)])
    .into();
    attempts.push(vec![ClientFrame::new(TEXT, "ü").unfinished(), ClientFrame::new(CONTINUATION, [0xFF])]);
    attempts.push(vec![ClientFrame::close(1000, [0xC3])]);
    each_is_closed(stage, "utf8", code::INVALID_DATA, attempts);
}

/// A valid close is answered with its code (RFC 6455 section 5.5.1); codes that may not be sent are errors.
fn close_codes(stage: &Stage<'_>) {
    let room = stage.room("codes");
    let mut host = stage.host(&room, "host");
    for (sent, answered) in [
        (1000, 1000),
        (1001, 1001),
        (1011, 1011),
        (3000, 3000),
        (4999, 4999),
        (0, 1002),
        (999, 1002),
        (1004, 1002),
        (1005, 1002),
        (1006, 1002),
        (1015, 1002),
        (1016, 1002),
        (2999, 1002),
        (5000, 1002),
        (65_535, 1002),
    ] {
        let mut guest = stage.guest(&room, "guest");
        // What follows a close frame does not exist.
        let follow_up = ClientFrame::new(opcode::BINARY, "too late").encode();
        let close = ClientFrame::close(sent, "reason");
        stage.transcript.note(format!("guest > {}", close.describe()));
        guest.bytes(&[close.encode(), follow_up].concat());
        guest.expect_close_code(answered);
        host.expect_leave("guest");
    }
}

/// A client that has said its last word still reads the answer.
fn close_codes_to_a_half_closed_client(stage: &Stage<'_>) {
    let room = stage.room("half closed");
    let mut host = stage.host(&room, "host");
    for (last_word, answered) in [
        (ClientFrame::close(1000, "bye"), 1000),
        (ClientFrame::new(opcode::TEXT, b"\xff"), code::INVALID_DATA),
        (ClientFrame::new(3, "reserved"), code::PROTOCOL_ERROR),
    ] {
        let mut guest = stage.guest(&room, "guest");
        guest.frame(&last_word);
        guest.finish();
        guest.expect_close_code(answered);
        host.expect_leave("guest");
    }
}

fn coalesced(stage: &Stage<'_>) {
    let (mut host, mut guest) = pair(stage, "coalesced");
    // A second ago nothing was written, so this leaves at once; the clock is read before, so that what is
    // measured is never less than what the relay waited.
    stage.host.pass(WINDOW);
    let elapsed = stage.stopwatch();
    host.send("[1]");
    guest.expect("[1]");
    let first = elapsed();
    host.send("[2]");
    host.send("[3]");
    guest.expect("[2]");
    guest.expect("[3]");
    let second = elapsed();
    assert!(first < WINDOW, "an idle receiver waited {first:?}");
    assert!(second >= WINDOW, "the next write came after {second:?}");
    assert!(second < 2 * WINDOW, "what waited together came apart, after {second:?}");
}

fn at_once(stage: &Stage<'_>) {
    let (mut host, mut guest) = pair(stage, "at once");
    let elapsed = stage.stopwatch();
    for n in 0..100 {
        host.send(format!("[{n}]"));
        guest.expect(format!("[{n}]"));
    }
    let took = elapsed();
    assert!(took < Duration::from_secs(5), "100 messages, one after the other, took {took:?}");
}
