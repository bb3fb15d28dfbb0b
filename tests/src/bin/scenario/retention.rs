//! Much is written and little kept: the disk stays small, and readers get what was written.

use seriatim_tests::{
    cluster::Setup,
    retention::{self, Flood, VALUE_BYTES},
};

use crate::report::{Report, mebibytes, number, progress};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Data to write, in GB
    #[arg(long, default_value_t = 20.0)]
    gb: f64,
    /// Data to keep, in MB
    #[arg(long, default_value_t = 100)]
    keep_mb: u64,
}

pub(crate) async fn run(args: Args) -> anyhow::Result<Report> {
    let retained = args.keep_mb * 1_000_000;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a size that a person typed"
    )]
    let bytes = (args.gb.max(0.0) * 1e9) as u64;
    let flood = Flood {
        bytes,
        retained,
        kill: true,
    };
    let mut cluster = Setup::nodes(3).start().await?;
    let mut tell = |written: u64, largest: u64| {
        let gigabytes = number(written) * number(VALUE_BYTES) / 1e9;
        progress(&format!(
            "{gigabytes:.2} GB written, the largest data folder has {:.1} MiB",
            mebibytes(largest)
        ));
    };
    let seen = retention::run(&mut cluster, flood, &mut tell).await?;
    cluster.stop_and_check().await?;
    let mut report = Report::new("retention");
    report.note(
        "written_gb",
        number(seen.written) * number(VALUE_BYTES) / 1e9,
    );
    report.note(
        "written_mb_per_s",
        number(seen.written) * number(VALUE_BYTES) / 1e6 / seen.seconds,
    );
    report.note("records_checked_at_the_end", number(seen.tailed));
    report.note("records_checked_at_the_start", number(seen.reread));
    report.note("resets_of_readers", number(seen.resets));
    // A wrong record has ended the run before.
    report.at_most("wrong_records", 0.0, 0.0);
    report.at_most(
        "largest_folder_ratio",
        number(seen.peak_bytes) / number(retained),
        1.5,
    );
    report.at_most(
        "folder_ratio_at_the_end",
        number(seen.end_bytes) / number(retained),
        1.5,
    );
    Ok(report)
}
