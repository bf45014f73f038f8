//! Media playlists as they are written, line by line.

use super::Finding;

/// `EXT-X-SERVER-CONTROL`; times in microseconds.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Control {
    pub can_block_reload: bool,
    pub part_hold_back: Option<i64>,
    pub hold_back: Option<i64>,
    pub can_skip_until: Option<i64>,
}

/// `EXT-X-PART`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PartTag {
    pub uri: String,
    /// Microseconds.
    pub duration: i64,
    pub independent: bool,
    pub gap: bool,
}

/// A segment with the tags that apply to it. The last one of a playlist may have parts and no URI yet.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MediaSegment {
    pub uri: Option<String>,
    /// Microseconds; 0 while it is open.
    pub duration: i64,
    pub parts: Vec<PartTag>,
    pub discontinuity: bool,
    /// The initialisation section that holds for it.
    pub map: Option<String>,
    /// Unix time in milliseconds.
    pub date: Option<i64>,
    pub gap: bool,
}

/// `EXT-X-RENDITION-REPORT`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    pub uri: String,
    pub last_msn: Option<u64>,
    pub last_part: Option<u64>,
}

/// A media playlist.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MediaPlaylist {
    pub version: u32,
    /// Seconds.
    pub target_duration: Option<i64>,
    pub control: Option<Control>,
    /// Microseconds.
    pub part_target: Option<i64>,
    pub media_sequence: u64,
    pub discontinuity_sequence: Option<u64>,
    /// `EXT-X-SKIP`.
    pub skipped: Option<u64>,
    pub segments: Vec<MediaSegment>,
    /// URIs of `EXT-X-PRELOAD-HINT` of type PART, and of type MAP.
    pub part_hints: Vec<String>,
    pub map_hints: Vec<String>,
    pub reports: Vec<Report>,
    pub ended: bool,
    pub has_playlist_type: bool,
}

impl MediaPlaylist {
    /// Complete segments.
    pub fn complete(&self) -> impl DoubleEndedIterator<Item = &MediaSegment> {
        self.segments.iter().filter(|segment| segment.uri.is_some())
    }

    /// The one that has parts and is not complete.
    pub fn open(&self) -> Option<&MediaSegment> {
        self.segments.last().filter(|segment| segment.uri.is_none())
    }

    /// Segments with their Media Sequence Numbers.
    pub fn numbered(&self) -> impl Iterator<Item = (u64, &MediaSegment)> {
        (self.media_sequence + self.skipped.unwrap_or(0)..).zip(&self.segments)
    }

    /// Microseconds of the complete segments that are in the text.
    pub fn duration(&self) -> i64 {
        self.complete().map(|segment| segment.duration).sum()
    }
}

/// Reads a media playlist. What is wrong with single lines is found here; the rest is left to the other judges.
pub fn parse(text: &str) -> (MediaPlaylist, Vec<Finding>) {
    let mut reader = Reader::default();
    let mut lines = text.lines();
    if lines.next() != Some("#EXTM3U") {
        reader.error("4.4.1.1", "the first line is not #EXTM3U");
    }
    if text.starts_with('\u{feff}') || text.chars().any(|c| c.is_control() && c != '\n' && c != '\r') {
        reader.error("4.1", "a byte order mark or control characters in the text");
    }
    for line in lines.filter(|line| !line.is_empty()) {
        match line.strip_prefix("#EXT") {
            Some(tag) => {
                let (name, value) = tag.split_once(':').unwrap_or((tag, ""));
                reader.tag(name, value);
            }
            None if line.starts_with('#') => {}
            None => reader.uri(line),
        }
    }
    reader.finish()
}

#[derive(Default)]
struct Reader {
    playlist: MediaPlaylist,
    findings: Vec<Finding>,
    current: MediaSegment,
    map: Option<String>,
    has_duration: bool,
    seen: Vec<String>,
}

impl Reader {
    fn error(&mut self, section: &'static str, text: impl Into<String>) {
        self.findings.push(Finding::error(section, text));
    }

    /// Tags of which there may be one.
    fn once(&mut self, name: &str) {
        if self.seen.iter().any(|seen| seen == name) {
            self.error("4.4.3", format!("#EXT{name} comes twice"));
        }
        self.seen.push(name.to_owned());
    }

    fn before_segments(&mut self, name: &str) {
        if !self.playlist.segments.is_empty() || self.current != MediaSegment::default() {
            self.error("4.4.3", format!("#EXT{name} comes after the first segment"));
        }
    }

    fn number(&mut self, section: &'static str, name: &str, value: &str) -> Option<u64> {
        let number = value.parse().ok();
        if number.is_none() {
            self.error(section, format!("#EXT{name} has no number: {value:?}"));
        }
        number
    }

