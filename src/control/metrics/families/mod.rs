//! The customer's names, MediaMTX's, and those that MediaMTX has replaced but still prints (contract §3).

mod hls;
mod overview;
mod paths;
mod rtsp;
mod unserved;

use std::mem;

use prometheus::proto::LabelPair;

use super::{
    filter::{Category, Filter, Share},
    sheet::{Rows, Sheet},
    snapshot::Snapshot,
};

/// Everything of contract §3 that `filter` asks for, in MediaMTX's order; the customer's own names come first.
/// `one_by_one`: connections and sessions each on a line of its own.
pub fn write(sheet: &mut Sheet, snapshot: &Snapshot, filter: &Filter, one_by_one: bool) {
    overview::write(sheet, snapshot, filter);
    paths::write(sheet, snapshot, filter.share(Category::Paths));
    unserved::write_forward_dests(sheet, filter);
    let each = |category| one_by_one || filter.names(category);
    if let Some(server) = &snapshot.hls {
        let sessions = Category::HlsSessions;
        hls::write_sessions(sheet, server, filter.share(sessions), each(sessions));
        hls::write_muxers(sheet, server, filter.share(Category::HlsMuxers));
    }
    for (server, names, conns, sessions) in [
        (&snapshot.rtsp, &rtsp::RTSP, Category::RtspConns, Category::RtspSessions),
        (&snapshot.rtsps, &rtsp::RTSPS, Category::RtspsConns, Category::RtspsSessions),
    ] {
        if let Some(server) = server {
            rtsp::write_conns(sheet, names, server, filter.share(conns), each(conns));
            rtsp::write_sessions(sheet, names, server, filter.share(sessions), each(sessions));
        }
    }
    unserved::write_webrtc(sheet, filter);
}

/// What one line of each family of a category is about: one thing, or several together.
struct Item<N> {
    /// Until they are printed.
    labels: Vec<LabelPair>,
    /// Things.
    count: u64,
    numbers: N,
}

/// `items`, or, if all were asked for and there is none, the line without labels that says so.
fn rows<N: Default>(mut items: Vec<Item<N>>, share: Share<'_>) -> Rows<Item<N>> {
    if items.is_empty() && share == Share::All {
        items.push(Item { labels: Vec::new(), count: 0, numbers: N::default() });
    }
    Rows::new(items, |item| mem::take(&mut item.labels))
}
