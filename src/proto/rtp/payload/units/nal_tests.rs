//! Tests of `nal.rs`.

use super::super::tests::{run, track};
use super::super::{Depacketizer, ParameterSets};
use super::first_code;
use corecast_media::Codec;

fn h264() -> Depacketizer {
    Depacketizer::new(&track(Codec::H264, 90_000, "packetization-mode=1")).unwrap()
}

fn prefixed(nals: &[&[u8]]) -> Vec<u8> {
    nals.iter().flat_map(|nal| [&(nal.len() as u32).to_be_bytes()[..], nal].concat()).collect()
}

#[test]
fn units_are_put_together_from_every_packet_type() {
    let mut h264 = h264();
    let units = run(
        &mut h264,
        &[
            (1, 9, false, &[0x78, 0, 2, 0x09, 0xf0, 0, 2, 0x67, 0x42, 0, 2, 0x68, 0xce]), // AUD, SPS, PPS
            (2, 9, false, &[0x06, 0x05]),
            (3, 9, false, &[0x7c, 0x85, 1, 2]),
            (4, 9, false, &[0x7c, 0x05, 3]),
            (5, 9, true, &[0x7c, 0x45, 4]),
            (6, 12, true, &[0x41, 7]),
        ],
    );
    assert_eq!(units.len(), 2);
    assert_eq!(units[0].data, prefixed(&[&[0x06, 0x05], &[0x65, 1, 2, 3, 4]]));
    assert!(units[0].key && !units[0].damaged);
    assert_eq!((units[1].data.as_slice(), units[1].key), (&prefixed(&[&[0x41, 7]])[..], false));
    let sets = ParameterSets { vps: Vec::new(), sps: vec![0x67, 0x42], pps: vec![vec![0x68, 0xce]] };
    assert_eq!(h264.parameter_sets(), Some(&sets));
    assert!(sets.are_complete(Codec::H264) && !sets.are_complete(Codec::H265));
}

#[test]
fn a_loss_damages_the_unit_it_falls_into_and_no_other() {
    let units = run(
        &mut h264(),
        &[
            (1, 9, false, &[0x41, 1]),
            (2, 9, false, &[0x7c, 0x81, 1]),
            // 3 is lost
            (4, 9, true, &[0x7c, 0x41, 4]),
            (5, 12, true, &[0x41, 2]),
            // 6, a whole unit, is lost: known only by its number
            (7, 18, true, &[0x41, 3]),
            (8, 21, true, &[0x41, 4]),
        ],
    );
    let got: Vec<_> = units.iter().map(|unit| (unit.data.clone(), unit.damaged)).collect();
    assert_eq!(
        got,
        [
            (prefixed(&[&[0x41, 1]]), true),
            (prefixed(&[&[0x41, 2]]), false),
            (prefixed(&[&[0x41, 3]]), true),
            (prefixed(&[&[0x41, 4]]), false),
        ]
    );
}

#[test]
fn a_whole_unit_after_a_loss_is_not_blamed() {
    // First slices begin with a set bit.
    let units = run(
        &mut h264(),
        &[
            (1, 9, true, &[0x41, 0x9a]),
            (3, 15, true, &[0x65, 0x88, 1]),
            (4, 18, false, &[0x7c, 0x81, 0x9a]),
            (6, 21, false, &[0x7c, 0x85, 0x88]),
            (7, 21, true, &[0x7c, 0x45, 2]),
            (9, 24, true, &[0x78, 0, 2, 0x67, 1, 0, 2, 0x65, 0x88]),
            (11, 27, true, &[0x7c, 0x41, 0x9a]),
        ],
    );
    let got: Vec<_> = units.iter().map(|unit| (unit.timestamp_wrapped, unit.damaged)).collect();
    assert_eq!(got, [(9, false), (15, false), (21, false), (24, false)]);
}

