//! What must hold between the shards of a relay.

use relay_proto::ConnId;

use super::super::call::Call;
use super::super::model::Model;
use super::super::referee::Due;
use super::{Verdict, be_alive, hold};

/// I24: a connection is in the shard that it was handed over to.
pub(crate) fn be_in_the_shard(conn: ConnId, shard: usize) -> Verdict {
    hold(conn.shard() == shard, "I24", || format!("{conn} was handed over to shard {shard}"))
}

/// I24: a room is in one shard, so whoever asks for it is judged there, and its members are there.
pub(crate) fn be_judged_where_the_room_is(model: &mut Model, call: &Call, conn: ConnId) -> Verdict {
    let Some(room) = call.room_asked_for() else { return Ok(()) };
    let home = *model.homes.entry(room).or_insert(conn.shard());
    hold(home == conn.shard(), "I24", || format!("{conn} asked for {room:?}, which is in shard {home}"))
}

/// I24: whoever asks for a room of another shard goes there, and nobody else goes anywhere.
pub(crate) fn hand_over_to_the_room(
    model: &mut Model,
    (subject, due, call): (Option<ConnId>, Due, Option<&Call>),
    conn: ConnId,
    shard: usize,
) -> Verdict {
    be_alive(model, conn)?;
    let room = call.and_then(Call::room_asked_for);
    let home = room.map(|room| *model.homes.entry(room).or_insert(shard));
    let asked = subject == Some(conn) && due == Due::HandOver;
    let there = home == Some(shard) && shard != conn.shard() && shard < model.shards;
    hold(asked && there, "I24", || {
        format!("{conn} was handed over to shard {shard}; it asked for {room:?}, which is in shard {home:?}")
    })
}

/// I21: one shard calls the others, once, when no room is left in any.
pub(crate) fn call_the_others_when_no_room_is_left(model: &mut Model) -> Verdict {
    let (rooms, shards) = (model.rooms.len(), model.shards);
    let first = model.drain.as_mut().is_some_and(|drain| !std::mem::replace(&mut drain.called, true));
    hold(first && rooms == 0 && shards > 1, "I21", || {
        format!("other shards were called: for the first time: {first}, rooms: {rooms}, shards: {shards}")
    })
}
