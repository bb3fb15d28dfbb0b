//! A process for each seed, several at a time.
//!
//! Each seed begins with a process that has done nothing: the same counters, the same caches. And a seed
//! that panics, aborts or never ends is a finding of that seed alone.

use std::{
    ffi::{OsStr, OsString},
    io,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    time::Duration,
};

use futures::{StreamExt as _, stream};
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _},
    process::Command,
};

use super::outcome::Outcome;

/// Most bytes that a child's result may have.
const RESULT_BYTES_MAX: usize = 16 << 20;

/// What is kept of a child's standard error: its end.
const STDERR_BYTES: usize = 32 << 10;

/// The variable by which a child learns which planted bug is its own: that of this process.
#[cfg(feature = "mutants")]
pub const MUTANT: &str = "SERIATIM_MUTANT";

/// How the children are started.
#[derive(Debug, Clone)]
pub struct Fleet {
    /// The program.
    pub program: PathBuf,
    /// Its arguments; the number of the seed is added.
    pub args: Vec<OsString>,
    /// At the same time.
    pub jobs: usize,
    /// Longest that one may take.
    pub limit: Duration,
    /// Each seed is run twice, to compare.
    pub twice: bool,
    /// Each event goes to this file, and those of the second run to [`Fleet::again`].
    pub trace: Option<PathBuf>,
    /// Children write to this process's standard error.
    pub loud: bool,
}

/// How a child ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum End {
    /// It said what came of the seed.
    Told(Box<Outcome>),
    /// It ended without a word, or with one that cannot be understood.
    Died {
        /// How.
        how: String,
        /// The end of its standard error.
        stderr: String,
    },
    /// It did not end in time and was killed.
    Hung {
        /// The end of its standard error.
        stderr: String,
    },
}

/// A seed that was run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Done {
    /// The seed.
    pub seed: u64,
    /// How its process ended.
    pub end: End,
    /// How the second one ended, if it was run twice.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub again: Option<End>,
}

impl Done {
    /// A seed that was run once and told what came of it.
    #[cfg(test)]
    pub(crate) fn told(seed: u64, outcome: super::outcome::Outcome) -> Self {
        Self {
            seed,
            end: End::Told(Box::new(outcome)),
            again: None,
        }
    }

    /// What is wrong with this seed, in words; empty if nothing is.
    pub fn wrong(&self) -> Vec<String> {
        let mut wrong = match &self.end {
            End::Told(outcome) => {
                let broken = |check: &super::outcome::Check| {
                    let (name, first) = (&check.checker, check.violations.first()?);
                    Some(format!("{name}: {first}"))
                };
                outcome.checks.iter().filter_map(broken).collect()
            }
            End::Died { how, stderr } => vec![format!("its process died: {how}\n{stderr}")],
            End::Hung { stderr } => vec![format!("its process did not end in time\n{stderr}")],
        };
        wrong.extend(self.differs().map(ToOwned::to_owned));
        wrong
    }

    /// Whether the first run went wrong, whatever came of a second one.
    pub fn fails(&self) -> bool {
        match &self.end {
            End::Told(outcome) => !outcome.holds(),
            End::Died { .. } | End::Hung { .. } => true,
        }
    }

    /// How the second run differs from the first; `None` if it does not, or there was none.
    pub fn differs(&self) -> Option<&'static str> {
        match (&self.end, self.again.as_ref()?) {
            (End::Told(first), End::Told(second)) => first.differs(second),
            (first, second) => (first != second).then_some("the two runs ended differently"),
        }
    }
}

impl Fleet {
    /// Runs seeds until none is left; hands over each as it is done, in any order. Dropped, it kills the
    /// children that run.
    pub async fn run(
        &self,
        seeds: impl Iterator<Item = u64>,
        mut each: impl FnMut(Done) -> io::Result<()>,
    ) -> io::Result<()> {
        let mut running = stream::iter(seeds)
            .map(|seed| self.seed(seed))
            .buffer_unordered(self.jobs.max(1));
        while let Some(done) = running.next().await {
            each(done?)?;
        }
        Ok(())
    }

    async fn seed(&self, seed: u64) -> io::Result<Done> {
        let end = self.child(seed, self.trace.as_deref()).await?;
        let again = if self.twice {
            let trace = self.trace.as_deref().map(Self::again);
            Some(self.child(seed, trace.as_deref()).await?)
        } else {
            None
        };
        Ok(Done { seed, end, again })
    }

    /// Where the trace of the second run goes.
    pub fn again(trace: &Path) -> PathBuf {
        let mut again = trace.as_os_str().to_owned();
        again.push(".again");
        again.into()
    }

