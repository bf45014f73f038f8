//! H.265 (RFC 7798), without DONL fields: `sprop-max-don-diff` is 0 in every camera known.

use super::{Facts, ParameterSet, aggregated};

const VPS: u8 = 32;
const SPS: u8 = 33;
const PPS: u8 = 34;
const AGGREGATION: u8 = 48;
const FRAGMENTATION: u8 = 49;

pub(super) fn inspect(payload: &[u8]) -> Facts {
    match type_of(payload) {
        // §4.4.3: only the fragment that starts the unit counts
        Some(FRAGMENTATION) => match payload.get(2) {
            Some(fu_header) if fu_header & 0x80 != 0 => facts_of(fu_header & 0x3f),
            _ => Facts::default(),
        },
        Some(AGGREGATION) => {
            units(payload).filter_map(type_of).map(facts_of).fold(Facts::default(), |a, b| a | b)
        }
        Some(nal_type) => facts_of(nal_type),
        None => Facts::default(),
    }
}

pub(super) fn for_each_parameter_set(payload: &[u8], f: &mut dyn FnMut(ParameterSet, &[u8])) {
    for unit in units(payload).chain(std::iter::once(payload)) {
        match type_of(unit) {
            Some(VPS) => f(ParameterSet::Vps, unit),
            Some(SPS) => f(ParameterSet::Sps, unit),
            Some(PPS) => f(ParameterSet::Pps, unit),
            _ => {}
        }
    }
}

/// ITU-T H.265 table 7-1: 16 to 21 are the IRAP pictures that exist, 22 and 23 are reserved ones.
fn facts_of(nal_type: u8) -> Facts {
    Facts { key: matches!(nal_type, 16..=21), parameter_sets: matches!(nal_type, VPS | SPS | PPS) }
}

fn type_of(unit: &[u8]) -> Option<u8> {
    unit.first().map(|header| header >> 1 & 0x3f)
}

/// The units of an aggregation packet (§4.4.2); none for other packets.
fn units(payload: &[u8]) -> impl Iterator<Item = &[u8]> {
    let is_aggregation = type_of(payload) == Some(AGGREGATION);
    aggregated(payload.get(2..).filter(|_| is_aggregation).unwrap_or_default(), 0)
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
            (&[0x26, 1, 0xaf][..], KEY), // IDR_W_RADL
            (&[0x28, 1, 0xaf], KEY),     // IDR_N_LP
            (&[0x2a, 1, 0xaf], KEY),     // CRA
            (&[0x20, 1, 0xaf], KEY),     // BLA
            (&[0x02, 1, 0xd0], NONE),    // TRAIL_R
            (&[0x40, 1], SETS),
            (&[0x42, 1], SETS),
            (&[0x44, 1], SETS),
            (&[0x62, 1, 0x93], KEY),  // FU, start of IDR_W_RADL
            (&[0x62, 1, 0x13], NONE), // FU, middle
            (&[0x62, 1, 0x81], NONE), // FU, start of TRAIL_R
            (&[0x62, 1], NONE),
            (&[0x60, 1, 0, 2, 0x42, 1, 0, 2, 0x26, 1], BOTH),
            (&[0x60, 1, 0, 9, 0x42, 1], NONE),
            (&[0x60], NONE),
            (&[], NONE),
        ] {
            assert_eq!(inspect(payload), want, "{payload:x?}");
        }
    }

    #[test]
    fn complete_parameter_sets_are_handed_out_in_order() {
        let mut sets = Vec::new();
        let payload = [0x60, 1, 0, 2, 0x40, 1, 0, 3, 0x42, 1, 7, 0, 2, 0x44, 1];
        for_each_parameter_set(&payload, &mut |set, unit| sets.push((set, unit.to_vec())));
        let want = [
            (ParameterSet::Vps, vec![0x40, 1]),
            (ParameterSet::Sps, vec![0x42, 1, 7]),
            (ParameterSet::Pps, vec![0x44, 1]),
        ];
        assert_eq!(sets, want);
    }
}
