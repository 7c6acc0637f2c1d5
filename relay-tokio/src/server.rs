//! The thread of a shard: sockets that listen, connections of other shards, a timer for the machine, and whoever
//! steers it.

use std::io;
use std::net::IpAddr;
use std::rc::Rc;
use std::time::Instant;

use relay_host::{CHECK_INTERVAL, MetricsPage, Seat, net};
use relay_proto::{Hub, Settings};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender};
use tokio::task::spawn_local;
use tokio::time::{sleep, sleep_until};

use crate::connection::{Arrival, Service};
use crate::metrics;
use crate::tls::Tls;

/// As the metrics name it.
const PROGRAM: (&str, &str) = ("tokio", env!("CARGO_PKG_VERSION"));

/// What a shard is made of.
pub(crate) struct Setup {
    pub(crate) settings: Settings,
    pub(crate) clients: Vec<std::net::TcpListener>,
    pub(crate) metrics: Vec<std::net::TcpListener>,
    pub(crate) tls: Option<Tls>,
    /// The ways to all shards.
    pub(crate) doors: Vec<UnboundedSender<Arrival>>,
    pub(crate) arrivals: UnboundedReceiver<Arrival>,
}

/// Serves until it is drained or stopped. Whatever is still open then is dropped with the runtime.
pub(crate) fn run(setup: Setup, seat: &Seat) -> io::Result<()> {
    let Setup { settings, clients, metrics, tls, doors, arrivals } = setup;
    let runtime =
        Builder::new_current_thread().enable_io().enable_time().build_local(LocalOptions::default())?;
    runtime.block_on(async {
        let hub = seat.hub(&settings)?;
        let service = Rc::new(Service::new(hub.clone(), tls.clone(), &settings.relay, doors));
        for listener in clients {
            listener.set_nonblocking(true)?;
            let service = service.clone();
            let serve = move |socket, ip| service.clone().serve(socket, ip);
            spawn_local(accept(TcpListener::from_std(listener)?, serve));
        }
        spawn_local(receive(arrivals, service));
        let valid_until = {
            let tls = tls.clone();
            move || tls.as_ref()?.valid_until()
        };
        let page = Rc::new(MetricsPage::new(seat.control(), &settings.relay, PROGRAM, valid_until));
        for listener in metrics {
            let page = page.clone();
            let serve = move |socket, _| metrics::serve(page.clone(), socket);
            spawn_local(accept(TcpListener::from_std(listener)?, serve));
        }
        spawn_local(keep_time(hub.clone()));
        if seat.index() == 0 {
            spawn_local(watch(tls));
        }
        seat.say_ready();
        seat.obey(&hub).await;
        Ok(())
    })
}

async fn accept<F>(listener: TcpListener, serve: impl Fn(TcpStream, IpAddr) -> F)
where
    F: Future<Output = ()> + 'static,
{
    loop {
        match listener.accept().await {
            Ok((socket, peer)) => {
                net::tune(&socket);
                spawn_local(serve(socket, peer.ip()));
            }
            Err(error) if net::is_exhausted(&error) => {
                tracing::error!(target: "relay", %error, "no connection can be accepted for now");
                sleep(net::ACCEPT_PAUSE).await;
            }
            // The peer had gone before it was its turn.
            Err(_) => {}
        }
    }
}

/// Takes in what other shards hand over.
async fn receive(mut arrivals: UnboundedReceiver<Arrival>, service: Rc<Service>) {
    while let Some(arrival) = arrivals.recv().await {
        spawn_local(service.clone().take_over(arrival));
    }
}

async fn keep_time(hub: Hub) {
    hub.run_timer(async |deadline: Option<Instant>| match deadline {
        Some(at) => sleep_until(at.into()).await,
        None => std::future::pending().await,
    })
    .await;
}

/// Rule D2. The files are small and this is seldom, so they are read right here.
async fn watch(tls: Option<Tls>) {
    let Some(tls) = tls else { return };
    loop {
        sleep(CHECK_INTERVAL).await;
        tls.reload_if_changed();
    }
}
