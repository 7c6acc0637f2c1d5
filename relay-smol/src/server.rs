//! The thread of a shard: sockets that listen, connections of other shards, a timer for the machine, and whoever
//! steers it.

use std::io;
use std::net::{IpAddr, TcpListener, TcpStream};
use std::rc::Rc;
use std::time::Instant;

use relay_host::{CHECK_INTERVAL, MetricsPage, Seat, net};
use relay_proto::{Hub, Settings};
use smol::channel::{Receiver, Sender};
use smol::future::yield_now;
use smol::{Async, LocalExecutor, Timer};

use crate::connection::{Arrival, Service};
use crate::metrics;
use crate::tls::Tls;

/// As the metrics name it.
const PROGRAM: (&str, &str) = ("smol", env!("CARGO_PKG_VERSION"));

/// What a shard is made of.
pub(crate) struct Setup {
    pub(crate) settings: Settings,
    pub(crate) clients: Vec<TcpListener>,
    pub(crate) metrics: Vec<TcpListener>,
    pub(crate) tls: Option<Tls>,
    /// The ways to all shards.
    pub(crate) doors: Vec<Sender<Arrival>>,
    pub(crate) arrivals: Receiver<Arrival>,
}

/// Serves until it is drained or stopped. Whatever is still open then is dropped.
pub(crate) fn run(setup: Setup, seat: &Seat) -> io::Result<()> {
    let Setup { settings, clients, metrics, tls, doors, arrivals } = setup;
    let executor = Rc::new(LocalExecutor::new());
    smol::block_on(executor.run(async {
        let hub = seat.hub(&settings)?;
        let service = Rc::new(Service::new(&executor, hub.clone(), tls.clone(), &settings.relay, doors));
        let mut accepting = Vec::new();
        for listener in clients {
            let (tasks, service) = (service.clone(), service.clone());
            let serve = move |socket, ip| service.clone().serve(socket, ip);
            accepting.push(executor.spawn(accept(Async::new(listener)?, tasks, serve)));
        }
        accepting.push(executor.spawn(receive(arrivals, service.clone())));
        let valid_until = {
            let tls = tls.clone();
            move || tls.as_ref()?.valid_until()
        };
        let page = Rc::new(MetricsPage::new(seat.control(), &settings.relay, PROGRAM, valid_until));
        for listener in metrics {
            let (tasks, page) = (service.clone(), page.clone());
            let serve = move |socket, _| metrics::serve(page.clone(), socket);
            accepting.push(executor.spawn(accept(Async::new(listener)?, tasks, serve)));
        }
        executor.spawn(keep_time(hub.clone())).detach();
        if seat.index() == 0 {
            executor.spawn(watch(tls)).detach();
        }
        seat.say_ready();
        seat.obey(&hub).await;
        // Another thread reports what the sockets do. A task that it wakes while the executor is being dropped
        // would stay for ever, with its socket: so all tasks end before.
        drop(accepting);
        hub.end_all();
        while executor.try_tick() {}
        Ok(())
    }))
}

async fn accept<F>(
    listener: Async<TcpListener>,
    tasks: Rc<Service>,
    serve: impl Fn(Async<TcpStream>, IpAddr) -> F,
) where
    F: Future<Output = ()> + 'static,
{
    loop {
        match listener.accept().await {
            Ok((socket, peer)) => {
                net::tune(&socket);
                if let Some(task) = tasks.spawn(serve(socket, peer.ip())) {
                    task.detach();
                }
                // A crowd that comes in must not keep those waiting that are in.
                yield_now().await;
            }
            Err(error) if net::is_exhausted(&error) => {
                tracing::error!(target: "relay", %error, "no connection can be accepted for now");
                Timer::after(net::ACCEPT_PAUSE).await;
            }
            // The peer had gone before it was its turn.
            Err(_) => {}
        }
    }
}

/// Takes in what other shards hand over.
async fn receive(arrivals: Receiver<Arrival>, service: Rc<Service>) {
    while let Ok(arrival) = arrivals.recv().await {
        if let Some(task) = service.spawn(service.clone().take_over(arrival)) {
            task.detach();
        }
    }
}

async fn keep_time(hub: Hub) {
    hub.run_timer(|deadline: Option<Instant>| match deadline {
        Some(at) => Timer::at(at),
        None => Timer::never(),
    })
    .await;
}

/// Rule D2. The files are small and this is seldom, so they are read right here.
async fn watch(tls: Option<Tls>) {
    let Some(tls) = tls else { return };
    loop {
        Timer::after(CHECK_INTERVAL).await;
        tls.reload_if_changed();
    }
}
