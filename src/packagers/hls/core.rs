//! The tracks of a muxer together: pictures lead, sound follows, one line of time and one mapping of it to dates.

use std::{collections::VecDeque, time::Duration};

use corecast_proto::rtp::payload::units::Unit;

use super::clock::nanos;
use super::mpegts::TransportWriter;
use super::picture::{self, Pictures};
use super::playlist::{Common, Presentation, millis_up};
use super::rendition::{Rendition, Window};
use super::sound::{self, Due, Joint, PATIENCE, Sound};
use super::{Settings, Variant};

/// A date that differs from the expected one by less goes by the expected one.
const DATE_JITTER: i64 = 20_000_000;
/// A date may go back by less than this (§6.2.1: sub-second overlaps), or by more than what any player still has.
const DATE_OVERLAP: i64 = 900_000_000;
const DATE_FAR_BACK: i64 = 600_000_000_000;

#[derive(Debug)]
pub(super) struct Core {
    pub settings: Settings,
    pub window: Window,
    pub pictures: Option<Pictures>,
    pub sounds: Vec<Sound>,
    pub transport: TransportWriter,
    pub dates: Dates,
    pub anchor: Option<Anchor>,
    pub began: Option<Duration>,
    pub renders: u64,
}

/// The newest picture, to place sound by.
#[derive(Debug, Clone, Copy)]
pub(super) struct Anchor {
    time: i64,
    unix: i64,
    absolute: bool,
    arrival: Duration,
}

/// Which Unix time belongs to which time on the line: one mapping for all renditions (§6.2.4).
#[derive(Debug, Default)]
pub(super) struct Dates {
    /// From this time on, this difference; nanoseconds.
    steps: VecDeque<(i64, i64)>,
}

impl Dates {
    fn at(&self, time: i64) -> i64 {
        let step = self.steps.iter().rev().find(|(from, _)| *from <= time).or(self.steps.front());
        time + step.map_or(0, |(_, difference)| *difference)
    }

    /// A segment begins at `time`, and the source says that it is `unix` then.
    fn anchor(&mut self, time: i64, unix: i64) -> i64 {
        let difference = unix - time;
        let follow = match self.steps.back() {
            None => true,
            Some((_, old)) => {
                let moved = difference - old;
                moved > DATE_JITTER
                    || (-DATE_OVERLAP..-DATE_JITTER).contains(&moved)
                    || moved < -DATE_FAR_BACK
            }
        };
        if follow {
            self.steps.push_back((time, difference));
            if self.steps.len() > 64 {
                self.steps.pop_front();
            }
        }
        self.at(time)
    }
}

/// When a unit was taken, and when it came.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stamp {
    /// Nanoseconds.
    pub unix: i64,
    pub absolute: bool,
    pub now: Duration,
}

impl Core {
    fn is_transport(&self) -> bool {
        self.settings.variant == Variant::MpegTs
    }

    pub(super) fn picture(&mut self, unit: &Unit<'_>, stamp: Stamp) {
        let has_audio = !self.sounds.is_empty();
        let Self { settings, window, pictures: Some(pictures), transport, dates, .. } = self else { return };
        let context =
            picture::Context { settings, window: *window, date: stamp.unix, now: stamp.now, has_audio };
        let before = pictures.dropped;
        let cut = pictures.push(unit, context, transport, &mut |time, unix| dates.anchor(time, unix));
        if pictures.dropped > before {
            return;
        }
        let time = pictures.time;
        // Pictures that are shown before their turn came earlier than their time says.
        if self.anchor.is_none_or(|anchor| anchor.time < time || anchor.arrival + PATIENCE < stamp.now) {
            self.anchor =
                Some(Anchor { time, unix: stamp.unix, absolute: stamp.absolute, arrival: stamp.now });
        }
        if self.is_transport() {
            return;
        }
        let Self { settings, window, sounds, dates, .. } = self;
        let context = sound::Context { settings, window: *window, now: stamp.now };
        for sound in sounds {
            if let Some(cut) = cut {
                sound.cut(cut);
            }
            sound.follow(time, context, &mut |time| dates.at(time));
        }
    }

    pub(super) fn sound(&mut self, index: usize, unit: &Unit<'_>, stamp: Stamp) {
        let due = self.anchor.map(|anchor| {
            let absolute = anchor.absolute && stamp.absolute;
            let since = if anchor.absolute == stamp.absolute {
                stamp.unix - anchor.unix
            } else {
                stamp.now.as_nanos() as i64 - anchor.arrival.as_nanos() as i64
            };
            Due { time: anchor.time + since, absolute }
        });
        let transport = self.is_transport();
        let Self { settings, window, pictures, sounds, dates, transport: writer, .. } = self;
        let Some(sound) = sounds.get_mut(index) else { return };
        let context = sound::Context { settings, window: *window, now: stamp.now };
        let Some(pictures) = pictures else {
            // Alone: the track leads, and its dates are the source's.
            let first = sound.rendition.is_none();
            let unix = stamp.unix;
            sound.cut_alone(context);
            sound.push(unit, None, None, context, &mut |time| dates.anchor(time, unix));
            if transport && let Some(rendition) = &mut sound.rendition {
                let time = nanos(rendition.last_sample(), rendition.timescale);
                let mut out = std::mem::take(&mut rendition.transport);
                if first || out.is_empty() {
                    writer.tables(&mut out, false, true);
                }
                sound.push_transport(unit, time, &mut out, writer, true);
                if let Some(rendition) = &mut sound.rendition {
                    rendition.transport = out;
                }
            }
            return;
        };
        let Some(lead) = pictures.rendition.as_mut() else { return };
        let Some(open) = lead.open() else { return };
        if transport {
            if let Some(time) =
                sound.place_for_transport(unit, due).filter(|time| *time >= pictures.segment_time)
            {
                sound.push_transport(unit, time, &mut lead.transport, writer, false);
            }
            return;
        }
        let breaks = lead.listed().filter(|segment| segment.discontinuity).count() as u64;
        let discontinuities = lead.discontinuity_sequence + breaks + u64::from(open.discontinuity);
        let joint = Joint { msn: open.msn, at: pictures.segment_time, discontinuities };
        sound.push(unit, due, Some(joint), context, &mut |time| dates.at(time));
    }

