//! The second listener: the page that monitoring fetches (rule C5).

use std::io;
use std::net::TcpStream;
use std::rc::Rc;

use relay_host::MetricsPage;
use smol::future::or;
use smol::io::AsyncWriteExt;
use smol::{Async, Timer};

use crate::connection::{discard, read_head};
use crate::stream::Socket;

/// Answers one request. Whoever does not ask, or does not take the answer, is let go.
pub(crate) async fn serve(page: Rc<MetricsPage>, socket: Async<TcpStream>) {
    let Some(_fetch) = page.admit() else { return };
    let late = async {
        Timer::after(page.patience()).await;
    };
    or(async { drop(answer(&page, Socket::new(socket)).await) }, late).await;
}

async fn answer(page: &MetricsPage, mut socket: Socket) -> io::Result<()> {
    let head = read_head(&mut socket).await?;
    socket.write_all(&page.answer(&head).await).await?;
    socket.close().await?;
    discard(socket).await;
    Ok(())
}
