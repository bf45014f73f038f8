//! From sections to the settings a shard runs on: the checks that concern more than one value.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr, ToSocketAddrs},
    num::{NonZeroU32, NonZeroUsize},
    path::PathBuf,
    time::Duration,
};

use corecast_hub::{
    quota::Quota,
    settings::{Access, Challenge, EngineSettings, MediaIoChoice, Park, PathTable, RtspSettings, Settings},
};

use super::{
    error::{At, Report},
    hls,
    section::Layers,
    size,
    typed::Typed,
};
use crate::observe::log::{Destination, Level, LogSettings};

/// Smallest and largest `flushBytes`: a packet, and more than a keyframe.
const FLUSH_BYTES: (u64, u64) = (2 << 10, 16 << 20);
/// Smallest and largest `ringMax`: below, no keyframe fits; above, a few cameras fill any memory.
const RING_BYTES: (u64, u64) = (1 << 20, 1 << 30);
/// An address that nobody listens on.
pub(super) const UNSPECIFIED: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);

pub(super) fn log_settings(global: Layers<'_>) -> LogSettings {
    let mut destinations = Vec::new();
    for word in global.words("logDestinations") {
        let destination = match word {
            "file" => Destination::File,
            "syslog" => Destination::Syslog,
            _ => Destination::Stdout,
        };
        if !destinations.contains(&destination) {
            destinations.push(destination);
        }
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

/// The settings as a whole, but for the paths and for whom they let in.
pub(super) fn settings(global: Layers<'_>, engine: EngineSettings, report: &mut Report) -> Settings {
    let udp_read_buffer = usize::try_from(global.int("udpReadBufferSize")).unwrap_or(0);
    Settings {
        read_timeout: positive_duration(global, "readTimeout", report),
        write_timeout: positive_duration(global, "writeTimeout", report),
        udp_payload_bytes_max: u16::try_from(global.int("udpMaxPayloadSize")).unwrap_or(u16::MAX),
        udp_read_buffer_bytes: NonZeroUsize::new(udp_read_buffer),
        rtsp: rtsp(global, report),
        hls: hls::settings(global, report),
        engine,
        access: Access { publish_open: false, read_open: false, challenges: vec![Challenge::Basic] },
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
    let encryption = global.text("rtspEncryption");
    let (plain, encrypted) = (enabled && encryption != "strict", enabled && encryption != "no");
    if encrypted && !tcp {
        let message = "'rtspTransports' lacks tcp: this version serves encrypted media over TCP only, so that nobody can \
                       read or publish on rtspsAddress";
        report.warn(&transports.at, message);
    }
    let tls_address = address(global, "rtspsAddress", encrypted, report);
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
    RtspSettings {
        address: plain.then_some(address),
        tls_address: encrypted.then_some(tls_address),
        rtp_address,
        rtcp_address,
        udp,
        tcp,
    }
}

/// `available` are the cores this process may use; `before` counts go on counting.
pub(super) fn engine(
    engine: Layers<'_>,
    available: &[usize],
    before: Option<&EngineSettings>,
    report: &mut Report,
) -> EngineSettings {
    let flush_bytes = bounded_size(engine, "flushBytes", FLUSH_BYTES, report);
    let ring_bytes_max = bounded_size(engine, "ringMax", RING_BYTES, report);
    if flush_bytes > ring_bytes_max {
        // Blames the one that was set; if both were, the file shows it either way.
        let (flush, ring) = (&engine.get("flushBytes").at, &engine.get("ringMax").at);
        let at = if *flush == At::Nowhere { ring } else { flush };
        report.error(at, "'flushBytes' is larger than 'ringMax': expected the reverse");
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
        streams_max: limit(engine, "maxStreams"),
        streams: before.map_or_else(Quota::default, |before| before.streams.clone()),
        readers_max: limit(engine, "maxReaders"),
        readers: before.map_or_else(Quota::default, |before| before.readers.clone()),
    }
}

/// A count of which 0 means that there is no limit.
pub(super) fn limit(layers: Layers<'_>, name: &str) -> Option<NonZeroU32> {
    u32::try_from(layers.int(name)).ok().and_then(NonZeroU32::new)
}

/// `engine.dialsPerHost`
pub(super) fn dials_per_host(engine: Layers<'_>) -> NonZeroUsize {
    usize::try_from(engine.int("dialsPerHost")).ok().and_then(NonZeroUsize::new).unwrap_or(NonZeroUsize::MIN)
}

/// `engine.stateDir`, which must not depend on where the program was started.
pub(super) fn state_dir(engine: Layers<'_>, report: &mut Report) -> Option<PathBuf> {
    let text = engine.text("stateDir");
    if text.is_empty() {
        return None;
    }
    if !text.starts_with('/') {
        let message = format!("'stateDir' is '{text}': expected an absolute path, such as /var/lib/corecast");
        report.error(engine.at("stateDir"), message);
    }
    Some(text.into())
}

/// The port of `rtspAddress`, which hooks are told even when nothing listens there; 0 when there is none.
pub(super) fn rtsp_port(global: Layers<'_>) -> u16 {
    global.text("rtspAddress").rsplit_once(':').and_then(|(_, port)| port.parse().ok()).unwrap_or(0)
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

/// A duration that was checked elsewhere; negative ones are zero.
pub(super) fn duration(section: Layers<'_>, name: &str) -> Duration {
    Duration::from_nanos(u64::try_from(duration_ns(section, name)).unwrap_or(0))
}

fn positive_duration(section: Layers<'_>, name: &str, report: &mut Report) -> Duration {
    super::checks::positive(section, name, report);
    duration(section, name)
}

/// Zero is allowed: it turns the wait off.
fn bounded_duration(section: Layers<'_>, name: &str, max: Duration, report: &mut Report) -> Duration {
    match u64::try_from(duration_ns(section, name)).map(Duration::from_nanos) {
        Ok(duration) if duration <= max => duration,
        _ => {
            let shown = super::duration::to_text(duration_ns(section, name));
            let message = format!("'{name}' is '{shown}': expected a duration between 0s and {max:?}");
            report.error(&section.get(name).at, message);
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
        let [shown, min, max] = [bytes, min, max].map(size::to_text);
        let message = format!("'{name}' is '{shown}': expected a size between {min} and {max}");
        report.error(&setting.at, message);
    }
    usize::try_from(bytes.min(max)).unwrap_or(usize::MAX)
}

/// `host:port`; without a host, all addresses of both families (`0.0.0.0` asks for IPv4 alone). What is not
/// `used` may be anything: files empty the addresses of what they turn off.
pub(super) fn address(global: Layers<'_>, name: &str, used: bool, report: &mut Report) -> SocketAddr {
    let text = global.text(name);
    let full = if text.starts_with(':') { format!("[::]{text}") } else { text.to_owned() };
    if let Ok(address) = full.parse() {
        return address;
    }
    if !used {
        return UNSPECIFIED;
    }
    // A name is looked up once, here: a listener needs an address, and --check should find a wrong one.
    match full.to_socket_addrs().ok().and_then(|mut found| found.next()) {
        Some(address) => address,
        None => {
            report.error(&global.get(name).at, address_rule(name, text));
            UNSPECIFIED
        }
    }
}

pub(super) fn address_rule(key: &str, text: &str) -> String {
    format!("'{key}' is '{text}': expected host:port or :port, such as :8554")
}
