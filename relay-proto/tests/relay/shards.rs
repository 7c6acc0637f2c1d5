//! Several machines that are one relay. Each has a world of its own here, and the tests are the adapter between them.

use std::time::Duration;

use relay_proto::{Action, ConnId, Event, Pass, Refusal, Wake};

use crate::world::{UPGRADE, World, guest_query, host_query, ms, response};

fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

/// Where a room is, among so many.
fn home(room: &str, count: u16) -> usize {
    match &World::shards(count, &[])[0].upgrade(&guest_query(room, "x", 1)).1[..] {
        [Action::Respond { .. }] => 0,
        [Action::HandOver { shard, .. }] => *shard,
        other => panic!("{other:?}"),
    }
}

/// A room that is in this one of so many; `number` tells several of them apart.
fn room(shard: usize, count: u16, number: usize) -> String {
    let rooms = (0..).map(|n| format!("r{n}"));
    rooms.filter(|room| home(room, count) == shard).nth(number).expect("they do not end")
}

fn handed_over(actions: &[Action], from: ConnId, to: usize) -> Pass {
    match actions {
        [Action::HandOver { conn, shard, pass }] if (*conn, *shard) == (from, to) => pass.clone(),
        _ => panic!("expected {from} to go to shard {to}: {actions:?}"),
    }
}

/// Lets time pass for all of them.
fn pass(shards: &mut [World], time: Duration) {
    for shard in shards {
        shard.pass(time);
    }
}

/// Comes in by one shard, asks for a room of another, and is let in there.
fn cross(shards: &mut [World], from: usize, to: usize, query: &str) -> ConnId {
    let (conn, actions) = shards[from].upgrade(query);
    let pass = handed_over(&actions, conn, to);
    let conn = take_over(&mut shards[to], pass).expect("it is taken in");
    let actions = shards[to].ask(conn, query);
    assert!(
        matches!(actions[..], [Action::Upgrade { conn: upgraded, .. }] if upgraded == conn),
        "{actions:?}"
    );
    assert_eq!(shards[to].sent(conn), []);
    conn
}

fn take_over(shard: &mut World, pass: Pass) -> Option<ConnId> {
    let conn = shard.relay.take_over(shard.now, pass, &mut shard.seen);
    assert_eq!(shard.actions(), []);
    conn
}

fn close(conn: ConnId) -> Action {
    Action::Close { conn, code: Some(1012), reason: "restart" }
}

/// It answers the close frame of a drain and goes.
fn leave(shard: &mut World, conn: ConnId) -> Vec<Action> {
    assert_eq!(shard.sent(conn), []);
    assert_eq!(shard.handle(Event::PeerClose { conn, code: Some(1012) }), []);
    shard.handle(Event::Disconnect { conn })
}

fn counted(shards: &[World], refusal: Refusal) -> u64 {
    shards.iter().map(|shard| shard.relay.stats().refused[refusal.index()]).sum()
}

#[test]
fn whoever_asks_for_a_room_of_another_shard_is_handed_over_with_its_deadline() {
    let mut shards = World::shards(2, &[]);
    let query = host_query(&room(1, 2, 0), "host", 1);
    let first = shards[0].open();
    pass(&mut shards, secs(3));
    let actions = shards[0].ask(first, &query);
    let ticket = handed_over(&actions, first, 1);
    // In the first shard nothing is left, and what comes late is ignored.
    assert_eq!((shards[0].relay.stats().connections, shards[0].relay.next_deadline()), (0, None));
    assert_eq!(shards[0].sent(first), []);
    assert_eq!(shards[0].ask(first, &query), []);
    assert_eq!(shards[0].handle(Event::Disconnect { conn: first }), []);
    assert_eq!(shards[0].seen.notices, [""; 0]);
    pass(&mut shards, secs(1));
    let second = take_over(&mut shards[1], ticket).expect("it is taken in");
    assert_eq!((first.shard(), second.shard()), (0, 1));
    assert_eq!(shards[1].relay.next_deadline(), Some((secs(10), Wake::Handshake)));
    let actions = shards[1].ask(second, &query);
    assert!(matches!(&actions[..], [Action::Upgrade { conn, .. }] if *conn == second), "{actions:?}");
    // Both are the first of their slots: only the shard tells them apart.
    assert_eq!(shards[1].handle(Event::Disconnect { conn: first }), []);
    let stats = shards[1].relay.stats();
    assert_eq!((stats.connections, stats.rooms, stats.hosts), (1, 1, 1));
}

