//! A group whose members are killed, stopped and added while the nodes are killed: is every event
//! processed, and none again without a reason?
//!
//! The members are processes; they and this one write down what happens in a common
//! [journal], which the [judge] reads at the end.

pub mod journal;
pub mod judge;
pub mod member;
mod processes;

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, ensure};
use rustix::process::Signal;
use seriatim_client::{Client, ErrorCode, NewTopic, ProducerRecord};
use tokio::{
    task::JoinHandle,
    time::{Instant, MissedTickBehavior, interval, sleep},
};

use self::{
    journal::{Event, Journal},
    judge::Verdict,
    processes::Process,
};
use crate::{cluster::Cluster, wait};

const TOPIC: &str = "churn";
const GROUP: &str = "churners";
/// How often the committed offsets are looked at.
const LOOK: Duration = Duration::from_millis(100);
/// How long the members may take to process the rest when nothing is killed any more.
const CATCH_UP: Duration = Duration::from_secs(120);
/// Most records that a producer has under way.
const FLUSH_EVERY: u64 = 1_000;

/// What to do.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Program and first arguments of a member's process.
    pub program: Vec<String>,
    /// Events, spread evenly over the partitions.
    pub events: u64,
    /// Partitions of the topic.
    pub partitions: i32,
    /// Members at the beginning.
    pub members: usize,
    /// Events a second.
    pub rate: u64,
    /// How often something happens to a member.
    pub member_every: Duration,
    /// How often a node is killed.
    pub node_every: Duration,
    /// The members' session timeout.
    pub session_timeout: Duration,
    /// Makes the same choices again.
    pub seed: u64,
}

/// What was done and seen.
#[derive(Debug, Default, Clone)]
pub struct Churned {
    /// Members killed.
    pub killed: u32,
    /// Members stopped for less than their session timeout.
    pub paused: u32,
    /// Members stopped for longer.
    pub evicted: u32,
    /// Members added.
    pub added: u32,
    /// Nodes killed.
    pub nodes_killed: u32,
    /// From the last event to when all were processed and committed.
    pub catch_up: Duration,
    /// What the journal says.
    pub verdict: Verdict,
}

/// Runs the plan to its end.
///
/// # Errors
/// If the cluster or a member does not do its part, or the members do not catch up. What they did
/// wrong is part of the verdict.
pub async fn run(plan: &Plan, progress: impl Fn(&str)) -> anyhow::Result<Churned> {
    let mut cluster = Cluster::of_three().await?;
    let client = cluster.client().await?;
    let topic = NewTopic {
        name: TOPIC.to_owned(),
        partitions: plan.partitions,
        replication_factor: 3,
        ..NewTopic::default()
    };
    let _created = client.admin().create_topic(topic).await?;
    let path = cluster.folder().join("journal");
    let mut churn = Churn::begin(plan, &cluster, &path)?;
    let looking = look(client.clone(), Journal::open(&path)?);
    let producing = produce(client.clone(), plan);
    churn.until_done(&mut cluster, &producing, progress).await?;
    let ends = producing.await??;
    let since = Instant::now();
    cluster.ready_all().await?;
    churn.resume_all()?;
    caught_up(&client, &ends).await?;
    churn.done.catch_up = since.elapsed();
    let mut done = churn.leave().await?;
    looking.abort();
    cluster.stop().await?;
    done.verdict = judge::judge(&journal::read(&path)?, &ends);
    Ok(done)
}

/// Waits until the committed offsets are the ends.
async fn caught_up(client: &Client, ends: &[i64]) -> anyhow::Result<()> {
    let admin = client.admin();
    wait::until("all is processed and committed", CATCH_UP, async || {
        let committed = admin.committed_offsets(GROUP, &[]).await?;
        let mut behind = Vec::new();
        for (partition, &end) in (0..).zip(ends) {
            let at = committed
                .iter()
                .find(|c| c.partition.partition.0 == partition);
            let at = at.and_then(|c| c.offset).map_or(0, |offset| offset.0);
            if at < end {
                behind.push(format!("{partition}: {at} of {end}"));
            }
        }
        ensure!(behind.is_empty(), "behind: {}", behind.join(", "));
        Ok(Some(()))
    })
    .await
}

