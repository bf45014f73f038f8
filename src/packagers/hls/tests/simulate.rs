//! Odd sources, judged after every picture: minutes of each when debugging, hours in a release build.

use std::time::Duration;

use corecast_media::{Codec, NtpTime};
use corecast_proto::rtp::rtcp::{self, SenderReport};

use super::super::{Answer, Directives, FileKind, Totals, Variant};
use super::support::*;

/// How a source behaves.
#[derive(Debug, Clone)]
struct Odd {
    /// Least and most milliseconds between pictures.
    step: (u64, u64),
    /// Pictures between key pictures.
    group: u64,
    with_sound: bool,
    /// When the sound begins, seconds.
    sound_from: u64,
    /// When it is silent, seconds.
    sound_gap: (u64, u64),
    /// One packet in so many is lost; 0: none.
    loss: u64,
    /// One picture in so many comes with a clock that jumped by up to an hour either way.
    jump: u64,
    /// Pause the whole source once in so many pictures.
    pause: u64,
    /// Another size every so many seconds.
    resize: u64,
    key_interval: Option<u64>,
    seconds: u64,
}

impl Default for Odd {
    fn default() -> Self {
        Self {
            step: (40, 40),
            group: 25,
            with_sound: true,
            sound_from: 0,
            sound_gap: (0, 0),
            loss: 0,
            jump: 0,
            pause: 0,
            resize: 0,
            key_interval: Some(1_000),
            seconds: 30,
        }
    }
}

