//! Where the system's random bytes come from: under a simulation, from its seed.
//!
//! The standard library (keys of hash maps), tokio (the order of `select!`), `rand` and `getrandom` ask the
//! C library for random bytes. This file defines that function for every program that links this
//! crate: threads that declared a seed get numbers that follow from it, all others what the kernel gives.
#![expect(
    unsafe_code,
    reason = "the C library's function is defined here, for C callers"
)]

use std::{
    cell::Cell,
    ffi::{c_int, c_uint, c_void},
    slice,
};

use rustix::rand::GetRandomFlags;

thread_local! {
    /// What this thread's next random bytes follow from.
    static STATE: Cell<Option<u64>> = const { Cell::new(None) };
}

/// From now on all random bytes that this thread gets follow from `seed`. Call it first of all on a
/// new thread: the standard library asks only once per thread.
pub fn seed(seed: u64) {
    STATE.set(Some(seed));
}

unsafe extern "C" {
    /// Where the C library keeps `errno` of this thread.
    safe fn __errno_location() -> *mut c_int;
}

/// Fills `buffer` with random bytes; see getrandom(2).
///
/// # Safety
///
/// `buffer` must be valid for writes of `len` bytes, unless `len` is 0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn getrandom(buffer: *mut c_void, len: usize, flags: c_uint) -> isize {
    if len == 0 {
        return 0;
    }
    // SAFETY: the caller gives this buffer away for the time of the call; it need not be initialised
    // for what follows, which only writes.
    let bytes = unsafe {
        buffer.cast::<u8>().write_bytes(0, len);
        slice::from_raw_parts_mut(buffer.cast::<u8>(), len)
    };
    let got = match STATE.get() {
        Some(state) => {
            STATE.set(Some(fill(state, bytes)));
            Ok(bytes.len())
        }
        None => rustix::rand::getrandom(bytes, GetRandomFlags::from_bits_retain(flags)),
    };
    match got {
        Ok(n) => isize::try_from(n).unwrap_or(isize::MAX),
        Err(error) => {
            // SAFETY: the C library's `errno` of this thread is always there.
            unsafe { __errno_location().write(error.raw_os_error()) };
            -1
        }
    }
}

/// SplitMix64; returns the next state.
fn fill(mut state: u64, bytes: &mut [u8]) -> u64 {
    for chunk in bytes.chunks_mut(8) {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^= z >> 31;
        for (byte, random) in chunk.iter_mut().zip(z.to_le_bytes()) {
            *byte = random;
        }
    }
    state
}

#[cfg(test)]
mod tests {
    use std::{
        collections::HashSet,
        hash::{BuildHasher as _, RandomState},
        thread,
    };

    /// Everything that asks for randomness, on a thread of its own.
    fn draws(seed: Option<u64>) -> Vec<u64> {
        thread::spawn(move || {
            if let Some(seed) = seed {
                super::seed(seed);
            }
            let mut numbers = vec![RandomState::new().hash_one(1)];
            #[expect(clippy::disallowed_methods, reason = "it is what the test is about")]
            numbers.push(rand::random());
            numbers.push(seriatim_runtime::rng::u64());
            numbers
        })
        .join()
        .unwrap()
    }

    #[test]
    fn a_seed_decides_what_everybody_draws() {
        assert_eq!(draws(Some(1)), draws(Some(1)));
        let drawn = [draws(Some(1)), draws(Some(2)), draws(None), draws(None)];
        let different: HashSet<u64> = drawn.iter().flatten().copied().collect();
        assert_eq!(different.len(), 12, "{drawn:?}");
    }
}
