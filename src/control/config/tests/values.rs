//! Single values: their spellings, their limits, and what is said of those that are not served.

use std::time::Duration;

use corecast_hub::settings::{MediaIoChoice, Park};

use super::{assert_one_error, assert_one_warning, errors, load, view, warnings};
use crate::{
    control::{config::store::View, settings::TlsFiles},
    observe::log::{Destination, Level},
};

#[test]
fn an_empty_file_is_all_defaults() {
    let loaded = load("").unwrap();
    assert!(loaded.warnings.is_empty());
    let settings = loaded.view.settings;
    assert_eq!(settings.read_timeout, Duration::from_secs(10));
    assert_eq!(settings.write_timeout, Duration::from_secs(10));
    assert_eq!(settings.udp_payload_bytes_max, 1452);
    assert_eq!(settings.udp_read_buffer_bytes, None);
    assert_eq!(settings.rtsp.address, Some("[::]:8554".parse().unwrap()));
    assert_eq!(settings.rtsp.rtp_address, "[::]:8000".parse().unwrap());
    assert_eq!(settings.rtsp.rtcp_address, "[::]:8001".parse().unwrap());
    assert!(settings.rtsp.udp && settings.rtsp.tcp);
    let engine = &settings.engine;
    assert_eq!(engine.cores, [0, 1, 2, 3]);
    assert_eq!((engine.media_io, engine.park), (MediaIoChoice::Auto, Park::Ring));
    assert_eq!((engine.flush_bytes, engine.ring_bytes_max), (64 << 10, 16 << 20));
    assert_eq!(engine.flush_after, Duration::from_millis(5));
    assert_eq!(engine.reader_lag_max, Duration::from_secs(10));
    assert_eq!(engine.reorder_wait, Duration::from_millis(100));
    assert_eq!(loaded.view.control.log.level, Level::Info);
    assert_eq!(loaded.view.control.log.destinations, [Destination::Stdout]);
    assert!(!loaded.view.control.log.structured);
    assert_eq!(loaded.view.control.log.file.to_str(), Some("mediamtx.log"));
    assert_eq!(loaded.view.control.log.syslog_prefix, "mediamtx");
    assert!(settings.paths.lookup("x").is_err());
}

#[test]
fn served_keys_are_obeyed() {
    let loaded = load(
        "logLevel: debug\nlogDestinations: [file, stdout]\nlogStructured: on\nlogFile: /var/log/x\n\
         readTimeout: 1d12h\nwriteTimeout: 1m30s\nwriteQueueSize: 1024\nudpMaxPayloadSize: 1200\n\
         udpReadBufferSize: 1000000\nrtspTransports: [tcp]\nrtspAddress: 0.0.0.0:554\n\
         rtpAddress: 127.0.0.1:9000\nrtcpAddress: 127.0.0.1:9001\n\
         engine:\n  cores: [2, 1]\n  mediaIo: epoll\n  park: executor\n  flushBytes: 128KiB\n\
         \x20 flushAfter: 0s\n  ringMax: 1M\n  readerLagMax: 3s\n  reorderWait: 20ms\n",
    )
    .unwrap();
    assert!(loaded.warnings.is_empty(), "{:?}", loaded.warnings);
    assert_eq!(loaded.view.control.log.level, Level::Debug);
    assert_eq!(loaded.view.control.log.destinations, [Destination::File, Destination::Stdout]);
    assert!(loaded.view.control.log.structured);
    let settings = loaded.view.settings;
    assert_eq!(settings.read_timeout, Duration::from_secs(129_600));
    assert_eq!(settings.write_timeout, Duration::from_secs(90));
    assert_eq!(settings.udp_payload_bytes_max, 1200);
    assert_eq!(settings.udp_read_buffer_bytes.map(usize::from), Some(1_000_000));
    assert!(settings.rtsp.tcp && !settings.rtsp.udp);
    assert_eq!(settings.rtsp.address, Some("0.0.0.0:554".parse().unwrap()));
    assert_eq!(settings.engine.cores, [2, 1]);
    assert_eq!(settings.engine.media_io, MediaIoChoice::Epoll);
    assert_eq!(settings.engine.park, Park::Executor);
    assert_eq!(settings.engine.flush_bytes, 128 << 10);
    assert_eq!(settings.engine.flush_after, Duration::ZERO);
    assert_eq!(settings.engine.reorder_wait, Duration::from_millis(20));
}

