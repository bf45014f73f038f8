//! The keys of the HLS server.

use std::time::Duration;

use corecast_hub::settings::{HlsSessionMode, HlsSettings, HlsVariant};
use serde_json::json;

use super::{super::store::Edit, assert_one_warning, body, load, load_with, reload, view, warnings};
use crate::control::config::store::View;

fn hls(text: &str) -> HlsSettings {
    view(text).settings.hls.clone().unwrap()
}

#[test]
fn the_defaults_are_those_of_mediamtx() {
    let hls = hls("");
    assert_eq!(hls.web.address, "[::]:8888".parse().unwrap());
    assert!(!hls.web.encrypted && hls.web.trusted_proxies.is_empty());
    assert_eq!(hls.web.allow_origins, ["*"]);
    assert_eq!((hls.variant, hls.always_remux), (HlsVariant::LowLatency, false));
    assert_eq!(usize::from(hls.segment_count), 7);
    assert_eq!(hls.segment_duration, Duration::from_secs(1));
    assert_eq!(hls.part_duration, Duration::from_millis(200));
    assert_eq!(hls.segment_bytes_max, 50 << 20);
    assert_eq!(hls.cdn_secret, None);
    assert_eq!(hls.muxer_close_after, Duration::from_secs(60));
    assert_eq!(hls.session_mode, HlsSessionMode::Url);
    assert_eq!(view("").control.hls_tls, None);
}

#[test]
fn every_key_is_obeyed_without_a_warning() {
    let text = "hls: yes\nhlsAddress: 127.0.0.1:80\nhlsEncryption: yes\nhlsServerKey: k.pem\n\
                hlsServerCert: c.pem\nhlsAllowOrigins: ['https://a.example', 'https://*.b.example']\n\
                hlsTrustedProxies: [10.0.0.0/8, '::1']\nhlsAlwaysRemux: yes\nhlsVariant: fmp4\n\
                hlsSegmentCount: 3\nhlsSegmentDuration: 2s\nhlsPartDuration: 100ms\nhlsSegmentMaxSize: 8M\n\
                hlsMuxerCloseAfter: 1m30s\nhlsCDNSecret: s3cret\nhlsSessionMode: cookie\n";
    let loaded = load(text).unwrap();
    assert!(loaded.warnings.is_empty(), "{:?}", loaded.warnings);
    let View { settings, control, .. } = loaded.view;
    let hls = settings.hls.clone().unwrap();
    assert_eq!(hls.web.address, "127.0.0.1:80".parse().unwrap());
    assert!(hls.web.encrypted && hls.always_remux);
    assert_eq!(hls.web.allow_origins, ["https://a.example", "https://*.b.example"]);
    let proxies: Vec<_> = hls.web.trusted_proxies.iter().map(ToString::to_string).collect();
    assert_eq!(proxies, ["10.0.0.0/8", "::1/128"]);
    assert_eq!((hls.variant, usize::from(hls.segment_count)), (HlsVariant::Fmp4, 3));
    assert_eq!(
        (hls.segment_duration, hls.part_duration),
        (Duration::from_secs(2), Duration::from_millis(100))
    );
    assert_eq!(hls.segment_bytes_max, 8 << 20);
    assert_eq!(hls.muxer_close_after, Duration::from_secs(90));
    assert_eq!(hls.session_mode, HlsSessionMode::Cookie);
    assert_eq!(hls.cdn_secret.as_ref().map(|secret| &*secret.0), Some("s3cret"));
    assert!(!format!("{hls:?}").contains("s3cret"));
    let files = control.hls_tls.clone().unwrap();
    assert_eq!((files.key.to_str(), files.cert.to_str()), (Some("k.pem"), Some("c.pem")));
}

#[test]
fn each_variant_has_its_word() {
    let variant = |word: &str| hls(&format!("hlsVariant: {word}")).variant;
    assert_eq!(variant("mpegts"), HlsVariant::MpegTs);
    assert_eq!(variant("fmp4"), HlsVariant::Fmp4);
    assert_eq!(variant("lowLatency"), HlsVariant::LowLatency);
}

#[test]
fn what_is_off_listens_nowhere_and_is_not_checked() {
    assert_eq!(view("hls: no").settings.hls, None);
    assert_one_warning(
        "hlsDisable: yes",
        "c.yml:1:1: key 'hlsDisable' is deprecated, read as the opposite of 'hls'",
    );
    assert_eq!(view("hlsDisable: yes").settings.hls, None);
    assert_eq!(view("hls: no\nhlsEncryption: yes").control.hls_tls, None);
    assert!(warnings("hls: no\nhlsAddress: ''\nhlsSegmentCount: 1\nhlsSegmentDuration: 0s").is_empty());
}

