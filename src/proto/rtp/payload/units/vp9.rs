//! VP9 (RFC 9628 §4.2), the lowest spatial layer: cameras send one.

use super::{UNIT_BYTES_MAX, Unit};

#[derive(Debug, Default)]
pub(super) struct Assembler {
    data: Vec<u8>,
    timestamp_wrapped: u32,
    key: bool,
    /// A frame has begun and nothing of it is missing so far.
    whole: bool,
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
        self.whole &= !lost && self.timestamp_wrapped == timestamp_wrapped;
        let Some(descriptor) = descriptor(payload) else {
            self.whole = false;
            return;
        };
        if descriptor.spatial_layer == 0 {
            if descriptor.begins {
                self.data.clear();
                (self.whole, self.key) = (true, descriptor.key);
                self.timestamp_wrapped = timestamp_wrapped;
            }
            self.whole &= self.data.len() + payload.len() <= UNIT_BYTES_MAX;
            if self.whole {
                self.data.extend_from_slice(&payload[descriptor.length..]);
            }
        }
        // A frame that lacks a piece cannot be decoded at all, unlike a picture of several slices.
        if marker {
            if self.whole && !self.data.is_empty() {
                emit(Unit { timestamp_wrapped, data: &self.data, key: self.key, damaged: false, sets: None });
            }
            self.flush();
        }
    }

    pub(super) fn flush(&mut self) {
        self.data.clear();
        self.whole = false;
    }
}

struct Descriptor {
    length: usize,
    begins: bool,
    key: bool,
    spatial_layer: u8,
}

fn descriptor(payload: &[u8]) -> Option<Descriptor> {
    let (&first, mut rest) = payload.split_first()?;
    let mut byte = || {
        let (&byte, after) = rest.split_first()?;
        rest = after;
        Some(byte)
    };
    let flexible = first & 0x10 != 0;
    if first & 0x80 != 0 && byte()? & 0x80 != 0 {
        byte()?; // PictureID of 15 bits
    }
    let mut spatial_layer = 0;
    if first & 0x20 != 0 {
        spatial_layer = byte()? >> 1 & 7;
        if !flexible {
            byte()?; // TL0PICIDX
        }
    }
    if flexible && first & 0x40 != 0 {
        for _ in 0..3 {
            if byte()? & 1 == 0 {
                break; // P_DIFF without N
            }
        }
    }
    if first & 0x02 != 0 {
        let structure = byte()?;
        if structure & 0x10 != 0 {
            for _ in 0..4 * (1 + usize::from(structure >> 5)) {
                byte()?;
            }
        }
        if structure & 0x08 != 0 {
            for _ in 0..byte()? {
                for _ in 0..byte()? >> 2 & 3 {
                    byte()?;
                }
            }
        }
    }
    let length = payload.len() - rest.len();
    let (begins, key) = (first & 0x08 != 0, first & 0x40 == 0);
    Some(Descriptor { length, begins, key, spatial_layer })
}

#[cfg(test)]
mod tests {
    use super::super::Depacketizer;
    use super::super::tests::{run, track};
    use corecast_media::Codec;

    #[test]
    fn frames_are_put_together_and_torn_ones_left_out() {
        let mut vp9 = Depacketizer::new(&track(Codec::Vp9, 90_000, "")).unwrap();
        let units = run(
            &mut vp9,
            &[
                (1, 9, false, &[0x88, 0x85, 0x01, 1, 2]), // 15-bit PictureID, start of a key frame
                (2, 9, true, &[0x84, 0x05, 3]),
                (3, 12, false, &[0x4a, 0x18, 0, 1, 0, 2, 1, 4, 7, 4]), // scalability structure: a size, one group entry
                (4, 12, true, &[0x44, 5]),
                (5, 15, false, &[0x48, 6]),
                (7, 15, true, &[0x44, 7]),
                (8, 18, true, &[0x7c, 0x01, 0x00, 8]), // flexible mode: P_DIFF twice
                (9, 21, true, &[0x8c]),
            ],
        );
        let got: Vec<_> =
            units.iter().map(|unit| (unit.timestamp_wrapped, unit.data.clone(), unit.key)).collect();
        assert_eq!(got.len(), 3, "{got:?}");
        assert_eq!(got[0], (9, vec![1, 2, 3], true));
        assert_eq!((got[1].0, got[1].2), (12, false));
        assert_eq!(got[1].1.last(), Some(&5));
        assert_eq!(got[2].0, 18);
    }
}
