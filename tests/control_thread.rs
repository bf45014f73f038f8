//! Shards and the control thread together, without the servers around them: what operators see, change and forbid.

use std::{
    fs,
    sync::{Arc, Mutex},
};

use corecast::{
    control::{
        auth::{Credentials, Verdict},
        config::store::View,
        desk::{Desk, DeskHandle, Neighbours},
        directory::{Directory, Event, Reader, Session},
    },
    shard::{
        boot,
        media_io::limits,
        mesh,
        tls::{self, trust::TlsClients},
    },
};
use corecast_hub::{
    gauges::ShardGauges,
    roster::{Origin, Refusal, SessionState, Transport},
    settings::{Challenge, Settings},
};
use corecast_media::codec::props::CodecProps;

use crate::support::{
    Camera, CameraPlan, PATIENCE, Rtsp, camera, flow::Watcher, ours_or_say_skipped, scratch_dir,
    server::free_ports, udp_pair, wait_for,
};

/// Those who read `path` over RTSP.
fn rtsp_readers(directory: &Directory, path: &str) -> Vec<Arc<Session>> {
    let of_rtsp = |reader| match reader {
        Reader::Rtsp(session) => Some(session),
        Reader::Hls(_) => None,
    };
    directory.readers(path).into_iter().filter_map(of_rtsp).collect()
}

struct Relay {
    port: u16,
    rtp_port: u16,
    directory: Arc<Directory>,
    gauges: Vec<Arc<ShardGauges>>,
    events: Arc<Mutex<Vec<String>>>,
    desk: Option<Desk>,
    shards: Option<boot::Shards>,
}

/// What the relay under test runs on: `paths` (indented by two) are the whole of `paths:`.
fn settings((port, rtp_port): (u16, u16), globals: &str, paths: &str) -> Settings {
    let file = scratch_dir("control").join("config.yml");
    let text = format!(
        "rtspTransports: [udp, tcp]\nrtspAddress: 127.0.0.1:{port}\nrtpAddress: 127.0.0.1:{rtp_port}\n\
         rtcpAddress: 127.0.0.1:{}\nrtmp: no\nhls: no\nwebrtc: no\nsrt: no\nmoq: no\n{globals}paths:\n{paths}",
        rtp_port + 1
    );
    fs::write(&file, text).unwrap();
    let loaded = View::load(Some(&file), [], &limits::available_cores());
    let view = loaded.unwrap_or_else(|errors| panic!("{errors}")).view;
    Settings::clone(&view.settings)
}

/// What happened, in a word and the path or reason.
fn told(event: &Event) -> String {
    match event {
        Event::ConnOpened(_) => "conn opened".to_owned(),
        Event::ConnClosed { reason, .. } => format!("conn closed: {reason}"),
        Event::Available(stream) => format!("available {}", stream.path),
        Event::Unavailable { stream, reason } => format!("unavailable {}: {reason}", stream.path),
        Event::ReaderJoined(reader) => format!("reads {}", reader.path()),
        Event::ReaderLeft { reader, reason } => format!("left {}: {reason}", reader.path()),
        Event::DemandBegan(demand) => format!("wanted {}", demand.path),
        Event::DemandEnded { demand, reason } => format!("not wanted {}: {reason}", demand.path),
        Event::SourceChanged { path, state, .. } => format!("source of {path}: {state:?}"),
        Event::HlsMuxerCreated(muxer) => format!("muxes {}", muxer.path),
        Event::HlsMuxerDestroyed { muxer, reason } => format!("muxed {}: {reason}", muxer.path),
        Event::SlowReader { path, what, .. } => format!("slow {path}: {what:?}"),
        Event::Refused { path, why, .. } => format!("refused {path}: {why:?}"),
    }
}

/// Lets `admin` with any password in.
fn judge(credentials: &Credentials) -> Verdict {
    let Credentials::Rtsp { authorization, .. } = credentials else {
        return Verdict::Denied { reason: "not RTSP".to_owned() };
    };
    match authorization.as_deref() {
        None => Verdict::Challenge,
        Some(value) if value.contains("admin") => Verdict::Allowed { user: "admin".to_owned() },
        Some(_) => Verdict::Denied { reason: "authentication failed".to_owned() },
    }
}

