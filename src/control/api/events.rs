//! `GET /v3/events`: what happens, as server-sent events, so that a backend need not poll.

use std::{convert::Infallible, sync::Arc, time::Duration};

use axum::{
    Extension,
    extract::State,
    response::{
        IntoResponse as _, Response,
        sse::{Event as Sent, KeepAlive, Sse},
    },
};
use serde_json::{Value, json};
use tokio_stream::{
    StreamExt as _,
    wrappers::{BroadcastStream, WatchStream, errors::BroadcastStreamRecvError},
};

use super::{
    Api,
    overview::{refusal, slowness},
    paths::Party,
    rfc3339,
};
use crate::control::{
    directory::{Conn, Event, HlsMuxer, Reader, Stream},
    http::{Stopping, answer::Failure},
};

/// Who may listen at a time.
pub(super) const LISTENERS_MAX: usize = 64;
/// A comment goes out when nothing else did, so that neither side takes the other for gone.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

pub(super) async fn events(
    State(api): State<Api>,
    stopping: Option<Extension<Stopping>>,
) -> Result<Response, Failure> {
    let seat = Arc::clone(&api.listeners).try_acquire_owned().map_err(|_| {
        Failure::busy(format!("{LISTENERS_MAX} clients listen to events already: no more are taken"))
    })?;
    // From here on nothing is missed, though the client has read nothing yet.
    let happened = BroadcastStream::new(api.office.events()).map(move |event| {
        let _seat = &seat;
        Some(match event {
            Ok(event) => sent(&event),
            Err(BroadcastStreamRecvError::Lagged(count)) => named("missed", &json!({"count": count})),
        })
    });
    let keep_alive = KeepAlive::new().interval(KEEP_ALIVE);
    let Some(Extension(Stopping(stopping))) = stopping else {
        let stream = happened.filter_map(|event| event).map(Ok::<_, Infallible>);
        return Ok(Sse::new(stream).keep_alive(keep_alive).into_response());
    };
    // `None` ends the stream when the server stops.
    let stop = WatchStream::new(stopping).filter(|stop| *stop).map(|_| None);
    let stream = happened.merge(stop).map_while(|event| event).map(Ok::<_, Infallible>);
    Ok(Sse::new(stream).keep_alive(keep_alive).into_response())
}

fn named(name: &str, data: &Value) -> Sent {
    Sent::default().event(name).data(data.to_string())
}

fn sent(event: &Event) -> Sent {
    let (name, data) = described(event);
    named(name, &data)
}

/// An event's name and what is said of it.
pub(super) fn described(event: &Event) -> (&'static str, Value) {
    match event {
        Event::ConnOpened(conn) => ("connOpened", conn_data(conn)),
        Event::ConnClosed { conn, reason } => ("connClosed", with_reason(conn_data(conn), reason)),
        Event::Available(stream) => ("pathAvailable", stream_data(stream)),
        Event::Unavailable { stream, reason } => {
            ("pathUnavailable", with_reason(stream_data(stream), reason))
        }
        Event::ReaderJoined(reader) => ("readerJoined", reader_data(reader)),
        Event::ReaderLeft { reader, reason } => ("readerLeft", with_reason(reader_data(reader), reason)),
        Event::DemandBegan(demand) => ("demandBegan", json!({ "path": demand.path, "query": demand.query })),
        Event::DemandEnded { demand, reason } => {
            ("demandEnded", json!({ "path": demand.path, "reason": reason }))
        }
        Event::SourceChanged { path, state, error } => {
            ("sourceChanged", json!({ "path": path, "state": state.as_str(), "error": error }))
        }
        Event::HlsMuxerCreated(muxer) => ("hlsMuxerCreated", muxer_data(muxer)),
        Event::HlsMuxerDestroyed { muxer, reason } => {
            ("hlsMuxerDestroyed", with_reason(muxer_data(muxer), reason))
        }
        Event::SlowReader { session, kind, path, what, behind_ms, packets } => (
            "slowReader",
            json!({
                "path": &**path,
                "reader": Party::session(*kind, *session),
                "what": slowness(*what),
                "behindMs": behind_ms,
                "packets": packets,
            }),
        ),
        Event::Refused { path, remote, why } => {
            ("refused", json!({"path": &**path, "remoteAddr": remote.to_string(), "limit": refusal(*why)}))
        }
    }
}

fn conn_data(conn: &Conn) -> Value {
    json!({"id": conn.id, "created": rfc3339(conn.created), "remoteAddr": conn.remote.to_string()})
}

fn stream_data(stream: &Stream) -> Value {
    let tracks: Vec<_> = stream.tracks.iter().map(|track| track.codec).collect();
    json!({
        "path": &*stream.path,
        "source": Party::from(&stream.origin),
        "availableTime": rfc3339(stream.since),
        "tracks": tracks,
    })
}

fn reader_data(reader: &Reader) -> Value {
    json!({
        "path": &**reader.path(),
        "reader": Party::from(reader),
        "remoteAddr": reader.remote().to_string(),
        "user": reader.user(),
        "userAgent": reader.user_agent(),
    })
}

/// `remoteAddr` is of whoever asked for the stream first; `null` when it is always packaged.
fn muxer_data(muxer: &HlsMuxer) -> Value {
    json!({
        "path": &*muxer.path,
        "created": rfc3339(muxer.created),
        "remoteAddr": muxer.by.map(|by| by.to_string()),
    })
}

fn with_reason(mut data: Value, reason: &str) -> Value {
    if let Some(object) = data.as_object_mut() {
        object.insert("reason".to_owned(), reason.into());
    }
    data
}
