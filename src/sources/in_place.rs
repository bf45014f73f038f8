//! Interleaved packets that are received in place, into the stream's own memory, and what lies between them
//! (RFC 2326 §10.12).

use std::io;

use corecast_proto::rtsp::{
    interleaved::{self, Frame},
    server::{Delivery, Media},
};

use super::publication::{Now, Plane, Publication, channel_of};

/// Received in one go at most, bytes: more than a frame of any camera between keyframes.
const RECEIVE_BYTES: usize = 64 * 1024;

/// Channels of an interleaved connection, each with its track.
#[derive(Debug)]
pub struct ChannelMap([Option<(u8, Plane)>; 256]);

/// What stands where no frame begins.
#[derive(Debug, PartialEq, Eq)]
pub enum Between<M> {
    /// A message that has not arrived as a whole.
    Incomplete,
    Message {
        value: M,
        consumed: usize,
    },
    /// So many bytes that say nothing.
    Noise(usize),
}

/// How one side of RTSP reads what is no media.
pub trait Reading {
    type Message;
    type Error;

    /// What stands at the front of `bytes`, where no frame begins.
    fn between(&mut self, bytes: &[u8]) -> Result<Between<Self::Message>, Self::Error>;

    /// At the front of `bytes` is a frame of `length` bytes that is of no known track, or no RTP. How many bytes to skip.
    fn stray(&mut self, bytes: &[u8], length: usize) -> Result<usize, Self::Error> {
        let _ = bytes;
        Ok(length)
    }

    /// A packet was understood.
    fn packet(&mut self) {}
}

impl ChannelMap {
    /// That of a publisher.
    pub fn new(medias: &[Media]) -> Self {
        Self::of(medias.iter().filter_map(|media| match media.delivery {
            Delivery::Tcp { channel } => Some((channel, media.track)),
            Delivery::Udp { .. } => None,
        }))
    }

    /// Of channels for RTP, each with its track; RTCP is on the next.
    pub fn of(tracks: impl IntoIterator<Item = (u8, usize)>) -> Self {
        let mut map = [None; 256];
        for (channel, track) in tracks {
            let Ok(track) = u8::try_from(track) else { continue };
            for (channel, plane) in [(Some(channel), Plane::Rtp), (channel.checked_add(1), Plane::Rtcp)] {
                if let Some(channel) = channel {
                    map[usize::from(channel)] = Some((track, plane));
                }
            }
        }
        Self(map)
    }

    pub fn knows(&self, channel: u8) -> bool {
        self.0[usize::from(channel)].is_some()
    }
}

/// Receives once into the stream's own memory. `Ok(true)`: there may be more.
pub fn receive(publication: &mut Publication, socket: impl io::Read) -> io::Result<bool> {
    let mut socket = socket;
    let spare = publication.stream.spare(RECEIVE_BYTES);
    let room = spare.len();
    match socket.read(spare)? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        count => {
            publication.stream.fill(count);
            Ok(count == room)
        }
    }
}

/// Moves bytes that were received elsewhere behind the pending ones, as many as there is room for. Returns how many.
pub fn move_in(publication: &mut Publication, bytes: &mut Vec<u8>) -> usize {
    if bytes.is_empty() {
        return 0;
    }
    let spare = publication.stream.spare(bytes.len());
    let moved = spare.len();
    spare.copy_from_slice(&bytes[..moved]);
    publication.stream.fill(moved);
    bytes.drain(..moved);
    moved
}

/// Moves all pending bytes out again, before `bytes`.
pub fn move_out(publication: &mut Publication, bytes: &mut Vec<u8>) {
    let stream = &mut publication.stream;
    let rest = stream.pending().len();
    bytes.splice(0..0, stream.pending().iter().copied());
    stream.shrink_pending(rest);
}

/// Takes all whole packets among the pending bytes into the stream. What is no media (messages, unknown channels, packets
/// that are no RTP) is taken out, so that the ring holds only what readers may get. Returns at the first message: what
/// follows it is still pending.
pub fn take_pending<R: Reading>(
    publication: &mut Publication,
    channels: &ChannelMap,
    reading: &mut R,
    now: Now,
) -> Result<Option<R::Message>, R::Error> {
    // Bytes before the next packet that are to disappear.
    let mut gap = 0;
    let taken = loop {
        let pending = publication.stream.pending();
        let rest = &pending[gap..];
        match interleaved::next_frame(rest) {
            Frame::NeedMore(_) => break Ok(None),
            Frame::Media { channel, payload, consumed } => {
                let packet = gap + payload.start..gap + payload.end;
                let known = channels.0[usize::from(channel)];
                let found = known.and_then(|(track, plane)| {
                    let track = usize::from(track);
                    let facts = publication.inspect_pending(track, plane, packet, now)?;
                    Some((channel_of(track, plane), facts))
                });
                let Some((channel, facts)) = found else {
                    match reading.stray(&publication.stream.pending()[gap..], consumed) {
                        Ok(skipped) => gap += skipped,
                        Err(error) => break Err(error),
                    }
                    continue;
                };
                reading.packet();
                let pending = publication.stream.pending_mut();
                if gap > 0 {
                    pending.copy_within(gap..gap + consumed, 0);
                }
                pending[1] = channel;
                publication.stream.push(facts, now.instant);
            }
            Frame::NotMedia => match reading.between(rest) {
                Ok(Between::Incomplete) => break Ok(None),
                Ok(Between::Noise(length)) => gap += length,
                Ok(Between::Message { value, consumed }) => {
                    gap += consumed;
                    break Ok(Some(value));
                }
                Err(error) => break Err(error),
            },
        }
    };
    if gap > 0 {
        publication.stream.pending_mut().copy_within(gap.., 0);
        publication.stream.shrink_pending(gap);
    }
    taken
}

