//! VP9 (RFC 9628).

/// Whether the payload starts a frame that is not predicted from earlier ones: P clear, B set (§4.2).
pub(super) fn is_key_frame(payload: &[u8]) -> bool {
    payload.first().is_some_and(|first| first & 0x48 == 0x08)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn key_frames_are_told_by_the_descriptor() {
        for (payload, want) in
            [(&[0x08][..], true), (&[0x8c], true), (&[0x48], false), (&[0x00], false), (&[], false)]
        {
            assert_eq!(is_key_frame(payload), want, "{payload:x?}");
        }
    }
}
