//! The `Admin` service.

use seriatim_broker::Broker;
use seriatim_proto::v1;
use tonic::{Request, Response, Status};

use crate::status;

/// Administration.
#[derive(Debug, Clone)]
pub(crate) struct AdminService(pub(crate) Broker);

#[tonic::async_trait]
impl v1::admin_server::Admin for AdminService {
    async fn create_topic(
        &self,
        request: Request<v1::CreateTopicRequest>,
    ) -> Result<Response<v1::CreateTopicResponse>, Status> {
        let created = self.0.create_topic(request.into_inner()).await;
        created
            .map(Response::new)
            .map_err(|error| status::of(&error))
    }

    async fn delete_topic(
        &self,
        request: Request<v1::DeleteTopicRequest>,
    ) -> Result<Response<v1::DeleteTopicResponse>, Status> {
        let deleted = self.0.delete_topic(&request.into_inner().name).await;
        let empty = |()| Response::new(v1::DeleteTopicResponse {});
        deleted.map(empty).map_err(|error| status::of(&error))
    }

    async fn alter_topic(
        &self,
        request: Request<v1::AlterTopicRequest>,
    ) -> Result<Response<v1::AlterTopicResponse>, Status> {
        let altered = self.0.alter_topic(request.into_inner()).await;
        altered
            .map(Response::new)
            .map_err(|error| status::of(&error))
    }

    async fn resize_topic(
        &self,
        request: Request<v1::ResizeTopicRequest>,
    ) -> Result<Response<v1::ResizeTopicResponse>, Status> {
        answer(self.0.resize_topic(request.into_inner()).await)
    }

    async fn reassign(
        &self,
        request: Request<v1::ReassignRequest>,
    ) -> Result<Response<v1::ReassignResponse>, Status> {
        answer(self.0.reassign(request.into_inner()).await)
    }

    async fn rebalance(
        &self,
        request: Request<v1::RebalanceRequest>,
    ) -> Result<Response<v1::RebalanceResponse>, Status> {
        answer(self.0.rebalance(request.into_inner()).await)
    }

    async fn decommission(
        &self,
        request: Request<v1::DecommissionRequest>,
    ) -> Result<Response<v1::DecommissionResponse>, Status> {
        answer(self.0.decommission(request.into_inner()).await)
    }

    async fn node_status(
        &self,
        _request: Request<v1::NodeStatusRequest>,
    ) -> Result<Response<v1::NodeStatusResponse>, Status> {
        Ok(Response::new(self.0.node_status()))
    }
}

fn answer<T>(done: Result<T, v1::Error>) -> Result<Response<T>, Status> {
    done.map(Response::new).map_err(|error| status::of(&error))
}
