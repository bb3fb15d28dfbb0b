//! Whether a group did what it promises, by the journal of all that took part.

use std::collections::{BTreeMap, HashSet};

use super::journal::Event;

/// Violations that are spelled out; the others are only counted.
const TOLD: usize = 20;

/// What a journal says.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// Events processed at least once.
    pub processed: u64,
    /// Events that nobody processed.
    pub missing: u64,
    /// Events processed again, each time counted, because who had them first died or was evicted
    /// before its commit.
    pub repeated: u64,
    /// Times that a partition went to a member.
    pub acquisitions: u64,
    /// What must not happen, in words; at most 20.
    pub violations: Vec<String>,
    /// How often it did.
    pub violation_count: u64,
}

/// One partition in the hands of one member.
#[derive(Debug)]
struct Acquisition {
    member: String,
    /// The committed offset that was known before it began.
    floor: i64,
    next: Option<i64>,
    end: Option<End>,
    /// Another member got the partition while this one had not heard of it.
    overtaken: bool,
    /// Batches processed since then. The one at hand when the process was stopped cannot be called
    /// back; any more were handed on after the lease had run out.
    late: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Given,
    LostOrKilled,
}

#[derive(Debug, Default)]
struct Partition {
    committed: i64,
    acquisitions: Vec<Acquisition>,
    /// For each offset, who processed it last, counted from 1; 0 for nobody.
    by: Vec<usize>,
}

/// Judges a journal; `ends` are the numbers of events in the partitions.
pub fn judge(events: &[Event], ends: &[i64]) -> Verdict {
    let mut verdict = Verdict::default();
    let mut partitions: BTreeMap<i32, Partition> = BTreeMap::new();
    for (number, &end) in (0..).zip(ends) {
        let by = vec![0; usize::try_from(end).unwrap_or(0)];
        let partition = Partition {
            by,
            ..Partition::default()
        };
        let _none = partitions.insert(number, partition);
    }
    let mut killed = HashSet::new();
    for event in events {
        if let Event::Killed(member) = event {
            let _new = killed.insert(member.clone());
            for partition in partitions.values_mut() {
                partition.end(member, End::LostOrKilled);
            }
            continue;
        }
        let number = match event {
            Event::Gained(_, n)
            | Event::Given(_, n)
            | Event::Lost(_, n)
            | Event::Processed(_, n, _, _)
            | Event::Wrong(_, n, _)
            | Event::Committed(n, _) => *n,
            Event::Killed(_) => continue,
        };
        let outcome = match partitions.get_mut(&number) {
            Some(partition) => partition.take(event, &mut verdict),
            None => Err("there is no such partition".to_owned()),
        };
        if let Err(what) = outcome {
            verdict.violated(format!("partition {number}: '{event}': {what}"));
        }
    }
    for partition in partitions.values() {
        let missing = partition.by.iter().filter(|by| **by == 0).count();
        let all = partition.by.len();
        verdict.missing += u64::try_from(missing).unwrap_or(u64::MAX);
        verdict.processed += u64::try_from(all - missing).unwrap_or(u64::MAX);
    }
    verdict
}

impl Verdict {
    fn violated(&mut self, what: String) {
        self.violation_count += 1;
        if self.violations.len() < TOLD {
            self.violations.push(what);
        }
    }
}

impl Partition {
    /// The latest acquisition of a member.
    fn of(&mut self, member: &str) -> Option<(usize, &mut Acquisition)> {
        let mut latest = self.acquisitions.iter_mut().enumerate().rev();
        latest.find(|(_, a)| a.member == member)
    }

    fn end(&mut self, member: &str, how: End) {
        if let Some((_, acquisition)) = self.of(member)
            && acquisition.end.is_none()
        {
            acquisition.end = Some(how);
        }
    }

    fn take(&mut self, event: &Event, verdict: &mut Verdict) -> Result<(), String> {
        match event {
            Event::Gained(member, _) => {
                verdict.acquisitions += 1;
                self.gain(member);
                Ok(())
            }
            Event::Given(member, _) => {
                let overtaken = self.of(member).is_some_and(|(_, a)| a.overtaken);
                self.end(member, End::Given);
                if overtaken {
                    return Err("another member had it before it was given back".to_owned());
                }
                Ok(())
            }
            Event::Lost(member, _) => {
                self.end(member, End::LostOrKilled);
                Ok(())
            }
            Event::Processed(member, _, from, to) => self.process(member, (*from, *to), verdict),
            Event::Wrong(..) => Err("it is not what was written there".to_owned()),
            Event::Committed(_, offset) => {
                let before = self.committed;
                self.committed = before.max(*offset);
                if *offset < before {
                    return Err(format!("{before} was committed before"));
                }
                Ok(())
            }
            Event::Killed(_) => Ok(()),
        }
    }

    fn gain(&mut self, member: &str) {
        for other in self.acquisitions.iter_mut().filter(|a| a.end.is_none()) {
            other.overtaken = true;
        }
        self.acquisitions.push(Acquisition {
            member: member.to_owned(),
            floor: self.committed,
            next: None,
            end: None,
            overtaken: false,
            late: 0,
        });
    }

