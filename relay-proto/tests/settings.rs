//! Variables and their values (rules C1 to C3).

use std::num::NonZeroU16;
use std::time::Duration;

use relay_proto::Settings;
use relay_proto::config::VARIABLES;

fn set(name: &str, value: &str) -> Result<Settings, String> {
    Settings::from_vars([(name, value)]).map_err(|error| error.to_string())
}

#[test]
fn c1_the_defaults_are_those_of_the_first_server() {
    let settings = Settings::default();
    let relay = &settings.relay;
    assert_eq!(
        settings.addr.addresses.iter().map(ToString::to_string).collect::<Vec<_>>(),
        ["[::]:8443", "0.0.0.0:8443"]
    );
    assert_eq!((relay.max_rooms, relay.max_clients_per_room, relay.max_message_size), (1000, 20, 1 << 20));
    assert_eq!(
        (relay.room_idle_timeout, relay.rate_limit_per_ip),
        (Some(Duration::from_secs(3600)), Some(100))
    );
    assert_eq!((settings.tls_cert, settings.tls_key, settings.metrics_addr), (None, None, None));
}

#[test]
fn every_default_can_also_be_written() {
    for variable in VARIABLES.iter().filter(|variable| !variable.default.is_empty()) {
        assert_eq!(set(variable.name, variable.default), Ok(Settings::default()), "{}", variable.name);
    }
}

#[test]
fn c3_every_variable_refuses_nonsense_by_name_value_and_remedy() {
    for variable in VARIABLES {
        let mut wrong = vec![""];
        let is_text =
            ["RELAY_TLS_CERT", "RELAY_TLS_KEY", "RELAY_LOG", "RELAY_RECORD"].contains(&variable.name);
        if !is_text {
            wrong.extend(["-1", "nonsense", "1e3", " 1", "0x10", "99999999999999999999999", "1\n2"]);
        }
        for value in wrong {
            let error = set(variable.name, value).expect_err(&format!("{}={value:?}", variable.name));
            assert!(error.contains(variable.name) && error.contains(variable.allowed), "{error}");
            assert!(value.is_empty() || error.contains(&format!("{value:?}")), "{error}");
            assert!(!error.contains('\n'), "one line: {error}");
        }
    }
}

#[test]
fn a_recording_is_of_one_shard() {
    let (four, one) = (NonZeroU16::new(4).unwrap(), NonZeroU16::MIN);
    assert_eq!(Settings::default().shards(four), four);
    let recorded = |shards| Settings::from_vars([("RELAY_RECORD", "file"), ("RELAY_SHARDS", shards)]);
    assert_eq!(recorded("auto").expect("as it likes").shards(four), one);
    assert_eq!(recorded("1").expect("one").shards(four), one);
    let error = recorded("2").expect_err("more than one").to_string();
    assert!(error.contains("RELAY_SHARDS=\"2\"") && error.contains("RELAY_RECORD"), "{error}");
}

#[test]
fn c3_a_certificate_without_its_key() {
    assert!(set("RELAY_TLS_CERT", "cert.pem").expect_err("alone").contains("RELAY_TLS_KEY"));
    assert!(set("RELAY_TLS_KEY", "key.pem").expect_err("alone").contains("RELAY_TLS_CERT"));
    assert!(Settings::from_vars([("RELAY_TLS_KEY", "key.pem"), ("RELAY_TLS_CERT", "cert.pem")]).is_ok());
}

#[test]
fn c2_zero_is_no_limit_and_seconds_may_be_decimals() {
    let relay = |name, value| set(name, value).expect("it is allowed").relay;
    assert_eq!(relay("RELAY_MAX_ROOMS", "0").max_rooms, usize::MAX);
    assert_eq!(relay("RELAY_RATE_LIMIT_PER_IP", "0").rate_limit_per_ip, None);
    assert_eq!(relay("RELAY_ROOM_IDLE_TIMEOUT", "0.25").room_idle_timeout, Some(Duration::from_millis(250)));
    assert_eq!(relay("RELAY_COALESCE_MS", "0").coalesce, None);
    assert_eq!(relay("RELAY_TRUSTED_PROXIES", "none").trusted_proxies, []);
    assert_eq!(relay("RELAY_TRUSTED_PROXIES", "10.0.0.0/8, ::1").trusted_proxies.len(), 2);
    let mapped = relay("RELAY_TRUSTED_PROXIES", "::ffff:192.0.2.1").trusted_proxies;
    assert_eq!(mapped, ["192.0.2.1/32".parse().expect("a network")]);
    assert_eq!(relay("RELAY_MAX_MESSAGE_SIZE", "10000000").data_bound(), 40_000_296);
}

#[test]
fn c1_a_bare_port_is_all_interfaces_for_clients_and_loopback_for_metrics() {
    let metrics = set("RELAY_METRICS_ADDR", ":9090").expect("it is allowed").metrics_addr;
    assert_eq!(metrics.expect("it is set").addresses, ["127.0.0.1:9090".parse().expect("an address")]);
    let written = set("RELAY_ADDR", "[::1]:80").expect("it is allowed").addr;
    assert_eq!(written.addresses, ["[::1]:80".parse().expect("an address")]);
    for bad in ["localhost:80", ":", ":99999", "1.2.3.4", ":+80"] {
        assert!(set("RELAY_ADDR", bad).is_err(), "{bad}");
    }
}

#[test]
fn a_ping_interval_that_would_cut_quiet_clients() {
    let error = set("RELAY_PING_INTERVAL", "60").expect_err("it is as long as the time-out");
    assert!(error.contains("RELAY_PONG_TIMEOUT"), "{error}");
    assert!(set("RELAY_PING_INTERVAL", "0").is_ok());
}

#[test]
fn h1_the_machine_is_told_whether_its_clients_come_over_tls() {
    let pair = [("RELAY_TLS_CERT", "cert.pem"), ("RELAY_TLS_KEY", "key.pem")];
    assert!(Settings::from_vars(pair).expect("a pair").relay.tls);
    assert!(!Settings::default().relay.tls);
}
