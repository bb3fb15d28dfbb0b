//! One test: a deadline, a share of the machine, and the nodes' logs when it fails.

use std::{cell::RefCell, fmt, future::Future, time::Duration};

use anyhow::Context as _;
use parking_lot::RwLock;

/// Longest that a story may take, on a machine busy with other things.
const LIMIT: Duration = Duration::from_secs(170);

/// Whether a story measures time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Load {
    /// May run beside others.
    Shared,
    /// Has the machine to itself, as far as this process goes.
    Alone,
}

/// How a story ended.
pub type Outcome = Result<(), Failed>;

/// Why a story failed.
pub struct Failed(anyhow::Error);

// What the test runner shows: the causes, and no backtrace through the runtime.
impl fmt::Debug for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#}", self.0)
    }
}

impl<E: Into<anyhow::Error>> From<E> for Failed {
    fn from(error: E) -> Self {
        Self(error.into())
    }
}

static MACHINE: RwLock<()> = RwLock::new(());

thread_local! {
    /// Ends of the logs of the clusters that this thread's story has dropped.
    static LOGS: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

/// Runs a story to its end.
///
/// # Errors
/// The story's own, after the logs of its nodes were printed, or that it took too long.
pub fn story(load: Load, body: impl Future<Output = anyhow::Result<()>>) -> Outcome {
    let _alone = (load == Load::Alone).then(|| MACHINE.write());
    let _shared = (load == Load::Shared).then(|| MACHINE.read());
    let _built = crate::binary::seriatim()?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("start a runtime")?;
    drop(LOGS.take());
    let outcome = runtime.block_on(async {
        tokio::time::timeout(LIMIT, Box::pin(body))
            .await
            .unwrap_or_else(|_late| Err(anyhow::anyhow!("the story took longer than {LIMIT:?}")))
    });
    runtime.shutdown_timeout(Duration::from_secs(2));
    if outcome.is_err() {
        LOGS.take().iter().for_each(|log| show(log));
    }
    outcome.map_err(Failed)
}

/// Keeps the end of a log in case the story fails; prints it at once if it has.
pub(crate) fn keep_log(text: String) {
    if std::thread::panicking() {
        show(&text);
    } else {
        LOGS.with_borrow_mut(|logs| logs.push(text));
    }
}

#[expect(
    clippy::print_stderr,
    reason = "shown by the test runner when a test fails"
)]
fn show(log: &str) {
    eprintln!("{log}");
}
