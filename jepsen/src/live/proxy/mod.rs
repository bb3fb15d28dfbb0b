//! A TCP proxy that delays, thins out, drops answers and resets, because not every kernel can.

mod pipe;
mod source;

use std::{io, net::SocketAddr, sync::Arc};

use parking_lot::Mutex;
use seriatim_runtime::task::TaskGroup;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

pub(super) use self::source::Source;
use super::schedule::Weather;

/// Says whether a connection may exist at present.
pub(super) type Pass = Arc<dyn Fn() -> bool + Send + Sync>;

/// Gives who made a connection from that address a pass.
pub(super) type Admit = Arc<dyn Fn(SocketAddr) -> Pass + Send + Sync>;

/// What is wrong with the connections through a proxy.
#[derive(Debug)]
struct State {
    weather: Option<Weather>,
    /// Cancelled and replaced when the open connections are to be cut.
    epoch: CancellationToken,
}

/// Forwards the connections of one listener to one address. Dropped, it ends with all of them.
#[derive(Debug)]
pub(super) struct Proxy {
    state: Arc<Mutex<State>>,
    tasks: TaskGroup,
}

impl Proxy {
    /// Listens. A connection is refused, or cut, when the pass that `admit` gave it is not good.
    pub(super) async fn start(
        listen: SocketAddr,
        target: SocketAddr,
        admit: Admit,
    ) -> io::Result<Self> {
        let listener = TcpListener::bind(listen).await?;
        let state = Arc::new(Mutex::new(State {
            weather: None,
            epoch: CancellationToken::new(),
        }));
        let tasks = TaskGroup::new();
        let server = Server {
            target,
            admit,
            state: Arc::clone(&state),
            tasks: tasks.child(),
        };
        let _accepting = tasks.spawn("proxy", server.run(listener));
        Ok(Self { state, tasks })
    }

    /// From now on, also for the connections that are open; `None` is fine weather.
    pub(super) fn set(&self, weather: Option<Weather>) {
        let mut state = self.state.lock();
        state.weather = weather;
        if weather == Some(Weather::Closed) {
            state.cut();
        }
    }
}

impl State {
    fn cut(&mut self) {
        self.epoch.cancel();
        self.epoch = CancellationToken::new();
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.tasks.cancel();
    }
}

struct Server {
    target: SocketAddr,
    admit: Admit,
    state: Arc<Mutex<State>>,
    tasks: TaskGroup,
}

impl Server {
    async fn run(self, listener: TcpListener) {
        loop {
            let Ok((client, from)) = listener.accept().await else {
                // Out of file descriptors: those that are open will end.
                seriatim_runtime::clock::sleep(std::time::Duration::from_millis(50)).await;
                continue;
            };
            let epoch = {
                let state = self.state.lock();
                (state.weather != Some(Weather::Closed)).then(|| state.epoch.clone())
            };
            let Some(epoch) = epoch else {
                pipe::reset(&client);
                continue;
            };
            let pipe = pipe::Pipe {
                state: Arc::clone(&self.state),
                pass: (self.admit)(from),
            };
            let target = self.target;
            let _connection = self.tasks.spawn("proxied", async move {
                let _cut = epoch.run_until_cancelled(pipe.run(client, target)).await;
            });
        }
    }
}

impl State {
    const fn weather(&self) -> Option<Weather> {
        self.weather
    }
}

/// Opens the far end of a connection.
async fn dial(target: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(target).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use seriatim_runtime::clock;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    /// A proxy in front of a server that sends back what it gets.
    async fn proxied(admit: Admit) -> (Proxy, SocketAddr) {
        let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let target = server.local_addr().unwrap();
        let _echo = seriatim_runtime::task::spawn("echo", async move {
            while let Ok((mut stream, _)) = server.accept().await {
                let _one = seriatim_runtime::task::spawn("echo", async move {
                    let (mut from, mut to) = stream.split();
                    let _bytes = tokio::io::copy(&mut from, &mut to).await;
                });
            }
        });
        let free = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let listen = free.local_addr().unwrap();
        drop(free);
        let proxy = Proxy::start(listen, target, admit).await.unwrap();
        (proxy, listen)
    }

    async fn echo(stream: &mut TcpStream, text: &[u8]) -> io::Result<()> {
        stream.write_all(text).await?;
        let mut answer = vec![0; text.len()];
        let _bytes = stream.read_exact(&mut answer).await?;
        assert_eq!(answer, text);
        Ok(())
    }

    #[tokio::test]
    async fn each_weather_does_what_it_says() {
        let (proxy, address) = proxied(Arc::new(|_| Arc::new(|| true))).await;
        let mut stream = TcpStream::connect(address).await.unwrap();
        echo(&mut stream, b"fine").await.unwrap();

        proxy.set(Some(Weather::Slow(100)));
        let began = clock::now();
        echo(&mut stream, b"slow").await.unwrap();
        assert!(began.elapsed() >= Duration::from_millis(200));

        proxy.set(Some(Weather::Thin(10_000)));
        let began = clock::now();
        echo(&mut stream, &[7; 4_000]).await.unwrap();
        assert!(began.elapsed() >= Duration::from_millis(300));

        proxy.set(Some(Weather::DropAnswers(1)));
        assert!(echo(&mut stream, b"unanswered").await.is_err());

        let mut stream = TcpStream::connect(address).await.unwrap();
        proxy.set(None);
        echo(&mut stream, b"fine").await.unwrap();
        proxy.set(Some(Weather::Closed));
        assert!(echo(&mut stream, b"closed").await.is_err());
        let mut refused = TcpStream::connect(address).await.unwrap();
        assert!(echo(&mut refused, b"closed").await.is_err());

        proxy.set(Some(Weather::Reset(50)));
        let mut stream = TcpStream::connect(address).await.unwrap();
        let mut rest = Vec::new();
        // Whether the reset or the end of the stream is seen first is up to the kernel.
        let cut = stream.read_to_end(&mut rest).await;
        let reset = |error: &io::Error| error.kind() == io::ErrorKind::ConnectionReset;
        assert!(cut.as_ref().map_or_else(reset, |&n| n == 0), "{cut:?}");
    }

    #[tokio::test]
    async fn who_is_not_admitted_is_cut() {
        let admitted = Arc::new(std::sync::atomic::AtomicBool::new(true));
        let ask = Arc::clone(&admitted);
        let pass: Pass = Arc::new(move || ask.load(std::sync::atomic::Ordering::Relaxed));
        let (_proxy, address) = proxied(Arc::new(move |_| Arc::clone(&pass))).await;
        let mut stream = TcpStream::connect(address).await.unwrap();
        echo(&mut stream, b"in").await.unwrap();
        admitted.store(false, std::sync::atomic::Ordering::Relaxed);
        assert!(echo(&mut stream, b"out").await.is_err());
    }
}
