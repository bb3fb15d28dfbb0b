//! A cluster in this process that keeps its logs in memory and fails as it is told to. It checks
//! sequences as a real leader does, so what it holds at the end is what a client really sent.

pub(crate) mod coordinator;

use std::{collections::HashMap, pin::Pin, sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use futures::{Stream, StreamExt as _};
use parking_lot::Mutex;
use prost::Message as _;
use seriatim_proto::{
    batch::RecordBatch,
    error::ERROR_METADATA_KEY,
    ids::{LeaderEpoch, Offset},
    record::{Record, decode_records},
    v1::{self, ErrorCode, fetch_stream_request::Kind, list_offsets_partition::At},
};
use tokio::{net::TcpListener, sync::mpsc};
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::{Request, Response, Status, Streaming, metadata::MetadataValue};

use self::coordinator::Groups;

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// What to do with a batch that arrives at its leader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    None,
    /// Store it, then break the connection without an answer.
    LoseAck,
    /// Do not store it, answer with this.
    Refuse(ErrorCode),
    /// Store it, answer later.
    Slow(Duration),
    /// Do not even look at it, and never answer.
    Hang,
}

type Chaos = Box<dyn FnMut(usize) -> Fault + Send>;

#[derive(Default)]
struct Part {
    leader: usize,
    epoch: i32,
    batches: Vec<RecordBatch>,
    /// What was before it is gone.
    start: i64,
    end: i64,
    /// Sequence, count and base offset of the last batches of each producer.
    producers: HashMap<i64, Vec<(i32, i32, i64)>>,
}

struct State {
    addresses: Vec<String>,
    parts: Vec<Part>,
    chaos: Chaos,
    next_producer: i64,
    groups: Groups,
}

#[derive(Clone)]
pub(crate) struct Fake {
    state: Arc<Mutex<State>>,
}

#[derive(Clone)]
struct Node {
    fake: Fake,
    /// Its number; node ids are one larger.
    at: usize,
}

impl Fake {
    /// Starts nodes with one topic, `t`.
    pub(crate) async fn start(nodes: usize, partitions: usize) -> Self {
        let part = |at: usize| Part {
            leader: at % nodes,
            epoch: 1,
            ..Part::default()
        };
        let fake = Self {
            state: Arc::new(Mutex::new(State {
                addresses: Vec::new(),
                parts: (0..partitions).map(part).collect(),
                chaos: Box::new(|_| Fault::None),
                next_producer: 100,
                groups: Groups::default(),
            })),
        };
        for at in 0..nodes {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap().to_string();
            fake.state.lock().addresses.push(address);
            let node = Node {
                fake: fake.clone(),
                at,
            };
            let _serving = spawn(async move {
                let log = v1::log_server::LogServer::new(node.clone())
                    .max_decoding_message_size(64 << 20);
                let groups = v1::groups_server::GroupsServer::new(node.clone());
                let metadata = v1::metadata_server::MetadataServer::new(node);
                let server = tonic::transport::Server::builder().tcp_nodelay(true);
                let mut server = server;
                let router = server.add_service(log).add_service(metadata);
                let router = router.add_service(groups);
                router
                    .serve_with_incoming(TcpListenerStream::new(listener))
                    .await
                    .unwrap();
            });
        }
        let ticking = fake.clone();
        let _ticking = spawn(async move {
            loop {
                tokio::time::sleep(Duration::from_millis(20)).await;
                ticking.state.lock().groups.tick();
            }
        });
        fake
    }

    /// Retention removes everything before an offset.
    pub(crate) fn trim(&self, partition: usize, start: i64) {
        let mut state = self.state.lock();
        let part = &mut state.parts[partition];
        part.start = start;
        part.batches.retain(|b| b.header.next_offset().0 > start);
    }

    pub(crate) fn servers(&self) -> String {
        self.state.lock().addresses.join(",")
    }

    pub(crate) fn chaos(&self, chaos: impl FnMut(usize) -> Fault + Send + 'static) {
        self.state.lock().chaos = Box::new(chaos);
    }

    pub(crate) fn lead(&self, partition: usize, node: usize) {
        let mut state = self.state.lock();
        let part = &mut state.parts[partition];
        part.leader = node;
        part.epoch += 1;
    }

