//! Offsets of consumer groups and their administration, over plain gRPC.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use seriatim_proto::v1::{self, ErrorCode, GroupState};
use seriatim_tests::{
    cluster::Setup,
    grpc::Api,
    members::{Member, code, commit, coordinator, describe, join, offsets},
    story::{Load, Outcome, story},
    wait,
};
use tokio::time::Instant;
use tonic::Code;

use crate::groups::{LIMIT, all, tp, with_topic};

async fn committed(
    api: &Api,
    request: v1::CommitOffsetsRequest,
) -> anyhow::Result<Option<v1::Error>> {
    Ok(api
        .groups
        .clone()
        .commit_offsets(request)
        .await?
        .into_inner()
        .error)
}

async fn listed(api: &Api) -> anyhow::Result<Vec<v1::GroupSummary>> {
    let list = v1::ListGroupsRequest {};
    let listed = api.groups.clone().list_groups(list).await?.into_inner();
    ensure!(listed.unavailable_shards == 0, "{listed:?}");
    Ok(listed.groups)
}

#[test]
fn offsets_from_outside_and_their_expiry() -> Outcome {
    story(Load::Shared, async {
        let setup = Setup::nodes(1).setting("group_retention_ms = 2000");
        let (_cluster, api) = with_topic(setup, "2").await?;
        let mut request = commit("g", &tp(0), 40);
        request.offsets[0].metadata = "here".to_owned();
        request.validate_only = true;
        ensure!(committed(&api, request.clone()).await?.is_none());
        ensure!(offsets(&api, "g").await?.is_empty());
        request.validate_only = false;
        ensure!(committed(&api, request).await?.is_none());
        ensure!(committed(&api, commit("g", &tp(1), 50)).await?.is_none());
        ensure!(
            committed(&api, commit("g", &tp(0), 4)).await?.is_none(),
            "a reset goes back"
        );
        ensure!(
            committed(&api, commit("g", &tp(1), -1)).await?.is_none(),
            "and forgets"
        );
        ensure!(offsets(&api, "g").await? == [(tp(0), 4)]);
        let asked = v1::FetchOffsetsRequest {
            group: "g".to_owned(),
            partitions: vec![v1::TopicPartitions {
                topic: "t".to_owned(),
                partitions: vec![1, 0],
            }],
        };
        let fetched = api.groups.clone().fetch_offsets(asked).await?.into_inner();
        let found: Vec<_> = fetched
            .offsets
            .iter()
            .map(|at| (at.partition, at.offset))
            .collect();
        ensure!(found == [(1, None), (0, Some(4))], "{fetched:?}");
        let summaries = listed(&api).await?;
        ensure!(summaries.len() == 1 && summaries[0].state() == GroupState::Empty);

        // Not while it has a member, however long that takes.
        let member = Member::join(&api, join("g", "m1", &["t"])).await?;
        ensure!(code(committed(&api, commit("g", &tp(0), 1)).await?)? == ErrorCode::GroupNotEmpty);
        member.leave().await?;
        ensure!(offsets(&api, "g").await? == [(tp(0), 4)]);
        let left = Instant::now();
        wait::until("it expires", LIMIT, async || {
            let described = describe(&api, "g").await?;
            Ok(described.error.is_some().then_some(()))
        })
        .await?;
        ensure!(
            left.elapsed() > Duration::from_millis(1_500),
            "{:?}",
            left.elapsed()
        );
        ensure!(listed(&api).await?.is_empty());
        Ok(())
    })
}

