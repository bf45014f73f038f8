//! A publisher's packets that are longer than a datagram may be (`udpMaxPayloadSize`): readers over UDP get them cut
//! and numbered without a gap, readers over TCP as they came.

use std::{thread, time::Duration};

use socket2::SockRef;

use crate::support::{PATIENCE, Rtsp, Server, ours_or_say_skipped, udp_pair};

/// All of a packet, and what of it is payload.
const PACKET: usize = 4_000;
const PAYLOAD: usize = PACKET - HEADER;
const HEADER: usize = 12;
const GOP: usize = 10;
const PICTURES: usize = 75;
/// So many are there when the first reader comes.
const BEFORE: usize = 12;
const FRAME: Duration = Duration::from_millis(40);
/// Both counters wrap soon after the start.
const FIRST_SEQUENCE: u16 = 65_500;
const FIRST_TIMESTAMP: u32 = u32::MAX - 90_000;

/// How a codec heads its units.
#[derive(Clone, Copy)]
struct Syntax {
    name: &'static str,
    fmtp: &'static str,
    sets: [&'static [u8]; 3],
    key: &'static [u8],
    other: &'static [u8],
    aggregate: &'static [u8],
}

const H264: Syntax = Syntax {
    name: "H264",
    fmtp: "a=fmtp:96 packetization-mode=1\r\n",
    sets: [&[0x67], &[0x68], &[0x06]],
    key: &[0x65],
    other: &[0x41],
    aggregate: &[0x78],
};

const H265: Syntax = Syntax {
    name: "H265",
    fmtp: "",
    sets: [&[0x42, 1], &[0x44, 1], &[0x4e, 1]],
    key: &[0x26, 1],
    other: &[0x02, 1],
    aggregate: &[0x60, 1],
};

impl Syntax {
    fn is_h264(self) -> bool {
        self.name == "H264"
    }

