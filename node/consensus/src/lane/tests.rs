//! Lanes over loopback, and peers that do not behave.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use seriatim_proto::ids::NodeId;
use seriatim_runtime::{clock, net::Net, task::TaskGroup};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

use super::*;

const ECHO: u16 = 100;
const PATIENCE: Duration = Duration::from_secs(10);

struct Echo;

#[async_trait]
impl LaneService for Echo {
    async fn call(&self, _from: NodeId, body: Bytes) -> Result<Bytes, String> {
        match &body[..] {
            b"no" => Err("said no".to_owned()),
            _ => Ok(body),
        }
    }
}

async fn lane(node: u64, cluster: &'static str, tasks: &TaskGroup) -> Lane {
    let id = move || Some(cluster.to_owned()).filter(|id| !id.is_empty());
    let lane = Lane::start(Net::tokio(), "127.0.0.1:0", NodeId(node), id, tasks.clone());
    let lane = lane.await.unwrap();
    lane.register(ECHO, Arc::new(Echo));
    lane
}

fn connect(from: &Lane, to: &Lane, node: u64) {
    from.set_peer(NodeId(node), Some(to.local_addr().to_owned()));
}

#[tokio::test]
async fn calls_are_answered_refused_and_matched() {
    let tasks = TaskGroup::new();
    let (a, b) = (lane(1, "x", &tasks).await, lane(2, "x", &tasks).await);
    connect(&a, &b, 2);
    let calls = (0..200u32).map(|number| {
        let body = Bytes::copy_from_slice(&number.to_be_bytes());
        let a = a.clone();
        async move { (body.clone(), a.call(NodeId(2), ECHO, body, PATIENCE).await) }
    });
    for (sent, answer) in futures::future::join_all(calls).await {
        assert_eq!(answer, Ok(sent));
    }
    let refused = a.call(NodeId(2), ECHO, Bytes::from_static(b"no"), PATIENCE);
    assert_eq!(refused.await, Err(LaneError::Failed("said no".to_owned())));
    let unserved = a.call(NodeId(2), 777, Bytes::new(), PATIENCE).await;
    assert!(
        matches!(unserved, Err(LaneError::Failed(_))),
        "{unserved:?}"
    );
    let unknown = a.call(NodeId(9), ECHO, Bytes::new(), PATIENCE).await;
    assert_eq!(unknown, Err(LaneError::UnknownNode(NodeId(9))));
    let _ended = tasks.shutdown(PATIENCE).await;
    let closed = a.call(NodeId(2), ECHO, Bytes::new(), PATIENCE).await;
    assert_eq!(closed, Err(LaneError::Closed));
}

/// Answers at once, unless the runtime wants the task to let others run first.
#[derive(Default)]
struct Prompt {
    /// Requests that were not handled when they were polled for the first time.
    late: AtomicUsize,
}

impl Handler for Prompt {
    fn handle(
        self: Arc<Self>,
        _from: NodeId,
        _kind: u16,
        body: Bytes,
    ) -> BoxFuture<'static, Result<Bytes, String>> {
        let mut first = true;
        let mut turn = Box::pin(tokio::task::coop::consume_budget());
        Box::pin(std::future::poll_fn(move |context| {
            let ready = turn.as_mut().poll(context);
            if std::mem::take(&mut first) && ready.is_pending() {
                let _before = self.late.fetch_add(1, Ordering::Relaxed);
            }
            ready.map(|()| Ok(body.clone()))
        }))
    }
}

/// A request that is not handled when it is first polled may be overtaken by the next one.
#[tokio::test]
async fn the_runtime_lets_no_request_overtake_another() {
    let tasks = TaskGroup::new();
    let (a, b) = (lane(1, "x", &tasks).await, lane(2, "x", &tasks).await);
    connect(&a, &b, 2);
    let prompt = Arc::new(Prompt::default());
    b.set_handler(Arc::clone(&prompt) as Arc<dyn Handler>);
    for round in 0..20 {
        // Bodies that are read in one piece and in several.
        let sent = (0..500).map(|number| {
            let body = Bytes::from(vec![7; number % 7 * 100 + round]);
            let pending = a.send(NodeId(2), Class::Append, 1, vec![body]);
            pending.unwrap().answer(PATIENCE)
        });
        let sent: Vec<_> = sent.collect();
        for answer in futures::future::join_all(sent).await {
            let _answer = answer.unwrap();
        }
    }
    assert_eq!(prompt.late.load(Ordering::Relaxed), 0);
    let _ended = tasks.shutdown(PATIENCE).await;
}

#[tokio::test]
async fn another_cluster_is_refused_by_name() {
    let tasks = TaskGroup::new();
    let (a, b) = (
        lane(1, "blue", &tasks).await,
        lane(2, "green", &tasks).await,
    );
    let new = lane(3, "", &tasks).await;
    connect(&a, &b, 2);
    connect(&new, &b, 2);
    let error = a
        .call(NodeId(2), ECHO, Bytes::new(), PATIENCE)
        .await
        .unwrap_err();
    assert!(matches!(error, LaneError::Refused { .. }), "{error}");
    let text = error.to_string();
    assert!(text.contains("blue") && text.contains("green"), "{text}");
    // A node that belongs to none yet may ask to join.
    let body = Bytes::from_static(b"hello");
    let answer = new.call(NodeId(2), ECHO, body.clone(), PATIENCE).await;
    assert_eq!(answer, Ok(body));
    let _ended = tasks.shutdown(PATIENCE).await;
}

