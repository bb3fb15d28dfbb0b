//! The native API, as a program in any language sees it.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use futures::StreamExt as _;
use prost::Message as _;
use seriatim_proto::{
    error::ERROR_METADATA_KEY,
    v1::{self, ErrorCode, fetch_stream_request::Kind, list_offsets_partition::At},
};
use seriatim_tests::{
    cluster::{Cluster, Setup},
    grpc::{Api, batch, records, request, stamped, to, values},
    story::{Load, Outcome, story},
    wait,
};
use tokio::{
    sync::mpsc,
    time::{Instant, timeout},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};
use tonic_reflection::pb::v1::{
    ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
    server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
};

const TOPIC: &str = "calls";
const LIMIT: Duration = Duration::from_secs(20);

/// One node with a topic of one partition, and a connection to it.
async fn one_node() -> anyhow::Result<(Cluster, Api)> {
    let cluster = Setup::nodes(1).start().await?;
    let _created = cluster.cli().ok(&["topic", "create", TOPIC]).await?;
    let mut api = Api::connect(&cluster.node(1)?.addresses.grpc).await?;
    serves(&mut api).await?;
    Ok((cluster, api))
}

/// A new leader reads only once it has committed an entry of its own.
async fn serves(api: &mut Api) -> anyhow::Result<()> {
    wait::until("the leader serves", LIMIT, async || {
        let end = api.offset(TOPIC, At::End(true)).await?;
        Ok(end.error.is_none().then_some(()))
    })
    .await
}

/// The code of a refused batch, which must not have been stored.
fn code(result: &v1::PartitionProduceResult) -> anyhow::Result<ErrorCode> {
    let error = result.error.as_ref().context("it was accepted")?;
    ensure!(!error.message.is_empty(), "no message");
    ensure!(!error.maybe_applied, "{error:?}");
    Ok(error.code())
}

#[test]
fn a_batch_is_produced_and_fetched_with_its_offsets() -> Outcome {
    story(Load::Shared, async {
        let (_cluster, mut api) = one_node().await?;
        let first = api.produce(to(TOPIC, batch(1_000, &["a", "b"])?)).await?;
        let second = api.produce(to(TOPIC, batch(2_000, &["c"])?)).await?;
        assert_eq!((first.error, first.base_offset), (None, 0));
        assert_eq!((second.error, second.base_offset), (None, 2));
        let all = api.fetch((TOPIC, 0, 0), (1, 0, 0)).await?;
        let read = records(all.record_batches)?;
        assert_eq!(values(&read), ["a", "b", "c"]);
        assert_eq!(
            read.iter().map(|r| r.offset.0).collect::<Vec<_>>(),
            [0, 1, 2]
        );
        assert_eq!((all.high_watermark, all.log_start_offset), (3, 0));
        let beyond = api.fetch((TOPIC, 0, 4), (1, 0, 0)).await?;
        let error = beyond.error.context("there is no offset 4 yet")?;
        assert_eq!(error.code(), ErrorCode::OffsetOutOfRange);
        assert_eq!(
            (error.log_start_offset, error.log_end_offset),
            (Some(0), Some(3))
        );
        Ok(())
    })
}

#[test]
fn a_produce_stream_answers_every_request_by_its_number() -> Outcome {
    story(Load::Shared, async {
        let (_cluster, mut api) = one_node().await?;
        let requests = (0..50_u64).map(|number| {
            let text = number.to_string();
            batch(0, &[&text]).map(|bytes| request(number, vec![to(TOPIC, bytes)]))
        });
        let requests = requests.collect::<anyhow::Result<Vec<_>>>()?;
        let answers = api.log.produce_stream(tokio_stream::iter(requests)).await?;
        let answers: Vec<_> = timeout(LIMIT, answers.into_inner().collect::<Vec<_>>()).await?;
        assert_eq!(answers.len(), 50, "one answer for each request");
        for answer in answers {
            let answer = answer?;
            let result = answer.results.first().context("no result")?;
            assert_eq!(result.error, None);
            // One partition of one connection keeps the order of the requests.
            assert_eq!(u64::try_from(result.base_offset)?, answer.correlation_id);
        }
        Ok(())
    })
}

