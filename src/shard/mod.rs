//! One pinned thread and all it owns: sockets, connections, sessions, paths.
//!
//! A shard shares nothing. What arrives on it either belongs to a path that lives here, or is handed to the shard
//! where that path lives ([`mesh`]). One loop ([`drive`]) takes what the media ring brings, lets the protocol state
//! machines work on it, and sends what became due; nothing in here blocks, locks, or allocates per packet and reader.

pub mod access;
pub mod boot;
pub mod clock;
mod connection;
mod datagrams;
mod demand;
mod drive;
mod fan_out;
mod handover;
mod hls;
mod host;
mod ids;
pub mod listen;
pub mod media_io;
pub mod mesh;
mod news;
mod paths;
mod pulls;
mod reload;
mod requests;
pub mod runtime;
mod seldom;
mod sessions;
pub mod slots;
pub mod tls;
mod upkeep;
pub mod web;

use std::{
    collections::HashMap,
    net::{SocketAddr, TcpListener},
    sync::Arc,
    time::Instant,
};

use corecast_hub::{gauges::ShardGauges, registry::ShardId, roster::News, settings::Settings};
use corecast_proto::rtsp::Limits;
use uuid::Uuid;

use crate::{
    shard::{
        access::{AccessOutcome, AccessQuestion},
        connection::Connection,
        datagrams::{SharedPorts, UdpSource},
        fan_out::{TcpSeat, UdpSeat},
        handover::Handover,
        hls::Hls,
        media_io::{Event, MediaIo},
        mesh::Mesh,
        paths::{DemoCamera, Path},
        pulls::{Pull, PullConnection},
        sessions::SessionEntry,
        slots::{Key, Slots},
        tls::trust::TlsClients,
        web::{Ticket, Web, WebAnswer, WebHandover, WebRequest},
    },
    sources::{publication::Now, rtsp_pull::WithoutUdp},
};

/// What shards and the control thread tell each other.
pub enum Mail {
    /// Shard to control: where does this path live? It is placed if nowhere yet.
    Claim { path: Arc<str>, pinned: Option<ShardId>, asker: Asker },
    /// Control to shard: the answer.
    Home { asker: Asker, path: Arc<str>, home: ShardId },
    /// Shard to control: nothing of the path is left here; the claims that reached it are given back.
    Release { path: Arc<str>, claims: u64 },
    /// Shard to shard: a claim on a path of yours that nobody uses any more.
    Orphan { path: Arc<str> },
    /// Shard to control: share of its core used over the last interval.
    Load { permille: u64 },
    /// Shard to shard: a connection whose path lives there.
    Connection(Box<Handover>),
    /// Shard to shard: a reader of yours was heard of on a port of ours, with a source and how many of its packets it
    /// says it never got.
    Heard { from: SocketAddr, loss: Option<(u32, u32)> },
    /// Control to shard: begin what this path has without being asked, if it has not begun: the built-in camera, or a
    /// source that is always pulled.
    Begin { path: Arc<str> },
    /// Shard to control: a pull wants to reach a host. Answered by [`Mail::Dialable`] when it is its turn. One whose
    /// last attempt failed is a suspect.
    Dial { pull: Key, host: Arc<str>, port: u16, urgent: bool, suspect: bool },
    /// Control to shard: the addresses to try, or why there are none.
    Dialable { pull: Key, addresses: Result<Vec<SocketAddr>, String> },
    /// Shard to control: that pull has reached its host, or given up; it does not wait for its turn any more.
    Dialed { pull: Key },
    /// Shard to control: something has changed.
    News(Box<News>),
    /// Shard to control: may this client have that?
    Authenticate { asker: Asker, question: Box<AccessQuestion> },
    /// Control to shard: the answer.
    Verdict { asker: Asker, outcome: AccessOutcome },
    /// Shard to shard: an HTTP connection whose first request is about a path of yours, with the claim that led it there,
    /// if one did.
    WebConnection { handover: Box<WebHandover>, claim: Option<Arc<str>> },
    /// Shard to shard: an HTTP request about a path of yours, with the claim that led it there, if one did.
    WebRequest { request: Box<WebRequest>, claim: Option<Arc<str>> },
    /// Shard to shard: the answer, on its way to the connection.
    WebAnswer { ticket: Ticket, answer: Box<WebAnswer> },
    /// Shard to shard: nobody waits for that answer any more.
    WebGone { ticket: Ticket },
    /// Control to shard: go by these settings. Answered by [`Mail::SettingsApplied`].
    Settings { settings: Arc<Settings>, generation: u64 },
    /// Shard to control: done, or what could not be had.
    SettingsApplied { generation: u64, result: Result<(), String> },
    /// Control to shard: end this session and its connection. Answered by the news of its end, if there is such.
    Kick { session: Uuid },
    /// Control to shard: end everything, say so, and return.
    Stop,
    /// Shard to control: nothing more comes from here.
    Stopped,
}

/// Who waits for an answer of the control thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asker {
    /// The request at the front of an RTSP connection's inbox.
    Connection(Key),
    /// An HTTP request.
    Web(Ticket),
    /// An HTTP connection, by its first request.
    WebConnection(Key),
}

