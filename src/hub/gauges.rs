//! What a shard measures of itself, for the metrics. One writer, the shard; see [`Counter`].

use crate::roster::Counter;

/// Upper bounds of the buckets of a [`Histogram`], microseconds.
pub const BUCKETS_US: [u64; 16] = [
    50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000, 200_000, 500_000, 1_000_000,
    5_000_000, 10_000_000,
];

/// Durations by size, as Prometheus wants them; what is above the last bound is only counted.
#[derive(Debug, Default)]
pub struct Histogram {
    /// Observations in each bucket, not cumulative; the last one is above all bounds.
    buckets: [Counter; BUCKETS_US.len() + 1],
    sum_us: Counter,
}

impl Histogram {
    /// For the one writer.
    pub fn observe_us(&self, us: u64) {
        let bucket = BUCKETS_US.partition_point(|&bound| bound < us);
        self.buckets[bucket].add(1);
        self.sum_us.add(us);
    }

    /// Observations in each bucket (not cumulative; the last is above all bounds) and their sum, microseconds.
    pub fn read(&self) -> ([u64; BUCKETS_US.len() + 1], u64) {
        (std::array::from_fn(|bucket| self.buckets[bucket].get()), self.sum_us.get())
    }
}

/// One shard's own figures.
#[derive(Debug, Default)]
pub struct ShardGauges {
    /// Share of its core used over the last second, permille.
    pub busy_permille: Counter,
    /// CPU time it has used, microseconds.
    pub cpu_us: Counter,
    pub streams: Counter,
    pub readers: Counter,
    /// Memory of its streams' rings, bytes.
    pub ring_bytes: Counter,
    /// From the arrival of the oldest packet of what is sent to when all of it is handed to the kernel; once per path
    /// with readers and send round.
    pub relay_latency: Histogram,
    /// From PLAY to the first media bytes that were sent.
    pub first_media: Histogram,
    /// How long each phase of a pull took that came to its end; by [`PullPhase`].
    pub pull_phases: [Histogram; PullPhase::ALL.len()],
    /// Pulls that failed in each phase.
    pub pull_failures: [Counter; PullPhase::ALL.len()],
    pub hls: WebGauges,
}

/// Of one of a shard's HTTP servers.
#[derive(Debug, Default)]
pub struct WebGauges {
    pub connections: Counter,
    /// Answers by the first digit of their status, from 1 to 5.
    answers: [Counter; 5],
}

impl WebGauges {
    /// For the one writer.
    pub fn count_answer(&self, status: u16) {
        if let Some(counter) =
            usize::from(status / 100).checked_sub(1).and_then(|class| self.answers.get(class))
        {
            counter.add(1);
        }
    }

    /// Answers given, by the first digit of their status, from 1 to 5.
    pub fn answers(&self) -> [u64; 5] {
        std::array::from_fn(|class| self.answers[class].get())
    }
}

/// What a pull goes through, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum PullPhase {
    /// Waiting for its turn among the dials to its host; the host's name is resolved in it too.
    Queue,
    /// The TCP connection, and TLS.
    Dial,
    /// From the first request to the description.
    Describe,
    Setup,
    Play,
    /// From the answer to PLAY to the first packet.
    FirstPacket,
    /// From there to the first packet of a picture that needs no other.
    FirstKey,
    /// Media flows. Never observed, only failed in.
    Running,
}

impl PullPhase {
    pub const ALL: [Self; 8] = [
        Self::Queue,
        Self::Dial,
        Self::Describe,
        Self::Setup,
        Self::Play,
        Self::FirstPacket,
        Self::FirstKey,
        Self::Running,
    ];

    /// As label of a metric.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Queue => "queue",
            Self::Dial => "dial",
            Self::Describe => "describe",
            Self::Setup => "setup",
            Self::Play => "play",
            Self::FirstPacket => "first_packet",
            Self::FirstKey => "first_key",
            Self::Running => "running",
        }
    }
}
