//! A producer that has several batches on their way at once, each sent on its own: they overtake each
//! other, are lost and come again, and must stand in their order all the same.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use futures::{StreamExt as _, stream::FuturesOrdered};
use seriatim_proto::limits::PRODUCER_WINDOW;
use seriatim_runtime::rng;

use super::{
    client::Client,
    workload::{Batch, record_bytes, session, values},
};

/// Appends to one partition with a producer session, some batches at a time: the next ones when all of
/// them are acknowledged.
pub(super) async fn pipelined(client: Client, producer: u32, partition: i32, pause: Duration) {
    let Some(session) = session(&client).await else {
        return;
    };
    let processes: Vec<_> = (0..PRODUCER_WINDOW)
        .map(|_| client.recorder.process())
        .collect();
    let (mut next, mut node) = (0, client.any_node());
    while !client.stopping() {
        let acknowledged = AtomicUsize::new(0);
        let most = u64::try_from(processes.len()).unwrap_or(1);
        let count = usize::try_from(1 + rng::below(most)).unwrap_or(1);
        let mut under_way = FuturesOrdered::new();
        for (place, &process) in processes.iter().take(count).enumerate() {
            let sequence = i32::try_from(next).unwrap_or(i32::MAX);
            let batch = Batch {
                session: &session,
                sequence,
                partition,
                values: values(producer, &mut next),
                record_bytes: record_bytes(),
            };
            let (client, acknowledged) = (&client, &acknowledged);
            // Before those ahead of it are there, it may be refused as one that leaves a gap.
            let follows = move || acknowledged.load(Ordering::Relaxed) < place;
            under_way.push_back(async move {
                let mut node = node;
                let known = batch.deliver(client, process, &mut node, &follows).await;
                let _before = acknowledged.fetch_add(usize::from(known), Ordering::Relaxed);
                (known, node)
            });
        }
        let mut all_known = true;
        while let Some((known, at)) = under_way.next().await {
            all_known &= known;
            node = at;
        }
        if !all_known {
            // Without an answer the next sequence number is not known: this session is over.
            return;
        }
        client.pause(pause).await;
    }
}
