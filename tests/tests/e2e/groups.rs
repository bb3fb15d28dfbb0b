//! Members of consumer groups over plain gRPC: who gets what, and who may commit.

use std::{collections::BTreeSet, time::Duration};

use anyhow::{Context as _, ensure};
use rustix::process::Signal;
use seriatim_proto::v1::{
    self, AssignmentStrategy, ErrorCode, GroupState, member_request::Request,
};
use seriatim_tests::{
    cluster::{Cluster, Setup},
    grpc::Api,
    members::{Member, Tp, code, coordinator, coordinator_of, describe, join, offsets},
    story::{Load, Outcome, story},
    wait,
};
use tokio::time::Instant;

pub(crate) const LIMIT: Duration = Duration::from_secs(30);

/// A cluster with topic "t" of so many partitions, and the coordinator of group "g".
pub(crate) async fn with_topic(setup: Setup, partitions: &str) -> anyhow::Result<(Cluster, Api)> {
    let cluster = setup.start().await?;
    let create = ["topic", "create", "t", "--partitions", partitions];
    let _created = cluster.cli().ok(&create).await?;
    let api = coordinator(&cluster, "g").await?;
    Ok((cluster, api))
}

pub(crate) fn tp(partition: i32) -> Tp {
    ("t".to_owned(), partition)
}

pub(crate) fn all(partitions: i32) -> BTreeSet<Tp> {
    (0..partitions).map(tp).collect()
}

async fn delete(api: &Api, group: &str) -> anyhow::Result<Option<v1::Error>> {
    let request = v1::DeleteGroupRequest {
        group: group.to_owned(),
    };
    Ok(api
        .groups
        .clone()
        .delete_group(request)
        .await?
        .into_inner()
        .error)
}

#[test]
fn partitions_move_one_by_one_and_commits_are_fenced() -> Outcome {
    story(Load::Shared, async {
        let (_cluster, api) = with_topic(Setup::nodes(1), "4").await?;
        let mut first = Member::join(&api, join("g", "m1", &["t"])).await?;
        ensure!(first.owned() == all(4), "{:?}", first.assignment);
        ensure!(first.assignment.session_timeout_ms == 10_000);
        ensure!(first.commit(&api, &tp(0), 5).await?.is_none());
        ensure!(first.commit(&api, &tp(3), 7).await?.is_none());

        let mut second = Member::join(&api, join("g", "m2", &["t"])).await?;
        ensure!(second.owned().is_empty(), "the first has not let go");
        let wanted: usize = second
            .assignment
            .pending
            .iter()
            .map(|of| of.partitions.len())
            .sum();
        ensure!(wanted == 2, "{:?}", second.assignment);
        let _told = first.until(|told| !told.revoke.is_empty()).await?;
        ensure!(first.assignment.revoke == second.assignment.pending);
        let moving = (
            first.assignment.revoke[0].topic.clone(),
            first.assignment.revoke[0].partitions[1],
        );
        let described = describe(&api, "g").await?;
        ensure!(described.state() == GroupState::Rebalancing);

        // The last commit before it is let go of is what the next owner begins with.
        ensure!(first.commit(&api, &moving, 9).await?.is_none());
        ensure!(code(second.commit(&api, &moving, 1).await?)? == ErrorCode::StaleGeneration);
        first.release().await?;
        let _told = second.until(|told| told.assigned.len() == 2).await?;
        let begin = second.assignment.assigned.iter();
        let begin = begin
            .filter(|of| of.partition == moving.1)
            .map(|of| of.committed_offset);
        ensure!(
            begin.collect::<Vec<_>>() == [Some(9)],
            "{:?}",
            second.assignment
        );
        ensure!(code(first.commit(&api, &moving, 10).await?)? == ErrorCode::StaleGeneration);
        ensure!(second.commit(&api, &moving, 10).await?.is_none());
        ensure!(code(second.commit(&api, &moving, 4).await?)? == ErrorCode::OffsetWentBack);
        let _told = first.until(|told| told.revoke.is_empty()).await?;
        ensure!(first.owned().is_disjoint(&second.owned()));

        let described = describe(&api, "g").await?;
        ensure!(described.state() == GroupState::Stable, "{described:?}");
        ensure!(described.strategy() == AssignmentStrategy::Sticky);
        ensure!(described.members.len() == 2);
        ensure!(
            described
                .members
                .iter()
                .all(|m| m.client_host == "127.0.0.1")
        );
        ensure!(code(delete(&api, "g").await?)? == ErrorCode::GroupNotEmpty);

        // A clean leave hands everything over at once.
        first.leave().await?;
        let _told = second.until(|told| told.assigned.len() == 4).await?;
        ensure!(second.owned() == all(4));
        second.leave().await?;
        let described = describe(&api, "g").await?;
        ensure!(described.state() == GroupState::Empty);
        ensure!(delete(&api, "g").await?.is_none());
        ensure!(code(describe(&api, "g").await?.error)? == ErrorCode::UnknownGroup);
        ensure!(code(delete(&api, "g").await?)? == ErrorCode::UnknownGroup);
        Ok(())
    })
}

