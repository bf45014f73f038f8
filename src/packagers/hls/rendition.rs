//! One media playlist: its segments and parts, what of them is listed, and how long the rest is kept.

use std::{collections::VecDeque, time::Duration};

use bytes::Bytes;

use super::boxes::{self, Fragment};
use super::clock::nanos;
use super::codec::CodecConfig;
use super::playlist::Rendered;
use super::{Body, Variant};

/// A stretch of media that can be fetched on its own.
#[derive(Debug, Clone)]
pub(super) struct Part {
    pub number: u64,
    /// Ticks.
    pub duration: i64,
    /// There is a picture in it that needs no other (§4.4.4.9).
    pub independent: bool,
    pub body: Bytes,
}

#[derive(Debug)]
pub(super) struct Segment {
    /// Media Sequence Number.
    pub msn: u64,
    /// Decoding time of its first sample, ticks.
    pub start: i64,
    /// Ticks; so far, for the one that is open.
    pub duration: i64,
    pub parts: Vec<Part>,
    pub discontinuity: bool,
    pub independent: bool,
    /// Which initialisation section it needs.
    pub init: u32,
    /// Unix time of its first sample, nanoseconds.
    pub date: i64,
    /// The part target of its parts, ticks: with another one they are not listed any more.
    pub part_target: i64,
    /// Bytes of its complete parts.
    pub bytes: usize,
    /// When it left the playlist.
    left: Duration,
}

/// A place in a playlist: the last part there is. Orders as time does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// Media Sequence Number.
    pub msn: u64,
    /// Index of the part in its segment.
    pub part: u64,
}

/// How much is kept.
#[derive(Debug, Clone, Copy)]
pub(super) struct Window {
    pub segments: usize,
    /// Target Duration, seconds.
    pub target_seconds: u32,
}

#[derive(Debug)]
pub(super) struct Rendition {
    pub id: String,
    pub prefix: String,
    pub variant: Variant,
    pub timescale: u32,
    pub config: CodecConfig,
    inits: VecDeque<(u32, Bytes)>,
    /// Complete ones, oldest first; the last `listed` of them are in the playlist.
    segments: VecDeque<Segment>,
    listed: usize,
    open: Option<Segment>,
    fragment: Option<Fragment>,
    /// The segment that is open, as MPEG-TS.
    pub transport: Vec<u8>,
    last_sample: i64,
    next_sample: i64,
    next_msn: u64,
    next_part: u64,
    next_fragment: u32,
    pub discontinuity_sequence: u64,
    /// Ticks of the longest playlist so far.
    longest: i64,
    /// Bits per second of the segment with the most of them.
    pub peak: u64,
    last_part_bytes: usize,
    /// Counts every change of the playlist.
    pub revision: u64,
    pub rendered: Option<Rendered>,
}

impl Rendition {
    /// # Errors
    /// When the configuration cannot be told in an initialisation section.
    pub(super) fn new(
        id: String,
        prefix: String,
        variant: Variant,
        timescale: u32,
        config: CodecConfig,
        first_msn: u64,
    ) -> Result<Self, mp4_atom::Error> {
        let mut rendition = Self {
            id,
            prefix,
            variant,
            timescale,
            config,
            inits: VecDeque::new(),
            segments: VecDeque::new(),
            listed: 0,
            open: None,
            fragment: None,
            transport: Vec::new(),
            last_sample: 0,
            next_sample: 0,
            next_msn: first_msn,
            next_part: 0,
            next_fragment: 1,
            discontinuity_sequence: 0,
            longest: 0,
            peak: 0,
            last_part_bytes: 16 * 1024,
            revision: 0,
            rendered: None,
        };
        rendition.add_init(1)?;
        Ok(rendition)
    }

    fn add_init(&mut self, number: u32) -> Result<(), mp4_atom::Error> {
        if self.variant != Variant::MpegTs {
            self.inits.push_back((number, boxes::init(&self.config, self.timescale)?));
        }
        Ok(())
    }

