//! Packets that are longer than a datagram may be, cut into packets that fit: aggregates into their NAL units, and
//! NAL units into fragmentation units (RFC 6184 §5.8, RFC 7798 §4.4.3).

use corecast_media::Codec;

use super::aggregated;
use crate::rtp::header::{self, FIXED_LENGTH};

const START: u8 = 0x80;
const END: u8 = 0x40;

/// Whether packets of this codec can be cut at all.
pub fn is_supported(codec: Codec) -> bool {
    matches!(codec, Codec::H264 | Codec::H265)
}

/// Emits `packet` as packets of at most `bytes_max` bytes, numbered from `sequence` on, and gives their count.
///
/// Timestamp, SSRC and CSRCs are those of the packet; the marker comes with the last one; a header extension goes
/// with the first, unless it leaves too little room; padding is dropped. Fragments of one unit are of equal length
/// but for the last, so that they can leave together. What is short enough, or cannot be cut, is emitted as it is,
/// under the new number; what is no RTP packet, untouched. `scratch` holds one packet at a time.
pub fn refragment(
    codec: Codec,
    packet: &[u8],
    sequence: u16,
    bytes_max: usize,
    scratch: &mut Vec<u8>,
    emit: &mut dyn FnMut(&[u8]),
) -> usize {
    let Ok(header) = header::parse(packet) else {
        emit(packet);
        return 1;
    };
    if packet.len() > bytes_max
        && let Some(syntax) = Syntax::of(codec)
        && let Some(mut cutter) = Cutter::new(syntax, packet, &header, bytes_max, scratch, emit)
        && let Some(shape) = syntax.shape(&packet[header.payload.clone()])
    {
        cutter.sequence = sequence;
        cutter.cut(&packet[header.payload], shape);
        return cutter.count;
    }
    scratch.clear();
    scratch.extend_from_slice(packet);
    scratch[2..4].copy_from_slice(&sequence.to_be_bytes());
    emit(scratch);
    1
}

/// How a codec lays out its NAL units.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Syntax {
    H264,
    /// Without DONL fields, as in [`super::h265`].
    H265,
}

/// What a payload is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shape {
    Single,
    /// STAP-A, AP; its lengths make sense, and there is a unit in it.
    Aggregate,
    /// FU-A, FU.
    Fragment,
}

impl Syntax {
    fn of(codec: Codec) -> Option<Self> {
        match codec {
            Codec::H264 => Some(Self::H264),
            Codec::H265 => Some(Self::H265),
            _ => None,
        }
    }

    /// Bytes of a unit's header, which is a payload's header too.
    fn header_bytes(self) -> usize {
        match self {
            Self::H264 => 1,
            Self::H265 => 2,
        }
    }

    /// Bytes before the data of a fragment.
    fn prefix_bytes(self) -> usize {
        self.header_bytes() + 1
    }

    fn type_of(self, unit: &[u8]) -> Option<u8> {
        match self {
            Self::H264 => unit.first().map(|byte| byte & 0x1f),
            Self::H265 => unit.first_chunk::<2>().map(|[byte, _]| byte >> 1 & 0x3f),
        }
    }

    /// A unit that may stand for itself, by its type.
    fn is_unit(self, unit: &[u8]) -> bool {
        self.type_of(unit).is_some_and(|nal_type| match self {
            Self::H264 => (1..=23).contains(&nal_type),
            Self::H265 => nal_type < 48,
        })
    }

    /// `None`: it cannot be cut (other kinds of packets, or malformed).
    fn shape(self, payload: &[u8]) -> Option<Shape> {
        if self.is_unit(payload) {
            return Some(Shape::Single);
        }
        match (self, self.type_of(payload)?) {
            (Self::H264, 24) | (Self::H265, 48) => {
                let units = self.units(payload);
                let (mut bytes, mut any) = (self.header_bytes(), false);
                for unit in units {
                    bytes += 2 + unit.len();
                    any |= !unit.is_empty();
                    if !unit.is_empty() && !self.is_unit(unit) {
                        return None;
                    }
                }
                (any && bytes == payload.len()).then_some(Shape::Aggregate)
            }
            (Self::H264, 28) | (Self::H265, 49) => {
                (payload.len() > self.prefix_bytes()).then_some(Shape::Fragment)
            }
            _ => None,
        }
    }

