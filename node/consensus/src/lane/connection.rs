//! One connection: the calling side (a link) and the answering side.

use std::{
    collections::{BTreeMap, VecDeque},
    io,
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use futures::FutureExt as _;
use parking_lot::Mutex;
use prost::Message as _;
use seriatim_proto::{ids::NodeId, internal::v1::Hello};
use seriatim_runtime::{
    clock, hit,
    net::{Listener, ReadHalf, Stream, WriteHalf},
    rng,
};
use tokio::{
    sync::{Semaphore, mpsc, oneshot},
    task::coop::unconstrained,
};

use super::{
    Charge, Class, FIRST_SERVICE_KIND, Inner, LaneError, QUEUE, RECEIVE_BYTES,
    wire::{self, Form, Message},
};

const VERSION: u32 = 1;
const MAX_HELLO: usize = 4096;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
const HELLO_TIMEOUT: Duration = Duration::from_secs(2);
/// Bytes handed to one `writev` round at most, roughly.
const WRITE_ROUND: usize = 4 << 20;

type Reply = oneshot::Sender<Result<(NodeId, Bytes), LaneError>>;
type Waiting = Arc<Mutex<BTreeMap<u64, Reply>>>;

#[derive(Debug)]
pub(super) struct Outgoing {
    pub(super) kind: u16,
    pub(super) parts: Vec<Bytes>,
    pub(super) reply: Reply,
    /// Room in the queue; given back when the request is written.
    pub(super) charge: Charge,
}

/// Serves one peer and class for as long as the lane lives: connects when there is something to
/// send, and fails what waits when that does not work.
pub(super) async fn link(
    lane: Arc<Inner>,
    address: String,
    class: Class,
    mut requests: mpsc::Receiver<Outgoing>,
) {
    while let Some(first) = requests.recv().await {
        let connected = connect(&lane, &address, class).await;
        let (node, reader, writer) = match connected {
            Ok(connection) => connection,
            Err(error) => {
                tracing::debug!(%address, %error, "no connection");
                let mut failed = Some(first);
                while let Some(request) = failed.take() {
                    let _gone = request.reply.send(Err(error.clone()));
                    failed = requests.try_recv().ok();
                }
                clock::sleep(Duration::from_millis(20 + rng::below(30))).await;
                continue;
            }
        };
        let waiting = Waiting::default();
        let why = tokio::select! {
            biased;
            why = send_requests(writer, &mut requests, first, &waiting) => why,
            why = read_answers(reader, node, &waiting) => why,
        };
        let error = LaneError::Unreachable {
            address: address.clone(),
            why: why.map_or_else(|error| error.to_string(), |()| "closed".to_owned()),
        };
        hit!("consensus.lane.broken");
        tracing::debug!(%address, %error, "connection ended");
        let replies = std::mem::take(&mut *waiting.lock()).into_values();
        for reply in replies {
            let _gone = reply.send(Err(error.clone()));
        }
    }
}

async fn connect(
    lane: &Inner,
    address: &str,
    class: Class,
) -> Result<(NodeId, ReadHalf, WriteHalf), LaneError> {
    let unreachable = |why: String| LaneError::Unreachable {
        address: address.to_owned(),
        why,
    };
    let stream = match clock::timeout(CONNECT_TIMEOUT, lane.net.connect(address)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return Err(unreachable(error.to_string())),
        Err(_elapsed) => return Err(unreachable("connecting took too long".to_owned())),
    };
    let (mut reader, mut writer) = stream.split();
    let greeting = async {
        say_hello(lane, &mut writer, class as u32, String::new()).await?;
        hear_hello(&mut reader).await
    };
    let hello = match clock::timeout(HELLO_TIMEOUT, greeting).await {
        Ok(Ok(hello)) => hello,
        Ok(Err(error)) => return Err(unreachable(error.to_string())),
        Err(_elapsed) => return Err(unreachable("no greeting came".to_owned())),
    };
    let refused = if hello.refused.is_empty() {
        objection(lane, &hello)
    } else {
        Some(hello.refused.clone())
    };
    match refused {
        Some(why) => {
            tracing::warn!(%address, %why, "a node of this address cannot be talked to");
            Err(LaneError::Refused {
                address: address.to_owned(),
                why,
                cluster_id: hello.cluster_id,
            })
        }
        None => Ok((NodeId(hello.node_id), reader, writer)),
    }
}

async fn say_hello(
    lane: &Inner,
    writer: &mut WriteHalf,
    class: u32,
    refused: String,
) -> io::Result<()> {
    let hello = Hello {
        version: VERSION,
        node_id: lane.me.0,
        cluster_id: (lane.cluster_id)().unwrap_or_default(),
        class,
        refused,
    };
    let mut out = VecDeque::new();
    wire::push(
        &mut out,
        (0, 0, Form::Request),
        [hello.encode_to_vec().into()],
    );
    wire::write_all(writer, &mut out).await
}

async fn hear_hello(reader: &mut ReadHalf) -> io::Result<Hello> {
    let message = wire::read(reader, MAX_HELLO).await?;
    let invalid = || io::Error::new(io::ErrorKind::InvalidData, "not a Seriatim node");
    if message.kind != 0 {
        return Err(invalid());
    }
    Hello::decode(message.body).map_err(|_bad| invalid())
}

/// Why this node will not talk to the one that said `hello`.
fn objection(lane: &Inner, hello: &Hello) -> Option<String> {
    if hello.version != VERSION {
        return Some(format!(
            "node {} speaks version {} of the replication protocol, node {} version {VERSION}",
            hello.node_id, hello.version, lane.me
        ));
    }
    if hello.node_id == 0 {
        return Some("node id 0 is not allowed".to_owned());
    }
    let mine = (lane.cluster_id)().unwrap_or_default();
    if !mine.is_empty() && !hello.cluster_id.is_empty() && mine != hello.cluster_id {
        return Some(format!(
            "node {} belongs to cluster {}, node {} to cluster {mine}",
            hello.node_id, hello.cluster_id, lane.me
        ));
    }
    None
}

async fn send_requests(
    mut writer: WriteHalf,
    requests: &mut mpsc::Receiver<Outgoing>,
    first: Outgoing,
    waiting: &Waiting,
) -> io::Result<()> {
    let mut next_id = 1;
    let mut out = VecDeque::new();
    let mut next = Some(first);
    loop {
        let mut bytes = 0;
        let mut charges = Vec::new();
        while let Some(request) = next.take() {
            bytes += request.parts.iter().map(Bytes::len).sum::<usize>();
            {
                let mut waiting = waiting.lock();
                if waiting.len() >= 4 * QUEUE {
                    waiting.retain(|_id, reply| !reply.is_closed());
                }
                let _none = waiting.insert(next_id, request.reply);
            }
            wire::push(
                &mut out,
                (next_id, request.kind, Form::Request),
                request.parts,
            );
            charges.push(request.charge);
            next_id += 1;
            if bytes < WRITE_ROUND {
                next = requests.try_recv().ok();
            }
        }
        wire::write_all(&mut writer, &mut out).await?;
        drop(charges);
        next = requests.recv().await;
        if next.is_none() {
            return Ok(());
        }
    }
}

async fn read_answers(mut reader: ReadHalf, node: NodeId, waiting: &Waiting) -> io::Result<()> {
    loop {
        let message = wire::read(&mut reader, wire::MAX_MESSAGE).await?;
        let Some(reply) = waiting.lock().remove(&message.id) else {
            continue;
        };
        let result = match message.form {
            Form::Answer => Ok((node, message.body)),
            Form::Refusal => Err(LaneError::Failed(
                String::from_utf8_lossy(&message.body).into_owned(),
            )),
            Form::Request => {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    "a request as an answer",
                ));
            }
        };
        let _gone = reply.send(result);
    }
}