#[test]
fn all_errors_come_at_once_in_the_order_of_the_file() {
    assert_eq!(
        errors("readTimeout: 10\nrtsp: \"yes\"\nlogLevel: loud\npaths:\n  cam1:\n    maxReaders: -1\n"),
        [
            "c.yml:1:14: 'readTimeout' is '10': expected a duration such as 200ms, 10s, 1m30s or 1d12h",
            "c.yml:2:7: 'rtsp' is 'yes': expected yes or no, without quotes",
            "c.yml:3:11: 'logLevel' is 'loud': expected error, warn, info or debug",
            "c.yml:6:17: 'maxReaders' is '-1': expected a whole number, 0 or more",
        ]
    );
}

#[test]
fn yaml_1_1_booleans_work_unquoted_everywhere() {
    for (word, expected) in [("yes", true), ("On", true), ("TRUE", true), ("no", false), ("OFF", false)] {
        let loaded = load(&format!("rtsp: {word}")).unwrap();
        assert_eq!(loaded.view.settings.rtsp.address.is_some(), expected, "{word}");
    }
    assert!(warnings("rtspEncryption: no").is_empty());
    assert!(warnings("rtspEncryption: off").is_empty());
    assert!(warnings("rtspEncryption: \"false\"").is_empty());
    assert_one_error("rtsp: y", "c.yml:1:7: 'rtsp' is 'y': expected yes or no");
}

#[test]
fn null_is_a_default_for_a_value_and_an_error_for_a_list() {
    assert!(load("readTimeout:\nrtspAddress: ~\npaths:\npathDefaults:\nengine: null\n").is_ok());
    assert_one_error(
        "rtspTransports:",
        "c.yml:1:15: 'rtspTransports' is empty: expected a list, each element udp, multicast or tcp (none: [])",
    );
}

#[test]
fn wrong_shapes_are_named() {
    assert_one_error(
        "logLevel: [info]",
        "c.yml:1:11: 'logLevel' is a list: expected error, warn, info or debug",
    );
    assert_one_error("paths: [a]", "c.yml:1:8: 'paths' must be a map of keys, or empty");
    assert_one_error(
        "just text",
        "c.yml:1:1: a configuration is a map of keys, such as 'rtspAddress: :8554'",
    );
}

#[test]
fn a_document_is_one_document_without_duplicates() {
    assert_one_error("logLevel: info\nlogLevel: info", "c.yml:2:1: key 'logLevel' is already set at 1:1");
    assert_one_error(
        "logLevel: info\n---\nlogLevel: info",
        "c.yml:2:1: a configuration is exactly one YAML document, here starts another",
    );
    assert!(load("---\nlogLevel: info\n").is_ok());
    assert!(errors("a: [1\nb: 2")[0].starts_with("c.yml:2:"));
}

#[test]
fn anchors_and_merges_work_and_alias_bombs_do_not() {
    let loaded = load(
        "paths:\n  a: &base\n    maxReaders: 3\n    gopCache: no\n  b:\n    <<: *base\n    maxReaders: 5\n  c: *base\n",
    )
    .unwrap();
    let readers = |name| loaded.view.settings.paths.lookup(name).unwrap().readers_max.map(u32::from);
    assert_eq!((readers("a"), readers("b"), readers("c")), (Some(3), Some(5), Some(3)));
    assert!(!loaded.view.settings.paths.lookup("b").unwrap().gop_cache);

    let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..10 {
        let below = format!("*a{}", level - 1);
        bomb += &format!("a{level}: &a{level} [{}]\n", [below.as_str(); 10].join(", "));
    }
    let message = errors(&bomb).pop().unwrap();
    assert!(message.ends_with("more than 1000000 values, aliases expanded"), "{message}");
    let deep = format!("a: {}{}", "[".repeat(40), "]".repeat(40));
    assert!(errors(&deep)[0].ends_with("nested deeper than 32 levels"));
}

