//! The nodes of one run with their disks, and the hands that break and mend them.

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use seriatim_runtime::{rng, sim::Quality};
use seriatim_storage::disk::sim::SimDisk;

use super::{
    fault::{DiskOp, Rot},
    node::{self, NodeSpec},
    rpc::Switchboard,
    views::Views,
    world::World,
};

/// Least size of a file of records in which a bit flips, in bytes.
const ROT_BYTES_MIN: usize = 4096;

/// Where in a file that is sealed an index ends, in bytes from the end of the file.
const INDEX_BYTES: usize = 100;

/// What a sync of a good disk takes at most, in milliseconds. In one of eight seeds none takes any time.
const SYNC_MS_MAX: u64 = 7;

/// All hosts of clients.
const CLIENTS: &str = "c";

/// Nodes 1 to n.
#[derive(Debug)]
pub struct Machines {
    disks: Vec<(u64, SimDisk)>,
    founders: u64,
    switchboard: Switchboard,
    views: Views,
    forgets_producers: bool,
    grpc: bool,
    shards: u32,
}

impl Machines {
    /// Nodes with empty disks, all down.
    pub fn new(nodes: u64, switchboard: Switchboard, lying_disks: bool, forgets: bool) -> Self {
        let slowest = rng::below(SYNC_MS_MAX + 1);
        let disks = (1..=nodes).map(|node| {
            let disk = SimDisk::new(rng::u64());
            let usual = rng::below(slowest + 1);
            disk.set_usual_sync_time(Duration::from_millis(usual));
            disk.lie_about_syncs(lying_disks);
            (node, disk)
        });
        Self {
            disks: disks.collect(),
            founders: nodes,
            switchboard,
            views: Views::default(),
            forgets_producers: forgets,
            grpc: false,
            shards: 1,
        }
    }

    /// The same nodes, which serve gRPC too if `grpc`.
    #[must_use]
    pub const fn with_grpc(mut self, grpc: bool) -> Self {
        self.grpc = grpc;
        self
    }

    /// The same nodes, with so many shards of the consumer groups.
    #[must_use]
    pub const fn with_shards(mut self, shards: u32) -> Self {
        self.shards = shards;
        self
    }

    /// The same nodes, of which the first ones form the cluster and the others join it.
    #[must_use]
    pub const fn with_founders(mut self, founders: u64) -> Self {
        self.founders = founders;
        self
    }

    /// A node's disk.
    pub fn disk(&self, node: u64) -> Option<&SimDisk> {
        let mut disks = self.disks.iter();
        disks.find(|(id, _)| *id == node).map(|(_, disk)| disk)
    }

    /// All nodes.
    pub fn all(&self) -> impl Iterator<Item = u64> {
        self.disks.iter().map(|(id, _)| *id)
    }

    /// Calls of clients.
    pub fn switchboard(&self) -> &Switchboard {
        &self.switchboard
    }

    /// What the nodes believe.
    pub fn views(&self) -> &Views {
        &self.views
    }

    /// Starts a node that is down.
    pub fn boot(&self, world: &mut World, node: u64) -> io::Result<()> {
        let host = node::host(node);
        let Some(disk) = self.disk(node).filter(|_| !world.is_up(&host)) else {
            return Ok(());
        };
        world.net().power_on(&host);
        let spec = NodeSpec {
            id: node,
            founders: self.founders,
            disk: disk.clone(),
            net: world.net().host(&host),
            switchboard: self.switchboard.clone(),
            views: self.views.clone(),
            forgets_producers: self.forgets_producers,
            grpc: self.grpc,
            shards: self.shards,
        };
        world.boot(&host, node::run(spec))
    }

    /// Starts the nodes that form the cluster.
    pub fn boot_founders(&self, world: &mut World) -> io::Result<()> {
        (1..=self.founders).try_for_each(|node| self.boot(world, node))
    }

    /// Starts every node that is down.
    pub fn boot_all(&self, world: &mut World) -> io::Result<()> {
        self.disks
            .iter()
            .try_for_each(|(node, _)| self.boot(world, *node))
    }

    /// The process is gone; what it wrote stays.
    pub fn kill(&self, world: &mut World, node: u64) {
        self.views.forget(node);
        world.kill(&node::host(node));
        if let Some(disk) = self.disk(node) {
            disk.kill_process();
        }
    }

    /// Kills it and starts it again.
    pub fn restart(&self, world: &mut World, node: u64) -> io::Result<()> {
        self.kill(world, node);
        self.boot(world, node)
    }

