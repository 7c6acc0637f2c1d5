//! One thread: sockets that listen, a timer for the machine, and whoever steers it.

use std::io;
use std::net::IpAddr;
use std::rc::Rc;
use std::time::Instant;

use relay_host::{CHECK_INTERVAL, Control, MetricsPage, Ready, net, new_hub};
use relay_proto::{Hub, Settings};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, LocalOptions};
use tokio::task::spawn_local;
use tokio::time::{sleep, sleep_until};

use crate::connection::Service;
use crate::metrics;
use crate::tls::Tls;

/// As the metrics name it.
const PROGRAM: (&str, &str) = ("tokio", env!("CARGO_PKG_VERSION"));

/// Serves until it is drained or stopped. Whatever is still open then is dropped with the runtime.
pub(crate) fn run(
    settings: &Settings,
    [clients, metrics]: [Vec<std::net::TcpListener>; 2],
    tls: Option<Tls>,
    control: &Control,
    ready: Ready,
) -> io::Result<()> {
    let runtime =
        Builder::new_current_thread().enable_io().enable_time().build_local(LocalOptions::default())?;
    runtime.block_on(async {
        let hub = new_hub(settings)?;
        let service = Rc::new(Service::new(hub.clone(), tls.clone(), &settings.relay));
        for listener in clients {
            listener.set_nonblocking(true)?;
            let service = service.clone();
            let serve = move |socket, ip| service.clone().serve(socket, ip);
            spawn_local(accept(TcpListener::from_std(listener)?, serve));
        }
        let valid_until = {
            let tls = tls.clone();
            move || tls.as_ref()?.valid_until()
        };
        let page = Rc::new(MetricsPage::new(hub.clone(), &settings.relay, PROGRAM, valid_until));
        for listener in metrics {
            let page = page.clone();
            let serve = move |socket, _| metrics::serve(page.clone(), socket);
            spawn_local(accept(TcpListener::from_std(listener)?, serve));
        }
        spawn_local(keep_time(hub.clone()));
        spawn_local(watch(tls));
        ready.say();
        control.obey(&hub).await;
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
