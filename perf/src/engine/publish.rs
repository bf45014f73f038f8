//! The publishing half of the engine: when frames are due, and one write per frame.

use std::cmp::Reverse;
use std::io::{self, Write};

use super::conn::Conn;
use super::{Engine, Phase, Stream, TICK};
use crate::clip::gso_runs;
use crate::sys::{self, mono_ns};

/// A publisher whose socket has not taken this much skips frames.
const BACKLOG: usize = 8 << 20;

/// When frame `n` of a stream that started at `base` is due.
pub fn due_at(base: u64, n: u64, frame_ns: f64, phase: Phase) -> u64 {
    let t = base + (n as f64 * frame_ns) as u64;
    if phase == Phase::Ticked { t.next_multiple_of(TICK) } else { t }
}

impl Engine {
    /// Starts the frame clock of a stream whose publisher is ready, at its phase of the frame interval.
    pub(super) fn start_stream(&mut self, stream: u32, now: u64) {
        let frame_ns = 1e9 / self.clip.fps;
        let Some(s) = self.streams.get_mut(&stream) else { return };
        let shift = (f64::from(stream) * frame_ns / f64::from(self.o.streams.max(1))) as u64;
        let since = ((now - shift) as f64 / frame_ns) as u64;
        s.base = ((since + 1) as f64 * frame_ns) as u64 + shift;
        s.n = 0;
        let due = due_at(s.base, 0, frame_ns, self.o.phase);
        self.due.push(Reverse((due, stream)));
    }

    /// Starts the streams that wait (the floor server's, when its readers are there).
    pub fn start_all(&mut self) {
        let now = mono_ns();
        let all: Vec<u32> = self.streams.iter().filter(|(_, s)| s.base == 0).map(|(&k, _)| k).collect();
        all.into_iter().for_each(|s| self.start_stream(s, now));
    }

    /// Sends what is due; returns the time.
    pub(super) fn publish_due(&mut self, mut now: u64) -> u64 {
        while let Some(&Reverse((due, stream))) = self.due.peek() {
            if due > now {
                break;
            }
            self.due.pop();
            let Some(mut s) = self.streams.remove(&stream) else { continue };
            // a stream that was closed and opened again has a second entry, of another time
            if due != due_at(s.base, s.n, 1e9 / self.clip.fps, self.o.phase) {
                self.streams.insert(stream, s);
                continue;
            }
            self.late.saturating_record(((now - due) / 1000).max(1));
            s.n += 1;
            self.due.push(Reverse((due_at(s.base, s.n, 1e9 / self.clip.fps, self.o.phase), stream)));
            if self.hushed {
                self.streams.insert(stream, s);
                continue;
            }
            let Some(mut c) = self.conns.get_mut(s.conn).and_then(Option::take) else { continue };
            let id = s.conn;
            let r = self.send_frame(&mut c, &mut s, now);
            self.streams.insert(stream, s);
            match r {
                Ok(()) => self.conns[id] = Some(c),
                Err(e) => self.drop_conn(*c, &format!("send: {e}")),
            }
            now = mono_ns();
        }
        now
    }

    fn send_frame(&mut self, c: &mut Conn, s: &mut Stream, now: u64) -> io::Result<()> {
        if c.out.len() > BACKLOG {
            self.sent.skipped += 1;
            return Ok(());
        }
        let interleaved = c.udp.is_none();
        let f = self.clip.render(&mut s.cursor, now, interleaved, &mut self.scratch);
        self.sent.frames += 1;
        self.sent.packets += f.packets.len() as u64;
        self.sent.bytes += f.rtp_bytes() as u64;
        if let Some(u) = &c.udp {
            let mut failed = 0;
            let bytes = &self.scratch;
            gso_runs(f.packets.iter().map(|p| p.len), |at, len, segment| {
                let sent = sys::send_gso(&u.rtp, u.to, &bytes[at..at + len], segment);
                failed += u64::from(sent.is_err());
            });
            self.sent.blocked += u64::from(failed > 0);
            return Ok(());
        }
        if !c.out.is_empty() {
            c.out.extend_from_slice(&self.scratch);
            self.sent.blocked += 1;
            return Ok(());
        }
        let n = loop {
            match (&c.tcp).write(&self.scratch) {
                Ok(n) => break n,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break 0,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        };
        if n < self.scratch.len() {
            c.out.extend_from_slice(&self.scratch[n..]);
            self.sent.blocked += 1;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_bunch_and_phases_do_not() {
        let f = 40e6;
        assert_eq!(due_at(1_000_001, 3, f, Phase::Spread), 121_000_001);
        assert_eq!(due_at(1_000_001, 3, f, Phase::Ticked), 124_000_000);
        assert_eq!(due_at(4_000_000, 0, f, Phase::Ticked), 4_000_000);
    }
}
