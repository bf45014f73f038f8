//! Which routes there are, what is wrong with a request, and lists.

use std::{collections::BTreeSet, sync::Arc};

use axum::{
    Router,
    body::Body,
    http::{Method, Request, StatusCode, header},
};
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tower::ServiceExt as _;

use super::{
    super::{Api, OPENAPI, router, routes},
    add, get, id, office, send,
};

#[tokio::test]
async fn ids_are_checked_before_they_are_looked_for() {
    let office = office();
    for list in ["rtspconns", "rtspsessions", "hlssessions", "webrtcsessions"] {
        get(&office, &format!("/v3/{list}/get/x")).await.is_error(400, "invalid UUID length: 1");
        let letters = "z".repeat(36);
        get(&office, &format!("/v3/{list}/get/{letters}")).await.is_error(400, "invalid UUID format");
    }
    send(&office, Method::POST, "/v3/rtspsessions/kick/x", "").await.is_error(400, "invalid UUID length: 1");
}

#[tokio::test]
async fn what_is_off_does_not_exist_and_what_is_not_served_yet_is_empty() {
    let office = office();
    let empty = r#"{"itemCount":0,"pageCount":0,"items":[]}"#;
    for list in ["hlsmuxers", "hlssessions", "webrtcsessions", "recordings"] {
        assert_eq!(get(&office, &format!("/v3/{list}/list")).await.text, empty, "{list}");
    }
    get(&office, "/v3/hlsmuxers/get/cam1").await.is_error(404, "muxer not found");
    for list in ["hlssessions", "webrtcsessions"] {
        let kick = format!("/v3/{list}/kick/{}", id(1));
        send(&office, Method::POST, &kick, "").await.is_error(404, "session not found");
    }
    for list in ["rtspsconns", "rtspssessions", "rtmpconns", "srtconns"] {
        get(&office, &format!("/v3/{list}/list")).await.is_nowhere();
    }
    let body = r#"{"rtspEncryption":"optional","hls":false,"webrtc":false}"#;
    send(&office, Method::PATCH, "/v3/config/global/patch", body).await.is_ok();
    for list in ["hlsmuxers", "hlssessions", "webrtcsessions"] {
        get(&office, &format!("/v3/{list}/list")).await.is_nowhere();
    }
    for list in ["rtspsconns", "rtspssessions"] {
        assert_eq!(get(&office, &format!("/v3/{list}/list")).await.text, empty, "{list}");
    }
}

#[tokio::test]
async fn unknown_routes_and_methods_are_nowhere() {
    let office = office();
    for uri in ["/", "/v3", "/v3/nope", "/v2/paths/list", "/v3//paths/list"] {
        get(&office, uri).await.is_nowhere();
    }
    for method in [Method::POST, Method::PUT, Method::DELETE, Method::OPTIONS] {
        send(&office, method, "/v3/info", "").await.is_nowhere();
    }
    for (asked, meant) in
        [("/v3/paths/list/?page=1", "/v3/paths/list?page=1"), ("/v3/paths/get", "/v3/paths/get/")]
    {
        let request = Request::get(asked).body(Body::empty()).unwrap();
        let answer = router(Arc::clone(&office)).oneshot(request).await.unwrap();
        assert_eq!(answer.status(), StatusCode::MOVED_PERMANENTLY);
        assert_eq!(answer.headers()[header::LOCATION], meant);
    }
}

