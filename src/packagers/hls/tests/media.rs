//! What real encoders made, muxed, and looked at by ffprobe and decoded by ffmpeg.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use corecast_media::Codec;

use super::super::{Answer, FileKind, Settings, Variant};
use super::support::*;

/// A folder that goes with its test.
pub struct Folder(PathBuf);

impl Folder {
    pub fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("corecast-hls-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub fn at(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

pub fn run(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output().expect(program);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.trim().is_empty(), "{program} {args:?}: {said}");
    String::from_utf8(output.stdout).unwrap()
}

/// Encodes a test picture, or a test tone, and gives the bytes.
pub fn encode(folder: &Folder, source: &str, args: &[&str], file: &str) -> Vec<u8> {
    let out = folder.at(file);
    let mut all = vec!["-v", "error", "-y", "-f", "lavfi", "-i", source];
    all.extend_from_slice(args);
    all.push(out.to_str().unwrap());
    let output = Command::new("ffmpeg").args(&all).env("SVT_LOG", "0").output().expect("ffmpeg");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    std::fs::read(out).unwrap()
}

/// Units of Annex B: NAL units gathered by `begins`, which tells the first slice of a picture.
fn annex_b(
    stream: &[u8],
    begins: impl Fn(&[u8]) -> bool,
    is_slice: impl Fn(&[u8]) -> bool,
) -> Vec<Vec<&[u8]>> {
    let mut starts: Vec<usize> =
        stream.windows(3).enumerate().filter(|(_, w)| *w == [0, 0, 1]).map(|(at, _)| at + 3).collect();
    starts.push(stream.len() + 3);
    let nals = starts.windows(2).map(|pair| {
        let nal = &stream[pair[0]..pair[1] - 3];
        &nal[..nal.len() - nal.iter().rev().take_while(|byte| **byte == 0).count()]
    });
    let (mut units, mut current, mut has_slice) = (Vec::new(), Vec::new(), false);
    for nal in nals {
        let starts_unit = if is_slice(nal) { begins(nal) } else { true };
        if has_slice && starts_unit {
            units.push(std::mem::take(&mut current));
            has_slice = false;
        }
        has_slice |= is_slice(nal);
        current.push(nal);
    }
    units.push(current);
    units
}

pub fn h264_units(stream: &[u8]) -> Vec<Vec<&[u8]>> {
    annex_b(stream, |nal| nal[1] & 0x80 != 0, |nal| matches!(nal[0] & 0x1f, 1 | 5))
}

/// Presentation order of an elementary stream's pictures in ticks of 90 kHz, from what ffprobe makes of a file.
pub fn times(file: &Path) -> Vec<i64> {
    let args = ["-v", "error", "-select_streams", "v", "-show_entries", "packet=pts_time", "-of", "csv=p=0"];
    let mut args = args.to_vec();
    args.push(file.to_str().unwrap());
    let text = run("ffprobe", &args);
    let seconds = text.lines().filter_map(|line| line.trim_end_matches(',').parse::<f64>().ok());
    seconds.map(|seconds| (seconds * 90_000.0).round() as i64).collect()
}

/// Writes what the watcher gathered, probes it and decodes it; gives (decoding, presentation, duration) in seconds.
pub fn probe(
    folder: &Folder,
    watcher: &Watcher,
    rendition: usize,
    extension: &str,
    frames: usize,
) -> Vec<[f64; 3]> {
    let file = folder.at(&format!("out{rendition}.{extension}"));
    std::fs::write(&file, &watcher.media[&rendition]).unwrap();
    let file = file.to_str().unwrap();
    let entries = "packet=dts_time,pts_time,duration_time";
    let text = run("ffprobe", &["-v", "error", "-show_entries", entries, "-of", "csv=p=0", file]);
    let row = |line: &str| {
        let mut numbers = line.split(',').map(|word| word.parse().unwrap_or(f64::NAN));
        let (presentation, decoding) = (numbers.next()?, numbers.next()?);
        Some([decoding, presentation, numbers.next().unwrap_or(f64::NAN)])
    };
    let rows: Vec<[f64; 3]> = text.lines().filter_map(row).collect();
    let decoded = run(
        "ffprobe",
        &["-v", "error", "-count_frames", "-show_entries", "stream=nb_read_frames", "-of", "csv=p=0", file],
    );
    let decoded = decoded.lines().find_map(|line| line.trim_end_matches(',').parse::<usize>().ok()).unwrap();
    assert!(decoded + 3 >= frames, "{decoded} of {} frames decoded", rows.len());
    assert!(rows.len() >= frames, "{} of {frames} samples", rows.len());
    rows
}

/// Times of decoding go forward in steps that are no gaps. That each sample begins exactly where the one before ended is
/// judged on the boxes; ffprobe guesses durations.
pub fn contiguous(rows: &[[f64; 3]]) {
    for pair in rows.windows(2) {
        let step = pair[1][0] - pair[0][0];
        assert!(step > 0.0 && step < 0.2, "{pair:?}");
    }
}

pub fn watch() -> Watcher {
    Watcher::keeping()
}

pub fn video_settings() -> Settings {
    let mut settings = settings(Variant::LowLatency);
    settings.key_interval = None;
    settings
}

/// Sends units of NAL units at these times.
fn send(source: &mut Source, watcher: &mut Watcher, units: &[Vec<&[u8]>], times: &[i64]) {
    let begin = source.now;
    let least = times.iter().min().copied().unwrap_or(0);
    for (n, (unit, time)) in units.iter().zip(times).enumerate() {
        source.now = source.now.max(begin + Duration::from_micros(((time - least) * 100 / 9) as u64));
        let _ = n;
        source.nals(0, *time as u32, unit);
        watcher.look(source);
    }
}

pub const PICTURE: &str = "testsrc2=s=320x240:r=25:d=6";

#[test]
fn h264_with_and_without_b_pictures_and_at_odd_rates() {
    for (name, source, args) in [
        ("plain", PICTURE, &["-bf", "0", "-g", "25"][..]),
        (
            "b",
            PICTURE,
            &["-bf", "3", "-b_strategy", "0", "-g", "50", "-x264-params", "b-pyramid=normal:scenecut=0"],
        ),
        ("ntsc", "testsrc2=s=320x240:r=30000/1001:d=6", &["-bf", "2", "-g", "60"]),
        ("slow", "testsrc2=s=320x240:r=25/2:d=6", &["-bf", "0", "-g", "12"]),
    ] {
        let folder = Folder::new(&format!("h264-{name}"));
        let mut all = vec!["-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p"];
        all.extend_from_slice(args);
        // MPEG-TS for the times, Annex B for the units.
        encode(&folder, source, &[&all[..], &["-f", "mpegts"]].concat(), "in.ts");
        let stamps = times(&folder.at("in.ts"));
        let stream = encode(&folder, source, &[&all[..], &["-f", "h264"]].concat(), "in.h264");
        let units = h264_units(&stream);
        assert_eq!(units.len(), stamps.len(), "{name}");
        let mut source = Source::new(video_settings(), &[h264()]);
        let mut watcher = watch();
        send(&mut source, &mut watcher, &units, &stamps);
        watcher.approve();
        let rows = probe(&folder, &watcher, 0, "mp4", units.len() / 2);
        contiguous(&rows);
        assert!(rows.iter().all(|row| row[1] >= row[0] - 0.001), "{name}: shown before it is decoded");
        // Shown exactly as the source said.
        let first = rows[0][1];
        for (row, stamp) in rows.iter().zip(&stamps) {
            let want = (stamp - stamps[0]) as f64 / 90_000.0;
            assert!((row[1] - first - want).abs() < 0.000_05, "{name}: {row:?}, {want}");
        }
    }
}

#[test]
fn h265_pictures_are_muxed() {
    let folder = Folder::new("h265");
    let args = [
        "-c:v",
        "libx265",
        "-preset",
        "ultrafast",
        "-x265-params",
        "log-level=error:keyint=25:bframes=2",
        "-pix_fmt",
        "yuv420p",
    ];
    encode(&folder, PICTURE, &[&args[..], &["-f", "mpegts"]].concat(), "in.ts");
    let stamps = times(&folder.at("in.ts"));
    let stream = encode(&folder, PICTURE, &[&args[..], &["-f", "hevc"]].concat(), "in.h265");
    let units = annex_b(&stream, |nal| nal[2] & 0x80 != 0, |nal| nal[0] >> 1 & 0x3f < 32);
    let track = track(Codec::H265, 90_000, "");
    let mut source = Source::new(video_settings(), &[track]);
    let mut watcher = watch();
    let begin = source.now;
    for (unit, stamp) in units.iter().zip(&stamps) {
        source.now = source.now.max(begin + Duration::from_micros((stamp * 100 / 9) as u64));
        for (n, nal) in unit.iter().enumerate() {
            let last = n + 1 == unit.len();
            if nal.len() < 1_300 {
                source.packet(0, *stamp as u32, last, nal);
                continue;
            }
            let count = (nal.len() - 2).div_ceil(1_000);
            for (index, chunk) in nal[2..].chunks(1_000).enumerate() {
                let (start, end) =
                    (if index == 0 { 0x80 } else { 0 }, if index + 1 == count { 0x40 } else { 0 });
                let head = [nal[0] & 0x81 | 49 << 1, nal[1], start | end | nal[0] >> 1 & 0x3f];
                source.packet(0, *stamp as u32, last && end != 0, &[&head[..], chunk].concat());
            }
        }
        watcher.look(&mut source);
    }
    watcher.approve();
    contiguous(&probe(&folder, &watcher, 0, "mp4", 100));
    let Answer::Ready(text) = source.muxer.multivariant("", source.now) else { panic!() };
    let text = String::from_utf8_lossy(&text.plain).into_owned();
    assert!(
        text.contains("CODECS=\"hvc1.1.6.L") && text.contains("RESOLUTION=320x240,FRAME-RATE=25.000"),
        "{text}"
    );
}

/// Frames of an IVF file.
fn ivf(file: &[u8]) -> Vec<&[u8]> {
    let (mut frames, mut rest) = (Vec::new(), &file[32..]);
    while rest.len() > 12 {
        let size = u32::from_le_bytes([rest[0], rest[1], rest[2], rest[3]]) as usize;
        frames.push(&rest[12..12 + size]);
        rest = &rest[12 + size..];
    }
    frames
}

fn every_picture(
    source: &mut Source,
    watcher: &mut Watcher,
    frames: &[&[u8]],
    head: impl Fn(&[u8], bool, bool) -> Vec<u8>,
) {
    for (n, frame) in frames.iter().enumerate() {
        let count = frame.len().div_ceil(1_100);
        for (index, chunk) in frame.chunks(1_100).enumerate() {
            let mut payload = head(frame, index == 0, index + 1 == count);
            payload.extend_from_slice(chunk);
            source.packet(0, n as u32 * 3_600, index + 1 == count, &payload);
        }
        source.now += Duration::from_millis(40);
        watcher.look(source);
    }
}

#[test]
fn vp9_pictures_are_muxed() {
    let folder = Folder::new("vp9");
    let args = [
        "-c:v",
        "libvpx-vp9",
        "-deadline",
        "realtime",
        "-cpu-used",
        "8",
        "-g",
        "25",
        "-lag-in-frames",
        "0",
        "-f",
        "ivf",
    ];
    let file = encode(&folder, PICTURE, &args, "in.ivf");
    let frames = ivf(&file);
    let mut source = Source::new(video_settings(), &[track(Codec::Vp9, 90_000, "")]);
    let mut watcher = watch();
    every_picture(&mut source, &mut watcher, &frames, |frame, first, last| {
        let inter = if frame[0] & 0x04 != 0 { 0x40 } else { 0 };
        vec![inter | if first { 8 } else { 0 } | if last { 4 } else { 0 }]
    });
    watcher.approve();
    contiguous(&probe(&folder, &watcher, 0, "mp4", 100));
}

#[test]
fn av1_pictures_are_muxed() {
    let folder = Folder::new("av1");
    let args = [
        "-pix_fmt",
        "yuv420p",
        "-c:v",
        "libsvtav1",
        "-preset",
        "12",
        "-g",
        "25",
        "-svtav1-params",
        "pred-struct=1:lookahead=0",
        "-f",
        "ivf",
    ];
    let file = encode(&folder, PICTURE, &args, "in.ivf");
    let frames = ivf(&file);
    let mut source = Source::new(video_settings(), &[track(Codec::Av1, 90_000, "")]);
    let mut watcher = watch();
    for (n, frame) in frames.iter().enumerate() {
        // OBUs with size fields, each an element of a packet with W=1; long ones in fragments.
        let (mut rest, mut obus) = (*frame, Vec::new());
        while !rest.is_empty() {
            let head = if rest[0] & 4 != 0 { 2 } else { 1 };
            let bytes = rest[head..].iter().position(|byte| byte & 0x80 == 0).unwrap() + 1;
            let size = rest[head..head + bytes]
                .iter()
                .enumerate()
                .fold(0, |s, (n, b)| s | usize::from(b & 0x7f) << (7 * n));
            let obu =
                [&[rest[0] & !2][..], &rest[1..head], &rest[head + bytes..head + bytes + size]].concat();
            if rest[0] >> 3 & 0x0f != 2 {
                obus.push(obu);
            }
            rest = &rest[head + bytes + size..];
        }
        for (index, obu) in obus.iter().enumerate() {
            let count = obu.len().div_ceil(1_100);
            for (piece, chunk) in obu.chunks(1_100).enumerate() {
                let (first, last) = (piece == 0, piece + 1 == count);
                let head = 0x10 | if first { 0 } else { 0x80 } | if last { 0 } else { 0x40 };
                let marker = index + 1 == obus.len() && last;
                source.packet(0, n as u32 * 3_600, marker, &[&[head][..], chunk].concat());
            }
        }
        source.now += Duration::from_millis(40);
        watcher.look(&mut source);
    }
    watcher.approve();
    contiguous(&probe(&folder, &watcher, 0, "mp4", 100));
}

/// Frames of an ADTS stream, without their headers.
pub fn adts(stream: &[u8]) -> Vec<&[u8]> {
    let (mut frames, mut rest) = (Vec::new(), stream);
    while rest.len() > 7 {
        let size = usize::from(rest[3] & 3) << 11 | usize::from(rest[4]) << 3 | usize::from(rest[5]) >> 5;
        frames.push(&rest[7..size]);
        rest = &rest[size..];
    }
    frames
}

#[test]
fn transport_streams_of_pictures_and_sound_decode() {
    let folder = Folder::new("ts");
    let args = [
        "-c:v",
        "libx264",
        "-preset",
        "ultrafast",
        "-pix_fmt",
        "yuv420p",
        "-bf",
        "0",
        "-g",
        "25",
        "-f",
        "h264",
    ];
    let stream = encode(&folder, PICTURE, &args, "in.h264");
    let units = h264_units(&stream);
    let sound = encode(&folder, "sine=r=48000:d=6", &["-ac", "2", "-c:a", "aac", "-f", "adts"], "in.aac");
    let frames = adts(&sound);
    let mut source = Source::new(settings(Variant::MpegTs), &[h264(), aac()]);
    let mut watcher = watch();
    let mut sent = 0;
    for (n, unit) in units.iter().enumerate() {
        source.nals(0, n as u32 * 3_600, unit);
        while sent * 1_024 < n * 1_920 && sent < frames.len() {
            source.frame(1, sent as u32 * 1_024, frames[sent]);
            sent += 1;
        }
        source.now += Duration::from_millis(40);
        watcher.look(&mut source);
    }
    watcher.approve();
    let rows = probe(&folder, &watcher, 0, "ts", 100);
    assert!(rows.iter().all(|row| row[0].is_nan() || row[0] > 9.0));
    let file = folder.at("out0.ts");
    let kinds = run(
        "ffprobe",
        &["-v", "error", "-show_entries", "stream=codec_name", "-of", "csv=p=0", file.to_str().unwrap()],
    );
    assert!(kinds.contains("h264") && kinds.contains("aac"), "{kinds}");
    assert!(matches!(source.muxer.file(FileKind::Segment { rendition: 0, msn: 3 }), Answer::Ready(_)));
}