#[test]
fn unknown_keys_are_refused_with_a_hint() {
    assert_one_error(
        "rtspAdress: :1",
        "c.yml:1:1: unknown field \"rtspAdress\": did you mean \"rtspAddress\"?",
    );
    assert_one_error("LogLevel: info", "c.yml:1:1: unknown field \"LogLevel\": did you mean \"logLevel\"?");
    assert_one_error("nobodyHasThis: 1", "c.yml:1:1: unknown field \"nobodyHasThis\"");
    assert_one_error(
        "maxReaders: 1",
        "c.yml:1:1: unknown field \"maxReaders\": it belongs under 'pathDefaults' or into a path",
    );
    assert_one_error("flushAfter: 1ms", "c.yml:1:1: unknown field \"flushAfter\": it belongs under 'engine'");
    assert_one_error(
        "paths:\n  cam1:\n    hls: no",
        "c.yml:3:5: unknown field \"hls\": it belongs to the top level",
    );
    assert_one_error(
        "authInternalUsers:\n- user: any\n  password: x",
        "c.yml:3:3: unknown field \"authInternalUsers.password\": known are user, pass, ips, permissions",
    );
}

#[test]
fn a_file_of_another_program_is_given_up_on() {
    let text: String = (0..5000).map(|number| format!("key{number}: 1\n")).collect();
    let errors = errors(&text);
    assert_eq!((errors.len(), errors[100].as_str()), (101, "… and 900 more errors"));
}

#[test]
fn keys_of_later_versions_warn_only_when_they_change_something() {
    assert!(
        warnings("rtmpEncryption: \"no\"\nrunOnConnect: ''\nwebrtcAllowOrigins: ['*']\nrtmpAddress: :1935")
            .is_empty()
    );
    assert_one_warning(
        "webrtcHandshakeTimeout: 8s",
        "c.yml:1:1: key 'webrtcHandshakeTimeout' is accepted but not served by this version yet",
    );
    assert_one_warning(
        "paths:\n  a: {rpiCameraMode: x}\n  b: {rpiCameraMode: x}\n  c: {rpiCameraMode: y}",
        "c.yml:2:7: key 'rpiCameraMode' is accepted but not served by this version yet (and in 2 more places)",
    );
    assert_one_error(
        "hlsSegmentMaxSize: 5",
        "c.yml:1:20: 'hlsSegmentMaxSize' is '5': expected a size such as 64K, 16M or 1G",
    );
}

#[test]
fn services_of_later_versions_warn_whenever_they_are_switched_on_in_words() {
    for service in ["rtmp", "srt", "moq", "webrtc", "pprof", "playback"] {
        assert!(warnings(&format!("{service}: no")).is_empty(), "{service}");
        assert!(warnings(&format!("{service}:")).is_empty(), "{service}");
        let expected = format!("c.yml:1:1: key '{service}' is accepted but not served by this version yet");
        assert_one_warning(&format!("{service}: yes"), &expected);
    }
    assert_one_warning(
        "rtmpDisable: no",
        "c.yml:1:1: key 'rtmpDisable' is deprecated, read as the opposite of 'rtmp'; \
         it is not served by this version yet",
    );
    assert_one_warning(
        "rtmpDisable: yes",
        "c.yml:1:1: key 'rtmpDisable' is deprecated, read as the opposite of 'rtmp'",
    );
}

#[test]
fn the_default_users_are_recognised_in_any_spelling() {
    assert!(
        warnings(
            "authInternalUsers:\n- user: any\n  pass:\n  ips: []\n  permissions:\n\
             \x20 - {action: publish, path: }\n  - action: read\n  - action: playback\n\
             - {user: any, ips: ['127.0.0.1/32', '::1'], permissions: [{action: api}, {action: metrics}, {action: pprof}]}\n"
        )
        .is_empty()
    );
    let settings = view("authInternalUsers: [{user: me, pass: secret}]").settings;
    assert!(!settings.access.read_open && !settings.access.publish_open);
}

