use seriatim_proto::{batch::RecordBatch, compression::Compression, v1};

use super::*;
use crate::{
    producer::queue::{Parts, TopicQueues},
    unknown::TOPIC_DEADLINE,
};

const RULES: Rules = Rules {
    linger: Duration::ZERO,
    max_in_flight: 5,
    delivery_timeout: Duration::from_secs(1),
};

struct Bench {
    lane: Lane,
    ids: u64,
    now: Instant,
}

impl Bench {
    fn new(idempotent: bool) -> Self {
        let topic = TopicQueues::new("t", 1, &std::sync::atomic::AtomicUsize::new(0));
        let session = idempotent.then_some(Session {
            id: ProducerId(7),
            epoch: 0,
        });
        let lane = Lane::new(Arc::clone(&topic.queues[0]), session);
        Self {
            lane,
            ids: 1,
            now: Instant::now(),
        }
    }

    /// A record that fills its batch.
    fn push(&self) -> crate::Delivery {
        let parts = Parts {
            timestamp_ms: 0,
            key: None,
            value: Some(b"0123456789"),
            headers: &[],
            reserved: 50,
        };
        self.lane
            .queue
            .push(&parts, (Compression::None, 20))
            .unwrap()
            .delivery
    }

    /// Sends all there is to send; returns the id and sequence of each batch.
    fn send(&mut self) -> Vec<(u64, i32)> {
        let mut sent = Vec::new();
        while let Step::Send(id) = self.lane.next(self.now, RULES, &mut self.ids) {
            let batch = self.lane.batch_mut(id).unwrap();
            batch.request = Some(1);
            let parsed = RecordBatch::from_producer(batch.bytes.clone()).unwrap();
            sent.push((id, parsed.header.base_sequence));
        }
        sent
    }

    fn fail(&mut self, id: u64, code: ErrorCode, maybe_applied: bool) {
        let error = v1::Error {
            maybe_applied,
            ..v1::Error::new(code, "no")
        };
        self.lane
            .failed(id, ClientError::server(error), self.now, false);
    }
}

fn sequences(sent: &[(u64, i32)]) -> Vec<i32> {
    sent.iter().map(|s| s.1).collect()
}

#[test]
fn at_most_five_in_flight_and_in_order() {
    let mut bench = Bench::new(true);
    let deliveries: Vec<_> = (0..7).map(|_| bench.push()).collect();
    let sent = bench.send();
    assert_eq!(sequences(&sent), [0, 1, 2, 3, 4]);
    bench.lane.stored(sent[0].0, Offset(10));
    assert_eq!(sequences(&bench.send()), [5]);
    assert_eq!(
        deliveries[0].poll_now().unwrap().unwrap().offset,
        Offset(10)
    );
    assert!(deliveries[1].poll_now().is_none());
    assert_eq!(bench.lane.take_freed(), 50);
}

#[test]
fn an_early_answer_does_not_widen_the_window() {
    let mut bench = Bench::new(true);
    let _deliveries: Vec<_> = (0..7).map(|_| bench.push()).collect();
    let sent = bench.send();
    bench.lane.stored(sent[1].0, Offset(11));
    assert_eq!(bench.send(), [], "the leader would forget the first batch");
    bench.lane.stored(sent[0].0, Offset(10));
    assert_eq!(sequences(&bench.send()), [5, 6]);
}

#[test]
fn a_failed_batch_and_those_behind_it_are_resent_in_order_with_their_sequences() {
    let mut bench = Bench::new(true);
    let _deliveries: Vec<_> = (0..4).map(|_| bench.push()).collect();
    let sent = bench.send();
    bench.fail(sent[1].0, ErrorCode::Overloaded, false);
    for overtaker in [2, 3] {
        bench.fail(sent[overtaker].0, ErrorCode::OutOfOrderSequence, false);
    }
    assert_eq!(bench.send(), [], "it backs off");
    bench.now += Duration::from_secs(1);
    assert_eq!(bench.send(), sent[1..]);
}

#[test]
fn a_gap_whose_answer_came_late_does_not_end_the_session() {
    let mut bench = Bench::new(true);
    let _deliveries: Vec<_> = (0..3).map(|_| bench.push()).collect();
    let sent = bench.send();
    bench.fail(sent[0].0, ErrorCode::Overloaded, false);
    bench.now += Duration::from_secs(1);
    assert_eq!(bench.send(), sent[..1]);
    bench.lane.stored(sent[0].0, Offset(0));
    // Only now the answers to the first attempts arrive, when the first batch was missing.
    bench.fail(sent[1].0, ErrorCode::OutOfOrderSequence, false);
    bench.fail(sent[2].0, ErrorCode::OutOfOrderSequence, false);
    assert_eq!(bench.send(), sent[1..]);
    // Sent with nothing before it, a gap means that the session is not known.
    bench.fail(sent[1].0, ErrorCode::OutOfOrderSequence, false);
    bench.fail(sent[2].0, ErrorCode::OutOfOrderSequence, false);
    assert!(bench.lane.wants_session());
}