    pub(crate) fn records(&self, partition: usize) -> Vec<Record> {
        let state = self.state.lock();
        let batches = &state.parts[partition].batches;
        batches
            .iter()
            .flat_map(|batch| decode_records(batch).unwrap())
            .collect()
    }

    pub(crate) fn batches(&self, partition: usize) -> Vec<RecordBatch> {
        self.state.lock().parts[partition].batches.clone()
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the client's tests have no simulated runtime"
)]
pub(crate) fn spawn<T: Send + 'static>(
    future: impl Future<Output = T> + Send + 'static,
) -> tokio::task::JoinHandle<T> {
    tokio::spawn(future)
}

impl State {
    fn part(&mut self, partition: i32) -> Result<&mut Part, v1::Error> {
        let at = usize::try_from(partition).unwrap();
        let unknown = || v1::Error::new(ErrorCode::UnknownPartition, "no such partition");
        self.parts.get_mut(at).ok_or_else(unknown)
    }

    fn led(&mut self, partition: i32, node: usize) -> Result<&mut Part, v1::Error> {
        let (leader, epoch) = {
            let part = self.part(partition)?;
            (part.leader, part.epoch)
        };
        if leader != node {
            let mut error = v1::Error::new(ErrorCode::NotLeader, "another node leads");
            error.leader = Some(v1::LeaderHint {
                node_id: leader as u64 + 1,
                grpc_address: self.addresses[leader].clone(),
                leader_epoch: epoch,
                ..v1::LeaderHint::default()
            });
            return Err(error);
        }
        self.part(partition)
    }

    fn append(&mut self, node: usize, batch: &v1::PartitionBatch) -> Result<i64, v1::Error> {
        let part = self.led(batch.partition, node)?;
        let parsed = RecordBatch::from_producer(batch.record_batch.clone());
        let mut parsed =
            parsed.map_err(|e| v1::Error::new(ErrorCode::CorruptBatch, e.to_string()))?;
        let header = &mut parsed.header;
        let count = i32::try_from(header.record_count).unwrap();
        if header.producer_id.0 >= 0 {
            let known = part.producers.entry(header.producer_id.0).or_default();
            let same = |b: &&(i32, i32, i64)| (b.0, b.1) == (header.base_sequence, count);
            if let Some(stored) = known.iter().find(same) {
                return Ok(stored.2);
            }
            let next = known.last().map_or(0, |b| b.0.wrapping_add(b.1) & i32::MAX);
            if next != header.base_sequence {
                let text = format!("sequence {} after {next}", header.base_sequence);
                return Err(v1::Error::new(ErrorCode::OutOfOrderSequence, text));
            }
        }
        if batch.expected_end_offset.is_some_and(|end| end != part.end) {
            let mut error = v1::Error::new(ErrorCode::WrongEndOffset, "the end is another one");
            error.log_end_offset = Some(part.end);
            return Err(error);
        }
        if header.producer_id.0 >= 0 {
            let known = part.producers.entry(header.producer_id.0).or_default();
            known.push((header.base_sequence, count, part.end));
            let surplus = known.len().saturating_sub(5);
            drop(known.drain(..surplus));
        }
        header.base_offset = Offset(part.end);
        header.leader_epoch = LeaderEpoch(part.epoch);
        part.end += i64::from(count);
        let base = header.base_offset.0;
        part.batches.push(parsed);
        Ok(base)
    }
}

fn failed(error: &v1::Error) -> Status {
    let mut status = Status::failed_precondition(error.message.clone());
    let value = MetadataValue::from_bytes(&error.encode_to_vec());
    let _before = status.metadata_mut().insert_bin(ERROR_METADATA_KEY, value);
    status
}

