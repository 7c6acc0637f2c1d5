//! First the world is broken, then it is healed and has to come to rest.

use std::time::Duration;

use relay_proto::{Relay, Wake};

use super::client::Pace;
use super::invariants::Violation;
use super::world::World;

/// Longer than any connection may take to end (rule S3).
const REST: Duration = Duration::from_secs(6);

/// A sender that is over its limit by all that a run can send is read again after so many rests.
const MAX_RESTS: usize = 100;

impl World {
    /// Heals everything, and demands that what is owed is delivered and what is over ends.
    pub(crate) fn heal(&mut self) -> Result<(), Violation> {
        self.trace.note(self.now, || "the world is healed".to_owned());
        self.late = Duration::ZERO;
        self.recover();
        self.run_until(self.now + self.time_to_notice())?;
        self.rest()?;
        self.demand_rest()?;
        self.trace.note(self.now, || "everybody leaves".to_owned());
        for client in &mut self.clients {
            client.leave();
        }
        self.rest()?;
        self.demand_emptiness()
    }

    /// Until all that was sent is read. What is let through last may close somebody, so once more.
    fn rest(&mut self) -> Result<(), Violation> {
        for _ in 0..MAX_RESTS {
            self.run_until(self.now + REST)?;
            if !self.someone_is_paused() {
                break;
            }
        }
        self.run_until(self.now + REST)
    }

    fn recover(&mut self) {
        let config = &self.referee.model.config;
        let noticed = config.ping_interval.is_some()
            && config.pong_timeout.is_some()
            && config.handshake_timeout.is_some();
        for index in self.live.clone() {
            let (client, socket) = (&mut self.clients[index], &mut self.sockets[index]);
            client.pace = Pace::Free;
            client.unmute();
            socket.inbound.delay(Duration::ZERO);
            socket.outbound.delay(Duration::ZERO);
            // Without pings, nobody but the kernel finds out that the other side is gone.
            if client.is_dead() && !noticed {
                socket.break_off();
            }
        }
    }

    /// How long it takes at most until a peer that is gone is known to be.
    fn time_to_notice(&self) -> Duration {
        let config = &self.referee.model.config;
        let dead = self.live.iter().any(|index| self.clients[*index].is_dead());
        let times =
            [config.ping_interval, config.pong_timeout, config.pong_timeout, config.handshake_timeout];
        let slowest = times.into_iter().flatten().sum::<Duration>();
        if dead { slowest + REST } else { Duration::ZERO }
    }

    fn someone_is_paused(&self) -> bool {
        self.referee.model.conns.values().any(|conn| conn.paused)
    }

    /// L2 to L5.
    fn demand_rest(&self) -> Result<(), Violation> {
        let demand =
            |holds: bool, rule, what: String| if holds { Ok(()) } else { Err(Violation::new(rule, what)) };
        let stats = self.relay.stats();
        let waiting: u64 = stats.lanes.iter().map(|lane| lane.waiting.messages).sum();
        demand(waiting == 0 && stats.held_bytes == 0, "L2", format!("{waiting} messages still wait"))?;
        demand(!self.someone_is_paused(), "L4", "a sender is never read again".to_owned())?;
        for index in &self.live {
            let (client, Some(conn)) = (&self.clients[*index], self.sockets[*index].conn) else { continue };
            demand(!client.is_dead(), "L4", format!("#{index} is dead, and nobody has noticed"))?;
            demand(!self.referee.is_closing(conn), "L4", format!("#{index} is being closed for ever"))?;
            let owed = self.referee.owed(conn).iter().find(|(_, payload)| !payload.starts_with(b"KV"));
            let what = owed.map(|(_, payload)| payload.escape_ascii().to_string());
            demand(what.is_none(), "L3", format!("#{index} never receives {what:?}"))?;
        }
        self.relay.each().filter_map(Relay::next_deadline).try_for_each(|(_, wake)| {
            let expected = match wake {
                Wake::Ping | Wake::Silence | Wake::RoomIdle | Wake::Handshake | Wake::Drain => true,
                Wake::Closing | Wake::Resume | Wake::Flush => false,
            };
            demand(expected, "L5", format!("the world is at rest, and the relay waits for {wake:?}"))
        })
    }

    /// L6: nothing is left of what has gone.
    fn demand_emptiness(&mut self) -> Result<(), Violation> {
        let drain = self.referee.model.drain.as_ref();
        if let Some(end) = drain.map(|drain| drain.started + self.referee.model.config.drain) {
            self.run_until(self.now.max(end + REST))?;
        }
        let stats = self.relay.stats();
        let left = [stats.connections, stats.rooms, stats.hosts, stats.guests, stats.held_bytes];
        let (next, exited) = (self.relay.next_deadline(), self.referee.has_exited());
        let draining = self.referee.model.drain.is_some();
        // What all shards count together shows in nobody's counters.
        let now = self.clocks();
        let as_new = draining || self.relay.each().all(|relay| relay.is_as_new(now));
        if left == [0; 5] && next.is_none() && exited == draining && as_new {
            return Ok(());
        }
        let what = format!(
            "connections, rooms, hosts, guests, bytes: {left:?}; next is {next:?}; exit: {exited}; as new: {as_new}"
        );
        Err(Violation::new("L6", what))
    }
}
