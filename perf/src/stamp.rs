//! The mark in the last 22 bytes of every packet of picture data: which stream, which frame, which part, sent when.
//!
//! Every byte has its top bit set, so that no start code can arise in it, and the head of the NAL unit (slice header,
//! FU header) is left as the encoder wrote it. Parameter sets are not marked: servers parse them.

pub const LEN: usize = 22;
const MAGIC: [u8; 2] = [0xc7, 0xa9];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// 21 bits
    pub stream: u32,
    /// 28 bits
    pub frame: u32,
    /// place of this packet among the marked packets of the frame, 14 bits
    pub index: u16,
    /// marked packets of the frame, 14 bits
    pub count: u16,
    /// CLOCK_MONOTONIC of the publisher's send call, 63 bits
    pub sent_ns: u64,
}

pub const FRAME_MASK: u32 = (1 << 28) - 1;

fn put(out: &mut [u8], mut v: u64) {
    for b in out {
        *b = 0x80 | (v & 0x7f) as u8;
        v >>= 7;
    }
}

fn get(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |v, b| v << 7 | u64::from(b & 0x7f))
}

impl Stamp {
    pub fn write(&self, out: &mut [u8]) {
        out[0..2].copy_from_slice(&MAGIC);
        put(&mut out[2..5], u64::from(self.stream));
        put(&mut out[5..9], u64::from(self.frame));
        put(&mut out[9..11], u64::from(self.index));
        put(&mut out[11..13], u64::from(self.count));
        put(&mut out[13..22], self.sent_ns);
    }

    /// Reads the mark at the end of a packet's payload.
    pub fn read(payload: &[u8]) -> Option<Self> {
        let s = payload.last_chunk::<LEN>()?;
        if s[0..2] != MAGIC {
            return None;
        }
        Some(Self {
            stream: get(&s[2..5]) as u32,
            frame: get(&s[5..9]) as u32,
            index: get(&s[9..11]) as u16,
            count: get(&s[11..13]) as u16,
            sent_ns: get(&s[13..22]),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trip_and_no_zero_byte() {
        let s = Stamp {
            stream: 1999,
            frame: FRAME_MASK,
            index: 16_000,
            count: 16_383,
            sent_ns: 1 << 62 | 12_345,
        };
        let mut p = vec![0u8; 60];
        s.write(&mut p[38..]);
        assert_eq!(Stamp::read(&p), Some(s));
        assert!(p[38..].iter().all(|b| b & 0x80 != 0));
        p[38] ^= 1;
        assert_eq!(Stamp::read(&p), None);
        assert_eq!(Stamp::read(&p[..10]), None);
    }
}
