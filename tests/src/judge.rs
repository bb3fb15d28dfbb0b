//! Whether what was read is what was acknowledged.

use std::{
    collections::{BTreeMap, HashMap},
    path::Path,
};

use anyhow::{Context as _, ensure};
use serde_json::Value;

/// One line of `produce --acknowledged`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Acknowledged {
    /// Where it was stored.
    pub partition: i64,
    /// Where in the partition.
    pub offset: i64,
    /// Number of the input line, from 0.
    pub line: usize,
}

/// One line of `consume --output json`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Consumed {
    /// Where it was read.
    pub partition: i64,
    /// Where in the partition.
    pub offset: i64,
    /// Its key.
    pub key: Option<String>,
    /// Its value.
    pub value: String,
}

/// Reads what a producer, which may still run, has written.
///
/// # Errors
/// If the file has another form.
pub fn acknowledged(file: &Path) -> anyhow::Result<Vec<Acknowledged>> {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    // The last line may be half written.
    let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
    let parse = |line: &str| {
        let mut fields = line.split(',');
        let mut field = || fields.next().and_then(|text| text.parse::<i64>().ok());
        Some(Acknowledged {
            partition: field()?,
            offset: field()?,
            line: usize::try_from(field()?).ok()?,
        })
    };
    whole
        .lines()
        .map(|line| parse(line).with_context(|| format!("not partition,offset,line: {line}")))
        .collect()
}

/// Parses what a consumer has printed.
///
/// # Errors
/// If a line has another form.
pub fn consumed(stdout: &str) -> anyhow::Result<Vec<Consumed>> {
    let parse = |line: &str| {
        let record: Value = serde_json::from_str(line).ok()?;
        Some(Consumed {
            partition: record.get("partition")?.as_i64()?,
            offset: record.get("offset")?.as_i64()?,
            key: record.get("key")?.as_str().map(str::to_owned),
            value: record.get("value")?.as_str()?.to_owned(),
        })
    };
    stdout
        .lines()
        .map(|line| parse(line).with_context(|| format!("not a record: {line}")))
        .collect()
}

/// Every acknowledged line was read once, at its offset; offsets are dense from 0 and in order in
/// each partition; no line was read twice; the lines of a key are in one partition and in order.
///
/// # Errors
/// What is wrong.
pub fn exactly_once(
    lines: &[String],
    acknowledged: &[Acknowledged],
    consumed: &[Consumed],
) -> anyhow::Result<()> {
    let mut ends: BTreeMap<i64, i64> = BTreeMap::new();
    let mut by_place: HashMap<(i64, i64), &Consumed> = HashMap::new();
    for record in consumed {
        let end = ends.entry(record.partition).or_default();
        ensure!(
            *end == record.offset,
            "expected offset {end}, read {record:?}"
        );
        *end += 1;
        let _none = by_place.insert((record.partition, record.offset), record);
    }
    for ack in acknowledged {
        let record = by_place.get(&(ack.partition, ack.offset));
        let record = record.with_context(|| format!("lost: {ack:?}"))?;
        let sent = lines.get(ack.line).context("no such line")?;
        ensure!(record.value == *sent, "{ack:?} reads {record:?}");
    }
    in_order(lines, consumed)
}

fn in_order(lines: &[String], consumed: &[Consumed]) -> anyhow::Result<()> {
    let mut numbers: HashMap<&str, usize> = HashMap::new();
    for (number, line) in lines.iter().enumerate() {
        let twin = numbers.insert(line, number);
        ensure!(twin.is_none(), "line {number} of the input is there twice");
    }
    let mut seen = vec![false; lines.len()];
    let mut last: HashMap<&str, (i64, usize)> = HashMap::new();
    for record in consumed {
        let number = numbers.get(record.value.as_str()).copied();
        let number = number.with_context(|| format!("nobody sent {record:?}"))?;
        let seen = seen.get_mut(number).context("no such line")?;
        ensure!(!*seen, "read twice: {record:?}");
        *seen = true;
        let Some(key) = &record.key else { continue };
        let before = last.insert(key, (record.partition, number));
        if let Some((partition, before)) = before {
            ensure!(
                partition == record.partition && before < number,
                "key {key} out of order: line {before} of partition {partition} before {record:?}"
            );
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(text: &str) -> String {
        text.to_owned()
    }

    fn read(offset: i64, key: &str, value: &str) -> Consumed {
        Consumed {
            partition: 0,
            offset,
            key: Some(line(key)),
            value: line(value),
        }
    }

    #[test]
    fn what_is_wrong_is_found() {
        let lines = [line("a"), line("b")];
        let acks = |offsets: [i64; 2]| {
            [0, 1].map(|line| Acknowledged {
                partition: 0,
                offset: offsets[line],
                line,
            })
        };
        let good = [read(0, "k", "a"), read(1, "k", "b")];
        exactly_once(&lines, &acks([0, 1]), &good).unwrap();
        let wrong = |acks: &[Acknowledged], reads: &[Consumed]| {
            exactly_once(&lines, acks, reads).unwrap_err().to_string()
        };
        assert!(wrong(&acks([0, 1]), &good[..1]).contains("lost"));
        assert!(wrong(&acks([1, 0]), &good).contains("reads"));
        assert!(wrong(&[], &[read(0, "k", "b"), read(1, "k", "a")]).contains("out of order"));
        assert!(wrong(&[], &[read(0, "k", "a"), read(1, "k", "a")]).contains("twice"));
        assert!(wrong(&[], &[read(0, "k", "a"), read(2, "k", "b")]).contains("expected offset"));
        assert!(wrong(&[], &[read(0, "k", "c")]).contains("nobody sent"));
    }
}