fn simulate(odd: &Odd, seed: u64, allow: &[&'static str]) -> (Source, Watcher) {
    let mut random = Random(seed);
    let mut settings = settings(Variant::LowLatency);
    settings.key_interval = odd.key_interval.map(Duration::from_millis);
    let tracks = if odd.with_sound { vec![h264(), aac()] } else { vec![h264()] };
    let mut source = Source::new(settings, &tracks);
    let mut watcher = Watcher::allowing(allow);
    let begin = source.now;
    let (mut clock, mut offset, mut frames, mut n, mut sized) =
        (0u64, random.below(1 << 32) as i64, 0u64, 0u64, 0);
    let seconds = if cfg!(debug_assertions) { odd.seconds } else { 60 * odd.seconds };
    while source.now < begin + Duration::from_secs(seconds) {
        let second = (source.now - begin).as_secs();
        if odd.jump > 0 && random.below(odd.jump) == 0 {
            offset += random.below(2 * 3_600 * 90_000) as i64 - 3_600 * 90_000;
        }
        if odd.resize > 0 && second / odd.resize != sized && n % odd.group == 0 {
            sized = second / odd.resize;
            source.sps = if sized % 2 == 1 { OTHER_SPS.to_vec() } else { SPS.to_vec() };
        }
        let lost = odd.loss > 0 && random.below(odd.loss) == 0;
        if lost {
            source.lose(0);
        }
        let timestamp = (clock as i64 * 90 + offset) as u32;
        source.picture(timestamp, n % odd.group == 0, 200 + random.below(4_000) as usize);
        let at = (source.now - begin).as_millis() as u64;
        while odd.with_sound && frames * 1_024 / 48 <= clock {
            let silent = second < odd.sound_from || (odd.sound_gap.0..odd.sound_gap.1).contains(&second);
            let lost = odd.loss > 0 && random.below(odd.loss) == 0;
            if !silent && !lost {
                source.frame(1, (frames * 1_024) as u32, &[9; 100]);
            }
            frames += 1;
        }
        watcher.look(&mut source);
        let step = odd.step.0 + random.below(odd.step.1 - odd.step.0 + 1);
        let pause = if odd.pause > 0 && random.below(odd.pause) == 0 { random.below(8_000) } else { 0 };
        clock += step + pause;
        source.now = begin + Duration::from_millis(at + step + pause);
        n += 1;
    }
    (source, watcher)
}

#[test]
fn ordinary_sources_break_no_rule() {
    for (step, group, interval) in
        [(40, 25, 1_000), (20, 50, 1_000), (40, 50, 2_000), (40, 13, 520), (33, 150, 4_950), (66, 30, 1_980)]
    {
        let odd =
            Odd { step: (step, step), group, key_interval: Some(interval), seconds: 20, ..Odd::default() };
        let (source, watcher) = simulate(&odd, 1, &[]);
        watcher.approve();
        assert!(watcher.parts > 120, "{odd:?}: {} parts", watcher.parts);
        assert_eq!(source.muxer.totals().dropped, 0);
        assert_eq!(watcher.warnings, 0, "{odd:?}");
    }
}

#[test]
fn variable_frame_rates_break_no_rule() {
    for (seed, step) in
        [(1, (33, 34)), (2, (20, 120)), (3, (5, 180)), (4, (38, 42)), (5, (10, 60)), (6, (100, 190))]
    {
        let odd = Odd { step, key_interval: None, ..Odd::default() };
        simulate(&odd, seed, &[]).1.approve();
    }
}

#[test]
fn long_and_short_groups_of_pictures_break_no_rule() {
    for (seed, group) in [(1, 12), (2, 1), (3, 100), (4, 250), (5, 1_000_000)] {
        // The muxer is not told: longer segments than it expects are cut without a key picture.
        let odd = Odd { group, key_interval: None, seconds: 30, ..Odd::default() };
        let (_, watcher) = simulate(&odd, seed, &[]);
        watcher.approve();
        assert!(watcher.segments > 5);
    }
}

#[test]
fn clocks_that_jump_by_an_hour_break_no_rule() {
    for seed in 1..6 {
        let odd = Odd { jump: 200, ..Odd::default() };
        let (source, watcher) = simulate(&odd, seed, &[]);
        watcher.approve();
        assert!(source.muxer.totals().jumps > 0);
        // A jump of less than a second is kept as a hole, and the sound is moved to it.
        let Totals { dropped, jumps, .. } = source.muxer.totals();
        assert!(dropped <= jumps, "{dropped} left out at {jumps} jumps");
    }
    // A recorder that stamps every fiftieth picture hours off and returns.
    let odd = Odd { jump: 25, seconds: 30, ..Odd::default() };
    simulate(&odd, 9, &[]).1.approve();
}

#[test]
fn losses_and_pauses_break_no_rule() {
    for seed in 1..6 {
        let odd = Odd { loss: 100, pause: 300, seconds: 40, ..Odd::default() };
        let (source, watcher) = simulate(&odd, seed, &[]);
        watcher.approve();
        let totals = source.muxer.totals();
        assert!(totals.dropped > 1 && totals.filled > 1, "{totals:?}");
    }
}

#[test]
fn sound_that_is_late_or_stops_is_made_up_for() {
    for (sound_from, sound_gap) in [(5, (0, 0)), (0, (20, 40)), (3, (20, 22)), (0, (10, 11))] {
        let odd = Odd { sound_from, sound_gap, seconds: 40, ..Odd::default() };
        let (mut source, watcher) = simulate(&odd, 1, &[]);
        watcher.approve();
        let (pictures, sound) = (source.muxer.position(0).unwrap(), source.muxer.position(1).unwrap());
        assert!(pictures.msn.abs_diff(sound.msn) <= 1, "{pictures:?} {sound:?}");
        assert!(matches!(source.muxer.multivariant("", source.now), Answer::Ready(_)));
        assert!(Watcher::text(&mut source, 1).contains("EXT-X-PART"));
    }
}

#[test]
fn sound_alone_and_pictures_alone_break_no_rule() {
    let odd = Odd { with_sound: false, ..Odd::default() };
    simulate(&odd, 1, &[]).1.approve();
    let mut source = Source::new(settings(Variant::LowLatency), &[aac()]);
    let mut watcher = Watcher::default();
    for n in 0..10_000u32 {
        source.frame(0, n * 1_024, &[3; 50]);
        source.now += Duration::from_micros(21_333);
        watcher.look(&mut source);
    }
    watcher.approve();
    assert!(watcher.segments > 200);
    let Answer::Ready(text) = source.muxer.multivariant("", source.now) else { panic!() };
    assert!(String::from_utf8_lossy(&text.plain).contains("CODECS=\"mp4a.40.2\"\naudio1_stream.m3u8"));
}

#[test]
fn another_size_is_a_discontinuity_in_all_renditions() {
    let odd = Odd { resize: 10, seconds: 40, ..Odd::default() };
    let (_, watcher) = simulate(&odd, 1, &[]);
    watcher.approve();
    assert!(watcher.discontinuities >= 6, "{}", watcher.discontinuities);
}

#[test]
fn a_source_that_returns_goes_on_in_the_same_playlists() {
    let mut source = Source::new(settings(Variant::LowLatency), &[h264(), aac()]);
    let mut watcher = Watcher::default();
    for life in 0..4u32 {
        for n in 0..110u32 {
            source.picture(life * 77_777_777 + n * 3_600, n % 25 == 10, 500);
            for frame in n * 1_920 / 1_024..(n + 1) * 1_920 / 1_024 {
                source.frame(1, life * 1_234_567 + frame * 1_024, &[5; 40]);
            }
            source.now += Duration::from_millis(40);
            watcher.look(&mut source);
        }
        source.now += Duration::from_secs(3);
        source.ssrc += 1;
        assert!(source.muxer.restart(&[h264(), aac()]));
        assert!(!source.muxer.restart(&[h264()]));
    }
    watcher.approve();
    assert_eq!(watcher.discontinuities, 2 * 3);
}

#[test]
fn memory_is_bounded_by_the_largest_segment() {
    let mut settings = settings(Variant::LowLatency);
    settings.segment_bytes_max = 100_000;
    let mut source = Source::new(settings, &[h264()]);
    let mut watcher = Watcher::allowing(&["three Target Durations"]);
    for n in 0..2_000u32 {
        source.picture(n * 3_600, n % 250 == 0, 30_000);
        source.now += Duration::from_millis(40);
        watcher.look(&mut source);
        assert!(
            source.muxer.totals().bytes < 2 * 14 * 130_000 + 3 * 25 * 30_000,
            "{}",
            source.muxer.totals().bytes
        );
    }
    watcher.approve();
}

#[test]
fn a_frame_rate_that_drops_for_good_gets_a_larger_part_target_and_no_part_over_it() {
    let mut source = Source::new(settings(Variant::LowLatency), &[h264()]);
    let mut watcher = Watcher::allowing(&["part target changed", "EXT-X-SERVER-CONTROL changed"]);
    let mut stamp = 0;
    for n in 0..700u32 {
        let step = if n < 250 { 40 } else { 400 };
        stamp += step * 90;
        source.now += Duration::from_millis(u64::from(step));
        source.picture(stamp, if n < 250 { n % 25 == 0 } else { n % 3 == 0 }, 500);
        watcher.look(&mut source);
    }
    watcher.approve();
    let text = Watcher::text(&mut source, 0);
    assert!(text.contains("PART-TARGET=0.4"), "{text}");
    assert!(matches!(source.muxer.file(FileKind::Init { rendition: 0, number: 1 }), Answer::Ready(_)));
}

/// A sender report: this RTP time is this long after the Unix epoch.
fn report(timestamp: u32, unix: Duration) -> Vec<u8> {
    let report = SenderReport {
        ssrc: 1,
        ntp: NtpTime::from_unix(unix),
        rtp_timestamp: timestamp,
        ..SenderReport::default()
    };
    let mut packet = Vec::new();
    rtcp::write_sender_report(&report, "camera", &mut packet);
    packet
}

fn first_date(text: &str) -> String {
    let line = text.lines().rfind(|line| line.starts_with("#EXT-X-PROGRAM")).unwrap();
    line["#EXT-X-PROGRAM-DATE-TIME:".len()..].to_owned()
}

#[test]
fn dates_are_the_source_s_once_it_tells_them_and_never_become_ambiguous() {
    let mut source = Source::new(settings(Variant::LowLatency), &[h264()]);
    let mut watcher = Watcher::default();
    let mut second = |source: &mut Source, n: u32| {
        for picture in n * 25..(n + 1) * 25 {
            source.picture(picture * 3_600, picture % 25 == 0, 500);
            source.now += Duration::from_millis(40);
            watcher.look(source);
        }
        watcher.approve();
    };
    for n in 0..3 {
        second(&mut source, n);
    }
    // By arrival, as long as nothing else is known.
    assert_eq!(first_date(&Watcher::text(&mut source, 0)), "2027-01-15T08:01:42.000Z");
    // The camera is an hour and a bit ahead.
    source.rtcp(0, &report(3 * 90_000, WALL + Duration::from_millis(103_000 + 3_600_250)));
    for n in 3..6 {
        second(&mut source, n);
    }
    assert_eq!(first_date(&Watcher::text(&mut source, 0)), "2027-01-15T09:01:45.250Z");
    // Its clock is set back by ten seconds: those dates are in the playlist already.
    source.rtcp(0, &report(6 * 90_000, WALL + Duration::from_millis(106_000 + 3_590_250)));
    for n in 6..9 {
        second(&mut source, n);
    }
    assert_eq!(first_date(&Watcher::text(&mut source, 0)), "2027-01-15T09:01:48.250Z");
    // By a day: they are not.
    source.rtcp(0, &report(9 * 90_000, WALL + Duration::from_secs(109) - Duration::from_secs(86_400)));
    for n in 9..12 {
        second(&mut source, n);
    }
    assert_eq!(first_date(&Watcher::text(&mut source, 0)), "2027-01-14T08:01:51.000Z");
}

#[test]
fn a_muxer_made_on_demand_has_a_playlist_as_soon_as_it_is_fed_what_the_ring_holds() {
    let mut settings = settings(Variant::LowLatency);
    settings.key_interval = Some(Duration::from_secs(4));
    let mut source = Source::new(settings, &[h264(), aac()]);
    let mut watcher = Watcher::default();
    let begin = source.now;
    // Three seconds of a group of four, with the times at which they came.
    for n in 0..75u32 {
        source.now = begin + Duration::from_millis(u64::from(n) * 40);
        source.picture(n * 3_600, n == 0, 500);
        for frame in n * 1_920 / 1_024..(n + 1) * 1_920 / 1_024 {
            source.frame(1, frame * 1_024, &[5; 40]);
        }
    }
    watcher.look(&mut source);
    watcher.approve();
    assert_eq!(source.muxer.target_duration(), 4);
    let Answer::Ready(_) = source.muxer.multivariant("", source.now) else { panic!("nothing to show") };
    assert_eq!(source.muxer.position(0).map(|last| last.part), Some(13));
    assert!(source.muxer.position(1).is_some());
}

#[test]
fn sound_alone_goes_into_transport_streams() {
    let mut source = Source::new(settings(Variant::MpegTs), &[aac()]);
    let mut watcher = Watcher::keeping();
    for n in 0..500u32 {
        source.frame(0, n * 1_024, &[3; 50]);
        source.now += Duration::from_micros(21_333);
        watcher.look(&mut source);
    }
    watcher.approve();
    assert!(watcher.segments >= 9);
    assert!(watcher.media[&0].len().is_multiple_of(188));
}

#[test]
fn nothing_that_a_source_sends_stops_a_muxer() {
    let codecs = [Codec::H264, Codec::H265, Codec::Av1, Codec::Vp9];
    for (seed, codec) in codecs.into_iter().enumerate() {
        let tracks =
            [track(codec, 90_000, ""), aac(), track(Codec::Opus, 48_000, ""), track(Codec::Ac3, 48_000, "")];
        for variant in [Variant::LowLatency, Variant::Fmp4] {
            let mut random = Random(seed as u64 + 11);
            let mut source = Source::new(settings(variant), &tracks);
            for n in 0..8_000u64 {
                let track = random.below(4) as usize;
                let mut payload: Vec<u8> = (0..random.below(60)).map(|_| random.below(256) as u8).collect();
                match random.below(6) {
                    0 if !payload.is_empty() => {
                        payload[0] =
                            [0x65, 0x67, 0x68, 0x78, 0x7c, 0x26, 0x42, 0x88][random.below(8) as usize]
                    }
                    1 if codec == Codec::H264 => payload = SPS.to_vec(),
                    2 if codec == Codec::H264 => payload = PPS.to_vec(),
                    3 => payload = vec![0x65, 0x88],
                    _ => {}
                }
                let timestamp = if random.below(50) == 0 { random.below(1 << 32) } else { n * 900 };
                source.packet(track, timestamp as u32, random.below(2) == 0, &payload);
                source.now += Duration::from_millis(random.below(30));
                if n % 64 == 0 {
                    for rendition in 0..5 {
                        let _ = source.muxer.playlist(rendition, Directives::default(), false);
                    }
                }
            }
            assert!(source.muxer.totals().bytes < 20 << 20, "{codec:?} {:?}", source.muxer.totals());
        }
    }
}

#[test]
fn sound_is_placed_by_the_clocks_of_the_source() {
    for late_ms in [0u64, 500] {
        let mut source = Source::new(settings(Variant::LowLatency), &[h264(), aac()]);
        let mut watcher = Watcher::default();
        // Both tracks tell their time before they begin; the first frame was taken this much after the first picture.
        let unix = WALL + source.now;
        source.rtcp(0, &report(0, unix));
        source.rtcp(1, &report(7_000, unix + Duration::from_millis(late_ms)));
        for n in 0..250u32 {
            source.picture(n * 3_600, n % 25 == 0, 500);
            for frame in n * 1_920 / 1_024..(n + 1) * 1_920 / 1_024 {
                source.frame(1, 7_000 + frame * 1_024, &[5; 40]);
            }
            source.now += Duration::from_millis(40);
            watcher.look(&mut source);
        }
        watcher.approve();
        let want = late_ms * 48 / 1_024;
        let filled = source.muxer.totals().filled;
        assert!(filled.abs_diff(want) <= 1, "{late_ms} ms: {filled} frames of silence");
        // Told later that the sound is 300 ms earlier than it seemed: it is moved, and stays in step.
        let unix = WALL + source.now + Duration::from_millis(late_ms);
        source.rtcp(1, &report(7_000 + 480_000, unix - Duration::from_millis(300)));
        let dropped = source.muxer.totals().dropped;
        for n in 250..500u32 {
            source.picture(n * 3_600, n % 25 == 0, 500);
            for frame in n * 1_920 / 1_024..(n + 1) * 1_920 / 1_024 {
                source.frame(1, 7_000 + frame * 1_024, &[5; 40]);
            }
            source.now += Duration::from_millis(40);
            watcher.look(&mut source);
        }
        watcher.approve();
        let moved = source.muxer.totals().dropped - dropped;
        assert!(moved.abs_diff(300 * 48 / 1_024) <= 1, "{moved} frames left out");
    }
}
