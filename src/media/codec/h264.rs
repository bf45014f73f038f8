//! Sequence parameter set of H.264 (ITU-T H.264 §7.3.2.1 and annex E).

use std::borrow::Cow;

use super::bits::BitReader;

/// What an SPS says about the pictures.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sps {
    /// After cropping, in pixels.
    pub width: u32,
    pub height: u32,
    pub profile_idc: u8,
    /// Ten times the level.
    pub level_idc: u8,
    /// 0 monochrome, 1 4:2:0, 2 4:2:2, 3 4:4:4.
    pub chroma_format_idc: u8,
    /// In bits.
    pub bit_depth_luma: u8,
    pub bit_depth_chroma: u8,
    /// How many pictures may precede another one in decoding order and follow it in output order: 0 means no
    /// B-frames. `None` if the SPS does not bound it.
    pub max_num_reorder: Option<u32>,
}

impl Sps {
    /// Parses an SPS NAL unit, its header byte included. `None` if it is another unit, cut short, or absurd.
    pub fn parse(unit: &[u8]) -> Option<Self> {
        let (&header, payload) = unit.split_first()?;
        if header & 0x1f != 7 {
            return None;
        }
        let r = &mut BitReader::rbsp(payload);
        let profile_idc = r.bits(8)? as u8;
        r.skip(8)?; // constraint flags
        let level_idc = r.bits(8)? as u8;
        r.ue()?; // seq_parameter_set_id
        let chroma = if has_chroma_fields(profile_idc) { Chroma::read(r)? } else { Chroma::default() };
        r.ue()?; // log2_max_frame_num_minus4
        let pic_order_cnt_type = r.ue()?;
        if pic_order_cnt_type == 0 {
            r.ue()?; // log2_max_pic_order_cnt_lsb_minus4
        } else if pic_order_cnt_type == 1 {
            r.skip(1)?; // delta_pic_order_always_zero_flag
            r.skip_codes(2)?; // offsets
            let offsets = bounded(r.ue()?, 255)?; // §7.4.2.1.1
            r.skip_codes(offsets)?;
        }
        r.ue()?; // max_num_ref_frames
        r.skip(1)?; // gaps_in_frame_num_value_allowed_flag
        let width_mbs = bounded(r.ue()?, 0xffff)? + 1;
        let height_map_units = bounded(r.ue()?, 0xffff)? + 1;
        let frame_mbs_only = r.flag()?;
        if !frame_mbs_only {
            r.skip(1)?; // mb_adaptive_frame_field_flag
        }
        r.skip(1)?; // direct_8x8_inference_flag
        let fields = 2 - u32::from(frame_mbs_only);
        let (mut width, mut height) = (width_mbs * 16, height_map_units * 16 * fields);
        if r.flag()? {
            let (left, right, top, bottom) = (r.ue()?, r.ue()?, r.ue()?, r.ue()?);
            // §7.4.2.1.1: CropUnitX and CropUnitY
            let (unit_x, unit_y) = match chroma.array_type {
                1 => (2, 2 * fields),
                2 => (2, fields),
                _ => (1, fields),
            };
            width = width.checked_sub(left.checked_add(right)?.checked_mul(unit_x)?)?;
            height = height.checked_sub(top.checked_add(bottom)?.checked_mul(unit_y)?)?;
        }
        // Broken VUI is common and costs only the reorder hint.
        let stated = if r.flag() == Some(true) { vui_max_num_reorder(r) } else { None };
        // Baseline has no B slices (§A.2.1); order type 2 forbids reordering (§7.4.2.1.1).
        let implied = (profile_idc == 66 || pic_order_cnt_type == 2).then_some(0);
        Some(Self {
            width,
            height,
            profile_idc,
            level_idc,
            chroma_format_idc: chroma.format_idc,
            bit_depth_luma: chroma.bit_depth_luma,
            bit_depth_chroma: chroma.bit_depth_chroma,
            max_num_reorder: stated.or(implied),
        })
    }

