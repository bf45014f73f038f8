//! Whole playlists, as they must be, and the rules of holding requests.

use std::time::Duration;

use corecast_media::Codec;

use super::super::{
    Answer, Await, Directives, DirectivesError, FileKind, Muxer, MuxerError, Position, Variant,
};
use super::support::*;

/// 25 pictures a second, a key picture each second, and AAC if there is a track for it.
fn run(source: &mut Source, from: u32, count: u32, with_sound: bool) {
    for n in from..from + count {
        source.picture(n * 3_600, n % 25 == 0, 1_000);
        if with_sound {
            let (first, end) = (u64::from(n) * 48_000 / 25 / 1_024, u64::from(n + 1) * 48_000 / 25 / 1_024);
            for frame in first..end {
                source.frame(1, frame as u32 * 1_024, &[1, 2, 3]);
            }
        }
        source.now += Duration::from_millis(40);
    }
}

#[test]
fn low_latency_playlist_is_as_the_rfc_has_it() {
    let mut source = Source::new(settings(Variant::LowLatency), &[h264()]);
    run(&mut source, 0, 37, false);
    let date = |second: u32| format!("#EXT-X-PROGRAM-DATE-TIME:2027-01-15T08:01:{:02}.000Z", 40 + second);
    let part = |n: u32, independent: bool| {
        let after = if independent { ",INDEPENDENT=YES" } else { "" };
        format!("#EXT-X-PART:DURATION=0.20000,URI=\"0123456789ab_video1_part{n}.mp4\"{after}")
    };
    let want = [
        "#EXTM3U".to_owned(),
        "#EXT-X-VERSION:9".to_owned(),
        "#EXT-X-TARGETDURATION:1".to_owned(),
        "#EXT-X-SERVER-CONTROL:CAN-BLOCK-RELOAD=YES,PART-HOLD-BACK=0.600,HOLD-BACK=3,CAN-SKIP-UNTIL=6"
            .to_owned(),
        "#EXT-X-PART-INF:PART-TARGET=0.200".to_owned(),
        "#EXT-X-MEDIA-SEQUENCE:0".to_owned(),
        "#EXT-X-DISCONTINUITY-SEQUENCE:0".to_owned(),
        "#EXT-X-MAP:URI=\"0123456789ab_video1_init.mp4\"".to_owned(),
        date(0),
        part(0, true),
        part(1, false),
        part(2, false),
        part(3, false),
        part(4, false),
        "#EXTINF:1.00000,".to_owned(),
        "0123456789ab_video1_seg0.mp4".to_owned(),
        date(1),
        part(5, true),
        part(6, false),
        "#EXT-X-PRELOAD-HINT:TYPE=PART,URI=\"0123456789ab_video1_part7.mp4\"".to_owned(),
        String::new(),
    ];
    assert_eq!(Watcher::text(&mut source, 0), want.join("\n"));
    // However many ask, it is rendered once.
    for _ in 0..100 {
        Watcher::text(&mut source, 0);
    }
    assert_eq!(source.muxer.totals().renders, 1);
}

