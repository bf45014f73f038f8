//! HLS muxers and viewers, in the very text that MediaMTX answers.

use std::sync::Arc;

use axum::http::Method;
use corecast_hub::roster::{HlsMuxerTraffic, HlsSessionTraffic, News, Origin, SessionState};
use serde_json::json;

use super::{super::events::described, SHARD, add, at, get, id, office, send, session, stream};
use crate::control::directory::{Directory, Event};

fn muxer(directory: &Directory, path: &str, created: u64) -> (Arc<HlsMuxerTraffic>, Vec<Event>) {
    let traffic = Arc::new(HlsMuxerTraffic::default());
    let by = Some("192.0.2.7:50000".parse().unwrap());
    let (path, created, shared) = (path.into(), at(created), Arc::clone(&traffic));
    let opened = News::HlsMuxerOpened { path, created, by, traffic: shared };
    let events = directory.apply(SHARD, opened);
    (traffic, events)
}

fn viewer(directory: &Directory, n: u128, path: &str, created: u64) -> (Arc<HlsSessionTraffic>, Vec<Event>) {
    let traffic = Arc::new(HlsSessionTraffic::default());
    let opened = News::HlsSessionOpened {
        id: id(n),
        created: at(created),
        remote: "[2001:db8::1]:50000".parse().unwrap(),
        path: path.into(),
        query: "x=1&y=2".to_owned(),
        user: "adm".to_owned(),
        user_agent: "Safari".to_owned(),
        is_cdn: n == 9,
        traffic: Arc::clone(&traffic),
    };
    let events = directory.apply(SHARD, opened);
    (traffic, events)
}

