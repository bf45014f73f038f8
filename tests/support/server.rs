//! One server under test: its configuration, its ports, its log, its end.

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream, UdpSocket},
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU16, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use super::{PATIENCE, scratch_dir, wait_for};

/// The binary: ours as cargo built it, or the one that `CORECAST_TEST_SERVER` names.
pub fn binary() -> PathBuf {
    std::env::var_os("CORECAST_TEST_SERVER")
        .map_or_else(|| env!("CARGO_BIN_EXE_corecast").into(), PathBuf::from)
}

pub fn is_ours() -> bool {
    binary().file_name().is_some_and(|name| name == "corecast")
}

pub struct Server {
    child: Child,
    dir: PathBuf,
    pub port: u16,
    /// Where `rtspEncryption` listens, if it is asked for.
    pub tls_port: u16,
    pub rtp_port: u16,
    /// Where `api: yes` and `metrics: yes` listen.
    pub api_port: u16,
    pub metrics_port: u16,
    /// Where `hls: yes` listens.
    pub hls_port: u16,
    log: Arc<Mutex<Vec<String>>>,
}

/// Switches on what [`Server::with_api`] has.
pub const API: &str = "api: yes\nmetrics: yes\n";

/// Switches on the HLS server.
pub const HLS: &str = "hls: yes\n";

/// In `paths`, this becomes the server's own RTSP port.
pub const OWN_PORT: &str = "localhost:8554";

struct Ports {
    port: u16,
    rtp_port: u16,
    api_port: u16,
    metrics_port: u16,
}

impl Ports {
    fn config(&self, globals: &str, paths: &str) -> String {
        let Self { port, rtp_port, api_port, metrics_port } = self;
        let transports =
            if globals.contains("rtspTransports:") { "" } else { "rtspTransports: [udp, tcp]\n" };
        let hls = if globals.contains(HLS) { "" } else { "hls: no\n" };
        let hls_address = if globals.contains("hlsAddress:") {
            String::new()
        } else {
            format!("hlsAddress: 127.0.0.1:{}\n", hls_port(*metrics_port))
        };
        format!(
            "logLevel: info\n{transports}rtspAddress: 127.0.0.1:{port}\nrtspsAddress: 127.0.0.1:{}\nrtpAddress: 127.0.0.1:{rtp_port}\n\
             rtcpAddress: 127.0.0.1:{}\napiAddress: 127.0.0.1:{api_port}\nmetricsAddress: 127.0.0.1:{metrics_port}\n\
             rtmp: no\n{hls}{hls_address}webrtc: no\nsrt: no\nmoq: no\n{globals}paths:\n{}",
            tls_port(*port),
            rtp_port + 1,
            paths.replace(OWN_PORT, &format!("localhost:{port}"))
        )
    }
}

impl Server {
    /// Any path may be published to, TCP and UDP are on, nothing else listens.
    pub fn start() -> Self {
        Self::with("", "  all_others:\n")
    }

    /// `globals` are added to the top level, `paths` (indented by two) are the whole of `paths:`.
    pub fn with(globals: &str, paths: &str) -> Self {
        Self::with_env(globals, paths, &[])
    }

    /// The same with API and metrics on.
    pub fn with_api(globals: &str, paths: &str) -> Self {
        Self::with(&format!("{API}{globals}"), paths)
    }

    /// … and with variables in its environment.
    pub fn with_env(globals: &str, paths: &str, env: &[(&str, &str)]) -> Self {
        // Another process may take a port between our look and the server's bind: then once more, elsewhere.
        let mut last = String::new();
        for _ in 0..3 {
            match Self::try_start(globals, paths, env) {
                Ok(server) => return server,
                Err(log) => last = log,
            }
        }
        panic!("the server does not start:\n{last}");
    }

