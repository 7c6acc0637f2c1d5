//! What must hold, whatever happens. `docs/simulation.md` lists them by number; each is one function here. It
//! is given what the model knows and what the relay did or a client saw, and says what is wrong.

mod shards;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use relay_proto::{ConnId, Initiator, Refusal, Role, Stats, Wake};

use crate::sim::shards::Shards;

use super::call::{Call, room_ids, room_number};
use super::model::Model;
use super::queue::{Count, Lane};
use super::referee::{Due, End, Output};
use super::state::{Conn, Outcome, Phase};
pub(crate) use shards::{
    be_in_the_shard, be_judged_where_the_room_is, call_the_others_when_no_room_is_left, hand_over_to_the_room,
};

/// Which invariant does not hold, and how that shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// `I1` and so on; `L1` and so on where something never happens.
    pub invariant: &'static str,
    /// What was seen.
    pub what: String,
}

impl Violation {
    pub(crate) fn new(invariant: &'static str, what: impl Into<String>) -> Self {
        Self { invariant, what: what.into() }
    }
}

type Verdict = Result<(), Violation>;

fn hold(condition: bool, invariant: &'static str, what: impl FnOnce() -> String) -> Verdict {
    if condition { Ok(()) } else { Err(Violation::new(invariant, what())) }
}

/// Rule M3.
const MAX_JOINED_BYTES: usize = 64 * 1024;
/// Rule S4: receivers are compared in steps of this.
const WEIGHT_STEP_BYTES: usize = 4096;

// What clients see.

/// I1, I2, I3: a client receives only what was sent for it, once; data of one sender without a gap, and both
/// lanes of one sender in order.
pub(crate) fn receive_in_order(end: &mut End, payload: &[u8], batching: bool) -> Verdict {
    if end.expected.iter().any(|(_, expected)| expected == payload) {
        return receive_one(end, payload);
    }
    let joined = batching && payload.len() < MAX_JOINED_BYTES && payload.contains(&b'\n');
    hold(joined, "I1", || format!("received what was not sent to it, or twice: {}", payload.escape_ascii()))?;
    payload.split(|byte| *byte == b'\n').try_for_each(|part| receive_one(end, part))
}

fn receive_one(end: &mut End, payload: &[u8]) -> Verdict {
    let Some(place) = end.expected.iter().position(|(_, expected)| expected == payload) else {
        let what = format!("received what was not sent to it, or twice: {}", payload.escape_ascii());
        return Err(Violation::new("I1", what));
    };
    let (sender, lane) = (end.expected[place].0, Lane::of(payload));
    let earlier = |item: &(ConnId, Bytes)| item.0 == sender && Lane::of(&item.1) == lane;
    let skipped = end.expected[..place].iter().filter(|item| earlier(item)).count();
    hold(lane == Lane::Voice || skipped == 0, "I2", || {
        format!("{skipped} messages of the same sender are missing before {}", payload.escape_ascii())
    })?;
    // I3: voice that was overtaken by later voice of its sender is not expected any more.
    let mut index = 0;
    end.expected.retain(|item| {
        index += 1;
        index - 1 > place || (index - 1 < place && !earlier(item))
    });
    Ok(())
}

/// I4: nothing ends inside a frame, unless the socket was dropped.
pub(crate) fn end_with_a_frame(end: &End) -> Verdict {
    hold(end.dropped, "I4", || "the end came inside a frame".to_owned())
}

/// I4: a client reads the answer that the relay gave.
pub(crate) fn read_the_answer_that_was_given(end: &End, status: u16) -> Verdict {
    hold(end.status == Some(status), "I4", || format!("read {status} instead of {:?}", end.status))
}

/// I4: and its close frame.
pub(crate) fn read_the_close_frame_that_was_sent(end: &End, code: Option<u16>, reason: &str) -> Verdict {
    hold(
        end.close == Some((code, reason)) || end.close.is_some_and(|(c, r)| (c, r) == (code, reason)),
        "I4",
        || format!("read close {code:?} {reason:?} instead of {:?}", end.close),
    )
}

// Who is let in.