#[tokio::test]
async fn forwards_and_recordings_answer_as_if_there_were_none() {
    let office = office();
    add(&office, "cam1").await;
    let base = "/v3/paths/forward";
    get(&office, &format!("{base}/list")).await.is_error(400, "invalid path");
    get(&office, &format!("{base}/list?path=nope")).await.is_error(404, "path not found");
    assert_eq!(get(&office, &format!("{base}/list?path=cam1")).await.json()["itemCount"], json!(0));
    get(&office, &format!("{base}/get?path=cam1")).await.is_error(400, "invalid UUID length: 0");
    let by_id = format!("{base}/get?path=cam1&id={}", id(1));
    get(&office, &by_id).await.is_error(404, "forward destination not found");
    let none = get(&office, "/v3/recordings/get/cam1").await;
    assert_eq!(none.text, r#"{"name":"cam1","segments":[]}"#);
    let delete = "/v3/recordings/deletesegment?path=cam1&start=";
    for start in ["", "x", "2020-01-01T00:00:00Z"] {
        let answer = send(&office, Method::DELETE, &format!("{delete}{start}"), "").await;
        assert_eq!(answer.status.as_u16(), 400, "{start}");
    }
}

#[tokio::test]
async fn lists_come_in_pages() {
    let office = office();
    get(&office, "/v3/paths/list").await.json();
    assert_eq!(get(&office, "/v3/paths/list").await.text, r#"{"itemCount":0,"pageCount":0,"items":[]}"#);
    for n in 0..5 {
        add(&office, &format!("cam{n}")).await;
    }
    for list in ["/v3/paths/list", "/v3/config/paths/list"] {
        let names = async |query: &str| -> (Value, Value, Vec<String>) {
            let page = get(&office, &format!("{list}?{query}")).await.json();
            let name = |item: &Value| item["name"].as_str().unwrap().to_owned();
            let names = page["items"].as_array().unwrap().iter().map(name).collect();
            (page["itemCount"].clone(), page["pageCount"].clone(), names)
        };
        let page = |pages: u64, names: &[&str]| {
            (json!(5), json!(pages), names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>())
        };
        assert_eq!(names("itemsPerPage=2&page=1").await, page(3, &["cam2", "cam3"]));
        assert_eq!(names("itemsPerPage=2&page=2").await, page(3, &["cam4"]));
        assert_eq!(names("itemsPerPage=2&page=3").await, page(3, &[]));
        assert_eq!(names("itemsPerPage=2147483647&page=2147483647").await, page(1, &[]));
        assert_eq!(names("itemsPerPage=&page=").await.2.len(), 5);
        let syntax = |text: &str| format!("strconv.ParseUint: parsing \"{text}\": invalid syntax");
        let range = |text: &str| format!("strconv.ParseUint: parsing \"{text}\": value out of range");
        for (query, error) in [
            ("itemsPerPage=0", "invalid items per page".to_owned()),
            ("itemsPerPage=x", syntax("x")),
            ("page=-1", syntax("-1")),
            ("page=99999999999999999999", range("99999999999999999999")),
            ("page=2147483648", range("2147483648")),
        ] {
            get(&office, &format!("{list}?{query}")).await.is_error(400, &error);
        }
    }
}

/// `(method, path)` of each operation in `openapi.yaml`, as it is written there: two spaces, then four.
fn documented() -> BTreeSet<(String, String)> {
    let mut found = BTreeSet::new();
    let mut path = String::new();
    let lines = OPENAPI.lines().skip_while(|line| *line != "paths:").skip(1);
    for line in lines.take_while(|line| line.is_empty() || line.starts_with(' ')) {
        let key = line.trim().trim_end_matches(':');
        match line.len() - line.trim_start().len() {
            2 => key.clone_into(&mut path),
            4 if matches!(key, "get" | "post" | "patch" | "delete" | "put") => {
                found.insert((key.to_uppercase(), path.clone()));
            }
            _ => {}
        }
    }
    found
}

#[tokio::test]
async fn every_route_is_documented_and_nothing_else_is() {
    let office = office();
    let api = Api { office, listeners: Arc::new(Semaphore::new(1)) };
    let mut served = BTreeSet::new();
    for (path, methods) in routes() {
        for method in [Method::GET, Method::POST, Method::PATCH, Method::DELETE, Method::PUT] {
            let request =
                Request::builder().method(&method).uri(path.replace(['{', '}', '*'], "")).body(Body::empty());
            let router = Router::new().route(path, methods.clone()).with_state(api.clone());
            let response = router.oneshot(request.unwrap()).await.unwrap();
            if response.status() != StatusCode::METHOD_NOT_ALLOWED {
                served.insert((method.to_string(), path.replace('*', "")));
            }
        }
    }
    assert_eq!(served, documented());
    let text = get(&api.office, "/openapi.yaml").await;
    assert_eq!(text.content_type, "application/yaml");
    assert!(text.text.starts_with("openapi: 3.0."));
}
