//! Reading a partition up to where it was found to end.

use std::time::Duration;

use seriatim_client::{ClientError, Consumer, Offset, TopicPartition};
use seriatim_runtime::clock;

use super::record;
use crate::history::Value;

/// How long the next batch may take.
const SILENCE: Duration = Duration::from_secs(10);

/// Why the end was not reached.
pub(super) enum Halt {
    /// The client says so.
    Failed(ClientError),
    /// Nothing came for [`SILENCE`].
    Silent,
    /// What nobody can read, or an end of the consumer, which has none.
    Wrong(String),
}

impl From<ClientError> for Halt {
    fn from(error: ClientError) -> Self {
        Self::Failed(error)
    }
}

/// Offsets and values from where a consumer is in a partition to `end`.
pub(super) async fn read_to(
    consumer: &mut Consumer,
    place: &TopicPartition,
    end: Offset,
) -> Result<Vec<(i64, Value)>, Halt> {
    let mut records = Vec::new();
    while consumer
        .position(&place.topic, place.partition.0)
        .is_some_and(|at| at < end)
    {
        let next = clock::timeout(SILENCE, consumer.next_batch()).await;
        let next = next.map_err(|_elapsed| Halt::Silent)?.transpose()?;
        let batch = next.ok_or_else(|| Halt::Wrong("the consumer ended".to_owned()))?;
        records.extend(record::values_of(&batch).map_err(Halt::Wrong)?);
    }
    Ok(records)
}
