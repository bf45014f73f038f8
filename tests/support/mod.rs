//! What the tests share: the server, the cameras and the clients they drive.

pub mod camera;
pub mod flow;
pub mod gst;
pub mod hls;
pub mod http;
pub mod llhls_validator;
pub mod media;
pub mod mock;
pub mod rtsp;
pub mod scenario;
pub mod server;
pub mod tls;
pub mod tools;
pub mod transcript;
pub mod wire;

use std::{
    net::UdpSocket,
    path::PathBuf,
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::{Duration, Instant},
};

pub use camera::{Camera, CameraPlan};
pub use flow::Flow;
pub use mock::Mock;
pub use rtsp::Rtsp;
pub use server::Server;

/// Nothing below takes this long on a healthy machine; a slow one gets the benefit of the doubt.
pub const PATIENCE: Duration = Duration::from_secs(40);

/// Polls until `ready` answers, or fails the test with `what`.
pub fn wait_for<T>(what: &str, limit: Duration, mut ready: impl FnMut() -> Option<T>) -> T {
    let give_up = Instant::now() + limit;
    loop {
        if let Some(found) = ready() {
            return found;
        }
        assert!(Instant::now() < give_up, "not within {limit:?}: {what}");
        thread::sleep(Duration::from_millis(20));
    }
}

/// A fresh directory under cargo's target directory.
pub fn scratch_dir(name: &str) -> PathBuf {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let n = NEXT.fetch_add(1, Ordering::Relaxed);
    let dir = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{}-{n}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    dir
}

/// True when the server under test is ours. A test of something only Corecast has asks first, and says loudly
/// on the terminal (past the capture of the test runner) that it proves nothing about another server.
pub fn ours_or_say_skipped(test: &str) -> bool {
    use std::io::Write;
    if server::is_ours() {
        return true;
    }
    let mut terminal = std::io::stderr();
    writeln!(terminal, "\n*** NOT RUN: {test}: the server under test is not Corecast\n").unwrap();
    false
}

/// An even UDP port and the next one, as clients announce them.
pub fn udp_pair() -> [UdpSocket; 2] {
    loop {
        let rtp = UdpSocket::bind("127.0.0.1:0").unwrap();
        let port = rtp.local_addr().unwrap().port();
        if port.is_multiple_of(2)
            && let Ok(rtcp) = UdpSocket::bind(("127.0.0.1", port + 1))
        {
            for socket in [&rtp, &rtcp] {
                socket.set_read_timeout(Some(PATIENCE)).unwrap();
            }
            return [rtp, rtcp];
        }
    }
}
