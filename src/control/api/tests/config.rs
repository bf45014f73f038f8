//! The configuration, read and changed.

use axum::http::Method;
use serde_json::json;

use super::{add, get, office, send};

#[tokio::test]
async fn a_path_lives_from_add_to_remove() {
    let office = office();
    let base = "/v3/config/paths";
    add(&office, "cam1").await;
    send(&office, Method::POST, &format!("{base}/add/cam1"), "{}").await.is_error(400, "path already exists");
    let body = r#"{"maxReaders":3,"name":"ignored"}"#;
    send(&office, Method::PATCH, &format!("{base}/patch/cam1"), body).await.is_ok();
    let found = get(&office, &format!("{base}/get/cam1")).await.json();
    assert_eq!((&found["name"], &found["maxReaders"]), (&json!("cam1"), &json!(3)));
    send(&office, Method::POST, &format!("{base}/replace/cam1"), "{}").await.is_ok();
    assert_eq!(get(&office, &format!("{base}/get/cam1")).await.json()["maxReaders"], json!(0));
    send(&office, Method::POST, &format!("{base}/replace/cam2"), "{}").await.is_ok();
    send(&office, Method::DELETE, &format!("{base}/delete/cam1"), "").await.is_ok();
    send(&office, Method::POST, &format!("{base}/remove/cam2"), "").await.is_ok();
    get(&office, &format!("{base}/get/cam1")).await.is_error(404, "path configuration not found");
    for (method, verb) in [(Method::DELETE, "delete"), (Method::POST, "remove"), (Method::PATCH, "patch")] {
        send(&office, method, &format!("{base}/{verb}/cam1"), "{}").await.is_error(404, "path not found");
    }
}

#[tokio::test]
async fn names_hold_slashes_and_are_decoded_once() {
    let office = office();
    add(&office, "a/b").await;
    for uri in ["/v3/paths/get/a/b", "/v3/paths/get/a%2Fb"] {
        assert_eq!(get(&office, uri).await.json()["name"], json!("a/b"), "{uri}");
    }
    get(&office, "/v3/paths/get/a%252Fb").await.is_error(404, "path not found");
    get(&office, "/v3/paths/get/%ff").await.is_error(400, "invalid name");
    get(&office, "/v3/paths/get/").await.is_error(400, "invalid name");
    get(&office, "/v3/hlsmuxers/get/").await.is_error(400, "invalid name");
    send(&office, Method::POST, "/v3/config/paths/add/", "{}").await.is_error(400, "invalid name");
}

#[tokio::test]
async fn bodies_are_objects_and_nothing_changes_when_they_are_not() {
    let office = office();
    let uri = "/v3/config/paths/add/x";
    for (body, expected) in [
        ("", "unexpected end of JSON input"),
        (" \n", "unexpected end of JSON input"),
        ("[]", "the body is a list: expected an object"),
        ("\"s\"", "the body is a string: expected an object"),
        ("{", "the body is no JSON: EOF while parsing"),
        ("{} trailing", "the body is no JSON: trailing characters"),
        ("{\"nope\":1}", "nope"),
    ] {
        let answer = send(&office, Method::POST, uri, body).await;
        assert_eq!(answer.status.as_u16(), 400, "{body}");
        assert!(answer.json()["error"].as_str().unwrap().contains(expected), "{body}: {}", answer.text);
    }
    let deep = "[".repeat(100_000);
    assert_eq!(send(&office, Method::POST, uri, &deep).await.status.as_u16(), 400);
    assert!(office.view().paths.is_empty());
    send(&office, Method::POST, uri, "null").await.is_ok();
}

#[tokio::test]
async fn settings_are_read_and_patched() {
    let office = office();
    send(&office, Method::PATCH, "/v3/config/global/patch", r#"{"logLevel":"debug"}"#).await.is_ok();
    for uri in ["/v3/config/global/get", "/v3/config/get"] {
        assert_eq!(get(&office, uri).await.json()["logLevel"], json!("debug"), "{uri}");
    }
    send(&office, Method::PATCH, "/v3/config/pathdefaults/patch", r#"{"maxReaders":7}"#).await.is_ok();
    assert_eq!(get(&office, "/v3/config/pathdefaults/get").await.json()["maxReaders"], json!(7));
    add(&office, "cam1").await;
    let list = get(&office, "/v3/config/paths/list").await.json();
    assert_eq!(list["items"][0]["maxReaders"], json!(7));
}

#[tokio::test]
async fn a_batch_is_done_as_a_whole_or_not_at_all() {
    let office = office();
    let uri = "/v3/config/paths/batch";
    let body = r#"{"add":[{"name":"a"},{"name":"b","maxReaders":2}],"replace":[{"name":"c"}],
                   "patch":[{"name":"a","maxReaders":9}]}"#;
    send(&office, Method::POST, uri, body).await.is_ok();
    assert_eq!(get(&office, "/v3/config/paths/get/a").await.json()["maxReaders"], json!(9));
    // What is removed first may be added again.
    send(&office, Method::POST, uri, r#"{"remove":["a"],"add":[{"name":"a"}]}"#).await.is_ok();
    let before = get(&office, "/v3/config/paths/list").await.text;
    for (body, status, text) in [
        (r#"{"add":[{"name":"d"},{"name":"b"}]}"#, 400, "path already exists: 'b'"),
        (r#"{"add":[{"name":"d"}],"remove":["nope"]}"#, 404, "path not found: 'nope'"),
        (r#"{"remove":["a"],"patch":[{"name":"a"}]}"#, 404, "path not found: 'a'"),
        (r#"{"add":[{"name":"d"},{"name":"d"}]}"#, 400, "'add' names path 'd' twice"),
        (r#"{"add":[{"name":"d"},{"nope":1}]}"#, 400, "'add', entry 1: a path needs a 'name'"),
        (r#"{"add":[{"name":5}]}"#, 400, "'add', entry 0: 'name' is a number: expected a string"),
        (r#"{"add":{}}"#, 400, "'add' is an object: expected a list"),
        (r#"{"remove":[1]}"#, 400, "'remove', entry 0: a number: expected the name of a path"),
    ] {
        send(&office, Method::POST, uri, body).await.is_error(status, text);
    }
    for body in [r#"{"add":[{"name":"d"},{"name":"e","nope":1}]}"#, r#"{"adds":[]}"#] {
        assert_eq!(send(&office, Method::POST, uri, body).await.status.as_u16(), 400, "{body}");
    }
    assert_eq!(get(&office, "/v3/config/paths/list").await.text, before);
    send(&office, Method::POST, uri, "{}").await.is_ok();
}