    /// The machine is gone; what was not synced may be lost.
    pub fn power_loss(&self, world: &mut World, node: u64) {
        world.net().power_off(&node::host(node));
        self.views.forget(node);
        world.kill(&node::host(node));
        if let Some(disk) = self.disk(node) {
            disk.crash();
        }
    }

    /// The machine is gone, and its disk is replaced by an empty one.
    pub fn lose_disk(&self, world: &mut World, node: u64) {
        self.power_loss(world, node);
        if let Some(disk) = self.disk(node) {
            disk.wipe();
        }
    }

    /// Cuts or mends links, each one way.
    pub fn cut(world: &World, links: &[(u64, u64)], cut: bool) {
        for (from, to) in links {
            let (from, to) = (node::host(*from), node::host(*to));
            if cut {
                world.net().cut_one_way(&from, &to);
            } else {
                world.net().mend_one_way(&from, &to);
            }
        }
    }

    /// Cuts clients off from a node, or lets them reach it again.
    pub fn cut_clients(&self, world: &World, node: u64, cut: bool) {
        self.switchboard.cut(node, cut);
        let (host, net) = (node::host(node), world.net());
        if cut {
            net.cut(&host, CLIENTS);
        } else {
            net.mend_one_way(&host, CLIENTS);
            net.mend_one_way(CLIENTS, &host);
        }
    }

    /// What a node's links are like.
    pub fn change_quality(world: &World, node: u64, change: impl FnOnce(&mut Quality)) {
        let host = node::host(node);
        let mut quality = world.net().quality(&host);
        change(&mut quality);
        world.net().set_quality(&host, quality);
    }

    /// Does something to a node's disk.
    pub fn with_disk(&self, node: u64, change: impl FnOnce(&SimDisk)) {
        if let Some(disk) = self.disk(node) {
            change(disk);
        }
    }

    /// Lets operations of a disk fail; none if `count` is 0.
    pub fn fail_disk(&self, node: u64, op: DiskOp, after: u64, count: u64) {
        self.with_disk(node, |disk| match op {
            DiskOp::Write => disk.fail_writes_after(after, count),
            DiskOp::Sync => disk.fail_syncs_after(after, count),
            DiskOp::Read => disk.fail_reads_after(after, count),
        });
    }

    /// Flips a bit; says where.
    pub fn rot(&self, node: u64, file: Rot) -> String {
        let Some(disk) = self.disk(node) else {
            return String::new();
        };
        let found = match file {
            Rot::Segment => disk.rot(is_partition_log),
            Rot::Votes => disk.rot(is_votes),
            Rot::Small => disk.rot(is_small),
            Rot::Index => {
                let all = disk.files();
                let sealed =
                    |path: &Path, bytes| is_partition_log(path, bytes) && !is_last(&all, path);
                disk.rot_end(INDEX_BYTES, sealed)
            }
        };
        match found {
            Some((path, position)) => format!("{} @{position}", path.display()),
            None => "there is no such file".to_owned(),
        }
    }

    /// Whether its power has gone in the middle of something.
    pub fn is_powerless(&self, node: u64) -> bool {
        self.disk(node).is_some_and(SimDisk::is_powerless)
    }
}

/// Whether a file is a part of a partition's log, of some size. The metadata store has no copy to
/// rebuild from, and no checksums of its own in the simulation.
fn is_partition_log(path: &Path, bytes: usize) -> bool {
    of_partition(path) && path.extension().is_some_and(|e| e == "seg") && bytes >= ROT_BYTES_MIN
}

/// Whether a file is the one of its folder that is written to.
fn is_last(names: &[PathBuf], path: &Path) -> bool {
    let beside = names.iter().filter(|name| {
        name.parent() == path.parent() && name.extension().is_some_and(|e| e == "seg")
    });
    beside.max().is_none_or(|last| last == path)
}

fn is_votes(path: &Path, _bytes: usize) -> bool {
    path.file_name().is_some_and(|name| name == "votes")
}

fn is_small(path: &Path, _bytes: usize) -> bool {
    let small = ["start", "checkpoint", "boundary", "resume"];
    let named = |name: &str| path.file_name().is_some_and(|n| n == name);
    named("progress") || of_partition(path) && small.into_iter().any(named)
}

fn of_partition(path: &Path) -> bool {
    let folder = path.parent().and_then(Path::file_name);
    let folder = folder.and_then(|n| n.to_str());
    folder.is_some_and(|f| f.starts_with('g') && !f.starts_with("g0-"))
}
