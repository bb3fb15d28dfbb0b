//! What was promised and whether it held.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    io::Write as _,
    time::Duration,
};

use bytes::Bytes;
use comfy_table::{Table, presets};

use super::run::{self, Outcome, Run};

/// The result of the demo.
pub(super) struct Verdict {
    rows: Vec<(String, String)>,
    wrong: Vec<String>,
}

impl Verdict {
    pub(super) fn judge(
        run: &Run,
        outcome: &Outcome,
        compared: anyhow::Result<u64>,
        ready: Duration,
    ) -> Self {
        let mut verdict = Self {
            rows: Vec::new(),
            wrong: Vec::new(),
        };
        verdict.figures(run, outcome, ready);
        let lost = outcome.failed.first();
        verdict.check(
            "every event acknowledged",
            lost.map_or(Ok(format!("{}", outcome.acknowledged.len())), |first| {
                Err(format!(
                    "{} failed, the first: {first}",
                    outcome.failed.len()
                ))
            }),
        );
        verdict.check(
            "acknowledged events read exactly once",
            exactly_once(run, outcome),
        );
        verdict.check("order kept for every key", key_order(run, outcome));
        verdict.check(
            "replicas byte-identical",
            compared
                .map(|frames| format!("{frames} entries x 3"))
                .map_err(|error| format!("{error:#}")),
        );
        let failover = match outcome.failover {
            None => Err("the killed leader's partition took no event again".to_owned()),
            Some(time) => {
                let text = format!("{} ms (node {} killed)", time.as_millis(), outcome.killed);
                // Three nodes, a producer and a consumer may have little of a busy machine: late
                // is said, and is not wrong.
                let late = time > Duration::from_secs(2);
                Ok(text
                    + if late {
                        ", LATE: 2000 ms are promised"
                    } else {
                        ""
                    })
            }
        };
        verdict.check("writes again after SIGKILL of the leader", failover);
        verdict
    }

    fn figures(&mut self, run: &Run, outcome: &Outcome, ready: Duration) {
        let bytes: usize = run.events.iter().map(|event| event.value.len()).sum();
        let count = u32::try_from(outcome.acknowledged.len()).unwrap_or(u32::MAX);
        let rate = f64::from(count) / outcome.produce_time.as_secs_f64();
        let mut row = |name: &str, value: String| self.rows.push((name.to_owned(), value));
        row(
            "cluster formed and topic led after",
            format!("{} ms", ready.as_millis()),
        );
        row("events", run.events.len().to_string());
        row("bytes", bytes.to_string());
        row("events/s (paced)", format!("{rate:.0}"));
    }

    fn check(&mut self, name: &str, result: Result<String, String>) {
        match result {
            Ok(text) => self.rows.push((name.to_owned(), format!("yes: {text}"))),
            Err(text) => {
                self.rows.push((name.to_owned(), format!("NO: {text}")));
                self.wrong.push(format!("{name}: {text}"));
            }
        }
    }

    pub(super) fn print(&self) -> anyhow::Result<()> {
        let mut table = Table::new();
        let _styled = table.load_style(presets::UTF8_FULL);
        for (name, value) in &self.rows {
            let _added = table.add_row([name, value]);
        }
        let mut out = std::io::stdout().lock();
        writeln!(out, "{table}")?;
        out.flush()?;
        Ok(())
    }

    pub(super) fn into_result(self) -> anyhow::Result<()> {
        if self.wrong.is_empty() {
            return Ok(());
        }
        Err(anyhow::anyhow!("{}", self.wrong.join("; ")))
    }
}

/// Every acknowledged event was read once, at its offset, with its bytes; and nothing else.
fn exactly_once(run: &Run, outcome: &Outcome) -> Result<String, String> {
    let places = run::by_place(&outcome.acknowledged);
    if places.len() != outcome.acknowledged.len() {
        return Err("two events were acknowledged at one offset".to_owned());
    }
    let mut seen = HashSet::new();
    for record in &outcome.consumed {
        let place = (record.partition, record.offset);
        if !seen.insert(place) {
            return Err(format!(
                "partition {} offset {} was read twice",
                place.0, place.1
            ));
        }
        let line = places.get(&place);
        let sent = line.and_then(|line| run.events.get(*line));
        match sent {
            Some(event) if event.value == record.value => {}
            Some(_) => return Err(format!("partition {} offset {} differs", place.0, place.1)),
            None => {
                return Err(format!(
                    "partition {} offset {} was never acknowledged",
                    place.0, place.1
                ));
            }
        }
    }
    if seen.len() != places.len() {
        return Err(format!("{} of {} were read", seen.len(), places.len()));
    }
    Ok(format!("{}", seen.len()))
}

/// The events of each key stand in its partition in the order in which they were sent.
fn key_order(run: &Run, outcome: &Outcome) -> Result<String, String> {
    let places: BTreeMap<(i32, i64), usize> =
        run::by_place(&outcome.acknowledged).into_iter().collect();
    let mut last: HashMap<&Bytes, (i32, usize)> = HashMap::new();
    for ((partition, offset), line) in places {
        let Some(key) = run.events.get(line).and_then(|event| event.key.as_ref()) else {
            continue;
        };
        if let Some((other, before)) = last.insert(key, (partition, line))
            && (other != partition || before >= line)
        {
            return Err(format!(
                "key {key:?} is out of order at partition {partition} offset {offset}"
            ));
        }
    }
    Ok(format!("{} keys", last.len()))
}
