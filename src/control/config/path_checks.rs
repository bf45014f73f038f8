//! What concerns a path as a whole: values that fit their type and still cannot be, alone or beside others.

use super::{
    access, checks,
    error::{At, Report},
    expand::Environment,
    paths::PathKey,
    section::Layers,
    sources,
    typed::Typed,
};

/// Where a forwarder may send to.
const FORWARD_SCHEMES: &[&str] =
    &["rtsp://", "rtsps://", "rtmp://", "rtmps://", "srt://", "whip://", "whips://"];
const COMMANDS: &[&str] = &[
    "runOnInit",
    "runOnDemand",
    "runOnUnDemand",
    "runOnAvailable",
    "runOnUnavailable",
    "runOnOnline",
    "runOnOffline",
    "runOnRead",
    "runOnUnread",
    "runOnRecordSegmentCreate",
    "runOnRecordSegmentComplete",
];

/// Checks one entry over the defaults.
pub(super) fn entry(path: Layers<'_>, key: &PathKey, env: &Environment, report: &mut Report) {
    values(path, report);
    source(path, report);
    hooks(path, key, report);
    always_available(path, key, report);
    redirect(path, report);
    forward(path, env, report);
}

/// What can be said of each value alone: for `pathDefaults` too, which no path may be using.
pub(super) fn values(path: Layers<'_>, report: &mut Report) {
    for command in COMMANDS {
        checks::command(path, command, report);
    }
    access::fingerprint(path, "sourceFingerprint", report);
    for key in ["srtReadPassphrase", "srtPublishPassphrase"] {
        let length = path.text(key).chars().count();
        if length != 0 && !(10..=79).contains(&length) {
            let message = format!("'{key}' has {length} characters: expected between 10 and 79");
            report.error(path.at(key), message);
        }
    }
    record(path, report);
    let scale = path.text("rtspScale");
    if !scale.is_empty() && !scale.parse::<f64>().is_ok_and(f64::is_finite) {
        report.error(path.at("rtspScale"), "'rtspScale' is no number: expected such as 2.0 or -1");
    }
    port_range(path, report);
    range_start(path, report);
    for key in [
        "sourceOnDemandStartTimeout",
        "sourceOnDemandCloseAfter",
        "runOnDemandStartTimeout",
        "runOnDemandCloseAfter",
        "sourceReconnectGrace",
    ] {
        if matches!(path.get(key).value, Typed::Duration(..0)) {
            report.error(path.at(key), format!("'{key}' is less than zero: expected 0s or more"));
        }
    }
}

fn record(path: Layers<'_>, report: &mut Report) {
    let template = path.text("recordPath");
    let has = |part: &str| template.contains(part);
    if !has("%path") {
        let message = format!("'recordPath' is '{template}': expected %path in it, for the name of the path");
        report.error(path.at("recordPath"), message);
    }
    if !has("%s") && !["%Y", "%m", "%d", "%H", "%M", "%S"].into_iter().all(has) {
        let message = format!("'recordPath' is '{template}': expected %s, or all of %Y %m %d %H %M %S in it");
        report.error(path.at("recordPath"), message);
    }
    let duration = |key: &str| match path.get(key).value {
        Typed::Duration(ns) => ns,
        _ => 0,
    };
    let keep = duration("recordDeleteAfter");
    if keep != 0 && keep < duration("recordSegmentDuration") {
        let at = match path.at("recordDeleteAfter") {
            At::Nowhere => path.at("recordSegmentDuration"),
            at => at,
        };
        report.error(
            at,
            "'recordDeleteAfter' is shorter than 'recordSegmentDuration': expected 0s or more than it",
        );
    }
}

fn port_range(path: Layers<'_>, report: &mut Report) {
    let setting = path.get("rtspUDPSourcePortRange");
    let Typed::List(ports) = &setting.value else { return };
    match ports.as_slice() {
        [Typed::Int(first), Typed::Int(last)] if first <= last => {
            // RTP takes an even port, RTCP the one after it.
            if *first == 0 || first + first % 2 >= *last {
                report.error(
                    &setting.at,
                    "'rtspUDPSourcePortRange' has no room for an even port and the one after it: expected more ports, \
                     and none that is 0",
                );
            }
        }
        _ => report.error(
            &setting.at,
            "'rtspUDPSourcePortRange' is no range: expected its first and its last port, such as [32768, 60999]",
        ),
    }
}

fn range_start(path: Layers<'_>, report: &mut Report) {
    let (kind, start) = (path.text("rtspRangeType"), path.text("rtspRangeStart"));
    let expected = match kind {
        "" => return,
        "clock" if jiff::fmt::strtime::parse("%Y%m%dT%H%M%SZ", start).is_err() => {
            "a time such as 20260131T235959Z"
        }
        "npt" | "smpte"
            if start.is_empty() || super::duration::parse_ns(start).is_none_or(|start| start < 0) =>
        {
            "a duration such as 10s"
        }
        _ => return,
    };
    let at = match path.at("rtspRangeStart") {
        At::Nowhere => path.at("rtspRangeType"),
        at => at,
    };
    report
        .error(at, format!("'rtspRangeStart' is '{start}': with 'rtspRangeType' {kind} expected {expected}"));
}

