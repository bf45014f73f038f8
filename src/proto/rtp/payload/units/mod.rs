//! Access units from RTP packets: what muxers need, the opposite of packetising.
//!
//! A [`Depacketizer`] takes the packets of one track in order and gives whole units, each copied at most once. Units
//! are normalised: H.264 and H.265 as NAL units with a length of 32 bits before each, access unit delimiters and
//! parameter sets taken out (the latter are kept, see [`Depacketizer::parameter_sets`]); AV1 as OBUs with a size field,
//! temporal delimiters taken out; everything else as the bare frame. What a lost packet tore apart is left out of its
//! unit, and the unit is marked.

mod audio;
mod av1;
mod nal;
mod vp9;

use corecast_media::{Codec, Track};

use crate::rtp::Header;
use crate::sdp::fmtp;

/// Bytes of one access unit; larger ones are dropped. An intra picture of 4K at a very high rate has 4 MB.
pub const UNIT_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Bytes that precede each NAL unit of H.264 and H.265: its length, big-endian.
pub const NAL_LENGTH_BYTES: usize = 4;

/// One access unit: a picture, or a frame of sound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unit<'a> {
    /// RTP time stamp of its presentation.
    pub timestamp_wrapped: u32,
    /// Never empty; see the module for the form.
    pub data: &'a [u8],
    /// A decoder can start here: IDR (H.265: any IRAP picture), key frame; every frame of sound.
    pub key: bool,
    /// Some of it was lost.
    pub damaged: bool,
    /// The parameter sets that hold for it (H.264 and H.265), and another number whenever they changed.
    pub sets: Option<(&'a ParameterSets, u32)>,
}

/// The newest parameter sets of H.264 and H.265, each with its NAL header.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ParameterSets {
    /// H.265 only.
    pub vps: Vec<u8>,
    pub sps: Vec<u8>,
    /// One per identifier, in the order of their first coming.
    pub pps: Vec<Vec<u8>>,
}

impl ParameterSets {
    /// Whether a decoder could start with them.
    pub fn are_complete(&self, codec: Codec) -> bool {
        !self.sps.is_empty() && !self.pps.is_empty() && (codec != Codec::H265 || !self.vps.is_empty())
    }
}

/// Why the units of a track cannot be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum UnitsError {
    #[error("{} has no units that could be put together", .0.label())]
    Codec(Codec),
    #[error("H264 with packetization-mode 2 (interleaved) is not supported")]
    Interleaved,
    #[error("MPEG-4 Audio without a usable config parameter in its description")]
    Config,
}

/// Puts the access units of one track together. See the module.
#[derive(Debug)]
pub struct Depacketizer {
    format: Format,
    previous: Option<Previous>,
}

#[derive(Debug, Clone, Copy)]
struct Previous {
    sequence: u16,
    ssrc: u32,
}

#[derive(Debug)]
enum Format {
    Nal(nal::Assembler),
    Av1(av1::Assembler),
    Vp9(vp9::Assembler),
    Aac(audio::Aac),
    Latm(audio::Latm),
    Ac3(audio::Ac3),
    Opus,
}

impl Depacketizer {
    /// # Errors
    /// When the codec, or the way it is packetised, is not supported.
    pub fn new(track: &Track) -> Result<Self, UnitsError> {
        let parameter = |name: &str| fmtp::get(&track.fmtp, name);
        let format = match track.codec {
            Codec::H264 if parameter("packetization-mode") == Some("2") => {
                return Err(UnitsError::Interleaved);
            }
            Codec::H264 => {
                let mut assembler = nal::Assembler::new(nal::Syntax::H264);
                for set in fmtp::parameter_sets(&track.fmtp, "sprop-parameter-sets") {
                    assembler.announce(&set);
                }
                Format::Nal(assembler)
            }
            Codec::H265 => {
                let donl = parameter("sprop-max-don-diff").is_some_and(|diff| diff != "0");
                let mut assembler = nal::Assembler::new(nal::Syntax::H265 { donl });
                for key in ["sprop-vps", "sprop-sps", "sprop-pps"] {
                    for set in fmtp::parameter_sets(&track.fmtp, key) {
                        assembler.announce(&set);
                    }
                }
                Format::Nal(assembler)
            }
            Codec::Av1 => Format::Av1(av1::Assembler::default()),
            Codec::Vp9 => Format::Vp9(vp9::Assembler::default()),
            Codec::Mpeg4Audio => Format::Aac(audio::Aac::new(track)?),
            Codec::Mpeg4AudioLatm => Format::Latm(audio::Latm::new(track)?),
            Codec::Ac3 => Format::Ac3(audio::Ac3::default()),
            Codec::Opus => Format::Opus,
            other => return Err(UnitsError::Codec(other)),
        };
        Ok(Self { format, previous: None })
    }