impl Relay {
    fn start(globals: &str, paths: &str) -> Self {
        let ports = free_ports();
        Self::on(ports, settings(ports, globals, paths))
    }

    fn on((port, rtp_port): (u16, u16), settings: Settings) -> Self {
        let settings = Arc::new(settings);
        let mut meshes = mesh::mesh(settings.engine.cores.len() + 1).unwrap();
        let control_mesh = meshes.pop().unwrap();
        let gauges: Vec<Arc<ShardGauges>> = meshes.iter().map(|_| Arc::default()).collect();
        let tls = tls::server_config(Arc::default()).unwrap();
        let tls = boot::ServerTls { rtsps: Arc::clone(&tls), hls: tls };
        let shards = boot::start(&settings, meshes, &gauges, &tls, &Arc::new(TlsClients::load())).unwrap();
        let (directory, events) = (Arc::<Directory>::default(), Arc::new(Mutex::new(Vec::new())));
        let log = Arc::clone(&events);
        let neighbours = Neighbours {
            directory: Arc::clone(&directory),
            events: Box::new(move |event| log.lock().unwrap().push(told(event))),
            auth: Box::new(|request| {
                let verdict = judge(&request.question.credentials);
                request.answer(verdict);
            }),
            dial: Box::new(|_| {}),
        };
        let desk = Desk::start(settings, control_mesh, neighbours).unwrap();
        Self { port, rtp_port, directory, gauges, events, desk: Some(desk), shards: Some(shards) }
    }

    fn connect(&self) -> Rtsp {
        Rtsp::connect_port(self.port)
    }

    fn publish(&self, path: &str) -> Camera {
        let mut client = self.connect();
        assert_eq!(camera::announce_on(&mut client, path).status, 200);
        let camera = Camera::from(client, CameraPlan::default());
        camera.wait_frames(2);
        camera
    }

    fn play(&self, path: &str) -> Rtsp {
        let mut client = self.connect();
        client.setup_all_tcp(path);
        assert_eq!(client.play().status, 200);
        client
    }

    fn handle(&self) -> DeskHandle {
        self.desk.as_ref().unwrap().handle()
    }

    fn apply(&self, globals: &str, paths: &str) {
        self.try_apply(settings((self.port, self.rtp_port), globals, paths)).unwrap();
    }

    fn try_apply(&self, settings: Settings) -> Result<(), String> {
        block_on(self.handle().apply(Arc::new(settings)))
    }

    fn wait_event(&self, wanted: &str) {
        wait_for(&format!("event '{wanted}' in {:?}", self.events.lock().unwrap()), PATIENCE, || {
            self.events.lock().unwrap().iter().any(|event| event.starts_with(wanted)).then_some(())
        });
    }

    fn stop(&mut self) {
        if let (Some(desk), Some(shards)) = (self.desk.take(), self.shards.take()) {
            desk.stop().unwrap();
            shards.join().unwrap();
        }
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.stop();
        }
    }
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

const TWO_SHARDS: &str = "engine:\n  cores: [0, 1]\n";
const ANY: &str = "  all_others:\n";

