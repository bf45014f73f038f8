//! What the API tells of a track's bitstream (contract §2.3, `codecProps`).

use super::{aac::AudioSpecificConfig, g711, h264, h265};
use crate::track::{Codec, Track};

/// By codec; zeros and empty texts until the parameter sets are known.
#[derive(Debug, Clone, PartialEq, Default)]
pub enum CodecProps {
    /// The API shows null.
    #[default]
    None,
    /// H.264 and H.265.
    Video {
        width: u32,
        height: u32,
        profile: String,
        level: String,
    },
    Av1 {
        width: u32,
        height: u32,
        profile: u32,
        level: u32,
        tier: u32,
    },
    Vp9 {
        profile: u32,
    },
    Opus {
        channel_count: u32,
    },
    /// MPEG-4 Audio and AC-3.
    Sampled {
        sample_rate: u32,
        channel_count: u32,
    },
    G711 {
        mu_law: bool,
        sample_rate: u32,
        channel_count: u32,
    },
    Lpcm {
        bit_depth: u32,
        sample_rate: u32,
        channel_count: u32,
    },
}

impl CodecProps {
    /// What is known of `track`. `parameter` gives a format parameter of it by name; `sps` the sequence parameter
    /// sets of H.264 and H.265, each with its NAL header.
    pub fn of<'a>(
        track: &Track,
        parameter: impl Fn(&str) -> Option<&'a str>,
        sps: impl IntoIterator<Item = Vec<u8>>,
    ) -> Self {
        let number = |name: &str| parameter(name).and_then(|value| value.parse().ok()).unwrap_or(0);
        let channel_count = u32::from(track.channels.unwrap_or(1));
        let sampled = Self::Sampled { sample_rate: track.clock_rate, channel_count };
        match track.codec {
            Codec::H264 => {
                let known = sps.into_iter().find_map(|unit| h264::Sps::parse(&unit));
                known.map_or(Self::unknown_video(), |sps| Self::Video {
                    width: sps.width,
                    height: sps.height,
                    profile: sps.profile().into_owned(),
                    level: sps.level(),
                })
            }
            Codec::H265 => {
                let known = sps.into_iter().find_map(|unit| h265::Sps::parse(&unit));
                known.map_or(Self::unknown_video(), |sps| Self::Video {
                    width: sps.width,
                    height: sps.height,
                    profile: sps.profile().into_owned(),
                    level: sps.level(),
                })
            }
            // The AV1 RTP payload specification, §7.2.1; picture sizes are told in the bitstream only.
            Codec::Av1 => Self::Av1 {
                width: 0,
                height: 0,
                profile: number("profile"),
                level: number("level-idx"),
                tier: number("tier"),
            },
            Codec::Vp9 => Self::Vp9 { profile: number("profile-id") },
            // RFC 7587 §7: the channels of an rtpmap are always 2; what is sent is told by the parameter.
            Codec::Opus if track.encoding.eq_ignore_ascii_case("opus") => {
                Self::Opus { channel_count: if parameter("sprop-stereo") == Some("1") { 2 } else { 1 } }
            }
            Codec::Opus => Self::Opus { channel_count },
            Codec::Mpeg4Audio => {
                let config = parameter("config").and_then(AudioSpecificConfig::from_hex);
                config.map_or(sampled, |config| Self::Sampled {
                    sample_rate: config.sample_rate,
                    channel_count: u32::from(config.channels),
                })
            }
            Codec::Ac3 => sampled,
            Codec::G711 => Self::G711 {
                mu_law: g711::law(track) == Some(g711::Law::Mu),
                sample_rate: track.clock_rate,
                channel_count,
            },
            Codec::Lpcm => Self::Lpcm {
                // RFC 3551 §4.5: L8, L16, L24
                bit_depth: track.encoding.get(1..).and_then(|bits| bits.parse().ok()).unwrap_or(16),
                sample_rate: track.clock_rate,
                channel_count,
            },
            Codec::Vp8
            | Codec::Mpeg4Video
            | Codec::Mpeg12Video
            | Codec::Mjpeg
            | Codec::Flac
            | Codec::Vorbis
            | Codec::Mpeg4AudioLatm
            | Codec::Mpeg12Audio
            | Codec::Speex
            | Codec::G726
            | Codec::G722
            | Codec::MpegTs
            | Codec::Klv
            | Codec::Generic => Self::None,
        }
    }

    fn unknown_video() -> Self {
        Self::Video { width: 0, height: 0, profile: String::new(), level: String::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::track::Kind;

    fn props(
        codec: Codec,
        encoding: &str,
        channels: Option<u8>,
        parameters: &[(&str, &'static str)],
    ) -> CodecProps {
        let track = Track {
            kind: Kind::Audio,
            codec,
            payload_type: 96,
            clock_rate: 48_000,
            channels,
            encoding: encoding.to_owned(),
            fmtp: String::new(),
            control: String::new(),
        };
        let find = |name: &str| parameters.iter().find(|(key, _)| *key == name).map(|&(_, value)| value);
        CodecProps::of(&track, find, [])
    }

    #[test]
    fn audio_is_told_by_rtpmap_and_parameters() {
        let sampled = |sample_rate, channel_count| CodecProps::Sampled { sample_rate, channel_count };
        let opus = |channel_count| CodecProps::Opus { channel_count };
        assert_eq!(props(Codec::Opus, "opus", Some(2), &[]), opus(1));
        assert_eq!(props(Codec::Opus, "OPUS", Some(2), &[("sprop-stereo", "1")]), opus(2));
        assert_eq!(props(Codec::Opus, "multiopus", Some(6), &[]), opus(6));
        assert_eq!(props(Codec::Mpeg4Audio, "mpeg4-generic", Some(2), &[]), sampled(48_000, 2));
        let config = [("config", "1408")];
        assert_eq!(props(Codec::Mpeg4Audio, "mpeg4-generic", Some(2), &config), sampled(16_000, 1));
        assert_eq!(props(Codec::Ac3, "AC3", Some(6), &[]), sampled(48_000, 6));
        let g711 = CodecProps::G711 { mu_law: true, sample_rate: 48_000, channel_count: 1 };
        assert_eq!(props(Codec::G711, "PCMU", None, &[]), g711);
        let lpcm = CodecProps::Lpcm { bit_depth: 24, sample_rate: 48_000, channel_count: 2 };
        assert_eq!(props(Codec::Lpcm, "L24", Some(2), &[]), lpcm);
        assert_eq!(props(Codec::G722, "G722", None, &[]), CodecProps::None);
    }

    #[test]
    fn video_is_unknown_before_its_parameter_sets_are() {
        let empty = CodecProps::Video { width: 0, height: 0, profile: String::new(), level: String::new() };
        assert_eq!(props(Codec::H264, "H264", None, &[]), empty);
        assert_eq!(props(Codec::H265, "H265", None, &[]), empty);
        assert_eq!(props(Codec::Vp9, "VP9", None, &[("profile-id", "2")]), CodecProps::Vp9 { profile: 2 });
    }
}
