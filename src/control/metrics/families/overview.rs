//! The customer's own names: how many there are, and what each path moved.

use crate::control::{
    directory::PathTotals,
    metrics::{
        families::{Item, rows},
        filter::{Category, Filter, Share},
        sheet::{Family, Number::Whole, Sheet, label, untyped},
        snapshot::Snapshot,
    },
};

const PATHS: Family = untyped("mediamtx_paths_count", "Paths that can be read.");
const CONNS: Family = untyped("mediamtx_rtsp_conns_count", "RTSP connections, those over TLS among them.");
const HLS: Family = untyped("mediamtx_hls_sessions_count", "HLS sessions.");
const WEBRTC: Family = untyped("mediamtx_webrtc_sessions_count", "WebRTC sessions.");
const RECEIVED: Family =
    untyped("mediamtx_path_bytes_received", "Bytes received by a path, all of its streams together.");
const SENT: Family =
    untyped("mediamtx_path_bytes_sent", "Bytes sent to readers of a path, all of its streams together.");

pub fn write(sheet: &mut Sheet, snapshot: &Snapshot, filter: &Filter) {
    let ready = snapshot.paths.iter().filter(|path| path.ready).count();
    let conns = [&snapshot.rtsp, &snapshot.rtsps].into_iter().flatten().map(|rtsp| rtsp.conns.len()).sum();
    let hls_sessions = snapshot.hls.as_ref().map_or(0, |hls| hls.sessions.len());
    let mut counts = vec![
        (Category::Paths, PATHS, ready),
        (Category::RtspConns, CONNS, conns),
        (Category::HlsSessions, HLS, hls_sessions),
        (Category::WebrtcSessions, WEBRTC, 0),
    ];
    // They are of whole categories: who asks for one item does not get them.
    counts.retain(|(category, ..)| filter.share(*category) == Share::All);
    let paths = filter.share(Category::Paths);
    if counts.is_empty() && paths == Share::None {
        return;
    }
    sheet.section("Overview");
    for (_, family, count) in counts {
        sheet.single(family, Whole(count as u64));
    }
    if paths != Share::None {
        of_each_path(sheet, snapshot, paths);
    }
}

/// Also of paths that are gone, so that a sum over all does not go back.
fn of_each_path(sheet: &mut Sheet, snapshot: &Snapshot, share: Share<'_>) {
    let mut names: Vec<_> = snapshot.paths.iter().map(|path| &path.name).collect();
    names.extend(snapshot.totals.keys());
    names.retain(|name| share.takes(name));
    names.sort_unstable();
    names.dedup();
    let items = names.into_iter().map(|name| Item {
        labels: vec![label("path", &**name)],
        count: 1,
        numbers: snapshot.totals.get(name).copied().unwrap_or_default(),
    });
    let rows = rows::<PathTotals>(items.collect(), share);
    sheet.family(RECEIVED, &rows, |item| Whole(item.numbers.inbound_bytes));
    sheet.family(SENT, &rows, |item| Whole(item.numbers.outbound_bytes));
}
