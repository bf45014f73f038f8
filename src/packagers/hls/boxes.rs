//! Boxes of fragmented MP4 (ISO/IEC 14496-12): initialisation sections and fragments, one track each.

use bytes::Bytes;
use mp4_atom::esds::{DecoderConfig, DecoderSpecific, EsDescriptor, SLConfig};
use mp4_atom::{
    Ac3, Ac3SpecificBox, Audio, Av01, Av1c, Avc1, Avcc, AvccExt, Codec, Dinf, Dops, Dref, Encode, Esds,
    FourCC, Ftyp, Hdlr, Hvc1, HvcCArray, Hvcc, Mdhd, Mdia, Mfhd, Minf, Moof, Moov, Mp4a, Mvex, Mvhd, Opus,
    Smhd, Stbl, Stco, Stsd, Tfdt, Tfhd, Tkhd, Traf, Trak, Trex, Trun, TrunEntry, Url, Visual, Vmhd, Vp09,
    VpcC,
};

use super::codec::{CodecConfig, ac3_layout};

/// There is one track in each file.
const TRACK_ID: u32 = 1;

/// Sample flags (§8.8.3.1): depends on no other; depends on others and is no sync sample.
pub(super) const SYNC: u32 = 0x0200_0000;
pub(super) const NON_SYNC: u32 = 0x0101_0000;

/// Room before the data of a fragment for its `moof` and the head of its `mdat`.
const HEADROOM: usize = 2048;
/// Bytes of a `moof` without its samples, and of each sample in it: at most.
const MOOF_BYTES: usize = 128;
const SAMPLE_BYTES: usize = 16;

/// A sample of a fragment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sample {
    /// In ticks; known when the next one comes.
    pub duration: u32,
    pub bytes: u32,
    pub sync: bool,
    /// Time of presentation less time of decoding, in ticks.
    pub composition: i32,
}

/// The samples of a fragment to be, laid out so that nothing moves when it is complete.
#[derive(Debug)]
pub(super) struct Fragment {
    /// [`HEADROOM`] bytes, then the samples.
    buffer: Vec<u8>,
    pub samples: Vec<Sample>,
    /// Time of decoding of the first sample, in ticks.
    pub start: i64,
}

impl Fragment {
    /// `bytes_likely`: what there should be room for.
    pub(super) fn new(start: i64, bytes_likely: usize) -> Self {
        let mut buffer = Vec::with_capacity(HEADROOM + bytes_likely);
        buffer.resize(HEADROOM, 0);
        Self { buffer, samples: Vec::new(), start }
    }

    pub(super) fn push(&mut self, data: &[u8], sync: bool, composition: i32) {
        self.buffer.extend_from_slice(data);
        self.samples.push(Sample { duration: 0, bytes: data.len() as u32, sync, composition });
    }

    /// Bytes of the samples.
    pub(super) fn data_bytes(&self) -> usize {
        self.buffer.len() - HEADROOM
    }

    /// `moof` and `mdat`.
    pub(super) fn finish(mut self, sequence_number: u32) -> Bytes {
        let data_bytes = self.data_bytes();
        let mut head = Vec::with_capacity(MOOF_BYTES + SAMPLE_BYTES * self.samples.len());
        let mut moof = self.moof(sequence_number);
        // The offset of the data counts from the start of the `moof`, whose length does not depend on it.
        for _ in 0..2 {
            head.clear();
            moof.encode(&mut head).expect("times and sizes were checked when samples were added");
            moof.traf[0].trun[0].data_offset = Some(head.len() as i32 + 8);
        }
        head.extend_from_slice(&(data_bytes as u32 + 8).to_be_bytes());
        head.extend_from_slice(b"mdat");
        if head.len() > HEADROOM {
            head.extend_from_slice(&self.buffer[HEADROOM..]);
            return Bytes::from(head);
        }
        let start = HEADROOM - head.len();
        self.buffer[start..HEADROOM].copy_from_slice(&head);
        // What was reserved and not used must not be kept for as long as the part.
        if self.buffer.capacity() - self.buffer.len() > self.buffer.len() / 8 {
            self.buffer.shrink_to_fit();
        }
        Bytes::from(self.buffer).slice(start..)
    }

