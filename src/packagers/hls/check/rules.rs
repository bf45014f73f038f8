//! The rules for playlists.

use std::collections::HashSet;

use super::parse::{MediaPlaylist, MediaSegment, attribute};
use super::{Finding, Severity};

/// Differences that come of writing durations with five digits, microseconds for each.
const ROUNDING: i64 = 20;

/// Judges one media playlist by itself.
pub fn playlist(playlist: &MediaPlaylist) -> Vec<Finding> {
    let mut found = Vec::new();
    header(playlist, &mut found);
    segments(playlist, &mut found);
    parts(playlist, &mut found);
    found
}

fn header(playlist: &MediaPlaylist, found: &mut Vec<Finding>) {
    let mut error = |section, text: String| found.push(Finding::error(section, text));
    let Some(target) = playlist.target_duration else {
        return error("4.4.3.1", "there is no EXT-X-TARGETDURATION".to_owned());
    };
    if target < 1 {
        error("4.4.3.1", format!("a Target Duration of {target}"));
    }
    let target = target * 1_000_000;
    let has_map = playlist.segments.iter().any(|segment| segment.map.is_some());
    for (needed, needs, what) in [
        (9, playlist.skipped.is_some(), "EXT-X-SKIP"),
        (6, has_map, "EXT-X-MAP"),
        (
            3,
            playlist.segments.iter().any(|segment| segment.duration % 1_000_000 != 0),
            "a fraction of a second",
        ),
    ] {
        if needs && playlist.version < needed {
            error("8", format!("{what} needs version {needed}, the playlist says {}", playlist.version));
        }
    }
    let has_parts = playlist.segments.iter().any(|segment| !segment.parts.is_empty());
    if has_parts && playlist.part_target.is_none() {
        error("4.4.3.7", "parts without EXT-X-PART-INF".to_owned());
    }
    if playlist.has_playlist_type && !playlist.ended {
        error("6.2.2", "a live playlist with EXT-X-PLAYLIST-TYPE".to_owned());
    }
    let control = playlist.control.clone().unwrap_or_default();
    if let Some(part_target) = playlist.part_target {
        match control.part_hold_back {
            None => error("4.4.3.8", "PART-HOLD-BACK is missing".to_owned()),
            Some(back) if back < 2 * part_target => {
                error("4.4.3.8", format!("PART-HOLD-BACK of {back} µs is less than twice the part target"));
            }
            Some(back) if back < 3 * part_target => {
                found.push(Finding::warning(
                    "4.4.3.8",
                    format!("PART-HOLD-BACK of {back} µs is less than three times the part target"),
                ));
            }
            Some(_) => {}
        }
        if part_target > target {
            found.push(Finding::error(
                "4.4.3.7",
                format!("the part target of {part_target} µs exceeds the Target Duration"),
            ));
        }
    }
    let mut error = |section, text: String| found.push(Finding::error(section, text));
    if control.can_skip_until.is_some_and(|until| until < 6 * target) {
        error("4.4.3.8", "CAN-SKIP-UNTIL is less than six Target Durations".to_owned());
    }
    if control.hold_back.is_some_and(|back| back < 3 * target) {
        error("4.4.3.8", "HOLD-BACK is less than three Target Durations".to_owned());
    }
    if playlist.skipped.is_some() && control.can_skip_until.is_none() {
        error("6.2.5.1", "EXT-X-SKIP without CAN-SKIP-UNTIL".to_owned());
    }
    if playlist.ended && !playlist.part_hints.is_empty() {
        error("4.4.5.3", "a preload hint in a playlist that has ended".to_owned());
    }
    if playlist.part_hints.len() > 1 || playlist.map_hints.len() > 1 {
        found.push(Finding::warning("6.2.6", "more than one preload hint of a type"));
    }
    if playlist.part_target.is_some() && !playlist.ended && playlist.part_hints.is_empty() {
        found.push(Finding::warning("4.4.5.3", "a low-latency playlist without a preload hint"));
    }
    for report in &playlist.reports {
        if report.last_msn.is_none() || (playlist.part_target.is_some() && report.last_part.is_none()) {
            found.push(Finding::error(
                "4.4.5.4",
                format!("the report of {} lacks LAST-MSN or LAST-PART", report.uri),
            ));
        }
    }
}