/// See the module.
pub struct Shard {
    id: ShardId,
    core: usize,
    settings: Arc<Settings>,
    gauges: Arc<ShardGauges>,
    io: MediaIo,
    mesh: Mesh<Mail>,
    listener: Option<TcpListener>,
    tls_listener: Option<TcpListener>,
    /// What connections of the latter have in common.
    tls: Arc<rustls::ServerConfig>,
    /// How servers are known that are pulled from over TLS.
    tls_clients: Arc<TlsClients>,
    ports: Option<SharedPorts>,
    web: Web,
    hls: Hls,
    limits: Limits,
    now: Now,

    connections: Slots<Connection>,
    sessions: Slots<SessionEntry>,
    /// By the id that the client knows.
    session_ids: HashMap<String, Key>,
    paths: Slots<Path>,
    path_names: HashMap<Arc<str>, Key>,
    tcp_seats: Slots<TcpSeat>,
    udp_seats: Slots<UdpSeat>,
    udp_sources: Slots<UdpSource>,
    /// Sessions of UDP readers, by the addresses that they report from.
    udp_addresses: HashMap<SocketAddr, Key>,
    demos: Vec<DemoCamera>,
    pulls: Slots<Pull>,
    /// Each is one attempt of a pull.
    pull_connections: Slots<PullConnection>,
    /// How sources have fared that are stopped.
    pull_memory: pulls::Memory,
    without_udp: WithoutUdp,

    work: Work,
    stopping: bool,
}

/// What a turn of the loop has to do; buffers are kept from turn to turn.
#[derive(Default)]
struct Work {
    turn: u64,
    events: Vec<Event>,
    /// Paths with new packets.
    dirty: Vec<Key>,
    /// Paths with packets that wait for the flush rule's time limit.
    unflushed: Vec<Key>,
    /// Paths whose readers get something in this turn.
    flushed: Vec<Key>,
    /// When the oldest bytes arrived that go out in this turn, path by path; and when the readers asked for media that
    /// get their first bytes.
    arrivals: Vec<Instant>,
    plays: Vec<Instant>,
    /// Seats with more to send than one turn allows, or that can go on after having been stuck.
    behind: Vec<Key>,
    /// Of the TCP seats that get something in this turn: those that take the stream's bytes, and those that need a
    /// copy, or encryption.
    due: Vec<Key>,
    single: Vec<Key>,
    /// TCP seats that lost their place in this turn.
    lapsed: Vec<Key>,
    /// UDP seats that are brought to the present at a measured pace, and whether one of them has something due.
    pacing: Vec<Key>,
    paces: bool,
    /// Connections with more to read than one turn allows.
    unread: Vec<Key>,
    /// Receives in this turn of connections that are still shaking hands.
    handshakes: u32,
    /// Paths on demand to which something is to happen at some time.
    demands: demand::Timers,
    /// UDP sources with a hole in their sequence.
    reordering: Vec<Key>,
    keys: Vec<Key>,
    /// Packets of a run of datagrams, and the runs of one path.
    ranges: Vec<std::ops::Range<usize>>,
    runs: Vec<crate::readers::rtsp_udp::Run>,
    /// What UDP readers get that need packets of their own.
    rewriting: fan_out::Rewriting,
    /// Received bytes that belong to no stream.
    scratch: Vec<u8>,
    /// Bytes for a reader that needs a copy.
    copy: Vec<u8>,
    /// When a pull has to be looked after.
    pulls_due: Option<Instant>,
    next_upkeep: Option<Instant>,
    upkeep_round: u64,
    /// Connections wait in the backlog because one could not be accepted.
    accept_stalled: bool,
    cpu_at_upkeep: std::time::Duration,
}

/// What a ring token names; four bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Kind {
    Listener = 1,
    Wake,
    RtpPort,
    RtcpPort,
    Connection,
    UdpSeat,
    UdpSourceRtp,
    UdpSourceRtcp,
    TlsListener,
    Pull,
    WebListener,
    Web,
}

impl Kind {
    fn token(self, key: Key) -> u64 {
        (self as u64) << 56 | key.to_bits()
    }

    /// A token for something of which there is one.
    fn only(self) -> u64 {
        (self as u64) << 56
    }

    fn of(token: u64) -> Option<(Self, Key)> {
        let kind = match token >> 56 {
            1 => Self::Listener,
            2 => Self::Wake,
            3 => Self::RtpPort,
            4 => Self::RtcpPort,
            5 => Self::Connection,
            6 => Self::UdpSeat,
            7 => Self::UdpSourceRtp,
            8 => Self::UdpSourceRtcp,
            9 => Self::TlsListener,
            10 => Self::Pull,
            11 => Self::WebListener,
            12 => Self::Web,
            _ => return None,
        };
        Some((kind, Key::from_bits(token)))
    }
}

impl Shard {
    fn has_other_shards(&self) -> bool {
        // The other nodes are the control thread and the other shards.
        self.mesh.others().count() > 1
    }

    /// The control thread's node: the last one.
    fn control(&self) -> usize {
        self.mesh.others().max().unwrap_or_default()
    }
}

/// An address as people write it: IPv4 in IPv6 clothes is undressed.
fn plain(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}
