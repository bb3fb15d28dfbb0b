//! Many clients that write as fast as they can.

use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use futures::StreamExt as _;
use seriatim_proto::v1::ErrorCode;
use tokio::{task::JoinSet, time::Instant};
use tokio_stream::wrappers::ReceiverStream;

use crate::{
    cluster::Cluster,
    grpc::{self, Api, request},
    procfs,
};

/// Requests that a client has under way.
const IN_FLIGHT: usize = 5;
/// What a node may hold for a connection whatever its budget: the connection's window of HTTP/2.
pub const CONNECTION_BYTES: u64 = 4 << 20;

/// Pause between two looks at the node's memory.
const LOOK: Duration = Duration::from_millis(50);

/// How hard to press.
#[derive(Debug, Clone, Copy)]
pub struct Pressure {
    /// Clients, each with a connection of its own.
    pub clients: usize,
    /// Size of a batch.
    pub batch_bytes: usize,
    /// How long.
    pub time: Duration,
}

/// What came of it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Pressed {
    /// Batches stored.
    pub stored: u64,
    /// Batches refused because the node holds as much as it may.
    pub refused: u64,
    /// Most memory that the node had at any time.
    pub peak_bytes: u64,
}

/// Every client sends batches to partition 0 of a topic on a one-node cluster, half of them in
/// streams and half in single calls, with several under way at any time.
///
/// # Errors
/// If a batch fails for any reason but the limit, or the node ends.
pub async fn press(cluster: &Cluster, topic: &str, how: Pressure) -> anyhow::Result<Pressed> {
    let node = cluster.nodes().first().context("no node")?;
    let pid = node.pid()?;
    let value = "m".repeat(how.batch_bytes);
    let batch = grpc::batch(0, &[&value])?;
    let until = Instant::now() + how.time;
    let mut clients = JoinSet::new();
    for number in 0..how.clients {
        let api = Api::connect(&node.addresses.grpc).await?;
        let (topic, batch) = (topic.to_owned(), batch.clone());
        let _handle = if number % 2 == 0 {
            clients.spawn(stream(api, topic, batch, until))
        } else {
            clients.spawn(calls(api, topic, batch, until))
        };
    }
    let mut pressed = Pressed::default();
    loop {
        tokio::select! {
            ended = clients.join_next() => match ended {
                Some(client) => {
                    let (stored, refused) = client??;
                    pressed.stored += stored;
                    pressed.refused += refused;
                }
                None => return Ok(pressed),
            },
            () = tokio::time::sleep(LOOK) => {}
        }
        pressed.peak_bytes = pressed.peak_bytes.max(procfs::resident_bytes(pid)?);
    }
}

/// Batches stored and refused.
type Count = (u64, u64);

async fn calls(api: Api, topic: String, batch: Bytes, until: Instant) -> anyhow::Result<Count> {
    let call = |_number| {
        let (mut api, to) = (api.clone(), grpc::to(&topic, batch.clone()));
        async move { anyhow::Ok(api.produce(to).await?.error.map(|error| error.code())) }
    };
    let more = |_: &usize| futures::future::ready(Instant::now() < until);
    let answers = futures::stream::iter(0..usize::MAX).take_while(more);
    let mut answers = answers.map(call).buffer_unordered(IN_FLIGHT);
    let mut count = Count::default();
    while let Some(code) = answers.next().await {
        add(&mut count, code?)?;
    }
    Ok(count)
}

async fn stream(
    mut api: Api,
    topic: String,
    batch: Bytes,
    until: Instant,
) -> anyhow::Result<Count> {
    let (sender, requests) = tokio::sync::mpsc::channel(IN_FLIGHT);
    let produce = move || request(0, vec![grpc::to(&topic, batch.clone())]);
    sender.send(produce()).await?;
    let mut answers = api
        .log
        .produce_stream(ReceiverStream::new(requests))
        .await?
        .into_inner();
    // The connection's windows, and not the answers, say how much is under way.
    let sending = async {
        while Instant::now() < until {
            sender.send(produce()).await?;
        }
        drop(sender);
        anyhow::Ok(())
    };
    let counting = async {
        let mut count = Count::default();
        while let Some(answer) = answers.message().await? {
            let result = answer.results.first().context("no result")?;
            add(
                &mut count,
                result.error.as_ref().map(seriatim_proto::v1::Error::code),
            )?;
        }
        anyhow::Ok(count)
    };
    let (sent, count) = tokio::join!(sending, counting);
    sent?;
    count
}

fn add((stored, refused): &mut Count, code: Option<ErrorCode>) -> anyhow::Result<()> {
    match code {
        None => *stored += 1,
        Some(ErrorCode::Overloaded) => *refused += 1,
        Some(other) => anyhow::bail!("refused with {other:?}"),
    }
    Ok(())
}
