//! Tests of applying commands: examples, and properties over random histories.

use proptest::prelude::*;

use super::*;

fn founded(nodes: u64) -> Image {
    let mut image = Image::default();
    let founders = (1..=nodes)
        .map(|id| wire::ReplicaRecord {
            replica_id: id,
            node_id: id,
        })
        .collect();
    let found = wire::FoundCluster {
        cluster_id: "c".into(),
        founders,
    };
    assert_eq!(
        run(&mut image, Command::FoundCluster(found)),
        Ok(Reply::Done(wire::Done {}))
    );
    for id in 1..=nodes {
        assert_eq!(register(&mut image, id, "a", id), Ok(Reply::ReplicaId(id)));
    }
    image
}

fn run(image: &mut Image, command: Command) -> Result<Reply, Refusal> {
    apply(image, command, &mut Touched::default())
}

fn node_record(node: u64, incarnation: &str, claimed: u64) -> wire::NodeRecord {
    wire::NodeRecord {
        node_id: node,
        incarnation: incarnation.to_owned(),
        replication_address: format!("127.0.0.1:{node}"),
        controller_replica: claimed,
        ..wire::NodeRecord::default()
    }
}

fn register(
    image: &mut Image,
    node: u64,
    incarnation: &str,
    claimed: u64,
) -> Result<Reply, Refusal> {
    let node = Some(node_record(node, incarnation, claimed));
    run(image, Command::RegisterNode(wire::RegisterNode { node }))
}

fn create(image: &Image, name: &str, request: &str, partitions: u32, replicas: u32) -> Command {
    let intent = wire::CreateTopicIntent {
        name: name.to_owned(),
        request_id: request.to_owned(),
        partitions,
        replication_factor: replicas,
        ..wire::CreateTopicIntent::default()
    };
    match plan_topic(image, &intent, format!("id-{request}")) {
        Ok(create) => Command::CreateTopic(create),
        Err(_) => Command::CreateTopic(wire::CreateTopic {
            name: name.to_owned(),
            ..wire::CreateTopic::default()
        }),
    }
}

#[test]
fn a_repeated_create_answers_the_same() {
    let mut image = founded(3);
    let command = create(&image, "t", "r1", 4, 3);
    let first = run(&mut image, command.clone()).unwrap();
    let before = image.clone();
    assert_eq!(run(&mut image, command), Ok(first));
    assert_eq!(image, before);
    let other = create(&founded(3), "t", "r2", 1, 1);
    assert_eq!(
        run(&mut image, other),
        Err(Refusal::TopicExists { name: "t".into() })
    );
}

/// Found by simulator seed 10895: a request that was sent again arrived late and brought a topic back.
#[test]
fn a_create_that_is_late_brings_no_deleted_topic_back() {
    let delete = || {
        let name = "t".to_owned();
        let topic_id = String::new();
        Command::DeleteTopic(wire::DeleteTopic { name, topic_id })
    };
    for (level, remembers) in [
        (DELETED_REQUESTS_LEVEL, true),
        (DELETED_REQUESTS_LEVEL - 1, false),
    ] {
        let mut image = founded(3);
        image.feature_level = level;
        let command = create(&image, "t", "r1", 4, 3);
        let _created = run(&mut image, command.clone()).unwrap();
        let _deleted = run(&mut image, delete()).unwrap();
        let copy = Image::from_record(image.to_record());
        assert_eq!(copy, image, "the stored form says the same");
        let late = run(&mut image, command);
        let refused = Err(Refusal::CreatedAndDeleted { name: "t".into() });
        assert_eq!(late == refused, remembers, "{late:?}");
    }
    let mut image = founded(3);
    image.feature_level = DELETED_REQUESTS_LEVEL;
    for request in 0..2 * DELETED_REQUESTS {
        let command = create(&image, "t", &format!("r{request}"), 1, 1);
        let _created = run(&mut image, command).unwrap();
        let _deleted = run(&mut image, delete()).unwrap();
    }
    assert_eq!(image.deleted_requests.len(), DELETED_REQUESTS);
    assert_eq!(image.deleted_requests[0], format!("r{DELETED_REQUESTS}"));
}

#[test]
fn names_that_collide() {
    let mut image = founded(1);
    let command = create(&image, "a.b", "r1", 1, 1);
    let _ = run(&mut image, command).unwrap();
    let other = create(&founded(1), "a_b", "r2", 1, 1);
    assert_eq!(
        run(&mut image, other),
        Err(Refusal::NameCollision { name: "a.b".into() })
    );
}

#[test]
fn a_lost_data_folder_gets_new_replica_ids() {
    let mut image = founded(3);
    let command = create(&image, "t", "r1", 2, 3);
    let _ = run(&mut image, command).unwrap();
    let before = image.clone();
    assert_eq!(
        register(&mut image, 2, "a", 0),
        Ok(Reply::ReplicaId(2)),
        "the same folder"
    );
    assert_eq!(image.topics, before.topics);
    let fresh = match register(&mut image, 2, "b", 0) {
        Ok(Reply::ReplicaId(id)) => id,
        other => panic!("{other:?}"),
    };
    assert!(fresh >= before.next_replica);
    assert!(image.nodes[&NodeId(2)].voter);
    for (_, number, partition) in image.partitions() {
        let old = before.topics["t"].partition(number).unwrap();
        for (new, old) in partition.replicas.iter().zip(&old.replicas) {
            assert_eq!(new.node, old.node);
            assert_eq!(new.id == old.id, new.node != NodeId(2));
        }
        assert_eq!(partition.founders(), old.replicas);
    }
}