    fn moof(&self, sequence_number: u32) -> Moof {
        let entry = |sample: &Sample| TrunEntry {
            duration: Some(sample.duration),
            size: Some(sample.bytes),
            flags: Some(if sample.sync { SYNC } else { NON_SYNC }),
            cts: Some(i64::from(sample.composition)),
        };
        let entries: Vec<_> = self.samples.iter().map(entry).collect();
        let tfhd = Tfhd { track_id: TRACK_ID, default_base_is_moof: true, ..Tfhd::default() };
        let tfdt = Tfdt { base_media_decode_time: u64::try_from(self.start).unwrap_or(0) };
        let trun = Trun { data_offset: Some(0), samples: entries.into() };
        let traf = Traf { tfhd, tfdt: Some(tfdt), trun: vec![trun], ..Traf::default() };
        Moof { mfhd: Mfhd { sequence_number }, traf: vec![traf] }
    }
}

/// `ftyp` and `moov` of a track.
///
/// # Errors
/// When the configuration cannot be told in a box.
pub(super) fn init(config: &CodecConfig, timescale: u32) -> Result<Bytes, mp4_atom::Error> {
    let (width, height) = config.resolution().unwrap_or((0, 0));
    let is_video = config.resolution().is_some();
    let brand = |name: &[u8; 4]| FourCC::new(name);
    let ftyp = Ftyp {
        major_brand: brand(b"iso6"),
        minor_version: 0,
        compatible_brands: vec![brand(b"iso6"), brand(b"mp42"), brand(b"cmfc")],
    };
    let pixels = |pixels: u32| u16::try_from(pixels).unwrap_or(u16::MAX);
    let url = Url { location: String::new() };
    let minf = Minf {
        vmhd: is_video.then(Vmhd::default),
        smhd: (!is_video).then(Smhd::default),
        dinf: Dinf { dref: Dref { entries: vec![url.into()] } },
        stbl: Stbl {
            stsd: Stsd { codecs: vec![sample_entry(config, timescale)] },
            stco: Some(Stco::default()),
            ..Stbl::default()
        },
        ..Minf::default()
    };
    let handler = if is_video { b"vide" } else { b"soun" };
    let trak = Trak {
        tkhd: Tkhd {
            track_id: TRACK_ID,
            enabled: true,
            in_movie: true,
            volume: if is_video { 0 } else { 1 }.into(),
            width: pixels(width).into(),
            height: pixels(height).into(),
            ..Tkhd::default()
        },
        mdia: Mdia {
            mdhd: Mdhd { timescale, language: "und".to_owned(), ..Mdhd::default() },
            hdlr: Hdlr { handler: FourCC::new(handler), name: String::new() },
            minf,
        },
        ..Trak::default()
    };
    let trex = Trex { track_id: TRACK_ID, default_sample_description_index: 1, ..Trex::default() };
    let moov = Moov {
        mvhd: Mvhd { timescale: 1000, next_track_id: TRACK_ID + 1, ..Mvhd::default() },
        mvex: Some(Mvex { mehd: None, trex: vec![trex] }),
        trak: vec![trak],
        ..Moov::default()
    };
    let mut out = Vec::with_capacity(1024);
    ftyp.encode(&mut out)?;
    moov.encode(&mut out)?;
    Ok(Bytes::from(out))
}

