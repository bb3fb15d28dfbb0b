//! What a simulated disk does wrong, and when.

use std::{io, time::Duration};

use seriatim_runtime::sim::clock;

use super::SimDisk;

/// What is wrong with a disk.
#[derive(Debug, Default)]
pub(super) struct Faults {
    /// Syncs answer at once and do nothing.
    lies: bool,
    /// No file grows any more.
    full: After,
    /// One write finds the disk full half way.
    full_once: After,
    bad_writes: Failing,
    bad_syncs: Failing,
    bad_reads: Failing,
    /// What every sync takes, also when nothing is wrong.
    usual_sync_time: Duration,
    sync_time: Duration,
    read_time: Duration,
    /// When syncs and reads stop being slow, in the simulation's time.
    slow_until: Option<Duration>,
    /// Syncs and reads that were not waited for yet.
    delay: Duration,
    /// The power goes at this operation.
    power_loss: After,
    /// It has gone: nothing works until somebody turns it on again.
    powerless: bool,
}

/// Something that begins after so many operations.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum After {
    #[default]
    Never,
    /// With the operation after so many others.
    In(u64),
    Begun,
}

impl After {
    /// Counts one operation; says whether it begins with this one.
    fn begins(&mut self) -> bool {
        match self {
            Self::In(0) => {
                *self = Self::Begun;
                true
            }
            Self::In(left) => {
                *left -= 1;
                false
            }
            Self::Never | Self::Begun => false,
        }
    }
}

/// Operations that fail.
#[derive(Debug, Default, Clone, Copy)]
struct Failing {
    after: u64,
    left: u64,
}

impl Failing {
    fn check(&mut self) -> io::Result<()> {
        if self.left == 0 {
            return Ok(());
        }
        if self.after > 0 {
            self.after -= 1;
            return Ok(());
        }
        self.left -= 1;
        Err(io::Error::other("simulated I/O error"))
    }
}

/// Where a write fits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Room {
    Enough,
    /// Only where the file has bytes already.
    None,
    /// Its first half.
    Half,
}

impl Room {
    pub(super) fn is_full(self) -> bool {
        self != Self::Enough
    }
}

impl Faults {
    /// The process that waits is gone. The power stays as it is.
    pub(super) fn end_process(&mut self) {
        self.delay = Duration::ZERO;
    }

    pub(super) fn turn_on(&mut self) {
        self.powerless = false;
        self.power_loss = After::Never;
    }

    pub(super) fn is_full(&self) -> bool {
        matches!(self.full, After::In(0) | After::Begun)
    }

    pub(super) fn write(&mut self) -> io::Result<Room> {
        self.count()?;
        self.bad_writes.check()?;
        let _from_now_on = self.full.begins();
        Ok(if self.full == After::Begun {
            Room::None
        } else if self.full_once.begins() {
            Room::Half
        } else {
            Room::Enough
        })
    }

    /// Whether it shall do what it is to do.
    pub(super) fn sync(&mut self) -> io::Result<bool> {
        self.count()?;
        self.bad_syncs.check()?;
        self.wait(self.sync_time);
        self.delay += self.usual_sync_time;
        Ok(!self.lies)
    }

    pub(super) fn read(&mut self) -> io::Result<()> {
        self.count()?;
        self.bad_reads.check()?;
        self.wait(self.read_time);
        Ok(())
    }

    /// A change of names that needs no room.
    pub(super) fn name(&mut self) -> io::Result<()> {
        self.count()
    }

    pub(super) fn take_delay(&mut self) -> Duration {
        std::mem::take(&mut self.delay)
    }

    /// How long so many syncs will take.
    pub(super) fn sync_time(&self, syncs: u32) -> Duration {
        let slow = self.sync_time.saturating_mul(syncs).min(self.slow_for());
        self.usual_sync_time.saturating_mul(syncs) + slow
    }

    /// How long all will be slow.
    fn slow_for(&self) -> Duration {
        self.slow_until
            .map_or(Duration::MAX, |until| until.saturating_sub(clock::time()))
    }

    /// Adds to what is to be waited for, up to the time at which all is well again.
    fn wait(&mut self, time: Duration) {
        if !time.is_zero() {
            self.delay = (self.delay + time).min(self.slow_for());
        }
    }

    fn count(&mut self) -> io::Result<()> {
        self.powerless |= self.power_loss.begins();
        if self.powerless {
            return Err(io::Error::other("the power is gone"));
        }
        Ok(())
    }
}

impl SimDisk {
    /// While full, no file grows and nothing is created; not full, also what was to come is called off.
    pub fn set_full(&self, full: bool) {
        let faults = &mut self.state.lock().faults;
        faults.full = if full { After::In(0) } else { After::Never };
        if !full {
            faults.full_once = After::Never;
        }
    }

    /// After so many more writes the disk is full.
    pub fn fill_after(&self, writes: u64) {
        self.state.lock().faults.full = After::In(writes);
    }

    /// After so many more writes one finds the disk full half way, and the next one does not.
    pub fn full_once_after(&self, writes: u64) {
        self.state.lock().faults.full_once = After::In(writes);
    }

    /// How long each sync takes from now on.
    pub fn set_sync_time(&self, sync_time: Duration) {
        let faults = &mut self.state.lock().faults;
        (faults.sync_time, faults.slow_until) = (sync_time, None);
    }

    /// How long each sync takes when nothing is wrong.
    pub fn set_usual_sync_time(&self, usual: Duration) {
        self.state.lock().faults.usual_sync_time = usual;
    }

    /// How long each sync takes until `until`, when also those that are under way end.
    pub fn slow_syncs(&self, sync_time: Duration, until: Duration) {
        let faults = &mut self.state.lock().faults;
        (faults.sync_time, faults.slow_until) = (sync_time, Some(until));
    }

    /// How long each read takes until `until`, when also those that are under way end.
    pub fn slow_reads(&self, read_time: Duration, until: Duration) {
        let faults = &mut self.state.lock().faults;
        (faults.read_time, faults.slow_until) = (read_time, Some(until));
    }

    /// The next `count` writes fail.
    pub fn fail_writes(&self, count: u64) {
        self.fail_writes_after(0, count);
    }

    /// After so many more writes, `count` fail.
    pub fn fail_writes_after(&self, after: u64, count: u64) {
        self.state.lock().faults.bad_writes = Failing { after, left: count };
    }

    /// The next `count` syncs fail.
    pub fn fail_syncs(&self, count: u64) {
        self.fail_syncs_after(0, count);
    }

    /// After so many more syncs, `count` fail.
    pub fn fail_syncs_after(&self, after: u64, count: u64) {
        self.state.lock().faults.bad_syncs = Failing { after, left: count };
    }

    /// After so many more reads, `count` fail.
    pub fn fail_reads_after(&self, after: u64, count: u64) {
        self.state.lock().faults.bad_reads = Failing { after, left: count };
    }

    /// The power goes after so many more operations: from then on all fail, until [`SimDisk::crash`].
    pub fn lose_power_after(&self, operations: u64) {
        self.state.lock().faults.power_loss = After::In(operations);
    }

    /// Whether the power is gone.
    pub fn is_powerless(&self) -> bool {
        self.state.lock().faults.powerless
    }

    /// A planted bug, to prove that a harness finds it: syncs answer at once and do nothing.
    pub fn lie_about_syncs(&self, lies: bool) {
        self.state.lock().faults.lies = lies;
    }
}
