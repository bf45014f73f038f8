//! Names that nobody can guess: of connections, sessions and challenges.

use std::hash::{BuildHasher, Hasher, RandomState};

use uuid::{Builder, Uuid};

/// Shards that can be told apart in the id of an RTSP session.
const SHARDS_MAX: usize = 256;

/// Any number.
pub fn random_number() -> u64 {
    // The standard hasher's keys are random per thread, from the system's own source, and differ per instance.
    RandomState::new().build_hasher().finish()
}

fn random() -> u128 {
    u128::from(random_number()) << 64 | u128::from(random_number())
}

/// A UUID of version 4.
pub fn new_uuid() -> Uuid {
    Builder::from_random_bytes(random().to_be_bytes()).into_uuid()
}

/// The nonce of a challenge: 32 hexadecimal digits.
pub fn new_nonce() -> String {
    format!("{:032x}", random())
}

/// A new id for the `Session` header, as long as MediaMTX's: the shard in its first two digits, so that a request on any
/// connection finds its session.
pub fn new_session_id(shard: usize) -> String {
    format!("{:02x}{:030x}", shard % SHARDS_MAX, random() >> 8)
}

/// Digits of a muxer's prefix that are in the ids of its viewers.
pub const VIEWER_TAG_DIGITS: usize = 8;

/// A new id for the URLs of an HLS viewer: of the same form, with the tag of its muxer behind the shard.
pub fn new_viewer_id(shard: usize, tag: &str) -> String {
    let random = format!("{:032x}", random());
    let head = format!("{:02x}{tag}", shard % SHARDS_MAX);
    let rest = random.get(head.len()..).unwrap_or(&random);
    format!("{head}{rest}")
}

/// Whether this is an id that [`new_viewer_id`] may have made.
pub fn is_viewer_id(id: &str, shard: usize, tag: &str) -> bool {
    let is_hex = id.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'));
    let names_muxer = id.get(2..).is_some_and(|rest| rest.starts_with(tag));
    id.len() == 32 && is_hex && shard_of(id) == Some(shard % SHARDS_MAX) && names_muxer
}

/// The shard that the id in a `Session` header names.
pub fn shard_of(session_id: &str) -> Option<usize> {
    usize::from_str_radix(session_id.get(..2)?, 16).ok()
}

/// The first digits of a session's UUID, as in logs.
pub fn short(id: Uuid) -> String {
    format!("{:08x}", id.as_fields().0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_of_version_4_differ_and_are_shortened_as_operators_read_them() {
        let (one, other) = (new_uuid(), new_uuid());
        assert_eq!((one.get_version_num(), one == other), (4, false));
        assert_eq!(short(one), one.to_string()[..8]);
        assert_ne!(new_nonce(), new_nonce());
        assert_eq!(new_nonce().len(), 32);
    }

    #[test]
    fn a_session_id_names_its_shard() {
        let id = new_session_id(3);
        assert_eq!((id.len(), shard_of(&id)), (32, Some(3)));
        assert_eq!(shard_of("é"), None);
    }

    #[test]
    fn a_viewer_s_id_names_its_shard_and_its_muxer() {
        let id = new_viewer_id(3, "00c0ffee");
        assert_eq!((id.len(), shard_of(&id)), (32, Some(3)));
        assert!(is_viewer_id(&id, 3, "00c0ffee"));
        assert!(!is_viewer_id(&id, 2, "00c0ffee"));
        assert!(!is_viewer_id(&id, 3, "01c0ffee"));
        assert!(!is_viewer_id(&id.to_uppercase(), 3, "00c0ffee"));
        assert!(!is_viewer_id(&id[..31], 3, "00c0ffee"));
        assert!(!is_viewer_id("é", 3, ""));
        assert_ne!(id, new_viewer_id(3, "00c0ffee"));
    }
}
