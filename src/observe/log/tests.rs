//! What log lines look like, where they go, and what they never show.

use std::sync::Mutex;

use tracing::{debug, error, info, subscriber::with_default, trace, warn};

use super::*;

#[derive(Clone, Default)]
struct Memory(Arc<Mutex<Vec<u8>>>);

impl io::Write for Memory {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What `events` write with the given settings.
fn written(level: Level, structured: bool, colour: bool, events: impl FnOnce()) -> String {
    let memory = Memory::default();
    let settings = LogSettings { level, structured, ..LogSettings::default() };
    let (log, workers) =
        Log::start(&settings, vec![(Box::new(memory.clone()), colour)], TimeZone::fixed(jiff::tz::offset(2)));
    with_default(log, events);
    drop(workers);
    String::from_utf8(memory.0.lock().unwrap().clone()).unwrap()
}

#[test]
fn plain_lines_have_the_shape_that_log_parsers_know() {
    let text = written(Level::Debug, false, false, || {
        info!("[RTSP] [conn 10.0.0.1:40000] opened");
        warn!("failed");
        error!(reason = "broken", code = 7, "ended");
        debug!("d");
        trace!("t");
    });
    let lines: Vec<_> = text.lines().collect();
    let (date, rest) = lines[0].split_at(20);
    let shape: String = date.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
    assert_eq!(shape, "0000/00/00 00:00:00 ");
    assert_eq!(rest, "INF [RTSP] [conn 10.0.0.1:40000] opened");
    assert_eq!(&lines[1][20..], "WAR failed");
    assert_eq!(&lines[2][20..], "ERR ended reason=broken code=7");
    assert_eq!(&lines[3][20..], "DEB d");
    assert_eq!(&lines[4][20..], "DEB t");
}

#[test]
fn structured_lines_are_json_whatever_they_hold() {
    let text = written(Level::Info, true, false, || {
        info!(path = "a\"b", count = 3, open = true, ratio = f64::NAN, level = "x", "q\"\\\n\u{1}é");
    });
    let (time, rest) = text.split_once("\",\"level\"").unwrap();
    assert!(time.starts_with("{\"timestamp\":\"20"), "{time}");
    assert!(time.ends_with("+02:00"), "{time}");
    assert_eq!(
        rest,
        ":\"INF\",\"message\":\"q\\\"\\\\\\n\\u0001é\",\"path\":\"a\\\"b\",\"count\":3,\"open\":true,\
         \"ratio\":\"NaN\",\"level_\":\"x\"}\n"
    );
}

#[test]
fn timestamps_are_local_and_trimmed_as_in_go() {
    let (log, _workers) = Log::start(&LogSettings::default(), Vec::new(), TimeZone::UTC);
    let line = Line { message: "m".into(), fields: String::new() };
    let at = |text: &str| text.parse::<Timestamp>().unwrap();
    let mut out = String::new();
    log.json(&mut out, at("2026-01-02T03:04:05.120Z"), Tag::Info, &line).unwrap();
    assert_eq!(out, "{\"timestamp\":\"2026-01-02T03:04:05.12Z\",\"level\":\"INF\",\"message\":\"m\"}\n");
    out.clear();
    log.plain(&mut out, at("2026-01-02T03:04:05.999Z"), Tag::Info, &line, false).unwrap();
    assert_eq!(out, "2026/01/02 03:04:05 INF m\n");
    let (log, _workers) =
        Log::start(&LogSettings::default(), Vec::new(), TimeZone::fixed(jiff::tz::offset(-5)));
    out.clear();
    log.json(&mut out, at("2026-01-02T03:04:05Z"), Tag::Error, &line).unwrap();
    assert_eq!(out, "{\"timestamp\":\"2026-01-01T22:04:05-05:00\",\"level\":\"ERR\",\"message\":\"m\"}\n");
}

#[test]
fn level_filters_and_info_is_the_default() {
    assert_eq!(LogSettings::default().level, Level::Info);
    let events = || {
        debug!("d");
        info!("i");
        warn!("w");
        error!("e");
    };
    for (level, count) in [(Level::Debug, 4), (Level::Info, 3), (Level::Warn, 2), (Level::Error, 1)] {
        assert_eq!(written(level, false, false, events).lines().count(), count, "{level:?}");
    }
}

#[test]
fn a_client_cannot_forge_a_line_or_drive_the_terminal() {
    let text = written(Level::Info, false, false, || info!("agent 'x\r\n2026/01/01 ERR y\u{1b}[2J'"));
    assert_eq!(&text[20..], "INF agent 'x\\r\\n2026/01/01 ERR y\\u{1b}[2J'\n");
}

#[test]
fn colour_is_used_only_when_asked_for() {
    assert!(!written(Level::Info, false, false, || info!("x")).contains('\x1b'));
    assert!(written(Level::Info, false, true, || info!("x")).contains("\x1b[32mINF\x1b[0m x"));
}

#[test]
fn long_messages_are_cut_at_a_letter() {
    let text = written(Level::Info, false, false, || info!("{}", "é".repeat(MESSAGE_BYTES_MAX)));
    assert!(text.len() < MESSAGE_BYTES_MAX + 64);
    assert!(text.ends_with("é…\n"));
}

#[test]
fn a_stuck_destination_costs_lines_and_says_how_many() {
    struct Stuck(Memory, std::sync::mpsc::Receiver<()>);
    impl io::Write for Stuck {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            // Holds the first line until the test lets go; later ones pass since the sender is gone.
            let _ = self.1.recv();
            self.0.write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let memory = Memory::default();
    let (release, gate) = std::sync::mpsc::channel();
    let writer = Box::new(Stuck(memory.clone(), gate));
    let (log, workers) = Log::start(&LogSettings::default(), vec![(writer, false)], TimeZone::UTC);
    with_default(log.clone(), || {
        for number in 0..QUEUED_LINES_MAX + 10 {
            info!("line {number}");
        }
    });
    let dropped = log.dropped_lines();
    assert!(dropped >= 9, "{dropped}");
    drop(release);
    // The queue drains in the background; the report then finds room.
    for _ in 0..500 {
        if memory.0.lock().unwrap().len() > 100_000 {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    drop(Guard { log, _workers: workers });
    let text = String::from_utf8(memory.0.lock().unwrap().clone()).unwrap();
    assert!(text.contains("log lines dropped so far"), "no report");
}

#[test]
fn a_log_file_that_cannot_be_opened_is_named() {
    let settings = LogSettings {
        destinations: vec![Destination::File],
        file: "/nowhere/at/all.log".into(),
        ..LogSettings::default()
    };
    let error = init(&settings).unwrap_err().to_string();
    assert!(error.starts_with("log file /nowhere/at/all.log cannot be opened: "), "{error}");
}
