//! AudioSpecificConfig of MPEG-4 Audio (ISO/IEC 14496-3 §1.6.2.1).

use super::bits::BitReader;

/// Table 1.18: sampling frequencies in Hz by index.
const SAMPLE_RATES: [u32; 13] =
    [96_000, 88_200, 64_000, 48_000, 44_100, 32_000, 24_000, 22_050, 16_000, 12_000, 11_025, 8_000, 7_350];

/// What an AudioSpecificConfig says about the sound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AudioSpecificConfig {
    /// 2 is AAC LC, 5 SBR (HE-AAC), 29 PS (HE-AAC v2).
    pub object_type: u8,
    /// Of the core coder, in Hz; with SBR the output runs at twice this rate.
    pub sample_rate: u32,
    pub channels: u8,
}

impl AudioSpecificConfig {
    /// `None` if cut short or with reserved values. A channel layout given only in a program config element
    /// is not resolved.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let r = &mut BitReader::raw(bytes);
        let object_type = match r.bits(5)? {
            31 => 32 + r.bits(6)?, // §1.6.2.1: escape value
            plain => plain,
        };
        let sample_rate = match r.bits(4)? as usize {
            15 => r.bits(24)?,
            index => *SAMPLE_RATES.get(index)?,
        };
        // Table 1.19
        let channels = match r.bits(4)? as u8 {
            count @ 1..=6 => count,
            7 => 8,
            _ => return None,
        };
        Some(Self { object_type: object_type as u8, sample_rate, channels })
            .filter(|config| config.sample_rate > 0)
    }

    /// Parses the hexadecimal digits of the `config` format parameter (RFC 3640 §4.1).
    pub fn from_hex(digits: &str) -> Option<Self> {
        Self::parse(&config_bytes(digits)?)
    }
}

/// The bytes of a `config` format parameter; at most 64 of them. `None` if there are other characters in it.
pub fn config_bytes(digits: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let pairs = digits.as_bytes().chunks_exact(2).take(64);
    pairs.map(|pair| u8::try_from(digit(pair[0])? << 4 | digit(pair[1])?).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn configs_of_real_encoders_are_read() {
        for (hex, object_type, sample_rate, channels) in [
            ("1190", 2, 48_000, 2),
            ("119056E500", 2, 48_000, 2),
            ("1408", 2, 16_000, 1),
            ("1588", 2, 8_000, 1),
            ("1210", 2, 44_100, 2),
            ("2B920800", 5, 22_050, 2),
        ] {
            let want = AudioSpecificConfig { object_type, sample_rate, channels };
            assert_eq!(AudioSpecificConfig::from_hex(hex), Some(want), "{hex}");
        }
    }

    #[test]
    fn malformed_configs_are_refused() {
        for hex in ["", "1", "11", "zz90", "16F0", "1180", "17800000000800", "é1190"] {
            assert_eq!(AudioSpecificConfig::from_hex(hex), None, "{hex}");
        }
    }

    #[test]
    fn explicit_sampling_frequency_is_read() {
        // type 2, index 15, 24 bits of 12 345 Hz, one channel
        let bits: u64 = 2 << 35 | 15 << 31 | 12_345 << 7 | 1 << 3;
        let config = AudioSpecificConfig::parse(&bits.to_be_bytes()[3..]).unwrap();
        assert_eq!((config.sample_rate, config.channels), (12_345, 1));
    }
}