#[test]
fn multivariant_playlist_names_codecs_size_rate_and_bandwidth() {
    let tracks = [h264(), aac(), track(Codec::G711, 8_000, "")];
    let (_, skipped) = Muxer::new(settings(Variant::LowLatency), &tracks).unwrap();
    assert_eq!(skipped.len(), 1);
    assert_eq!((skipped[0].track, skipped[0].codec), (2, Codec::G711));
    assert_eq!(skipped[0].reason, "skipping track 3 (G711): HLS cannot carry it here");
    let mut source = Source::new(settings(Variant::LowLatency), &tracks);
    assert!(matches!(source.muxer.multivariant("", source.now), Answer::Wait(Await::Presentation)));
    run(&mut source, 0, 100, true);
    let Answer::Ready(text) = source.muxer.multivariant("id/", source.now) else { panic!() };
    let text = String::from_utf8(text.plain.to_vec()).unwrap();
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines[..3], ["#EXTM3U", "#EXT-X-VERSION:9", "#EXT-X-INDEPENDENT-SEGMENTS"]);
    let media = "#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID=\"audio\",NAME=\"audio2\",AUTOSELECT=YES,DEFAULT=YES,CHANNELS=\"2\",URI=\"id/audio2_stream.m3u8\"";
    assert_eq!(lines[3], media);
    let (head, tail) = lines[4].split_once(",CODECS=").unwrap();
    assert_eq!(tail, "\"avc1.4d401e,mp4a.40.2\",RESOLUTION=640x360,FRAME-RATE=25.000,AUDIO=\"audio\"");
    let numbers: Vec<u64> = head.split(['=', ',']).filter_map(|word| word.parse().ok()).collect();
    // 1,000 bytes a picture and 3 a frame, and what holds them together.
    assert!(numbers[0] >= numbers[1] && (200_000..300_000).contains(&numbers[1]), "{numbers:?}");
    assert_eq!(lines[5..], ["id/video1_stream.m3u8"]);
    let query = source.muxer.playlist_with_query(0, Directives::default(), "?session=x");
    let Answer::Ready(query) = query else { panic!() };
    let query = String::from_utf8(query.to_vec()).unwrap();
    let uris = query.matches(".mp4").count() + query.matches(".m3u8").count();
    assert_eq!(query.matches("?session=x").count(), uris);
    assert!(
        query.contains("RENDITION-REPORT:URI=\"audio2_stream.m3u8?session=x\",LAST-MSN=3,LAST-PART="),
        "{query}"
    );
}

#[test]
fn the_first_answer_comes_with_the_first_part_and_old_ones_stay_for_a_while() {
    let mut source = Source::new(settings(Variant::LowLatency), &[h264()]);
    let mut watcher = Watcher::default();
    run(&mut source, 0, 5, false);
    assert!(matches!(source.muxer.multivariant("", source.now), Answer::Wait(_)));
    assert!(matches!(
        source.muxer.playlist(0, Directives::default(), false),
        Answer::Wait(Await::Content { rendition: 0 })
    ));
    run(&mut source, 5, 1, false); // the sixth picture ends the first part
    assert!(matches!(source.muxer.multivariant("", source.now), Answer::Ready(_)));
    assert_eq!(source.muxer.position(0), Some(Position { msn: 0, part: 0 }));
    // Players refuse playlists without a complete segment: there is one, and it goes on in mid-group.
    let text = Watcher::text(&mut source, 0);
    assert!(text.contains("#EXTINF:0.20000,\n0123456789ab_video1_seg0.mp4\n#EXT-X-PRELOAD-HINT"), "{text}");
    for second in 0..20 {
        run(&mut source, 6 + second * 25, 25, false);
        watcher.look(&mut source);
    }
    watcher.approve();
    let text = Watcher::text(&mut source, 0);
    assert!(text.contains("#EXT-X-MEDIA-SEQUENCE:14\n"), "{text}");
    let has = |source: &Source, msn| {
        matches!(source.muxer.file(FileKind::Segment { rendition: 0, msn }), Answer::Ready(_))
    };
    // A segment is there for its own length and that of the longest playlist after it has left.
    assert!(has(&source, 20) && has(&source, 13) && has(&source, 8));
    assert!(!has(&source, 4) && !has(&source, 0) && !has(&source, 21));
}

