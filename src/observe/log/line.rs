//! What a line looks like: plain and structured as in MediaMTX, and for the system's log (RFC 3164).

use std::fmt::{self, Write as _};

use jiff::{Timestamp, tz::TimeZone};
use tracing::field::{Field, Visit};

/// Longest message; the rest is cut off. With the queue it bounds the memory a burst of lines takes.
pub(super) const MESSAGE_BYTES_MAX: usize = 8 << 10;

/// Facility `daemon` (RFC 3164 §4.1.1).
const SYSLOG_FACILITY: u8 = 3;
const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

#[derive(Debug, Clone, Copy)]
pub(super) enum Tag {
    Debug,
    Info,
    Warning,
    Error,
}

impl Tag {
    pub(super) fn of(level: &tracing::Level) -> Self {
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

    /// RFC 3164 §4.1.1.
    fn severity(self) -> u8 {
        match self {
            Self::Error => 3,
            Self::Warning => 4,
            Self::Info => 6,
            Self::Debug => 7,
        }
    }
}

/// An event as text.
#[derive(Debug, Default)]
pub(super) struct Line {
    pub(super) message: String,
    /// Everything but the message; most lines have none.
    fields: Vec<NamedValue>,
}

#[derive(Debug)]
struct NamedValue {
    name: &'static str,
    value: String,
    /// Valid JSON as it stands.
    bare: bool,
}

impl Line {
    pub(super) fn of(event: &tracing::Event<'_>) -> Self {
        let mut line = Self::default();
        event.record(&mut line);
        truncate(&mut line.message);
        line
    }

    pub(super) fn saying(message: String) -> Self {
        Self { message, fields: Vec::new() }
    }

    /// `2006/01/02 15:04:05 INF text key=value`.
    pub(super) fn plain(
        &self,
        out: &mut String,
        zone: &TimeZone,
        now: Timestamp,
        tag: Tag,
        colour: bool,
    ) -> fmt::Result {
        let time = zone.to_datetime(now);
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
        self.text(out)?;
        out.write_char('\n')
    }

    /// `<30>Jan  2 15:04:05 mediamtx[4711]: text key=value`, RFC 3164 §4.1 without the host, which the local daemon
    /// knows.
    pub(super) fn syslog(
        &self,
        out: &mut String,
        zone: &TimeZone,
        now: Timestamp,
        tag: Tag,
        prefix: &str,
    ) -> fmt::Result {
        let time = zone.to_datetime(now);
        let month = usize::try_from(time.month()).unwrap_or(1).saturating_sub(1);
        write!(
            out,
            "<{}>{} {:>2} {:02}:{:02}:{:02} {prefix}[{}]: ",
            SYSLOG_FACILITY << 3 | tag.severity(),
            MONTHS.get(month).unwrap_or(&MONTHS[0]),
            time.day(),
            time.hour(),
            time.minute(),
            time.second(),
            std::process::id(),
        )?;
        self.text(out)
    }

    fn text(&self, out: &mut String) -> fmt::Result {
        escape_controls(out, &self.message)?;
        for NamedValue { name, value, .. } in &self.fields {
            write!(out, " {name}=")?;
            escape_controls(out, value)?;
        }
        Ok(())
    }

    /// `{"timestamp":"<RFC3339Nano>","level":"INF","message":"text","key":"value"}`.
    pub(super) fn json(&self, out: &mut String, zone: &TimeZone, now: Timestamp, tag: Tag) -> fmt::Result {
        let offset_s = zone.to_offset(now).seconds();
        let time = zone.to_datetime(now);
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
        json_string(out, &self.message)?;
        for NamedValue { name, value, bare } in &self.fields {
            // Our own members keep their meaning.
            let suffix = if matches!(*name, "timestamp" | "level") { "_" } else { "" };
            out.write_char(',')?;
            json_string(out, &format!("{name}{suffix}"))?;
            out.write_char(':')?;
            if *bare { out.write_str(value)? } else { json_string(out, value)? }
        }
        out.write_str("}\n")
    }

    fn push(&mut self, field: &Field, value: fmt::Arguments<'_>, bare: bool) {
        if field.name() == "message" {
            // Writing to a string cannot fail.
            let _ = self.message.write_fmt(value);
            return;
        }
        let mut value = value.to_string();
        truncate(&mut value);
        self.fields.push(NamedValue { name: field.name(), value, bare });
    }
}

impl Visit for Line {
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
