//! Framing of media inside the RTSP connection (RFC 2326 §10.12). Hot: once per packet.

use std::ops::Range;

/// Bytes before the payload of a frame: `$`, channel, 16-bit length.
pub const HEADER: usize = 4;

/// First byte of a frame.
pub const MAGIC: u8 = b'$';

/// What stands at the front of the received bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// A frame, or nothing yet, has begun; at least this many bytes are missing.
    NeedMore(usize),
    /// A whole frame: its payload is `input[payload]`, the next one begins at `consumed`.
    Media { channel: u8, payload: Range<usize>, consumed: usize },
    /// Not a frame: a message, or garbage.
    NotMedia,
}

/// Looks at the front of `input`. A frame may have an empty payload.
#[inline]
pub fn next_frame(input: &[u8]) -> Frame {
    match *input {
        [MAGIC, channel, high, low, ref rest @ ..] => {
            let length = usize::from(u16::from_be_bytes([high, low]));
            if rest.len() < length {
                return Frame::NeedMore(length - rest.len());
            }
            Frame::Media { channel, payload: HEADER..HEADER + length, consumed: HEADER + length }
        }
        [] | [MAGIC, ..] => Frame::NeedMore(HEADER - input.len()),
        _ => Frame::NotMedia,
    }
}

/// The bytes to put before a payload of `length` bytes.
#[inline]
pub fn write_header(channel: u8, length: u16) -> [u8; HEADER] {
    let [high, low] = length.to_be_bytes();
    [MAGIC, channel, high, low]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_cut_at_any_length_of_input() {
        let mut input = write_header(2, 3).to_vec();
        input.extend_from_slice(b"abcRTSP");
        let want = [4, 3, 2, 1, 3, 2, 1];
        for (length, missing) in want.into_iter().enumerate() {
            assert_eq!(next_frame(&input[..length]), Frame::NeedMore(missing), "{length} bytes");
        }
        assert_eq!(next_frame(&input), Frame::Media { channel: 2, payload: 4..7, consumed: 7 });
        assert_eq!(next_frame(&input[7..]), Frame::NotMedia);
    }

    #[test]
    fn empty_and_largest_payloads_are_frames() {
        assert_eq!(next_frame(b"$\x01\0\0"), Frame::Media { channel: 1, payload: 4..4, consumed: 4 });
        let mut input = write_header(255, 65_535).to_vec();
        input.resize(HEADER + 65_535, 0);
        let want = Frame::Media { channel: 255, payload: 4..65_539, consumed: 65_539 };
        assert_eq!(next_frame(&input), want);
    }
}