fn segments(playlist: &MediaPlaylist, found: &mut Vec<Finding>) {
    let target = playlist.target_duration.unwrap_or(1);
    let mut uris = HashSet::new();
    for (msn, segment) in playlist.numbered() {
        if (segment.duration + 500_000) / 1_000_000 > target {
            found.push(Finding::error(
                "4.4.3.1",
                format!(
                    "segment {msn} lasts {} µs: more than the Target Duration of {target} s",
                    segment.duration
                ),
            ));
        }
        if segment.uri.is_some() && segment.duration <= 0 {
            found.push(Finding::error("4.4.4.1", format!("segment {msn} has no duration")));
        }
        for uri in segment.uri.iter().chain(segment.parts.iter().map(|part| &part.uri)) {
            if !uris.insert(uri.as_str()) {
                found.push(Finding::error("6.2.1", format!("{uri} is in the playlist twice")));
            }
        }
    }
    if let Some(hint) = playlist.part_hints.first().filter(|hint| uris.contains(hint.as_str())) {
        found.push(Finding::error("4.4.5.3", format!("{hint} is hinted, and listed already")));
    }
    if playlist.segments.iter().any(|segment| segment.discontinuity)
        && playlist.discontinuity_sequence.is_none()
    {
        found.push(Finding::error(
            "6.2.2",
            "a live playlist with discontinuities and without EXT-X-DISCONTINUITY-SEQUENCE",
        ));
    }
    let dated = playlist.segments.iter().filter(|segment| segment.date.is_some()).count();
    if dated > 0 && dated < playlist.segments.len() {
        found.push(Finding::warning("6.2.1", "some segments have EXT-X-PROGRAM-DATE-TIME and some have not"));
    }
    // Two segments that are neighbours: their dates follow each other, or overlap by less than a second.
    for (before, after) in playlist.segments.iter().zip(playlist.segments.iter().skip(1)) {
        if let (Some(first), Some(second)) = (before.date, after.date) {
            let overlap = first + before.duration / 1000 - second;
            if (1000..600_000).contains(&overlap) {
                found.push(Finding::error(
                    "6.2.1",
                    format!("dates overlap by {overlap} ms: the mapping is ambiguous"),
                ));
            }
        }
        let changes = before.map != after.map && before.map.is_some();
        if changes && !after.discontinuity {
            found.push(Finding::error("6.2.1", "EXT-X-MAP changes without EXT-X-DISCONTINUITY"));
        }
    }
}

fn parts(playlist: &MediaPlaylist, found: &mut Vec<Finding>) {
    let Some(target) = playlist.part_target else { return };
    for (msn, segment) in playlist.numbered() {
        for (index, part) in segment.parts.iter().enumerate() {
            if part.duration > target {
                found.push(Finding::error(
                    "4.4.4.9",
                    format!(
                        "part {index} of segment {msn} lasts {} µs, the target is {target}",
                        part.duration
                    ),
                ));
            }
            let next = segment.parts.get(index + 1);
            let is_last = next.is_none() && segment.uri.is_some();
            let is_newest = next.is_none() && segment.uri.is_none();
            let excepted = part.independent || part.gap || is_last || next.is_some_and(|next| next.gap);
            // Whether the newest part ends its segment is known only with the next one.
            if !excepted && !is_newest && part.duration * 100 < target * 85 - 100 * ROUNDING {
                found.push(Finding::error(
                    "4.4.4.9",
                    format!(
                        "part {index} of segment {msn} lasts {} µs: less than 85% of {target}",
                        part.duration
                    ),
                ));
            }
            if part.duration <= 0 {
                found.push(Finding::error(
                    "4.4.4.9",
                    format!("part {index} of segment {msn} has no duration"),
                ));
            }
        }
        let sum: i64 = segment.parts.iter().map(|part| part.duration).sum();
        let differs = (sum - segment.duration).abs() > ROUNDING * (1 + segment.parts.len() as i64);
        if segment.uri.is_some() && !segment.parts.is_empty() && differs {
            found.push(Finding::error(
                "4.4.4.9",
                format!("the parts of segment {msn} last {sum} µs, the segment {}", segment.duration),
            ));
        }
    }
    // Parts are at the live edge.
    let end: i64 =
        playlist.duration() + playlist.open().map_or(0, |open| open.parts.iter().map(|p| p.duration).sum());
    let mut at = 0;
    for segment in playlist.complete() {
        at += segment.duration;
        let limit = 3 * playlist.target_duration.unwrap_or(1) * 1_000_000 + segment.duration;
        if !segment.parts.is_empty() && end - at > limit {
            found.push(Finding::warning(
                "6.2.2",
                "parts that are more than three Target Durations from the end",
            ));
        }
    }
    let with_parts: Vec<_> = playlist.segments.iter().map(|segment| !segment.parts.is_empty()).collect();
    if with_parts.windows(2).any(|pair| pair[0] && !pair[1]) {
        found.push(Finding::error(
            "6.2.2",
            "parts were removed from a segment, but not from the one before it",
        ));
    }
}