/// Writes the events, evenly; returns the ends of the partitions.
fn produce(client: Client, plan: &Plan) -> JoinHandle<anyhow::Result<Vec<i64>>> {
    let plan = plan.clone();
    spawn(async move {
        let producer = client.producer().build().await?;
        let partitions = u64::try_from(plan.partitions)?;
        let mut ends = vec![0_i64; usize::try_from(plan.partitions)?];
        let began = Instant::now();
        for number in 0..plan.events {
            let partition = i32::try_from(number % partitions)?;
            let end = ends.get_mut(usize::try_from(partition)?);
            let end = end.context("no such partition")?;
            let record = ProducerRecord::new(TOPIC, member::value(partition, *end));
            let _stored = producer.send(record.partition(partition)).await?;
            *end += 1;
            if number % FLUSH_EVERY == 0 {
                let due = Duration::from_secs_f64(seconds(number, plan.rate));
                sleep(due.saturating_sub(began.elapsed())).await;
            }
        }
        producer.close().await?;
        Ok(ends)
    })
}

fn seconds(number: u64, rate: u64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
    let (number, rate) = (number as f64, rate.max(1) as f64);
    number / rate
}

/// Writes the committed offsets into the journal whenever they change.
fn look(client: Client, journal: Journal) -> JoinHandle<()> {
    spawn(async move {
        let admin = client.admin();
        let mut known = std::collections::BTreeMap::new();
        loop {
            sleep(LOOK).await;
            let Ok(committed) = admin.committed_offsets(GROUP, &[]).await else {
                continue;
            };
            for offset in committed {
                let (partition, at) = (offset.partition.partition.0, offset.offset);
                let Some(at) = at else { continue };
                if known.insert(partition, at) != Some(at)
                    && journal.append(&Event::Committed(partition, at.0)).is_err()
                {
                    return;
                }
            }
        }
    })
}

#[expect(
    clippy::disallowed_methods,
    reason = "the tests have no simulated runtime"
)]
fn spawn<T: Send + 'static>(future: impl Future<Output = T> + Send + 'static) -> JoinHandle<T> {
    tokio::spawn(future)
}

/// The members, and what happens to them.
struct Churn<'a> {
    plan: &'a Plan,
    servers: String,
    path: PathBuf,
    journal: Journal,
    members: Vec<Process>,
    started: u32,
    dice: u64,
    done: Churned,
}

impl<'a> Churn<'a> {
    fn begin(plan: &'a Plan, cluster: &Cluster, path: &Path) -> anyhow::Result<Self> {
        let mut churn = Self {
            plan,
            servers: cluster.servers().to_owned(),
            path: path.to_owned(),
            journal: Journal::open(path)?,
            members: Vec::new(),
            started: 0,
            dice: plan.seed,
            done: Churned::default(),
        };
        for _ in 0..plan.members {
            churn.add()?;
        }
        Ok(churn)
    }

    fn add(&mut self) -> anyhow::Result<()> {
        self.started += 1;
        let journal = self.path.to_str().context("the path is not UTF-8")?;
        let timeout = self.plan.session_timeout.as_millis().to_string();
        let args = [
            ("--servers", self.servers.as_str()),
            ("--topic", TOPIC),
            ("--group", GROUP),
            ("--journal", journal),
            ("--session-timeout-ms", &timeout),
        ];
        let name = format!("m{}", self.started);
        self.members
            .push(Process::start(&self.plan.program, &args, name)?);
        Ok(())
    }

    /// A number below `sides`.
    fn roll(&mut self, sides: usize) -> usize {
        self.dice = self
            .dice
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let high = usize::try_from(self.dice >> 33).unwrap_or(0);
        high.checked_rem(sides).unwrap_or(0)
    }