    /// Profile as the API names it; the number if it has no name.
    pub fn profile(&self) -> Cow<'static, str> {
        Cow::Borrowed(match self.profile_idc {
            66 => "Baseline",
            77 => "Main",
            88 => "Extended",
            100 => "High",
            110 => "High 10",
            122 => "High 4:2:2",
            244 => "High 4:4:4 Predictive",
            other => return Cow::Owned(other.to_string()),
        })
    }

    /// Level as the API writes it: `4`, `4.1`.
    pub fn level(&self) -> String {
        match (self.level_idc / 10, self.level_idc % 10) {
            (major, 0) => major.to_string(),
            (major, minor) => format!("{major}.{minor}"),
        }
    }
}

fn bounded(value: u32, max: u32) -> Option<u32> {
    (value <= max).then_some(value)
}

/// Profiles whose SPS has the chroma and bit depth fields, §7.3.2.1.1.
fn has_chroma_fields(profile_idc: u8) -> bool {
    matches!(profile_idc, 100 | 110 | 122 | 244 | 44 | 83 | 86 | 118 | 128 | 138 | 139 | 134 | 135)
}

struct Chroma {
    format_idc: u8,
    bit_depth_luma: u8,
    bit_depth_chroma: u8,
    /// ChromaArrayType of §7.4.2.1.1: 0 with separate planes.
    array_type: u8,
}

impl Default for Chroma {
    fn default() -> Self {
        Self { format_idc: 1, bit_depth_luma: 8, bit_depth_chroma: 8, array_type: 1 }
    }
}

impl Chroma {
    fn read(r: &mut BitReader) -> Option<Self> {
        let format_idc = bounded(r.ue()?, 3)? as u8;
        let separate_planes = format_idc == 3 && r.flag()?;
        let (bit_depth_luma, bit_depth_chroma) =
            (8 + bounded(r.ue()?, 6)? as u8, 8 + bounded(r.ue()?, 6)? as u8);
        r.skip(1)?; // qpprime_y_zero_transform_bypass_flag
        if r.flag()? {
            for index in 0..if format_idc == 3 { 12 } else { 8 } {
                if r.flag()? {
                    scaling_list(r, if index < 6 { 16 } else { 64 })?;
                }
            }
        }
        let array_type = if separate_planes { 0 } else { format_idc };
        Some(Self { format_idc, bit_depth_luma, bit_depth_chroma, array_type })
    }
}

/// §7.3.2.1.1.1; only its length matters here.
fn scaling_list(r: &mut BitReader, size: u32) -> Option<()> {
    let (mut last, mut next) = (8i64, 8i64);
    for _ in 0..size {
        if next != 0 {
            next = (last + i64::from(r.se()?)).rem_euclid(256);
        }
        last = if next == 0 { last } else { next };
    }
    Some(())
}

/// `max_num_reorder_frames` of the VUI, §E.1.1.
fn vui_max_num_reorder(r: &mut BitReader) -> Option<u32> {
    if r.flag()? && r.bits(8)? == 255 {
        r.skip(32)?; // sample aspect ratio
    }
    if r.flag()? {
        r.skip(1)?; // overscan
    }
    if r.flag()? {
        r.skip(4)?; // video format and range
        if r.flag()? {
            r.skip(24)?; // colour description
        }
    }
    if r.flag()? {
        r.skip_codes(2)?; // chroma location
    }
    if r.flag()? {
        r.skip(65)?; // timing
    }
    let nal_hrd = r.flag()?;
    if nal_hrd {
        skip_hrd(r)?;
    }
    let vcl_hrd = r.flag()?;
    if vcl_hrd {
        skip_hrd(r)?;
    }
    if nal_hrd || vcl_hrd {
        r.skip(1)?; // low_delay_hrd_flag
    }
    r.skip(1)?; // pic_struct_present_flag
    if !r.flag()? {
        return None;
    }
    r.skip(1)?; // motion_vectors_over_pic_boundaries_flag
    r.skip_codes(4)?;
    r.ue()
}

