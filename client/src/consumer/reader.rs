//! Reads one partition from whoever leads it, and hands over what it read exactly once.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::{Buf as _, Bytes};
use seriatim_proto::{
    batch::{BatchError, BatchHeader, RecordBatch},
    ids::Offset,
    v1::{self, ErrorCode, fetch_stream_request::Kind},
};
use tokio::{
    sync::{Notify, mpsc, watch},
    time::{Instant, sleep, timeout},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use super::{ConsumedBatch, Delivery, ResetPolicy, TopicKey};
use crate::{
    error::ClientError,
    metadata::{Leader, Metadata},
    rt,
    unknown::Unknown,
};

/// A leader says something at least every 5 s.
const SILENCE_MAX: Duration = Duration::from_secs(7);
/// How often an idle reader asks whether another node leads.
const IDLE_REFRESH: Duration = Duration::from_secs(1);
const OPEN_TIMEOUT: Duration = Duration::from_secs(2);

/// The end of a partition's committed records, as its leader last said.
#[derive(Debug, Clone)]
pub(crate) struct Watermark(Arc<AtomicI64>);

impl Default for Watermark {
    fn default() -> Self {
        Self(Arc::new(AtomicI64::new(-1)))
    }
}

impl Watermark {
    fn set(&self, offset: i64) {
        let _before = self.0.fetch_max(offset, Ordering::AcqRel);
    }

    /// Nothing before the first answer.
    pub(crate) fn get(&self) -> Option<Offset> {
        let offset = self.0.load(Ordering::Acquire);
        (offset >= 0).then_some(Offset(offset))
    }
}

/// Bytes that the application has taken and the reader may ask for again.
#[derive(Debug, Clone)]
pub(crate) struct Credit {
    shared: Arc<(AtomicU64, Notify)>,
    window: u64,
}

impl Credit {
    pub(crate) fn new(window: usize) -> Self {
        let window = u64::try_from(window).unwrap_or(u64::MAX);
        Self {
            shared: Arc::new((AtomicU64::new(0), Notify::new())),
            window,
        }
    }

    pub(crate) fn give_back(&self, bytes: usize) {
        let (returned, changed) = &*self.shared;
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        let before = returned.fetch_add(bytes, Ordering::AcqRel);
        // Small grants would cost a message each.
        if before + bytes >= self.window / 4 {
            changed.notify_one();
        }
    }

    /// Waits until a grant is worth a message.
    async fn returned(&self) -> u64 {
        loop {
            let (returned, changed) = &*self.shared;
            if returned.load(Ordering::Acquire) >= self.window / 4 {
                return returned.swap(0, Ordering::AcqRel);
            }
            changed.notified().await;
        }
    }
}

/// Why a stream ended.
enum End {
    /// Another node may serve it.
    Retry(ClientError),
    /// Nobody can.
    Final(ClientError),
    /// The leader has no record at the wanted offset.
    OutOfRange(ClientError),
    /// The consumer is gone.
    Dropped,
}

pub(crate) struct Reader {
    metadata: Arc<Metadata>,
    key: TopicKey,
    /// Invariant: everything before it was handed over, nothing from it on was.
    next: Offset,
    credit: Credit,
    /// Bytes handed over whose credit has not come back.
    outstanding: u64,
    queue: mpsc::Sender<Delivery>,
    leaders: watch::Receiver<u64>,
    reset: ResetPolicy,
    unknown: Unknown,
    watermark: Watermark,
    /// The log that is read, 0 until it is known.
    log: u64,
}

impl Reader {
    pub(crate) fn new(
        metadata: Arc<Metadata>,
        key: TopicKey,
        next: Offset,
        credit: Credit,
        queue: mpsc::Sender<Delivery>,
    ) -> Self {
        let leaders = metadata.changes();
        Self {
            metadata,
            key,
            next,
            credit,
            outstanding: 0,
            queue,
            leaders,
            reset: ResetPolicy::Fail,
            unknown: Unknown::default(),
            watermark: Watermark::default(),
            log: 0,
        }
    }

    /// What to do where there is no record.
    pub(crate) const fn resetting(mut self, policy: ResetPolicy) -> Self {
        self.reset = policy;
        self
    }

    /// Tells the end of the partition there.
    pub(crate) fn reporting(mut self, watermark: Watermark) -> Self {
        self.watermark = watermark;
        self
    }

    pub(crate) async fn run(mut self) {
        let mut attempt = 0;
        loop {
            // A member may read where the group is without ever having asked about the topic; and one
            // that was forgotten may have been created anew.
            self.metadata.follow(&self.key.tp.topic);
            let before = self.next;
            let leader = self.leader();
            let end = match &leader {
                Some(leader) => match self.begin_in(leader.log) {
                    Ok(()) => self.read_from(leader).await,
                    Err(error) => End::Final(error),
                },
                None => End::Retry(self.no_leader()),
            };
            if self.next != before {
                attempt = 0;
            }
            let end = match end {
                End::OutOfRange(error) => self.out_of_range(error),
                end => end,
            };
            match end {
                End::OutOfRange(_) => continue,
                End::Dropped => return,
                End::Final(error) => return self.hand_over(Err(error)).await.unwrap_or(()),
                End::Retry(error) => {
                    if is_unknown(&error) && self.unknown.is_believed(Instant::now()) {
                        return self.hand_over(Err(error)).await.unwrap_or(());
                    }
                    tracing::debug!(partition = %self.key.tp, %error, "read again");
                }
            }
            self.metadata.want_refresh();
            // A new leader ends the wait.
            let changed = self.leaders.changed();
            let _either = timeout(rt::backoff(attempt), changed).await;
            if attempt > 2 {
                sleep(Duration::from_millis(20)).await;
            }
            attempt += 1;
        }
    }

    fn leader(&self) -> Option<Leader> {
        let tp = &self.key.tp;
        let leader = self.metadata.leader(&tp.topic, tp.partition.0);
        leader.filter(|leader| leader.may_lead(self.log))
    }

    /// Whoever leads the partition leads this log. If it is another one than before, the topic was deleted
    /// and created anew, and offsets mean nothing there: the policy decides where to go on.
    fn begin_in(&mut self, log: u64) -> Result<(), ClientError> {
        let before = self.log;
        self.log = self.log.max(log);
        if before == 0 || self.log == before {
            return Ok(());
        }
        let topic = &self.key.tp.topic;
        self.next = match self.reset {
            ResetPolicy::Fail => return Err(ClientError::topic_deleted(topic)),
            ResetPolicy::Start => Offset(0),
            // Beyond the end, which the leader tells.
            ResetPolicy::End => Offset(i64::MAX),
        };
        tracing::warn!(
            topic,
            "the topic was created anew; the reset policy decides where to go on"
        );
        Ok(())
    }

    fn no_leader(&self) -> ClientError {
        let tp = &self.key.tp;
        let missing = self.metadata.missing(&tp.topic, tp.partition.0);
        missing.unwrap_or(ClientError::Closed("partition"))
    }

    async fn read_from(&mut self, leader: &Leader) -> End {
        let (grants, mut stream) = match self.open(leader).await {
            Ok(open) => open,
            Err(error) => return self.judge(error),
        };
        let mut idle = 0_u32;
        loop {
            tokio::select! {
                biased;
                bytes = self.credit.returned() => {
                    self.outstanding = self.outstanding.saturating_sub(bytes);
                    let grant = v1::FetchStreamRequest { kind: Some(Kind::GrantBytes(bytes)) };
                    if grants.send(grant).await.is_err() {
                        return End::Retry(ClientError::Closed("stream"));
                    }
                }
                message = timeout(IDLE_REFRESH, stream.message()) => match message {
                    Ok(Ok(Some(message))) => {
                        idle = 0;
                        if let Err(end) = self.take(message).await {
                            return end;
                        }
                    }
                    Ok(Ok(None)) => return End::Retry(ClientError::Closed("stream")),
                    Ok(Err(status)) => {
                        return self.judge(ClientError::from_status(&leader.address, status));
                    }
                    Err(_elapsed) => {
                        // Without credit the leader has nothing to say.
                        let quiet = self.outstanding >= self.credit.window;
                        idle = if quiet { 0 } else { idle + 1 };
                        self.metadata.want_refresh();
                        if IDLE_REFRESH * idle > SILENCE_MAX || self.superseded(leader) {
                            return End::Retry(ClientError::Closed("stream"));
                        }
                    }
                },
            }
        }
    }

    /// Somebody else leads in a later term.
    fn superseded(&self, by: &Leader) -> bool {
        self.leader()
            .is_some_and(|leader| leader.took_over_from(by))
    }

    async fn open(
        &self,
        leader: &Leader,
    ) -> Result<
        (
            mpsc::Sender<v1::FetchStreamRequest>,
            Streaming<v1::FetchStreamResponse>,
        ),
        ClientError,
    > {
        let (grants, requests) = mpsc::channel(16);
        let open = v1::FetchStreamOpen {
            topic: self.key.tp.topic.clone(),
            partition: self.key.tp.partition.0,
            offset: self.next.0,
            grant_bytes: self.credit.window.saturating_sub(self.outstanding),
            log_id: self.log,
        };
        let open = v1::FetchStreamRequest {
            kind: Some(Kind::Open(open)),
        };
        if grants.send(open).await.is_err() {
            return Err(ClientError::Closed("stream"));
        }
        let mut client = self.metadata.channels.log(&leader.address)?;
        match timeout(
            OPEN_TIMEOUT,
            client.fetch_stream(ReceiverStream::new(requests)),
        )
        .await
        {
            Ok(Ok(answer)) => Ok((grants, answer.into_inner())),
            Ok(Err(status)) => Err(ClientError::from_status(&leader.address, status)),
            Err(_elapsed) => Err(ClientError::Timeout {
                what: "open a fetch stream",
                after: OPEN_TIMEOUT,
                maybe_applied: false,
                last: None,
            }),
        }
    }

    fn judge(&self, error: ClientError) -> End {
        let tp = &self.key.tp;
        self.metadata
            .heed(&tp.topic, tp.partition.0, self.log, &error);
        if error.is_retryable() || is_unknown(&error) {
            End::Retry(error)
        } else if error.code() == Some(ErrorCode::OffsetOutOfRange) {
            End::OutOfRange(error)
        } else {
            End::Final(error)
        }
    }

    /// The policy decides where to go on; what is left of the failure is for the caller.
    fn out_of_range(&mut self, error: ClientError) -> End {
        let Some((start, end)) = error.valid_range() else {
            return End::Final(error);
        };
        let to = match self.reset {
            ResetPolicy::Fail => return End::Final(error),
            ResetPolicy::Start => start,
            ResetPolicy::End => end,
        };
        tracing::warn!(
            partition = %self.key.tp,
            wanted = self.next.0,
            log_start = start.0,
            log_end = end.0,
            goes_on_at = to.0,
            "there is no record at the wanted offset; the reset policy decides where to go on"
        );
        self.next = to;
        End::OutOfRange(error)
    }

    async fn take(&mut self, message: v1::FetchStreamResponse) -> Result<(), End> {
        let high_watermark = Offset(message.high_watermark);
        self.watermark.set(message.high_watermark);
        self.unknown.known();
        let mut rest = message.record_batches;
        while !rest.is_empty() {
            let damaged = |source| ClientError::DamagedBatch {
                partition: self.key.tp.as_ref().clone(),
                source,
            };
            let batch = split_batch(&mut rest)
                .map_err(damaged)
                .map_err(End::Retry)?;
            let (base, next) = (batch.header.base_offset, batch.header.next_offset());
            let bytes = batch.header.total_bytes();
            self.outstanding += u64::try_from(bytes).unwrap_or(u64::MAX);
            if next <= self.next {
                self.credit.give_back(bytes);
                continue;
            }
            if base > self.next {
                return Err(End::Final(ClientError::Gap {
                    partition: self.key.tp.as_ref().clone(),
                    expected: self.next,
                    found: base,
                }));
            }
            let batch = ConsumedBatch {
                partition: Arc::clone(&self.key.tp),
                batch,
                from: self.next,
                high_watermark,
            };
            self.hand_over(Ok(batch)).await?;
            self.next = next;
        }
        Ok(())
    }

    async fn hand_over(&self, delivery: Result<ConsumedBatch, ClientError>) -> Result<(), End> {
        let sent = self.queue.send((self.key.clone(), delivery)).await;
        sent.map_err(|_gone| End::Dropped)
    }
}

fn is_unknown(error: &ClientError) -> bool {
    matches!(
        error.code(),
        Some(ErrorCode::UnknownTopic | ErrorCode::UnknownPartition | ErrorCode::TopicDeleted)
    )
}

/// Takes the first batch off `rest` and checks it.
fn split_batch(rest: &mut Bytes) -> Result<RecordBatch, BatchError> {
    let need = BatchHeader::parse(rest)?.total_bytes();
    if need > rest.remaining() {
        return Err(BatchError::Short {
            have: rest.len(),
            need,
        });
    }
    RecordBatch::parse(rest.split_to(need))
}
