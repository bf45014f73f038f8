//! RTSP connections and sessions, plain ones and those over TLS (contract §2.4).

use std::sync::Arc;

use axum::{
    extract::State,
    response::IntoResponse as _,
    routing::{MethodRouter, get, post},
};
use corecast_hub::roster::{SessionState, Transport};
use serde::{Serialize, Serializer};
use uuid::Uuid;

use super::{Api, Id, paging::Paging, rfc3339};
use crate::control::{
    directory::{Conn, Session},
    http::answer::{Failure, done, json, page_not_found},
};

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ConnItem {
    id: Uuid,
    created: String,
    remote_addr: String,
    session: Option<Uuid>,
    tunnel: &'static str,
    inbound_bytes: u64,
    outbound_bytes: u64,
    bytes_received: u64,
    bytes_sent: u64,
}

/// Newer names first, then the older ones for the same numbers.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct SessionItem {
    id: Uuid,
    created: String,
    remote_addr: String,
    state: &'static str,
    path: Arc<str>,
    query: String,
    user: String,
    user_agent: String,
    transport: Option<&'static str>,
    profile: Option<&'static str>,
    conns: Vec<Uuid>,
    inbound_bytes: u64,
    #[serde(rename = "inboundRTPPackets")]
    inbound_rtp_packets: u64,
    #[serde(rename = "inboundRTPPacketsLost")]
    inbound_rtp_packets_lost: u64,
    #[serde(rename = "inboundRTPPacketsInError")]
    inbound_rtp_packets_in_error: u64,
    #[serde(rename = "inboundRTPPacketsJitter", serialize_with = "go_float")]
    inbound_rtp_packets_jitter: f64,
    #[serde(rename = "inboundRTCPPackets")]
    inbound_rtcp_packets: u64,
    #[serde(rename = "inboundRTCPPacketsInError")]
    inbound_rtcp_packets_in_error: u64,
    outbound_bytes: u64,
    #[serde(rename = "outboundRTPPackets")]
    outbound_rtp_packets: u64,
    #[serde(rename = "outboundRTPPacketsReportedLost")]
    outbound_rtp_packets_reported_lost: u64,
    #[serde(rename = "outboundRTPPacketsDiscarded")]
    outbound_rtp_packets_discarded: u64,
    #[serde(rename = "outboundRTCPPackets")]
    outbound_rtcp_packets: u64,
    bytes_received: u64,
    bytes_sent: u64,
    rtp_packets_received: u64,
    rtp_packets_sent: u64,
    rtp_packets_lost: u64,
    rtp_packets_in_error: u64,
    #[serde(serialize_with = "go_float")]
    rtp_packets_jitter: f64,
    rtcp_packets_received: u64,
    rtcp_packets_sent: u64,
    rtcp_packets_in_error: u64,
}

/// Without `.0` behind a whole number, as Go writes it.
fn go_float<S: Serializer>(number: &f64, serializer: S) -> Result<S::Ok, S::Error> {
    match *number == 0.0 {
        true => serializer.serialize_u64(0),
        false => serializer.serialize_f64(*number),
    }
}

impl From<&Conn> for ConnItem {
    fn from(conn: &Conn) -> Self {
        let (inbound_bytes, outbound_bytes) =
            (conn.traffic.inbound_bytes.get(), conn.traffic.outbound_bytes.get());
        Self {
            id: conn.id,
            created: rfc3339(conn.created),
            remote_addr: conn.remote.to_string(),
            session: conn.session,
            tunnel: "none",
            inbound_bytes,
            outbound_bytes,
            bytes_received: inbound_bytes,
            bytes_sent: outbound_bytes,
        }
    }
}

