//! What holds whatever a server says, and whenever: no panic, one request for one answer, and an end.

use std::time::Instant;

use super::transcripts::{Transcript, server_bytes, transcripts};
use crate::rtsp::{
    Method, Request,
    client::{Phase, watched::Watched},
};

const MUTATIONS_PER_TRANSCRIPT: u32 = 120;
/// A transcript has at most four tracks, each set up over UDP and over TCP, each request tried up to four times.
const REQUESTS_MAX: usize = 4 * (2 + 2 * 4 + 2);

/// xorshift64: the same on every run.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % bound.max(1) as u64) as usize
    }
}

#[expect(clippy::disallowed_methods, reason = "a test needs some instant to start from")]
fn begin(transcript: &Transcript) -> Watched {
    Watched::new(transcript.settings.clone(), Instant::now())
}

/// What the server says in it, each as one message, its number open.
fn said_by_server(transcript: &Transcript) -> Vec<&Vec<String>> {
    transcript.messages.iter().filter(|(sigil, _)| *sigil == '<').map(|(_, lines)| lines).collect()
}

fn hear(watched: &mut Watched, lines: &[String]) {
    let cseq = watched.last.as_ref().map_or(String::new(), |(_, cseq)| cseq.clone());
    let _ = watched.hear(&server_bytes(lines, &cseq));
}

#[test]
fn a_server_that_says_the_same_for_ever_comes_to_an_end() {
    let nonce =
        |n: usize| format!("WWW-Authenticate: Digest realm=\"r\", nonce=\"{n}\", stale=true, qop=\"auth\"");
    let answers: &[&dyn Fn(usize) -> Vec<String>] = &[
        &|n| vec!["RTSP/1.0 401 Unauthorized".into(), "CSeq: {cseq}".into(), nonce(n)],
        &|_| vec!["RTSP/1.0 401 Unauthorized".into(), "CSeq: {cseq}".into(), nonce(0)],
        &|_| vec!["RTSP/1.0 401 Unauthorized".into(), "WWW-Authenticate: Basic".into()],
        &|_| vec!["RTSP/1.0 302 Found".into(), "Location: rtsp://192.0.2.20/live".into()],
        &|_| vec!["RTSP/1.0 461 Unsupported Transport".into()],
        &|_| vec!["RTSP/1.0 454 Session Not Found".into()],
        &|_| vec!["RTSP/1.0 457 Invalid Range".into()],
        &|_| vec!["RTSP/1.0 500".into()],
        &|_| vec!["RTSP/1.0 200 OK".into()],
    ];
    for transcript in transcripts() {
        let said = said_by_server(&transcript);
        for cut in 0..said.len() {
            for (which, answer) in answers.iter().enumerate() {
                let mut watched = begin(&transcript);
                said[..cut].iter().for_each(|lines| hear(&mut watched, lines));
                let mut n = 0;
                while watched.end.is_none() && watched.client.phase() < Phase::Playing {
                    hear(&mut watched, &answer(n));
                    n += 1;
                    assert!(n <= REQUESTS_MAX, "{} after {cut} with answer {which}", transcript.name);
                }
                assert!(watched.requests <= REQUESTS_MAX, "{}: {}", transcript.name, watched.requests);
                for _ in 0..9 {
                    watched.wait(3600);
                    hear(&mut watched, &answer(n));
                }
                watched.teardown();
            }
        }
    }
}