/// I5: sockets are admitted up to the limits, exactly.
pub(crate) fn admit_sockets(predicted: Outcome, conn: Option<ConnId>, outputs: &[Output]) -> Verdict {
    let refused = outputs.iter().find_map(|output| match output {
        Output::Refused(refusal) => Some(refusal.code()),
        _ => None,
    });
    let actual = refused.map_or(Outcome::Joined, Outcome::Refused);
    hold(actual == predicted && conn.is_some() == refused.is_none(), "I5", || {
        format!("a socket should be {predicted:?}, and is {actual:?}")
    })
}

/// I6: an id names one connection, for ever.
pub(crate) fn give_out_an_id_once(ends: &BTreeMap<ConnId, End>, conn: ConnId) -> Verdict {
    hold(!ends.contains_key(&conn), "I6", || format!("{conn} was given out before"))
}

/// I5: whoever may come in does, under the name it gave.
pub(crate) fn join_as_predicted(
    subject: Option<ConnId>,
    due: Due,
    call: Option<&Call>,
    conn: ConnId,
    room: &str,
    role: Role,
) -> Verdict {
    let asked = call.is_some_and(|call| room_ids()[call.room] == room && call.role == role);
    hold(subject == Some(conn) && due == Due::Answer(Outcome::Joined) && asked, "I5", || {
        format!("{conn} joined {room} as {role:?}; due was {due:?}")
    })
}

/// I5: whoever may not is told why.
pub(crate) fn refuse_as_predicted(due: Due, refusal: Refusal) -> Verdict {
    let predicted = match due {
        Due::Answer(Outcome::Refused(code)) => Some(code),
        Due::Abort => Some("too_many_connections"),
        _ => None,
    };
    hold(predicted == Some(refusal.code()), "I5", || {
        format!("refused with {}; due was {due:?}", refusal.code())
    })
}

/// I5: an answer goes to whoever asked.
pub(crate) fn answer_as_predicted(subject: Option<ConnId>, due: Due, conn: ConnId, status: u16) -> Verdict {
    let fits = match due {
        Due::Answer(Outcome::Page) => matches!(status, 200 | 503),
        Due::Answer(Outcome::Refused(_)) => status >= 400,
        _ => false,
    };
    hold(subject == Some(conn) && fits, "I5", || format!("{conn} was answered {status}; due was {due:?}"))
}

/// I7: in its room before the 101 (R5).
pub(crate) fn be_a_member_before_the_101(model: &Model, conn: ConnId) -> Verdict {
    hold(model.member(conn).is_some(), "I7", || format!("{conn} gets a 101 and is no member"))
}

/// I8: the counters of who is there are exact, in each shard.
pub(crate) fn count_who_is_there(model: &Model, relay: &Shards) -> Verdict {
    relay.each().enumerate().try_for_each(|(shard, relay)| {
        let members = || model.in_shard(shard).filter_map(Conn::member);
        let hosts = members().filter(|member| member.role == Role::Host).count();
        let rooms: BTreeSet<usize> = members().map(|member| member.room).collect();
        let expected = [model.in_shard(shard).count(), rooms.len(), hosts, members().count() - hosts];
        let stats = relay.stats();
        let actual = [stats.connections, stats.rooms, stats.hosts, stats.guests];
        hold(expected.map(|count| count as u64) == actual, "I8", || {
            format!("connections, rooms, hosts, guests: counted {actual:?}, there are {expected:?}")
        })
    })
}

/// I5: and never more than may be.
pub(crate) fn stay_within_caps(model: &Model) -> Verdict {
    let fullest = model.rooms.keys().map(|room| model.members(*room).len()).max().unwrap_or(0);
    let (rooms, sockets) = (model.rooms.len(), model.sockets());
    let config = &model.config;
    hold(
        rooms <= config.max_rooms
            && sockets <= config.max_connections
            && fullest <= config.max_clients_per_room,
        "I5",
        || format!("{rooms} rooms, {sockets} sockets, {fullest} members in one room"),
    )
}

// What is sent.

