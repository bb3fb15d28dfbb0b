//! What is broken in a run, when, and for how long: drawn before the run, or read from a file.
//!
//! A schedule is data, so that it can be printed, shrunk and carried out again. Nothing in it depends on
//! what a run does; where a strike hits a leader, it says so, and who that is shows when it strikes.

use std::{fmt, io, path::Path, time::Duration};

use serde::{Deserialize, Serialize};

use super::fault::{Fault, Who};

/// Most strikes of one schedule.
const STRIKES_MAX: usize = 10_000;

/// Latest moment at which a strike may end: an hour.
const END_MAX_MS: u64 = 3_600_000;

/// Everything that is broken in one run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Schedule {
    /// What it was drawn to be like, for people.
    #[serde(default)]
    pub theme: String,
    /// Times count from the start of the first node, so that it hits the forming of the cluster and the
    /// creation of the topic. Otherwise from the start of the load.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub from_birth: bool,
    /// In the order of their beginnings.
    pub strikes: Vec<Strike>,
}

/// One fault from its beginning to its end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Strike {
    /// When it begins, in virtual milliseconds.
    pub at_ms: u64,
    /// How long it lasts.
    pub lasts_ms: u64,
    /// What is broken.
    pub fault: Fault,
}

impl Strike {
    /// When it ends.
    pub fn ends_ms(&self) -> u64 {
        self.at_ms.saturating_add(self.lasts_ms)
    }
}

impl fmt::Display for Strike {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = |ms: u64| Duration::from_millis(ms).as_secs_f64();
        let (at, ends) = (seconds(self.at_ms), seconds(self.ends_ms()));
        write!(f, "{at:>8.3}s to {ends:>8.3}s  {}", self.fault)
    }
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let from = if self.from_birth {
            "from the start of the first node"
        } else {
            "from the start of the load"
        };
        writeln!(f, "{} strikes, {}, {from}", self.strikes.len(), self.theme)?;
        self.strikes.iter().try_for_each(|s| writeln!(f, "{s}"))
    }
}

impl Schedule {
    /// Reads a schedule for a cluster of `nodes` and checks it.
    pub fn read(path: &Path, nodes: u64) -> Result<Self, String> {
        let named = |what: &dyn fmt::Display| format!("schedule {}: {what}", path.display());
        let text = std::fs::read_to_string(path).map_err(|error| named(&error))?;
        let schedule: Self = serde_json::from_str(&text).map_err(|error| named(&error))?;
        schedule.check(nodes).map_err(|what| named(&what))?;
        Ok(schedule)
    }

    /// Writes it, in the form that [`Schedule::read`] reads.
    pub fn write(&self, path: &Path) -> io::Result<()> {
        std::fs::write(path, self.to_json())
    }

    /// As JSON, a strike on each line.
    pub fn to_json(&self) -> String {
        let theme = serde_json::Value::from(self.theme.as_str());
        let mut out = format!("{{\n\"theme\": {theme},\n");
        if self.from_birth {
            out.push_str("\"from_birth\": true,\n");
        }
        out.push_str("\"strikes\": [");
        for (at, strike) in self.strikes.iter().enumerate() {
            out.push_str(if at == 0 { "\n" } else { ",\n" });
            // Plain data: it always has a form.
            out.push_str(&serde_json::to_string(strike).unwrap_or_default());
        }
        out.push_str("\n]\n}\n");
        out
    }

    /// When the last strike ends.
    pub fn ends_ms(&self) -> u64 {
        let ends = self.strikes.iter().map(Strike::ends_ms);
        ends.max().unwrap_or_default()
    }