    /// The units of an aggregate.
    fn units(self, payload: &[u8]) -> impl Iterator<Item = &[u8]> {
        aggregated(payload.get(self.header_bytes()..).unwrap_or_default(), 0)
    }

    /// What precedes the data of a fragment of `unit`: the header of the payload, and that of the fragment, which
    /// neither starts nor ends the unit. Two bytes, or three.
    fn fragment_prefix(self, unit: &[u8]) -> [u8; 3] {
        match (self, unit) {
            (Self::H264, &[header, ..]) => [header & 0xe0 | 28, header & 0x1f, 0],
            (Self::H265, &[first, second, ..]) => [first & 0x81 | 49 << 1, second, first >> 1 & 0x3f],
            _ => [0; 3],
        }
    }
}

/// One packet on its way into several.
struct Cutter<'a> {
    syntax: Syntax,
    packet: &'a [u8],
    /// Of the first packet; with the extension if there is room.
    first_header: usize,
    /// Of the others: fixed part and CSRCs.
    header: usize,
    marker: bool,
    /// Bytes of payload that a packet has room for.
    room: usize,
    /// Of the first packet.
    sequence: u16,
    count: usize,
    scratch: &'a mut Vec<u8>,
    emit: &'a mut dyn FnMut(&[u8]),
}

impl<'a> Cutter<'a> {
    /// `None` when the headers leave no room.
    fn new(
        syntax: Syntax,
        packet: &'a [u8],
        header: &header::Header,
        bytes_max: usize,
        scratch: &'a mut Vec<u8>,
        emit: &'a mut dyn FnMut(&[u8]),
    ) -> Option<Self> {
        let short = FIXED_LENGTH + 4 * usize::from(packet.first()? & 0x0f);
        let whole = header.payload.start;
        let first_header = if whole <= bytes_max / 2 { whole } else { short };
        let room = bytes_max.checked_sub(first_header).filter(|&room| room > syntax.prefix_bytes())?;
        let (marker, sequence) = (header.marker, header.sequence);
        Some(Self {
            syntax,
            packet,
            first_header,
            header: short,
            marker,
            room,
            sequence,
            count: 0,
            scratch,
            emit,
        })
    }

    fn cut(&mut self, payload: &[u8], shape: Shape) {
        match shape {
            Shape::Single => self.unit(payload, true),
            Shape::Aggregate => {
                let mut units = self.syntax.units(payload).filter(|unit| !unit.is_empty()).peekable();
                while let Some(unit) = units.next() {
                    self.unit(unit, units.peek().is_none());
                }
            }
            Shape::Fragment if payload.len() <= self.room => self.packet(&[], payload, true),
            Shape::Fragment => {
                let (prefix, data) = payload.split_at(self.syntax.prefix_bytes());
                let mut padded = [0; 3];
                padded[..prefix.len()].copy_from_slice(prefix);
                self.fragments(padded, data, true);
            }
        }
    }

    /// A whole unit; `last` when nothing of the packet follows it.
    fn unit(&mut self, unit: &[u8], last: bool) {
        if unit.len() <= self.room {
            return self.packet(&[], unit, last);
        }
        let mut prefix = self.syntax.fragment_prefix(unit);
        prefix[self.syntax.header_bytes()] |= START | END;
        self.fragments(prefix, &unit[self.syntax.header_bytes()..], last);
    }

    /// `data` in fragments. Those at its edges get the start and end bits that `prefix` has for the whole of it.
    fn fragments(&mut self, prefix: [u8; 3], data: &[u8], last: bool) {
        let length = self.syntax.prefix_bytes();
        let pieces = data.len().div_ceil(self.room - length).max(1);
        let size = data.len().div_ceil(pieces).max(1);
        let mut rest = data;
        let mut keep = START;
        while !rest.is_empty() {
            let (piece, after) = rest.split_at(size.min(rest.len()));
            rest = after;
            if rest.is_empty() {
                keep |= END;
            }
            let mut prefix = prefix;
            prefix[length - 1] &= keep | !(START | END);
            self.packet(&prefix[..length], piece, last && rest.is_empty());
            keep = 0;
        }
    }

