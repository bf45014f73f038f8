//! A reader of the relay: its place, its socket that takes what it likes, and the client at the far end, which checks
//! every byte.

use std::time::{Duration, Instant};

use corecast::{
    readers::{rtsp_tcp::TcpReader, start_points},
    sources::publication::Publication,
};
use corecast_hub::{cursor::Cursor, stream::Stream};
use corecast_proto::rtsp::server::{Delivery, Media};

use super::{
    camera::{AUDIO, VIDEO},
    oracle::Oracle,
    random::Random,
};

const FRAME_BYTES_MAX: usize = 4 + 65_535;
/// What a reader gets in one turn at most, but for its last packet.
const COPY_BYTES_MAX: usize = 256 * 1024;

/// How fast the far end empties its socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pace {
    /// There is always room.
    Fast,
    /// So many bytes per millisecond.
    Steady(u64),
    /// Stands still for seconds, then takes a lot.
    Erratic,
}

struct Socket {
    random: Random,
    pace: Pace,
    room: usize,
    buffer: usize,
    stalled_until_us: u64,
}

pub struct Seat {
    pub reader: TcpReader,
    pub client: Client,
    socket: Socket,
    /// The rest of a packet that was cut; goes out before anything else.
    out: Vec<u8>,
}

/// The far end.
pub struct Client {
    unread: Vec<u8>,
    /// Our channel for each of the client's, and back.
    channels: Vec<(u8, u8)>,
    /// The ring's place of its last packet.
    pub last: Option<usize>,
    pub packets: usize,
    pub lapses: usize,
    /// It started, or lost its place: anything may come next, as long as pictures begin with a key one.
    anew: bool,
    awaits_key: bool,
    /// What RTP-Info told about the first video packet.
    told_sequence: Option<u16>,
}

impl Seat {
    pub fn join(publication: &Publication, now: Instant, pace: Pace, mut random: Random) -> Self {
        let medias = match random.between(0, 9) {
            0 => vec![media(VIDEO, 0)],
            1 => vec![media(AUDIO, 0)],
            2 => vec![media(VIDEO, 2), media(AUDIO, 0)],
            3 => vec![media(VIDEO, 10), media(AUDIO, 20)],
            _ => vec![media(VIDEO, 0), media(AUDIO, 2)],
        };
        let has_keys = publication.tracks.has_keys();
        let cursor = Cursor::join(&publication.stream, random.permille(700), has_keys);
        let video = medias.iter().position(|media| media.track == VIDEO);
        let told_sequence = cursor
            .position()
            .and_then(|_| start_points(publication, &cursor, &medias, now).get(video?)?.sequence);
        let channels = medias
            .iter()
            .flat_map(|media| {
                let Delivery::Tcp { channel } = media.delivery else { unreachable!("all are TCP") };
                let ours = 2 * media.track as u8;
                [(ours, channel), (ours + 1, channel + 1)]
            })
            .collect();
        let client = Client {
            unread: Vec::new(),
            channels,
            last: None,
            packets: 0,
            lapses: 0,
            anew: true,
            awaits_key: true,
            told_sequence,
        };
        let buffer = random.pick(&[2_000, 30_000, 200_000]);
        let room = if pace == Pace::Fast { usize::MAX } else { random.between(0, buffer as u64) as usize };
        Self {
            reader: TcpReader::new(cursor, &medias, 2),
            client,
            socket: Socket { random, pace, room, buffer, stalled_until_us: 0 },
            out: Vec::new(),
        }
    }

    pub fn pace(&self) -> Pace {
        self.socket.pace
    }

    /// What is kept for this reader alone is the rest of an access unit, or of a copy where it needs one.
    pub fn check_memory(&self) {
        let bytes_max = FRAME_BYTES_MAX + COPY_BYTES_MAX;
        assert!(self.out.len() <= bytes_max, "{} bytes kept for a reader", self.out.len());
    }

    /// The far end reads for a while; when that made room, what was cut goes out and the reader goes on.
    pub fn tick(&mut self, stream: &Stream, oracle: &Oracle, now: (u64, Instant), lag_max: Duration) {
        self.socket.drain(now.0);
        if !self.reader.is_blocked() || self.socket.room == 0 {
            return;
        }
        let sent = self.socket.take(self.out.len());
        self.client.receive(&self.out[..sent], oracle);
        self.out.drain(..sent);
        if !self.out.is_empty() {
            self.reader.progress(now.1);
        } else {
            self.reader.unblock(stream, now.1, lag_max);
            if self.reader.take_lapse().is_some() {
                self.client.lost_its_place();
            }
        }
    }

