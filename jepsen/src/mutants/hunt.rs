//! The search for a seed in which a checker refuses a mutant.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    ffi::OsString,
    io,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use super::spec::{FOLDER, Spec};
use crate::sim::fleet::{Done, End, Fleet};

/// Longest that one seed may take.
const SEED: Duration = Duration::from_secs(120);

/// Seeds of one mutant, at most.
const SEEDS_MAX: u64 = 1_000_000;

/// How mutants are hunted.
#[derive(Debug)]
pub struct Hunt {
    /// The repository, in which the options' files are.
    pub root: PathBuf,
    /// The program that has the mutants.
    pub mutants: PathBuf,
    /// The program that is shipped.
    pub shipped: PathBuf,
    /// Seeds at the same time.
    pub jobs: usize,
    /// Longest that one mutant may stay unfound.
    pub budget: Duration,
    /// Seeds of the shipped program that were run, by options, with what was wrong with each.
    pub seen: BTreeMap<Vec<String>, BTreeMap<u64, Vec<String>>>,
}

/// What became of one mutant.
#[derive(Debug, Clone, Default)]
pub struct Fate {
    /// The seed in which a checker refused it.
    pub seed: Option<u64>,
    /// The checkers that did.
    pub checkers: BTreeSet<String>,
    /// The first violation of each, in words.
    pub violations: Vec<String>,
    /// Seeds that were run.
    pub seeds: u64,
    /// Virtual time of all seeds that told it.
    pub virtual_time: Duration,
    /// Real time.
    pub took: Duration,
    /// What the shipped program did wrong with the same seeds.
    pub unclean: Vec<String>,
}

impl Fate {
    /// Whether a checker refused the mutant, and none the shipped program.
    pub fn good(&self) -> bool {
        self.seed.is_some() && self.unclean.is_empty()
    }

    /// Whether a checker that was expected to is among those that refused it.
    pub fn expected(&self, spec: &Spec) -> bool {
        !self.checkers.is_disjoint(&spec.about.expected)
    }
}

impl Hunt {
    /// Runs seeds with the mutant until a checker refuses it, then the same seeds without.
    pub async fn run(&mut self, spec: &Spec) -> io::Result<Fate> {
        let (mut fate, seeds) = self.find(spec).await?;
        fate.unclean = self.shipped(spec, seeds).await?;
        Ok(fate)
    }

    fn fleet(&self, program: &Path, mutant: Option<&str>, spec: &Spec) -> Fleet {
        let mut args: Vec<OsString> = Vec::new();
        if let Some(name) = mutant {
            args.extend(["--mutant".into(), name.into()]);
        }
        args.push("seed".into());
        let located = |option: &String| -> OsString {
            if option.starts_with(FOLDER) {
                self.root.join(option).into()
            } else {
                option.into()
            }
        };
        args.extend(spec.about.options.iter().map(located));
        Fleet {
            program: program.to_owned(),
            args,
            jobs: self.jobs,
            limit: SEED,
            twice: false,
            trace: None,
            loud: false,
        }
    }

    async fn find(&self, spec: &Spec) -> io::Result<(Fate, BTreeSet<u64>)> {
        #[expect(clippy::disallowed_methods, reason = "the budget is real time")]
        let began = Instant::now();
        let fleet = self.fleet(&self.mutants, Some(&spec.name), spec);
        let state = RefCell::new((Fate::default(), BTreeSet::new()));
        let first = spec.about.first_seed;
        let seeds = (first..first + SEEDS_MAX).take_while(|_| began.elapsed() < self.budget);
        let each = |done: Done| {
            let (fate, seeds) = &mut *state.borrow_mut();
            let _new = seeds.insert(done.seed);
            fate.note(&done);
            // Not an error: what stops a fleet early.
            fate.seed.map_or(Ok(()), |_| Err(found()))
        };
        let ended = tokio::time::timeout(self.budget + SEED, fleet.run(seeds, each)).await;
        let (mut fate, seeds) = state.into_inner();
        if let Ok(Err(error)) = ended
            && fate.seed.is_none()
        {
            return Err(error);
        }
        fate.took = began.elapsed();
        Ok((fate, seeds))
    }

    async fn shipped(&mut self, spec: &Spec, seeds: BTreeSet<u64>) -> io::Result<Vec<String>> {
        let fleet = self.fleet(&self.shipped, None, spec);
        let seen = self.seen.entry(spec.about.options.clone()).or_default();
        let new: Vec<u64> = seeds
            .iter()
            .copied()
            .filter(|seed| !seen.contains_key(seed))
            .collect();
        let each = |done: Done| {
            let _none = seen.insert(done.seed, done.wrong());
            Ok(())
        };
        fleet.run(new.into_iter(), each).await?;
        let wrong = seeds
            .iter()
            .filter_map(|seed| Some((seed, seen.get(seed)?)));
        let wrong = wrong.flat_map(|(seed, wrong)| {
            let first = wrong.iter().map(|it| it.lines().next().unwrap_or_default());
            first.map(move |it| format!("seed {seed}: {it}"))
        });
        Ok(wrong.collect())
    }
}

fn found() -> io::Error {
    io::Error::other("a checker refused the mutant")
}

impl Fate {
    /// Takes note of a seed. Only a checker's refusal counts; a process that died or hung is none.
    fn note(&mut self, done: &Done) {
        self.seeds += 1;
        let End::Told(outcome) = &done.end else {
            return;
        };
        self.virtual_time += Duration::from_millis(outcome.virtual_ms);
        let broken = outcome
            .checks
            .iter()
            .filter(|check| !check.violations.is_empty());
        for check in broken {
            self.seed = Some(done.seed);
            let _new = self.checkers.insert(check.checker.clone());
            let first = check.violations.first().cloned().unwrap_or_default();
            self.violations.push(format!("{}: {first}", check.checker));
        }
    }
}
