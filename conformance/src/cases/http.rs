//! What is served besides rooms, and heads that are no good (rules H1, H2, H3, H7, H9).

use std::time::Duration;

use super::{Needs, cases};
use crate::http::{Answer, Request};
use crate::stage::Stage;

const LARGEST_HEAD_BYTES: usize = 16 * 1024;
const MOST_FIELDS: usize = 64;

cases! {
    "http::status_page" ["H1"] Needs::Nothing, status_page;
    "http::health" ["H2"] Needs::Nothing, health;
    "http::unknown_path" ["H3"] Needs::Nothing, unknown_path;
    "http::wrong_method" ["H7"] Needs::Nothing, wrong_method;
    "http::large_head" ["H9"] Needs::Nothing, large_head;
    "http::malformed_head" ["H9"] Needs::Nothing, malformed_head;
    "http::body" ["H9"] Needs::Nothing, body;
    "http::byte_by_byte" ["H9"] Needs::Nothing, byte_by_byte;
    "http::half_closed" ["H2"] Needs::Nothing, half_closed;
    "http::slow_head" ["H9"] Needs::Settings(&[("RELAY_HANDSHAKE_TIMEOUT", "1")]), slow_head;
}

fn status_page(stage: &Stage<'_>) {
    let get = stage.ask(&Request::get("/"));
    assert_eq!(get.status, 200);
    assert_eq!(get.field("Content-Type"), Some("text/html; charset=utf-8"));
    assert!(get.body.to_lowercase().contains("<!doctype html>"), "{}", get.body);
    assert!(get.body.contains("Serving") && !get.body.contains("Draining"), "{}", get.body);
    // Rooms, connections and addresses are nobody's business, and so is how many there are.
    let room = stage.room("unseen");
    let mut host = stage.host(&room, "unseen host");
    let mut guest = stage.guest(&room, "unseen guest");
    stage.fence(&mut guest, &mut [&mut host]);
    assert_eq!(stage.ask(&Request::get("/")).body, get.body);
    loads_nothing(&get);
    stage.transcript.note("GET /: 200 text/html");
    same_but_for_content(&get, &stage.ask(&Request::new("HEAD", "/")));
    same_but_for_content(&get, &stage.ask(&Request::new("HEAD", "/?from=anywhere")));
}

/// What a page needs it brings along.
#[track_caller]
fn loads_nothing(page: &Answer) {
    let policy = page.field("Content-Security-Policy").expect("it says what may be loaded");
    assert!(policy.contains("default-src 'none'"), "{policy}");
    for loading in ["<script", "<iframe", "stylesheet", "@import", "url(", "src=", "href=\"http", "href=\"//"]
    {
        assert!(!page.body.contains(loading), "{loading} in {}", page.body);
    }
}

