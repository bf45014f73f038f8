//! Several sessions with one source that are one stream.

use super::*;

#[test]
fn sessions_follow_each_other_across_the_wrap_of_numbers_and_time() {
    let (mut publication, mut clock) = (publication(&[video()]), Clock::new());
    camera(1, 65_533, u32::MAX - 5000).send(&mut publication, &mut clock, 5);
    // 40 ms have gone since the last frame.
    clock.wait(Duration::from_millis(1960));
    publication.resume(&[video()]).unwrap();
    camera(2, 30_000, 77).send(&mut publication, &mut clock, 3);
    clock.wait(Duration::from_secs(90));
    publication.resume(&[video()]).unwrap();
    // The same numbers again, as of a camera that starts with constant ones.
    camera(2, 30_000, 77).send(&mut publication, &mut clock, 3);

    let headers = headers(&publication, 0);
    assert!(headers.iter().all(|header| header.ssrc == 1));
    let steps = |of: fn(&header::Header) -> u32| -> Vec<u32> {
        headers.windows(2).map(|pair| of(&pair[1]).wrapping_sub(of(&pair[0]))).collect()
    };
    assert_eq!(steps(|header| u32::from(header.sequence)).iter().map(|&n| n as u16).max(), Some(1));
    assert_eq!(steps(|header| u32::from(header.sequence)).iter().map(|&n| n as u16).min(), Some(1));
    let frame = 3600;
    let want = [frame, frame, frame, frame, 180_000, frame, frame, 90 * 90_000 + frame, frame, frame];
    assert_eq!(steps(|header| header.timestamp), want);
    assert_eq!((publication.tracks.lost(), publication.tracks.restarts()), (0, 0));
    assert_eq!(publication.tracks.clock_jumps(), 0);
    assert_eq!(publication.tracks.ssrc(0), Some(1));
    let next = publication.tracks.next_packet(0, clock.0.instant).unwrap();
    let last = headers.last().unwrap();
    assert_eq!(next, (last.sequence.wrapping_add(1), last.timestamp.wrapping_add(frame)));
}

#[test]
fn in_place_only_headers_are_written_and_a_half_received_packet_is_dropped() {
    let (mut publication, mut clock) = (publication(&[video()]), Clock::new());
    let mut first = camera(1, 10, 1000);
    first.send(&mut publication, &mut clock, 2);
    let half = [b'$', 0, 0, 16, 0x80, 96, 1, 2];
    publication.stream.spare(64)[..half.len()].copy_from_slice(&half);
    publication.stream.fill(half.len());
    publication.resume(&[video()]).unwrap();
    assert!(publication.stream.is_between_packets());

    clock.wait(Duration::from_millis(960));
    let mut second = camera(9, 500, 4_000_000);
    let packet = second.frame();
    let framed = [&[b'$', 0, 0, packet.len() as u8], &packet[..]].concat();
    publication.stream.spare(64)[..framed.len()].copy_from_slice(&framed);
    publication.stream.fill(framed.len());
    let facts = publication.inspect_pending(0, Plane::Rtp, 4..framed.len(), clock.0).unwrap();
    assert_eq!(facts.lead.unwrap().timestamp_wrapped, 1000 + 3600 + 90_000);
    publication.stream.push(facts, clock.0.instant);

    let got = got(&publication, 0);
    let header = header::parse(&got[2]).unwrap();
    assert_eq!((header.ssrc, header.sequence, header.timestamp), (1, 12, 94_600));
    assert_eq!(got[2][12..], packet[12..]);
}

#[test]
fn time_never_goes_back_at_a_seam() {
    let (mut publication, mut clock) = (publication(&[video()]), Clock::new());
    // I P B B: the P picture is shown last, and all come at once.
    let mut source = camera(1, 0, 0);
    for timestamp in [3600, 14_400, 7200, 10_800] {
        source.timestamp = timestamp;
        publication.append(0, Plane::Rtp, &source.frame(), clock.0);
    }
    clock.wait(Duration::from_millis(5));
    publication.resume(&[video()]).unwrap();
    camera(2, 0, 0).send(&mut publication, &mut clock, 1);
    assert_eq!(headers(&publication, 0).last().unwrap().timestamp, 14_401);
}