/// I9: one write at a time, and nothing for a connection that has ended.
pub(crate) fn write_one_thing_at_a_time(model: &Model, conn: ConnId) -> Verdict {
    be_alive(model, conn)?;
    hold(model.conns[&conn].queue.outstanding.is_none(), "I9", || format!("a second write to {conn}"))
}

/// I9: nothing for a connection that has ended.
pub(crate) fn be_alive(model: &Model, conn: ConnId) -> Verdict {
    hold(model.conns.contains_key(&conn), "I9", || format!("an action for {conn}, which has ended"))
}

/// I10: a batch carries all voice that waits but what is stale, then data from the front of its lane.
pub(crate) fn send_what_waits(model: &mut Model, conn: ConnId, batch: &[u8]) -> Verdict {
    let (now, max_age, batching) = (model.now.monotonic, model.config.voice_max_age, model.config.batch);
    let Some(entry) = model.conns.get_mut(&conn) else { return Ok(()) };
    entry.queue.drop_stale(now, max_age);
    entry.queue.take(batch, now, batching).map_err(|what| Violation::new("I10", format!("to {conn}: {what}")))
}

/// I11: what can leave does: to an idle receiver when the turn ends, to others when their window ends (M7); and a
/// close frame once nothing is in front of it. `served` are those whose queue was to be looked at, `audience` those
/// for whom something came: if it can leave, the relay wants a tick at once.
pub(crate) fn let_nobody_wait_for_nothing(
    model: &mut Model,
    served: &[ConnId],
    audience: &[ConnId],
    next: Option<Duration>,
) -> Verdict {
    let (now, max_age, coalesce) = (model.now.monotonic, model.config.voice_max_age, model.config.coalesce);
    let can_leave = |entry: &Conn| entry.queue.window(coalesce).is_some_and(|at| at <= now);
    let waiting = audience.iter().find(|conn| model.conns.get(conn).is_some_and(can_leave));
    hold(waiting.is_none() || next.is_some_and(|at| at <= now), "I11", || {
        format!("something could leave for {waiting:?}, and no tick is due")
    })?;
    for conn in served {
        let Some(entry) = model.conns.get_mut(conn) else { continue };
        if entry.queue.window(coalesce).is_some_and(|at| at <= now) {
            entry.queue.drop_stale(now, max_age);
            hold(entry.queue.window(coalesce).is_none(), "I11", || {
                format!("something waits for {conn}, and for nothing")
            })?;
        }
    }
    let forgotten =
        |entry: &Conn| matches!(entry.phase, Phase::Closing { frame: Some(_), .. }) && entry.queue.is_idle();
    let forgotten = model.conns.iter().find(|(_, entry)| forgotten(entry));
    hold(forgotten.is_none(), "I11", || "a close frame waits for nothing".to_owned())
}

/// I12: what waits is bounded: voice (S2), data (S3), everything in each shard (S4).
pub(crate) fn stay_within_bounds(model: &Model, held: &[usize]) -> Verdict {
    let config = &model.config;
    let members = || model.conns.iter().filter(|(_, entry)| entry.member().is_some());
    for (conn, entry) in members() {
        let (voice, data) = (entry.queue.voice_waiting(), entry.queue.held_data());
        hold(voice <= config.voice_queue && data <= data_bound(model), "I12", || {
            format!("{voice} packets of voice and {data} bytes of data wait for {conn}")
        })?;
    }
    held.iter().enumerate().try_for_each(|(shard, held)| {
        let nobody =
            || model.in_shard(shard).all(|entry| entry.member().is_none() || entry.queue.held() == 0);
        hold(*held <= model.bound_of_a_shard() || nobody(), "I12", || format!("{held} bytes wait in all"))
    })
}

/// Rule S3.
fn data_bound(model: &Model) -> usize {
    let message = model.config.max_message_size.saturating_add(74);
    model.config.data_queue_bytes.max(message.saturating_mul(4))
}

