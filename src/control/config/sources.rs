//! `source` of a path: its kind, and whether it can be one.

use corecast_hub::settings::Source;

use super::{
    error::{At, Report},
    expand::{self, Environment},
    paths::PathKey,
    section::Layers,
};

/// Schemes of RTSP in all its wrappings.
const RTSP_SCHEMES: &[&str] = &["rtsp", "rtsps", "rtsp+http", "rtsps+http", "rtsp+ws", "rtsps+ws"];
/// Other kinds of source, by how they start, that MediaMTX has.
const OTHER_SCHEMES: &[&str] = &[
    "rtmp",
    "rtmps",
    "http",
    "https",
    "udp",
    "udp+mpegts",
    "unix+mpegts",
    "udp+rtp",
    "unix+rtp",
    "srt",
    "moqt",
    "whep",
    "wheps",
];
/// Variables of a request that a source may use, beside `G1` and its like.
const REQUEST_VARIABLES: &[&str] = &["MTX_QUERY", "MTX_PATH"];

/// Checks `source` and says what it is.
pub(super) fn source(path: Layers<'_>, key: &PathKey, env: &Environment, report: &mut Report) -> Source {
    let at = path.at("source");
    let text = path.text("source");
    let kind = match text {
        "publisher" => return Source::Publisher,
        "demo" => {
            if !matches!(key, PathKey::Exact) {
                let message = "'source' is demo, but this entry serves many paths: a built-in camera needs an entry \
                               that names one";
                report.error(at, message);
            }
            return Source::Demo;
        }
        "redirect" | "rpiCamera" => text,
        url => match url.split_once("://") {
            Some((scheme, rest)) if is_known(scheme) && !rest.is_empty() => {
                check_url(scheme, rest, key, env, at, report);
                scheme
            }
            // What follows a scheme may hold a password, which must not come to the log.
            Some((scheme, _)) => {
                unknown(&format!("{scheme}://…"), at, report);
                return Source::Publisher;
            }
            None => {
                unknown(url, at, report);
                return Source::Publisher;
            }
        },
    };
    if !matches!(kind, "redirect") && !matches!(key, PathKey::Exact) && !path.bool("sourceOnDemand") {
        let message = "'source' is pulled, and this entry serves many paths: expected 'sourceOnDemand' yes, since \
                       nobody knows beforehand which of them to pull";
        report.error(at, message);
    }
    report.warn_once(&format!("source {kind}"), at, || {
        format!("'source' is of kind {kind}, which is accepted but not served by this version yet")
    });
    Source::Unserved(kind.into())
}

fn is_known(scheme: &str) -> bool {
    RTSP_SCHEMES.contains(&scheme) || OTHER_SCHEMES.contains(&scheme)
}

fn unknown(shown: &str, at: &At, report: &mut Report) {
    let schemes: Vec<_> =
        RTSP_SCHEMES.iter().chain(OTHER_SCHEMES).map(|scheme| format!("{scheme}://")).collect();
    let message = format!(
        "'source' is '{shown}': expected publisher, demo, redirect, rpiCamera or a URL that starts with one of {}",
        schemes.join(", ")
    );
    report.error(at, message);
}

/// What follows `://`. Not repeated in any message.
fn check_url(scheme: &str, rest: &str, key: &PathKey, env: &Environment, at: &At, report: &mut Report) {
    let is_kept = |name: &str| {
        let is_group = name.strip_prefix('G').is_some_and(|number| number.parse::<u8>().is_ok());
        let is_capture = matches!(key, PathKey::Captured(_, variable) if **variable == *name);
        is_group || is_capture || REQUEST_VARIABLES.contains(&name)
    };
    let rest = match env.expand(rest, is_kept) {
        Ok(rest) => rest,
        Err(name) => {
            report.error(at, expand::missing("source", name));
            return;
        }
    };
    if matches!(scheme, "unix+mpegts" | "unix+rtp") {
        return;
    }
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let (userinfo, host) = match authority.rsplit_once('@') {
        Some((userinfo, host)) => (Some(userinfo), host),
        None => (None, authority),
    };
    if host.is_empty() || host.starts_with(':') {
        report.error(at, format!("'source' names no host: expected {scheme}://host:port/path"));
    }
    if !RTSP_SCHEMES.contains(&scheme) {
        return;
    }
    if let Some(userinfo) = userinfo
        && !matches!(userinfo.split_once(':'), Some((user, password)) if !user.is_empty() && !password.is_empty())
    {
        let message = "'source' has a user name without a password, or the reverse: expected both or neither";
        report.error(at, message);
    }
    let port = host.rsplit_once(':').map(|(_, port)| port).filter(|_| !host.ends_with(']'));
    if port.is_some_and(|port| !port.contains('$') && port.parse::<u16>().is_err()) {
        let message =
            "'source' has a port that is no number: expected host:port, with '/' in a password written %2F";
        report.error(at, message);
    }
}

/// Whether `text` can be where clients are sent: a path of ours, or a URL of RTSP.
pub(super) fn is_redirect_target(text: &str) -> bool {
    match text.strip_prefix('/') {
        Some(path) => corecast_hub::settings::check_name(path).is_ok(),
        None => ["rtsp://", "rtsps://"].iter().any(|scheme| {
            text.strip_prefix(scheme).is_some_and(|rest| !rest.is_empty() && !rest.starts_with('/'))
        }),
    }
}
