//! Finds the smallest schedule that still fails.
//!
//! Delta debugging: first whole parts of the schedule are left out, then single strikes; then what is left is
//! made shorter and simpler, and the run ends sooner. A strike that is left out changes nothing about the
//! others, because all were drawn before the run.

use futures::{StreamExt as _, stream};

use super::{
    fault::{Fault, Who},
    schedule::{Schedule, Strike},
};

/// Shortest that a strike is made, in milliseconds.
const LASTS_MIN_MS: u64 = 20;

/// Virtual time that a run goes on after its last strike, in seconds.
const AFTER_SECONDS: u64 = 2;

/// A run that fails.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Case {
    /// What is broken.
    pub schedule: Schedule,
    /// How long clients work, in virtual seconds.
    pub seconds: u64,
}

/// What shrinking came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shrunk {
    /// The smallest case that was found.
    pub case: Case,
    /// Runs that it took.
    pub tries: usize,
    /// Whether nothing smaller fails: each further step was tried. Otherwise the tries were used up.
    pub is_least: bool,
}

/// Shrinks a case that fails. `fails` runs a case and says whether it fails in the same way; up to `jobs`
/// run at the same time, `most` in all.
pub async fn shrink<Fut: Future<Output = bool>>(
    case: Case,
    jobs: usize,
    most: usize,
    fails: impl Fn(Case) -> Fut,
) -> Shrunk {
    let mut shrinker = Shrinker {
        case,
        jobs: jobs.max(1),
        left: most,
        fails,
    };
    shrinker.sooner().await;
    shrinker.leave_out().await;
    // Each step may make another one possible again.
    while shrinker.left > 0 && shrinker.make_simpler().await {
        shrinker.leave_out().await;
    }
    shrinker.sooner().await;
    Shrunk {
        case: shrinker.case,
        tries: most - shrinker.left,
        is_least: shrinker.left > 0,
    }
}

struct Shrinker<F> {
    /// Fails.
    case: Case,
    jobs: usize,
    /// Tries that are left.
    left: usize,
    fails: F,
}

impl<F, Fut> Shrinker<F>
where
    F: Fn(Case) -> Fut,
    Fut: Future<Output = bool>,
{
    /// Takes the first of these cases that fails; says whether there is one.
    async fn take_first(&mut self, candidates: Vec<Case>) -> bool {
        let mut candidates: Vec<Case> = candidates;
        candidates.truncate(self.left);
        let fails = &self.fails;
        let mut tried = stream::iter(&candidates)
            .map(|case| fails(case.clone()))
            .buffered(self.jobs)
            .enumerate();
        let mut found = None;
        while let Some((at, failed)) = tried.next().await {
            self.left = self.left.saturating_sub(1);
            if failed {
                found = Some(at);
                break;
            }
        }
        drop(tried);
        let Some(case) = found.and_then(|at| candidates.into_iter().nth(at)) else {
            return false;
        };
        self.case = case;
        true
    }

    fn with(&self, strikes: Vec<Strike>) -> Case {
        Case {
            schedule: Schedule {
                strikes,
                ..self.case.schedule.clone()
            },
            seconds: self.case.seconds,
        }
    }

    /// Leaves out parts, ever smaller ones, as long as what is left fails.
    async fn leave_out(&mut self) {
        let mut parts = 1;
        while self.left > 0 {
            let strikes = &self.case.schedule.strikes;
            if strikes.is_empty() {
                return;
            }
            let size = strikes.len().div_ceil(parts);
            let without = |from: usize| {
                let (before, rest) = strikes.split_at(from.min(strikes.len()));
                let after = rest.iter().skip(size);
                before.iter().chain(after).cloned().collect()
            };
            let starts = (0..strikes.len()).step_by(size);
            let candidates = starts.map(|from| self.with(without(from))).collect();
            if self.take_first(candidates).await {
                parts = parts.saturating_sub(1).max(1);
            } else if size == 1 {
                return;
            } else {
                parts = (parts * 2).min(self.case.schedule.strikes.len());
            }
        }
    }

    /// Makes each strike shorter and simpler; says whether anything came of it.
    async fn make_simpler(&mut self) -> bool {
        let mut changed = false;
        for at in 0..self.case.schedule.strikes.len() {
            while self.left > 0 {
                let strikes = &self.case.schedule.strikes;
                let Some(strike) = strikes.get(at) else {
                    break;
                };
                let replaced = |new: Strike| {
                    let mut strikes = strikes.clone();
                    if let Some(old) = strikes.get_mut(at) {
                        *old = new;
                    }
                    self.with(strikes)
                };
                let candidates = simpler(strike).into_iter().map(replaced).collect();
                if !self.take_first(candidates).await {
                    break;
                }
                changed = true;
            }
        }
        changed
    }

    /// Lets the run end soon after the last strike.
    async fn sooner(&mut self) {
        let needed = self.case.schedule.ends_ms().div_ceil(1000) + AFTER_SECONDS;
        if needed < self.case.seconds {
            let case = Case {
                seconds: needed,
                ..self.case.clone()
            };
            let _shorter = self.take_first(vec![case]).await;
        }
    }
}

