//! G.711 (ITU-T G.711, RFC 3551 §4.5.14).

use crate::track::{Codec, Track};

/// Which of the two companding laws a track uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Law {
    /// PCMA.
    A,
    /// PCMU.
    Mu,
}

/// The law of a G.711 track, by its encoding name or else its static payload type; `None` for other codecs.
pub fn law(track: &Track) -> Option<Law> {
    if track.codec != Codec::G711 {
        return None;
    }
    match track.encoding.to_ascii_uppercase().as_str() {
        "PCMU" => Some(Law::Mu),
        "PCMA" => Some(Law::A),
        _ => match track.payload_type {
            0 => Some(Law::Mu),
            8 => Some(Law::A),
            _ => None,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::track::Kind;

    #[test]
    fn law_is_told_by_name_or_static_payload_type() {
        for (codec, payload_type, encoding, want) in [
            (Codec::G711, 0, "", Some(Law::Mu)),
            (Codec::G711, 8, "", Some(Law::A)),
            (Codec::G711, 96, "pcma", Some(Law::A)),
            (Codec::G711, 97, "PCMU", Some(Law::Mu)),
            (Codec::G711, 98, "", None),
            (Codec::G722, 9, "G722", None),
        ] {
            let track = Track {
                kind: Kind::Audio,
                codec,
                payload_type,
                clock_rate: 8_000,
                channels: Some(1),
                encoding: encoding.into(),
                fmtp: String::new(),
                control: String::new(),
            };
            assert_eq!(law(&track), want, "{payload_type} {encoding}");
        }
    }
}
