//! The server seen from outside: started, waited for, measured through /proc and its CPU clock, stopped.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::json::Json;
use crate::sys;

#[derive(Clone, Copy, Default, Debug)]
pub struct Memory {
    pub rss_kb: u64,
    pub pss_kb: u64,
}

/// CPU time so far, in nanoseconds.
#[derive(Clone, Copy, Default, Debug)]
pub struct Cpu {
    pub process: u64,
    /// ksoftirqd of the CPU the server is pinned to; 0 if it is not pinned to one
    pub softirq: u64,
}

pub struct Server {
    pub pid: i32,
    /// its output, if we have started it
    pub log: std::path::PathBuf,
    child: Option<Child>,
    softirqd: Option<i32>,
}

/// Splits a command line: words, 'single' and "double" quotes, backslash. No shell.
pub fn words(line: &str) -> Result<Vec<String>, String> {
    let (mut out, mut word, mut quote) = (Vec::new(), None::<String>, None);
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        match (quote, c) {
            (None, ' ' | '\t' | '\n') => out.extend(word.take()),
            (None, '\'' | '"') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (Some(q), c) if c == q => quote = None,
            (None | Some('"'), '\\') => word.get_or_insert_default().extend(chars.next()),
            (_, c) => word.get_or_insert_default().push(c),
        }
    }
    if quote.is_some() {
        return Err(format!("unclosed quote in: {line}"));
    }
    out.extend(word);
    Ok(out)
}

impl Server {
    /// Starts `NAME=value… program arguments…`, pinned to `cpu`, its output in a file of the temporary directory.
    pub fn spawn(line: &str, cpu: Option<usize>) -> Result<Self, String> {
        let words = words(line)?;
        let is_env = |w: &String| {
            w.split_once('=').is_some_and(|(n, _)| n.chars().all(|c| c.is_alphanumeric() || c == '_'))
        };
        let at = words.iter().position(|w| !is_env(w)).ok_or("no program in the command line")?;
        let mut c = Command::new(&words[at]);
        c.args(&words[at + 1..]).envs(words[..at].iter().filter_map(|w| w.split_once('=')));
        Self::start(c, cpu)
    }

    pub fn start(mut c: Command, cpu: Option<usize>) -> Result<Self, String> {
        let name =
            std::path::Path::new(c.get_program()).file_name().map(|n| n.to_string_lossy().into_owned());
        let log = std::env::temp_dir().join(format!("perf-server-{}.log", name.unwrap_or_default()));
        let file = File::create(&log).map_err(|e| format!("{}: {e}", log.display()))?;
        let err = file.try_clone().map_err(|e| e.to_string())?;
        c.stdin(Stdio::null()).stdout(file).stderr(err);
        sys::prepare_child(&mut c, cpu);
        let child = c.spawn().map_err(|e| format!("{}: {e}", c.get_program().to_string_lossy()))?;
        let mut s = Self { pid: child.id() as i32, log, child: Some(child), softirqd: None };
        s.find_softirqd();
        Ok(s)
    }

    pub fn attach(pid: i32) -> Result<Self, String> {
        sys::process_cpu_ns(pid).map_err(|e| format!("process {pid}: {e}"))?;
        let mut s = Self { pid, log: Default::default(), child: None, softirqd: None };
        s.find_softirqd();
        Ok(s)
    }

    fn find_softirqd(&mut self) {
        let cpus = self.cpus();
        let [cpu] = cpus[..] else { return };
        let name = format!("ksoftirqd/{cpu}\n");
        let Ok(dir) = fs::read_dir("/proc") else { return };
        self.softirqd = dir
            .flatten()
            .filter_map(|d| d.file_name().to_str()?.parse::<i32>().ok())
            .find(|p| fs::read_to_string(format!("/proc/{p}/comm")).is_ok_and(|c| c == name));
    }

    pub fn cpus(&self) -> Vec<usize> {
        sys::affinity(self.pid).unwrap_or_default()
    }

    pub fn cpu(&self) -> Result<Cpu, String> {
        let process =
            sys::process_cpu_ns(self.pid).map_err(|e| format!("server {} is gone: {e}", self.pid))?;
        let softirq = self.softirqd.and_then(|p| {
            let s = fs::read_to_string(format!("/proc/{p}/schedstat")).ok()?;
            s.split_whitespace().next()?.parse().ok()
        });
        Ok(Cpu { process, softirq: softirq.unwrap_or(0) })
    }

    /// Nanoseconds that the CPU of a pinned server has been busy or taken by the hypervisor, counted in 10 ms ticks;
    /// None if the server may run on several CPUs.
    pub fn cpu_busy_ns(&self) -> Option<u64> {
        let cpus = self.cpus();
        let [cpu] = cpus[..] else { return None };
        let stat = fs::read_to_string("/proc/stat").ok()?;
        let l = stat.lines().find_map(|l| l.strip_prefix(&format!("cpu{cpu} ")))?;
        let n: Vec<u64> = l.split_whitespace().filter_map(|w| w.parse().ok()).collect();
        // user nice system idle iowait irq softirq steal
        let busy: u64 = n.iter().take(8).sum::<u64>() - n.get(3)? - n.get(4)?;
        Some(busy * 10_000_000)
    }