    /// Lets things happen until all is written.
    async fn until_done(
        &mut self,
        cluster: &mut Cluster,
        producing: &JoinHandle<anyhow::Result<Vec<i64>>>,
        progress: impl Fn(&str),
    ) -> anyhow::Result<()> {
        let began = Instant::now();
        let mut tick = interval(Duration::from_millis(100));
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut member_at = began + self.plan.member_every;
        let mut node_at = began + self.plan.node_every;
        let mut down: Option<(u64, Instant)> = None;
        while !producing.is_finished() {
            let _now = tick.tick().await;
            let now = Instant::now();
            self.resume(now)?;
            self.check_alive()?;
            if now >= member_at {
                member_at = now + self.plan.member_every;
                let what = self.disturb(now)?;
                progress(&format!("{:.0} s: {what}", began.elapsed().as_secs_f64()));
            }
            match down {
                Some((node, until)) if now >= until => {
                    cluster.node_mut(node)?.start()?;
                    down = None;
                }
                None if now >= node_at => {
                    node_at = now + self.plan.node_every;
                    // Not before the last one is back: a majority always runs.
                    cluster.ready_all().await?;
                    let node = u64::try_from(self.roll(cluster.nodes().len()) + 1)?;
                    cluster.node_mut(node)?.kill().await?;
                    self.done.nodes_killed += 1;
                    down = Some((node, Instant::now() + self.plan.node_every / 5));
                    progress(&format!(
                        "{:.0} s: node {node} killed",
                        began.elapsed().as_secs_f64()
                    ));
                }
                _ => {}
            }
        }
        cluster.start_all()
    }

    /// Something happens to a member.
    fn disturb(&mut self, now: Instant) -> anyhow::Result<String> {
        let running: Vec<usize> = (0..self.members.len())
            .filter(|&at| {
                self.members
                    .get(at)
                    .is_some_and(|m| m.paused_until.is_none())
            })
            .collect();
        let few = running.len() <= self.plan.members / 2;
        let many = self.members.len() >= self.plan.members * 2;
        let choice = match self.roll(4) {
            _ if few => 3,
            3 if many => 0,
            choice => choice,
        };
        let victim = running.get(self.roll(running.len())).copied().unwrap_or(0);
        let session = self.plan.session_timeout;
        match choice {
            0 => {
                let member = self.members.remove(victim);
                let name = member.name.clone();
                member.kill(&self.journal)?;
                self.done.killed += 1;
                Ok(format!("member {name} killed"))
            }
            1 => {
                self.done.paused += 1;
                self.pause(victim, now + session / 3)
            }
            2 => {
                self.done.evicted += 1;
                self.pause(victim, now + session * 2)
            }
            _ => {
                self.add()?;
                self.done.added += 1;
                Ok(format!("member m{} added", self.started))
            }
        }
    }

    fn pause(&mut self, at: usize, until: Instant) -> anyhow::Result<String> {
        let member = self.members.get_mut(at).context("no such member")?;
        member.signal(Signal::STOP)?;
        member.paused_until = Some(until);
        let time = until.saturating_duration_since(Instant::now());
        Ok(format!("member {} stopped for {time:.1?}", member.name))
    }

    fn resume(&mut self, now: Instant) -> anyhow::Result<()> {
        for member in &mut self.members {
            if member.paused_until.is_some_and(|until| until <= now) {
                member.signal(Signal::CONT)?;
                member.paused_until = None;
            }
        }
        Ok(())
    }

    fn resume_all(&mut self) -> anyhow::Result<()> {
        for member in &mut self.members {
            member.signal(Signal::CONT)?;
            member.paused_until = None;
        }
        Ok(())
    }

    /// Members do not end by themselves.
    fn check_alive(&mut self) -> anyhow::Result<()> {
        for member in &mut self.members {
            if let Some(status) = member.ended()? {
                anyhow::bail!("member {} ended by itself: {status}", member.name);
            }
        }
        Ok(())
    }

    /// All members leave by themselves; the group has none then.
    async fn leave(self) -> anyhow::Result<Churned> {
        for member in self.members {
            member.leave().await?;
        }
        let client = Client::connect(&self.servers).await?;
        let admin = client.admin();
        wait::until("the group is empty", CATCH_UP, async || {
            match admin.describe_group(GROUP).await {
                // A member that was killed has its session timeout.
                Ok(group) => Ok(group.members.is_empty().then_some(())),
                Err(error) if error.code() == Some(ErrorCode::UnknownGroup) => Ok(Some(())),
                Err(error) => Err(error.into()),
            }
        })
        .await?;
        Ok(self.done)
    }
}
