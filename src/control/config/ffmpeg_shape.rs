//! `runOnDemand: ffmpeg … -i rtsp://camera … -c copy -f rtsp rtsp://localhost:8554/<this path>`: a command that does
//! nothing but what a pull does, with a process per camera and every packet twice through the kernel more.
//!
//! Such a command is served by a pull (`engine.nativePull`). Only what is understood to the last word is: an option that
//! is not in the tables below, a second input, a codec other than `copy`, or an output that is not provably the path
//! itself leave the command to be run as written. What differs is said where the options are listed.

use std::{borrow::Cow, cell::Cell, sync::Arc};

use corecast_hub::settings::{PullSettings, PullTransport, UrlTemplate};
use corecast_proto::rtsp::client::SourceUrl;

use super::{expand::Environment, paths::PathKey, section::Layers, sources};
use crate::control::hooks;

/// Where the program is on a usual system; any other may be a wrapper that does more.
const PROGRAMS: &[&str] = &["ffmpeg", "/usr/bin/ffmpeg", "/usr/local/bin/ffmpeg", "/bin/ffmpeg"];

/// What ffmpeg takes a value of an option for.
#[derive(Clone, Copy)]
enum Takes {
    Nothing,
    /// A whole number, with ffmpeg's suffixes (`10M`); its effect is on ffmpeg's own buffers and timers.
    Number,
    /// Any word.
    Word,
    /// Only this.
    Only(&'static str),
    /// Flags of this list, each with `+` or `-` in front or between.
    Flags(&'static [&'static str]),
}

/// Of what ffmpeg prints and asks; anywhere.
const GLOBAL: &[(&str, Takes)] = &[
    ("-hide_banner", Takes::Nothing),
    ("-nostdin", Takes::Nothing),
    ("-nostats", Takes::Nothing),
    ("-stats", Takes::Nothing),
    ("-y", Takes::Nothing),
    ("-n", Takes::Nothing),
    ("-loglevel", Takes::Word),
    ("-v", Takes::Word),
];

/// In front of `-i`: how long ffmpeg waits, how much it reads before it begins, how it stamps packets. A pull waits for
/// as long as `runOnDemandStartTimeout` says, needs to read nothing beforehand, and keeps the stamps of the source. `-re`
/// holds packets back to the pace of their stamps, which is that of a live source.
const INPUT: &[(&str, Takes)] = &[
    ("-re", Takes::Nothing),
    ("-f", Takes::Only("rtsp")),
    ("-fflags", Takes::Flags(&["nobuffer", "genpts", "discardcorrupt", "flush_packets"])),
    ("-flags", Takes::Flags(&["low_delay"])),
    ("-avioflags", Takes::Only("direct")),
    ("-stimeout", Takes::Number),
    ("-timeout", Takes::Number),
    ("-rw_timeout", Takes::Number),
    ("-use_wallclock_as_timestamps", Takes::Only("1")),
    ("-analyzeduration", Takes::Number),
    ("-probesize", Takes::Number),
    ("-thread_queue_size", Takes::Number),
    ("-buffer_size", Takes::Number),
    ("-max_delay", Takes::Number),
    ("-reorder_queue_size", Takes::Number),
];

/// Behind it: how ffmpeg brings the stream to us, which nobody does now. Without `-map`, ffmpeg takes one picture and
/// one sound track; a pull takes all there are, as `-map 0` does.
const OUTPUT: &[(&str, Takes)] = &[
    ("-rtsp_transport", Takes::Word),
    ("-map", Takes::Only("0")),
    ("-muxdelay", Takes::Number),
    ("-muxpreload", Takes::Number),
    ("-max_muxing_queue_size", Takes::Number),
    ("-pkt_size", Takes::Number),
    ("-flush_packets", Takes::Only("1")),
    ("-fflags", Takes::Flags(&["nobuffer", "flush_packets"])),
    ("-flags", Takes::Flags(&["low_delay"])),
];

/// Parts of the query of an RTSP URL that ffmpeg takes for itself.
const URL_OPTIONS: &[&str] = &["udp", "multicast", "tcp", "http", "https", "filter_src", "listen"];

/// What the words of a command are read with.
pub(super) struct Server<'a> {
    /// `engine.nativePull`
    pub native_pull: bool,
    /// The port of `rtspAddress`; 0 when it has none.
    pub rtsp_port: u16,
    pub env: &'a Environment,
}

impl Server<'_> {
    /// Whether the same commands are served.
    pub fn is_like(&self, other: &Self) -> bool {
        (self.native_pull, self.rtsp_port) == (other.native_pull, other.rtsp_port)
    }
}