#[test]
fn h9_a_head_that_is_not_sent_again_is_awaited_no_longer_than_the_first() {
    let mut shards = World::shards(2, &[]);
    let first = shards[0].open();
    pass(&mut shards, secs(9));
    let actions = shards[0].ask(first, &guest_query(&room(1, 2, 0), "ann", 1));
    let conn = take_over(&mut shards[1], handed_over(&actions, first, 1)).expect("it is taken in");
    let (at, wake, actions) = shards[1].next();
    assert_eq!((at, wake, &actions[..]), (secs(10), Wake::Handshake, &[Action::Abort { conn }][..]));
}

#[test]
fn what_names_no_room_stays_where_it_came_in() {
    let mut shards = World::shards(3, &[]);
    // A page is the same everywhere, whatever else stands in its query.
    let pages = (0..3).map(|shard| (format!("/health?room={}", room(shard, 3, 0)), 200));
    let others = [
        ("/", 200),
        ("/health", 200),
        ("/elsewhere", 404),
        ("/ws", 400),
        ("/ws?room=", 400),
        ("/ws?room=%FF", 400),
    ];
    let others = others.map(|(target, status)| (target.to_owned(), status));
    for (target, status) in pages.chain(others) {
        for shard in &mut shards {
            let conn = shard.open();
            let head = format!("GET {target} HTTP/1.1\r\n{UPGRADE}\r\n");
            assert_eq!(response(&shard.head(conn, &head)).0, status, "{target}");
        }
    }
}

#[test]
fn c2_sockets_of_all_shards_are_one_number_and_so_are_those_on_their_way() {
    let mut shards = World::shards(3, &[("RELAY_MAX_CONNECTIONS", "3")]);
    let query = host_query(&room(1, 3, 0), "host", 1);
    let conns: Vec<ConnId> = shards.iter_mut().map(World::open).collect();
    let is_full =
        |shards: &mut [World]| shards.iter_mut().all(|shard| shard.open_from([192, 0, 2, 9]).is_none());
    assert!(is_full(&mut shards));
    let actions = shards[0].ask(conns[0], &query);
    let ticket = handed_over(&actions, conns[0], 1);
    assert!(is_full(&mut shards), "it is on its way");
    let conn = take_over(&mut shards[1], ticket).expect("it has a place");
    assert!(is_full(&mut shards), "it has arrived");
    assert_eq!(shards[1].handle(Event::Disconnect { conn }), []);
    assert!(shards[2].open_from([192, 0, 2, 9]).is_some());
    assert!(is_full(&mut shards), "one has gone");
    assert_eq!(counted(&shards, Refusal::TooManyConnections), 12);
}

#[test]
fn c2_an_address_is_the_same_in_all_shards() {
    let mut shards = World::shards(2, &[("RELAY_MAX_CONNECTIONS_PER_IP", "1")]);
    let conn = cross(&mut shards, 0, 1, &host_query(&room(1, 2, 0), "host", 1));
    for (shard, other) in shards.iter_mut().zip([2, 3]) {
        assert_eq!(shard.open_from([192, 0, 2, 1]), None);
        assert!(shard.open_from([192, 0, 2, other]).is_some());
        assert_eq!(shard.open_from([192, 0, 2, other]), None);
    }
    assert_eq!(shards[1].handle(Event::Disconnect { conn }), []);
    assert!(shards[0].open_from([192, 0, 2, 1]).is_some());
    assert_eq!(shards[1].open_from([192, 0, 2, 1]), None);
}

