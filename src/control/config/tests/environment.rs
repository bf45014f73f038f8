//! Environment variables laid over a file.

use std::time::Duration;

use corecast_hub::settings::Source;

use super::load_with;
use crate::observe::log::{Destination, Level};

#[test]
fn variables_win_over_the_file_and_the_newer_prefix_over_the_older() {
    let loaded = load_with(
        "readTimeout: 5s\nlogLevel: error",
        &[
            ("MTX_READTIMEOUT", "7s"),
            ("RTSP_READTIMEOUT", "6s"),
            ("RTSP_LOGLEVEL", "debug"),
            ("MTX_LOGDESTINATIONS", "stdout,file"),
            ("MTX_RTSPTRANSPORTS", "tcp"),
            ("MTX_LOGSTRUCTURED", "YES"),
            ("MTX_UDPMAXPAYLOADSIZE", "1400"),
            ("MTX_SOMETHINGELSE", "x"),
            ("PATH", "/bin"),
        ],
    )
    .unwrap();
    assert_eq!(loaded.view.settings.read_timeout, Duration::from_secs(7));
    assert_eq!(loaded.view.control.log.level, Level::Debug);
    assert_eq!(loaded.view.control.log.destinations, [Destination::Stdout, Destination::File]);
    assert!(loaded.view.control.log.structured);
    assert_eq!(loaded.view.settings.udp_payload_bytes_max, 1400);
    assert!(loaded.view.settings.rtsp.tcp && !loaded.view.settings.rtsp.udp);
    assert!(loaded.warnings.is_empty());
}

#[test]
fn blocks_and_paths_are_reached_even_with_an_empty_body() {
    let loaded = load_with(
        "pathDefaults:\nengine:\npaths:\n  cam1:\n  cam2: {maxReaders: 2}\n",
        &[
            ("MTX_PATHDEFAULTS_GOPCACHE", "no"),
            ("MTX_ENGINE_CORES", "1,2"),
            ("MTX_ENGINE_FLUSHBYTES", "32K"),
            ("MTX_PATHS_CAM1_SOURCE", "demo"),
            ("MTX_PATHS_CAM1_MAXREADERS", "4"),
            ("MTX_PATHS_CAM2_MAXREADERS", "5"),
            ("MTX_PATHS_NEW_CORE", "2"),
            ("MTX_PATHS_cam3_SOURCE", "demo"),
            ("MTX_PATHS_OTHER_NOTAKEY", "x"),
        ],
    )
    .unwrap();
    let paths = &loaded.view.settings.paths;
    let cam1 = paths.lookup("cam1").unwrap();
    assert_eq!((&cam1.source, cam1.readers_max.map(u32::from)), (&Source::Demo, Some(4)));
    assert!(!cam1.gop_cache);
    assert_eq!(paths.lookup("cam2").unwrap().readers_max.map(u32::from), Some(5));
    assert_eq!(paths.lookup("new").unwrap().core, Some(2));
    assert_eq!(paths.exact().count(), 3);
    assert_eq!(loaded.view.settings.engine.cores, [1, 2]);
    assert_eq!(loaded.view.settings.engine.flush_bytes, 32 << 10);
}

#[test]
fn paths_can_come_from_variables_alone() {
    let loaded = load_with("", &[("MTX_PATHS_CAM1_SOURCE", "publisher")]).unwrap();
    assert!(loaded.view.settings.paths.lookup("cam1").is_ok());
    assert_eq!(load_with("", &[("MTX_PATHS_CAM1", "")]).unwrap().view.settings.paths.exact().count(), 0);
}

#[test]
fn lists_of_maps_are_edited_and_extended_in_place() {
    // Spells out the default users: nothing changes, so nothing is warned of.
    let same = [
        ("MTX_AUTHINTERNALUSERS_0_USER", "any"),
        ("MTX_AUTHINTERNALUSERS_1_IPS", "127.0.0.1,::1"),
        ("MTX_AUTHINTERNALUSERS_1_PERMISSIONS_0_ACTION", "api"),
    ];
    assert!(load_with("", &same).unwrap().warnings.is_empty());
    let third =
        [("MTX_AUTHINTERNALUSERS_2_USER", "me"), ("MTX_AUTHINTERNALUSERS_2_PERMISSIONS_0_ACTION", "fly")];
    let error = load_with("", &third).unwrap_err().to_string();
    assert!(
        error.starts_with(
            "environment variable MTX_AUTHINTERNALUSERS_2_PERMISSIONS_0_ACTION: 'action' is 'fly': expected publish,"
        ),
        "{error}"
    );
    let servers: Vec<_> =
        (0..12).map(|i| (format!("MTX_WEBRTCICESERVERS2_{i}_URL"), format!("stun:s{i}"))).collect();
    let servers: Vec<_> = servers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    assert_eq!(load_with("", &servers).unwrap().warnings.len(), 1);
    assert!(
        load_with("webrtcICEServers2: [{url: 'stun:x'}]", &[("MTX_WEBRTCICESERVERS2", "")])
            .unwrap()
            .warnings
            .is_empty()
    );
}

#[test]
fn errors_name_the_variable() {
    let error = load_with("", &[("MTX_READTIMEOUT", "soon"), ("MTX_RTSP", "on")]).unwrap_err().to_string();
    assert_eq!(
        error,
        "environment variable MTX_READTIMEOUT: 'readTimeout' is 'soon': \
         expected a duration such as 200ms, 10s, 1m30s or 1d12h\n\
         environment variable MTX_RTSP: 'rtsp' is 'on': expected yes or no"
    );
    let error = load_with("", &[("MTX_PROTOCOLS", "smoke")]).unwrap_err().to_string();
    assert!(error.starts_with("environment variable MTX_PROTOCOLS: 'protocols' is 'smoke'"), "{error}");
    let error = load_with("", &[("MTX_CONFKEY", "k")]).unwrap_err().to_string();
    assert_eq!(
        error,
        "environment variable MTX_CONFKEY: encrypted configuration files are not supported by this version"
    );
}