    /// Another configuration holds from the next segment on.
    ///
    /// # Errors
    /// As [`Self::new`]; the old one then stays.
    pub(super) fn reconfigure(&mut self, config: CodecConfig) -> Result<(), mp4_atom::Error> {
        let old = std::mem::replace(&mut self.config, config);
        let number = self.init_number() + 1;
        self.add_init(number).inspect_err(|_| self.config = old)
    }

    /// The number of the newest initialisation section.
    fn init_number(&self) -> u32 {
        self.inits.back().map_or(1, |(number, _)| *number)
    }

    /// Ends what is open at `start` and begins a segment there.
    #[expect(clippy::too_many_arguments, reason = "all that a segment is told by")]
    pub(super) fn begin_segment(
        &mut self,
        start: i64,
        independent: bool,
        discontinuity: bool,
        date: i64,
        part_target: i64,
        window: Window,
        now: Duration,
    ) {
        self.end_part(start);
        self.complete(window, now);
        let init = self.init_number();
        self.open = Some(Segment {
            msn: self.next_msn,
            start,
            duration: 0,
            parts: Vec::new(),
            discontinuity,
            independent,
            init,
            date,
            part_target,
            bytes: 0,
            left: Duration::ZERO,
        });
        self.next_msn += 1;
        self.begin_part(start);
    }

    /// Ends the part that is open at `start` and begins one there.
    pub(super) fn begin_part(&mut self, start: i64) {
        self.end_part(start);
        if self.variant != Variant::MpegTs {
            self.fragment = Some(Fragment::new(start, self.last_part_bytes + self.last_part_bytes / 8));
        }
        self.next_sample = start;
    }

    /// The next sample is decoded at `time`, in the part that is open.
    pub(super) fn advance(&mut self, time: i64) {
        self.next_sample = time;
    }

    /// When the next sample is decoded.
    pub(super) fn next_sample(&self) -> i64 {
        self.next_sample
    }

    /// Adds the sample that is decoded at [`Self::next_sample`].
    pub(super) fn sample(&mut self, data: &[u8], sync: bool, composition: i64) {
        let Some(fragment) = &mut self.fragment else { return };
        if let Some(last) = fragment.samples.last_mut() {
            last.duration = u32::try_from(self.next_sample - self.last_sample).unwrap_or(0);
        }
        let bound = i64::from(i32::MAX);
        fragment.push(data, sync, composition.clamp(-bound, bound) as i32);
        self.mark();
    }

    /// The sample was written elsewhere.
    pub(super) fn mark(&mut self) {
        self.last_sample = self.next_sample;
    }

    fn end_part(&mut self, end: i64) {
        let Some(open) = &mut self.open else { return };
        let (body, independent) = match self.fragment.take() {
            Some(mut fragment) => {
                let Some(last) = fragment.samples.last_mut() else { return };
                last.duration = u32::try_from(end - self.last_sample).unwrap_or(0);
                let independent = fragment.samples.iter().any(|sample| sample.sync);
                self.last_part_bytes = fragment.data_bytes();
                let number = self.next_fragment;
                self.next_fragment = number.wrapping_add(1);
                (fragment.finish(number), independent)
            }
            None if self.variant == Variant::MpegTs && !self.transport.is_empty() => {
                let capacity = self.transport.len();
                let body = std::mem::replace(&mut self.transport, Vec::with_capacity(capacity));
                (Bytes::from(body), open.independent)
            }
            None => return,
        };
        let start = open.start + open.duration;
        let duration = end - start;
        open.duration += duration;
        open.bytes += body.len();
        open.parts.push(Part { number: self.next_part, duration, independent, body });
        self.next_part += 1;
        self.revision += 1;
        let playlist = self.listed_duration() + self.open_duration();
        self.longest = self.longest.max(playlist);
    }

