//! What is live, in the very text that MediaMTX answers.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{
    body::Body,
    http::{Method, Request, StatusCode, header},
};
use corecast_hub::roster::{ConnTraffic, News, Origin, Refusal, SessionState, SourceState};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};
use tower::ServiceExt as _;

use super::{
    super::{
        events::{self, described},
        router, site,
    },
    SHARD, add, at, get, id, office, send, session, session_on, stream,
};
use crate::control::{
    directory::{Directory, Event},
    http::Server,
    settings::{HttpAddress, HttpSettings},
};

/// Nothing takes this long on a healthy machine.
const PATIENCE: Duration = Duration::from_secs(30);

#[tokio::test]
async fn a_live_path_shows_what_mediamtx_shows_in_its_order() {
    let office = office();
    add(&office, "all_others").await;
    add(&office, "idle").await;
    let (traffic, _) = stream(&office.directory, "live", Origin::RtspSession(id(1)));
    traffic.inbound_bytes.set(7);
    traffic.outbound_bytes.set(8);
    traffic.inbound_frames_in_error.set(9);
    traffic.inbound_rtp_packets_lost.set(10);
    session(&office.directory, 1, "live", SessionState::Publish);
    session(&office.directory, 3, "live", SessionState::Read);
    session(&office.directory, 2, "live", SessionState::Read);
    let time = "2023-11-14T22:13:22.000000005Z";
    let expected = format!(
        r#"{{"name":"live","confName":"all_others","ready":true,"readyTime":"{time}","available":true,"availableTime":"{time}","online":true,"onlineTime":"{time}","source":{{"type":"rtspSession","id":"{}"}},"tracks":["H264","MPEG-1/2 Audio"],"tracks2":[{{"codec":"H264","codecProps":{{"width":320,"height":240,"profile":"Main","level":"1.1"}}}},{{"codec":"MPEG-1/2 Audio","codecProps":null}}],"readers":[{{"type":"rtspSession","id":"{}"}},{{"type":"rtspSession","id":"{}"}}],"inboundBytes":7,"outboundBytes":8,"inboundFramesInError":9,"bytesReceived":7,"bytesSent":8,"inboundRTPPacketsLost":10,"sourceState":null,"sourceError":null}}"#,
        id(1),
        id(2),
        id(3),
    );
    assert_eq!(get(&office, "/v3/paths/get/live").await.text, expected);
    let idle = r#"{"name":"idle","confName":"idle","ready":false,"readyTime":null,"available":false,"availableTime":null,"online":false,"onlineTime":null,"source":null,"tracks":[],"tracks2":[],"readers":[],"inboundBytes":0,"outboundBytes":0,"inboundFramesInError":0,"bytesReceived":0,"bytesSent":0,"inboundRTPPacketsLost":0,"sourceState":null,"sourceError":null}"#;
    assert_eq!(
        get(&office, "/v3/paths/list").await.text,
        format!(r#"{{"itemCount":2,"pageCount":1,"items":[{idle},{expected}]}}"#)
    );
    // A pattern is no path, and what it would serve is none while it is not live.
    get(&office, "/v3/paths/get/all_others").await.is_error(404, "path not found");
    get(&office, "/v3/paths/get/other").await.is_error(404, "path not found");
}

#[tokio::test]
async fn a_source_is_shown_while_it_is_stopped_and_a_pattern_while_it_is_wanted() {
    let office = office();
    let add = async |name: &str, body: &str| {
        send(&office, Method::POST, &format!("/v3/config/paths/add/{name}"), body).await.is_ok();
    };
    add("cam", r#"{"source": "rtsp://u:p@h/1"}"#).await;
    add("moved", r#"{"source": "redirect", "sourceRedirect": "/cam"}"#).await;
    add("pub", "{}").await;
    add("~^g(.+)$", r#"{"source": "rtsp://h/$G1", "sourceOnDemand": true}"#).await;
    let command = "ffmpeg -i rtsp://h/1 -c copy -f rtsp rtsp://localhost:8554/native";
    add("native", &format!(r#"{{"runOnDemand": "{command}"}}"#)).await;
    let names = async || -> Vec<String> {
        let items = get(&office, "/v3/paths/list").await.json()["items"].take();
        items.as_array().unwrap().iter().map(|item| item["name"].as_str().unwrap().to_owned()).collect()
    };
    let shown = async |name: &str| {
        let path = get(&office, &format!("/v3/paths/get/{name}")).await.json();
        assert_eq!((&path["ready"], &path["online"]), (&json!(false), &json!(false)), "as it is");
        [&path["source"]["type"], &path["sourceState"], &path["sourceError"]].map(Clone::clone)
    };
    let null = || json!(null);
    assert_eq!(shown("cam").await, [json!("rtspSource"), json!("stopped"), null()]);
    assert_eq!(shown("moved").await, [json!("redirect"), null(), null()]);
    assert_eq!(shown("pub").await, [null(), null(), null()]);
    assert_eq!(shown("native").await, [null(), json!("stopped"), null()]);
    get(&office, "/v3/paths/get/g1").await.is_error(404, "path not found");
    assert_eq!(names().await, ["cam", "moved", "native", "pub"]);

    let told = |news| office.directory.apply(SHARD, news);
    let source = |path: &str, state, error: Option<&str>| {
        told(News::SourceChanged { path: path.into(), state, error: error.map(str::to_owned) })
    };
    use SourceState::{Connecting, Stopped};
    told(News::DemandBegan { path: "g1".into(), query: "x=1".to_owned() });
    assert_eq!(names().await, ["cam", "g1", "moved", "native", "pub"]);
    assert_eq!(shown("g1").await, [json!("rtspSource"), json!("stopped"), null()]);
    source("g1", Connecting, Some("connection refused"));
    source("native", Connecting, None);
    assert_eq!(shown("g1").await, [json!("rtspSource"), json!("connecting"), json!("connection refused")]);
    assert_eq!(shown("native").await, [json!("rtspSource"), json!("connecting"), null()]);
    told(News::DemandEnded { path: "g1".into(), reason: "timed out".to_owned() });
    assert_eq!(names().await, ["cam", "g1", "moved", "native", "pub"], "it is still being pulled");
    source("g1", Stopped, Some("connection refused"));
    assert_eq!(names().await, ["cam", "moved", "native", "pub"]);
    source("cam", Stopped, Some("401"));
    assert_eq!(shown("cam").await, [json!("rtspSource"), json!("stopped"), json!("401")]);

    stream(&office.directory, "g1", Origin::RtspSource);
    let live = get(&office, "/v3/paths/get/g1").await.json();
    assert_eq!((&live["source"]["type"], &live["confName"]), (&json!("rtspSource"), &json!("~^g(.+)$")));
}

#[tokio::test]
async fn sessions_show_what_mediamtx_shows_in_its_order() {
    let office = office();
    let traffic = session(&office.directory, 1, "live", SessionState::Read);
    traffic.outbound_bytes.set(40833);
    traffic.outbound_rtp_packets.set(14);
    traffic.outbound_rtp_packets_discarded.set(2);
    traffic.inbound_rtp_jitter_milli.set(1500);
    let expected = format!(
        r#"{{"id":"{}","created":"2023-11-14T22:13:21.000000005Z","remoteAddr":"192.0.2.7:50000","state":"read","path":"live","query":"x=1&y=2","user":"adm","userAgent":"Lavf","transport":"TCP","profile":"AVP","conns":["{}"],"inboundBytes":0,"inboundRTPPackets":0,"inboundRTPPacketsLost":0,"inboundRTPPacketsInError":0,"inboundRTPPacketsJitter":1.5,"inboundRTCPPackets":0,"inboundRTCPPacketsInError":0,"outboundBytes":40833,"outboundRTPPackets":14,"outboundRTPPacketsReportedLost":0,"outboundRTPPacketsDiscarded":2,"outboundRTCPPackets":0,"bytesReceived":0,"bytesSent":40833,"rtpPacketsReceived":0,"rtpPacketsSent":14,"rtpPacketsLost":0,"rtpPacketsInError":0,"rtpPacketsJitter":1.5,"rtcpPacketsReceived":0,"rtcpPacketsSent":0,"rtcpPacketsInError":0}}"#,
        id(1),
        id(900),
    );
    assert_eq!(get(&office, &format!("/v3/rtspsessions/get/{}", id(1))).await.text, expected);
    let list = get(&office, "/v3/rtspsessions/list").await.text;
    assert_eq!(list, format!(r#"{{"itemCount":1,"pageCount":1,"items":[{expected}]}}"#));
    send(&office, Method::POST, &format!("/v3/rtspsessions/kick/{}", id(2)), "")
        .await
        .is_error(404, "session not found");
}

#[tokio::test]
async fn connections_show_what_mediamtx_shows_in_its_order() {
    let office = office();
    let traffic = Arc::new(ConnTraffic::default());
    traffic.inbound_bytes.set(661);
    traffic.outbound_bytes.set(42224);
    let remote = "[2001:db8::1]:59962".parse().unwrap();
    office
        .directory
        .apply(SHARD, News::ConnOpened { id: id(900), created: at(0), remote, encrypted: false, traffic });
    let expected = format!(
        r#"{{"id":"{}","created":"2023-11-14T22:13:20.000000005Z","remoteAddr":"[2001:db8::1]:59962","session":null,"tunnel":"none","inboundBytes":661,"outboundBytes":42224,"bytesReceived":661,"bytesSent":42224}}"#,
        id(900),
    );
    assert_eq!(get(&office, &format!("/v3/rtspconns/get/{}", id(900))).await.text, expected);
    assert_eq!(get(&office, "/v3/rtspconns/list").await.json()["itemCount"], json!(1));
    get(&office, &format!("/v3/rtspconns/get/{}", id(1))).await.is_error(404, "connection not found");
}

#[tokio::test]
async fn the_overview_counts_everything() {
    let office = office();
    let info = get(&office, "/v3/info").await.json();
    assert_eq!(info["version"], json!(format!("v{}", env!("CARGO_PKG_VERSION"))));
    assert!(info["started"].as_str().unwrap().parse::<jiff::Timestamp>().is_ok());
    add(&office, "cam1").await;
    add(&office, "all_others").await;
    stream(&office.directory, "live", Origin::Demo);
    session(&office.directory, 1, "live", SessionState::Read);
    let remote = "192.0.2.7:5".parse().unwrap();
    office.directory.apply(SHARD, News::Refused { path: "live".into(), remote, why: Refusal::MaxStreams });
    let summary = get(&office, "/v3/summary").await.json();
    assert_eq!(summary["paths"], json!({"configured": 1, "patterns": 1, "available": 1}));
    assert_eq!(summary["rtspSessions"], json!({"idle": 0, "read": 1, "publish": 0}));
    assert_eq!(summary["refused"]["engine.maxStreams"], json!(1));
    assert_eq!(summary["slowReaders"], json!({"skipped": 0, "closed": 0}));
    send(&office, Method::POST, "/v3/auth/jwks/refresh", "").await.is_ok();
}

#[tokio::test]
async fn events_say_what_happened_and_to_whom() {
    let directory = Directory::default();
    let (_, events) = stream(&directory, "live", Origin::Demo);
    let remote = "192.0.2.7:5".parse().unwrap();
    let (name, data) = described(&events[0]);
    assert_eq!(name, "pathAvailable");
    assert_eq!(data["path"], json!("live"));
    assert_eq!(data["source"], json!({"type": "demoSource", "id": ""}));
    let refused = directory.apply(SHARD, News::Refused { path: "p".into(), remote, why: Refusal::MaxActive });
    let (name, data) = described(&refused[0]);
    assert_eq!(name, "refused");
    assert_eq!(data, json!({"path": "p", "remoteAddr": "192.0.2.7:5", "limit": "maxActive"}));
    let path = || -> Arc<str> { "p".into() };
    let (reason, error) = ("not needed by anyone".to_owned(), Some("refused".to_owned()));
    for (news, name, data) in [
        (
            News::DemandBegan { path: path(), query: "a=b".to_owned() },
            "demandBegan",
            json!({"path": "p", "query": "a=b"}),
        ),
        (
            News::DemandEnded { path: path(), reason },
            "demandEnded",
            json!({"path": "p", "reason": "not needed by anyone"}),
        ),
        (
            News::SourceChanged { path: path(), state: SourceState::Connecting, error },
            "sourceChanged",
            json!({"path": "p", "state": "connecting", "error": "refused"}),
        ),
        (
            News::SourceChanged { path: path(), state: SourceState::Running, error: None },
            "sourceChanged",
            json!({"path": "p", "state": "running", "error": null}),
        ),
    ] {
        let events = directory.apply(SHARD, news);
        assert_eq!(described(&events[0]), (name, data));
    }
    // Its end was told already.
    assert!(directory.apply(SHARD, News::DemandEnded { path: path(), reason: String::new() }).is_empty());
}

#[tokio::test]
async fn only_so_many_may_listen_to_events() {
    let router = router(office());
    let ask = async || {
        let request = Request::get("/v3/events").body(Body::empty()).unwrap();
        router.clone().oneshot(request).await.unwrap()
    };
    let mut listening = Vec::new();
    for _ in 0..events::LISTENERS_MAX {
        let response = ask().await;
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.headers()[header::CONTENT_TYPE], "text/event-stream");
        listening.push(response);
    }
    let refused = ask().await;
    assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(refused.headers().contains_key(header::RETRY_AFTER));
    listening.pop();
    assert_eq!(ask().await.status(), StatusCode::OK, "a place is free when a listener leaves");
}

/// Ten thousand sessions: what a page costs must not grow with them. The bound is far above what it takes; it is for
/// what goes through all of them once per item.
#[tokio::test]
async fn a_page_of_many_is_quick() {
    let office = office();
    for n in 0..10_000 {
        session(&office.directory, n, "live", SessionState::Read);
    }
    let start = Instant::now();
    let page = get(&office, "/v3/rtspsessions/list?page=50").await;
    assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
    assert_eq!(page.json()["items"].as_array().unwrap().len(), 100);
    let all = get(&office, "/v3/rtspsessions/list?itemsPerPage=10000").await.json();
    assert_eq!(all["items"].as_array().unwrap().len(), 10_000);
}

#[tokio::test]
async fn a_listener_is_told_over_the_wire_and_let_go_when_the_server_stops() {
    let office = office();
    let settings = HttpSettings {
        address: HttpAddress::Tcp("127.0.0.1:0".parse().unwrap()),
        tls: None,
        allow_origins: Vec::new(),
        trusted_proxies: Vec::new(),
    };
    let site = site(settings, &office.view().control);
    let server = Server::start(site, router(Arc::clone(&office)), Arc::clone(&office)).unwrap();
    let mut stream = TcpStream::connect(server.address().unwrap()).await.unwrap();
    stream.write_all(b"GET /v3/events HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let mut seen = String::new();
    let read = async |stream: &mut TcpStream, seen: &mut String| {
        let mut some = [0; 1024];
        let n = timeout(PATIENCE, stream.read(&mut some)).await.unwrap().unwrap();
        seen.push_str(std::str::from_utf8(&some[..n]).unwrap());
        n
    };
    while !seen.contains("\r\n\r\n") {
        read(&mut stream, &mut seen).await;
    }
    let remote = "192.0.2.7:5".parse().unwrap();
    let refused = Event::Refused { path: "p".into(), remote, why: Refusal::MaxReaders };
    office.announce(&refused);
    while !seen.contains("\n\n") {
        read(&mut stream, &mut seen).await;
    }
    let event =
        "event: refused\ndata: {\"path\":\"p\",\"remoteAddr\":\"192.0.2.7:5\",\"limit\":\"maxReaders\"}\n\n";
    assert!(seen.contains(event), "{seen}");
    // More than are kept, at once: the client is told that it was not told.
    for _ in 0..5000 {
        office.announce(&refused);
    }
    while !seen.contains("event: missed\ndata: {\"count\":") {
        assert!(read(&mut stream, &mut seen).await > 0, "closed");
    }
    let stopping = tokio::spawn(server.stop());
    while read(&mut stream, &mut seen).await > 0 {}
    assert!(seen.ends_with("0\r\n\r\n"), "the stream is ended, not cut");
    stopping.await.unwrap();
}

#[tokio::test]
async fn what_came_over_tls_is_in_lists_of_its_own() {
    let office = office();
    let body = r#"{"rtspEncryption":"optional"}"#;
    send(&office, Method::PATCH, "/v3/config/global/patch", body).await.is_ok();
    stream(&office.directory, "live", Origin::RtspsSession(id(1)));
    session_on(&office.directory, 1, "live", SessionState::Publish, true);
    session_on(&office.directory, 2, "live", SessionState::Read, true);
    session(&office.directory, 3, "live", SessionState::Read);
    for (n, encrypted) in [(900, true), (901, false)] {
        let (created, remote, traffic) = (at(0), "192.0.2.7:50000".parse().unwrap(), Arc::default());
        let opened = News::ConnOpened { id: id(n), created, remote, encrypted, traffic };
        office.directory.apply(SHARD, opened);
    }
    for (server, conn, other_conn, session, other_session, sessions) in
        [("rtsps", 900, 901, 2, 3, 2), ("rtsp", 901, 900, 3, 2, 1)]
    {
        let conns = get(&office, &format!("/v3/{server}conns/list")).await.json();
        assert_eq!(
            (&conns["itemCount"], &conns["items"][0]["id"]),
            (&json!(1), &json!(id(conn))),
            "{server}"
        );
        assert_eq!(
            get(&office, &format!("/v3/{server}conns/get/{}", id(conn))).await.json()["id"],
            json!(id(conn))
        );
        get(&office, &format!("/v3/{server}conns/get/{}", id(other_conn)))
            .await
            .is_error(404, "connection not found");
        let list = get(&office, &format!("/v3/{server}sessions/list")).await.json();
        assert_eq!(list["itemCount"], json!(sessions), "{server}");
        let found = get(&office, &format!("/v3/{server}sessions/get/{}", id(session))).await.json();
        assert_eq!(found["id"], json!(id(session)));
        let other = format!("/v3/{server}sessions/get/{}", id(other_session));
        get(&office, &other).await.is_error(404, "session not found");
        let kick = format!("/v3/{server}sessions/kick/{}", id(other_session));
        send(&office, Method::POST, &kick, "").await.is_error(404, "session not found");
    }
    let path = get(&office, "/v3/paths/get/live").await.json();
    assert_eq!(path["source"], json!({"type": "rtspsSession", "id": id(1)}));
    let types: Vec<_> = path["readers"].as_array().unwrap().iter().map(|reader| &reader["type"]).collect();
    assert_eq!(types, ["rtspSession", "rtspsSession"], "in the order of their types");
    let body = r#"{"rtspEncryption":"strict"}"#;
    send(&office, Method::PATCH, "/v3/config/global/patch", body).await.is_ok();
    get(&office, "/v3/rtspconns/list").await.is_nowhere();
    get(&office, "/v3/rtspssessions/list").await.json();
}
