//! The text of playlists (rfc8216bis §4), rendered once per change and shared by all who ask.

use std::fmt::Write as _;
use std::io::Write as _;
use std::sync::Arc;

use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};

use super::Variant;
use super::clock::nanos;
use super::rendition::{Part, Position, Rendition, Segment};

/// How many complete segments keep their parts in the playlist, beside the open one: players are at the live edge.
const SEGMENTS_WITH_PARTS: usize = 2;

/// A playlist, and where in it a query can be put after each URI.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Text {
    pub plain: Bytes,
    slots: Arc<[u32]>,
}

impl Text {
    /// The text with `query` (such as `?session=…`) after each of its URIs. Copies it; without a query, take `plain`.
    pub fn with_query(&self, query: &str) -> Bytes {
        let mut out = Vec::with_capacity(self.plain.len() + self.slots.len() * query.len());
        let mut from = 0;
        for &slot in &*self.slots {
            out.extend_from_slice(&self.plain[from..slot as usize]);
            out.extend_from_slice(query.as_bytes());
            from = slot as usize;
        }
        out.extend_from_slice(&self.plain[from..]);
        Bytes::from(out)
    }

    /// As `Content-Encoding: gzip`.
    pub fn gzip(&self) -> Bytes {
        let mut encoder = GzEncoder::new(Vec::with_capacity(self.plain.len() / 4), Compression::fast());
        // Writing into memory does not fail.
        let _ = encoder.write_all(&self.plain);
        Bytes::from(encoder.finish().unwrap_or_default())
    }
}

/// The forms of one playlist at one revision.
#[derive(Debug, Clone)]
pub(super) struct Rendered {
    pub revision: u64,
    pub full: Text,
    /// The delta update (§6.2.5.1); the full text when there is nothing to skip.
    pub delta: Text,
    pub full_gzip: Option<Bytes>,
    pub delta_gzip: Option<Bytes>,
}

/// Builds text and remembers where its URIs end.
#[derive(Default)]
struct Writer {
    text: String,
    slots: Vec<u32>,
}

impl Writer {
    fn line(&mut self, line: std::fmt::Arguments<'_>) {
        let _ = self.text.write_fmt(line);
        self.text.push('\n');
    }

    /// `before`, a URI, `after`, end of line.
    fn uri(&mut self, before: std::fmt::Arguments<'_>, uri: std::fmt::Arguments<'_>, after: &str) {
        let _ = self.text.write_fmt(before);
        let _ = self.text.write_fmt(uri);
        self.slots.push(self.text.len() as u32);
        self.text.push_str(after);
        self.text.push('\n');
    }

    fn finish(self) -> Text {
        Text { plain: Bytes::from(self.text), slots: self.slots.into() }
    }
}

/// What is the same in all playlists of a muxer, and what they tell of each other.
#[derive(Debug, Clone)]
pub(super) struct Common {
    /// Seconds.
    pub target_duration: u32,
    /// Milliseconds, rounded up; the same in all renditions (§6.2.4).
    pub part_hold_back_ms: i64,
    /// The other renditions: name of the playlist, last part.
    pub reports: Vec<(String, Position)>,
}

/// `part_target`: ticks.
pub(super) fn render(rendition: &Rendition, common: &Common, part_target: i64) -> Rendered {
    let full = media(rendition, common, part_target, 0);
    let skipped = skippable(rendition, common);
    let delta = if skipped > 0 { media(rendition, common, part_target, skipped) } else { full.clone() };
    Rendered { revision: rendition.revision, full, delta, full_gzip: None, delta_gzip: None }
}

/// Segments that lie wholly before the skip boundary of six Target Durations (§4.4.3.8).
fn skippable(rendition: &Rendition, common: &Common) -> usize {
    if rendition.variant != Variant::LowLatency {
        return 0;
    }
    let boundary = 6 * i64::from(common.target_duration) * i64::from(rendition.timescale);
    let mut after = rendition.listed_duration();
    let segments = rendition.listed();
    segments
        .take_while(|segment| {
            after -= segment.duration;
            after >= boundary
        })
        .count()
}