#[test]
fn the_open_batch_waits_while_something_is_in_flight() {
    let mut bench = Bench::new(true);
    let parts = Parts {
        timestamp_ms: 0,
        key: None,
        value: None,
        headers: &[],
        reserved: 40,
    };
    let push = |lane: &Lane| {
        lane.queue
            .push(&parts, (Compression::None, 10_000))
            .unwrap()
    };
    let _first = push(&bench.lane);
    bench.now = Instant::now();
    let sent = bench.send();
    assert_eq!(sequences(&sent), [0]);
    let _others = [push(&bench.lane), push(&bench.lane)];
    bench.now = Instant::now();
    assert_eq!(bench.send(), []);
    bench.lane.stored(sent[0].0, Offset(0));
    assert_eq!(sequences(&bench.send()), [1]);
    assert_eq!(bench.lane.unacked[0].records, 2);
}

#[test]
fn after_a_final_failure_the_rest_goes_on_under_a_new_session() {
    let mut bench = Bench::new(true);
    let deliveries: Vec<_> = (0..3).map(|_| bench.push()).collect();
    let sent = bench.send();
    bench.fail(sent[0].0, ErrorCode::BatchTooLarge, false);
    assert!(!bench.lane.wants_session(), "two are in flight");
    bench.fail(sent[1].0, ErrorCode::OutOfOrderSequence, false);
    bench.fail(sent[2].0, ErrorCode::OutOfOrderSequence, true);
    assert!(bench.lane.wants_session());
    assert_eq!(bench.send(), []);
    bench.lane.renew(Session {
        id: ProducerId(8),
        epoch: 0,
    });
    assert_eq!(bench.send(), [(sent[1].0, 0)]);
    let header = BatchHeader::parse(&bench.lane.unacked[0].bytes).unwrap();
    assert_eq!(header.producer_id, ProducerId(8));
    // What the old session may have stored must not be stored again by the new one.
    assert!(
        !deliveries[2]
            .poll_now()
            .unwrap()
            .unwrap_err()
            .has_no_side_effects()
    );
    assert!(
        deliveries[0]
            .poll_now()
            .unwrap()
            .unwrap_err()
            .has_no_side_effects()
    );
}

#[test]
fn a_new_session_forgets_no_earlier_attempt() {
    let mut bench = Bench::new(true);
    let deliveries: Vec<_> = (0..2).map(|_| bench.push()).collect();
    let sent = bench.send();
    // The answer to the second batch was lost; its repetition was refused without an effect.
    bench.fail(sent[1].0, ErrorCode::Timeout, true);
    bench.fail(sent[1].0, ErrorCode::OutOfOrderSequence, false);
    bench.fail(sent[0].0, ErrorCode::BatchTooLarge, false);
    assert!(bench.lane.wants_session());
    bench.lane.renew(Session {
        id: ProducerId(8),
        epoch: 0,
    });
    assert_eq!(bench.send(), []);
    let ends = deliveries
        .iter()
        .map(|d| d.poll_now().unwrap().unwrap_err());
    let certain: Vec<_> = ends.map(|e| e.has_no_side_effects()).collect();
    assert_eq!(certain, [true, false]);
}

#[test]
fn the_last_sequence_of_a_refused_batch_is_used_again() {
    let mut bench = Bench::new(true);
    let _first = bench.push();
    let sent = bench.send();
    bench.fail(sent[0].0, ErrorCode::BatchTooLarge, false);
    let _second = bench.push();
    assert_eq!(sequences(&bench.send()), [0]);
}

#[test]
fn without_idempotence_nothing_is_repeated_that_may_be_stored() {
    let mut bench = Bench::new(false);
    let deliveries = [bench.push(), bench.push()];
    let sent = bench.send();
    assert_eq!(sequences(&sent), [-1, -1]);
    bench.fail(sent[0].0, ErrorCode::Timeout, true);
    bench.fail(sent[1].0, ErrorCode::NotLeader, false);
    assert!(deliveries[0].poll_now().unwrap().is_err());
    bench.now += Duration::from_secs(1);
    assert_eq!(bench.send(), sent[1..]);
}

