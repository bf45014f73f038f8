//! One muxer: the tracks of a stream, and what players ask of it.

use std::time::Duration;

use bytes::Bytes;
use corecast_media::{ClockRate, Codec, Kind, Track};
use corecast_proto::rtp::payload::units::Depacketizer;
use corecast_proto::rtp::timeline::Timeline;
use corecast_proto::rtp::{header, rtcp};

use super::codec::CodecConfig;
use super::core::{Core, Dates, Stamp};
use super::mpegts::TransportWriter;
use super::picture::Pictures;
use super::playlist::{self, Rendered, Text, millis_up};
use super::rendition::{Rendition, Window};
use super::request::{self, Answer, Await, Directives, Encoded, FileKind};
use super::sound::Sound;
use super::{Arrival, Body, Position, Settings, VIDEO_PREFERENCE, Variant};

/// Why no muxer can be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MuxerError {
    #[error(
        "the stream doesn't contain any supported codec, which are currently AV1, VP9, H265, H264, Opus, MPEG-4 Audio, AC3"
    )]
    NoCodec,
    #[error("the mpegts variant carries H264 video and MPEG-4 Audio only, and the stream has neither")]
    NoTransportCodec,
}

/// A track that is not in the playlists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Skipped {
    /// Its index in the stream.
    pub track: usize,
    pub codec: Codec,
    /// For the log.
    pub reason: String,
}

/// What a muxer has done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Totals {
    /// Media playlists rendered: at most one per change, however many asked.
    pub renders: u64,
    /// Units left out: torn, before the first key picture, too late.
    pub dropped: u64,
    /// Frames of silence that took the place of sound.
    pub filled: u64,
    /// Jumps and holes of the source's clock that were closed up.
    pub jumps: u64,
    /// Bytes of media held.
    pub bytes: usize,
}

/// What becomes of a track of the stream.
#[derive(Debug, Clone, Copy)]
enum Role {
    Pictures,
    Sound(usize),
}

#[derive(Debug)]
struct Input {
    role: Role,
    depacketizer: Depacketizer,
    timeline: Option<Timeline>,
    last_timestamp: Option<u32>,
}

/// See the module of HLS.
#[derive(Debug)]
pub struct Muxer {
    inputs: Vec<Option<Input>>,
    core: Core,
}

/// One that has a track for each of the stream's, or the reason why not.
fn choose(tracks: &[Track], variant: Variant) -> (Vec<Option<Role>>, Vec<Skipped>) {
    let transport = variant == Variant::MpegTs;
    let fits = |track: &Track| match track.codec {
        Codec::H264 | Codec::Mpeg4Audio => ClockRate::new(track.clock_rate).is_some(),
        codec => !transport && CodecConfig::is_supported(codec) && ClockRate::new(track.clock_rate).is_some(),
    };
    let video = VIDEO_PREFERENCE
        .iter()
        .find_map(|codec| tracks.iter().position(|track| track.codec == *codec && fits(track)));
    let (mut roles, mut skipped, mut sounds) = (Vec::new(), Vec::new(), 0);
    for (index, track) in tracks.iter().enumerate() {
        let role = if Some(index) == video {
            Some(Role::Pictures)
        } else if track.kind == Kind::Audio && fits(track) && (sounds == 0 || (video.is_some() && !transport))
        {
            sounds += 1;
            Some(Role::Sound(sounds - 1))
        } else {
            let label = track.codec.label();
            skipped.push(Skipped {
                track: index,
                codec: track.codec,
                reason: format!("skipping track {} ({label}): HLS cannot carry it here", index + 1),
            });
            None
        };
        roles.push(role);
    }
    (roles, skipped)
}

