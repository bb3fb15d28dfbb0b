//! What the machine can do, measured in the same run, so that figures can be read as ratios.

mod disk;
mod loopback;

use std::path::Path;

use anyhow::Context as _;
use serde::Serialize;
use seriatim_runtime::task;

use self::disk::Disk;
use crate::{
    output,
    plan::Load,
    report::{show, table},
};

/// The limits that a cluster on this machine cannot pass.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Baseline {
    /// Sequential writes, each followed by fdatasync: of one record, and of one full batch.
    disk: Vec<Disk>,
    /// One TCP connection over the loopback device.
    loopback_mb_per_s: f64,
}

impl Baseline {
    /// Measures the disk below `dir` and the loopback device; takes a few seconds.
    pub(crate) async fn measure(load: &Load, dir: &Path) -> anyhow::Result<Self> {
        let dir = dir.to_owned();
        if disk::is_memory(&dir).unwrap_or(false) {
            let dir = dir.display();
            output::note(&format!("{dir} is in memory: nothing there is ever synced"));
        }
        let mut sizes = vec![load.record_size, load.batch_bytes];
        sizes.dedup();
        let measure = move || {
            let mut disk = Vec::new();
            for size in sizes {
                disk.extend(disk::measure(&dir, size).context("measure the disk")?);
            }
            let loopback_mb_per_s = loopback::measure().context("measure the loopback device")?;
            Ok(Self {
                disk,
                loopback_mb_per_s,
            })
        };
        task::blocking("baseline", measure).await
    }

    pub(crate) fn table(&self) -> String {
        let header = ["write + fdatasync", "bytes", "p50_us", "p99_us", "mb_per_s"];
        let rows = self.disk.iter().map(|disk| {
            vec![
                disk.file.to_owned(),
                disk.write_bytes.to_string(),
                disk.p50_us.to_string(),
                disk.p99_us.to_string(),
                show(Some(disk.mb_per_s)),
            ]
        });
        let loopback = show(Some(self.loopback_mb_per_s));
        format!("{}loopback TCP: {loopback} MB/s\n", table(&header, rows))
    }
}