/// Judges a playlist against the one fetched before it.
pub fn update(before: &MediaPlaylist, after: &MediaPlaylist) -> Vec<Finding> {
    let mut found = Vec::new();
    let mut error = |section, text: String| found.push(Finding::error(section, text));
    if before.target_duration != after.target_duration {
        error("6.2.1", "the Target Duration changed".to_owned());
    }
    if before.part_target != after.part_target {
        error(
            "6.2.1",
            format!("the part target changed from {:?} to {:?}", before.part_target, after.part_target),
        );
    }
    if before.control != after.control {
        error("6.2.1", "EXT-X-SERVER-CONTROL changed".to_owned());
    }
    if before.version != after.version {
        error("6.2.1", "EXT-X-VERSION changed".to_owned());
    }
    if after.media_sequence < before.media_sequence {
        error("6.2.2", "EXT-X-MEDIA-SEQUENCE went back".to_owned());
    }
    let number = |playlist: &MediaPlaylist| playlist.discontinuity_sequence.unwrap_or(0);
    if number(after) < number(before) {
        error("6.2.2", "EXT-X-DISCONTINUITY-SEQUENCE went back".to_owned());
    }
    let end = |playlist: &MediaPlaylist| {
        playlist.media_sequence + playlist.skipped.unwrap_or(0) + playlist.segments.len() as u64
    };
    if end(after) < end(before) {
        error("6.2.1", "the playlist ends earlier than before".to_owned());
    }
    let mut removed_breaks = 0;
    let mut kept = 0;
    for (msn, old) in before.numbered() {
        if msn < after.media_sequence {
            removed_breaks += u64::from(old.discontinuity);
            continue;
        }
        let Some((_, new)) = after.numbered().find(|(number, _)| *number == msn) else { continue };
        kept += 1;
        same_segment(msn, old, new, &mut found);
    }
    let mut error = |section, text: String| found.push(Finding::error(section, text));
    if before.skipped.is_none() && number(after) != number(before) + removed_breaks {
        error(
            "6.2.2",
            format!(
                "{removed_breaks} discontinuities were removed, and EXT-X-DISCONTINUITY-SEQUENCE went from {} to {}",
                number(before),
                number(after)
            ),
        );
    }
    if kept == 0
        && !before.segments.is_empty()
        && after.skipped.is_none()
        && after.media_sequence < end(before)
    {
        error("6.2.2", "segments have other Media Sequence Numbers than before".to_owned());
    }
    let target = after.target_duration.unwrap_or(1) * 1_000_000;
    if after.media_sequence > before.media_sequence
        && after.skipped.is_none()
        && after.duration() + ROUNDING * (after.segments.len() as i64) < 3 * target
    {
        error(
            "6.2.2",
            "segments were removed from a playlist of less than three Target Durations".to_owned(),
        );
    }
    hint(before, after, &mut found);
    found
}

fn same_segment(msn: u64, old: &MediaSegment, new: &MediaSegment, found: &mut Vec<Finding>) {
    let mut error =
        |what: &str| found.push(Finding::error("6.2.1", format!("{what} of segment {msn} changed")));
    if old.uri.is_some() && (old.uri != new.uri || old.duration != new.duration) {
        error("URI or duration");
    }
    if old.discontinuity != new.discontinuity {
        error("the discontinuity");
    }
    if old.date.is_some() && old.date != new.date {
        error("EXT-X-PROGRAM-DATE-TIME");
    }
    if old.map.is_some() && new.map.is_some() && old.map != new.map {
        error("EXT-X-MAP");
    }
    if !new.parts.is_empty() && !new.parts.starts_with(&old.parts) {
        error("parts");
    }
    if new.parts.is_empty() && !old.parts.is_empty() && new.uri.is_none() {
        error("the open state");
    }
}