/// Accepts connections until cancelled.
pub(super) async fn accept(lane: Arc<Inner>, listener: Listener) {
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                let lane_of_task = lane.clone();
                let _running = lane.tasks.spawn("lane-serve", async move {
                    if let Err(error) = serve(lane_of_task, stream).await {
                        tracing::debug!(%peer, %error, "connection ended");
                    }
                });
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a replication connection");
                clock::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn serve(lane: Arc<Inner>, stream: Stream) -> io::Result<()> {
    let (mut reader, mut writer) = stream.split();
    let Ok(hello) = clock::timeout(HELLO_TIMEOUT, hear_hello(&mut reader)).await else {
        return Err(io::ErrorKind::TimedOut.into());
    };
    let hello = hello?;
    let refused = objection(&lane, &hello);
    say_hello(
        &lane,
        &mut writer,
        hello.class,
        refused.clone().unwrap_or_default(),
    )
    .await?;
    if let Some(why) = refused {
        tracing::warn!(%why, "refused a replication connection");
        return Ok(());
    }
    let from = NodeId(hello.node_id);
    let (answers, queue) = mpsc::channel(QUEUE);
    let ended = tokio::select! {
        biased;
        ended = read_requests(&lane, reader, from, answers) => ended,
        ended = write_answers(writer, queue) => ended,
    };
    ended
}

struct Answer {
    id: u64,
    kind: u16,
    result: Result<Bytes, String>,
}

async fn read_requests(
    lane: &Arc<Inner>,
    mut reader: ReadHalf,
    from: NodeId,
    answers: mpsc::Sender<Answer>,
) -> io::Result<()> {
    let room = Arc::new(Semaphore::new(RECEIVE_BYTES));
    loop {
        let prefix = wire::read_prefix(&mut reader, wire::MAX_MESSAGE).await?;
        // Room for the body is taken before it is read, and kept until the answer is there.
        let bytes = u32::try_from(prefix.body_bytes).unwrap_or(u32::MAX);
        let Ok(room) = Arc::clone(&room).acquire_many_owned(bytes).await else {
            return Ok(());
        };
        let Message {
            id,
            kind,
            form,
            body,
        } = wire::read_body(&mut reader, prefix).await?;
        if form != Form::Request {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "an answer as a request",
            ));
        }
        // Room for the answer is taken first: a peer that does not read its answers is not served.
        let Ok(permit) = answers.clone().reserve_owned().await else {
            return Ok(());
        };
        let mut work = dispatch(lane, from, kind, body);
        // The runtime makes a task that has had its share pause at any step. Here that would be before the
        // request is in its queue, where the next one could overtake it; a leader whose entries come out of
        // order takes the follower for one that has lost some.
        if let Some(result) = unconstrained(&mut work).now_or_never() {
            let _sender = permit.send(Answer { id, kind, result });
            continue;
        }
        let _running = lane.tasks.spawn("lane-handle", async move {
            let result = work.await;
            drop(room);
            let _sender = permit.send(Answer { id, kind, result });
        });
    }
}

