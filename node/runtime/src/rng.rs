//! Random numbers for timing and identifiers; never for keys or secrets.

use std::{cell::RefCell, time::Duration};

use rand::{RngExt, SeedableRng, rngs::SmallRng};

thread_local! {
    static RNG: RefCell<SmallRng> = RefCell::new(fresh());
}

/// A generator seeded by the operating system.
fn fresh() -> SmallRng {
    #[expect(
        clippy::disallowed_methods,
        reason = "the one place that asks for real randomness"
    )]
    let seed = rand::rng().random();
    SmallRng::seed_from_u64(seed)
}

/// Makes everything drawn on this thread from now on follow from `seed`.
pub fn seed(seed: u64) {
    RNG.set(SmallRng::seed_from_u64(seed));
}

/// Any number.
pub fn u64() -> u64 {
    RNG.with_borrow_mut(|rng| rng.random())
}

/// A number from 0 up to, not including, `n`; 0 for an empty range.
pub fn below(n: u64) -> u64 {
    if n == 0 {
        return 0;
    }
    RNG.with_borrow_mut(|rng| rng.random_range(0..n))
}

/// A duration from zero up to, not including, `limit`.
pub fn duration_below(limit: Duration) -> Duration {
    Duration::from_nanos(below(u64::try_from(limit.as_nanos()).unwrap_or(u64::MAX)))
}

/// `N` random bytes.
pub fn bytes<const N: usize>() -> [u8; N] {
    RNG.with_borrow_mut(|rng| rng.random())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_numbers() {
        seed(7);
        let first: Vec<u64> = (0..10).map(|_| u64()).collect();
        seed(7);
        let second: Vec<u64> = (0..10).map(|_| u64()).collect();
        assert_eq!(first, second);
        assert_eq!(below(0), 0);
        assert!((0..1000).all(|_| below(10) < 10));
    }
}
