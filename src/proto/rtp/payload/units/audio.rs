//! Sound: MPEG-4 audio as mpeg4-generic (RFC 3640) and as LATM (RFC 6416), AC-3 (RFC 4184).

use corecast_media::Track;
use corecast_media::codec::aac::{self, AudioSpecificConfig};

use super::{Unit, UnitsError};
use crate::sdp::fmtp;

/// Samples of one frame of AAC (ISO/IEC 14496-3 §4.5.1.1; the 960 of broadcast is not used over RTP).
const AAC_FRAME_SAMPLES: u64 = 1024;
/// Bytes of one frame: 6,144 bits a channel, and then some.
const FRAME_BYTES_MAX: usize = 64 * 1024;

/// How many RTP ticks a frame of AAC lasts.
fn frame_ticks(config: &AudioSpecificConfig, clock_rate: u32) -> u32 {
    (AAC_FRAME_SAMPLES * u64::from(clock_rate) / u64::from(config.sample_rate)) as u32
}

/// RFC 3640 with AAC-hbr or AAC-lbr, without interleaving.
#[derive(Debug)]
pub(super) struct Aac {
    config: Vec<u8>,
    frame_ticks: u32,
    size_bits: u32,
    index_bits: u32,
    index_delta_bits: u32,
    /// The frame of which more is to come, and how long it will be.
    open: Vec<u8>,
    open_bytes: usize,
}

impl Aac {
    pub(super) fn new(track: &Track) -> Result<Self, UnitsError> {
        let number = |key: &str, default: u32| {
            fmtp::get(&track.fmtp, key)
                .map_or(Some(default), |value| value.parse().ok())
                .filter(|bits| *bits <= 16)
        };
        let config =
            fmtp::get(&track.fmtp, "config").and_then(aac::config_bytes).ok_or(UnitsError::Config)?;
        let parsed = AudioSpecificConfig::parse(&config).ok_or(UnitsError::Config)?;
        Ok(Self {
            frame_ticks: frame_ticks(&parsed, track.clock_rate),
            config,
            size_bits: number("sizelength", 13).filter(|bits| *bits > 0).ok_or(UnitsError::Config)?,
            index_bits: number("indexlength", 3).ok_or(UnitsError::Config)?,
            index_delta_bits: number("indexdeltalength", 3).ok_or(UnitsError::Config)?,
            open: Vec::new(),
            open_bytes: 0,
        })
    }

    pub(super) fn config(&self) -> &[u8] {
        &self.config
    }

    pub(super) fn flush(&mut self) {
        self.open.clear();
    }

    pub(super) fn push(
        &mut self,
        timestamp_wrapped: u32,
        marker: bool,
        lost: bool,
        payload: &[u8],
        emit: &mut dyn FnMut(Unit<'_>),
    ) {
        if lost {
            self.open.clear();
        }
        let Some((bits, rest)) = payload.split_first_chunk::<2>() else { return };
        let header_bits = u32::from(u16::from_be_bytes(*bits));
        let Some((headers, mut data)) = rest.split_at_checked(header_bits.div_ceil(8) as usize) else {
            return;
        };
        let (mut at, mut timestamp) = (0, timestamp_wrapped);
        let mut index_bits = self.index_bits;
        while at + self.size_bits + index_bits <= header_bits {
            let size = read_bits(headers, at, self.size_bits) as usize;
            let index = read_bits(headers, at + self.size_bits, index_bits);
            at += self.size_bits + index_bits;
            index_bits = self.index_delta_bits;
            if index != 0 || size == 0 {
                return; // interleaved: no order to give the frames in
            }
            if let Some((frame, after)) = data.split_at_checked(size) {
                emit(Unit {
                    timestamp_wrapped: timestamp,
                    data: frame,
                    key: true,
                    damaged: false,
                    sets: None,
                });
                data = after;
                timestamp = timestamp.wrapping_add(self.frame_ticks);
            } else {
                // §3.2.3: a frame larger than a packet; each fragment says the size of the whole.
                if self.open.is_empty() || self.open_bytes != size {
                    self.open.clear();
                    self.open_bytes = size;
                }
                if size > FRAME_BYTES_MAX {
                    return;
                }
                self.open.extend_from_slice(data);
                if self.open.len() >= size || marker {
                    if self.open.len() == size {
                        emit(Unit {
                            timestamp_wrapped,
                            data: &self.open,
                            key: true,
                            damaged: false,
                            sets: None,
                        });
                    }
                    self.open.clear();
                }
                return;
            }
        }
    }
}

/// Up to 16 bits, from bit `at` on; zero past the end.
fn read_bits(bytes: &[u8], at: u32, count: u32) -> u32 {
    (at..at + count).fold(0, |value, bit| {
        let byte = bytes.get(bit as usize / 8).copied().unwrap_or(0);
        value << 1 | u32::from(byte >> (7 - bit % 8) & 1)
    })
}

/// RFC 6416 §6 with the configuration out of band (`cpresent=0`), one frame per AudioMuxElement.
#[derive(Debug)]
pub(super) struct Latm {
    config: Vec<u8>,
    open: Vec<u8>,
}

impl Latm {
    pub(super) fn new(track: &Track) -> Result<Self, UnitsError> {
        if fmtp::get(&track.fmtp, "cpresent") != Some("0") {
            return Err(UnitsError::Config);
        }
        let mux = fmtp::get(&track.fmtp, "config").and_then(aac::config_bytes).ok_or(UnitsError::Config)?;
        // StreamMuxConfig (ISO/IEC 14496-3 §1.7.3.1): version 0, then 14 bits that say one program, one layer, one
        // frame; the AudioSpecificConfig follows.
        if read_bits(&mux, 0, 1) != 0 || read_bits(&mux, 2, 13) != 0 {
            return Err(UnitsError::Config);
        }
        let bits = (mux.len() as u32 * 8).saturating_sub(15).min(40);
        let config: Vec<u8> = (0..bits / 8).map(|n| read_bits(&mux, 15 + 8 * n, 8) as u8).collect();
        AudioSpecificConfig::parse(&config).ok_or(UnitsError::Config)?;
        Ok(Self { config, open: Vec::new() })
    }

