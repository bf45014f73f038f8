//! Log lines in MediaMTX's shape, written by a thread of their own.
//!
//! The code logs finished sentences with their prefixes (`info!("[RTSP] [conn {addr}] opened")`). A shard only
//! formats the line and hands it over; when the queue is full the line is dropped and counted, since no line
//! is worth a stalled camera.

#[cfg(test)]
mod tests;

use std::{
    cell::RefCell,
    fmt::{self, Write as _},
    fs::OpenOptions,
    io::{self, IsTerminal as _, Write as _},
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicUsize, Ordering},
    },
};

use jiff::{Timestamp, tz::TimeZone};
use tracing::{
    Event, Metadata, Subscriber,
    field::{Field, Visit},
    level_filters::LevelFilter,
    span,
    subscriber::set_global_default,
};
use tracing_appender::non_blocking::{ErrorCounter, NonBlocking, NonBlockingBuilder, WorkerGuard};

/// Lines that may wait for a slow destination.
const QUEUED_LINES_MAX: usize = 4096;
/// Longest message; the rest is cut off. With the queue it bounds the memory a burst of lines takes.
const MESSAGE_BYTES_MAX: usize = 8 << 10;
/// Seconds between two reports of dropped lines.
const DROPS_REPORT_INTERVAL_S: i64 = 1;

/// How much is logged and where to (`logLevel`, `logDestinations`, …).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogSettings {
    pub level: Level,
    pub destinations: Vec<Destination>,
    /// One JSON object per line (`logStructured`).
    pub structured: bool,
    /// Opened for appending when the destinations hold a file (`logFile`).
    pub file: PathBuf,
    pub syslog_prefix: String,
}

impl Default for LogSettings {
    /// What a process logs with until its configuration is known.
    fn default() -> Self {
        Self {
            level: Level::Info,
            destinations: vec![Destination::Stdout],
            structured: false,
            file: "mediamtx.log".into(),
            syslog_prefix: "mediamtx".to_owned(),
        }
    }
}

/// The least important lines that are still written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    Error,
    Warn,
    Info,
    Debug,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Destination {
    Stdout,
    File,
}

/// Why logging cannot start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LogError {
    #[error("log file {} cannot be opened: {reason}", path.display())]
    File { path: PathBuf, reason: io::Error },
    #[error("logging is already running")]
    AlreadyRunning,
}

/// Keeps the writing threads alive; its drop waits, for a second at most, until all lines are out.
#[must_use = "lines are only written while the guard lives"]
#[derive(Debug)]
pub struct Guard {
    log: Log,
    _workers: Vec<WorkerGuard>,
}

impl Guard {
    /// Lines dropped so far because a destination was too slow, all destinations together.
    pub fn dropped_lines(&self) -> usize {
        self.log.dropped_lines()
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.log.report_drops(Timestamp::now(), 0);
    }
}

/// Starts logging for the whole process.
pub fn init(settings: &LogSettings) -> Result<Guard, LogError> {
    let mut writers = Vec::new();
    for destination in &settings.destinations {
        let (writer, colour): (Box<dyn io::Write + Send>, bool) = match destination {
            Destination::Stdout => {
                (Box::new(io::stdout()), io::stdout().is_terminal() && !settings.structured)
            }
            Destination::File => {
                let file = OpenOptions::new().create(true).append(true).open(&settings.file);
                let file = file.map_err(|reason| LogError::File { path: settings.file.clone(), reason })?;
                (Box::new(file), false)
            }
        };
        writers.push((writer, colour));
    }
    let (log, workers) = Log::start(settings, writers, TimeZone::system());
    set_global_default(log.clone()).map_err(|_| LogError::AlreadyRunning)?;
    Ok(Guard { log, _workers: workers })
}

/// The subscriber. Spans carry nothing here: a line says itself what it belongs to.
#[derive(Debug, Clone)]
struct Log {
    level: LevelFilter,
    structured: bool,
    /// Read once: a shard must not look at files to know what time it is.
    time_zone: TimeZone,
    sinks: Arc<[Sink]>,
    drops: Arc<Drops>,
}

#[derive(Debug)]
struct Sink {
    queue: NonBlocking,
    counter: ErrorCounter,
    colour: bool,
}

/// What was said about dropped lines.
#[derive(Debug, Default)]
struct Drops {
    reported: AtomicUsize,
    reported_at_s: AtomicI64,
}

