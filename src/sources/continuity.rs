//! One stream out of several sessions with the same source: the packets of a later one go on where those of the one
//! before stopped, under the same SSRC, with the next sequence number, and at the RTP time that it is by then.
//!
//! Only headers are rewritten, in place. What is learnt of the source itself, as its losses, is in its own numbers:
//! [`Continuity::as_sent`] leads back to them.

use std::ops::Range;

use corecast_proto::rtp::header::{FIXED_LENGTH, Header};

/// Where a track stands: what its next packet would have, if it came now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    pub sequence: u16,
    pub timestamp_wrapped: u32,
}

/// Bytes of an RTP header, and of what stands in a sender report before its blocks (RFC 3550 §5.1, §6.4.1).
const SEQUENCE: Range<usize> = 2..4;
const TIMESTAMP: Range<usize> = 4..8;
const SSRC: Range<usize> = 8..12;
const REPORTER: Range<usize> = 4..8;
const REPORT_TIMESTAMP: Range<usize> = 16..20;
const REPORT_PACKETS: Range<usize> = 20..24;
const REPORT_OCTETS: Range<usize> = 24..28;

const SENDER_REPORT: u8 = 200;

/// How a track's packets are rewritten since its source has been connected to anew.
#[derive(Debug)]
pub struct Continuity {
    /// What readers know the track by; `None` if no packet has come yet.
    ssrc: Option<u32>,
    /// The payload type of the new session, and the one that readers were told.
    payload_type: (u8, u8),
    /// `None` until a packet of the new session has come.
    shift: Option<Shift>,
}

/// What is added, wrapping, to what a run of the source sends.
#[derive(Debug, Clone, Copy)]
struct Shift {
    /// That of the source in this run.
    ssrc: u32,
    sequence: u16,
    timestamp: u32,
}

impl Continuity {
    /// Readers know the track by `ssrc`, if they know it; what had payload type `payload_type.0` is given `payload_type.1`.
    pub fn new(ssrc: Option<u32>, payload_type: (u8, u8)) -> Self {
        Self { ssrc, payload_type, shift: None }
    }

    /// Rewrites the header of an RTP packet. Where the source begins anew, its first packet becomes the one that was to
    /// come: `standing`. Bytes that are too few for a header stay as they are.
    pub fn rewrite(&mut self, packet: &mut [u8], standing: impl FnOnce() -> Option<Standing>) {
        let Some(head) = packet.first_chunk_mut::<FIXED_LENGTH>() else { return };
        let (ssrc, sequence, timestamp) = (word(head, SSRC), half(head, SEQUENCE), word(head, TIMESTAMP));
        let shift = match self.shift.filter(|shift| shift.ssrc == ssrc) {
            Some(shift) => shift,
            None => {
                let next = standing().unwrap_or(Standing { sequence, timestamp_wrapped: timestamp });
                *self.shift.insert(Shift {
                    ssrc,
                    sequence: next.sequence.wrapping_sub(sequence),
                    timestamp: next.timestamp_wrapped.wrapping_sub(timestamp),
                })
            }
        };
        head[SEQUENCE].copy_from_slice(&sequence.wrapping_add(shift.sequence).to_be_bytes());
        head[TIMESTAMP].copy_from_slice(&timestamp.wrapping_add(shift.timestamp).to_be_bytes());
        head[SSRC].copy_from_slice(&self.ssrc.get_or_insert(ssrc).to_be_bytes());
        if head[1] & 0x7f == self.payload_type.0 {
            head[1] = head[1] & 0x80 | self.payload_type.1;
        }
    }

    /// Rewrites RTCP of the source: who speaks, and in sender reports the time and what was sent. False when that
    /// cannot be said yet, before the first packet: it must not go on.
    pub fn rewrite_rtcp(&self, compound: &mut [u8], packets: u32, octets: u32) -> bool {
        let (Some(shift), Some(ours)) = (self.shift, self.ssrc) else { return false };
        let mut rest = compound;
        // RFC 3550 §6.4.1: the length counts words after the first; who speaks is in the second.
        while let [_, kind, high, low, ..] = *rest {
            let length = 4 * (usize::from(u16::from_be_bytes([high, low])) + 1);
            let Some((packet, after)) = rest.split_at_mut_checked(length) else { break };
            let is_report = kind == SENDER_REPORT && packet.len() >= REPORT_OCTETS.end;
            if is_report {
                let timestamp = word(packet, REPORT_TIMESTAMP).wrapping_add(shift.timestamp);
                packet[REPORT_TIMESTAMP].copy_from_slice(&timestamp.to_be_bytes());
                packet[REPORT_PACKETS].copy_from_slice(&packets.to_be_bytes());
                packet[REPORT_OCTETS].copy_from_slice(&octets.to_be_bytes());
            }
            if is_report || packet.len() >= REPORTER.end && word(packet, REPORTER) == shift.ssrc {
                packet[REPORTER].copy_from_slice(&ours.to_be_bytes());
            }
            rest = after;
        }
        true
    }

    /// The header of a rewritten packet as the source sent it.
    pub fn as_sent(&self, header: &Header) -> Header {
        let mut sent = header.clone();
        if let Some(shift) = self.shift {
            sent.ssrc = shift.ssrc;
            sent.sequence = header.sequence.wrapping_sub(shift.sequence);
            sent.timestamp = header.timestamp.wrapping_sub(shift.timestamp);
        }
        sent
    }

    /// SSRC of the source itself, once it has sent.
    pub fn source_ssrc(&self) -> Option<u32> {
        self.shift.map(|shift| shift.ssrc)
    }
}

fn word(bytes: &[u8], at: Range<usize>) -> u32 {
    bytes[at].iter().fold(0, |word, &byte| word << 8 | u32::from(byte))
}

fn half(bytes: &[u8], at: Range<usize>) -> u16 {
    word(bytes, at) as u16
}

#[cfg(test)]
mod tests;
