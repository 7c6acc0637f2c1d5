//! Relays in a process that goes on without them. A file of its own: it counts what its process holds.

use std::fs;
use std::io::Read;
use std::net::TcpStream;

use relay_proto::Settings;
use relay_tokio::spawn;

#[test]
fn a_relay_that_was_stopped_leaves_nothing() {
    let settings = Settings::from_vars([("RELAY_ADDR", "127.0.0.1:0")]).unwrap();
    let held = || ["fd", "task"].map(|what| fs::read_dir(format!("/proc/self/{what}")).unwrap().count());
    // What a runtime keeps for the whole process is there after the first.
    drop(spawn(settings.clone()).unwrap());
    let before = held();
    for _ in 0..50 {
        let relay = spawn(settings.clone()).unwrap();
        let mut client = TcpStream::connect(relay.addr()).unwrap();
        drop(relay);
        // An end or a reset, depending on whether it was accepted.
        assert_eq!(client.read(&mut [0]).unwrap_or(0), 0);
    }
    assert_eq!(held(), before);
}