fn corrupt(random: &mut Random, bytes: &mut Vec<u8>) {
    const TELLING: &[u8] = b"\0\xff\r\n \t:;=,-/\"$%?0919*\\";
    const WORDS: &[&[u8]] =
        &[b"401", b"461", b"454", b"302", b"200", b"interleaved=", b"multicast;", b"nonce=\"", b"Basic "];
    for _ in 0..=random.below(5) {
        if bytes.is_empty() {
            return;
        }
        let at = random.below(bytes.len());
        match random.below(6) {
            0 => bytes[at] = TELLING[random.below(TELLING.len())],
            1 => bytes.insert(at, TELLING[random.below(TELLING.len())]),
            2 => drop(bytes.remove(at)),
            3 => bytes[at] = bytes[at].wrapping_add(1),
            4 => {
                let end = at + random.below(bytes.len() - at).min(48);
                let copy = bytes[at..end].to_vec();
                let to = random.below(bytes.len());
                bytes.splice(to..to, copy);
            }
            _ => {
                let word = WORDS[random.below(WORDS.len())];
                let end = (at + word.len()).min(bytes.len());
                bytes.splice(at..end, word.iter().copied());
            }
        }
    }
}

/// Answers dropped, doubled, out of order and corrupted, with time that passes between them.
#[test]
fn no_mutation_of_a_transcript_breaks_the_client() {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let mut ends = [0; 3];
    for transcript in transcripts() {
        let said = said_by_server(&transcript);
        for n in 0..MUTATIONS_PER_TRANSCRIPT {
            let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                let mut watched = begin(&transcript);
                let mut at = 0;
                while at < said.len() {
                    let cseq = watched.last.as_ref().map_or(String::new(), |(_, cseq)| cseq.clone());
                    let chosen = match random.below(12) {
                        0 => random.below(said.len()),
                        1 => at.saturating_sub(1),
                        2 => (at + 1).min(said.len() - 1),
                        _ => at,
                    };
                    let mut bytes = server_bytes(said[chosen], &cseq);
                    if random.below(4) == 0 {
                        corrupt(&mut random, &mut bytes);
                    }
                    let _ = watched.hear(&bytes);
                    match random.below(20) {
                        0 => watched.wait(random.below(100) as u64),
                        // Said twice.
                        1 => {}
                        _ => at += 1,
                    }
                }
                let end = match (&watched.end, watched.client.phase()) {
                    (None, Phase::Playing) => 0,
                    (None, _) => 1,
                    (Some(_), _) => 2,
                };
                watched.teardown();
                end
            }));
            match outcome {
                Ok(end) => ends[end] += 1,
                Err(_) => panic!("{}, mutation {n}", transcript.name),
            }
        }
    }
    // Not all of them die of it, nor live on.
    assert!(ends.iter().all(|&count| count > 100), "{ends:?}");
}

#[test]
fn keep_alives_do_not_pile_up_when_nobody_takes_them() {
    let transcript = transcripts().into_iter().find(|it| it.name == "keep_alives_unanswered.txt").unwrap();
    let mut watched = begin(&transcript);
    said_by_server(&transcript)[..4].iter().for_each(|lines| hear(&mut watched, lines));
    assert_eq!(watched.client.phase(), Phase::Playing);
    let (mut now, mut times) = (watched.client.poll_timeout().unwrap(), 0);
    while times < 1000 {
        watched.client.on_timeout(now);
        now = watched.client.poll_timeout().unwrap();
        times += 1;
    }
    let mut out = Vec::new();
    watched.client.take_outgoing(&mut out);
    assert_eq!(out.windows(13).filter(|it| it == b"GET_PARAMETER").count(), 1);
    // When somebody does, the oldest are not awaited any more: their answers belong to nobody.
    for _ in 0..9 {
        watched.wait(30_000);
    }
    let strays = watched.client.stray_answers();
    let late = ["RTSP/1.0 454 Session Not Found".to_owned(), "CSeq: 7".to_owned()];
    hear(&mut watched, &late);
    assert_eq!((watched.client.stray_answers(), watched.end.is_none()), (strays + 1, true));
    // Nor do answers to what a server asks and does not read.
    for _ in 0..10_000 {
        watched.client.on_request(&Request::new(Method::Options, "*").header("CSeq", "1"));
    }
    out.clear();
    watched.client.take_outgoing(&mut out);
    assert!(out.len() < 80 * 1024, "{} bytes", out.len());
}
