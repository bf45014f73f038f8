//! The rules for the fMP4 behind a playlist (ISO/IEC 14496-12, and rfc8216bis §3.1.2). Reads boxes by itself, so that
//! it does not share a mistake with a writer.

use super::Finding;

/// What a part or a segment was found to hold.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Media {
    /// Ticks.
    pub start: i64,
    pub duration: i64,
    pub samples: usize,
    /// The first sample needs no other.
    pub begins_independent: bool,
    /// Any sample needs no other.
    pub has_independent: bool,
    /// Bytes of the samples.
    pub bytes: usize,
}

/// Judges the media of one rendition in the order of its playlist.
#[derive(Debug, Default)]
pub struct Fragments {
    timescale: u32,
    next: Option<i64>,
    last_sequence: Option<u32>,
}

impl Fragments {
    /// Reads an initialisation section; it holds for what follows.
    pub fn init(&mut self, bytes: &[u8]) -> Vec<Finding> {
        let mut found = Vec::new();
        let top = boxes(bytes, &mut found);
        if top.first().map(|(kind, _)| kind) != Some(b"ftyp") {
            found.push(Finding::error("3.1.2", "an initialisation section that does not begin with ftyp"));
        }
        let Some(moov) = find(&top, b"moov") else {
            found.push(Finding::error("3.1.2", "an initialisation section without moov"));
            return found;
        };
        let moov = boxes(moov, &mut found);
        if find(&moov, b"mvex").is_none() {
            found.push(Finding::error("3.1.2", "moov without mvex"));
        }
        let path = [b"trak", b"mdia"].iter().try_fold(moov.clone(), |inside, kind| {
            find(&inside, kind).map(|body| boxes(body, &mut Vec::new()))
        });
        let Some(mdia) = path else {
            found.push(Finding::error("3.1.2", "moov without a track"));
            return found;
        };
        // mdhd: version and flags, two times, time scale (§8.4.2 of ISO/IEC 14496-12).
        let timescale = find(&mdia, b"mdhd").and_then(|mdhd| {
            let at = if *mdhd.first()? == 1 { 20 } else { 12 };
            read_u32(mdhd, at)
        });
        match timescale {
            Some(0) | None => found.push(Finding::error("3.1.2", "a track without a time scale")),
            Some(timescale) => self.timescale = timescale,
        }
        for table in [b"stts", b"stsz", b"stco"] {
            let stbl = [b"minf", b"stbl"].iter().try_fold(mdia.clone(), |inside, kind| {
                find(&inside, kind).map(|body| boxes(body, &mut Vec::new()))
            });
            if stbl.is_none_or(|stbl| find(&stbl, table).is_none()) {
                found.push(Finding::error(
                    "3.1.2",
                    format!("no {} in the sample table", String::from_utf8_lossy(table)),
                ));
            }
        }
        found
    }

    /// Ticks per second of the initialisation section.
    pub fn timescale(&self) -> u32 {
        self.timescale
    }

    /// What comes next does not go on where the last fragment ended.
    pub fn break_here(&mut self) {
        self.next = None;
    }

    /// Reads a part, or a segment of one or more fragments. `declared`: its duration by the playlist, microseconds.
    pub fn media(&mut self, name: &str, bytes: &[u8], declared: i64) -> (Media, Vec<Finding>) {
        let mut found = Vec::new();
        let mut media = Media::default();
        let top = boxes(bytes, &mut found);
        let mut expects_data = None;
        let mut offset = 0;
        for (index, (kind, body)) in top.iter().enumerate() {
            match kind {
                b"moof" => {
                    let base = offset;
                    match self.moof(name, body, &mut media, &mut found) {
                        Some((data_offset, bytes)) => expects_data = Some((base + data_offset, bytes)),
                        None => {
                            found.push(Finding::error("3.1.2", format!("{name}: a moof that cannot be read")))
                        }
                    }
                    if top.get(index + 1).map(|(kind, _)| kind) != Some(b"mdat") {
                        found.push(Finding::error("3.1.2", format!("{name}: a moof without its mdat")));
                    }
                }
                b"mdat" => match expects_data.take() {
                    Some((at, bytes)) if at == offset + 8 && bytes == body.len() => media.bytes += bytes,
                    Some((at, bytes)) => found.push(Finding::error(
                        "3.1.2",
                        format!(
                            "{name}: samples of {bytes} bytes at {at}, but data of {} at {}",
                            body.len(),
                            offset + 8
                        ),
                    )),
                    None => found.push(Finding::error("3.1.2", format!("{name}: an mdat without its moof"))),
                },
                b"styp" | b"sidx" | b"prft" | b"emsg" | b"free" => {}
                other => found.push(Finding::error(
                    "3.1.2",
                    format!("{name}: a {} box in a segment", String::from_utf8_lossy(other)),
                )),
            }
            offset += body.len() + 8;
        }
        if media.samples == 0 {
            found.push(Finding::error("3.1.2", format!("{name} has no samples")));
        }
        let micros = media.duration as i128 * 1_000_000 / i128::from(self.timescale.max(1));
        if (micros as i64 - declared).abs() > 1_000 {
            found.push(Finding::error(
                "4.4.4.1",
                format!("{name} lasts {micros} µs, the playlist says {declared}"),
            ));
        }
        (media, found)
    }

