//! Panics of this process. A panic of a task ends that task alone, and nobody might ever ask for what
//! became of it; yet each is a bug.

use parking_lot::Mutex;

/// Most panics that are remembered: one often brings many more.
const KEPT_MAX: usize = 10;

static SEEN: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// Remembers every panic from now on, besides what is printed of it anyhow.
pub fn remember() {
    let print = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        {
            let mut seen = SEEN.lock();
            if seen.len() < KEPT_MAX {
                let place = panic.location().map(ToString::to_string);
                let what = panic.payload_as_str().unwrap_or("no message");
                seen.push(format!("{}: {what}", place.unwrap_or_default()));
            }
        }
        print(panic);
    }));
}

/// The panics since [`remember`] or the last call.
pub fn take() -> Vec<String> {
    std::mem::take(&mut *SEEN.lock())
}
