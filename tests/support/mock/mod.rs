//! Cameras and a Milestone bridge that do what a plan says, on threads of their own: upstreams for a relay that pulls.
//! They serve any number of paths on one port and remember what their clients did.

mod door;
mod plan;
mod session;
mod tracks;

use std::{
    io::Write,
    net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use socket2::{Domain, SockRef, Socket, Type};

pub use self::plan::{Listen, Plan, duration};
use super::camera::Record;

/// A request as it came.
#[derive(Debug, Clone)]
pub struct Asked {
    pub method: String,
    pub url: String,
    /// Of the answer; 0 if there was none.
    pub status: u16,
}

/// A session that was told to play.
#[derive(Debug, Clone)]
pub struct Played {
    pub path: String,
    /// `tcp`, `udp` or `multicast`, of its first track.
    pub transport: &'static str,
    /// Tracks that were set up.
    pub tracks: Vec<usize>,
    pub ended: Option<Instant>,
    pub torn_down: bool,
}

#[derive(Default)]
struct Seen {
    /// When each connection came.
    connections: Vec<Instant>,
    open: usize,
    asked: Vec<Asked>,
    played: Vec<(Played, Record)>,
    /// Empty packets, or anything else, that came to the ports of sessions over UDP before they played.
    punches: usize,
    receiver_reports: usize,
}

struct Shared {
    /// Laid over each other: what all connections meet, what the first ones do, and the ones after those.
    always: Plan,
    first: Option<(usize, Plan)>,
    base: String,
    stop: AtomicBool,
    seen: Mutex<Seen>,
}

impl Shared {
    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap()
    }

    fn plan(&self, connection: usize) -> &Plan {
        self.first.as_ref().filter(|(count, _)| connection < *count).map_or(&self.always, |(_, plan)| plan)
    }

    fn stopping(&self) -> bool {
        self.stop.load(Ordering::SeqCst)
    }
}

pub struct Mock {
    pub port: u16,
    pub address: Ipv4Addr,
    shared: Arc<Shared>,
    listener: Option<Socket>,
    accepting: Option<JoinHandle<()>>,
    /// They fill the queue of a listener that takes nobody.
    _stuck: Vec<Socket>,
}

impl Mock {
    /// A camera on a free port of this machine; see [`plan`] for the lines of `text`.
    pub fn start(text: &str) -> Self {
        Self::with(&Plan::read(text), None, SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))
    }

    /// `first`: how many connections meet another plan than the rest.
    pub fn with(always: &Plan, first: Option<(usize, Plan)>, at: SocketAddr) -> Self {
        let listens = first.as_ref().map_or(always.listen, |(_, plan)| plan.listen);
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.set_reuse_address(true).unwrap();
        socket.bind(&at.into()).unwrap();
        let at = socket.local_addr().unwrap().as_socket().unwrap();
        let SocketAddr::V4(address) = at else { unreachable!("bound to IPv4") };
        let base = format!("rtsp://{at}/");
        let shared = Shared {
            always: always.clone(),
            first,
            base,
            stop: AtomicBool::new(false),
            seen: Mutex::default(),
        };
        let mut mock = Self {
            port: at.port(),
            address: *address.ip(),
            shared: Arc::new(shared),
            listener: None,
            accepting: None,
            _stuck: Vec::new(),
        };
        match listens {
            // A port that is bound and does not listen refuses, and nobody else can take it.
            Listen::Refuse => mock._stuck.push(socket),
            Listen::BlackHole => {
                socket.listen(0).unwrap();
                // What comes beyond the queue is dropped by the kernel, as by a host that is not there.
                for _ in 0..4 {
                    let filler = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
                    filler.set_nonblocking(true).unwrap();
                    let _ = filler.connect(&at.into());
                    mock._stuck.push(filler);
                }
                mock._stuck.push(socket);
            }
            Listen::Serve | Listen::Mute | Listen::Garbage => {
                socket.listen(1_024).unwrap();
                let listener = TcpListener::from(socket.try_clone().unwrap());
                mock.listener = Some(socket);
                let shared = Arc::clone(&mock.shared);
                mock.accepting = Some(thread::spawn(move || accept(&listener, &shared)));
            }
        }
        mock
    }

    /// `login` in it, if it asks for one.
    pub fn url(&self, path: &str) -> String {
        let plan = self.shared.first.as_ref().map_or(&self.shared.always, |(_, plan)| plan);
        let login = match plan.auth.is_empty() {
            true => String::new(),
            false => format!("{}:{}@", plan.user, plan.password),
        };
        format!("rtsp://{login}{}:{}/{path}", self.address, self.port)
    }

    /// Without credentials.
    pub fn bare_url(&self, path: &str) -> String {
        format!("{}{path}", self.shared.base)
    }

    /// Connections that came so far.
    pub fn connections(&self) -> usize {
        self.shared.seen().connections.len()
    }

    pub fn connected_at(&self) -> Vec<Instant> {
        self.shared.seen().connections.clone()
    }

    /// Connections that are there now.
    pub fn open(&self) -> usize {
        self.shared.seen().open
    }

    pub fn asked(&self) -> Vec<Asked> {
        self.shared.seen().asked.clone()
    }

    pub fn count(&self, method: &str) -> usize {
        self.shared.seen().asked.iter().filter(|asked| asked.method == method).count()
    }

    /// Sessions of a path that played or play.
    pub fn played(&self, path: &str) -> Vec<Played> {
        let seen = self.shared.seen();
        seen.played
            .iter()
            .filter(|(played, _)| played.path == path)
            .map(|(played, _)| played.clone())
            .collect()
    }

    /// Sessions of a path that play now.
    pub fn playing(&self, path: &str) -> usize {
        self.played(path).iter().filter(|played| played.ended.is_none()).count()
    }

    /// What was sent in the newest session of a path.
    pub fn record(&self, path: &str) -> Option<Record> {
        let seen = self.shared.seen();
        seen.played.iter().rev().find(|(played, _)| played.path == path).map(|(_, record)| record.clone())
    }

    pub fn punches(&self) -> usize {
        self.shared.seen().punches
    }

    pub fn receiver_reports(&self) -> usize {
        self.shared.seen().receiver_reports
    }
}