#[test]
fn a_stolen_node_id_is_refused() {
    let mut image = founded(2);
    let mut record = node_record(2, "z", 0);
    record.replication_address = "10.0.0.1:1".into();
    let before = image.clone();
    let command = Command::RegisterNode(wire::RegisterNode { node: Some(record) });
    assert!(matches!(
        run(&mut image, command),
        Err(Refusal::NodeIdTaken { .. })
    ));
    assert_eq!(image, before);
}

#[test]
fn settings_change_and_return_to_default() {
    let mut image = founded(1);
    let command = create(&image, "t", "r", 1, 1);
    let _ = run(&mut image, command).unwrap();
    let alter = |value: &str| {
        Command::AlterTopic(wire::AlterTopic {
            name: "t".into(),
            settings: vec![wire::Setting {
                name: "segment.bytes".into(),
                value: value.into(),
            }],
        })
    };
    let _ = run(&mut image, alter("2097152")).unwrap();
    assert_eq!(image.topics["t"].settings.segment_bytes, 2_097_152);
    let _ = run(&mut image, alter("")).unwrap();
    assert_eq!(
        image.topics["t"].settings,
        seriatim_proto::settings::TopicSettings::default()
    );
}

#[derive(Debug, Clone)]
enum Step {
    Register(u64, u8),
    Create(u8, u32, u32),
    Delete(u8),
    Alter(u8),
    Ids(u32),
    Replace(u64, u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0_u64..6, 0_u8..3).prop_map(|(node, folder)| Step::Register(node, folder)),
        (0_u8..4, 0_u32..6, 0_u32..5).prop_map(|(t, p, r)| Step::Create(t, p, r)),
        (0_u8..4).prop_map(Step::Delete),
        (0_u8..4).prop_map(Step::Alter),
        (0_u32..3).prop_map(Step::Ids),
        (0_u64..8, 0_u64..40).prop_map(|(g, r)| Step::Replace(g, r)),
    ]
}

fn command(image: &Image, step: &Step, number: usize) -> Command {
    match step {
        Step::Register(node, folder) => Command::RegisterNode(wire::RegisterNode {
            node: Some(node_record(*node, &format!("f{folder}"), 0)),
        }),
        Step::Create(t, p, r) => create(image, &format!("t{t}"), &format!("r{number}"), *p, *r),
        Step::Delete(t) => Command::DeleteTopic(wire::DeleteTopic {
            name: format!("t{t}"),
            topic_id: String::new(),
        }),
        Step::Alter(t) => Command::AlterTopic(wire::AlterTopic {
            name: format!("t{t}"),
            settings: vec![wire::Setting {
                name: "durability".into(),
                value: "os".into(),
            }],
        }),
        Step::Ids(count) => {
            Command::AllocateProducerIds(wire::AllocateProducerIds { count: *count })
        }
        Step::Replace(group, replica) => Command::ReplaceReplica(wire::ReplaceReplica {
            group_id: *group,
            replica_id: *replica,
        }),
    }
}

/// Copies what was touched, as the store does.
fn store(stored: &mut Image, image: &Image, touched: &Touched) {
    stored.set_header(image.into());
    for id in &touched.nodes {
        let _ = match image.nodes.get(id) {
            Some(node) => stored.nodes.insert(*id, node.clone()),
            None => stored.nodes.remove(id),
        };
    }
    for name in &touched.topics {
        let _ = match image.topics.get(name) {
            Some(topic) => stored.topics.insert(name.clone(), topic.clone()),
            None => stored.topics.remove(name),
        };
    }
}

proptest! {
    #[test]
    fn histories(steps in proptest::collection::vec(step(), 1..60)) {
        let mut image = founded(3);
        let mut stored = image.clone();
        let mut seen: BTreeSet<u64> = BTreeSet::new();
        for (number, step) in steps.iter().enumerate() {
            let before = image.clone();
            let command = command(&image, step, number);
            let mut touched = Touched::default();
            let reply = apply(&mut image, command, &mut touched);
            if reply.is_err() {
                prop_assert_eq!(&image, &before);
            }
            store(&mut stored, &image, &touched);
            prop_assert_eq!(&image, &stored, "everything changed is named as touched");
            prop_assert!(image.next_replica >= before.next_replica);
            let now = replica_ids(&image);
            let distinct: BTreeSet<u64> = now.iter().copied().collect();
            prop_assert_eq!(distinct.len(), now.len(), "one id, one replica");
            for id in distinct.difference(&replica_ids(&before).into_iter().collect()) {
                prop_assert!(seen.insert(*id) && *id >= before.next_replica, "{} again", id);
            }
            for (_, _, partition) in image.partitions() {
                prop_assert!(partition.group.0 < image.next_group);
                prop_assert_eq!(partition.founders().len(), partition.replicas.len());
            }
            prop_assert_eq!(&Image::from_record(image.to_record()), &image);
        }
    }

    #[test]
    fn never_panics_on_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
        let mut image = founded(1);
        let before = image.clone();
        if let Ok(command) = crate::command::decode(&bytes)
            && run(&mut image, command).is_err()
        {
            prop_assert_eq!(image, before);
        }
    }
}

fn replica_ids(image: &Image) -> Vec<u64> {
    let controllers = image.nodes.values().map(|node| node.controller_replica.0);
    let partitions = image
        .partitions()
        .flat_map(|(_, _, partition)| partition.replicas.iter().map(|replica| replica.id.0));
    controllers.chain(partitions).collect()
}