#[test]
fn a_lost_marker_is_made_good_by_the_next_time_stamp() {
    let units = run(&mut h264(), &[(1, 9, false, &[0x41, 1]), (2, 12, true, &[0x41, 2])]);
    assert_eq!(
        units.iter().map(|unit| (unit.timestamp_wrapped, unit.damaged)).collect::<Vec<_>>(),
        [(9, false), (12, false)]
    );
}

#[test]
fn a_source_that_marks_every_packet_is_understood_after_its_first_unit() {
    let mut h264 = h264();
    let units = run(
        &mut h264,
        &[
            (1, 9, true, &[0x67, 1]), // nothing is delivered for it
            (2, 9, true, &[0x41, 1]),
            (3, 9, true, &[0x41, 2]),
            (4, 12, true, &[0x41, 3]),
            (5, 12, true, &[0x41, 4]),
            (6, 15, true, &[0x41, 5]),
        ],
    );
    assert_eq!(
        units.iter().map(|unit| unit.data.clone()).collect::<Vec<_>>(),
        [prefixed(&[&[0x41, 1]]), prefixed(&[&[0x41, 2]]), prefixed(&[&[0x41, 3], &[0x41, 4]]),]
    );
}

#[test]
fn h265_units_are_put_together_with_and_without_don() {
    for (fmtp, packets) in [
        ("", [&[0x60, 1, 0, 3, 0x40, 1, 9, 0, 3, 0x26, 1, 7][..], &[0x62, 1, 0x81, 5], &[0x62, 1, 0x41, 6]]),
        (
            "sprop-max-don-diff=2",
            [
                &[0x60, 1, 0, 0, 0, 3, 0x40, 1, 9, 0, 0, 3, 0x26, 1, 7],
                &[0x62, 1, 0x81, 0, 1, 5],
                &[0x62, 1, 0x41, 6],
            ],
        ),
    ] {
        let mut h265 = Depacketizer::new(&track(Codec::H265, 90_000, fmtp)).unwrap();
        let units = run(
            &mut h265,
            &[(1, 9, true, packets[0]), (2, 12, false, packets[1]), (3, 12, true, packets[2])],
        );
        assert_eq!(units.len(), 2, "{fmtp}");
        assert_eq!((units[0].data.as_slice(), units[0].key), (&prefixed(&[&[0x26, 1, 7]])[..], true));
        assert_eq!((units[1].data.as_slice(), units[1].key), (&prefixed(&[&[0x02, 1, 5, 6]])[..], false));
        assert_eq!(h265.parameter_sets().unwrap().vps, [0x40, 1, 9]);
    }
}

#[test]
fn announced_and_later_parameter_sets_are_kept_per_identifier() {
    let fmtp = "sprop-parameter-sets=Z01AHg==,aO88gA==";
    let mut h264 = Depacketizer::new(&track(Codec::H264, 90_000, fmtp)).unwrap();
    assert_eq!(h264.parameter_sets().unwrap().pps, [[0x68, 0xef, 0x3c, 0x80]]);
    let before = h264.parameters_revision();
    run(&mut h264, &[(1, 1, false, &[0x67, 0x4d, 0x40, 0x1e]), (2, 1, false, &[0x68, 0xef, 0x3c, 0x80])]);
    assert_eq!(h264.parameters_revision(), before);
    run(&mut h264, &[(3, 1, false, &[0x68, 0x40])]); // identifier 1
    assert_eq!(h264.parameter_sets().unwrap().pps.len(), 2);
    run(&mut h264, &[(4, 1, false, &[0x67, 0x64]), (5, 1, false, &[0x68, 0x80])]);
    assert_eq!(h264.parameter_sets().unwrap().pps, [[0x68, 0x80]]);
    assert_ne!(h264.parameters_revision(), before);
}

#[test]
fn leading_codes_are_read() {
    for (payload, want) in [(&[0x80][..], 0), (&[0x40], 1), (&[0x60], 2), (&[0x20], 3), (&[], 0)] {
        assert_eq!(first_code(payload), want, "{payload:x?}");
    }
}