    fn try_start(globals: &str, paths: &str, env: &[(&str, &str)]) -> Result<Self, String> {
        let (port, rtp_port) = free_ports();
        // The second pair of a block is free too, and its ports are TCP's here.
        let (metrics_port, api_port) = free_ports();
        let dir = scratch_dir("server");
        let log = Arc::new(Mutex::new(Vec::new()));
        let ports = Ports { port, rtp_port, api_port, metrics_port };
        fs::write(dir.join("config.yml"), ports.config(globals, paths)).unwrap();
        let mut child = Command::new(binary())
            .arg(dir.join("config.yml"))
            .envs(env.iter().copied())
            .current_dir(&dir)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|e| panic!("{}: {e}", binary().display()));
        collect(child.stdout.take().unwrap(), Arc::clone(&log));
        collect(child.stderr.take().unwrap(), Arc::clone(&log));
        let mut server = Self {
            child,
            dir,
            port,
            tls_port: tls_port(port),
            rtp_port,
            api_port,
            metrics_port,
            hls_port: hls_port(metrics_port),
            log,
        };
        let give_up = Instant::now() + PATIENCE;
        while Instant::now() < give_up {
            if server.child.try_wait().unwrap().is_some() {
                break;
            }
            if server.answers() && server.listens(globals) {
                return Ok(server);
            }
            thread::sleep(Duration::from_millis(20));
        }
        Err(server.log_text())
    }

    fn answers(&self) -> bool {
        // Nobody can ask a server for TLS alone who does not know its certificate.
        if self.log_text().contains("[RTSPS] started with listener")
            && TcpStream::connect(("127.0.0.1", self.port)).is_err()
        {
            return true;
        }
        let Ok(mut conn) = TcpStream::connect(("127.0.0.1", self.port)) else { return false };
        conn.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let url = self.url("");
        let mut status = [0; 12];
        write!(conn, "OPTIONS {url} RTSP/1.0\r\nCSeq: 1\r\n\r\n").is_ok()
            && conn.read_exact(&mut status).is_ok()
            && status.starts_with(b"RTSP/1.0 ")
    }

    /// The HTTP servers that `globals` switch on start after RTSP.
    fn listens(&self, globals: &str) -> bool {
        let switches =
            [("api: yes\n", self.api_port), ("metrics: yes\n", self.metrics_port), (HLS, self.hls_port)];
        switches.iter().all(|(switch, port)| {
            !globals.contains(switch) || TcpStream::connect(("127.0.0.1", *port)).is_ok()
        })
    }

    /// Writes another configuration in the place of the one it runs on.
    pub fn rewrite(&self, globals: &str, paths: &str) {
        let Self { port, rtp_port, api_port, metrics_port, .. } = *self;
        let text = Ports { port, rtp_port, api_port, metrics_port }.config(globals, paths);
        // As editors and deployment tools do: the new file takes the place of the old one in one step.
        let (draft, config) = (self.dir.join("config.yml.new"), self.dir.join("config.yml"));
        fs::write(&draft, text).unwrap();
        fs::rename(draft, config).unwrap();
    }

    pub fn dir(&self) -> &std::path::Path {
        &self.dir
    }

    pub fn signal(&self, signal: &str) {
        let status = Command::new("kill").args([signal, &self.pid().to_string()]).status().unwrap();
        assert!(status.success());
    }

    pub fn tls_url(&self, path: &str) -> String {
        format!("rtsps://127.0.0.1:{}/{path}", self.tls_port)
    }

    pub fn url(&self, path: &str) -> String {
        format!("rtsp://127.0.0.1:{}/{path}", self.port)
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn log_lines(&self) -> Vec<String> {
        self.log.lock().unwrap().clone()
    }

    pub fn log_text(&self) -> String {
        self.log_lines().join("\n")
    }

    /// Nothing worth a warning has been logged since the log had `lines` lines.
    #[track_caller]
    pub fn assert_no_warning_since(&self, lines: usize) {
        let bad = |line: &&String| line.contains(" WAR ") || line.contains(" ERR ");
        let log = self.log_lines();
        let found: Vec<_> = log[lines..].iter().filter(bad).collect();
        assert!(found.is_empty(), "{found:#?}");
    }

    /// Waits for a log line that holds every one of `parts`.
    pub fn wait_log(&self, parts: &[&str], limit: Duration) -> String {
        let found = |line: &String| parts.iter().all(|part| line.contains(part));
        let give_up = Instant::now() + limit;
        loop {
            if let Some(line) = self.log.lock().unwrap().iter().find(|line| found(line)) {
                return line.clone();
            }
            assert!(Instant::now() < give_up, "no log line with {parts:?} in\n{}", self.log_text());
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// The log's name of the session that this client address opened: `[session 1a2b3c4d]`.
    pub fn session_name(&self, client: &str) -> String {
        let line = self.wait_log(&["[session ", &format!("] created by {client}")], PATIENCE);
        let start = line.find("[session ").unwrap();
        line[start..start + line[start..].find(']').unwrap() + 1].to_owned()
    }

    /// Waits until DESCRIBE of `path` is answered with 200.
    pub fn wait_live(&self, path: &str) {
        wait_for(&format!("{path} is live, log:\n{}", self.log_text()), PATIENCE, || {
            let mut client = super::Rtsp::connect(self);
            (client.describe(path).status == 200).then_some(())
        });
    }

    pub fn wait_gone(&self, path: &str) {
        wait_for(&format!("{path} is gone"), PATIENCE, || {
            let mut client = super::Rtsp::connect(self);
            (client.describe(path).status == 404).then_some(())
        });
    }

    pub fn open_files(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.pid())).unwrap().count()
    }

    pub fn rss_bytes(&self) -> usize {
        let statm = fs::read_to_string(format!("/proc/{}/statm", self.pid())).unwrap();
        statm.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
    }

    pub fn threads(&self) -> usize {
        fs::read_dir(format!("/proc/{}/task", self.pid())).unwrap().count()
    }

    /// Processes that it started and that are not reaped: their ids and command lines, which zombies have none of.
    pub fn children(&self) -> Vec<(u32, String)> {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.pid())).unwrap().flatten();
        let lists = tasks.filter_map(|task| fs::read_to_string(task.path().join("children")).ok());
        let ids: Vec<u32> = lists
            .flat_map(|list| list.split_whitespace().map(|id| id.parse().unwrap()).collect::<Vec<_>>())
            .collect();
        let command = |id| fs::read_to_string(format!("/proc/{id}/cmdline")).unwrap_or_default();
        ids.into_iter().map(|id| (id, command(id).replace('\0', " "))).collect()
    }

    /// User and system time so far.
    pub fn cpu(&self) -> Duration {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid())).unwrap();
        // The second field is the name in brackets, and may hold anything; utime and stime are the 14th and 15th.
        let fields: Vec<_> = stat[stat.rfind(')').unwrap() + 2..].split(' ').collect();
        let ticks: u64 = fields[11..13].iter().map(|n| n.parse::<u64>().unwrap()).sum();
        Duration::from_millis(ticks * 10) // USER_HZ is 100 on every Linux we run on
    }

    pub fn assert_alive(&mut self) {
        let ended = self.child.try_wait().unwrap();
        assert!(ended.is_none(), "the server ended ({ended:?}):\n{}", self.log_text());
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            // Captured by the test runner, shown with the failure.
            println!("--- log of the server on port {}\n{}", self.port, self.log_text());
        }
        let _ = fs::remove_dir_all(&self.dir);
    }
}

