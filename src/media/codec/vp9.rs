//! Uncompressed header of a VP9 key frame (VP9 Bitstream & Decoding Process §6.2).

use super::bits::BitReader;

/// What the header of a key frame says about the pictures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyFrame {
    pub profile: u8,
    /// In pixels.
    pub width: u32,
    pub height: u32,
    pub bit_depth: u8,
    pub subsampling_x: bool,
    pub subsampling_y: bool,
}

impl KeyFrame {
    /// `None` if the frame is no key frame, or cut short.
    pub fn parse(frame: &[u8]) -> Option<Self> {
        let r = &mut BitReader::raw(&frame[..frame.len().min(32)]);
        if r.bits(2)? != 2 {
            return None; // frame_marker
        }
        let (low, high) = (r.bits(1)?, r.bits(1)?);
        let profile = (high << 1 | low) as u8;
        if profile == 3 {
            r.skip(1)?;
        }
        // show_existing_frame, frame_type: not key
        if r.flag()? || r.flag()? {
            return None;
        }
        r.skip(2)?; // show_frame, error_resilient_mode
        if r.bits(24)? != 0x49_8342 {
            return None; // frame_sync_code
        }
        let bit_depth = if profile >= 2 { 10 + 2 * u8::from(r.flag()?) } else { 8 };
        let is_rgb = r.bits(3)? == 7;
        let (mut x, mut y) = (true, true);
        if !is_rgb {
            r.skip(1)?; // color_range
        }
        if profile & 1 == 1 {
            (x, y) = if is_rgb { (false, false) } else { (r.flag()?, r.flag()?) };
            r.skip(1)?; // reserved
        } else if is_rgb {
            return None;
        }
        let (width, height) = (r.bits(16)? + 1, r.bits(16)? + 1);
        Some(Self { profile, width, height, bit_depth, subsampling_x: x, subsampling_y: y })
    }

    /// The lowest level, times ten, that allows pictures of this size at up to 30 a second (annex A).
    pub fn level(&self) -> u8 {
        const SIZES: [(u32, u8); 9] = [
            (36_864, 10),
            (73_728, 11),
            (122_880, 20),
            (245_760, 21),
            (552_960, 30),
            (983_040, 31),
            (2_228_224, 40),
            (8_912_896, 50),
            (35_651_584, 60),
        ];
        let size = self.width.saturating_mul(self.height);
        SIZES.iter().find(|(largest, _)| size <= *largest).map_or(62, |(_, level)| *level)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn key_frame_headers_are_read() {
        // Profile 0, 640x360: marker 10, profile 00, not existing, key, shown; sync code; BT.601; size.
        let frame = [0x82, 0x49, 0x83, 0x42, 0x20, 0x27, 0xf0, 0x16, 0x70];
        let key = KeyFrame::parse(&frame).unwrap();
        assert_eq!((key.width, key.height, key.profile, key.bit_depth), (640, 360, 0, 8));
        assert_eq!(key.level(), 21);
        assert_eq!(KeyFrame::parse(&[0x86, 0x49, 0x83, 0x42, 0x20]), None);
        assert_eq!(KeyFrame::parse(&frame[..6]), None);
    }
}
