//! Header values with a grammar of their own: Transport, Session, RTP-Info (RFC 2326 §12).

use std::fmt;
use std::time::Duration;

use nom::branch::alt;
use nom::bytes::complete::{is_not, tag_no_case, take_till, take_while1};
use nom::character::complete::{char, space0};
use nom::combinator::{opt, value};
use nom::sequence::{delimited, preceded};
use nom::{IResult, Parser};

/// Alternatives of one Transport header that are looked at; real clients send up to four.
const ALTERNATIVES_MAX: usize = 16;

/// Why a header value cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HeaderError {
    #[error("no alternative of the Transport header can be read")]
    Transport,
    #[error("Session header without an identifier")]
    Session,
}

/// RTP profile of a transport.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Profile {
    #[default]
    Avp,
    /// SRTP (RFC 3711).
    Savp,
}

/// What carries the RTP packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Lower {
    #[default]
    Udp,
    /// Interleaved in the RTSP connection.
    Tcp,
}

/// Direction of a transport (RFC 2326 §12.39, `mode`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    Play,
    /// `record`, or `receive` as old clients call it.
    Record,
}

/// One alternative of a Transport header (RFC 2326 §12.39).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Transport {
    pub profile: Profile,
    pub lower: Lower,
    pub multicast: bool,
    pub destination: Option<String>,
    pub source: Option<String>,
    /// Channels of RTP and RTCP.
    pub interleaved: Option<(u8, u8)>,
    /// RTP and RTCP ports of a multicast group.
    pub port: Option<(u16, u16)>,
    pub ttl: Option<u8>,
    pub client_port: Option<(u16, u16)>,
    pub server_port: Option<(u16, u16)>,
    pub ssrc: Option<u32>,
    /// `None` when the header does not say, which means play.
    pub mode: Option<Mode>,
}

impl Transport {
    /// Whether the client asks to publish.
    pub fn mode_record(&self) -> bool {
        self.mode == Some(Mode::Record)
    }
}

/// Parses the alternatives of a Transport header, in the client's order of preference. Alternatives that
/// cannot be read (unknown profiles, impossible ports) are left out, unknown parameters are ignored.
///
/// # Errors
/// [`HeaderError::Transport`] if no alternative is left.
pub fn parse_transports(value: &str) -> Result<Vec<Transport>, HeaderError> {
    let alternatives: Vec<_> =
        split_outside_quotes(value, ',').take(ALTERNATIVES_MAX).filter_map(parse_transport).collect();
    if alternatives.is_empty() { Err(HeaderError::Transport) } else { Ok(alternatives) }
}

fn parse_transport(alternative: &str) -> Option<Transport> {
    let mut parts = split_outside_quotes(alternative, ';');
    let (_, (profile, lower)) = specifier(parts.next()?.trim()).ok()?;
    let mut transport = Transport { profile, lower, ..Transport::default() };
    for part in parts {
        let Ok((_, (name, value))) = parameter(part.trim()) else { continue };
        match name.to_ascii_lowercase().as_str() {
            "unicast" => transport.multicast = false,
            "multicast" => transport.multicast = true,
            "destination" => transport.destination = owned(value),
            "source" => transport.source = owned(value),
            "interleaved" => transport.interleaved = Some(pair(value, |channel: u8| channel.checked_add(1))?),
            "port" => transport.port = Some(pair(value, |port: u16| port.checked_add(1))?),
            "client_port" => transport.client_port = Some(pair(value, |port: u16| port.checked_add(1))?),
            "server_port" => transport.server_port = Some(pair(value, |port: u16| port.checked_add(1))?),
            "ttl" => transport.ttl = value.parse().ok(),
            "ssrc" => transport.ssrc = ssrc(value),
            "mode" => transport.mode = mode(value),
            _ => {}
        }
    }
    Some(transport)
}

