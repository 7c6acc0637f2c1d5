//! One thread: sockets that listen, a timer for the machine, and whoever steers it.

use std::io;
use std::rc::Rc;
use std::time::Instant;

use relay_host::{CHECK_INTERVAL, Control, Ready, net, new_hub};
use relay_proto::{Hub, Settings};
use smol::future::yield_now;
use smol::net::TcpListener;
use smol::{LocalExecutor, Timer};

use crate::connection::Service;
use crate::tls::Tls;

/// Serves until it is drained or stopped. Whatever is still open then is dropped with the executor.
pub(crate) fn run(
    settings: &Settings,
    listeners: Vec<std::net::TcpListener>,
    tls: Option<Tls>,
    control: &Control,
    ready: Ready,
) -> io::Result<()> {
    let executor = Rc::new(LocalExecutor::new());
    smol::block_on(executor.run(async {
        let hub = new_hub(settings)?;
        let service = Rc::new(Service::new(&executor, hub.clone(), tls.clone(), &settings.relay));
        for listener in listeners {
            executor.spawn(accept(TcpListener::try_from(listener)?, service.clone())).detach();
        }
        executor.spawn(keep_time(hub.clone())).detach();
        executor.spawn(watch(tls)).detach();
        ready.say();
        control.obey(&hub).await;
        Ok(())
    }))
}

async fn accept(listener: TcpListener, service: Rc<Service>) {
    loop {
        match listener.accept().await {
            Ok((socket, peer)) => {
                net::tune(&socket);
                if let Some(task) = service.spawn(service.clone().serve(socket, peer.ip())) {
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