    fn tag(&mut self, name: &str, value: &str) {
        match name {
            "-X-VERSION" => {
                self.once(name);
                self.playlist.version = self.number("4.4.1.2", name, value).unwrap_or(0) as u32;
            }
            "-X-TARGETDURATION" => {
                self.once(name);
                self.playlist.target_duration =
                    self.number("4.4.3.1", name, value).map(|seconds| seconds as i64);
            }
            "-X-MEDIA-SEQUENCE" => {
                self.once(name);
                self.before_segments(name);
                self.playlist.media_sequence = self.number("4.4.3.2", name, value).unwrap_or(0);
            }
            "-X-DISCONTINUITY-SEQUENCE" => {
                self.once(name);
                self.before_segments(name);
                self.playlist.discontinuity_sequence = self.number("4.4.3.3", name, value);
            }
            "-X-ENDLIST" => self.playlist.ended = true,
            "-X-PLAYLIST-TYPE" => self.playlist.has_playlist_type = true,
            "-X-SERVER-CONTROL" => self.control(value),
            "-X-PART-INF" => {
                self.once(name);
                self.playlist.part_target = self.seconds("4.4.3.7", "PART-TARGET", value);
                if self.playlist.part_target.is_none() {
                    self.error("4.4.3.7", "EXT-X-PART-INF without PART-TARGET");
                }
            }
            "-X-SKIP" => {
                self.once(name);
                let skipped = attribute(value, "SKIPPED-SEGMENTS").unwrap_or_default().to_owned();
                self.playlist.skipped = self.number("4.4.5.2", name, &skipped);
            }
            "-X-DISCONTINUITY" => {
                self.not_after_part(name);
                self.current.discontinuity = true;
            }
            "-X-MAP" => {
                self.not_after_part(name);
                self.map = self.required_uri("4.4.4.5", name, value);
            }
            "-X-PROGRAM-DATE-TIME" => {
                self.not_after_part(name);
                self.current.date = date(value);
                if self.current.date.is_none() {
                    self.error("4.4.4.6", format!("not a date with zone and milliseconds: {value:?}"));
                }
            }
            "-X-GAP" => self.current.gap = true,
            "INF" => {
                let duration = value.split(',').next().and_then(micros);
                if duration.is_none() {
                    self.error("4.4.4.1", format!("EXTINF without a duration: {value:?}"));
                }
                if !value.contains(',') {
                    self.error("4.4.4.1", "EXTINF without its comma");
                }
                self.current.duration = duration.unwrap_or(0);
                self.has_duration = true;
            }
            "-X-PART" => {
                let uri = self.required_uri("4.4.4.9", name, value).unwrap_or_default();
                let duration = self.seconds("4.4.4.9", "DURATION", value);
                if duration.is_none() {
                    self.error("4.4.4.9", format!("part {uri} has no DURATION"));
                }
                let yes = |key| attribute(value, key) == Some("YES");
                let (independent, gap) = (yes("INDEPENDENT"), yes("GAP"));
                self.current.parts.push(PartTag { uri, duration: duration.unwrap_or(0), independent, gap });
            }
            "-X-PRELOAD-HINT" => {
                let Some(uri) = self.required_uri("4.4.5.3", name, value) else { return };
                match attribute(value, "TYPE") {
                    Some("PART") => self.playlist.part_hints.push(uri),
                    Some("MAP") => self.playlist.map_hints.push(uri),
                    other => self.error("4.4.5.3", format!("preload hint of type {other:?}")),
                }
            }
            "-X-RENDITION-REPORT" => {
                let Some(uri) = self.required_uri("4.4.5.4", name, value) else { return };
                if uri.contains("://") || uri.starts_with('/') {
                    self.error("4.4.5.4", format!("the URI of a rendition report is not relative: {uri}"));
                }
                let number = |key| attribute(value, key).and_then(|value| value.parse().ok());
                let (last_msn, last_part) = (number("LAST-MSN"), number("LAST-PART"));
                self.playlist.reports.push(Report { uri, last_msn, last_part });
            }
            "-X-STREAM-INF" | "-X-MEDIA" | "-X-I-FRAME-STREAM-INF" | "-X-SESSION-DATA" => {
                self.error("4.4.6", format!("#EXT{name} in a media playlist"));
            }
            _ => {}
        }
    }

    fn control(&mut self, value: &str) {
        self.once("-X-SERVER-CONTROL");
        let mut seconds = |key| self.seconds("4.4.3.8", key, value);
        let control = Control {
            part_hold_back: seconds("PART-HOLD-BACK"),
            hold_back: seconds("HOLD-BACK"),
            can_skip_until: seconds("CAN-SKIP-UNTIL"),
            can_block_reload: attribute(value, "CAN-BLOCK-RELOAD") == Some("YES"),
        };
        if attribute(value, "CAN-SKIP-DATERANGES").is_some() && control.can_skip_until.is_none() {
            self.error("4.4.3.8", "CAN-SKIP-DATERANGES without CAN-SKIP-UNTIL");
        }
        self.playlist.control = Some(control);
    }