    fn complete(&mut self, window: Window, now: Duration) {
        let Some(segment) = self.open.take().filter(|segment| !segment.parts.is_empty()) else {
            // Nothing came of it: its number is given again.
            self.next_msn = self.segments.back().map_or(self.next_msn, |last| last.msn + 1);
            return;
        };
        self.list(segment);
        self.trim(window, now);
    }

    fn list(&mut self, segment: Segment) {
        let micros = nanos(segment.duration, self.timescale).max(1) as u64 / 1000;
        self.peak = self.peak.max(segment.bytes as u64 * 8 * 1_000_000 / micros.max(1));
        self.segments.push_back(segment);
        self.listed += 1;
        self.revision += 1;
    }

    /// Ends the very first segment where its last part ends, key picture or not: players refuse a playlist without a
    /// complete segment, and the next key picture may be seconds away. `date_at` gives the date of a presentation
    /// time in ticks. Gives the presentation time at which the next segment begins.
    pub(super) fn hasten(&mut self, date_at: &mut dyn FnMut(i64) -> i64) -> Option<i64> {
        if self.variant != Variant::LowLatency || !self.segments.is_empty() {
            return None;
        }
        let open = self.open.as_ref().filter(|open| !open.parts.is_empty())?;
        let start = open.start + open.duration;
        let first = self.fragment.as_ref().and_then(|fragment| fragment.samples.first());
        let presentation = start + first.map_or(0, |sample| i64::from(sample.composition));
        let rest = Segment {
            msn: self.next_msn,
            start,
            duration: 0,
            parts: Vec::new(),
            discontinuity: false,
            independent: first.is_none_or(|sample| sample.sync),
            init: open.init,
            date: date_at(presentation),
            part_target: open.part_target,
            bytes: 0,
            left: Duration::ZERO,
        };
        self.next_msn += 1;
        let done = self.open.replace(rest)?;
        self.list(done);
        Some(presentation)
    }

    /// Takes the oldest segments out of the playlist, but not below three Target Durations (§6.2.2), and forgets those
    /// whose availability has ended: their duration and that of the longest playlist after they left.
    fn trim(&mut self, window: Window, now: Duration) {
        // A millisecond more, as playlists round durations down.
        let least = i64::from(3000 * window.target_seconds + 1) * i64::from(self.timescale) / 1000;
        while self.listed > window.segments.max(3) {
            let first = self.segments.len() - self.listed;
            if self.listed_duration() - self.segments[first].duration < least {
                break;
            }
            self.discontinuity_sequence += u64::from(self.segments[first].discontinuity);
            self.segments[first].left = now;
            self.listed -= 1;
        }
        while self.segments.len() > self.listed
            && let Some(first) = self.segments.front()
        {
            let available = nanos(first.duration + self.longest, self.timescale).max(0) as u64;
            let gone = now > first.left + Duration::from_nanos(available);
            // A source that sends faster than time passes must not fill the memory.
            if !gone && self.segments.len() - self.listed <= self.listed + 1 {
                break;
            }
            self.segments.pop_front();
        }
        let oldest_init = self.segments.front().map_or(0, |segment| segment.init);
        while self.inits.front().is_some_and(|(number, _)| *number < oldest_init) && self.inits.len() > 1 {
            self.inits.pop_front();
        }
    }

    /// Complete segments in the playlist, oldest first.
    pub(super) fn listed(&self) -> impl DoubleEndedIterator<Item = &Segment> + ExactSizeIterator {
        self.segments.range(self.segments.len() - self.listed..)
    }

    pub(super) fn open(&self) -> Option<&Segment> {
        self.open.as_ref()
    }

    /// The part target was chosen while a segment was open.
    pub(super) fn set_part_target(&mut self, target: Option<i64>) {
        if let (Some(open), Some(target)) = (&mut self.open, target)
            && open.part_target == 0
        {
            open.part_target = target;
        }
    }

