//! What a simulation does, event by event, as one number: two runs of a seed that differ anywhere
//! differ in it, and their lines say where first.

use std::{cell::RefCell, fmt, time::Duration};

use super::clock;

/// Where the lines of a trace go, if anybody wants to read them.
pub type Lines = Box<dyn FnMut(fmt::Arguments<'_>)>;

thread_local! {
    static TRACE: RefCell<Option<Trace>> = const { RefCell::new(None) };
}

struct Trace {
    hash: u64,
    events: u64,
    host: String,
    lines: Option<Lines>,
}

/// What a trace came to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Summary {
    /// Stands for every event, in order.
    pub digest: u64,
    /// How many there were.
    pub events: u64,
}

/// Begins to trace what runs on this thread.
pub fn begin(lines: Option<Lines>) {
    TRACE.set(Some(Trace {
        hash: SEED,
        events: 0,
        host: String::new(),
        lines,
    }));
}

/// Ends the trace.
pub fn end() -> Option<Summary> {
    TRACE.take().map(|trace| Summary {
        digest: trace.hash,
        events: trace.events,
    })
}

/// A host has its turn.
pub fn turn(host: &str) {
    TRACE.with_borrow_mut(|trace| {
        if let Some(trace) = trace {
            host.clone_into(&mut trace.host);
            trace.add("turn", 0, host.as_bytes());
        }
    });
}

/// Something happened: what, a number that goes with it, and bytes.
pub fn event(what: &'static str, number: u64, bytes: &[u8]) {
    TRACE.with_borrow_mut(|trace| {
        if let Some(trace) = trace {
            trace.add(what, number, bytes);
        }
    });
}

impl Trace {
    fn add(&mut self, what: &'static str, number: u64, bytes: &[u8]) {
        let time = clock::time();
        let of_bytes = hash(SEED, bytes);
        let mut hash = hash(self.hash, what.as_bytes());
        for word in [nanos(time), number, of_bytes] {
            hash = mix(hash, word);
        }
        self.hash = hash;
        self.events += 1;
        if let Some(lines) = &mut self.lines {
            let (host, len) = (&self.host, bytes.len());
            lines(format_args!(
                "{:>13.6} {host:<4} {what:<6} {number:>12} {len:>8} {of_bytes:016x}",
                time.as_secs_f64()
            ));
        }
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

const SEED: u64 = 0x9e37_79b9_7f4a_7c15;

fn mix(hash: u64, word: u64) -> u64 {
    (hash ^ word)
        .wrapping_mul(0x2545_f491_4f6c_dd1d)
        .rotate_left(29)
}

/// Stands for bytes, after what `seed` stands for: good enough to tell two runs apart, at the speed of
/// memory.
pub fn hash(seed: u64, bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks::<8>();
    let whole = words
        .iter()
        .fold(seed, |hash, word| mix(hash, u64::from_le_bytes(*word)));
    let rest = rest
        .iter()
        .fold(0, |all, &byte| (all << 8) | u64::from(byte));
    mix(
        mix(whole, rest),
        u64::try_from(bytes.len()).unwrap_or(u64::MAX),
    )
}

#[cfg(test)]
mod tests {
    use std::{cell::RefCell, rc::Rc};

    use super::*;

    fn trace(events: &[(&'static str, u64, &[u8])]) -> Summary {
        begin(None);
        for (what, number, bytes) in events {
            event(what, *number, bytes);
        }
        end().unwrap()
    }

    type Event<'a> = (&'static str, u64, &'a [u8]);

    #[test]
    fn every_part_of_an_event_and_their_order_count() {
        let base: [Event<'_>; 2] = [("send", 1, b"twelve bytes"), ("sync", 2, b"")];
        let same = trace(&base);
        assert_eq!(same, trace(&base));
        assert_eq!(same.events, 2);
        let [first, second] = base;
        let others: [&[Event<'_>]; 6] = [
            &[second, first],
            &[first],
            &[("sent", 1, b"twelve bytes"), second],
            &[("send", 3, b"twelve bytes"), second],
            &[("send", 1, b"twelve bytex"), second],
            &[("send", 1, b"twelve bytes\0"), second],
        ];
        for other in others {
            assert_ne!(same.digest, trace(other).digest, "{other:?}");
        }
        assert_eq!(end(), None);
    }

    #[test]
    fn lines_say_who_did_what() {
        let lines = Rc::new(RefCell::new(Vec::new()));
        let sink = Rc::clone(&lines);
        begin(Some(Box::new(move |line| {
            sink.borrow_mut().push(line.to_string());
        })));
        turn("n1");
        event("write", 42, b"abc");
        let _summary = end();
        let lines = lines.borrow();
        assert_eq!(lines.len(), 2);
        assert!(
            lines[1].contains("n1   write") && lines[1].contains("42"),
            "{lines:?}"
        );
    }
}