/// The pull that does what `runOnDemand` of an entry does; `None` when there is none, and the command is to be run.
pub(super) fn pull(
    path: Layers<'_>,
    key: &PathKey,
    conf_name: &str,
    server: &Server<'_>,
) -> Option<PullSettings> {
    if !server.native_pull {
        return None;
    }
    let found = recognised(path.text("runOnDemand"), key, conf_name, server)?;
    let pull = sources::pull(path, UrlTemplate::new(found.url, key.pattern().cloned()));
    // ffmpeg takes any certificate unless it is told not to; a pull takes none that it cannot verify.
    if found.is_encrypted && !found.is_verified && pull.fingerprint.is_none() {
        return None;
    }
    // These are of `source`, which there is none of.
    Some(PullSettings { transport: found.transport, range: None, scale: None, ..pull })
}

/// What an operator reads of it; `path` is the key of an entry.
pub(super) fn notice(path: &str) -> String {
    format!(
        "'runOnDemand' of path '{path}' only copies a stream, and is served by the native pull instead; \
         engine.nativePull: no runs it as written"
    )
}

/// What a command amounts to.
struct Found {
    /// Names of groups are `${G1}`, that of the path `${MTX_PATH}`; nothing else begins with `$`.
    url: Arc<str>,
    transport: PullTransport,
    is_encrypted: bool,
    is_verified: bool,
}

/// A command, word by word.
struct Words<'a> {
    words: std::vec::IntoIter<String>,
    key: &'a PathKey,
    server: &'a Server<'a>,
}

fn recognised(command: &str, key: &PathKey, conf_name: &str, server: &Server<'_>) -> Option<Found> {
    let words = hooks::split(command).ok()?.into_iter();
    let mut words = Words { words, key, server };
    let program = words.next_plain()?;
    if !PROGRAMS.contains(&program.as_str()) {
        return None;
    }
    let mut transport = PullTransport::Automatic;
    let (mut prefers_tcp, mut is_verified) = (false, false);
    let url = loop {
        let option = words.next_plain()?;
        match option.as_str() {
            "-i" => break words.next()?,
            "-rtsp_transport" => {
                transport = match words.next_plain()?.as_str() {
                    "tcp" => PullTransport::Tcp,
                    "udp" => PullTransport::Udp,
                    "udp_multicast" => PullTransport::Multicast,
                    _ => return None,
                };
            }
            // It would try UDP when TCP is refused, which hardly any source does.
            "-rtsp_flags" => {
                if words.next_plain()? != "prefer_tcp" {
                    return None;
                }
                prefers_tcp = true;
            }
            "-tls_verify" => is_verified = words.next_plain()? == "1",
            option => words.skip(option, INPUT)?,
        }
    };
    let (mut video, mut audio, mut is_rtsp) = (false, false, false);
    let output = loop {
        if words.is_last() {
            break words.next_of_any()?;
        }
        let option = words.next()?;
        match option.as_str() {
            "-c" | "-codec" => {
                words.next_is("copy")?;
                (video, audio) = (true, true);
            }
            "-c:v" | "-codec:v" | "-vcodec" => {
                words.next_is("copy")?;
                video = true;
            }
            "-c:a" | "-codec:a" | "-acodec" => {
                words.next_is("copy")?;
                audio = true;
            }
            "-f" => {
                words.next_is("rtsp")?;
                is_rtsp = true;
            }
            option => words.skip(option, OUTPUT)?,
        }
    };
    if prefers_tcp && transport == PullTransport::Automatic {
        transport = PullTransport::Tcp;
    }
    let is_encrypted = url.starts_with("rtsps://");
    let is_copy = video && audio && is_rtsp;
    (is_copy && is_source(&url) && is_this_path(&output, key, conf_name, server)).then_some(Found {
        url: url.into(),
        transport,
        is_encrypted,
        is_verified,
    })
}

