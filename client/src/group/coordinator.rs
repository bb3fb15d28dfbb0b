//! Who coordinates a group, as far as this client has heard.

use std::{collections::HashMap, future::Future, sync::Arc, time::Duration};

use parking_lot::Mutex;
use seriatim_proto::v1::{self, ErrorCode};
use tokio::time::{Instant, sleep, timeout_at};

use crate::{client::Client, error::ClientError, rt};

/// Longest that one node may take to answer.
const ATTEMPT: Duration = Duration::from_secs(5);
/// Coordinators that are kept; a client rarely works with more than a few groups.
const KNOWN_MAX: usize = 1_000;

/// Addresses of coordinators by group.
#[derive(Debug, Default)]
pub(crate) struct Coordinators {
    known: Mutex<HashMap<String, Arc<str>>>,
}

impl Coordinators {
    fn get(&self, group: &str) -> Option<Arc<str>> {
        self.known.lock().get(group).cloned()
    }

    fn note(&self, group: &str, address: &str) -> Arc<str> {
        let address: Arc<str> = address.into();
        let mut known = self.known.lock();
        if known.len() >= KNOWN_MAX {
            known.clear();
        }
        let _before = known.insert(group.to_owned(), Arc::clone(&address));
        address
    }

    /// Draws the conclusion from what a coordinator answered.
    pub(crate) fn learn(&self, group: &str, error: &ClientError) {
        if let ClientError::Server(error) = error {
            let hint = error.leader.as_ref().filter(|h| !h.grpc_address.is_empty());
            if let (ErrorCode::NotCoordinator, Some(hint)) = (error.code(), hint) {
                let _address = self.note(group, &hint.grpc_address);
                return;
            }
        }
        if error.is_retryable() {
            let _known = self.known.lock().remove(group);
        }
    }
}

impl Client {
    /// The address of a group's coordinator.
    pub(crate) async fn coordinator(
        &self,
        group: &str,
        limit: Duration,
    ) -> Result<Arc<str>, ClientError> {
        if let Some(address) = self.coordinators().get(group) {
            return Ok(address);
        }
        let request = v1::FindCoordinatorsRequest {
            groups: vec![group.to_owned()],
        };
        let found = self.any_node("find the coordinator", (limit, false), |address| {
            let request = request.clone();
            async move {
                let mut client = self.metadata().channels.groups(&address)?;
                let answer = client.find_coordinators(request).await;
                let answer = answer.map_err(|status| ClientError::from_status(&address, status))?;
                let found = answer.into_inner().coordinators.into_iter().next();
                let missing = || ClientError::invalid("a node names no coordinator");
                address_of(found.ok_or_else(missing)?)
            }
        });
        let address = found.await?;
        Ok(self.coordinators().note(group, &address))
    }

    /// Makes a call to a group's coordinator, and again to whoever is that then, until `limit` has
    /// passed. The call must do no harm when it is repeated.
    pub(crate) async fn at_coordinator<T, F, Fut>(
        &self,
        (group, what): (&str, &'static str),
        limit: Duration,
        call: F,
    ) -> Result<T, ClientError>
    where
        F: Fn(Arc<str>) -> Fut,
        Fut: Future<Output = Result<T, ClientError>>,
    {
        let deadline = Instant::now() + limit;
        let mut attempt = 0;
        let mut maybe_applied = false;
        loop {
            let until = deadline.min(Instant::now() + ATTEMPT);
            let answer = async {
                let address = self.coordinator(group, limit).await?;
                call(address).await
            };
            let error = match timeout_at(until, answer).await {
                Ok(Ok(value)) => return Ok(value),
                Ok(Err(error)) => error,
                Err(_elapsed) => ClientError::Timeout {
                    what,
                    after: ATTEMPT.min(limit),
                    maybe_applied: true,
                    last: None,
                },
            };
            self.coordinators().learn(group, &error);
            if !error.is_retryable() {
                return Err(if maybe_applied {
                    error.or_applied_before()
                } else {
                    error
                });
            }
            maybe_applied |= !error.has_no_side_effects();
            if Instant::now() >= deadline {
                return Err(ClientError::Timeout {
                    what,
                    after: limit,
                    maybe_applied,
                    last: Some(Box::new(error)),
                });
            }
            sleep(rt::backoff(attempt)).await;
            attempt += 1;
        }
    }

    /// One attempt to store offsets.
    pub(super) async fn commit_once(
        &self,
        request: v1::CommitOffsetsRequest,
    ) -> Result<(), ClientError> {
        let group = request.group.clone();
        let attempt = async {
            let address = self.coordinator(&group, ATTEMPT).await?;
            let mut client = self.metadata().channels.groups(&address)?;
            let answer = client.commit_offsets(request).await;
            let answer = answer.map_err(|status| ClientError::from_status(&address, status))?;
            let error = answer.into_inner().error;
            error.map_or(Ok(()), |error| Err(ClientError::server(error)))
        };
        let late = |_elapsed| ClientError::Timeout {
            what: "commit offsets",
            after: ATTEMPT,
            maybe_applied: true,
            last: None,
        };
        let answer = timeout_at(Instant::now() + ATTEMPT, attempt).await;
        let answer = answer.map_err(late).flatten();
        if let Err(error) = &answer {
            self.coordinators().learn(&group, error);
        }
        answer
    }
}

/// Where the coordinator is. Older nodes name one whose address they have not heard of without an error.
fn address_of(found: v1::Coordinator) -> Result<String, ClientError> {
    if let Some(error) = found.error {
        return Err(ClientError::server(error));
    }
    if found.grpc_address.is_empty() {
        let text = format!(
            "a node has not heard yet where node {} is, which coordinates the group",
            found.node_id
        );
        let error = v1::Error::new(ErrorCode::LeaderNotAvailable, text);
        return Err(ClientError::server(error));
    }
    Ok(found.grpc_address)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn not_coordinator(hint: Option<&str>) -> ClientError {
        let mut error = v1::Error::new(ErrorCode::NotCoordinator, "elsewhere");
        error.leader = hint.map(|address| v1::LeaderHint {
            node_id: 2,
            grpc_address: address.to_owned(),
            leader_epoch: 1,
            ..v1::LeaderHint::default()
        });
        ClientError::server(error)
    }

    #[test]
    fn hints_are_followed_and_what_fails_is_forgotten() {
        let known = Coordinators::default();
        let at = |known: &Coordinators| known.get("g").map(|a| a.as_ref().to_owned());
        let _first = known.note("g", "a:1");
        known.learn("g", &not_coordinator(Some("b:2")));
        assert_eq!(at(&known), Some("b:2".to_owned()));
        let stale = v1::Error::new(ErrorCode::StaleGeneration, "not yours");
        known.learn("g", &ClientError::server(stale));
        assert_eq!(at(&known), Some("b:2".to_owned()), "it did coordinate");
        known.learn("g", &not_coordinator(None));
        assert_eq!(at(&known), None);
        for n in 0..5 * KNOWN_MAX {
            let _address = known.note(&n.to_string(), "a:1");
        }
        assert!(known.known.lock().len() <= KNOWN_MAX);
    }

    #[test]
    fn a_coordinator_without_an_address_is_looked_for_again() {
        let at = |grpc_address: &str| v1::Coordinator {
            node_id: 4,
            grpc_address: grpc_address.to_owned(),
            ..v1::Coordinator::default()
        };
        assert_eq!(address_of(at("n4:1")).unwrap(), "n4:1");
        assert!(address_of(at("")).unwrap_err().is_retryable());
    }
}
