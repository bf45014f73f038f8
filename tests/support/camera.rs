//! A camera of known content: a thread that publishes H.264 RTP over TCP at its own pace and remembers a digest
//! of every packet, so that a reader can tell whether it got each of them, once, unchanged and in order.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use super::{Rtsp, Server, rtsp::Item};

/// From a real encoder, so that a server which parses parameter sets finds nothing odd.
pub const SPS: [u8; 26] = [
    0x67, 0x4d, 0x40, 0x1f, 0xa6, 0x11, 0x02, 0x80, 0xbf, 0xe5, 0xc0, 0x44, 0x00, 0x00, 0x03, 0x00, 0x04,
    0x00, 0x00, 0x03, 0x00, 0xc8, 0x3c, 0x60, 0xc8, 0x46,
];
pub const PPS: [u8; 5] = [0x68, 0xe8, 0x43, 0x32, 0xc8];

/// Both counters wrap soon after the start: every test crosses them.
pub const FIRST_SEQUENCE: u16 = 65_500;
pub const FIRST_TIMESTAMP: u32 = u32::MAX - 90_000;

pub const SDP: &str = "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=test camera\r\nc=IN IP4 0.0.0.0\r\nt=0 0\r\n\
    m=video 0 RTP/AVP 96\r\na=rtpmap:96 H264/90000\r\n\
    a=fmtp:96 packetization-mode=1; profile-level-id=4D401F; sprop-parameter-sets=Z01AH6YRAoC/5cBEAAADAAQAAAMAyDxgyEY=,aOhDMsg=\r\n\
    a=control:streamid=0\r\n";

#[derive(Debug, Clone, Copy)]
pub struct CameraPlan {
    pub fps: u32,
    /// Frames from one keyframe to the next.
    pub gop: u32,
    pub frame_bytes: usize,
    pub key_bytes: usize,
}

impl Default for CameraPlan {
    fn default() -> Self {
        Self { fps: 25, gop: 25, frame_bytes: 3_000, key_bytes: 12_000 }
    }
}

pub struct Camera {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

/// What the camera has sent so far; outlives it.
#[derive(Clone)]
pub struct Record(Arc<Shared>);

impl Record {
    /// Of a camera that has sent nothing yet.
    pub fn empty() -> Self {
        Self(Arc::default())
    }

    /// Takes down a packet that is about to be sent; `begins_key`: a keyframe's access unit begins with it.
    pub fn add(&self, rtp: &[u8], begins_key: bool) {
        let mut sent = self.0.sent.lock().unwrap();
        if begins_key {
            self.0.keys.lock().unwrap().push(sent.len());
        }
        sent.push(digest(rtp));
    }

    /// Of packets that were never sent: to test the tests with.
    pub fn of_digests(digests: Vec<u64>) -> Self {
        Self(Arc::new(Shared { sent: Mutex::new(digests), ..Shared::default() }))
    }

    pub fn packets(&self) -> usize {
        self.0.sent.lock().unwrap().len()
    }

    /// Where in the record the packet stands that arrived as `rtp`, however long ago it was sent: of those with its
    /// sequence number, which comes round every 65,536 packets, the one of the same content.
    pub fn find(&self, rtp: &[u8]) -> Option<usize> {
        let offset = u16::from_be_bytes([rtp[2], rtp[3]]).wrapping_sub(FIRST_SEQUENCE);
        let wanted = digest(rtp);
        let sent = self.0.sent.lock().unwrap();
        (usize::from(offset)..sent.len()).step_by(1 << 16).find(|&index| sent[index] == wanted)
    }

    /// The packet begins a keyframe's access unit.
    pub fn begins_key(&self, index: usize) -> bool {
        self.0.keys.lock().unwrap().contains(&index)
    }
}

#[derive(Default)]
struct Shared {
    sent: Mutex<Vec<u64>>,
    /// Index in `sent` of the first packet of each keyframe's access unit.
    keys: Mutex<Vec<usize>>,
    stop: AtomicBool,
    mute: AtomicBool,
    closed: AtomicBool,
    frames: AtomicUsize,
}

impl Camera {
    pub fn publish(server: &Server, path: &str, plan: CameraPlan) -> Self {
        Self::from(announce(server, path), plan)
    }

    /// Starts the pictures on a client that is already recording.
    pub fn from(client: Rtsp, plan: CameraPlan) -> Self {
        let shared = Arc::new(Shared::default());
        let thread = thread::spawn({
            let shared = Arc::clone(&shared);
            move || run(client, plan, &shared)
        });
        Self { shared, thread: Some(thread) }
    }

    /// Keeps the connection, sends nothing more.
    pub fn fall_silent(&self) {
        self.shared.mute.store(true, Ordering::SeqCst);
    }

    /// The server has closed our connection.
    pub fn was_closed(&self) -> bool {
        self.shared.closed.load(Ordering::SeqCst)
    }

    pub fn frames(&self) -> usize {
        self.shared.frames.load(Ordering::SeqCst)
    }

    pub fn record(&self) -> Record {
        Record(Arc::clone(&self.shared))
    }

    /// Packet indices at which a keyframe's access unit begins.
    pub fn keys(&self) -> Vec<usize> {
        self.shared.keys.lock().unwrap().clone()
    }

    pub fn wait_frames(&self, count: usize) {
        super::wait_for(&format!("the camera sends {count} frames"), super::PATIENCE, || {
            assert!(!self.was_closed(), "the server closed the camera");
            (self.frames() >= count).then_some(())
        });
    }