fn media(rendition: &Rendition, common: &Common, part_target: i64, skipped: usize) -> Text {
    let low_latency = rendition.variant == Variant::LowLatency;
    let fragmented = rendition.variant != Variant::MpegTs;
    let w = &mut Writer::default();
    w.text.reserve(6 * 1024);
    let target = common.target_duration;
    w.line(format_args!("#EXTM3U"));
    // §8: EXT-X-SKIP needs version 9, EXT-X-MAP needs 6, fractions of a second need 3.
    let version = if low_latency { 9 } else { if fragmented { 6 } else { 3 } };
    w.line(format_args!("#EXT-X-VERSION:{version}"));
    w.line(format_args!("#EXT-X-TARGETDURATION:{target}"));
    if low_latency {
        w.line(format_args!(
            "#EXT-X-SERVER-CONTROL:CAN-BLOCK-RELOAD=YES,PART-HOLD-BACK={},HOLD-BACK={},CAN-SKIP-UNTIL={}",
            Millis(common.part_hold_back_ms),
            3 * target,
            6 * target
        ));
        w.line(format_args!(
            "#EXT-X-PART-INF:PART-TARGET={}",
            Millis(millis_up(part_target, rendition.timescale))
        ));
    }
    w.line(format_args!("#EXT-X-MEDIA-SEQUENCE:{}", rendition.media_sequence()));
    w.line(format_args!("#EXT-X-DISCONTINUITY-SEQUENCE:{}", rendition.discontinuity_sequence));
    if skipped > 0 {
        w.line(format_args!("#EXT-X-SKIP:SKIPPED-SEGMENTS={skipped}"));
    }
    let mut init = rendition.listed().take(skipped).next_back().map(|segment| segment.init);
    let count = rendition.listed().len();
    for (index, segment) in rendition.listed().enumerate().skip(skipped) {
        head(w, rendition, segment, &mut init);
        if low_latency && index + SEGMENTS_WITH_PARTS >= count && segment.part_target == part_target {
            for part in &segment.parts {
                self::part(w, rendition, part);
            }
        }
        w.line(format_args!("#EXTINF:{},", Seconds(segment.duration, rendition.timescale)));
        w.uri(format_args!(""), format_args!("{}", SegmentName(rendition, segment.msn)), "");
    }
    if low_latency {
        if let Some(open) = rendition.open() {
            if !open.parts.is_empty() {
                head(w, rendition, open, &mut init);
            }
            for part in &open.parts {
                self::part(w, rendition, part);
            }
        }
        let next = PartName(rendition, rendition.next_part());
        w.uri(format_args!("#EXT-X-PRELOAD-HINT:TYPE=PART,URI=\""), format_args!("{next}"), "\"");
        for (name, last) in &common.reports {
            let after = format!("\",LAST-MSN={},LAST-PART={}", last.msn, last.part);
            w.uri(format_args!("#EXT-X-RENDITION-REPORT:URI=\""), format_args!("{name}"), &after);
        }
    }
    std::mem::take(w).finish()
}

/// The tags that precede a segment's parts.
fn head(w: &mut Writer, rendition: &Rendition, segment: &Segment, init: &mut Option<u32>) {
    if segment.discontinuity {
        w.line(format_args!("#EXT-X-DISCONTINUITY"));
    }
    if rendition.variant != Variant::MpegTs && *init != Some(segment.init) {
        *init = Some(segment.init);
        w.uri(format_args!("#EXT-X-MAP:URI=\""), format_args!("{}", InitName(rendition, segment.init)), "\"");
    }
    w.line(format_args!("#EXT-X-PROGRAM-DATE-TIME:{}", Date(segment.date)));
}

fn part(w: &mut Writer, rendition: &Rendition, part: &Part) {
    let after = if part.independent { "\",INDEPENDENT=YES" } else { "\"" };
    let duration = Seconds(part.duration, rendition.timescale);
    let name = PartName(rendition, part.number);
    w.uri(format_args!("#EXT-X-PART:DURATION={duration},URI=\""), format_args!("{name}"), after);
}

/// What the multivariant playlist tells of a muxer.
#[derive(Debug)]
pub(super) struct Presentation<'a> {
    pub variant: Variant,
    /// Every segment so far began with a key picture, and will.
    pub independent_segments: bool,
    pub lead: &'a Rendition,
    /// In MPEG-TS the sound is in the lead's segments.
    pub audio: Vec<&'a Rendition>,
    /// All codecs, in order.
    pub codecs: Vec<String>,
    /// Pictures per second, in thousandths.
    pub frame_rate_milli: Option<u64>,
}

/// `directory`: what precedes the names of the media playlists, such as a session's `…/`; may be empty.
pub(super) fn multivariant(presentation: &Presentation<'_>, directory: &str) -> Text {
    let w = &mut Writer::default();
    let Presentation { variant, lead, audio, .. } = presentation;
    w.line(format_args!("#EXTM3U"));
    let version = match variant {
        Variant::LowLatency => 9,
        Variant::Fmp4 => 6,
        Variant::MpegTs => 3,
    };
    w.line(format_args!("#EXT-X-VERSION:{version}"));
    if presentation.independent_segments {
        w.line(format_args!("#EXT-X-INDEPENDENT-SEGMENTS"));
    }
    let alternatives = if *variant == Variant::MpegTs { &[][..] } else { audio.as_slice() };
    for (n, rendition) in alternatives.iter().enumerate() {
        let default = if n == 0 { ",DEFAULT=YES" } else { "" };
        let before = format!(
            "#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID=\"audio\",NAME=\"{}\",AUTOSELECT=YES{default},CHANNELS=\"{}\",URI=\"{directory}",
            rendition.id,
            rendition.config.channels().unwrap_or(2)
        );
        w.uri(format_args!("{before}"), format_args!("{}_stream.m3u8", rendition.id), "\"");
    }
    let (mut average, mut peak) = lead.bandwidth();
    // The most that any combination asks for: one rendition of sound is played at a time.
    let sound = alternatives.iter().map(|rendition| rendition.bandwidth());
    let (audio_average, audio_peak) =
        sound.fold((0, 0), |(a, p), (average, peak)| (a.max(average), p.max(peak)));
    (average, peak) = (average + audio_average, peak + audio_peak);
    let mut line =
        format!("#EXT-X-STREAM-INF:BANDWIDTH={},AVERAGE-BANDWIDTH={}", peak.max(1), average.max(1));
    let _ = write!(line, ",CODECS=\"{}\"", presentation.codecs.join(","));
    if let Some((width, height)) = lead.config.resolution() {
        let _ = write!(line, ",RESOLUTION={width}x{height}");
        if let Some(rate) = presentation.frame_rate_milli {
            let _ = write!(line, ",FRAME-RATE={}.{:03}", rate / 1000, rate % 1000);
        }
    }
    if !alternatives.is_empty() {
        line.push_str(",AUDIO=\"audio\"");
    }
    w.line(format_args!("{line}"));
    w.uri(format_args!("{directory}"), format_args!("{}_stream.m3u8", lead.id), "");
    std::mem::take(w).finish()
}