/// What a strike may be replaced by: shorter, or easier to understand. Each is strictly less than the strike,
/// so that there is an end.
fn simpler(strike: &Strike) -> Vec<Strike> {
    let mut all = Vec::new();
    let half = strike.lasts_ms / 2;
    if half >= LASTS_MIN_MS {
        for lasts_ms in [LASTS_MIN_MS, half] {
            all.push(Strike {
                lasts_ms,
                ..strike.clone()
            });
        }
    }
    all.extend(
        simpler_faults(&strike.fault)
            .into_iter()
            .map(|fault| Strike {
                fault,
                ..strike.clone()
            }),
    );
    all
}

fn simpler_faults(fault: &Fault) -> Vec<Fault> {
    match fault.clone() {
        Fault::Kill { who: Who::All } => nodes().map(|who| Fault::Kill { who }).to_vec(),
        Fault::PowerLoss { who, after_ops } if after_ops > 0 => {
            let mut all = vec![Fault::Kill { who }];
            all.push(Fault::PowerLoss { who, after_ops: 0 });
            all
        }
        Fault::PowerLoss {
            who: Who::All,
            after_ops: 0,
        } => {
            let one = nodes().map(|who| Fault::PowerLoss { who, after_ops: 0 });
            let mut all = vec![Fault::Kill { who: Who::All }];
            all.extend(one);
            all
        }
        Fault::PowerLoss { who, after_ops: 0 } => vec![Fault::Kill { who }],
        Fault::CrashLoop { who, .. } => vec![Fault::Kill { who }],
        Fault::RollingKill { .. } => vec![Fault::Kill { who: Who::All }],
        Fault::Pause { who: Who::All } => nodes().map(|who| Fault::Pause { who }).to_vec(),
        Fault::Isolate { who, clients: true } => vec![Fault::Isolate {
            who,
            clients: false,
        }],
        Fault::Flap { who, .. } => vec![Fault::Isolate {
            who,
            clients: false,
        }],
        Fault::FullDisk { who, after_writes } if after_writes > 0 => {
            vec![Fault::FullDisk {
                who,
                after_writes: 0,
            }]
        }
        _ => Vec::new(),
    }
}

/// The nodes of the smallest cluster.
fn nodes() -> [Who; 3] {
    [1, 2, 3].map(Who::Node)
}

#[cfg(test)]
mod tests {
    use std::{
        cell::{Cell, RefCell},
        time::Duration,
    };

    use super::*;
    use crate::sim::draw::{Setting, draw};

    fn drawn(seed: u64) -> Case {
        let setting = Setting {
            nodes: 3,
            partitions: 2,
            lasts: Duration::from_secs(60),
        };
        Case {
            schedule: draw(seed, setting),
            seconds: 60,
        }
    }

    fn kinds(case: &Case) -> Vec<&'static str> {
        let strikes = case.schedule.strikes.iter();
        strikes.map(|strike| strike.fault.kind()).collect()
    }

    #[tokio::test]
    async fn two_strikes_that_fail_together_are_found_among_many() {
        let mut shrunk_some = 0;
        for seed in 0..40 {
            let case = drawn(seed);
            let strikes = &case.schedule.strikes;
            let Some((first, last)) = strikes.first().zip(strikes.last()) else {
                continue;
            };
            let culprits = [first.at_ms, last.at_ms];
            let tries = Cell::new(0);
            let fails = |case: Case| {
                tries.set(tries.get() + 1);
                let hits = |at_ms| case.schedule.strikes.iter().any(|s| s.at_ms == at_ms);
                std::future::ready(culprits.into_iter().all(hits))
            };
            let shrunk = shrink(case.clone(), 1, 1000, fails).await;
            assert!(shrunk.is_least);
            assert_eq!(shrunk.tries, tries.get());
            assert!(
                shrunk.case.schedule.strikes.len() <= 2,
                "{:?}",
                kinds(&shrunk.case)
            );
            for strike in &shrunk.case.schedule.strikes {
                assert!(culprits.contains(&strike.at_ms));
                assert!(strike.lasts_ms < 2 * LASTS_MIN_MS, "{strike}");
                assert!(simpler_faults(&strike.fault).is_empty(), "{strike}");
            }
            assert!(shrunk.case.seconds <= case.seconds);
            shrunk.case.schedule.check(3).unwrap();
            shrunk_some += usize::from(case.schedule.strikes.len() > 2);
        }
        assert!(shrunk_some > 20);
    }

    #[tokio::test]
    async fn what_is_needed_stays_and_tries_are_bounded() {
        let case = drawn(3);
        let all = case.schedule.clone();
        let needs_all = |case: Case| std::future::ready(case.schedule == all);
        let shrunk = shrink(case.clone(), 4, 10_000, needs_all).await;
        assert_eq!(shrunk.case.schedule, all);
        assert!(shrunk.is_least);
        let tried = RefCell::new(0);
        let never = |_case: Case| {
            *tried.borrow_mut() += 1;
            std::future::ready(false)
        };
        let shrunk = shrink(case.clone(), 1, 7, never).await;
        assert_eq!((shrunk.case, shrunk.tries, *tried.borrow()), (case, 7, 7));
        assert!(!shrunk.is_least);
    }

    #[tokio::test]
    async fn a_failure_that_needs_no_fault_shrinks_to_none() {
        let shrunk = shrink(drawn(5), 2, 100, |_case| std::future::ready(true)).await;
        assert!(shrunk.case.schedule.strikes.is_empty());
        assert_eq!(shrunk.case.seconds, AFTER_SECONDS);
    }
}
