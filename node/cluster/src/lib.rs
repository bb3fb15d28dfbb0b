//! Who owns what: the metadata group, placement, membership and the reconciler that opens and
//! closes this node's partitions as the image says.
//!
//! | module | what it is |
//! |---|---|
//! | [`image`], [`command`], `apply`, `apply_moves`, `apply_nodes` | the pure half: what there is and how it changes |
//! | [`placement`], [`plan`] | where replicas go, and which moves that takes |
//! | `machine`, `store`, `records` | the metadata group's state machine, in sled |
//! | `control`, `intents` | commands to the node that leads the metadata group, and its answers |
//! | `bootstrap`, `founding`, `own_replica`, `probe` | how a node founds, joins or finds its cluster |
//! | `membership`, `steer` | the metadata group's members, and what its leader decides by itself |
//! | `moving` | the members of a partition's group, made to agree with the image |
//! | `balance`, `stopping` | leaderships go where they belong, and away from a node that stops |
//! | `reconcile`, `replica`, `opened` | this node's partitions, made to agree with the image |
//! | `internal` | the seam to the layer that runs the partitions of internal topics |
//! | `leaders`, `gossip` | who leads what |
//! | `retention` | looks after old records |
//! | `leaders`, `gossip`, `notices` | who leads what, and what an operator should hear of |
//!
//! It knows nothing of how a record is stored or what a client asks for.

mod admin;
mod apply;
mod apply_moves;
mod apply_nodes;
mod balance;
mod bootstrap;
mod cluster;
pub mod command;
mod control;
mod error;
mod founding;
mod gossip;
pub mod image;
mod intents;
mod internal;
mod leaders;
mod machine;
mod membership;
pub mod metrics;
mod moving;
mod notices;
mod opened;
mod own_replica;
pub mod placement;
pub mod plan;
mod probe;
mod reconcile;
mod records;
mod replica;
mod retention;
mod steer;
mod stopping;
mod store;
mod validate;

pub use admin::PlannedMove;
pub use cluster::{Cluster, ClusterOptions, CreateTopic};
pub use command::Refusal;
pub use error::ClusterError;
pub use image::{Image, NodeInfo, PartitionInfo, Replica, Topic};
pub use internal::{GROUPS_PARTITIONS, GROUPS_TOPIC, Hosted, InternalHost, NoHost, is_internal};
pub use leaders::Leader;
pub use moving::Stage;
pub use replica::{LocalReplica, LocalState};

/// A new identity. From the runtime's randomness, so that the simulator replays it.
fn new_id() -> String {
    let random =
        u128::from(seriatim_runtime::rng::u64()) << 64 | u128::from(seriatim_runtime::rng::u64());
    uuid::Builder::from_random_bytes(random.to_be_bytes())
        .into_uuid()
        .to_string()
}
