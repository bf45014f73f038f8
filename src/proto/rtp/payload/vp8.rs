//! VP8 (RFC 7741).

/// Whether the payload starts a key frame: first partition, and the inverse key frame bit clear (§4.2, §4.3).
pub(super) fn is_key_frame(payload: &[u8]) -> bool {
    let Some(&first) = payload.first() else { return false };
    if first & 0x17 != 0x10 {
        return false; // not the start of partition 0
    }
    let mut length = 1;
    if first & 0x80 != 0 {
        let Some(&extension) = payload.get(1) else { return false };
        length += 1;
        if extension & 0x80 != 0 {
            // PictureID: one byte, or two if its top bit is set
            length += if payload.get(2).is_some_and(|byte| byte & 0x80 != 0) { 2 } else { 1 };
        }
        length += usize::from(extension & 0x40 != 0); // TL0PICIDX
        length += usize::from(extension & 0x30 != 0); // TID, KEYIDX
    }
    payload.get(length).is_some_and(|frame| frame & 1 == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn key_frames_are_told_by_the_payload_header() {
        for (payload, want) in [
            (&[0x10, 0x00][..], true),
            (&[0x10, 0x01], false),
            (&[0x00, 0x00], false),                  // not the start of a partition
            (&[0x11, 0x00], false),                  // partition 1
            (&[0x90, 0x80, 0x05, 0x00], true),       // 7-bit PictureID
            (&[0x90, 0x80, 0x85, 0x05, 0x00], true), // 15-bit PictureID
            (&[0x90, 0xf0, 0x85, 0x05, 1, 2, 0x01], false),
            (&[0x90, 0xf0, 0x85, 0x05, 1, 2, 0x00], true),
            (&[0x90, 0x80], false),
            (&[0x90], false),
            (&[0x10], false),
            (&[], false),
        ] {
            assert_eq!(is_key_frame(payload), want, "{payload:x?}");
        }
    }
}
