//! What happened, in the order in which it did: one line each, appended by all processes to one file.
//!
//! An append of one short line is atomic, so the file's order is the order of what is written: who
//! appends after having seen something stands behind it.

use std::{
    fmt,
    fs::{File, OpenOptions},
    io::Write as _,
    path::Path,
};

use anyhow::Context as _;

/// One line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A member was told that a partition is its.
    Gained(String, i32),
    /// A member gave a partition back.
    Given(String, i32),
    /// A member was told that it has lost a partition.
    Lost(String, i32),
    /// A member has processed the records of a partition from an offset to before another.
    Processed(String, i32, i64, i64),
    /// A member read something else than was written there.
    Wrong(String, i32, i64),
    /// A member's process is killed next.
    Killed(String),
    /// The group's committed offset of a partition was seen.
    Committed(i32, i64),
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gained(member, partition) => write!(f, "gained {member} {partition}"),
            Self::Given(member, partition) => write!(f, "given {member} {partition}"),
            Self::Lost(member, partition) => write!(f, "lost {member} {partition}"),
            Self::Processed(member, partition, from, to) => {
                write!(f, "processed {member} {partition} {from} {to}")
            }
            Self::Wrong(member, partition, offset) => {
                write!(f, "wrong {member} {partition} {offset}")
            }
            Self::Killed(member) => write!(f, "killed {member}"),
            Self::Committed(partition, offset) => write!(f, "committed {partition} {offset}"),
        }
    }
}

impl Event {
    fn parse(line: &str) -> Option<Self> {
        let mut words = line.split(' ');
        let kind = words.next()?;
        let mut word = || words.next().map(str::to_owned);
        let event = match kind {
            "gained" => Self::Gained(word()?, word()?.parse().ok()?),
            "given" => Self::Given(word()?, word()?.parse().ok()?),
            "lost" => Self::Lost(word()?, word()?.parse().ok()?),
            "processed" => Self::Processed(
                word()?,
                word()?.parse().ok()?,
                word()?.parse().ok()?,
                word()?.parse().ok()?,
            ),
            "wrong" => Self::Wrong(word()?, word()?.parse().ok()?, word()?.parse().ok()?),
            "killed" => Self::Killed(word()?),
            "committed" => Self::Committed(word()?.parse().ok()?, word()?.parse().ok()?),
            _ => return None,
        };
        Some(event)
    }
}

/// The file, to append to.
#[derive(Debug)]
pub struct Journal(File);

impl Journal {
    /// Opens it, and makes it if there is none.
    ///
    /// # Errors
    /// If that cannot be.
    pub fn open(path: &Path) -> anyhow::Result<Self> {
        let file = OpenOptions::new().create(true).append(true).open(path);
        Ok(Self(
            file.with_context(|| format!("open {}", path.display()))?,
        ))
    }

    /// Appends one line.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn append(&self, event: &Event) -> anyhow::Result<()> {
        (&self.0).write_all(format!("{event}\n").as_bytes())?;
        Ok(())
    }
}

/// Everything in a journal.
///
/// # Errors
/// If it cannot be read or a line has another form.
pub fn read(path: &Path) -> anyhow::Result<Vec<Event>> {
    let text = std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
    let parse = |line: &str| Event::parse(line).with_context(|| format!("no event: '{line}'"));
    text.lines().map(parse).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_as_they_were_written() {
        let member = || "m1".to_owned();
        for event in [
            Event::Gained(member(), 3),
            Event::Given(member(), 3),
            Event::Lost(member(), 3),
            Event::Processed(member(), 3, 10, 20),
            Event::Wrong(member(), 3, 10),
            Event::Killed(member()),
            Event::Committed(3, 20),
        ] {
            assert_eq!(Event::parse(&event.to_string()), Some(event));
        }
        assert_eq!(Event::parse("processed m1 3 10"), None);
    }
}