#[tokio::test]
async fn muxers_show_what_mediamtx_shows_in_its_order() {
    let office = office();
    let (traffic, _) = muxer(&office.directory, "site/cam1", 1);
    traffic.outbound_bytes.set(1234);
    traffic.outbound_frames_discarded.set(5);
    traffic.last_request_unix_ms.set(1_700_000_061_250);
    let item = |path: &str, created: &str, asked: &str, bytes: u64, frames: u64| {
        format!(
            r#"{{"path":"{path}","created":"{created}","lastRequest":"{asked}","outboundBytes":{bytes},"outboundFramesDiscarded":{frames},"bytesSent":{bytes}}}"#
        )
    };
    let first = item("site/cam1", "2023-11-14T22:13:21.000000005Z", "2023-11-14T22:14:21.25Z", 1234, 5);
    assert_eq!(get(&office, "/v3/hlsmuxers/get/site/cam1").await.text, first);
    assert_eq!(get(&office, "/v3/hlsmuxers/get/site%2Fcam1").await.text, first);
    // One that nobody has asked for yet.
    muxer(&office.directory, "always", 0);
    let time = "2023-11-14T22:13:20.000000005Z";
    let always = item("always", time, time, 0, 0);
    assert_eq!(
        get(&office, "/v3/hlsmuxers/list").await.text,
        format!(r#"{{"itemCount":2,"pageCount":1,"items":[{always},{first}]}}"#)
    );
    let page = get(&office, "/v3/hlsmuxers/list?itemsPerPage=1&page=1").await.json();
    assert_eq!((&page["pageCount"], &page["items"][0]["path"]), (&json!(2), &json!("site/cam1")));
    get(&office, "/v3/hlsmuxers/get/cam1").await.is_error(404, "muxer not found");
    get(&office, "/v3/hlsmuxers/get/").await.is_error(400, "invalid name");
    let closed = News::HlsMuxerClosed { path: "always".into(), reason: String::new() };
    office.directory.apply(SHARD, closed);
    get(&office, "/v3/hlsmuxers/get/always").await.is_error(404, "muxer not found");
}

#[tokio::test]
async fn viewers_show_what_mediamtx_shows_in_its_order() {
    let office = office();
    let (traffic, _) = viewer(&office.directory, 1, "site/cam1", 2);
    traffic.outbound_bytes.set(40833);
    let item = |n: u128, path: &str, second: u64, is_cdn: bool, bytes: u64| {
        format!(
            r#"{{"id":"{}","created":"2023-11-14T22:13:2{second}.000000005Z","remoteAddr":"[2001:db8::1]:50000","path":"{path}","query":"x=1&y=2","user":"adm","userAgent":"Safari","isCDN":{is_cdn},"outboundBytes":{bytes}}}"#,
            id(n),
        )
    };
    let first = item(1, "site/cam1", 2, false, 40833);
    assert_eq!(get(&office, &format!("/v3/hlssessions/get/{}", id(1))).await.text, first);
    viewer(&office.directory, 9, "lobby", 1);
    let cdn = item(9, "lobby", 1, true, 0);
    let list = get(&office, "/v3/hlssessions/list").await.text;
    assert_eq!(list, format!(r#"{{"itemCount":2,"pageCount":1,"items":[{cdn},{first}]}}"#));
    // RTSP sessions are others.
    session(&office.directory, 2, "lobby", SessionState::Read);
    let (rtsp, hls) = (id(2), id(1));
    get(&office, &format!("/v3/hlssessions/get/{rtsp}")).await.is_error(404, "session not found");
    get(&office, &format!("/v3/rtspsessions/get/{hls}")).await.is_error(404, "session not found");
    for (list, other) in [("hlssessions", rtsp), ("rtspsessions", hls)] {
        let kick = format!("/v3/{list}/kick/{other}");
        send(&office, Method::POST, &kick, "").await.is_error(404, "session not found");
    }
    send(&office, Method::POST, "/v3/hlssessions/kick/x", "").await.is_error(400, "invalid UUID length: 1");
}

#[tokio::test]
async fn viewers_are_readers_of_their_path_and_counted() {
    let office = office();
    add(&office, "live").await;
    stream(&office.directory, "live", Origin::Demo);
    session(&office.directory, 1, "live", SessionState::Read);
    viewer(&office.directory, 3, "live", 1);
    viewer(&office.directory, 2, "live", 1);
    muxer(&office.directory, "live", 1);
    let path = get(&office, "/v3/paths/get/live").await.json();
    let reader = |kind: &str, n: u128| json!({"type": kind, "id": id(n)});
    let readers = json!([reader("hlsSession", 2), reader("hlsSession", 3), reader("rtspSession", 1)]);
    assert_eq!(path["readers"], readers, "the muxer is none");
    let summary = get(&office, "/v3/summary").await.json();
    assert_eq!((&summary["hlsMuxers"], &summary["hlsSessions"]), (&json!(1), &json!(2)));
    assert_eq!(summary["rtspSessions"]["read"], json!(1));
}

#[tokio::test]
async fn what_is_about_hls_does_not_exist_when_it_is_off() {
    let office = office();
    send(&office, Method::PATCH, "/v3/config/global/patch", r#"{"hls":false}"#).await.is_ok();
    for list in ["hlsmuxers", "hlssessions"] {
        get(&office, &format!("/v3/{list}/list")).await.is_nowhere();
    }
    get(&office, "/v3/hlsmuxers/get/cam").await.is_nowhere();
    get(&office, &format!("/v3/hlssessions/get/{}", id(1))).await.is_nowhere();
    send(&office, Method::POST, &format!("/v3/hlssessions/kick/{}", id(1)), "").await.is_nowhere();
}

#[tokio::test]
async fn events_tell_of_muxers_and_viewers() {
    let directory = Directory::default();
    let (_, events) = muxer(&directory, "cam", 1);
    let created = "2023-11-14T22:13:21.000000005Z";
    let data = json!({"path": "cam", "created": created, "remoteAddr": "192.0.2.7:50000"});
    assert_eq!(described(&events[0]), ("hlsMuxerCreated", data));
    let (_, events) = viewer(&directory, 1, "cam", 1);
    let mut data = json!({
        "path": "cam",
        "reader": {"type": "hlsSession", "id": id(1)},
        "remoteAddr": "[2001:db8::1]:50000",
        "user": "adm",
        "userAgent": "Safari",
    });
    assert_eq!(described(&events[0]), ("readerJoined", data.clone()));
    let events = directory.apply(SHARD, News::HlsSessionClosed { id: id(1), reason: "kicked".to_owned() });
    data["reason"] = json!("kicked");
    assert_eq!(described(&events[0]), ("readerLeft", data));
    let reason = "not used anymore".to_owned();
    let events = directory.apply(SHARD, News::HlsMuxerClosed { path: "cam".into(), reason });
    let (name, data) = described(&events[0]);
    assert_eq!((name, &data["reason"]), ("hlsMuxerDestroyed", &json!("not used anymore")));
    let (path, traffic) = ("cam".into(), Arc::default());
    let opened = News::HlsMuxerOpened { path, created: at(1), by: None, traffic };
    assert_eq!(described(&directory.apply(SHARD, opened)[0]).1["remoteAddr"], json!(null));
}