/// `transport "/" profile ["/" lower-transport]`; nothing may follow.
fn specifier(i: &str) -> IResult<&str, (Profile, Lower)> {
    let profile = alt((
        value(Profile::Savp, alt((tag_no_case("RTP/SAVPF"), tag_no_case("RTP/SAVP")))),
        value(Profile::Avp, alt((tag_no_case("RTP/AVPF"), tag_no_case("RTP/AVP")))),
    ));
    let lower = alt((value(Lower::Tcp, tag_no_case("/TCP")), value(Lower::Udp, tag_no_case("/UDP"))));
    let (i, (profile, lower)) = (profile, opt(lower)).parse(i)?;
    let (i, _) = nom::combinator::eof(i)?;
    Ok((i, (profile, lower.unwrap_or_default())))
}

/// `name ["=" value]`, the value in quotes or not.
fn parameter(i: &str) -> IResult<&str, (&str, &str)> {
    let quoted = delimited(char('"'), take_till(|c| c == '"'), char('"'));
    let value = preceded((space0, char('='), space0), alt((quoted, is_not("\""))));
    let (i, (name, value)) = (take_while1(|c: char| c != '=' && !c.is_whitespace()), opt(value)).parse(i)?;
    Ok((i, (name, value.unwrap_or("").trim())))
}

/// `a-b`, or a lone `a` that stands for itself and the one after it.
fn pair<T: std::str::FromStr + Copy>(value: &str, after: fn(T) -> Option<T>) -> Option<(T, T)> {
    match value.split_once('-') {
        Some((first, second)) => Some((first.trim().parse().ok()?, second.trim().parse().ok()?)),
        None => {
            let first = value.parse().ok()?;
            Some((first, after(first)?))
        }
    }
}

/// Cameras write it with and without leading zeros, with `0x`, with blanks, or not as a number at all: then
/// it is as if it were absent.
fn ssrc(value: &str) -> Option<u32> {
    let digits = value.strip_prefix("0x").or_else(|| value.strip_prefix("0X")).unwrap_or(value);
    // The standard parser also takes a sign.
    if digits.starts_with('+') { None } else { u32::from_str_radix(digits, 16).ok() }
}

/// `play`, `record`, or a quoted list of them.
fn mode(value: &str) -> Option<Mode> {
    let mut words = value.split(',').map(str::trim);
    let is_record = |word: &str| word.eq_ignore_ascii_case("record") || word.eq_ignore_ascii_case("receive");
    if words.clone().any(is_record) {
        return Some(Mode::Record);
    }
    words.any(|word| word.eq_ignore_ascii_case("play")).then_some(Mode::Play)
}

fn owned(value: &str) -> Option<String> {
    (!value.is_empty()).then(|| value.to_owned())
}

fn split_outside_quotes(value: &str, separator: char) -> impl Iterator<Item = &str> {
    let mut quoted = false;
    value.split(move |c| {
        quoted ^= c == '"';
        !quoted && c == separator
    })
}

/// In the order of MediaMTX, which players are known to cope with.
impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match (self.profile, self.lower) {
            (Profile::Avp, Lower::Udp) => "RTP/AVP",
            (Profile::Avp, Lower::Tcp) => "RTP/AVP/TCP",
            (Profile::Savp, Lower::Udp) => "RTP/SAVP",
            (Profile::Savp, Lower::Tcp) => "RTP/SAVP/TCP",
        })?;
        f.write_str(if self.multicast { ";multicast" } else { ";unicast" })?;
        if let Some(source) = &self.source {
            write!(f, ";source={source}")?;
        }
        if let Some(destination) = &self.destination {
            write!(f, ";destination={destination}")?;
        }
        if let Some((rtp, rtcp)) = self.interleaved {
            write!(f, ";interleaved={rtp}-{rtcp}")?;
        }
        if let Some((rtp, rtcp)) = self.port {
            write!(f, ";port={rtp}-{rtcp}")?;
        }
        if let Some(ttl) = self.ttl {
            write!(f, ";ttl={ttl}")?;
        }
        if let Some((rtp, rtcp)) = self.client_port {
            write!(f, ";client_port={rtp}-{rtcp}")?;
        }
        if let Some((rtp, rtcp)) = self.server_port {
            write!(f, ";server_port={rtp}-{rtcp}")?;
        }
        if let Some(ssrc) = self.ssrc {
            write!(f, ";ssrc={ssrc:08X}")?;
        }
        match self.mode {
            Some(Mode::Play) => f.write_str(";mode=play"),
            Some(Mode::Record) => f.write_str(";mode=record"),
            None => Ok(()),
        }
    }
}

