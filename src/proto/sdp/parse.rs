//! Descriptions from cameras and publishers. They are rarely right: what cannot be understood is skipped, one
//! broken media does not cost the others.

use corecast_media::codec::aac;
use corecast_media::{Codec, Kind, Track};
use nom::bytes::complete::{take_till1, take_while};
use nom::character::complete::{char, space0, space1, u8 as number_u8};
use nom::combinator::{opt, rest, verify};
use nom::sequence::{preceded, terminated};
use nom::{IResult, Parser};

use super::fmtp;

/// Bytes of a description.
pub const BYTES_MAX: usize = 128 * 1024;
/// Media sections of a description.
pub const MEDIAS_MAX: usize = 64;
/// Payload types looked at in one media section; cameras list up to 20.
const PAYLOAD_TYPES_MAX: usize = 128;
/// Attributes of one kind kept in one media section.
const ATTRIBUTES_MAX: usize = 128;

/// [`SkippedMedia::reason`] of the track that a camera wants to *receive*.
pub const BACK_CHANNEL: &str = "back channel";

/// What a description offers.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SessionDescription {
    /// `s=`; empty when absent or a lone space or dash (RFC 8866 §5.3).
    pub title: String,
    /// In the order of their media sections.
    pub tracks: Vec<Track>,
    pub skipped: Vec<SkippedMedia>,
    /// Session-level `a=control`.
    pub session_control: Option<String>,
}

/// A media section that gave no track.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SkippedMedia {
    /// Line of its `m=`, counted from 1.
    pub line: usize,
    pub reason: &'static str,
}

/// Why a description is refused as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SdpError {
    #[error("session description is longer than {BYTES_MAX} bytes")]
    TooLong,
    #[error("session description has more than {MEDIAS_MAX} medias")]
    TooManyMedias,
    #[error("no media in the session description")]
    NoMedia,
}

/// What to make of the description.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Options {
    /// Turn back channels (ONVIF Streaming Specification §5.3) into tracks instead of skipping them.
    pub keep_back_channels: bool,
}

/// Parses a description, without back channels.
///
/// # Errors
/// See [`SdpError`]. A description in which every media was skipped is not an error.
pub fn parse(text: &[u8]) -> Result<SessionDescription, SdpError> {
    parse_with(text, Options::default())
}

/// Parses a description.
///
/// # Errors
/// See [`SdpError`].
pub fn parse_with(text: &[u8], options: Options) -> Result<SessionDescription, SdpError> {
    if text.len() > BYTES_MAX {
        return Err(SdpError::TooLong);
    }
    let text = String::from_utf8_lossy(text);
    let mut description = SessionDescription::default();
    let mut medias: Vec<Media<'_>> = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let Some((kind, value)) = line.trim().split_once('=') else { continue };
        let kind = kind.trim_end();
        if kind == "m" {
            if medias.len() == MEDIAS_MAX {
                return Err(SdpError::TooManyMedias);
            }
            medias.push(Media::new(index + 1, value));
            continue;
        }
        match (kind, medias.last_mut()) {
            ("a", Some(media)) => media.attribute(value),
            ("a", None) => {
                if let Some(control) = attribute_value(value, "control") {
                    description.session_control = Some(control.to_owned());
                }
            }
            ("s", None) => description.title = printable(value),
            _ => {}
        }
    }
    if description.title == "-" {
        description.title.clear();
    }
    if medias.is_empty() {
        return Err(SdpError::NoMedia);
    }
    for media in &medias {
        match media.track(options) {
            Ok(track) => description.tracks.push(track),
            Err(reason) => description.skipped.push(SkippedMedia { line: media.line, reason }),
        }
    }
    Ok(description)
}

