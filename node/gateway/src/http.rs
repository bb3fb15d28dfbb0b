//! The HTTP listener: `/metrics`, `/healthz`, `/readyz`.

use std::sync::Arc;

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header::CONTENT_TYPE},
    response::IntoResponse,
    routing::get,
};
use metrics_exporter_prometheus::PrometheusHandle;
use seriatim_broker::Broker;
use seriatim_runtime::task::TaskGroup;
use tokio::{net::TcpListener, sync::watch};

const PROMETHEUS_TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What the endpoints show.
#[derive(Clone)]
pub struct HttpState {
    /// Renders the metrics.
    pub prometheus: PrometheusHandle,
    /// Sets the gauges that are only looked at then.
    pub refresh_gauges: Arc<dyn Fn() + Send + Sync>,
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
        .route("/", get(index))
        .route("/metrics", get(metrics))
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .with_state(Arc::new(state));
    axum::serve(listener, router)
        .with_graceful_shutdown(async move { tasks.cancelled().await })
        .await
}

async fn metrics(State(state): State<Arc<HttpState>>) -> impl IntoResponse {
    (state.refresh_gauges)();
    state.prometheus.run_upkeep();
    ([(CONTENT_TYPE, PROMETHEUS_TEXT)], state.prometheus.render())
}

/// Whether everything on this node works; what does not is named, one line each.
async fn healthz(State(state): State<Arc<HttpState>>) -> (StatusCode, String) {
    let failures = state.broker.failures();
    if failures.is_empty() {
        return (StatusCode::OK, "ok\n".to_owned());
    }
    let lines = failures.join("\n");
    (StatusCode::SERVICE_UNAVAILABLE, format!("{lines}\n"))
}

async fn index() -> &'static str {
    "/metrics  figures for Prometheus\n\
     /healthz  200 if everything on this node works, 503 and what does not\n\
     /readyz   200 once this node is part of its cluster, 503 before\n"
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
