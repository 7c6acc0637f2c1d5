//! The second listener: the page that monitoring fetches (rule C5).

use std::io;
use std::rc::Rc;

use relay_host::MetricsPage;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::connection::{discard, read_head};

/// Answers one request. Whoever does not ask, or does not take the answer, is let go.
pub(crate) async fn serve(page: Rc<MetricsPage>, socket: TcpStream) {
    let Some(_fetch) = page.admit() else { return };
    let _ = timeout(page.patience(), answer(&page, socket)).await;
}

async fn answer(page: &MetricsPage, mut socket: TcpStream) -> io::Result<()> {
    let head = read_head(&mut socket).await?;
    socket.write_all(&page.answer(&head).await).await?;
    socket.shutdown().await?;
    discard(socket).await;
    Ok(())
}