    pub(super) fn config(&self) -> &[u8] {
        &self.config
    }

    pub(super) fn flush(&mut self) {
        self.open.clear();
    }

    pub(super) fn push(
        &mut self,
        timestamp_wrapped: u32,
        marker: bool,
        lost: bool,
        payload: &[u8],
        emit: &mut dyn FnMut(Unit<'_>),
    ) {
        if lost {
            self.open.clear();
        }
        let whole = if self.open.is_empty() && marker {
            payload
        } else {
            if self.open.len() + payload.len() <= FRAME_BYTES_MAX {
                self.open.extend_from_slice(payload);
            }
            self.open.as_slice()
        };
        if !marker {
            return;
        }
        // PayloadLengthInfo (§1.7.3.1): bytes of 255 and a last one that is less, to be summed.
        let run = whole.iter().take_while(|byte| **byte == 255).count();
        let length = whole.get(run).map(|last| 255 * run + usize::from(*last));
        if let Some(frame) =
            length.and_then(|length| whole.get(run + 1..run + 1 + length)).filter(|f| !f.is_empty())
        {
            emit(Unit { timestamp_wrapped, data: frame, key: true, damaged: false, sets: None });
        }
        self.open.clear();
    }
}

/// RFC 4184.
#[derive(Debug, Default)]
pub(super) struct Ac3 {
    open: Vec<u8>,
}

/// Samples of one frame of AC-3 (ATSC A/52 §5.3).
const AC3_FRAME_SAMPLES: u32 = 1536;

impl Ac3 {
    pub(super) fn flush(&mut self) {
        self.open.clear();
    }

