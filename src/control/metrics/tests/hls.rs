//! HLS muxers and viewers: in sums that never go back, one by one when asked for, silent when HLS is off.

use corecast_hub::{
    gauges::ShardGauges,
    roster::{HlsMuxerTraffic, HlsSessionTraffic, News},
};

use super::*;
use crate::control::{config::store::View, office::Office};

#[test]
fn viewers_come_one_by_one_when_asked_for_in_any_way() {
    let series = format!("{{id=\"{}\",path=\"cam/1\",remoteAddr=\"192.0.2.7:5007\"}}", id(7));
    for query in ["sessions=1", "type=hls_sessions", &format!("hls_session={}", id(7))] {
        let text = scrape(&small(), query);
        assert_eq!(value(&text, &format!("hls_sessions{series}")), 1.0, "{query}");
        assert_eq!(value(&text, &format!("hls_sessions_outbound_bytes{series}")), 7000.0, "{query}");
    }
    assert_eq!(samples(&scrape(&small(), &format!("hls_session={}", id(8)))).len(), 2);
    assert_eq!(value(&scrape(&unused(), "type=hls_sessions"), "hls_sessions"), 0.0);
}

#[test]
fn muxers_are_told_by_path() {
    let text = scrape(&small(), "hls_muxer=cam/1");
    assert_eq!(
        samples(&text),
        [
            "hls_muxers{name=\"cam/1\"} 1",
            "hls_muxers_outbound_bytes{name=\"cam/1\"} 30000",
            "hls_muxers_outbound_frames_discarded{name=\"cam/1\"} 30",
            "hls_muxers_bytes_sent{name=\"cam/1\"} 30000",
        ]
    );
    assert_eq!(samples(&scrape(&small(), "type=hls_muxers")), samples(&text));
}

#[test]
fn a_relay_without_hls_does_not_speak_of_it() {
    let off = Snapshot { hls: None, ..small() };
    for query in ["", "type=hls_sessions", "type=hls_muxers"] {
        let text = scrape(&off, query);
        let is_of_hls =
            |line: &&str| ["hls_", "corecast_hls", "corecast_http"].iter().any(|of| line.starts_with(of));
        assert_eq!(samples(&text).into_iter().find(is_of_hls), None);
    }
    assert_eq!(value(&scrape(&off, ""), "mediamtx_hls_sessions_count"), 0.0);
}

/// From what shards tell and count, to the page.
#[test]
fn sums_stay_when_viewers_and_muxers_come_and_go() {
    let file = std::env::temp_dir().join(format!("corecast-metrics-hls-{}.yml", std::process::id()));
    std::fs::write(&file, "paths: {cam: }\n").unwrap();
    let loaded = View::load(Some(&file), [], &[0]).unwrap();
    std::fs::remove_file(&file).unwrap();
    let gauges: Vec<Arc<ShardGauges>> = vec![Arc::default(), Arc::default()];
    for (shard, status) in gauges.iter().zip([200, 404]) {
        shard.hls.connections.set(2);
        shard.hls.count_answer(status);
        shard.hls.count_answer(206);
    }
    let office = Office::new(loaded.view, Arc::default(), gauges);
    let told = |news| drop(office.directory.apply(1, news));
    let page = || super::super::render(&office, &Filter::parse(""));
    let muxer = |bytes: u64| {
        let traffic = Arc::new(HlsMuxerTraffic::default());
        let shared = Arc::clone(&traffic);
        told(News::HlsMuxerOpened { path: "cam".into(), created: UNIX_EPOCH, by: None, traffic: shared });
        traffic.outbound_bytes.set(bytes);
        traffic.outbound_frames_discarded.set(1);
        traffic.playlists_rendered.set(bytes / 10);
    };
    let viewer = |n: u64, bytes: u64| {
        let traffic = Arc::new(HlsSessionTraffic::default());
        told(News::HlsSessionOpened {
            id: Uuid::from_u64_pair(0, n),
            created: UNIX_EPOCH,
            remote: ([192, 0, 2, 1], 5000).into(),
            path: "cam".into(),
            query: String::new(),
            user: String::new(),
            user_agent: String::new(),
            is_cdn: false,
            traffic: Arc::clone(&traffic),
        });
        traffic.outbound_bytes.set(bytes);
    };
    let over = || "over".to_owned();
    let check = |page: &str, readers: f64, sent: f64, muxed: Option<f64>, playlists: f64| {
        assert_eq!(value(page, "hls_sessions"), readers);
        assert_eq!(value(page, "mediamtx_hls_sessions_count"), readers);
        let of_path = "paths_readers{name=\"cam\",readerType=\"hlsSession\",state=\"notReady\"}";
        match readers > 0.0 {
            true => assert_eq!(value(page, of_path), readers),
            false => assert!(!page.contains("hlsSession")),
        }
        assert_eq!(value(page, "hls_sessions_outbound_bytes"), sent);
        match muxed {
            Some(bytes) => assert_eq!(value(page, "hls_muxers_outbound_bytes{name=\"cam\"}"), bytes),
            None => assert_eq!(value(page, "hls_muxers"), 0.0),
        }
        assert_eq!(value(page, "corecast_hls_playlists_rendered_total"), playlists);
    };
    check(&page(), 0.0, 0.0, None, 0.0);
    muxer(1000);
    viewer(1, 300);
    viewer(2, 400);
    check(&page(), 2.0, 700.0, Some(1000.0), 100.0);
    told(News::HlsSessionClosed { id: Uuid::from_u64_pair(0, 1), reason: over() });
    check(&page(), 1.0, 700.0, Some(1000.0), 100.0);
    told(News::HlsMuxerClosed { path: "cam".into(), reason: over() });
    told(News::HlsSessionClosed { id: Uuid::from_u64_pair(0, 2), reason: over() });
    check(&page(), 0.0, 700.0, None, 100.0);
    muxer(50);
    viewer(3, 1);
    let last = page();
    check(&last, 1.0, 701.0, Some(1050.0), 105.0);
    assert_eq!(value(&last, "hls_muxers_outbound_frames_discarded{name=\"cam\"}"), 2.0);
    assert_eq!(value(&last, "corecast_http_connections{server=\"hls\"}"), 4.0);
    for (code, count) in [("2xx", 3.0), ("4xx", 1.0), ("5xx", 0.0)] {
        let series = format!("corecast_http_answers_total{{code=\"{code}\",server=\"hls\"}}");
        assert_eq!(value(&last, &series), count, "{code}");
    }
}
