//! What decides a run in simulation besides its seed; the same for the command that people call and for
//! the process of each seed.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    time::Duration,
};

use seriatim_jepsen::sim::{run::Options, schedule::Schedule};

/// What both worlds know.
#[derive(Debug, Clone, clap::Args)]
#[group(skip)]
pub(crate) struct Given {
    /// Break what this file says instead of what the seed says.
    #[arg(long, value_name = "FILE")]
    pub(crate) schedule: Option<PathBuf>,
    /// A folder for what a run leaves, made if it is not there. In simulation each seed that fails
    /// has a folder in it.
    #[arg(long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
}

#[derive(Debug, Clone, clap::Args)]
#[group(skip)]
pub(crate) struct Plan {
    /// Virtual seconds in which faults begin.
    #[arg(long, default_value_t = 60, value_name = "SECONDS",
          value_parser = clap::value_parser!(u64).range(1..=86_400))]
    seconds: u64,
    /// Plant a bug, to see it found: disks that answer a sync and do nothing.
    #[arg(long)]
    plant_lying_disks: bool,
}

impl Plan {
    /// The options of one seed.
    pub(crate) fn options(&self, seed: u64, given: &Given) -> anyhow::Result<Options> {
        let mut options = Options {
            faults_for: Duration::from_secs(self.seconds),
            lying_disks: self.plant_lying_disks,
            ..Options::default()
        }
        .of_seed(seed);
        if let Some(path) = &given.schedule {
            let schedule = Schedule::read(path, options.nodes).map_err(anyhow::Error::msg)?;
            options.schedule = Some(schedule);
        }
        Ok(options)
    }

    /// The arguments that make the same run.
    pub(crate) fn args(&self, given: &Given) -> Vec<OsString> {
        let mut args = self.decisive(given);
        if let Some(out) = &given.out {
            args.extend(["--out".into(), out.into()]);
        }
        args
    }

    /// Virtual seconds in which faults begin.
    pub(crate) fn seconds(&self) -> u64 {
        self.seconds
    }

    /// The same, with another length and schedule, that leaves nothing behind.
    pub(crate) fn other(&self, seconds: u64, schedule: &Path) -> (Self, Given) {
        let plan = Self {
            seconds,
            ..self.clone()
        };
        let given = Given {
            schedule: Some(schedule.to_owned()),
            out: None,
        };
        (plan, given)
    }

    /// Those that decide what happens, without where it is written.
    pub(crate) fn decisive(&self, given: &Given) -> Vec<OsString> {
        let mut args: Vec<OsString> = vec!["--seconds".into(), self.seconds.to_string().into()];
        if self.plant_lying_disks {
            args.push("--plant-lying-disks".into());
        }
        if let Some(schedule) = &given.schedule {
            args.extend(["--schedule".into(), schedule.into()]);
        }
        args
    }

    /// The command that runs one seed again.
    pub(crate) fn replay(&self, seed: u64, given: &Given) -> String {
        let args = self.decisive(given);
        let args: Vec<_> = args.iter().map(|arg| arg.to_string_lossy()).collect();
        format!("seriatim-jepsen run --sim --seed {seed} {}", args.join(" "))
    }
}
