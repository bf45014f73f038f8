//! Sequence parameter set of H.265 (ITU-T H.265 §7.3.2.2).

use std::borrow::Cow;

use super::bits::BitReader;

/// What an SPS says about the pictures.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sps {
    /// After the conformance window, in pixels.
    pub width: u32,
    pub height: u32,
    pub profile_idc: u8,
    /// Thirty times the level.
    pub level_idc: u8,
    /// The first twelve bytes of `profile_tier_level` (§7.3.3): profile space, tier, profile, compatibility and
    /// constraint flags, level.
    pub general: [u8; 12],
    /// Temporal sub-layers, 1 to 7.
    pub sub_layers: u8,
    pub temporal_id_nesting: bool,
    /// 0 monochrome, 1 4:2:0, 2 4:2:2, 3 4:4:4.
    pub chroma_format_idc: u8,
    /// In bits.
    pub bit_depth_luma: u8,
    pub bit_depth_chroma: u8,
    /// How many pictures may precede another one in decoding order and follow it in output order: 0 means no
    /// reordered B-frames.
    pub max_num_reorder: u32,
}

impl Sps {
    /// Parses an SPS NAL unit, its two header bytes included. `None` if it is another unit, cut short, or
    /// absurd.
    pub fn parse(unit: &[u8]) -> Option<Self> {
        let (header, payload) = unit.split_first_chunk::<2>()?;
        if header[0] >> 1 & 0x3f != 33 {
            return None;
        }
        let r = &mut BitReader::rbsp(payload);
        r.skip(4)?; // sps_video_parameter_set_id
        let sub_layers_minus1 = r.bits(3)?;
        let temporal_id_nesting = r.flag()?;
        let general = profile_tier_level(r, sub_layers_minus1)?;
        let (profile_idc, level_idc) = (general[0] & 0x1f, general[11]);
        r.ue()?; // sps_seq_parameter_set_id
        let chroma_format_idc = u8::try_from(r.ue()?).ok().filter(|format| *format <= 3)?;
        if chroma_format_idc == 3 {
            r.skip(1)?; // separate_colour_plane_flag
        }
        let (mut width, mut height) = (r.ue()?, r.ue()?);
        if width == 0 || height == 0 || width > 0xffff || height > 0xffff {
            return None;
        }
        if r.flag()? {
            let (left, right, top, bottom) = (r.ue()?, r.ue()?, r.ue()?, r.ue()?);
            // §6.2, table 6-1: SubWidthC and SubHeightC
            let (unit_x, unit_y) = match chroma_format_idc {
                1 => (2, 2),
                2 => (2, 1),
                _ => (1, 1),
            };
            width = width.checked_sub(left.checked_add(right)?.checked_mul(unit_x)?)?;
            height = height.checked_sub(top.checked_add(bottom)?.checked_mul(unit_y)?)?;
        }
        let mut depth = || u8::try_from(r.ue()?).ok().filter(|depth| *depth <= 8).map(|depth| depth + 8);
        let (bit_depth_luma, bit_depth_chroma) = (depth()?, depth()?);
        r.ue()?; // log2_max_pic_order_cnt_lsb_minus4
        let all_layers = r.flag()?;
        let mut max_num_reorder = 0;
        for _ in if all_layers { 0 } else { sub_layers_minus1 }..=sub_layers_minus1 {
            r.ue()?; // sps_max_dec_pic_buffering_minus1
            max_num_reorder = r.ue()?; // of the highest sub-layer in the end
            r.ue()?; // sps_max_latency_increase_plus1
        }
        Some(Self {
            width,
            height,
            profile_idc,
            level_idc,
            general,
            sub_layers: sub_layers_minus1 as u8 + 1,
            temporal_id_nesting,
            chroma_format_idc,
            bit_depth_luma,
            bit_depth_chroma,
            max_num_reorder,
        })
    }

