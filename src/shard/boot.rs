//! Starts the shards: what the kernel offers is probed, said in one line, and used.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener},
    os::fd::AsRawFd,
    sync::{Arc, mpsc},
};

use corecast_hub::{
    gauges::ShardGauges,
    settings::{MediaIoChoice, Park, Settings},
};
use corecast_proto::rtsp::Limits;
use tracing::{info, warn};

use super::{
    Kind, Mail, Shard, Work, clock,
    datagrams::SharedPorts,
    hls::Hls,
    listen,
    media_io::{BackendKind, MediaIo, limits},
    mesh::Mesh,
    runtime::{self, Joiner},
    tls::trust::TlsClients,
    web::{Lobby, Web},
};

/// HTTP connections may take this part of the descriptors: one in …; but so many at the least.
const WEB_DESCRIPTORS: u64 = 2;
const WEB_MIN: usize = 64;

/// Why the relay cannot start.
#[derive(Debug, thiserror::Error)]
pub enum BootError {
    #[error("{what} {address} is not to be had: {error}")]
    Address { what: &'static str, address: SocketAddr, error: io::Error },
    #[error("media I/O: {0}")]
    MediaIo(io::Error),
    #[error("core {core}: {error}")]
    Shard { core: usize, error: io::Error },
}

/// What the encrypted connections of each of the shards' servers have in common.
#[derive(Debug, Clone)]
pub struct ServerTls {
    pub rtsps: Arc<rustls::ServerConfig>,
    pub hls: Arc<rustls::ServerConfig>,
}

/// The running shards.
pub struct Shards(Vec<(usize, Joiner)>);

impl Shards {
    /// Waits until every shard has ended.
    ///
    /// # Errors
    /// The first that ended by a failure.
    pub fn join(self) -> Result<(), BootError> {
        let results: Vec<_> = self
            .0
            .into_iter()
            .map(|(core, joiner)| joiner.join().map_err(|error| BootError::Shard { core, error }))
            .collect();
        results.into_iter().collect()
    }
}

/// Starts one shard per configured core and returns when all listen. `meshes` are the shards' ends, and `gauges` where
/// each shows what it measures, by shard id. `tls` has the certificate that a listener for TLS needs, `clients` knows
/// the servers that are pulled from over TLS.
///
/// # Errors
/// When an address is taken, or a shard cannot start.
pub fn start(
    settings: &Arc<Settings>,
    meshes: Vec<Mesh<Mail>>,
    gauges: &[Arc<ShardGauges>],
    tls: &ServerTls,
    clients: &Arc<TlsClients>,
) -> Result<Shards, BootError> {
    if lacks_ipv6(settings) {
        warn!("[engine] this host has no IPv6: listening on IPv4 only");
    }
    let settings = for_this_host(settings);
    check_addresses(&settings, None)?;
    let (ready, started) = mpsc::channel();
    let mut shards = Vec::new();
    let cores = settings.engine.cores.clone();
    for ((id, &core), mesh) in cores.iter().enumerate().zip(meshes) {
        let (settings, ready) = (Arc::clone(&settings), ready.clone());
        let tls = (tls.clone(), Arc::clone(clients));
        let gauges = gauges.get(id).cloned().unwrap_or_default();
        let make = move || async move {
            match build(id, core, settings, gauges, tls, mesh) {
                Ok(shard) => {
                    let _ = ready.send(Ok(()));
                    drop(ready);
                    shard.run().await
                }
                Err(error) => {
                    let _ = ready.send(Err(error));
                    Ok(())
                }
            }
        };
        let joiner = runtime::start(core, &format!("shard-{id}"), make)
            .map_err(|error| BootError::Shard { core, error })?;
        shards.push((core, joiner));
    }
    drop(ready);
    // Every shard reports once; a thread that died without a word has closed its end, and tells why when joined.
    for _ in &cores {
        match started.recv() {
            Ok(result) => result?,
            Err(mpsc::RecvError) => {
                Shards(shards).join()?;
                return Err(BootError::MediaIo(io::Error::other("a shard ended at once")));
            }
        }
    }
    Ok(Shards(shards))
}

/// Listens for RTSP.
pub(super) fn open_listener(address: SocketAddr) -> Result<TcpListener, BootError> {
    listen::listen(address).map_err(|error| BootError::Address { what: RTSP_LISTENER, address, error })
}

/// Listens for RTSP over TLS.
pub(super) fn open_tls_listener(address: SocketAddr) -> Result<TcpListener, BootError> {
    listen::listen(address).map_err(|error| BootError::Address { what: RTSPS_LISTENER, address, error })
}

/// Opens our RTP and RTCP ports.
pub(super) fn open_ports(settings: &Settings) -> Result<SharedPorts, BootError> {
    let rtsp = &settings.rtsp;
    let ports = SharedPorts::bind(rtsp.rtp_address, rtsp.rtcp_address, settings.udp_read_buffer_bytes);
    ports.map_err(|error| BootError::Address { what: RTP_PORT, address: rtsp.rtp_address, error })
}

/// Fails when somebody else has an address that `settings` ask for; those of `held` are ours already. May wait two
/// seconds for one that is being given up.
///
/// # Errors
/// The first address that is taken.
pub fn check_addresses(settings: &Arc<Settings>, held: Option<&Arc<Settings>>) -> Result<(), BootError> {
    let held = held.map(|held| addresses(&for_this_host(held))).unwrap_or_default();
    for wanted in addresses(&for_this_host(settings)) {
        let (what, address) = wanted;
        if held.contains(&wanted) {
            continue;
        }
        let free = match what {
            RTP_PORT | RTCP_PORT => std::net::UdpSocket::bind(address).map(drop),
            _ => listen::check_free(address),
        };
        free.map_err(|error| BootError::Address { what, address, error })?;
    }
    Ok(())
}

/// Everything that shards listen on.
fn addresses(settings: &Settings) -> Vec<(&'static str, SocketAddr)> {
    let rtsp = &settings.rtsp;
    let mut addresses = Vec::new();
    addresses.extend(rtsp.tls_address.map(|address| (RTSPS_LISTENER, address)));
    addresses.extend(settings.hls.as_ref().map(|hls| (HLS_LISTENER, hls.web.address)));
    if let Some(address) = rtsp.address {
        addresses.push((RTSP_LISTENER, address));
        if rtsp.udp {
            addresses.extend([(RTP_PORT, rtsp.rtp_address), (RTCP_PORT, rtsp.rtcp_address)]);
        }
    }
    addresses
}

fn build(
    id: usize,
    core: usize,
    settings: Arc<Settings>,
    gauges: Arc<ShardGauges>,
    (tls, tls_clients): (ServerTls, Arc<TlsClients>),
    mesh: Mesh<Mail>,
) -> Result<Shard, BootError> {
    let (mut io, media_io) = open_media_io(settings.engine.media_io).map_err(BootError::MediaIo)?;
    let rtsp = &settings.rtsp;
    let listener = rtsp.address.map(open_listener).transpose()?;
    let tls_listener = rtsp.tls_address.map(open_tls_listener).transpose()?;
    let ports = match rtsp.address {
        Some(_) if rtsp.udp => Some(open_ports(&settings)?),
        _ => None,
    };
    let mut watch = || {
        io.watch(mesh.wake_fd().as_raw_fd(), Kind::Wake.only())?;
        if let Some(listener) = &listener {
            io.watch(listener.as_raw_fd(), Kind::Listener.only())?;
        }
        if let Some(listener) = &tls_listener {
            io.watch(listener.as_raw_fd(), Kind::TlsListener.only())?;
        }
        if let Some(ports) = &ports {
            ports.watch(&mut io)?;
        }
        Ok(())
    };
    watch().map_err(BootError::MediaIo)?;
    let lobby = Lobby::new(id, clock::now().instant, Arc::clone(&gauges));
    let shards = settings.engine.cores.len();
    let web_max = limits::raise_descriptor_limit() / WEB_DESCRIPTORS / shards as u64;
    let ServerTls { rtsps: tls, hls } = tls;
    let mut shard = Shard {
        id,
        core,
        settings,
        gauges,
        io,
        mesh,
        listener,
        tls_listener,
        tls,
        tls_clients,
        ports,
        web: Web::new(lobby, [hls], shards > 1, usize::try_from(web_max).unwrap_or(usize::MAX).max(WEB_MIN)),
        hls: Hls::new(clock::now().instant),
        limits: Limits::default(),
        now: clock::now(),
        connections: Default::default(),
        sessions: Default::default(),
        session_ids: Default::default(),
        paths: Default::default(),
        path_names: Default::default(),
        tcp_seats: Default::default(),
        udp_seats: Default::default(),
        udp_sources: Default::default(),
        udp_addresses: Default::default(),
        demos: Vec::new(),
        pulls: Default::default(),
        pull_connections: Default::default(),
        pull_memory: Default::default(),
        without_udp: Default::default(),
        work: Work::default(),
        stopping: false,
    };
    shard.log_start(media_io);
    if id == 0 {
        shard.check_receive_buffer();
        shard.log_listeners();
        shard.log_tls_listener();
    }
    shard.rebind_web()?;
    Ok(shard)
}

/// Opens the back end that is asked for; `auto` takes io_uring where it works.
fn open_media_io(choice: MediaIoChoice) -> io::Result<(MediaIo, &'static str)> {
    match choice {
        MediaIoChoice::IoUring => Ok((MediaIo::new(BackendKind::IoUring)?, "io_uring")),
        MediaIoChoice::Epoll => Ok((MediaIo::new(BackendKind::Epoll)?, "epoll")),
        MediaIoChoice::Auto => match MediaIo::new(BackendKind::IoUring) {
            Ok(io) => Ok((io, "io_uring")),
            Err(error) => {
                info!("[engine] io_uring cannot carry media here ({error}): epoll does");
                Ok((MediaIo::new(BackendKind::Epoll)?, "epoll"))
            }
        },
    }
}

/// The listener that connections over TLS come to, in messages.
const RTSP_LISTENER: &str = "RTSP listener";
const RTSPS_LISTENER: &str = "RTSPS listener";
pub(super) const HLS_LISTENER: &str = "HLS listener";
const RTP_PORT: &str = "RTP port";
const RTCP_PORT: &str = "RTCP port";

/// `:8554` means both families, which a host without IPv6 cannot serve.
fn lacks_ipv6(settings: &Settings) -> bool {
    let hls = settings.hls.as_ref().map(|hls| hls.web.address);
    [settings.rtsp.address, settings.rtsp.tls_address, hls].into_iter().flatten().any(|address| {
        address.is_ipv6()
            && address.ip().is_unspecified()
            && TcpListener::bind(SocketAddr::new(address.ip(), 0)).is_err()
    })
}

/// The settings as this host can serve them: one without IPv6 serves the family that it has.
pub fn for_this_host(settings: &Arc<Settings>) -> Arc<Settings> {
    if !lacks_ipv6(settings) {
        return Arc::clone(settings);
    }
    let mut settings = Settings::clone(settings);
    let v4 = |address: SocketAddr| match address.ip().is_unspecified() {
        true => SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), address.port()),
        false => address,
    };
    settings.rtsp.address = settings.rtsp.address.map(v4);
    settings.rtsp.tls_address = settings.rtsp.tls_address.map(v4);
    if let Some(hls) = &mut settings.hls {
        hls.web.address = v4(hls.web.address);
    }
    settings.rtsp.rtp_address = v4(settings.rtsp.rtp_address);
    settings.rtsp.rtcp_address = v4(settings.rtsp.rtcp_address);
    Arc::new(settings)
}

