//! A network that drops, duplicates, reorders and delays datagrams.

use super::random::Random;

pub struct Network {
    random: Random,
    delay_us: u64,
    jitter_us: u64,
    loss_permille: u64,
    duplicate_permille: u64,
    /// Now and then nothing comes through for a while; what was sent then comes all at once.
    outage_permille: u64,
    outage_until_us: u64,
}

impl Network {
    /// Drops and duplicates nothing, and moves no packet further than the reorder window reaches.
    pub fn lossless(mut random: Random) -> Self {
        let (delay_us, jitter_us) = (random.between(0, 5_000), random.pick(&[0, 500, 2_000]));
        Self {
            random,
            delay_us,
            jitter_us,
            loss_permille: 0,
            duplicate_permille: 0,
            outage_permille: 0,
            outage_until_us: 0,
        }
    }

    pub fn lossy(mut random: Random) -> Self {
        Self {
            delay_us: random.between(0, 20_000),
            jitter_us: random.pick(&[0, 1_000, 10_000, 150_000]),
            loss_permille: random.pick(&[0, 1, 20, 200]),
            duplicate_permille: random.pick(&[0, 10, 200]),
            outage_permille: random.pick(&[0, 0, 1]),
            outage_until_us: 0,
            random,
        }
    }

    /// When a datagram that is sent now arrives: once, twice or never.
    pub fn arrivals(&mut self, now_us: u64) -> Vec<u64> {
        if self.random.permille(self.loss_permille) {
            return Vec::new();
        }
        if self.random.permille(self.outage_permille) {
            self.outage_until_us = self.outage_until_us.max(now_us + self.random.between(10_000, 700_000));
        }
        let copies = if self.random.permille(self.duplicate_permille) { 2 } else { 1 };
        (0..copies)
            .map(|_| {
                // The first packets come in order: a relay cannot know of earlier ones.
                let jitter = if now_us < 200_000 { 0 } else { self.random.between(0, self.jitter_us) };
                // On a grid of 100 µs, so that several arrive in one turn of the relay.
                (now_us + self.delay_us + jitter).max(self.outage_until_us).next_multiple_of(100)
            })
            .collect()
    }
}