#[test]
fn t4_whoever_is_behind_a_proxy_is_counted_once_and_where_its_room_is() {
    let mut shards = World::shards(2, &[("RELAY_MAX_CONNECTIONS_PER_IP", "1")]);
    let head =
        |target: &str| format!("GET {target} HTTP/1.1\r\nX-Forwarded-For: 203.0.113.1\r\n{UPGRADE}\r\n");
    let query = host_query(&room(1, 2, 0), "host", 1);
    let by_proxy = |shard: &mut World| shard.open_from([127, 0, 0, 1]).expect("a proxy may open many");
    let first = by_proxy(&mut shards[0]);
    let actions = shards[0].head(first, &head(&format!("/ws?{query}")));
    let conn = take_over(&mut shards[1], handed_over(&actions, first, 1)).expect("it is taken in");
    let actions = shards[1].head(conn, &head(&format!("/ws?{query}")));
    assert!(matches!(&actions[..], [Action::Upgrade { conn: joined, .. }] if *joined == conn), "{actions:?}");
    for shard in &mut shards {
        let second = by_proxy(shard);
        assert_eq!(shard.head(second, &head("/health")), [Action::Abort { conn: second }]);
    }
    assert_eq!(shards[1].handle(Event::Disconnect { conn }), []);
    let again = by_proxy(&mut shards[0]);
    assert_eq!(response(&shards[0].head(again, &head("/health"))).0, 200);
}

#[test]
fn r4_rooms_of_all_shards_are_one_number() {
    let mut shards = World::shards(3, &[("RELAY_MAX_ROOMS", "2")]);
    let [zero, one, two] = [0, 1, 2].map(|shard| host_query(&room(shard, 3, 0), "host", 1));
    let first = shards[0].member(&zero);
    let _second = cross(&mut shards, 2, 1, &one);
    let (status, text) = response(&shards[2].upgrade(&two).1);
    assert_eq!(status, 503);
    assert!(text.ends_with("\r\n\r\nmax rooms reached\n"), "{text}");
    assert_eq!(shards[0].handle(Event::Disconnect { conn: first }), []);
    let _third = shards[2].member(&two);
    assert_eq!(response(&shards[0].upgrade(&zero).1).0, 503);
}

#[test]
fn t3_a_request_uses_up_one_of_the_rate_wherever_it_is_judged() {
    let mut shards = World::shards(3, &[("RELAY_RATE_LIMIT_PER_IP", "1")]);
    assert_eq!(response(&shards[0].upgrade("").1).0, 400);
    let _conn = cross(&mut shards, 0, 1, &host_query(&room(1, 3, 0), "host", 1));
    let (status, text) = response(&shards[2].upgrade("").1);
    assert_eq!(status, 429);
    assert!(text.contains("Retry-After: 1\r\n"), "{text}");
    pass(&mut shards, secs(1));
    assert_eq!(response(&shards[2].upgrade("").1).0, 400);
    assert_eq!(response(&shards[1].upgrade("").1).0, 429);
}

#[test]
fn s4_each_shard_has_its_part_and_takes_nothing_from_the_others() {
    let mut shards = World::shards(2, &[("RELAY_MAX_QUEUED_BYTES", "200000"), ("RELAY_COALESCE_MS", "0")]);
    let mut slow = Vec::new();
    for (index, shard) in shards.iter_mut().enumerate() {
        let room = room(index, 2, 0);
        let host = shard.host(&room);
        slow.push((host, shard.guest(&room, "slow")));
        assert_eq!(shard.message(host, vec![b'x'; 60_000]).len(), 1);
    }
    // 180 kB wait in all, which is allowed; 120 kB of them in one shard, which is not.
    let (host, guest) = slow[0];
    let _ = shards[0].message(host, vec![b'y'; 60_000]);
    assert_eq!(
        shards[0].sent(guest),
        [Action::Close { conn: guest, code: Some(1013), reason: "slow consumer" }]
    );
    assert_eq!([0, 1].map(|shard: usize| shards[shard].relay.stats().slow_consumers), [1, 0]);
    assert_eq!(shards[1].sent(slow[1].1), []);
}

