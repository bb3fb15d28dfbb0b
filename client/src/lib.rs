//! The client library of Seriatim, a replicated event log.
//!
//! ```no_run
//! use futures::StreamExt as _;
//! use seriatim_client::{Client, Position, ProducerRecord};
//!
//! # async fn example() -> Result<(), seriatim_client::ClientError> {
//! let client = Client::connect("seriatim://127.0.0.1:7401,127.0.0.1:7411").await?;
//!
//! let producer = client.producer().build().await?;
//! let record = ProducerRecord::new("flights", "landed").key("N14228");
//! let stored = producer.send(record).await?.await?;
//! println!("partition {}, offset {}", stored.partition, stored.offset);
//! producer.close().await?;
//!
//! let mut consumer = client.consumer().assign("flights", 0, Position::Start).build().await?;
//! while let Some(batch) = consumer.next().await {
//!     for record in batch?.records()? {
//!         println!("{:?}", record?.value);
//!     }
//! }
//! # Ok(())
//! # }
//! ```
//!
//! - A [`Producer`] batches by partition, is idempotent unless told otherwise, and keeps the order
//!   of the records of a partition through retries and leader changes.
//! - A [`Consumer`] is a stream of checked batches from explicit positions.
//! - An [`Admin`] creates topics and describes the cluster.
//!
//! Every failure is a [`ClientError`], which says whether to try again and whether anything may
//! have happened.
#![warn(missing_docs)]

mod admin;
mod channels;
mod client;
mod consumer;
mod error;
mod metadata;
mod partitioner;
mod producer;
mod rt;
mod status;

pub use seriatim_proto::{
    compression::Compression,
    ids::{Offset, PartitionId, TopicPartition},
    record::{Header, Record},
    v1::ErrorCode,
};

pub use crate::{
    admin::{Admin, NewTopic, PartitionDescription, TopicDescription},
    client::Client,
    consumer::{ConsumedBatch, ConsumedRecords, Consumer, ConsumerBuilder, Position},
    error::ClientError,
    partitioner::{murmur2, partition_for_key},
    producer::{Acks, Delivered, Delivery, Producer, ProducerBuilder, ProducerRecord},
    status::{ClusterStatus, NodeStatus, PartitionStatus, ReplicaStatus},
};
