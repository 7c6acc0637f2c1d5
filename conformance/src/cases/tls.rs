//! TLS and its certificate (rules C7, D2).

use super::{Needs, cases};
use crate::host::Received;
use crate::stage::Stage;

cases! {
    "tls::only_1_3" ["C7"] Needs::Tls, only_1_3;
    "tls::certificate_is_replaced" ["D2"] Needs::Certificate, certificate_is_replaced;
}

/// A client that knows nothing newer than TLS 1.2 is told so (RFC 8446 section 4.2.1 and appendix D.2), and
/// one that can do both is served.
fn only_1_3(stage: &Stage<'_>) {
    const ALERT: u8 = 21;
    const FATAL: u8 = 2;
    const PROTOCOL_VERSION: u8 = 70;

    let mut link = stage.host.dial_beneath_tls();
    link.send(&client_hello_1_2()).expect("the relay reads");
    let mut answer = Vec::new();
    while let Received::Bytes(bytes) = link.receive(crate::host::PATIENCE) {
        answer.extend(bytes);
    }
    assert_eq!(answer.first(), Some(&ALERT), "{answer:02x?}");
    assert_eq!(answer.get(5..7), Some(&[FATAL, PROTOCOL_VERSION][..]), "{answer:02x?}");
    stage.transcript.note("TLS 1.2: alert protocol_version");

    let room = stage.room("tls");
    let mut host = stage.host(&room, "host");
    let mut guest = stage.guest(&room, "guest");
    stage.fence(&mut host, &mut [&mut guest]);
}

/// New connections see the new certificate, live ones notice nothing, and a pair that does not fit is no pair.
fn certificate_is_replaced(stage: &Stage<'_>) {
    let certificate = stage.host.certificate().expect("the case needs one");
    let room = stage.room("certificate");
    let mut host = stage.host(&room, "host");
    let first = certificate.shown();
    certificate.renew();
    let second = certificate.shown();
    assert_ne!(first, second, "the old certificate is still shown");
    certificate.spoil();
    assert_eq!(certificate.shown(), second, "a pair that does not fit is shown");
    let mut guest = stage.guest(&room, "guest");
    certificate.renew();
    let third = certificate.shown();
    assert!(third != first && third != second, "an old certificate is still shown");
    stage.transcript.note("the first certificate, the second, the second, the third");
    stage.fence(&mut host, &mut [&mut guest]);
    stage.fence(&mut guest, &mut [&mut host]);
}

/// A `ClientHello` of RFC 5246 section 7.4.1.2, with the extensions that any server of its time wanted.
fn client_hello_1_2() -> Vec<u8> {
    const SUITES: &[u8] = &[0xC0, 0x2B, 0xC0, 0x2F, 0xC0, 0x2C, 0xC0, 0x30];
    const EXTENSIONS: &[&[u8]] = &[
        &[0, 10, 0, 6, 0, 4, 0, 0x1D, 0, 0x17], // supported_groups: x25519, secp256r1
        &[0, 11, 0, 2, 1, 0],                   // ec_point_formats: uncompressed
        &[0, 13, 0, 8, 0, 6, 4, 3, 8, 4, 8, 7], // signature_algorithms
        &[0, 23, 0, 0],                         // extended_master_secret
    ];

    let extensions = EXTENSIONS.concat();
    let mut body = vec![3, 3];
    body.extend([0x5A; 32]);
    body.push(0);
    body.extend(prefixed::<2>(SUITES));
    body.extend([1, 0]);
    body.extend(prefixed::<2>(&extensions));
    let handshake = [&[1], prefixed::<3>(&body).as_slice()].concat();
    [&[22, 3, 1], prefixed::<2>(&handshake).as_slice()].concat()
}

/// Behind its length in so many bytes.
fn prefixed<const BYTES: usize>(content: &[u8]) -> Vec<u8> {
    let length = content.len().to_be_bytes();
    [&length[length.len() - BYTES..], content].concat()
}