/// What was hinted comes under that name (§4.4.5.3).
fn hint(before: &MediaPlaylist, after: &MediaPlaylist, found: &mut Vec<Finding>) {
    let Some(hint) = before.part_hints.first() else { return };
    let names = |playlist: &MediaPlaylist| {
        let parts = playlist.segments.iter().flat_map(|segment| &segment.parts);
        parts.map(|part| part.uri.clone()).collect::<Vec<_>>()
    };
    let (old, new) = (names(before), names(after));
    // With the last known part still listed, the next one must be the hinted one.
    if let Some(at) = old.last().and_then(|last| new.iter().position(|name| name == last))
        && let Some(next) = new.get(at + 1)
        && next != hint
    {
        found.push(Finding::error("4.4.5.3", format!("{hint} was hinted, and {next} came")));
    }
}

/// Judges a delta update against the full playlist of the same moment.
pub fn delta(full: &MediaPlaylist, delta: &MediaPlaylist) -> Vec<Finding> {
    let mut found = Vec::new();
    let mut error = |section, text: String| found.push(Finding::error(section, text));
    let Some(skipped) = delta.skipped else {
        if full != delta {
            error(
                "6.2.5.1",
                "an answer to _HLS_skip that is neither a delta update nor the playlist".to_owned(),
            );
        }
        return found;
    };
    let skipped = skipped as usize;
    if skipped > full.segments.len() {
        error("4.4.5.2", "more segments are skipped than there are".to_owned());
        return found;
    }
    if delta.media_sequence != full.media_sequence
        || delta.discontinuity_sequence != full.discontinuity_sequence
    {
        error("4.4.5.2", "skipping changed EXT-X-MEDIA-SEQUENCE or EXT-X-DISCONTINUITY-SEQUENCE".to_owned());
    }
    let boundary = full.control.as_ref().and_then(|control| control.can_skip_until).unwrap_or(0);
    let mut left = full.duration();
    for segment in full.complete().take(skipped) {
        left -= segment.duration;
        if left + ROUNDING * (full.segments.len() as i64) < boundary {
            error("6.2.5.1", "a segment within the skip boundary is skipped".to_owned());
        }
    }
    let unmapped = |segments: &[MediaSegment]| {
        let plain = segments.iter().cloned().map(|segment| MediaSegment { map: None, ..segment });
        plain.collect::<Vec<_>>()
    };
    if unmapped(&full.segments[skipped..]) != unmapped(&delta.segments) {
        error("6.2.5.1", "what was not skipped differs from the full playlist".to_owned());
    }
    for (whole, part) in full.segments[skipped..].iter().zip(&delta.segments) {
        if part.map.is_some() && part.map != whole.map {
            error("6.2.5.1", "EXT-X-MAP differs from the full playlist".to_owned());
        }
    }
    found
}

/// Judges the media playlists of one presentation, fetched at the same time: the pictures' first.
pub fn renditions(playlists: &[(&str, &MediaPlaylist)]) -> Vec<Finding> {
    let mut found = Vec::new();
    let Some(((first_uri, first), others)) = playlists.split_first() else { return found };
    let mut error = |section, text: String| found.push(Finding::error(section, text));
    let mut warnings = Vec::new();
    let dated = |playlist: &MediaPlaylist| playlist.segments.iter().any(|segment| segment.date.is_some());
    for (uri, other) in others {
        if other.target_duration != first.target_duration {
            error("6.2.4", format!("{uri} has another Target Duration than {first_uri}"));
        }
        if other.control != first.control {
            error("6.2.4", format!("{uri} has another EXT-X-SERVER-CONTROL than {first_uri}"));
        }
        if dated(other) != dated(first) {
            error("6.2.4", format!("only one of {uri} and {first_uri} has dates"));
        }
        if first.part_target.is_some() && !first.reports.iter().any(|report| report.uri == *uri) {
            warnings.push(format!("{first_uri} has no rendition report of {uri}"));
        }
        if other.part_target.is_some() && !other.reports.iter().any(|report| report.uri == *first_uri) {
            warnings.push(format!("{uri} has no rendition report of {first_uri}"));
        }
    }
    found.extend(warnings.into_iter().map(|text| Finding::warning("4.4.5.4", text)));
    let longest = playlists.iter().filter_map(|(_, playlist)| playlist.part_target).max().unwrap_or(0);
    for (uri, playlist) in playlists {
        let back = playlist.control.as_ref().and_then(|control| control.part_hold_back);
        if back.is_some_and(|back| back < 3 * longest) {
            found.push(Finding::warning(
                "4.4.3.8",
                format!("PART-HOLD-BACK of {uri} is less than three times the largest part target"),
            ));
        }
    }
    found
}

