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
}