/// A Session header (RFC 2326 §12.37).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Session<'a> {
    pub id: &'a str,
    /// How long the server keeps a silent session; `None` when it does not say.
    pub timeout: Option<Duration>,
}

/// The identifier of a Session header, without `;timeout=`.
pub fn session_id(value: &str) -> &str {
    value.split(';').next().unwrap_or_default().trim()
}

/// Parses a Session header. A timeout that is not a number of seconds is as if absent.
///
/// # Errors
/// [`HeaderError::Session`] if the identifier is empty.
pub fn parse_session(value: &str) -> Result<Session<'_>, HeaderError> {
    let id = session_id(value);
    if id.is_empty() {
        return Err(HeaderError::Session);
    }
    let timeout = value.split(';').skip(1).find_map(|part| {
        let (name, seconds) = part.split_once('=')?;
        let seconds =
            seconds.trim().parse::<u32>().ok().filter(|_| name.trim().eq_ignore_ascii_case("timeout"))?;
        Some(Duration::from_secs(u64::from(seconds)))
    });
    Ok(Session { id, timeout })
}

/// One entry of an RTP-Info header: where a track continues (RFC 2326 §12.33).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RtpInfoEntry {
    pub url: String,
    /// Sequence number of the first packet to come.
    pub sequence: Option<u16>,
    /// Its RTP timestamp.
    pub rtp_time: Option<u32>,
}

/// An RTP-Info header, one entry per track; written with `to_string`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RtpInfo(pub Vec<RtpInfoEntry>);