/// Judges a multivariant playlist; gives the URIs of its media playlists, those of variants first.
pub fn multivariant(text: &str) -> (Vec<String>, Vec<Finding>) {
    let (mut uris, mut renditions, mut found) = (Vec::new(), Vec::new(), Vec::new());
    let mut groups = HashSet::new();
    let (mut names, mut defaults) = (HashSet::new(), HashSet::new());
    let mut wanted_groups = Vec::new();
    let mut awaits_uri = false;
    if !text.starts_with("#EXTM3U\n") {
        found.push(Finding::error("4.4.1.1", "the first line is not #EXTM3U"));
    }
    for line in text.lines() {
        if let Some(list) = line.strip_prefix("#EXT-X-STREAM-INF:") {
            if awaits_uri {
                found.push(Finding::error("4.4.6.2", "EXT-X-STREAM-INF without a URI"));
            }
            awaits_uri = true;
            let bandwidth = attribute(list, "BANDWIDTH").and_then(|value| value.parse::<u64>().ok());
            if bandwidth.is_none_or(|bandwidth| bandwidth == 0) {
                found.push(Finding::error("4.4.6.2", "EXT-X-STREAM-INF without BANDWIDTH"));
            }
            let average = attribute(list, "AVERAGE-BANDWIDTH").and_then(|value| value.parse::<u64>().ok());
            if average > bandwidth {
                found.push(Finding::error("4.4.6.2", "AVERAGE-BANDWIDTH is more than BANDWIDTH"));
            }
            if attribute(list, "CODECS").is_none_or(str::is_empty) {
                found.push(Finding::warning("4.4.6.2", "EXT-X-STREAM-INF without CODECS"));
            }
            wanted_groups.extend(attribute(list, "AUDIO").map(str::to_owned));
        } else if let Some(list) = line.strip_prefix("#EXT-X-MEDIA:") {
            for key in ["TYPE", "GROUP-ID", "NAME"] {
                if attribute(list, key).is_none_or(str::is_empty) {
                    found.push(Finding::error("4.4.6.1", format!("EXT-X-MEDIA without {key}")));
                }
            }
            let group = attribute(list, "GROUP-ID").unwrap_or_default().to_owned();
            if !names.insert((group.clone(), attribute(list, "NAME").unwrap_or_default().to_owned())) {
                found.push(Finding::error("4.4.6.1.1", "two renditions of a group have the same name"));
            }
            if attribute(list, "DEFAULT") == Some("YES") {
                if !defaults.insert(group.clone()) {
                    found.push(Finding::error("4.4.6.1.1", "two renditions of a group are DEFAULT"));
                }
                if attribute(list, "AUTOSELECT") == Some("NO") {
                    found.push(Finding::error("4.4.6.1", "DEFAULT=YES with AUTOSELECT=NO"));
                }
            }
            if attribute(list, "TYPE") == Some("AUDIO") && attribute(list, "CHANNELS").is_none() {
                found.push(Finding::warning("4.4.6.1", "audio without CHANNELS"));
            }
            groups.insert(group);
            renditions.extend(attribute(list, "URI").map(str::to_owned));
        } else if ["#EXTINF", "#EXT-X-PART:", "#EXT-X-TARGETDURATION", "#EXT-X-MEDIA-SEQUENCE", "#EXT-X-MAP"]
            .iter()
            .any(|tag| line.starts_with(tag))
        {
            found.push(Finding::error("4.4.6", format!("a tag of media playlists: {line}")));
        } else if !line.starts_with('#') && !line.is_empty() {
            if !std::mem::take(&mut awaits_uri) {
                found.push(Finding::error("4.4.6.2", format!("{line} has no EXT-X-STREAM-INF")));
            }
            uris.push(line.to_owned());
        }
    }
    if uris.is_empty() || awaits_uri {
        found.push(Finding::error("4.4.6.2", "EXT-X-STREAM-INF without a URI"));
    }
    for group in wanted_groups.iter().filter(|group| !groups.contains(*group)) {
        found.push(Finding::error("4.4.6.2", format!("there is no group {group}")));
    }
    uris.extend(renditions);
    found.sort_by_key(|finding| std::cmp::Reverse(finding.severity == Severity::Error));
    (uris, found)
}
