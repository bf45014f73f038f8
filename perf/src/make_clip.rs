//! Where the pictures come from: a file given, a file encoded by ffmpeg, or made up when there is no ffmpeg.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::clip::Clip;

const SPS: [u8; 15] =
    [0x67, 0x42, 0xc0, 0x1f, 0xda, 0x01, 0x40, 0x16, 0xe8, 0x06, 0xd0, 0xa1, 0x35, 0x29, 0x80];
const PPS: [u8; 4] = [0x68, 0xce, 0x3c, 0x80];

/// Frames shaped like H.264, not decodable: a keyframe eight times the size of the others, no zero byte inside.
pub fn synthetic(fps: f64, gop: usize, frames: usize) -> Vec<u8> {
    let mut out = Vec::new();
    let mut seed = (fps * 1000.0) as u64 | 1;
    for i in 0..frames {
        let key = i % gop == 0;
        if key {
            for set in [&SPS[..], &PPS] {
                out.extend([0, 0, 0, 1]);
                out.extend(set);
            }
        }
        out.extend([0, 0, 0, 1]);
        out.extend([if key { 0x65 } else { 0x41 }, 0x9a]);
        let len = if key { 80_000 } else { 8_000 + i * 37 % 4_000 };
        for _ in 0..len {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            out.push((seed as u8) | 1);
        }
    }
    out
}

/// The clip for a load. `gop_s` is the distance of keyframes in seconds.
pub fn obtain(file: Option<&Path>, mbps: f64, fps: f64, gop_s: f64) -> Result<Clip, String> {
    if let Some(f) = file {
        let bytes = std::fs::read(f).map_err(|e| format!("{}: {e}", f.display()))?;
        return Clip::build(&bytes, mbps, fps, format!("file {}", f.display()));
    }
    let gop = ((gop_s * fps).round() as usize).max(1);
    let gops = ((10.0 * fps) as usize).div_ceil(gop);
    let frames = gop * gops;
    match encoded(mbps, fps, gop, frames) {
        Ok((bytes, path)) => {
            let clip = Clip::build(&bytes, mbps, fps, format!("ffmpeg libx264, {}", path.display()))?;
            if clip.gop != gop && clip.frames.len() > gop {
                return Err(format!("ffmpeg made a GOP of {} frames, {gop} were asked for", clip.gop));
            }
            Ok(clip)
        }
        Err(why) => Clip::build(&synthetic(fps, gop, frames), mbps, fps, format!("synthetic ({why})")),
    }
}

/// An Annex B file of these properties, encoded once and kept in the temporary directory.
fn encoded(mbps: f64, fps: f64, gop: usize, frames: usize) -> Result<(Vec<u8>, PathBuf), String> {
    let dir = std::env::temp_dir().join("corecast-perf-clips");
    std::fs::create_dir_all(&dir).map_err(|e| format!("{}: {e}", dir.display()))?;
    let path = dir.join(format!("{mbps}M-{fps}fps-g{gop}-n{frames}.h264"));
    if let Ok(bytes) = std::fs::read(&path) {
        return Ok((bytes, path));
    }
    let part = dir.join(format!("part-{}.h264", std::process::id()));
    let rate = format!("{}k", (mbps * 1000.0) as u64);
    let size = if mbps >= 1.5 { "1280x720" } else { "640x360" };
    let status = Command::new("ffmpeg")
        .args(["-v", "error", "-y", "-f", "lavfi", "-i"])
        .arg(format!("testsrc2=size={size}:rate={fps},noise=alls=12:allf=t"))
        .args([
            "-frames:v",
            &frames.to_string(),
            "-c:v",
            "libx264",
            "-preset",
            "veryfast",
            "-pix_fmt",
            "yuv420p",
        ])
        .args(["-bf", "0", "-sc_threshold", "0", "-threads", "1"])
        .args(["-g", &gop.to_string(), "-keyint_min", &gop.to_string()])
        .args(["-b:v", &rate, "-maxrate", &rate, "-bufsize", &rate, "-f", "h264"])
        .arg(&part)
        .stdin(Stdio::null())
        .status()
        .map_err(|e| format!("no ffmpeg: {e}"))?;
    if !status.success() {
        let _ = std::fs::remove_file(&part);
        return Err(format!("ffmpeg failed: {status}"));
    }
    let bytes = std::fs::read(&part).map_err(|e| format!("{}: {e}", part.display()))?;
    std::fs::rename(&part, &path).map_err(|e| format!("{}: {e}", path.display()))?;
    Ok((bytes, path))
}
