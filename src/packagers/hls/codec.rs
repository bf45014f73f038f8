//! What a decoder has to know of a track before its first sample, and how playlists name it.

use bytes::Bytes;
use corecast_media::codec::{aac::AudioSpecificConfig, av1, h264, h265, vp9};
use corecast_media::{Codec, Track};
use corecast_proto::rtp::payload::units::{NAL_LENGTH_BYTES, ParameterSets};

/// Audio object types that browsers decode (ISO/IEC 14496-3 §1.5.1): LC, SBR, PS.
const AAC_TYPES: [u8; 3] = [2, 5, 29];

/// The configuration of one track. Two that differ need different initialisation sections.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CodecConfig {
    H264 {
        sps: Bytes,
        pps: Vec<Bytes>,
        facts: h264::Sps,
    },
    H265 {
        vps: Bytes,
        sps: Bytes,
        pps: Vec<Bytes>,
        facts: h265::Sps,
    },
    Av1 {
        /// The sequence header OBU, with its size field.
        obu: Bytes,
        facts: av1::SequenceHeader,
    },
    Vp9(vp9::KeyFrame),
    Aac {
        /// AudioSpecificConfig.
        config: Bytes,
        facts: AudioSpecificConfig,
    },
    Opus {
        channels: u8,
    },
    Ac3 {
        /// The bytes of the first frame that tell its layout (ATSC A/52 §5.3).
        head: [u8; 8],
    },
}

impl CodecConfig {
    /// What is known so far, given a key unit of the track, the parameter sets or the AudioSpecificConfig that hold for
    /// it. `None` until everything is there, or when it cannot be read.
    pub fn of(
        track: &Track,
        sets: Option<&ParameterSets>,
        audio_config: Option<&[u8]>,
        key_unit: &[u8],
    ) -> Option<Self> {
        let copy = Bytes::copy_from_slice;
        match track.codec {
            Codec::H264 => {
                let sets = sets.filter(|sets| sets.are_complete(Codec::H264))?;
                let pps = sets.pps.iter().map(|pps| copy(pps)).collect();
                Some(Self::H264 { sps: copy(&sets.sps), pps, facts: h264::Sps::parse(&sets.sps)? })
            }
            Codec::H265 => {
                let sets = sets.filter(|sets| sets.are_complete(Codec::H265))?;
                let pps = sets.pps.iter().map(|pps| copy(pps)).collect();
                let facts = h265::Sps::parse(&sets.sps)?;
                Some(Self::H265 { vps: copy(&sets.vps), sps: copy(&sets.sps), pps, facts })
            }
            Codec::Av1 => {
                let (obu, payload) = sequence_header(key_unit)?;
                Some(Self::Av1 { obu: copy(obu), facts: av1::SequenceHeader::parse(payload)? })
            }
            Codec::Vp9 => Some(Self::Vp9(vp9::KeyFrame::parse(key_unit)?)),
            Codec::Mpeg4Audio | Codec::Mpeg4AudioLatm => {
                let config = audio_config?;
                let facts = AudioSpecificConfig::parse(config)?;
                Some(Self::Aac { config: copy(config), facts })
                    .filter(|_| AAC_TYPES.contains(&facts.object_type))
            }
            // RFC 7587 §7: the description always says two; whether they differ, sprop-stereo says.
            Codec::Opus => {
                let stereo = corecast_proto::sdp::fmtp::get(&track.fmtp, "sprop-stereo") == Some("1");
                Some(Self::Opus {
                    channels: if stereo { 2 } else { track.channels.unwrap_or(2).clamp(1, 2) },
                })
            }
            Codec::Ac3 => Some(Self::Ac3 { head: *key_unit.first_chunk()? }),
            _ => None,
        }
    }

    /// Whether a track of this codec can be in the fMP4 variants at all; G.711 and the like cannot.
    pub fn is_supported(codec: Codec) -> bool {
        matches!(
            codec,
            Codec::H264
                | Codec::H265
                | Codec::Av1
                | Codec::Vp9
                | Codec::Mpeg4Audio
                | Codec::Mpeg4AudioLatm
                | Codec::Opus
                | Codec::Ac3
        )
    }

    /// The name of the `CODECS` attribute (RFC 6381, and what each codec's file format says).
    pub fn codecs(&self) -> String {
        match self {
            Self::H264 { sps, .. } => {
                let byte = |at| sps.get(at).copied().unwrap_or(0);
                format!("avc1.{:02x}{:02x}{:02x}", byte(1), byte(2), byte(3))
            }
            Self::H265 { facts, .. } => h265_codecs(&facts.general),
            Self::Av1 { facts, .. } => format!(
                "av01.{}.{:02}{}.{:02}",
                facts.profile,
                facts.level_index,
                if facts.tier { 'H' } else { 'M' },
                facts.bit_depth
            ),
            Self::Vp9(key) => format!("vp09.{:02}.{:02}.{:02}", key.profile, key.level(), key.bit_depth),
            Self::Aac { facts, .. } => format!("mp4a.40.{}", facts.object_type),
            Self::Opus { .. } => "opus".to_owned(),
            Self::Ac3 { .. } => "ac-3".to_owned(),
        }
    }

    /// Width and height of pictures, in pixels.
    pub fn resolution(&self) -> Option<(u32, u32)> {
        match self {
            Self::H264 { facts, .. } => Some((facts.width, facts.height)),
            Self::H265 { facts, .. } => Some((facts.width, facts.height)),
            Self::Av1 { facts, .. } => Some((facts.width, facts.height)),
            Self::Vp9(key) => Some((key.width, key.height)),
            Self::Aac { .. } | Self::Opus { .. } | Self::Ac3 { .. } => None,
        }
    }

