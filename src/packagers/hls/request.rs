//! What players ask for, and how it is answered (rfc8216bis §6.2.5, §6.2.6).

use bytes::Bytes;

use super::rendition::Rendition;
use super::{Body, Variant};

/// The delivery directives of a playlist request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Directives {
    /// `_HLS_msn`.
    pub msn: Option<u64>,
    /// `_HLS_part`; only with `msn`.
    pub part: Option<u64>,
    /// `_HLS_skip`.
    pub skip: bool,
}

/// Why directives are refused, with 400.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DirectivesError {
    #[error("_HLS_msn and _HLS_part must be decimal integers")]
    NotANumber,
    #[error("_HLS_part needs _HLS_msn")]
    PartAlone,
    #[error("_HLS_msn or _HLS_part is too far ahead of the playlist")]
    TooFarAhead,
}

impl Directives {
    /// Reads the query of a request, without its question mark. Other parameters are passed over.
    ///
    /// # Errors
    /// When a number is none, or a part is asked for without its segment (§6.2.5.2).
    pub fn parse(query: &str) -> Result<Self, DirectivesError> {
        let mut directives = Self::default();
        let number = |value: &str| {
            let digits = !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit());
            value.parse::<u64>().ok().filter(|_| digits).ok_or(DirectivesError::NotANumber)
        };
        for pair in query.split('&') {
            match pair.split_once('=') {
                Some(("_HLS_msn", value)) => directives.msn = Some(number(value)?),
                Some(("_HLS_part", value)) => directives.part = Some(number(value)?),
                Some(("_HLS_skip", value)) => directives.skip = matches!(value, "YES" | "v2"),
                _ => {}
            }
        }
        match directives {
            Self { msn: None, part: Some(_), .. } => Err(DirectivesError::PartAlone),
            directives => Ok(directives),
        }
    }
}

/// An answer to a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer<T> {
    Ready(T),
    /// Not yet: to be asked again once [`super::Muxer::has`] it.
    Wait(Await),
    /// It never was, or is gone: 404.
    NotFound,
    /// 400.
    Refused(DirectivesError),
}

impl<T> Answer<T> {
    pub(super) fn of(ready: Option<T>) -> Self {
        ready.map_or(Self::NotFound, Self::Ready)
    }
}

/// What a held request waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Await {
    /// The multivariant playlist.
    Presentation,
    /// A playlist with something in it. Renditions count from 0, pictures first.
    Content { rendition: usize },
    /// A complete segment.
    Segment { rendition: usize, msn: u64 },
    /// A part, by its index in its segment.
    Part { rendition: usize, msn: u64, part: u64 },
    /// A part that was hinted, by the number in its name.
    Hinted { rendition: usize, number: u64 },
}

/// A playlist in the form that was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Encoded {
    pub body: Bytes,
    pub gzip: bool,
}

/// What a name stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileKind {
    /// `application/vnd.apple.mpegurl`.
    Playlist { rendition: usize },
    /// `video/mp4`.
    Init { rendition: usize, number: u32 },
    /// `video/mp4`, or `video/MP2T` for names in `.ts`.
    Segment { rendition: usize, msn: u64 },
    /// `video/mp4`.
    Part { rendition: usize, number: u64 },
}

/// Reads `[prefix_]id_kind` names (contract §5.5). `ids`: those of the renditions, in order.
pub(super) fn parse_name<'a>(
    name: &str,
    prefix: &str,
    variant: Variant,
    ids: impl Iterator<Item = &'a str>,
) -> Option<FileKind> {
    let mut ids = ids.enumerate();
    if let Some(id) = name.strip_suffix("_stream.m3u8") {
        return ids.find(|(_, known)| *known == id).map(|(rendition, _)| FileKind::Playlist { rendition });
    }
    let rest = name.strip_prefix(prefix)?.strip_prefix('_')?;
    let (rendition, rest) =
        ids.find_map(|(rendition, id)| Some((rendition, rest.strip_prefix(id)?.strip_prefix('_')?)))?;
    let (stem, extension) = rest.rsplit_once('.')?;
    let number = |digits: &str| {
        let plain =
            digits.bytes().all(|byte| byte.is_ascii_digit()) && (digits == "0" || !digits.starts_with('0'));
        digits.parse::<u64>().ok().filter(|_| plain)
    };
    match (variant, extension) {
        (Variant::MpegTs, "ts") => {
            Some(FileKind::Segment { rendition, msn: number(stem.strip_prefix("seg")?)? })
        }
        // Some players ask for `.mp` (contract §5.1).
        (Variant::LowLatency | Variant::Fmp4, "mp4" | "mp") => {
            if let Some(digits) = stem.strip_prefix("seg") {
                Some(FileKind::Segment { rendition, msn: number(digits)? })
            } else if let Some(digits) = stem.strip_prefix("part").filter(|_| variant == Variant::LowLatency)
            {
                Some(FileKind::Part { rendition, number: number(digits)? })
            } else {
                let digits = stem.strip_prefix("init")?;
                let number = if digits.is_empty() { 1 } else { u32::try_from(number(digits)?).ok()? };
                Some(FileKind::Init { rendition, number })
            }
        }
        _ => None,
    }
}

