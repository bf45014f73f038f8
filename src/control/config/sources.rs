//! `source` of a path: its kind, and whether it can be one.

use std::{borrow::Cow, num::NonZeroUsize, sync::Arc};

use corecast_hub::settings::{PullSettings, PullTransport, Source, UrlTemplate};
use corecast_proto::rtsp::client::SourceUrl;

use super::{
    access, conf, duration,
    error::{At, Report},
    expand::{self, Environment},
    paths::PathKey,
    section::Layers,
    typed::Typed,
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
        "redirect" => return Source::Redirect(path.text("sourceRedirect").into()),
        "rpiCamera" => text,
        url => match url.split_once("://") {
            Some((scheme, rest)) if is_known(scheme) && !rest.is_empty() => {
                let rest = check_url(scheme, rest, key, env, at, report);
                if let ("rtsp" | "rtsps", Some(rest)) = (scheme, rest) {
                    check_demand(path, key, at, report);
                    // A space would end the URL in a request.
                    let url = format!("{scheme}://{rest}").replace(' ', "%20");
                    let url = UrlTemplate::new(url, key.pattern().cloned());
                    check_fixed(&url, at, report);
                    if scheme == "rtsps" {
                        check_encrypted(path, report);
                    }
                    return Source::Rtsp(Arc::new(pull(path, url)));
                }
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
    check_demand(path, key, at, report);
    report.warn_once(&format!("source {kind}"), at, || {
        format!("'source' is of kind {kind}, which is accepted but not served by this version yet")
    });
    Source::Unserved(kind.into())
}

fn check_demand(path: Layers<'_>, key: &PathKey, at: &At, report: &mut Report) {
    if !matches!(key, PathKey::Exact) && !path.bool("sourceOnDemand") {
        let message = "'source' is pulled, and this entry serves many paths: expected 'sourceOnDemand' yes, since \
                       nobody knows beforehand which of them to pull";
        report.error(at, message);
    }
}

/// How a source of RTSP is pulled: what the keys of its entry say, and where it is.
pub(super) fn pull(path: Layers<'_>, url: UrlTemplate) -> PullSettings {
    let text = |key: &str| Some(path.text(key)).filter(|text| !text.is_empty());
    PullSettings {
        url,
        fingerprint: text("sourceFingerprint").and_then(access::parse_fingerprint),
        transport: match path.text("rtspTransport") {
            "udp" => PullTransport::Udp,
            "multicast" => PullTransport::Multicast,
            "tcp" => PullTransport::Tcp,
            _ => PullTransport::Automatic,
        },
        any_port: path.bool("rtspAnyPort"),
        range: range(path).map(Arc::from),
        scale: text("rtspScale").map(Arc::from),
        udp_ports: udp_ports(path),
        udp_read_buffer_bytes: udp_read_buffer(path),
        reconnect_grace: conf::duration(path, "sourceReconnectGrace"),
    }
}

/// The value of `Range`, as MediaMTX writes it (RFC 2326 §3.5-§3.7): fractions of seconds in npt alone.
fn range(path: Layers<'_>) -> Option<String> {
    let start = path.text("rtspRangeStart");
    // It was checked; with another mistake beside it, the settings are thrown away.
    let ns = || duration::parse_ns(start).and_then(|ns| u64::try_from(ns).ok()).unwrap_or_default();
    match path.text("rtspRangeType") {
        "clock" => Some(format!("clock={start}-")),
        "npt" => {
            let (seconds, fraction) = (ns() / 1_000_000_000, ns() % 1_000_000_000);
            let shown = format!("{seconds}.{fraction:09}");
            Some(format!("npt={}-", shown.trim_end_matches('0').trim_end_matches('.')))
        }
        "smpte" => {
            let seconds = ns() / 1_000_000_000;
            Some(format!("smpte={}:{:02}:{:02}-", seconds / 3600, seconds / 60 % 60, seconds % 60))
        }
        _ => None,
    }
}

fn udp_ports(path: Layers<'_>) -> (u16, u16) {
    let port = |item: &Typed| match item {
        Typed::Int(port) => u16::try_from(*port).ok(),
        _ => None,
    };
    match &path.get("rtspUDPSourcePortRange").value {
        Typed::List(ports) => match ports.as_slice() {
            [first, last] => port(first).zip(port(last)),
            _ => None,
        },
        _ => None,
    }
    // Reported before.
    .unwrap_or((32768, 60999))
}

/// Of an older key, which has no newer name for one path.
fn udp_read_buffer(path: Layers<'_>) -> Option<NonZeroUsize> {
    match path.written("rtspUDPReadBufferSize")?.value {
        Typed::Int(bytes) => usize::try_from(bytes).ok().and_then(NonZeroUsize::new),
        _ => None,
    }
}

/// What can be said of a URL that is the same for all paths.
fn check_fixed(url: &UrlTemplate, at: &At, report: &mut Report) {
    if url.is_fixed()
        && let Err(error) = SourceUrl::parse(&url.expand("", ""))
    {
        report.error(at, format!("'source' cannot be pulled: {error}"));
    }
}

/// Packets beside an encrypted connection would have to be encrypted too.
fn check_encrypted(path: Layers<'_>, report: &mut Report) {
    let transport = path.written("rtspTransport");
    match path.text("rtspTransport") {
        "multicast" => {
            let message = "'rtspTransport' is multicast, but 'source' is encrypted (rtsps), and packets beside the \
                           connection would have to be encrypted too (SRTP), which is not served: expected tcp";
            report.error(path.at("rtspTransport"), message);
        }
        shown @ ("udp" | "automatic") if transport.is_some() => {
            report.warn_once("rtsps over udp", path.at("rtspTransport"), || {
                format!(
                    "'rtspTransport' is {shown}, but 'source' is encrypted (rtsps), and SRTP is not served by this \
                     version: TCP is used"
                )
            });
        }
        _ => {}
    }
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

/// What follows `://`, variables of the environment filled in. Not repeated in any message.
fn check_url<'text>(
    scheme: &str,
    rest: &'text str,
    key: &PathKey,
    env: &Environment,
    at: &At,
    report: &mut Report,
) -> Option<Cow<'text, str>> {
    let is_kept = |name: &str| {
        let is_group = name.strip_prefix('G').is_some_and(|number| number.parse::<u8>().is_ok());
        let is_capture = matches!(key, PathKey::Captured(_, variable) if **variable == *name);
        is_group || is_capture || REQUEST_VARIABLES.contains(&name)
    };
    let rest = match env.expand(rest, is_kept) {
        Ok(rest) => rest,
        Err(name) => {
            report.error(at, expand::missing("source", name));
            return None;
        }
    };
    if matches!(scheme, "unix+mpegts" | "unix+rtp") {
        return Some(rest);
    }
    if rest.contains(|c: char| c.is_control()) {
        report.error(at, "'source' has a control character in it, such as a line break: expected a URL");
        return None;
    }
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let (userinfo, host) = match authority.rsplit_once('@') {
        Some((userinfo, host)) => (Some(userinfo), host),
        None => (None, authority),
    };
    // It would end what is taken for the password where answers of the API leave it out.
    if authority.contains(' ') {
        report.error(at, "'source' has a space in its user, password or host: expected %20 for it");
        return None;
    }
    if host.is_empty() || host.starts_with(':') {
        report.error(at, format!("'source' names no host: expected {scheme}://host:port/path"));
        return None;
    }
    if !RTSP_SCHEMES.contains(&scheme) {
        return Some(rest);
    }
    if let Some(userinfo) = userinfo
        && !matches!(userinfo.split_once(':'), Some((user, _)) if !user.is_empty())
    {
        let message = "'source' has a user name without a password, or the reverse: expected both or neither, and \
                       user:@ for a password that is empty";
        report.error(at, message);
    }
    let port = host.rsplit_once(':').map(|(_, port)| port).filter(|_| !host.ends_with(']'));
    if port.is_some_and(|port| !port.contains('$') && port.parse::<u16>().is_err()) {
        let message =
            "'source' has a port that is no number: expected host:port, with '/' in a password written %2F";
        report.error(at, message);
        return None;
    }
    Some(rest)
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
