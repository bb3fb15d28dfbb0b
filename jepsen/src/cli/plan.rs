//! What decides a run besides its seed; the same for the command that people call and for the process
//! of each seed.

use std::{ffi::OsString, path::PathBuf, time::Duration};

use seriatim_jepsen::sim::run::Options;

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
    /// Write what fails, and of a single seed everything, to this folder.
    #[arg(long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
}

impl Plan {
    /// The options of one seed.
    pub(crate) fn options(&self, seed: u64) -> Options {
        let options = Options {
            faults_for: Duration::from_secs(self.seconds),
            lying_disks: self.plant_lying_disks,
            ..Options::default()
        };
        options.of_seed(seed)
    }

    /// The arguments that make the same plan.
    pub(crate) fn args(&self) -> Vec<OsString> {
        let mut args = self.decisive();
        if let Some(out) = &self.out {
            args.extend(["--out".into(), out.into()]);
        }
        args
    }

    /// Those that decide what happens, without where it is written.
    fn decisive(&self) -> Vec<OsString> {
        let mut args: Vec<OsString> = vec!["--seconds".into(), self.seconds.to_string().into()];
        if self.plant_lying_disks {
            args.push("--plant-lying-disks".into());
        }
        args
    }

    /// The command that runs one seed again.
    pub(crate) fn replay(&self, seed: u64) -> String {
        let args = self.decisive();
        let args: Vec<_> = args.iter().map(|arg| arg.to_string_lossy()).collect();
        format!("seriatim-jepsen run --sim --seed {seed} {}", args.join(" "))
    }
}