impl Muxer {
    /// A muxer of a stream with these tracks, and which of them it leaves out.
    ///
    /// # Errors
    /// When it would have to leave out all of them.
    pub fn new(settings: Settings, tracks: &[Track]) -> Result<(Self, Vec<Skipped>), MuxerError> {
        let (roles, mut skipped) = choose(tracks, settings.variant);
        let window = Window {
            segments: settings.segment_count.clamp(3, 1000),
            target_seconds: settings.target_seconds(),
        };
        let (mut inputs, mut pictures, mut sounds) = (Vec::new(), None, Vec::new());
        let first_sound = usize::from(roles.iter().any(|role| matches!(role, Some(Role::Pictures))));
        for (index, (track, role)) in tracks.iter().zip(roles).enumerate() {
            let Some(role) = role else {
                inputs.push(None);
                continue;
            };
            let depacketizer = match Depacketizer::new(track) {
                Ok(depacketizer) => depacketizer,
                Err(error) => {
                    let reason = format!("skipping track {}: {error}", index + 1);
                    skipped.push(Skipped { track: index, codec: track.codec, reason });
                    inputs.push(None);
                    continue;
                }
            };
            let role = match role {
                Role::Pictures => {
                    pictures = Some(Pictures::new(track.clone(), "video1".to_owned(), &settings));
                    Role::Pictures
                }
                Role::Sound(_) => {
                    let id = format!("audio{}", first_sound + sounds.len() + 1);
                    sounds.push(Sound::new(track.clone(), id, depacketizer.audio_config(), &settings));
                    Role::Sound(sounds.len() - 1)
                }
            };
            let timeline = ClockRate::new(track.clock_rate).map(Timeline::new);
            inputs.push(Some(Input { role, depacketizer, timeline, last_timestamp: None }));
        }
        if pictures.is_none() && sounds.is_empty() {
            let transport = settings.variant == Variant::MpegTs;
            return Err(if transport { MuxerError::NoTransportCodec } else { MuxerError::NoCodec });
        }
        let core = Core {
            settings,
            window,
            pictures,
            sounds,
            transport: TransportWriter::default(),
            dates: Dates::default(),
            anchor: None,
            began: None,
            renders: 0,
        };
        Ok((Self { inputs, core }, skipped))
    }

    /// Another publication of the same path follows. True when it can go on in these playlists: it has the same
    /// codecs in the same places. Otherwise nothing is changed and another muxer has to be made.
    pub fn restart(&mut self, tracks: &[Track]) -> bool {
        let same = tracks.len() == self.inputs.len()
            && self.inputs.iter().zip(tracks).all(|(input, track)| {
                let Some(input) = input else { return true };
                let old = match input.role {
                    Role::Pictures => self.core.pictures.as_ref().map(|pictures| &pictures.track),
                    Role::Sound(index) => self.core.sounds.get(index).map(|sound| &sound.track),
                };
                old.is_some_and(|old| {
                    let is_sound = matches!(input.role, Role::Sound(_));
                    old.codec == track.codec
                        && old.clock_rate == track.clock_rate
                        && (!is_sound || (old.fmtp == track.fmtp && old.channels == track.channels))
                })
            });
        if !same {
            return false;
        }
        for (input, track) in self.inputs.iter_mut().zip(tracks) {
            let Some(input) = input else { continue };
            let Ok(depacketizer) = Depacketizer::new(track) else { continue };
            input.depacketizer = depacketizer;
            input.timeline = ClockRate::new(track.clock_rate).map(Timeline::new);
            input.last_timestamp = None;
            match input.role {
                Role::Pictures => {
                    if let Some(pictures) = &mut self.core.pictures {
                        pictures.restart(track.clone());
                    }
                }
                Role::Sound(index) => {
                    if let Some(sound) = self.core.sounds.get_mut(index) {
                        sound.restart(track.clone(), input.depacketizer.audio_config());
                    }
                }
            }
        }
        self.core.anchor = None;
        true
    }

