//! Whole files: the one we ship, MediaMTX's own, the customer's.

use std::{fs, path::Path};

use corecast_hub::settings::HlsVariant;

use super::{
    super::{
        keys::{ENGINE, GLOBAL, Key, Kind, PATH, Status},
        store::View,
    },
    CORES, load_with,
};

const SHIPPED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/config/corecast.yml");

const DEPLOYMENT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/config/mediamtx-cctv.yml");

/// Passwords that the customer's files take from the environment.
const PASSWORDS: [(&str, &str); 3] = [
    ("MILESTONE_RTSP_PASSWORD", "m-secret"),
    ("VIEWER_RTSP_PASSWORD", "v-secret"),
    ("BACKEND_API_PASSWORD", "b-secret"),
];

/// The snippets of the customer's document, as they stand there.
const SNIPPETS: [&str; 7] = [
    "\
paths:
  milestone_~cameraId:
    runOnDemand: ffmpeg -i rtsp://milestone:554/${cameraId} -c copy -f rtsp rtsp://localhost:8554/milestone_${cameraId}
    runOnDemandRestart: yes
    runOnDemandCloseAfter: 10s
",
    "\
hls: yes
hlsAddress: :8888
hlsAllowOrigin: \"*\"
hlsVariant: lowLatency
hlsSegmentDuration: 1s
hlsPartDuration: 200ms
hlsAlwaysRemux: yes
",
    "protocols: [tcp]",
    "\
rtspAuthMethods: [basic]
paths:
  milestone_~id:
    publishUser: milestone
    publishPass: ${MILESTONE_RTSP_PASSWORD}
    readUser: viewer
    readPass: ${VIEWER_RTSP_PASSWORD}
",
    "encryption: \"yes\"\nserverKey: /certs/server.key\nserverCert: /certs/server.crt",
    "hlsAllowOrigin: \"https://rta.ae\"\nwebrtcAllowOrigin: \"https://rta.ae\"",
    "paths: {dubai_police_~id: , metro_~id: , bus_~id: , other_~id: }",
];

#[test]
fn the_shipped_file_holds_every_served_key_and_changes_no_default() {
    let loaded = View::load(Some(Path::new(SHIPPED)), [], CORES).unwrap();
    assert_eq!(loaded.warnings, Vec::<String>::new());
    let source = loaded.source.unwrap();
    assert!(source.is_absolute() && source.ends_with("config/corecast.yml"));

    let defaults = super::load("paths:\n  all_others:").unwrap();
    assert_eq!(format!("{:?}", loaded.view.settings), format!("{:?}", defaults.view.settings));
    assert_eq!(loaded.view.control.log, defaults.view.control.log);

    let text = fs::read_to_string(SHIPPED).unwrap();
    let served = |table: &'static [Key]| table.iter().filter(|key| matches!(key.status, Status::Served));
    for key in served(GLOBAL) {
        assert!(text.contains(&format!("\n{}:", key.name)), "{} is missing", key.name);
    }
    for key in served(PATH).chain(served(ENGINE)) {
        assert!(text.contains(&format!("\n  {}:", key.name)), "{} is missing", key.name);
    }
}

