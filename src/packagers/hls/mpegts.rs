//! MPEG transport stream (ISO/IEC 13818-1): one program with a track of H.264 and a track of AAC.

use corecast_media::codec::aac::AudioSpecificConfig;

use super::codec::{CodecConfig, nals};

const PACKET: usize = 188;
const PMT_PID: u16 = 0x1000;
pub(super) const VIDEO_PID: u16 = 0x100;
pub(super) const AUDIO_PID: u16 = 0x101;
const START_CODE: [u8; 4] = [0, 0, 0, 1];

/// Writes one stream; keeps the continuity counters.
#[derive(Debug, Default)]
pub(super) struct TransportWriter {
    tables: u8,
    video: u8,
    audio: u8,
    /// An elementary stream packet, before it is cut.
    scratch: Vec<u8>,
}

impl TransportWriter {
    /// Program association and program map, at the start of every segment.
    pub(super) fn tables(&mut self, out: &mut Vec<u8>, has_video: bool, has_audio: bool) {
        // §2.4.4.3: one program, number 1.
        let pat = [0x00, 0xb0, 13, 0, 1, 0xc1, 0, 0, 0, 1, 0xe0 | (PMT_PID >> 8) as u8, PMT_PID as u8];
        let mut streams = Vec::new();
        if has_video {
            streams.push((0x1b, VIDEO_PID));
        }
        if has_audio {
            streams.push((0x0f, AUDIO_PID));
        }
        let clock = if has_video { VIDEO_PID } else { AUDIO_PID };
        // §2.4.4.8.
        let length = 13 + 5 * streams.len() as u8;
        let mut pmt =
            vec![0x02, 0xb0, length, 0, 1, 0xc1, 0, 0, 0xe0 | (clock >> 8) as u8, clock as u8, 0xf0, 0];
        for (kind, pid) in streams {
            pmt.extend_from_slice(&[kind, 0xe0 | (pid >> 8) as u8, pid as u8, 0xf0, 0]);
        }
        for (pid, table) in [(0, &pat[..]), (PMT_PID, &pmt)] {
            let start = out.len();
            out.extend_from_slice(&[0x47, 0x40 | (pid >> 8) as u8, pid as u8, 0x10 | self.tables & 0x0f, 0]);
            out.extend_from_slice(table);
            out.extend_from_slice(&crc32(table).to_be_bytes());
            out.resize(start + PACKET, 0xff);
        }
        self.tables = self.tables.wrapping_add(1);
    }

    /// A picture. Times in ticks of 90 kHz.
    pub(super) fn picture(
        &mut self,
        out: &mut Vec<u8>,
        config: &CodecConfig,
        unit: &[u8],
        key: bool,
        presentation: i64,
        decoding: i64,
    ) {
        let mut packet = std::mem::take(&mut self.scratch);
        packet.clear();
        header(&mut packet, 0xe0, presentation, Some(decoding), 0);
        // An access unit delimiter is required in front of each picture (§2.14).
        packet.extend_from_slice(&[0, 0, 0, 1, 0x09, 0xf0]);
        if let CodecConfig::H264 { sps, pps, .. } = config
            && key
        {
            for set in std::iter::once(sps).chain(pps) {
                packet.extend_from_slice(&START_CODE);
                packet.extend_from_slice(set);
            }
        }
        for nal in nals(unit) {
            packet.extend_from_slice(&START_CODE);
            packet.extend_from_slice(nal);
        }
        self.video = cut(out, &packet, VIDEO_PID, self.video, Some(decoding), key);
        self.scratch = packet;
    }

    /// A frame of AAC, with an ADTS header. Times in ticks of 90 kHz. `clock`: it has to tell the time.
    pub(super) fn sound(
        &mut self,
        out: &mut Vec<u8>,
        facts: &AudioSpecificConfig,
        frame: &[u8],
        presentation: i64,
        clock: bool,
    ) {
        let mut packet = std::mem::take(&mut self.scratch);
        packet.clear();
        header(&mut packet, 0xc0, presentation, None, frame.len() + 7);
        packet.extend_from_slice(&adts(facts, frame.len()));
        packet.extend_from_slice(frame);
        self.audio = cut(out, &packet, AUDIO_PID, self.audio, clock.then_some(presentation), clock);
        self.scratch = packet;
    }
}

/// ADTS header without CRC (ISO/IEC 14496-3 §1.A.3.2).
fn adts(facts: &AudioSpecificConfig, frame_bytes: usize) -> [u8; 7] {
    const RATES: [u32; 13] = [
        96_000, 88_200, 64_000, 48_000, 44_100, 32_000, 24_000, 22_050, 16_000, 12_000, 11_025, 8_000, 7_350,
    ];
    let rate = RATES.iter().position(|rate| *rate == facts.sample_rate).unwrap_or(4) as u8;
    let channels = if facts.channels == 8 { 7 } else { facts.channels };
    let length = frame_bytes + 7;
    [
        0xff,
        0xf1,
        // Profile LC: what is beneath SBR and PS, which decoders find by themselves.
        1 << 6 | rate << 2 | channels >> 2,
        channels << 6 | (length >> 11) as u8 & 3,
        (length >> 3) as u8,
        (length << 5) as u8 | 0x1f,
        0xfc,
    ]
}