/// Milliseconds of some ticks, rounded up.
pub(super) fn millis_up(ticks: i64, timescale: u32) -> i64 {
    (ticks * 1000 + i64::from(timescale) - 1) / i64::from(timescale.max(1))
}

/// Seconds with a fraction, from milliseconds.
struct Millis(i64);

impl std::fmt::Display for Millis {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{:03}", self.0 / 1000, self.0 % 1000)
    }
}

/// Seconds with five digits of fraction, rounded down: a part must not seem longer than its target.
struct Seconds(i64, u32);

impl std::fmt::Display for Seconds {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let micros = nanos(self.0, self.1) / 1000;
        write!(f, "{}.{:05}", micros / 1_000_000, micros % 1_000_000 / 10)
    }
}

struct PartName<'a>(&'a Rendition, u64);

impl std::fmt::Display for PartName<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}_{}_part{}.mp4", self.0.prefix, self.0.id, self.1)
    }
}

struct SegmentName<'a>(&'a Rendition, u64);

impl std::fmt::Display for SegmentName<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let extension = if self.0.variant == Variant::MpegTs { "ts" } else { "mp4" };
        write!(f, "{}_{}_seg{}.{extension}", self.0.prefix, self.0.id, self.1)
    }
}

struct InitName<'a>(&'a Rendition, u32);

impl std::fmt::Display for InitName<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}_{}_init", self.0.prefix, self.0.id)?;
        match self.1 {
            1 => f.write_str(".mp4"),
            number => write!(f, "{number}.mp4"),
        }
    }
}

/// Unix time in nanoseconds as ISO 8601 in UTC, to the millisecond.
struct Date(i64);

impl std::fmt::Display for Date {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let ms = self.0.div_euclid(1_000_000);
        let (days, of_day) = (ms.div_euclid(86_400_000), ms.rem_euclid(86_400_000));
        // Days to a date by eras of 400 years that begin in March (H. Hinnant, "chrono-Compatible Low-Level Date
        // Algorithms").
        let shifted = days + 719_468;
        let (era, of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
        let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
        let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let month_from_march = (5 * of_year + 2) / 153;
        let day = of_year - (153 * month_from_march + 2) / 5 + 1;
        let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
        let year = year_of_era + era * 400 + i64::from(month <= 2);
        let (s, ms) = (of_day / 1000, of_day % 1000);
        write!(f, "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}.{ms:03}Z", s / 3600, s / 60 % 60, s % 60)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_written_as_the_calendar_has_them() {
        for (seconds, want) in [
            (0, "1970-01-01T00:00:00.123Z"),
            (951_782_400, "2000-02-29T00:00:00.123Z"),
            (1_709_251_199, "2024-02-29T23:59:59.123Z"),
            (1_798_761_600, "2027-01-01T00:00:00.123Z"),
            (4_107_542_400, "2100-03-01T00:00:00.123Z"),
        ] {
            assert_eq!(Date(seconds * 1_000_000_000 + 123_999_999).to_string(), want);
        }
    }

    #[test]
    fn durations_are_written_rounded_down() {
        assert_eq!(Seconds(18_000, 90_000).to_string(), "0.20000");
        assert_eq!(Seconds(9_216, 48_000).to_string(), "0.19200");
        assert_eq!(Seconds(18_018, 90_000).to_string(), "0.20020");
        assert_eq!(Seconds(1, 90_000).to_string(), "0.00001");
        assert_eq!(Millis(603).to_string(), "0.603");
        assert_eq!(millis_up(18_001, 90_000), 201);
    }

    #[test]
    fn a_query_follows_every_uri() {
        let mut writer = Writer::default();
        writer.uri(format_args!("#EXT-X-MAP:URI=\""), format_args!("a.mp4"), "\"");
        writer.uri(format_args!(""), format_args!("b.mp4"), "");
        let text = writer.finish();
        assert_eq!(text.with_query("?s=1"), "#EXT-X-MAP:URI=\"a.mp4?s=1\"\nb.mp4?s=1\n");
        assert_eq!(text.with_query(""), text.plain);
        assert_eq!(text.gzip()[..2], [0x1f, 0x8b]);
    }
}