#[test]
fn each_track_goes_on_by_itself_and_one_that_was_silent_begins() {
    let (mut publication, mut clock) = (publication(&[video(), audio()]), Clock::new());
    camera(1, 10, 1000).send(&mut publication, &mut clock, 1);
    let tracks = [video(), audio()];
    publication.resume(&tracks).unwrap();
    let mut sound = Source { track: 1, payload_type: 0, ssrc: 50, sequence: 7, timestamp: 90 };
    sound.send(&mut publication, &mut clock, 2);
    camera(2, 0, 0).send(&mut publication, &mut clock, 1);
    let summary = |channel| -> Vec<_> {
        headers(&publication, channel).iter().map(|header| (header.ssrc, header.sequence)).collect()
    };
    assert_eq!(summary(0), [(1, 10), (1, 11)]);
    assert_eq!(summary(2), [(50, 7), (50, 8)]);
}

#[test]
fn another_ssrc_in_mid_session_is_passed_on_before_the_first_seam_and_joined_after_it() {
    let (mut publication, mut clock) = (publication(&[video()]), Clock::new());
    camera(1, 10, 1000).send(&mut publication, &mut clock, 2);
    let mut other = camera(2, 40_000, 5_000_000);
    other.send(&mut publication, &mut clock, 2);
    assert_eq!(publication.tracks.restarts(), 1);
    // Its counts are of the new one alone.
    let mut report = Vec::new();
    assert!(publication.tracks.write_report(0, clock.0, &mut report));
    let report = sender_report(&report);
    assert_eq!((report.ssrc, report.packets, report.octets), (2, 2, 8));

    publication.resume(&[video()]).unwrap();
    camera(3, 9, 9).send(&mut publication, &mut clock, 1);
    camera(4, 60_000, 1 << 31).send(&mut publication, &mut clock, 2);
    let headers = headers(&publication, 0);
    let summary: Vec<_> =
        headers.iter().map(|header| (header.ssrc, header.sequence, header.timestamp)).collect();
    let want = [
        (1, 10, 1000),
        (1, 11, 4600),
        (2, 40_000, 5_000_000),
        (2, 40_001, 5_003_600),
        (2, 40_002, 5_007_200),
        (2, 40_003, 5_010_800),
        (2, 40_004, 5_014_400),
    ];
    assert_eq!(summary, want);
    assert_eq!((publication.tracks.restarts(), publication.tracks.lost()), (2, 0));
}

#[test]
fn readers_are_told_the_cameras_time_of_every_picture_before_and_after_a_seam() {
    let (mut publication, mut clock) = (publication(&[video()]), Clock::new());
    // The camera's clock is an hour behind ours.
    let camera_time = |clock: &Clock| clock.0.wall - Duration::from_secs(3600);
    let mut first = camera(1, 10, 1000);
    publication.append(0, Plane::Rtcp, &first.report(camera_time(&clock)), clock.0);
    first.send(&mut publication, &mut clock, 3);

    clock.wait(Duration::from_secs(3));
    publication.resume(&[video()]).unwrap();
    let mut second = camera(2, 60_000, 4_000_000_000);
    // Before the first packet nobody can say which time that will be for readers.
    publication.append(0, Plane::Rtcp, &second.report(camera_time(&clock)), clock.0);
    assert_eq!(got(&publication, 1).len(), 1);
    // Packets are 200 ms on the way, by which the seam measures the pause: the report tells better.
    clock.wait(Duration::from_millis(200));
    let sent_at = camera_time(&clock) - Duration::from_millis(200);
    let at_sending = second.report(sent_at);
    second.send(&mut publication, &mut clock, 2);
    publication.append(0, Plane::Rtcp, &at_sending, clock.0);

    let (reports, headers) = (got(&publication, 1), headers(&publication, 0));
    let told = sender_report(&reports[1]);
    assert_eq!((told.ssrc, told.rtp_timestamp), (1, headers[3].timestamp));
    assert_eq!(told.ntp.to_unix(), sent_at);
    assert_eq!((told.packets, told.octets), (5, 20), "what readers got, not what the camera counts");
    let named = rtcp::parse(&reports[1]).nth(1).unwrap().unwrap();
    assert_eq!(named, rtcp::Packet::SourceDescription(vec![(1, b"camera")]));
    // A report of ours says the same.
    let mut ours = Vec::new();
    assert!(publication.tracks.write_report(0, clock.0, &mut ours));
    let ours = sender_report(&ours);
    let gone =
        Duration::from_nanos(u64::from(ours.rtp_timestamp.wrapping_sub(told.rtp_timestamp)) * 100_000 / 9);
    assert!((ours.ntp.to_unix() - told.ntp.to_unix()).abs_diff(gone) < Duration::from_micros(10));
}