/// Whether a playlist request has to wait (§6.2.5.2). `advance_part_limit`: parts ahead of the last one that may be
/// asked for.
pub(super) fn admit(
    rendition: &Rendition,
    index: usize,
    directives: Directives,
    advance_part_limit: u64,
) -> Result<Option<Await>, DirectivesError> {
    let Some(msn) = directives.msn.filter(|_| rendition.variant == Variant::LowLatency) else {
        return Ok(None);
    };
    let next = rendition.last_complete().map_or(rendition.media_sequence(), |last| last + 1);
    if msn > next + 1 {
        return Err(DirectivesError::TooFarAhead);
    }
    match directives.part {
        None if rendition.last_complete().is_some_and(|last| last >= msn) => Ok(None),
        None => Ok(Some(Await::Segment { rendition: index, msn })),
        Some(part) if rendition.has_part(msn, part) => Ok(None),
        Some(part) => {
            let last = rendition.position();
            let ahead_of = last.filter(|last| last.msn == msn).map_or(0, |last| last.part + 1);
            let is_complete = rendition.last_complete().is_some_and(|last| last >= msn);
            if !is_complete && part > ahead_of + advance_part_limit {
                return Err(DirectivesError::TooFarAhead);
            }
            Ok(Some(Await::Part { rendition: index, msn, part }))
        }
    }
}

/// A body of one piece.
pub(super) fn single(bytes: Option<Bytes>) -> Option<Body> {
    bytes.map(Body::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directives_are_read() {
        let parse = Directives::parse;
        assert_eq!(parse(""), Ok(Directives::default()));
        let want = Directives { msn: Some(7), part: Some(0), skip: true };
        assert_eq!(parse("session=a&_HLS_msn=7&_HLS_part=0&_HLS_skip=YES"), Ok(want));
        assert_eq!(parse("_HLS_skip=v2").map(|d| d.skip), Ok(true));
        assert_eq!(parse("_HLS_skip=NO").map(|d| d.skip), Ok(false));
        assert_eq!(parse("_HLS_part=1"), Err(DirectivesError::PartAlone));
        for query in
            ["_HLS_msn=", "_HLS_msn=-1", "_HLS_msn=1.5", "_HLS_msn=+1", "_HLS_msn=99999999999999999999"]
        {
            assert_eq!(parse(query), Err(DirectivesError::NotANumber), "{query}");
        }
    }

    #[test]
    fn names_are_read_and_others_are_not() {
        let parse =
            |name: &str| parse_name(name, "ab", Variant::LowLatency, ["video1", "audio2"].into_iter());
        assert_eq!(parse("audio2_stream.m3u8"), Some(FileKind::Playlist { rendition: 1 }));
        assert_eq!(parse("ab_video1_init.mp4"), Some(FileKind::Init { rendition: 0, number: 1 }));
        assert_eq!(parse("ab_video1_init3.mp4"), Some(FileKind::Init { rendition: 0, number: 3 }));
        assert_eq!(parse("ab_video1_seg12.mp4"), Some(FileKind::Segment { rendition: 0, msn: 12 }));
        assert_eq!(parse("ab_audio2_part0.mp"), Some(FileKind::Part { rendition: 1, number: 0 }));
        for name in [
            "",
            "ab",
            "ab_video1_seg.mp4",
            "ab_video1_seg01.mp4",
            "ab_video1_seg-1.mp4",
            "ab_video1_seg1.ts",
            "ab_video1_segx.mp4",
            "video1_seg1.mp4",
            "ab_video9_seg1.mp4",
            "../ab_video1_seg1.mp4",
            "ab_video1_seg99999999999999999999.mp4",
            "video9_stream.m3u8",
            "ab_video1_part1.mp4/x",
        ] {
            assert_eq!(parse(name), None, "{name}");
        }
        let ts = |name: &str| parse_name(name, "ab", Variant::MpegTs, ["main"].into_iter());
        assert_eq!(ts("ab_main_seg1.ts"), Some(FileKind::Segment { rendition: 0, msn: 1 }));
        assert_eq!(ts("ab_main_part1.mp4"), None);
    }
}
