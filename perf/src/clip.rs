//! The published pictures: an H.264 file cut into access units, scaled to the bit rate, packetised once (RFC 6184
//! mode 1). Publishing a frame is then one copy and a few bytes patched per packet.

use crate::stamp::{self, FRAME_MASK, Stamp};

/// Largest RTP payload; a packet is 12 bytes more.
pub const PAYLOAD: usize = 1200;
const PT: u8 = 96;

pub struct Packet {
    /// where the packet's `$` is in `Frame::wire`
    pub at: usize,
    /// RTP bytes, without the four of the interleaved header
    pub len: usize,
    pub marked: bool,
}

pub struct Frame {
    /// all packets of the frame, each with its interleaved header
    pub wire: Vec<u8>,
    pub packets: Vec<Packet>,
    pub key: bool,
    marked: u16,
}

pub struct Clip {
    pub frames: Vec<Frame>,
    /// frames between keyframes, as found
    pub gop: usize,
    pub sps: Vec<u8>,
    pub pps: Vec<u8>,
    pub fps: f64,
    /// mean of RTP bytes and packets per frame
    pub mean_bytes: f64,
    pub mean_packets: f64,
    pub max_bytes: usize,
    /// mean of RTP bytes per keyframe
    pub key_bytes: f64,
    /// where the pictures come from
    pub source: String,
}

/// Where a publisher is in its stream.
pub struct Cursor {
    pub stream: u32,
    pub ssrc: u32,
    pub seq: u16,
    pub frame: u32,
    pub rtp_ts: u32,
    /// offset of the second frame in the clip, so that keyframes of the streams do not coincide
    pub offset: usize,
}

impl Cursor {
    pub fn new(stream: u32, of: u32, gop: usize) -> Self {
        let h = (stream + 1).wrapping_mul(0x9e37_79b9);
        let offset = (u64::from(stream) * gop as u64 / u64::from(of.max(1))) as usize;
        Self { stream, ssrc: h | 1, seq: h as u16, frame: 0, rtp_ts: h.rotate_left(16), offset }
    }
}

/// The NAL units of an Annex B file.
pub fn nal_units(b: &[u8]) -> Vec<&[u8]> {
    let mut starts = Vec::new();
    let mut i = 0;
    while i + 3 <= b.len() {
        if b[i] == 0 && b[i + 1] == 0 && b[i + 2] == 1 {
            starts.push(i);
            i += 3;
        } else {
            i += 1;
        }
    }
    let mut out = Vec::with_capacity(starts.len());
    for (k, &s) in starts.iter().enumerate() {
        let end = starts.get(k + 1).copied().unwrap_or(b.len());
        let mut nal = &b[s + 3..end];
        while let [head @ .., 0] = nal {
            nal = head;
        }
        if !nal.is_empty() {
            out.push(nal);
        }
    }
    out
}

/// One picture: its slices. Parameter sets are kept apart and put before every keyframe.
struct Picture<'a> {
    slices: Vec<&'a [u8]>,
    key: bool,
}

fn pictures<'a>(nals: &[&'a [u8]]) -> Vec<Picture<'a>> {
    let mut out: Vec<Picture> = Vec::new();
    for n in nals {
        let kind = n[0] & 0x1f;
        if (kind == 1 || kind == 5) && n.len() > 1 {
            // first_mb_in_slice is 0 (one bit, 1) in the first slice of a picture
            match out.last_mut() {
                Some(p) if n[1] & 0x80 == 0 => p.slices.push(n),
                _ => out.push(Picture { slices: vec![n], key: kind == 5 }),
            }
        }
    }
    out
}

/// RTP bytes (headers included) and packets of a NAL unit of `len` bytes.
fn rtp_cost(len: usize) -> (usize, usize) {
    if len <= PAYLOAD {
        return (len + 12, 1);
    }
    let parts = (len - 1).div_ceil(PAYLOAD - 2);
    (len - 1 + parts * 14, parts)
}

