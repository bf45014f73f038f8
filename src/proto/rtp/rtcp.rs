//! RTCP compound packets (RFC 3550 §6).

use corecast_media::NtpTime;
use nom::bytes::complete::take;
use nom::combinator::map;
use nom::multi::count;
use nom::number::complete::{be_i24, be_u8, be_u16, be_u32, be_u64};
use nom::{IResult, Parser};

const SENDER_REPORT: u8 = 200;
const RECEIVER_REPORT: u8 = 201;
const SOURCE_DESCRIPTION: u8 = 202;
const GOODBYE: u8 = 203;

/// SDES item type of the canonical name (§6.5.1).
const CNAME: u8 = 1;

/// Report blocks or sources that fit the five-bit count (§6.4.1).
pub const BLOCKS_MAX: usize = 31;

/// Why a datagram is not RTCP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RtcpError {
    #[error("RTCP packet at byte {offset} is cut short")]
    Truncated { offset: usize },
    #[error("RTCP version at byte {offset} is not 2")]
    Version { offset: usize },
    #[error("RTCP padding at byte {offset} does not fit the packet")]
    Padding { offset: usize },
}

/// One packet of a compound.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Packet<'a> {
    SenderReport(SenderReport),
    ReceiverReport(ReceiverReport),
    /// `(SSRC, CNAME)` of each chunk that has one.
    SourceDescription(Vec<(u32, &'a [u8])>),
    Goodbye(Vec<u32>),
    /// A packet type that says nothing to a relay.
    Other {
        packet_type: u8,
    },
}

/// Sender report (§6.4.1).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SenderReport {
    pub ssrc: u32,
    /// Wall-clock time of `rtp_timestamp`.
    pub ntp: NtpTime,
    pub rtp_timestamp: u32,
    /// Packets sent, wrapping.
    pub packets: u32,
    /// Payload octets sent, wrapping.
    pub octets: u32,
    pub blocks: Vec<ReportBlock>,
}

/// Receiver report (§6.4.2).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ReceiverReport {
    pub ssrc: u32,
    pub blocks: Vec<ReportBlock>,
}

/// Report on one source (§6.4.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ReportBlock {
    pub ssrc: u32,
    /// In 1/256, since the last report.
    pub fraction_lost: u8,
    /// 24 bits with sign on the wire.
    pub cumulative_lost: i32,
    /// Extended: cycles in the upper 16 bits.
    pub highest_sequence: u32,
    /// In ticks of the RTP clock.
    pub jitter: u32,
    /// Middle 32 bits of the NTP time of the last sender report; 0 if there was none.
    pub last_sender_report: u32,
    /// In 1/65536 s; 0 if there was none.
    pub delay_since_last_sender_report: u32,
}

/// The packets of a compound, one after the other; the iterator ends after an error. That the first one has
/// to be a report (§6.1) is not asked for: cameras send lone packets.
pub fn parse(datagram: &[u8]) -> impl Iterator<Item = Result<Packet<'_>, RtcpError>> {
    let mut rest = datagram;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let offset = datagram.len() - rest.len();
        let parsed = next_packet(rest, offset);
        rest = parsed.as_ref().map_or(&[][..], |(rest, _)| rest);
        Some(parsed.map(|(_, packet)| packet))
    })
}

fn next_packet(input: &[u8], offset: usize) -> Result<(&[u8], Packet<'_>), RtcpError> {
    let truncated = |_| RtcpError::Truncated { offset };
    let (rest, (first, packet_type, mut body)) = common_header(input).map_err(truncated)?;
    if first >> 6 != 2 {
        return Err(RtcpError::Version { offset });
    }
    if first & 0x20 != 0 {
        let padding = body.last().map_or(0, |&count| usize::from(count));
        // §6.4.1: a multiple of four that counts itself
        let kept =
            body.len().checked_sub(padding).filter(|_| padding > 0).ok_or(RtcpError::Padding { offset })?;
        body = &body[..kept];
    }
    let items = usize::from(first & 0x1f);
    let parsed = match packet_type {
        SENDER_REPORT => map(|i| sender_report(items, i), Packet::SenderReport).parse(body),
        RECEIVER_REPORT => map(|i| receiver_report(items, i), Packet::ReceiverReport).parse(body),
        SOURCE_DESCRIPTION => map(|i| source_description(items, i), Packet::SourceDescription).parse(body),
        GOODBYE => map(count(be_u32, items), Packet::Goodbye).parse(body),
        packet_type => Ok((body, Packet::Other { packet_type })),
    };
    Ok((rest, parsed.map_err(truncated)?.1))
}

/// §6.4.1: the length counts 32-bit words after the first.
fn common_header(i: &[u8]) -> IResult<&[u8], (u8, u8, &[u8])> {
    let (i, (first, packet_type, words)) = (be_u8, be_u8, be_u16).parse(i)?;
    let (i, body) = take(4 * usize::from(words)).parse(i)?;
    Ok((i, (first, packet_type, body)))
}

