//! Very many clients that write as fast as they can.

use std::time::Duration;

use seriatim_tests::{
    cluster::Setup,
    overload::{CONNECTION_BYTES, Pressure, press},
};

use crate::report::{Report, mebibytes, number};

/// What a node holds besides batches under way and connections: the cache of its default size, code
/// and stacks.
const REST_MIB: u64 = 64 + 200;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Clients, each with a connection of its own
    #[arg(long, default_value_t = 200)]
    clients: usize,
    /// What the node may hold between admission and acknowledgement, in MiB
    #[arg(long, default_value_t = 512)]
    limit: u64,
    /// How long the clients write, in seconds
    #[arg(long, default_value_t = 20)]
    seconds: u64,
}

pub(crate) async fn run(args: Args) -> anyhow::Result<Report> {
    let limit = format!("append_bytes = {}", args.limit << 20);
    let mut cluster = Setup::nodes(1).setting(&limit).start().await?;
    let _created = cluster.cli().ok(&["topic", "create", "t"]).await?;
    let pressure = Pressure {
        clients: args.clients,
        batch_bytes: 1 << 20,
        time: Duration::from_secs(args.seconds),
    };
    let pressed = press(&cluster, "t", pressure).await?;
    cluster.stop().await?;
    let mut report = Report::new("memory");
    report.note("clients", number(args.clients));
    report.note("batches_stored", number(pressed.stored));
    report.note("batches_refused", number(pressed.refused));
    let connections = u64::try_from(args.clients)? * CONNECTION_BYTES;
    let most = number(args.limit + REST_MIB) + mebibytes(connections);
    report.at_most("peak_resident_mib", mebibytes(pressed.peak_bytes), most);
    Ok(report)
}
