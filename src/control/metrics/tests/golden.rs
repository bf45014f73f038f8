//! The page of a small relay, letter by letter, and the names of contract §3.

use super::*;

#[test]
fn the_page_of_a_small_relay() {
    let expected = include_str!("small.txt");
    let found = scrape(&small(), "");
    for (line, (found, expected)) in found.lines().zip(expected.lines()).enumerate() {
        assert_eq!(found, expected, "line {}", line + 1);
    }
    assert_eq!(found.len(), expected.len());
}

#[test]
fn a_relay_that_nobody_uses_has_a_line_without_labels_for_everything() {
    let text = scrape(&unused(), "");
    for name in PATHS.iter().chain(HLS).chain(RTSP).chain(WEBRTC).chain(CUSTOMER) {
        assert_eq!(value(&text, name), 0.0, "{name}");
    }
    assert!(!text.contains("forward_dests"), "only when asked for");
}

#[test]
fn a_relay_without_rtsp_does_not_speak_of_it() {
    let text = scrape(&Snapshot { rtsp: None, ..small() }, "");
    assert!(!text.contains("\nrtsp_"), "{text}");
    assert_eq!(value(&text, "mediamtx_rtsp_conns_count"), 0.0);
}

#[test]
fn the_names_of_the_contract_and_no_others_of_its_families() {
    let text = scrape(&small(), "") + &scrape(&small(), "type=forward_dests");
    let mut told: Vec<&str> = text
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next())
        .filter(|name| !name.starts_with("corecast_") && !name.starts_with("process_"))
        .collect();
    told.sort_unstable();
    let mut expected = [CUSTOMER, PATHS, FORWARD, HLS, RTSP, WEBRTC].concat();
    expected.extend(["mediamtx_path_bytes_received", "mediamtx_path_bytes_sent"]);
    expected.sort_unstable();
    assert_eq!(told, expected);
}

#[test]
fn every_metric_has_a_help_and_a_type() {
    let text = scrape(&small(), "sessions=1");
    let told = |what: &str| {
        text.lines()
            .filter_map(|line| Some(line.strip_prefix(what)?.split(' ').next()?.to_owned()))
            .collect::<Vec<_>>()
    };
    assert_eq!(told("# HELP "), told("# TYPE "));
}

const CUSTOMER: &[&str] = &[
    "mediamtx_paths_count",
    "mediamtx_rtsp_conns_count",
    "mediamtx_hls_sessions_count",
    "mediamtx_webrtc_sessions_count",
];

const PATHS: &[&str] = &[
    "paths",
    "paths_inbound_bytes",
    "paths_outbound_bytes",
    "paths_inbound_frames_in_error",
    "paths_readers",
    "paths_bytes_received",
    "paths_bytes_sent",
];

const FORWARD: &[&str] = &["forward_dests", "forward_dests_outbound_bytes"];

const HLS: &[&str] = &[
    "hls_sessions",
    "hls_sessions_outbound_bytes",
    "hls_muxers",
    "hls_muxers_outbound_bytes",
    "hls_muxers_outbound_frames_discarded",
    "hls_muxers_bytes_sent",
];

const RTSP: &[&str] = &[
    "rtsp_conns",
    "rtsp_conns_inbound_bytes",
    "rtsp_conns_outbound_bytes",
    "rtsp_conns_bytes_received",
    "rtsp_conns_bytes_sent",
    "rtsp_sessions",
    "rtsp_sessions_inbound_bytes",
    "rtsp_sessions_inbound_rtp_packets",
    "rtsp_sessions_inbound_rtp_packets_lost",
    "rtsp_sessions_inbound_rtp_packets_in_error",
    "rtsp_sessions_inbound_rtp_packets_jitter",
    "rtsp_sessions_inbound_rtcp_packets",
    "rtsp_sessions_inbound_rtcp_packets_in_error",
    "rtsp_sessions_outbound_bytes",
    "rtsp_sessions_outbound_rtp_packets",
    "rtsp_sessions_outbound_rtp_packets_reported_lost",
    "rtsp_sessions_outbound_rtp_packets_discarded",
    "rtsp_sessions_outbound_rtcp_packets",
    "rtsp_sessions_bytes_received",
    "rtsp_sessions_bytes_sent",
    "rtsp_sessions_rtp_packets_received",
    "rtsp_sessions_rtp_packets_sent",
    "rtsp_sessions_rtp_packets_lost",
    "rtsp_sessions_rtp_packets_in_error",
    "rtsp_sessions_rtp_packets_jitter",
    "rtsp_sessions_rtcp_packets_received",
    "rtsp_sessions_rtcp_packets_sent",
    "rtsp_sessions_rtcp_packets_in_error",
];

const WEBRTC: &[&str] = &[
    "webrtc_sessions",
    "webrtc_sessions_inbound_bytes",
    "webrtc_sessions_inbound_rtp_packets",
    "webrtc_sessions_inbound_rtp_packets_lost",
    "webrtc_sessions_inbound_rtp_packets_jitter",
    "webrtc_sessions_inbound_rtcp_packets",
    "webrtc_sessions_outbound_bytes",
    "webrtc_sessions_outbound_rtp_packets",
    "webrtc_sessions_outbound_rtcp_packets",
    "webrtc_sessions_outbound_frames_discarded",
    "webrtc_sessions_bytes_received",
    "webrtc_sessions_bytes_sent",
    "webrtc_sessions_rtp_packets_received",
    "webrtc_sessions_rtp_packets_sent",
    "webrtc_sessions_rtp_packets_lost",
    "webrtc_sessions_rtp_packets_jitter",
    "webrtc_sessions_rtcp_packets_received",
    "webrtc_sessions_rtcp_packets_sent",
];

/// The families of the server for TLS are those of the plain one, under its name and behind them.
#[test]
fn rtsp_over_tls_is_told_as_rtsp_is() {
    let plain = scrape(&small(), "");
    let both = scrape(&Snapshot { rtsps: small().rtsp, ..small() }, "");
    let of = |server: &str, text: &str| {
        let lines = samples(text).into_iter().filter(|line| line.starts_with(&format!("{server}_")));
        lines.map(str::to_owned).collect::<Vec<_>>()
    };
    assert!(of("rtsps", &plain).is_empty());
    let told = of("rtsps", &both);
    let as_plain: Vec<_> = told.iter().map(|line| line.replacen("rtsps_", "rtsp_", 1)).collect();
    assert_eq!(as_plain, of("rtsp", &plain));
    let at = |part: &str| both.find(part).unwrap();
    assert!(at("# RTSP sessions (deprecated)") < at("# RTSPS connections") && at("rtsps_conns ") > 0);
    assert!(both.contains("The same as rtsps_sessions_inbound_bytes."));
    assert_eq!(value(&plain, "mediamtx_rtsp_conns_count") * 2.0, value(&both, "mediamtx_rtsp_conns_count"));
    let alone = scrape(&Snapshot { rtsp: None, rtsps: small().rtsp, ..small() }, "type=rtsps_conns");
    assert!(alone.contains(&format!("rtsps_conns{{id=\"{}\"}} 1", id(1))), "{alone}");
    let paths = vec![PathRow { readers: [0, 2, 3], ..path("cam", true, 2) }];
    let text = scrape(&Snapshot { paths, ..small() }, "");
    for (kind, count) in [("rtspSession", 2.0), ("rtspsSession", 3.0)] {
        let series = format!("paths_readers{{name=\"cam\",readerType=\"{kind}\",state=\"ready\"}}");
        assert_eq!(value(&text, &series), count);
    }
}
