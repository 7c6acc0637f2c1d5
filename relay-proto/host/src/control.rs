//! The hand that steers a relay from any thread: orders to its shards, and what they have counted.

use std::fmt;
use std::future::{Future, poll_fn};
use std::mem;
use std::num::NonZeroU16;
use std::pin::pin;
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};

use relay_proto::Stats;
use relay_proto::hub::Hub;

/// Carries orders to the threads of a relay.
#[derive(Clone)]
pub struct Control(Arc<Office>);

struct Office {
    shards: Vec<Mutex<Orders>>,
    /// Shards that have not ended.
    left: AtomicU16,
    reload: Box<dyn Fn() + Send + Sync>,
}

/// What one shard is to do.
#[derive(Default)]
struct Orders {
    drain: bool,
    tick: bool,
    stop: bool,
    /// Who wants to know what it has counted.
    counts: Vec<Arc<Mutex<Count>>>,
    waker: Option<Waker>,
}

/// A sum over all shards, as it comes together.
struct Count {
    stats: Stats,
    missing: u16,
    waker: Option<Waker>,
}

impl Control {
    pub(crate) fn new(shards: NonZeroU16, reload: impl Fn() + Send + Sync + 'static) -> Self {
        Self(Arc::new(Office {
            shards: (0..shards.get()).map(|_| Mutex::default()).collect(),
            left: AtomicU16::new(shards.get()),
            reload: Box::new(reload),
        }))
    }

    /// How many shards there are.
    pub fn shards(&self) -> u16 {
        // There were so many in the beginning.
        u16::try_from(self.0.shards.len()).unwrap_or(u16::MAX)
    }

    /// Stop in good order.
    pub fn drain(&self) {
        self.give_all(|orders| orders.drain = true);
    }

    /// Stop at once.
    pub(crate) fn stop(&self) {
        self.give_all(|orders| orders.stop = true);
    }

    #[cfg(test)]
    pub(crate) fn is_stopped(&self) -> bool {
        self.0.shards.iter().any(|orders| lock(orders).stop)
    }

    /// Read the certificate anew.
    pub fn reload(&self) {
        (self.0.reload)();
    }

    /// What all shards have counted together.
    pub async fn stats(&self) -> Stats {
        let count = Count { stats: Stats::default(), missing: self.shards(), waker: None };
        let count = Arc::new(Mutex::new(count));
        self.give_all(|orders| orders.counts.push(count.clone()));
        poll_fn(|cx| {
            let mut count = lock(&count);
            if count.missing == 0 {
                return Poll::Ready(mem::take(&mut count.stats));
            }
            count.waker = Some(cx.waker().clone());
            Poll::Pending
        })
        .await
    }

    /// For the thread of a shard: hands orders to its machine until all shards have ended.
    pub(crate) async fn obey(&self, index: usize, hub: &Hub) {
        let mut drained = Some(pin!(hub.drained(|| self.tick_others(index))));
        poll_fn(|cx| {
            let (drain, tick, stop, counts) = {
                let mut orders = lock(&self.0.shards[index]);
                orders.waker = Some(cx.waker().clone());
                let Orders { drain, tick, stop, counts, .. } = &mut *orders;
                (mem::take(drain), mem::take(tick), *stop, mem::take(counts))
            };
            if drain {
                hub.drain();
            }
            if tick {
                hub.tick();
            }
            for count in counts {
                lock(&count).add(hub);
            }
            // A shard that is done takes nobody in, and waits for the others: it may be asked what it has counted.
            if let Some(draining) = &mut drained
                && draining.as_mut().poll(cx).is_ready()
            {
                drained = None;
                self.one_has_ended();
            }
            if stop || self.0.left.load(Ordering::Acquire) == 0 { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }

    fn one_has_ended(&self) {
        if self.0.left.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.give_all(|_| ());
        }
    }

    fn tick_others(&self, index: usize) {
        for other in (0..self.0.shards.len()).filter(|other| *other != index) {
            self.give(other, |orders| orders.tick = true);
        }
    }

    fn give_all(&self, order: impl Fn(&mut Orders)) {
        (0..self.0.shards.len()).for_each(|index| self.give(index, &order));
    }

    fn give(&self, index: usize, order: impl FnOnce(&mut Orders)) {
        let mut orders = lock(&self.0.shards[index]);
        order(&mut orders);
        let waker = orders.waker.take();
        drop(orders);
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl fmt::Debug for Control {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Control").finish_non_exhaustive()
    }
}

impl Count {
    fn add(&mut self, hub: &Hub) {
        hub.with_stats(|stats| self.stats.merge(stats));
        self.missing -= 1;
        if self.missing == 0
            && let Some(waker) = self.waker.take()
        {
            waker.wake();
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Each field is whole on its own, so a panic elsewhere leaves nothing half done.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