/// I13: `enqueued = delivered + dropped + waiting`, each as the model counts it; so every gap in voice is counted.
pub(crate) fn keep_accounts(model: &Model, settled: &[Count; 2], held: usize, stats: &Stats) -> Verdict {
    for lane in [Lane::Voice, Lane::Data] {
        let mut expected = [0; 4];
        let queues =
            model.conns.values().map(|entry| (entry.queue.counts[lane as usize], entry.queue.waiting(lane)));
        for (count, waiting) in queues.chain([(settled[lane as usize], 0)]) {
            let add = [count.enqueued, count.delivered, count.dropped, waiting];
            expected.iter_mut().zip(add).for_each(|(sum, add)| *sum += add);
        }
        let account = &stats.lanes[lane as usize];
        let dropped = account.dropped.iter().map(|flow| flow.messages).sum();
        let actual = [account.enqueued, account.delivered, account.waiting].map(|flow| flow.messages);
        let actual = [actual[0], actual[1], dropped, actual[2]];
        hold(actual == expected, "I13", || {
            format!("{lane:?} enqueued, delivered, dropped, waiting: counted {actual:?}, were {expected:?}")
        })?;
        let dropped: u64 = account.dropped.iter().map(|flow| flow.bytes).sum();
        let sum = account.delivered.bytes + dropped + account.waiting.bytes;
        hold(account.enqueued.bytes == sum, "I13", || format!("{lane:?}: {account:?}"))?;
    }
    hold(stats.held_bytes == held as u64, "I13", || {
        format!("{} bytes are held, counted {}", held, stats.held_bytes)
    })
}

/// I14: senders are paused at a limit only, and once.
pub(crate) fn pause_only_at_a_limit(model: &mut Model, conn: ConnId) -> Verdict {
    be_alive(model, conn)?;
    let limited = model.config.max_bytes_per_second.or(model.config.max_messages_per_second).is_some();
    let paused = model.conns.get_mut(&conn).map(|entry| std::mem::replace(&mut entry.paused, true));
    hold(limited && paused == Some(false), "I14", || {
        format!("{conn} was paused: limit {limited}, paused {paused:?}")
    })
}

/// I14: and go on: when they may, or when they are closed.
pub(crate) fn resume_what_was_paused(model: &mut Model, conn: ConnId) -> Verdict {
    be_alive(model, conn)?;
    let paused = model.conns.get_mut(&conn).is_some_and(|entry| std::mem::take(&mut entry.paused));
    hold(paused, "I14", || format!("{conn} was resumed, and was not paused"))
}

// Who leaves.

/// I15: a member leaves the room that it is in, under its name (R8).
pub(crate) fn leave_under_the_right_name(model: &Model, conn: ConnId, room: &str, peer: &str) -> Verdict {
    let member = model.member(conn);
    let fits = member.is_some_and(|member| room_number(room) == Some(member.room) && member.peer == peer);
    hold(fits, "I15", || format!("{conn} left {room:?} as {peer:?}"))
}

/// I16: whoever ends a connection, or breaks a rule, is closed for that. What the close frame will say.
pub(crate) fn leave_as_predicted(
    due: Due,
    initiator: Initiator,
    code: u16,
    reason: &str,
) -> Result<Option<u16>, Violation> {
    let Due::Leave(who, expected, why) = due else { return Ok(Some(code)) };
    let fits = who == initiator && expected.unwrap_or(1005) == code && why == reason;
    hold(fits, "I16", || format!("{initiator:?} ended with {code} {reason:?}; due was {due:?}"))?;
    Ok(expected)
}

/// I16: the relay closes nobody but for one of its reasons, and only when that applies.
pub(crate) fn close_for_a_reason(
    model: &Model,
    conn: ConnId,
    initiator: Initiator,
    code: u16,
    reason: &str,
) -> Verdict {
    let now = model.now.monotonic;
    let member = model.member(conn).expect("it was one, to leave");
    let entry = &model.conns[&conn];
    let past = |since: Duration, time: Option<Duration>| time.is_some_and(|time| since + time <= now);
    let hosts_first = member.role == Role::Host
        || model
            .members(member.room)
            .iter()
            .all(|other| model.member(*other).is_some_and(|m| m.role == Role::Guest));
    let applies = match (code, reason) {
        (1001, "room idle") => {
            past(model.rooms[&member.room].active, model.config.room_idle_timeout) && hosts_first
        }
        (1001, "ping timeout") => {
            let timeout = model.config.pong_timeout;
            let stalled = entry.queue.outstanding.is_some_and(|(since, _)| past(since, timeout));
            stalled || (member.pinged && past(member.heard, timeout))
        }
        (1013, "slow consumer") => is_too_slow(model, conn.shard(), entry),
        (1012, "restart") => model.drain.is_some() && hosts_first,
        _ => false,
    };
    hold(applies && initiator == Initiator::Relay, "I16", || {
        format!("{conn} was closed with {code} {reason:?}, which does not apply")
    })
}