    /// What a schedule may do and what not, in one place: everything but what the promises exclude.
    ///
    /// - Bytes that were synced may be lost or changed on **one** node of a run, as often as it likes. The
    ///   promises hold as long as a majority of each partition's replicas keeps what it synced; a
    ///   second node could be the other copy of a record that a majority of two holds, and whether the
    ///   first one has been rebuilt by then cannot be said in advance.
    /// - Not while the cluster forms: a founder whose data is gone cannot be told from one that never was.
    /// - All else may hit any number of nodes at once, and may cost availability as long as it
    ///   lasts: kills, pauses, power losses, cuts, clocks, full and failing disks. When the last
    ///   strike is over everything is mended, and the cluster must recover.
    pub fn check(&self, nodes: u64) -> Result<(), String> {
        if self.strikes.len() > STRIKES_MAX {
            return Err(format!("more than {STRIKES_MAX} strikes"));
        }
        let (mut victim, mut last_ms) = (None, 0);
        for (at, strike) in self.strikes.iter().enumerate() {
            let wrong = |what: String| Err(format!("strike {at} ({}): {what}", strike.fault));
            if strike.at_ms < last_ms {
                return wrong("begins before the one before it; sort them".to_owned());
            }
            last_ms = strike.at_ms;
            if strike.ends_ms() > END_MAX_MS {
                return wrong(format!("ends after {END_MAX_MS} ms"));
            }
            for who in strike.fault.names() {
                if let Who::Node(node) = who
                    && !(1..=nodes).contains(&node)
                {
                    return wrong(format!("there is no n{node}; nodes are n1 to n{nodes}"));
                }
            }
            if let Err(what) = strike.fault.check() {
                return wrong(what);
            }
            let Some(node) = strike.fault.loses_data_of() else {
                continue;
            };
            if self.from_birth {
                return wrong("data may not be lost while the cluster forms".to_owned());
            }
            match victim {
                Some(other) if other != node => {
                    return wrong(format!(
                        "an earlier strike loses data of n{other}; only one node of a run may lose any"
                    ));
                }
                _ => victim = Some(node),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::{
        draw::{Setting, draw},
        fault::Rot,
    };

    fn strike(at_ms: u64, fault: Fault) -> Strike {
        Strike {
            at_ms,
            lasts_ms: 100,
            fault,
        }
    }

    fn refusal(strikes: Vec<Strike>) -> String {
        let schedule = Schedule {
            strikes,
            ..Schedule::default()
        };
        schedule.check(3).unwrap_err()
    }

    #[test]
    fn sim_what_is_written_is_what_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("schedule.json");
        for seed in 0..100 {
            let nodes = 3 + seed % 3;
            let setting = Setting {
                nodes,
                partitions: 2,
                lasts: Duration::from_secs(60),
            };
            let schedule = draw(seed, setting);
            schedule.write(&path).unwrap();
            assert_eq!(Schedule::read(&path, nodes).unwrap(), schedule);
        }
    }

    #[test]
    fn sim_bad_schedules_are_refused_with_a_reason() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("schedule.json");
        for (text, reason) in [
            ("{", "EOF"),
            (
                r#"{"strikes": [], "theme": "", "x": 1}"#,
                "unknown field `x`",
            ),
            (
                r#"{"strikes": [{"at_ms": 1, "lasts_ms": 1, "fault": {"kind": "flood"}}]}"#,
                "unknown variant `flood`",
            ),
            (
                r#"{"strikes": [{"at_ms": 1, "lasts_ms": 1, "fault": {"kind": "kill", "who": "me"}}]}"#,
                "write n1, all, leader-of-0",
            ),
        ] {
            std::fs::write(&path, text).unwrap();
            let error = Schedule::read(&path, 3).unwrap_err();
            assert!(
                error.contains(reason) && error.contains("schedule.json"),
                "{error}"
            );
        }
        let missing = Schedule::read(&dir.path().join("none"), 3).unwrap_err();
        assert!(missing.contains("No such file"), "{missing}");
    }

    #[test]
    fn sim_only_one_node_may_lose_data_and_none_while_the_cluster_forms() {
        let rot = |node| Fault::BitRot {
            node,
            file: Rot::Segment,
        };
        let lost = |node| Fault::LoseDisk { node };
        let again = vec![strike(1, rot(2)), strike(2, lost(2)), strike(3, lost(2))];
        let mut schedule = Schedule {
            strikes: again,
            ..Schedule::default()
        };
        schedule.check(3).unwrap();
        schedule.from_birth = true;
        assert!(
            schedule
                .check(3)
                .unwrap_err()
                .contains("while the cluster forms")
        );
        let two = refusal(vec![strike(1, rot(2)), strike(2, lost(3))]);
        assert!(two.contains("strike 1") && two.contains("n2"), "{two}");
    }

    #[test]
    fn sim_numbers_that_make_no_sense_are_refused() {
        let kill = |node| Fault::Kill {
            who: Who::Node(node),
        };
        for (strikes, reason) in [
            (vec![strike(2, kill(1)), strike(1, kill(1))], "sort them"),
            (vec![strike(1, kill(4))], "there is no n4"),
            (vec![strike(END_MAX_MS, kill(1))], "ends after"),
            (
                vec![strike(1, Fault::Reset { a: 1, b: 1 })],
                "one node twice",
            ),
            (
                vec![strike(
                    1,
                    Fault::Loss {
                        who: Who::All,
                        percent: 91,
                    },
                )],
                "write a cut",
            ),
            (
                vec![strike(1, Fault::RollingKill { down_ms: 0 })],
                "interval of 0",
            ),
        ] {
            let refused = refusal(strikes);
            assert!(refused.contains(reason), "{refused}");
        }
    }
}
