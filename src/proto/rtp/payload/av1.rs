//! AV1 (RTP Payload Format For AV1, AOMedia).

/// Whether the payload starts a coded video sequence: the N bit of the aggregation header (§4.4).
pub(super) fn starts_coded_video_sequence(payload: &[u8]) -> bool {
    payload.first().is_some_and(|header| header & 0x08 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sequence_starts_are_told_by_the_aggregation_header() {
        assert!(starts_coded_video_sequence(&[0x18, 0x0a]));
        assert!(!starts_coded_video_sequence(&[0x50, 0x0a]));
        assert!(!starts_coded_video_sequence(&[]));
    }
}
