//! Descriptions for readers, in MediaMTX's layout.

use std::fmt::Write;

use corecast_media::{Codec, Track};

use super::fmtp;
use super::parse::{printable, static_encoding};

/// Writes a description with one media section per track; its control is `trackID=<index>`, relative to the
/// Content-Base. H264 is always offered with `packetization-mode=1`, of which mode 0 is a subset (RFC 6184
/// §6.2).
pub fn write(title: &str, tracks: &[Track]) -> String {
    let title = printable(title);
    let title = if title.is_empty() { " " } else { &title };
    let mut text = format!("v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns={title}\r\nc=IN IP4 0.0.0.0\r\nt=0 0\r\n");
    for (index, track) in tracks.iter().enumerate() {
        write_media(index, track, &mut text);
    }
    text
}

fn write_media(index: usize, track: &Track, text: &mut String) {
    let payload_type = track.payload_type;
    // Writing to a String cannot fail.
    let _ = write!(
        text,
        "m={} 0 RTP/AVP {payload_type}\r\na=control:trackID={index}\r\na=rtpmap:{payload_type} {}/{}",
        track.kind.as_str(),
        encoding(track),
        track.clock_rate
    );
    if let Some(channels) = track.channels.filter(|&count| count > 1 || states_one_channel(track.codec)) {
        let _ = write!(text, "/{channels}");
    }
    text.push_str("\r\n");
    let parameters = format_parameters(track);
    if !parameters.is_empty() {
        let _ = write!(text, "a=fmtp:{payload_type} {parameters}\r\n");
    }
}

fn encoding(track: &Track) -> String {
    match track.codec {
        // Some players know only this spelling.
        Codec::Mpeg4Audio => "mpeg4-generic".to_owned(),
        Codec::H265 => "H265".to_owned(),
        _ if !track.encoding.is_empty() => printable(&track.encoding),
        _ => static_encoding(track.payload_type).map_or(String::new(), |(name, ..)| name.to_owned()),
    }
}

/// Codecs whose players expect the channel count even when it is one.
fn states_one_channel(codec: Codec) -> bool {
    matches!(codec, Codec::Mpeg4Audio | Codec::Lpcm | Codec::Opus)
}

/// Known codecs get their parameters sorted, keys in lower case, as MediaMTX writes them; others keep theirs.
fn format_parameters(track: &Track) -> String {
    if track.codec == Codec::Generic {
        return printable(&track.fmtp);
    }
    let line = printable(&track.fmtp);
    let line = match track.codec {
        Codec::H264 => fmtp::set(&line, "packetization-mode", "1"),
        // RFC 3640 §4.1 requires it, FFmpeg leaves it out.
        Codec::Mpeg4Audio if fmtp::get(&line, "streamtype").is_none() => fmtp::set(&line, "streamtype", "5"),
        _ => line,
    };
    let mut parameters: Vec<_> =
        fmtp::parameters(&line).map(|(key, value)| (key.to_ascii_lowercase(), value)).collect();
    parameters.sort_by(|(a, _), (b, _)| a.cmp(b));
    let written = parameters.iter().map(|(key, value)| match *value {
        "" => key.clone(),
        value => format!("{key}={value}"),
    });
    written.collect::<Vec<_>>().join("; ")
}
