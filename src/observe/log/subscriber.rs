//! What `tracing` hands its events to. What it writes with is swapped as a whole, and read without a lock.

use std::{
    cell::RefCell,
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicUsize, Ordering},
    },
};

use arc_swap::ArcSwap;
use jiff::{Timestamp, tz::TimeZone};
use tracing::{Event, Metadata, Subscriber, level_filters::LevelFilter, span};

use super::{
    Level,
    line::{Line, Tag},
    sink::{Sink, Target},
};

/// Begins the targets of our own events.
const OURS: &str = "corecast";

/// Seconds between two reports of dropped lines.
const DROPS_REPORT_INTERVAL_S: i64 = 1;

/// The subscriber. Spans carry nothing here: a line says itself what it belongs to.
#[derive(Debug, Clone)]
pub(super) struct Log {
    /// Read once: a shard must not look at files to know what time it is.
    time_zone: TimeZone,
    active: Arc<ArcSwap<Active>>,
    drops: Arc<Drops>,
}

/// What lines are written with at the moment.
#[derive(Debug)]
pub(super) struct Active {
    level: LevelFilter,
    structured: bool,
    sinks: Vec<Arc<Sink>>,
    /// Lines that destinations of before dropped.
    dropped_before: usize,
}

/// What was said about dropped lines.
#[derive(Debug, Default)]
struct Drops {
    reported: AtomicUsize,
    reported_at_s: AtomicI64,
}

impl Active {
    pub(super) fn new(level: Level, structured: bool, sinks: Vec<Arc<Sink>>) -> Self {
        let level = match level {
            Level::Error => LevelFilter::ERROR,
            Level::Warn => LevelFilter::WARN,
            Level::Info => LevelFilter::INFO,
            // MediaMTX has nothing below, so `debug` means everything.
            Level::Debug => LevelFilter::TRACE,
        };
        Self { level, structured, sinks, dropped_before: 0 }
    }

    fn dropped_lines(&self) -> usize {
        self.dropped_before + self.sinks.iter().map(|sink| sink.dropped_lines()).sum::<usize>()
    }
}

impl Log {
    pub(super) fn new(active: Active, time_zone: TimeZone) -> Self {
        Self { time_zone, active: Arc::new(ArcSwap::from_pointee(active)), drops: Arc::default() }
    }

    /// Writes with `next` from now on. Threads that are in the middle of a line may use what is returned for a moment.
    pub(super) fn swap(&self, mut next: Active) -> Arc<Active> {
        let former = self.active.load();
        let gone = former.sinks.iter().filter(|sink| !next.sinks.iter().any(|kept| Arc::ptr_eq(kept, sink)));
        next.dropped_before = former.dropped_before + gone.map(|sink| sink.dropped_lines()).sum::<usize>();
        drop(former);
        let former = self.active.swap(Arc::new(next));
        // Each call site remembers whether it is on, which is why one that is off costs nothing.
        tracing::callsite::rebuild_interest_cache();
        former
    }

    pub(super) fn dropped_lines(&self) -> usize {
        self.active.load().dropped_lines()
    }

    /// Says that lines are missing, if some are and nothing was said for a while.
    pub(super) fn report_drops(&self, now: Timestamp, last: bool) {
        let active = self.active.load();
        let interval_s = if last { 0 } else { DROPS_REPORT_INTERVAL_S };
        let dropped = active.dropped_lines();
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
            self.write(&active, now, Tag::Warning, &Line::saying(text));
        }
    }

    fn write(&self, active: &Active, now: Timestamp, tag: Tag, line: &Line) {
        thread_local! {
            static BUFFER: RefCell<String> = const { RefCell::new(String::new()) };
        }
        // A thread that is ending has no buffer any more, and its last lines are not worth a panic.
        let _ = BUFFER.try_with(|buffer| {
            let mut buffer = buffer.borrow_mut();
            let zone = &self.time_zone;
            for sink in &active.sinks {
                buffer.clear();
                // Writing to a string cannot fail.
                let _ = match &sink.target {
                    Target::Syslog(prefix) => line.syslog(&mut buffer, zone, now, tag, prefix),
                    _ if active.structured => line.json(&mut buffer, zone, now, tag),
                    _ => line.plain(&mut buffer, zone, now, tag, sink.terminal),
                };
                sink.push(&buffer);
            }
        });
    }
}

impl Subscriber for Log {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        let level = self.active.load().level;
        // What libraries have to say is about themselves, or about what any client can do to them.
        let most = if metadata.target().starts_with(OURS) { level } else { level.min(LevelFilter::ERROR) };
        // What is no span is an event, or the question whether one would be wanted (`tracing::enabled!`).
        !metadata.is_span() && *metadata.level() <= most
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(self.active.load().level)
    }

    fn event(&self, event: &Event<'_>) {
        let now = Timestamp::now();
        self.report_drops(now, false);
        let line = Line::of(event);
        self.write(&self.active.load(), now, Tag::of(event.metadata().level()), &line);
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}
