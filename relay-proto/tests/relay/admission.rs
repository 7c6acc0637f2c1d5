//! Heads and their answers, as far as the suite over the wire does not reach.

use relay_proto::{Action, Event, Fault, Refusal, Role};

use crate::world::{UPGRADE, World, claims, guest_query, host_query, key, ms, response};

#[test]
fn h5_every_refusal_in_its_order_is_outranked_by_those_before_it() {
    let mut world = World::new(&[("RELAY_MAX_ROOMS", "1"), ("RELAY_MAX_CLIENTS_PER_ROOM", "1")]);
    let _host = world.host("full");
    let weak = "AQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"; // the identity: small order
    let guest_as_host = {
        let token = relay_proto::token::sign(&key(1), &claims("full", "x", Role::Guest));
        let pubkey = relay_proto::token::encode_key(&key(1).verifying_key());
        format!("room=full&token={token}&pubkey={pubkey}")
    };
    let other_room = host_query("elsewhere", "x", 1).replace("room=elsewhere", "room=full");
    for (query, status, code) in [
        ("room=full".to_owned(), 400, "missing_parameter"),
        ("room=%01&token=x".into(), 400, "invalid_room"),
        (format!("room=full&token=x&pubkey={weak}"), 400, "invalid_pubkey"),
        ("room=full&token=x&pubkey=AAAA".into(), 400, "invalid_pubkey"),
        ("room=nowhere&token=x".into(), 404, "room_not_found"),
        ("room=full&token=x".into(), 401, "invalid_token"),
        (guest_query("full", "x", 2), 401, "invalid_token"),
        (other_room, 403, "room_mismatch"),
        (guest_as_host, 403, "role_mismatch"),
        (host_query("full", "x", 2), 403, "room_key_mismatch"),
        (host_query("second", "x", 1), 503, "max_rooms"),
        (host_query("full", "x", 1), 503, "room_full"),
        (guest_query("full", "x", 1), 503, "room_full"),
    ] {
        let conn = world.open();
        // Not even an upgrade: that is judged last.
        let head = format!("GET /ws?{query} HTTP/1.1\r\nHost: r\r\nAccept: application/json\r\n\r\n");
        let (got, text) = response(&world.head(conn, &head));
        assert_eq!(got, status, "{query}");
        assert!(text.contains(&format!(r#"{{"error":"{code}","#)), "{query}: {text}");
        let retry = text.contains("Retry-After: ");
        assert_eq!(retry, status == 503 || code == "room_not_found", "{code}");
    }
    assert_eq!(world.relay.stats().rooms, 1);
    assert_eq!(world.relay.stats().hosts, 1);
}

#[test]
fn h6_a_plain_get_changes_nothing() {
    let mut world = World::new(&[]);
    let conn = world.open();
    let head = format!("GET /ws?{} HTTP/1.1\r\nHost: r\r\n\r\n", host_query("r", "host", 1));
    let (status, text) = response(&world.head(conn, &head));
    assert_eq!(status, 426);
    assert!(text.contains("Upgrade: websocket\r\n") && text.contains("Connection: upgrade, close\r\n"));
    assert_eq!(world.relay.stats().rooms, 0);
}

#[test]
fn t3_the_rate_counts_before_everything_else_and_says_when_to_return() {
    let mut world = World::new(&[("RELAY_RATE_LIMIT_PER_IP", "1")]);
    for _ in 0..2 {
        let conn = world.open();
        assert_eq!(response(&world.head(conn, "POST /ws HTTP/1.1\r\nHost: r\r\n\r\n")).0, 405);
    }
    let conn = world.open();
    let (status, text) = response(&world.head(conn, "GET /ws HTTP/1.1\r\nHost: r\r\n\r\n"));
    assert_eq!(status, 429);
    assert!(text.contains("Retry-After: 1\r\n"));
    world.pass(ms(1000));
    let conn = world.open();
    assert_eq!(response(&world.head(conn, "GET /ws HTTP/1.1\r\nHost: r\r\n\r\n")).0, 400);
}

#[test]
fn c2_sockets_are_counted_from_accept_to_close() {
    let mut world = World::new(&[("RELAY_MAX_CONNECTIONS", "3"), ("RELAY_MAX_CONNECTIONS_PER_IP", "1")]);
    let first = world.open_from([192, 0, 2, 1]).expect("the first");
    assert_eq!(world.open_from([192, 0, 2, 1]), None);
    let _second = world.open_from([192, 0, 2, 2]).expect("another address");
    let _third = world.open_from([192, 0, 2, 3]).expect("a third");
    assert_eq!(world.open_from([192, 0, 2, 4]), None);
    assert_eq!(world.handle(Event::Disconnect { conn: first }), []);
    assert!(world.open_from([192, 0, 2, 1]).is_some());
    let refused = world.relay.stats().refused[Refusal::TooManyConnections.index()];
    assert_eq!(refused, 2);
}

#[test]
fn t4_a_proxy_is_counted_for_the_client_behind_it() {
    let mut world = World::new(&[("RELAY_MAX_CONNECTIONS_PER_IP", "1")]);
    let mut through_proxy = |client: &str| {
        let conn = world.open_from([127, 0, 0, 1]).expect("a proxy may open many");
        world.head(conn, &format!("GET /health HTTP/1.1\r\nHost: r\r\nX-Forwarded-For: {client}\r\n\r\n"))
    };
    assert_eq!(response(&through_proxy("203.0.113.1")).0, 200);
    assert_eq!(response(&through_proxy("203.0.113.2")).0, 200);
    assert!(matches!(&through_proxy("203.0.113.1")[..], [Action::Abort { .. }]));
}

#[test]
fn h9_a_head_that_cannot_be_read_gets_an_answer() {
    let mut world = World::new(&[]);
    for (fault, status) in [(Fault::BadHead, 400), (Fault::HeadTooLarge, 431)] {
        let conn = world.open();
        assert_eq!(response(&world.handle(Event::Fault { conn, fault })).0, status);
    }
}

#[test]
fn every_refusal_is_safe_inside_json() {
    for code in Refusal::CODES {
        assert!(code.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'));
    }
    let mut world = World::new(&[]);
    let conn = world.open();
    let head =
        format!("GET /ws?room=a&token=b&pubkey=c HTTP/1.1\r\nAccept: application/json\r\n{UPGRADE}\r\n");
    let (_, text) = response(&world.head(conn, &head));
    let body = text.split("\r\n\r\n").nth(1).expect("there is a body");
    assert_eq!(body, r#"{"error":"invalid_pubkey","message":"invalid pubkey"}"#);
}
