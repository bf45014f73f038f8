//! Sums over sessions and connections: right, and never less than before.

use corecast_hub::{
    gauges::ShardGauges,
    roster::{ConnTraffic, News, SessionTraffic, SourceState},
};

use super::*;
use crate::control::{config::store::View, office::Office};

fn rtsp(conns: Vec<ConnRow>, sessions: Vec<SessionRow>, retired: Retired) -> Snapshot {
    Snapshot { rtsp: Some(Rtsp { conns, sessions, retired }), ..small() }
}

#[test]
fn a_line_for_each_state_holds_all_sessions_that_are_in_it() {
    let text = scrape(&small(), "");
    assert_eq!(value(&text, "rtsp_sessions{state=\"idle\"}"), 0.0);
    assert_eq!(value(&text, "rtsp_sessions{state=\"publish\"}"), 1.0);
    assert_eq!(value(&text, "rtsp_sessions{state=\"read\"}"), 2.0);
    assert_eq!(value(&text, "rtsp_sessions_inbound_bytes{state=\"read\"}"), 500.0);
    assert_eq!(value(&text, "rtsp_sessions_bytes_sent{state=\"read\"}"), 512.0);
    assert_eq!(value(&text, "rtsp_sessions_inbound_rtp_packets_jitter{state=\"read\"}"), 4.5);
    assert_eq!(value(&text, "rtsp_conns"), 2.0);
    assert_eq!(value(&text, "rtsp_conns_inbound_bytes"), 300.0);
    assert_eq!(value(&text, "rtsp_conns_bytes_sent"), 600.0);
}

#[test]
fn what_ended_sessions_and_connections_moved_stays_in_the_sums() {
    let (conn_traffic, traffic) = (ConnTraffic::default(), SessionTraffic::default());
    conn_traffic.inbound_bytes.set(40);
    traffic.outbound_bytes.set(50);
    let mut retired = Retired::default();
    retired.conn_closed(&conn_traffic);
    retired.session_closed(SessionState::Read, &traffic);
    let sent = "rtsp_sessions_outbound_bytes{state=\"read\"}";

    let text = scrape(&rtsp(vec![conn(1)], vec![session(1, "cam", SessionState::Read)], retired.clone()), "");
    assert_eq!(value(&text, sent), 156.0);
    assert_eq!(value(&text, "rtsp_conns_inbound_bytes"), 140.0);

    let text = scrape(&rtsp(Vec::new(), Vec::new(), retired), "");
    assert_eq!(value(&text, sent), 50.0);
    assert_eq!(value(&text, "rtsp_conns_inbound_bytes"), 40.0);
    assert_eq!(value(&text, "rtsp_sessions{state=\"read\"}"), 0.0);
    assert_eq!(value(&text, "rtsp_conns"), 0.0);
}

#[test]
fn a_session_that_changes_its_state_takes_nothing_away() {
    let traffic = SessionTraffic::default();
    traffic.outbound_bytes.set(106);
    let mut retired = Retired::default();
    retired.session_changed(SessionState::Read, SessionState::Idle, &traffic);
    // Its numbers are those of the traffic above; it pauses.
    let text = scrape(&rtsp(Vec::new(), vec![session(1, "cam", SessionState::Idle)], retired), "");
    assert_eq!(value(&text, "rtsp_sessions_outbound_bytes{state=\"read\"}"), 106.0);
    assert_eq!(value(&text, "rtsp_sessions_outbound_bytes{state=\"idle\"}"), 0.0);
}

#[test]
fn a_path_that_is_gone_keeps_its_totals() {
    let text = scrape(&small(), "");
    assert_eq!(value(&text, "mediamtx_path_bytes_received{path=\"gone\"}"), 5000.0);
    assert_eq!(value(&text, "mediamtx_path_bytes_sent{path=\"gone\"}"), 10000.0);
    assert_eq!(value(&text, "mediamtx_path_bytes_sent{path=\"idle\"}"), 0.0);
    assert!(!text.contains("name=\"gone\""), "the path itself is no more");
}

/// From what shards measure and tell, to the page.
#[test]
fn pulls_are_summed_over_shards_and_sources_counted_by_state() {
    let file = std::env::temp_dir().join(format!("corecast-metrics-{}.yml", std::process::id()));
    let paths = "paths:\n  a: {source: 'rtsp://h/1'}\n  b: {source: 'rtsp://h/2'}\n  c:\n  \
                 ~^g(.)$: {source: 'rtsp://h/$G1', sourceOnDemand: yes}\n";
    std::fs::write(&file, paths).unwrap();
    let loaded = View::load(Some(&file), [], &[0]).unwrap();
    std::fs::remove_file(&file).unwrap();
    let gauges: Vec<Arc<ShardGauges>> = vec![Arc::default(), Arc::default()];
    let describe = PullPhase::ALL.iter().position(|phase| *phase == PullPhase::Describe).unwrap();
    for (n, shard) in (1..).zip(&gauges) {
        shard.pull_phases[describe].observe_us(n * 1_000_000);
        shard.pull_failures[describe].add(n);
    }
    let office = Office::new(loaded.view, Arc::default(), gauges);
    let told = |path: &str, state| {
        office.directory.apply(0, News::SourceChanged { path: path.into(), state, error: None });
    };
    told("a", SourceState::Running);
    told("g1", SourceState::Connecting);
    told("g2", SourceState::Connecting);
    office.directory.apply(0, News::DemandBegan { path: "g1".into(), query: String::new() });
    office.directory.apply(0, News::DemandBegan { path: "g3".into(), query: String::new() });

    let text = super::super::render(&office, &Filter::parse(""));
    assert_eq!(value(&text, "corecast_pull_phase_seconds_count{phase=\"describe\"}"), 2.0);
    assert_eq!(value(&text, "corecast_pull_phase_seconds_sum{phase=\"describe\"}"), 3.0);
    assert_eq!(value(&text, "corecast_pull_phase_seconds_bucket{phase=\"describe\",le=\"1\"}"), 1.0);
    assert_eq!(value(&text, "corecast_pull_failures_total{phase=\"describe\"}"), 3.0);
    assert_eq!(value(&text, "corecast_pull_failures_total{phase=\"running\"}"), 0.0);
    assert!(!text.contains("corecast_pull_phase_seconds_count{phase=\"running\"}"), "it does not end");
    for (state, count) in [("stopped", 1.0), ("connecting", 2.0), ("running", 1.0)] {
        assert_eq!(value(&text, &format!("corecast_sources{{state=\"{state}\"}}")), count, "{state}");
    }
    assert_eq!(value(&text, "corecast_demands"), 2.0);
    for name in ["a", "b", "c", "g1", "g2", "g3"] {
        assert_eq!(value(&text, &format!("paths{{name=\"{name}\",state=\"notReady\"}}")), 1.0, "{name}");
    }
}
