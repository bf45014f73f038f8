//! Bits of a NAL unit, emulation prevention removed on the way (ITU-T H.264 §7.3.1, §9.1). Never reads past
//! the end.

/// An SPS is short; what lies further on is not parsed, so hostile lengths cost nothing.
const BYTES_MAX: usize = 1024;

pub(super) struct BitReader {
    bytes: Vec<u8>,
    at: usize,
}

impl BitReader {
    /// Reads raw bits, without emulation prevention.
    pub(super) fn raw(bytes: &[u8]) -> Self {
        Self { bytes: bytes[..bytes.len().min(BYTES_MAX)].to_vec(), at: 0 }
    }

    /// Reads the payload of a NAL unit: a 3 after two zeros is not part of it.
    pub(super) fn rbsp(payload: &[u8]) -> Self {
        let mut bytes = Vec::with_capacity(payload.len().min(BYTES_MAX));
        let mut zeros = 0;
        for &byte in payload.iter().take(BYTES_MAX) {
            if zeros >= 2 && byte == 3 {
                zeros = 0;
                continue;
            }
            zeros = if byte == 0 { zeros + 1 } else { 0 };
            bytes.push(byte);
        }
        Self { bytes, at: 0 }
    }

    /// `u(n)` for up to 32 bits.
    pub(super) fn bits(&mut self, count: u32) -> Option<u32> {
        let mut value = 0;
        for _ in 0..count {
            value = value << 1 | u32::from(self.flag()?);
        }
        Some(value)
    }

    /// `u(1)`.
    pub(super) fn flag(&mut self) -> Option<bool> {
        let byte = *self.bytes.get(self.at / 8)?;
        let bit = byte >> (7 - self.at % 8) & 1;
        self.at += 1;
        Some(bit == 1)
    }

    pub(super) fn skip(&mut self, count: u32) -> Option<()> {
        let at = self.at.checked_add(count as usize)?;
        (at <= self.bytes.len() * 8).then(|| self.at = at)
    }

    /// `ue(v)`; codes of more than 32 bits are refused.
    pub(super) fn ue(&mut self) -> Option<u32> {
        let mut zeros = 0;
        while !self.flag()? {
            zeros += 1;
            if zeros > 31 {
                return None;
            }
        }
        let suffix = self.bits(zeros)?;
        Some((1u32 << zeros) - 1 + suffix)
    }

    /// Passes over `count` codes of either kind, `ue(v)` or `se(v)`.
    pub(super) fn skip_codes(&mut self, count: u32) -> Option<()> {
        for _ in 0..count {
            self.ue()?;
        }
        Some(())
    }

    /// `se(v)`.
    pub(super) fn se(&mut self) -> Option<i32> {
        let code = i64::from(self.ue()?);
        let magnitude = (code + 1) / 2;
        i32::try_from(if code % 2 == 1 { magnitude } else { -magnitude }).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_golomb_codes_are_read() {
        // 1 010 011 00100 00101, then 1 of padding
        let mut reader = BitReader::raw(&[0b1010_0110, 0b0100_0010, 0b1100_0000]);
        let codes: Vec<_> = (0..5).map(|_| reader.ue().unwrap()).collect();
        assert_eq!(codes, [0, 1, 2, 3, 4]);
        let mut reader = BitReader::raw(&[0b1010_0110, 0b0100_0010, 0b1100_0000]);
        let codes: Vec<_> = (0..5).map(|_| reader.se().unwrap()).collect();
        assert_eq!(codes, [0, 1, -1, 2, -2]);
    }

    #[test]
    fn the_end_and_overlong_codes_give_nothing() {
        assert_eq!(BitReader::raw(&[]).flag(), None);
        assert_eq!(BitReader::raw(&[0xff]).bits(9), None);
        assert_eq!(BitReader::raw(&[0; 9]).ue(), None);
        assert_eq!(BitReader::raw(&[0xff]).skip(9), None);
        let mut longest = BitReader::raw(&[0, 0, 0, 1, 0xff, 0xff, 0xff, 0xff]);
        assert_eq!(longest.ue(), Some(u32::MAX - 1));
    }

    #[test]
    fn emulation_prevention_is_removed() {
        let mut reader = BitReader::rbsp(&[0, 0, 3, 1, 0, 0, 3]);
        assert_eq!(reader.bits(32), Some(0x0000_0100));
        assert_eq!(reader.bits(8), Some(0));
        assert_eq!(reader.flag(), None);
    }
}
