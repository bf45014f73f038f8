//! Both back ends keep the same promises.

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    num::NonZeroUsize,
    os::fd::AsRawFd,
    time::Duration,
};

use super::*;

const LONG: Option<Duration> = Some(Duration::from_secs(10));

fn both(check: impl Fn(MediaIo)) {
    check(MediaIo::new(BackendKind::Epoll).unwrap());
    check(MediaIo::new(BackendKind::IoUring).unwrap());
}

fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let ours = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (theirs, _) = listener.accept().unwrap();
    ours.set_nonblocking(true).unwrap();
    (ours, theirs)
}

fn wait_for(media_io: &mut MediaIo, wanted: impl Fn(&Event) -> bool) -> Event {
    let mut events = Vec::new();
    for _ in 0..100 {
        media_io.wait(LONG, &mut events).unwrap();
        if let Some(&found) = events.iter().find(|event| wanted(event)) {
            return found;
        }
    }
    panic!("never came: {events:?}");
}

#[test]
fn a_watched_socket_reports_each_arrival_and_the_end() {
    both(|mut media_io| {
        let (mut ours, mut theirs) = pair();
        media_io.watch(ours.as_raw_fd(), 42).unwrap();
        for _ in 0..3 {
            theirs.write_all(b"hello").unwrap();
            wait_for(&mut media_io, |event| *event == Event::Readable(42));
            let mut buffer = [0; 64];
            assert_eq!(ours.read(&mut buffer).unwrap(), 5);
        }
        drop(theirs);
        wait_for(&mut media_io, |event| *event == Event::Hangup(42));
        assert_eq!(ours.read(&mut [0; 8]).unwrap(), 0);
    });
}

#[test]
fn nothing_happens_within_the_timeout_is_no_error() {
    both(|mut media_io| {
        let mut events = Vec::new();
        media_io.wait(Some(Duration::from_millis(5)), &mut events).unwrap();
        media_io.wait(Some(Duration::ZERO), &mut events).unwrap();
        assert!(events.is_empty());
    });
}

/// 24 MB through a socket that is full most of the time: every byte once, in order.
#[test]
fn a_full_socket_takes_what_it_can_and_says_how_much() {
    both(|mut media_io| {
        const TOTAL: usize = 24 << 20;
        let (ours, mut theirs) = pair();
        media_io.watch(ours.as_raw_fd(), 7).unwrap();
        let data: Vec<u8> = (0..TOTAL).map(|i| (i / 7 % 251) as u8).collect();
        let expected = data.clone();
        let reader = std::thread::spawn(move || {
            let mut got = vec![0; TOTAL];
            theirs.read_exact(&mut got).unwrap();
            assert!(got == expected, "bytes were lost, repeated or reordered");
        });
        let (mut sent, mut shorts, mut events) = (0, 0, Vec::new());
        while sent < TOTAL {
            let end = TOTAL.min(sent + 700_001);
            let mut batch = media_io.batch();
            batch.send(ours.as_raw_fd(), 7, &data[sent..end]);
            batch.submit_and_wait(Some(Duration::ZERO), &mut events).unwrap();
            let short = events.drain(..).find_map(|event| match event {
                Event::Unsent { token: 7, sent } => Some(sent.unwrap()),
                _ => None,
            });
            match short {
                None => sent = end,
                Some(count) => {
                    assert!(count < end - sent);
                    (sent, shorts) = (sent + count, shorts + 1);
                    media_io.watch_writable_once(ours.as_raw_fd(), 7).unwrap();
                    wait_for(&mut media_io, |event| *event == Event::Writable(7));
                }
            }
        }
        assert!(shorts > 0, "the socket was never full: the test proves nothing");
        reader.join().unwrap();
    });
}

#[test]
fn more_sends_than_the_queue_holds_all_go_out() {
    both(|mut media_io| {
        let pairs: Vec<_> = (0..8).map(|_| pair()).collect();
        for round in 0..2_u8 {
            // One per socket and batch is the rule; small ones that fit cannot come back short.
            for chunk in 0..700_u16 {
                let bytes = [round, chunk as u8];
                let mut batch = media_io.batch();
                for (ours, _) in &pairs {
                    batch.send(ours.as_raw_fd(), 1, &bytes);
                }
                batch.submit().unwrap();
            }
        }
        for (_, theirs) in &pairs {
            let mut got = vec![0; 2 * 2 * 700];
            (&*theirs).read_exact(&mut got).unwrap();
            assert!(got.chunks(2).enumerate().all(|(i, pair)| pair == [(i / 700) as u8, (i % 700) as u8]));
        }
    });
}

