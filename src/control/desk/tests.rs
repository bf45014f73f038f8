//! The control thread between shards that only answer mail.

use std::{sync::mpsc, time::SystemTime};

use corecast_hub::settings::{Access, EngineSettings, MediaIoChoice, Park, PathTable, RtspSettings};
use http::HeaderValue;

use super::*;
use crate::shard::mesh;

fn settings(cores: usize) -> Arc<Settings> {
    let address = ([127, 0, 0, 1], 0).into();
    Arc::new(Settings {
        read_timeout: Duration::from_secs(10),
        write_timeout: Duration::from_secs(10),
        udp_payload_bytes_max: 1452,
        udp_read_buffer_bytes: None,
        rtsp: RtspSettings {
            address: None,
            tls_address: None,
            rtp_address: address,
            rtcp_address: address,
            udp: false,
            tcp: true,
        },
        hls: None,
        engine: EngineSettings {
            cores: (0..cores).collect(),
            media_io: MediaIoChoice::Auto,
            park: Park::Ring,
            flush_bytes: 1,
            flush_after: Duration::ZERO,
            ring_bytes_max: 1 << 20,
            reader_lag_max: Duration::from_secs(10),
            reorder_wait: Duration::ZERO,
            streams_max: None,
            streams: Default::default(),
            readers_max: None,
            readers: Default::default(),
        },
        access: Access { publish_open: false, read_open: false, challenges: Vec::new() },
        paths: PathTable::default(),
    })
}

/// The shards' side of the mesh: gives each mail to `answer`, and sends what that answers.
fn shards(
    meshes: Vec<Mesh<Mail>>,
    answer: impl Fn(ShardId, Mail) -> Option<Mail> + Send + Clone + 'static,
) -> Vec<JoinHandle<()>> {
    let run = |mut mesh: Mesh<Mail>| {
        let answer = answer.clone();
        thread::spawn(move || {
            let control = mesh.others().max().unwrap();
            loop {
                while let Some((_, mail)) = mesh.take() {
                    let ends = matches!(mail, Mail::Stop);
                    let reply = if ends { Some(Mail::Stopped) } else { answer(mesh.id(), mail) };
                    reply.into_iter().for_each(|reply| mesh.send(control, reply));
                    if ends {
                        return;
                    }
                }
                mesh.flush();
                thread::sleep(Duration::from_millis(1));
            }
        })
    };
    meshes.into_iter().map(run).collect()
}

fn neighbours(auth: impl Fn(AuthRequest) + Send + 'static) -> Neighbours {
    Neighbours {
        directory: Arc::default(),
        events: Box::new(|_| {}),
        auth: Box::new(auth),
        dial: Box::new(|_| {}),
    }
}

#[tokio::test]
async fn a_change_is_done_when_every_shard_has_it_and_what_failed_is_told_once() {
    let mut meshes = mesh::mesh(3).unwrap();
    let control = meshes.pop().unwrap();
    let (seen, applied) = mpsc::channel();
    let threads = shards(meshes, move |shard, mail| match mail {
        Mail::Settings { settings, generation } => {
            seen.send((shard, settings.engine.cores.len())).unwrap();
            let result = if generation == 2 { Err("no such address".to_owned()) } else { Ok(()) };
            Some(Mail::SettingsApplied { generation, result })
        }
        _ => None,
    });
    let desk = Desk::start(settings(2), control, neighbours(drop)).unwrap();
    let handle = desk.handle();
    // Cores cannot change while the relay runs.
    assert_eq!(handle.apply(settings(7)).await, Ok(()));
    let mut both: Vec<_> = applied.try_iter().collect();
    both.sort_unstable();
    assert_eq!(both, [(0, 2), (1, 2)]);
    let results = tokio::join!(handle.apply(settings(2)), handle.apply(settings(2)));
    assert_eq!(results, (Err("no such address".to_owned()), Ok(())));
    assert!(!handle.kick(Uuid::from_u128(1)).await);
    desk.stop().unwrap();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    assert!(handle.apply(settings(2)).await.is_err());
}