    /// One send, as the shard makes one per turn. True when there is more to send at once. `flushed_before`: what
    /// readers could have had at the end of the turn before.
    pub fn serve(
        &mut self,
        (stream, flushed_before): (&Stream, u64),
        oracle: &Oracle,
        now: Instant,
        scratch: &mut Vec<u8>,
    ) -> bool {
        if self.reader.is_blocked() {
            return false;
        }
        let had_all = self.reader.cursor.position() >= Some(flushed_before);
        if self.reader.is_remapped() {
            scratch.clear();
            let any = self.reader.copy_next(stream, now, scratch);
            self.note_burst(had_all);
            if !any {
                return self.starves(stream);
            }
            let sent = self.socket.take(scratch.len());
            self.client.receive(&scratch[..sent], oracle);
            if sent < scratch.len() {
                self.out.extend_from_slice(&scratch[sent..]);
                self.reader.block(stream, now);
            }
        } else {
            let bytes = self.reader.take(stream, now);
            self.note_burst(had_all);
            let Some(bytes) = bytes else { return self.starves(stream) };
            let sent = self.socket.take(bytes.len());
            self.client.receive(&bytes[..sent], oracle);
            if sent < bytes.len() {
                let rest = self.reader.unsent(stream, sent, now).expect("a short send's bytes are there");
                self.out.extend_from_slice(rest);
            }
        }
        !self.reader.is_blocked() && self.reader.has_more(stream)
    }

    /// A burst that goes round the ring in one turn is found out when the reader takes. Nothing else may leave one
    /// behind that takes everything.
    fn note_burst(&mut self, had_all: bool) {
        if self.reader.take_lapse().is_some() {
            assert!(
                self.socket.pace != Pace::Fast || had_all || self.client.last.is_none(),
                "a reader whose socket takes everything was left behind"
            );
            self.client.lost_its_place();
        }
    }

    /// Nothing to send: right only when nothing is due.
    fn starves(&mut self, stream: &Stream) -> bool {
        let place = self.reader.cursor.position();
        assert!(
            !self.reader.has_more(stream),
            "a reader with room in its socket gets nothing although it is at {place:?} of {}..{}",
            stream.floor(),
            stream.flushed()
        );
        false
    }
}

fn media(track: usize, channel: u8) -> Media {
    Media { track, delivery: Delivery::Tcp { channel } }
}

impl Socket {
    fn drain(&mut self, now_us: u64) {
        let more = match self.pace {
            Pace::Fast => return,
            Pace::Steady(bytes_per_ms) => bytes_per_ms as usize * 10,
            Pace::Erratic if now_us < self.stalled_until_us => 0,
            Pace::Erratic => {
                if self.random.permille(30) {
                    self.stalled_until_us = now_us + self.random.between(100_000, 6_000_000);
                }
                self.random.between(0, self.buffer as u64) as usize
            }
        };
        self.room = (self.room + more).min(self.buffer);
    }

    fn take(&mut self, offered: usize) -> usize {
        let taken = offered.min(self.room);
        if self.pace != Pace::Fast {
            self.room -= taken;
        }
        taken
    }
}

impl Client {
    fn lost_its_place(&mut self) {
        assert!(self.unread.is_empty(), "a jump in the middle of a packet");
        (self.anew, self.awaits_key, self.told_sequence) = (true, true, None);
        self.lapses += 1;
    }

    fn receive(&mut self, bytes: &[u8], oracle: &Oracle) {
        self.unread.extend_from_slice(bytes);
        let mut at = 0;
        while let Some(&[magic, channel, high, low]) = self.unread.get(at..at + 4) {
            assert_eq!(magic, b'$', "not a frame after packet {:?}", self.last);
            let end = at + 4 + usize::from(u16::from_be_bytes([high, low]));
            let Some(packet) = self.unread.get(at + 4..end) else { break };
            let known = self.channels.iter().find(|(_, theirs)| *theirs == channel);
            let (ours, _) = *known.unwrap_or_else(|| panic!("a packet on channel {channel}"));
            let place = oracle.place_of(ours, packet);
            let place = place.unwrap_or_else(|| panic!("not in the ring, after packet {:?}", self.last));
            let sequence = u16::from_be_bytes([packet[2], packet[3]]);
            self.check(place, ours, sequence, oracle);
            at = end;
        }
        self.unread.drain(..at);
    }

    /// It asked for the track of this channel of ours.
    pub fn wants(&self, channel: u8) -> bool {
        self.channels.iter().any(|(ours, _)| *ours == channel)
    }

    fn check(&mut self, place: usize, channel: u8, sequence: u16, oracle: &Oracle) {
        if let Some(last) = self.last {
            assert!(place > last, "packet {place} after packet {last}");
        }
        if !self.anew {
            let first_candidate = self.last.map_or(0, |last| last + 1);
            let next = (first_candidate..).find(|&index| self.wants(oracle.entries[index].channel));
            assert_eq!(Some(place), next, "a hole without a lapse, after packet {:?}", self.last);
        } else if self.channels.len() == 4 {
            // Whoever gets all tracks gets a key unit from its very first packet on.
            assert!(oracle.begins_key_unit(place), "it begins with packet {place}");
        }
        if channel == 2 * VIDEO as u8 && std::mem::take(&mut self.awaits_key) {
            assert!(
                oracle.begins_key_unit(place),
                "pictures begin with packet {place}, which begins no key one"
            );
            if let Some(told) = self.told_sequence.take() {
                assert_eq!(sequence, told, "RTP-Info told another first packet");
            }
        }
        (self.last, self.anew) = (Some(place), false);
        self.packets += 1;
    }
}
