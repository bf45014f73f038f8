//! Sums over sessions and connections: right, and never less than before.

use corecast_hub::roster::{ConnTraffic, SessionTraffic};

use super::*;

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