#[test]
fn networks_are_checked() {
    assert!(warnings("webrtcTrustedProxies: []").is_empty());
    assert_eq!(warnings("webrtcTrustedProxies: [10.0.0.0/8, '::1', 10.0.0.1/32]").len(), 1);
    for wrong in ["10.0.0.0/33", "proxy", "10.0.0"] {
        assert_one_error(
            &format!("hlsTrustedProxies: [{wrong}]"),
            &format!(
                "c.yml:1:21: 'hlsTrustedProxies' is '{wrong}': \
                 expected an IP address or a network such as 10.0.0.0/8"
            ),
        );
    }
}

#[test]
fn whole_numbers_are_read_as_yaml_writes_them() {
    for text in ["1200", "1_200", "1200.0", "0x4b0", "0o2260"] {
        assert_eq!(
            load(&format!("udpMaxPayloadSize: {text}")).unwrap().view.settings.udp_payload_bytes_max,
            1200
        );
    }
    for text in ["1200.5", "'1200'", "12k", "_1200"] {
        assert_eq!(errors(&format!("udpMaxPayloadSize: {text}")).len(), 1, "{text}");
    }
}

#[test]
fn older_keys_are_translated_with_one_warning() {
    let loaded = load("protocols: [tcp]").unwrap();
    assert!(loaded.view.settings.rtsp.tcp && !loaded.view.settings.rtsp.udp);
    assert_eq!(loaded.warnings, ["c.yml:1:1: key 'protocols' is deprecated, read as 'rtspTransports'"]);
    let loaded = load("rtspDisable: yes").unwrap();
    assert_eq!(loaded.view.settings.rtsp.address, None);
    assert_eq!(
        loaded.warnings,
        ["c.yml:1:1: key 'rtspDisable' is deprecated, read as the opposite of 'rtsp'"]
    );
    let loaded = load("readBufferCount: 512\nrtspUDPReadBufferSize: 2048").unwrap();
    assert_eq!(loaded.view.settings.udp_read_buffer_bytes.map(usize::from), Some(2048));
    let loaded = load("paths: {a: {disablePublisherOverride: yes}, b: {overridePublisher: yes}}").unwrap();
    assert!(!loaded.view.settings.paths.lookup("a").unwrap().override_publisher);
    assert!(loaded.view.settings.paths.lookup("b").unwrap().override_publisher);
    assert_eq!(loaded.warnings.len(), 1);
    assert_one_warning(
        "record: yes",
        "c.yml:1:1: key 'record' at the top level is deprecated, read as 'pathDefaults.record'; \
         it is not served by this version yet",
    );
    assert_one_warning(
        "webrtcAllowOrigin: https://x",
        "c.yml:1:1: key 'webrtcAllowOrigin' is deprecated, read as 'webrtcAllowOrigins'; \
         it is not served by this version yet",
    );
    // As MediaMTX: the older spelling wins.
    let loaded = load("protocols: [tcp]\nrtspTransports: [udp]").unwrap();
    assert!(loaded.view.settings.rtsp.tcp && !loaded.view.settings.rtsp.udp);
}

#[test]
fn tls_is_served_beside_the_plain_port_or_instead_of_it() {
    let of = |text: &str| {
        let View { settings, control, .. } = load(text).unwrap().view;
        (settings.rtsp.address.is_some(), settings.rtsp.tls_address, control.rtsp_tls.clone())
    };
    let files = |key: &str, cert: &str| Some(TlsFiles { key: key.into(), cert: cert.into() });
    let default = Some("[::]:8322".parse().unwrap());
    for text in
        ["rtspEncryption: strict", "rtspEncryption: yes", "rtspEncryption: 'true'", "encryption: strict"]
    {
        assert_eq!(of(text), (false, default, files("server.key", "server.crt")), "{text}");
    }
    let optional =
        "rtspEncryption: optional\nrtspsAddress: 127.0.0.1:322\nrtspServerKey: k\nrtspServerCert: c";
    assert_eq!(of(optional), (true, Some("127.0.0.1:322".parse().unwrap()), files("k", "c")));
    assert!(warnings(optional).is_empty());
    assert_eq!(of("rtspsAddress: x\nrtspServerKey: ''"), (true, None, None), "what is off may be anything");
    assert_eq!(of("rtsp: no\nrtspEncryption: strict"), (false, None, None));
    assert_one_error(
        "rtspEncryption: optional\nrtspServerCert: ''",
        "c.yml:2:17: 'rtspServerCert' is empty: expected the path of a PEM file",
    );
    assert_one_warning(
        "rtspEncryption: strict\nrtspTransports: [udp]",
        "c.yml:2:17: 'rtspTransports' lacks tcp: this version serves encrypted media over TCP only, so that nobody \
         can read or publish on rtspsAddress",
    );
}

