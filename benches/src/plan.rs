//! What is asked for, checked.

use std::{num::NonZeroU64, path::PathBuf, time::Duration};

use anyhow::ensure;
use seriatim_client::Compression;

use crate::args::{Cli, Command, Durability, Options};

const DEFAULT_NODES: u32 = 3;
/// Largest record value: a batch must hold it.
const RECORD_BYTES_MAX: usize = 8 << 20;

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    Produce,
    /// Bytes of values to fill the topic with before it is read.
    Consume {
        fill_bytes: u64,
    },
    EndToEnd,
    Mixed,
}

impl Mode {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Produce => "produce",
            Self::Consume { .. } => "consume",
            Self::EndToEnd => "end-to-end",
            Self::Mixed => "mixed",
        }
    }
}

/// The load.
#[derive(Debug, Clone)]
pub(crate) struct Load {
    pub(crate) mode: Mode,
    pub(crate) rate: Option<NonZeroU64>,
    pub(crate) record_size: usize,
    pub(crate) partitions: i32,
    pub(crate) replicas: u32,
    pub(crate) clients: u16,
    pub(crate) compression: Compression,
    pub(crate) durability: Durability,
    pub(crate) seconds: Duration,
    pub(crate) warmup: Duration,
    pub(crate) batch_bytes: usize,
    pub(crate) linger: Duration,
    pub(crate) buffer_bytes: usize,
}

/// The cluster under load.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Target {
    /// One that runs.
    Running { servers: String },
    /// One that is started and stopped.
    Own {
        nodes: u32,
        /// Absent: the one beside this program.
        binary: Option<PathBuf>,
        /// The binary to compare with, and the runs of each.
        compare: Option<(PathBuf, u32)>,
    },
}

/// A checked command line.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) load: Load,
    pub(crate) target: Target,
    /// Folder for data and for measuring the disk; the system's temporary one if absent.
    pub(crate) dir: Option<PathBuf>,
    pub(crate) baseline: bool,
    pub(crate) json: bool,
}

impl Plan {
    pub(crate) fn check(cli: Cli) -> anyhow::Result<Self> {
        let (mode, options) = match cli.command {
            Command::Produce(options) => (Mode::Produce, options),
            Command::Consume { fill_mb, options } => {
                let fill_bytes = fill_mb.saturating_mul(1_000_000);
                (Mode::Consume { fill_bytes }, options)
            }
            Command::EndToEnd(options) => (Mode::EndToEnd, options),
            Command::Mixed(options) => (Mode::Mixed, options),
        };
        check_load(mode, &options)?;
        let load = Load {
            mode,
            rate: options.rate,
            record_size: options.record_size,
            partitions: options.partitions,
            replicas: options.replicas,
            clients: options.clients,
            compression: options.compression,
            durability: options.durability,
            seconds: Duration::from_secs(options.seconds),
            warmup: Duration::from_secs(options.warmup_seconds),
            batch_bytes: options.batch_bytes,
            linger: Duration::from_millis(options.linger_ms),
            buffer_bytes: options.buffer_bytes,
        };
        let (baseline, json, dir) = (!options.no_baseline, options.json, options.data_dir.clone());
        Ok(Self {
            load,
            target: target(options)?,
            dir,
            baseline,
            json,
        })
    }
}

fn check_load(mode: Mode, options: &Options) -> anyhow::Result<()> {
    ensure!(
        (1..=RECORD_BYTES_MAX).contains(&options.record_size),
        "--record-size: {} is not between 1 and {RECORD_BYTES_MAX}",
        options.record_size
    );
    ensure!(
        options.batch_bytes > 0,
        "--batch-bytes: a batch has at least one byte"
    );
    ensure!(
        options.buffer_bytes >= options.batch_bytes.max(options.record_size + 1024),
        "--buffer-bytes: {} is less than one batch or one record",
        options.buffer_bytes
    );
    ensure!(
        !(matches!(mode, Mode::Consume { .. }) && options.rate.is_some()),
        "--rate: `consume` reads as fast as it goes"
    );
    Ok(())
}

fn target(options: Options) -> anyhow::Result<Target> {
    if let Some(servers) = options.servers {
        return Ok(Target::Running { servers });
    }
    let nodes = options.nodes.unwrap_or(DEFAULT_NODES);
    ensure!(
        options.replicas <= nodes,
        "--replicas: {} replicas need as many nodes, there are {nodes}",
        options.replicas
    );
    Ok(Target::Own {
        nodes,
        binary: options.seriatim_bin,
        compare: options.compare_bin.map(|other| (other, options.runs)),
    })
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    fn plan(arguments: &str) -> anyhow::Result<Plan> {
        let arguments = ["seriatim-bench"]
            .into_iter()
            .chain(arguments.split_whitespace());
        Plan::check(Cli::try_parse_from(arguments)?)
    }

    #[test]
    fn defaults() {
        let plan = plan("produce").unwrap();
        assert_eq!(plan.load.mode, Mode::Produce);
        assert_eq!((plan.load.record_size, plan.load.partitions), (1024, 6));
        assert_eq!((plan.load.replicas, plan.load.rate), (3, None));
        assert_eq!(plan.load.seconds, Duration::from_secs(10));
        assert!(plan.baseline && !plan.json);
        let own = Target::Own {
            nodes: 3,
            binary: None,
            compare: None,
        };
        assert_eq!(plan.target, own);
    }

    #[test]
    fn every_mode_is_understood() {
        let mode = |arguments| plan(arguments).unwrap().load.mode;
        let fill_bytes = 5_000_000;
        assert_eq!(mode("consume --fill-mb 5"), Mode::Consume { fill_bytes });
        assert_eq!(mode("end-to-end --rate 100"), Mode::EndToEnd);
        assert_eq!(mode("mixed --compression zstd"), Mode::Mixed);
    }

    #[test]
    fn a_running_cluster_excludes_options_of_an_own_one() {
        let running = plan("produce --servers a:1,b:2").unwrap().target;
        let servers = "a:1,b:2".to_owned();
        assert_eq!(running, Target::Running { servers });
        for other in ["--nodes 3", "--seriatim-bin x", "--compare-bin x"] {
            let both = format!("produce --servers a:1 {other}");
            assert!(plan(&both).is_err(), "{both}");
        }
    }

    #[test]
    fn wrong_values_are_refused_with_the_name_of_the_flag() {
        for (arguments, flag) in [
            ("produce --record-size 0", "--record-size"),
            ("produce --rate 0", "--rate"),
            ("produce --nodes 1", "--replicas"),
            ("produce --partitions 0", "--partitions"),
            ("produce --clients 0", "--clients"),
            ("produce --batch-bytes 0", "--batch-bytes"),
            ("produce --buffer-bytes 100", "--buffer-bytes"),
            ("produce --compression best", "--compression"),
            ("produce --durability maybe", "--durability"),
            ("produce --seconds 0", "--seconds"),
            ("produce --runs 3", "--compare-bin"),
            ("consume --rate 10", "--rate"),
            ("consume --fill-mb 0", "--fill-mb"),
        ] {
            let error = plan(arguments).unwrap_err().to_string();
            assert!(error.contains(flag), "{arguments}: {error}");
        }
    }

    #[test]
    fn two_binaries_are_compared_in_runs() {
        let target = plan("produce --compare-bin old --runs 5").unwrap().target;
        let own = Target::Own {
            nodes: 3,
            binary: None,
            compare: Some((PathBuf::from("old"), 5)),
        };
        assert_eq!(target, own);
    }
}