impl Log {
    fn start(
        settings: &LogSettings,
        writers: Vec<(Box<dyn io::Write + Send>, bool)>,
        time_zone: TimeZone,
    ) -> (Self, Vec<WorkerGuard>) {
        let (sinks, workers): (Vec<_>, Vec<_>) = writers
            .into_iter()
            .map(|(writer, colour)| {
                let builder = NonBlockingBuilder::default().lossy(true).thread_name("log");
                let (queue, worker) = builder.buffered_lines_limit(QUEUED_LINES_MAX).finish(writer);
                (Sink { counter: queue.error_counter(), queue, colour }, worker)
            })
            .unzip();
        let level = match settings.level {
            Level::Error => LevelFilter::ERROR,
            Level::Warn => LevelFilter::WARN,
            Level::Info => LevelFilter::INFO,
            // MediaMTX has nothing below, so `debug` means everything.
            Level::Debug => LevelFilter::TRACE,
        };
        let structured = settings.structured;
        let log = Self { level, structured, time_zone, sinks: sinks.into(), drops: Arc::default() };
        (log, workers)
    }

    fn dropped_lines(&self) -> usize {
        self.sinks.iter().map(|sink| sink.counter.dropped_lines()).sum()
    }

    /// Says that lines are missing, if some are and nothing was said for `interval_s`.
    fn report_drops(&self, now: Timestamp, interval_s: i64) {
        let dropped = self.dropped_lines();
        let reported_at_s = self.drops.reported_at_s.load(Ordering::Relaxed);
        if dropped <= self.drops.reported.load(Ordering::Relaxed)
            || now.as_second() - reported_at_s < interval_s
        {
            return;
        }
        // Whoever wins reports; the total is given, so a report that is itself dropped loses nothing.
        let won = self.drops.reported_at_s.compare_exchange(
            reported_at_s,
            now.as_second(),
            Ordering::Relaxed,
            Ordering::Relaxed,
        );
        if won.is_ok() {
            self.drops.reported.store(dropped, Ordering::Relaxed);
            let text = format!("{dropped} log lines dropped so far: a log destination is too slow");
            self.write(now, Tag::Warning, &Line { message: text, fields: String::new() });
        }
    }

    fn write(&self, now: Timestamp, tag: Tag, line: &Line) {
        thread_local! {
            static BUFFER: RefCell<String> = const { RefCell::new(String::new()) };
        }
        // A thread that is ending has no buffer any more, and its last lines are not worth a panic.
        let _ = BUFFER.try_with(|buffer| {
            let mut buffer = buffer.borrow_mut();
            for sink in self.sinks.iter() {
                buffer.clear();
                // Writing to a string cannot fail, and a lossy queue does not either.
                let _ = if self.structured {
                    self.json(&mut buffer, now, tag, line)
                } else {
                    self.plain(&mut buffer, now, tag, line, sink.colour)
                };
                let _ = sink.queue.clone().write(buffer.as_bytes());
            }
        });
    }

    /// `2006/01/02 15:04:05 INF text key=value`.
    fn plain(&self, out: &mut String, now: Timestamp, tag: Tag, line: &Line, colour: bool) -> fmt::Result {
        let time = self.time_zone.to_datetime(now);
        let (dim, paint, reset) = if colour { ("\x1b[90m", tag.colour(), "\x1b[0m") } else { ("", "", "") };
        write!(
            out,
            "{dim}{:04}/{:02}/{:02} {:02}:{:02}:{:02}{reset} {paint}{}{reset} ",
            time.year(),
            time.month(),
            time.day(),
            time.hour(),
            time.minute(),
            time.second(),
            tag.text(),
        )?;
        escape_controls(out, &line.message)?;
        escape_controls(out, &line.fields)?;
        out.write_char('\n')
    }

    /// `{"timestamp":"<RFC3339Nano>","level":"INF","message":"text","key":"value"}`.
    fn json(&self, out: &mut String, now: Timestamp, tag: Tag, line: &Line) -> fmt::Result {
        let offset_s = self.time_zone.to_offset(now).seconds();
        let time = self.time_zone.to_datetime(now);
        write!(
            out,
            "{{\"timestamp\":\"{:04}-{:02}-{:02}T{:02}:{:02}:{:02}",
            time.year(),
            time.month(),
            time.day(),
            time.hour(),
            time.minute(),
            time.second(),
        )?;
        // As Go's RFC3339Nano: no trailing zeros, `Z` when the offset is zero.
        let fraction = format!("{:09}", time.subsec_nanosecond());
        match fraction.trim_end_matches('0') {
            "" => {}
            digits => write!(out, ".{digits}")?,
        }
        let minutes = offset_s.abs() / 60;
        match offset_s {
            0 => out.write_char('Z')?,
            _ => {
                let sign = if offset_s < 0 { '-' } else { '+' };
                write!(out, "{sign}{:02}:{:02}", minutes / 60, minutes % 60)?;
            }
        }
        write!(out, "\",\"level\":\"{}\",\"message\":", tag.text())?;
        json_string(out, &line.message)?;
        out.write_str(&line.fields)?;
        out.write_str("}\n")
    }
}