    /// Ticks of the complete segments in the playlist.
    pub(super) fn listed_duration(&self) -> i64 {
        self.listed().map(|segment| segment.duration).sum()
    }

    fn open_duration(&self) -> i64 {
        self.open.as_ref().map_or(0, |open| open.duration)
    }

    /// Where the part that is open begins, ticks.
    pub(super) fn part_start(&self) -> i64 {
        self.open.as_ref().map_or(0, |open| open.start + open.duration)
    }

    /// Bytes of the segment that is open, the part that is open included.
    pub(super) fn open_bytes(&self) -> usize {
        let pending = self.fragment.as_ref().map_or(self.transport.len(), Fragment::data_bytes);
        self.open.as_ref().map_or(0, |open| open.bytes) + pending
    }

    /// Decoding time of the newest sample, ticks.
    pub(super) fn last_sample(&self) -> i64 {
        self.last_sample
    }

    /// Number of the part that comes next.
    pub(super) fn next_part(&self) -> u64 {
        self.next_part
    }

    /// The Media Sequence Number of the first listed segment.
    pub(super) fn media_sequence(&self) -> u64 {
        let first = self.listed().next().or(self.open.as_ref());
        first.map_or(self.next_msn, |segment| segment.msn)
    }

    /// The last part there is.
    pub(super) fn position(&self) -> Option<Position> {
        let of = |segment: &Segment| {
            let last = segment.parts.len().checked_sub(1)?;
            Some(Position { msn: segment.msn, part: last as u64 })
        };
        self.open.as_ref().and_then(of).or_else(|| self.segments.back().and_then(of))
    }

    /// The Media Sequence Number of the last complete segment.
    pub(super) fn last_complete(&self) -> Option<u64> {
        self.segments.back().map(|segment| segment.msn)
    }

    /// Whether the playlist has this part, or a later one (§6.2.5.2).
    pub(super) fn has_part(&self, msn: u64, part: u64) -> bool {
        let Some(last) = self.position() else { return false };
        let complete = self.segments.iter().rfind(|segment| segment.msn == msn);
        match complete {
            // An index past the end of a segment means the first part of the next one.
            Some(segment) if part >= segment.parts.len() as u64 => last.msn > msn,
            _ => last >= Position { msn, part },
        }
    }

    pub(super) fn part(&self, number: u64) -> Option<Bytes> {
        let segments = self.segments.iter().chain(&self.open);
        let mut newest_first = segments.rev();
        let segment =
            newest_first.find(|segment| segment.parts.first().is_some_and(|first| first.number <= number))?;
        let first = segment.parts.first()?.number;
        segment.parts.get((number - first) as usize).map(|part| part.body.clone())
    }

    pub(super) fn segment(&self, msn: u64) -> Option<Body> {
        let first = self.segments.front()?.msn;
        let segment = self.segments.get(usize::try_from(msn.checked_sub(first)?).ok()?)?;
        Some(Body(segment.parts.iter().map(|part| part.body.clone()).collect()))
    }

    pub(super) fn init(&self, number: u32) -> Option<Bytes> {
        self.inits.iter().find(|(known, _)| *known == number).map(|(_, body)| body.clone())
    }

    /// Bits per second of what is there: on average, and at most.
    pub(super) fn bandwidth(&self) -> (u64, u64) {
        let all = self.listed().chain(&self.open);
        let (bytes, ticks) =
            all.fold((0, 0), |(bytes, ticks), segment| (bytes + segment.bytes, ticks + segment.duration));
        let micros = (nanos(ticks, self.timescale) / 1000).max(1) as u64;
        let average = bytes as u64 * 8 * 1_000_000 / micros;
        (average, self.peak.max(average))
    }

    /// Bytes held.
    pub(super) fn bytes(&self) -> usize {
        self.segments.iter().map(|segment| segment.bytes).sum::<usize>() + self.open_bytes()
    }
}