/// One media section as read, before it is judged.
struct Media<'a> {
    line: usize,
    section: Option<(&'a str, &'a str, &'a str)>,
    control: &'a str,
    rtpmaps: Vec<(u8, Rtpmap<'a>)>,
    fmtps: Vec<(u8, &'a str)>,
    sendonly: bool,
}

#[derive(Clone, Copy)]
struct Rtpmap<'a> {
    encoding: &'a str,
    clock_rate: Option<u32>,
    channels: Option<u8>,
}

impl<'a> Media<'a> {
    fn new(line: usize, value: &'a str) -> Self {
        let section = media_line(value).ok().map(|(_, section)| section);
        Self { line, section, control: "", rtpmaps: Vec::new(), fmtps: Vec::new(), sendonly: false }
    }

    fn attribute(&mut self, value: &'a str) {
        if let Some(control) = attribute_value(value, "control") {
            self.control = control;
        } else if let Some(map) = attribute_value(value, "rtpmap") {
            if let Ok((_, map)) = rtpmap(map)
                && self.rtpmaps.len() < ATTRIBUTES_MAX
            {
                self.rtpmaps.push(map);
            }
        } else if let Some(parameters) = attribute_value(value, "fmtp") {
            if let Ok((_, parameters)) = format_parameters(parameters)
                && self.fmtps.len() < ATTRIBUTES_MAX
            {
                self.fmtps.push(parameters);
            }
        } else if value.trim().eq_ignore_ascii_case("sendonly") {
            self.sendonly = true;
        }
    }

    /// The track of the first payload type we know by name, else of the first that is usable at all.
    fn track(&self, options: Options) -> Result<Track, &'static str> {
        let (kind, protocol, formats) = self.section.ok_or("unreadable media line")?;
        let kind = match kind.to_ascii_lowercase().as_str() {
            "video" => Kind::Video,
            "audio" => Kind::Audio,
            "application" => Kind::Application,
            _ => return Err("unknown kind of media"),
        };
        if !protocol.to_ascii_uppercase().contains("RTP/") {
            return Err("not RTP");
        }
        // Only audio has a back channel; a camera that marks its video as sendonly means that it sends.
        if self.sendonly && kind == Kind::Audio && !options.keep_back_channels {
            return Err(BACK_CHANNEL);
        }
        let formats = formats.split_whitespace().take(PAYLOAD_TYPES_MAX);
        let payload_types = formats.filter_map(|format| format.parse::<u8>().ok()).filter(|&pt| pt < 128);
        let mut fallback = None;
        for track in payload_types.filter_map(|payload_type| self.candidate(kind, payload_type)) {
            if track.codec != Codec::Generic {
                return Ok(track);
            }
            fallback.get_or_insert(track);
        }
        fallback.ok_or("no payload type with a clock rate")
    }

    fn candidate(&self, kind: Kind, payload_type: u8) -> Option<Track> {
        let announced = self.rtpmaps.iter().find(|(number, _)| *number == payload_type).map(|(_, map)| *map);
        let written_encoding = announced.map_or("", |map| map.encoding);
        let map = announced.or_else(|| static_rtpmap(payload_type))?;
        let codec = codec_of(kind, map.encoding);
        let clock_rate = map.clock_rate.or_else(|| usual_clock_rate(codec)).filter(|&rate| rate > 0)?;
        let fmtp =
            self.fmtps.iter().find(|(number, _)| *number == payload_type).map_or("", |(_, value)| *value);
        let channels =
            if kind == Kind::Audio { map.channels.or_else(|| implied_channels(codec, fmtp)) } else { None };
        Some(Track {
            kind,
            codec,
            payload_type,
            clock_rate,
            channels,
            encoding: written_encoding.to_owned(),
            fmtp: fmtp.to_owned(),
            control: self.control.to_owned(),
        })
    }
}

/// `<media> <port>["/"<number>] <proto> <fmt>...`, RFC 8866 §5.14; gives media, proto and the formats. The
/// port means nothing in RTSP.
fn media_line(i: &str) -> IResult<&str, (&str, &str, &str)> {
    let word = || terminated(take_till1(char::is_whitespace), space0);
    let (i, (kind, _port, protocol)) = preceded(space0, (word(), word(), word())).parse(i)?;
    let (i, formats) = rest(i)?;
    Ok((i, (kind, protocol, formats)))
}

/// `<name>":"<value>`, RFC 8866 §5.13.
fn attribute_value<'a>(attribute: &'a str, name: &str) -> Option<&'a str> {
    let (found, value) = attribute.split_once(':')?;
    found.trim().eq_ignore_ascii_case(name).then(|| value.trim())
}

/// `<payload type> <encoding name>/<clock rate>[/<channels>]`, RFC 8866 §6.6.
fn rtpmap(i: &str) -> IResult<&str, (u8, Rtpmap<'_>)> {
    let (i, payload_type) = terminated(number_u8, space1).parse(i)?;
    let is_name = |name: &str| !name.trim().is_empty() && !name.trim().contains(char::is_control);
    let (i, encoding) = verify(take_till1(|c: char| c == '/'), is_name).parse(i)?;
    let digits = || preceded((space0, char('/'), space0), take_while(|c: char| c.is_ascii_digit()));
    let (i, (rate, channels)) = (opt(digits()), opt(digits())).parse(i)?;
    let clock_rate = rate.and_then(|digits| digits.parse().ok());
    let channels = channels.and_then(|digits| digits.parse().ok()).filter(|&count| count > 0);
    Ok((i, (payload_type, Rtpmap { encoding: encoding.trim(), clock_rate, channels })))
}

/// Without control characters: a line end inside a value would forge description lines.
pub(super) fn printable(text: &str) -> String {
    let printable: String = text.chars().filter(|c| !c.is_control()).collect();
    printable.trim().to_owned()
}

/// `<payload type> <parameters>`, RFC 8866 §6.15.
fn format_parameters(i: &str) -> IResult<&str, (u8, &str)> {
    let (i, payload_type) = terminated(number_u8, space1).parse(i)?;
    let (i, parameters) = rest(i)?;
    Ok((i, (payload_type, parameters.trim())))
}

