//! One connection through a proxy.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use parking_lot::Mutex;
use rand::RngExt as _;
use seriatim_runtime::clock::{self, Instant};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::mpsc,
};

use super::{Pass, State, dial};
use crate::live::schedule::Weather;

/// Bytes that are read at a time.
const CHUNK_BYTES: usize = 16 << 10;
/// Chunks that are on their way.
const CHUNKS: usize = 64;
/// How often a silent connection looks whether it may still exist.
const LOOK: Duration = Duration::from_millis(50);

/// Which way bytes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    There,
    Back,
}

/// A connection.
#[derive(Clone)]
pub(super) struct Pipe {
    pub(super) state: Arc<Mutex<State>>,
    pub(super) pass: Pass,
}

/// Bytes, and when they are to arrive.
type Chunk = (Instant, Vec<u8>);

impl Pipe {
    /// Until one side ends it, or it is cut.
    pub(super) async fn run(self, client: TcpStream, target: SocketAddr) {
        let ready = (self.pass)() && client.set_nodelay(true).is_ok();
        let server = if ready { dial(target).await.ok() } else { None };
        let Some(server) = server else {
            reset(&client);
            return;
        };
        let halves = |stream: TcpStream| stream.into_split();
        let ((mut client_reads, mut client_writes), (mut server_reads, mut server_writes)) =
            (halves(client), halves(server));
        let ended = {
            let there = self.pump(Way::There, &mut client_reads, &mut server_writes);
            let back = self.pump(Way::Back, &mut server_reads, &mut client_writes);
            tokio::select! {
                biased;
                () = self.watch() => Err(io::ErrorKind::ConnectionReset.into()),
                ended = async { tokio::try_join!(there, back).map(|_| ()) } => ended,
            }
        };
        if ended.is_err() {
            for half in [&client_writes, &server_writes] {
                reset(half.as_ref());
            }
        }
    }

    /// Returns when the connection is to be reset.
    async fn watch(&self) {
        let began = clock::now();
        loop {
            clock::sleep(LOOK).await;
            let weather = self.state.lock().weather();
            let old = match weather {
                Some(Weather::Reset(ms)) => began.elapsed() >= Duration::from_millis(ms),
                _ => false,
            };
            if old || !(self.pass)() {
                return;
            }
        }
    }

    /// Carries bytes one way until they end.
    async fn pump(
        &self,
        way: Way,
        from: &mut OwnedReadHalf,
        to: &mut OwnedWriteHalf,
    ) -> io::Result<()> {
        let (queue, chunks) = mpsc::channel(CHUNKS);
        let _ends = tokio::try_join!(self.take(way, from, queue), self.give(chunks, to))?;
        Ok(())
    }

    async fn take(
        &self,
        way: Way,
        from: &mut OwnedReadHalf,
        queue: mpsc::Sender<Chunk>,
    ) -> io::Result<()> {
        let mut buffer = vec![0; CHUNK_BYTES];
        loop {
            let count = from.read(&mut buffer).await?;
            let Some(bytes) = buffer.get(..count).filter(|bytes| !bytes.is_empty()) else {
                return Ok(());
            };
            let weather = self.state.lock().weather();
            let mut due = clock::now();
            match weather {
                Some(Weather::Slow(ms)) => due += Duration::from_millis(ms),
                Some(Weather::DropAnswers(of)) if way == Way::Back && one_in(of) => {
                    return Err(io::ErrorKind::ConnectionReset.into());
                }
                _ => {}
            }
            if !(self.pass)() || queue.send((due, bytes.to_vec())).await.is_err() {
                return Err(io::ErrorKind::ConnectionReset.into());
            }
        }
    }

    async fn give(
        &self,
        mut chunks: mpsc::Receiver<Chunk>,
        to: &mut OwnedWriteHalf,
    ) -> io::Result<()> {
        while let Some((due, bytes)) = chunks.recv().await {
            clock::sleep_until(due).await;
            let weather = self.state.lock().weather();
            if let Some(Weather::Thin(bytes_per_s)) = weather {
                let count = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
                time_on_the_line(count, bytes_per_s).await;
            }
            to.write_all(&bytes).await?;
        }
        to.shutdown().await
    }
}

/// Waits for as long as these bytes take.
async fn time_on_the_line(count: u64, bytes_per_s: u64) {
    let ms = count.saturating_mul(1_000) / bytes_per_s.max(1);
    clock::sleep(Duration::from_millis(ms)).await;
}

fn one_in(of: u64) -> bool {
    let mut rng: rand::rngs::SmallRng = rand::make_rng();
    rng.random_range(0..of.max(1)) == 0
}

/// Ends a connection so that the other side sees it cut off.
pub(super) fn reset(stream: &TcpStream) {
    // One that is gone already needs nothing.
    let _gone = stream.set_zero_linger();
}