#[test]
fn offsets_survive_the_death_of_all_nodes() -> Outcome {
    story(Load::Shared, async {
        let (mut cluster, _api) = with_topic(Setup::nodes(3), "4").await?;
        let groups: Vec<String> = (0..20).map(|number| format!("group-{number}")).collect();
        for (offset, group) in (100..).zip(&groups) {
            let api = coordinator(&cluster, group).await?;
            ensure!(
                committed(&api, commit(group, &tp(1), offset))
                    .await?
                    .is_none()
            );
            ensure!(
                committed(&api, commit(group, &tp(2), offset + 1))
                    .await?
                    .is_none()
            );
        }
        let api = coordinator(&cluster, "g").await?;
        let member = Member::join(&api, join("g", "m1", &["t"])).await?;
        ensure!(member.commit(&api, &tp(0), 77).await?.is_none());
        let before = member.assignment.clone();
        cluster.kill_all().await?;
        drop(member);
        cluster.start_all()?;
        cluster.ready_all().await?;
        for (offset, group) in (100..).zip(&groups) {
            let api = coordinator(&cluster, group).await?;
            let now = offsets(&api, group).await?;
            ensure!(
                now == [(tp(1), offset), (tp(2), offset + 1)],
                "{group}: {now:?}"
            );
        }
        // Members are still members, for a session timeout.
        let api = coordinator(&cluster, "g").await?;
        let back = v1::JoinGroup {
            rejoin: true,
            ..join("g", "m1", &["t"])
        };
        let member = Member::join(&api, back).await?;
        ensure!(member.assignment.generation == before.generation);
        ensure!(member.owned() == all(4));
        ensure!(member.assignment.assigned[0].committed_offset == Some(77));
        drop(member);
        cluster.stop_and_check().await
    })
}

#[test]
fn bad_commits_and_questions_are_refused() -> Outcome {
    story(Load::Shared, async {
        let cluster = Setup::nodes(1).start().await?;
        let mut api = Api::connect(&cluster.node(1)?.addresses.grpc).await?;
        // Nothing is made for a question that makes no sense.
        for groups in [vec![], vec![String::new()], vec!["x".repeat(256)]] {
            let find = v1::FindCoordinatorsRequest { groups };
            let refused = api.groups.find_coordinators(find).await;
            let status = refused.err().context("it was accepted")?;
            ensure!(status.code() == Code::InvalidArgument, "{status:?}");
        }
        let before = committed(&api, commit("g", &tp(0), 1)).await?;
        ensure!(
            code(before)? == ErrorCode::LeaderNotAvailable,
            "there are no groups yet"
        );
        ensure!(listed(&api).await?.is_empty());
        let _created = cluster.cli().ok(&["topic", "create", "t"]).await?;
        let api = coordinator(&cluster, "g").await?;

        for (request, expected) in bad_commits() {
            let said = format!("{:?}", request.offsets.first());
            let refused = code(committed(&api, request).await?)?;
            ensure!(refused == expected, "{refused:?} for {said}");
        }
        // What is internal is not for clients.
        let deleted = cluster.cli().run(&["topic", "delete", "__groups"]).await?;
        ensure!(!deleted.status.success());
        ensure!(
            deleted.stderr.contains("'__groups' is internal"),
            "{}",
            deleted.stderr
        );
        Ok(())
    })
}

/// Commits of offset 1 of "t-0" with something wrong, and what they are refused with.
fn bad_commits() -> Vec<(v1::CommitOffsetsRequest, ErrorCode)> {
    let bad = |change: fn(&mut v1::CommitOffsetsRequest)| {
        let mut request = commit("g", &tp(0), 1);
        change(&mut request);
        request
    };
    vec![
        (bad(|it| it.group.clear()), ErrorCode::InvalidGroup),
        (
            bad(|it| it.group = "a\u{0}b".into()),
            ErrorCode::InvalidGroup,
        ),
        (bad(|it| it.offsets.clear()), ErrorCode::InvalidRequest),
        (
            bad(|it| it.offsets[0].offset = -2),
            ErrorCode::InvalidRequest,
        ),
        (
            bad(|it| it.offsets[0].topic = "no".into()),
            ErrorCode::UnknownTopic,
        ),
        (
            bad(|it| it.offsets[0].partition = 1),
            ErrorCode::UnknownPartition,
        ),
        (
            bad(|it| it.offsets[0].partition = -1),
            ErrorCode::UnknownPartition,
        ),
        (
            bad(|it| it.offsets[0].metadata = "x".repeat(5_000)),
            ErrorCode::InvalidRequest,
        ),
        (
            bad(|it| it.offsets = vec![it.offsets[0].clone(); 2]),
            ErrorCode::InvalidRequest,
        ),
        (
            bad(|it| it.offsets = vec![it.offsets[0].clone(); 10_001]),
            ErrorCode::InvalidRequest,
        ),
        (
            bad(|it| it.member_id = "who".into()),
            ErrorCode::UnknownMember,
        ),
    ]
}
