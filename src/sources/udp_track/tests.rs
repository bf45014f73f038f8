//! Sockets of pulled tracks, over the loopback interface.

use std::{
    net::{Ipv4Addr, Ipv6Addr, UdpSocket},
    os::fd::AsRawFd as _,
};

use super::*;
use crate::{
    shard::media_io::RECEIVE_BYTES_MAX,
    sources::{
        publication::tests::{Clock, camera, got, headers, publication, video},
        pull_sockets::PulledSockets,
    },
};

const WAIT: Duration = Duration::from_millis(200);
const PATIENCE: Duration = Duration::from_secs(5);
const LOOPBACK: Ipv4Addr = Ipv4Addr::LOCALHOST;

fn at(port: u16) -> SocketAddr {
    (LOOPBACK, port).into()
}

/// Below those that the system gives to whoever asks for any.
fn opened(range: (u16, u16)) -> PulledSockets {
    PulledSockets::open(0, range, at(0), None).unwrap()
}

/// The two sockets of a server.
struct Server {
    rtp: UdpSocket,
    rtcp: UdpSocket,
}

impl Server {
    fn on(ip: impl Into<IpAddr>) -> Self {
        let ip = ip.into();
        let bind = || {
            let socket = UdpSocket::bind((ip, 0)).unwrap();
            socket.set_read_timeout(Some(PATIENCE)).unwrap();
            socket
        };
        Self { rtp: bind(), rtcp: bind() }
    }

    fn ports(&self) -> (u16, u16) {
        (self.rtp.local_addr().unwrap().port(), self.rtcp.local_addr().unwrap().port())
    }
}

fn heard(socket: &UdpSocket) -> Vec<u8> {
    let mut buffer = [0; 2048];
    let length = socket.recv(&mut buffer).unwrap();
    buffer[..length].to_vec()
}

/// Takes in `count` datagrams, as a shard does. How many were the sender's, and how many strangers'.
fn receive(
    track: &mut UdpTrack,
    plane: Plane,
    count: usize,
    publication: &mut Publication,
    now: Now,
) -> (usize, usize) {
    let mut buffer = vec![0; RECEIVE_BYTES_MAX];
    let (began, mut own, mut strange) = (Instant::now(), 0, 0);
    while own + strange < count && began.elapsed() < PATIENCE {
        let socket = if plane == Plane::Rtp { &track.rtp } else { &track.rtcp };
        // Not yet there, or an error of somebody's port that is closed.
        let Ok(datagrams) = socket.receive(&mut buffer) else { continue };
        if track.hears(plane, datagrams.from) {
            own += datagrams.length.div_ceil(datagrams.segment.max(1));
            track.take(plane, &buffer[..datagrams.length], datagrams.segment, publication, now);
        } else {
            strange += 1;
        }
    }
    (own, strange)
}

#[test]
fn pairs_are_neighbours_within_the_range_and_nobody_elses() {
    let pairs: Vec<_> = (0..4).map(|_| opened((27_001, 27_010))).collect();
    let mut ports: Vec<_> = pairs.iter().map(PulledSockets::ports).collect();
    ports.sort_unstable();
    assert_eq!(ports, [(27_002, 27_003), (27_004, 27_005), (27_006, 27_007), (27_008, 27_009)]);
    let error = PulledSockets::open(0, (27_001, 27_010), at(0), None).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
    assert!(error.to_string().contains("rtspUDPSourcePortRange, 27001 to 27010"), "{error}");
    drop(pairs);
    opened((27_001, 27_010));
    // Half a pair is none.
    let half = UdpSocket::bind(at(27_013)).unwrap();
    assert!(PulledSockets::open(0, (27_012, 27_013), at(0), None).is_err());
    drop(half);
    for (first, last) in [(27_013, 27_013), (27_012, 27_012), (27_013, 27_014), (9, 1), (65_535, 65_535)] {
        assert!(PulledSockets::open(0, (first, last), at(0), None).is_err(), "{first} to {last}");
    }
    // The last ports that there are.
    assert_eq!(opened((65_534, 65_535)).ports(), (65_534, 65_535));
}

