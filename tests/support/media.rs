//! Short clips made by ffmpeg once per test run, and what their packets hash to.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::OnceLock,
};

use super::{scratch_dir, tools};

pub const FPS: usize = 25;

pub struct Clip {
    pub file: PathBuf,
    pub codec: &'static str,
    pub video: Vec<String>,
    pub audio: Vec<String>,
}

/// 10 s of H.264 with B-frames, a keyframe a second, and AAC, in MP4.
pub fn h264_aac() -> &'static Clip {
    static CLIP: OnceLock<Clip> = OnceLock::new();
    CLIP.get_or_init(|| {
        let x264 = ["-c:v", "libx264", "-preset", "ultrafast", "-bf", "2", "-g", "25", "-b:v", "500k"];
        make("h264_aac.mp4", "h264", "10", &[&x264[..], &["-c:a", "aac", "-b:a", "64k"]].concat())
    })
}

/// 10 s of H.265 with B-frames, and Opus, in Matroska.
pub fn h265_opus() -> &'static Clip {
    static CLIP: OnceLock<Clip> = OnceLock::new();
    CLIP.get_or_init(|| {
        let x265 = ["-c:v", "libx265", "-preset", "ultrafast", "-b:v", "400k", "-x265-params"];
        let params = ["keyint=25:bframes=2:pools=1:frame-threads=1:log-level=error"];
        make(
            "h265_opus.mkv",
            "h265",
            "10",
            &[&x265[..], &params, &["-c:a", "libopus", "-b:a", "48k"]].concat(),
        )
    })
}

/// 12 s of H.264 with keyframes 10 s apart, no audio.
pub fn h264_long_gop() -> &'static Clip {
    static CLIP: OnceLock<Clip> = OnceLock::new();
    CLIP.get_or_init(|| {
        let x264 =
            ["-c:v", "libx264", "-preset", "ultrafast", "-bf", "0", "-g", "250", "-b:v", "500k", "-an"];
        make(
            "h264_long_gop.mp4",
            "h264",
            "12",
            &[&x264[..], &["-keyint_min", "250", "-sc_threshold", "0"]].concat(),
        )
    })
}

/// The video of [`h264_aac`] over and over again, for two minutes.
pub fn h264_two_minutes() -> &'static PathBuf {
    static FILE: OnceLock<PathBuf> = OnceLock::new();
    FILE.get_or_init(|| {
        let file = scratch_dir("media").join("h264_two_minutes.mp4");
        let from = ["-stream_loop", "11", "-i", h264_aac().file.to_str().unwrap()];
        tools::ffmpeg(&[&from[..], &["-c", "copy", "-an", file.to_str().unwrap()]].concat())
            .ended()
            .assert_success();
        file
    })
}

fn make(name: &str, codec: &'static str, seconds: &str, encode: &[&str]) -> Clip {
    let dir = scratch_dir("media");
    let file = dir.join(name);
    let inputs =
        ["-f", "lavfi", "-i", "testsrc2=size=320x180:rate=25", "-f", "lavfi", "-i", "sine=sample_rate=48000"];
    let out = ["-pix_fmt", "yuv420p", "-t", seconds, file.to_str().unwrap()];
    tools::ffmpeg(&[&inputs[..], encode, &out].concat()).ended().assert_success();
    let sums = dir.join("framemd5");
    let filter = tools::slices_only(codec, true);
    let copy = ["-i", file.to_str().unwrap(), "-c", "copy", "-bsf:v", &filter];
    tools::ffmpeg(&[&copy[..], &["-f", "framemd5", sums.to_str().unwrap()]].concat())
        .ended()
        .assert_success();
    let [video, audio] = framemd5(&sums);
    assert!(video.len() >= FPS * 10, "{} video packets in {name}", video.len());
    Clip { file, codec, video, audio }
}

/// The packet digests of stream 0 and stream 1, in order.
pub fn framemd5(file: &Path) -> [Vec<String>; 2] {
    let mut streams = [Vec::new(), Vec::new()];
    for line in fs::read_to_string(file).unwrap().lines().filter(|line| !line.starts_with('#')) {
        let fields: Vec<&str> = line.split(',').map(str::trim).collect();
        streams[fields[0].parse::<usize>().unwrap()].push(fields[5].to_owned());
    }
    streams
}

/// The packets of an elementary stream, as [`framemd5`] gives those of a container.
pub fn elementary_framemd5(file: &Path, codec: &str) -> Vec<String> {
    let out = file.with_extension("framemd5");
    let format = if codec == "h265" { "hevc" } else { codec };
    let filter = tools::slices_only(codec, false);
    let args = ["-f", format, "-i", file.to_str().unwrap(), "-c", "copy", "-copyinkf", "-bsf:v", &filter];
    tools::ffmpeg(&[&args[..], &["-f", "framemd5", out.to_str().unwrap()]].concat()).ended().assert_success();
    let [video, _] = framemd5(&out);
    video
}

/// `received` is a run of `source` without a hole, of at least `count_min`; answers where it starts.
#[track_caller]
pub fn assert_run_of(source: &[String], received: &[String], count_min: usize, who: &str) -> usize {
    assert!(received.len() >= count_min, "{who}: only {} packets, {count_min} expected", received.len());
    // A steady tone repeats packets: of the places where the first one fits, the one where most follow counts.
    let fits = |at: usize| received.iter().zip(&source[at..]).take_while(|(got, sent)| got == sent).count();
    let starts = (0..source.len()).filter(|at| source[*at] == received[0]);
    let best = starts.map(|at| (fits(at), std::cmp::Reverse(at))).max();
    let (same, std::cmp::Reverse(at)) =
        best.unwrap_or_else(|| panic!("{who}: its first packet is not one of the source's"));
    assert_eq!(
        same,
        received.len(),
        "{who}: of {} packets, number {same} is not the source's {}",
        received.len(),
        at + same
    );
    at
}

/// The tests lean on this: it must see what it is there to see.
mod it_sees {
    use super::assert_run_of;

    fn list(text: &str) -> Vec<String> {
        text.chars().map(String::from).collect()
    }

    #[test]
    fn a_run_wherever_it_starts_even_after_a_false_start() {
        assert_eq!(assert_run_of(&list("abcdefg"), &list("cde"), 3, "x"), 2);
        assert_eq!(assert_run_of(&list("aabaac"), &list("aac"), 3, "x"), 3);
    }

    #[test]
    #[should_panic(expected = "number 2 is not the source's 4")]
    fn a_hole() {
        assert_run_of(&list("abcdefg"), &list("cdf"), 3, "x");
    }

    #[test]
    #[should_panic(expected = "not one of the source's")]
    fn a_stranger() {
        assert_run_of(&list("abc"), &list("z"), 1, "x");
    }

    #[test]
    #[should_panic(expected = "number 2 is not the source's 3")]
    fn more_than_there_was() {
        assert_run_of(&list("abc"), &list("bcd"), 3, "x");
    }

    #[test]
    #[should_panic(expected = "only 2 packets, 3 expected")]
    fn too_little() {
        assert_run_of(&list("abc"), &list("ab"), 3, "x");
    }
}
