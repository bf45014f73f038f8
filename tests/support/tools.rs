//! ffmpeg, GStreamer and mpv as they are used in the field, each with an end in sight.

use std::{
    ffi::OsStr,
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use super::{PATIENCE, Server, scratch_dir};

/// A running program; killed, by its own id, when dropped.
pub struct Tool {
    child: Child,
    name: String,
    dir: PathBuf,
}

pub struct Ended {
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
    pub name: String,
}

impl Ended {
    #[track_caller]
    pub fn assert_success(&self) -> &Self {
        assert!(
            self.status.success(),
            "{} ended with {}:\n{}\n{}",
            self.name,
            self.status,
            self.stdout,
            self.stderr
        );
        self
    }
}

impl Tool {
    pub fn run<A: AsRef<OsStr>>(program: &str, args: impl IntoIterator<Item = A>) -> Self {
        Self::run_with_env(program, args, &[])
    }

    pub fn run_with_env<A: AsRef<OsStr>>(
        program: &str,
        args: impl IntoIterator<Item = A>,
        env: &[(&str, String)],
    ) -> Self {
        let dir = scratch_dir("tool");
        let mut command = Command::new(program);
        command
            .args(args)
            .envs(env.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(File::create(dir.join("stdout")).unwrap())
            .stderr(File::create(dir.join("stderr")).unwrap());
        let name = format!("{command:?}");
        let child = command.spawn().unwrap_or_else(|e| panic!("{program} is needed by this test: {e}"));
        Self { child, name, dir }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// What it has written by now.
    pub fn stdout_so_far(&self) -> String {
        fs::read_to_string(self.dir.join("stdout")).unwrap_or_default()
    }

    pub fn stderr_so_far(&self) -> String {
        fs::read_to_string(self.dir.join("stderr")).unwrap_or_default()
    }

    /// Asks it to end (SIGTERM).
    pub fn terminate(&self) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    }

    /// Stops it where it stands (SIGSTOP), its sockets open.
    pub fn freeze(&self) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-STOP", &pid]).status().unwrap().success());
    }

    /// Waits for its own end.
    #[track_caller]
    pub fn ended_within(mut self, limit: Duration) -> Ended {
        let give_up = Instant::now() + limit;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                let read =
                    |file| String::from_utf8_lossy(&fs::read(self.dir.join(file)).unwrap()).into_owned();
                return Ended {
                    status,
                    stdout: read("stdout"),
                    stderr: read("stderr"),
                    name: self.name.clone(),
                };
            }
            assert!(Instant::now() < give_up, "still running after {limit:?}: {}\n{}", self.name, {
                fs::read_to_string(self.dir.join("stderr")).unwrap_or_default()
            });
            thread::sleep(Duration::from_millis(20));
        }
    }

    #[track_caller]
    pub fn ended(self) -> Ended {
        self.ended_within(PATIENCE)
    }
}

impl Drop for Tool {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.dir);
    }
}

pub fn ffmpeg(args: &[&str]) -> Tool {
    Tool::run("ffmpeg", ["-nostdin", "-hide_banner", "-loglevel", "warning", "-y"].iter().chain(args))
}

/// Publishes a file at its own pace, without touching a byte of it.
pub fn ffmpeg_publish(server: &Server, path: &str, file: &Path, transport: &str) -> Tool {
    ffmpeg_publish_to(&server.url(path), file, transport)
}

pub fn ffmpeg_publish_to(url: &str, file: &Path, transport: &str) -> Tool {
    let file = file.to_str().unwrap();
    ffmpeg(&["-re", "-i", file, "-c", "copy", "-f", "rtsp", "-rtsp_transport", transport, url])
}

/// Drops parameter sets, delimiters and SEI, and writes what is left in one form (Annex B), so that the digest of
/// an access unit is the same whether it was stored in MP4, in Matroska or came over RTP.
pub fn slices_only(codec: &str, from_container: bool) -> String {
    let (filter, types) = match codec {
        "h264" => ("h264_mp4toannexb,", "6-9"),
        "h265" => ("hevc_mp4toannexb,", "32-40"),
        _ => panic!("no filter for {codec}"),
    };
    format!("{}filter_units=remove_types={types}", if from_container { filter } else { "" })
}

/// ffmpeg reads `seconds` of a stream and writes framemd5 of the packets as they came.
pub fn ffmpeg_framemd5(
    server: &Server,
    path: &str,
    codec: &str,
    transport: &str,
    seconds: &str,
    out: &Path,
) -> Tool {
    ffmpeg_framemd5_of(&server.url(path), codec, transport, seconds, out)
}

pub fn ffmpeg_framemd5_of(url: &str, codec: &str, transport: &str, seconds: &str, out: &Path) -> Tool {
    let filter = slices_only(codec, false);
    let out = out.to_str().unwrap();
    ffmpeg(&[
        "-rtsp_transport",
        transport,
        "-i",
        url,
        "-t",
        seconds,
        "-map",
        "0",
        "-c",
        "copy",
        "-bsf:v",
        &filter,
        "-f",
        "framemd5",
        out,
    ])
}

/// GStreamer reads `frames` access units of the video and writes the elementary stream.
pub fn gstreamer_video(
    server: &Server,
    path: &str,
    codec: &str,
    transport: &str,
    frames: u32,
    out: &Path,
) -> Tool {
    gstreamer_video_of(&server.url(path), codec, transport, frames, out)
}

/// Whoever certifies a server for TLS is right.
pub fn gstreamer_video_of(url: &str, codec: &str, transport: &str, frames: u32, out: &Path) -> Tool {
    let pipeline = format!(
        "rtspsrc location={url} tls-validation-flags=0 protocols={transport} latency=500 name=s s. ! application/x-rtp,media=video ! \
         rtp{codec}depay ! video/x-{codec},stream-format=byte-stream,alignment=au ! identity eos-after={frames} ! \
         filesink location={out}",
        out = out.display(),
    );
    Tool::run("gst-launch-1.0", ["-q"].into_iter().chain(pipeline.split_whitespace()))
}

/// mpv plays `frames` pictures of the stream into `dir`, a file per picture.
pub fn mpv_pictures(server: &Server, path: &str, frames: u32, dir: &Path) -> Tool {
    Tool::run(
        "mpv",
        [
            "--no-config".to_owned(),
            "--no-terminal".to_owned(),
            "--vo=image".to_owned(),
            "--vo-image-format=jpg".to_owned(),
            format!("--vo-image-outdir={}", dir.display()),
            "--ao=null".to_owned(),
            "--untimed".to_owned(),
            format!("--frames={frames}"),
            server.url(path),
        ],
    )
}

/// ffmpeg decodes `frames` pictures and must find nothing to complain about.
pub fn ffmpeg_decode(url: &str, transport: &str, frames: &str) -> Tool {
    ffmpeg(&[
        "-xerror",
        "-rtsp_transport",
        transport,
        "-i",
        url,
        "-map",
        "0:v",
        "-frames:v",
        frames,
        "-f",
        "null",
        "-",
    ])
}