    /// Takes an RTP packet of a track; those of one track in order. What is no packet is passed over.
    pub fn rtp(&mut self, track: usize, packet: &[u8], arrival: Arrival) {
        let Some(Some(input)) = self.inputs.get_mut(track) else { return };
        let Ok(header) = header::parse(packet) else { return };
        if input.last_timestamp != Some(header.timestamp) {
            input.last_timestamp = Some(header.timestamp);
            if let Some(timeline) = &mut input.timeline {
                timeline.on_packet(header.timestamp, arrival.wall);
            }
        }
        let Input { role, depacketizer, timeline, .. } = input;
        let core = &mut self.core;
        core.began.get_or_insert(arrival.monotonic);
        depacketizer.push(&header, &packet[header.payload.clone()], &mut |unit| {
            let ntp = timeline.as_ref().and_then(|timeline| timeline.ntp(unit.timestamp_wrapped));
            let unix = ntp.map_or(arrival.wall, |ntp| ntp.to_unix());
            let stamp = Stamp {
                unix: i64::try_from(unix.as_nanos()).unwrap_or(i64::MAX / 2),
                absolute: timeline.as_ref().is_some_and(Timeline::is_absolute),
                now: arrival.monotonic,
            };
            match role {
                Role::Pictures => core.picture(&unit, stamp),
                Role::Sound(index) => core.sound(*index, &unit, stamp),
            }
        });
    }

    /// Takes an RTCP packet of a track, for the source's clock.
    pub fn rtcp(&mut self, track: usize, packet: &[u8], arrival: Arrival) {
        let Some(Some(Input { timeline: Some(timeline), .. })) = self.inputs.get_mut(track) else { return };
        for report in rtcp::parse(packet).map_while(Result::ok) {
            if let rtcp::Packet::SenderReport(report) = report {
                timeline.on_sender_report(&report, arrival.wall);
            }
        }
    }

    /// The multivariant playlist. `directory` precedes the names of the media playlists in it, such as `session-id/`:
    /// with the session in the path, all names in them stay relative and their text is the same for all viewers. Ready
    /// with the first part (other variants: segment) of the pictures, and of the sound unless that lets itself be
    /// waited for.
    pub fn multivariant(&mut self, directory: &str, now: Duration) -> Answer<Text> {
        if !self.core.is_presentable(now) {
            return Answer::Wait(Await::Presentation);
        }
        self.core.hasten();
        Answer::of(
            self.core.presentation().map(|presentation| playlist::multivariant(&presentation, directory)),
        )
    }

    /// A media playlist, rendered at most once per change.
    pub fn playlist(&mut self, rendition: usize, directives: Directives, gzip: bool) -> Answer<Encoded> {
        match self.text(rendition, directives) {
            Answer::Ready((rendered, delta)) => {
                let (text, cached) = if delta {
                    (&rendered.delta, &mut rendered.delta_gzip)
                } else {
                    (&rendered.full, &mut rendered.full_gzip)
                };
                let body =
                    if gzip { cached.get_or_insert_with(|| text.gzip()).clone() } else { text.plain.clone() };
                Answer::Ready(Encoded { body, gzip })
            }
            Answer::Wait(what) => Answer::Wait(what),
            Answer::NotFound => Answer::NotFound,
            Answer::Refused(error) => Answer::Refused(error),
        }
    }

    /// A media playlist with `query` after each of its URIs; copied for the one who asks.
    pub fn playlist_with_query(
        &mut self,
        rendition: usize,
        directives: Directives,
        query: &str,
    ) -> Answer<Bytes> {
        match self.text(rendition, directives) {
            Answer::Ready((rendered, delta)) => {
                let text = if delta { &rendered.delta } else { &rendered.full };
                Answer::Ready(text.with_query(query))
            }
            Answer::Wait(what) => Answer::Wait(what),
            Answer::NotFound => Answer::NotFound,
            Answer::Refused(error) => Answer::Refused(error),
        }
    }

