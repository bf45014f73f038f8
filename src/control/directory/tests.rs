//! What the directory makes of news, in and out of order.

use std::time::Duration;

use super::*;

fn id(n: u128) -> Uuid {
    Uuid::from_u128(n)
}

fn at(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
}

fn remote() -> SocketAddr {
    SocketAddr::from(([192, 0, 2, 1], 5000))
}

fn conn_opened(n: u128, created: u64) -> News {
    News::ConnOpened {
        id: id(n),
        created: at(created),
        remote: remote(),
        encrypted: false,
        traffic: Arc::default(),
    }
}

fn session_opened(n: u128, created: u64) -> News {
    News::SessionOpened {
        id: id(n),
        created: at(created),
        remote: remote(),
        encrypted: false,
        traffic: Arc::default(),
    }
}

fn session_is(n: u128, state: SessionState, path: &str, conn: Option<u128>) -> News {
    let facts = SessionFacts {
        state,
        path: path.into(),
        query: String::new(),
        user: String::new(),
        user_agent: String::new(),
        transport: None,
        conn: conn.map(id),
    };
    News::SessionChanged { id: id(n), facts }
}

fn stream_up(path: &str, traffic: &Arc<StreamTraffic>) -> News {
    News::StreamUp {
        path: path.into(),
        at: at(1),
        origin: Origin::Demo,
        query: String::new(),
        tracks: Vec::new(),
        traffic: Arc::clone(traffic),
    }
}

fn stream_down(path: &str) -> News {
    News::StreamDown { path: path.into(), reason: "over".to_owned() }
}

#[test]
fn lists_are_by_time_and_items_by_id() {
    let directory = Directory::default();
    for (n, created) in [(1, 30), (2, 10), (3, 20)] {
        directory.apply(0, conn_opened(n, created));
        directory.apply(1, session_opened(n + 10, created));
    }
    let ids: Vec<_> = directory.conns().iter().map(|conn| conn.id).collect();
    assert_eq!(ids, [id(2), id(3), id(1)]);
    let ids: Vec<_> = directory.sessions().iter().map(|session| session.id).collect();
    assert_eq!(ids, [id(12), id(13), id(11)]);
    assert_eq!(directory.session(id(11)).unwrap().shard, 1);
    assert!(directory.conn(id(11)).is_none());
}

#[test]
fn a_connection_knows_its_session_whichever_is_told_first() {
    let directory = Directory::default();
    directory.apply(1, session_opened(10, 1));
    directory.apply(1, session_is(10, SessionState::Idle, "cam", Some(1)));
    directory.apply(0, conn_opened(1, 1));
    assert_eq!(directory.conn(id(1)).unwrap().session, Some(id(10)));
    // The client goes on on another connection.
    directory.apply(0, conn_opened(2, 2));
    directory.apply(1, session_is(10, SessionState::Idle, "cam", Some(2)));
    assert_eq!(directory.conn(id(1)).unwrap().session, None);
    assert_eq!(directory.conn(id(2)).unwrap().session, Some(id(10)));
    directory.apply(1, News::SessionClosed { id: id(10), reason: "over".to_owned() });
    assert_eq!(directory.conn(id(2)).unwrap().session, None);
    assert!(directory.tables().conn_sessions.is_empty());
}

#[test]
fn an_end_told_before_the_beginning_leaves_nothing_behind() {
    let directory = Directory::default();
    let closed = |n| News::ConnClosed { id: id(n), reason: format!("{n}") };
    assert!(directory.apply(1, closed(1)).is_empty());
    let events = directory.apply(0, conn_opened(1, 1));
    assert!(matches!(&events[..], [Event::ConnOpened(_), Event::ConnClosed { reason, .. }] if reason == "1"));
    assert!(directory.conns().is_empty());
    (0..3000).for_each(|n| drop(directory.apply(1, closed(n))));
    assert_eq!(directory.tables().early_ends.len(), EARLY_ENDS_MAX);
}

