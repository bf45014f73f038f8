//! From sections to the settings a shard runs on: the checks that concern more than one value.

use std::{
    net::{SocketAddr, ToSocketAddrs},
    num::NonZeroUsize,
    time::Duration,
};

use corecast_hub::settings::{EngineSettings, MediaIoChoice, Park, PathTable, RtspSettings, Settings};

use super::{
    error::{At, Report},
    section::Layers,
    typed::Typed,
};
use crate::observe::log::{Destination, Level, LogSettings};

/// Smallest and largest `flushBytes`: a packet, and more than a keyframe.
const FLUSH_BYTES: (u64, u64) = (2 << 10, 16 << 20);
/// Smallest and largest `ringMax`: below, no keyframe fits; above, a few cameras fill any memory.
const RING_BYTES: (u64, u64) = (1 << 20, 1 << 30);

pub(super) fn log_settings(global: Layers<'_>, report: &mut Report) -> LogSettings {
    let mut destinations = Vec::new();
    for word in global.words("logDestinations") {
        let destination = match word {
            "file" => Destination::File,
            "syslog" => {
                let message = "'logDestinations' has syslog, which is not served by this version yet";
                report.warn(&global.get("logDestinations").at, message);
                continue;
            }
            _ => Destination::Stdout,
        };
        if !destinations.contains(&destination) {
            destinations.push(destination);
        }
    }
    // Asked for syslog alone: silence would be the worst answer.
    if destinations.is_empty() && global.words("logDestinations").next().is_some() {
        destinations.push(Destination::Stdout);
    }
    LogSettings {
        level: match global.text("logLevel") {
            "error" => Level::Error,
            "warn" => Level::Warn,
            "debug" => Level::Debug,
            _ => Level::Info,
        },
        destinations,
        structured: global.bool("logStructured"),
        file: global.text("logFile").into(),
        syslog_prefix: global.text("sysLogPrefix").to_owned(),
    }
}

/// The settings as a whole, but for the paths.
pub(super) fn settings(global: Layers<'_>, engine: EngineSettings, report: &mut Report) -> Settings {
    let udp_read_buffer = usize::try_from(global.int("udpReadBufferSize")).unwrap_or(0);
    Settings {
        read_timeout: positive_duration(global, "readTimeout", report),
        write_timeout: positive_duration(global, "writeTimeout", report),
        udp_payload_bytes_max: u16::try_from(global.int("udpMaxPayloadSize")).unwrap_or(u16::MAX),
        udp_read_buffer_bytes: NonZeroUsize::new(udp_read_buffer),
        rtsp: rtsp(global, report),
        engine,
        paths: PathTable::default(),
    }
}

fn rtsp(global: Layers<'_>, report: &mut Report) -> RtspSettings {
    let enabled = global.bool("rtsp");
    let transports = global.get("rtspTransports");
    let lists = |transport| global.words("rtspTransports").any(|word| word == transport);
    let (udp, tcp, multicast) = (lists("udp"), lists("tcp"), lists("multicast"));
    if enabled && !udp && !tcp {
        report.error(&transports.at, "'rtspTransports' must hold udp or tcp, or 'rtsp' be no");
    } else if multicast && !(udp && tcp) {
        // All three are the default of MediaMTX, and the list a stock file has.
        report
            .warn(&transports.at, "'rtspTransports' has multicast, which is not served by this version yet");
    }
    if enabled {
        check_encryption(global, report);
    }
    let address = address(global, "rtspAddress", enabled, report);
    let rtp_address = self::address(global, "rtpAddress", enabled && udp, report);
    let rtcp_address = self::address(global, "rtcpAddress", enabled && udp, report);
    let (rtp, rtcp) = (rtp_address.port(), rtcp_address.port());
    if enabled && udp {
        if rtp % 2 != 0 {
            let message =
                format!("'rtpAddress' has port {rtp}: RTP uses an even port, RTCP the one after it");
            report.error(&global.get("rtpAddress").at, message);
        } else if rtcp != rtp + 1 {
            let message =
                format!("'rtcpAddress' has port {rtcp}: expected {}, the one after rtpAddress", rtp + 1);
            report.error(&global.get("rtcpAddress").at, message);
        }
    }
    // As in MediaMTX, strict closes the plain port, whether or not an encrypted one can be opened.
    let plain = enabled && global.text("rtspEncryption") != "strict";
    RtspSettings { address: plain.then_some(address), rtp_address, rtcp_address, udp, tcp }
}

/// Nobody who asked for encryption gets plain RTSP without being told.
fn check_encryption(global: Layers<'_>, report: &mut Report) {
    let at = &global.get("rtspEncryption").at;
    match global.text("rtspEncryption") {
        "strict" => report.warn(
            at,
            "'rtspEncryption' is strict, but this version does not serve TLS yet: NOTHING LISTENS for RTSP; set it to \
             no, on a private network, to serve it unencrypted",
        ),
        "optional" => report.warn(
            at,
            "'rtspEncryption' is optional, but this version does not serve TLS yet: RTSP is served UNENCRYPTED on \
             rtspAddress and nothing listens on rtspsAddress",
        ),
        _ => {}
    }
}