    fn packet(&mut self, prefix: &[u8], data: &[u8], last: bool) {
        let header = if self.count == 0 { self.first_header } else { self.header };
        let out = &mut *self.scratch;
        out.clear();
        out.extend_from_slice(&self.packet[..header]);
        out[0] &= !0x20; // no padding
        if header == self.header {
            out[0] &= !0x10; // no extension
        }
        out[1] = out[1] & 0x7f | if last && self.marker { 0x80 } else { 0 };
        out[2..4].copy_from_slice(&self.sequence.wrapping_add(self.count as u16).to_be_bytes());
        out.extend_from_slice(prefix);
        out.extend_from_slice(data);
        (self.emit)(out);
        self.count += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fuzzing::NalReader;

    const MAX: usize = 128;
    const ROOM: usize = MAX - FIXED_LENGTH;

    fn rtp(first: u8, after_header: &[u8]) -> Vec<u8> {
        let mut packet = vec![first, 0x80 | 96, 0xff, 0xfe, 1, 2, 3, 4, 5, 6, 7, 8];
        packet.extend_from_slice(after_header);
        packet
    }

    fn run(codec: Codec, packet: &[u8], sequence: u16, bytes_max: usize) -> Vec<Vec<u8>> {
        let mut packets = Vec::new();
        let mut scratch = Vec::new();
        let emit = &mut |packet: &[u8]| packets.push(packet.to_vec());
        let count = refragment(codec, packet, sequence, bytes_max, &mut scratch, emit);
        assert_eq!(count, packets.len());
        packets
    }

    fn unit(header: &[u8], length: usize) -> Vec<u8> {
        let noise = (0..length - header.len()).map(|n| (n * 7 + 3) as u8);
        header.iter().copied().chain(noise).collect()
    }

    fn aggregate(header: &[u8], units: &[&[u8]]) -> Vec<u8> {
        let mut payload = header.to_vec();
        for unit in units {
            payload.extend_from_slice(&(unit.len() as u16).to_be_bytes());
            payload.extend_from_slice(unit);
        }
        payload
    }

    /// Checks what must hold of all of them, and gives the units.
    fn check(codec: Codec, packets: &[Vec<u8>], sequence: u16, bytes_max: usize) -> Vec<Vec<u8>> {
        let mut reader = NalReader::new(codec);
        for (n, packet) in packets.iter().enumerate() {
            let header = header::parse(packet).unwrap();
            assert!(packet.len() <= bytes_max, "{} bytes", packet.len());
            assert_eq!(header.sequence, sequence.wrapping_add(n as u16));
            assert_eq!((header.timestamp, header.ssrc), (0x0102_0304, 0x0506_0708));
            assert_eq!(header.payload_type, 96);
            assert_eq!(header.marker, n + 1 == packets.len());
            assert!(reader.take(&packet[header.payload]), "{packet:x?}");
        }
        assert!(reader.is_whole());
        reader.units
    }

    #[test]
    fn single_units_are_cut_at_every_length_around_a_boundary() {
        for (codec, header) in [(Codec::H264, &[0x65][..]), (Codec::H265, &[0x26, 1])] {
            let data = ROOM - header.len() - 1;
            for length in (ROOM - 2..ROOM + 3)
                .chain(2 * data - 3..2 * data + 6)
                .chain(3 * data - 3..3 * data + 6)
                .chain([4_000, 65_000])
            {
                let unit = unit(header, length);
                let packets = run(codec, &rtp(0x80, &unit), 65_534, MAX);
                assert_eq!(check(codec, &packets, 65_534, MAX), [unit]);
                let least = if length <= ROOM { 1 } else { (length - header.len()).div_ceil(data) };
                assert_eq!(packets.len(), least, "{length}");
                // Equal but for the last: one GSO send takes them all.
                assert!(packets[..least - 1].iter().all(|packet| packet.len() == packets[0].len()));
                assert!(packets[least - 1].len() <= packets[0].len());
            }
        }
    }

    #[test]
    fn fragments_carry_the_header_bits_of_their_unit() {
        let packets = run(Codec::H264, &rtp(0x80, &unit(&[0x65], 200)), 0, MAX);
        let heads: Vec<_> = packets.iter().map(|packet| [packet[12], packet[13]]).collect();
        assert_eq!(heads, [[0x7c, 0x85], [0x7c, 0x45]]);
        let packets = run(Codec::H265, &rtp(0x80, &unit(&[0x27, 0xa3], 300)), 0, MAX);
        let heads: Vec<_> = packets.iter().map(|packet| [packet[12], packet[13], packet[14]]).collect();
        assert_eq!(heads, [[0x63, 0xa3, 0x93], [0x63, 0xa3, 0x13], [0x63, 0xa3, 0x53]]);
    }

    #[test]
    fn aggregates_fall_apart_into_their_units() {
        for (codec, head, nal) in
            [(Codec::H264, &[0x78][..], &[0x67][..]), (Codec::H265, &[0x60, 1], &[0x42, 1])]
        {
            let (small, exact, over, large) =
                (unit(nal, 5), unit(nal, ROOM), unit(nal, ROOM + 1), unit(nal, 1_000));
            let payload = aggregate(head, &[&small, &exact, &[], &over, &large, &small, &[]]);
            let packets = run(codec, &rtp(0x80, &payload), 65_530, MAX);
            let units = check(codec, &packets, 65_530, MAX);
            assert_eq!(units.iter().collect::<Vec<_>>(), [&small, &exact, &over, &large, &small]);
            assert_eq!(packets[0][12..], small);
            assert_eq!(packets[1][12..], exact);
            assert_eq!(
                packets[2].len() + packets[3].len(),
                2 * (12 + nal.len() + 1) + over.len() - nal.len()
            );
        }
    }

    #[test]
    fn fragments_are_cut_further_and_keep_their_edges() {
        for (codec, prefix) in [(Codec::H264, &[0x7c, 5][..]), (Codec::H265, &[0x62, 1, 19])] {
            for (edges, whole) in [(START, false), (0, false), (END, false), (START | END, true)] {
                for length in [ROOM + 1, 2 * ROOM - prefix.len(), 2 * ROOM - prefix.len() + 1, 1_000] {
                    let mut payload = unit(prefix, length);
                    payload[prefix.len() - 1] |= edges;
                    let packets = run(codec, &rtp(0x80, &payload), 7, MAX);
                    assert!(packets.len() > 1);
                    let at = FIXED_LENGTH + prefix.len() - 1;
                    let seen: Vec<_> = packets.iter().map(|packet| packet[at] & 0xc0).collect();
                    let last = seen.len() - 1;
                    assert_eq!(seen[0], edges & START);
                    assert_eq!(seen[last], edges & END);
                    assert!(seen[1..last].iter().all(|&edges| edges == 0));
                    let data: Vec<_> =
                        packets.iter().flat_map(|packet| packet[at + 1..].iter().copied()).collect();
                    assert_eq!(data, payload[prefix.len()..]);
                    if whole {
                        assert_eq!(check(codec, &packets, 7, MAX)[0].len(), length - 1);
                    }
                }
            }
        }
    }

    #[test]
    fn the_marker_stays_away_if_it_was_not_there() {
        let mut packet = rtp(0x80, &unit(&[0x65], 500));
        packet[1] = 96;
        assert!(run(Codec::H264, &packet, 0, MAX).iter().all(|packet| packet[1] == 96));
    }

    #[test]
    fn sources_go_with_all_packets_the_extension_with_the_first_and_padding_with_none() {
        let unit = unit(&[0x65], 300);
        let head = [&[9; 8][..], &[0xbe, 0xde, 0, 1, 7, 7, 7, 7]].concat();
        let packet = rtp(0xb2, &[&head[..], &unit, &[0, 0, 3]].concat());
        let packets = run(Codec::H264, &packet, 100, MAX);
        assert_eq!(check(Codec::H264, &packets, 100, MAX), [unit]);
        assert_eq!((packets[0][0], &packets[0][12..28]), (0x92, &head[..]));
        for packet in &packets[1..] {
            assert_eq!((packet[0], &packet[12..20]), (0x82, &[9; 8][..]));
        }
    }

    #[test]
    fn an_extension_that_leaves_no_room_is_dropped() {
        let unit = unit(&[0x65], 300);
        let mut head = vec![0xbe, 0xde, 0, 30];
        head.extend_from_slice(&[7; 120]);
        let packets = run(Codec::H264, &rtp(0x90, &[&head[..], &unit].concat()), 100, MAX);
        assert_eq!(check(Codec::H264, &packets, 100, MAX), [unit]);
        assert!(packets.iter().all(|packet| packet[0] == 0x80));
    }

    #[test]
    fn a_packet_that_only_padding_makes_too_long_loses_it() {
        let unit = unit(&[0x65], 20);
        let mut packet = rtp(0xa0, &unit);
        packet.extend_from_slice(&[0; 199]);
        packet.push(200);
        assert_eq!(run(Codec::H264, &packet, 3, MAX), [[&[0x80, 0xe0, 0, 3], &packet[4..32]].concat()]);
    }

    #[test]
    fn what_cannot_be_cut_only_gets_its_number() {
        let h264 = [
            vec![0; 500],                                            // type 0
            unit(&[0x79, 0, 1], 500),                                // STAP-B
            unit(&[0x7d, 0x85, 0, 1], 500),                          // FU-B
            unit(&[0x7f], 500),                                      // type 31
            aggregate(&[0x78], &[&[0x7c; 300], &[0x67; 300]]),       // a fragment in an aggregate
            [aggregate(&[0x78], &[&[0x67; 300]]), vec![0]].concat(), // a byte too many
            unit(&[0x78, 0xff, 0xff], 500),                          // a length past the end
            [&[0x78][..], &[0; 500]].concat(),                       // no unit at all
        ];
        let h265 = [
            unit(&[0x64, 1], 500),                           // PACI
            unit(&[0x7e, 1], 500),                           // type 63
            aggregate(&[0x60, 1], &[&[0x60; 300]]),          // an aggregate in an aggregate
            aggregate(&[0x60, 1], &[&[0x26; 300], &[0x26]]), // half a unit header
        ];
        let other = [unit(&[0x65], 500)];
        for (codec, payloads) in [(Codec::H264, &h264[..]), (Codec::H265, &h265), (Codec::Mjpeg, &other)] {
            for payload in payloads {
                let packet = rtp(0x80, payload);
                let renumbered = [&packet[..2], &[0x12, 0x34], &packet[4..]].concat();
                assert_eq!(run(codec, &packet, 0x1234, MAX), [renumbered], "{payload:x?}");
            }
        }
        // No RTP at all.
        for packet in [&[][..], &[0x80, 96, 0], &[0; 300]] {
            assert_eq!(run(Codec::H264, packet, 0x1234, MAX), [packet]);
        }
    }

    #[test]
    fn a_limit_that_leaves_no_room_for_data_cuts_nothing() {
        let packet = rtp(0x80, &unit(&[0x65], 40));
        for bytes_max in 0..=FIXED_LENGTH + 2 {
            assert_eq!(run(Codec::H264, &packet, 0xfffe, bytes_max), [&packet[..]]);
        }
        assert_eq!(run(Codec::H264, &packet, 0, FIXED_LENGTH + 3).len(), 39);
    }

    #[test]
    fn what_fits_only_gets_its_number() {
        let packet = rtp(0xb0, &[0xbe, 0xde, 0, 0, 0x7c, 5, 1, 2, 2]);
        let renumbered = [&packet[..2], &[0, 9], &packet[4..]].concat();
        assert_eq!(run(Codec::H264, &packet, 9, MAX), [renumbered]);
    }
}