#[test]
fn a_fetch_waits_for_min_bytes_or_max_wait() -> Outcome {
    story(Load::Shared, async {
        let (_cluster, mut api) = one_node().await?;
        let began = Instant::now();
        let empty = api.fetch((TOPIC, 0, 0), (1, 0, 700)).await?;
        assert!(
            empty.record_batches.is_empty() && empty.error.is_none(),
            "{empty:?}"
        );
        let waited = began.elapsed();
        assert!(
            waited >= Duration::from_millis(690),
            "answered after {waited:?}"
        );
        assert!(waited < LIMIT / 2, "answered after {waited:?}");

        // A waiting fetch is answered when there is enough, and not before.
        let small = batch(0, &["small"])?;
        let large = batch(0, &["x".repeat(4_000).as_str()])?;
        let mut reader = api.clone();
        let fetching = reader.fetch((TOPIC, 0, 0), (4_000, 0, 60_000));
        let producing = async {
            let first = api.produce(to(TOPIC, small)).await?;
            tokio::time::sleep(Duration::from_millis(300)).await;
            let second = api.produce(to(TOPIC, large)).await?;
            anyhow::Ok((first, second))
        };
        let (fetched, produced) =
            timeout(LIMIT, async { tokio::join!(fetching, producing) }).await?;
        let _produced = produced?;
        assert_eq!(
            records(fetched?.record_batches)?.len(),
            2,
            "both batches in one answer"
        );
        Ok(())
    })
}

#[test]
fn a_fetch_stream_never_sends_more_than_was_granted() -> Outcome {
    story(Load::Shared, async {
        let (_cluster, mut api) = one_node().await?;
        let mut sizes = Vec::new();
        for number in 0..20 {
            let bytes = batch(0, &[format!("{number}-{}", "y".repeat(1_000)).as_str()])?;
            sizes.push(bytes.len());
            assert_eq!(api.produce(to(TOPIC, bytes)).await?.error, None);
        }
        let one = u64::try_from(sizes.iter().copied().max().context("no batch")?)?;
        let (grants, granted) = mpsc::channel(8);
        grants
            .send(kind(Kind::Open(v1::FetchStreamOpen {
                topic: TOPIC.to_owned(),
                partition: 0,
                offset: 0,
                grant_bytes: 3 * one,
                ..v1::FetchStreamOpen::default()
            })))
            .await?;
        let mut answers = api
            .log
            .fetch_stream(ReceiverStream::new(granted))
            .await?
            .into_inner();
        let mut read = Vec::new();
        let mut received = 0;
        let mut granted = 3 * one;
        while read.len() < sizes.len() {
            // Silence means that the grant is used up: only then is more granted.
            match timeout(Duration::from_millis(700), answers.message()).await {
                Ok(answer) => {
                    let answer = answer?.context("the stream ended")?;
                    received += u64::try_from(answer.record_batches.len())?;
                    read.extend(records(answer.record_batches)?);
                    // The last batch may exceed what is left of the grant; the next pays for it.
                    assert!(
                        received < granted + one,
                        "{received} of {granted} granted bytes"
                    );
                }
                Err(_silence) => {
                    assert!(received >= granted, "{received} of {granted} granted bytes");
                    granted += 8 * one;
                    grants.send(kind(Kind::GrantBytes(8 * one))).await?;
                }
            }
        }
        let offsets: Vec<i64> = read.iter().map(|record| record.offset.0).collect();
        assert_eq!(offsets, (0..20).collect::<Vec<_>>());
        Ok(())
    })
}

const fn kind(kind: Kind) -> v1::FetchStreamRequest {
    v1::FetchStreamRequest { kind: Some(kind) }
}

#[test]
fn offsets_are_found_by_start_end_and_time() -> Outcome {
    story(Load::Shared, async {
        let (_cluster, mut api) = one_node().await?;
        assert_eq!(api.offset(TOPIC, At::End(true)).await?.offset, 0);
        for (time, text) in [(1_000, "a"), (2_000, "b"), (3_000, "c")] {
            assert_eq!(
                api.produce(to(TOPIC, batch(time, &[text, text])?))
                    .await?
                    .error,
                None
            );
        }
        let expected = [
            (At::Start(true), 0),
            (At::End(true), 6),
            (At::TimestampMs(0), 0),
            (At::TimestampMs(1_000), 0),
            (At::TimestampMs(1_001), 2),
            (At::TimestampMs(3_000), 4),
            (At::TimestampMs(3_001), 6),
        ];
        for (at, offset) in expected {
            let found = api.offset(TOPIC, at).await?;
            assert_eq!((found.error, found.offset), (None, offset), "{at:?}");
        }
        Ok(())
    })
}