/// The length a slice is given: scaled, and such that every packet of it has room for the mark.
fn scaled_len(len: usize, by: f64) -> usize {
    let n = ((len as f64 * by).round() as usize).max(stamp::LEN + 10);
    let room = stamp::LEN + 2;
    let rest = if n > PAYLOAD { (n - 1) % (PAYLOAD - 2) } else { room };
    if rest != 0 && rest < room { n + room - rest } else { n }
}

/// A slice of `len` bytes: the beginning as it is, then its own body over again.
fn scaled(nal: &[u8], len: usize) -> Vec<u8> {
    let mut out = nal[..nal.len().min(len)].to_vec();
    let body = if nal.len() > 40 { &nal[32..] } else { &[0x55u8; 64][..] };
    while out.len() < len {
        out.push(0x55); // no start code at the seam
        let n = body.len().min(len - out.len());
        out.extend_from_slice(&body[..n]);
    }
    out
}

impl Clip {
    /// Cuts `file` into frames of `mbps` megabits (RTP bytes) per second at `fps`.
    pub fn build(file: &[u8], mbps: f64, fps: f64, source: String) -> Result<Self, String> {
        let nals = nal_units(file);
        let first = |kind: u8| {
            let n = nals.iter().find(|n| n[0] & 0x1f == kind).map(|n| n.to_vec());
            n.ok_or_else(|| format!("{source}: no NAL unit of type {kind}: is this an H.264 Annex B file?"))
        };
        let (sps, pps) = (first(7)?, first(8)?);
        let mut pics = pictures(&nals);
        let start = pics.iter().position(|p| p.key).ok_or_else(|| format!("{source}: no keyframe"))?;
        pics.drain(..start);
        let keys: Vec<usize> = (0..pics.len()).filter(|&i| pics[i].key).collect();
        let gop = keys.get(1).copied().unwrap_or(pics.len());
        let last = if keys.len() > 1 { pics.len() / gop * gop } else { pics.len() };
        pics.truncate(last.max(1));

        let want = mbps * 1e6 / 8.0 / fps * pics.len() as f64;
        let cost = |by: f64| -> f64 {
            let one = |p: &Picture| {
                let sets = if p.key { sps.len() + pps.len() + 24 } else { 0 };
                sets + p.slices.iter().map(|s| rtp_cost(scaled_len(s.len(), by)).0).sum::<usize>()
            };
            pics.iter().map(one).sum::<usize>() as f64
        };
        let (mut low, mut high) = (1e-4, 1.0);
        while cost(high) < want && high < 1e6 {
            high *= 2.0;
        }
        for _ in 0..60 {
            let mid = (low + high) / 2.0;
            if cost(mid) < want { low = mid } else { high = mid }
        }
        let got = cost(high);
        if (got / want - 1.0).abs() > 0.01 {
            return Err(format!("{source}: cannot be scaled to {mbps} Mbit/s at {fps} fps"));
        }
        let frames: Vec<Frame> = pics.iter().map(|p| packetise(p, high, &sps, &pps)).collect();
        let bytes: usize = frames.iter().map(Frame::rtp_bytes).sum();
        let packets: usize = frames.iter().map(|f| f.packets.len()).sum();
        let max_bytes = frames.iter().map(Frame::rtp_bytes).max().unwrap_or(0);
        let keys = frames.iter().filter(|f| f.key);
        let (key_sum, key_n) = keys.fold((0, 0), |(b, n), f| (b + f.rtp_bytes(), n + 1));
        let n = frames.len() as f64;
        Ok(Self {
            mean_bytes: bytes as f64 / n,
            mean_packets: packets as f64 / n,
            max_bytes,
            key_bytes: key_sum as f64 / f64::from(key_n.max(1)),
            frames,
            gop,
            sps,
            pps,
            fps,
            source,
        })
    }

    pub fn frame_ns(&self) -> u64 {
        (1e9 / self.fps) as u64
    }