    /// Profile as the API names it (annex A and G to I); the number if it has no name.
    pub fn profile(&self) -> Cow<'static, str> {
        Cow::Borrowed(match self.profile_idc {
            1 => "Main",
            2 => "Main 10",
            3 => "Main Still Picture",
            4 => "Range Extensions",
            5 => "High Throughput",
            6 => "Multiview Main",
            7 => "Scalable Main",
            8 => "3D Main",
            9 => "Screen Extended Main",
            10 => "Scalable Range Extensions",
            11 => "High Throughput Screen Extended",
            other => return Cow::Owned(other.to_string()),
        })
    }

    /// Level as the API writes it: `4`, `4.1`.
    pub fn level(&self) -> String {
        match (self.level_idc / 30, self.level_idc % 30 / 3) {
            (major, 0) => major.to_string(),
            (major, minor) => format!("{major}.{minor}"),
        }
    }
}

/// §7.3.3; gives the general part.
fn profile_tier_level(r: &mut BitReader, sub_layers_minus1: u32) -> Option<[u8; 12]> {
    let mut general = [0; 12];
    for byte in &mut general {
        *byte = r.bits(8)? as u8;
    }
    let mut present = [(false, false); 7];
    for layer in present.iter_mut().take(sub_layers_minus1 as usize) {
        *layer = (r.flag()?, r.flag()?);
    }
    if sub_layers_minus1 > 0 {
        r.skip(2 * (8 - sub_layers_minus1))?;
    }
    for (profile, level) in present {
        r.skip(if profile { 88 } else { 0 } + if level { 8 } else { 0 })?;
    }
    Some(general)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// x265, 1920x1080, 10 bits, with B-frames.
    const MAIN_10: [u8; 44] = [
        0x42, 0x01, 0x01, 0x02, 0x20, 0x00, 0x00, 0x03, 0x00, 0x90, 0x00, 0x00, 0x03, 0x00, 0x00, 0x03, 0x00,
        0x78, 0xa0, 0x03, 0xc0, 0x80, 0x10, 0xe4, 0xd9, 0x65, 0x66, 0x92, 0x4c, 0xaf, 0x01, 0x68, 0x08, 0x00,
        0x00, 0x03, 0x00, 0x08, 0x00, 0x00, 0x03, 0x00, 0xc8, 0x40,
    ];
    /// x265, 1920x1080, 8 bits, without B-frames.
    const MAIN: [u8; 44] = [
        0x42, 0x01, 0x01, 0x01, 0x60, 0x00, 0x00, 0x03, 0x00, 0x90, 0x00, 0x00, 0x03, 0x00, 0x00, 0x03, 0x00,
        0x78, 0xa0, 0x03, 0xc0, 0x80, 0x10, 0xe5, 0x96, 0x4a, 0x92, 0x4c, 0xaf, 0x01, 0x68, 0x08, 0x00, 0x00,
        0x03, 0x00, 0x08, 0x00, 0x00, 0x03, 0x00, 0xc8, 0x40, 0x00,
    ];

    #[test]
    fn sps_of_x265_is_read() {
        for (unit, profile, reorders) in [(&MAIN_10, "Main 10", true), (&MAIN, "Main", false)] {
            let sps = Sps::parse(unit).unwrap();
            assert_eq!((sps.width, sps.height), (1920, 1080));
            assert_eq!((sps.profile().as_ref(), sps.level().as_str()), (profile, "4"));
            assert_eq!(sps.max_num_reorder > 0, reorders);
        }
    }

    #[test]
    fn sps_cut_anywhere_is_refused_or_read_but_never_panics() {
        for length in 0..MAIN_10.len() {
            if let Some(sps) = Sps::parse(&MAIN_10[..length]) {
                assert_eq!((sps.width, sps.height), (1920, 1080), "{length} bytes");
            }
        }
        assert_eq!(Sps::parse(&[0x40, 0x01, 0x0c]), None);
    }
}