fn sender_report(blocks: usize, i: &[u8]) -> IResult<&[u8], SenderReport> {
    let (i, (ssrc, ntp, rtp_timestamp, packets, octets)) =
        (be_u32, be_u64, be_u32, be_u32, be_u32).parse(i)?;
    let (i, blocks) = count(report_block, blocks).parse(i)?;
    Ok((i, SenderReport { ssrc, ntp: NtpTime(ntp), rtp_timestamp, packets, octets, blocks }))
}

fn receiver_report(blocks: usize, i: &[u8]) -> IResult<&[u8], ReceiverReport> {
    let (i, (ssrc, blocks)) = (be_u32, count(report_block, blocks)).parse(i)?;
    Ok((i, ReceiverReport { ssrc, blocks }))
}

fn report_block(i: &[u8]) -> IResult<&[u8], ReportBlock> {
    let (i, (ssrc, fraction_lost, cumulative_lost, highest_sequence)) =
        (be_u32, be_u8, be_i24, be_u32).parse(i)?;
    let (i, (jitter, last_sender_report, delay_since_last_sender_report)) =
        (be_u32, be_u32, be_u32).parse(i)?;
    let block = ReportBlock {
        ssrc,
        fraction_lost,
        cumulative_lost,
        highest_sequence,
        jitter,
        last_sender_report,
        delay_since_last_sender_report,
    };
    Ok((i, block))
}

/// §6.5: chunks of items, each chunk ended by a zero and filled up to 32 bits.
fn source_description(chunks: usize, body: &[u8]) -> IResult<&[u8], Vec<(u32, &[u8])>> {
    let mut names = Vec::new();
    let mut i = body;
    for _ in 0..chunks {
        let (mut items, ssrc) = be_u32(i)?;
        loop {
            let (rest, item_type) = be_u8(items)?;
            if item_type == 0 {
                let at = body.len() - rest.len();
                // Some senders forget to fill up the last chunk.
                i = rest.get(at.next_multiple_of(4) - at..).unwrap_or_default();
                break;
            }
            let (rest, value) = nom::multi::length_data(be_u8).parse(rest)?;
            if item_type == CNAME {
                names.push((ssrc, value));
            }
            items = rest;
        }
    }
    Ok((i, names))
}

/// Appends a sender report and a source description with `cname` (at most 255 bytes of it are written).
///
/// # Panics
/// If there are more than [`BLOCKS_MAX`] blocks.
pub fn write_sender_report(report: &SenderReport, cname: &str, out: &mut Vec<u8>) {
    let start = begin(SENDER_REPORT, report.blocks.len(), out);
    out.extend_from_slice(&report.ssrc.to_be_bytes());
    out.extend_from_slice(&report.ntp.0.to_be_bytes());
    for word in [report.rtp_timestamp, report.packets, report.octets] {
        out.extend_from_slice(&word.to_be_bytes());
    }
    report.blocks.iter().for_each(|block| write_block(block, out));
    finish(start, out);
    write_source_description(report.ssrc, cname, out);
}

/// Appends a receiver report, which may have no blocks, and a source description with `cname`.
///
/// # Panics
/// If there are more than [`BLOCKS_MAX`] blocks.
pub fn write_receiver_report(ssrc: u32, blocks: &[ReportBlock], cname: &str, out: &mut Vec<u8>) {
    write_bare_receiver_report(ssrc, blocks, out);
    write_source_description(ssrc, cname, out);
}

/// Appends a goodbye after an empty receiver report, as a compound must begin with a report (§6.1).
pub fn write_goodbye(ssrc: u32, out: &mut Vec<u8>) {
    write_bare_receiver_report(ssrc, &[], out);
    let start = begin(GOODBYE, 1, out);
    out.extend_from_slice(&ssrc.to_be_bytes());
    finish(start, out);
}

fn write_bare_receiver_report(ssrc: u32, blocks: &[ReportBlock], out: &mut Vec<u8>) {
    let start = begin(RECEIVER_REPORT, blocks.len(), out);
    out.extend_from_slice(&ssrc.to_be_bytes());
    blocks.iter().for_each(|block| write_block(block, out));
    finish(start, out);
}

fn write_source_description(ssrc: u32, cname: &str, out: &mut Vec<u8>) {
    let start = begin(SOURCE_DESCRIPTION, 1, out);
    out.extend_from_slice(&ssrc.to_be_bytes());
    let cname = &cname.as_bytes()[..cname.len().min(255)];
    out.extend_from_slice(&[CNAME, cname.len() as u8]);
    out.extend_from_slice(cname);
    out.push(0);
    finish(start, out);
}