    /// Takes the next packet and gives the units it completes. Packets older than the last one are left aside;
    /// missing ones damage the unit they belonged to.
    pub fn push(&mut self, header: &Header, payload: &[u8], emit: &mut dyn FnMut(Unit<'_>)) {
        let mut lost = false;
        if let Some(previous) = self.previous {
            if previous.ssrc == header.ssrc {
                match header.sequence.wrapping_sub(previous.sequence) {
                    1 => {}
                    2..0x8000 => lost = true,
                    _ => return,
                }
            } else {
                // Another source took over: what it begins is whole, what the old one began is not.
                self.flush(emit);
            }
        }
        self.previous = Some(Previous { sequence: header.sequence, ssrc: header.ssrc });
        let (timestamp_wrapped, marker) = (header.timestamp, header.marker);
        match &mut self.format {
            Format::Nal(assembler) => assembler.push(timestamp_wrapped, marker, lost, payload, emit),
            Format::Av1(assembler) => assembler.push(timestamp_wrapped, marker, lost, payload, emit),
            Format::Vp9(assembler) => assembler.push(timestamp_wrapped, marker, lost, payload, emit),
            Format::Aac(aac) => aac.push(timestamp_wrapped, marker, lost, payload, emit),
            Format::Latm(latm) => latm.push(timestamp_wrapped, marker, lost, payload, emit),
            Format::Ac3(ac3) => ac3.push(timestamp_wrapped, marker, lost, payload, emit),
            Format::Opus if payload.is_empty() => {}
            Format::Opus => {
                emit(Unit { timestamp_wrapped, data: payload, key: true, damaged: false, sets: None })
            }
        }
    }

    /// Gives what has begun, as damaged, when nothing more is to come.
    pub fn flush(&mut self, emit: &mut dyn FnMut(Unit<'_>)) {
        match &mut self.format {
            Format::Nal(assembler) => assembler.flush(emit),
            Format::Av1(assembler) => assembler.flush(emit),
            Format::Vp9(assembler) => assembler.flush(),
            Format::Aac(aac) => aac.flush(),
            Format::Latm(latm) => latm.flush(),
            Format::Ac3(ac3) => ac3.flush(),
            Format::Opus => {}
        }
        self.previous = None;
    }

    /// The parameter sets of H.264 and H.265; none for other codecs.
    pub fn parameter_sets(&self) -> Option<&ParameterSets> {
        match &self.format {
            Format::Nal(assembler) => Some(assembler.parameter_sets()),
            _ => None,
        }
    }

    /// Another one whenever the parameter sets changed.
    pub fn parameters_revision(&self) -> u32 {
        match &self.format {
            Format::Nal(assembler) => assembler.revision(),
            _ => 0,
        }
    }

    /// The AudioSpecificConfig of MPEG-4 audio (ISO/IEC 14496-3 §1.6.2.1).
    pub fn audio_config(&self) -> Option<&[u8]> {
        match &self.format {
            Format::Aac(aac) => Some(aac.config()),
            Format::Latm(latm) => Some(latm.config()),
            _ => None,
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use corecast_media::Kind;

    /// A unit that owns its bytes.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct Owned {
        pub timestamp_wrapped: u32,
        pub data: Vec<u8>,
        pub key: bool,
        pub damaged: bool,
    }

    pub fn track(codec: Codec, clock_rate: u32, fmtp: &str) -> Track {
        Track {
            kind: Kind::Video,
            codec,
            payload_type: 96,
            clock_rate,
            channels: None,
            encoding: String::new(),
            fmtp: fmtp.to_owned(),
            control: String::new(),
        }
    }

    /// Pushes (sequence, timestamp, marker, payload) and gathers the units.
    pub fn run(depacketizer: &mut Depacketizer, packets: &[(u16, u32, bool, &[u8])]) -> Vec<Owned> {
        let mut units = Vec::new();
        for &(sequence, timestamp, marker, payload) in packets {
            let header = Header {
                marker,
                payload_type: 96,
                sequence,
                timestamp,
                ssrc: 1,
                payload: 12..12 + payload.len(),
            };
            depacketizer.push(&header, payload, &mut |unit| {
                units.push(Owned {
                    timestamp_wrapped: unit.timestamp_wrapped,
                    data: unit.data.to_vec(),
                    key: unit.key,
                    damaged: unit.damaged,
                });
            });
        }
        units
    }

    #[test]
    fn what_cannot_be_put_together_is_refused_with_a_reason() {
        let refused = |codec, fmtp: &str| Depacketizer::new(&track(codec, 90_000, fmtp)).unwrap_err();
        assert_eq!(refused(Codec::G711, ""), UnitsError::Codec(Codec::G711));
        assert_eq!(refused(Codec::H264, "packetization-mode=2"), UnitsError::Interleaved);
        assert_eq!(refused(Codec::Mpeg4Audio, "mode=AAC-hbr"), UnitsError::Config);
        assert_eq!(refused(Codec::Vp8, "").to_string(), "VP8 has no units that could be put together");
    }

    #[test]
    fn every_opus_packet_is_a_unit_and_old_packets_are_left_aside() {
        let mut opus = Depacketizer::new(&track(Codec::Opus, 48_000, "")).unwrap();
        let units =
            run(&mut opus, &[(7, 0, false, &[0xfc]), (9, 1920, false, &[0xfd]), (8, 960, false, &[0xfe])]);
        assert_eq!(units.len(), 2);
        assert_eq!((units[1].timestamp_wrapped, units[1].data.as_slice()), (1920, &[0xfd][..]));
        assert!(units.iter().all(|unit| unit.key && !unit.damaged));
    }

    #[test]
    fn another_source_starts_afresh() {
        let mut h264 = Depacketizer::new(&track(Codec::H264, 90_000, "")).unwrap();
        assert!(run(&mut h264, &[(7, 0, false, &[0x7c, 0x85, 1])]).is_empty());
        let header =
            Header { marker: true, payload_type: 96, sequence: 900, timestamp: 5, ssrc: 2, payload: 12..14 };
        let mut damaged = Vec::new();
        h264.push(&header, &[0x65, 1], &mut |unit| damaged.push((unit.timestamp_wrapped, unit.damaged)));
        assert_eq!(damaged, [(5, false)]);
    }
}
