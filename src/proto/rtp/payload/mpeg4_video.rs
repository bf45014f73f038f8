//! MPEG-4 part 2 video (RFC 6416).

use super::Facts;

/// Start codes of ISO/IEC 14496-2 §6.2.1.
const VISUAL_OBJECT_SEQUENCE: u8 = 0xb0;
const GROUP_OF_VOP: u8 = 0xb3;
const VOP: u8 = 0xb6;

/// A VOP starts at the front of a packet (§5.2), so only the first start code is looked at.
pub(super) fn inspect(payload: &[u8]) -> Facts {
    match *payload {
        [0, 0, 1, VISUAL_OBJECT_SEQUENCE, ..] => Facts { key: true, parameter_sets: true },
        [0, 0, 1, GROUP_OF_VOP, ..] => Facts { key: true, parameter_sets: false },
        // vop_coding_type 0: intra
        [0, 0, 1, VOP, coding, ..] => Facts { key: coding >> 6 == 0, parameter_sets: false },
        _ => Facts::default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intra_pictures_are_told_by_the_first_start_code() {
        for (payload, want) in [
            (&[0, 0, 1, 0xb0, 1][..], true),
            (&[0, 0, 1, 0xb3], true),
            (&[0, 0, 1, 0xb6, 0x10], true),
            (&[0, 0, 1, 0xb6, 0x50], false),
            (&[0, 0, 1, 0xb6], false),
            (&[7, 7, 7, 7, 7], false),
            (&[], false),
        ] {
            assert_eq!(inspect(payload).key, want, "{payload:x?}");
        }
    }
}