#[tokio::test]
async fn a_question_that_nobody_answers_is_denied() {
    let mut meshes = mesh::mesh(2).unwrap();
    let control = meshes.pop().unwrap();
    let key = Key::from_bits(5);
    let (seen, outcomes) = mpsc::channel();
    let threads = shards(meshes, move |_, mail| match mail {
        Mail::Settings { .. } => Some(Mail::Authenticate {
            asker: Asker::Connection(key),
            question: Box::new(AccessQuestion {
                to: AccessTo::Publish,
                path: "cam".to_owned(),
                query: "token=x".to_owned(),
                ip: [192, 0, 2, 1].into(),
                id: Uuid::from_u128(1),
                user_agent: String::new(),
                presented: Presented::Rtsp {
                    authorization: None,
                    method: "ANNOUNCE".to_owned(),
                    url: "rtsp://host/cam?token=x".to_owned(),
                    nonce: "0".to_owned(),
                },
            }),
        }),
        Mail::Verdict { asker, outcome } => {
            seen.send((asker, outcome)).unwrap();
            None
        }
        _ => None,
    });
    let (ask, asked) = mpsc::channel();
    let neighbours = neighbours(move |request| ask.send(request.question.clone()).unwrap());
    let desk = Desk::start(settings(1), control, neighbours).unwrap();
    let apply = tokio::spawn({
        let handle = desk.handle();
        async move { handle.apply(settings(1)).await }
    });
    let question = tokio::task::spawn_blocking(move || asked.recv().unwrap()).await.unwrap();
    assert_eq!(
        (question.action, question.path.as_str(), question.query.as_str()),
        (Action::Publish, "cam", "token=x")
    );
    assert!(matches!(&question.credentials, Credentials::Rtsp { realm, .. } if realm == REALM));
    let (asker, outcome) = tokio::task::spawn_blocking(move || outcomes.recv().unwrap()).await.unwrap();
    assert_eq!(asker, Asker::Connection(key));
    assert!(matches!(outcome, AccessOutcome::Denied { .. }), "{outcome:?}");
    desk.stop().unwrap();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    // The shard never went by the settings.
    assert!(apply.await.unwrap().is_err());
}

#[test]
fn a_question_about_an_http_client_says_which_entry_serves_it() {
    let path = PathSettings {
        conf_name: "cam_~id".into(),
        source: Source::Publisher,
        readers_max: None,
        override_publisher: true,
        gop_cache: true,
        core: None,
        active_max: None,
        active: Default::default(),
        enabled: true,
        demand: None,
        fallback: None,
        hls_always_remux: None,
    };
    let pattern = regex::Regex::new("^cam_(?P<id>[^/]+)$").unwrap();
    let mut settings = Settings::clone(&settings(1));
    settings.paths = PathTable::new([], vec![(pattern, Arc::new(path))]);
    let of = |path: &str, authorization: Option<&'static str>| {
        let question = AccessQuestion {
            to: AccessTo::Read,
            path: path.to_owned(),
            query: "a=1".to_owned(),
            ip: [192, 0, 2, 1].into(),
            id: Uuid::from_u128(9),
            user_agent: "Safari".to_owned(),
            presented: Presented::Web {
                service: WebService::Hls,
                authorization: authorization.map(HeaderValue::from_static),
            },
        };
        asked(question, &settings)
    };
    let question = of("cam_1", Some("Basic am86c2VjcmV0"));
    assert_eq!(question.entry.as_deref(), Some("cam_~id"), "older credentials of the entry protect it");
    assert_eq!((question.action, question.protocol), (Action::Read, Protocol::Hls));
    assert_eq!((question.query.as_str(), question.user_agent.as_str()), ("a=1", "Safari"));
    assert_eq!(question.id, Some(Uuid::from_u128(9)));
    assert!(
        matches!(&question.credentials, Credentials::Basic { user, password } if user == "jo" && password == "secret")
    );
    assert!(
        matches!(of("cam_1", Some("Bearer x.y.z")).credentials, Credentials::Bearer(token) if token == "x.y.z")
    );
    assert!(matches!(of("cam_1", None).credentials, Credentials::None));
    assert_eq!(of("other", None).entry, None);
}

#[tokio::test]
async fn an_hls_session_is_kicked_where_it_is_and_waited_for() {
    let mut meshes = mesh::mesh(3).unwrap();
    let control = meshes.pop().unwrap();
    let viewer = Uuid::from_u128(5);
    let (seen, kicked) = mpsc::channel();
    let threads = shards(meshes, move |shard, mail| match mail {
        Mail::Kick { session } => {
            seen.send((shard, session)).unwrap();
            let reason = "kicked".to_owned();
            Some(Mail::News(Box::new(News::HlsSessionClosed { id: session, reason })))
        }
        _ => None,
    });
    let neighbours = neighbours(drop);
    let directory = Arc::clone(&neighbours.directory);
    let opened = News::HlsSessionOpened {
        id: viewer,
        created: SystemTime::UNIX_EPOCH,
        remote: ([192, 0, 2, 1], 5000).into(),
        path: "cam".into(),
        query: String::new(),
        user: String::new(),
        user_agent: String::new(),
        is_cdn: false,
        traffic: Arc::default(),
    };
    directory.apply(1, opened);
    let desk = Desk::start(settings(2), control, neighbours).unwrap();
    let handle = desk.handle();
    assert!(handle.kick(viewer).await);
    assert_eq!(kicked.try_recv(), Ok((1, viewer)));
    assert!(directory.hls_session(viewer).is_none(), "it is gone when the kick returns");
    assert!(!handle.kick(viewer).await);
    desk.stop().unwrap();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
}
