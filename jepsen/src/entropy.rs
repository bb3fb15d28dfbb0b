//! What the system tells a thread that runs a simulation: random bytes that follow from its seed, and the
//! time of the simulation.
//!
//! The standard library (keys of hash maps), tokio (the order of `select!`), `rand` and `getrandom` ask the
//! C library for random bytes, and hyper asks for the date of each answer. This file defines those
//! functions for every program that links this crate: threads that declared a seed get what follows
//! from it, all others what the kernel says.
#![expect(
    unsafe_code,
    reason = "functions of the C library are defined here, for C callers"
)]

use std::{
    cell::Cell,
    ffi::{c_char, c_int, c_uint, c_void},
    mem, ptr, slice,
    sync::OnceLock,
};

use rustix::rand::GetRandomFlags;
use seriatim_runtime::sim;

use crate::sim::world::START_MS;

thread_local! {
    /// What this thread's next random bytes follow from.
    static STATE: Cell<Option<u64>> = const { Cell::new(None) };
}

/// From now on all random bytes that this thread gets follow from `seed`, and its wall clock shows the
/// time of the simulation. Call it first of all on a
/// new thread: the standard library asks only once per thread.
pub fn seed(seed: u64) {
    STATE.set(Some(seed));
}

unsafe extern "C" {
    /// Where the C library keeps `errno` of this thread.
    safe fn __errno_location() -> *mut c_int;
    /// Where a symbol is; see dlsym(3).
    fn dlsym(handle: *mut c_void, symbol: *const c_char) -> *mut c_void;
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

/// Seconds and nanoseconds, as the C library has them on 64 bits.
#[derive(Debug)]
#[repr(C)]
pub struct Timespec {
    seconds: i64,
    nanoseconds: i64,
}

type ClockGettime = unsafe extern "C" fn(c_int, *mut Timespec) -> c_int;

/// The time since 1970, and the same with less precision.
const WALL_CLOCKS: [c_int; 2] = [0, 5];

/// Tells what a clock shows; see `clock_gettime(2)`.
///
/// # Safety
///
/// `time` must be valid for a write.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn clock_gettime(clock: c_int, time: *mut Timespec) -> c_int {
    if STATE.get().is_some() && WALL_CLOCKS.contains(&clock) {
        let now = sim::clock::time();
        let seconds = i64::try_from(now.as_secs()).unwrap_or(i64::MAX / 2);
        let now = Timespec {
            seconds: START_MS / 1000 + seconds,
            nanoseconds: now.subsec_nanos().into(),
        };
        // SAFETY: the caller says so.
        unsafe { time.write(now) };
        return 0;
    }
    let Some(real) = real_clock() else { return -1 };
    // SAFETY: it is the function that the caller meant, with the caller's arguments.
    unsafe { real(clock, time) }
}

/// The function of that name in the C library, which this program's own one hides.
fn real_clock() -> Option<ClockGettime> {
    static REAL: OnceLock<Option<ClockGettime>> = OnceLock::new();
    *REAL.get_or_init(|| {
        // `RTLD_NEXT`: behind this program in the order of search.
        let next = ptr::without_provenance_mut(usize::MAX);
        // SAFETY: the name ends with a zero byte.
        let found = unsafe { dlsym(next, c"clock_gettime".as_ptr()) };
        // SAFETY: that is the type of the function of this name.
        (!found.is_null()).then(|| unsafe { mem::transmute::<*mut c_void, ClockGettime>(found) })
    })
}

/// The generator called `SplitMix64`; returns the next state.
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

    /// What the wall clock of a thread of its own shows, in seconds.
    fn wall_clock(seed: Option<u64>) -> u64 {
        thread::spawn(move || {
            if let Some(seed) = seed {
                super::seed(seed);
            }
            #[expect(clippy::disallowed_methods, reason = "it is what the test is about")]
            let now = std::time::SystemTime::now();
            now.duration_since(std::time::UNIX_EPOCH).unwrap().as_secs()
        })
        .join()
        .unwrap()
    }

    #[test]
    fn only_a_simulation_has_a_wall_clock_of_its_own() {
        let start = u64::try_from(super::START_MS / 1000).unwrap();
        assert_eq!(wall_clock(Some(1)), start);
        let real = rustix::fs::stat("/proc/self").unwrap().st_ctime;
        assert!(wall_clock(None).abs_diff(u64::try_from(real).unwrap()) < 3600);
    }

    #[test]
    fn a_seed_decides_what_everybody_draws() {
        assert_eq!(draws(Some(1)), draws(Some(1)));
        let drawn = [draws(Some(1)), draws(Some(2)), draws(None), draws(None)];
        let different: HashSet<u64> = drawn.iter().flatten().copied().collect();
        assert_eq!(different.len(), 12, "{drawn:?}");
    }
}
