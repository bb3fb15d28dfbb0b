//! `seriatim consume --group`: the records of a topic, shared with the other members of a group.

use std::{
    future::Future,
    io::{self, Write as _},
    pin::{Pin, pin},
    time::Duration,
};

use anyhow::Context as _;
use futures::StreamExt as _;
use seriatim_client::{
    Consumer, GroupBatch, GroupConsumer, Offset, Rebalance, ResetPolicy, TopicPartition,
};
use seriatim_runtime::{clock, task};

use super::{
    common::{reader_gone, tell},
    consume::{Args, is_broken_pipe, write_batch},
    fail::interrupted,
};

/// How long a batch may take to be printed after a signal.
const GRACE: Duration = Duration::from_secs(2);

/// Options of a member of a group.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "As a member of a group")]
pub(super) struct Member {
    /// Share the topic with the other members of this group and go on where it is; records are
    /// committed after they were printed
    #[arg(long, value_name = "GROUP")]
    pub(super) group: Option<String>,
    /// A name that outlives restarts: back within the session timeout, nothing has moved
    #[arg(long, value_name = "NAME", requires = "group")]
    instance_id: Option<String>,
    /// How long the group waits for this member when it is silent: 3s to 30min
    #[arg(
        long,
        value_name = "TIME",
        requires = "group",
        default_value = "10s",
        value_parser = humantime::parse_duration
    )]
    session_timeout: Duration,
    /// Where to begin where the group has no offset, or its records are gone
    #[arg(
        long,
        value_enum,
        requires = "group",
        default_value = "start",
        value_name = "start|end|fail",
        hide_possible_values = true
    )]
    reset: Reset,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Reset {
    Start,
    End,
    Fail,
}

/// Why the reading ends.
enum End {
    /// All that was asked for is printed, or nobody reads it.
    Done,
    Interrupted(anyhow::Error),
}

/// Runs the verb as a member of a group.
pub(super) async fn run(args: Args) -> anyhow::Result<()> {
    let group = args.group.group.as_deref().unwrap_or_default();
    let mut end = pin!(async {
        tokio::select! {
            interrupted = interrupted() => End::Interrupted(interrupted),
            () = reader_gone() => End::Done,
        }
    });
    let joined = tokio::select! {
        biased;
        end = end.as_mut() => return end.into_result(),
        joined = join(&args, group) => joined,
    };
    let mut consumer = joined?;
    let copied = match copy(&mut consumer, &args, end.as_mut()).await {
        Err(error) if is_broken_pipe(&error) => Ok(End::Done),
        other => other,
    };
    let closed = consumer.close().await.context("leave the group");
    let end = copied?;
    closed?;
    end.into_result()
}

impl End {
    fn into_result(self) -> anyhow::Result<()> {
        match self {
            Self::Done => Ok(()),
            Self::Interrupted(error) => Err(error),
        }
    }
}

async fn join(args: &Args, group: &str) -> anyhow::Result<GroupConsumer> {
    let client = args.servers.connect().await?;
    // A group may wait for a topic that does not exist; a person who mistypes one should not.
    let _partitions = client.partitions(&args.topic).await?;
    let member = &args.group;
    let builder = Consumer::group(&client, group)
        .topics([&args.topic])
        .session_timeout(member.session_timeout)
        .client_id(concat!("seriatim-consume/", env!("CARGO_PKG_VERSION")))
        .reset(match member.reset {
            Reset::Start => ResetPolicy::Start,
            Reset::End => ResetPolicy::End,
            Reset::Fail => ResetPolicy::Fail,
        })
        .on_rebalance(|change, _handle| {
            tell_change(&change);
            std::future::ready(())
        });
    let builder = match &member.instance_id {
        Some(id) => builder.instance_id(id),
        None => builder,
    };
    Ok(builder.build().await?)
}

async fn copy(
    consumer: &mut GroupConsumer,
    args: &Args,
    mut end: Pin<&mut impl Future<Output = End>>,
) -> anyhow::Result<End> {
    let mut left = args.count.unwrap_or(u64::MAX);
    while left > 0 {
        let batch = tokio::select! {
            biased;
            end = end.as_mut() => return Ok(end),
            batch = consumer.next() => batch,
        };
        let batch = Printing(Some(batch.context("the member has ended")??));
        let mut printing = pin!(print(batch, args, left));
        tokio::select! {
            biased;
            written = printing.as_mut() => left -= written?,
            end = end.as_mut() => {
                // Given up where nobody reads it, and it comes again.
                if let Ok(written) = clock::timeout(GRACE, printing).await {
                    let _records = written?;
                }
                return Ok(end);
            }
        }
    }
    Ok(End::Done)
}

/// A batch that is given up unless it is printed.
struct Printing(Option<GroupBatch>);

impl Drop for Printing {
    fn drop(&mut self) {
        if let Some(batch) = self.0.take() {
            batch.abandon();
        }
    }
}

/// Prints at most so many records of a batch, and only then says that they are processed.
async fn print(mut batch: Printing, args: &Args, limit: u64) -> anyhow::Result<u64> {
    let Some(inner) = &batch.0 else { return Ok(0) };
    let first = inner.first_offset();
    let mut lines = Vec::new();
    let written = write_batch(inner, None, limit, args.output, &mut lines)?;
    // Compaction aside, offsets are dense, so a count is a distance.
    let next = match u64::try_from(inner.record_count()) {
        Ok(all) if written == all => inner.next_offset(),
        _ => Offset(first.0 + i64::try_from(written)?),
    };
    // Elsewhere, because who reads may be slow, and heartbeats go on meanwhile.
    let printed = task::blocking("stdout", move || {
        let mut out = io::stdout().lock();
        out.write_all(&lines).and_then(|()| out.flush())
    });
    printed.await?;
    if let Some(batch) = batch.0.take() {
        batch.processed_until(next);
    }
    Ok(written)
}

fn tell_change(change: &Rebalance) {
    let (what, partitions) = match change {
        Rebalance::Assigned(partitions) => ("assigned", partitions),
        Rebalance::Revoked(partitions) => ("given back", partitions),
        Rebalance::Lost(partitions) => ("lost", partitions),
    };
    let names: Vec<_> = partitions.iter().map(TopicPartition::to_string).collect();
    tell(&format!("{what}: {}", names.join(", ")));
}
