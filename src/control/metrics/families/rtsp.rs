//! RTSP connections and sessions, under MediaMTX's names: one by one as MediaMTX has them, or in sums with what ended
//! ones have moved, which a scrape of a large relay can carry and which do not go back.

use corecast_hub::roster::SessionState;

use crate::control::{
    metrics::{
        families::{Item, rows},
        filter::Share,
        sheet::{
            Family,
            Number::{Real, Whole},
            Sheet, gauge, label, untyped,
        },
        snapshot::{Rtsp, SessionRow},
    },
    tally::{self, ConnNumbers, SESSION_STATES, SessionNumber as N, SessionNumbers},
};

/// What a family of sessions shows.
#[derive(Clone, Copy)]
enum Shown {
    Count,
    Sum(N),
    /// Of several sessions the largest: a sum of jitters would mean nothing.
    Jitter,
}

use Shown::{Count, Jitter, Sum};

/// Name and help of a family.
type Head = (&'static str, &'static str);

/// Families of a category, and what they show.
type Table = [(Shown, Head)];

/// The families of one of the two RTSP servers.
pub struct Names {
    conns: Family,
    conn_families: [Head; 2],
    conn_families_old: [Head; 2],
    sessions: &'static Table,
    sessions_old: &'static Table,
    /// Headlines, each with that of what MediaMTX has replaced.
    conn_titles: [&'static str; 2],
    session_titles: [&'static str; 2],
}

/// A name and the help of an older one for the same.
macro_rules! older {
    ($prefix:literal, $old:literal, $new:literal) => {
        (concat!($prefix, $old), concat!("The same as ", $prefix, $new, "."))
    };
}

/// They differ in nothing but the server's name.
macro_rules! names {
    ($prefix:literal, $title:literal) => {
        Names {
            conns: gauge(concat!($prefix, "_conns"), concat!($title, " connections.")),
            conn_families: [
                (concat!($prefix, "_conns_inbound_bytes"), concat!("Bytes received over ", $title, " connections.")),
                (concat!($prefix, "_conns_outbound_bytes"), concat!("Bytes sent over ", $title, " connections.")),
            ],
            conn_families_old: [
                older!($prefix, "_conns_bytes_received", "_conns_inbound_bytes"),
                older!($prefix, "_conns_bytes_sent", "_conns_outbound_bytes"),
            ],
            sessions: &[
                (Count, (concat!($prefix, "_sessions"), concat!($title, " sessions."))),
                (
                    Sum(N::InboundBytes),
                    (concat!($prefix, "_sessions_inbound_bytes"), "Bytes received from publishers."),
                ),
                (
                    Sum(N::InboundRtpPackets),
                    (concat!($prefix, "_sessions_inbound_rtp_packets"), "RTP packets received from publishers."),
                ),
                (
                    Sum(N::InboundRtpPacketsLost),
                    (
                        concat!($prefix, "_sessions_inbound_rtp_packets_lost"),
                        "RTP packets of publishers that never came.",
                    ),
                ),
                (
                    Sum(N::InboundRtpPacketsInError),
                    (
                        concat!($prefix, "_sessions_inbound_rtp_packets_in_error"),
                        "RTP packets received that could not be read.",
                    ),
                ),
                (
                    Jitter,
                    (
                        concat!($prefix, "_sessions_inbound_rtp_packets_jitter"),
                        "Interarrival jitter of received RTP packets in timestamp units; of several sessions the largest.",
                    ),
                ),
                (
                    Sum(N::InboundRtcpPackets),
                    (concat!($prefix, "_sessions_inbound_rtcp_packets"), "RTCP packets received."),
                ),
                (
                    Sum(N::InboundRtcpPacketsInError),
                    (
                        concat!($prefix, "_sessions_inbound_rtcp_packets_in_error"),
                        "RTCP packets received that could not be read.",
                    ),
                ),
                (
                    Sum(N::OutboundBytes),
                    (concat!($prefix, "_sessions_outbound_bytes"), "Bytes sent to readers."),
                ),
                (
                    Sum(N::OutboundRtpPackets),
                    (concat!($prefix, "_sessions_outbound_rtp_packets"), "RTP packets sent to readers."),
                ),
                (
                    Sum(N::OutboundRtpPacketsReportedLost),
                    (
                        concat!($prefix, "_sessions_outbound_rtp_packets_reported_lost"),
                        "RTP packets that readers reported as lost.",
                    ),
                ),
                (
                    Sum(N::OutboundRtpPacketsDiscarded),
                    (
                        concat!($prefix, "_sessions_outbound_rtp_packets_discarded"),
                        "RTP packets skipped because their reader was too slow.",
                    ),
                ),
                (
                    Sum(N::OutboundRtcpPackets),
                    (concat!($prefix, "_sessions_outbound_rtcp_packets"), "RTCP packets sent."),
                ),
            ],
            sessions_old: &[
                (
                    Sum(N::InboundBytes),
                    older!($prefix, "_sessions_bytes_received", "_sessions_inbound_bytes"),
                ),
                (Sum(N::OutboundBytes), older!($prefix, "_sessions_bytes_sent", "_sessions_outbound_bytes")),
                (
                    Sum(N::InboundRtpPackets),
                    older!($prefix, "_sessions_rtp_packets_received", "_sessions_inbound_rtp_packets"),
                ),
                (
                    Sum(N::OutboundRtpPackets),
                    older!($prefix, "_sessions_rtp_packets_sent", "_sessions_outbound_rtp_packets"),
                ),
                (
                    Sum(N::InboundRtpPacketsLost),
                    older!($prefix, "_sessions_rtp_packets_lost", "_sessions_inbound_rtp_packets_lost"),
                ),
                (
                    Sum(N::InboundRtpPacketsInError),
                    older!($prefix, "_sessions_rtp_packets_in_error", "_sessions_inbound_rtp_packets_in_error"),
                ),
                (
                    Jitter,
                    older!($prefix, "_sessions_rtp_packets_jitter", "_sessions_inbound_rtp_packets_jitter"),
                ),
                (
                    Sum(N::InboundRtcpPackets),
                    older!($prefix, "_sessions_rtcp_packets_received", "_sessions_inbound_rtcp_packets"),
                ),
                (
                    Sum(N::OutboundRtcpPackets),
                    older!($prefix, "_sessions_rtcp_packets_sent", "_sessions_outbound_rtcp_packets"),
                ),
                (
                    Sum(N::InboundRtcpPacketsInError),
                    older!($prefix, "_sessions_rtcp_packets_in_error", "_sessions_inbound_rtcp_packets_in_error"),
                ),
            ],
            conn_titles: [concat!($title, " connections"), concat!($title, " connections (deprecated)")],
            session_titles: [concat!($title, " sessions"), concat!($title, " sessions (deprecated)")],
        }
    };
}

pub const RTSP: Names = names!("rtsp", "RTSP");
pub const RTSPS: Names = names!("rtsps", "RTSPS");

pub fn write_conns(sheet: &mut Sheet, names: &Names, rtsp: &Rtsp, share: Share<'_>, one_by_one: bool) {
    if share == Share::None {
        return;
    }
    let items = if one_by_one {
        let conns = rtsp.conns.iter().map(|conn| (conn.id.to_string(), conn.numbers));
        conns
            .filter(|(id, _)| share.takes(id))
            .map(|(id, numbers)| Item { labels: vec![label("id", id)], count: 1, numbers })
            .collect()
    } else {
        let there = rtsp.conns.iter().map(|conn| conn.numbers);
        let numbers = there.fold(rtsp.retired.conns(), tally::plus);
        vec![Item { labels: Vec::new(), count: rtsp.conns.len() as u64, numbers }]
    };
    let rows = rows::<ConnNumbers>(items, share);
    sheet.section(names.conn_titles[0]);
    sheet.family(names.conns, &rows, |item| Whole(item.count));
    for (place, (name, help)) in names.conn_families.into_iter().enumerate() {
        sheet.family(untyped(name, help), &rows, |item| Whole(item.numbers[place]));
    }
    sheet.section(names.conn_titles[1]);
    for (place, (name, help)) in names.conn_families_old.into_iter().enumerate() {
        sheet.family(untyped(name, help), &rows, |item| Whole(item.numbers[place]));
    }
}

/// What one session moved, or all of a state together.
#[derive(Default, Clone, Copy)]
struct Moved {
    numbers: SessionNumbers,
    /// Thousandths of a timestamp unit.
    jitter_milli: u64,
}

pub fn write_sessions(sheet: &mut Sheet, names: &Names, rtsp: &Rtsp, share: Share<'_>, one_by_one: bool) {
    if share == Share::None {
        return;
    }
    let items = if one_by_one {
        let sessions = rtsp.sessions.iter().map(|session| (session.id.to_string(), session));
        sessions.filter(|(id, _)| share.takes(id)).map(|(id, session)| one_session(id, session)).collect()
    } else if rtsp.sessions.is_empty() && rtsp.retired == tally::Retired::default() {
        Vec::new()
    } else {
        SESSION_STATES.map(|state| all_sessions(rtsp, state)).into()
    };
    let rows = rows(items, share);
    let mut write = |title: &str, table: &Table| {
        sheet.section(title);
        for &(shown, (name, help)) in table {
            match shown {
                Count => sheet.family(gauge(name, help), &rows, |item| Whole(item.count)),
                Sum(number) => {
                    sheet.family(untyped(name, help), &rows, |item| {
                        Whole(item.numbers.numbers[number as usize])
                    });
                }
                Jitter => sheet.family(gauge(name, help), &rows, |item: &Item<Moved>| {
                    Real(item.numbers.jitter_milli as f64 / 1000.0)
                }),
            }
        }
    };
    write(names.session_titles[0], names.sessions);
    write(names.session_titles[1], names.sessions_old);
}

fn one_session(id: String, session: &SessionRow) -> Item<Moved> {
    Item {
        labels: vec![
            label("id", id),
            label("path", &*session.path),
            label("remoteAddr", session.remote.to_string()),
            label("state", word(session.state)),
        ],
        count: 1,
        numbers: Moved { numbers: session.numbers, jitter_milli: session.jitter_milli },
    }
}

fn all_sessions(rtsp: &Rtsp, state: SessionState) -> Item<Moved> {
    let there = || rtsp.sessions.iter().filter(move |session| session.state == state);
    Item {
        labels: vec![label("state", word(state))],
        count: there().count() as u64,
        numbers: Moved {
            numbers: there().map(|session| session.numbers).fold(rtsp.retired.sessions(state), tally::plus),
            jitter_milli: there().map(|session| session.jitter_milli).max().unwrap_or(0),
        },
    }
}

fn word(state: SessionState) -> &'static str {
    match state {
        SessionState::Idle => "idle",
        SessionState::Publish => "publish",
        SessionState::Read => "read",
    }
}
