//! Removing old records.

use seriatim_proto::{
    ids::{Offset, TopicPartition},
    v1,
};
use tokio::time::{Instant, sleep, timeout};

use crate::{
    admin::{Admin, DEADLINE},
    error::ClientError,
    rt,
};

/// How long one node may take to answer.
const ATTEMPT: std::time::Duration = std::time::Duration::from_secs(10);

impl Admin {
    /// Removes the records of a partition below an offset, which may be its end; returns where they
    /// begin now. That is above `before` if retention has removed more already.
    ///
    /// # Errors
    /// `OFFSET_OUT_OF_RANGE` if the partition ends before `before`; any other that does not go away
    /// within 30 s of trying again.
    pub async fn trim(&self, tp: &TopicPartition, before: Offset) -> Result<Offset, ClientError> {
        let deadline = Instant::now() + DEADLINE;
        let mut attempt = 0;
        loop {
            match self.trim_once(tp, before).await {
                // Doing it twice is the same as once.
                Err(error) if error.is_retryable() && Instant::now() < deadline => {
                    self.client.metadata().want_refresh();
                    sleep(rt::backoff(attempt)).await;
                    attempt += 1;
                }
                result => return result,
            }
        }
    }

    async fn trim_once(&self, tp: &TopicPartition, before: Offset) -> Result<Offset, ClientError> {
        let address = self.leader_of(tp).await?;
        let request = v1::TrimPartitionRequest {
            topic: tp.topic.clone(),
            partition: tp.partition.0,
            before: before.0,
            timeout_ms: u32::try_from(ATTEMPT.as_millis()).unwrap_or(u32::MAX),
        };
        let mut client = self.client.metadata().channels.log(&address)?;
        let answer = timeout(ATTEMPT, client.trim_partition(request)).await;
        let timed_out = |_elapsed| ClientError::Timeout {
            what: "trim",
            after: ATTEMPT,
            maybe_applied: true,
            last: None,
        };
        let answer = answer.map_err(timed_out)?;
        let answer = answer.map_err(|status| ClientError::from_status(&address, status))?;
        let answer = answer.into_inner();
        match answer.error {
            None => Ok(Offset(answer.log_start_offset)),
            Some(error) => Err(self.learn(&tp.topic, tp.partition.0, error)),
        }
    }
}