#[test]
fn readers_join_when_they_play_and_leave_when_they_stop_or_end() {
    let directory = Directory::default();
    directory.apply(0, session_opened(1, 1));
    directory.apply(0, session_opened(2, 1));
    assert!(directory.apply(0, session_is(1, SessionState::Idle, "cam", None)).is_empty());
    let events = directory.apply(0, session_is(1, SessionState::Read, "cam", None));
    assert!(matches!(&events[..], [Event::ReaderJoined(session)] if &*session.facts.path == "cam"));
    // A change that is none of playing says nothing.
    assert!(directory.apply(0, session_is(1, SessionState::Read, "cam", Some(7))).is_empty());
    directory.apply(0, session_is(2, SessionState::Read, "cam", None));
    let readers: Vec<_> = directory.readers("cam").iter().map(|session| session.id).collect();
    assert_eq!(readers, [id(1), id(2)]);
    assert_eq!(directory.reader_counts(), HashMap::from([("cam".into(), 2)]));
    let events = directory.apply(0, session_is(1, SessionState::Idle, "cam", None));
    assert!(matches!(&events[..], [Event::ReaderLeft { reason, .. }] if reason == "paused"));
    let events = directory.apply(0, News::SessionClosed { id: id(2), reason: "kicked".to_owned() });
    assert!(matches!(&events[..], [Event::ReaderLeft { reason, .. }] if reason == "kicked"));
    assert!(directory.apply(0, News::SessionClosed { id: id(1), reason: String::new() }).is_empty());
    assert!(directory.reader_counts().is_empty());
    assert!(directory.readers("cam").is_empty());
}

#[test]
fn totals_of_a_path_add_up_over_its_streams() {
    let directory = Directory::default();
    for bytes in [100, 20] {
        let traffic = Arc::<StreamTraffic>::default();
        let events = directory.apply(0, stream_up("cam", &traffic));
        assert!(matches!(&events[..], [Event::Available(_)]));
        traffic.inbound_bytes.set(bytes);
        traffic.outbound_bytes.set(2 * bytes);
        assert_eq!(directory.stream("cam").unwrap().traffic.inbound_bytes.get(), bytes);
        let events = directory.apply(0, stream_down("cam"));
        assert!(matches!(&events[..], [Event::Unavailable { reason, .. }] if reason == "over"));
        traffic.inbound_bytes.set(1000);
    }
    let traffic = Arc::<StreamTraffic>::default();
    directory.apply(0, stream_up("cam", &traffic));
    traffic.inbound_bytes.set(3);
    let want = PathTotals { inbound_bytes: 123, outbound_bytes: 240, inbound_frames_in_error: 0 };
    assert_eq!(directory.totals(), BTreeMap::from([("cam".into(), want)]));
    // A stream that takes the place of another one counts both.
    let events = directory.apply(0, stream_up("cam", &Arc::default()));
    assert!(matches!(&events[..], [Event::Unavailable { .. }, Event::Available(_)]));
    assert_eq!(directory.totals()["cam"].inbound_bytes, 123);
    assert_eq!(directory.streams().len(), 1);
}

#[test]
fn totals_of_paths_without_a_stream_are_bounded_and_the_oldest_go_first() {
    let directory = Directory::default();
    let traffic = Arc::<StreamTraffic>::default();
    traffic.inbound_bytes.set(1);
    let once = |path: &str| {
        directory.apply(0, stream_up(path, &traffic));
        directory.apply(0, stream_down(path));
    };
    once("first");
    once("again");
    directory.apply(0, stream_up("live", &traffic));
    directory.apply(0, stream_down("live"));
    directory.apply(0, stream_up("live", &traffic));
    (0..PAST_PATHS_MAX - 1).for_each(|n| once(&format!("p{n}")));
    let totals = directory.totals();
    assert_eq!(totals.len(), PAST_PATHS_MAX + 1);
    assert!(!totals.contains_key("first") && totals.contains_key("again"));
    assert_eq!(totals["live"].inbound_bytes, 2);
    assert_eq!(directory.tables().past_order.len(), PAST_PATHS_MAX);
}

#[test]
fn newly_known_tracks_and_incidents_are_kept() {
    let directory = Directory::default();
    directory.apply(2, stream_up("cam", &Arc::default()));
    let tracks = vec![TrackFacts { codec: "H264", props: Default::default() }];
    assert!(directory.apply(2, News::StreamTracks { path: "cam".into(), tracks: tracks.clone() }).is_empty());
    let stream = directory.stream("cam").unwrap();
    assert_eq!((&stream.tracks, stream.shard), (&tracks, 2));
    for _ in 0..2 {
        let news = News::Refused { path: "cam".into(), remote: remote(), why: Refusal::MaxReaders };
        assert!(matches!(directory.apply(0, news)[..], [Event::Refused { .. }]));
    }
    let (session, what) = (id(1), Slowness::Closed);
    let news = News::SlowReader { session, path: "cam".into(), what, behind_ms: 0, packets: 0 };
    assert!(matches!(directory.apply(0, news)[..], [Event::SlowReader { .. }]));
    let incidents = directory.incidents();
    assert_eq!(incidents.refused, BTreeMap::from([(Refusal::MaxReaders, 2)]));
    assert_eq!(incidents.slow, BTreeMap::from([(Slowness::Closed, 1)]));
}