#[test]
fn a_server_that_names_its_ports_is_heard_on_those_and_hears_us() {
    let (mut publication, clock, server) = (publication(&[video()]), Clock::new(), Server::on(LOOPBACK));
    let sockets = opened((27_100, 27_199));
    let (rtp, rtcp) = sockets.ports();
    let (stranger, mut source) = (UdpSocket::bind(at(0)).unwrap(), camera(5, 10, 1000));
    // Before it is known who may send.
    stranger.send_to(&source.frame(), at(rtp)).unwrap();
    let mut track = sockets.into_track(at(1), Some(server.ports()), false, WAIT).unwrap();
    assert_eq!(heard(&server.rtp), [0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(heard(&server.rtcp), [0x80, 0xc9, 0, 1, 0, 0, 0, 0]);
    stranger.send_to(&source.frame(), at(rtp)).unwrap();
    source.sequence = 10;
    for _ in 0..3 {
        server.rtp.send_to(&source.frame(), at(rtp)).unwrap();
    }
    server.rtcp.send_to(&source.report(clock.0.wall), at(rtcp)).unwrap();
    assert_eq!(receive(&mut track, Plane::Rtp, 4, &mut publication, clock.0), (3, 1));
    assert_eq!(receive(&mut track, Plane::Rtcp, 1, &mut publication, clock.0), (1, 0));
    assert_eq!(got(&publication, 0).len(), 3);
    track.report_reception(&mut publication, clock.0.instant);
    let report = heard(&server.rtcp);
    let Some(Ok(rtcp::Packet::ReceiverReport(report))) = rtcp::parse(&report).next() else {
        panic!("{report:?}");
    };
    assert_eq!((report.blocks[0].ssrc, report.blocks[0].highest_sequence), (5, 12));
}

#[test]
fn with_any_port_the_servers_other_ports_are_heard_and_other_hosts_are_not() {
    let (mut publication, clock, server) = (publication(&[video()]), Clock::new(), Server::on(LOOPBACK));
    let sockets = opened((27_200, 27_299));
    let rtp = sockets.ports().0;
    let mut track = sockets.into_track(at(1), Some(server.ports()), true, WAIT).unwrap();
    assert_eq!(heard(&server.rtp).len(), 12);
    assert_eq!(heard(&server.rtcp).len(), 8);
    let (elsewhere, stranger) = (Server::on(LOOPBACK), Server::on(Ipv4Addr::new(127, 0, 0, 2)));
    let mut source = camera(5, 10, 1000);
    elsewhere.rtp.send_to(&source.frame(), at(rtp)).unwrap();
    stranger.rtp.send_to(&source.frame(), at(rtp)).unwrap();
    assert_eq!(receive(&mut track, Plane::Rtp, 2, &mut publication, clock.0), (1, 1));
    track.report_reception(&mut publication, clock.0.instant);
    assert!(heard(&server.rtcp).len() > 8, "reports go where the server said");
}

#[test]
fn a_server_that_names_no_ports_gets_reports_where_its_own_come_from() {
    for named in [None, Some((0, 0))] {
        let (mut publication, clock, server) = (publication(&[video()]), Clock::new(), Server::on(LOOPBACK));
        let sockets = opened((27_300, 27_399));
        let (rtp, rtcp) = sockets.ports();
        let mut track = sockets.into_track(at(1), named, false, WAIT).unwrap();
        let mut source = camera(5, 10, 1000);
        server.rtp.send_to(&source.frame(), at(rtp)).unwrap();
        assert_eq!(receive(&mut track, Plane::Rtp, 1, &mut publication, clock.0), (1, 0));
        server.rtcp.send_to(&source.report(clock.0.wall), at(rtcp)).unwrap();
        assert_eq!(receive(&mut track, Plane::Rtcp, 1, &mut publication, clock.0), (1, 0));
        track.report_reception(&mut publication, clock.0.instant);
        assert!(heard(&server.rtcp).len() > 8);
    }
}

#[test]
fn order_is_restored_and_another_ssrc_does_not_wait_for_the_old_ones_numbers() {
    let (mut publication, clock, server) = (publication(&[video()]), Clock::new(), Server::on(LOOPBACK));
    let sockets = opened((27_400, 27_499));
    let rtp = sockets.ports().0;
    let mut track = sockets.into_track(at(1), Some(server.ports()), false, WAIT).unwrap();
    // The new one is a little behind, where late packets are, and then a little ahead, where a hole would be.
    for (ssrc, sequence) in [(1, 200), (1, 202), (1, 201), (1, 204), (2, 100), (2, 101), (3, 110), (3, 111)] {
        server.rtp.send_to(&camera(ssrc, sequence, 1000).frame(), at(rtp)).unwrap();
    }
    assert_eq!(receive(&mut track, Plane::Rtp, 8, &mut publication, clock.0), (8, 0));
    let sequences: Vec<_> = headers(&publication, 0).iter().map(|header| header.sequence).collect();
    assert_eq!(sequences, [200, 201, 202, 204, 100, 101, 110, 111]);
    assert!(track.deadline().is_none());
    server.rtp.send_to(&camera(3, 114, 1000).frame(), at(rtp)).unwrap();
    receive(&mut track, Plane::Rtp, 1, &mut publication, clock.0);
    assert_eq!(track.deadline(), Some(clock.0.instant + WAIT));
    let late = Now { instant: clock.0.instant + WAIT, ..clock.0 };
    assert!(track.expire(&mut publication, late));
    assert_eq!(publication.tracks.lost(), 1 + 2);
}

#[test]
fn what_is_sent_to_a_group_is_heard_by_all_who_joined_and_only_from_its_source() {
    let group = IpAddr::from([239, 255, 77, 1]);
    let server = Server::on(LOOPBACK);
    socket2::SockRef::from(&server.rtp).set_multicast_if_v4(&LOOPBACK).unwrap();
    let stranger = Server::on(Ipv4Addr::new(127, 0, 0, 2));
    socket2::SockRef::from(&stranger.rtp).set_multicast_if_v4(&LOOPBACK).unwrap();
    let join = |source| UdpTrack::join(0, (group, (27_500, 27_501)), at(0), source, None, WAIT).unwrap();
    let (mut picky, mut open) = (join(Some(LOOPBACK.into())), join(None));
    let clock = Clock::new();
    let mut source = camera(5, 10, 1000);
    stranger.rtp.send_to(&source.frame(), (group, 27_500)).unwrap();
    // Not to the group.
    let _ = stranger.rtp.send_to(&source.frame(), at(27_500));
    server.rtp.send_to(&source.frame(), (group, 27_500)).unwrap();
    let mut first = publication(&[video()]);
    assert_eq!(receive(&mut picky, Plane::Rtp, 1, &mut first, clock.0), (1, 0));
    assert_eq!(receive(&mut open, Plane::Rtp, 2, &mut publication(&[video()]), clock.0), (2, 0));
    // Nobody is told: a report would go to everybody.
    picky.report_reception(&mut first, clock.0.instant);
    let error = UdpTrack::join(0, (at(0).ip(), (27_500, 27_501)), at(0), None, None, WAIT).unwrap_err();
    assert!(error.to_string().contains("127.0.0.1 is no multicast group"), "{error}");
    let other = SocketAddr::from((Ipv6Addr::LOCALHOST, 0));
    assert!(UdpTrack::join(0, (group, (27_500, 27_501)), other, None, None, WAIT).is_err());
}

#[test]
fn groups_of_ipv6_are_joined_on_the_interface_that_the_server_is_reached_by() {
    let ours = SocketAddr::from((Ipv6Addr::LOCALHOST, 0));
    let Ok(server) = UdpSocket::bind(ours) else { return println!("skipped: no IPv6 here") };
    let loopback = std::fs::read_to_string("/sys/class/net/lo/ifindex").unwrap().trim().parse().unwrap();
    let group: Ipv6Addr = "ff01::7701".parse().unwrap();
    socket2::SockRef::from(&server).set_multicast_if_v6(loopback).unwrap();
    let join = UdpTrack::join(0, (group.into(), (27_600, 27_601)), ours, None, None, WAIT);
    let mut track = join.unwrap();
    let clock = Clock::new();
    let to = std::net::SocketAddrV6::new(group, 27_600, 0, loopback);
    if let Err(error) = server.send_to(&camera(5, 10, 1000).frame(), to) {
        return println!("skipped: no multicast over IPv6 here ({error})");
    }
    assert_eq!(receive(&mut track, Plane::Rtp, 1, &mut publication(&[video()]), clock.0), (1, 0));
}

#[test]
fn the_receive_buffer_that_is_asked_for_is_asked_of_the_kernel() {
    let wanted = NonZeroUsize::new(50_000);
    let sockets = PulledSockets::open(0, (27_700, 27_799), at(0), wanted).unwrap();
    let track = sockets.into_track(at(1), Some((27_798, 27_799)), false, WAIT).unwrap();
    for socket in [&track.rtp, &track.rtcp] {
        assert!(socket.as_raw_fd() >= 0);
        assert_eq!(socket.shortfall(wanted.unwrap()), None);
    }
    let too_much = NonZeroUsize::new(1 << 30).unwrap();
    let shortfall = track.rtp.shortfall(too_much).unwrap();
    assert!(shortfall.contains("net.core.rmem_max=1073741824"), "{shortfall}");
}