#[test]
fn a_silent_member_loses_its_partitions_and_only_these_move() -> Outcome {
    story(Load::Shared, async {
        let (_cluster, api) = with_topic(Setup::nodes(1), "6").await?;
        let short = |id| v1::JoinGroup {
            session_timeout_ms: 3_000,
            ..join("g", id, &["t"])
        };
        let mut members = Vec::new();
        for id in ["m1", "m2", "m3"] {
            members.push(Member::open(&api, short(id)).await?);
        }
        for member in &mut members {
            let _told = member.until(|told| told.assigned.len() == 2).await?;
        }
        let generation = members[0].assignment.generation;
        ensure!(
            members
                .iter()
                .all(|m| m.assignment.generation == generation)
        );
        ensure!(
            generation == 1,
            "those who come together get one generation: {generation}"
        );
        let before: Vec<BTreeSet<Tp>> = members.iter().map(Member::owned).collect();

        let dead = members.pop().context("a member")?;
        let lost = dead.owned();
        let id = dead.id.clone();
        drop(dead);
        let died = Instant::now();
        for (member, before) in members.iter_mut().zip(&before) {
            let _told = member.until(|told| told.assigned.len() == 3).await?;
            ensure!(member.owned().is_superset(before), "it kept what it had");
        }
        let after = died.elapsed();
        ensure!(
            (2_400..6_000).contains(&after.as_millis()),
            "moved after {after:?}"
        );
        let now: BTreeSet<Tp> = members.iter().flat_map(Member::owned).collect();
        ensure!(now == all(6) && now.is_superset(&lost));

        // It comes back too late, and then as somebody new.
        let mut late = v1::JoinGroup {
            rejoin: true,
            ..short(&id)
        };
        let refused = Member::open(&api, late.clone()).await?.refused().await?;
        ensure!(refused.code() == ErrorCode::UnknownMember, "{refused:?}");
        late.rejoin = false;
        late.member_id = "m4".to_owned();
        let new = Member::join(&api, late).await?;
        ensure!(new.assignment.generation > generation + 1);
        Ok(())
    })
}

#[test]
fn a_member_that_comes_back_in_time_has_lost_nothing() -> Outcome {
    story(Load::Shared, async {
        let (_cluster, api) = with_topic(Setup::nodes(1), "4").await?;
        let first = Member::join(&api, join("g", "m1", &["t"])).await?;
        let before = first.assignment.clone();
        drop(first);
        let back = v1::JoinGroup {
            rejoin: true,
            ..join("g", "m1", &["t"])
        };
        let mut first = Member::join(&api, back.clone()).await?;
        ensure!(first.assignment == before, "{:?}", first.assignment);
        // Another stream of the same member ends the one before. If it is one that the member gave up,
        // and that came late, the member joins again.
        let second = Member::join(&api, back).await?;
        ensure!(second.assignment == before);
        let ended = first.refused().await?;
        ensure!(ended.code() == ErrorCode::InvalidRequest && ended.retryable);
        // A subscription may change on the way.
        second
            .send(Request::Join(join("g", "m1", &["t", "later"])))
            .await?;
        let described = wait::until("it subscribes", LIMIT, async || {
            let described = describe(&api, "g").await?;
            Ok((described.members[0].topics.len() == 2).then_some(described))
        })
        .await?;
        ensure!(described.members[0].topics == ["later", "t"]);
        Ok(())
    })
}

