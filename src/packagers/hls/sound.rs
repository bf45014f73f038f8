//! The sound of a stream, on the line of time of its pictures.
//!
//! Frames follow each other without a gap, each as long as the codec says. What is missing is filled with silence, what
//! comes twice or too late is left out. A track that stops is filled up once it is [`PATIENCE`] behind the pictures, as
//! players would otherwise stop too; if it turns out to be merely that late, more patience is had with it.

use std::{collections::VecDeque, time::Duration};

use corecast_media::{TimestampUnwrapper, Track};
use corecast_proto::rtp::payload::units::Unit;

use super::clock::{HOLE_MAX, START, nanos, ticks};
use super::codec::CodecConfig;
use super::mpegts::TransportWriter;
use super::picture::Cut;
use super::rendition::{Rendition, Window};
use super::shape::Shaper;
use super::silence;
use super::{Settings, Variant};

/// How far sound may be behind pictures before silence takes its place.
pub(super) const PATIENCE: Duration = Duration::from_secs(1);
const PATIENCE_MAX: Duration = Duration::from_secs(5);
/// Frames in a row that must be off before the track is moved.
const OFF_FRAMES: u32 = 20;
/// Off by more than this against the pictures, by the source's own clocks, or by estimated ones.
const OFF_ABSOLUTE: Duration = Duration::from_millis(60);
const OFF_ESTIMATED: Duration = Duration::from_millis(500);
/// Cuts that wait for sound to come so far.
const CUTS_MAX: usize = 64;

/// Where on the line a frame belongs, by the pictures.
#[derive(Debug, Clone, Copy)]
pub(super) struct Due {
    /// Nanoseconds.
    pub time: i64,
    /// Both clocks are the source's own.
    pub absolute: bool,
}

/// The segment of the pictures that is open: where a track that begins joins in.
#[derive(Debug, Clone, Copy)]
pub(super) struct Joint {
    pub msn: u64,
    /// Nanoseconds.
    pub at: i64,
    pub discontinuities: u64,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Context<'a> {
    pub settings: &'a Settings,
    pub window: Window,
    pub now: Duration,
}

#[derive(Debug)]
pub(super) struct Sound {
    pub track: Track,
    id: String,
    audio_config: Option<Vec<u8>>,
    pub rendition: Option<Rendition>,
    unwrapper: TimestampUnwrapper,
    offset: Option<i64>,
    /// Where the next frame goes, ticks.
    next: i64,
    /// How long the last frame lasted, ticks.
    frame: i64,
    filler: Vec<u8>,
    cuts: VecDeque<Cut>,
    breaks: bool,
    off: u32,
    filling: bool,
    patience: i64,
    part_target: i64,
    /// Frames of silence, and frames left out.
    pub filled: u64,
    pub dropped: u64,
}

impl Sound {
    /// `audio_config`: the AudioSpecificConfig of AAC.
    pub(super) fn new(track: Track, id: String, audio_config: Option<&[u8]>, settings: &Settings) -> Self {
        let config = CodecConfig::of(&track, None, audio_config, &[0; 8]);
        // Opus packets are nearly always of 20 ms.
        let likely = config.map_or(0, |config| config.frame_ticks(track.clock_rate, &[0xfc]));
        let step = i64::from(likely).max(1);
        let target = Shaper::of_frames(settings.part_duration, track.clock_rate, step).target();
        Self {
            id,
            audio_config: audio_config.map(<[u8]>::to_vec),
            rendition: None,
            unwrapper: TimestampUnwrapper::default(),
            offset: None,
            next: 0,
            frame: step,
            filler: Vec::new(),
            cuts: VecDeque::new(),
            breaks: false,
            off: 0,
            filling: false,
            patience: PATIENCE.as_nanos() as i64,
            part_target: target.unwrap_or(1),
            filled: 0,
            dropped: 0,
            track,
        }
    }