/// As [`take_pending`], from bytes that belong to no stream: frames among them are dropped.
pub fn take_message<R: Reading>(
    bytes: &mut Vec<u8>,
    reading: &mut R,
) -> Result<Option<R::Message>, R::Error> {
    let mut at = 0;
    let taken = loop {
        let rest = &bytes[at..];
        match interleaved::next_frame(rest) {
            Frame::NeedMore(_) => break Ok(None),
            Frame::Media { consumed, .. } => match reading.stray(rest, consumed) {
                Ok(skipped) => at += skipped,
                Err(error) => break Err(error),
            },
            Frame::NotMedia => match reading.between(rest) {
                Ok(Between::Incomplete) => break Ok(None),
                Ok(Between::Noise(length)) => at += length,
                Ok(Between::Message { value, consumed }) => {
                    at += consumed;
                    break Ok(Some(value));
                }
                Err(error) => break Err(error),
            },
        }
    };
    bytes.drain(..at);
    taken
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use corecast_hub::stream::StreamLimits;
    use corecast_media::{Codec, Kind, Track};
    use corecast_proto::rtsp::Limits;

    use super::*;
    use crate::sources::rtsp_pull::{Messages, Noise, Said};

    fn publication() -> Publication {
        let track = Track {
            kind: Kind::Video,
            codec: Codec::H264,
            payload_type: 96,
            clock_rate: 90_000,
            channels: None,
            encoding: "H264".to_owned(),
            fmtp: String::new(),
            control: String::new(),
        };
        let limits = StreamLimits {
            flush_bytes: 64 << 10,
            flush_after: Duration::from_millis(5),
            ring_bytes_max: 1 << 20,
        };
        Publication::new("cam", &[track], limits).unwrap()
    }

    fn rtp(ssrc: u8, sequence: u16, timestamp: u32, nal: &[u8]) -> Vec<u8> {
        let mut packet = vec![0x80, 0x80 | 96];
        packet.extend(sequence.to_be_bytes());
        packet.extend(timestamp.to_be_bytes());
        packet.extend([0, 0, 0, ssrc]);
        packet.extend(nal);
        packet
    }

    fn framed(channel: u8, packet: &[u8]) -> Vec<u8> {
        let mut frame = interleaved::write_header(channel, packet.len() as u16).to_vec();
        frame.extend(packet);
        frame
    }

    /// What a source may do, and what readers must get of it.
    fn source() -> (Vec<u8>, Vec<u8>) {
        let (mut sent, mut wanted) = (Vec::new(), Vec::new());
        let mut packet = |sent: &mut Vec<u8>, ssrc, sequence, timestamp| {
            let packet = rtp(ssrc, sequence, timestamp, &[0x65, 0x88, 0x80, 0x40]);
            sent.extend(framed(4, &packet));
            wanted.extend(framed(0, &packet));
        };
        packet(&mut sent, 1, 65_535, 90_000);
        sent.extend(b"RTSP/1.0 200 OK\r\nCSeq: 7\r\n\r\n");
        packet(&mut sent, 1, 0, 93_600);
        // Hours off, and back again.
        packet(&mut sent, 1, 1, 4_000_000_000);
        packet(&mut sent, 1, 2, 97_200);
        sent.extend(framed(9, b"of a track that nobody set up"));
        sent.extend(framed(4, b"no RTP"));
        packet(&mut sent, 2, 30_000, 5);
        sent.extend(b"OPTIONS * RTSP/1.0\r\nCSeq: 1\r\n\r\n");
        sent.extend([0xff; 100]);
        packet(&mut sent, 2, 30_001, 3_605);
        packet(&mut sent, 2, 10, 7_205);
        (sent, wanted)
    }

    #[test]
    fn whatever_a_source_does_its_packets_go_on_and_nothing_else_does() {
        let (sent, wanted) = source();
        for step in [1, 3, 50, sent.len()] {
            let (mut publication, channels) = (publication(), ChannelMap::of([(4, 0)]));
            let (mut noise, mut said) = (Noise::default(), Vec::new());
            let mut now = Now { instant: Instant::now(), wall: Duration::from_secs(1_700_000_000) };
            for part in sent.chunks(step) {
                receive(&mut publication, part).unwrap();
                loop {
                    let limits = &Limits::default();
                    let mut messages =
                        Messages { limits, channels: Some(&channels), noise: &mut noise, is_strict: false };
                    match take_pending(&mut publication, &channels, &mut messages, now).unwrap() {
                        Some(Said::Response(response)) => said.push(response.status.0.to_string()),
                        Some(Said::Request(request)) => said.push(request.method.to_string()),
                        None => break,
                    }
                }
                now.instant += Duration::from_millis(40);
            }
            let stream = &publication.stream;
            assert!(stream.get(0..stream.head()).unwrap() == wanted, "in steps of {step}");
            assert_eq!(said, ["200", "OPTIONS"]);
            assert_eq!(noise.bytes, 100);
            assert_eq!(publication.tracks.inbound.packets_in_error, 1);
            assert!(stream.is_between_packets());
        }
    }

    #[test]
    fn what_follows_an_answer_moves_into_the_ring_and_out_again() {
        let (mut publication, mut bytes) = (publication(), b"abc".to_vec());
        assert_eq!(move_in(&mut publication, &mut bytes), 3);
        bytes.extend(b"def");
        move_out(&mut publication, &mut bytes);
        assert_eq!((&bytes[..], publication.stream.is_between_packets()), (&b"abcdef"[..], true));
        assert_eq!(move_in(&mut publication, &mut Vec::new()), 0);
    }
}