#[test]
fn an_instance_that_restarts_moves_nothing() -> Outcome {
    story(Load::Shared, async {
        let (_cluster, api) = with_topic(Setup::nodes(1), "4").await?;
        let instance = |member: &str, instance: &str| v1::JoinGroup {
            instance_id: instance.to_owned(),
            ..join("g", member, &["t"])
        };
        let mut one = Member::open(&api, instance("m1", "one")).await?;
        let mut two = Member::open(&api, instance("m2", "two")).await?;
        for member in [&mut one, &mut two] {
            let _told = member.until(|told| told.assigned.len() == 2).await?;
        }
        let before = describe(&api, "g").await?;
        let mut again = Member::join(&api, instance("m3", "one")).await?;
        ensure!(again.owned() == one.owned());
        ensure!(again.assignment.generation == one.assignment.generation);
        ensure!(one.refused().await?.code() == ErrorCode::MemberFenced);
        ensure!(code(one.commit(&api, &one_of(&one)?, 1).await?)? == ErrorCode::MemberFenced);
        ensure!(again.commit(&api, &one_of(&again)?, 1).await?.is_none());
        let after = describe(&api, "g").await?;
        ensure!(after.generation == before.generation);
        ensure!(after.members.len() == 2);
        // The old process does not get its place back.
        let refused = Member::open(&api, instance("m1", "one"))
            .await?
            .refused()
            .await?;
        ensure!(refused.code() == ErrorCode::MemberFenced);
        // Until its time runs out the place is kept; then it is not.
        again.send(Request::Leave(v1::Leave {})).await?;
        ensure!(again.next().await?.is_none());
        let _told = two.until(|told| told.assigned.len() == 4).await?;
        Ok(())
    })
}

fn one_of(member: &Member) -> anyhow::Result<Tp> {
    member.owned().pop_first().context("it owns nothing")
}

#[test]
fn what_is_not_let_go_of_is_taken_away() -> Outcome {
    story(Load::Shared, async {
        let (_cluster, api) = with_topic(Setup::nodes(1), "4").await?;
        let patient = v1::JoinGroup {
            rebalance_timeout_ms: 1_000,
            ..join("g", "m1", &["t"])
        };
        let mut first = Member::join(&api, patient).await?;
        let mut second = Member::join(&api, join("g", "m2", &["t"])).await?;
        let _told = first.until(|told| !told.revoke.is_empty()).await?;
        let told = Instant::now();
        let _told = second.until(|told| told.assigned.len() == 2).await?;
        ensure!(
            told.elapsed() > Duration::from_millis(700),
            "{:?}",
            told.elapsed()
        );
        let _told = first.until(|told| told.revoke.is_empty()).await?;
        let lost = one_of(&second)?;
        ensure!(code(first.commit(&api, &lost, 1).await?)? == ErrorCode::StaleGeneration);
        Ok(())
    })
}

#[test]
fn topics_that_come_grow_and_go_are_followed() -> Outcome {
    story(Load::Shared, async {
        let (cluster, api) = with_topic(Setup::nodes(1), "1").await?;
        let mut member = Member::join(&api, join("g", "m1", &["t", "u"])).await?;
        ensure!(member.owned() == all(1));
        let create = ["topic", "create", "u", "--partitions", "2"];
        let _created = cluster.cli().ok(&create).await?;
        let _told = member.until(|told| told.assigned.len() == 3).await?;
        let of_u = ("u".to_owned(), 1);
        ensure!(member.commit(&api, &of_u, 8).await?.is_none());
        ensure!(member.commit(&api, &tp(0), 3).await?.is_none());
        let _deleted = cluster.cli().ok(&["topic", "delete", "u"]).await?;
        let _told = member
            .until(|told| told.assigned.len() == 1 && told.revoke.len() == 1)
            .await?;
        member.release().await?;
        let _told = member.until(|told| told.revoke.is_empty()).await?;
        wait::until("its offsets are gone", LIMIT, async || {
            Ok((offsets(&api, "g").await? == [(tp(0), 3)]).then_some(()))
        })
        .await?;
        // A topic made anew under the name has no offset.
        let _created = cluster.cli().ok(&create).await?;
        let _told = member.until(|told| told.assigned.len() == 3).await?;
        let mut begin = member
            .assignment
            .assigned
            .iter()
            .filter(|of| of.topic == "u");
        ensure!(begin.all(|of| of.committed_offset.is_none()));
        ensure!(member.commit(&api, &of_u, 1).await?.is_none());
        Ok(())
    })
}