    pub fn timestamp_of_frame(frame: u32, fps: u32) -> u32 {
        FIRST_TIMESTAMP.wrapping_add(frame * (90_000 / fps))
    }

    /// Leaves as a camera that is switched off does: the connection ends without TEARDOWN.
    pub fn leave(mut self) {
        self.end();
    }

    fn end(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the camera thread");
        }
    }
}

impl Drop for Camera {
    fn drop(&mut self) {
        self.end();
    }
}

/// ANNOUNCE, SETUP, RECORD: a client ready to send video on channel 0.
pub fn announce(server: &Server, path: &str) -> Rtsp {
    let mut client = Rtsp::connect(server);
    let answer = announce_on(&mut client, path);
    assert_eq!(answer.status, 200, "RECORD {path}: {answer:?}");
    client
}

/// The same on a connection of the caller; the answer is RECORD's.
pub fn announce_on(client: &mut Rtsp, path: &str) -> super::rtsp::Response {
    prepare_on(client, path);
    let url = client.url(path);
    client.request("RECORD", &url, &[("Range", "npt=0.000-")], "")
}

/// ANNOUNCE and SETUP alone.
pub fn prepare_on(client: &mut Rtsp, path: &str) {
    let url = client.url(path);
    let answer = client.request("ANNOUNCE", &url, &[("Content-Type", "application/sdp")], SDP);
    assert_eq!(answer.status, 200, "ANNOUNCE {path}: {answer:?}");
    let answer =
        client.setup(&format!("{url}/streamid=0"), "RTP/AVP/TCP;unicast;interleaved=0-1;mode=record");
    assert_eq!(answer.status, 200, "SETUP {path}: {answer:?}");
}

/// What of a packet must arrive unchanged: all but the SSRC, which a server may choose.
pub fn digest(rtp: &[u8]) -> u64 {
    let mix = |hash: u64, word: u64| (hash ^ word).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(29);
    let word = |bytes: &[u8]| {
        let mut padded = [0; 8];
        padded[..bytes.len()].copy_from_slice(bytes);
        u64::from_le_bytes(padded)
    };
    rtp[12..].chunks(8).fold(mix(rtp.len() as u64, word(&rtp[..8])), |hash, bytes| mix(hash, word(bytes)))
}

fn run(mut client: Rtsp, plan: CameraPlan, shared: &Arc<Shared>) {
    let record = Record(Arc::clone(shared));
    let start = Instant::now();
    let mut sequence = FIRST_SEQUENCE;
    for frame in 0.. {
        let due = start + Duration::from_secs(1) * frame / plan.fps;
        loop {
            if shared.stop.load(Ordering::SeqCst) {
                return;
            }
            // Reads what the server says (receiver reports) while the next frame is not due.
            let left = due.saturating_duration_since(Instant::now());
            if left.is_zero() && !shared.mute.load(Ordering::SeqCst) {
                break;
            }
            let slice = left.clamp(Duration::from_millis(1), Duration::from_millis(50));
            if let Item::Closed = client.item(Instant::now() + slice) {
                shared.closed.store(true, Ordering::SeqCst);
                return;
            }
        }
        let timestamp = Camera::timestamp_of_frame(frame, plan.fps);
        let key = frame.is_multiple_of(plan.gop);
        let payloads = frame_payloads(frame, key.then_some([&SPS, &PPS]), plan);
        let last = payloads.len() - 1;
        for (n, payload) in payloads.into_iter().enumerate() {
            let mut rtp = vec![0x80, 96 | if n == last { 0x80 } else { 0 }];
            rtp.extend_from_slice(&sequence.to_be_bytes());
            rtp.extend_from_slice(&timestamp.to_be_bytes());
            rtp.extend_from_slice(&0xCA3E_4A00_u32.to_be_bytes());
            rtp.extend_from_slice(&payload);
            sequence = sequence.wrapping_add(1);
            record.add(&rtp, n == 0 && frame.is_multiple_of(plan.gop));
            if !client.send_frame(0, &rtp) {
                shared.closed.store(true, Ordering::SeqCst);
                return;
            }
        }
        shared.frames.fetch_add(1, Ordering::SeqCst);
    }
}

/// The RTP payloads of a picture; with parameter sets, it is a keyframe. `frame` makes it like no other.
pub fn frame_payloads(frame: u32, sets: Option<[&[u8]; 2]>, plan: CameraPlan) -> Vec<Vec<u8>> {
    let (nal_header, size) = if sets.is_some() { (0x65, plan.key_bytes) } else { (0x41, plan.frame_bytes) };
    let mut noise = (u64::from(frame) << 32) | 0x9E37_79B9;
    let mut body: Vec<u8> = (0..size)
        .map(|_| {
            noise ^= noise << 13;
            noise ^= noise >> 7;
            noise ^= noise << 17;
            (noise >> 24) as u8 | 1 // never a start code
        })
        .collect();
    body[0] |= 0x80; // first_mb_in_slice = 0: one slice, one picture
    let mut payloads: Vec<_> = sets.into_iter().flatten().map(<[u8]>::to_vec).collect();
    let pieces = body.chunks(1_200).count();
    for (n, piece) in body.chunks(1_200).enumerate() {
        let start = if n == 0 { 0x80 } else { 0 };
        let end = if n + 1 == pieces { 0x40 } else { 0 };
        let mut fragment = vec![nal_header & 0xE0 | 28, start | end | nal_header & 0x1F];
        fragment.extend_from_slice(piece);
        payloads.push(fragment);
    }
    payloads
}
