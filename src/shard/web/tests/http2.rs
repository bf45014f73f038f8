//! HTTP/2, frame by frame.

use super::*;

/// A frame of HTTP/2 (RFC 9113 §4.1).
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut frame = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;
/// `GET https /`, as the static table has it (RFC 7541 appendix A).
const GET: [u8; 3] = [0x82, 0x87, 0x84];

/// Reads frames until one satisfies: kind, stream, payload.
fn read_frames(client: &mut TcpStream, mut done: impl FnMut(u8, u32, &[u8]) -> bool) {
    loop {
        let mut head = [0; 9];
        client.read_exact(&mut head).unwrap();
        let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
        client.read_exact(&mut payload).unwrap();
        if done(head[3], u32::from_be_bytes([head[5], head[6], head[7], head[8]]), &payload) {
            return;
        }
    }
}

fn connect_http2(host: &mut Host) -> TcpStream {
    let mut client = host.connect();
    let (key, lobby) = (host.web.due[0], Rc::clone(&host.web.lobby));
    host.web.connections.get_mut(key).unwrap().serve(key, true, &lobby);
    client.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").unwrap();
    client.write_all(&frame(SETTINGS, 0, 0, &[])).unwrap();
    client
}

#[test]
fn streams_of_one_connection_are_held_answered_and_given_up_apart() {
    on_both(|host| {
        let mut client = connect_http2(host);
        let streams: Vec<u32> = (0..100).map(|number| 2 * number + 1).collect();
        for &stream in &streams {
            client.write_all(&frame(HEADERS, 5, stream, &GET)).unwrap();
        }
        let requests = host.requests(100);
        for _ in 0..3 {
            assert!(host.turn().is_empty() && !host.web.has_work());
        }
        client.write_all(&frame(RST_STREAM, 0, streams[7], &8_u32.to_be_bytes())).unwrap();
        host.until("that one is given up", |host| host.gone == [requests[7].ticket]);
        host.web.answer(requests[7].ticket, ok("late"));
        assert!(!host.web.has_work());
        // In another order than they came.
        for request in requests.iter().rev() {
            host.web.answer(request.ticket, ok("part"));
        }
        host.until("all are answered", |host| host.gauges.hls.answers()[1] == 99 && !host.web.has_work());
        let mut answered = Vec::new();
        read_frames(&mut client, |kind, stream, payload| {
            if kind == DATA && payload == b"part" {
                answered.push(stream);
            }
            answered.len() == 99
        });
        answered.sort_unstable();
        assert!(answered.iter().eq(streams.iter().filter(|&&stream| stream != streams[7])));
        // One that breaks the rules: all it waits for is given up.
        client.write_all(&frame(HEADERS, 5, 301, &GET)).unwrap();
        let ticket = host.request().ticket;
        client.write_all(&frame(DATA, 0, 0, b"x")).unwrap();
        host.until("its end", |host| host.gone.contains(&ticket));
        read_frames(&mut client, |kind, _, _| kind == GOAWAY);
    });
}

#[test]
fn an_answer_that_its_reader_gives_no_room_for_ends_the_connection() {
    on_both(|host| {
        let mut client = connect_http2(host);
        client.write_all(&frame(HEADERS, 5, 1, &GET)).unwrap();
        let ticket = host.request().ticket;
        let mut answer = WebAnswer::new(StatusCode::OK);
        answer.body = vec![Bytes::from(vec![0; 1 << 20])];
        host.web.answer(ticket, answer);
        // The window that every stream begins with is all that it gets (RFC 9113 §6.9.2).
        let mut taken = 0;
        client.set_nonblocking(true).unwrap();
        let began = clock::instant();
        while taken < 65_535 {
            assert!(host.turn().is_empty() && began.elapsed() < PATIENCE);
            taken += client.read(&mut [0; 70_000]).unwrap_or(0);
        }
        host.check_after(WRITE_TIMEOUT - Duration::from_secs(1));
        assert_eq!(host.connections(), 1);
        host.check_after(Duration::from_secs(2));
        assert_eq!(host.connections(), 0);
    });
}