    /// The frame a cursor sends next. A stream begins with a keyframe.
    pub fn frame_at(&self, c: &Cursor) -> &Frame {
        let i = if c.frame == 0 { 0 } else { (c.frame as usize + c.offset) % self.frames.len() };
        &self.frames[i]
    }

    /// Copies the cursor's next frame to `out` (interleaved framing or bare packets), with sequence numbers, time
    /// stamps and marks, and moves the cursor on. Returns the frame.
    pub fn render(&self, c: &mut Cursor, now: u64, interleaved: bool, out: &mut Vec<u8>) -> &Frame {
        let f = self.frame_at(c);
        out.clear();
        if interleaved {
            out.extend_from_slice(&f.wire);
        } else {
            f.packets.iter().for_each(|p| out.extend_from_slice(&f.wire[p.at + 4..p.at + 4 + p.len]));
        }
        let mut mark = Stamp { stream: c.stream, frame: c.frame, index: 0, count: f.marked, sent_ns: now };
        let mut at = 0;
        for p in &f.packets {
            at += if interleaved { 4 } else { 0 };
            let b = &mut out[at..at + p.len];
            at += p.len;
            b[2..4].copy_from_slice(&c.seq.to_be_bytes());
            b[4..8].copy_from_slice(&c.rtp_ts.to_be_bytes());
            b[8..12].copy_from_slice(&c.ssrc.to_be_bytes());
            c.seq = c.seq.wrapping_add(1);
            if p.marked {
                mark.write(&mut b[p.len - stamp::LEN..]);
                mark.index += 1;
            }
        }
        c.frame = (c.frame + 1) & FRAME_MASK;
        c.rtp_ts = c.rtp_ts.wrapping_add((90_000.0 / self.fps).round() as u32);
        f
    }
}

impl Frame {
    pub fn rtp_bytes(&self) -> usize {
        self.packets.iter().map(|p| p.len).sum()
    }

    fn push(&mut self, payload: &[&[u8]], marked: bool) {
        let n: usize = payload.iter().map(|p| p.len()).sum();
        let len = (12 + n) as u16;
        self.packets.push(Packet { at: self.wire.len(), len: 12 + n, marked });
        self.wire.extend([b'$', 0, (len >> 8) as u8, len as u8, 0x80, PT]);
        self.wire.extend([0; 10]);
        payload.iter().for_each(|p| self.wire.extend_from_slice(p));
        self.marked += u16::from(marked);
    }
}

fn packetise(p: &Picture, by: f64, sps: &[u8], pps: &[u8]) -> Frame {
    let mut f = Frame { wire: Vec::new(), packets: Vec::new(), key: p.key, marked: 0 };
    if p.key {
        f.push(&[sps], false);
        f.push(&[pps], false);
    }
    for s in &p.slices {
        let nal = scaled(s, scaled_len(s.len(), by));
        if nal.len() <= PAYLOAD {
            f.push(&[&nal], true);
            continue;
        }
        let mut rest = &nal[1..];
        let mut start = 0x80;
        while !rest.is_empty() {
            let n = rest.len().min(PAYLOAD - 2);
            let end = if n == rest.len() { 0x40 } else { 0 };
            f.push(&[&[nal[0] & 0xe0 | 28, start | end | nal[0] & 0x1f], &rest[..n]], true);
            rest = &rest[n..];
            start = 0;
        }
    }
    if let Some(p) = f.packets.last() {
        f.wire[p.at + 5] |= 0x80;
    }
    f
}