    /// The name of its codec.
    pub(super) fn codecs(&self) -> Option<String> {
        Some(self.config(&[0; 8])?.codecs())
    }

    /// The part target, ticks.
    pub(super) fn part_target(&self) -> i64 {
        self.part_target
    }

    /// Another source follows, with the same codec.
    pub(super) fn restart(&mut self, track: Track, audio_config: Option<&[u8]>) {
        self.track = track;
        self.audio_config = audio_config.map(<[u8]>::to_vec);
        self.unwrapper = TimestampUnwrapper::default();
        self.offset = None;
    }

    /// The pictures began a segment.
    pub(super) fn cut(&mut self, cut: Cut) {
        if self.rendition.is_some() {
            if self.cuts.len() >= CUTS_MAX {
                self.cuts.pop_front();
            }
            self.cuts.push_back(cut);
        }
    }

    /// Takes a frame. `due` and `joint` are `None` when there are no pictures.
    pub(super) fn push(
        &mut self,
        unit: &Unit<'_>,
        due: Option<Due>,
        joint: Option<Joint>,
        context: Context<'_>,
        date_at: &mut dyn FnMut(i64) -> i64,
    ) {
        let timescale = self.track.clock_rate;
        let begins_with = match &self.rendition {
            Some(_) => None,
            None => match self.config(unit.data) {
                Some(config) => Some(config),
                None => return,
            },
        };
        let of_rendition = self.rendition.as_ref().map(|rendition| &rendition.config);
        let Some(config) = begins_with.as_ref().or(of_rendition) else { return };
        let duration = i64::from(config.frame_ticks(timescale, unit.data));
        if duration <= 0 {
            self.dropped += 1;
            return;
        }
        self.frame = duration;
        let source = self.unwrapper.unwrap(unit.timestamp_wrapped);
        let due_ticks = due.map(|due| (due.time as i128 * i128::from(timescale) / 1_000_000_000) as i64);
        let fresh = if self.rendition.is_some() { self.next } else { ticks(START, timescale) };
        let offset = *self.offset.get_or_insert(due_ticks.unwrap_or(fresh).wrapping_sub(source));
        let mut time = source.wrapping_add(offset);
        time = self.keep_in_step(source, time, due, due_ticks);
        if let Some(config) = begins_with
            && !self.begin(config, time, joint, context, date_at)
        {
            return;
        }
        let hole_max = ticks(HOLE_MAX, timescale);
        let mut ahead = time - self.next;
        if ahead.abs() > 2 * hole_max {
            // A jump of the source, or a pause: where the pictures say, else where the last frame ended.
            let at = due_ticks.filter(|at| (at - self.next).abs() <= 2 * hole_max).unwrap_or(self.next);
            self.offset = Some(at.wrapping_sub(source));
            ahead = at - self.next;
        }
        if ahead < -duration {
            self.too_late(-ahead, timescale);
            return;
        }
        self.filling = false;
        if ahead > duration {
            for _ in 0..(ahead / duration).min(2 * hole_max / duration) {
                self.fill_one(context, date_at);
            }
        }
        self.emit(unit.data, duration, context, date_at);
    }

    fn config(&self, frame: &[u8]) -> Option<CodecConfig> {
        match &self.rendition {
            Some(rendition) => Some(rendition.config.clone()),
            None => CodecConfig::of(&self.track, None, self.audio_config.as_deref(), frame),
        }
    }

    /// Moves the track when it has been off against the pictures for a while.
    fn keep_in_step(&mut self, source: i64, time: i64, due: Option<Due>, due_ticks: Option<i64>) -> i64 {
        let (Some(due), Some(due_ticks)) = (due, due_ticks) else { return time };
        let allowed = ticks(if due.absolute { OFF_ABSOLUTE } else { OFF_ESTIMATED }, self.track.clock_rate);
        if (time - due_ticks).abs() <= allowed {
            self.off = 0;
            return time;
        }
        self.off += 1;
        if self.off < OFF_FRAMES {
            return time;
        }
        self.off = 0;
        self.offset = Some(due_ticks.wrapping_sub(source));
        due_ticks
    }

