//! Waiting for a condition, with a deadline.

use std::time::Duration;

use anyhow::bail;
use seriatim_runtime::clock;

const PAUSE: Duration = Duration::from_millis(20);

/// Asks again and again until there is an answer. A failed attempt is no answer; the last failure is
/// part of the error.
///
/// # Errors
/// If there is none within `limit`.
pub(super) async fn until<T>(
    what: &str,
    limit: Duration,
    mut ask: impl AsyncFnMut() -> anyhow::Result<Option<T>>,
) -> anyhow::Result<T> {
    let deadline = clock::now() + limit;
    let mut last = "it does not hold".to_owned();
    loop {
        match clock::timeout_at(deadline, ask()).await {
            Ok(Ok(Some(answer))) => return Ok(answer),
            Ok(Ok(None)) => {}
            Ok(Err(error)) => last = format!("{error:#}"),
            Err(_late) => bail!("{what}: not within {limit:?}: {last}"),
        }
        if clock::now() >= deadline {
            bail!("{what}: not within {limit:?}: {last}");
        }
        clock::sleep(PAUSE).await;
    }
}