impl Node {
    /// `None`: break the connection.
    async fn serve(&self, request: v1::ProduceRequest) -> Option<v1::ProduceResponse> {
        let mut results = Vec::new();
        let mut wait = Duration::ZERO;
        let mut lost = false;
        for batch in request.batches {
            let outcome = {
                let mut state = self.fake.state.lock();
                let fault = (state.chaos)(self.at);
                match fault {
                    Fault::None => state.append(self.at, &batch),
                    Fault::Refuse(code) => Err(v1::Error::new(code, "refused by the test")),
                    Fault::LoseAck => {
                        lost = true;
                        state.append(self.at, &batch)
                    }
                    Fault::Slow(time) => {
                        wait = wait.max(time);
                        state.append(self.at, &batch)
                    }
                    Fault::Hang => {
                        wait = Duration::MAX;
                        Ok(0)
                    }
                }
            };
            results.push(v1::PartitionProduceResult {
                topic: batch.topic,
                partition: batch.partition,
                base_offset: outcome.as_ref().copied().unwrap_or(-1),
                error: outcome.err(),
                ..v1::PartitionProduceResult::default()
            });
        }
        if wait == Duration::MAX {
            std::future::pending::<()>().await;
        }
        if wait > Duration::ZERO {
            tokio::time::sleep(wait).await;
        }
        let correlation_id = request.correlation_id;
        (!lost).then_some(v1::ProduceResponse {
            correlation_id,
            results,
        })
    }

    fn read(&self, partition: i32, offset: i64) -> Result<(Bytes, i64), Status> {
        let mut state = self.fake.state.lock();
        let part = state.led(partition, self.at).map_err(|e| failed(&e))?;
        if !(part.start..=part.end).contains(&offset) {
            let text = format!("there are {} to {}", part.start, part.end);
            let mut error = v1::Error::new(ErrorCode::OffsetOutOfRange, text);
            error.log_start_offset = Some(part.start);
            error.log_end_offset = Some(part.end);
            return Err(failed(&error));
        }
        let mut bytes = BytesMut::new();
        for batch in part
            .batches
            .iter()
            .filter(|b| b.header.next_offset().0 > offset)
            .take(3)
        {
            bytes.extend_from_slice(&batch.header.encode());
            bytes.extend_from_slice(&batch.body);
        }
        Ok((bytes.freeze(), part.end))
    }
}

#[tonic::async_trait]
impl v1::log_server::Log for Node {
    async fn produce(
        &self,
        request: Request<v1::ProduceRequest>,
    ) -> Result<Response<v1::ProduceResponse>, Status> {
        let answer = self.serve(request.into_inner()).await;
        answer
            .map(Response::new)
            .ok_or_else(|| Status::unavailable("broken by the test"))
    }

    type ProduceStreamStream = Answers<v1::ProduceResponse>;

