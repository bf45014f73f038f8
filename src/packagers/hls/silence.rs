//! Frames of silence, so that a rendition of sound goes on when its source does not.

use super::codec::CodecConfig;

/// One frame of silence, as long as the source's frames are. `None` for codecs that have none here.
pub(super) fn frame(config: &CodecConfig) -> Option<Vec<u8>> {
    match config {
        CodecConfig::Aac { facts, .. } => aac(facts.channels),
        // RFC 6716 §3.1: CELT, full band, 20 ms, one frame; the two bytes decode to silence.
        CodecConfig::Opus { channels } => Some(vec![if *channels == 2 { 0xfc } else { 0xf8 }, 0xff, 0xfe]),
        _ => None,
    }
}

/// A raw_data_block (ISO/IEC 14496-3 §4.4.2.1) whose elements have no scale factor bands at all.
fn aac(channels: u8) -> Option<Vec<u8>> {
    const SINGLE: u32 = 0;
    const PAIR: u32 = 1;
    const LOW_FREQUENCY: u32 = 3;
    // Table 1.19.
    let elements: &[u32] = match channels {
        1 => &[SINGLE],
        2 => &[PAIR],
        3 => &[SINGLE, PAIR],
        4 => &[SINGLE, PAIR, SINGLE],
        5 => &[SINGLE, PAIR, PAIR],
        6 => &[SINGLE, PAIR, PAIR, LOW_FREQUENCY],
        8 => &[SINGLE, PAIR, PAIR, PAIR, LOW_FREQUENCY],
        _ => return None,
    };
    let mut bits = Bits::default();
    let mut tags = [0; 4];
    for &element in elements {
        bits.put(element, 3);
        bits.put(tags[element as usize], 4);
        tags[element as usize] += 1;
        if element == PAIR {
            bits.put(0, 1); // common_window
            bits.channel();
        }
        bits.channel();
    }
    bits.put(7, 3); // ID_END
    Some(bits.bytes)
}

#[derive(Default)]
struct Bits {
    bytes: Vec<u8>,
    used: u32,
}

impl Bits {
    fn put(&mut self, value: u32, count: u32) {
        for bit in (0..count).rev() {
            if self.used.is_multiple_of(8) {
                self.bytes.push(0);
            }
            if let Some(last) = self.bytes.last_mut() {
                *last |= ((value >> bit & 1) << (7 - self.used % 8)) as u8;
            }
            self.used += 1;
        }
    }

    /// individual_channel_stream: gain, then ics_info with one long window and max_sfb 0, then no tools.
    fn channel(&mut self) {
        self.put(100, 8);
        self.put(0, 11);
        self.put(0, 3);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_of_aac_has_its_elements_and_its_end() {
        // 000 0000 | 01100100 | 11 zeros | 3 zeros | 111
        assert_eq!(aac(1), Some(vec![0b0000_0000, 0b1100_1000, 0, 0b0000_0111]));
        assert_eq!(aac(2).unwrap().len(), 7);
        assert_eq!(aac(7), None);
    }
}
