//! The `Log` service.

use std::pin::Pin;

use futures::Stream;
use seriatim_broker::Broker;
use seriatim_proto::v1;
use tonic::{Request, Response, Status, Streaming};

use crate::{receive::Reservations, status, streams};

/// Appending and reading.
#[derive(Debug, Clone)]
pub(crate) struct LogService(pub(crate) Broker);

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl v1::log_server::Log for LogService {
    async fn produce(
        &self,
        request: Request<v1::ProduceRequest>,
    ) -> Result<Response<v1::ProduceResponse>, Status> {
        let room = request.extensions().get().and_then(Reservations::next);
        let answer = self.0.produce(request.into_inner(), room).await;
        Ok(Response::new(answer))
    }

    type ProduceStreamStream = Answers<v1::ProduceResponse>;

    async fn produce_stream(
        &self,
        request: Request<Streaming<v1::ProduceRequest>>,
    ) -> Result<Response<Self::ProduceStreamStream>, Status> {
        let rooms = request.extensions().get().cloned().unwrap_or_default();
        let answers = streams::produce(self.0.clone(), request.into_inner(), rooms);
        Ok(Response::new(Box::pin(answers)))
    }

    async fn fetch(
        &self,
        request: Request<v1::FetchRequest>,
    ) -> Result<Response<v1::FetchResponse>, Status> {
        Ok(Response::new(self.0.fetch(request.into_inner()).await))
    }

    type FetchStreamStream = Answers<v1::FetchStreamResponse>;

    async fn fetch_stream(
        &self,
        request: Request<Streaming<v1::FetchStreamRequest>>,
    ) -> Result<Response<Self::FetchStreamStream>, Status> {
        let answers = streams::fetch(self.0.clone(), request.into_inner()).await?;
        Ok(Response::new(Box::pin(answers)))
    }

    async fn list_offsets(
        &self,
        request: Request<v1::ListOffsetsRequest>,
    ) -> Result<Response<v1::ListOffsetsResponse>, Status> {
        Ok(Response::new(
            self.0.list_offsets(request.into_inner()).await,
        ))
    }

    async fn trim_partition(
        &self,
        request: Request<v1::TrimPartitionRequest>,
    ) -> Result<Response<v1::TrimPartitionResponse>, Status> {
        Ok(Response::new(self.0.trim(request.into_inner()).await))
    }

    async fn init_producer(
        &self,
        _request: Request<v1::InitProducerRequest>,
    ) -> Result<Response<v1::InitProducerResponse>, Status> {
        let session = self.0.init_producer().await;
        session
            .map(Response::new)
            .map_err(|error| status::of(&error))
    }
}