    /// Gives where the data is, from the start of the `moof`, and how many bytes of it.
    fn moof(
        &mut self,
        name: &str,
        moof: &[u8],
        media: &mut Media,
        found: &mut Vec<Finding>,
    ) -> Option<(usize, usize)> {
        let moof = boxes(moof, found);
        let sequence = read_u32(find(&moof, b"mfhd")?, 4)?;
        if self.last_sequence.is_some_and(|last| sequence <= last) && self.next.is_some() {
            found.push(Finding::error(
                "ISO 14496-12 8.8.5",
                format!("{name}: sequence number {sequence} is not larger"),
            ));
        }
        self.last_sequence = Some(sequence);
        let traf = boxes(find(&moof, b"traf")?, found);
        let tfhd = find(&traf, b"tfhd")?;
        let flags = read_u32(tfhd, 0)? & 0x00ff_ffff;
        if flags & 0x02_0000 == 0 {
            found.push(Finding::error("3.1.2", format!("{name}: tfhd without default-base-is-moof")));
        }
        let (mut default_duration, mut default_size, mut default_flags) = (0, 0, 0);
        let mut at = 8;
        for (bit, length, slot) in [
            (0x01, 8, None),
            (0x02, 4, None),
            (0x08, 4, Some(&mut default_duration)),
            (0x10, 4, Some(&mut default_size)),
            (0x20, 4, Some(&mut default_flags)),
        ] {
            if flags & bit != 0 {
                if let Some(slot) = slot {
                    *slot = read_u32(tfhd, at)?;
                }
                at += length;
            }
        }
        let Some(tfdt) = find(&traf, b"tfdt") else {
            found.push(Finding::error("3.1.2", format!("{name}: no tfdt")));
            return None;
        };
        let start = match tfdt.first()? {
            1 => i64::from(read_u32(tfdt, 4)?) << 32 | i64::from(read_u32(tfdt, 8)?),
            _ => i64::from(read_u32(tfdt, 4)?),
        };
        if let Some(next) = self.next.filter(|next| *next != start) {
            found.push(Finding::error(
                "6.2.1",
                format!("{name} starts at {start}, the one before ended at {next}"),
            ));
        }
        if media.samples == 0 {
            media.start = start;
        }
        let trun = find(&traf, b"trun")?;
        let flags = read_u32(trun, 0)? & 0x00ff_ffff;
        let count = read_u32(trun, 4)?;
        let mut at = 8;
        let data_offset = if flags & 1 != 0 { read_u32(trun, at)? } else { 0 };
        at += if flags & 1 != 0 { 4 } else { 0 };
        let first_flags = if flags & 4 != 0 { Some(read_u32(trun, at)?) } else { None };
        at += if flags & 4 != 0 { 4 } else { 0 };
        let (mut time, mut bytes) = (start, 0);
        for index in 0..count {
            let mut field = |bit: u32, default: u32| -> Option<u32> {
                if flags & bit == 0 {
                    return Some(default);
                }
                let value = read_u32(trun, at)?;
                at += 4;
                Some(value)
            };
            let duration = field(0x100, default_duration)?;
            bytes += field(0x200, default_size)? as usize;
            let mut sample_flags = field(0x400, default_flags)?;
            field(0x800, 0)?;
            if index == 0 {
                sample_flags = first_flags.unwrap_or(sample_flags);
            }
            let independent = sample_flags & 0x0001_0000 == 0;
            if media.samples == 0 {
                media.begins_independent = independent;
            }
            media.has_independent |= independent;
            media.samples += 1;
            if duration == 0 {
                found.push(Finding::error("3.1.2", format!("{name}: sample {index} has no duration")));
            }
            time += i64::from(duration);
        }
        media.duration += time - start;
        self.next = Some(time);
        Some((data_offset as usize, bytes))
    }
}

type Boxes<'a> = Vec<([u8; 4], &'a [u8])>;

/// The boxes in `bytes`, each with its kind and body.
fn boxes<'a>(mut bytes: &'a [u8], found: &mut Vec<Finding>) -> Boxes<'a> {
    let mut boxes = Vec::new();
    while !bytes.is_empty() {
        let size = read_u32(bytes, 0).map_or(0, |size| size as usize);
        let (Some(kind), Some(body)) = (bytes.get(4..8), bytes.get(8..size)) else {
            found.push(Finding::error("ISO 14496-12 4.2", "a box that does not fit where it lies"));
            break;
        };
        let mut name = [0; 4];
        name.copy_from_slice(kind);
        boxes.push((name, body));
        bytes = &bytes[size..];
    }
    boxes
}

fn find<'a>(boxes: &Boxes<'a>, kind: &[u8; 4]) -> Option<&'a [u8]> {
    boxes.iter().find(|(name, _)| name == kind).map(|(_, body)| *body)
}

fn read_u32(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4).map(|word| u32::from_be_bytes([word[0], word[1], word[2], word[3]]))
}