#[test]
fn an_append_on_condition_tells_the_actual_end() -> Outcome {
    story(Load::Shared, async {
        let (_cluster, mut api) = one_node().await?;
        let mut expecting = async |end| {
            let mut append = to(TOPIC, batch(0, &["event"])?);
            append.expected_end_offset = Some(end);
            api.produce(append).await
        };
        assert_eq!(expecting(0).await?.error, None);
        assert_eq!(expecting(1).await?.error, None);
        for wrong in [0, 1, 3] {
            let refused = expecting(wrong).await?;
            assert_eq!(code(&refused)?, ErrorCode::WrongEndOffset);
            let error = refused.error.context("no error")?;
            assert_eq!((error.log_end_offset, error.retryable), (Some(2), false));
        }
        assert_eq!(expecting(2).await?.base_offset, 2);
        Ok(())
    })
}

#[test]
fn bad_batches_are_refused_with_their_code() -> Outcome {
    story(Load::Shared, async {
        let (_cluster, mut api) = one_node().await?;
        let good = batch(0, &["a record"])?;
        for at in [17, 25, 60, good.len() - 1] {
            let mut bytes = good.to_vec();
            bytes[at] ^= 0x40;
            let refused = api.produce(to(TOPIC, bytes.into())).await?;
            assert_eq!(code(&refused)?, ErrorCode::CorruptBatch, "byte {at}");
        }
        for cut in [Bytes::new(), good.slice(..40), good.slice(..good.len() - 1)] {
            let refused = api.produce(to(TOPIC, cut)).await?;
            assert_eq!(code(&refused)?, ErrorCode::CorruptBatch);
        }
        let nowhere = api.produce(to("nowhere", good.clone())).await?;
        assert_eq!(code(&nowhere)?, ErrorCode::UnknownTopic);
        let mut no_partition = to(TOPIC, good.clone());
        no_partition.partition = 1;
        assert_eq!(
            code(&api.produce(no_partition).await?)?,
            ErrorCode::UnknownPartition
        );
        let alter = ["topic", "alter", TOPIC, "--set", "max.message.bytes=1024"];
        let _altered = _cluster.cli().ok(&alter).await?;
        let large = batch(0, &["z".repeat(2_000).as_str()])?;
        assert_eq!(
            code(&api.produce(to(TOPIC, large)).await?)?,
            ErrorCode::BatchTooLarge
        );
        assert_eq!(
            api.offset(TOPIC, At::End(true)).await?.offset,
            0,
            "nothing was stored"
        );
        assert_eq!(api.produce(to(TOPIC, good)).await?.error, None);
        Ok(())
    })
}

#[test]
fn a_repeated_batch_is_answered_with_its_first_place() -> Outcome {
    story(Load::Shared, async {
        let (mut cluster, mut api) = one_node().await?;
        let session = api.log.init_producer(v1::InitProducerRequest {}).await?;
        let id = session.into_inner().producer_id;
        let first = stamped(&["a", "b"], id, 0)?;
        let second = stamped(&["c"], id, 2)?;
        assert_eq!(api.produce(to(TOPIC, first.clone())).await?.base_offset, 0);
        assert_eq!(api.produce(to(TOPIC, second.clone())).await?.base_offset, 2);
        let again = api.produce(to(TOPIC, first.clone())).await?;
        assert_eq!(
            (again.error, again.base_offset, again.duplicate),
            (None, 0, true)
        );
        let skipped = api.produce(to(TOPIC, stamped(&["e"], id, 9)?)).await?;
        assert_eq!(code(&skipped)?, ErrorCode::OutOfOrderSequence);

        // The memory of it survives the node.
        cluster.kill_all().await?;
        cluster.start_all()?;
        cluster.ready_all().await?;
        let leader = cluster.leader(TOPIC, 0).await?;
        let mut api = Api::connect(&cluster.node(leader)?.addresses.grpc).await?;
        serves(&mut api).await?;
        let again = api.produce(to(TOPIC, second)).await?;
        assert_eq!(
            (again.error, again.base_offset, again.duplicate),
            (None, 2, true)
        );
        assert_eq!(api.offset(TOPIC, At::End(true)).await?.offset, 3);
        Ok(())
    })
}