    fn too_late(&mut self, behind: i64, timescale: u32) {
        self.dropped += 1;
        if self.filling {
            // Not gone, only later than was waited for.
            let late = nanos(behind, timescale) + self.patience;
            let max = PATIENCE_MAX.as_nanos() as i64;
            self.patience = (late + 300_000_000).clamp(self.patience, max);
            self.filling = false;
        }
    }

    /// Begins the rendition with the segment of the pictures that is open. False when the frame is before it.
    fn begin(
        &mut self,
        config: CodecConfig,
        time: i64,
        joint: Option<Joint>,
        context: Context<'_>,
        date_at: &mut dyn FnMut(i64) -> i64,
    ) -> bool {
        let timescale = self.track.clock_rate;
        let (msn, at, discontinuities) = match joint {
            Some(joint) => (
                joint.msn,
                (i128::from(joint.at) * i128::from(timescale) / 1_000_000_000) as i64,
                joint.discontinuities,
            ),
            None => (0, time, 0),
        };
        if time + self.frame / 2 < at {
            return false;
        }
        self.filler = silence::frame(&config).unwrap_or_default();
        let id =
            if context.settings.variant == Variant::MpegTs { "main".to_owned() } else { self.id.clone() };
        let prefix = context.settings.prefix.clone();
        let Ok(mut rendition) = Rendition::new(id, prefix, context.settings.variant, timescale, config, msn)
        else {
            return false;
        };
        rendition.discontinuity_sequence = discontinuities;
        self.rendition = Some(rendition);
        let missing = if self.filler.is_empty() { 0 } else { ((time - at) / self.frame).max(0) };
        // A group of pictures is not longer than this; more is no late beginning but another line of time.
        let missing = missing.min(60 * i64::from(timescale) / self.frame);
        self.next = time - missing * self.frame;
        self.begin_segment(false, context, date_at);
        for _ in 0..missing {
            self.fill_one(context, date_at);
        }
        true
    }

    fn begin_segment(
        &mut self,
        discontinuity: bool,
        context: Context<'_>,
        date_at: &mut dyn FnMut(i64) -> i64,
    ) {
        let Some(rendition) = &mut self.rendition else { return };
        let date = date_at(nanos(self.next, self.track.clock_rate));
        let (window, now) = (context.window, context.now);
        rendition.begin_segment(self.next, true, discontinuity, date, self.part_target, window, now);
    }

    /// One frame that the source did not send: silence, or the last frame again where the codec has none here.
    fn fill_one(&mut self, context: Context<'_>, date_at: &mut dyn FnMut(i64) -> i64) {
        let filler = std::mem::take(&mut self.filler);
        self.filled += 1;
        self.emit(&filler, self.frame, context, date_at);
        self.filler = filler;
    }