    pub(super) fn push(
        &mut self,
        timestamp_wrapped: u32,
        marker: bool,
        lost: bool,
        payload: &[u8],
        emit: &mut dyn FnMut(Unit<'_>),
    ) {
        if lost {
            self.open.clear();
        }
        let Some((&[frame_type, _], mut data)) = payload.split_first_chunk() else { return };
        if frame_type & 3 == 0 {
            let mut timestamp = timestamp_wrapped;
            while let Some((frame, after)) =
                ac3_frame_bytes(data).and_then(|bytes| data.split_at_checked(bytes))
            {
                emit(Unit {
                    timestamp_wrapped: timestamp,
                    data: frame,
                    key: true,
                    damaged: false,
                    sets: None,
                });
                // The clock is the sampling rate (§4.1).
                timestamp = timestamp.wrapping_add(AC3_FRAME_SAMPLES);
                data = after;
            }
            return;
        }
        if frame_type & 3 != 3 {
            self.open.clear(); // an initial fragment
        }
        if self.open.len() + data.len() <= FRAME_BYTES_MAX {
            self.open.extend_from_slice(data);
        }
        if marker {
            if ac3_frame_bytes(&self.open) == Some(self.open.len()) {
                emit(Unit { timestamp_wrapped, data: &self.open, key: true, damaged: false, sets: None });
            }
            self.open.clear();
        }
    }
}

/// Length of the frame at the front, from its syncinfo (ATSC A/52 §5.3.1 and table 5.18).
fn ac3_frame_bytes(frame: &[u8]) -> Option<usize> {
    const KBPS: [usize; 19] =
        [32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384, 448, 512, 576, 640];
    let &[0x0b, 0x77, _, _, code, ..] = frame else { return None };
    let kbps = *KBPS.get(usize::from(code & 0x3f) / 2)?;
    match code >> 6 {
        0 => Some(kbps * 4),
        1 => Some(2 * (kbps * 960 / 441 + usize::from(code & 1))),
        2 => Some(kbps * 6),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::Depacketizer;
    use super::super::tests::{run, track};
    use super::*;
    use corecast_media::Codec;

    const HBR: &str = "mode=AAC-hbr;sizelength=13;indexlength=3;indexdeltalength=3;config=1210";

    #[test]
    fn several_frames_in_a_packet_follow_each_other_in_time() {
        let mut aac = Depacketizer::new(&track(Codec::Mpeg4Audio, 44_100, HBR)).unwrap();
        assert_eq!(aac.audio_config(), Some(&[0x12, 0x10][..]));
        // 16 bits a header: sizes 2 and 1
        let units = run(&mut aac, &[(1, 100, true, &[0, 32, 0, 2 << 3, 0, 1 << 3, 7, 8, 9])]);
        let got: Vec<_> = units.iter().map(|unit| (unit.timestamp_wrapped, unit.data.as_slice())).collect();
        assert_eq!(got, [(100, &[7, 8][..]), (1124, &[9])]);
    }

    #[test]
    fn a_frame_in_fragments_is_put_together_and_a_torn_one_left_out() {
        let mut aac = Depacketizer::new(&track(Codec::Mpeg4Audio, 44_100, HBR)).unwrap();
        let header = [0, 16, 0, 4 << 3];
        let fragment = |data: &[u8]| [&header[..], data].concat();
        let packets = [fragment(&[1, 2]), fragment(&[3, 4])];
        assert_eq!(
            run(&mut aac, &[(1, 5, false, &packets[0]), (2, 5, true, &packets[1])])[0].data,
            [1, 2, 3, 4]
        );
        assert!(run(&mut aac, &[(3, 6, false, &packets[0]), (5, 6, true, &packets[1])]).is_empty());
        // Interleaved: the index says so.
        assert!(run(&mut aac, &[(6, 7, true, &[0, 16, 0, 1 << 3 | 1, 9])]).is_empty());
    }

    #[test]
    fn low_bit_rate_headers_are_read() {
        let fmtp = "mode=AAC-lbr;sizelength=6;indexlength=2;indexdeltalength=2;config=1588";
        let mut aac = Depacketizer::new(&track(Codec::Mpeg4Audio, 8_000, fmtp)).unwrap();
        let units = run(&mut aac, &[(1, 100, true, &[0, 16, 2 << 2, 1 << 2, 7, 8, 9])]);
        assert_eq!(units.len(), 2);
        assert_eq!(units[1].timestamp_wrapped, 1124);
    }

    #[test]
    fn latm_frames_are_taken_out_of_their_elements() {
        // StreamMuxConfig of AAC-LC, 44.1 kHz, stereo, as ffmpeg writes it.
        let fmtp = "profile-level-id=1;cpresent=0;config=400024203fc0";
        let mut latm = Depacketizer::new(&track(Codec::Mpeg4AudioLatm, 44_100, fmtp)).unwrap();
        let config = AudioSpecificConfig::parse(latm.audio_config().unwrap()).unwrap();
        assert_eq!((config.sample_rate, config.channels, config.object_type), (44_100, 2, 2));
        let long = [&[255, 1][..], &[9; 256]].concat();
        let units = run(
            &mut latm,
            &[
                (1, 5, true, &[2, 7, 8]),
                (2, 6, false, &long[..100]),
                (3, 6, true, &long[100..]),
                (4, 7, true, &[9, 1]),
            ],
        );
        assert_eq!(units.iter().map(|unit| unit.data.len()).collect::<Vec<_>>(), [2, 256]);
        assert!(Depacketizer::new(&track(Codec::Mpeg4AudioLatm, 44_100, "config=400024203fc0")).is_err());
    }

    #[test]
    fn ac3_frames_are_split_and_put_together() {
        let mut frame = vec![0x0b, 0x77, 0, 0, 0];
        frame.resize(128, 1);
        let mut ac3 = Depacketizer::new(&track(Codec::Ac3, 48_000, "")).unwrap();
        let two = [&[0, 2][..], &frame, &frame].concat();
        let parts = [[&[1, 2][..], &frame[..90]].concat(), [&[3, 2][..], &frame[90..]].concat()];
        let units =
            run(&mut ac3, &[(1, 0, true, &two), (2, 3072, false, &parts[0]), (3, 3072, true, &parts[1])]);
        let got: Vec<_> = units.iter().map(|unit| (unit.timestamp_wrapped, unit.data.len())).collect();
        assert_eq!(got, [(0, 128), (1536, 128), (3072, 128)]);
        // 44.1 kHz, 192 kbps, with the padding word: A/52 table 5.18 says 418 words.
        assert_eq!(ac3_frame_bytes(&[0x0b, 0x77, 0, 0, 0x55]), Some(836));
    }
}