fn write_block(block: &ReportBlock, out: &mut Vec<u8>) {
    out.extend_from_slice(&block.ssrc.to_be_bytes());
    out.push(block.fraction_lost);
    out.extend_from_slice(&block.cumulative_lost.to_be_bytes()[1..]);
    let words = [
        block.highest_sequence,
        block.jitter,
        block.last_sender_report,
        block.delay_since_last_sender_report,
    ];
    for word in words {
        out.extend_from_slice(&word.to_be_bytes());
    }
}

/// Writes the common header with an open length and gives its place.
fn begin(packet_type: u8, items: usize, out: &mut Vec<u8>) -> usize {
    assert!(items <= BLOCKS_MAX, "{items} items do not fit one RTCP packet");
    let start = out.len();
    out.extend_from_slice(&[0x80 | items as u8, packet_type, 0, 0]);
    start
}

/// Fills up to 32 bits and writes the length.
fn finish(start: usize, out: &mut Vec<u8>) {
    out.resize(start + (out.len() - start).next_multiple_of(4), 0);
    let words = (out.len() - start) / 4 - 1;
    out[start + 2..start + 4].copy_from_slice(&(words as u16).to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(datagram: &[u8]) -> Result<Vec<Packet<'_>>, RtcpError> {
        parse(datagram).collect()
    }

    fn block(ssrc: u32) -> ReportBlock {
        ReportBlock {
            ssrc,
            fraction_lost: 7,
            cumulative_lost: -3,
            highest_sequence: 0x1_0002,
            jitter: 4,
            last_sender_report: 5,
            delay_since_last_sender_report: 6,
        }
    }

    #[test]
    fn what_is_written_is_read_back() {
        let report = SenderReport {
            ssrc: 1,
            ntp: NtpTime(0x1122_3344_5566_7788),
            rtp_timestamp: 2,
            packets: 3,
            octets: 4,
            blocks: vec![block(9)],
        };
        let mut out = Vec::new();
        write_sender_report(&report, "corecast", &mut out);
        write_receiver_report(1, &[block(8), block(9)], "corecast", &mut out);
        write_goodbye(1, &mut out);
        let cname = || Packet::SourceDescription(vec![(1, &b"corecast"[..])]);
        let want = vec![
            Packet::SenderReport(report),
            cname(),
            Packet::ReceiverReport(ReceiverReport { ssrc: 1, blocks: vec![block(8), block(9)] }),
            cname(),
            Packet::ReceiverReport(ReceiverReport { ssrc: 1, blocks: Vec::new() }),
            Packet::Goodbye(vec![1]),
        ];
        assert_eq!(all(&out), Ok(want));
    }

    #[test]
    fn cname_of_any_length_fills_whole_words() {
        for length in [0, 1, 2, 3, 4, 255, 300] {
            let (mut out, cname) = (Vec::new(), "x".repeat(length));
            write_receiver_report(1, &[], &cname, &mut out);
            assert_eq!(out.len() % 4, 0);
            let want = Packet::SourceDescription(vec![(1, &cname.as_bytes()[..length.min(255)])]);
            assert_eq!(all(&out).unwrap()[1], want, "{length}");
        }
    }

    #[test]
    fn unknown_packets_are_skipped_and_padding_is_left_out() {
        let datagram = [
            0x81, 205, 0, 2, 0, 0, 0, 1, 0, 0, 0, 2, // feedback
            0xa1, 203, 0, 2, 0, 0, 0, 7, 0, 0, 0, 4, // goodbye with four bytes of padding
        ];
        assert_eq!(all(&datagram), Ok(vec![Packet::Other { packet_type: 205 }, Packet::Goodbye(vec![7])]));
        assert_eq!(all(&[]), Ok(vec![]));
    }

    #[test]
    fn malformed_packets_are_refused_at_their_place() {
        for (datagram, want) in [
            (&[0x80, 201, 0][..], RtcpError::Truncated { offset: 0 }),
            (&[0x80, 201, 0, 1], RtcpError::Truncated { offset: 0 }),
            (&[0x40, 201, 0, 1, 0, 0, 0, 1], RtcpError::Version { offset: 0 }),
            (&[0x81, 201, 0, 1, 0, 0, 0, 1], RtcpError::Truncated { offset: 0 }), // a block is announced
            (&[0x80, 200, 0, 1, 0, 0, 0, 1], RtcpError::Truncated { offset: 0 }),
            (&[0x80, 201, 0, 1, 0, 0, 0, 1, 0x80], RtcpError::Truncated { offset: 8 }),
            (&[0xa0, 204, 0, 1, 0, 0, 0, 0], RtcpError::Padding { offset: 0 }),
            (&[0xa0, 204, 0, 1, 0, 0, 0, 5], RtcpError::Padding { offset: 0 }),
            (&[0xa0, 204, 0, 0], RtcpError::Padding { offset: 0 }),
            (&[0x81, 202, 0, 2, 0, 0, 0, 1, 1, 9, b'x', 0], RtcpError::Truncated { offset: 0 }),
        ] {
            assert_eq!(all(datagram), Err(want), "{datagram:x?}");
        }
    }
}
