//! A camera that we have not written: gst-rtsp-server with a file.

use std::path::Path;

use super::{PATIENCE, tools::Tool, wait_for};

pub struct GstCamera {
    tool: Tool,
    pub port: u16,
}

impl GstCamera {
    /// Serves `file` under each of `names`.
    pub fn start(file: &Path, names: &[&str]) -> Self {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/gst_server.py");
        // Debian's, which has the bindings that apt installs.
        let args = [&[script, file.to_str().unwrap()], names].concat();
        let mut tool = Tool::run("/usr/bin/python3", args);
        let port =
            wait_for("gst-rtsp-server listens (python3-gi, gir1.2-gst-rtsp-server-1.0)", PATIENCE, || {
                assert!(tool.is_running(), "gst-rtsp-server does not start: {}", tool.stderr_so_far());
                tool.stdout_so_far().lines().find_map(|line| line.strip_prefix("listening ")?.parse().ok())
            });
        Self { tool, port }
    }

    /// How often it has said that: `connected`, `play`, `teardown`, `closed`.
    pub fn count(&self, what: &str) -> usize {
        self.tool.stdout_so_far().lines().filter(|line| *line == what).count()
    }
}