    async fn produce_stream(
        &self,
        request: Request<Streaming<v1::ProduceRequest>>,
    ) -> Result<Response<Self::ProduceStreamStream>, Status> {
        let mut requests = request.into_inner();
        let (sender, answers) = mpsc::channel(16);
        let node = self.clone();
        let _serving = spawn(async move {
            let mut under_way = futures::stream::FuturesUnordered::new();
            loop {
                tokio::select! {
                    biased;
                    Some(answer) = under_way.next(), if !under_way.is_empty() => {
                        let answer: Option<v1::ProduceResponse> = answer;
                        let answer = answer.ok_or_else(|| Status::unavailable("broken by the test"));
                        let broken = answer.is_err();
                        if sender.send(answer).await.is_err() || broken {
                            return;
                        }
                    }
                    request = requests.message() => match request {
                        Ok(Some(request)) => under_way.push(node.serve(request)),
                        _ => return,
                    }
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(answers))))
    }

    async fn fetch(
        &self,
        _request: Request<v1::FetchRequest>,
    ) -> Result<Response<v1::FetchResponse>, Status> {
        Err(Status::unimplemented("not used"))
    }

    type FetchStreamStream = Answers<v1::FetchStreamResponse>;

    async fn fetch_stream(
        &self,
        request: Request<Streaming<v1::FetchStreamRequest>>,
    ) -> Result<Response<Self::FetchStreamStream>, Status> {
        let mut requests = request.into_inner();
        let first = requests.message().await?.and_then(|r| r.kind);
        let Some(Kind::Open(open)) = first else {
            return Err(Status::invalid_argument("open"));
        };
        let _check = self.read(open.partition, open.offset)?;
        let (sender, answers) = mpsc::channel(1);
        let node = self.clone();
        let _serving = spawn(async move {
            let (mut offset, mut grant) = (open.offset, i64::try_from(open.grant_bytes).unwrap());
            loop {
                tokio::select! {
                    more = requests.message() => match more {
                        Ok(Some(v1::FetchStreamRequest { kind: Some(Kind::GrantBytes(more)) })) => {
                            grant += i64::try_from(more).unwrap();
                        }
                        _ => return,
                    },
                    () = tokio::time::sleep(Duration::from_millis(1)), if grant > 0 => {
                        let answer = node.read(open.partition, offset).map(|(bytes, end)| {
                            grant -= i64::try_from(bytes.len()).unwrap();
                            v1::FetchStreamResponse {
                                record_batches: bytes,
                                high_watermark: end,
                                log_start_offset: 0,
                            }
                        });
                        let mut rest = answer.as_ref().map_or(Bytes::new(), |a| a.record_batches.clone());
                        while !rest.is_empty() {
                            let header = seriatim_proto::batch::BatchHeader::parse(&rest).unwrap();
                            offset = header.next_offset().0;
                            drop(rest.split_to(header.total_bytes()));
                        }
                        let end = answer.is_err();
                        let empty = answer.as_ref().is_ok_and(|a| a.record_batches.is_empty());
                        if !empty && (sender.send(answer).await.is_err() || end) {
                            return;
                        }
                    }
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(answers))))
    }

    async fn list_offsets(
        &self,
        request: Request<v1::ListOffsetsRequest>,
    ) -> Result<Response<v1::ListOffsetsResponse>, Status> {
        let mut state = self.fake.state.lock();
        let mut results = Vec::new();
        for asked in request.into_inner().partitions {
            let found = state
                .led(asked.partition, self.at)
                .map(|part| match asked.at {
                    Some(At::End(_)) => part.end,
                    _ => part.start,
                });
            results.push(v1::PartitionOffset {
                topic: asked.topic,
                partition: asked.partition,
                offset: found.as_ref().copied().unwrap_or(-1),
                error: found.err(),
                leader_epoch: 0,
            });
        }
        Ok(Response::new(v1::ListOffsetsResponse { results }))
    }

    async fn trim_partition(
        &self,
        _request: Request<v1::TrimPartitionRequest>,
    ) -> Result<Response<v1::TrimPartitionResponse>, Status> {
        Err(Status::unimplemented("this node keeps its records"))
    }

    async fn init_producer(
        &self,
        _request: Request<v1::InitProducerRequest>,
    ) -> Result<Response<v1::InitProducerResponse>, Status> {
        let mut state = self.fake.state.lock();
        state.next_producer += 1;
        let producer_id = state.next_producer;
        Ok(Response::new(v1::InitProducerResponse {
            producer_id,
            producer_epoch: 0,
        }))
    }
}

#[tonic::async_trait]
impl v1::metadata_server::Metadata for Node {
    async fn describe(
        &self,
        request: Request<v1::DescribeRequest>,
    ) -> Result<Response<v1::DescribeResponse>, Status> {
        let request = request.into_inner();
        let state = self.fake.state.lock();
        let node = |(at, address): (usize, &String)| v1::Node {
            node_id: at as u64 + 1,
            grpc_address: address.clone(),
            ..v1::Node::default()
        };
        let partition = |(at, part): (usize, &Part)| v1::Partition {
            partition: i32::try_from(at).unwrap(),
            leader: part.leader as u64 + 1,
            leader_epoch: part.epoch,
            replicas: vec![1],
            ..v1::Partition::default()
        };
        let topic = v1::Topic {
            name: "t".to_owned(),
            topic_id: "id".to_owned(),
            partitions: state.parts.iter().enumerate().map(partition).collect(),
            ..v1::Topic::default()
        };
        let asked = request.topics.is_empty() || request.topics.iter().any(|t| t == "t");
        Ok(Response::new(v1::DescribeResponse {
            cluster_id: "fake".to_owned(),
            nodes: state.addresses.iter().enumerate().map(node).collect(),
            topics: if asked && !request.nodes_only {
                vec![topic]
            } else {
                Vec::new()
            },
            ..v1::DescribeResponse::default()
        }))
    }
}