/// `available` are the cores this process may use.
pub(super) fn engine(engine: Layers<'_>, available: &[usize], report: &mut Report) -> EngineSettings {
    let flush_bytes = bounded_size(engine, "flushBytes", FLUSH_BYTES, report);
    let ring_bytes_max = bounded_size(engine, "ringMax", RING_BYTES, report);
    if flush_bytes > ring_bytes_max {
        // Blames the one that was set; if both were, the file shows it either way.
        let (flush, ring) = (&engine.get("flushBytes").at, &engine.get("ringMax").at);
        let at = if *flush == At::Nowhere { ring } else { flush };
        report.error(at, "'flushBytes' must not be larger than 'ringMax'");
    }
    EngineSettings {
        cores: cores(engine, available, report),
        media_io: match engine.text("mediaIo") {
            "io_uring" => MediaIoChoice::IoUring,
            "epoll" => MediaIoChoice::Epoll,
            _ => MediaIoChoice::Auto,
        },
        park: if engine.text("park") == "executor" { Park::Executor } else { Park::Ring },
        flush_bytes,
        flush_after: bounded_duration(engine, "flushAfter", Duration::from_secs(1), report),
        ring_bytes_max,
        reader_lag_max: positive_duration(engine, "readerLagMax", report),
        reorder_wait: bounded_duration(engine, "reorderWait", Duration::from_secs(5), report),
    }
}

fn cores(engine: Layers<'_>, available: &[usize], report: &mut Report) -> Vec<usize> {
    let setting = engine.get("cores");
    let Typed::List(items) = &setting.value else {
        if available.is_empty() {
            report.error(&setting.at, "this process may not run on any core");
        }
        return available.to_vec();
    };
    if items.is_empty() {
        report.error(&setting.at, "'cores' is empty: expected auto, or at least one core");
    }
    let mut cores = Vec::with_capacity(items.len());
    for item in items {
        let Typed::Int(number) = item else { continue };
        let core = usize::try_from(*number).unwrap_or(usize::MAX);
        if !available.contains(&core) {
            let message = format!("'cores' has {core}: this process may use {}", ranges(available));
            report.error(&setting.at, message);
        } else if cores.contains(&core) {
            report.error(&setting.at, format!("'cores' has {core} twice"));
        } else {
            cores.push(core);
        }
    }
    cores
}

/// `0-3, 6`: an ascending list of numbers for a message.
pub(super) fn ranges(numbers: &[usize]) -> String {
    let mut runs: Vec<(usize, usize)> = Vec::new();
    for &number in numbers {
        match runs.last_mut() {
            Some((_, end)) if *end + 1 == number => *end = number,
            _ => runs.push((number, number)),
        }
    }
    let shown: Vec<_> = runs
        .iter()
        .map(|(start, end)| if start == end { format!("{start}") } else { format!("{start}-{end}") })
        .collect();
    shown.join(", ")
}

fn duration_ns(section: Layers<'_>, name: &str) -> i64 {
    match section.get(name).value {
        Typed::Duration(ns) => ns,
        ref other => unreachable!("the table of keys makes '{name}' a duration, not {other:?}"),
    }
}

fn positive_duration(section: Layers<'_>, name: &str, report: &mut Report) -> Duration {
    let ns = u64::try_from(duration_ns(section, name)).unwrap_or(0);
    if ns == 0 {
        report.error(&section.get(name).at, format!("'{name}' must be longer than zero"));
    }
    Duration::from_nanos(ns)
}

/// Zero is allowed: it turns the wait off.
fn bounded_duration(section: Layers<'_>, name: &str, max: Duration, report: &mut Report) -> Duration {
    match u64::try_from(duration_ns(section, name)).map(Duration::from_nanos) {
        Ok(duration) if duration <= max => duration,
        _ => {
            report.error(&section.get(name).at, format!("'{name}' must be between 0s and {max:?}"));
            max
        }
    }
}

fn bounded_size(section: Layers<'_>, name: &str, (min, max): (u64, u64), report: &mut Report) -> usize {
    let setting = section.get(name);
    let Typed::Size(bytes) = setting.value else {
        unreachable!("the table of keys makes '{name}' a size, not {:?}", setting.value)
    };
    if !(min..=max).contains(&bytes) {
        let message = format!("'{name}' must be between {}K and {}M", min >> 10, max >> 20);
        report.error(&setting.at, message);
    }
    usize::try_from(bytes.min(max)).unwrap_or(usize::MAX)
}

/// `host:port`; without a host, all addresses of both families (`0.0.0.0` asks for IPv4 alone). What is not
/// `used` may be anything: files empty the addresses of what they turn off.
fn address(global: Layers<'_>, name: &str, used: bool, report: &mut Report) -> SocketAddr {
    let text = global.text(name);
    let full = if text.starts_with(':') { format!("[::]{text}") } else { text.to_owned() };
    if let Ok(address) = full.parse() {
        return address;
    }
    let unspecified = SocketAddr::from(([0, 0, 0, 0], 0));
    if !used {
        return unspecified;
    }
    // A name is looked up once, here: a listener needs an address, and --check should find a wrong one.
    match full.to_socket_addrs().ok().and_then(|mut found| found.next()) {
        Some(address) => address,
        None => {
            let message = format!("'{name}' is '{text}': expected host:port or :port, such as :8554");
            report.error(&global.get(name).at, message);
            unspecified
        }
    }
}
