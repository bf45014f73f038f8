//! H.264 (RFC 6184).

use super::{Facts, ParameterSet, aggregated};

const IDR_SLICE: u8 = 5;
const SPS: u8 = 7;
const PPS: u8 = 8;
const STAP_A: u8 = 24;
const STAP_B: u8 = 25;
const MTAP16: u8 = 26;
const MTAP24: u8 = 27;
const FU_A: u8 = 28;
const FU_B: u8 = 29;

pub(super) fn inspect(payload: &[u8]) -> Facts {
    let Some(&header) = payload.first() else { return Facts::default() };
    match header & 0x1f {
        // §5.8: only the fragment that starts the unit counts
        FU_A | FU_B => match payload.get(1) {
            Some(fu_header) if fu_header & 0x80 != 0 => facts_of(fu_header & 0x1f),
            _ => Facts::default(),
        },
        STAP_A..=MTAP24 => {
            units(payload).fold(Facts::default(), |facts, unit| facts | facts_of(type_of(unit)))
        }
        nal_type => facts_of(nal_type),
    }
}

pub(super) fn for_each_parameter_set(payload: &[u8], f: &mut dyn FnMut(ParameterSet, &[u8])) {
    let single =
        payload.first().filter(|&&header| !(STAP_A..=FU_B).contains(&(header & 0x1f))).map(|_| payload);
    for unit in units(payload).chain(single) {
        match type_of(unit) {
            SPS => f(ParameterSet::Sps, unit),
            PPS => f(ParameterSet::Pps, unit),
            _ => {}
        }
    }
}

fn facts_of(nal_type: u8) -> Facts {
    Facts { key: nal_type == IDR_SLICE, parameter_sets: matches!(nal_type, SPS | PPS) }
}

fn type_of(unit: &[u8]) -> u8 {
    unit.first().map_or(0, |header| header & 0x1f)
}

/// The units of an aggregation packet (§5.7); none for other packets.
fn units(payload: &[u8]) -> impl Iterator<Item = &[u8]> {
    // Bytes before the first length: header and, but for STAP-A, the decoding order number. Between each
    // length and its unit, MTAPs have a DON difference and a timestamp offset; §5.7.2: their length counts
    // from the unit on.
    let (start, gap) = match payload.first().map(|header| header & 0x1f) {
        Some(STAP_A) => (1, 0),
        Some(STAP_B) => (3, 0),
        Some(MTAP16) => (3, 3),
        Some(MTAP24) => (3, 4),
        _ => (payload.len(), 0),
    };
    aggregated(payload.get(start..).unwrap_or_default(), gap)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: Facts = Facts { key: true, parameter_sets: false };
    const SETS: Facts = Facts { key: false, parameter_sets: true };
    const BOTH: Facts = Facts { key: true, parameter_sets: true };
    const NONE: Facts = Facts { key: false, parameter_sets: false };

    #[test]
    fn key_pictures_and_parameter_sets_are_seen_in_every_packet_type() {
        for (payload, want) in [
            (&[0x65, 0x88][..], KEY),
            (&[0x41, 0x9a], NONE),
            (&[0x67, 0x4d], SETS),
            (&[0x68, 0xef], SETS),
            (&[0x7c, 0x85, 0], KEY),    // FU-A, start of an IDR slice
            (&[0x7c, 0x05, 0], NONE),   // FU-A, middle
            (&[0x7c, 0x45, 0], NONE),   // FU-A, end
            (&[0x7c, 0x81, 0], NONE),   // FU-A, start of another slice
            (&[0x7d, 0x85, 0, 0], KEY), // FU-B
            (&[0x78, 0, 1, 0x67, 0, 1, 0x68, 0, 1, 0x65], BOTH), // STAP-A
            (&[0x79, 9, 9, 0, 1, 0x65], KEY), // STAP-B
            (&[0x7a, 9, 9, 0, 1, 0, 0, 0, 0x65], KEY), // MTAP16
            (&[0x7b, 9, 9, 0, 1, 0, 0, 0, 0, 0x67], SETS), // MTAP24
            (&[0x78, 0, 1, 0x67, 0xff, 0xff, 0x65], SETS), // second length runs past the end
            (&[0x78, 0, 0, 0, 1, 0x65], KEY), // an empty unit
            (&[0x78], NONE),
            (&[0x7c], NONE),
            (&[], NONE),
        ] {
            assert_eq!(inspect(payload), want, "{payload:x?}");
        }
    }

    #[test]
    fn complete_parameter_sets_are_handed_out_in_order() {
        let collect = |payload: &[u8]| {
            let mut sets = Vec::new();
            for_each_parameter_set(payload, &mut |set, unit| sets.push((set, unit.to_vec())));
            sets
        };
        let sps = (ParameterSet::Sps, vec![0x67, 1]);
        let pps = (ParameterSet::Pps, vec![0x68]);
        assert_eq!(collect(&[0x67, 1]), std::slice::from_ref(&sps));
        assert_eq!(collect(&[0x78, 0, 2, 0x67, 1, 0, 1, 0x68, 0, 1, 0x65]), [sps, pps]);
        // A fragment is not complete.
        assert_eq!(collect(&[0x7c, 0x87, 1]), []);
        assert_eq!(collect(&[0x65, 1]), []);
    }
}
