//! Families of samples in Prometheus' text format (0.0.4).
//!
//! The `prometheus` crate escapes the labels of an item, once for all of its numbers. Its own tree of strings per
//! sample would be a million allocations for the 23 numbers of 10,000 sessions, and it cannot say `untyped`.

use std::fmt::Write;

use prometheus::{
    TextEncoder,
    proto::{Bucket, Histogram, LabelPair, Metric, MetricFamily, MetricType},
};

/// Items whose labels the encoder gets at once: its tree of them stays small.
const ENCODED_AT_ONCE: usize = 256;

/// What Prometheus is told of a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Gauge,
    Counter,
    /// See [`super`] for when.
    Untyped,
}

/// Head of a family. `help` is one line without a backslash.
#[derive(Debug, Clone, Copy)]
pub struct Family {
    pub name: &'static str,
    pub kind: Kind,
    pub help: &'static str,
}

pub const fn gauge(name: &'static str, help: &'static str) -> Family {
    Family { name, kind: Kind::Gauge, help }
}

pub const fn counter(name: &'static str, help: &'static str) -> Family {
    Family { name, kind: Kind::Counter, help }
}

pub const fn untyped(name: &'static str, help: &'static str) -> Family {
    Family { name, kind: Kind::Untyped, help }
}

/// A sample's value.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Number {
    Whole(u64),
    Real(f64),
}

/// A label of a sample; those of one sample go in the order of their names.
pub fn label(name: &str, value: impl Into<String>) -> LabelPair {
    let mut pair = LabelPair::default();
    pair.set_name(name.to_owned());
    pair.set_value(value.into());
    pair
}

/// Items with their labels ready to print: each gives one sample to every family that is made of them.
pub struct Rows<R> {
    items: Vec<R>,
    /// The labels of all items, one behind the other, and where those of each end.
    labels: String,
    ends: Vec<usize>,
}

impl<R> Rows<R> {
    /// `labels` is asked once for each item, and may take them out of it.
    pub fn new(mut items: Vec<R>, labels: impl Fn(&mut R) -> Vec<LabelPair>) -> Self {
        let (mut printed, mut ends) = (String::new(), Vec::with_capacity(items.len()));
        let mut family = MetricFamily::default();
        // Any name will do: of a line `x{…} 0` only the braces are kept.
        family.set_name("x".to_owned());
        family.set_field_type(MetricType::GAUGE);
        let mut lines = String::new();
        for some in items.chunks_mut(ENCODED_AT_ONCE) {
            family.set_metric(some.iter_mut().map(|item| Metric::from_label(labels(item))).collect());
            lines.clear();
            encode(&family, &mut lines);
            for line in lines.lines().filter(|line| !line.starts_with('#')) {
                if let (Some(from), Some(to)) = (line.find('{'), line.rfind('}')) {
                    printed.push_str(&line[from..=to]);
                }
                ends.push(printed.len());
            }
        }
        Self { items, labels: printed, ends }
    }

    /// One without labels.
    pub fn bare(item: R) -> Self {
        Self::new(vec![item], |_| Vec::new())
    }
}

/// A histogram of a family.
pub struct Curve {
    pub labels: Vec<LabelPair>,
    /// Upper bounds and how many were in each, not cumulative.
    pub buckets: Vec<(f64, u64)>,
    /// How many were over the last bound, for which the encoder adds a bucket.
    pub above: u64,
    pub sum: f64,
}

/// The page as it grows.
#[derive(Debug, Default)]
pub struct Sheet {
    text: String,
}

impl Sheet {
    /// A headline of MediaMTX's: a comment that no parser looks at.
    pub fn section(&mut self, title: &str) {
        if !self.text.is_empty() {
            self.text.push('\n');
        }
        self.line(&["# ", title]);
    }

    /// A sample of each row; nothing, not even a head, when there is none.
    pub fn family<R>(&mut self, family: Family, rows: &Rows<R>, number: impl Fn(&R) -> Number) {
        if rows.items.is_empty() {
            return;
        }
        self.head(family);
        self.text.reserve(rows.labels.len() + rows.items.len() * (family.name.len() + 16));
        let mut from = 0;
        for (item, &to) in rows.items.iter().zip(&rows.ends) {
            self.text.push_str(family.name);
            self.text.push_str(&rows.labels[from..to]);
            self.text.push(' ');
            // Writing to a string cannot fail.
            let _ = match number(item) {
                Number::Whole(value) => writeln!(self.text, "{value}"),
                Number::Real(value) => writeln!(self.text, "{value}"),
            };
            from = to;
        }
    }

    /// A family of one sample without labels.
    pub fn single(&mut self, family: Family, number: Number) {
        self.family(family, &Rows::bare(()), |()| number);
    }

    /// A family of histograms.
    pub fn histograms(&mut self, name: &'static str, help: &'static str, curves: Vec<Curve>) {
        let metrics = curves.into_iter().map(|curve| {
            let mut count = 0;
            let cumulative = curve.buckets.into_iter().map(|(bound, more)| {
                count += more;
                let mut bucket = Bucket::default();
                bucket.set_upper_bound(bound);
                bucket.set_cumulative_count(count);
                bucket
            });
            let mut histogram = Histogram::default();
            histogram.set_bucket(cumulative.collect());
            histogram.set_sample_count(count + curve.above);
            histogram.set_sample_sum(curve.sum);
            let mut metric = Metric::from_label(curve.labels);
            metric.set_histogram(histogram);
            metric
        });
        let mut family = MetricFamily::default();
        family.set_name(name.to_owned());
        family.set_help(help.to_owned());
        family.set_field_type(MetricType::HISTOGRAM);
        family.set_metric(metrics.collect());
        encode(&family, &mut self.text);
    }

    pub fn into_text(self) -> String {
        self.text
    }

    fn head(&mut self, family: Family) {
        let kind = match family.kind {
            Kind::Gauge => "gauge",
            Kind::Counter => "counter",
            Kind::Untyped => "untyped",
        };
        self.line(&["# HELP ", family.name, " ", family.help]);
        self.line(&["# TYPE ", family.name, " ", kind]);
    }

    fn line(&mut self, parts: &[&str]) {
        parts.iter().for_each(|part| self.text.push_str(part));
        self.text.push('\n');
    }
}

fn encode(family: &MetricFamily, text: &mut String) {
    // It refuses only a family without a name or without samples; ours have both.
    let _ = TextEncoder::new().encode_utf8(std::slice::from_ref(family), text);
}