#[tokio::test]
async fn garbage_ends_its_own_connection_only() {
    let tasks = TaskGroup::new();
    let (a, b) = (lane(1, "x", &tasks).await, lane(2, "x", &tasks).await);
    connect(&a, &b, 2);
    let hello_of_four_gib = [&u32::MAX.to_be_bytes()[..], &[0; 11]].concat();
    let no_hello = [&20u32.to_be_bytes()[..], &[9; 20]].concat();
    let wrong_kind = [&12u32.to_be_bytes()[..], &[0; 8], &[0, 5, 0, 1]].concat();
    for garbage in [
        b"GET / HTTP/1.1\r\n\r\n".to_vec(),
        hello_of_four_gib,
        no_hello,
        wrong_kind,
    ] {
        let mut stream = TcpStream::connect(b.local_addr()).await.unwrap();
        stream.write_all(&garbage).await.unwrap();
        let mut answer = Vec::new();
        let end = stream.read_to_end(&mut answer);
        // Closed or reset at once, and never answered.
        let _how = clock::timeout(PATIENCE, end)
            .await
            .expect("the lane hangs up");
        assert!(answer.is_empty(), "{answer:?}");
        let body = Bytes::from_static(b"still here");
        let answer = a.call(NodeId(2), ECHO, body.clone(), PATIENCE).await;
        assert_eq!(answer, Ok(body));
    }
    let _ended = tasks.shutdown(PATIENCE).await;
}

#[tokio::test]
async fn requests_to_a_peer_that_does_not_read_are_bounded_in_bytes() {
    const MESSAGE: usize = 1 << 20;
    let tasks = TaskGroup::new();
    let a = lane(1, "x", &tasks).await;
    // Accepts, and never says a word.
    let deaf = TcpListener::bind("127.0.0.1:0").await.unwrap();
    a.set_peer(NodeId(2), Some(deaf.local_addr().unwrap().to_string()));
    let body = Bytes::from(vec![7; MESSAGE]);
    let mut waiting = Vec::new();
    let refused = loop {
        match a.send(NodeId(2), Class::Append, ECHO, vec![body.clone()]) {
            Ok(pending) => waiting.push(pending),
            Err(error) => break error,
        }
        assert!(waiting.len() * MESSAGE <= QUEUE_BYTES);
    };
    assert!(matches!(refused, LaneError::Overloaded(_)), "{refused}");
    assert_eq!(waiting.len() * MESSAGE, QUEUE_BYTES);
    // Other classes have a queue of their own; one message always finds room.
    let large = Bytes::from(vec![7; QUEUE_BYTES + 1]);
    let _pending = a
        .send(NodeId(2), Class::Snapshot, ECHO, vec![large])
        .unwrap();
    // The greeting does not come: what waits is told, and gives its room back.
    for pending in waiting {
        let error = pending.answer(PATIENCE).await.unwrap_err();
        assert!(matches!(error, LaneError::Unreachable { .. }), "{error}");
    }
    let again = a.send(NodeId(2), Class::Append, ECHO, vec![body]);
    assert!(again.is_ok());
    let _ended = tasks.shutdown(PATIENCE).await;
}

/// Never answers.
struct Stuck;

impl Handler for Stuck {
    fn handle(
        self: Arc<Self>,
        _from: NodeId,
        _kind: u16,
        body: Bytes,
    ) -> BoxFuture<'static, Result<Bytes, String>> {
        Box::pin(async move {
            let _kept = body;
            std::future::pending().await
        })
    }
}

#[tokio::test]
async fn requests_under_way_at_the_receiver_are_bounded_in_bytes() {
    const MESSAGE: usize = 8 << 20;
    let tasks = TaskGroup::new();
    let (a, b) = (lane(1, "x", &tasks).await, lane(2, "x", &tasks).await);
    connect(&a, &b, 2);
    b.set_handler(Arc::new(Stuck));
    let body = Bytes::from(vec![7; MESSAGE]);
    let mut sent = 0;
    let deadline = clock::now() + Duration::from_secs(2);
    // More than the receiver holds, the sender's queue, and what the sockets take.
    let enough = 2 * (RECEIVE_BYTES + QUEUE_BYTES);
    let mut waiting = Vec::new();
    while sent < enough && clock::now() < deadline {
        match a.send(NodeId(2), Class::Append, 1, vec![body.clone()]) {
            Ok(pending) => {
                waiting.push(pending);
                sent += MESSAGE;
            }
            Err(_full) => clock::sleep(Duration::from_millis(10)).await,
        }
    }
    let most = RECEIVE_BYTES + QUEUE_BYTES + 4 * MESSAGE;
    assert!(sent <= most, "{sent} bytes were taken, {most} are the most");
    let _ended = tasks.shutdown(PATIENCE).await;
}
