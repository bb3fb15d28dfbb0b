//! Batches behind a proposal that was refused.

use seriatim_proto::{
    batch::RecordBatch, compression::Compression, ids::Offset, record::BatchBuilder,
};
use seriatim_runtime::clock;

use crate::{
    Group, Proposal, ProposeError, Reply,
    group_tests::{Cluster, PATIENCE},
};

/// Proposes a batch of one record; the answer of the state machine.
async fn propose(group: &Group, term: u64, after: Option<u64>) -> Result<Reply, ProposeError> {
    let mut builder = BatchBuilder::new(Compression::None);
    let _bytes = builder.push(0, None, Some(b"value"), &[]).unwrap();
    let batch = RecordBatch::from_producer(builder.finish(None).unwrap()).unwrap();
    let proposal = Proposal::Batch { batch, after };
    let pending = group.submit(proposal, term).await.unwrap();
    let answer = clock::timeout(PATIENCE, pending).await.expect("an answer");
    answer.map(|applied| applied.reply)
}

#[tokio::test]
async fn a_batch_that_assumes_one_that_was_refused_is_left_out() {
    let cluster = Cluster::start(1).await;
    let (leader, term) = cluster.leader(0, &[0, 1, 2]).await;
    let group = cluster.group(leader, 0);
    let stored = |at| {
        Ok(Reply::Batch {
            base_offset: Offset(at),
        })
    };
    let before = group.refusals();
    assert_eq!(propose(group, term, Some(before)).await, stored(0));

    let refused = propose(group, term + 1, Some(before)).await;
    assert!(
        matches!(refused, Err(ProposeError::NotLeader { .. })),
        "{refused:?}"
    );
    assert_eq!(group.refusals(), before + 1);

    assert_eq!(propose(group, term, Some(before)).await, Ok(Reply::None));
    assert_eq!(propose(group, term, None).await, stored(1));
    assert_eq!(propose(group, term, Some(before + 1)).await, stored(2));
    cluster.stop().await;
}