#[test]
fn a_batch_that_is_dropped_sends_nothing() {
    both(|mut media_io| {
        let (ours, theirs) = pair();
        {
            let bytes = vec![1; 10];
            let mut batch = media_io.batch();
            batch.send(ours.as_raw_fd(), 1, &bytes);
        }
        media_io.batch().submit().unwrap();
        media_io.wait(Some(Duration::ZERO), &mut Vec::new()).unwrap();
        theirs.set_nonblocking(true).unwrap();
        assert_eq!((&theirs).read(&mut [0; 8]).unwrap_err().kind(), io::ErrorKind::WouldBlock);
    });
}

#[test]
fn one_gso_send_arrives_as_equal_datagrams_and_gro_says_their_size() {
    both(|mut media_io| {
        let sender = DatagramSocket::bind("127.0.0.1:0".parse().unwrap(), None).unwrap();
        let receiver =
            DatagramSocket::bind("127.0.0.1:0".parse().unwrap(), NonZeroUsize::new(200_000)).unwrap();
        assert_eq!(receiver.shortfall(NonZeroUsize::new(4096).unwrap()), None);
        let to = receiver.local_addr().unwrap();
        let (first, second, last) = ([1_u8; 100], [2_u8; 100], [3_u8; 40]);
        let mut batch = media_io.batch();
        let group = batch.group([&first[..], &second[..], &last[..]]);
        batch.send_group(sender.as_raw_fd(), 5, Some(to), group, Some(100));
        let mut events = Vec::new();
        batch.submit_and_wait(Some(Duration::ZERO), &mut events).unwrap();
        assert!(events.is_empty(), "{events:?}");
        let mut got = Vec::new();
        let mut buffer = vec![0; RECEIVE_BYTES_MAX];
        while let Ok(received) = receiver.receive(&mut buffer) {
            assert_eq!(received.from, sender.local_addr().unwrap());
            got.extend(buffer[..received.length].chunks(received.segment).map(<[u8]>::to_vec));
        }
        assert_eq!(got, [&first[..], &second[..], &last[..]]);
    });
}

#[test]
fn a_datagram_that_cannot_go_is_reported() {
    both(|mut media_io| {
        let sender = DatagramSocket::bind("127.0.0.1:0".parse().unwrap(), None).unwrap();
        let bytes = vec![0; 70_000];
        let mut batch = media_io.batch();
        let group = batch.group([&bytes[..]]);
        batch.send_group(sender.as_raw_fd(), 5, Some("127.0.0.1:9".parse().unwrap()), group, None);
        let mut events = Vec::new();
        batch.submit_and_wait(LONG, &mut events).unwrap();
        assert_eq!(events, [Event::Unsent { token: 5, sent: Err(Errno(libc::EMSGSIZE)) }]);
    });
}

#[test]
fn a_wake_fd_wakes_and_can_be_reset() {
    both(|mut media_io| {
        let wake = std::sync::Arc::new(WakeFd::new().unwrap());
        media_io.watch(wake.as_raw_fd(), 3).unwrap();
        for _ in 0..3 {
            let ringer = std::sync::Arc::clone(&wake);
            std::thread::spawn(move || ringer.ring());
            wait_for(&mut media_io, |event| *event == Event::Readable(3));
            wake.reset();
        }
    });
}

#[test]
fn an_unwatched_socket_is_silent_and_closes() {
    both(|mut media_io| {
        let (ours, mut theirs) = pair();
        media_io.watch(ours.as_raw_fd(), 9).unwrap();
        media_io.wait(Some(Duration::ZERO), &mut Vec::new()).unwrap();
        media_io.unwatch(ours.as_raw_fd(), 9);
        drop(ours);
        media_io.wait(Some(Duration::ZERO), &mut Vec::new()).unwrap();
        theirs.set_read_timeout(LONG).unwrap();
        assert_eq!(theirs.read(&mut [0; 8]).unwrap(), 0, "the poll kept the socket open");
    });
}