impl Drop for Mock {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        if let Some(listener) = self.listener.take() {
            let _ = listener.shutdown(Shutdown::Both); // wakes the thread that accepts
        }
        if let Some(accepting) = self.accepting.take() {
            let ended = accepting.join();
            assert!(ended.is_ok() || thread::panicking(), "a client has said what no mock understands");
        }
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    let mut connections = Vec::new();
    let mut number = 0;
    while !shared.stopping() {
        let Ok((socket, _)) = listener.accept() else { break };
        if shared.stopping() {
            break;
        }
        let plan = shared.plan(number).clone();
        {
            let mut seen = shared.seen();
            seen.connections.push(Instant::now());
            seen.open += 1;
        }
        let pause = plan.accepts_per_second.map(|rate| Duration::from_secs(1) / rate);
        let connection = Arc::clone(shared);
        connections.push(thread::spawn(move || {
            talk(socket, &connection, plan, number);
            connection.seen().open -= 1;
        }));
        number += 1;
        pause.into_iter().for_each(thread::sleep);
    }
    let ended: Vec<_> = connections.into_iter().map(JoinHandle::join).collect();
    assert!(ended.iter().all(Result::is_ok));
}

fn talk(mut socket: TcpStream, shared: &Arc<Shared>, plan: Plan, number: usize) {
    match plan.listen {
        Listen::Mute => hold(&socket, shared),
        Listen::Garbage => {
            let _ = socket
                .write_all(b"\x16\x03\x01 this is not RTSP \r\n\r\n\0\0\xFF\xFE HTTP/1.1 200 OK\r\n\r\n");
            hold(&socket, shared);
        }
        _ => session::Session::new(socket, shared, plan, number).run(),
    }
}

/// Keeps the connection without a word until the client leaves.
fn hold(socket: &TcpStream, shared: &Shared) {
    socket.set_read_timeout(Some(TICK)).unwrap();
    let mut buffer = [std::mem::MaybeUninit::uninit(); 4_096];
    while !shared.stopping() {
        match SockRef::from(socket).recv(&mut buffer) {
            Ok(0) => return,
            Ok(_) => {}
            Err(error) if is_late(&error) => {}
            Err(_) => return,
        }
    }
}

/// How often a thread looks whether it is to end.
const TICK: Duration = Duration::from_millis(50);

fn is_late(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{Interrupted, TimedOut, WouldBlock};
    matches!(error.kind(), WouldBlock | TimedOut | Interrupted)
}
