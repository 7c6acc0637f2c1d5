//! Request heads (rule H9), however they are cut: whole, byte by byte, and with more behind them.

use relay_proto::Fault;
use relay_proto::http::Head;

const GOOD: &str = "GET /ws?room=r HTTP/1.1\r\nHost: relay\r\nX-Empty:\r\nAccept: */*\r\n\r\n";

fn fields(count: usize) -> String {
    let fields: String = (0..count).map(|n| format!("X-{n}: y\r\n")).collect();
    format!("GET / HTTP/1.1\r\n{fields}\r\n")
}

fn of_size(bytes: usize) -> String {
    let frame = "GET / HTTP/1.1\r\nX: \r\n\r\n".len();
    format!("GET / HTTP/1.1\r\nX: {}\r\n\r\n", "y".repeat(bytes - frame))
}

fn whole(head: &str) -> Result<bool, Fault> {
    Head::new().push(head.as_bytes())
}

fn byte_by_byte(head: &str) -> Result<bool, Fault> {
    let mut parser = Head::new();
    for byte in head.as_bytes() {
        match parser.push(&[*byte]) {
            Ok(false) => {}
            end => return end,
        }
    }
    Ok(false)
}

#[test]
fn a_good_head_is_read_however_it_is_cut() {
    for cut in 0..GOOD.len() {
        let mut head = Head::new();
        assert_eq!(head.push(&GOOD.as_bytes()[..cut]), Ok(false));
        assert!(head.request().is_none());
        assert_eq!(head.push(&GOOD.as_bytes()[cut..]), Ok(true));
        let request = head.request().expect("it is whole");
        assert_eq!((request.method, request.target, request.version), ("GET", "/ws?room=r", 1));
        assert_eq!(request.fields, [("Host", &b"relay"[..]), ("X-Empty", b""), ("Accept", b"*/*")]);
        assert!(head.into_rest().is_empty());
    }
    assert_eq!(byte_by_byte(GOOD), Ok(true));
}

#[test]
fn what_follows_the_head_is_kept() {
    let mut head = Head::new();
    assert_eq!(head.push(format!("{GOOD}\u{1}\n\nframes").as_bytes()), Ok(true));
    assert_eq!(head.into_rest(), b"\x01\n\nframes");
}

#[test]
fn limits_are_exact() {
    for read in [whole, byte_by_byte] {
        assert_eq!(read(&fields(64)), Ok(true));
        assert_eq!(read(&fields(65)), Err(Fault::HeadTooLarge));
        assert_eq!(read(&of_size(16 * 1024)), Ok(true));
        assert_eq!(read(&of_size(16 * 1024 + 1)), Err(Fault::HeadTooLarge));
        assert_eq!(read(&"x".repeat(16 * 1024 + 1)), Err(Fault::HeadTooLarge));
    }
}

#[test]
fn nonsense_is_told_from_what_is_not_whole_yet() {
    for read in [whole, byte_by_byte] {
        for bad in [
            "\x16\x03\x01\x02\n",
            "GET\r\n\r\n",
            "GET / HTTP/2.0\r\n\r\n",
            "GET / HTTP/1.1\r\nno colon\r\n\r\n",
        ] {
            assert_eq!(read(bad), Err(Fault::BadHead), "{bad:?}");
        }
    }
}