impl Shard {
    fn log_start(&self, media_io: &str) {
        let park = match self.settings.engine.park {
            Park::Ring => "",
            Park::Executor => ", parks in the executor",
        };
        info!("[engine] core {}: media over {media_io}{park}", self.core);
    }

    /// The line that tells what is served where (contract §8).
    pub(super) fn log_listeners(&self) {
        let Some(listener) = &self.listener else { return };
        let mut listeners = Vec::new();
        if let Ok(address) = listener.local_addr() {
            listeners.push(format!("{} (TCP/RTSP)", port(address)));
        }
        if self.ports.is_some() {
            listeners.push(format!("{} (UDP/RTP)", port(self.settings.rtsp.rtp_address)));
            listeners.push(format!("{} (UDP/RTCP)", port(self.settings.rtsp.rtcp_address)));
        }
        let plural = if listeners.len() == 1 { "" } else { "s" };
        info!("[RTSP] started with listener{plural} on {}", listeners.join(", "));
    }

    pub(super) fn log_tls_listener(&self) {
        let address = self.tls_listener.as_ref().and_then(|listener| listener.local_addr().ok());
        if let Some(address) = address {
            info!("[RTSPS] started with listener on {} (TCP/RTSPS)", port(address));
        }
    }
}

/// `:8554` for all addresses of a host.
pub(super) fn port(address: SocketAddr) -> String {
    match address.ip().is_unspecified() {
        true => format!(":{}", address.port()),
        false => address.to_string(),
    }
}
