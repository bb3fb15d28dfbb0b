//! The gRPC listener.

use std::time::Duration;

use seriatim_broker::Broker;
use seriatim_proto::{
    FILE_DESCRIPTOR_SET, limits,
    v1::{
        admin_server::AdminServer, groups_server::GroupsServer, log_server::LogServer,
        metadata_server::MetadataServer,
    },
};
use seriatim_runtime::task::TaskGroup;
use tokio::net::TcpListener;
use tonic::transport::{Server, server::TcpIncoming};

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

/// Serves the native API on a bound listener until `tasks` are cancelled; then finishes the calls
/// under way.
pub async fn serve(
    listener: TcpListener,
    broker: Broker,
    tasks: TaskGroup,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
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
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
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
