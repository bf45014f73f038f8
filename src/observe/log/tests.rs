//! What log lines look like, where they go, and what they never show.

use std::{
    os::unix::net::UnixDatagram,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
};

use tracing::{debug, error, info, subscriber::with_default, trace, warn};

use super::{
    line::{Line, MESSAGE_BYTES_MAX, Tag},
    sink::{QUEUED_LINES_MAX, Syslog},
    *,
};

#[derive(Clone, Default)]
struct Memory(Arc<Mutex<Vec<u8>>>);

impl Memory {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

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
    let sink = Sink::start(Target::Stdout, colour, Box::new(memory.clone()));
    let zone = TimeZone::fixed(jiff::tz::offset(2));
    let handle = Handle::start(&settings, vec![sink], zone, Path::new(SYSLOG_SOCKET));
    with_default(handle.log.clone(), events);
    drop(Guard { handle });
    memory.text()
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
    let line = Line::saying("m".into());
    let at = |text: &str| text.parse::<Timestamp>().unwrap();
    let west = TimeZone::fixed(jiff::tz::offset(-5));
    let mut out = String::new();
    line.json(&mut out, &TimeZone::UTC, at("2026-01-02T03:04:05.120Z"), Tag::Info).unwrap();
    assert_eq!(out, "{\"timestamp\":\"2026-01-02T03:04:05.12Z\",\"level\":\"INF\",\"message\":\"m\"}\n");
    out.clear();
    line.plain(&mut out, &TimeZone::UTC, at("2026-01-02T03:04:05.999Z"), Tag::Info, false).unwrap();
    assert_eq!(out, "2026/01/02 03:04:05 INF m\n");
    out.clear();
    line.json(&mut out, &west, at("2026-01-02T03:04:05Z"), Tag::Error).unwrap();
    assert_eq!(out, "{\"timestamp\":\"2026-01-01T22:04:05-05:00\",\"level\":\"ERR\",\"message\":\"m\"}\n");
}

#[test]
fn lines_for_syslog_have_priority_time_and_tag_but_no_level() {
    let line = Line::saying("[RTSP] opened\nforged".into());
    let at = "2026-03-02T03:04:05Z".parse::<Timestamp>().unwrap();
    let pid = std::process::id();
    for (tag, priority) in [(Tag::Error, 27), (Tag::Warning, 28), (Tag::Info, 30), (Tag::Debug, 31)] {
        let mut out = String::new();
        line.syslog(&mut out, &TimeZone::UTC, at, tag, "cam").unwrap();
        assert_eq!(out, format!("<{priority}>Mar  2 03:04:05 cam[{pid}]: [RTSP] opened\\nforged"));
    }
}

#[test]
fn who_asks_before_making_a_line_is_told_whether_it_is_wanted() {
    for (level, wanted) in [(Level::Debug, true), (Level::Info, false)] {
        let mut told = None;
        written(level, false, false, || told = Some(tracing::enabled!(tracing::Level::DEBUG)));
        assert_eq!(told, Some(wanted));
    }
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
    let sink = Sink::start(Target::Stdout, false, Box::new(Stuck(memory.clone(), gate)));
    let settings = LogSettings::default();
    let handle = Handle::start(&settings, vec![sink], TimeZone::UTC, Path::new(SYSLOG_SOCKET));
    with_default(handle.log.clone(), || {
        for number in 0..QUEUED_LINES_MAX + 10 {
            info!("line {number}");
        }
    });
    let dropped = handle.dropped_lines();
    assert!(dropped >= 9, "{dropped}");
    drop(release);
    // The queue drains in the background; the report then finds room.
    for _ in 0..500 {
        if memory.0.lock().unwrap().len() > 100_000 {
            break;
        }
        thread::sleep(Duration::from_millis(10));
    }
    drop(Guard { handle });
    assert!(memory.text().contains("log lines dropped so far"), "no report");
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

/// A directory that goes with the test.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("corecast-log-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn to_file(path: &Path) -> LogSettings {
    LogSettings { destinations: vec![Destination::File], file: path.to_owned(), ..LogSettings::default() }
}

fn start(settings: &LogSettings, syslog: &Path) -> Guard {
    let sinks = Target::all(settings).into_iter().map(|target| Sink::open(target, syslog).unwrap()).collect();
    Guard { handle: Handle::start(settings, sinks, TimeZone::UTC, syslog) }
}

#[test]
fn files_are_appended_to() {
    let scratch = Scratch::new("append");
    let file = scratch.0.join("a.log");
    std::fs::write(&file, "before\n").unwrap();
    let guard = start(&to_file(&file), Path::new(SYSLOG_SOCKET));
    with_default(guard.handle().log, || info!("after"));
    drop(guard);
    let text = std::fs::read_to_string(&file).unwrap();
    assert!(text.starts_with("before\n") && text.ends_with("INF after\n"), "{text}");
}

