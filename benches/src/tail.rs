//! `end-to-end` and `mixed`: producers, and consumers that read what was just appended.

use std::{sync::Arc, time::Duration};

use anyhow::Context as _;
use indicatif::ProgressBar;
use seriatim_client::{ConsumedBatch, Consumer, Position};
use seriatim_proto::ids::TopicPartition;
use seriatim_runtime::{clock, task};
use tokio::sync::watch;

use crate::{
    field::Field,
    load::{Orders, send_all, stamped_at},
    output,
    plan::{Load, Mode},
    report::Measured,
    tally::Tally,
    window::Window,
};

/// How long a consumer waits for records that are there.
const SILENCE_MAX: Duration = Duration::from_secs(30);

/// By partition, where reading ends; none until the producers have ended.
type Ends = Option<Arc<Vec<i64>>>;

pub(crate) async fn run(load: &Load, field: &Field) -> anyhow::Result<Measured> {
    let mut consumers = Vec::new();
    for (number, client) in field.clients.iter().enumerate() {
        let mut builder = client.consumer();
        let mine = (0..load.partitions)
            .skip(number)
            .step_by(field.clients.len());
        let mine: Vec<i32> = mine.collect();
        for &partition in &mine {
            builder = builder.assign(&field.topic, partition, Position::Start);
        }
        if !mine.is_empty() {
            consumers.push((builder.build().await?, mine));
        }
    }
    let window = Window::new(clock::now(), load.warmup, load.seconds);
    let bar = output::progress(load.mode.name());
    let (ends_sender, ends) = watch::channel(None);
    let mut following = Vec::new();
    for (consumer, partitions) in consumers {
        let follower = Follower {
            consumer,
            next: partitions.into_iter().map(|number| (number, 0)).collect(),
            window,
            tally: Tally::default(),
            bar: bar.clone(),
        };
        following.push(task::spawn("follow", follower.run(ends.clone())));
    }
    let cost = task::spawn("meter", field.meter.clone().over(window));
    let orders = Orders {
        topic: field.topic.clone(),
        window,
        records: None,
        rate: load.rate,
        stamped: true,
    };
    let sending = send_all(load, &field.clients, &orders, &ProgressBar::hidden()).await?;
    let ends = Some(Arc::new(self::ends(load, field).await?));
    let _before = ends_sender.send_replace(ends);
    let mut read = Tally::default();
    for follower in following {
        read.merge(&follower.await??);
    }
    bar.finish_and_clear();
    let (mut tally, consumed) = match load.mode {
        Mode::Mixed => (sending.tally, Some(read)),
        _ => {
            read.failures.merge(&sending.tally.failures);
            (read, None)
        }
    };
    tally.latency.merge(&sending.unsent);
    Ok(Measured {
        tally,
        unsent: sending.unsent.count(),
        length: window.length(),
        cost: cost.await?,
        read: consumed,
    })
}

async fn ends(load: &Load, field: &Field) -> anyhow::Result<Vec<i64>> {
    let client = field.clients.first().context("there is no client")?;
    let ends: Vec<_> = (0..load.partitions)
        .map(|partition| (TopicPartition::new(&field.topic, partition), Position::End))
        .collect();
    let ends = client.admin().list_offsets(&ends).await?;
    Ok(ends.into_iter().map(|end| end.0).collect())
}

/// Reads some partitions as they grow.
struct Follower {
    consumer: Consumer,
    /// Partitions and the next offset of each.
    next: Vec<(i32, i64)>,
    window: Window,
    tally: Tally,
    bar: ProgressBar,
}

impl Follower {
    async fn run(mut self, mut ends: watch::Receiver<Ends>) -> anyhow::Result<Tally> {
        loop {
            let known = ends.borrow_and_update().clone();
            let missing = known.as_deref().map(|ends| self.missing(ends));
            if missing == Some(0) {
                return Ok(self.tally);
            }
            tokio::select! {
                biased;
                batch = self.consumer.next_batch() => {
                    self.count(&batch.context("the consumer ended")??)?;
                }
                changed = ends.changed(), if missing.is_none() => changed?,
                () = clock::sleep(SILENCE_MAX), if missing.is_some() => {
                    let missing = missing.unwrap_or_default();
                    self.tally.failures.add(missing, &"acknowledged and not read");
                    return Ok(self.tally);
                }
            }
        }
    }

    /// Records before `ends` that were not read.
    fn missing(&self, ends: &[i64]) -> u64 {
        let missing = self.next.iter().map(|(partition, next)| {
            let end = usize::try_from(*partition).ok().and_then(|at| ends.get(at));
            end.map_or(0, |end| u64::try_from(end - next).unwrap_or(0))
        });
        missing.sum()
    }

    fn count(&mut self, batch: &ConsumedBatch) -> anyhow::Result<()> {
        let at = clock::now();
        let mut records = 0;
        for record in batch.records()? {
            let record = record?;
            let intended = stamped_at(self.window.begin, record.key.as_deref());
            let intended = intended.context("a record of somebody else")?;
            let bytes = record.value.map_or(0, |value| value.len());
            self.tally
                .done(&self.window, intended, at, u64::try_from(bytes)?);
            records += 1;
        }
        self.bar.inc(records);
        let mine = self
            .next
            .iter_mut()
            .find(|(number, _)| *number == batch.partition());
        if let Some((_, next)) = mine {
            *next = batch.next_offset().0;
        }
        Ok(())
    }
}