fn sample_entry(config: &CodecConfig, timescale: u32) -> Codec {
    let (width, height) = config.resolution().unwrap_or((0, 0));
    let pixels = |pixels: u32| u16::try_from(pixels).unwrap_or(u16::MAX);
    let visual =
        Visual { data_reference_index: 1, width: pixels(width), height: pixels(height), ..Visual::default() };
    let audio = |sample_rate: u32| Audio {
        data_reference_index: 1,
        channel_count: u16::from(config.channels().unwrap_or(2)),
        sample_size: 16,
        // 16.16 fixed point: rates that do not fit are told by the codec's own configuration.
        sample_rate: u16::try_from(sample_rate).unwrap_or(0).into(),
    };
    match config {
        CodecConfig::H264 { sps, pps, facts } => {
            let byte = |at| sps.get(at).copied().unwrap_or(0);
            // §5.3.3.1.2 of ISO/IEC 14496-15: these profiles tell chroma format and bit depths.
            let ext = matches!(facts.profile_idc, 100 | 110 | 122 | 144 | 244).then(|| AvccExt {
                chroma_format: facts.chroma_format_idc,
                bit_depth_luma: facts.bit_depth_luma,
                bit_depth_chroma: facts.bit_depth_chroma,
                sequence_parameter_sets_ext: Vec::new(),
            });
            let avcc = Avcc {
                configuration_version: 1,
                avc_profile_indication: byte(1),
                profile_compatibility: byte(2),
                avc_level_indication: byte(3),
                length_size: 4,
                sequence_parameter_sets: vec![sps.to_vec()],
                picture_parameter_sets: pps.iter().map(|pps| pps.to_vec()).collect(),
                ext,
            };
            let (btrt, colr, pasp, taic, fiel, spatial) = Default::default();
            Avc1 { visual, avcc, btrt, colr, pasp, taic, fiel, spatial }.into()
        }
        CodecConfig::H265 { vps, sps, pps, facts } => {
            let array =
                |nal_unit_type, nalus: Vec<Vec<u8>>| HvcCArray { completeness: true, nal_unit_type, nalus };
            let g = &facts.general;
            let hvcc = Hvcc {
                general_profile_space: g[0] >> 6,
                general_tier_flag: g[0] & 0x20 != 0,
                general_profile_idc: g[0] & 0x1f,
                general_profile_compatibility_flags: [g[1], g[2], g[3], g[4]],
                general_constraint_indicator_flags: [g[5], g[6], g[7], g[8], g[9], g[10]],
                general_level_idc: g[11],
                chroma_format_idc: facts.chroma_format_idc,
                bit_depth_luma_minus8: facts.bit_depth_luma - 8,
                bit_depth_chroma_minus8: facts.bit_depth_chroma - 8,
                num_temporal_layers: facts.sub_layers,
                temporal_id_nested: facts.temporal_id_nesting,
                length_size_minus_one: 3,
                arrays: vec![
                    array(32, vec![vps.to_vec()]),
                    array(33, vec![sps.to_vec()]),
                    array(34, pps.iter().map(|pps| pps.to_vec()).collect()),
                ],
                ..Hvcc::new()
            };
            let (lhvc, btrt, colr, pasp, taic, fiel) = Default::default();
            let (ccst, spatial) = Default::default();
            Hvc1 { visual, hvcc, lhvc, btrt, colr, pasp, taic, fiel, ccst, spatial }.into()
        }
        CodecConfig::Av1 { obu, facts } => {
            let av1c = Av1c {
                seq_profile: facts.profile,
                seq_level_idx_0: facts.level_index,
                seq_tier_0: facts.tier,
                high_bitdepth: facts.bit_depth > 8,
                twelve_bit: facts.bit_depth > 10,
                monochrome: facts.monochrome,
                chroma_subsampling_x: facts.subsampling_x,
                chroma_subsampling_y: facts.subsampling_y,
                chroma_sample_position: facts.chroma_sample_position,
                initial_presentation_delay: None,
                config_obus: obu.to_vec(),
            };
            Av01 { visual, av1c, ..Av01::default() }.into()
        }
        CodecConfig::Vp9(key) => {
            let vpcc = VpcC {
                profile: key.profile,
                level: key.level(),
                bit_depth: key.bit_depth,
                chroma_subsampling: match (key.subsampling_x, key.subsampling_y) {
                    (true, true) => 1,
                    (true, false) => 2,
                    (false, _) => 3,
                },
                ..VpcC::default()
            };
            let (btrt, colr, pasp, spatial) = Default::default();
            Vp09 { visual, vpcc, btrt, colr, pasp, spatial }.into()
        }
        CodecConfig::Aac { config, facts } => {
            let dec_config = DecoderConfig {
                object_type_indication: 0x40,
                stream_type: 5,
                dec_specific: Some(DecoderSpecific { raw: config.to_vec(), ..DecoderSpecific::default() }),
                ..DecoderConfig::default()
            };
            let es_desc = EsDescriptor {
                es_id: 1,
                dec_config,
                sl_config: SLConfig::default(),
                ..EsDescriptor::default()
            };
            Mp4a { audio: audio(facts.sample_rate), esds: Esds { es_desc }, btrt: None, taic: None }.into()
        }
        CodecConfig::Opus { channels } => {
            let dops = Dops {
                output_channel_count: *channels,
                pre_skip: 0,
                input_sample_rate: 48_000,
                output_gain: 0,
                channel_mapping: None,
            };
            Opus { audio: audio(48_000), dops, btrt: None }.into()
        }
        CodecConfig::Ac3 { head } => {
            let (bsmod, acmod, lfeon) = ac3_layout(head);
            let dac3 = Ac3SpecificBox {
                fscod: head[4] >> 6,
                bsid: head[5] >> 3,
                bsmod,
                acmod,
                lfeon,
                bit_rate_code: (head[4] & 0x3f) / 2,
            };
            Ac3 { audio: audio(timescale), dac3 }.into()
        }
    }
}
