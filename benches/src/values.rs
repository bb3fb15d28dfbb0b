//! Record values.

use std::fmt::Write as _;

use bytes::Bytes;
use rand::{Rng as _, RngExt as _, SeedableRng as _, rngs::SmallRng};

/// Bytes of distinct text: far more than any codec looks back.
const TEXT_BYTES: usize = 16 << 20;
const TEXTS_MAX: usize = 1 << 16;

const CARRIERS: [&str; 8] = ["UA", "AA", "B6", "DL", "EV", "MQ", "WN", "US"];
const AIRPORTS: [&str; 12] = [
    "EWR", "LGA", "JFK", "IAH", "MIA", "ATL", "ORD", "FLL", "MCO", "LAX", "SFO", "DFW",
];

/// Values of one size, handed out in turn without copying.
#[derive(Debug, Clone)]
pub struct Values {
    /// Invariant: at least one.
    values: Vec<Bytes>,
    next: usize,
}

impl Values {
    /// One value of random bytes, which nothing can compress; one is enough where nothing tries.
    pub fn random(size: usize) -> Self {
        let mut bytes = vec![0; size];
        SmallRng::seed_from_u64(1).fill_bytes(&mut bytes);
        Self {
            values: vec![bytes.into()],
            next: 0,
        }
    }

    /// Different values that look like events: names repeat, numbers do not.
    pub fn text(size: usize) -> Self {
        let count = (TEXT_BYTES / size.max(1)).clamp(1, TEXTS_MAX);
        let mut rng = SmallRng::seed_from_u64(2);
        let mut all = String::with_capacity(size * count + 256);
        while all.len() < size * count {
            event(&mut rng, &mut all);
        }
        let all = Bytes::from(all);
        let value = |at: usize| all.slice(at * size..(at + 1) * size);
        Self {
            values: (0..count).map(value).collect(),
            next: 0,
        }
    }

    /// The next value.
    #[expect(
        clippy::should_implement_trait,
        reason = "there is always a next one, so it is not an option"
    )]
    pub fn next(&mut self) -> Bytes {
        let value = self.values.get(self.next).cloned().unwrap_or_default();
        self.next += 1;
        if self.next == self.values.len() {
            self.next = 0;
        }
        value
    }
}

fn event(rng: &mut SmallRng, out: &mut String) {
    let carrier = CARRIERS.get(rng.random_range(0..CARRIERS.len()));
    let airport = |rng: &mut SmallRng| {
        let at = rng.random_range(0..AIRPORTS.len());
        AIRPORTS.get(at).copied().unwrap_or_default()
    };
    let (origin, dest) = (airport(rng), airport(rng));
    let (flight, tail) = (rng.random_range(1..8000), rng.random_range(100..1000));
    let (month, day) = (rng.random_range(1..13), rng.random_range(1..29));
    let (delay, air_time) = (rng.random_range(-20..180), rng.random_range(30..400));
    let carrier = carrier.copied().unwrap_or_default();
    let written = writeln!(
        out,
        "{{\"time\":\"2013-{month:02}-{day:02}T{:02}:{:02}:00Z\",\"carrier\":\"{carrier}\",\
         \"flight\":{flight},\"tailnum\":\"N{tail}{carrier}\",\"origin\":\"{origin}\",\
         \"dest\":\"{dest}\",\"dep_delay\":{delay},\"air_time\":{air_time}}}",
        rng.random_range(0..24),
        rng.random_range(0..60),
    );
    written.expect("a string takes everything");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_have_the_size_and_take_turns() {
        for size in [1, 100, 1024, 100_000] {
            assert_eq!(Values::random(size).next().len(), size);
            let mut texts = Values::text(size);
            let count = texts.values.len();
            let first = texts.next();
            assert_eq!(first.len(), size);
            for _ in 1..count {
                assert_eq!(texts.next().len(), size);
            }
            assert_eq!(texts.next(), first);
        }
    }

    #[test]
    fn texts_differ() {
        let mut texts = Values::text(1024);
        assert_ne!(texts.next(), texts.next());
    }
}