    async fn child(&self, seed: u64, trace: Option<&Path>) -> io::Result<End> {
        let stderr = || {
            if self.loud {
                Stdio::inherit()
            } else {
                Stdio::piped()
            }
        };
        let mut command = Command::new(&self.program);
        #[cfg(feature = "mutants")]
        if let Some(name) = seriatim_runtime::mutant::chosen() {
            let _command = command.env(MUTANT, name);
        }
        let mut child = command
            .args(&self.args)
            .args(
                trace
                    .iter()
                    .flat_map(|file| [OsStr::new("--trace"), file.as_os_str()]),
            )
            .arg(seed.to_string())
            // Memory is given back by a clock, which here is virtual: never.
            .env("MIMALLOC_PURGE_DELAY", "-1")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(stderr())
            .kill_on_drop(true)
            .spawn()?;
        let (out, err) = (child.stdout.take(), child.stderr.take());
        let (mut told, mut said) = (Vec::new(), Vec::new());
        let ended = tokio::time::timeout(self.limit, async {
            tokio::join!(
                keep(out, &mut told, RESULT_BYTES_MAX),
                keep(err, &mut said, STDERR_BYTES),
            );
            child.wait().await
        })
        .await;
        let stderr = String::from_utf8_lossy(&said).into_owned();
        Ok(match ended {
            Ok(status) => end_of(status?, &told, stderr),
            Err(_elapsed) => {
                child.kill().await?;
                End::Hung { stderr }
            }
        })
    }
}

fn end_of(status: ExitStatus, told: &[u8], stderr: String) -> End {
    let how = match serde_json::from_slice(told) {
        Ok(outcome) if status.success() => return End::Told(outcome),
        Ok(_) => status.to_string(),
        Err(error) if status.success() => format!("its result cannot be read: {error}"),
        Err(_none) => status.to_string(),
    };
    End::Died { how, stderr }
}

/// Reads to the end and keeps the last `most` bytes.
async fn keep(from: Option<impl AsyncRead + Unpin>, kept: &mut Vec<u8>, most: usize) {
    let Some(mut from) = from else { return };
    let mut part = vec![0; 64 << 10];
    while let Ok(n @ 1..) = from.read(&mut part).await {
        kept.extend_from_slice(part.get(..n).unwrap_or_default());
        if kept.len() > 2 * most {
            drop(kept.drain(..kept.len() - most));
        }
    }
    drop(kept.drain(..kept.len().saturating_sub(most)));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fleet(script: &str) -> Fleet {
        Fleet {
            program: PathBuf::from("/bin/sh"),
            args: vec!["-c".into(), script.into()],
            jobs: 3,
            limit: Duration::from_secs(20),
            twice: false,
            trace: None,
            loud: false,
        }
    }

    async fn run(fleet: &Fleet, seeds: std::ops::Range<u64>) -> Vec<Done> {
        let mut all = Vec::new();
        let each = |done| {
            all.push(done);
            Ok(())
        };
        fleet.run(seeds, each).await.unwrap();
        all.sort_by_key(|done| done.seed);
        all
    }

    fn result(seed: &str) -> String {
        format!(
            r#"echo '{{"seed":'{seed}',"checks":[],"counts":{{}},"faults":{{}},"virtual_ms":1,"history":"'$H'","trace":"","events":0}}'"#
        )
    }

    #[tokio::test]
    async fn results_are_told_and_those_that_die_are_found() {
        let script = format!(
            "if test $0 = 2; then echo oh no >&2; kill -9 $$; fi; {}",
            result("$0")
        );
        let all = run(&fleet(&script), 1..5).await;
        let wrong: Vec<_> = all.iter().map(Done::wrong).collect();
        assert_eq!(wrong.iter().filter(|wrong| wrong.is_empty()).count(), 3);
        assert!(
            wrong[1][0].contains("oh no") && wrong[1][0].contains("signal: 9"),
            "{wrong:?}"
        );
    }

    #[tokio::test]
    async fn a_child_that_never_ends_is_killed() {
        let fleet = Fleet {
            limit: Duration::from_millis(300),
            ..fleet("exec tail -f /dev/null")
        };
        let all = run(&fleet, 7..8).await;
        assert!(all[0].wrong()[0].contains("in time"), "{all:?}");
    }

    #[tokio::test]
    async fn a_second_run_that_differs_is_found() {
        let mut fleet = Fleet {
            twice: true,
            ..fleet(&format!("H=same; {}", result("$0")))
        };
        assert_eq!(run(&fleet, 0..1).await[0].differs(), None);
        fleet.args = vec!["-c".into(), format!("H=$$; {}", result("$0")).into()];
        let differs = run(&fleet, 0..1).await[0].differs();
        assert_eq!(differs, Some("the histories differ"));
    }

    #[tokio::test]
    async fn what_is_no_result_is_a_failure() {
        let all = run(&fleet("echo hello"), 0..1).await;
        assert!(all[0].wrong()[0].contains("cannot be read"), "{all:?}");
    }
}
