//! Sound of real encoders, and whole presentations as ffmpeg plays them.

use std::time::Duration;

use corecast_media::{Codec, Track};

use super::super::{Answer, Variant};
use super::media::{
    Folder, PICTURE, adts, contiguous, encode, h264_units, probe, run, times, video_settings, watch,
};
use super::support::*;

fn aac_track(rate: u32, config: &str) -> Track {
    track(Codec::Mpeg4Audio, rate, &format!("sizelength=13;indexlength=3;indexdeltalength=3;config={config}"))
}

#[test]
fn aac_with_holes_is_muxed_and_its_silence_decodes() {
    for (name, rate, channels, config) in
        [("48", 48_000, "2", "1190"), ("441", 44_100, "1", "1208"), ("six", 48_000, "6", "11B0")]
    {
        let folder = Folder::new(&format!("aac-{name}"));
        let tone = format!("sine=r={rate}:d=6");
        let stream = encode(&folder, &tone, &["-ac", channels, "-c:a", "aac", "-f", "adts"], "in.aac");
        let frames = adts(&stream);
        let mut source = Source::new(settings(Variant::LowLatency), &[aac_track(rate, config)]);
        let mut watcher = watch();
        for (n, frame) in frames.iter().enumerate() {
            if !(100..125).contains(&n) {
                source.frame(0, n as u32 * 1_024, frame);
            }
            source.now += Duration::from_micros(1_024_000_000 / u64::from(rate));
            watcher.look(&mut source);
        }
        watcher.approve();
        assert_eq!(source.muxer.totals().filled, 25, "{name}");
        contiguous(&probe(&folder, &watcher, 0, "mp4", 200));
    }
}

#[test]
fn opus_is_muxed() {
    let folder = Folder::new("opus");
    let file = encode(&folder, "sine=r=48000:d=6", &["-ac", "2", "-c:a", "libopus", "-f", "ogg"], "in.ogg");
    // Ogg pages (RFC 3533 §6): lacing values, a packet ends with one below 255.
    let (mut packets, mut packet, mut rest) = (Vec::new(), Vec::new(), &file[..]);
    while rest.len() > 27 {
        let count = usize::from(rest[26]);
        let mut at = 27 + count;
        for &lace in &rest[27..27 + count] {
            packet.extend_from_slice(&rest[at..at + usize::from(lace)]);
            at += usize::from(lace);
            if lace < 255 {
                packets.push(std::mem::take(&mut packet));
            }
        }
        rest = &rest[at..];
    }
    let mut source =
        Source::new(settings(Variant::LowLatency), &[track(Codec::Opus, 48_000, "sprop-stereo=1")]);
    let mut watcher = watch();
    for (n, packet) in packets[2..].iter().enumerate() {
        if n % 60 != 7 {
            source.packet(0, n as u32 * 960, true, packet);
        }
        source.now += Duration::from_millis(20);
        watcher.look(&mut source);
    }
    watcher.approve();
    contiguous(&probe(&folder, &watcher, 0, "mp4", 250));
}

#[test]
fn ac3_is_muxed() {
    let folder = Folder::new("ac3");
    let stream = encode(
        &folder,
        "sine=r=48000:d=6",
        &["-ac", "2", "-c:a", "ac3", "-b:a", "192k", "-f", "ac3"],
        "in.ac3",
    );
    let mut source = Source::new(settings(Variant::LowLatency), &[track(Codec::Ac3, 48_000, "")]);
    let mut watcher = watch();
    for (n, frame) in stream.chunks(768).enumerate() {
        source.packet(0, n as u32 * 1_536, true, &[&[0, 1][..], frame].concat());
        source.now += Duration::from_millis(32);
        watcher.look(&mut source);
    }
    watcher.approve();
    contiguous(&probe(&folder, &watcher, 0, "mp4", 150));
}

#[test]
fn ffmpeg_plays_the_playlists_of_pictures_that_change_their_size_and_sound() {
    for variant in [Variant::LowLatency, Variant::Fmp4] {
        let folder = Folder::new(&format!("playlists-{variant:?}"));
        let args = [
            "-c:v",
            "libx264",
            "-preset",
            "ultrafast",
            "-pix_fmt",
            "yuv420p",
            "-bf",
            "2",
            "-g",
            "25",
            "-f",
            "h264",
        ];
        let streams =
            [PICTURE, "testsrc2=s=640x360:r=25:d=6"].map(|size| encode(&folder, size, &args, "in.h264"));
        let sound =
            encode(&folder, "sine=r=48000:d=12", &["-ac", "2", "-c:a", "aac", "-f", "adts"], "in.aac");
        let frames = adts(&sound);
        // The order of showing is that of x264 with two B-pictures: read from a file that tells it.
        let mut stamps = Vec::new();
        let ts = [
            "-c:v",
            "libx264",
            "-preset",
            "ultrafast",
            "-pix_fmt",
            "yuv420p",
            "-bf",
            "2",
            "-g",
            "25",
            "-f",
            "mpegts",
        ];
        for (n, size) in [PICTURE, "testsrc2=s=640x360:r=25:d=6"].into_iter().enumerate() {
            encode(&folder, size, &ts, "in.ts");
            let times = times(&folder.at("in.ts"));
            let least = *times.iter().min().unwrap();
            stamps.extend(times.iter().map(|time| time - least + n as i64 * 540_000));
        }
        let units: Vec<_> = streams.iter().flat_map(|stream| h264_units(stream)).collect();
        let mut settings = video_settings();
        settings.variant = variant;
        settings.segment_count = 20;
        let mut source = Source::new(settings, &[h264(), aac()]);
        let mut watcher = watch();
        let mut sent = 0;
        for (n, (unit, stamp)) in units.iter().zip(&stamps).enumerate() {
            source.nals(0, *stamp as u32, unit);
            while sent * 1_024 < n * 1_920 && sent < frames.len() {
                source.frame(1, sent as u32 * 1_024, frames[sent]);
                sent += 1;
            }
            source.now += Duration::from_millis(40);
            watcher.look(&mut source);
        }
        watcher.approve();
        let Answer::Ready(multivariant) = source.muxer.multivariant("", source.now) else { panic!() };
        std::fs::write(folder.at("index.m3u8"), &multivariant.plain).unwrap();
        for (rendition, id) in ["video1", "audio2"].into_iter().enumerate() {
            let text = Watcher::text(&mut source, rendition) + "#EXT-X-ENDLIST\n";
            for name in text.split(['"', '\n']).filter(|word| word.ends_with(".mp4")) {
                if text.contains(&format!("TYPE=PART,URI=\"{name}")) {
                    continue;
                }
                std::fs::write(folder.at(name), watcher.get(&source, name)).unwrap();
            }
            std::fs::write(folder.at(&format!("{id}_stream.m3u8")), text).unwrap();
        }
        watcher.approve();
        let index = folder.at("index.m3u8");
        let counted = run(
            "ffprobe",
            &[
                "-v",
                "fatal",
                "-count_frames",
                "-show_entries",
                "stream=codec_type,nb_read_frames",
                "-of",
                "csv=p=0",
                index.to_str().unwrap(),
            ],
        );
        let count = |kind: &str| {
            let line =
                counted.lines().find(|line| line.starts_with(kind)).unwrap_or_else(|| panic!("{counted}"));
            line.split(',').find_map(|word| word.parse::<usize>().ok()).unwrap()
        };
        // All complete segments of both.
        assert!(count("video") >= 270, "{counted}");
        assert!(count("audio") >= 500, "{counted}");
    }
}
