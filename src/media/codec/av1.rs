//! Sequence header of AV1 (AV1 Bitstream & Decoding Process §5.5).

use super::bits::BitReader;

/// What a sequence header says about the pictures.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SequenceHeader {
    pub profile: u8,
    /// `seq_level_idx[0]`: level 2.0 is 0, 2.1 is 1, 3.0 is 4.
    pub level_index: u8,
    /// `seq_tier[0]`: high.
    pub tier: bool,
    /// Largest size, in pixels.
    pub width: u32,
    pub height: u32,
    pub bit_depth: u8,
    pub monochrome: bool,
    pub subsampling_x: bool,
    pub subsampling_y: bool,
    pub chroma_sample_position: u8,
}

impl SequenceHeader {
    /// Parses the payload of a sequence header OBU: what follows its header and size field. `None` if cut short or
    /// with reserved values.
    pub fn parse(payload: &[u8]) -> Option<Self> {
        let r = &mut BitReader::raw(payload);
        let profile = r.bits(3)? as u8;
        r.skip(1)?; // still_picture
        let (level_index, tier);
        if r.flag()? {
            (level_index, tier) = (r.bits(5)? as u8, false); // reduced_still_picture_header
        } else {
            let mut decoder_model = None;
            if r.flag()? {
                r.skip(64)?; // timing_info: ticks per picture and per second
                if r.flag()? {
                    r.ue()?; // num_ticks_per_picture_minus_1, a uvlc: the same code
                }
                if r.flag()? {
                    decoder_model = Some(r.bits(5)? + 1); // buffer_delay_length_minus_1
                    r.skip(32 + 5 + 5)?;
                }
            }
            let initial_display_delay = r.flag()?;
            let points = r.bits(5)? + 1;
            let mut first = None;
            for _ in 0..points {
                r.skip(12)?; // operating_point_idc
                let level = r.bits(5)? as u8;
                let tier = level > 7 && r.flag()?;
                if let Some(bits) = decoder_model
                    && r.flag()?
                {
                    r.skip(2 * bits + 1)?;
                }
                if initial_display_delay && r.flag()? {
                    r.skip(4)?;
                }
                first.get_or_insert((level, tier));
            }
            (level_index, tier) = first?;
            return Self::after_points(r, profile, level_index, tier, false);
        }
        Self::after_points(r, profile, level_index, tier, true)
    }

    fn after_points(
        r: &mut BitReader,
        profile: u8,
        level_index: u8,
        tier: bool,
        reduced: bool,
    ) -> Option<Self> {
        let (width_bits, height_bits) = (r.bits(4)? + 1, r.bits(4)? + 1);
        let (width, height) = (r.bits(width_bits)? + 1, r.bits(height_bits)? + 1);
        if !reduced && r.flag()? {
            r.skip(4 + 3)?; // frame_id_numbers
        }
        r.skip(3)?; // use_128x128_superblock, enable_filter_intra, enable_intra_edge_filter
        if !reduced {
            r.skip(4)?; // interintra, masked compound, warped motion, dual filter
            if r.flag()? {
                r.skip(2)?; // joint and reference motion vectors, of order hints
                tools(r)?;
                r.skip(3)?; // order_hint_bits_minus_1
            } else {
                tools(r)?;
            }
        }
        r.skip(3)?; // superres, cdef, restoration
        let mut header = Self {
            profile,
            level_index,
            tier,
            width,
            height,
            bit_depth: 8,
            monochrome: false,
            subsampling_x: true,
            subsampling_y: true,
            chroma_sample_position: 0,
        };
        header.color_config(r)?;
        Some(header)
    }

    /// §5.5.2.
    fn color_config(&mut self, r: &mut BitReader) -> Option<()> {
        let high = r.flag()?;
        self.bit_depth = match (self.profile, high) {
            (2, true) => 10 + 2 * u8::from(r.flag()?),
            (_, true) => 10,
            (_, false) => 8,
        };
        self.monochrome = self.profile != 1 && r.flag()?;
        let (mut primaries, mut transfer, mut matrix) = (2, 2, 2);
        if r.flag()? {
            (primaries, transfer, matrix) = (r.bits(8)?, r.bits(8)?, r.bits(8)?);
        }
        if self.monochrome {
            return Some(());
        }
        if (primaries, transfer, matrix) == (1, 13, 0) {
            (self.subsampling_x, self.subsampling_y) = (false, false); // sRGB
            return Some(());
        }
        r.skip(1)?; // color_range
        (self.subsampling_x, self.subsampling_y) = match self.profile {
            0 => (true, true),
            1 => (false, false),
            _ if self.bit_depth == 12 => {
                let x = r.flag()?;
                (x, x && r.flag()?)
            }
            _ => (true, false),
        };
        if self.subsampling_x && self.subsampling_y {
            self.chroma_sample_position = r.bits(2)? as u8;
        }
        Some(())
    }
}

/// `seq_force_screen_content_tools` and `seq_force_integer_mv`.
fn tools(r: &mut BitReader) -> Option<()> {
    let choose = r.flag()?;
    let forced = choose || r.flag()?;
    if forced && !r.flag()? {
        r.skip(1)?;
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_of_real_encoders_are_read() {
        // SVT-AV1 and libaom, 640x360, 8 bits.
        for payload in [
            [0x00, 0x00, 0x00, 0x0c, 0xc4, 0xff, 0x67, 0x3e, 0xfe, 0x40, 0x10],
            [0x00, 0x00, 0x00, 0x0c, 0xc4, 0xff, 0x67, 0x36, 0xbe, 0x40, 0x10],
        ] {
            let header = SequenceHeader::parse(&payload).unwrap();
            assert_eq!((header.width, header.height), (640, 360));
            assert_eq!((header.profile, header.level_index, header.bit_depth, header.tier), (0, 1, 8, false));
            assert!(header.subsampling_x && header.subsampling_y && !header.monochrome);
        }
    }

    #[test]
    fn cut_headers_are_refused() {
        for length in 0..4 {
            assert_eq!(SequenceHeader::parse(&[0, 0, 0, 4][..length]), None);
        }
    }
}
