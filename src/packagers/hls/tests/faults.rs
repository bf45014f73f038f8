//! Faults put into good playlists and good media: the judge must find each, and nothing in the good ones.

use std::time::Duration;

use super::super::check::{self, Finding, Fragments, Severity};
use super::super::{Answer, Directives, Variant};
use super::support::*;

/// Everything of one moment, and the playlist of a moment before.
#[derive(Clone)]
struct Served {
    before: String,
    after: String,
    delta: String,
    sound: String,
    multivariant: String,
    init: Vec<u8>,
    parts: Vec<Vec<u8>>,
}

fn serve() -> Served {
    let mut source = Source::new(settings(Variant::LowLatency), &[h264(), aac()]);
    let mut before = String::new();
    // Two sizes, so that there is a discontinuity; the window has begun to move.
    for n in 0..25 * 12 + 13u32 {
        if n == 25 * 8 {
            source.sps = OTHER_SPS.to_vec();
        }
        source.picture(n * 3_600, n % 25 == 0, 900);
        for frame in n * 1_920 / 1_024..(n + 1) * 1_920 / 1_024 {
            source.frame(1, frame * 1_024, &[5; 40]);
        }
        source.now += Duration::from_millis(40);
        if n == 25 * 11 + 10 {
            before = Watcher::text(&mut source, 0);
        }
    }
    let skip = Directives { skip: true, ..Directives::default() };
    let delta = match source.muxer.playlist(0, skip, false) {
        Answer::Ready(text) => String::from_utf8(text.body.to_vec()).unwrap(),
        other => panic!("{other:?}"),
    };
    let multivariant = match source.muxer.multivariant("", source.now) {
        Answer::Ready(text) => String::from_utf8(text.plain.to_vec()).unwrap(),
        other => panic!("{other:?}"),
    };
    let mut watcher = Watcher::default();
    let after = Watcher::text(&mut source, 0);
    let names: Vec<_> =
        check::parse(&after).0.segments.iter().flat_map(|s| s.parts.clone()).map(|part| part.uri).collect();
    let parts = names.iter().map(|name| watcher.get(&source, name)).collect();
    let init = watcher.get(&source, "0123456789ab_video1_init2.mp4");
    watcher.approve();
    let sound = Watcher::text(&mut source, 1);
    Served { before, after, delta, sound, multivariant, init, parts }
}

fn judge(served: &Served) -> Vec<Finding> {
    let mut found = Vec::new();
    let mut parse = |text: &str| {
        let (playlist, findings) = check::parse(text);
        found.extend(findings);
        playlist
    };
    let (before, after) = (parse(&served.before), parse(&served.after));
    let (delta, sound) = (parse(&served.delta), parse(&served.sound));
    for playlist in [&before, &after, &sound] {
        found.extend(check::playlist(playlist));
    }
    found.extend(check::update(&before, &after));
    found.extend(check::delta(&after, &delta));
    found.extend(check::renditions(&[("video1_stream.m3u8", &after), ("audio2_stream.m3u8", &sound)]));
    found.extend(check::multivariant(&served.multivariant).1);
    let mut fragments = Fragments::default();
    found.extend(fragments.init(&served.init));
    let tags = after.segments.iter().flat_map(|segment| &segment.parts);
    for (tag, bytes) in tags.zip(&served.parts) {
        let (media, findings) = fragments.media(&tag.uri, bytes, tag.duration);
        found.extend(findings);
        if tag.independent != media.has_independent {
            found.push(Finding {
                severity: Severity::Error,
                section: "4.4.4.9",
                text: "INDEPENDENT".to_owned(),
            });
        }
    }
    found
}

/// Replaces one occurrence, which there must be.
#[track_caller]
fn swap(text: &mut String, from: &str, to: &str) {
    assert!(text.contains(from), "there is no {from:?} in\n{text}");
    *text = text.replacen(from, to, 1);
}

/// Replaces the last occurrence.
#[track_caller]
fn swap_last(text: &mut String, from: &str, to: &str) {
    let at = text.rfind(from).unwrap_or_else(|| panic!("there is no {from:?} in\n{text}"));
    text.replace_range(at..at + from.len(), to);
}

/// Takes out the first line that begins like this.
#[track_caller]
fn cut(text: &mut String, begins: &str) {
    let line = text.lines().find(|line| line.starts_with(begins)).map(str::to_owned);
    let line = line.unwrap_or_else(|| panic!("no line begins with {begins}"));
    swap(text, &format!("{line}\n"), "");
}

/// Where a box begins.
#[track_caller]
fn find(bytes: &[u8], kind: &[u8]) -> usize {
    bytes.windows(4).position(|window| window == kind).unwrap() - 4
}