#[test]
fn a_partition_without_room_in_the_answer_still_tells_its_bounds() -> Outcome {
    story(Load::Shared, async {
        let (_cluster, mut api) = one_node().await?;
        let produced = api.produce(to(TOPIC, batch(0, &["a", "b"])?)).await?;
        assert_eq!(produced.error, None);
        let from_start = v1::FetchPartition {
            topic: TOPIC.to_owned(),
            ..v1::FetchPartition::default()
        };
        let request = v1::FetchRequest {
            partitions: vec![from_start.clone(), from_start],
            max_bytes: 1,
            ..v1::FetchRequest::default()
        };
        let answer = api.log.fetch(request).await?.into_inner();
        let [first, second] = answer.results.as_slice() else {
            anyhow::bail!("two were asked for: {answer:?}");
        };
        assert!(!first.record_batches.is_empty(), "the first batch of all");
        assert!(second.record_batches.is_empty(), "{second:?}");
        assert_eq!((second.error.as_ref(), second.high_watermark), (None, 2));
        Ok(())
    })
}

#[test]
fn what_is_meant_for_a_deleted_topic_gets_into_no_other() -> Outcome {
    story(Load::Shared, async {
        let (cluster, mut api) = one_node().await?;
        let admin = api.admin.clone();
        let anew = async || {
            let mut admin = admin.clone();
            let delete = v1::DeleteTopicRequest {
                name: TOPIC.to_owned(),
            };
            let _deleted = admin.delete_topic(delete).await?;
            let create = v1::CreateTopicRequest {
                name: TOPIC.to_owned(),
                wait_for_leaders: true,
                ..v1::CreateTopicRequest::default()
            };
            anyhow::Ok(admin.create_topic(create).await?.into_inner().log_id)
        };
        let (old, new) = (anew().await?, anew().await?);
        ensure!(0 < old && old < new, "{old} and {new}");
        serves(&mut api).await?;
        let described = api.metadata.describe(v1::DescribeRequest::default());
        let described = described.await?.into_inner();
        assert_eq!(described.topics[0].partitions[0].log_id, new);
        let bytes = batch(0, &["a record"])?;
        let mut produce = async |log_id| {
            let batch = to(TOPIC, bytes.clone());
            api.produce(v1::PartitionBatch { log_id, ..batch }).await
        };
        assert_eq!(code(&produce(old).await?)?, ErrorCode::TopicDeleted);
        let ahead = produce(new + 1).await?;
        assert_eq!(code(&ahead)?, ErrorCode::ReplicaUnavailable);
        assert!(ahead.error.context("no error")?.retryable);
        assert_eq!(produce(new).await?.error, None);
        assert_eq!(produce(0).await?.error, None, "it does not care");
        let fetch = |log_id| v1::FetchRequest {
            partitions: vec![v1::FetchPartition {
                topic: TOPIC.to_owned(),
                log_id,
                ..v1::FetchPartition::default()
            }],
            ..v1::FetchRequest::default()
        };
        let mut read = Vec::new();
        for log_id in [old, new] {
            let answer = api.log.fetch(fetch(log_id)).await?.into_inner();
            read.extend(answer.results.into_iter().map(|result| result.error));
        }
        let [Some(refused), None] = read.as_slice() else {
            anyhow::bail!("{read:?}");
        };
        assert_eq!(refused.code(), ErrorCode::TopicDeleted);
        drop(cluster);
        Ok(())
    })
}

#[test]
fn only_the_leader_answers_and_the_others_say_who_it_is() -> Outcome {
    story(Load::Shared, async {
        let cluster = Cluster::of_three().await?;
        let _created = cluster.cli().ok(&["topic", "create", TOPIC]).await?;
        let leader = cluster.leader(TOPIC, 0).await?;
        let follower = cluster.nodes().iter().find(|node| node.id != leader);
        let mut api = Api::connect(&follower.context("no follower")?.addresses.grpc).await?;
        let refused = api.produce(to(TOPIC, batch(0, &["a"])?)).await?;
        assert_eq!(code(&refused)?, ErrorCode::NotLeader);
        let error = refused.error.context("no error")?;
        assert!(error.retryable, "{error:?}");
        let hint = error.leader.context("no hint")?;
        let address = &cluster.node(leader)?.addresses.grpc;
        assert_eq!((hint.node_id, &hint.grpc_address), (leader, address));
        let fetched = api.fetch((TOPIC, 0, 0), (1, 0, 0)).await?;
        assert_eq!(
            fetched.error.context("no error")?.code(),
            ErrorCode::NotLeader
        );
        Ok(())
    })
}