    /// There is somebody who wants to play: see [`Rendition::hasten`].
    pub(super) fn hasten(&mut self) {
        let Self { pictures, sounds, dates, .. } = self;
        if let Some(pictures) = pictures
            && let Some(rendition) = &mut pictures.rendition
        {
            if pictures.shaper.target().is_none() {
                return;
            }
            let timescale = rendition.timescale;
            if let Some(time) = rendition.hasten(&mut |ticks| dates.at(nanos(ticks, timescale))) {
                pictures.segment_time = nanos(time, timescale);
            }
        }
        for rendition in sounds.iter_mut().filter_map(|sound| sound.rendition.as_mut()) {
            let timescale = rendition.timescale;
            rendition.hasten(&mut |ticks| dates.at(nanos(ticks, timescale)));
        }
    }

    pub(super) fn rendition_count(&self) -> usize {
        let sounds = if self.is_transport() && self.pictures.is_some() { 0 } else { self.sounds.len() };
        usize::from(self.pictures.is_some()) + sounds
    }

    pub(super) fn id(&self, index: usize) -> String {
        if self.is_transport() {
            return "main".to_owned();
        }
        match &self.pictures {
            Some(_) if index == 0 => "video1".to_owned(),
            _ => format!("audio{}", index + 1),
        }
    }

    pub(super) fn rendition(&self, index: usize) -> Option<&Rendition> {
        match &self.pictures {
            Some(pictures) if index == 0 => pictures.rendition.as_ref(),
            Some(_) => self.sounds.get(index - 1)?.rendition.as_ref(),
            None => self.sounds.get(index)?.rendition.as_ref(),
        }
    }

    pub(super) fn rendition_mut(&mut self, index: usize) -> Option<&mut Rendition> {
        match &mut self.pictures {
            Some(pictures) if index == 0 => pictures.rendition.as_mut(),
            Some(_) => self.sounds.get_mut(index - 1)?.rendition.as_mut(),
            None => self.sounds.get_mut(index)?.rendition.as_mut(),
        }
    }

    /// Ticks of the rendition's own scale.
    pub(super) fn part_target(&self, index: usize) -> i64 {
        match &self.pictures {
            Some(pictures) if index == 0 => pictures.shaper.target().unwrap_or(1),
            Some(_) => self.sounds.get(index - 1).map_or(1, Sound::part_target),
            None => self.sounds.get(index).map_or(1, Sound::part_target),
        }
    }

    pub(super) fn common(&self, index: usize) -> Common {
        let mut longest_ms = 0;
        if let Some(pictures) = &self.pictures {
            longest_ms = millis_up(pictures.shaper.target().unwrap_or(0), pictures.track.clock_rate);
        }
        for sound in &self.sounds {
            longest_ms = longest_ms.max(millis_up(sound.part_target(), sound.track.clock_rate));
        }
        let others = (0..self.rendition_count()).filter(|other| *other != index);
        let reports = others.filter_map(|other| {
            let rendition = self.rendition(other)?;
            Some((format!("{}_stream.m3u8", rendition.id), rendition.position()?))
        });
        Common {
            target_duration: self.window.target_seconds,
            part_hold_back_ms: 3 * longest_ms,
            reports: reports.collect(),
        }
    }

    pub(super) fn has_content(&self, rendition: &Rendition) -> bool {
        match self.settings.variant {
            // The part target of the pictures is told in all playlists, so it has to be known.
            Variant::LowLatency => {
                let chosen = self.pictures.as_ref().is_none_or(|pictures| pictures.shaper.target().is_some());
                chosen && rendition.position().is_some()
            }
            Variant::Fmp4 | Variant::MpegTs => rendition.last_complete().is_some(),
        }
    }

    pub(super) fn is_presentable(&self, now: Duration) -> bool {
        let has = |index| self.rendition(index).is_some_and(|rendition| self.has_content(rendition));
        let waited = self.began.is_some_and(|began| now >= began + PATIENCE);
        has(0)
            && (1..self.rendition_count())
                .all(|index| has(index) || (waited && self.rendition(index).is_none()))
    }

    pub(super) fn presentation(&self) -> Option<Presentation<'_>> {
        let lead = self.rendition(0)?;
        let others = (1..self.rendition_count()).filter_map(|index| self.rendition(index));
        let audio: Vec<_> = others.filter(|rendition| self.has_content(rendition)).collect();
        let mut codecs = vec![lead.config.codecs()];
        codecs.extend(audio.iter().map(|rendition| rendition.config.codecs()));
        if self.is_transport() && self.pictures.is_some() {
            codecs.extend(self.sounds.iter().filter_map(Sound::codecs));
        }
        codecs.dedup();
        Some(Presentation {
            variant: self.settings.variant,
            independent_segments: self.settings.key_interval.is_some()
                && lead.listed().chain(lead.open()).all(|segment| segment.independent),
            lead,
            audio,
            codecs,
            frame_rate_milli: self.pictures.as_ref().and_then(Pictures::rate_milli),
        })
    }
}
