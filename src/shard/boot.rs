//! Starts the shards: what the kernel offers is probed, said in one line, and used.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    os::fd::AsRawFd,
    sync::{Arc, mpsc},
};

use corecast_hub::settings::{MediaIoChoice, Park, Settings};
use corecast_proto::rtsp::Limits;
use tracing::{info, warn};

use super::{
    Kind, Mail, Shard, Work, clock,
    datagrams::SharedPorts,
    listen,
    media_io::{BackendKind, MediaIo},
    mesh::Mesh,
    runtime::{self, Joiner},
};

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

/// Starts one shard per configured core and returns when all listen. `meshes` are the shards' ends, by shard id.
///
/// # Errors
/// When an address is taken, or a shard cannot start.
pub fn start(settings: &Arc<Settings>, meshes: Vec<Mesh<Mail>>) -> Result<Shards, BootError> {
    let settings = with_families_of_this_host(settings);
    if let Some(address) = settings.rtsp.address {
        let taken = |error| BootError::Address { what: "RTSP listener", address, error };
        listen::check_free(address).map_err(taken)?;
        if settings.rtsp.udp {
            let address = settings.rtsp.rtp_address;
            let taken = |error| BootError::Address { what: "RTP port", address, error };
            std::net::UdpSocket::bind(address).map_err(taken)?;
        }
    }
    let (ready, started) = mpsc::channel();
    let mut shards = Vec::new();
    let cores = settings.engine.cores.clone();
    for ((id, &core), mesh) in cores.iter().enumerate().zip(meshes) {
        let (settings, ready) = (Arc::clone(&settings), ready.clone());
        let make = move || async move {
            match build(id, core, settings, mesh) {
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

fn build(id: usize, core: usize, settings: Arc<Settings>, mesh: Mesh<Mail>) -> Result<Shard, BootError> {
    let (mut io, media_io) = open_media_io(settings.engine.media_io).map_err(BootError::MediaIo)?;
    let rtsp = &settings.rtsp;
    let listener = match rtsp.address {
        Some(address) => Some(listen::listen(address).map_err(|error| BootError::Address {
            what: "RTSP listener",
            address,
            error,
        })?),
        None => None,
    };
    let ports = if rtsp.address.is_some() && rtsp.udp {
        let ports = SharedPorts::bind(rtsp.rtp_address, rtsp.rtcp_address, settings.udp_read_buffer_bytes);
        let taken = |error| BootError::Address { what: "RTP port", address: rtsp.rtp_address, error };
        Some(ports.map_err(taken)?)
    } else {
        None
    };
    let mut watch = || {
        io.watch(mesh.wake_fd().as_raw_fd(), Kind::Wake.only())?;
        if let Some(listener) = &listener {
            io.watch(listener.as_raw_fd(), Kind::Listener.only())?;
        }
        if let Some(ports) = &ports {
            ports.watch(&mut io)?;
        }
        Ok(())
    };
    watch().map_err(BootError::MediaIo)?;
    let shard = Shard {
        id,
        core,
        settings,
        io,
        mesh,
        listener,
        ports,
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
        work: Work::default(),
        stopping: false,
    };
    shard.log_start(media_io);
    if id == 0 {
        shard.check_receive_buffer();
        shard.log_listeners();
    }
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

/// `:8554` means both families; a host without IPv6 serves the one that it has.
fn with_families_of_this_host(settings: &Arc<Settings>) -> Arc<Settings> {
    let no_ipv6 = |address: SocketAddr| {
        address.is_ipv6()
            && address.ip().is_unspecified()
            && std::net::TcpListener::bind(SocketAddr::new(address.ip(), 0)).is_err()
    };
    let Some(address) = settings.rtsp.address else { return Arc::clone(settings) };
    if !no_ipv6(address) {
        return Arc::clone(settings);
    }
    warn!("[engine] this host has no IPv6: listening on IPv4 only");
    let mut settings = Settings::clone(settings);
    let v4 = |address: SocketAddr| match address.ip().is_unspecified() {
        true => SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), address.port()),
        false => address,
    };
    settings.rtsp.address = settings.rtsp.address.map(v4);
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
    fn log_listeners(&self) {
        let Some(listener) = &self.listener else { return };
        let port = |address: SocketAddr| match address.ip().is_unspecified() {
            true => format!(":{}", address.port()),
            false => address.to_string(),
        };
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
}
