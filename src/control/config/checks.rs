//! What concerns the top level as a whole: values that fit their type and still cannot be.

use ipnet::IpNet;

use super::{
    credential, duration,
    error::Report,
    expand::{self, Environment},
    section::Layers,
    typed::Typed,
};
use crate::control::hooks::can_be_split;

/// Checks what no setting is made of yet, or what several keys say together.
pub(super) fn global(global: Layers<'_>, env: &Environment, report: &mut Report) {
    let queue = global.int("writeQueueSize");
    if queue.count_ones() != 1 {
        let message = format!("'writeQueueSize' is '{queue}': expected a power of two, such as 512");
        report.error(global.at("writeQueueSize"), message);
    }
    command(global, "runOnConnect", report);
    command(global, "runOnDisconnect", report);
    let range = global.text("multicastIPRange");
    if !range.parse::<IpNet>().is_ok_and(|range| range.addr().is_multicast()) {
        let message =
            format!("'multicastIPRange' is '{range}': expected a multicast network such as 224.1.0.0/16");
        report.error(global.at("multicastIPRange"), message);
    }
    for service in ["pprof", "playback", "webrtc"] {
        if global.bool(service) {
            http_address(global, &format!("{service}Address"), report);
        }
    }
    hls(global, report);
    webrtc(global, env, report);
}

fn hls(global: Layers<'_>, report: &mut Report) {
    let secret = global.text("hlsCDNSecret");
    if !credential::is_plain(secret) {
        report.error(global.at("hlsCDNSecret"), format!("'hlsCDNSecret' {}", credential::charset_rule()));
    }
    if !global.bool("hls") {
        return;
    }
    let count = global.int("hlsSegmentCount");
    let (variant, least) = match global.text("hlsVariant") {
        "lowLatency" => ("lowLatency", 7),
        other => (other, 3),
    };
    if count < least {
        let message =
            format!("'hlsSegmentCount' is '{count}': with 'hlsVariant' {variant} expected {least} or more");
        report.error(global.at("hlsSegmentCount"), message);
    }
    for key in ["hlsSegmentDuration", "hlsPartDuration", "hlsMuxerCloseAfter"] {
        positive(global, key, report);
    }
}

fn webrtc(global: Layers<'_>, env: &Environment, report: &mut Report) {
    if !global.bool("webrtc") {
        return;
    }
    let servers = global.records("webrtcICEServers2");
    for server in servers {
        let url = server.text("url");
        if !["stun:", "turn:", "turns:"].iter().any(|scheme| url.starts_with(scheme)) {
            report.error(
                server.at("url"),
                "'url' of an ICE server is of no known kind: expected one that starts with stun:, turn: or turns:",
            );
        }
        for key in ["username", "password"] {
            if let Err(name) = env.expand(server.text(key), |_| false) {
                report.error(server.at(key), expand::missing(key, name));
            }
        }
    }
    let older = global.written("webrtcICEServers");
    let older_count = older.map_or(0, |setting| setting.value.texts().count());
    if let Some(setting) = older
        && setting
            .value
            .texts()
            .any(|url| !["stun:", "turn:", "turns:"].iter().any(|scheme| url.starts_with(scheme)))
    {
        report.error(
            &setting.at,
            "'webrtcICEServers' has a server of no known kind: expected such as stun:host:3478 or turn:user:pass:host:3478",
        );
    }
    let (udp, tcp) = (global.text("webrtcLocalUDPAddress"), global.text("webrtcLocalTCPAddress"));
    if udp.is_empty() && tcp.is_empty() && servers.is_empty() && older_count == 0 {
        let message = "'webrtcLocalUDPAddress' is empty, and so are 'webrtcLocalTCPAddress' and 'webrtcICEServers2': \
                       expected at least one of them, or 'webrtc' no";
        report.error(global.at("webrtcLocalUDPAddress"), message);
    }
    for key in ["webrtcLocalUDPAddress", "webrtcLocalTCPAddress"] {
        if !global.text(key).is_empty() {
            address(global, key, report);
        }
    }
    let listens = !udp.is_empty() || !tcp.is_empty();
    let has_hosts = global.words("webrtcAdditionalHosts").next().is_some();
    if listens && !global.bool("webrtcIPsFromInterfaces") && !has_hosts {
        let message = "'webrtcIPsFromInterfaces' is no and 'webrtcAdditionalHosts' is empty: expected one of them, or \
                       viewers are told no address";
        report.error(global.at("webrtcIPsFromInterfaces"), message);
    }
    for key in ["webrtcSTUNGatherTimeout", "webrtcHandshakeTimeout", "webrtcTrackGatherTimeout"] {
        positive(global, key, report);
    }
}

/// A command must be one that can be split into words.
pub(super) fn command(layers: Layers<'_>, key: &str, report: &mut Report) {
    let text = layers.text(key);
    if !text.is_empty() && !can_be_split(text) {
        report.error(layers.at(key), format!("'{key}' has a quote that is not closed: expected a command"));
    }
}

pub(super) fn positive(layers: Layers<'_>, key: &str, report: &mut Report) {
    let Typed::Duration(ns) = layers.get(key).value else { return };
    if ns <= 0 {
        let shown = if ns == 0 { "0s".to_owned() } else { duration::to_text(ns) };
        report.error(layers.at(key), format!("'{key}' is '{shown}': expected more than 0s"));
    }
}

fn http_address(global: Layers<'_>, key: &str, report: &mut Report) {
    if !global.text(key).starts_with("unix:///") {
        address(global, key, report);
    }
}

/// `host:port`, without looking the host up: nothing listens there yet.
fn address(global: Layers<'_>, key: &str, report: &mut Report) {
    let text = global.text(key);
    if text.rsplit_once(':').is_none_or(|(_, port)| port.parse::<u16>().is_err()) {
        report.error(global.at(key), super::conf::address_rule(key, text));
    }
}
