//! What `seriatim produce` was acknowledged.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, BufWriter, Write},
    path::Path,
};

use anyhow::Context as _;
use futures::{FutureExt as _, StreamExt as _, stream::FuturesUnordered};
use serde_json::json;
use seriatim_client::{ClientError, Delivered, Delivery};
use tokio::sync::mpsc;

use super::common::{Output, print, print_json, print_table};

/// Records that wait for their acknowledgement. The producer's buffer bounds their bytes.
pub(super) const OUTSTANDING: usize = 100_000;

/// Makes the file of `--acknowledged`, empty.
pub(super) fn create(path: &Path) -> anyhow::Result<BufWriter<File>> {
    let file = File::options()
        .write(true)
        .create(true)
        .truncate(true)
        .open(path);
    let file = file.with_context(|| format!("create {}", path.display()))?;
    Ok(BufWriter::new(file))
}

/// What was acknowledged.
#[derive(Debug, Default)]
pub(super) struct Tally {
    /// Records, first and last offset by partition.
    partitions: BTreeMap<i32, (u64, i64, i64)>,
    /// How many failed, and the first.
    pub(super) failed: (u64, Option<(u64, ClientError)>),
}

/// Waits for the deliveries, given with the number of their line, until no more are sent. Each
/// acknowledgement is in the file as soon as it came: a kill of this process takes none back.
pub(super) async fn collect(
    mut deliveries: mpsc::Receiver<(u64, Delivery)>,
    mut file: Option<BufWriter<File>>,
) -> anyhow::Result<Tally> {
    let mut tally = Tally::default();
    let mut waiting = FuturesUnordered::new();
    let mut open = true;
    while open || !waiting.is_empty() {
        if let Some(file) = file.as_mut() {
            file.flush().context("write acknowledgements")?;
        }
        tokio::select! {
            biased;
            Some((line, outcome)) = waiting.next() => tally.add(line, outcome, file.as_mut())?,
            delivery = deliveries.recv(), if open && waiting.len() < OUTSTANDING => match delivery {
                Some((line, delivery)) => waiting.push(numbered(line, delivery)),
                None => open = false,
            },
        }
        // Whatever is there at once shares a write.
        while let Some(Some((line, outcome))) = waiting.next().now_or_never() {
            tally.add(line, outcome, file.as_mut())?;
        }
        while waiting.len() < OUTSTANDING
            && let Ok((line, delivery)) = deliveries.try_recv()
        {
            waiting.push(numbered(line, delivery));
        }
    }
    if let Some(file) = file.as_mut() {
        file.flush().context("write acknowledgements")?;
    }
    Ok(tally)
}

async fn numbered(line: u64, delivery: Delivery) -> (u64, Result<Delivered, ClientError>) {
    (line, delivery.await)
}

impl Tally {
    fn add(
        &mut self,
        line: u64,
        outcome: Result<Delivered, ClientError>,
        file: Option<&mut BufWriter<File>>,
    ) -> io::Result<()> {
        let error = match outcome {
            Ok(stored) => {
                let offset = stored.offset.0;
                let row = self
                    .partitions
                    .entry(stored.partition)
                    .or_insert((0, offset, offset));
                *row = (row.0 + 1, row.1.min(offset), row.2.max(offset));
                if let Some(file) = file {
                    writeln!(file, "{},{offset},{line}", stored.partition)?;
                }
                return Ok(());
            }
            Err(error) => error,
        };
        let (count, first) = &mut self.failed;
        *count += 1;
        if first.as_ref().is_none_or(|(known, _)| line < *known) {
            *first = Some((line, error));
        }
        Ok(())
    }

    /// Nothing was acknowledged and nothing failed.
    pub(super) fn is_empty(&self) -> bool {
        self.partitions.is_empty() && self.failed.0 == 0
    }

    pub(super) fn print(&self, topic: &str, seconds: f64, output: Output) -> anyhow::Result<()> {
        let acknowledged: u64 = self.partitions.values().map(|row| row.0).sum();
        #[expect(clippy::cast_precision_loss, reason = "a rate for reading")]
        let per_s = acknowledged as f64 / seconds.max(1e-9);
        if output == Output::Json {
            let partition = |(partition, row): (&i32, &(u64, i64, i64))| {
                json!({
                    "partition": partition,
                    "records": row.0,
                    "first_offset": row.1,
                    "last_offset": row.2,
                })
            };
            return print_json(&json!({
                "topic": topic,
                "acknowledged": acknowledged,
                "failed": self.failed.0,
                "seconds": seconds,
                "records_per_s": per_s,
                "partitions": self.partitions.iter().map(partition).collect::<Vec<_>>(),
            }));
        }
        let rows = self.partitions.iter().map(|(partition, row)| {
            let cells = [partition.to_string(), row.0.to_string()];
            let offsets = [row.1.to_string(), row.2.to_string()];
            cells.into_iter().chain(offsets).collect()
        });
        print_table(
            &["PARTITION", "ACKNOWLEDGED", "FIRST OFFSET", "LAST OFFSET"],
            rows,
        )?;
        print(&format!(
            "{acknowledged} records acknowledged in {seconds:.2} s ({per_s:.0}/s), {} failed\n",
            self.failed.0
        ))
    }
}
