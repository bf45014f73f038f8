//! What MediaMTX counts and this relay does not serve: there is none of it, which a dashboard can be told.

use crate::control::metrics::{
    filter::{Category, Filter, Share},
    sheet::{Family, Number::Whole, Sheet, gauge, untyped},
};

/// A headline and the families under it.
type Part = (&'static str, &'static [Family]);

const FORWARD_DESTS: &[Part] = &[(
    "Forward destinations",
    &[
        gauge("forward_dests", "Forward destinations."),
        untyped("forward_dests_outbound_bytes", "Bytes sent to forward destinations."),
    ],
)];

const WEBRTC_SESSIONS: &[Part] = &[
    (
        "WebRTC sessions",
        &[
            gauge("webrtc_sessions", "WebRTC sessions."),
            untyped("webrtc_sessions_inbound_bytes", "Bytes received by WebRTC sessions."),
            untyped("webrtc_sessions_inbound_rtp_packets", "RTP packets received by WebRTC sessions."),
            untyped(
                "webrtc_sessions_inbound_rtp_packets_lost",
                "RTP packets to WebRTC sessions that never came.",
            ),
            gauge("webrtc_sessions_inbound_rtp_packets_jitter", "Interarrival jitter in timestamp units."),
            untyped("webrtc_sessions_inbound_rtcp_packets", "RTCP packets received by WebRTC sessions."),
            untyped("webrtc_sessions_outbound_bytes", "Bytes sent by WebRTC sessions."),
            untyped("webrtc_sessions_outbound_rtp_packets", "RTP packets sent by WebRTC sessions."),
            untyped("webrtc_sessions_outbound_rtcp_packets", "RTCP packets sent by WebRTC sessions."),
            untyped("webrtc_sessions_outbound_frames_discarded", "Frames that WebRTC sessions left out."),
        ],
    ),
    (
        "WebRTC sessions (deprecated)",
        &[
            untyped("webrtc_sessions_bytes_received", "The same as webrtc_sessions_inbound_bytes."),
            untyped("webrtc_sessions_bytes_sent", "The same as webrtc_sessions_outbound_bytes."),
            untyped(
                "webrtc_sessions_rtp_packets_received",
                "The same as webrtc_sessions_inbound_rtp_packets.",
            ),
            untyped("webrtc_sessions_rtp_packets_sent", "The same as webrtc_sessions_outbound_rtp_packets."),
            untyped(
                "webrtc_sessions_rtp_packets_lost",
                "The same as webrtc_sessions_inbound_rtp_packets_lost.",
            ),
            gauge(
                "webrtc_sessions_rtp_packets_jitter",
                "The same as webrtc_sessions_inbound_rtp_packets_jitter.",
            ),
            untyped(
                "webrtc_sessions_rtcp_packets_received",
                "The same as webrtc_sessions_inbound_rtcp_packets.",
            ),
            untyped(
                "webrtc_sessions_rtcp_packets_sent",
                "The same as webrtc_sessions_outbound_rtcp_packets.",
            ),
        ],
    ),
];

pub fn write_forward_dests(sheet: &mut Sheet, filter: &Filter) {
    // MediaMTX keeps silent on these unless asked.
    if filter.names(Category::ForwardDests) {
        zeros(sheet, FORWARD_DESTS, filter.share(Category::ForwardDests));
    }
}

pub fn write_webrtc(sheet: &mut Sheet, filter: &Filter) {
    zeros(sheet, WEBRTC_SESSIONS, filter.share(Category::WebrtcSessions));
}

fn zeros(sheet: &mut Sheet, parts: &[Part], share: Share<'_>) {
    if share != Share::All {
        return;
    }
    for (title, families) in parts {
        sheet.section(title);
        for &family in *families {
            sheet.single(family, Whole(0));
        }
    }
}
