//! What a reader verifies of each RTP packet, and what it learns of relay latency. No allocation, no clock.

use hdrhistogram::Histogram;

use crate::stamp::{FRAME_MASK, Stamp};

/// Latencies in microseconds, 1 us to 2 minutes, three digits.
pub fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 120_000_000, 3).expect("constant bounds are valid")
}

#[derive(Clone, Copy, Default, Debug, PartialEq, Eq)]
pub struct Counters {
    /// RTP packets and their bytes (RTP header included, interleaved header not)
    pub packets: u64,
    pub bytes: u64,
    pub lost: u64,
    pub duplicated: u64,
    pub reordered: u64,
    /// packets that are not RTP, or picture data without our mark
    pub bad: u64,
    /// marks of another stream
    pub wrong_stream: u64,
    /// frames received whole
    pub frames: u64,
    /// frames of which a part is missing
    pub broken_frames: u64,
    /// frames of which nothing came
    pub lost_frames: u64,
}

impl Counters {
    pub fn add(&mut self, o: &Self) {
        self.packets += o.packets;
        self.bytes += o.bytes;
        self.lost += o.lost;
        self.duplicated += o.duplicated;
        self.reordered += o.reordered;
        self.bad += o.bad;
        self.wrong_stream += o.wrong_stream;
        self.frames += o.frames;
        self.broken_frames += o.broken_frames;
        self.lost_frames += o.lost_frames;
    }
}

pub struct Checker {
    stream: u32,
    frame_ns: u64,
    pub c: Counters,
    next_seq: u16,
    /// bit i: sequence number `next_seq - 1 - i` has come
    window: u64,
    started: bool,
    frame: Option<u32>,
    seen: u16,
    /// the frame in progress began before we joined
    partial: bool,
    ended: bool,
    /// Some(true): the first picture data received was the start of a keyframe
    pub first_is_key: Option<bool>,
    /// first RTP packet / last packet of the first whole keyframe / first frame that was not late, CLOCK_MONOTONIC
    pub first_ns: u64,
    pub key_ns: u64,
    pub live_ns: u64,
    /// when the first whole keyframe was sent
    pub key_sent_ns: u64,
}

impl Checker {
    pub fn new(stream: u32, frame_ns: u64) -> Self {
        Self {
            stream,
            frame_ns,
            c: Counters::default(),
            next_seq: 0,
            window: 0,
            started: false,
            frame: None,
            seen: 0,
            partial: false,
            ended: true,
            first_is_key: None,
            first_ns: 0,
            key_ns: 0,
            live_ns: 0,
            key_sent_ns: 0,
        }
    }

    /// Takes one RTP packet received at `now`.
    pub fn packet(&mut self, p: &[u8], now: u64, latency: &mut Histogram<u64>) {
        self.c.packets += 1;
        self.c.bytes += p.len() as u64;
        let Some(payload) = rtp_payload(p) else {
            self.c.bad += 1;
            return;
        };
        let seq = u16::from_be_bytes([p[2], p[3]]);
        if !self.started {
            self.started = true;
            self.first_ns = now;
            self.next_seq = seq;
        }
        self.sequence(seq);
        let kind = match payload {
            [n, f, ..] if n & 0x1f == 28 => f & 0x1f,
            [n, ..] => n & 0x1f,
            [] => 0,
        };
        if !(1..=5).contains(&kind) {
            return; // parameter sets, SEI, aggregates of them
        }
        let Some(s) = Stamp::read(payload) else {
            self.c.bad += 1;
            return;
        };
        if s.stream != self.stream {
            self.c.wrong_stream += 1;
            return;
        }
        self.part(s, kind == 5, now, latency);
    }

    fn sequence(&mut self, seq: u16) {
        let d = seq.wrapping_sub(self.next_seq) as i16;
        if d >= 0 {
            self.c.lost += d as u64;
            self.window = if d >= 63 { 1 } else { self.window << (d + 1) | 1 };
            self.next_seq = seq.wrapping_add(1);
            return;
        }
        let back = u32::from(d.unsigned_abs());
        let bit = if back <= 64 { 1u64 << (back - 1) } else { 0 };
        if self.window & bit != 0 {
            self.c.duplicated += 1;
        } else {
            self.window |= bit;
            self.c.reordered += 1;
            self.c.lost = self.c.lost.saturating_sub(1);
        }
    }

    fn part(&mut self, s: Stamp, key: bool, now: u64, latency: &mut Histogram<u64>) {
        if self.first_is_key.is_none() {
            self.first_is_key = Some(key && s.index == 0);
        }
        if self.frame != Some(s.frame) {
            if let Some(f) = self.frame {
                let step = s.frame.wrapping_sub(f) & FRAME_MASK;
                if step > FRAME_MASK / 2 {
                    return; // a late packet of an older frame: the sequence check has counted it
                }
                self.c.lost_frames += u64::from(step - 1);
                if !self.ended && !self.partial {
                    self.c.broken_frames += 1;
                }
                self.partial = false;
            } else {
                self.partial = s.index != 0;
            }
            self.frame = Some(s.frame);
            self.seen = 0;
            self.ended = false;
        }
        self.seen += 1;
        if s.index + 1 != s.count || self.ended {
            return;
        }
        self.ended = true;
        let age = now.saturating_sub(s.sent_ns);
        latency.saturating_record((age / 1000).max(1));
        if age <= self.frame_ns && self.live_ns == 0 {
            self.live_ns = now;
        }
        if self.seen == s.count {
            self.c.frames += 1;
            if key && self.key_ns == 0 {
                self.key_ns = now;
                self.key_sent_ns = s.sent_ns;
            }
        } else if !self.partial {
            self.c.broken_frames += 1;
        }
    }
}