#[test]
fn deadlines_are_honoured() -> Outcome {
    story(Load::Shared, async {
        let mut cluster = Cluster::of_three().await?;
        let _created = cluster.cli().ok(&["topic", "create", TOPIC]).await?;
        let leader = cluster.leader(TOPIC, 0).await?;
        let mut api = Api::connect(&cluster.node(leader)?.addresses.grpc).await?;
        serves(&mut api).await?;

        // The deadline of a gRPC call.
        let mut call = tonic::Request::new(v1::FetchRequest {
            partitions: vec![v1::FetchPartition {
                topic: TOPIC.to_owned(),
                ..v1::FetchPartition::default()
            }],
            max_wait_ms: 60_000,
            ..v1::FetchRequest::default()
        });
        call.set_timeout(Duration::from_millis(300));
        let began = Instant::now();
        let late = api
            .log
            .fetch(call)
            .await
            .err()
            .context("nothing to fetch")?;
        assert!(
            began.elapsed() < Duration::from_secs(5),
            "after {:?}",
            began.elapsed()
        );
        assert!(
            matches!(late.code(), Code::DeadlineExceeded | Code::Cancelled),
            "{late}"
        );

        // The timeout of a produce request that cannot be committed: the answer says that it may
        // still take effect.
        for node in [1, 2, 3] {
            if node != leader {
                cluster.node_mut(node)?.kill().await?;
            }
        }
        let mut hopeless = request(1, vec![to(TOPIC, batch(0, &["a"])?)]);
        hopeless.timeout_ms = 500;
        let began = Instant::now();
        let answer = timeout(LIMIT, api.log.produce(hopeless))
            .await??
            .into_inner();
        assert!(
            began.elapsed() < Duration::from_secs(5),
            "after {:?}",
            began.elapsed()
        );
        let error = answer
            .results
            .first()
            .and_then(|result| result.error.clone());
        let error = error.context("it cannot have been committed")?;
        assert!(error.retryable, "{error:?}");
        assert!(
            error.code() != ErrorCode::Timeout || error.maybe_applied,
            "{error:?}"
        );
        Ok(())
    })
}

#[test]
fn failed_calls_carry_a_typed_error() -> Outcome {
    story(Load::Shared, async {
        let (_cluster, mut api) = one_node().await?;
        let delete = v1::DeleteTopicRequest {
            name: "nowhere".to_owned(),
        };
        let status = api
            .admin
            .delete_topic(delete)
            .await
            .err()
            .context("it is not there")?;
        assert_eq!(status.code(), Code::NotFound);
        let typed = status
            .metadata()
            .get_bin(ERROR_METADATA_KEY)
            .context("not typed")?;
        let error = v1::Error::decode(typed.to_bytes()?)?;
        assert_eq!(
            (error.code(), error.retryable),
            (ErrorCode::UnknownTopic, false)
        );
        Ok(())
    })
}

#[test]
fn health_and_reflection_answer() -> Outcome {
    story(Load::Shared, async {
        let (cluster, api) = one_node().await?;
        let mut health = HealthClient::new(api.channel.clone());
        for service in ["", "seriatim.v1.Log"] {
            let check = HealthCheckRequest {
                service: service.to_owned(),
            };
            let answer = health.check(check).await?.into_inner();
            assert_eq!(answer.status(), ServingStatus::Serving, "{service}");
        }
        let list = ServerReflectionRequest {
            host: String::new(),
            message_request: Some(MessageRequest::ListServices(String::new())),
        };
        let mut reflection = ServerReflectionClient::new(api.channel.clone());
        let asked = reflection
            .server_reflection_info(tokio_stream::iter([list]))
            .await?;
        let answer = asked.into_inner().message().await?.context("no answer")?;
        let Some(MessageResponse::ListServicesResponse(list)) = answer.message_response else {
            anyhow::bail!("not a list of services");
        };
        let names: Vec<String> = list.service.into_iter().map(|s| s.name).collect();
        for name in [
            "seriatim.v1.Log",
            "seriatim.v1.Metadata",
            "seriatim.v1.Admin",
        ] {
            assert!(names.iter().any(|n| n == name), "{names:?}");
        }
        let http = &cluster.node(1)?.addresses.http;
        for (path, text) in [
            ("/healthz", "ok"),
            ("/readyz", "ready"),
            ("/metrics", "seriatim_"),
        ] {
            let (status, body) = seriatim_tests::http::get(http, path).await?;
            assert!(
                status == 200 && body.contains(text),
                "{path}: {status} {body}"
            );
        }
        Ok(())
    })
}