#[test]
fn the_directory_follows_connections_sessions_and_streams_over_two_shards() {
    if !ours_or_say_skipped("the_directory_follows_connections_sessions_and_streams_over_two_shards") {
        return;
    }
    let mut relay = Relay::start(TWO_SHARDS, ANY);
    let cameras: Vec<_> = (0..3).map(|n| relay.publish(&format!("cam{n}"))).collect();
    let mut readers: Vec<_> = (0..3).map(|n| relay.play(&format!("cam{n}"))).collect();
    relay.wait_event("reads cam0");
    relay.wait_event("reads cam1");
    relay.wait_event("reads cam2");
    let directory = &relay.directory;
    // A hand-over from shard to shard is neither an end nor a beginning.
    assert_eq!((directory.conns().len(), directory.sessions().len()), (6, 6));
    let opened = relay.events.lock().unwrap().iter().filter(|event| *event == "conn opened").count();
    assert_eq!(opened, 6);
    let stream = directory.stream("cam1").unwrap();
    let Origin::RtspSession(publisher) = stream.origin else { panic!("{:?}", stream.origin) };
    let publisher = directory.session(publisher).unwrap();
    assert_eq!((publisher.facts.state, &*publisher.facts.path), (SessionState::Publish, "cam1"));
    assert_eq!(stream.tracks[0].codec, "H264");
    assert!(matches!(stream.tracks[0].props, CodecProps::Video { .. }));
    let reader = rtsp_readers(directory, "cam1").pop().unwrap();
    assert_eq!((reader.facts.state, reader.facts.transport), (SessionState::Read, Some(Transport::Tcp)));
    let conn = directory.conn(reader.facts.conn.unwrap()).unwrap();
    assert_eq!((conn.session, conn.remote), (Some(reader.id), reader.remote));
    assert_eq!(conn.remote.to_string(), readers[1].local());
    // A receiver report: five packets of one source never came.
    let mut report = vec![0x81, 201, 0, 7];
    report.extend_from_slice(&[0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 5]);
    report.resize(32, 0);
    assert!(readers[1].send_frame(1, &report));
    for _ in 0..80 {
        assert!(readers[1].frame(PATIENCE).is_some());
    }
    wait_for("counters", PATIENCE, || {
        let (sent, received) = (&reader.traffic, &publisher.traffic);
        let all = [
            stream.traffic.inbound_bytes.get(),
            stream.traffic.outbound_bytes.get(),
            sent.outbound_bytes.get(),
            sent.outbound_rtp_packets.get(),
            received.inbound_rtp_packets.get(),
            conn.traffic.outbound_bytes.get(),
            conn.traffic.inbound_bytes.get(),
        ];
        let busy: Vec<_> = relay.gauges.iter().map(|gauges| gauges.relay_latency.read().0).collect();
        let flushes: u64 = busy.iter().flatten().sum();
        (all.iter().all(|&count| count > 40) && flushes > 10).then_some(())
    });
    assert_eq!(reader.traffic.outbound_rtp_packets_reported_lost.get(), 5);
    assert!(conn.traffic.outbound_bytes.get() >= reader.traffic.outbound_bytes.get());
    assert_eq!(readers[0].teardown().status, 200);
    relay.wait_event("left cam0: torn down");
    drop(cameras);
    relay.wait_event("unavailable cam1: ");
    relay.wait_event("left cam1: the stream has ended");
    wait_for("all sessions are gone", PATIENCE, || relay.directory.sessions().is_empty().then_some(()));
    assert!(relay.directory.totals()["cam1"].outbound_bytes > 0);
    relay.stop();
    wait_for("all connections are gone", PATIENCE, || relay.directory.conns().is_empty().then_some(()));
}

#[test]
fn a_change_ends_what_it_removes_and_nothing_else_loses_a_packet() {
    if !ours_or_say_skipped("a_change_ends_what_it_removes_and_nothing_else_loses_a_packet") {
        return;
    }
    let relay = Relay::start(TWO_SHARDS, "  kept:\n  gone:\n  off:\n");
    let (kept, gone, off) = (relay.publish("kept"), relay.publish("gone"), relay.publish("off"));
    let watcher = Watcher::on(relay.play("kept"), &kept);
    let mut loser = relay.play("gone");
    watcher.wait_more(20);
    relay.apply(TWO_SHARDS, "  kept:\n    maxReaders: 1\n  off:\n    source: demo\n  new:\n");
    relay.wait_event("unavailable gone: path configuration removed");
    relay.wait_event("left gone: path configuration removed");
    assert!(loser.closed_within(PATIENCE));
    wait_for("the publishers are closed", PATIENCE, || (gone.was_closed() && off.was_closed()).then_some(()));
    // The new settings hold: for who comes later, for new paths, and for the built-in camera.
    let mut late = relay.connect();
    late.describe("kept");
    let control = late.controls[0].clone();
    assert_eq!(late.setup(&control, "RTP/AVP/TCP;unicast;interleaved=0-1").status, 453);
    relay.wait_event("refused kept: MaxReaders");
    assert_eq!(relay.directory.incidents().refused[&Refusal::MaxReaders], 1);
    relay.publish("new");
    wait_for("the built-in camera", PATIENCE, || {
        relay.directory.stream("off").filter(|stream| stream.origin == Origin::Demo)
    });
    let tracks = relay.directory.stream("off").unwrap().tracks.clone();
    assert!(matches!(tracks[0].props, CodecProps::Video { width: 1.., height: 1.., .. }), "{tracks:?}");
    assert!(matches!(tracks[1].props, CodecProps::Opus { .. }), "{tracks:?}");
    assert!(relay.play("off").frame(PATIENCE).is_some());
    relay.apply(TWO_SHARDS, "  kept:\n  off:\n");
    wait_for("the built-in camera stops", PATIENCE, || relay.directory.stream("off").is_none().then_some(()));
    relay.publish("off");
    watcher.wait_more(20);
    watcher.finish().assert_lossless(40);
}

