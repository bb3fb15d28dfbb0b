//! One HTTP/2 connection per node, made when first used and remade by itself.

use std::{collections::HashMap, time::Duration};

use parking_lot::Mutex;
use seriatim_proto::{
    limits::MAX_GRPC_MESSAGE_BYTES,
    v1::{
        admin_client::AdminClient, groups_client::GroupsClient, log_client::LogClient,
        metadata_client::MetadataClient,
    },
};
use tonic::transport::{Channel, Endpoint};

use crate::{dial::Dialer, error::ClientError};

const WINDOW_BYTES: u32 = 8 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 32 << 20;
const FRAME_BYTES: u32 = 1 << 20;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// A node that vanishes without a word is noticed after the sum of these.
const PING_INTERVAL: Duration = Duration::from_millis(500);
const PING_TIMEOUT: Duration = Duration::from_secs(1);

/// Connections by address.
#[derive(Debug)]
pub(crate) struct Channels {
    open: Mutex<HashMap<String, Channel>>,
    /// TCP, unless there is one.
    dialer: Option<Dialer>,
}

impl Channels {
    pub(crate) fn new(dialer: Option<Dialer>) -> Self {
        Self {
            open: Mutex::default(),
            dialer,
        }
    }

    pub(crate) fn log(&self, address: &str) -> Result<LogClient<Channel>, ClientError> {
        Ok(LogClient::new(self.channel(address)?)
            .max_decoding_message_size(MAX_GRPC_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_GRPC_MESSAGE_BYTES))
    }

    pub(crate) fn metadata(&self, address: &str) -> Result<MetadataClient<Channel>, ClientError> {
        let client = MetadataClient::new(self.channel(address)?);
        Ok(client.max_decoding_message_size(MAX_GRPC_MESSAGE_BYTES))
    }

    pub(crate) fn admin(&self, address: &str) -> Result<AdminClient<Channel>, ClientError> {
        let client = AdminClient::new(self.channel(address)?);
        Ok(client.max_decoding_message_size(MAX_GRPC_MESSAGE_BYTES))
    }

    pub(crate) fn groups(&self, address: &str) -> Result<GroupsClient<Channel>, ClientError> {
        let client = GroupsClient::new(self.channel(address)?);
        Ok(client.max_decoding_message_size(MAX_GRPC_MESSAGE_BYTES))
    }

    fn channel(&self, address: &str) -> Result<Channel, ClientError> {
        let mut open = self.open.lock();
        if let Some(channel) = open.get(address) {
            return Ok(channel.clone());
        }
        let endpoint = endpoint(address)?;
        let channel = match &self.dialer {
            Some(dialer) => endpoint.connect_with_connector_lazy(dialer.clone()),
            None => endpoint.connect_lazy(),
        };
        let _new = open.insert(address.to_owned(), channel.clone());
        Ok(channel)
    }
}

fn endpoint(address: &str) -> Result<Endpoint, ClientError> {
    let bad = |e| ClientError::invalid(format!("'{address}' is not a HOST:PORT address: {e}"));
    Ok(Endpoint::from_shared(format!("http://{address}"))
        .map_err(bad)?
        .connect_timeout(CONNECT_TIMEOUT)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT)
        .keep_alive_while_idle(true)
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_frame_size(FRAME_BYTES))
}