#[test]
fn what_waits_too_long_fails_and_says_whether_it_may_be_stored() {
    let mut bench = Bench::new(true);
    let deliveries = [bench.push(), bench.push()];
    let rules = Rules {
        max_in_flight: 1,
        ..RULES
    };
    let Step::Send(id) = bench.lane.next(bench.now, rules, &mut bench.ids) else {
        panic!()
    };
    bench.lane.batch_mut(id).unwrap().request = Some(1);
    bench.lane.expire(bench.now, rules);
    assert!(deliveries[0].poll_now().is_none());
    bench.lane.expire(bench.now + Duration::from_secs(2), rules);
    let errors = deliveries.map(|d| d.poll_now().unwrap().unwrap_err());
    assert_eq!(
        errors.each_ref().map(ClientError::has_no_side_effects),
        [false, true]
    );
    assert!(bench.lane.wants_session());
}

#[test]
fn sequences_wrap_to_zero() {
    assert_eq!(advance(i32::MAX, 1), 0);
    assert_eq!(advance(i32::MAX - 1, 3), 1);
}

#[test]
fn records_for_a_topic_that_is_gone_fail_soon() {
    let mut bench = Bench::new(true);
    let deliveries: Vec<_> = (0..7).map(|_| bench.push()).collect();
    let sent = bench.send();
    assert_eq!(sent.len(), 5);
    // The first may have been stored before its topic went; the others were refused.
    bench.fail(sent[0].0, ErrorCode::NotLeader, true);
    for refused in &sent[1..] {
        bench.fail(refused.0, ErrorCode::NotLeader, false);
    }
    let gone = || Some(ClientError::UnknownTopic("t".to_owned()));
    bench.lane.partition_is(gone(), bench.now);
    bench.now += TOPIC_DEADLINE / 2;
    bench.lane.partition_is(None, bench.now);
    bench.lane.partition_is(gone(), bench.now);
    bench.now += TOPIC_DEADLINE / 2;
    bench.lane.partition_is(gone(), bench.now);
    assert!(deliveries.iter().all(|d| d.poll_now().is_none()));
    bench.now += TOPIC_DEADLINE / 2;
    bench.lane.partition_is(gone(), bench.now);
    let ends: Vec<_> = deliveries
        .iter()
        .map(|d| d.poll_now().unwrap().unwrap_err())
        .collect();
    assert!(
        ends.iter()
            .all(|e| e.code() == Some(ErrorCode::UnknownTopic))
    );
    let certain: Vec<_> = ends.iter().map(ClientError::has_no_side_effects).collect();
    assert_eq!(certain, [false, true, true, true, true, true, true]);
    assert!(!bench.lane.has_work());
    assert_eq!(bench.lane.take_freed(), 7 * 50);
}

/// Seed 221 of the simulator: the sequences of a topic that was deleted mean nothing in the next one of its
/// name.
#[test]
fn a_topic_that_is_created_anew_gets_what_the_old_one_cannot_have() {
    let mut bench = Bench::new(true);
    assert!(!bench.lane.log_is(5), "the first that is heard of");
    let deliveries: Vec<_> = (0..5).map(|_| bench.push()).collect();
    let sent = bench.send();
    bench.lane.stored(sent[0].0, Offset(3));
    // The second may be stored, the third is on its way, the others were refused.
    bench.fail(sent[1].0, ErrorCode::NotLeader, true);
    for refused in &sent[3..] {
        bench.fail(refused.0, ErrorCode::TopicDeleted, false);
    }
    assert!(!bench.lane.log_is(4), "an earlier topic");
    assert!(!bench.lane.log_is(5));
    assert!(bench.lane.log_is(9));
    assert_eq!(bench.lane.log(), 9);
    for unsure in &deliveries[1..3] {
        let error = unsure.poll_now().unwrap().unwrap_err();
        assert!(!error.has_no_side_effects(), "{error}");
    }
    let again = bench.send();
    assert_eq!(sequences(&again), [0, 1]);
    assert_eq!([again[0].0, again[1].0], [sent[3].0, sent[4].0]);
    bench.lane.stored(again[0].0, Offset(0));
    assert_eq!(deliveries[3].poll_now().unwrap().unwrap().offset, Offset(0));
}

/// Without a later topic of its name, what was meant for the deleted one fails.
#[test]
fn a_batch_for_a_deleted_topic_waits_for_another_one_or_fails() {
    for maybe_applied in [false, true] {
        let mut bench = Bench::new(true);
        let _first = bench.lane.log_is(5);
        let delivery = bench.push();
        let sent = bench.send();
        bench.fail(sent[0].0, ErrorCode::NotLeader, maybe_applied);
        bench.fail(sent[0].0, ErrorCode::TopicDeleted, false);
        let ended = delivery.poll_now();
        if maybe_applied {
            let error = ended.unwrap().unwrap_err();
            assert_eq!(error.code(), Some(ErrorCode::TopicDeleted));
            assert!(!error.has_no_side_effects());
        } else {
            assert!(ended.is_none());
            let waits = bench.lane.next(bench.now, RULES, &mut bench.ids);
            assert!(matches!(waits, Step::WaitUntil(_)), "{waits:?}");
        }
    }
}
