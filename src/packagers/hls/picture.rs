//! The pictures of a stream: placed in time, cut into parts and segments.
//!
//! What a loss tore is left out, and what follows it is passed on: decoders conceal, and the line of time goes on. Only
//! when a key picture was torn is everything left out up to the next one, since all of it would show rubbish.

use std::time::Duration;

use corecast_media::{Codec, Track};
use corecast_proto::rtp::payload::units::Unit;

use super::clock::{DecodeOrder, PictureClock, nanos, ticks};
use super::codec::CodecConfig;
use super::mpegts::TransportWriter;
use super::rendition::{Rendition, Window};
use super::shape::Shaper;
use super::{Settings, Variant};

/// How far decoding may fall behind showing before the line is closed up.
const LAG_MAX: Duration = Duration::from_secs(1);

/// Pictures per second beyond this are a wrong guess from two near stamps.
const RATE_MAX_MILLI: u64 = 1_000_000;

/// A segment began; tracks of sound follow.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cut {
    /// Presentation time of its first picture, nanoseconds on the line of the muxer.
    pub at: i64,
    pub discontinuity: bool,
}

#[derive(Debug)]
pub(super) struct Pictures {
    pub track: Track,
    pub rendition: Option<Rendition>,
    id: String,
    clock: PictureClock,
    order: DecodeOrder,
    pub shaper: Shaper,
    last_decoding: i64,
    /// By how much the line was closed up behind the last picture.
    pulled: i64,
    /// Nothing is taken before the next key picture.
    awaits_key: bool,
    /// The next segment does not go on where the last one ended.
    breaks: bool,
    sets_revision: u32,
    /// Presentation time of the newest picture, nanoseconds.
    pub time: i64,
    /// Presentation time of the first picture of the open segment, nanoseconds.
    pub segment_time: i64,
    pub dropped: u64,
    pub jumps: u64,
}

/// What the muxer tells with each picture.
#[derive(Debug, Clone, Copy)]
pub(super) struct Context<'a> {
    pub settings: &'a Settings,
    pub window: Window,
    /// Unix time of the picture, nanoseconds.
    pub date: i64,
    pub now: Duration,
    /// In MPEG-TS: there is sound, too.
    pub has_audio: bool,
}

impl Pictures {
    pub(super) fn new(track: Track, id: String, settings: &Settings) -> Self {
        let timescale = track.clock_rate;
        Self {
            rendition: None,
            id,
            clock: PictureClock::new(timescale),
            order: DecodeOrder::default(),
            shaper: Shaper::new(settings.part_duration, timescale),
            last_decoding: 0,
            pulled: 0,
            awaits_key: true,
            breaks: false,
            sets_revision: 0,
            time: 0,
            segment_time: 0,
            dropped: 0,
            jumps: 0,
            track,
        }
    }

    /// Another source follows, with the same codec.
    pub(super) fn restart(&mut self, track: Track) {
        self.track = track;
        self.clock.restart();
        self.awaits_key = true;
        self.breaks = self.rendition.is_some();
        self.sets_revision = u32::MAX;
    }

    /// Pictures per second, in thousandths.
    pub(super) fn rate_milli(&self) -> Option<u64> {
        let step = u64::try_from(self.clock.step).ok().filter(|step| *step > 0)?;
        let rate = (u64::from(self.track.clock_rate) * 1000 + step / 2) / step;
        Some(rate).filter(|rate| *rate <= RATE_MAX_MILLI)
    }

    /// Takes a picture. `date_at` gives the Unix time that belongs to a time on the line, both in nanoseconds.
    pub(super) fn push(
        &mut self,
        unit: &Unit<'_>,
        context: Context<'_>,
        transport: &mut TransportWriter,
        date_at: &mut dyn FnMut(i64, i64) -> i64,
    ) -> Option<Cut> {
        if unit.damaged {
            self.awaits_key |= unit.key;
            self.dropped += 1;
            return None;
        }
        if self.awaits_key && !unit.key {
            self.dropped += 1;
            return None;
        }
        if unit.key && !self.configure(unit, context.settings) {
            self.awaits_key = true;
            self.dropped += 1;
            return None;
        }
        let may_reorder = self.rendition.as_ref()?.config.reorder_depth() != Some(0);
        let presentation = self.clock.place(unit.timestamp_wrapped, may_reorder);
        self.jumps = self.clock.jumps;
        let decoding = self.order.push(presentation, self.clock.step);
        self.awaits_key = false;
        let timescale = self.track.clock_rate;
        let is_first = self.rendition.as_ref()?.open().is_none();
        if !is_first {
            self.clock.step = (decoding - self.last_decoding).max(1);
        }
        self.last_decoding = decoding;
        self.time = nanos(presentation, timescale);
        let cut = if is_first {
            self.begin_segment(decoding, unit.key, context, date_at)
        } else {
            self.place(decoding, unit, context, date_at)
        };
        let rendition = self.rendition.as_mut()?;
        let time = rendition.next_sample();
        if rendition.variant == Variant::MpegTs {
            if cut.is_some() {
                transport.tables(&mut rendition.transport, true, context.has_audio);
            }
            let to_90k = |ticks: i64| (i128::from(ticks) * 90_000 / i128::from(timescale)) as i64;
            let (config, out) = (&rendition.config, &mut rendition.transport);
            transport.picture(out, config, unit.data, unit.key, to_90k(presentation), to_90k(decoding));
            rendition.mark();
        } else {
            rendition.sample(unit.data, unit.key, presentation - time);
            let lag = decoding - time - ticks(LAG_MAX, timescale);
            if lag > 0 {
                // Less than a step, so that pictures stay in order.
                self.pulled = lag.min(self.clock.step / 2);
                self.clock.pull(self.pulled);
            }
        }
        cut
    }