    fn process(
        &mut self,
        member: &str,
        (from, to): (i64, i64),
        verdict: &mut Verdict,
    ) -> Result<(), String> {
        let Some((at, acquisition)) = self.of(member) else {
            return Err("it never had the partition".to_owned());
        };
        let next = acquisition.next.replace(to);
        if acquisition.overtaken || acquisition.end.is_some() {
            acquisition.late += 1;
        }
        let (late, given) = (acquisition.late, acquisition.end == Some(End::Given));
        let floor = acquisition.floor;
        let (repeats, given_back) = self.note(at, (from, to), late > 0)?;
        verdict.repeated += repeats;
        if let Some(other) = given_back.filter(|_| late == 0) {
            return Err(format!("{other} had processed it and given it back"));
        }
        match next {
            None if from < floor => Err(format!("{floor} was committed before")),
            Some(next) if next != from => Err(format!("{next} was to be next")),
            _ if given => Err("it had given the partition back".to_owned()),
            _ if late > 1 => Err("it had lost the partition".to_owned()),
            _ => Ok(()),
        }
    }

    /// Notes who processed a range. Returns how many of its records were processed before, and by whom
    /// if that one gave them back.
    fn note(
        &mut self,
        at: usize,
        (from, to): (i64, i64),
        late: bool,
    ) -> Result<(u64, Option<String>), String> {
        let outside = || format!("there are {} records", self.by.len());
        let range = usize::try_from(from).ok().zip(usize::try_from(to).ok());
        let (from, to) = range.ok_or_else(outside)?;
        if to > self.by.len() {
            return Err(outside());
        }
        let mut repeats = 0;
        let mut given_back = None;
        for by in self.by.get_mut(from..to).unwrap_or_default() {
            let before = by.checked_sub(1);
            if before.is_none() || !late {
                *by = at + 1;
            }
            let Some(before) = before.and_then(|before| self.acquisitions.get(before)) else {
                continue;
            };
            repeats += 1;
            if before.end == Some(End::Given) {
                given_back = Some(before.member.clone());
            }
        }
        Ok((repeats, given_back))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn events(text: &str) -> Vec<Event> {
        let path = tempfile::NamedTempFile::new().unwrap();
        let lines: Vec<_> = text.split(", ").collect();
        std::fs::write(path.path(), lines.join("\n")).unwrap();
        super::super::journal::read(path.path()).unwrap()
    }

    fn wrong(text: &str) -> String {
        let verdict = judge(&events(text), &[20]);
        assert_eq!(verdict.violation_count, 1, "{verdict:?}");
        verdict.violations[0].clone()
    }

    #[test]
    fn what_may_happen() {
        let clean = "gained a 0, processed a 0 0 10, committed 0 10, given a 0, gained b 0, \
            processed b 0 10 20";
        let verdict = judge(&events(clean), &[20]);
        assert_eq!((verdict.processed, verdict.repeated), (20, 0));
        assert_eq!(verdict.violations, [""; 0]);
        // Killed, or stopped and evicted with a batch at hand, after the last commit.
        for text in [
            "gained a 0, processed a 0 0 10, committed 0 10, processed a 0 10 15, killed a, \
             gained b 0, processed b 0 10 20",
            "gained a 0, processed a 0 0 10, committed 0 10, gained b 0, processed a 0 10 15, \
             processed b 0 10 20, lost a 0",
        ] {
            let verdict = judge(&events(text), &[20]);
            assert_eq!((verdict.missing, verdict.repeated), (0, 5), "{text}");
            assert_eq!(verdict.violations, [""; 0]);
        }
        // What was at hand when the process was stopped is late, however late.
        let late =
            "gained a 0, gained b 0, processed b 0 0 20, given b 0, processed a 0 0 5, lost a 0";
        let verdict = judge(&events(late), &[20]);
        assert_eq!((verdict.violations.len(), verdict.repeated), (0, 5));
        let gap = judge(&events("gained a 0, processed a 0 0 19"), &[20]);
        assert_eq!(gap.missing, 1);
    }

    #[test]
    fn what_must_not_happen_is_found() {
        let begin = "gained a 0, processed a 0 0 10, committed 0 10, ";
        let found = |rest: &str| wrong(&format!("{begin}{rest}"));
        let back = found("committed 0 9");
        assert!(back.contains("10 was committed before"), "{back}");
        let again = found("killed a, gained b 0, processed b 0 5 20");
        assert!(again.contains("10 was committed before"), "{again}");
        let skipped = found("processed a 0 11 20");
        assert!(skipped.contains("10 was to be next"), "{skipped}");
        let twice = found("processed a 0 9 20");
        assert!(twice.contains("10 was to be next"), "{twice}");
        let given = found("processed a 0 10 15, given a 0, gained b 0, processed b 0 10 20");
        assert!(given.contains("given it back"), "{given}");
        let late = found("gained b 0, processed a 0 10 12, processed a 0 12 14");
        assert!(late.contains("had lost the partition"), "{late}");
        let two = found("gained b 0, given a 0");
        assert!(two.contains("another member had it"), "{two}");
        let stranger = found("processed z 0 10 20");
        assert!(stranger.contains("never had"), "{stranger}");
        let bytes = found("wrong a 0 3");
        assert!(bytes.contains("not what was written"), "{bytes}");
    }
}