/// I16: of those that a drain closes, only who holds most loses what waits for it, and only for too much in all.
pub(crate) fn let_go_of_the_heaviest_only(model: &Model, conn: ConnId) -> Verdict {
    let entry = model.conns.get(&conn);
    let drained = entry.is_some_and(|entry| matches!(entry.phase, Phase::Closing { drained: true, .. }));
    hold(drained && entry.is_some_and(|entry| is_too_slow(model, conn.shard(), entry)), "I16", || {
        format!("{conn} was let go, which does not apply")
    })
}

/// Rules S3 and S4; what waits in all is compared with that of its shard.
fn is_too_slow(model: &Model, shard: usize, entry: &Conn) -> bool {
    if entry.queue.held_data() > data_bound(model) {
        return true;
    }
    let most = model.in_shard(shard).map(|entry| entry.queue.held()).max().unwrap_or(0);
    let (steps, held) = (most / WEIGHT_STEP_BYTES, entry.queue.held());
    let heaviest = if steps > 0 { held / WEIGHT_STEP_BYTES == steps } else { held == most };
    model.held_in(shard) > model.bound_of_a_shard() && heaviest
}

/// I16: the close frame says it, and comes when all in front of it is written.
pub(crate) fn close_with_the_code_of_the_rule(
    model: &mut Model,
    conn: ConnId,
    code: Option<u16>,
    reason: &str,
) -> Verdict {
    let (now, max_age) = (model.now.monotonic, model.config.voice_max_age);
    let Some(Conn { phase: Phase::Closing { frame, .. }, queue, .. }) = model.conns.get_mut(&conn) else {
        return Err(Violation::new("I16", format!("a close frame for {conn}, which did not leave")));
    };
    let due = frame.take();
    queue.drop_stale(now, max_age);
    hold(due.is_some_and(|due| due == (code, reason)) && queue.is_idle(), "I16", || {
        format!("close frame {code:?} {reason:?} to {conn}; due was {due:?}")
    })
}

/// I17: a room that is closed is closed whole.
pub(crate) fn close_whole_rooms(model: &Model, closed: &[usize]) -> Verdict {
    let left = closed.iter().find(|room| model.rooms.contains_key(room));
    hold(left.is_none(), "I17", || format!("room {left:?} was closed, and somebody is still in it"))
}

/// I18: sockets are dropped when their time is over, and not before.
pub(crate) fn abort_only_what_is_over(
    model: &Model,
    subject: Option<ConnId>,
    due: Due,
    conn: ConnId,
) -> Verdict {
    be_alive(model, conn)?;
    let now = model.now.monotonic;
    let drain = model.drain.as_ref();
    let cut = drain.is_some_and(|drain| drain.is_over(model.config.drain, now));
    let over = match &model.conns[&conn].phase {
        Phase::Head { until } => {
            until.is_some_and(|until| until <= now)
                || (subject == Some(conn) && due == Due::Abort)
                || drain
                    .is_some_and(|drain| drain.closing || drain.all_had_their_turn(model.config.drain, now))
        }
        Phase::Closing { until, .. } => *until <= now || cut,
        Phase::Member(_) => false,
    };
    hold(over, "I18", || format!("{conn} was dropped before its time"))
}

/// I19: what an event asks for is done when it has been dealt with.
pub(crate) fn do_what_is_due(due: Due) -> Verdict {
    hold(due == Due::Nothing, "I19", || format!("{due:?} was due, and did not come"))
}

// Time.