#[test]
fn the_source_is_told_of_losses_in_its_own_numbers() {
    let (mut publication, mut clock) = (publication(&[video()]), Clock::new());
    camera(1, 10, 1000).send(&mut publication, &mut clock, 4);
    publication.resume(&[video()]).unwrap();
    let mut second = camera(2, 500, 0);
    publication.append(0, Plane::Rtcp, &second.report(NOON), clock.0);
    second.send(&mut publication, &mut clock, 1);
    publication.append(0, Plane::Rtcp, &second.report(NOON), clock.0);
    second.sequence += 3;
    second.send(&mut publication, &mut clock, 1);
    let block = publication.tracks.reception(0, clock.0.instant).unwrap();
    assert_eq!((block.ssrc, block.highest_sequence, block.cumulative_lost), (2, 504, 3));
    assert_ne!(block.last_sender_report, 0);
    assert_eq!(publication.tracks.lost(), 3);
    // For readers the hole stays a hole.
    let sequences: Vec<_> = headers(&publication, 0).iter().map(|header| header.sequence).collect();
    assert_eq!(sequences, [10, 11, 12, 13, 14, 18]);
}

#[test]
fn what_readers_could_not_follow_is_refused_and_changes_nothing() {
    let (mut publication, mut clock) = (publication(&[video(), audio()]), Clock::new());
    camera(1, 10, 1000).send(&mut publication, &mut clock, 1);
    let changed = |change: fn(&mut Track, &mut Track)| {
        let (mut video, mut audio) = (video(), audio());
        change(&mut video, &mut audio);
        [video, audio]
    };
    let fails = |publication: &mut Publication, tracks: &[Track], sentence: &str| {
        assert_eq!(publication.resume(tracks).unwrap_err().to_string(), sentence);
    };
    fails(&mut publication, &[video()], "the source has 1 tracks now instead of 2");
    let tracks = changed(|video, _| video.codec = Codec::H265);
    fails(&mut publication, &tracks, "track 0 of the source is H265 now instead of H264");
    for tracks in [
        changed(|_, audio| audio.clock_rate = 16_000),
        changed(|_, audio| audio.channels = Some(2)),
        changed(|_, audio| audio.fmtp = "x=1".to_owned()),
        changed(|_, audio| audio.encoding = "PCMA".to_owned()),
    ] {
        fails(&mut publication, &tracks, "track 1 of the source, G711, is described differently now");
    }
    camera(1, 11, 4600).send(&mut publication, &mut clock, 1);
    camera(2, 77, 1).send(&mut publication, &mut clock, 1);
    assert_eq!(headers(&publication, 0).iter().map(|header| header.ssrc).collect::<Vec<_>>(), [1, 1, 2]);
}

#[test]
fn another_payload_type_is_translated_and_other_parameter_sets_are_told() {
    let (mut publication, mut clock) = (publication(&[video()]), Clock::new());
    let sets = |sps: &str| {
        let mut track = video();
        track.payload_type = 97;
        track.fmtp = format!("packetization-mode=1; sprop-parameter-sets={sps},aO88gA==");
        track
    };
    let wide = "Z01AHtoCgL/lwEQAAAMABAAAAwDIPFi6gA==";
    publication.append(0, Plane::Rtp, &packet(1, &sdp::base64::decode(wide).unwrap()), clock.0);
    publication.append(0, Plane::Rtp, &packet(2, &[0x68, 0xef, 0x3c, 0x80]), clock.0);
    let (described, revision) = (publication.tracks.description().to_owned(), publication.tracks.revision());
    publication.resume(&[sets(wide)]).unwrap();
    assert_eq!(publication.tracks.description(), described);
    assert_eq!(publication.tracks.revision(), revision);

    publication.resume(&[sets("Z0LAH9oBQBbsBEAAAAMAQAAADIPGDKg=")]).unwrap();
    assert_ne!(publication.tracks.revision(), revision);
    assert!(publication.tracks.description().contains("Z0LAH9oBQBbsBEAAAAMAQAAADIPGDKg="));
    assert!(publication.tracks.description().contains("RTP/AVP 96"));
    Source { payload_type: 97, ..camera(2, 77, 1) }.send(&mut publication, &mut clock, 1);
    assert_eq!(headers(&publication, 0).last().unwrap().payload_type, 96);
    // What comes with the pictures is followed from there.
    let revision = publication.tracks.revision();
    let mut in_band = packet(78, &sdp::base64::decode(wide).unwrap());
    in_band[8..12].copy_from_slice(&2u32.to_be_bytes());
    publication.append(0, Plane::Rtp, &in_band, clock.0);
    let mut in_band = packet(79, &[0x68, 0xef, 0x3c, 0x80]);
    in_band[8..12].copy_from_slice(&2u32.to_be_bytes());
    publication.append(0, Plane::Rtp, &in_band, clock.0);
    assert!(publication.tracks.revision() > revision);
    assert!(publication.tracks.description().contains(wide));
}
