//! The HTTP listener: `/metrics`, `/healthz`, `/readyz`.

use std::sync::Arc;

use axum::{Router, extract::State, http::StatusCode, routing::get};
use metrics_exporter_prometheus::PrometheusHandle;
use seriatim_broker::Broker;
use seriatim_runtime::task::TaskGroup;
use tokio::{net::TcpListener, sync::watch};

/// What the endpoints show.
#[derive(Clone)]
pub struct HttpState {
    /// Renders the metrics.
    pub prometheus: PrometheusHandle,
    /// The node's broker.
    pub broker: Broker,
    /// Whether the node is part of its cluster.
    pub ready: watch::Receiver<bool>,
}

impl std::fmt::Debug for HttpState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HttpState").finish_non_exhaustive()
    }
}

/// Serves until `tasks` are cancelled.
pub async fn serve(
    listener: TcpListener,
    state: HttpState,
    tasks: TaskGroup,
) -> std::io::Result<()> {
    let router = Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .with_state(Arc::new(state));
    axum::serve(listener, router)
        .with_graceful_shutdown(async move { tasks.cancelled().await })
        .await
}

#[expect(clippy::cast_precision_loss, reason = "gauges")]
async fn metrics(State(state): State<Arc<HttpState>>) -> String {
    let stats = state.broker.storage().stats();
    metrics::gauge!("seriatim_cache_bytes").set(stats.cached_bytes as f64);
    metrics::gauge!("seriatim_pending_bytes").set(stats.pending_bytes as f64);
    metrics::gauge!("seriatim_disk_full").set(if stats.disk_full { 1.0 } else { 0.0 });
    metrics::gauge!("seriatim_failed_logs").set(stats.poisoned.len() as f64);
    state.prometheus.run_upkeep();
    state.prometheus.render()
}

async fn readyz(State(state): State<Arc<HttpState>>) -> (StatusCode, &'static str) {
    if *state.ready.borrow() {
        (StatusCode::OK, "ready\n")
    } else {
        (
            StatusCode::SERVICE_UNAVAILABLE,
            "not yet part of a cluster\n",
        )
    }
}
