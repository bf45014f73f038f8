//! What clients of MediaMTX rely on, route by route.

mod config;
mod hls;
mod live;
mod routes;

use std::{
    fs,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, SystemTime},
};

use axum::{
    body::Body,
    http::{Method, Request, StatusCode, header},
};
use corecast_hub::{
    registry::ShardId,
    roster::{
        News, Origin, SessionFacts, SessionState, SessionTraffic, StreamTraffic, TrackFacts, Transport,
    },
};
use corecast_media::codec::props::CodecProps;
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use tower::ServiceExt as _;
use uuid::Uuid;

use super::router;
use crate::control::{
    config::store::View,
    directory::{Directory, Event},
    office::Office,
    settings::Action,
};

const SHARD: ShardId = 0;

/// An entry of `authInternalUsers`: a user with the password `secret`, or anybody, from these networks.
pub(in crate::control) fn user(name: Option<&str>, ips: &[&str], actions: &[Action]) -> String {
    let actions: Vec<_> = actions.iter().map(|action| json!({"action": action.as_str()})).collect();
    let (name, password) = name.map_or(("any", ""), |name| (name, "secret"));
    json!({"user": name, "pass": password, "ips": ips, "permissions": actions}).to_string()
}

/// An office with these users and no paths; all else is as MediaMTX has it by default, so HLS and WebRTC are on.
pub(in crate::control) fn office_with(users: &[String]) -> Arc<Office> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let n = NEXT.fetch_add(1, Ordering::Relaxed);
    let file = std::env::temp_dir().join(format!("corecast-api-{}-{n}.yml", std::process::id()));
    fs::write(&file, format!("authInternalUsers: [{}]\n", users.join(", "))).unwrap();
    let loaded = View::load(Some(&file), [], &[0]).unwrap();
    fs::remove_file(&file).unwrap();
    Arc::new(Office::new(loaded.view, Arc::new(Directory::default()), Vec::new()))
}

fn office() -> Arc<Office> {
    office_with(&[user(None, &[], &[Action::Api])])
}

struct Answer {
    status: StatusCode,
    content_type: String,
    text: String,
}

impl Answer {
    fn json(&self) -> Value {
        assert_eq!(self.content_type, "application/json; charset=utf-8", "{}", self.text);
        serde_json::from_str(&self.text).unwrap()
    }

    #[track_caller]
    fn is_error(&self, status: u16, text: &str) {
        assert_eq!((self.status.as_u16(), self.json()), (status, json!({"status": "error", "error": text})));
    }

    #[track_caller]
    fn is_ok(&self) {
        assert_eq!((self.status.as_u16(), self.text.as_str()), (200, r#"{"status":"ok"}"#));
    }

    #[track_caller]
    fn is_nowhere(&self) {
        let found = (self.status.as_u16(), self.content_type.as_str(), self.text.as_str());
        assert_eq!(found, (404, "text/plain", "404 page not found"));
    }
}

async fn send(office: &Arc<Office>, method: Method, uri: &str, body: &str) -> Answer {
    let request = Request::builder().method(method).uri(uri).body(Body::from(body.to_owned())).unwrap();
    let response = router(Arc::clone(office)).oneshot(request).await.unwrap();
    let content_type = response.headers().get(header::CONTENT_TYPE);
    let content_type = content_type.map(|value| value.to_str().unwrap().to_owned()).unwrap_or_default();
    let status = response.status();
    let text = response.into_body().collect().await.unwrap().to_bytes();
    Answer { status, content_type, text: String::from_utf8(text.to_vec()).unwrap() }
}

async fn get(office: &Arc<Office>, uri: &str) -> Answer {
    send(office, Method::GET, uri, "").await
}

async fn add(office: &Arc<Office>, name: &str) {
    send(office, Method::POST, &format!("/v3/config/paths/add/{name}"), "{}").await.is_ok();
}

fn id(n: u128) -> Uuid {
    Uuid::from_u128(0x1111_1111_1111_4111_8111_0000_0000_0000 + n)
}

fn at(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::new(1_700_000_000 + seconds, 5)
}

fn session(directory: &Directory, n: u128, path: &str, state: SessionState) -> Arc<SessionTraffic> {
    session_on(directory, n, path, state, false)
}

fn session_on(
    directory: &Directory,
    n: u128,
    path: &str,
    state: SessionState,
    encrypted: bool,
) -> Arc<SessionTraffic> {
    let traffic = Arc::new(SessionTraffic::default());
    let remote = "192.0.2.7:50000".parse().unwrap();
    let (created, shared) = (at(1), Arc::clone(&traffic));
    let opened = News::SessionOpened { id: id(n), created, remote, encrypted, traffic: shared };
    directory.apply(SHARD, opened);
    let facts = SessionFacts {
        state,
        path: path.into(),
        query: "x=1&y=2".to_owned(),
        user: "adm".to_owned(),
        user_agent: "Lavf".to_owned(),
        transport: Some(Transport::Tcp),
        conn: Some(id(900)),
    };
    directory.apply(SHARD, News::SessionChanged { id: id(n), facts });
    traffic
}

fn stream(directory: &Directory, path: &str, origin: Origin) -> (Arc<StreamTraffic>, Vec<Event>) {
    let traffic = Arc::new(StreamTraffic::default());
    let video = CodecProps::Video { width: 320, height: 240, profile: "Main".into(), level: "1.1".into() };
    let events = directory.apply(
        SHARD,
        News::StreamUp {
            path: path.into(),
            at: at(2),
            origin,
            query: String::new(),
            tracks: vec![
                TrackFacts { codec: "H264", props: video },
                TrackFacts { codec: "MPEG-1/2 Audio", props: CodecProps::None },
            ],
            traffic: Arc::clone(&traffic),
        },
    );
    (traffic, events)
}
