//! AV1 (RTP Payload Format For AV1 §4.4, §5).

use super::{UNIT_BYTES_MAX, Unit};

const SEQUENCE_HEADER: u8 = 1;
const TEMPORAL_DELIMITER: u8 = 2;
const TILE_LIST: u8 = 8;
const PADDING: u8 = 15;

/// Size fields are written with this many bytes, as their value is known only at the end of the OBU (AV1 §4.10.5
/// allows leading zeros).
const SIZE_BYTES: usize = 4;

#[derive(Debug, Default)]
pub(super) struct Assembler {
    data: Vec<u8>,
    timestamp_wrapped: Option<u32>,
    key: bool,
    damaged: bool,
    /// The OBU that the next packet continues.
    open: Option<Open>,
}

#[derive(Debug, Clone, Copy)]
struct Open {
    /// Where it begins in the unit.
    start: usize,
    /// Where its size field is to be written.
    size_at: usize,
}

impl Assembler {
    pub(super) fn push(
        &mut self,
        timestamp_wrapped: u32,
        marker: bool,
        lost: bool,
        payload: &[u8],
        emit: &mut dyn FnMut(Unit<'_>),
    ) {
        if lost {
            self.abandon_open();
        }
        let continues = self.timestamp_wrapped == Some(timestamp_wrapped);
        if !continues {
            self.damaged |= lost;
            self.deliver(emit);
        }
        // A packet that goes on with an OBU is not the first of its unit.
        self.damaged |= lost && (continues || payload.first().is_some_and(|head| head & 0x80 != 0));
        self.timestamp_wrapped = Some(timestamp_wrapped);
        if self.take(payload).is_none() {
            self.abandon_open();
            self.damaged = true;
        }
        if marker {
            self.deliver(emit);
        }
    }

    pub(super) fn flush(&mut self, emit: &mut dyn FnMut(Unit<'_>)) {
        self.damaged = true;
        self.deliver(emit);
    }

    fn deliver(&mut self, emit: &mut dyn FnMut(Unit<'_>)) {
        self.abandon_open();
        let timestamp_wrapped = self.timestamp_wrapped.take();
        if let Some(timestamp_wrapped) = timestamp_wrapped.filter(|_| !self.data.is_empty()) {
            emit(Unit {
                timestamp_wrapped,
                data: &self.data,
                key: self.key,
                damaged: self.damaged,
                sets: None,
            });
        }
        self.data.clear();
        (self.key, self.damaged) = (false, false);
    }

    fn abandon_open(&mut self) {
        if let Some(open) = self.open.take() {
            self.data.truncate(open.start);
            self.damaged = true;
        }
    }

    /// `None` when the payload is not as it should be.
    fn take(&mut self, payload: &[u8]) -> Option<()> {
        let (&aggregation, mut rest) = payload.split_first()?;
        let (continues, goes_on) = (aggregation & 0x80 != 0, aggregation & 0x40 != 0);
        let count = aggregation >> 4 & 3;
        let mut index = 0;
        if !continues {
            self.abandon_open();
        }
        while !rest.is_empty() {
            index += 1;
            // W tells how many elements there are, the last one then without a length; 0: all have one.
            let element = if count != 0 && index == count {
                std::mem::take(&mut rest)
            } else {
                let (length, after) = leb128(rest)?;
                let (element, after) = after.split_at_checked(length)?;
                rest = after;
                element
            };
            let is_last = rest.is_empty();
            self.element(element, continues && index == 1, goes_on && is_last)?;
        }
        Some(())
    }

    fn element(&mut self, mut element: &[u8], continues: bool, goes_on: bool) -> Option<()> {
        if self.data.len() + element.len() + SIZE_BYTES > UNIT_BYTES_MAX {
            return None;
        }
        let open = match (continues, self.open.take()) {
            (true, Some(open)) => open,
            // Its start was lost.
            (true, None) => {
                self.damaged = true;
                return Some(());
            }
            (false, _) => {
                let (&header, mut after) = element.split_first()?;
                let mut extension = None;
                if header & 4 != 0 {
                    let (&byte, rest) = after.split_first()?;
                    (extension, after) = (Some(byte), rest);
                }
                // Senders should leave the size out; it is dropped where they do not.
                if header & 2 != 0 {
                    after = leb128(after)?.1;
                }
                let start = self.data.len();
                self.data.push(header | 2);
                self.data.extend(extension);
                element = after;
                let size_at = self.data.len();
                self.data.extend_from_slice(&[0; SIZE_BYTES]);
                Open { start, size_at }
            }
        };
        self.data.extend_from_slice(element);
        if goes_on {
            self.open = Some(open);
        } else {
            self.complete(open);
        }
        Some(())
    }

    fn complete(&mut self, open: Open) {
        let size_at = open.size_at;
        let kind = self.data[open.start] >> 3 & 0x0f;
        if matches!(kind, TEMPORAL_DELIMITER | TILE_LIST | PADDING) {
            return self.data.truncate(open.start);
        }
        self.key |= kind == SEQUENCE_HEADER;
        let size = self.data.len() - size_at - SIZE_BYTES;
        for (n, byte) in self.data[size_at..size_at + SIZE_BYTES].iter_mut().enumerate() {
            *byte = (size >> (7 * n)) as u8 & 0x7f | if n + 1 < SIZE_BYTES { 0x80 } else { 0 };
        }
    }
}

/// AV1 §4.10.5; at most 32 bits.
fn leb128(bytes: &[u8]) -> Option<(usize, &[u8])> {
    let mut value = 0usize;
    for (n, &byte) in bytes.iter().take(5).enumerate() {
        value |= usize::from(byte & 0x7f) << (7 * n);
        if byte & 0x80 == 0 {
            return Some((value, &bytes[n + 1..]));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::super::Depacketizer;
    use super::super::tests::{run, track};
    use corecast_media::Codec;

    fn av1() -> Depacketizer {
        Depacketizer::new(&track(Codec::Av1, 90_000, "")).unwrap()
    }

    fn obu(header: u8, body: &[u8]) -> Vec<u8> {
        [&[header | 2, 0x80 | body.len() as u8, 0x80, 0x80, 0][..], body].concat()
    }

    #[test]
    fn obus_get_size_fields_and_delimiters_go() {
        let units = run(
            &mut av1(),
            &[
                (1, 9, false, &[0x28, 1]),
                (2, 9, false, &[0x68, 3, 0x08, 7, 8, 0x30, 1]), // W=2, Y: the second goes on
                (3, 9, true, &[0x90, 2, 3]),
            ],
        );
        assert_eq!(units.len(), 1);
        assert_eq!(units[0].data, [obu(0x08, &[7, 8]), obu(0x30, &[1, 2, 3])].concat());
        assert!(units[0].key);
    }

    #[test]
    fn lengths_and_own_size_fields_are_read() {
        // W=0: every element has a length; the OBUs have size fields of their own.
        let units = run(&mut av1(), &[(1, 9, true, &[0x00, 2, 0x12, 0, 4, 0x32, 2, 5, 6])]);
        assert_eq!(units[0].data, obu(0x30, &[5, 6]));
        assert!(!units[0].key && !units[0].damaged);
    }

    #[test]
    fn a_torn_obu_is_left_out() {
        let units = run(
            &mut av1(),
            &[
                (1, 9, false, &[0x50, 0x30, 1]),
                (3, 9, true, &[0x90, 2, 3]),
                (4, 12, true, &[0x10, 0x30, 4]),
                (5, 15, true, &[0x00, 9, 1]), // a length past the end
            ],
        );
        assert_eq!(units.len(), 1);
        assert_eq!((units[0].timestamp_wrapped, units[0].damaged), (12, false));
    }
}