    /// Channels of sound.
    pub fn channels(&self) -> Option<u8> {
        match self {
            Self::Aac { facts, .. } => Some(facts.channels),
            Self::Opus { channels } => Some(*channels),
            Self::Ac3 { head } => {
                const FULL: [u8; 8] = [2, 1, 2, 3, 3, 4, 4, 5];
                let (_, acmod, lfe) = ac3_layout(head);
                Some(FULL[usize::from(acmod)] + u8::from(lfe))
            }
            _ => None,
        }
    }

    /// How many pictures may be shown before one that is sent after them; `None` when the stream does not say.
    pub(super) fn reorder_depth(&self) -> Option<u32> {
        match self {
            Self::H264 { facts, .. } => facts.max_num_reorder,
            Self::H265 { facts, .. } => Some(facts.max_num_reorder),
            // Hidden frames travel in the unit of the shown one: order of sending is order of showing.
            _ => Some(0),
        }
    }

    /// How many ticks a frame of sound lasts.
    pub(super) fn frame_ticks(&self, clock_rate: u32, frame: &[u8]) -> u32 {
        let samples =
            |samples: u64, rate: u32| (samples * u64::from(clock_rate) / u64::from(rate.max(1))) as u32;
        match self {
            Self::Aac { facts, .. } => samples(1024, facts.sample_rate),
            Self::Opus { .. } => {
                let lasts = corecast_media::codec::opus::packet_duration(frame).unwrap_or_default();
                samples(lasts.as_micros() as u64, 1_000_000)
            }
            Self::Ac3 { .. } => 1536,
            _ => 0,
        }
    }
}

/// The sequence header OBU of a unit, whole and its payload alone.
fn sequence_header(unit: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut rest = unit;
    while let Some((&header, _)) = rest.split_first() {
        let head = if header & 4 != 0 { 2 } else { 1 };
        let size_field = rest.get(head..head + 4)?;
        let size = size_field
            .iter()
            .enumerate()
            .fold(0, |size, (n, byte)| size | usize::from(byte & 0x7f) << (7 * n));
        let payload = rest.get(head + 4..head + 4 + size)?;
        if header >> 3 & 0x0f == 1 {
            return Some((&rest[..head + 4 + size], payload));
        }
        rest = &rest[head + 4 + size..];
    }
    None
}

/// ISO/IEC 14496-15 annex E.3.
fn h265_codecs(general: &[u8; 12]) -> String {
    let space = ["", "A", "B", "C"][usize::from(general[0] >> 6)];
    let compatibility = u32::from_be_bytes([general[1], general[2], general[3], general[4]]).reverse_bits();
    let tier = if general[0] & 0x20 != 0 { 'H' } else { 'L' };
    let mut name = format!("hvc1.{space}{}.{compatibility:X}.{tier}{}", general[0] & 0x1f, general[11]);
    let constraints = &general[5..11];
    let used = constraints.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    for byte in &constraints[..used] {
        name.push_str(&format!(".{byte:X}"));
    }
    name
}

/// bsmod, acmod and the presence of the low-frequency channel, from the bit stream information (ATSC A/52 §5.3.2).
pub(super) fn ac3_layout(head: &[u8; 8]) -> (u8, u8, bool) {
    let bits = u32::from_be_bytes([head[5], head[6], head[7], 0]);
    let (bsmod, acmod) = ((bits >> 24 & 7) as u8, (bits >> 21 & 7) as u8);
    // Mix levels precede the flag, depending on the channels that there are.
    let mut skip = 0;
    if acmod & 1 != 0 && acmod != 1 {
        skip += 2;
    }
    if acmod & 4 != 0 {
        skip += 2;
    }
    if acmod == 2 {
        skip += 2;
    }
    (bsmod, acmod, bits >> (20 - skip) & 1 == 1)
}

/// The NAL units of a unit of H.264 or H.265.
pub(super) fn nals(mut unit: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let (length, rest) = unit.split_first_chunk::<NAL_LENGTH_BYTES>()?;
        let (nal, rest) = rest.split_at_checked(u32::from_be_bytes(*length) as usize)?;
        unit = rest;
        Some(nal)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn h265_is_named_as_the_file_format_says() {
        // Main, level 4, progressive: the example that players know.
        let general = [0x01, 0x60, 0, 0, 0, 0x90, 0, 0, 0, 0, 0, 120];
        assert_eq!(h265_codecs(&general), "hvc1.1.6.L120.90");
        let main_10 = [0x22, 0x20, 0, 0, 0, 0xb0, 0, 0, 0, 0, 0, 153];
        assert_eq!(h265_codecs(&main_10), "hvc1.2.4.H153.B0");
    }

    #[test]
    fn ac3_channels_are_counted() {
        // acmod 7 (3/2) with low frequencies: bits 111 cc ss 1
        let head = [0x0b, 0x77, 0, 0, 0, 8 << 3, 0b1110_0001, 0];
        assert_eq!(CodecConfig::Ac3 { head }.channels(), Some(6));
        let stereo = [0x0b, 0x77, 0, 0, 0, 8 << 3, 0b0100_0000, 0];
        assert_eq!(CodecConfig::Ac3 { head: stereo }.channels(), Some(2));
    }
}
