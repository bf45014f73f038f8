//! What a query leaves over, as measured on MediaMTX 1.20.1.

use super::*;

/// The categories that a query leaves over: words that begin the names of the samples.
fn categories(query: &str) -> Vec<String> {
    let known = [
        "paths",
        "forward_dests",
        "hls_sessions",
        "hls_muxers",
        "rtsp_conns",
        "rtsp_sessions",
        "webrtc_sessions",
        "mediamtx",
        "corecast",
        "process",
    ];
    let text = scrape(&small(), query);
    let found = samples(&text);
    known.iter().filter(|word| found.iter().any(|s| s.starts_with(**word))).map(|w| (*w).to_owned()).collect()
}

#[test]
fn a_type_leaves_its_category_over() {
    assert_eq!(categories("type=paths"), ["paths", "mediamtx"]);
    assert_eq!(categories("type=rtsp_conns"), ["rtsp_conns", "mediamtx"]);
    assert_eq!(categories("type=rtsp_sessions"), ["rtsp_sessions"]);
    assert_eq!(categories("type=hls_sessions"), ["hls_sessions", "mediamtx"]);
    assert_eq!(categories("type=hls_muxers"), ["hls_muxers"]);
    assert_eq!(categories("type=webrtc_sessions"), ["webrtc_sessions", "mediamtx"]);
    assert_eq!(categories("type=forward_dests"), ["forward_dests"]);
    for unknown in
        ["rtsps_conns", "rtsps_sessions", "rtmp_conns", "rtmps_conns", "srt_conns", "moq_sessions", "x"]
    {
        assert_eq!(scrape(&small(), &format!("type={unknown}")), "", "{unknown}");
    }
}

#[test]
fn an_item_leaves_its_own_lines_over() {
    let text = scrape(&small(), "path=cam/1");
    assert_eq!(
        samples(&text),
        [
            "mediamtx_path_bytes_received{path=\"cam/1\"} 3000",
            "mediamtx_path_bytes_sent{path=\"cam/1\"} 6000",
            "paths{name=\"cam/1\",state=\"ready\"} 1",
            "paths_readers{name=\"cam/1\",readerType=\"hlsSession\",state=\"ready\"} 2",
            "paths_readers{name=\"cam/1\",readerType=\"rtspSession\",state=\"ready\"} 2",
            "paths_inbound_bytes{name=\"cam/1\",state=\"ready\"} 3000",
            "paths_outbound_bytes{name=\"cam/1\",state=\"ready\"} 6000",
            "paths_inbound_frames_in_error{name=\"cam/1\",state=\"ready\"} 3",
            "paths_bytes_received{name=\"cam/1\",state=\"ready\"} 3000",
            "paths_bytes_sent{name=\"cam/1\",state=\"ready\"} 6000",
        ]
    );
    let text = scrape(&small(), &format!("rtsp_conn={}", id(2)));
    assert_eq!(value(&text, &format!("rtsp_conns{{id=\"{}\"}}", id(2))), 1.0);
    assert_eq!(samples(&text).len(), 5);
    let text = scrape(&small(), &format!("rtsp_session={}", id(3)));
    assert_eq!(samples(&text).len(), 23);
    assert!(samples(&text).iter().all(|line| line.contains(&id(3))));
}

#[test]
fn an_item_that_is_not_there_leaves_nothing_over_not_even_zeros() {
    let items = [
        "path",
        "forward_dest",
        "hls_muxer",
        "hls_session",
        "rtsp_conn",
        "rtsp_session",
        "rtsps_conn",
        "rtsps_session",
        "rtmp_conn",
        "rtmps_conn",
        "srt_conn",
        "webrtc_session",
        "moq_session",
    ];
    for item in items {
        let text = scrape(&small(), &format!("{item}=none"));
        assert_eq!(samples(&text), [""; 0], "{item}");
        assert!(!text.contains("# TYPE"), "{item}: a head without samples");
    }
}

#[test]
fn items_add_up_and_a_type_must_agree_with_them() {
    assert_eq!(categories(&format!("path=cam/1&rtsp_conn={}", id(1))), ["paths", "rtsp_conns", "mediamtx"]);
    assert_eq!(categories("type=rtsp_sessions&path=cam/1"), [""; 0]);
    assert_eq!(categories("type=paths&path=cam/1"), ["paths", "mediamtx"]);
}

#[test]
fn the_first_value_counts_and_an_empty_one_or_an_unknown_key_says_nothing() {
    let everything = scrape(&small(), "");
    for query in ["type=", "path=&type=", "foo=bar", "path", "&&=", "sessions=0"] {
        assert_eq!(scrape(&small(), query), everything, "{query}");
    }
    assert_eq!(scrape(&small(), "path=cam/1&path=idle"), scrape(&small(), "path=cam/1"));
    assert_eq!(scrape(&small(), "p%61th=c%61m%2F1"), scrape(&small(), "path=cam/1"));
    let spaced = Snapshot { paths: vec![path("a b", true, 0)], ..small() };
    assert!(scrape(&spaced, "path=a+b").contains("paths{name=\"a b\""));
    scrape(&small(), "path=%ff%&type=%");
}

#[test]
fn sessions_come_one_by_one_when_asked_for_in_any_way() {
    let series = format!(
        "rtsp_sessions{{id=\"{}\",path=\"cam/1\",remoteAddr=\"192.0.2.2:5002\",state=\"read\"}}",
        id(2)
    );
    for query in ["sessions=1", "sessions=true", "type=rtsp_sessions", &format!("rtsp_session={}", id(2))] {
        assert_eq!(value(&scrape(&small(), query), &series), 1.0, "{query}");
    }
    let series = format!("rtsp_conns_inbound_bytes{{id=\"{}\"}}", id(2));
    for query in ["sessions=1", "type=rtsp_conns", &format!("rtsp_conn={}", id(2))] {
        assert_eq!(value(&scrape(&small(), query), &series), 200.0, "{query}");
    }
    // `engine.metricsSessions`.
    assert!(page(&small(), &Filter::default(), true).contains(&series));
    assert!(!scrape(&small(), "").contains("id=\""));
}