/// The payload of an RTP packet (version 2), past CSRCs, extension and padding.
pub fn rtp_payload(p: &[u8]) -> Option<&[u8]> {
    if p.len() < 12 || p[0] >> 6 != 2 {
        return None;
    }
    let mut at = 12 + 4 * usize::from(p[0] & 15);
    if p[0] & 0x10 != 0 {
        let words = p.get(at + 2..at + 4)?;
        at += 4 + 4 * usize::from(u16::from_be_bytes([words[0], words[1]]));
    }
    let pad = if p[0] & 0x20 != 0 { usize::from(*p.last()?) } else { 0 };
    p.get(at..p.len().checked_sub(pad)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(seq: u16, key: bool, s: Stamp) -> Vec<u8> {
        let mut p = vec![0x80, 96, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
        p[2..4].copy_from_slice(&seq.to_be_bytes());
        p.extend([0x7c, if key { 5 } else { 1 }]);
        p.resize(14 + 30, 7);
        let n = p.len();
        s.write(&mut p[n - crate::stamp::LEN..]);
        p
    }

    fn st(frame: u32, index: u16, count: u16) -> Stamp {
        Stamp { stream: 3, frame, index, count, sent_ns: 1_000_000 }
    }

    #[test]
    fn a_clean_run_has_no_findings() {
        let (mut c, mut h) = (Checker::new(3, 40_000_000), histogram());
        let mut seq = 65_530u16;
        for f in 0..10 {
            for i in 0..3 {
                c.packet(&packet(seq, f == 0, st(f, i, 3)), 1_500_000, &mut h);
                seq = seq.wrapping_add(1);
            }
        }
        assert_eq!(c.c, Counters { packets: 30, bytes: 30 * 44, frames: 10, ..Counters::default() });
        assert_eq!(c.first_is_key, Some(true));
        assert_eq!((h.len(), h.max()), (10, 500));
        assert_eq!((c.key_ns, c.live_ns), (1_500_000, 1_500_000));
    }

    #[test]
    fn loss_duplicate_reorder_are_told_apart() {
        let (mut c, mut h) = (Checker::new(3, 1), histogram());
        for seq in [10, 11, 13, 12, 12, 14, 17, 17] {
            c.sequence_of(seq, &mut h);
        }
        assert_eq!((c.c.lost, c.c.duplicated, c.c.reordered), (2, 2, 1));
    }

    impl Checker {
        fn sequence_of(&mut self, seq: u16, h: &mut Histogram<u64>) {
            self.packet(&[0x80, 96, (seq >> 8) as u8, seq as u8, 0, 0, 0, 0, 0, 0, 0, 0, 0x67, 1], 1, h);
        }
    }

    #[test]
    fn broken_and_lost_frames() {
        let (mut c, mut h) = (Checker::new(3, 1), histogram());
        c.packet(&packet(1, false, st(5, 1, 2)), 2_000_000, &mut h); // joined inside frame 5: not its fault
        c.packet(&packet(2, false, st(6, 0, 2)), 2_000_000, &mut h); // its end is missing
        c.packet(&packet(4, false, st(7, 0, 2)), 2_000_000, &mut h);
        c.packet(&packet(5, false, st(7, 1, 2)), 2_000_000, &mut h);
        c.packet(&packet(9, false, st(10, 1, 2)), 2_000_000, &mut h); // 8, 9 gone; 10 without its start
        c.packet(&packet(10, false, Stamp { stream: 4, ..st(11, 0, 1) }), 2_000_000, &mut h);
        assert_eq!((c.c.frames, c.c.broken_frames, c.c.lost_frames, c.c.wrong_stream), (1, 2, 2, 1));
        assert_eq!(c.first_is_key, Some(false));
        assert_eq!(c.c.lost, 1 + 3);
    }

    #[test]
    fn payload_past_extension_and_padding() {
        let mut p = vec![0xb1, 96, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1];
        p.extend([0; 4]); // one CSRC
        p.extend([0, 0, 0, 1, 9, 9, 9, 9]); // extension of one word
        p.extend([0x41, 42, 0, 0, 3]);
        assert_eq!(rtp_payload(&p), Some(&[0x41, 42][..]));
        assert_eq!(rtp_payload(&p[..15]), None);
        assert_eq!(rtp_payload(&[0; 12]), None);
    }

    #[test]
    fn histogram_has_three_digits_to_two_minutes() {
        let mut h = histogram();
        for us in [1, 999, 45_678, 100_000_000] {
            h.saturating_record(us);
        }
        h.saturating_record(u64::MAX);
        assert!(h.value_at_quantile(0.4).abs_diff(999) <= 1);
        assert!(h.value_at_quantile(0.6).abs_diff(45_678) <= 46);
        assert!(h.max() >= 119_000_000);
    }
}