#[test]
fn d1_whoever_arrives_when_all_rooms_are_closed_is_not_taken_in() {
    let mut shards = World::shards(2, &[]);
    let room = room(1, 2, 0);
    let host = shards[1].host(&room);
    let (conn, actions) = shards[0].upgrade(&guest_query(&room, "ann", 1));
    let ticket = handed_over(&actions, conn, 1);
    assert_eq!(shards[0].handle(Event::Drain), []);
    assert_eq!(shards[1].handle(Event::Drain), [Action::TickOthers, close(host)]);
    assert_eq!(shards[0].handle(Event::Tick), [Action::Exit]);
    assert_eq!(take_over(&mut shards[1], ticket), None);
    assert_eq!(counted(&shards, Refusal::Draining), 1);
    assert_eq!(leave(&mut shards[1], host), [Action::Exit]);
}

#[test]
fn d1_the_rooms_of_all_shards_are_closed_evenly() {
    /// Which shard closes a room in each of the turns; the third has none.
    const TURNS: [usize; 4] = [0, 0, 1, 1];
    let mut shards = World::shards(3, &[]);
    let mut open: Vec<Vec<ConnId>> = (0..3)
        .map(|shard| {
            (0..[2, 2, 0][shard]).map(|number| shards[shard].host(&room(shard, 3, number))).collect()
        })
        .collect();
    let next = |shards: &[World]| {
        shards.iter().filter_map(|shard| shard.relay.next_deadline()).min_by_key(|(at, _)| *at)
    };
    let mut actions = shards[0].handle(Event::Drain);
    assert_eq!([shards[1].handle(Event::Drain), shards[2].handle(Event::Drain)], [[], []]);
    for (turn, shard) in TURNS.into_iter().enumerate() {
        // Which of its rooms comes first is left to chance.
        let closed = open[shard].iter().position(|host| actions.contains(&close(*host)));
        let host = open[shard].remove(closed.expect("one is closed"));
        let is_last = turn == 3;
        let told = if is_last { vec![Action::TickOthers] } else { vec![] };
        assert_eq!(actions, [told, vec![close(host)]].concat());
        assert_eq!(leave(&mut shards[shard], host), if is_last { vec![Action::Exit] } else { vec![] });
        if is_last {
            break;
        }
        let due = ms(2500) * u32::try_from(turn + 1).unwrap();
        assert_eq!(next(&shards), Some((due, Wake::Drain)));
        pass(&mut shards, ms(2500));
        for index in (0..3).filter(|index| *index != TURNS[turn + 1]) {
            assert_eq!(shards[index].handle(Event::Tick), [], "it is not the turn of shard {index}");
        }
        actions = shards[TURNS[turn + 1]].handle(Event::Tick);
    }
    assert_eq!(
        [shards[0].handle(Event::Tick), shards[2].handle(Event::Tick)],
        [[Action::Exit], [Action::Exit]]
    );
    assert_eq!(next(&shards), None);
    let notices = shards.iter().flat_map(|shard| &shard.seen.notices);
    let told: Vec<_> = notices.filter(|notice| notice.starts_with("Draining")).collect();
    assert_eq!(told, ["Draining { rooms: 4 }"]);
}

#[test]
fn d1_once_one_shard_drains_no_room_opens_in_any_but_guests_still_come_from_everywhere() {
    let mut shards = World::shards(2, &[]);
    let rooms = [0, 1].map(|number| room(1, 2, number));
    let hosts = [shards[1].host(&rooms[0]), shards[1].host(&rooms[1])];
    let [here, there] = [0, 1].map(|shard| host_query(&room(shard, 2, 2), "host", 1));
    // The other has not heard of it yet.
    let first = shards[1].handle(Event::Drain);
    for told in [false, true] {
        let (status, text) = response(&shards[0].upgrade(&here).1);
        assert_eq!((status, text.ends_with("\r\n\r\ndraining\n")), (503, true), "{text}");
        let (conn, actions) = shards[0].upgrade(&there);
        let conn = take_over(&mut shards[1], handed_over(&actions, conn, 1)).expect("it is taken in");
        assert_eq!(response(&shards[1].ask(conn, &there)).0, 503);
        if !told {
            assert_eq!(shards[0].handle(Event::Drain), []);
        }
    }
    let open = usize::from(first == [close(hosts[0])]);
    let guest = cross(&mut shards, 0, 1, &guest_query(&rooms[open], "ann", 1));
    // The one without rooms waits for the last of the other's.
    pass(&mut shards, ms(5000));
    let _ = shards[0].handle(Event::Tick);
    assert!(shards[0].open_from([192, 0, 2, 9]).is_some());
    let last = shards[1].handle(Event::Tick);
    let expected = [close(hosts[open]), Action::TickOthers, close(guest)];
    assert_eq!(last[last.len() - 3..], expected);
}