/// §E.1.2.
fn skip_hrd(r: &mut BitReader) -> Option<()> {
    let count = bounded(r.ue()?, 31)? + 1;
    r.skip(8)?;
    for _ in 0..count {
        r.skip_codes(2)?;
        r.skip(1)?;
    }
    r.skip(20)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The SPS of x264 at 640x480, Main, from our transcripts (`Z01AHtoCgL/lwEQAAAMABAAAAwDIPFi6gA==`).
    const X264_MAIN: [u8; 25] = [
        0x67, 0x4d, 0x40, 0x1e, 0xda, 0x02, 0x80, 0xbf, 0xe5, 0xc0, 0x44, 0x00, 0x00, 0x03, 0x00, 0x04, 0x00,
        0x00, 0x03, 0x00, 0xc8, 0x3c, 0x58, 0xba, 0x80,
    ];

    #[test]
    fn sps_of_x264_is_read() {
        let sps = Sps::parse(&X264_MAIN).unwrap();
        assert_eq!((sps.width, sps.height), (640, 360));
        assert_eq!((sps.profile().as_ref(), sps.level().as_str()), ("Main", "3"));
        assert_eq!(sps.max_num_reorder, Some(0));
    }

    #[test]
    fn sps_with_chroma_fields_and_4_4_4_is_read() {
        // Of GStreamer's x264enc, `Z/QADZGWQFB+wFqDAwMgAAADACAAAAeR4oVJ`.
        let unit = [
            0x67, 0xf4, 0x00, 0x0d, 0x91, 0x96, 0x40, 0x50, 0x7e, 0xc0, 0x5a, 0x83, 0x03, 0x03, 0x20, 0x00,
            0x00, 0x03, 0x00, 0x20, 0x00, 0x00, 0x07, 0x91, 0xe2, 0x85, 0x49,
        ];
        let sps = Sps::parse(&unit).unwrap();
        assert_eq!((sps.width, sps.height), (320, 240));
        assert_eq!((sps.profile().as_ref(), sps.level().as_str()), ("High 4:4:4 Predictive", "1.3"));
    }

    #[test]
    fn cropping_profiles_and_reordering_are_read() {
        let interlaced_high = [
            0x67, 0x64, 0x00, 0x28, 0xac, 0xd9, 0x40, 0x78, 0x04, 0x4f, 0xde, 0x02, 0x20, 0x00, 0x00, 0x03,
            0x00, 0x20, 0x00, 0x00, 0x06, 0x43, 0xe2, 0xc5, 0xb2, 0xc0,
        ];
        let baseline = [
            0x67, 0x42, 0xc0, 0x1f, 0xd9, 0x00, 0x50, 0x05, 0xbb, 0x01, 0x10, 0x00, 0x00, 0x03, 0x00, 0x10,
            0x00, 0x00, 0x03, 0x03, 0x20, 0xf1, 0x83, 0x24, 0x80,
        ];
        let high_422 = [
            0x67, 0x7a, 0x00, 0x1f, 0xb6, 0xcd, 0x94, 0x05, 0x00, 0x5b, 0xb0, 0x11, 0x00, 0x00, 0x03, 0x00,
            0x01, 0x00, 0x00, 0x03, 0x00, 0x32, 0x0f, 0x18, 0x31, 0x96,
        ];
        for (unit, size, profile, level, reorders) in [
            (&interlaced_high[..], (1920, 1080), "High", "4", true),
            (&baseline, (1280, 720), "Baseline", "3.1", false),
            (&high_422, (1280, 720), "High 4:2:2", "3.1", true),
        ] {
            let sps = Sps::parse(unit).unwrap();
            assert_eq!((sps.width, sps.height), size, "{profile}");
            assert_eq!((sps.profile().as_ref(), sps.level().as_str()), (profile, level));
            assert_eq!(sps.max_num_reorder.unwrap() > 0, reorders, "{profile}");
        }
    }

    #[test]
    fn sps_cut_anywhere_is_refused_or_read_but_never_panics() {
        for length in 0..X264_MAIN.len() {
            if let Some(sps) = Sps::parse(&X264_MAIN[..length]) {
                assert_eq!((sps.width, sps.height), (640, 360), "{length} bytes");
            }
        }
    }

    #[test]
    fn other_units_and_unknown_profiles_are_told_apart() {
        assert_eq!(Sps::parse(&[0x68, 0xef, 0x3c, 0x80]), None);
        let mut unknown = X264_MAIN;
        unknown[1] = 78;
        assert_eq!(Sps::parse(&unknown).unwrap().profile(), "78");
    }
}
