//! What lies on the disks in the end: every replica of a partition holds the same bytes.

use seriatim_client::TopicPartition;
use seriatim_storage::Log;

use super::{
    replicas::{self, Opened},
    run::Run,
};
use crate::history::{Action, Op, Poll, Replica};

impl Run<'_> {
    /// When all replicas have caught up, what each is a replica of.
    pub(super) async fn places(&self) -> anyhow::Result<replicas::Places> {
        if let Err(error) = replicas::settle(&self.admin).await {
            self.impossible(format!("{error:#}"));
        }
        let mut nodes = Vec::new();
        for id in self.stage.cluster.ids() {
            let node = self.stage.cluster.node(id).await?;
            if node.is_running() {
                nodes.push((id, node.spec.listen.grpc));
            }
        }
        replicas::places(&nodes).await
    }

    /// Compares what lies on the disks.
    pub(super) async fn compare(&self, places: &replicas::Places) -> anyhow::Result<()> {
        let read = self.mix.read_in_the_end();
        for (node, folder) in self.stage.cluster.folders().await {
            if !places.keys().any(|(at, _)| *at == node) {
                continue;
            }
            for place in replicas::damage(&folder)? {
                self.damaged(node, &place);
            }
            let opened = Opened::open(node, &folder).await?;
            for ((topic, partition), log) in opened.known(places) {
                let used = read.contains(&TopicPartition::new(topic.as_str(), *partition));
                let key = used.then(|| self.work.keys().of(topic, *partition));
                let range = key.and_then(|key| Some((key, self.range(key)?)));
                let Some((key, (start, end))) = range else {
                    continue;
                };
                let replica = Replica {
                    key,
                    node,
                    start,
                    end,
                    digest: None,
                };
                self.digest(replica, log).await;
            }
            opened.close().await;
        }
        Ok(())
    }

    async fn digest(&self, replica: Replica, log: &anyhow::Result<Log>) {
        let Replica {
            node, start, end, ..
        } = replica;
        let process = self.recorder.process();
        let action = Action::Replica(replica.clone());
        let pending = self.recorder.invoke(process, Some(node), action);
        match replicas::digest(log, start, end).await {
            Ok(digest) => {
                let action = Action::Replica(Replica {
                    digest: Some(digest),
                    ..replica
                });
                self.recorder.ok(pending, action);
            }
            Err(error) => {
                let why = format!("{error:#}");
                self.damaged(node, &format!("offsets {start} to {end}: {why}"));
                self.recorder.fail(pending, Action::Replica(replica), why);
            }
        }
    }

    /// What is wrong on the disk of a stopped node.
    fn damaged(&self, node: u64, what: &str) {
        if self.stage.cluster.is_rotten(node) {
            // Where bits flipped late, nobody may have read them since.
            tracing::info!(node, what, "damage that nobody had found yet");
        } else {
            self.impossible(format!("node {node}: {what}"));
        }
    }

    /// From where to where a partition was read in the end.
    fn range(&self, key: u32) -> Option<(i64, i64)> {
        self.recorder.with(|ops| {
            let of = |op: &Op| match &op.action {
                Action::Poll(Poll {
                    reads,
                    is_final: true,
                    ..
                }) => {
                    let read = reads.get(&key)?;
                    Some((read.log_start?, read.high_watermark?))
                }
                _ => None,
            };
            ops.iter().rev().find_map(of)
        })
    }
}