#[test]
fn d1_when_the_last_room_is_closed_all_shards_come_to_their_end() {
    let mut shards = World::shards(3, &[]);
    let host = shards[1].host(&room(1, 3, 0));
    let idle = shards[0].open();
    let asked = shards[2].open();
    assert_eq!(response(&shards[2].head(asked, "GET / HTTP/1.1\r\nHost: r\r\n\r\n")).0, 200);
    assert_eq!(shards[0].handle(Event::Drain), []);
    assert_eq!(shards[2].handle(Event::Drain), []);
    assert_eq!(shards[1].handle(Event::Drain), [Action::TickOthers, close(host)]);
    assert_eq!(shards[0].handle(Event::Tick), [Action::Abort { conn: idle }, Action::Exit]);
    assert_eq!(shards[2].handle(Event::Tick), []);
    for shard in &mut shards {
        assert_eq!(shard.open_from([192, 0, 2, 1]), None);
    }
    assert_eq!(shards[2].handle(Event::Disconnect { conn: asked }), [Action::Exit]);
    assert_eq!(leave(&mut shards[1], host), [Action::Exit]);
    for shard in &mut shards {
        assert_eq!((shard.handle(Event::Tick), shard.relay.next_deadline()), (vec![], None));
    }
}

#[test]
fn d1_a_last_room_that_ends_by_itself_is_told_of_too() {
    let mut shards = World::shards(2, &[]);
    let hosts = [0, 1].map(|number| shards[0].host(&room(0, 2, number)));
    let first = shards[0].handle(Event::Drain);
    let [closed, open] = if first == [close(hosts[0])] { hosts } else { [hosts[1], hosts[0]] };
    assert_eq!(first, [close(closed)]);
    assert_eq!(shards[1].handle(Event::Drain), []);
    assert_eq!(shards[0].handle(Event::Disconnect { conn: open }), [Action::TickOthers]);
    assert_eq!(shards[1].handle(Event::Tick), [Action::Exit]);
    assert_eq!(leave(&mut shards[0], closed), [Action::Exit]);
}

#[test]
fn d1_a_shard_that_hears_of_a_drain_when_it_is_over_refuses_rooms_and_then_ends() {
    let mut shards = World::shards(2, &[]);
    let host = shards[0].host(&room(0, 2, 0));
    let idle = shards[1].open();
    assert_eq!(shards[0].handle(Event::Drain), [Action::TickOthers, close(host)]);
    assert_eq!(shards[1].handle(Event::Tick), []);
    let late = shards[1].open();
    assert_eq!(response(&shards[1].ask(late, &host_query(&room(1, 2, 0), "host", 1))).0, 503);
    let (conn, actions) = shards[1].upgrade(&guest_query(&room(0, 2, 0), "ann", 1));
    assert_eq!(take_over(&mut shards[0], handed_over(&actions, conn, 0)), None);
    assert_eq!(shards[1].handle(Event::Drain), [Action::Abort { conn: idle }]);
    assert_eq!(shards[1].handle(Event::Disconnect { conn: late }), [Action::Exit]);
    assert_eq!(leave(&mut shards[0], host), [Action::Exit]);
}

#[test]
fn d1_an_empty_relay_of_several_shards_ends_at_once() {
    for shard in &mut World::shards(3, &[]) {
        assert_eq!(shard.handle(Event::Drain), [Action::Exit]);
        assert_eq!((shard.handle(Event::Drain), shard.relay.next_deadline()), (vec![], None));
    }
}
