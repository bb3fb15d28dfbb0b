//! The gRPC listener.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use futures::Stream;
use seriatim_broker::Broker;
use seriatim_proto::{
    FILE_DESCRIPTOR_SET, limits,
    v1::{
        admin_server::AdminServer, groups_server::GroupsServer, log_server::LogServer,
        metadata_server::MetadataServer,
    },
};
use seriatim_runtime::{
    net::{self, Listener},
    task::TaskGroup,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpListener,
};
use tonic::transport::{
    Server,
    server::{Connected, TcpIncoming},
};

use crate::{
    admin::AdminService, groups::GroupsService, log::LogService, metadata::MetadataService,
    receive::Budgeted,
};

/// What a client may send unasked, per stream and per connection: the node holds it in memory
/// besides the budget of appends.
const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 4 << 20;
const FRAME: u32 = 1 << 20;

/// Largest message to the groups: a commit with the largest command and a little more, so that one
/// that is too large is refused with an explanation.
const GROUPS_MESSAGE: usize = 12 << 20;

/// Streams that one connection may have open.
const STREAMS: u32 = 1024;

/// Why a listener ended.
type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Serves the native API on a bound listener until `tasks` are cancelled; then finishes the calls
/// under way.
pub async fn serve(listener: TcpListener, broker: Broker, tasks: TaskGroup) -> Result<(), Failure> {
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    serve_each(incoming, broker, tasks).await
}

/// The same on a network that may be simulated. [`serve`] asks the system's sockets without the
/// step between.
pub async fn serve_on(listener: Listener, broker: Broker, tasks: TaskGroup) -> Result<(), Failure> {
    let incoming = futures::stream::unfold(listener, |listener| async {
        let accepted = listener.accept().await;
        Some((accepted.map(|(stream, _peer)| Wire(stream)), listener))
    });
    serve_each(incoming, broker, tasks).await
}

async fn serve_each<I, C>(incoming: I, broker: Broker, tasks: TaskGroup) -> Result<(), Failure>
where
    I: Stream<Item = io::Result<C>>,
    C: AsyncRead + AsyncWrite + Connected + Unpin + Send + 'static,
{
    let most = limits::MAX_GRPC_MESSAGE_BYTES;
    let log = LogServer::new(LogService(broker.clone()))
        .max_decoding_message_size(most)
        .max_encoding_message_size(most);
    let log = Budgeted {
        service: log,
        broker: broker.clone(),
    };
    let metadata = MetadataServer::new(MetadataService(broker.clone()));
    let groups =
        GroupsServer::new(GroupsService(broker.clone())).max_decoding_message_size(GROUPS_MESSAGE);
    let admin = AdminServer::new(AdminService(broker.clone()));
    let (health, health_service) = tonic_health::server::health_reporter();
    health.set_serving::<LogServer<LogService>>().await;
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(FILE_DESCRIPTOR_SET)
        .build_v1()?;
    Server::builder()
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_frame_size(FRAME)
        .max_concurrent_streams(STREAMS)
        .http2_keepalive_interval(Some(Duration::from_secs(10)))
        .http2_keepalive_timeout(Some(Duration::from_secs(10)))
        .add_service(log)
        .add_service(metadata)
        .add_service(groups)
        .add_service(admin)
        .add_service(health_service)
        .add_service(reflection)
        .serve_with_incoming_shutdown(incoming, async move {
            tokio::select! {
                () = broker.stopping() => {}
                () = tasks.cancelled() => {}
            }
        })
        .await?;
    Ok(())
}

/// A connection of which the transport knows no address.
struct Wire(net::Stream);

impl Connected for Wire {
    type ConnectInfo = ();

    fn connect_info(&self) {}
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