fn health(stage: &Stage<'_>) {
    let get = stage.ask_recorded("GET /health", &Request::get("/health"));
    assert_eq!((get.status, get.body.as_str()), (200, r#"{"status":"ok"}"#));
    assert_eq!(get.field("Content-Type"), Some("application/json"));
    same_but_for_content(&get, &stage.ask(&Request::new("HEAD", "/health")));
    let http_1_0 = stage.dial("old client").ask_raw("GET /health HTTP/1.0\r\n\r\n");
    assert_eq!(http_1_0.body, get.body);
}

fn unknown_path(stage: &Stage<'_>) {
    let get = stage.ask_recorded("GET /nothing", &Request::get("/nothing"));
    refuses_in_plain_text(&get, 404, "404 page not found\n");
    for target in ["/ws/", "/wsx", "/WS", "/health/", "//", "/health%2f", "/index.html"] {
        refuses_in_plain_text(&stage.ask(&Request::get(target)), 404, "404 page not found\n");
    }
    // Whatever the method.
    refuses_in_plain_text(&stage.ask(&Request::new("DELETE", "/nothing")), 404, "404 page not found\n");
    same_but_for_content(&get, &stage.ask(&Request::new("HEAD", "/nothing")));
}

fn wrong_method(stage: &Stage<'_>) {
    for (method, target, allow) in [
        ("POST", "/", "GET, HEAD"),
        ("OPTIONS", "/", "GET, HEAD"),
        ("DELETE", "/health", "GET, HEAD"),
        ("get", "/health", "GET, HEAD"),
        ("POST", "/ws", "GET"),
        ("PUT", "/ws?room=r&token=t", "GET"),
    ] {
        let answer = stage.ask_recorded(&format!("{method} {target}"), &Request::new(method, target));
        refuses_in_plain_text(&answer, 405, "method not allowed\n");
        assert_eq!(answer.field("Allow"), Some(allow), "{method} {target}");
    }
    let head = stage.ask(&Request::new("HEAD", "/ws"));
    assert_eq!((head.status, head.body.as_str()), (405, ""));
}

fn large_head(stage: &Stage<'_>) {
    let health = || Request::get("/health");
    for (what, request, status) in [
        ("16 KiB", health().padded_to(LARGEST_HEAD_BYTES), 200),
        ("16 KiB and 1 byte", health().padded_to(LARGEST_HEAD_BYTES + 1), 431),
        ("64 KiB", health().padded_to(4 * LARGEST_HEAD_BYTES), 431),
        ("64 fields", health().with_fields(MOST_FIELDS), 200),
        ("65 fields", health().with_fields(MOST_FIELDS + 1), 431),
        ("200 fields", health().with_fields(200), 431),
        ("a target of 20 KiB", Request::get(&format!("/{}", "x".repeat(20_000))), 431),
    ] {
        let answer = stage.ask(&request);
        stage.transcript.note(format!("{what}: {}", answer.status));
        assert_eq!(answer.status, status, "{what}");
        if status == 431 {
            refuses_in_plain_text(&answer, 431, "request head too large\n");
        }
    }
}

fn malformed_head(stage: &Stage<'_>) {
    for text in [
        "\u{16}\u{3}\u{1}\u{2}\u{0}\r\n\r\n",
        "GET\r\n\r\n",
        "GET /health\r\n\r\n",
        "GET /health HTTP/2.0\r\n\r\n",
        "GET /health HTTP/1.1\r\nHost: a\r\nno colon\r\n\r\n",
        "GET /health HTTP/1.1\r\nHost: a\r\nName : space before the colon\r\n\r\n",
        "GET /health HTTP/1.1\r\nHost: a\r\nX: a\0b\r\n\r\n",
        "GET /health HTTP/1.1\r\nHost: a\r\nX: folded\r\n line\r\n\r\n",
        "GET /health HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        "GET /health HTTP/1.1\r\nAccept: there is no host\r\n\r\n",
    ] {
        let answer = stage.dial("client").ask_raw(text);
        stage.transcript.note(format!("{text:?}: {}", answer.status));
        refuses_in_plain_text(&answer, 400, "bad request\n");
    }
}

fn body(stage: &Stage<'_>) {
    for (name, value, status) in [
        ("Content-Length", "0", 200),
        ("Content-Length", "5", 400),
        ("Content-Length", "-1", 400),
        ("Transfer-Encoding", "chunked", 400),
        ("Transfer-Encoding", "identity", 400),
    ] {
        let answer = stage.ask(&Request::get("/health").with(name, value));
        stage.transcript.note(format!("{name}: {value}: {}", answer.status));
        assert_eq!(answer.status, status, "{name}: {value}");
    }
    // The content arrives too and must not be read as a second request, nor cost the client its answer.
    let request = Request::new("POST", "/health").with("Content-Length", "33");
    let mut client = stage.dial("client");
    client.bytes(&[request.encode(), b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n".to_vec()].concat());
    refuses_in_plain_text(&client.answer(&request), 400, "bad request\n");
}

fn byte_by_byte(stage: &Stage<'_>) {
    let request = Request::get("/health");
    let mut client = stage.dial("client");
    for byte in request.encode() {
        client.bytes(&[byte]);
    }
    stage.record("GET /health, byte by byte", &client.answer(&request));

    let room = stage.room("byte by byte");
    let mut host = stage.host(&room, "host");
    let mut guest = stage.dial("guest");
    let request = Request::upgrade(&room.guest_target("guest"));
    for byte in request.encode() {
        guest.bytes(&[byte]);
    }
    guest.upgraded(&request);
    for byte in crate::frame::ClientFrame::new(crate::frame::opcode::TEXT, "drop by drop").encode() {
        guest.bytes(&[byte]);
    }
    host.expect("drop by drop");
}

/// A client that has said all it wants to say gets its answer.
fn half_closed(stage: &Stage<'_>) {
    let request = Request::get("/health");
    let mut client = stage.dial("client");
    client.bytes(&request.encode());
    client.finish();
    stage.record("GET /health", &client.answer(&request));
}

fn slow_head(stage: &Stage<'_>) {
    let room = stage.room("slow head");
    let mut host = stage.host(&room, "host");
    let mut silent = stage.dial("silent client");
    let mut halting = stage.dial("halting client");
    halting.bytes(b"GET /health HTTP/1.1\r\nHost:");
    let mut dripping = stage.dial("dripping client");
    for byte in b"GET /health" {
        if dripping.try_bytes(&[*byte]).is_err() {
            break;
        }
        stage.host.pass(Duration::from_millis(200));
    }
    for peer in [&mut silent, &mut halting, &mut dripping] {
        peer.expect_gone();
    }
    // Who has joined is not in a hurry any more.
    let mut guest = stage.guest(&room, "guest");
    stage.fence(&mut guest, &mut [&mut host]);
}

/// Rule H3: how plain text is answered.
#[track_caller]
fn refuses_in_plain_text(answer: &Answer, status: u16, body: &str) {
    assert_eq!((answer.status, answer.body.as_str()), (status, body));
    assert_eq!(answer.field("Content-Type"), Some("text/plain; charset=utf-8"));
    assert_eq!(answer.field("X-Content-Type-Options"), Some("nosniff"));
}

#[track_caller]
fn same_but_for_content(get: &Answer, head: &Answer) {
    assert_eq!((get.status, &get.fields, ""), (head.status, &head.fields, head.body.as_str()));
    assert_eq!(get.content_length(), get.body.len());
}