#[test]
fn a_directory_for_segments_is_not_served() {
    assert_one_warning(
        "hlsDirectory: /var/hls",
        "c.yml:1:1: key 'hlsDirectory' is accepted but not served by this version yet: segments are kept in memory",
    );
}

#[test]
fn variables_change_it() {
    let env = [
        ("MTX_HLSADDRESS", ":9888"),
        ("MTX_HLSALLOWORIGINS", "https://a,https://b"),
        ("MTX_HLSVARIANT", "mpegts"),
        ("MTX_HLSSEGMENTCOUNT", "4"),
        ("MTX_HLSSESSIONMODE", "cookie"),
        ("MTX_HLSCDNSECRET", "fromenv"),
        ("MTX_PATHS_CAM1_HLSALWAYSREMUX", "yes"),
        ("MTX_PATHDEFAULTS_HLSALWAYSREMUX", "no"),
    ];
    let settings = load_with("paths: {cam1: , cam2: }", &env).unwrap().view.settings;
    let hls = settings.hls.as_ref().unwrap();
    assert_eq!(
        (hls.web.address.port(), hls.variant, usize::from(hls.segment_count)),
        (9888, HlsVariant::MpegTs, 4)
    );
    assert_eq!(hls.web.allow_origins, ["https://a", "https://b"]);
    assert_eq!(hls.session_mode, HlsSessionMode::Cookie);
    assert_eq!(hls.cdn_secret.as_ref().map(|secret| &*secret.0), Some("fromenv"));
    let of = |name: &str| settings.paths.lookup(name).unwrap().hls_always_remux;
    assert_eq!((of("cam1"), of("cam2")), (Some(true), Some(false)));
    assert!(load_with("hlsAlwaysRemux: yes", &[("MTX_HLS", "no")]).unwrap().view.settings.hls.is_none());
}

#[test]
fn a_path_decides_for_itself_whether_it_is_always_muxed() {
    let paths = "paths:\n  a:\n  always: {hlsAlwaysRemux: yes}\n  never: {hlsAlwaysRemux: no}\n\
                 \x20 demand: {source: 'rtsp://h/1', sourceOnDemand: yes}\n\
                 \x20 both: {source: 'rtsp://h/1', sourceOnDemand: yes, hlsAlwaysRemux: yes}\n";
    let muxed = |global: &str| {
        let view = view(&format!("{global}{paths}"));
        let hls = view.settings.hls.clone().unwrap();
        ["a", "always", "never", "demand", "both"]
            .map(|name| hls.remuxes_always(view.settings.paths.lookup(name).unwrap()))
    };
    assert_eq!(muxed(""), [false, true, false, false, true]);
    assert_eq!(muxed("hlsAlwaysRemux: yes\n"), [true, true, false, false, true]);
    assert_eq!(muxed("pathDefaults: {hlsAlwaysRemux: yes}\n"), [true, true, false, true, true]);
}

#[test]
fn the_key_of_a_path_is_shown_set_and_unset() {
    let first = view("pathDefaults: {hlsAlwaysRemux: no}\npaths: {cam: }");
    assert_eq!(first.path_json("cam").unwrap()["hlsAlwaysRemux"], json!(false));
    let patched = |view: &View, value| {
        let edit = Edit::PatchPath { name: "cam".into(), body: body(json!({"hlsAlwaysRemux": value})) };
        view.edited(&[edit]).unwrap()
    };
    let on = patched(&first, json!(true));
    assert_eq!(on.path_json("cam").unwrap()["hlsAlwaysRemux"], json!(true));
    assert_eq!(first.diff(&on).paths_changed, ["cam".into()]);
    let off = patched(&on, json!(null));
    assert_eq!(off.path_json("cam").unwrap()["hlsAlwaysRemux"], json!(null));
    assert_eq!(off.settings.paths.lookup("cam").unwrap().hls_always_remux, None);
}

#[test]
fn a_reload_tells_a_change_of_the_server_from_one_of_the_rest() {
    let first = view("hlsCDNSecret: one\npaths: {cam: }");
    assert!(!first.diff(&reload(&first, "hlsCDNSecret: one\nlogLevel: warn\npaths: {cam: }")).hls);
    for changed in ["hlsCDNSecret: two", "hls: no", "hlsPartDuration: 100ms", "hlsEncryption: yes"] {
        let changes = first.diff(&reload(&first, &format!("{changed}\npaths: {{cam: }}")));
        assert!(changes.hls && changes.paths_changed.is_empty(), "{changed}");
    }
}
