//! Relays in a process that goes on without them. A file of its own: it counts what its process holds.

use std::fs;
use std::io::{ErrorKind, Read};
use std::net::TcpStream;
use std::time::Duration;

use relay_proto::Settings;
use relay_tokio::spawn;

/// Nothing takes that long, unless it never comes.
const PATIENCE: Duration = Duration::from_secs(10);

#[test]
fn a_relay_that_was_stopped_leaves_nothing() {
    let settings = Settings::from_vars([("RELAY_ADDR", "127.0.0.1:0")]).unwrap();
    let held = || ["fd", "task"].map(|what| fs::read_dir(format!("/proc/self/{what}")).unwrap().count());
    // What a runtime keeps for the whole process is there after the first.
    drop(spawn(&settings).unwrap());
    let before = held();
    for _ in 0..50 {
        let relay = spawn(&settings).unwrap();
        let mut client = TcpStream::connect(relay.addr()).unwrap();
        drop(relay);
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        // An end or a reset, depending on whether it was accepted; not silence.
        let end = client.read(&mut [0]).map_err(|error| error.kind());
        assert!(matches!(end, Ok(0) | Err(ErrorKind::ConnectionReset)), "{end:?}");
    }
    assert_eq!(held(), before);
}