#[test]
fn level_and_structure_change_while_it_runs() {
    let scratch = Scratch::new("level");
    let file = scratch.0.join("a.log");
    let guard = start(&to_file(&file), Path::new(SYSLOG_SOCKET));
    let handle = guard.handle();
    let evaluated = AtomicUsize::new(0);
    let count = || evaluated.fetch_add(1, Ordering::Relaxed);
    // One call site, so that it must be told of the change.
    let say = || debug!("debug {}", count());
    with_default(handle.log.clone(), || {
        say();
        handle.reconfigure(&LogSettings { level: Level::Debug, ..to_file(&file) }).unwrap();
        say();
        handle.reconfigure(&LogSettings { level: Level::Debug, structured: true, ..to_file(&file) }).unwrap();
        say();
        handle.reconfigure(&LogSettings { level: Level::Error, ..to_file(&file) }).unwrap();
        say();
        info!("not written");
    });
    drop(guard);
    assert_eq!(evaluated.load(Ordering::Relaxed), 2, "a line that is off is not even put together");
    let text = std::fs::read_to_string(&file).unwrap();
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines.len(), 2, "{text}");
    assert!(lines[0].ends_with("DEB debug 0"), "{text}");
    assert!(lines[1].ends_with("\"level\":\"DEB\",\"message\":\"debug 1\"}"), "{text}");
}

#[test]
fn no_line_is_lost_when_the_file_changes() {
    const THREADS: usize = 4;
    let scratch = Scratch::new("swap");
    let files: Vec<_> = (0..8).map(|number| scratch.0.join(format!("{number}.log"))).collect();
    let guard = start(&to_file(&files[0]), Path::new(SYSLOG_SOCKET));
    let handle = guard.handle();
    let done = AtomicBool::new(false);
    let written: usize = thread::scope(|scope| {
        let writers: Vec<_> = (0..THREADS)
            .map(|_| {
                let (log, done) = (handle.log.clone(), &done);
                scope.spawn(move || {
                    with_default(log, || {
                        let mut written = 0;
                        while !done.load(Ordering::Relaxed) {
                            info!("line");
                            written += 1;
                            // Slower than the disk, so that nothing is dropped for want of room.
                            thread::sleep(Duration::from_micros(200));
                        }
                        written
                    })
                })
            })
            .collect();
        for file in &files {
            handle.reconfigure(&to_file(file)).unwrap();
            thread::sleep(Duration::from_millis(20));
        }
        done.store(true, Ordering::Relaxed);
        writers.into_iter().map(|writer| writer.join().unwrap()).sum()
    });
    drop(guard);
    assert_eq!(handle.dropped_lines(), 0);
    let counts: Vec<_> =
        files.iter().map(|file| std::fs::read_to_string(file).unwrap().lines().count()).collect();
    assert_eq!(counts.iter().sum::<usize>(), written, "{counts:?}");
    assert!(counts.iter().all(|count| *count > 0), "{counts:?}");
}

#[test]
fn a_reload_that_cannot_open_its_file_changes_nothing() {
    let scratch = Scratch::new("keep");
    let file = scratch.0.join("a.log");
    let guard = start(&to_file(&file), Path::new(SYSLOG_SOCKET));
    let handle = guard.handle();
    let bad = LogSettings { level: Level::Error, ..to_file(&scratch.0.join("missing/b.log")) };
    let error = handle.reconfigure(&bad).unwrap_err().to_string();
    assert!(error.contains("missing/b.log cannot be opened: No such file"), "{error}");
    with_default(handle.log.clone(), || info!("still here"));
    drop(guard);
    assert!(std::fs::read_to_string(&file).unwrap().ends_with("INF still here\n"));
    assert!(handle.reconfigure(&to_file(&file)).is_ok(), "nothing to change once it has ended");
}

#[test]
fn syslog_gets_datagrams_and_its_prefix_changes_live() {
    let scratch = Scratch::new("syslog");
    let path = scratch.0.join("dev-log");
    let daemon = UnixDatagram::bind(&path).unwrap();
    daemon.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let settings = |prefix: &str| LogSettings {
        destinations: vec![Destination::Syslog],
        structured: true,
        syslog_prefix: prefix.into(),
        ..LogSettings::default()
    };
    let guard = start(&settings("one"), &path);
    let handle = guard.handle();
    let receive = || {
        let mut buffer = [0; 1024];
        let length = daemon.recv(&mut buffer).unwrap();
        String::from_utf8(buffer[..length].to_vec()).unwrap()
    };
    with_default(handle.log.clone(), || {
        warn!(code = 7, "first");
        let line = receive();
        assert!(line.starts_with("<28>") && line.contains(" one["), "{line}");
        assert!(line.ends_with("]: first code=7"), "{line}");
        handle.reconfigure(&settings("two")).unwrap();
        info!("second");
        assert!(receive().contains(" two["));
    });
}

#[test]
fn a_missing_log_daemon_is_told_once_and_found_when_it_comes_back() {
    use std::io::Write as _;
    let scratch = Scratch::new("no-daemon");
    let path = scratch.0.join("dev-log");
    let mut told = Vec::new();
    let mut syslog =
        Syslog::new(UnixDatagram::unbound().unwrap(), path.clone(), |text: &str| told.push(text.to_owned()));
    syslog.write_all(b"lost").unwrap();
    syslog.write_all(b"lost too").unwrap();
    let daemon = UnixDatagram::bind(&path).unwrap();
    syslog.write_all(b"heard").unwrap();
    let mut buffer = [0; 16];
    assert_eq!(daemon.recv(&mut buffer).unwrap(), 5);
    drop(daemon);
    syslog.write_all(b"lost again").unwrap();
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(told[0].contains("dev-log"), "{told:?}");
}
