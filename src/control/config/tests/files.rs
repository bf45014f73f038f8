//! Whole files: the one we ship, MediaMTX's own, the customer's.

use std::{fs, path::Path};

use corecast_hub::settings::Source;

use super::{
    super::{
        keys::{ENGINE, GLOBAL, Key, PATH, Status},
        load,
    },
    CORES,
};

const SHIPPED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/config/corecast.yml");

/// The fragments of the customer's document, together.
const CUSTOMER: &str = "\
hlsVariant: lowLatency
protocols: [tcp]
rtspAuthMethods: [basic]
encryption: \"yes\"
serverKey: /certs/server.key
serverCert: /certs/server.crt
hlsAllowOrigin: \"https://rta.ae\"
webrtcAllowOrigin: \"https://rta.ae\"
paths:
  milestone_~cameraId:
    runOnDemand: ffmpeg -i rtsp://milestone:554/${cameraId} -c copy -f rtsp rtsp://localhost:8554/milestone_${cameraId}
    runOnDemandRestart: yes
    runOnDemandCloseAfter: 10s
  dubai_police_~id:
    publishUser: milestone
    publishPass: ${MILESTONE_RTSP_PASSWORD}
    readUser: viewer
    readPass: ${VIEWER_RTSP_PASSWORD}
";

#[test]
fn the_shipped_file_holds_every_served_key_and_changes_no_default() {
    let loaded = load(Some(Path::new(SHIPPED)), [], CORES).unwrap();
    assert_eq!(loaded.warnings, Vec::<String>::new());
    let source = loaded.source.unwrap();
    assert!(source.is_absolute() && source.ends_with("config/corecast.yml"));

    let defaults = super::load("paths:\n  all_others:").unwrap();
    assert_eq!(format!("{:?}", loaded.settings), format!("{:?}", defaults.settings));
    assert_eq!(loaded.log, defaults.log);

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
fn the_customers_file_loads_with_a_warning_for_the_tls_it_demands() {
    let loaded = super::load_with(CUSTOMER, &[("MTX_LOGDESTINATIONS", "stdout")]).unwrap();
    assert!(
        loaded.warnings.iter().any(|warning| warning.contains("NOTHING LISTENS")),
        "{:?}",
        loaded.warnings
    );
    assert_eq!(loaded.settings.rtsp.address, None);
    let paths = &loaded.settings.paths;
    let camera = paths.lookup("milestone_123e4567-e89b-12d3-a456-426614174000").unwrap();
    assert_eq!((&*camera.conf_name, &camera.source), ("milestone_~cameraId", &Source::Publisher));
    assert!(paths.lookup("dubai_police_1").is_ok());
    assert!(paths.lookup("tram_1").is_err());
    assert!(loaded.settings.rtsp.tcp && !loaded.settings.rtsp.udp);
    let report = loaded.check_report();
    assert!(report.ends_with("\nconfiguration is valid\n"));
    assert!(report.contains("warning: c.yml:2:1: key 'protocols' is deprecated, read as 'rtspTransports'\n"));
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let error = load(Some(Path::new("/nowhere/x.yml")), [], CORES).unwrap_err().to_string();
    assert!(error.starts_with("/nowhere/x.yml: cannot be read: "), "{error}");
    let big = std::env::temp_dir().join(format!("corecast-big-{}.yml", std::process::id()));
    fs::write(&big, "# ".repeat(3 << 20)).unwrap();
    let error = load(Some(&big), [], CORES).unwrap_err().to_string();
    fs::remove_file(&big).unwrap();
    assert!(error.ends_with("cannot be read: larger than 4 MiB"), "{error}");
}