#[test]
fn a_new_coordinator_takes_over() -> Outcome {
    story(Load::Alone, async {
        let (mut cluster, _api) = with_topic(Setup::nodes(3), "4").await?;
        let (api, node) = coordinator_of(&cluster, "g").await?;
        let mut first = Member::join(&api, join("g", "m1", &["t"])).await?;
        ensure!(first.commit(&api, &tp(0), 3).await?.is_none());
        let generation = first.assignment.generation;
        cluster.node_mut(node)?.kill().await?;
        let killed = Instant::now();
        ensure!(first.next().await?.is_none(), "the connection broke");
        drop(first);
        let (api, other) = coordinator_of(&cluster, "g").await?;
        ensure!(other != node);
        let back = v1::JoinGroup {
            rejoin: true,
            ..join("g", "m1", &["t"])
        };
        let mut first = Member::join(&api, back).await?;
        eprintln!("coordinated again after {:?}", killed.elapsed());
        ensure!(
            first.assignment.generation == generation,
            "{:?}",
            first.assignment
        );
        ensure!(first.owned() == all(4));
        ensure!(first.commit(&api, &tp(0), 4).await?.is_none());

        // One that only stalls: another takes over meanwhile, and the old one refuses its members.
        cluster.node_mut(node)?.start()?;
        cluster.node_mut(node)?.ready().await?;
        cluster.node(other)?.signal(Signal::STOP)?;
        let found = coordinator_of_others(&cluster, other).await;
        cluster.node(other)?.signal(Signal::CONT)?;
        let _found = found?;
        let refused = first.refused().await?;
        // Where it is now is not known to the old one in the first moment, and leaders may be moved
        // back to where they are preferred.
        let expected = [ErrorCode::NotCoordinator, ErrorCode::LeaderNotAvailable];
        ensure!(expected.contains(&refused.code()), "{refused:?}");
        ensure!(refused.retryable && !refused.maybe_applied, "{refused:?}");
        let kept = wait::until("the offsets are served", LIMIT, async || {
            let (api, _node) = coordinator_of(&cluster, "g").await?;
            offsets(&api, "g").await.map(Some)
        });
        ensure!(kept.await? == [(tp(0), 4)]);
        Ok(())
    })
}

/// The coordinator of "g" as the nodes that are not stopped know it.
async fn coordinator_of_others(cluster: &Cluster, stopped: u64) -> anyhow::Result<(Api, u64)> {
    wait::until("another coordinator", LIMIT, async || {
        let mut nodes = cluster.nodes().iter().filter(|node| node.id != stopped);
        let node = nodes.next().context("no other node")?;
        let mut api = Api::connect(&node.addresses.grpc).await?;
        let request = v1::FindCoordinatorsRequest {
            groups: vec!["g".to_owned()],
        };
        let found = api.groups.find_coordinators(request).await?.into_inner();
        let found = &found.coordinators[0];
        if found.error.is_some() || found.node_id == stopped {
            return Ok(None);
        }
        let api = Api::connect(&found.grpc_address).await?;
        Ok(offsets(&api, "g")
            .await
            .is_ok()
            .then_some((api, found.node_id)))
    })
    .await
}

#[test]
fn bad_joins_are_refused() -> Outcome {
    story(Load::Shared, async {
        let (_cluster, api) = with_topic(Setup::nodes(1), "1").await?;
        let odd = |change: fn(&mut v1::JoinGroup)| {
            let mut request = join("g", "m1", &["t"]);
            change(&mut request);
            request
        };
        for (request, expected) in [
            (odd(|it| it.group.clear()), ErrorCode::InvalidGroup),
            (odd(|it| it.member_id.clear()), ErrorCode::InvalidRequest),
            (odd(|it| it.topics.clear()), ErrorCode::InvalidRequest),
            (
                odd(|it| it.topics = vec!["a b".into()]),
                ErrorCode::InvalidTopicName,
            ),
            (
                odd(|it| it.topics = vec!["__groups".into()]),
                ErrorCode::InvalidRequest,
            ),
            (odd(|it| it.strategy = 9), ErrorCode::InvalidRequest),
            (
                odd(|it| it.session_timeout_ms = 10),
                ErrorCode::InvalidRequest,
            ),
            (
                odd(|it| it.rebalance_timeout_ms = 9),
                ErrorCode::InvalidRequest,
            ),
            (odd(|it| it.rejoin = true), ErrorCode::UnknownMember),
        ] {
            let said = format!("{request:?}");
            let refused = Member::open(&api, request).await?.refused().await?;
            ensure!(refused.code() == expected, "{refused:?} for {said}");
        }
        let mut member = Member::join(&api, join("g", "m1", &["t"])).await?;
        member.send(Request::Join(join("g", "m2", &["t"]))).await?;
        ensure!(member.refused().await?.code() == ErrorCode::InvalidRequest);
        Ok(())
    })
}
