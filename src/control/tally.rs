//! What connections and sessions moved, those that have ended too: sums over all of them that never go back.
//!
//! The directory holds a [`Retired`] and tells it of every end and every change of state, under the same lock under
//! which it changes its tables; then at any moment *retired + all that are there* is everything that was ever moved.

use corecast_hub::roster::{ConnTraffic, Counter, SessionState, SessionTraffic};

/// Inbound and outbound bytes of a connection.
pub type ConnNumbers = [u64; 2];

/// The numbers of a session that only grow, by [`SessionNumber`].
pub type SessionNumbers = [u64; SESSION_COUNTERS.len()];

/// Place in [`SessionNumbers`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SessionNumber {
    InboundBytes,
    InboundRtpPackets,
    InboundRtpPacketsLost,
    InboundRtpPacketsInError,
    InboundRtcpPackets,
    InboundRtcpPacketsInError,
    OutboundBytes,
    OutboundRtpPackets,
    OutboundRtpPacketsReportedLost,
    OutboundRtpPacketsDiscarded,
    OutboundRtcpPackets,
}

/// In the order of [`SessionNumber`].
const SESSION_COUNTERS: [fn(&SessionTraffic) -> &Counter; 11] = [
    |traffic| &traffic.inbound_bytes,
    |traffic| &traffic.inbound_rtp_packets,
    |traffic| &traffic.inbound_rtp_packets_lost,
    |traffic| &traffic.inbound_rtp_packets_in_error,
    |traffic| &traffic.inbound_rtcp_packets,
    |traffic| &traffic.inbound_rtcp_packets_in_error,
    |traffic| &traffic.outbound_bytes,
    |traffic| &traffic.outbound_rtp_packets,
    |traffic| &traffic.outbound_rtp_packets_reported_lost,
    |traffic| &traffic.outbound_rtp_packets_discarded,
    |traffic| &traffic.outbound_rtcp_packets,
];

/// A session's states, in the order in which they are told.
pub const SESSION_STATES: [SessionState; 3] = [SessionState::Idle, SessionState::Publish, SessionState::Read];

pub fn conn_numbers(traffic: &ConnTraffic) -> ConnNumbers {
    [traffic.inbound_bytes.get(), traffic.outbound_bytes.get()]
}

pub fn session_numbers(traffic: &SessionTraffic) -> SessionNumbers {
    SESSION_COUNTERS.map(|counter| counter(traffic).get())
}

/// Number by number.
pub fn plus<const N: usize>(one: [u64; N], other: [u64; N]) -> [u64; N] {
    std::array::from_fn(|at| one[at].wrapping_add(other[at]))
}

fn minus<const N: usize>(one: [u64; N], other: [u64; N]) -> [u64; N] {
    std::array::from_fn(|at| one[at].wrapping_sub(other[at]))
}

/// What is to be added to the sums over those that are there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Retired {
    conns: ConnNumbers,
    /// By state. Wraps below zero for a state whose sessions brought more along from another state than they have
    /// moved since; added to what those sessions show, it is right again.
    sessions: [SessionNumbers; SESSION_STATES.len()],
}

impl Retired {
    /// The connection is no longer among those that are there.
    pub fn conn_closed(&mut self, traffic: &ConnTraffic) {
        self.conns = plus(self.conns, conn_numbers(traffic));
    }

    /// From now on the session counts for another state; what it moved so far stays with the old one.
    pub fn session_changed(&mut self, from: SessionState, to: SessionState, traffic: &SessionTraffic) {
        let moved = session_numbers(traffic);
        let old = &mut self.sessions[index(from)];
        *old = plus(*old, moved);
        let new = &mut self.sessions[index(to)];
        *new = minus(*new, moved);
    }

    /// The session is no longer among those that are there; `state` is its last one.
    pub fn session_closed(&mut self, state: SessionState, traffic: &SessionTraffic) {
        let sum = &mut self.sessions[index(state)];
        *sum = plus(*sum, session_numbers(traffic));
    }

    /// To be added to the sum over all connections that are there.
    pub fn conns(&self) -> ConnNumbers {
        self.conns
    }

    /// To be added, wrapping, to the sum over all sessions that are in `state`.
    pub fn sessions(&self, state: SessionState) -> SessionNumbers {
        self.sessions[index(state)]
    }
}

fn index(state: SessionState) -> usize {
    match state {
        SessionState::Idle => 0,
        SessionState::Publish => 1,
        SessionState::Read => 2,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_stay_when_sessions_pause_and_end() {
        let sum = |retired: &Retired, state, there: &[&SessionTraffic]| {
            there.iter().fold(retired.sessions(state), |sum, one| plus(sum, session_numbers(one)))
                [SessionNumber::OutboundBytes as usize]
        };
        let (mut retired, traffic) = (Retired::default(), SessionTraffic::default());
        traffic.outbound_bytes.set(3);
        retired.session_changed(SessionState::Idle, SessionState::Read, &traffic);
        traffic.outbound_bytes.set(10);
        assert_eq!(sum(&retired, SessionState::Idle, &[]), 3);
        assert_eq!(sum(&retired, SessionState::Read, &[&traffic]), 7);
        retired.session_changed(SessionState::Read, SessionState::Idle, &traffic);
        traffic.outbound_bytes.set(11);
        assert_eq!(sum(&retired, SessionState::Idle, &[&traffic]), 4);
        assert_eq!(sum(&retired, SessionState::Read, &[]), 7);
        retired.session_closed(SessionState::Idle, &traffic);
        assert_eq!(sum(&retired, SessionState::Idle, &[]), 4);
        assert_eq!(sum(&retired, SessionState::Read, &[]), 7);
    }

    #[test]
    fn every_number_is_read_from_its_own_counter() {
        let traffic = SessionTraffic::default();
        traffic.inbound_rtp_packets_in_error.set(1);
        traffic.inbound_rtcp_packets_in_error.set(2);
        traffic.outbound_rtp_packets_reported_lost.set(3);
        traffic.outbound_rtp_packets_discarded.set(4);
        traffic.outbound_rtcp_packets.set(5);
        let numbers = session_numbers(&traffic);
        assert_eq!(numbers[SessionNumber::InboundRtpPacketsInError as usize], 1);
        assert_eq!(numbers[SessionNumber::InboundRtcpPacketsInError as usize], 2);
        assert_eq!(numbers[SessionNumber::OutboundRtpPacketsReportedLost as usize], 3);
        assert_eq!(numbers[SessionNumber::OutboundRtpPacketsDiscarded as usize], 4);
        assert_eq!(numbers[SessionNumber::OutboundRtcpPackets as usize], 5);
    }

    #[test]
    fn closed_connections_are_remembered() {
        let (mut retired, traffic) = (Retired::default(), ConnTraffic::default());
        traffic.inbound_bytes.set(5);
        traffic.outbound_bytes.set(7);
        retired.conn_closed(&traffic);
        retired.conn_closed(&traffic);
        assert_eq!(retired.conns(), [10, 14]);
    }
}
