//! Waiting for a condition, with a deadline.

use std::time::Duration;

use anyhow::bail;
use tokio::time::{Instant, sleep};

const PAUSE: Duration = Duration::from_millis(20);

/// What an attempt without an answer says.
const NO: &str = "it does not hold";

/// Asks again and again until there is an answer. A failed attempt is no answer; the last failure
/// is part of the error.
///
/// # Errors
/// If there is none within `limit`.
pub async fn until<T>(
    what: &str,
    limit: Duration,
    mut ask: impl AsyncFnMut() -> anyhow::Result<Option<T>>,
) -> anyhow::Result<T> {
    let deadline = Instant::now() + limit;
    let mut last = NO.to_owned();
    loop {
        match tokio::time::timeout_at(deadline, ask()).await {
            Ok(Ok(Some(answer))) => return Ok(answer),
            Ok(Ok(None)) => NO.clone_into(&mut last),
            Ok(Err(error)) => last = format!("{error:#}"),
            Err(_late) => bail!("{what}: not within {limit:?}: {last}"),
        }
        if Instant::now() >= deadline {
            bail!("{what}: not within {limit:?}: {last}");
        }
        sleep(PAUSE).await;
    }
}