impl From<&Session> for SessionItem {
    fn from(session: &Session) -> Self {
        let (facts, traffic) = (&session.facts, &session.traffic);
        let inbound_bytes = traffic.inbound_bytes.get();
        let inbound_rtp_packets = traffic.inbound_rtp_packets.get();
        let inbound_rtp_packets_lost = traffic.inbound_rtp_packets_lost.get();
        let inbound_rtp_packets_in_error = traffic.inbound_rtp_packets_in_error.get();
        // Exact up to 2^53 thousandths.
        let inbound_rtp_packets_jitter = traffic.inbound_rtp_jitter_milli.get() as f64 / 1000.0;
        let inbound_rtcp_packets = traffic.inbound_rtcp_packets.get();
        let inbound_rtcp_packets_in_error = traffic.inbound_rtcp_packets_in_error.get();
        let outbound_bytes = traffic.outbound_bytes.get();
        let outbound_rtp_packets = traffic.outbound_rtp_packets.get();
        let outbound_rtcp_packets = traffic.outbound_rtcp_packets.get();
        Self {
            id: session.id,
            created: rfc3339(session.created),
            remote_addr: session.remote.to_string(),
            state: match facts.state {
                SessionState::Idle => "idle",
                SessionState::Read => "read",
                SessionState::Publish => "publish",
            },
            path: Arc::clone(&facts.path),
            query: facts.query.clone(),
            user: facts.user.clone(),
            user_agent: facts.user_agent.clone(),
            transport: facts.transport.map(|transport| match transport {
                Transport::Udp => "UDP",
                Transport::Tcp => "TCP",
            }),
            profile: facts.transport.map(|_| "AVP"),
            conns: facts.conn.into_iter().collect(),
            inbound_bytes,
            inbound_rtp_packets,
            inbound_rtp_packets_lost,
            inbound_rtp_packets_in_error,
            inbound_rtp_packets_jitter,
            inbound_rtcp_packets,
            inbound_rtcp_packets_in_error,
            outbound_bytes,
            outbound_rtp_packets,
            outbound_rtp_packets_reported_lost: traffic.outbound_rtp_packets_reported_lost.get(),
            outbound_rtp_packets_discarded: traffic.outbound_rtp_packets_discarded.get(),
            outbound_rtcp_packets,
            bytes_received: inbound_bytes,
            bytes_sent: outbound_bytes,
            rtp_packets_received: inbound_rtp_packets,
            rtp_packets_sent: outbound_rtp_packets,
            rtp_packets_lost: inbound_rtp_packets_lost,
            rtp_packets_in_error: inbound_rtp_packets_in_error,
            rtp_packets_jitter: inbound_rtp_packets_jitter,
            rtcp_packets_received: inbound_rtcp_packets,
            rtcp_packets_sent: outbound_rtcp_packets,
            rtcp_packets_in_error: inbound_rtcp_packets_in_error,
        }
    }
}

/// Which of the two servers a request is about: its endpoints show what came to it, and do not exist when it is off.
#[derive(Clone, Copy)]
pub(super) enum Server {
    Rtsp,
    Rtsps,
}

impl Server {
    fn is_on(self, api: &Api) -> bool {
        let view = api.office.view();
        let rtsp = &view.settings.rtsp;
        match self {
            Self::Rtsp => rtsp.address.is_some(),
            Self::Rtsps => rtsp.tls_address.is_some(),
        }
    }

    fn is_encrypted(self) -> bool {
        matches!(self, Self::Rtsps)
    }

    pub(super) fn conns(self) -> MethodRouter<Api> {
        get(move |State(api): State<Api>, paging: Paging| async move {
            if !self.is_on(&api) {
                return page_not_found();
            }
            let mut conns = api.office.directory.conns();
            conns.retain(|conn| conn.encrypted == self.is_encrypted());
            paging.page(conns, |conn| ConnItem::from(&*conn)).await
        })
    }

    pub(super) fn conn(self) -> MethodRouter<Api> {
        get(move |State(api): State<Api>, Id(id): Id| async move {
            if !self.is_on(&api) {
                return page_not_found();
            }
            match api.office.directory.conn(id).filter(|conn| conn.encrypted == self.is_encrypted()) {
                Some(conn) => json(&ConnItem::from(&*conn)),
                None => Failure::not_found("connection not found").into_response(),
            }
        })
    }

    pub(super) fn sessions(self) -> MethodRouter<Api> {
        get(move |State(api): State<Api>, paging: Paging| async move {
            if !self.is_on(&api) {
                return page_not_found();
            }
            let mut sessions = api.office.directory.sessions();
            sessions.retain(|session| session.encrypted == self.is_encrypted());
            paging.page(sessions, |session| SessionItem::from(&*session)).await
        })
    }

    pub(super) fn session(self) -> MethodRouter<Api> {
        get(move |State(api): State<Api>, Id(id): Id| async move {
            if !self.is_on(&api) {
                return page_not_found();
            }
            match self.find_session(&api, id) {
                Some(session) => json(&SessionItem::from(&*session)),
                None => Failure::not_found("session not found").into_response(),
            }
        })
    }

    pub(super) fn kick(self) -> MethodRouter<Api> {
        post(move |State(api): State<Api>, Id(id): Id| async move {
            if !self.is_on(&api) {
                return page_not_found();
            }
            match self.find_session(&api, id).is_some() && api.office.kick(id).await {
                true => done(),
                false => Failure::not_found("session not found").into_response(),
            }
        })
    }

    fn find_session(self, api: &Api, id: Uuid) -> Option<Arc<Session>> {
        api.office.directory.session(id).filter(|session| session.encrypted == self.is_encrypted())
    }
}