    /// `unit` in fragments, each payload of at most [`PAYLOAD`] bytes.
    fn fragments(self, unit: &[u8]) -> Vec<Vec<u8>> {
        let (prefix, data) = if self.is_h264() {
            (vec![unit[0] & 0xe0 | 28, unit[0] & 0x1f], &unit[1..])
        } else {
            (vec![unit[0] & 0x81 | 49 << 1, unit[1], unit[0] >> 1 & 0x3f], &unit[2..])
        };
        let pieces: Vec<_> = data.chunks(PAYLOAD - prefix.len()).collect();
        let last = pieces.len() - 1;
        let fragment = |(n, piece): (usize, &&[u8])| {
            let mut payload = prefix.clone();
            let edges = if n == 0 { 0x80 } else { 0 } | if n == last { 0x40 } else { 0 };
            payload[prefix.len() - 1] |= edges;
            payload.extend_from_slice(piece);
            payload
        };
        pieces.iter().enumerate().map(fragment).collect()
    }
}

/// One picture, as it is sent.
struct Picture {
    units: Vec<Vec<u8>>,
    packets: Vec<Vec<u8>>,
}

fn timestamp(picture: usize) -> u32 {
    FIRST_TIMESTAMP.wrapping_add(picture as u32 * 3_600)
}

fn pictures(syntax: Syntax) -> Vec<Picture> {
    let mut sequence = FIRST_SEQUENCE;
    (0..PICTURES)
        .map(|number| {
            let unit = |head: &[u8], length: usize| {
                let noise = (head.len()..length).map(|n| (n * 31 + n / 256 + number * 7) as u8);
                head.iter().copied().chain(noise).collect::<Vec<u8>>()
            };
            let (units, payloads) = if number.is_multiple_of(GOP) {
                let sets = [
                    unit(syntax.sets[0], 20),
                    unit(syntax.sets[1], 8),
                    unit(syntax.sets[2], PAYLOAD - syntax.aggregate.len() - 3 * 2 - 28),
                ];
                let mut aggregate = syntax.aggregate.to_vec();
                for unit in &sets {
                    aggregate.extend_from_slice(&(unit.len() as u16).to_be_bytes());
                    aggregate.extend_from_slice(unit);
                }
                let slices = [unit(syntax.key, PAYLOAD), unit(syntax.key, 10_001)];
                let payloads = [vec![aggregate, slices[0].clone()], syntax.fragments(&slices[1])].concat();
                (sets.into_iter().chain(slices).collect::<Vec<_>>(), payloads)
            } else {
                let slices =
                    [unit(syntax.other, PAYLOAD), unit(syntax.other, 5_000), unit(syntax.other, 300)];
                let fragments = syntax.fragments(&slices[1]);
                let payloads = [vec![slices[0].clone()], fragments, vec![slices[2].clone()]].concat();
                (slices.to_vec(), payloads)
            };
            let last = payloads.len() - 1;
            let packet = |(n, payload): (usize, Vec<u8>)| {
                let mut packet = vec![0x80, 96 | if n == last { 0x80 } else { 0 }];
                packet.extend_from_slice(&sequence.to_be_bytes());
                packet.extend_from_slice(&timestamp(number).to_be_bytes());
                packet.extend_from_slice(&0xCA3E_4A00_u32.to_be_bytes());
                packet.extend_from_slice(&payload);
                sequence = sequence.wrapping_add(1);
                packet
            };
            Picture { units, packets: payloads.into_iter().enumerate().map(packet).collect() }
        })
        .collect()
}

/// Where in the script the picture stands that a packet belongs to.
fn picture_of(packet: &[u8]) -> usize {
    let at = u32::from_be_bytes(packet[4..8].try_into().unwrap());
    (at.wrapping_sub(FIRST_TIMESTAMP) / 3_600) as usize
}

fn announce(server: &Server, syntax: Syntax) -> Rtsp {
    let mut client = Rtsp::connect(server);
    let url = client.url("cam");
    let sdp = format!(
        "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=test\r\nc=IN IP4 0.0.0.0\r\nt=0 0\r\nm=video 0 RTP/AVP 96\r\n\
         a=rtpmap:96 {}/90000\r\n{}a=control:streamid=0\r\n",
        syntax.name, syntax.fmtp
    );
    let answer = client.request("ANNOUNCE", &url, &[("Content-Type", "application/sdp")], &sdp);
    assert_eq!(answer.status, 200, "{answer:?}");
    let transport = "RTP/AVP/TCP;unicast;interleaved=0-1;mode=record";
    assert_eq!(client.setup(&format!("{url}/streamid=0"), transport).status, 200);
    assert_eq!(client.request("RECORD", &url, &[("Range", "npt=0.000-")], "").status, 200);
    client
}

/// Puts units together again; a packet that may not be there ends the test.
struct Units {
    syntax: Syntax,
    whole: Vec<Vec<u8>>,
    open: Option<Vec<u8>>,
}

impl Units {
    fn take(&mut self, payload: &[u8]) {
        let (is_fragment, head, bits, data) = if self.syntax.is_h264() {
            let head = vec![payload[0] & 0xe0 | payload[1] & 0x1f];
            (payload[0] & 0x1f == 28, head, payload[1], payload.get(2..))
        } else {
            let head = vec![payload[0] & 0x81 | (payload[2] & 0x3f) << 1, payload[1]];
            (payload[0] >> 1 & 0x3f == 49, head, payload[2], payload.get(3..))
        };
        if !is_fragment {
            assert!(self.open.is_none(), "a unit inside of another");
            self.whole.push(payload.to_vec());
            return;
        }
        assert_eq!(bits & 0x80 != 0, self.open.is_none(), "a start bit too many or too few");
        self.open.get_or_insert(head).extend_from_slice(data.unwrap());
        if bits & 0x40 != 0 {
            self.whole.extend(self.open.take());
        }
    }
}

/// Reads over UDP from the newest keyframe to the last picture, and judges all that comes. Gives the number of
/// packets.
fn read_udp(server: &Server, syntax: Syntax, script: &[Picture], bytes_max: usize, report: &[u8]) -> usize {
    let [rtp, rtcp] = udp_pair();
    // A cached GOP comes faster than in real time; as much room as the system grants.
    SockRef::from(&rtp).set_recv_buffer_size(1 << 20).unwrap();
    let mut client = Rtsp::connect(server);
    assert_eq!(client.describe("cam").status, 200);
    let control = client.controls[0].clone();
    let ports = (rtp.local_addr().unwrap().port(), rtcp.local_addr().unwrap().port());
    let transport = format!("RTP/AVP;unicast;client_port={}-{}", ports.0, ports.1);
    assert_eq!(client.setup(&control, &transport).status, 200);
    let answer = client.play();
    assert_eq!(answer.status, 200);
    let info = answer.header("RTP-Info").expect("RTP-Info");
    let announced = info.split([';', ',']).find_map(|part| part.trim().strip_prefix("seq="));
    let mut due: u16 = announced.expect("seq").parse().unwrap();

    let mut buffer = vec![0; 65_536];
    let mut units = Units { syntax, whole: Vec::new(), open: None };
    let (mut first, mut previous, mut count) = (None, None::<(u32, bool)>, 0);
    loop {
        let length = rtp.recv(&mut buffer).expect("the stream goes on");
        let packet = &buffer[..length];
        assert!(length <= bytes_max, "a datagram of {length} bytes");
        assert_eq!(u16::from_be_bytes([packet[2], packet[3]]), due, "after {count} packets");
        due = due.wrapping_add(1);
        count += 1;
        let picture = picture_of(packet);
        first.get_or_insert(picture);
        assert_eq!((packet[0], packet[1] & 0x7f), (0x80, 96));
        assert_eq!(packet[4..8], timestamp(picture).to_be_bytes());
        assert_eq!(packet[8..12], script[0].packets[0][8..12], "SSRC");
        // The marker comes with the last packet of a picture, and with no other.
        let (at, marker) = (picture as u32, packet[1] & 0x80 != 0);
        assert!(previous.is_none_or(|(before, ended)| ended == (before != at)), "marker at {picture}");
        previous = Some((at, marker));
        units.take(&packet[HEADER..]);
        if picture + 1 == PICTURES && marker {
            break;
        }
    }
    let first = first.unwrap();
    assert!(first.is_multiple_of(GOP), "it starts with a keyframe, not at {first}");
    let sent: Vec<_> = script[first..].iter().flat_map(|picture| &picture.units).collect();
    assert!(units.open.is_none());
    assert_eq!(units.whole.len(), sent.len());
    assert!(units.whole.iter().eq(sent), "units differ from those that were sent");
    let originals: usize = script[first..].iter().map(|picture| picture.packets.len()).sum();
    assert!(count > 2 * originals, "{count} packets of {originals}");
    // RTCP comes as it was sent.
    while rtcp.recv(&mut buffer).is_ok_and(|length| &buffer[..length] != report) {}
    assert!(buffer.starts_with(report), "the publisher's report did not come");
    count
}

/// Reads over TCP from the newest keyframe to the last packet: they are those that were sent.
fn read_tcp(mut client: Rtsp, script: &[Picture]) {
    let all: Vec<_> = script.iter().flat_map(|picture| &picture.packets).collect();
    let mut next = None;
    while next != Some(all.len()) {
        let frame = client.frame(PATIENCE).expect("the stream goes on");
        if frame.channel == 0 {
            let at = next.unwrap_or_else(|| {
                script[..picture_of(&frame.data)].iter().map(|picture| picture.packets.len()).sum()
            });
            assert!(frame.data == *all[at], "packet {at} is not what was sent");
            next = Some(at + 1);
        }
    }
}

fn long_packets_are_cut(syntax: Syntax, globals: &str, bytes_max: usize) {
    let server = Server::with(globals, "  all_others:\n");
    let script = pictures(syntax);
    assert!(script[0].packets[..3].iter().all(|packet| packet.len() == PACKET));
    let mut publisher = announce(&server, syntax);
    let send = |publisher: &mut Rtsp, picture: &Picture| {
        picture.packets.iter().for_each(|packet| assert!(publisher.send_frame(0, packet)));
    };
    script[..BEFORE].iter().for_each(|picture| send(&mut publisher, picture));
    let url = publisher.url("cam");
    assert_eq!(publisher.request("GET_PARAMETER", &url, &[], "").status, 200, "all of it has been read");
    let tcp = Rtsp::play_tcp(&server, "cam");
    // A receiver report of nothing: it is relayed, and is not one of the server's own.
    let report = [0x80, 201, 0, 1, 0xCA, 0x3E, 0x4A, 0x00];
    let counts = thread::scope(|scope| {
        let (server, script) = (&server, &script[..]);
        let reader = |delay| {
            scope.spawn(move || {
                thread::sleep(delay);
                read_udp(server, syntax, script, bytes_max, &report)
            })
        };
        // The second has its numbers moved by other amounts.
        let readers = [reader(Duration::ZERO), reader(FRAME * 25)];
        scope.spawn(move || read_tcp(tcp, script));
        thread::sleep(FRAME);
        for picture in &script[BEFORE..] {
            send(&mut publisher, picture);
            thread::sleep(FRAME);
        }
        assert!(publisher.send_frame(1, &report));
        readers.map(|reader| reader.join().expect("a reader"))
    });
    assert!(counts[0] > counts[1], "the second reader came later: {counts:?}");
    let told = format!(
        "[path cam] RTP packets are too big ({PAYLOAD} > {}), remuxing them into smaller ones",
        bytes_max - HEADER
    );
    server.wait_log(&[&told], PATIENCE);
    let lines = server.log_lines().iter().filter(|line| line.contains("too big")).count();
    assert_eq!(lines, 1, "it is said once:\n{}", server.log_text());
}

#[test]
fn long_h264_packets_reach_udp_readers_in_datagrams_of_the_default_size() {
    if ours_or_say_skipped("long_h264_packets_reach_udp_readers_in_datagrams_of_the_default_size") {
        long_packets_are_cut(H264, "", 1_452);
    }
}

#[test]
fn long_h265_packets_reach_udp_readers_in_datagrams_of_a_smaller_size() {
    if ours_or_say_skipped("long_h265_packets_reach_udp_readers_in_datagrams_of_a_smaller_size") {
        long_packets_are_cut(H265, "udpMaxPayloadSize: 600\n", 600);
    }
}
