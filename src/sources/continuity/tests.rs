//! Headers that are rewritten, and bytes that are none.

use corecast_proto::rtp::{header, rtcp};

use super::*;

fn packet(ssrc: u32, sequence: u16, timestamp: u32) -> Vec<u8> {
    let mut packet = vec![0x80, 0x80 | 97];
    packet.extend(sequence.to_be_bytes());
    packet.extend(timestamp.to_be_bytes());
    packet.extend(ssrc.to_be_bytes());
    packet.extend(b"payload");
    packet
}

fn standing(sequence: u16, timestamp_wrapped: u32) -> impl Fn() -> Option<Standing> {
    move || Some(Standing { sequence, timestamp_wrapped })
}

#[test]
fn only_the_header_changes_and_what_was_sent_can_be_told() {
    let mut continuity = Continuity::new(Some(7), (97, 96));
    for n in 0..3u16 {
        let sent = packet(0xffff_ffff, 65_535u16.wrapping_add(n), (u32::MAX - 1).wrapping_add(u32::from(n)));
        let mut rewritten = sent.clone();
        continuity.rewrite(&mut rewritten, standing(100, 0xffff_ff00));
        let header = header::parse(&rewritten).unwrap();
        let got = (header.ssrc, header.sequence, header.timestamp, header.payload_type, header.marker);
        assert_eq!(got, (7, 100 + n, 0xffff_ff00 + u32::from(n), 96, true));
        assert_eq!(rewritten[12..], sent[12..]);
        let before = header::parse(&sent).unwrap();
        let told = continuity.as_sent(&header);
        assert_eq!(
            (told.ssrc, told.sequence, told.timestamp),
            (before.ssrc, before.sequence, before.timestamp)
        );
    }
    // Another payload type on the track stays what it is.
    let mut noise = packet(0xffff_ffff, 3, 3);
    noise[1] = 13;
    continuity.rewrite(&mut noise, standing(0, 0));
    assert_eq!(noise[1], 13);
}

#[test]
fn a_track_of_which_nothing_was_heard_yet_gets_what_the_source_sends() {
    let mut continuity = Continuity::new(None, (97, 97));
    let mut first = packet(5, 10, 20);
    continuity.rewrite(&mut first, || None);
    assert_eq!(first, packet(5, 10, 20));
    // Nor is its name changed later.
    let mut second = packet(6, 900, 800);
    continuity.rewrite(&mut second, standing(11, 50));
    assert_eq!(second, packet(5, 11, 50));
}

#[test]
fn bytes_that_are_no_packet_change_nothing_and_break_nothing() {
    let mut continuity = Continuity::new(Some(7), (97, 96));
    for length in 0..12 {
        let mut short = vec![0xff; length];
        continuity.rewrite(&mut short, standing(1, 1));
        assert_eq!(short, vec![0xff; length]);
    }
    let mut first = packet(9, 1, 1);
    continuity.rewrite(&mut first, standing(1, 1));
    let mut report = Vec::new();
    rtcp::write_sender_report(&rtcp::SenderReport { ssrc: 9, ..Default::default() }, "x", &mut report);
    for length in 0..report.len() {
        // Cut short, with a length that is a lie, and with every kind of packet.
        for kind in [200, 201, 202, 203, 204, 0] {
            for words in [0, 1, 6, 0xff] {
                let mut broken = report[..length].to_vec();
                broken.iter_mut().skip(1).take(1).for_each(|byte| *byte = kind);
                broken.iter_mut().skip(3).take(1).for_each(|byte| *byte = words);
                assert!(continuity.rewrite_rtcp(&mut broken, 1, 2));
            }
        }
    }
}