#[test]
fn another_listener_takes_the_place_of_the_old_one() {
    if !ours_or_say_skipped("another_listener_takes_the_place_of_the_old_one") {
        return;
    }
    let relay = Relay::start("", ANY);
    let camera = relay.publish("cam");
    let other = free_ports();
    relay.try_apply(settings(other, "", ANY)).unwrap();
    wait_for("the publisher is closed", PATIENCE, || camera.was_closed().then_some(()));
    wait_for("the old port is closed", PATIENCE, || {
        std::net::TcpStream::connect(("127.0.0.1", relay.port)).is_err().then_some(())
    });
    let mut client = Rtsp::connect_port(other.0);
    assert_eq!(camera::announce_on(&mut client, "cam").status, 200);
    // An address that cannot be had is told, and can be mended.
    let mut wrong = settings(other, "", ANY);
    wrong.rtsp.address = Some("192.0.2.1:8554".parse().unwrap());
    let error = relay.try_apply(wrong).unwrap_err();
    assert!(error.starts_with("RTSP listener 192.0.2.1:8554 is not to be had: "), "{error}");
    relay.try_apply(settings(other, "", ANY)).unwrap();
    assert_eq!(camera::announce_on(&mut Rtsp::connect_port(other.0), "cam").status, 200);
}

#[test]
fn other_rtp_ports_end_what_used_the_old_ones_and_nothing_else() {
    if !ours_or_say_skipped("other_rtp_ports_end_what_used_the_old_ones_and_nothing_else") {
        return;
    }
    let relay = Relay::start(TWO_SHARDS, ANY);
    let camera = relay.publish("cam");
    let watcher = Watcher::on(relay.play("cam"), &camera);
    let by_udp = |relay: &Relay, rtp_port: u16| {
        let sockets = udp_pair();
        let mut client = relay.connect();
        client.describe("cam");
        let control = client.controls[0].clone();
        let port = sockets[0].local_addr().unwrap().port();
        let answer = client.setup(&control, &format!("RTP/AVP;unicast;client_port={port}-{}", port + 1));
        assert_eq!(answer.status, 200, "{answer:?}");
        let transport = answer.header("Transport").unwrap().to_owned();
        assert!(transport.contains(&format!("server_port={rtp_port}-{}", rtp_port + 1)), "{transport}");
        client.session = answer.header("Session").and_then(|id| id.split(';').next()).map(str::to_owned);
        assert_eq!(client.play().status, 200);
        let (_, from) = sockets[0].recv_from(&mut [0; 2048]).unwrap();
        assert_eq!(from.port(), rtp_port);
        (client, sockets)
    };
    let (mut reader, _sockets) = by_udp(&relay, relay.rtp_port);
    let session = wait_for("the reader over UDP is listed", PATIENCE, || {
        let readers = rtsp_readers(&relay.directory, "cam");
        readers.into_iter().find(|session| session.facts.transport == Some(Transport::Udp))
    });
    wait_for("its packets are counted", PATIENCE, || {
        let traffic = &session.traffic;
        (traffic.outbound_rtp_packets.get() > 0 && traffic.outbound_bytes.get() > 0).then_some(())
    });
    let other = free_ports();
    relay.try_apply(settings((relay.port, other.1), TWO_SHARDS, ANY)).unwrap();
    assert!(reader.closed_within(PATIENCE));
    relay.wait_event("left cam: the RTP ports were closed");
    let _second = by_udp(&relay, other.1);
    watcher.wait_more(20);
    watcher.finish().assert_lossless(20);
    assert!(!camera.was_closed());
}

