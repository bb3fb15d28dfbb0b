//! Planted bugs, to prove that the fault injection finds them.
//!
//! A mutant stands where a person would make that mistake, behind `if mutant::on(..)`. Without the
//! feature `mutants` that is a constant `false`, and nothing of it, not even its name, is in the
//! binary. With it one mutant is chosen by its name, once for the whole process. `jepsen/mutants`
//! says of each what it breaks and who must find it.

#[cfg(all(feature = "mutants", not(debug_assertions)))]
compile_error!(
    "the feature `mutants` plants bugs on purpose and is refused in a build without debug \
     assertions: use `--profile mutants`, or leave the feature out"
);

/// Defines the mutants with their names.
macro_rules! mutants {
    ($($(#[$doc:meta])+ $mutant:ident = $name:literal,)+) => {
        /// A planted bug.
        #[derive(Clone, Copy, PartialEq, Eq)]
        #[cfg_attr(feature = "mutants", derive(Debug))]
        #[cfg_attr(
            not(feature = "mutants"),
            expect(missing_debug_implementations, reason = "no name of one is in a shipped binary")
        )]
        pub enum Mutant {
            $($(#[$doc])+ $mutant,)+
        }

        #[cfg(feature = "mutants")]
        impl Mutant {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$mutant,)+];

            /// Its name on the command line.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$mutant => $name,)+
                }
            }
        }
    };
}

mutants! {
    /// A round of appends is acknowledged without a sync.
    AckBeforeFsync = "ack-before-fsync",
    /// A leader takes entries that it sent for entries that its followers hold.
    AckBeforeQuorum = "ack-before-quorum",
    /// A vote is answered without a sync.
    VoteNotSynced = "vote-not-synced",
    /// A vote goes to everyone who asks in a term.
    VoteForTwo = "vote-for-two",
    /// A new file's name is not made durable.
    DirNotSynced = "dir-not-synced",
    /// A torn tail is cut at the block before it, with the whole frames there.
    TornTailDropsFrames = "torn-tail-drops-frames",
    /// Recovery leaves a torn tail, and the log goes on behind it.
    TornTailAccepted = "torn-tail-accepted",
    /// Recovery takes every damage for a torn tail.
    DamageCutInSilence = "damage-cut-in-silence",
    /// A frame that is read from the disk is not checked.
    CrcUncheckedOnRead = "crc-unchecked-on-read",
    /// A batch that a producer sends is not checked.
    CrcUncheckedOnReceipt = "crc-unchecked-on-receipt",
    /// A reader begins at the entry of the sparse index behind the one it needs.
    IndexOffByOne = "index-off-by-one",
    /// A reader that goes on in the next file passes over an offset.
    SegmentBoundarySkips = "segment-boundary-skips",
    /// A log that is opened loses what it did not know to be committed.
    RestartTruncatesBelowCommit = "restart-truncates-below-commit",
    /// A conflicting suffix is cut one entry too early.
    TruncateOneTooMany = "truncate-one-too-many",
    /// A cut suffix gives back its indexes but not its offsets.
    OffsetsNotTruncated = "offsets-not-truncated",
    /// What is in the log of a node that starts is taken for committed.
    LogEndTakenForCommitted = "log-end-taken-for-committed",
    /// A new leader takes what its predecessors left in its log for committed.
    CommitsOlderTerm = "commits-older-term",
    /// Readers get what is in the leader's log, committed or not.
    ReadAboveHighWatermark = "read-above-high-watermark",
    /// A leader denies an offset without asking whether it still leads.
    EndNotConfirmed = "end-not-confirmed",
    /// A new leader serves before it knows what its predecessor committed.
    ServesBeforeReady = "serves-before-ready",
    /// A new leader decides about batches before it knows what its predecessor committed.
    DecidesBeforeReady = "decides-before-ready",
    /// A new leader begins with an empty table of producers.
    ProducersLostOnFailover = "producers-lost-on-failover",
    /// A boundary holds no producers.
    ProducersLostInBoundary = "producers-lost-in-boundary",
    /// A boundary is the state before its last entry.
    BoundaryOffByOne = "boundary-off-by-one",
    /// A batch may come before those that its producer sent earlier.
    GapAccepted = "gap-accepted",
    /// A repeated batch is answered with the place where it would have gone.
    DuplicateWrongOffset = "duplicate-wrong-offset",
    /// The expected end is compared while other batches are on their way.
    WrongEndChecked = "wrong-end-checked",
    /// Blocks of producer ids are given out again.
    ProducerIdsReused = "producer-ids-reused",
    /// A member may commit what another member owns.
    CommitNotFenced = "commit-not-fenced",
    /// A member gets a partition while another owns it.
    PartitionToTwo = "partition-to-two",
    /// A member that is silent stays for ever.
    SessionExpiryIgnored = "session-expiry-ignored",
    /// What a member lets go of stays its own.
    ReleaseIgnored = "release-ignored",
    /// A coordinator answers without asking whether it still is one.
    StaleCoordinatorServes = "stale-coordinator-serves",
    /// A node names a coordinator whose address it has not heard of.
    CoordinatorWithoutAddress = "coordinator-without-address",
    /// The position of a shard is stored without what changed on the way to it.
    GroupOffsetsNotStored = "group-offsets-not-stored",
    /// A replica that comes back to a node gets the id that it had there.
    ReplicaIdReused = "replica-id-reused",
    /// A move is called finished when the new replicas are known to the group.
    MoveFinishedEarly = "move-finished-early",
    /// One file too many is removed with the old part of a log.
    PurgeOneTooMany = "purge-one-too-many",
    /// A leader moves the log start before the others have agreed.
    TrimBeforeCommit = "trim-before-commit",
    /// Only the leader that moved the log start knows of it.
    LogStartOnlyOnLeader = "log-start-only-on-leader",
}

