//! The `Metadata` service.

use seriatim_broker::Broker;
use seriatim_proto::v1;
use tonic::{Request, Response, Status};

/// Who leads what.
#[derive(Debug, Clone)]
pub(crate) struct MetadataService(pub(crate) Broker);

#[tonic::async_trait]
impl v1::metadata_server::Metadata for MetadataService {
    async fn describe(
        &self,
        request: Request<v1::DescribeRequest>,
    ) -> Result<Response<v1::DescribeResponse>, Status> {
        Ok(Response::new(self.0.describe(&request.into_inner())))
    }
}