    /// Follows the parameters of a key picture. False when they are not complete or cannot be read.
    fn configure(&mut self, unit: &Unit<'_>, settings: &Settings) -> bool {
        let revision = unit.sets.map_or(0, |(_, revision)| revision);
        let told_by_sets = matches!(self.track.codec, Codec::H264 | Codec::H265);
        if self.rendition.is_some() && told_by_sets && revision == self.sets_revision {
            return true;
        }
        let sets = unit.sets.map(|(sets, _)| sets);
        let Some(config) = CodecConfig::of(&self.track, sets, None, unit.data) else {
            return false;
        };
        self.order.set_depth(config.reorder_depth());
        let configured = match &mut self.rendition {
            None => {
                let id =
                    if settings.variant == Variant::MpegTs { "main".to_owned() } else { self.id.clone() };
                let prefix = settings.prefix.clone();
                let made = Rendition::new(id, prefix, settings.variant, self.track.clock_rate, config, 0);
                self.rendition = made.ok();
                self.rendition.is_some()
            }
            Some(rendition) if rendition.config == config => true,
            Some(rendition) => {
                self.breaks = true;
                rendition.reconfigure(config).is_ok()
            }
        };
        if configured {
            self.sets_revision = revision;
        }
        configured
    }

    /// Cuts what is open where the picture that is decoded at `decoding` wants it.
    fn place(
        &mut self,
        decoding: i64,
        unit: &Unit<'_>,
        context: Context<'_>,
        date_at: &mut dyn FnMut(i64, i64) -> i64,
    ) -> Option<Cut> {
        let timescale = self.track.clock_rate;
        let step = self.clock.step;
        let rendition = self.rendition.as_mut()?;
        let open = rendition.open()?;
        let (last, part_start) = (rendition.last_sample(), rendition.part_start());
        let segmented = rendition.variant != Variant::MpegTs;
        // A segment may be rounded down to the Target Duration (§4.4.3.1).
        let limit = (2 * i64::from(context.window.target_seconds) + 1) * i64::from(timescale) / 2 - 1;
        // What ends its segment may be short, but neither a part nor a segment may be long.
        let target_end = self.shaper.target().map_or(i64::MAX, |target| part_start + target);
        let latest = if segmented { target_end.min(open.start + limit) } else { i64::MAX };
        let time = decoding.min(latest).max(last + 1);
        let elapsed = time - open.start;
        let wanted = ticks(context.settings.segment_duration, timescale);
        let at_key = unit.key && (elapsed + step / 2 >= wanted || !open.independent || self.breaks);
        let longest_step = self.shaper.target().map_or(step, |target| step.min(target));
        let full = rendition.open_bytes() + unit.data.len() > context.settings.segment_bytes_max;
        if at_key || elapsed + 2 * longest_step > limit || full {
            let mut time = time;
            if segmented {
                let target = self.shaper.choose();
                rendition.set_part_target(Some(target));
                time = time.min((part_start + target).max(last + 1));
                self.shaper.outgrown();
            }
            return self.begin_segment(time, unit.key, context, date_at);
        }
        if !segmented {
            rendition.advance(decoding.max(last + 1));
            return None;
        }
        // The shaper is told how the source really goes.
        let source_step = step + std::mem::take(&mut self.pulled);
        let placed = self.shaper.place(part_start, last, decoding, source_step);
        rendition.set_part_target(self.shaper.target());
        if placed.begins {
            rendition.begin_part(placed.time);
        } else {
            rendition.advance(placed.time);
        }
        None
    }

    fn begin_segment(
        &mut self,
        time: i64,
        independent: bool,
        context: Context<'_>,
        date_at: &mut dyn FnMut(i64, i64) -> i64,
    ) -> Option<Cut> {
        let rendition = self.rendition.as_mut()?;
        let discontinuity = std::mem::take(&mut self.breaks);
        self.segment_time = self.time;
        let date = date_at(self.time, context.date);
        let target = self.shaper.target().unwrap_or(0);
        rendition.begin_segment(time, independent, discontinuity, date, target, context.window, context.now);
        Some(Cut { at: self.time, discontinuity })
    }
}