fn source(path: Layers<'_>, report: &mut Report) {
    let is_publisher = path.text("source") == "publisher";
    let is_pulled = !matches!(path.text("source"), "publisher" | "demo" | "redirect");
    if path.bool("sourceOnDemand") && !is_pulled && path.text("source") != "redirect" {
        report.error(
            path.at("sourceOnDemand"),
            "'sourceOnDemand' is yes, but nothing is pulled: expected no, or a 'source' that is a URL",
        );
    }
    if !is_publisher {
        for key in ["runOnDemand", "runOnUnDemand"] {
            if !path.text(key).is_empty() {
                let message = format!("'{key}' waits for a publisher: expected 'source' publisher");
                report.error(path.at(key), message);
            }
        }
        if !path.text("srtPublishPassphrase").is_empty() {
            let message = "'srtPublishPassphrase' is for publishers: expected 'source' publisher";
            report.error(path.at("srtPublishPassphrase"), message);
        }
    }
}

fn hooks(path: Layers<'_>, key: &PathKey, report: &mut Report) {
    if !path.text("runOnInit").is_empty() && !matches!(key, PathKey::Exact) {
        let message = "'runOnInit' is run once at the start, and this entry serves many paths: expected an entry that \
                       names one, or runOnDemand";
        report.error(path.at("runOnInit"), message);
    }
}

fn always_available(path: Layers<'_>, key: &PathKey, report: &mut Report) {
    if !path.bool("alwaysAvailable") {
        return;
    }
    let at = path.at("alwaysAvailable");
    let others = [
        (!matches!(key, PathKey::Exact), "an entry that serves many paths"),
        (path.bool("sourceOnDemand"), "'sourceOnDemand'"),
        (!path.text("runOnDemand").is_empty(), "'runOnDemand'"),
        (path.bool("useAbsoluteTimestamp"), "'useAbsoluteTimestamp'"),
    ];
    for (_, other) in others.into_iter().filter(|(is_set, _)| *is_set) {
        report
            .error(at, format!("'alwaysAvailable' does not go together with {other}: expected one of them"));
    }
    let tracks = path.records("alwaysAvailableTracks");
    let file = path.text("alwaysAvailableFile");
    if tracks.is_empty() == file.is_empty() {
        let message = "'alwaysAvailable' needs to know what to play: expected either 'alwaysAvailableTracks' or \
                       'alwaysAvailableFile'";
        report.error(at, message);
    }
    for track in tracks {
        let codec = track.text("codec");
        if codec.is_empty() {
            report.error(
                &track.at,
                "an element of 'alwaysAvailableTracks' has no 'codec': expected such as H264",
            );
        }
        for key in ["sampleRate", "channelCount"] {
            if matches!(codec, "MPEG4Audio" | "G711" | "LPCM") && track.get(key).is_none() {
                let message = format!("'{key}' is missing: expected a number beside 'codec' {codec}");
                report.error(&track.at, message);
            }
        }
    }
}

fn redirect(path: Layers<'_>, report: &mut Report) {
    let target = path.text("sourceRedirect");
    let at = path.at("sourceRedirect");
    let is_redirect = path.text("source") == "redirect";
    match (is_redirect, target.is_empty()) {
        (true, true) => {
            let message =
                "'source' is redirect: expected 'sourceRedirect' beside it, /otherpath or rtsp://host/path";
            report.error(path.at("source"), message);
        }
        (false, false) => {
            let message =
                "'sourceRedirect' has no effect unless 'source' is redirect: expected that, or nothing here";
            report.error(at, message);
        }
        (true, false) if !sources::is_redirect_target(target) => {
            report
                .error(at, "'sourceRedirect' is no place to go to: expected /otherpath or rtsp://host/path");
        }
        _ => {}
    }
    if let Some(fallback) = path.written("fallback")
        && let Typed::Text(target) = &fallback.value
        && !target.is_empty()
        && !sources::is_redirect_target(target)
    {
        report
            .error(&fallback.at, "'fallback' is no place to go to: expected /otherpath or rtsp://host/path");
    }
}

fn forward(path: Layers<'_>, env: &Environment, report: &mut Report) {
    for destination in path.records("forward") {
        let url = destination.text("dest");
        if !FORWARD_SCHEMES.iter().any(|scheme| url.strip_prefix(scheme).is_some_and(|rest| !rest.is_empty()))
        {
            let message = format!(
                "'dest' is no place to send to: expected a URL that starts with one of {}",
                FORWARD_SCHEMES.join(", ")
            );
            report.error(destination.at("dest"), message);
        }
        let is_kept = |name: &str| name == "MTX_PATH" || name.starts_with('G');
        if let Err(name) = env.expand(url, is_kept) {
            report.error(destination.at("dest"), super::expand::missing("dest", name));
        }
        let fingerprint = destination.text("destFingerprint");
        if !fingerprint.is_empty() && access::parse_fingerprint(fingerprint).is_none() {
            report.error(
                destination.at("destFingerprint"),
                access::fingerprint_rule("destFingerprint", fingerprint),
            );
        }
    }
}
