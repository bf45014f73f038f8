//! HLS muxers and sessions, under MediaMTX's names: sessions one by one as MediaMTX has them, or in a sum with what ended
//! ones were sent; muxers by path, with what earlier muxers of that path moved.

use crate::control::{
    directory::MuxerTotals,
    metrics::{
        families::{Item, rows},
        filter::Share,
        sheet::{Family, Number::Whole, Sheet, gauge, label, untyped},
        snapshot::{Hls, HlsSessionRow},
    },
};

const SESSIONS: Family = gauge("hls_sessions", "HLS sessions.");
const SESSIONS_OUTBOUND: Family = untyped("hls_sessions_outbound_bytes", "Bytes sent to HLS sessions.");
const MUXERS: Family = gauge("hls_muxers", "HLS muxers.");
const MUXERS_OUTBOUND: Family =
    untyped("hls_muxers_outbound_bytes", "Bytes sent by HLS muxers, all that a path had together.");
const MUXERS_DISCARDED: Family =
    untyped("hls_muxers_outbound_frames_discarded", "Frames that HLS muxers left out.");
const MUXERS_OUTBOUND_OLD: Family =
    untyped("hls_muxers_bytes_sent", "The same as hls_muxers_outbound_bytes.");

pub fn write_sessions(sheet: &mut Sheet, hls: &Hls, share: Share<'_>, one_by_one: bool) {
    if share == Share::None {
        return;
    }
    let items = if one_by_one {
        let sessions = hls.sessions.iter().map(|session| (session.id.to_string(), session));
        let item = |(id, session): (String, &HlsSessionRow)| Item {
            labels: vec![
                label("id", id),
                label("path", &*session.path),
                label("remoteAddr", session.remote.to_string()),
            ],
            count: 1,
            numbers: session.outbound_bytes,
        };
        sessions.filter(|(id, _)| share.takes(id)).map(item).collect()
    } else {
        let there: u64 = hls.sessions.iter().map(|session| session.outbound_bytes).sum();
        let numbers = hls.session_bytes_retired + there;
        vec![Item { labels: Vec::new(), count: hls.sessions.len() as u64, numbers }]
    };
    let rows = rows::<u64>(items, share);
    sheet.section("HLS sessions");
    sheet.family(SESSIONS, &rows, |item| Whole(item.count));
    sheet.family(SESSIONS_OUTBOUND, &rows, |item| Whole(item.numbers));
}

pub fn write_muxers(sheet: &mut Sheet, hls: &Hls, share: Share<'_>) {
    if share == Share::None {
        return;
    }
    let shown = hls.muxers.iter().filter(|muxer| share.takes(&muxer.path));
    let items = shown.map(|muxer| Item {
        labels: vec![label("name", &*muxer.path)],
        count: 1,
        numbers: muxer.totals,
    });
    let rows = rows::<MuxerTotals>(items.collect(), share);
    sheet.section("HLS muxers");
    sheet.family(MUXERS, &rows, |item| Whole(item.count));
    sheet.family(MUXERS_OUTBOUND, &rows, |item| Whole(item.numbers.outbound_bytes));
    sheet.family(MUXERS_DISCARDED, &rows, |item| Whole(item.numbers.outbound_frames_discarded));
    sheet.section("HLS muxers (deprecated)");
    sheet.family(MUXERS_OUTBOUND_OLD, &rows, |item| Whole(item.numbers.outbound_bytes));
}
