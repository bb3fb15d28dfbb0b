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
    /// The checkers that did: those that were expected to, or else any.
    pub checkers: BTreeSet<String>,
    /// Whether they were expected to: the search goes on until one of these has.
    pub expected: bool,
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
    /// Whether a checker that names what was broken refused the mutant, and none the shipped program.
    pub fn good(&self) -> bool {
        self.expected && self.unclean.is_empty()
    }
}

impl Hunt {
    /// Runs seeds with the mutant until an expected checker refuses it, then the same seeds without.
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
            fate.note(&done, &spec.about.expected);
            // Not an error: what stops a fleet early.
            if fate.expected { Err(found()) } else { Ok(()) }
        };
        let ended = tokio::time::timeout(self.budget + SEED, fleet.run(seeds, each)).await;
        let (mut fate, seeds) = state.into_inner();
        if let Ok(Err(error)) = ended
            && !fate.expected
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
    fn note(&mut self, done: &Done, expected: &BTreeSet<String>) {
        self.seeds += 1;
        let End::Told(outcome) = &done.end else {
            return;
        };
        self.virtual_time += Duration::from_millis(outcome.virtual_ms);
        // One that saw nothing names nothing.
        let broken = outcome.checks.iter().filter(|check| check.looked_at > 0);
        let broken: BTreeMap<&str, &str> = broken
            .filter_map(|check| Some((check.checker.as_str(), check.violations.first()?.as_str())))
            .collect();
        let named = |checker: &&str| expected.contains(*checker);
        let names_it = broken.keys().any(named);
        // The first that refused it counts until one comes that was expected to.
        if self.expected || broken.is_empty() || self.seed.is_some() && !names_it {
            return;
        }
        let counted = broken
            .into_iter()
            .filter(|(checker, _)| !names_it || named(checker));
        let counted: Vec<_> = counted.collect();
        self.seed = Some(done.seed);
        self.expected = names_it;
        self.checkers = counted.iter().map(|(name, _)| (*name).to_owned()).collect();
        self.violations = counted
            .iter()
            .map(|(name, first)| format!("{name}: {first}"))
            .collect();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::outcome::{Check, Outcome};

    fn done(seed: u64, broken: &[&str]) -> Done {
        let check = |name: &str, violations: Vec<String>| Check {
            checker: name.to_owned(),
            looked_at: 1,
            violations,
        };
        let broken = broken.iter().map(|name| check(name, vec!["so".to_owned()]));
        let checks = [check("recovery", Vec::new())].into_iter().chain(broken);
        let outcome = Outcome {
            virtual_ms: 1000,
            checks: checks.collect(),
            ..Outcome::default()
        };
        Done::told(seed, outcome)
    }

    #[test]
    fn the_search_goes_on_until_a_checker_names_what_was_broken() {
        let expected: BTreeSet<String> = ["lost-write".to_owned()].into();
        let mut fate = Fate::default();
        fate.note(&done(1, &[]), &expected);
        assert_eq!((fate.seed, fate.good()), (None, false));
        fate.note(&done(2, &["impossible"]), &expected);
        fate.note(&done(3, &["duplicate"]), &expected);
        assert_eq!((fate.seed, fate.good()), (Some(2), false));
        assert_eq!(fate.violations, ["impossible: so"]);
        fate.note(&done(4, &["impossible", "lost-write"]), &expected);
        assert_eq!((fate.seed, fate.good()), (Some(4), true));
        assert_eq!(fate.checkers, expected);
        assert_eq!((fate.seeds, fate.virtual_time.as_secs()), (4, 4));
        fate.unclean.push("seed 4".to_owned());
        assert!(!fate.good());
    }

    #[test]
    fn a_process_that_died_says_nothing_about_promises() {
        let mut fate = Fate::default();
        let end = End::Died {
            how: "signal 9".to_owned(),
            stderr: String::new(),
        };
        let died = Done {
            seed: 7,
            end,
            again: None,
        };
        fate.note(&died, &BTreeSet::new());
        assert_eq!((fate.seed, fate.seeds), (None, 1));
    }
}