/// PES header (§2.4.3.6). `bytes`: of what follows it, or 0 for a picture, whose length need not be told.
fn header(out: &mut Vec<u8>, stream: u8, presentation: i64, decoding: Option<i64>, bytes: usize) {
    let decoding = decoding.filter(|decoding| *decoding != presentation);
    let times = if decoding.is_some() { 10 } else { 5 };
    let length = if bytes == 0 { 0 } else { u16::try_from(bytes + 3 + times).unwrap_or(0) };
    out.extend_from_slice(&[0, 0, 1, stream]);
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(&[0x80, if decoding.is_some() { 0xc0 } else { 0x80 }, times as u8]);
    let mut time = |mark: u8, time: i64| {
        out.extend_from_slice(&[
            mark << 4 | (time >> 29) as u8 & 0x0e | 1,
            (time >> 22) as u8,
            (time >> 14) as u8 | 1,
            (time >> 7) as u8,
            (time << 1) as u8 | 1,
        ]);
    };
    match decoding {
        None => time(2, presentation),
        Some(decoding) => {
            time(3, presentation);
            time(1, decoding);
        }
    }
}

/// Cuts a packet into transport packets and gives the next continuity counter.
fn cut(
    out: &mut Vec<u8>,
    mut rest: &[u8],
    pid: u16,
    mut counter: u8,
    clock: Option<i64>,
    random_access: bool,
) -> u8 {
    let mut first = true;
    while !rest.is_empty() {
        let begins = if first { 0x40 } else { 0 };
        let mut adaptation = Vec::new();
        if first && (clock.is_some() || random_access) {
            let flags = if clock.is_some() { 0x10 } else { 0 } | if random_access { 0x40 } else { 0 };
            adaptation.push(flags);
            if let Some(clock) = clock {
                // §2.4.3.5, behind the decoding time, so that there is time to receive it.
                let base = (clock - 9_000).max(0);
                adaptation.extend_from_slice(&[
                    (base >> 25) as u8,
                    (base >> 17) as u8,
                    (base >> 9) as u8,
                    (base >> 1) as u8,
                    (base << 7) as u8 | 0x7e,
                    0,
                ]);
            }
        }
        let head = if adaptation.is_empty() { 4 } else { 5 + adaptation.len() };
        let room = PACKET - head;
        let take = rest.len().min(room);
        let mut stuffing = room - take;
        let has_adaptation = !adaptation.is_empty() || stuffing > 0;
        let control = if has_adaptation { 0x30 } else { 0x10 };
        out.extend_from_slice(&[0x47, begins | (pid >> 8) as u8 & 0x1f, pid as u8, control | counter & 0x0f]);
        if has_adaptation {
            if adaptation.is_empty() {
                // The length byte itself takes one of the bytes to be filled; the flags another one.
                stuffing -= 1;
                if stuffing > 0 {
                    adaptation.push(0);
                    stuffing -= 1;
                }
            }
            out.push((adaptation.len() + stuffing) as u8);
            out.extend_from_slice(&adaptation);
            out.resize(out.len() + stuffing, 0xff);
        }
        out.extend_from_slice(&rest[..take]);
        rest = &rest[take..];
        counter = counter.wrapping_add(1);
        first = false;
    }
    counter
}

/// Annex A.
fn crc32(bytes: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for &byte in bytes {
        crc ^= u32::from(byte) << 24;
        for _ in 0..8 {
            crc = if crc >> 31 == 1 { crc << 1 ^ 0x04c1_1db7 } else { crc << 1 };
        }
    }
    crc
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_are_whole_whatever_the_length() {
        let facts = AudioSpecificConfig { object_type: 2, sample_rate: 44_100, channels: 2 };
        let mut writer = TransportWriter::default();
        for length in (0..400).chain([1_000, 5_000]) {
            let mut out = Vec::new();
            writer.sound(&mut out, &facts, &vec![7; length], 900_000, length % 2 == 0);
            assert_eq!(out.len() % PACKET, 0, "{length}");
            assert!(out.chunks(PACKET).all(|packet| packet[0] == 0x47), "{length}");
            let payload: usize = out.chunks(PACKET).map(|packet| PACKET - payload_at(packet)).sum();
            assert_eq!(payload, length + 7 + 14, "{length}");
        }
    }

    fn payload_at(packet: &[u8]) -> usize {
        if packet[3] & 0x20 != 0 { 5 + usize::from(packet[4]) } else { 4 }
    }

    #[test]
    fn tables_have_their_checksum() {
        let mut out = Vec::new();
        TransportWriter::default().tables(&mut out, true, true);
        assert_eq!(out.len(), 2 * PACKET);
        for packet in out.chunks(PACKET) {
            let length = 3 + usize::from(packet[7]);
            assert_eq!(crc32(&packet[5..5 + length]), 0);
        }
    }
}