/// Payload types that need no `a=rtpmap` (RFC 3551 §6, tables 4 and 5).
pub(super) fn static_encoding(payload_type: u8) -> Option<(&'static str, u32, Option<u8>)> {
    Some(match payload_type {
        0 => ("PCMU", 8_000, Some(1)),
        3 => ("GSM", 8_000, Some(1)),
        4 => ("G723", 8_000, Some(1)),
        5 => ("DVI4", 8_000, Some(1)),
        6 => ("DVI4", 16_000, Some(1)),
        7 => ("LPC", 8_000, Some(1)),
        8 => ("PCMA", 8_000, Some(1)),
        9 => ("G722", 8_000, Some(1)),
        10 => ("L16", 44_100, Some(2)),
        11 => ("L16", 44_100, Some(1)),
        12 => ("QCELP", 8_000, Some(1)),
        13 => ("CN", 8_000, Some(1)),
        14 => ("MPA", 90_000, None),
        15 => ("G728", 8_000, Some(1)),
        16 => ("DVI4", 11_025, Some(1)),
        17 => ("DVI4", 22_050, Some(1)),
        18 => ("G729", 8_000, Some(1)),
        25 => ("CelB", 90_000, None),
        26 => ("JPEG", 90_000, None),
        28 => ("nv", 90_000, None),
        31 => ("H261", 90_000, None),
        32 => ("MPV", 90_000, None),
        33 => ("MP2T", 90_000, None),
        34 => ("H263", 90_000, None),
        _ => return None,
    })
}

fn static_rtpmap(payload_type: u8) -> Option<Rtpmap<'static>> {
    let (encoding, clock_rate, channels) = static_encoding(payload_type)?;
    Some(Rtpmap { encoding, clock_rate: Some(clock_rate), channels })
}

/// The codec of an encoding name (case does not matter, RFC 8866 §6.6).
fn codec_of(kind: Kind, encoding: &str) -> Codec {
    let name = encoding.to_ascii_uppercase();
    match (kind, name.as_str()) {
        (Kind::Video, "H264") => Codec::H264,
        (Kind::Video, "H265" | "HEVC") => Codec::H265,
        (Kind::Video, "VP8") => Codec::Vp8,
        (Kind::Video, "VP9") => Codec::Vp9,
        (Kind::Video, "AV1") => Codec::Av1,
        (Kind::Video, "JPEG") => Codec::Mjpeg,
        (Kind::Video, "MP4V-ES") => Codec::Mpeg4Video,
        (Kind::Video, "MPV") => Codec::Mpeg12Video,
        (Kind::Video | Kind::Application, "MP2T") => Codec::MpegTs,
        (Kind::Application, "SMPTE336M") => Codec::Klv,
        (Kind::Audio, "OPUS" | "MULTIOPUS") => Codec::Opus,
        (Kind::Audio, "FLAC") => Codec::Flac,
        (Kind::Audio, "VORBIS") => Codec::Vorbis,
        (Kind::Audio, "MPEG4-GENERIC") => Codec::Mpeg4Audio,
        (Kind::Audio, "MP4A-LATM") => Codec::Mpeg4AudioLatm,
        (Kind::Audio, "MPA") => Codec::Mpeg12Audio,
        (Kind::Audio, "AC3") => Codec::Ac3,
        (Kind::Audio, "SPEEX") => Codec::Speex,
        (Kind::Audio, "G722") => Codec::G722,
        (Kind::Audio, "PCMU" | "PCMA") => Codec::G711,
        (Kind::Audio, "L8" | "L16" | "L24") => Codec::Lpcm,
        (Kind::Audio, name) if name.trim_start_matches("AAL2-").starts_with("G726-") => Codec::G726,
        _ => Codec::Generic,
    }
}

/// For cameras that leave the clock rate out of `a=rtpmap`.
fn usual_clock_rate(codec: Codec) -> Option<u32> {
    match codec {
        Codec::Av1
        | Codec::Vp9
        | Codec::Vp8
        | Codec::H265
        | Codec::H264
        | Codec::Mpeg4Video
        | Codec::Mpeg12Video
        | Codec::Mpeg12Audio
        | Codec::Mjpeg
        | Codec::MpegTs
        | Codec::Klv => Some(90_000),
        Codec::Opus => Some(48_000),
        Codec::G711 | Codec::G722 | Codec::G726 => Some(8_000),
        // The clock is the sampling rate, which only the description knows.
        Codec::Flac
        | Codec::Vorbis
        | Codec::Mpeg4Audio
        | Codec::Mpeg4AudioLatm
        | Codec::Ac3
        | Codec::Speex
        | Codec::Lpcm
        | Codec::Generic => None,
    }
}

/// For AAC the configuration knows better than the default of one channel (RFC 8866 §6.6).
fn implied_channels(codec: Codec, parameters: &str) -> Option<u8> {
    match codec {
        Codec::Mpeg4Audio => {
            let config = fmtp::get(parameters, "config").and_then(aac::AudioSpecificConfig::from_hex);
            Some(config.map_or(1, |config| config.channels))
        }
        // Their bitstream states it.
        Codec::Mpeg12Audio | Codec::Mpeg4AudioLatm | Codec::Ac3 => None,
        _ => Some(1),
    }
}