    pub fn memory(&self) -> Memory {
        let s = fs::read_to_string(format!("/proc/{}/smaps_rollup", self.pid)).unwrap_or_default();
        let field = |name: &str| -> u64 {
            let l = s.lines().find_map(|l| l.strip_prefix(name));
            l.and_then(|l| l.split_whitespace().next()?.parse().ok()).unwrap_or(0)
        };
        Memory { rss_kb: field("Rss:"), pss_kb: field("Pss:") }
    }

    fn count(&self, what: &str) -> usize {
        fs::read_dir(format!("/proc/{}/{what}", self.pid)).map_or(0, Iterator::count)
    }

    pub fn fds(&self) -> usize {
        self.count("fd")
    }

    pub fn threads(&self) -> usize {
        self.count("task")
    }

    /// Waits until something answers OPTIONS there.
    pub fn wait_rtsp(&mut self, addr: SocketAddr) -> Result<(), String> {
        self.wait("its RTSP port did not answer", |_| {
            let Ok(mut s) = TcpStream::connect_timeout(&addr, Duration::from_secs(1)) else { return false };
            let _ = s.set_read_timeout(Some(Duration::from_secs(1)));
            let mut buf = [0; 256];
            s.write_all(format!("OPTIONS rtsp://{addr}/ RTSP/1.0\r\nCSeq: 1\r\n\r\n").as_bytes()).is_ok()
                && s.read(&mut buf).is_ok_and(|n| buf[..n].starts_with(b"RTSP/1.0 "))
        })
    }

    pub fn wait(&mut self, what: &str, mut up: impl FnMut(&Self) -> bool) -> Result<(), String> {
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(15) {
            if let Some(c) = &mut self.child
                && let Ok(Some(s)) = c.try_wait()
            {
                return Err(format!(
                    "the server ended at once ({s}); its output is in {:?}",
                    std::env::temp_dir()
                ));
            }
            if up(self) {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Err(format!("the server was started, but {what} within 15 s"))
    }
}

impl Drop for Server {
    /// Stops the server if it is ours.
    fn drop(&mut self) {
        let Some(c) = &mut self.child else { return };
        sys::signal(self.pid, libc::SIGTERM);
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(5) {
            if !matches!(c.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        let _ = c.kill();
        let _ = c.wait();
    }
}

/// `rtsp://host:port` as an address.
pub fn address(url: &str) -> Result<SocketAddr, String> {
    let host = url.strip_prefix("rtsp://").ok_or(format!("{url}: not an rtsp:// URL"))?;
    let host = host.split('/').next().unwrap_or(host);
    let full = if host.rsplit(':').next().is_some_and(|p| p.parse::<u16>().is_ok()) {
        host.to_owned()
    } else {
        format!("{host}:554")
    };
    let mut all = full.to_socket_addrs().map_err(|e| format!("{url}: {e}"))?;
    all.next().ok_or(format!("{url}: no address"))
}

fn first_line(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default().lines().next().unwrap_or("").to_owned()
}

/// How long the calling thread has been ready to run without a CPU.
pub fn thread_wait_ns() -> u64 {
    let s = first_line("/proc/thread-self/schedstat");
    s.split(' ').nth(1).and_then(|w| w.parse().ok()).unwrap_or(0)
}

pub fn load_average() -> f64 {
    first_line("/proc/loadavg").split(' ').next().and_then(|s| s.parse().ok()).unwrap_or(0.0)
}

/// The machine, for the record of a result.
pub fn machine() -> Json {
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model =
        info.lines().find_map(|l| l.strip_prefix("model name")?.split_once(": ")).map(|m| m.1.to_owned());
    let cpus = info.lines().filter(|l| l.starts_with("processor")).count();
    Json::map([
        ("kernel", first_line("/proc/sys/kernel/osrelease").into()),
        ("cpu", model.unwrap_or_default().into()),
        ("nproc", cpus.into()),
        ("tcp_congestion_control", first_line("/proc/sys/net/ipv4/tcp_congestion_control").into()),
    ])
}

pub fn machine_line() -> String {
    let Json::Map(m) = machine() else { return String::new() };
    m.iter().map(|(k, v)| format!("{k} {v}")).collect::<Vec<_>>().join(", ").replace('"', "")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn command_lines_are_split() {
        let w = words(r#"A=1 prog 'a b' "c \"d" e\ f ''"#).unwrap();
        assert_eq!(w, ["A=1", "prog", "a b", "c \"d", "e f", ""]);
        assert!(words("a 'b").is_err());
    }

    #[test]
    fn urls_become_addresses() {
        assert_eq!(address("rtsp://127.0.0.1:8554/x").unwrap().to_string(), "127.0.0.1:8554");
        assert_eq!(address("rtsp://127.0.0.1").unwrap().port(), 554);
        assert!(address("http://127.0.0.1").is_err());
    }

    #[test]
    fn a_spawned_process_is_measured_and_stopped() {
        let s = Server::spawn("X=1 sleep 60", None).unwrap();
        assert!(s.memory().rss_kb > 0 && s.fds() >= 3 && s.threads() == 1);
        let pid = s.pid;
        // The accounting may lag behind a process that has just been started.
        let began = Instant::now();
        while s.cpu().unwrap().process == 0 {
            assert!(began.elapsed().as_secs() < 10, "no CPU time was ever accounted");
        }
        drop(s);
        assert!(sys::process_cpu_ns(pid).is_err());
    }
}
