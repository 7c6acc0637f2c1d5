//! One thread: sockets that listen, a timer for the machine, and whoever steers it.

use std::io;
use std::net::{IpAddr, TcpListener};
use std::rc::Rc;
use std::time::Instant;

use relay_host::{CHECK_INTERVAL, Control, MetricsPage, Ready, net, new_hub};
use relay_proto::{Hub, Settings};
use smol::future::yield_now;
use smol::{Async, LocalExecutor, Timer};

use crate::connection::Service;
use crate::metrics;
use crate::shared::Socket;
use crate::tls::Tls;

/// As the metrics name it.
const PROGRAM: (&str, &str) = ("smol", env!("CARGO_PKG_VERSION"));

/// Serves until it is drained or stopped. Whatever is still open then is dropped.
pub(crate) fn run(
    settings: &Settings,
    [clients, metrics]: [Vec<TcpListener>; 2],
    tls: Option<Tls>,
    control: &Control,
    ready: Ready,
) -> io::Result<()> {
    let executor = Rc::new(LocalExecutor::new());
    smol::block_on(executor.run(async {
        let hub = new_hub(settings)?;
        let service = Rc::new(Service::new(&executor, hub.clone(), tls.clone(), &settings.relay));
        let mut accepting = Vec::new();
        for listener in clients {
            let (tasks, service) = (service.clone(), service.clone());
            let serve = move |socket, ip| service.clone().serve(socket, ip);
            accepting.push(executor.spawn(accept(Async::new(listener)?, tasks, serve)));
        }
        let valid_until = {
            let tls = tls.clone();
            move || tls.as_ref()?.valid_until()
        };
        let page = Rc::new(MetricsPage::new(hub.clone(), &settings.relay, PROGRAM, valid_until));
        for listener in metrics {
            let (tasks, page) = (service.clone(), page.clone());
            let serve = move |socket, _| metrics::serve(page.clone(), socket);
            accepting.push(executor.spawn(accept(Async::new(listener)?, tasks, serve)));
        }
        executor.spawn(keep_time(hub.clone())).detach();
        executor.spawn(watch(tls)).detach();
        ready.say();
        control.obey(&hub).await;
        // Another thread reports what the sockets do. A task that it wakes while the executor is being dropped
        // would stay for ever, with its socket: so all tasks end before.
        drop(accepting);
        hub.end_all();
        while executor.try_tick() {}
        Ok(())
    }))
}

async fn accept<F>(listener: Async<TcpListener>, tasks: Rc<Service>, serve: impl Fn(Socket, IpAddr) -> F)
where
    F: Future<Output = ()> + 'static,
{
    loop {
        match listener.accept().await {
            Ok((socket, peer)) => {
                net::tune(&socket);
                if let Some(task) = tasks.spawn(serve(Socket::new(socket), peer.ip())) {
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
