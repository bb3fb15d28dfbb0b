//! What is lost between nodes.

use std::{collections::BTreeMap, fmt::Write as _, net::Ipv4Addr};

use serde::{Deserialize, Serialize};

/// One thing that is wrong with the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rule {
    /// Nothing that one node sends arrives at another.
    Cut {
        /// Who sends.
        from: u64,
        /// Who hears nothing.
        to: u64,
    },
    /// A part of the packets that come to a node is lost, from whomever.
    Loss {
        /// The node.
        node: u64,
        /// How many of a hundred.
        percent: u8,
    },
}

/// What is wrong at present, by fault: several may overlap, and each ends alone.
#[derive(Debug, Default)]
pub(super) struct Rules {
    faults: BTreeMap<u64, Vec<Rule>>,
}

impl Rules {
    pub(super) fn set(&mut self, fault: u64, rules: Vec<Rule>) {
        let _before = self.faults.insert(fault, rules);
    }

    pub(super) fn lift(&mut self, fault: u64) {
        let _rules = self.faults.remove(&fault);
    }

    /// One of each kind, for node 1.
    pub(super) fn example() -> Self {
        let mut rules = Self::default();
        let (cut, loss) = (
            Rule::Cut { from: 2, to: 1 },
            Rule::Loss {
                node: 1,
                percent: 1,
            },
        );
        rules.set(0, vec![cut, loss]);
        rules
    }

    fn all(&self) -> impl Iterator<Item = &Rule> {
        self.faults.values().flatten()
    }

    /// Whether what one node sends to another is lost.
    pub(super) fn cut(&self, sender: u64, receiver: u64) -> bool {
        self.all()
            .any(|rule| matches!(*rule, Rule::Cut { from, to } if (from, to) == (sender, receiver)))
    }

    /// What `iptables-restore` makes the filter of a node from.
    pub(super) fn table(&self, node: u64, address: impl Fn(u64) -> Ipv4Addr) -> String {
        let mut lines: Vec<String> = Vec::new();
        for rule in self.all() {
            let mut line = String::new();
            let written = match *rule {
                Rule::Cut { from, to } if to == node => {
                    write!(line, "-A INPUT -s {} -j DROP", address(from))
                }
                Rule::Loss { node: at, percent } if at == node => write!(
                    line,
                    "-A INPUT ! -i lo -m statistic --mode random --probability 0.{:02} -j DROP",
                    percent.min(99)
                ),
                Rule::Cut { .. } | Rule::Loss { .. } => continue,
            };
            if written.is_ok() && !lines.contains(&line) {
                lines.push(line);
            }
        }
        lines.push("COMMIT\n".to_owned());
        format!("*filter\n:INPUT ACCEPT [0:0]\n{}", lines.join("\n"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_overlap_and_end_alone() {
        let address = |node: u64| Ipv4Addr::new(10, 0, 0, u8::try_from(node).unwrap());
        let mut rules = Rules::default();
        let empty = rules.table(2, address);
        assert_eq!(empty, "*filter\n:INPUT ACCEPT [0:0]\nCOMMIT\n");
        let cut = Rule::Cut { from: 1, to: 2 };
        rules.set(
            7,
            vec![
                cut,
                Rule::Loss {
                    node: 2,
                    percent: 5,
                },
            ],
        );
        rules.set(8, vec![cut]);
        assert_eq!(
            rules.table(2, address),
            "*filter\n:INPUT ACCEPT [0:0]\n-A INPUT -s 10.0.0.1 -j DROP\n-A INPUT ! -i lo -m \
             statistic --mode random --probability 0.05 -j DROP\nCOMMIT\n"
        );
        assert_eq!(rules.table(1, address), empty);
        rules.lift(7);
        assert!(rules.cut(1, 2) && !rules.cut(2, 1));
        rules.lift(8);
        assert!(!rules.cut(1, 2));
        assert_eq!(rules.table(2, address), empty);
    }
}