#[test]
fn the_customers_snippets_load_one_by_one() {
    for snippet in SNIPPETS {
        let loaded = load_with(snippet, &PASSWORDS).unwrap();
        assert!(loaded.check_report().ends_with("configuration is valid\n"), "{snippet}");
    }
    let encrypted = load_with(SNIPPETS[4], &[]).unwrap();
    assert_eq!(encrypted.view.settings.rtsp.address, None);
    assert_eq!(encrypted.view.settings.rtsp.tls_address, Some("[::]:8322".parse().unwrap()));
    let files = encrypted.view.control.rtsp_tls.clone().unwrap();
    assert_eq!(
        (files.key.to_str(), files.cert.to_str()),
        (Some("/certs/server.key"), Some("/certs/server.crt"))
    );
    assert_eq!(encrypted.warnings.len(), 3, "of older keys only: {:?}", encrypted.warnings);
    assert!(load_with("", &[("MTX_LOGDESTINATIONS", "stdout")]).unwrap().warnings.is_empty());
    let tcp = load_with(SNIPPETS[2], &[]).unwrap();
    assert!(tcp.view.settings.rtsp.tcp && !tcp.view.settings.rtsp.udp);
    assert_eq!(tcp.warnings, ["c.yml:1:1: key 'protocols' is deprecated, read as 'rtspTransports'"]);
    let hls = load_with(SNIPPETS[1], &[]).unwrap();
    assert_eq!(hls.warnings, ["c.yml:3:1: key 'hlsAllowOrigin' is deprecated, read as 'hlsAllowOrigins'"]);
    let settings = hls.view.settings.hls.clone().unwrap();
    assert_eq!((settings.variant, settings.always_remux), (HlsVariant::LowLatency, true));
    assert_eq!(settings.web.allow_origins, ["*"]);
    // Without the variables, at the start and with the line.
    assert_eq!(
        load_with(SNIPPETS[3], &[]).unwrap_err().to_string(),
        "c.yml:5:18: 'publishPass' uses ${MILESTONE_RTSP_PASSWORD}, but the environment variable \
         MILESTONE_RTSP_PASSWORD is not set or empty: set it before the start\n\
         c.yml:7:15: 'readPass' uses ${VIEWER_RTSP_PASSWORD}, but the environment variable \
         VIEWER_RTSP_PASSWORD is not set or empty: set it before the start"
    );
}

#[test]
fn the_customers_deployment_loads_as_it_stands() {
    let env = PASSWORDS.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let view = View::load(Some(Path::new(DEPLOYMENT)), env, CORES).unwrap().view;
    for (name, key, active_max) in [
        ("dubai_police_123e4567-e89b-12d3-a456-426614174000", "dubai_police_~id", Some(50)),
        ("metro_1", "metro_~id", Some(30)),
        ("bus_1", "bus_~id", Some(20)),
        ("other_1", "other_~id", Some(400)),
        ("milestone_1", "milestone_~cameraId", None),
    ] {
        let (path, _) = view.serving(name).unwrap();
        assert_eq!(&*path.settings.conf_name, key);
        assert_eq!(path.settings.active_max.map(u32::from), active_max);
        assert_eq!(path.settings.readers_max.map(u32::from), Some(20));
    }
    assert!(view.serving("tram_1").is_none());
    let hls = view.settings.hls.as_ref().unwrap();
    assert_eq!(
        (hls.web.encrypted, hls.web.allow_origins.as_slice()),
        (true, &["https://rta.ae".to_owned()][..])
    );
    assert!(view.control.hls_tls.is_some());
    let engine = &view.settings.engine;
    assert_eq!(
        (engine.streams_max.map(u32::from), engine.readers_max.map(u32::from)),
        (Some(500), Some(10_000))
    );
    assert!(view.control.api.is_some() && view.control.metrics.is_some());
    assert!(!view.settings.access.publish_open && !view.settings.access.read_open);
    assert!(View::load(Some(Path::new(DEPLOYMENT)), [], CORES).unwrap_err().errors.len() == 3);
}

/// Each key at its default, as in the file that MediaMTX comes with.
fn stock() -> String {
    let mut text = String::new();
    for (table, indent, block) in [(GLOBAL, "", ""), (PATH, "  ", "pathDefaults:\n")] {
        text += block;
        let current =
            table.iter().filter(|key| !matches!(key.status, Status::Legacy(_)) && key.name != "core");
        for key in current {
            let quote = if key.kind.is_text() { "'" } else { "" };
            text += &format!("{indent}{}: {quote}{}{quote}\n", key.name, key.default);
        }
    }
    text + "paths:\n  all_others:\n"
}

