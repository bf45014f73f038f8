//! RTP fixed header and extension (RFC 3550 §5.1 and §5.3.1). Hot: once per packet.

use std::ops::Range;

use nom::bytes::complete::take;
use nom::combinator::cond;
use nom::multi::length_data;
use nom::number::complete::{be_u8, be_u16, be_u32};
use nom::sequence::preceded;
use nom::{IResult, Parser};

/// Bytes of the fixed header.
pub const FIXED_LENGTH: usize = 12;

/// What one datagram says about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    pub marker: bool,
    /// 0 to 127.
    pub payload_type: u8,
    pub sequence: u16,
    /// Wraps at 32 bits.
    pub timestamp: u32,
    pub ssrc: u32,
    /// Where the payload lies in the datagram, padding left out; may be empty.
    pub payload: Range<usize>,
}

/// Why a datagram is not RTP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HeaderError {
    #[error("RTP packet is cut short")]
    Truncated,
    #[error("RTP version is not 2")]
    Version,
    #[error("RTP padding count {count} does not fit the packet")]
    Padding { count: u8 },
}

struct Fixed {
    first: u8,
    marker_and_type: u8,
    sequence: u16,
    timestamp: u32,
    ssrc: u32,
}

/// Parses the header of one datagram.
///
/// # Errors
/// See [`HeaderError`].
#[inline]
pub fn parse(datagram: &[u8]) -> Result<Header, HeaderError> {
    let (rest, fixed) = fixed_header(datagram).map_err(|_| HeaderError::Truncated)?;
    if fixed.first >> 6 != 2 {
        return Err(HeaderError::Version);
    }
    let padding = match (fixed.first & 0x20 != 0, rest.last()) {
        (false, _) => 0,
        (true, Some(&count)) if count > 0 && usize::from(count) <= rest.len() => count, // §5.1: it counts itself
        (true, count) => return Err(HeaderError::Padding { count: count.copied().unwrap_or(0) }),
    };
    Ok(Header {
        marker: fixed.marker_and_type & 0x80 != 0,
        payload_type: fixed.marker_and_type & 0x7f,
        sequence: fixed.sequence,
        timestamp: fixed.timestamp,
        ssrc: fixed.ssrc,
        payload: datagram.len() - rest.len()..datagram.len() - usize::from(padding),
    })
}

fn fixed_header(i: &[u8]) -> IResult<&[u8], Fixed> {
    let (i, (first, marker_and_type, sequence, timestamp, ssrc)) =
        (be_u8, be_u8, be_u16, be_u32, be_u32).parse(i)?;
    let (i, _csrc) = take(4 * usize::from(first & 0x0f)).parse(i)?;
    let extension = preceded(be_u16, be_u16.map(|words| 4 * usize::from(words)));
    let (i, _) = cond(first & 0x10 != 0, length_data(extension)).parse(i)?;
    Ok((i, Fixed { first, marker_and_type, sequence, timestamp, ssrc }))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: [u8; 14] = [0x80, 0xe0, 0x12, 0x34, 0, 0, 0, 9, 0xde, 0xad, 0xbe, 0xef, 1, 2];

    #[test]
    fn plain_header_is_read() {
        let want = Header {
            marker: true,
            payload_type: 96,
            sequence: 0x1234,
            timestamp: 9,
            ssrc: 0xdead_beef,
            payload: 12..14,
        };
        assert_eq!(parse(&PLAIN), Ok(want));
    }

    #[test]
    fn csrc_extension_and_padding_are_left_out_of_the_payload() {
        let mut datagram = PLAIN[..12].to_vec();
        datagram[0] = 0x80 | 0x20 | 0x10 | 2;
        datagram.extend_from_slice(&[0; 8]); // two CSRC
        datagram.extend_from_slice(&[0xbe, 0xde, 0, 1, 0, 0, 0, 0]); // one word of extension
        datagram.extend_from_slice(&[7, 7, 7, 0, 0, 3]);
        assert_eq!(parse(&datagram).unwrap().payload, 28..31);
    }

    #[test]
    fn malformed_packets_are_refused() {
        let with_first = |first: u8| [&[first], &PLAIN[1..]].concat();
        for (datagram, want) in [
            (Vec::new(), HeaderError::Truncated),
            (PLAIN[..11].to_vec(), HeaderError::Truncated),
            (with_first(0x81), HeaderError::Truncated),
            (with_first(0x90), HeaderError::Truncated),
            (with_first(0x40), HeaderError::Version),
            (with_first(0x00), HeaderError::Version),
            ([&with_first(0xa0)[..12], &[0]].concat(), HeaderError::Padding { count: 0 }),
            ([&with_first(0xa0)[..12], &[3, 3]].concat(), HeaderError::Padding { count: 3 }),
            (with_first(0xa0)[..12].to_vec(), HeaderError::Padding { count: 0 }),
        ] {
            assert_eq!(parse(&datagram), Err(want), "{datagram:x?}");
        }
    }

    #[test]
    fn padding_may_leave_an_empty_payload() {
        let datagram = [&[0xa0], &PLAIN[1..12], &[0, 2]].concat();
        assert_eq!(parse(&datagram).unwrap().payload, 12..12);
    }
}
