//! The nodes of one run with their disks, and the hands that break and mend them.

use std::{path::Path, time::Duration};

use seriatim_runtime::rng;
use seriatim_storage::disk::sim::SimDisk;

use super::{
    nemesis::Fault,
    node::{self, NodeSpec},
    rpc::Switchboard,
    world::World,
};

/// Least size of a file in which a bit flips, in bytes.
const ROT_BYTES_MIN: usize = 4096;

/// Nodes 1 to n.
#[derive(Debug)]
pub struct Machines {
    disks: Vec<(u64, SimDisk)>,
    switchboard: Switchboard,
    forgets_producers: bool,
    grpc: bool,
}

impl Machines {
    /// Nodes with empty disks, all down.
    pub fn new(nodes: u64, switchboard: Switchboard, lying_disks: bool, forgets: bool) -> Self {
        let disks = (1..=nodes).map(|node| {
            let disk = SimDisk::new(rng::u64());
            disk.lie_about_syncs(lying_disks);
            (node, disk)
        });
        Self {
            disks: disks.collect(),
            switchboard,
            forgets_producers: forgets,
            grpc: false,
        }
    }

    /// The same nodes, which serve gRPC too if `grpc`.
    #[must_use]
    pub const fn with_grpc(mut self, grpc: bool) -> Self {
        self.grpc = grpc;
        self
    }

    fn disk(&self, node: u64) -> Option<&SimDisk> {
        self.disks
            .iter()
            .find(|(id, _)| *id == node)
            .map(|(_, disk)| disk)
    }

    fn count(&self) -> u64 {
        u64::try_from(self.disks.len()).unwrap_or(u64::MAX)
    }

    /// Starts a node that is down.
    pub fn boot(&self, world: &mut World, node: u64) -> std::io::Result<()> {
        let host = node::host(node);
        let Some(disk) = self.disk(node).filter(|_| !world.is_up(&host)) else {
            return Ok(());
        };
        world.net().power_on(&host);
        let spec = NodeSpec {
            id: node,
            nodes: self.count(),
            disk: disk.clone(),
            net: world.net().host(&host),
            switchboard: self.switchboard.clone(),
            forgets_producers: self.forgets_producers,
            grpc: self.grpc,
        };
        world.boot(&host, node::run(spec))
    }

    /// Starts every node that is down.
    pub fn boot_all(&self, world: &mut World) -> std::io::Result<()> {
        self.disks
            .iter()
            .try_for_each(|(node, _)| self.boot(world, *node))
    }

    fn kill(&self, world: &mut World, node: u64) {
        world.kill(&node::host(node));
        if let Some(disk) = self.disk(node) {
            disk.kill_process();
        }
    }

    fn power_loss(&self, world: &mut World, node: u64) {
        world.net().power_off(&node::host(node));
        world.kill(&node::host(node));
        if let Some(disk) = self.disk(node) {
            disk.crash();
        }
    }

    fn others(&self, node: u64) -> impl Iterator<Item = u64> {
        let all = self.disks.iter().map(|(id, _)| *id);
        all.filter(move |id| *id != node)
    }

    /// Lets a fault begin; says what happened, for people.
    pub fn break_by(&self, world: &mut World, fault: Fault) -> String {
        match fault {
            Fault::Kill(node) => self.kill(world, node),
            Fault::KillAll => self.all().for_each(|node| self.kill(world, node)),
            Fault::PowerLoss(node) => self.power_loss(world, node),
            Fault::PowerLossAll => self.all().for_each(|node| self.power_loss(world, node)),
            Fault::Isolate(node) => self
                .others(node)
                .for_each(|other| world.net().cut(&node::host(node), &node::host(other))),
            Fault::Cut(a, b) => world.net().cut(&node::host(a), &node::host(b)),
            Fault::OneWay(a, b) => world.net().cut_one_way(&node::host(a), &node::host(b)),
            Fault::Reset(a, b) => world.net().reset(&node::host(a), &node::host(b)),
            Fault::SlowDisk(node) => self.slow(node, Duration::from_millis(1 + rng::below(400))),
            Fault::FullDisk(node) => self.full(node, true),
            Fault::BitRot(node) => {
                let rotten = self.disk(node).and_then(|disk| disk.rot(is_partition_log));
                return match rotten {
                    Some((path, position)) => format!("{fault}: {} @{position}", path.display()),
                    None => format!("{fault}: no log is large enough"),
                };
            }
        }
        fault.to_string()
    }

    fn all(&self) -> impl Iterator<Item = u64> {
        self.disks.iter().map(|(id, _)| *id)
    }

    fn slow(&self, node: u64, sync_time: Duration) {
        if let Some(disk) = self.disk(node) {
            disk.set_sync_time(sync_time);
        }
    }

    fn full(&self, node: u64, full: bool) {
        if let Some(disk) = self.disk(node) {
            disk.set_full(full);
        }
    }

    /// Ends a fault. Cuts of the network end together.
    pub fn mend(&self, world: &mut World, fault: Fault) -> std::io::Result<()> {
        match fault {
            Fault::Kill(node) | Fault::PowerLoss(node) => self.boot(world, node)?,
            Fault::KillAll | Fault::PowerLossAll => self.boot_all(world)?,
            Fault::Isolate(_) | Fault::Cut(..) | Fault::OneWay(..) => world.net().heal(),
            Fault::SlowDisk(node) => self.slow(node, Duration::ZERO),
            Fault::FullDisk(node) => self.full(node, false),
            Fault::Reset(..) | Fault::BitRot(_) => {}
        }
        Ok(())
    }
}

/// Whether a file is a part of a partition's log, of some size. Votes and the metadata store have
/// no copy to rebuild from: a node whose own are damaged is replaced, not repaired.
fn is_partition_log(path: &Path, bytes: usize) -> bool {
    let folder = path
        .parent()
        .and_then(Path::file_name)
        .and_then(|n| n.to_str());
    let of_partition = folder.is_some_and(|f| f.starts_with('g') && !f.starts_with("g0-"));
    let segment = path.extension().is_some_and(|e| e == "seg");
    of_partition && segment && bytes >= ROT_BYTES_MIN
}