#[test]
fn requests_are_held_refused_or_answered_as_the_rfc_says() {
    let mut source = Source::new(settings(Variant::LowLatency), &[h264()]);
    run(&mut source, 0, 25 * 12 + 13, false); // segments 0 to 11, parts 0 and 1 of segment 12
    let ask = |source: &mut Source, msn, part| {
        let directives = Directives { msn: Some(msn), part, skip: false };
        match source.muxer.playlist(0, directives, false) {
            Answer::Ready(_) => "ready".to_owned(),
            Answer::Wait(what) => format!("{what:?}"),
            Answer::Refused(DirectivesError::TooFarAhead) => "refused".to_owned(),
            other => format!("{other:?}"),
        }
    };
    let wait = |msn, part| match part {
        Some(part) => format!("{:?}", Await::Part { rendition: 0, msn, part }),
        None => format!("{:?}", Await::Segment { rendition: 0, msn }),
    };
    for (msn, part, want) in [
        (0, None, "ready".to_owned()), // long gone: at once
        (0, Some(9), "ready".to_owned()),
        (11, None, "ready".to_owned()),
        (11, Some(4), "ready".to_owned()),
        (11, Some(5), "ready".to_owned()), // as part 0 of segment 12
        (12, Some(1), "ready".to_owned()),
        (12, Some(2), wait(12, Some(2))),
        (12, None, wait(12, None)),
        (13, Some(0), wait(13, Some(0))),
        (13, None, wait(13, None)),
        (14, None, "refused".to_owned()),
        (14, Some(0), "refused".to_owned()),
        (12, Some(17), wait(12, Some(17))), // three seconds of parts ahead
        (12, Some(18), "refused".to_owned()),
        (u64::MAX, None, "refused".to_owned()),
    ] {
        assert_eq!(ask(&mut source, msn, part), want, "{msn} {part:?}");
    }
    let hinted = FileKind::Part { rendition: 0, number: 62 };
    assert_eq!(source.muxer.kind_of("0123456789ab_video1_part62.mp4"), Some(hinted));
    let Answer::Wait(what) = source.muxer.file(hinted) else { panic!() };
    assert!(matches!(source.muxer.file(FileKind::Part { rendition: 0, number: 63 }), Answer::NotFound));
    assert!(!source.muxer.has(what, source.now));
    let part = Await::Part { rendition: 0, msn: 12, part: 2 };
    assert!(!source.muxer.has(part, source.now));
    run(&mut source, 25 * 12 + 13, 5, false);
    assert!(source.muxer.has(what, source.now) && source.muxer.has(part, source.now));
    assert!(matches!(source.muxer.file(hinted), Answer::Ready(body) if body.len() > 5_000));
}

#[test]
fn text_is_shared_and_compressed_once() {
    let mut source = Source::new(settings(Variant::LowLatency), &[h264()]);
    run(&mut source, 0, 100, false);
    let mut ask = |gzip| match source.muxer.playlist(0, Directives::default(), gzip) {
        Answer::Ready(text) => text.body,
        other => panic!("{other:?}"),
    };
    let (plain, again) = (ask(false), ask(false));
    assert_eq!(plain.as_ptr(), again.as_ptr());
    let (small, same) = (ask(true), ask(true));
    assert_eq!(small.as_ptr(), same.as_ptr());
    assert!(small.len() < plain.len() / 3);
    let mut unpacked = String::new();
    std::io::Read::read_to_string(&mut flate2::read::GzDecoder::new(&small[..]), &mut unpacked).unwrap();
    assert_eq!(unpacked.as_bytes(), plain);
}

#[test]
fn other_variants_have_no_parts() {
    for (variant, name) in [(Variant::Fmp4, "video1_stream.m3u8"), (Variant::MpegTs, "main_stream.m3u8")] {
        let mut source = Source::new(settings(variant), &[h264(), aac()]);
        assert_eq!(source.muxer.kind_of(name), Some(FileKind::Playlist { rendition: 0 }));
        let mut watcher = Watcher::default();
        for n in 0..250 {
            run(&mut source, n, 1, true);
            watcher.look(&mut source);
        }
        watcher.approve();
        let text = Watcher::text(&mut source, 0);
        assert!(!text.contains("PART") && !text.contains("SERVER-CONTROL"), "{text}");
        assert!(watcher.segments >= 9, "{text}");
        let Answer::Ready(multivariant) = source.muxer.multivariant("", source.now) else { panic!() };
        assert!(String::from_utf8_lossy(&multivariant.plain).contains("avc1.4d401e,mp4a.40.2"));
    }
}

#[test]
fn a_stream_of_nothing_but_g711_is_refused() {
    let tracks = [track(Codec::G711, 8_000, "")];
    assert_eq!(Muxer::new(settings(Variant::LowLatency), &tracks).err(), Some(MuxerError::NoCodec));
    let tracks = [track(Codec::H265, 90_000, ""), track(Codec::Opus, 48_000, "")];
    assert_eq!(Muxer::new(settings(Variant::MpegTs), &tracks).err(), Some(MuxerError::NoTransportCodec));
    assert!(Muxer::new(settings(Variant::Fmp4), &tracks).is_ok());
}