/// I20: the relay wants to be woken no later than something is due; after a tick nothing is overdue.
pub(crate) fn know_when_to_wake(model: &Model, ticked: bool, next: Option<(Duration, Wake)>) -> Verdict {
    let now = model.now.monotonic;
    let Some((first, what)) = model.first_due() else {
        return hold(!ticked || next.is_none_or(|(at, _)| at > now), "I20", || {
            format!("{next:?} is overdue")
        });
    };
    hold(next.is_some_and(|(at, _)| at <= first.max(now)), "I20", || {
        format!("{what} is due at {first:?}, and the relay sleeps until {next:?}")
    })?;
    let overdue = ticked && (first <= now || next.is_some_and(|(at, _)| at <= now));
    hold(!overdue, "I20", || format!("{what} was due at {first:?}, it is {now:?}, and next is {next:?}"))
}

/// I21: begins with the rooms that are there, closes them evenly over its window, and ends with the last connection,
/// in each shard.
pub(crate) fn drain_in_time(model: &Model, ticked: bool, relay: &Shards) -> Verdict {
    let Some(drain) = &model.drain else { return Ok(()) };
    hold(drain.announced == drain.rooms as usize, "I21", || {
        format!("draining {} rooms of {}", drain.announced, drain.rooms)
    })?;
    let elapsed = model.now.monotonic.saturating_sub(drain.started);
    let early = drain.closed > 1 && elapsed < model.config.drain * (drain.closed - 1) / drain.rooms.max(1);
    hold(!early, "I21", || {
        format!("{} of {} rooms are closed after {elapsed:?}", drain.closed, drain.rooms)
    })?;
    hold(!ticked || !drain.closing || model.rooms.is_empty(), "I21", || {
        "a room outlives the drain".to_owned()
    })?;
    let turns = drain.turns(model.config.drain, model.now.monotonic);
    hold(!ticked || model.rooms.len() + turns <= drain.rooms as usize, "I21", || {
        format!("{turns} rooms have had their turn, and {} of {} are there", model.rooms.len(), drain.rooms)
    })?;
    (0..model.shards).try_for_each(|shard| {
        let due = drain.closing && model.in_shard(shard).next().is_none();
        let exited = relay.has_exited(shard);
        hold(due == exited, "I21", || format!("exit of shard {shard} is due: {due}; came: {exited}"))
    })
}

/// I21: once.
pub(crate) fn exit_when_done(model: &Model, exited: bool) -> Verdict {
    hold(!exited && model.conns.is_empty(), "I21", || format!("exit with {} connections", model.conns.len()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use relay_proto::{Config, Now, Relay};

    /// Two senders, and a receiver that expects voice and data of both.
    fn end() -> End {
        let mut relay = Relay::new(Config::default(), [0; 32]);
        let mut open =
            || relay.open(Now::default(), [192, 0, 2, 1].into(), &mut Vec::new()).expect("a place");
        let (ann, bob) = (open(), open());
        let expected = [(ann, "{1}"), (bob, "{2}"), (ann, "KV3"), (ann, "KV4"), (ann, "{5}")];
        End { expected: expected.map(|(from, text)| (from, text.into())).into(), ..End::default() }
    }

    fn broken(received: &[&str]) -> Option<&'static str> {
        let mut end = end();
        let verdict = received.iter().try_for_each(|text| receive_in_order(&mut end, text.as_bytes(), true));
        verdict.err().map(|violation| violation.invariant)
    }

    #[test]
    fn what_clients_see_is_judged_without_the_relay() {
        assert_eq!(broken(&["KV4", "{2}", "{1}", "{5}"]), None, "senders are independent, and so are lanes");
        assert_eq!(broken(&["{1}\n{2}\n{5}"]), None, "joined");
        assert_eq!(broken(&["{1}", "{1}"]), Some("I1"), "twice");
        assert_eq!(broken(&["{1"]), Some("I1"), "never sent");
        assert_eq!(broken(&["{5}"]), Some("I2"), "a gap");
        assert_eq!(broken(&["KV4", "KV3"]), Some("I1"), "voice goes back");
    }
}