impl fmt::Display for RtpInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, entry) in self.0.iter().enumerate() {
            write!(f, "{}url={}", if index == 0 { "" } else { "," }, entry.url)?;
            if let Some(sequence) = entry.sequence {
                write!(f, ";seq={sequence}")?;
            }
            if let Some(rtp_time) = entry.rtp_time {
                write!(f, ";rtptime={rtp_time}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(value: &str) -> Transport {
        let all = parse_transports(value).unwrap();
        assert_eq!(all.len(), 1, "{value}");
        all[0].clone()
    }

    #[test]
    fn transports_of_real_clients_are_read() {
        let udp = Transport::default();
        let tcp = Transport { lower: Lower::Tcp, ..Transport::default() };
        for (value, want) in [
            ("RTP/AVP/TCP;unicast;interleaved=0-1", Transport { interleaved: Some((0, 1)), ..tcp.clone() }),
            ("RTP/AVP/TCP;unicast;interleaved=4", Transport { interleaved: Some((4, 5)), ..tcp.clone() }),
            (
                "RTP/AVP/TCP;unicast;interleaved=0-1;mode=RECORD",
                Transport { interleaved: Some((0, 1)), mode: Some(Mode::Record), ..tcp.clone() },
            ),
            (
                "RTP/AVP/UDP;unicast;client_port=26010-26011;mode=record",
                Transport { client_port: Some((26010, 26011)), mode: Some(Mode::Record), ..udp.clone() },
            ),
            (
                "rtp/avp ; UNICAST ; client_port = 5000 ; mode=\"PLAY\"",
                Transport { client_port: Some((5000, 5001)), mode: Some(Mode::Play), ..udp.clone() },
            ),
            ("RTP/AVP;unicast;mode=\"play,record\"", Transport { mode: Some(Mode::Record), ..udp.clone() }),
            ("RTP/AVP;unicast;mode=receive", Transport { mode: Some(Mode::Record), ..udp.clone() }),
            ("RTP/SAVP/TCP;unicast", Transport { profile: Profile::Savp, ..tcp.clone() }),
            ("RTP/SAVPF;unicast", Transport { profile: Profile::Savp, ..udp.clone() }),
            (
                "RTP/AVP;multicast;destination=224.1.0.1;source=10.0.0.1;port=5000-5001;ttl=127",
                Transport {
                    multicast: true,
                    destination: Some("224.1.0.1".into()),
                    source: Some("10.0.0.1".into()),
                    port: Some((5000, 5001)),
                    ttl: Some(127),
                    ..udp.clone()
                },
            ),
            ("RTP/AVP;unicast;ssrc=1E7E04ED;x-new=1", Transport { ssrc: Some(0x1e7e_04ed), ..udp.clone() }),
            ("RTP/AVP;unicast;ssrc= 0x4d", Transport { ssrc: Some(0x4d), ..udp.clone() }),
            ("RTP/AVP;unicast;ssrc=-12", Transport { ssrc: None, ..udp.clone() }),
            ("RTP/AVP;;unicast;", udp.clone()),
        ] {
            assert_eq!(one(value), want, "{value}");
        }
    }

    #[test]
    fn alternatives_keep_the_clients_order_and_unreadable_ones_are_skipped() {
        let value = "RAW/RAW/UDP;unicast, RTP/AVP;unicast;client_port=70000-70001, \
                     RTP/AVP/TCP;unicast;mode=\"PLAY,RECORD\",RTP/AVP;unicast;client_port=1-2";
        let lowers: Vec<_> = parse_transports(value).unwrap().iter().map(|t| t.lower).collect();
        assert_eq!(lowers, [Lower::Tcp, Lower::Udp]);
    }

    #[test]
    fn transport_headers_without_any_usable_alternative_are_refused() {
        for value in [
            "",
            ",",
            "RTP",
            "RTP/AVPX;unicast",
            "RTP/AVP/SCTP",
            "RTP/AVP;client_port=65535",
            "RTP/AVP/TCP;interleaved=255",
            "RTP/AVP/TCP;interleaved=a-b",
            "RTP/AVP;client_port=1-",
        ] {
            assert_eq!(parse_transports(value), Err(HeaderError::Transport), "{value}");
        }
    }

    #[test]
    fn transport_is_written_as_mediamtx_writes_it() {
        for value in [
            "RTP/AVP/TCP;unicast;interleaved=0-1;ssrc=1E7E04ED",
            "RTP/AVP;unicast;client_port=46190-46191;server_port=8000-8001;ssrc=1E7E04ED",
            "RTP/AVP;multicast;destination=224.1.0.1;port=5000-5001;ttl=127;ssrc=0000004D",
            "RTP/SAVP;unicast;client_port=1-2;mode=record",
        ] {
            assert_eq!(one(value).to_string(), value);
        }
    }

    #[test]
    fn session_header_gives_identifier_and_timeout() {
        let timeout = |seconds| Some(Duration::from_secs(seconds));
        assert_eq!(parse_session("abc;timeout=55"), Ok(Session { id: "abc", timeout: timeout(55) }));
        assert_eq!(parse_session(" abc ; Timeout = 60 "), Ok(Session { id: "abc", timeout: timeout(60) }));
        assert_eq!(parse_session("abc;timeout=soon"), Ok(Session { id: "abc", timeout: None }));
        assert_eq!(parse_session(";timeout=55"), Err(HeaderError::Session));
        assert_eq!(session_id("7447ba45;timeout=55"), "7447ba45");
    }

    #[test]
    fn rtp_info_is_written_as_in_the_transcripts() {
        let entry = |n: u32, sequence, rtp_time| RtpInfoEntry {
            url: format!("rtsp://127.0.0.1:8555/cam/trackID={n}"),
            sequence,
            rtp_time,
        };
        let info = RtpInfo(vec![entry(0, Some(1375), Some(3_483_797_594)), entry(1, None, None)]);
        let want = "url=rtsp://127.0.0.1:8555/cam/trackID=0;seq=1375;rtptime=3483797594,\
                    url=rtsp://127.0.0.1:8555/cam/trackID=1";
        assert_eq!(info.to_string(), want);
    }
}