    fn emit(
        &mut self,
        data: &[u8],
        duration: i64,
        context: Context<'_>,
        date_at: &mut dyn FnMut(i64) -> i64,
    ) {
        let timescale = self.track.clock_rate;
        let Some(rendition) = &mut self.rendition else { return };
        let elapsed = rendition.open().map_or(0, |open| self.next - open.start);
        let limit = (2 * i64::from(context.window.target_seconds) + 1) * i64::from(timescale) / 2 - 1;
        let mut cut = None;
        while let Some(next) = self.cuts.front()
            && self.next + duration / 2
                >= (i128::from(next.at) * i128::from(timescale) / 1_000_000_000) as i64
        {
            cut = Some(next.discontinuity || cut.unwrap_or(false));
            self.cuts.pop_front();
        }
        let full = rendition.open_bytes() + data.len() > context.settings.segment_bytes_max;
        // Alone, the track is cut by its own time; beside pictures, only when they do not cut it.
        if elapsed > 0 && (cut.is_some() || elapsed + duration > limit || full) {
            let discontinuity = cut.unwrap_or(false) | std::mem::take(&mut self.breaks);
            self.begin_segment(discontinuity, context, date_at);
        } else if let Some(true) = cut {
            self.breaks = true;
        }
        let Some(rendition) = &mut self.rendition else { return };
        let has_parts = rendition.variant != Variant::MpegTs;
        let overruns = self.next + duration - rendition.part_start() > self.part_target;
        if has_parts && overruns && self.next > rendition.part_start() {
            rendition.begin_part(self.next);
        }
        rendition.advance(self.next);
        rendition.sample(data, true, 0);
        self.next += duration;
        if self.filler.is_empty() && silence::frame(&rendition.config).is_none() {
            self.filler = data.to_vec();
        }
        // The next frame would not fit: the part need not wait for it.
        if has_parts && self.next + duration - rendition.part_start() > self.part_target {
            rendition.begin_part(self.next);
        }
    }

    /// The track leads: it is cut by its own time.
    pub(super) fn cut_alone(&mut self, context: Context<'_>) {
        let Some(open) = self.rendition.as_ref().and_then(Rendition::open) else { return };
        let wanted = ticks(context.settings.segment_duration, self.track.clock_rate);
        if self.next - open.start + self.frame / 2 >= wanted && self.cuts.is_empty() {
            self.cuts.push_back(Cut { at: nanos(self.next, self.track.clock_rate), discontinuity: false });
        }
    }

    /// The pictures have come to `time`, nanoseconds.
    pub(super) fn follow(&mut self, time: i64, context: Context<'_>, date_at: &mut dyn FnMut(i64) -> i64) {
        if self.rendition.is_none() || self.filler.is_empty() {
            return;
        }
        let timescale = self.track.clock_rate;
        let behind = time - nanos(self.next, timescale);
        if behind <= self.patience && !self.filling {
            return;
        }
        self.filling = true;
        let due = (i128::from(time) * i128::from(timescale) / 1_000_000_000) as i64;
        // Never more than a few seconds at once, whatever the clocks say.
        for _ in 0..((due - self.next) / self.frame).clamp(0, 8 * i64::from(timescale) / self.frame) {
            self.fill_one(context, date_at);
        }
    }

    /// Into the transport stream of the pictures, or into its own. `time`: nanoseconds.
    pub(super) fn push_transport(
        &mut self,
        unit: &Unit<'_>,
        time: i64,
        out: &mut Vec<u8>,
        transport: &mut TransportWriter,
        clock: bool,
    ) {
        if let Some(CodecConfig::Aac { facts, .. }) = self.config(unit.data) {
            let presentation = (i128::from(time) * 90_000 / 1_000_000_000) as i64;
            transport.sound(out, &facts, unit.data, presentation, clock);
        }
    }

    /// A time on the line for a frame of a transport stream, nanoseconds; `None` before the pictures begin.
    pub(super) fn place_for_transport(&mut self, unit: &Unit<'_>, due: Option<Due>) -> Option<i64> {
        let timescale = self.track.clock_rate;
        let due_ticks = (i128::from(due?.time) * i128::from(timescale) / 1_000_000_000) as i64;
        let source = self.unwrapper.unwrap(unit.timestamp_wrapped);
        let offset = *self.offset.get_or_insert(due_ticks.wrapping_sub(source));
        let mut time = self.keep_in_step(source, source.wrapping_add(offset), due, Some(due_ticks));
        if (time - due_ticks).abs() > 2 * ticks(HOLE_MAX, timescale) {
            self.offset = Some(due_ticks.wrapping_sub(source));
            time = due_ticks;
        }
        // Times only go forward.
        if self.next != 0 && time < self.next {
            self.dropped += 1;
            return None;
        }
        self.next = time + 1;
        Some(nanos(time, timescale))
    }
}
