//! What is live, by path (contract §2.3), and where it is forwarded to.

use std::{collections::BTreeSet, sync::Arc};

use axum::{extract::FromRequestParts, extract::State, http::request::Parts, response::Response};
use corecast_hub::{
    roster::{Origin, SourceState},
    settings::{PathSettings, Source, check_name},
};
use corecast_media::codec::props::CodecProps;
use serde::Serialize;
use serde_json::{Value, json};
use uuid::Uuid;

use super::{
    Api, Name,
    paging::{Paging, query, value},
    parse_id, rfc3339,
};
use crate::control::{
    config::store::View,
    directory::{Directory, Reader, ReaderKind},
    http::answer::{Failure, json as answer},
};

/// A path as the API shows it. Fields with newer names stand beside the older ones, which clients still read.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct LivePath {
    name: Arc<str>,
    conf_name: Arc<str>,
    ready: bool,
    ready_time: Option<String>,
    available: bool,
    available_time: Option<String>,
    online: bool,
    online_time: Option<String>,
    source: Option<Party>,
    tracks: Vec<&'static str>,
    tracks2: Vec<Track>,
    readers: Vec<Party>,
    inbound_bytes: u64,
    outbound_bytes: u64,
    inbound_frames_in_error: u64,
    bytes_received: u64,
    bytes_sent: u64,
    /// Of the publisher or the source. Ours: MediaMTX has it for sessions only.
    #[serde(rename = "inboundRTPPacketsLost")]
    inbound_rtp_packets_lost: u64,
    /// What is done to pull it; `None` where nothing is to be pulled. Ours.
    source_state: Option<&'static str>,
    /// Why that last failed, until it succeeds. Ours.
    source_error: Option<Arc<str>>,
}

/// Who brings a stream in, or takes it out.
#[derive(Serialize)]
pub(super) struct Party {
    #[serde(rename = "type")]
    kind: &'static str,
    /// Empty for what is no session.
    id: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Track {
    codec: &'static str,
    codec_props: Value,
}

pub(super) async fn list(State(api): State<Api>, paging: Paging) -> Response {
    let view = api.office.view();
    let directory = Arc::clone(&api.office.directory);
    let mut names: BTreeSet<Arc<str>> = view.paths.keys().filter(|key| is_one_path(key)).cloned().collect();
    names.extend(directory.present());
    let names: Vec<_> = names.into_iter().collect();
    paging.page(names, move |name| live_path(&view, &directory, &name)).await
}

pub(super) async fn get(State(api): State<Api>, Name(name): Name) -> Result<Response, Failure> {
    let view = api.office.view();
    if !exists(&view, &api.office.directory, &name) {
        return Err(Failure::not_found("path not found"));
    }
    Ok(answer(&live_path(&view, &api.office.directory, &name)))
}

/// Configured by its own name; or live, wanted or pulled by a pattern.
fn exists(view: &View, directory: &Directory, name: &str) -> bool {
    (is_one_path(name) && view.paths.contains_key(name)) || directory.is_present(name)
}

/// Whether a key of the configuration names one path, which is there even when nothing is live.
pub(super) fn is_one_path(key: &str) -> bool {
    !matches!(key, "all" | "all_others") && check_name(key).is_ok()
}

fn live_path(view: &View, directory: &Directory, name: &str) -> LivePath {
    let stream = directory.stream(name);
    let since = stream.as_ref().map(|stream| rfc3339(stream.since));
    // Of a stream whose entry has just been removed, nothing is known.
    let conf = view.paths.get(name).or_else(|| view.serving(name).map(|(path, _)| path));
    let settings = conf.map(|conf| &*conf.settings);
    let pulled = directory.source(name);
    let is_pulled = pulled.is_some() || settings.is_some_and(PathSettings::is_pulled);
    let state = pulled.as_ref().map_or(SourceState::Stopped, |pulled| pulled.state);
    let mut readers: Vec<Party> = directory.readers(name).iter().map(Party::from).collect();
    readers.sort_by(|a, b| (a.kind, &a.id).cmp(&(b.kind, &b.id)));
    let tracks = stream.as_ref().map(|stream| stream.tracks.as_slice()).unwrap_or_default();
    let traffic = stream.as_ref().map(|stream| &stream.traffic);
    let inbound_bytes = traffic.map_or(0, |traffic| traffic.inbound_bytes.get());
    let outbound_bytes = traffic.map_or(0, |traffic| traffic.outbound_bytes.get());
    LivePath {
        name: name.into(),
        conf_name: settings.map(|settings| Arc::clone(&settings.conf_name)).unwrap_or_default(),
        ready: stream.is_some(),
        ready_time: since.clone(),
        available: stream.is_some(),
        available_time: since.clone(),
        online: stream.is_some(),
        online_time: since,
        source: match &stream {
            Some(stream) => Some(Party::from(&stream.origin)),
            None => Party::at_rest(settings, state),
        },
        tracks: tracks.iter().map(|track| track.codec).collect(),
        tracks2: tracks
            .iter()
            .map(|track| Track { codec: track.codec, codec_props: codec_props(&track.props) })
            .collect(),
        readers,
        inbound_bytes,
        outbound_bytes,
        inbound_frames_in_error: traffic.map_or(0, |traffic| traffic.inbound_frames_in_error.get()),
        bytes_received: inbound_bytes,
        bytes_sent: outbound_bytes,
        inbound_rtp_packets_lost: traffic.map_or(0, |traffic| traffic.inbound_rtp_packets_lost.get()),
        source_state: is_pulled.then(|| state.as_str()),
        source_error: pulled.and_then(|pulled| pulled.error),
    }
}

impl Party {
    /// Who would bring in a stream that is not there: MediaMTX shows sources and redirects even then. Unlike MediaMTX, we
    /// do not call such a path online.
    fn at_rest(settings: Option<&PathSettings>, state: SourceState) -> Option<Self> {
        let kind = match settings.map(|settings| &settings.source) {
            Some(Source::Rtsp(_)) => "rtspSource",
            Some(Source::Redirect(_)) => "redirect",
            // A pull in place of a command is a source while it lasts.
            _ if state != SourceState::Stopped => "rtspSource",
            _ => return None,
        };
        Some(Self { kind, id: String::new() })
    }

