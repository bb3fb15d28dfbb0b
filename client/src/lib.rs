//! The client library of Seriatim, a replicated event log.
//!
//! # An example
//!
//! Creates a topic, appends a record, reads it back, and appends once more only if nobody else did:
//!
//! ```no_run
//! use futures::StreamExt as _;
//! use seriatim_client::{Client, ClientError, NewTopic, Position, ProducerRecord};
//!
//! # #[tokio::main]
//! # async fn main() -> Result<(), ClientError> {
//! let client = Client::connect("seriatim://127.0.0.1:7401,127.0.0.1:7411").await?;
//! let topic = NewTopic {
//!     name: "flights".to_owned(),
//!     partitions: 6,
//!     replication_factor: 3,
//!     ..NewTopic::default()
//! };
//! client.admin().create_topic(topic).await?;
//!
//! // `send` queues a record and gives back-pressure; what it returns resolves when the record is
//! // on a majority of the replicas. Records with one key go to one partition, in order.
//! let producer = client.producer().build().await?;
//! let record = ProducerRecord::new("flights", "landed").key("N14228");
//! let stored = producer.send(record).await?.await?;
//! println!("partition {}, offset {}", stored.partition, stored.offset);
//!
//! let from = Position::Offset(stored.offset);
//! let consumer = client.consumer().assign("flights", stored.partition, from);
//! let mut consumer = consumer.build().await?;
//! if let Some(batch) = consumer.next().await {
//!     for record in batch?.records()? {
//!         println!("{:?}", record?.value);
//!     }
//! }
//!
//! let end = consumer.position("flights", stored.partition).unwrap_or_default();
//! let event = ProducerRecord::new("flights", "at the gate").key("N14228");
//! match producer.append_if("flights", stored.partition, end, vec![event]).await {
//!     Ok(appended) => println!("the next event is at {}", appended.offset),
//!     Err(error) => match error.actual_end_offset() {
//!         Some(end) => println!("somebody was faster: decide anew from offset {end}"),
//!         None => return Err(error),
//!     },
//! }
//! producer.close().await?;
//! # Ok(())
//! # }
//! ```
//!
//! # What there is
//!
//! - A [`Client`] holds the connections and knows who leads what; clones share them.
//! - A [`Producer`] batches by partition, is idempotent unless told otherwise, and keeps the order
//!   of the records of a partition through retries and leader changes. [`ProducerBuilder`] lists
//!   its options with their defaults.
//! - A [`Consumer`] is a stream of checked batches from explicit [positions](Position). It follows
//!   leadership changes without gaps or repeats.
//! - A [`GroupConsumer`], from [`Consumer::group`], shares the partitions of topics with the other
//!   members of its group, and remembers how far it is: every record is processed at least once.
//! - An [`Admin`] creates, changes and deletes topics, finds offsets, describes the cluster, and
//!   lists, describes, resets and deletes groups.
//!
//! # Groups
//!
//! ```no_run
//! # use futures::StreamExt as _;
//! # use seriatim_client::{Client, ClientError, Consumer};
//! # async fn bill(client: &Client) -> Result<(), ClientError> {
//! let mut consumer = Consumer::group(client, "billing").topics(["flights"]).build().await?;
//! while let Some(batch) = consumer.next().await {
//!     let batch = batch?;
//!     for record in batch.records()? {
//!         println!("bill {:?}", record?.value);
//!     }
//!     // Dropped: processed. It is committed after the next batch was asked for.
//! }
//! consumer.close().await?;
//! # Ok(())
//! # }
//! ```
//!
//! # Failures
//!
//! Every failure is a [`ClientError`], which answers two questions: may the same operation succeed
//! if it is tried again ([`ClientError::is_retryable`]), and has it certainly changed nothing
//! ([`ClientError::has_no_side_effects`])? Producers and consumers try again by themselves, a
//! producer within its delivery timeout: what they report is final.
//!
//! # More
//!
//! Programs to begin from are in `client/examples`: `produce`, `consume`, `group` and `append_if`
//! (event sourcing: append only if nobody else did in between).
#![warn(missing_docs)]

mod admin;
mod channels;
mod client;
mod consumer;
mod dial;
mod error;
mod group;
mod metadata;
mod moves;
mod partitioner;
mod producer;
mod rt;
mod status;
mod trim;
mod unknown;

pub use seriatim_proto::{
    compression::Compression,
    ids::{Offset, PartitionId, TopicPartition},
    record::{Header, Record},
    v1::ErrorCode,
};

#[doc(hidden)]
pub use crate::dial::{Connection, Dialer};
pub use crate::{
    admin::{Admin, NewTopic, PartitionDescription, TopicDescription},
    client::Client,
    consumer::{ConsumedBatch, ConsumedRecords, Consumer, ConsumerBuilder, Position, ResetPolicy},
    error::ClientError,
    group::{
        CommitOffset, CommittedOffset, GroupBatch, GroupBuilder, GroupConsumer, GroupDescription,
        GroupHandle, GroupList, GroupMember, GroupState, GroupSummary, OffsetChange, PartitionLag,
        Rebalance, ResetTo, Strategy,
    },
    moves::PlannedMove,
    partitioner::{murmur2, partition_for_key},
    producer::{Acks, Delivered, Delivery, Producer, ProducerBuilder, ProducerRecord},
    status::{ClusterStatus, NodeStatus, PartitionMoving, PartitionStatus, ReplicaStatus},
};