    fn text(&mut self, index: usize, directives: Directives) -> Answer<(&mut Rendered, bool)> {
        let core = &mut self.core;
        core.hasten();
        let Some(rendition) = core.rendition(index) else {
            // A track of the stream that has sent nothing so far.
            return if index < core.rendition_count() {
                Answer::Wait(Await::Content { rendition: index })
            } else {
                Answer::NotFound
            };
        };
        if !core.has_content(rendition) {
            return Answer::Wait(Await::Content { rendition: index });
        }
        let target = core.part_target(index);
        let target_ms = millis_up(target, rendition.timescale).max(1) as u64;
        let advance_part_limit = if target_ms < 1000 { 3000_u64.div_ceil(target_ms) } else { 3 };
        match request::admit(rendition, index, directives, advance_part_limit) {
            Err(error) => return Answer::Refused(error),
            Ok(Some(what)) => return Answer::Wait(what),
            Ok(None) => {}
        }
        let stale =
            rendition.rendered.as_ref().is_none_or(|rendered| rendered.revision != rendition.revision);
        if stale {
            let rendered = playlist::render(rendition, &core.common(index), target);
            core.renders += 1;
            if let Some(rendition) = core.rendition_mut(index) {
                rendition.rendered = Some(rendered);
            }
        }
        let delta = directives.skip;
        Answer::of(
            core.rendition_mut(index).and_then(|rendition| rendition.rendered.as_mut()).map(|r| (r, delta)),
        )
    }

    /// What a name of the last part of a path stands for.
    pub fn kind_of(&self, name: &str) -> Option<FileKind> {
        let Settings { prefix, variant, .. } = &self.core.settings;
        let ids = (0..self.core.rendition_count()).map(|index| self.core.id(index));
        let ids: Vec<String> = ids.collect();
        request::parse_name(name, prefix, *variant, ids.iter().map(String::as_str))
    }

    /// An initialisation section, segment or part. The part that is hinted has to be waited for (§6.2.6).
    pub fn file(&self, kind: FileKind) -> Answer<Body> {
        let of = |index: usize| self.core.rendition(index);
        match kind {
            FileKind::Playlist { .. } => Answer::NotFound,
            FileKind::Init { rendition, number } => {
                Answer::of(request::single(of(rendition).and_then(|rendition| rendition.init(number))))
            }
            FileKind::Segment { rendition, msn } => Answer::of(of(rendition).and_then(|r| r.segment(msn))),
            FileKind::Part { rendition: index, number } => match of(index) {
                Some(rendition) if rendition.next_part() == number => {
                    Answer::Wait(Await::Hinted { rendition: index, number })
                }
                rendition => {
                    Answer::of(request::single(rendition.and_then(|rendition| rendition.part(number))))
                }
            },
        }
    }

    /// Whether what a held request waits for is there now. To be asked when [`Self::revision`] has changed;
    /// [`Await::Presentation`] also when a second has passed, as sound is not waited for longer.
    pub fn has(&self, what: Await, now: Duration) -> bool {
        let of = |index: usize| self.core.rendition(index);
        match what {
            Await::Presentation => self.core.is_presentable(now),
            Await::Content { rendition } => {
                of(rendition).is_some_and(|rendition| self.core.has_content(rendition))
            }
            Await::Segment { rendition, msn } => of(rendition)
                .is_some_and(|rendition| rendition.last_complete().is_some_and(|last| last >= msn)),
            Await::Part { rendition, msn, part } => of(rendition).is_some_and(|r| r.has_part(msn, part)),
            Await::Hinted { rendition, number } => of(rendition).is_some_and(|r| r.next_part() > number),
        }
    }

    /// Counts the changes of all playlists.
    pub fn revision(&self) -> u64 {
        (0..self.core.rendition_count()).filter_map(|n| self.core.rendition(n)).map(|r| r.revision).sum()
    }

    /// The last part of a rendition.
    pub fn position(&self, rendition: usize) -> Option<Position> {
        self.core.rendition(rendition)?.position()
    }

    /// `EXT-X-TARGETDURATION`, seconds.
    pub fn target_duration(&self) -> u32 {
        self.core.window.target_seconds
    }

    pub fn totals(&self) -> Totals {
        let core = &self.core;
        let renditions = (0..core.rendition_count()).filter_map(|n| core.rendition(n));
        let pictures = core.pictures.as_ref();
        Totals {
            renders: core.renders,
            dropped: pictures.map_or(0, |p| p.dropped)
                + core.sounds.iter().map(|sound| sound.dropped).sum::<u64>(),
            filled: core.sounds.iter().map(|sound| sound.filled).sum(),
            jumps: pictures.map_or(0, |pictures| pictures.jumps),
            bytes: renditions.map(Rendition::bytes).sum(),
        }
    }
}