fn collect(pipe: impl Read + Send + 'static, log: Arc<Mutex<Vec<String>>>) {
    thread::spawn(move || {
        for line in BufReader::new(pipe).lines().map_while(Result::ok) {
            log.lock().unwrap().push(line);
        }
    });
}

/// Beside the one for plain RTSP.
fn tls_port(port: u16) -> u16 {
    port + 1
}

/// The second TCP port of the block that the metrics are in.
fn hls_port(metrics_port: u16) -> u16 {
    metrics_port + 1
}

/// A TCP port for RTSP, with the next one for TLS, and an even/odd UDP pair, outside the range that the kernel hands out to clients.
pub fn free_ports() -> (u16, u16) {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let first = 10_000 + (std::process::id() % 5_000) as u16 * 4;
    for _ in 0..2_000 {
        let base = 10_000 + (first - 10_000 + NEXT.fetch_add(4, Ordering::Relaxed)) % 20_000;
        let tcp = TcpListener::bind(("127.0.0.1", base + 2));
        let tls = TcpListener::bind(("127.0.0.1", tls_port(base + 2)));
        let udp = (UdpSocket::bind(("127.0.0.1", base)), UdpSocket::bind(("127.0.0.1", base + 1)));
        if let (Ok(_), Ok(_), (Ok(_), Ok(_))) = (tcp, tls, udp) {
            return (base + 2, base);
        }
    }
    panic!("no free ports");
}