    pub(super) fn session(kind: ReaderKind, id: Uuid) -> Self {
        Self { kind: kind.as_str(), id: id.to_string() }
    }
}

impl From<&Reader> for Party {
    fn from(reader: &Reader) -> Self {
        Self::session(reader.kind(), reader.id())
    }
}

impl From<&Origin> for Party {
    fn from(origin: &Origin) -> Self {
        match origin {
            Origin::RtspSession(id) => Self::session(ReaderKind::Rtsp, *id),
            Origin::RtspsSession(id) => Self::session(ReaderKind::Rtsps, *id),
            Origin::RtspSource => Self { kind: "rtspSource", id: String::new() },
            Origin::Demo => Self { kind: "demoSource", id: String::new() },
        }
    }
}

fn codec_props(props: &CodecProps) -> Value {
    match props {
        CodecProps::None => Value::Null,
        CodecProps::Video { width, height, profile, level } => {
            json!({"width": width, "height": height, "profile": profile, "level": level})
        }
        CodecProps::Av1 { width, height, profile, level, tier } => {
            json!({"width": width, "height": height, "profile": profile, "level": level, "tier": tier})
        }
        CodecProps::Vp9 { profile } => json!({"profile": profile}),
        CodecProps::Opus { channel_count } => json!({"channelCount": channel_count}),
        CodecProps::Sampled { sample_rate, channel_count } => {
            json!({"sampleRate": sample_rate, "channelCount": channel_count})
        }
        CodecProps::G711 { mu_law, sample_rate, channel_count } => {
            json!({"muLaw": mu_law, "sampleRate": sample_rate, "channelCount": channel_count})
        }
        CodecProps::Lpcm { bit_depth, sample_rate, channel_count } => {
            json!({"bitDepth": bit_depth, "sampleRate": sample_rate, "channelCount": channel_count})
        }
    }
}

/// The query of the forward endpoints.
pub(super) struct Forwarded {
    path: String,
    id: Option<String>,
}

impl<S: Send + Sync> FromRequestParts<S> for Forwarded {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Failure> {
        let query = query(parts, state).await?;
        let path = value(&query, "path").ok_or_else(|| Failure::bad_request("invalid path"))?.to_owned();
        Ok(Self { path, id: value(&query, "id").map(str::to_owned) })
    }
}

/// No path is forwarded by this version: each has an empty list.
pub(super) async fn forward_list(
    State(api): State<Api>,
    forwarded: Forwarded,
    paging: Paging,
) -> Result<Response, Failure> {
    if !exists(&api.office.view(), &api.office.directory, &forwarded.path) {
        return Err(Failure::not_found("path not found"));
    }
    Ok(paging.page(Vec::<()>::new(), |()| ()).await)
}

pub(super) async fn forward_get(State(api): State<Api>, forwarded: Forwarded) -> Failure {
    if let Err(failure) = parse_id(forwarded.id.as_deref().unwrap_or_default()) {
        return failure;
    }
    if !exists(&api.office.view(), &api.office.directory, &forwarded.path) {
        return Failure::not_found("path not found");
    }
    Failure::not_found("forward destination not found")
}