#[test]
fn every_key_at_its_default_loads_and_changes_nothing() {
    let loaded = super::load(&stock()).unwrap();
    // Switched on in words, and not served yet.
    for warning in &loaded.warnings {
        let is_switch =
            ["rtmp", "srt", "moq", "webrtc"].iter().any(|name| warning.contains(&format!("key '{name}'")));
        assert!(is_switch, "{warning}");
    }
    let defaults = super::view("paths: {all_others: }");
    assert_eq!(format!("{:?}", loaded.view.settings), format!("{:?}", defaults.settings));
    assert_eq!(loaded.view.global_json(), defaults.global_json());
    assert_eq!(loaded.view.path_json("all_others"), defaults.path_json("all_others"));
}

#[test]
fn each_older_key_warns_exactly_once() {
    for (table, is_path) in [(GLOBAL, false), (PATH, true)] {
        for key in table.iter().filter(|key| matches!(key.status, Status::Legacy(_))) {
            let value = match (key.name, &key.kind) {
                ("publishPass", _) => "x\n    publishUser: x",
                ("readPass", _) => "x\n    readUser: x",
                ("encryption" | "rtmpDisable", _) | (_, Kind::Bool) => "no",
                ("webrtcICEServers", _) => "['stun:host:1']",
                ("fallback", _) => "/x",
                ("recordPath", _) => "'%path/%s'",
                ("recordFormat", _) => "mpegts",
                ("externalAuthenticationURL", _) => "http://h/",
                (_, Kind::Int(..)) => "512",
                (_, Kind::Duration) => "1d",
                (_, Kind::Word(words)) => words[0],
                (_, Kind::Set(_)) => "[tcp]",
                (_, Kind::List(_)) => {
                    if key.name.ends_with("IPs") {
                        "['10.0.0.1']"
                    } else {
                        "[basic]"
                    }
                }
                (name, _) if name.ends_with("Address") => ":1",
                _ => "x",
            };
            let text = match is_path {
                false => format!("{}: {value}\nrtmp: no", key.name),
                true => format!("paths:\n  a:\n    {0}: {value}\n  b:\n    {0}: {value}", key.name),
            };
            let warnings = super::warnings(&text);
            let said =
                warnings.iter().filter(|warning| warning.contains(&format!("key '{}'", key.name))).count();
            assert_eq!(said, 1, "{text}: {warnings:?}");
        }
    }
}

#[test]
fn no_file_makes_it_panic() {
    let stock = format!("{}{}", stock(), SNIPPETS[3].replace("rtspAuthMethods: [basic]\npaths:\n", ""));
    // A generator of its own, so that a failure comes again.
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = |below: usize| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        (seed % below as u64) as usize
    };
    let pieces = [
        "'", "\"", "~", "{", "[", "]", ": ", "- ", "\n", "\n  ", "&a ", "*a", "<<: ", "-1", "no", "\u{e9}",
        "${", "|", "!!str ",
    ];
    for _ in 0..300 {
        let mut bytes = stock.clone().into_bytes();
        for _ in 0..=random(4) {
            let at = random(bytes.len());
            match random(4) {
                0 => bytes[at] = b' ' + random(95) as u8,
                1 => drop(bytes.splice(at..at, pieces[random(pieces.len())].bytes())),
                2 => drop(bytes.drain(at..(at + random(40)).min(bytes.len()))),
                _ => bytes.truncate(at.max(1)),
            }
        }
        let text = String::from_utf8_lossy(&bytes);
        // Whether it loads does not matter here; what it says does not hold the password.
        if let Err(errors) = load_with(&text, &PASSWORDS) {
            assert!(!errors.to_string().is_empty() && !errors.to_string().contains("m-secret"));
        }
    }
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let error = View::load(Some(Path::new("/nowhere/x.yml")), [], CORES).unwrap_err().to_string();
    assert!(error.starts_with("/nowhere/x.yml: cannot be read: "), "{error}");
    let big = std::env::temp_dir().join(format!("corecast-big-{}.yml", std::process::id()));
    fs::write(&big, "# ".repeat(3 << 20)).unwrap();
    let error = View::load(Some(&big), [], CORES).unwrap_err().to_string();
    fs::remove_file(&big).unwrap();
    assert!(error.ends_with("cannot be read: larger than 4 MiB"), "{error}");
}