#[test]
fn a_kicked_session_ends_with_its_connection() {
    if !ours_or_say_skipped("a_kicked_session_ends_with_its_connection") {
        return;
    }
    let relay = Relay::start(TWO_SHARDS, ANY);
    let camera = relay.publish("cam");
    let (mut kicked, mut other) = (relay.play("cam"), relay.play("cam"));
    let local = kicked.local();
    let session = wait_for("both are listed", PATIENCE, || {
        let readers = rtsp_readers(&relay.directory, "cam");
        let found = readers.iter().find(|session| session.remote.to_string() == local).map(|found| found.id);
        found.filter(|_| readers.len() == 2)
    });
    assert!(block_on(relay.handle().kick(session)));
    assert!(relay.directory.session(session).is_none());
    assert!(!block_on(relay.handle().kick(session)));
    assert!(kicked.closed_within(PATIENCE));
    assert!(other.frame(PATIENCE).is_some());
    assert!(!camera.was_closed());
    relay.wait_event("left cam: kicked");
}

#[test]
fn who_has_no_credentials_is_asked_and_who_has_wrong_ones_is_closed() {
    if !ours_or_say_skipped("who_has_no_credentials_is_asked_and_who_has_wrong_ones_is_closed") {
        return;
    }
    let ports = free_ports();
    let mut settings = settings(ports, TWO_SHARDS, ANY);
    settings.access.read_open = false;
    settings.access.challenges = vec![Challenge::Basic, Challenge::DigestMd5];
    let relay = Relay::on(ports, settings);
    let camera = relay.publish("cam");
    let mut client = relay.connect();
    let url = client.url("cam");
    for _ in 0..2 {
        let answer = client.request("DESCRIBE", &url, &[], "");
        assert_eq!(answer.status, 401, "{answer:?}");
        let challenges: Vec<_> =
            answer.headers.iter().filter(|(name, _)| name == "WWW-Authenticate").map(|(_, v)| v).collect();
        assert_eq!(challenges[0], "Basic realm=\"ipcam\"");
        assert!(challenges[1].starts_with("Digest realm=\"ipcam\", nonce=\""), "{challenges:?}");
    }
    let digest = |n: u32| format!("Digest username=\"admin\", response=\"{n}\"");
    let answer = client.request("DESCRIBE", &url, &[("Authorization", &digest(1))], "");
    assert_eq!(answer.status, 200, "{answer:?}");
    let transport = ("Transport", "RTP/AVP/TCP;unicast;interleaved=0-1");
    let control = format!("{url}/trackID=0");
    let answer = client.request("SETUP", &control, &[transport, ("Authorization", &digest(2))], "");
    assert_eq!(answer.status, 200, "{answer:?}");
    client.content_base.clone_from(&url);
    client.session = answer.header("Session").and_then(|id| id.split(';').next()).map(str::to_owned);
    assert_eq!(client.play().status, 200);
    assert!(client.frame(PATIENCE).is_some());
    let reader = wait_for("the reader is listed", PATIENCE, || rtsp_readers(&relay.directory, "cam").pop());
    assert_eq!(reader.facts.user, "admin");

    let mut stranger = relay.connect();
    let answer = stranger.request("SETUP", &control, &[transport, ("Authorization", "Basic eDp5")], "");
    assert_eq!((answer.status, answer.header("WWW-Authenticate")), (401, None));
    assert!(stranger.closed_within(PATIENCE));
    relay.wait_event("conn closed: failed to authenticate: authentication failed");
    // A path that does not exist is not worth a password.
    assert_eq!(relay.connect().describe("../x").status, 400);
    assert!(!camera.was_closed());
}

#[test]
fn limits_of_streams_turn_away_the_next_one_and_free_the_place_of_the_last() {
    if !ours_or_say_skipped("limits_of_streams_turn_away_the_next_one_and_free_the_place_of_the_last") {
        return;
    }
    let ports = free_ports();
    let mut settings = settings(ports, TWO_SHARDS, ANY);
    settings.engine.streams_max = std::num::NonZeroU32::new(1);
    let relay = Relay::on(ports, settings);
    let camera = relay.publish("one");
    let mut second = relay.connect();
    let url = second.url("two");
    let sdp = "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\nm=video 0 RTP/AVP 96\r\na=rtpmap:96 H264/90000\r\n";
    let answer = second.request("ANNOUNCE", &url, &[("Content-Type", "application/sdp")], sdp);
    assert_eq!(answer.status, 453, "{answer:?}");
    relay.wait_event("refused two: MaxStreams");
    camera.leave();
    relay.wait_event("unavailable one");
    relay.publish("two");
}
