//! What RTP payloads tell about the pictures in them, without taking them apart. Hot: once per packet.

pub mod av1;
pub mod h264;
pub mod h265;
pub mod mpeg4_video;
pub mod refragment;
pub mod units;
pub mod vp8;
pub mod vp9;

use corecast_media::Codec;

/// What one payload tells about the access unit it belongs to.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Facts {
    /// It carries (a part of) a picture that a decoder can start with. Where every packet will do, always
    /// true.
    pub key: bool,
    /// It carries parameter sets.
    pub parameter_sets: bool,
}

/// Which parameter set a NAL unit is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ParameterSet {
    Vps,
    Sps,
    Pps,
}

/// Looks at one RTP payload; for ordinary packets at a byte or two of it. A payload that cannot be read has
/// no facts.
#[inline]
pub fn inspect(codec: Codec, payload: &[u8]) -> Facts {
    match codec {
        Codec::H264 => h264::inspect(payload),
        Codec::H265 => h265::inspect(payload),
        Codec::Vp8 => key(vp8::is_key_frame(payload)),
        Codec::Vp9 => key(vp9::is_key_frame(payload)),
        Codec::Av1 => key(av1::starts_coded_video_sequence(payload)),
        Codec::Mpeg4Video => mpeg4_video::inspect(payload),
        // RFC 2250 §3.4: the S bit is set when a sequence header is present.
        Codec::Mpeg12Video => key(payload.get(2).is_some_and(|byte| byte & 0x20 != 0)),
        // Every frame stands for itself, or nothing is known that a reader could wait for.
        Codec::Mjpeg
        | Codec::Opus
        | Codec::Flac
        | Codec::Vorbis
        | Codec::Mpeg4Audio
        | Codec::Mpeg4AudioLatm
        | Codec::Mpeg12Audio
        | Codec::Ac3
        | Codec::Speex
        | Codec::G726
        | Codec::G722
        | Codec::G711
        | Codec::Lpcm
        | Codec::MpegTs
        | Codec::Klv
        | Codec::Generic => key(true),
    }
}

/// Calls `f` for each complete parameter set in the payload, with its NAL header: H264 types 7 and 8, H265
/// types 32 to 34. Other codecs have none. To be called when [`Facts::parameter_sets`] is set.
pub fn for_each_parameter_set(codec: Codec, payload: &[u8], f: &mut dyn FnMut(ParameterSet, &[u8])) {
    match codec {
        Codec::H264 => h264::for_each_parameter_set(payload, f),
        Codec::H265 => h265::for_each_parameter_set(payload, f),
        _ => {}
    }
}

fn key(key: bool) -> Facts {
    Facts { key, parameter_sets: false }
}

impl std::ops::BitOr for Facts {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self { key: self.key | other.key, parameter_sets: self.parameter_sets | other.parameter_sets }
    }
}

/// The NAL units of an aggregation packet: each with a 16-bit length, after `skip` bytes that precede each
/// length and `gap` bytes that follow it and do not count. Ends where the lengths stop making sense.
fn aggregated(mut rest: &[u8], gap: usize) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let (length, after) = rest.split_first_chunk::<2>()?;
        let (unit, after) = after.get(gap..)?.split_at_checked(usize::from(u16::from_be_bytes(*length)))?;
        rest = after;
        Some(unit)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codecs_without_dependent_pictures_are_always_key() {
        for codec in [Codec::Mjpeg, Codec::Opus, Codec::G711, Codec::MpegTs, Codec::Generic] {
            assert_eq!(inspect(codec, &[]), Facts { key: true, parameter_sets: false }, "{codec:?}");
        }
    }

    #[test]
    fn mpeg_video_is_key_with_a_sequence_header() {
        assert!(inspect(Codec::Mpeg12Video, &[0, 0, 0x29, 0]).key);
        assert!(!inspect(Codec::Mpeg12Video, &[0, 0, 0x1a, 0]).key);
        assert!(!inspect(Codec::Mpeg12Video, &[0, 0]).key);
    }
}