impl Subscriber for Log {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.is_event() && *metadata.level() <= self.level
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(self.level)
    }

    fn event(&self, event: &Event<'_>) {
        let now = Timestamp::now();
        self.report_drops(now, DROPS_REPORT_INTERVAL_S);
        let mut visitor = Visitor { line: Line::default(), structured: self.structured };
        event.record(&mut visitor);
        truncate(&mut visitor.line.message);
        self.write(now, Tag::of(event.metadata().level()), &visitor.line);
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

#[derive(Debug, Clone, Copy)]
enum Tag {
    Debug,
    Info,
    Warning,
    Error,
}

impl Tag {
    fn of(level: &tracing::Level) -> Self {
        match *level {
            tracing::Level::ERROR => Self::Error,
            tracing::Level::WARN => Self::Warning,
            tracing::Level::INFO => Self::Info,
            _ => Self::Debug,
        }
    }

    fn text(self) -> &'static str {
        match self {
            Self::Debug => "DEB",
            Self::Info => "INF",
            Self::Warning => "WAR",
            Self::Error => "ERR",
        }
    }

    fn colour(self) -> &'static str {
        match self {
            Self::Debug => "\x1b[36m",
            Self::Info => "\x1b[32m",
            Self::Warning => "\x1b[33m",
            Self::Error => "\x1b[31m",
        }
    }
}

/// An event as text.
#[derive(Debug, Default)]
struct Line {
    message: String,
    /// Everything but the message, ready to be appended: ` key=value` or `,"key":"value"`.
    fields: String,
}

struct Visitor {
    line: Line,
    structured: bool,
}

impl Visitor {
    /// `bare` values are valid JSON as they stand.
    fn push(&mut self, field: &Field, value: fmt::Arguments<'_>, bare: bool) {
        let name = field.name();
        if name == "message" {
            let _ = self.line.message.write_fmt(value);
            return;
        }
        let fields = &mut self.line.fields;
        // Writing to a string cannot fail.
        let _ = if self.structured {
            // Our own members keep their meaning.
            let suffix = if matches!(name, "timestamp" | "level") { "_" } else { "" };
            let mut text = value.to_string();
            truncate(&mut text);
            let _ = fields.write_char(',');
            let _ = json_string(fields, &format!("{name}{suffix}"));
            let _ = fields.write_char(':');
            if bare { fields.write_str(&text) } else { json_string(fields, &text) }
        } else {
            let mut text = value.to_string();
            truncate(&mut text);
            write!(fields, " {name}={text}")
        };
    }
}

impl Visit for Visitor {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.push(field, format_args!("{value:?}"), false);
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.push(field, format_args!("{value}"), false);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.push(field, format_args!("{value}"), true);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.push(field, format_args!("{value}"), true);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.push(field, format_args!("{value}"), true);
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        // JSON has no NaN and no infinity.
        self.push(field, format_args!("{value}"), value.is_finite());
    }
}

fn truncate(text: &mut String) {
    if text.len() > MESSAGE_BYTES_MAX {
        text.truncate(text.floor_char_boundary(MESSAGE_BYTES_MAX));
        text.push('…');
    }
}

/// A line is a line: what a client sends must not be able to forge another one, nor drive the terminal.
fn escape_controls(out: &mut String, text: &str) -> fmt::Result {
    for c in text.chars() {
        match c {
            '\t' => out.write_char(c)?,
            c if c.is_control() => write!(out, "{}", c.escape_default())?,
            c => out.write_char(c)?,
        }
    }
    Ok(())
}

/// A JSON string with its quotes, RFC 8259 §7.
fn json_string(out: &mut String, text: &str) -> fmt::Result {
    out.write_char('"')?;
    for c in text.chars() {
        match c {
            '"' => out.write_str("\\\"")?,
            '\\' => out.write_str("\\\\")?,
            '\n' => out.write_str("\\n")?,
            '\r' => out.write_str("\\r")?,
            '\t' => out.write_str("\\t")?,
            c if (c as u32) < 0x20 => write!(out, "\\u{:04x}", c as u32)?,
            c => out.write_char(c)?,
        }
    }
    out.write_char('"')
}