    /// Tags of a segment apply to its first part, too, and so precede it.
    fn not_after_part(&mut self, name: &str) {
        if !self.current.parts.is_empty() {
            self.error("4.4.4.9", format!("#EXT{name} comes after a part of its segment"));
        }
    }

    fn required_uri(&mut self, section: &'static str, name: &str, value: &str) -> Option<String> {
        let uri = attribute(value, "URI").filter(|uri| !uri.is_empty()).map(str::to_owned);
        if uri.is_none() {
            self.error(section, format!("#EXT{name} has no URI"));
        }
        uri
    }

    fn seconds(&mut self, section: &'static str, key: &str, value: &str) -> Option<i64> {
        let text = attribute(value, key)?;
        let micros = micros(text);
        if micros.is_none() {
            self.error(section, format!("{key} is not a number: {text:?}"));
        }
        micros
    }

    fn uri(&mut self, uri: &str) {
        if !self.has_duration {
            self.error("4.4.4.1", format!("segment {uri} has no EXTINF"));
        }
        let mut segment = std::mem::take(&mut self.current);
        segment.uri = Some(uri.to_owned());
        segment.map.clone_from(&self.map);
        self.has_duration = false;
        self.playlist.segments.push(segment);
    }

    fn finish(mut self) -> (MediaPlaylist, Vec<Finding>) {
        if self.has_duration {
            self.error("4.4.4.1", "the last EXTINF has no URI");
        }
        if !self.current.parts.is_empty() {
            self.current.map.clone_from(&self.map);
            self.playlist.segments.push(self.current);
        }
        (self.playlist, self.findings)
    }
}

/// The value of an attribute (§4.2), without its quotes.
pub(super) fn attribute<'a>(list: &'a str, name: &str) -> Option<&'a str> {
    let mut rest = list;
    while !rest.is_empty() {
        let (key, after) = rest.split_once('=')?;
        let (value, next) = match after.strip_prefix('"') {
            Some(quoted) => {
                let (value, next) = quoted.split_once('"')?;
                (value, next.strip_prefix(',').unwrap_or(next))
            }
            None => after.split_once(',').unwrap_or((after, "")),
        };
        if key.trim() == name {
            return Some(value);
        }
        rest = next;
    }
    None
}

/// A decimal number of seconds as microseconds.
fn micros(text: &str) -> Option<i64> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || !digits(whole) || !digits(fraction) || whole.len() > 10 {
        return None;
    }
    let fraction = format!("{fraction:0<6.6}");
    Some(whole.parse::<i64>().ok()? * 1_000_000 + fraction.parse::<i64>().ok()?)
}

/// `YYYY-MM-DDThh:mm:ss.sssZ`, or with an offset, as Unix milliseconds.
fn date(text: &str) -> Option<i64> {
    let number = |range: std::ops::Range<usize>| text.get(range)?.parse::<i64>().ok();
    let (year, month, day) = (number(0..4)?, number(5..7)?, number(8..10)?);
    let (hour, minute, second) = (number(11..13)?, number(14..16)?, number(17..19)?);
    let milli = number(20..23)?;
    let offset = match text.get(23..)? {
        "Z" => 0,
        zone => {
            let sign = if zone.starts_with('-') { -1 } else { 1 };
            sign * (number(24..26)? * 60 + number(27..29).or(number(26..28))?)
        }
    };
    let (y, m) = if month <= 2 { (year - 1, month + 9) } else { (year, month - 3) };
    let era = y.div_euclid(400);
    let of_era = y.rem_euclid(400);
    let of_year = (153 * m + 2) / 5 + day - 1;
    let days = era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468;
    Some((((days * 24 + hour) * 60 + minute - offset) * 60 + second) * 1000 + milli)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_numbers_and_dates_are_read() {
        let list = "TYPE=PART,URI=\"a,b=c.mp4\",DURATION=0.2";
        assert_eq!(attribute(list, "URI"), Some("a,b=c.mp4"));
        assert_eq!(attribute(list, "DURATION"), Some("0.2"));
        assert_eq!(attribute(list, "GAP"), None);
        assert_eq!(micros("1.0000019"), Some(1_000_001));
        assert_eq!(micros("12"), Some(12_000_000));
        assert_eq!(micros("-1"), None);
        assert_eq!(date("2024-02-29T23:59:59.123Z"), Some(1_709_251_199_123));
        assert_eq!(date("2024-03-01T01:59:59.123+02:00"), Some(1_709_251_199_123));
        assert_eq!(date("2024-02-29 23:59"), None);
    }
}
