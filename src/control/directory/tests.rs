//! What the directory makes of news, in and out of order.

use std::time::Duration;

use corecast_hub::roster::{HlsMuxerTraffic, HlsSessionTraffic, SessionState};

use super::{past::PAST_PATHS_MAX, tables::EARLY_ENDS_MAX, *};

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

fn muxer_opened(path: &str, created: u64, traffic: &Arc<HlsMuxerTraffic>) -> News {
    News::HlsMuxerOpened {
        path: path.into(),
        created: at(created),
        by: Some(remote()),
        traffic: Arc::clone(traffic),
    }
}

fn muxer_closed(path: &str) -> News {
    News::HlsMuxerClosed { path: path.into(), reason: "over".to_owned() }
}

fn hls_opened(n: u128, created: u64, path: &str, traffic: &Arc<HlsSessionTraffic>) -> News {
    News::HlsSessionOpened {
        id: id(n),
        created: at(created),
        remote: remote(),
        path: path.into(),
        query: "x=1".to_owned(),
        user: "jo".to_owned(),
        user_agent: "Safari".to_owned(),
        is_cdn: false,
        traffic: Arc::clone(traffic),
    }
}

fn hls_closed(n: u128) -> News {
    News::HlsSessionClosed { id: id(n), reason: "over".to_owned() }
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
    assert!(matches!(&events[..], [Event::ReaderJoined(reader)] if &**reader.path() == "cam"));
    // A change that is none of playing says nothing.
    assert!(directory.apply(0, session_is(1, SessionState::Read, "cam", Some(7))).is_empty());
    directory.apply(0, session_is(2, SessionState::Read, "cam", None));
    let readers: Vec<_> = directory.readers("cam").iter().map(Reader::id).collect();
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
    assert_eq!(directory.tables().past.idle_count(), PAST_PATHS_MAX);
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
    directory.apply(0, hls_opened(2, 1, "cam", &Arc::default()));
    for (session, expected) in [(id(1), ReaderKind::Rtsp), (id(2), ReaderKind::Hls)] {
        let what = Slowness::Closed;
        let news = News::SlowReader { session, path: "cam".into(), what, behind_ms: 0, packets: 0 };
        assert!(matches!(directory.apply(0, news)[..], [Event::SlowReader { kind, .. }] if kind == expected));
    }
    let incidents = directory.incidents();
    assert_eq!(incidents.refused, BTreeMap::from([(Refusal::MaxReaders, 2)]));
    assert_eq!(incidents.slow, BTreeMap::from([(Slowness::Closed, 2)]));
}

#[test]
fn viewers_over_hls_are_readers_from_their_beginning_to_their_end() {
    let directory = Directory::default();
    directory.apply(0, session_opened(1, 1));
    directory.apply(0, session_is(1, SessionState::Read, "cam", None));
    let events = directory.apply(3, hls_opened(2, 2, "cam", &Arc::default()));
    let [Event::ReaderJoined(reader)] = &events[..] else { panic!("{events:?}") };
    assert_eq!((reader.kind(), reader.id(), &**reader.path()), (ReaderKind::Hls, id(2), "cam"));
    assert_eq!((reader.query(), reader.user(), reader.user_agent()), ("x=1", "jo", "Safari"));
    assert_eq!(reader.remote(), remote());
    let kinds: Vec<_> = directory.readers("cam").iter().map(Reader::kind).collect();
    assert_eq!(kinds, [ReaderKind::Rtsp, ReaderKind::Hls]);
    assert_eq!(directory.reader_counts(), HashMap::from([("cam".into(), 2)]));
    assert_eq!([1, 2, 3].map(|n| directory.shard_of(id(n))), [Some(0), Some(3), None]);
    assert!(directory.session(id(2)).is_none() && directory.hls_session(id(1)).is_none());

    let events = directory.apply(3, hls_closed(2));
    assert!(
        matches!(&events[..], [Event::ReaderLeft { reader: Reader::Hls(_), reason }] if reason == "over")
    );
    assert!(directory.apply(3, hls_closed(2)).is_empty(), "it is told once");
    assert_eq!(directory.readers("cam").len(), 1);
    assert!(directory.hls_sessions().is_empty());
}

#[test]
fn muxers_are_told_of_and_listed_by_time() {
    let directory = Directory::default();
    for (path, created) in [("b", 2), ("c", 1), ("a", 2)] {
        let events = directory.apply(0, muxer_opened(path, created, &Arc::default()));
        assert!(matches!(&events[..], [Event::HlsMuxerCreated(muxer)] if &*muxer.path == path));
    }
    let paths: Vec<_> = directory.hls_muxers().iter().map(|muxer| muxer.path.to_string()).collect();
    assert_eq!(paths, ["c", "a", "b"]);
    let sessions = [(5, 20), (6, 10)].map(|(n, created)| hls_opened(n, created, "a", &Arc::default()));
    sessions.into_iter().for_each(|news| drop(directory.apply(0, news)));
    let ids: Vec<_> = directory.hls_sessions().iter().map(|session| session.id).collect();
    assert_eq!(ids, [id(6), id(5)]);
    assert_eq!(directory.hls_counts(), (3, 2));
    // One that takes the place of another ends that one.
    let events = directory.apply(0, muxer_opened("a", 3, &Arc::default()));
    assert!(matches!(&events[..], [Event::HlsMuxerDestroyed { .. }, Event::HlsMuxerCreated(_)]));
    let events = directory.apply(0, muxer_closed("a"));
    assert!(matches!(&events[..], [Event::HlsMuxerDestroyed { reason, .. }] if reason == "over"));
    assert!(directory.apply(0, muxer_closed("a")).is_empty());
    assert!(directory.hls_muxer("a").is_none() && directory.hls_muxer("b").is_some());
}

#[test]
fn what_muxers_and_viewers_over_hls_moved_stays_counted() {
    let directory = Directory::default();
    let moved = |path: &str, bytes: u64| {
        let traffic = Arc::<HlsMuxerTraffic>::default();
        directory.apply(0, muxer_opened(path, 1, &traffic));
        traffic.outbound_bytes.set(bytes);
        traffic.outbound_frames_discarded.set(1);
        traffic.playlists_rendered.set(2);
    };
    moved("cam", 100);
    directory.apply(0, muxer_closed("cam"));
    moved("cam", 10);
    moved("other", 1);
    let viewer = Arc::<HlsSessionTraffic>::default();
    directory.apply(0, hls_opened(1, 1, "cam", &viewer));
    viewer.outbound_bytes.set(7);
    // The end of the first was not told.
    directory.apply(0, hls_opened(1, 2, "cam", &Arc::default()));
    let census = directory.census().hls;
    assert_eq!((census.session_bytes_retired, census.sessions.len()), (7, 1));
    let totals = |bytes, times| MuxerTotals {
        outbound_bytes: bytes,
        outbound_frames_discarded: times,
        playlists_rendered: 2 * times,
    };
    assert_eq!(
        census.totals,
        BTreeMap::from([("cam".into(), totals(110, 2)), ("other".into(), totals(1, 1))])
    );
    assert_eq!(census.all_muxers, totals(111, 3));
    // Those of forgotten paths are in the sum.
    for n in 0..=PAST_PATHS_MAX {
        moved(&format!("p{n}"), 1);
        directory.apply(0, muxer_closed(&format!("p{n}")));
    }
    let census = directory.census().hls;
    assert_eq!(census.totals.len(), PAST_PATHS_MAX + 2);
    assert_eq!(census.all_muxers.outbound_bytes, 111 + PAST_PATHS_MAX as u64 + 1);
}