#[test]
fn multicast_warns_only_when_it_was_chosen() {
    assert!(warnings("rtspTransports: [tcp, multicast, udp]").is_empty());
    assert_one_warning(
        "rtspTransports: [tcp, multicast]",
        "c.yml:1:17: 'rtspTransports' has multicast, which is not served by this version yet",
    );
    assert_one_error(
        "rtspTransports: [multicast]",
        "c.yml:1:17: 'rtspTransports' must hold udp or tcp, or 'rtsp' be no",
    );
    assert!(load("rtspTransports: []\nrtsp: no").is_ok());
}

#[test]
fn rtp_and_rtcp_ports_are_a_pair() {
    assert_one_error(
        "rtpAddress: :8001",
        "c.yml:1:13: 'rtpAddress' has port 8001: RTP uses an even port, RTCP the one after it",
    );
    assert_one_error(
        "rtpAddress: :9000",
        "c.yml: 'rtcpAddress' has port 8001: expected 9001, the one after rtpAddress",
    );
    assert!(load("rtpAddress: :9000\nrtspTransports: [tcp]").is_ok());
}

#[test]
fn addresses_have_a_port_and_may_have_a_host() {
    let address = |text| load(&format!("rtspAddress: '{text}'")).unwrap().view.settings.rtsp.address.unwrap();
    assert_eq!(address("[::1]:8554"), "[::1]:8554".parse().unwrap());
    assert_eq!(address("localhost:8554").port(), 8554);
    for wrong in ["8554", "localhost", ":", ":99999", ""] {
        let error = errors(&format!("rtspAddress: '{wrong}'")).pop().unwrap();
        assert!(error.ends_with("expected host:port or :port, such as :8554"), "{error}");
    }
    assert!(load("rtsp: no\nrtspAddress: ''").is_ok());
    assert!(load("rtspTransports: [tcp]\nrtpAddress: ''").is_ok());
}

#[test]
fn limits_are_kept() {
    assert_one_error("readTimeout: 0s", "c.yml:1:14: 'readTimeout' is '0s': expected more than 0s");
    assert_one_error("writeTimeout: -1s", "c.yml:1:15: 'writeTimeout' is '-1s': expected more than 0s");
    assert_one_error(
        "udpMaxPayloadSize: 1473",
        "c.yml:1:20: 'udpMaxPayloadSize' is '1473': expected a whole number from 128 to 1472",
    );
    assert_one_error(
        "engine: {flushAfter: 2s}",
        "c.yml:1:22: 'flushAfter' is '2s': expected a duration between 0s and 1s",
    );
    assert_one_error(
        "engine: {ringMax: 2G}",
        "c.yml:1:19: 'ringMax' is '2G': expected a size between 1M and 1G",
    );
    assert_one_error(
        "engine: {flushBytes: 2M, ringMax: 1M}",
        "c.yml:1:22: 'flushBytes' is larger than 'ringMax': expected the reverse",
    );
    assert_one_error("engine: {cores: [0, 9]}", "c.yml:1:17: 'cores' has 9: this process may use 0-3");
    assert_one_error("engine: {cores: [1, 1]}", "c.yml:1:17: 'cores' has 1 twice");
    assert_one_error(
        "engine: {cores: []}",
        "c.yml:1:17: 'cores' is empty: expected auto, or at least one core",
    );
    assert!(load("engine: {cores: auto}").is_ok());
}

#[test]
fn logs_go_to_each_destination_once_or_nowhere() {
    let destinations = |text| load(text).unwrap().view.control.log.destinations.clone();
    assert_eq!(
        destinations("logDestinations: [syslog, file, syslog]"),
        [Destination::Syslog, Destination::File]
    );
    assert!(destinations("logDestinations: []").is_empty());
}