/// Cuts packets into runs that one GSO send can carry: equal lengths, only the last shorter.
pub fn gso_runs(lens: impl Iterator<Item = usize>, mut run: impl FnMut(usize, usize, usize)) {
    use crate::sys::{GSO_BYTES, GSO_SEGMENTS};
    let (mut start, mut bytes, mut n, mut segment, mut closed) = (0, 0, 0, 0, false);
    for len in lens {
        // a shorter datagram ends its run
        let fits = n > 0 && !closed && len <= segment && n < GSO_SEGMENTS && bytes + len <= GSO_BYTES;
        if !fits {
            if n > 0 {
                run(start, bytes, segment);
            }
            (start, bytes, n, segment) = (start + bytes, 0, 0, len);
        }
        bytes += len;
        n += 1;
        closed = len < segment;
    }
    if n > 0 {
        run(start, bytes, segment);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::{Checker, histogram};
    use crate::make_clip::synthetic;

    fn clip(mbps: f64) -> Clip {
        Clip::build(&synthetic(25.0, 50, 100), mbps, 25.0, "test".into()).unwrap()
    }

    #[test]
    fn annex_b_with_both_start_codes() {
        let b = [0, 0, 0, 1, 0x67, 1, 0, 0, 1, 0x68, 2, 3, 0, 0, 0, 1, 0x65, 0x88];
        assert_eq!(nal_units(&b), [&[0x67, 1][..], &[0x68, 2, 3], &[0x65, 0x88]]);
        assert!(nal_units(&[1, 2, 3]).is_empty());
    }

    #[test]
    fn bit_rate_is_met_and_packets_fit() {
        for mbps in [0.2, 2.0, 4.0, 30.0] {
            let c = clip(mbps);
            assert_eq!(c.gop, 50);
            let got = c.mean_bytes * 25.0 * 8.0 / 1e6;
            assert!((got / mbps - 1.0).abs() < 0.01, "{got} for {mbps}");
            for f in &c.frames {
                assert!(f.packets.iter().all(|p| p.len <= PAYLOAD + 12));
                assert!(f.packets.iter().all(|p| !p.marked || p.len >= 14 + stamp::LEN));
                assert_eq!(f.packets.iter().filter(|p| f.wire[p.at + 5] & 0x80 != 0).count(), 1);
            }
        }
    }

    #[test]
    fn fragments_rebuild_the_unit_and_render_passes_the_checker() {
        let c = clip(4.0);
        let f = &c.frames[0];
        assert!(f.key);
        let payload = |p: &Packet| &f.wire[p.at + 16..p.at + 4 + p.len];
        assert_eq!((payload(&f.packets[0]), payload(&f.packets[1])), (&c.sps[..], &c.pps[..]));
        let (first, last) = (payload(&f.packets[2]), payload(f.packets.last().unwrap()));
        assert_eq!((first[0] & 0x1f, first[1]), (28, 0x85));
        assert_eq!((last[0] & 0x1f, last[1]), (28, 0x45));

        for interleaved in [true, false] {
            let mut cur = Cursor::new(7, 10, c.gop);
            let (mut chk, mut h) = (Checker::new(7, c.frame_ns()), histogram());
            let mut out = Vec::new();
            for n in 0..120 {
                let f = c.render(&mut cur, 5_000, interleaved, &mut out);
                let mut at = 0;
                for p in &f.packets {
                    at += if interleaved { 4 } else { 0 };
                    chk.packet(&out[at..at + p.len], 6_000, &mut h);
                    at += p.len;
                }
                assert_eq!(at, out.len());
                assert_eq!(n == 0 || (n + 35) % 50 == 0, f.key, "frame {n}");
            }
            let x = chk.c;
            assert_eq!((x.frames, x.lost, x.bad, x.lost_frames, x.broken_frames), (120, 0, 0, 0, 0));
        }
    }

    #[test]
    fn runs_are_equal_but_for_the_last() {
        let mut got = Vec::new();
        gso_runs([37, 16, 1212, 1212, 500, 1212].into_iter(), |a, b, s| got.push((a, b, s)));
        assert_eq!(got, [(0, 53, 37), (53, 2924, 1212), (2977, 1212, 1212)]);
        got.clear();
        gso_runs([1212; 60].into_iter(), |a, b, s| got.push((a, b, s)));
        assert_eq!(got.len(), 2);
        assert_eq!(got.iter().map(|g| g.1).sum::<usize>(), 60 * 1212);
    }
}