/// Whether this bug is to happen: never in what is shipped.
#[cfg(not(feature = "mutants"))]
#[inline(always)]
#[must_use]
pub const fn on(_mutant: Mutant) -> bool {
    false
}

#[cfg(feature = "mutants")]
pub use chosen::{UnknownMutant, choose, chosen, on};

#[cfg(feature = "mutants")]
mod chosen {
    use std::sync::OnceLock;

    use super::Mutant;

    static CHOSEN: OnceLock<Mutant> = OnceLock::new();

    /// Why no mutant was chosen.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub enum UnknownMutant {
        /// There is none of this name.
        Name(String),
        /// This process has another one already.
        Chosen(&'static str),
    }

    impl std::error::Error for UnknownMutant {}

    impl std::fmt::Display for UnknownMutant {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            match self {
                Self::Name(name) => {
                    write!(f, "there is no mutant '{name}'; jepsen/mutants has all")
                }
                Self::Chosen(name) => write!(f, "this process has the mutant '{name}' already"),
            }
        }
    }

    /// Lets the bug of this name happen in this process, from now on.
    pub fn choose(name: &str) -> Result<(), UnknownMutant> {
        let mut all = Mutant::ALL.iter().copied();
        let mutant = all.find(|mutant| mutant.name() == name);
        let mutant = mutant.ok_or_else(|| UnknownMutant::Name(name.to_owned()))?;
        let chosen = *CHOSEN.get_or_init(|| mutant);
        if chosen == mutant {
            return Ok(());
        }
        Err(UnknownMutant::Chosen(chosen.name()))
    }

    /// The name of the bug that happens in this process.
    #[must_use]
    pub fn chosen() -> Option<&'static str> {
        CHOSEN.get().map(|mutant| mutant.name())
    }

    /// Whether this bug is to happen.
    #[must_use]
    pub fn on(mutant: Mutant) -> bool {
        CHOSEN.get() == Some(&mutant)
    }
}

#[cfg(test)]
mod tests {
    #[cfg(not(feature = "mutants"))]
    #[test]
    fn nothing_is_planted() {
        const { assert!(!super::on(super::Mutant::AckBeforeFsync)) };
    }

    #[cfg(feature = "mutants")]
    #[test]
    fn names_are_distinct_and_one_is_chosen() {
        use super::{Mutant, UnknownMutant, choose, chosen, on};

        let mut names: Vec<_> = Mutant::ALL.iter().map(|mutant| mutant.name()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Mutant::ALL.len());
        assert!(!on(Mutant::VoteForTwo) && chosen().is_none());
        let unknown = choose("none-of-them");
        assert_eq!(unknown, Err(UnknownMutant::Name("none-of-them".to_owned())));
        choose("vote-for-two").unwrap();
        assert_eq!(chosen(), Some("vote-for-two"));
        assert!(on(Mutant::VoteForTwo) && !on(Mutant::AckBeforeFsync));
        choose("vote-for-two").unwrap();
        assert_eq!(
            choose("ack-before-fsync"),
            Err(UnknownMutant::Chosen("vote-for-two"))
        );
    }
}
