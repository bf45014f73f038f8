//! The pair of ports of ours on which the packets of a pulled track come in, from before the server is told of them.

use std::{
    hash::{BuildHasher as _, Hasher as _, RandomState},
    io,
    net::SocketAddr,
    num::NonZeroUsize,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use tracing::warn;

use super::udp_track::UdpTrack;
use crate::shard::media_io::DatagramSocket;

/// Pairs that are tried, from a random one on: a shard has more to do than to look for the last free port.
const TRIES_MAX: u32 = 256;

/// That the kernel grants less receive buffer than was asked for is said once.
static SHORTFALL_SAID: AtomicBool = AtomicBool::new(false);

/// See the module.
#[derive(Debug)]
pub struct PulledSockets {
    track: usize,
    rtp: DatagramSocket,
    rtcp: DatagramSocket,
    ports: (u16, u16),
}

impl PulledSockets {
    /// Takes an even port and the next one, out of the `range` from first to last, on the address of `ours`: that of
    /// the connection to the server. `receive_buffer` asks for `SO_RCVBUF` bytes; when the kernel grants less, it is
    /// said.
    ///
    /// # Errors
    /// That no pair is free, or another one of the system.
    pub fn open(
        track: usize,
        range: (u16, u16),
        ours: SocketAddr,
        receive_buffer: Option<NonZeroUsize>,
    ) -> io::Result<Self> {
        let first = u32::from(range.0).next_multiple_of(2);
        let pairs = (u32::from(range.1) + 1).saturating_sub(first) / 2;
        let random = RandomState::new().build_hasher().finish();
        for turn in 0..pairs.min(TRIES_MAX) {
            // Below 2^16, as `first` and all of the range are.
            let port = (first + 2 * ((random as u32 % pairs + turn) % pairs)) as u16;
            let bind = |port| {
                let mut address = ours;
                address.set_port(port);
                DatagramSocket::bind_alone(address, receive_buffer)
            };
            let taken = |error: &io::Error| {
                // A port below 1024 is no port for us, unless we may have it.
                matches!(error.kind(), io::ErrorKind::AddrInUse | io::ErrorKind::PermissionDenied)
            };
            match bind(port).and_then(|rtp| Ok((rtp, bind(port + 1)?))) {
                Ok((rtp, rtcp)) => {
                    if let Some(shortfall) = receive_buffer.and_then(|wanted| rtp.shortfall(wanted))
                        && !SHORTFALL_SAID.swap(true, Ordering::Relaxed)
                    {
                        warn!("[RTSP source] rtspUDPReadBufferSize or udpReadBufferSize: {shortfall}");
                    }
                    return Ok(Self { track, rtp, rtcp, ports: (port, port + 1) });
                }
                Err(error) if taken(&error) => {}
                Err(error) => return Err(error),
            }
        }
        Err(io::Error::new(
            io::ErrorKind::AddrInUse,
            format!(
                "no two neighbouring UDP ports are free in rtspUDPSourcePortRange, {} to {}: widen it",
                range.0, range.1
            ),
        ))
    }

    /// For RTP (even) and RTCP.
    pub fn ports(&self) -> (u16, u16) {
        self.ports
    }

    /// Goes by what the server has answered: its address (the port does not matter), and the `ports` that it will send
    /// from if it named them. Other ports of it are heard with `any_port`, and when it named none. Opens firewalls on
    /// the way; to be called before PLAY.
    ///
    /// # Errors
    /// The system's: that the address cannot be reached, for one.
    pub fn into_track(
        self,
        server: SocketAddr,
        ports: Option<(u16, u16)>,
        any_port: bool,
        reorder_wait: Duration,
    ) -> io::Result<UdpTrack> {
        let sockets = (self.rtp, self.rtcp);
        // Some servers name port 0 when they mean none.
        let ports = ports.filter(|&(rtp, rtcp)| rtp != 0 && rtcp != 0);
        match ports {
            Some((rtp, rtcp)) if !any_port => {
                let (mut theirs, mut theirs_rtcp) = (server, server);
                theirs.set_port(rtp);
                theirs_rtcp.set_port(rtcp);
                UdpTrack::connected(self.track, sockets, (theirs, theirs_rtcp), reorder_wait)
            }
            ports => Ok(UdpTrack::of_host(self.track, sockets, server, ports, reorder_wait)),
        }
    }
}
