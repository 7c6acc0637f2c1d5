//! The second listener: the page that monitoring fetches (rule C5).

use std::io;
use std::rc::Rc;

use relay_host::MetricsPage;
use smol::Timer;
use smol::future::or;
use smol::io::AsyncWriteExt;

use crate::connection::{discard, read_head};
use crate::shared::Socket;

/// Answers one request. Whoever does not ask, or does not take the answer, is let go.
pub(crate) async fn serve(page: Rc<MetricsPage>, socket: Socket) {
    let Some(_fetch) = page.admit() else { return };
    let late = async {
        Timer::after(page.patience()).await;
    };
    or(async { drop(answer(&page, socket).await) }, late).await;
}

async fn answer(page: &MetricsPage, mut socket: Socket) -> io::Result<()> {
    let head = read_head(&mut socket).await?;
    socket.write_all(&page.answer(&head)).await?;
    socket.close().await?;
    discard(socket).await;
    Ok(())
}