fn dispatch(
    lane: &Arc<Inner>,
    from: NodeId,
    kind: u16,
    body: Bytes,
) -> seriatim_runtime::net::BoxFuture<'static, Result<Bytes, String>> {
    if kind < FIRST_SERVICE_KIND {
        // Locks are released before the handler runs, which may take them.
        let handler = lane.handler.read().clone();
        if let Some(handler) = handler {
            return handler.handle(from, kind, body);
        }
    } else {
        let service = lane.services.read().get(&kind).cloned();
        if let Some(service) = service {
            return Box::pin(async move { service.call(from, body).await });
        }
    }
    Box::pin(async move { Err(format!("requests of kind {kind} are not served here yet")) })
}

async fn write_answers(mut writer: WriteHalf, mut queue: mpsc::Receiver<Answer>) -> io::Result<()> {
    let mut out = VecDeque::new();
    while let Some(first) = queue.recv().await {
        let mut next = Some(first);
        while let Some(Answer { id, kind, result }) = next.take() {
            let (form, body) = match result {
                Ok(body) => (Form::Answer, body),
                Err(why) => (Form::Refusal, why.into()),
            };
            wire::push(&mut out, (id, kind, form), [body]);
            next = queue.try_recv().ok();
        }
        wire::write_all(&mut writer, &mut out).await?;
    }
    Ok(())
}