impl Words<'_> {
    /// The next word, variables filled in as hooks do it, but for those that differ from path to path.
    fn next_of_any(&mut self) -> Option<String> {
        let word = self.words.next()?;
        self.filled(&word, |variable| Cow::Owned(format!("${{{variable}}}")))
    }

    /// … of which a `$` that is left would not be taken for a variable later.
    fn next(&mut self) -> Option<String> {
        let word = self.words.as_slice().first()?;
        let has_dollar = self.filled(word, |_| Cow::Borrowed(""))?.contains('$');
        self.next_of_any().filter(|_| !has_dollar)
    }

    /// `None` when it is not the same for a pull: hooks get the query of a viewer escaped.
    fn filled(&self, word: &str, of_path: fn(&'static str) -> Cow<'static, str>) -> Option<String> {
        let has_query = Cell::new(false);
        let filled = hooks::expand(word, |name| {
            has_query.set(has_query.get() || name == "MTX_QUERY");
            match self.key_variable(name) {
                Some(variable) => of_path(variable),
                None if name == "RTSP_PORT" => Cow::Owned(self.server.rtsp_port.to_string()),
                None => Cow::Owned(self.server.env.get(name).unwrap_or_default().to_owned()),
            }
        });
        (!has_query.get()).then_some(filled)
    }

    /// … of which nothing differs from path to path.
    fn next_plain(&mut self) -> Option<String> {
        self.next().filter(|word| !word.contains('$'))
    }

    fn next_is(&mut self, expected: &str) -> Option<()> {
        (self.next_plain()? == expected).then_some(())
    }

    fn is_last(&self) -> bool {
        self.words.len() == 1
    }

    /// Goes past an option that changes nothing. `None` when it is none.
    fn skip(&mut self, option: &str, table: &[(&str, Takes)]) -> Option<()> {
        let (_, takes) = GLOBAL.iter().chain(table).find(|(name, _)| *name == option)?;
        let is_fine = match takes {
            Takes::Nothing => true,
            Takes::Word => !self.next_plain()?.is_empty(),
            Takes::Only(expected) => self.next_plain()? == *expected,
            Takes::Number => is_number(&self.next_plain()?),
            Takes::Flags(known) => {
                let value = self.next_plain()?;
                let flags = value.trim_start_matches(['+', '-']).split(['+', '-']);
                flags.into_iter().all(|flag| known.contains(&flag))
            }
        };
        is_fine.then_some(())
    }

    /// What a variable that differs from path to path is called in a [`UrlTemplate`].
    fn key_variable(&self, name: &str) -> Option<&'static str> {
        const GROUPS: [&str; 9] = ["G1", "G2", "G3", "G4", "G5", "G6", "G7", "G8", "G9"];
        match (name, self.key) {
            ("MTX_PATH" | "RTSP_PATH", _) => Some("MTX_PATH"),
            (_, PathKey::Captured(_, variable)) if **variable == *name => Some("G1"),
            (_, key) => {
                let groups = key.pattern().map_or(0, |pattern| pattern.captures_len() - 1);
                GROUPS.into_iter().take(groups).find(|group| *group == name)
            }
        }
    }
}

fn is_number(text: &str) -> bool {
    let unsigned = text.strip_prefix('-').unwrap_or(text);
    let digits = unsigned.strip_suffix(['k', 'K', 'M', 'G']).unwrap_or(unsigned);
    !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.')
}

/// Whether ffmpeg would ask this URL as a pull does.
fn is_source(url: &str) -> bool {
    let Some(rest) = ["rtsp://", "rtsps://"].iter().find_map(|scheme| url.strip_prefix(scheme)) else {
        return false;
    };
    let query = rest.rsplit_once('?').map_or("", |(_, query)| query);
    if query.split('&').any(|option| URL_OPTIONS.contains(&option.split('=').next().unwrap_or_default())) {
        return false;
    }
    // Groups stand for letters and digits at least.
    let example = url.replace("${", "").replace('}', "");
    !rest.contains(|c: char| c.is_control() || c == ' ') && SourceUrl::parse(&example).is_ok()
}

/// Whether publishing to `url` is publishing to the path itself, whichever of the entry's it is.
fn is_this_path(url: &str, key: &PathKey, conf_name: &str, server: &Server<'_>) -> bool {
    let Some((authority, name)) = url.strip_prefix("rtsp://").and_then(|rest| rest.split_once('/')) else {
        return false;
    };
    // Its user is one of ours, and needs not to be asked for what we do ourselves.
    let place = authority.rsplit_once('@').map_or(authority, |(_, place)| place);
    let (host, port) = match place.strip_prefix("[::1]") {
        Some(rest) => ("::1", rest.strip_prefix(':').or_else(|| rest.is_empty().then_some("554"))),
        None => place.split_once(':').map_or((place, Some("554")), |(host, port)| (host, Some(port))),
    };
    let is_here = matches!(host, "localhost" | "127.0.0.1" | "::1")
        && server.rtsp_port != 0
        && port.is_some_and(|port| port == server.rtsp_port.to_string());
    let is_name = name == "${MTX_PATH}"
        || match key {
            PathKey::Exact => name == conf_name,
            PathKey::Captured(..) => conf_name
                .split_once('~')
                .is_some_and(|(prefix, _)| name.strip_prefix(prefix) == Some("${G1}")),
            PathKey::Pattern(pattern) => only_group(pattern.as_str())
                .is_some_and(|(prefix, suffix)| name == format!("{prefix}${{G1}}{suffix}")),
            PathKey::CatchAll(_) => false,
        };
    is_here && is_name
}

/// Prefix and suffix of a pattern that is anchored, literal but for one group, and so gives back every name it matches
/// from that group: `^milestone_(.+)$`.
fn only_group(pattern: &str) -> Option<(String, String)> {
    let (prefix, rest) = pattern.strip_prefix('^')?.split_once('(')?;
    let (group, suffix) = rest.strip_suffix('$')?.rsplit_once(')')?;
    let is_plain = !group.contains(['(', ')']) && (!group.starts_with('?') || group.starts_with("?P<"));
    is_plain.then_some((literal(prefix)?, literal(suffix)?))
}

/// A part of a pattern that stands for itself alone.
fn literal(pattern: &str) -> Option<String> {
    let text = pattern.replace("\\.", "\0").replace("\\-", "-");
    let is_literal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '/' | '\0');
    text.chars().all(is_literal).then(|| text.replace('\0', "."))
}