#[test]
fn every_seeded_fault_is_found_and_nothing_else() {
    let good = serve();
    assert_eq!(judge(&good), []);
    type Fault = (&'static str, &'static str, fn(&mut Served));
    let faults: &[Fault] = &[
        ("no EXTM3U", "4.4.1.1", |s| swap(&mut s.after, "#EXTM3U\n", "")),
        ("a control character", "4.1", |s| swap(&mut s.after, "#EXTM3U\n", "#EXTM3U\n\u{7}")),
        ("no target duration", "4.4.3.1", |s| cut(&mut s.after, "#EXT-X-TARGETDURATION")),
        ("a target duration that changes", "6.2.1", |s| {
            swap(&mut s.before, "TARGETDURATION:1", "TARGETDURATION:2")
        }),
        ("a part target that changes", "6.2.1", |s| {
            swap(&mut s.before, "PART-TARGET=0.200", "PART-TARGET=0.201")
        }),
        ("a segment over the target", "4.4.3.1", |s| {
            swap(&mut s.after, "#EXTINF:1.00000", "#EXTINF:1.50000")
        }),
        ("no hold back", "4.4.3.8", |s| swap(&mut s.after, "PART-HOLD-BACK=0.600,", "")),
        ("a hold back under two parts", "4.4.3.8", |s| {
            swap(&mut s.after, "PART-HOLD-BACK=0.600", "PART-HOLD-BACK=0.399")
        }),
        ("a skip boundary under six targets", "4.4.3.8", |s| {
            swap(&mut s.after, "CAN-SKIP-UNTIL=6", "CAN-SKIP-UNTIL=5")
        }),
        ("HOLD-BACK under three targets", "4.4.3.8", |s| {
            swap(&mut s.after, ",HOLD-BACK=3", ",HOLD-BACK=2.9")
        }),
        ("no part information", "4.4.3.7", |s| cut(&mut s.after, "#EXT-X-PART-INF")),
        ("a part over the target", "4.4.4.9", |s| {
            swap_last(&mut s.after, "DURATION=0.20000", "DURATION=0.20100")
        }),
        ("a part under 85%", "4.4.4.9", |s| {
            let at = s.after.rfind("#EXTINF").unwrap();
            let mut head = s.after[..at].to_owned();
            let last = head.rfind("DURATION=0.20000").unwrap();
            swap_last(&mut head, "DURATION=0.20000", "DURATION=0.20000");
            let second = head[..last].rfind("DURATION=0.20000").unwrap();
            head.replace_range(second..second + 16, "DURATION=0.16000");
            s.after.replace_range(..at, &head);
        }),
        ("parts that do not add up", "4.4.4.9", |s| {
            swap(&mut s.after, "DURATION=0.20000", "DURATION=0.19000")
        }),
        ("a part without duration", "4.4.4.9", |s| swap(&mut s.after, "PART:DURATION=0.20000,", "PART:")),
        ("a part without URI", "4.4.4.9", |s| {
            swap_last(&mut s.after, "PART:DURATION=0.20000,URI=", "PART:DURATION=0.20000,X=")
        }),
        ("a part twice", "6.2.1", |s| {
            let line = s.after.lines().find(|line| line.starts_with("#EXT-X-PART:")).unwrap().to_owned();
            swap(&mut s.after, &line.clone(), &format!("{line}\n{line}"));
        }),
        ("a date after the parts", "4.4.4.9", |s| {
            let date = s.after.lines().rfind(|line| line.starts_with("#EXT-X-PROGRAM")).unwrap().to_owned();
            swap_last(&mut s.after, "#EXT-X-PRELOAD", &format!("{date}\n#EXT-X-PRELOAD"));
        }),
        ("a segment without EXTINF", "4.4.4.1", |s| cut(&mut s.after, "#EXTINF")),
        ("a duration that is none", "4.4.4.1", |s| swap(&mut s.after, "#EXTINF:1.00000", "#EXTINF:one")),
        ("a sequence number that goes back", "6.2.2", |s| {
            swap(&mut s.after, "MEDIA-SEQUENCE:5", "MEDIA-SEQUENCE:3")
        }),
        ("a sequence number that skips", "6.2.1", |s| {
            swap(&mut s.after, "MEDIA-SEQUENCE:5", "MEDIA-SEQUENCE:6")
        }),
        ("a segment that changes its name", "6.2.1", |s| {
            swap(&mut s.after, "video1_seg9.mp4", "video1_seg9b.mp4")
        }),
        ("a segment that changes its length", "6.2.1", |s| {
            swap(&mut s.after, "#EXTINF:1.00000", "#EXTINF:1.00100")
        }),
        ("a segment that is lost", "6.2.1", |s| {
            cut(&mut s.after, "#EXTINF");
            cut(&mut s.after, "0123456789ab_video1_seg5");
        }),
        ("a discontinuity that goes", "6.2.1", |s| swap(&mut s.after, "#EXT-X-DISCONTINUITY\n", "")),
        ("no discontinuity sequence", "6.2.2", |s| cut(&mut s.after, "#EXT-X-DISCONTINUITY-SEQUENCE")),
        ("a discontinuity sequence that grows by itself", "6.2.2", |s| {
            swap(&mut s.after, "DISCONTINUITY-SEQUENCE:0", "DISCONTINUITY-SEQUENCE:1");
        }),
        ("a date that changes", "6.2.1", |s| {
            let date = s.after.lines().find(|line| line.starts_with("#EXT-X-PROGRAM")).unwrap().to_owned();
            swap(&mut s.after, &date, &date.replace(".000Z", ".123Z"));
        }),
        ("a date that is none", "4.4.4.6", |s| {
            swap(&mut s.after, "DATE-TIME:2027-01-15T", "DATE-TIME:15.01.2027 ")
        }),
        ("dates that overlap", "6.2.1", |s| {
            let date = s.after.lines().rfind(|line| line.starts_with("#EXT-X-PROGRAM")).unwrap().to_owned();
            let at = date.len() - 6;
            let mut early = date.clone();
            early.replace_range(at..at + 1, if &date[at..=at] > "4" { "0" } else { "9" });
            let early = if early > date { date.replacen(":01:", ":00:", 1) } else { early };
            swap(&mut s.after, &date, &early);
        }),
        ("a map that changes without a break", "6.2.1", |s| {
            let line = s.after.lines().rfind(|line| line.starts_with("#EXT-X-PROGRAM")).unwrap().to_owned();
            swap(&mut s.after, &line, &format!("#EXT-X-MAP:URI=\"x.mp4\"\n{line}"));
        }),
        ("a map without URI", "4.4.4.5", |s| swap(&mut s.after, "#EXT-X-MAP:URI=", "#EXT-X-MAP:X=")),
        ("a hint of what is listed", "4.4.5.3", |s| {
            let name = s.after.lines().rfind(|line| line.starts_with("#EXT-X-PART:")).unwrap().to_owned();
            let uri = name.split('"').nth(1).unwrap().to_owned();
            let hint = s.after.lines().find(|line| line.starts_with("#EXT-X-PRELOAD")).unwrap().to_owned();
            swap(&mut s.after, &hint, &format!("#EXT-X-PRELOAD-HINT:TYPE=PART,URI=\"{uri}\""));
        }),
        ("a hint that did not come", "4.4.5.3", |s| {
            let hint = s.before.lines().find(|line| line.starts_with("#EXT-X-PRELOAD")).unwrap().to_owned();
            swap(&mut s.before, &hint, "#EXT-X-PRELOAD-HINT:TYPE=PART,URI=\"other.mp4\"");
        }),
        ("a hint of no type", "4.4.5.3", |s| swap(&mut s.after, "HINT:TYPE=PART", "HINT:TYPE=FILE")),
        ("a report without a part", "4.4.5.4", |s| {
            let at = s.after.find(",LAST-PART").unwrap();
            let end = at + s.after[at..].find('\n').unwrap();
            s.after.replace_range(at..end, "");
        }),
        ("a report elsewhere", "4.4.5.4", |s| {
            swap(&mut s.after, "URI=\"audio2_stream", "URI=\"/audio2_stream")
        }),
        ("a version too low", "8", |s| swap(&mut s.after, "VERSION:9", "VERSION:5")),
        ("a playlist type", "6.2.2", |s| {
            swap(&mut s.after, "#EXT-X-MAP", "#EXT-X-PLAYLIST-TYPE:EVENT\n#EXT-X-MAP")
        }),
        ("a tag of the other kind", "4.4.6", |s| {
            swap(&mut s.after, "#EXT-X-MAP", "#EXT-X-STREAM-INF:BANDWIDTH=1\n#EXT-X-MAP")
        }),
        ("a header tag twice", "4.4.3", |s| {
            swap(&mut s.after, "#EXT-X-PART-INF", "#EXT-X-TARGETDURATION:1\n#EXT-X-PART-INF")
        }),
        ("parts lost in the middle", "6.2.2", |s| {
            let lines: Vec<_> = s.after.lines().map(str::to_owned).collect();
            let seg11 = lines.iter().position(|line| line.contains("seg11.mp4")).unwrap();
            let mut kept = lines.clone();
            for index in (0..seg11).rev().take_while(|index| !lines[*index].contains("seg10.mp4")) {
                if lines[index].starts_with("#EXT-X-PART:") {
                    kept.remove(index);
                }
            }
            s.after = kept.join("\n");
        }),
        ("a delta that skips too much", "6.2.5.1", |s| {
            let mut lines: Vec<_> = s.delta.lines().collect();
            let seg = lines.iter().position(|line| line.contains("_seg6.mp4")).unwrap();
            let head = lines.iter().position(|line| line.starts_with("#EXT-X-SKIP")).unwrap();
            lines.drain(head + 1..=seg);
            s.delta = lines.join("\n").replace("SKIPPED-SEGMENTS=1", "SKIPPED-SEGMENTS=2");
        }),
        ("a delta with a wrong count", "6.2.5.1", |s| {
            swap(&mut s.delta, "SKIPPED-SEGMENTS=1", "SKIPPED-SEGMENTS=2")
        }),
        ("a delta that lacks a tag", "6.2.5.1", |s| cut(&mut s.delta, "#EXT-X-PROGRAM")),
        ("a delta that moves the sequence", "4.4.5.2", |s| {
            swap(&mut s.delta, "MEDIA-SEQUENCE:5", "MEDIA-SEQUENCE:6")
        }),
        ("renditions with other targets", "6.2.4", |s| {
            swap(&mut s.sound, "TARGETDURATION:1", "TARGETDURATION:2")
        }),
        ("renditions with another control", "6.2.4", |s| swap(&mut s.sound, "CAN-BLOCK-RELOAD=YES,", "")),
        ("no bandwidth", "4.4.6.2", |s| {
            swap(&mut s.multivariant, "STREAM-INF:BANDWIDTH", "STREAM-INF:BANDWITH")
        }),
        ("no URI of a variant", "4.4.6.2", |s| swap(&mut s.multivariant, "\nvideo1_stream.m3u8\n", "\n")),
        ("a group that is not there", "4.4.6.2", |s| {
            swap(&mut s.multivariant, "AUDIO=\"audio\"", "AUDIO=\"sound\"")
        }),
        ("a rendition without a name", "4.4.6.1", |s| swap(&mut s.multivariant, "NAME=", "NOM=")),
        ("a media tag among variants", "4.4.6", |s| {
            swap(&mut s.multivariant, "#EXT-X-MEDIA", "#EXT-X-TARGETDURATION:1\n#EXT-X-MEDIA")
        }),
        ("an init without moov", "3.1.2", |s| {
            let at = find(&s.init, b"moov");
            s.init.truncate(at);
        }),
        ("an init without mvex", "3.1.2", |s| {
            let at = find(&s.init, b"mvex") + 4;
            s.init[at..at + 4].copy_from_slice(b"free");
        }),
        ("a gap between parts", "6.2.1", |s| {
            let at = find(&s.parts[3], b"tfdt") + 19;
            s.parts[3][at] = s.parts[3][at].wrapping_add(1);
        }),
        ("a part missing", "6.2.1", |s| drop(s.parts.remove(2))),
        ("a sample that lasts too long", "4.4.4.1", |s| {
            let at = find(&s.parts[1], b"trun") + 20 + 2;
            s.parts[1][at] += 8;
        }),
        ("data of another length", "3.1.2", |s| {
            s.parts[1].extend_from_slice(&[0; 4]);
            let at = find(&s.parts[1], b"mdat");
            let size = u32::from_be_bytes(s.parts[1][at..at + 4].try_into().unwrap()) + 4;
            s.parts[1][at..at + 4].copy_from_slice(&size.to_be_bytes());
        }),
        ("data elsewhere", "3.1.2", |s| {
            let at = find(&s.parts[1], b"trun") + 16 + 3;
            s.parts[1][at] += 1;
        }),
        ("a part cut short", "ISO 14496-12 4.2", |s| {
            let length = s.parts[1].len() - 3;
            s.parts[1].truncate(length);
        }),
        ("a part without a decode time", "3.1.2", |s| {
            let at = find(&s.parts[1], b"tfdt") + 4;
            s.parts[1][at..at + 4].copy_from_slice(b"free");
        }),
        ("a wrong INDEPENDENT", "4.4.4.9", |s| swap(&mut s.after, ",INDEPENDENT=YES", "")),
    ];
    assert!(faults.len() >= 25);
    let mut missed = Vec::new();
    for (name, section, fault) in faults {
        let mut bad = good.clone();
        fault(&mut bad);
        let found = judge(&bad);
        if !found.iter().any(|finding| finding.severity == Severity::Error && finding.section == *section) {
            let said: Vec<_> = found.iter().map(ToString::to_string).collect();
            missed.push(format!("{name} (§{section}): {said:?}"));
        }
    }
    assert!(missed.is_empty(), "{} of {} missed:\n{}", missed.len(), faults.len(), missed.join("\n"));
}
