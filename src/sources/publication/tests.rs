//! What readers get of a publication, and what they are told of it.

use super::*;

mod clocks;
mod sessions;

pub(in crate::sources) fn video() -> Track {
    Track {
        kind: Kind::Video,
        codec: Codec::H264,
        payload_type: 96,
        clock_rate: 90_000,
        channels: None,
        encoding: "H264".to_owned(),
        fmtp: "packetization-mode=1".to_owned(),
        control: String::new(),
    }
}

pub(in crate::sources) fn audio() -> Track {
    Track {
        kind: Kind::Audio,
        codec: Codec::G711,
        payload_type: 0,
        clock_rate: 8000,
        channels: Some(1),
        encoding: "PCMU".to_owned(),
        fmtp: String::new(),
        control: String::new(),
    }
}

pub(in crate::sources) fn publication(tracks: &[Track]) -> Publication {
    let limits =
        StreamLimits { flush_bytes: 1 << 16, flush_after: Duration::from_millis(5), ring_bytes_max: 1 << 20 };
    Publication::new("cam", tracks, limits).unwrap()
}

const NOON: Duration = Duration::from_secs(1_800_000_000);

/// A clock that goes when it is told to.
#[derive(Clone, Copy)]
pub(in crate::sources) struct Clock(pub Now);

impl Clock {
    pub fn new() -> Self {
        Self(Now { instant: Instant::now(), wall: NOON })
    }

    pub fn wait(&mut self, span: Duration) {
        self.0.instant += span;
        self.0.wall += span;
    }
}

/// Sender of one track; what it sends is at `sequence` and `timestamp` next.
#[derive(Clone, Copy)]
pub(in crate::sources) struct Source {
    pub track: usize,
    pub payload_type: u8,
    pub ssrc: u32,
    pub sequence: u16,
    pub timestamp: u32,
}

impl Source {
    /// A frame in one packet.
    pub fn frame(&mut self) -> Vec<u8> {
        let mut packet = vec![0x80, 0x80 | self.payload_type];
        packet.extend(self.sequence.to_be_bytes());
        packet.extend(self.timestamp.to_be_bytes());
        packet.extend(self.ssrc.to_be_bytes());
        packet.extend([0x65, 0x88, 1, 2]);
        self.sequence = self.sequence.wrapping_add(1);
        packet
    }

    /// Frames of 40 ms.
    pub fn send(&mut self, publication: &mut Publication, clock: &mut Clock, frames: u32) {
        for _ in 0..frames {
            let packet = self.frame();
            publication.append(self.track, Plane::Rtp, &packet, clock.0);
            self.timestamp = self.timestamp.wrapping_add(3600);
            clock.wait(Duration::from_millis(40));
        }
    }

    /// A sender report that says: at `timestamp`, it is `ntp`.
    pub fn report(&self, ntp: Duration) -> Vec<u8> {
        let report = SenderReport {
            ssrc: self.ssrc,
            ntp: corecast_media::NtpTime::from_unix(ntp),
            rtp_timestamp: self.timestamp,
            packets: 1_000_000,
            octets: 2_000_000,
            blocks: Vec::new(),
        };
        let mut out = Vec::new();
        rtcp::write_sender_report(&report, "camera", &mut out);
        out
    }
}

pub(in crate::sources) fn camera(ssrc: u32, sequence: u16, timestamp: u32) -> Source {
    Source { track: 0, payload_type: 96, ssrc, sequence, timestamp }
}

/// What readers got on a channel.
pub(in crate::sources) fn got(publication: &Publication, channel: u8) -> Vec<Vec<u8>> {
    let stream = &publication.stream;
    let (mut rest, mut packets) = (stream.get(stream.floor()..stream.head()).unwrap(), Vec::new());
    while let interleaved::Frame::Media { channel: at, payload, consumed } = interleaved::next_frame(rest) {
        if at == channel {
            packets.push(rest[payload].to_vec());
        }
        rest = &rest[consumed..];
    }
    packets
}

pub(in crate::sources) fn headers(publication: &Publication, channel: u8) -> Vec<header::Header> {
    got(publication, channel).iter().map(|packet| header::parse(packet).unwrap()).collect()
}

/// The sender report that a compound begins with.
fn sender_report(compound: &[u8]) -> SenderReport {
    match rtcp::parse(compound).next() {
        Some(Ok(rtcp::Packet::SenderReport(report))) => report,
        other => panic!("{other:?}"),
    }
}

/// One H.264 NAL unit in a packet of its own (RFC 6184 §5.6).
fn packet(sequence: u8, nal: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x80, 96, 0, sequence, 0, 0, 0, 1, 0, 0, 0, 9];
    packet.extend_from_slice(nal);
    packet
}

#[test]
fn a_picture_size_that_comes_with_the_pictures_changes_what_is_told_of_the_track() {
    let now = Clock::new().0;
    let mut publication = publication(&[video()]);
    let sps = sdp::base64::decode("Z01AHtoCgL/lwEQAAAMABAAAAwDIPFi6gA==").unwrap();
    publication.append(0, Plane::Rtp, &packet(1, &sps), now);
    let unknown = publication.tracks.facts();
    assert!(matches!(unknown[0].props, CodecProps::Video { width: 0, height: 0, .. }), "{unknown:?}");
    publication.append(0, Plane::Rtp, &packet(2, &[0x68, 0xef, 0x3c, 0x80]), now);
    let revision = publication.tracks.revision();
    assert_eq!(revision, 1);
    let want = CodecProps::Video { width: 640, height: 360, profile: "Main".into(), level: "3".into() };
    assert_eq!(publication.tracks.facts(), [TrackFacts { codec: "H264", props: want }]);
    // The same again is no news.
    publication.append(0, Plane::Rtp, &packet(3, &sps), now);
    assert_eq!(publication.tracks.revision(), revision);
}
