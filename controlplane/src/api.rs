//! What the control plane answers over HTTP: everything that is not a price read.
//!
//! The same router serves sockets that shards hand over and the control plane's own port; the health ports have a
//! smaller one. Routes read what others publish: nothing here changes the data plane.

mod account;
mod admin;
mod assets;
pub mod caller;
mod detail;
mod docs;
mod health;
mod limits;
pub mod listen;
mod metrics;
mod paced;
mod plane;
mod prefixed;
mod problem;
pub mod reports;

pub use self::plane::{FeedView, Plane, RunningPlane};

use self::caller::AdminGate;
use self::problem::Problem;
use crate::cache::Cache;
use crate::cluster::Cluster;
use crate::governor::Governor;
use crate::keys::desk::KeyDesk;
use crate::limits::Limits;
use crate::lookup::Lookups;
use crate::params::desk::ParameterDesk;
use crate::prices::PriceBoard;
use crate::reports::desk::ReportDesk;
use crate::store::Store;
use crate::usage::UsageLedger;
use crate::usage::mirror::Mirror;
use crate::usage::pipeline::PipelineStatus;
use crate::warm::Warm;
use axum::Extension;
use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, Method, StatusCode, Uri, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use shared::asset::AssetDirectory;
use shared::code::Code;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::watch;

/// What a node says of itself.
#[derive(Clone, Debug, serde::Serialize)]
pub struct NodeFacts {
    /// `CLUSTER_NODE`.
    pub node: String,
    /// `SERVER_TYPE`.
    pub role: &'static str,
    /// `NODE_ENV`.
    pub environment: String,
    /// `AWS_REGION`.
    pub region: String,
    /// The program's version.
    pub version: &'static str,
    /// Whether prices are simulated.
    pub simulated: bool,
    /// When the process started, Unix ms.
    pub started_time_ms: u64,
}

/// What the routes read.
pub struct ApiState {
    /// What the node says of itself.
    pub facts: NodeFacts,
    /// The data plane.
    pub plane: Box<dyn Plane>,
    /// The venue sessions.
    pub feeds: Box<dyn FeedView>,
    /// Every asset, as of now.
    pub assets: watch::Receiver<Arc<AssetDirectory>>,
    /// Every key.
    pub keys: Arc<KeyDesk>,
    /// Every price.
    pub prices: Arc<PriceBoard>,
    /// Who looks up what there is no fresh price of.
    pub lookups: Arc<dyn Lookups>,
    /// What keeps prices ready, here and for the other nodes.
    pub warm: Warm,
    /// What every key has asked.
    pub usage: Arc<UsageLedger>,
    /// The journal of it and its way to the database; `None` with `TB_USAGE=off`.
    pub journal: Option<Arc<PipelineStatus>>,
    /// What copies usage to the cache, where that is wanted.
    pub mirror: Option<Arc<Mirror>>,
    /// The administrator's gate.
    pub admin: AdminGate,
    /// The database.
    pub store: Arc<dyn Store>,
    /// The cache that nodes share.
    pub cache: Arc<dyn Cache>,
    /// This node's place among the others.
    pub cluster: Arc<Cluster>,
    /// The parameters.
    pub params: Arc<ParameterDesk>,
    /// The governor of active connections.
    pub governor: Governor,
    /// Limits beyond one node and one second.
    pub limits: Arc<Limits>,
    /// Where reports are made; `None` in the role `LPO`, which has none.
    pub reports: Option<Arc<ReportDesk>>,
    /// Whether the process is going away.
    pub draining: Arc<AtomicBool>,
}

/// The state as handlers get it.
pub type Shared = State<Arc<ApiState>>;

impl ApiState {
    /// Whether the process is going away.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }
}

/// Routes of the price port (on sockets that shards hand over) and of the control plane's own port.
pub fn public_router(state: Arc<ApiState>) -> Router {
    let routes = Router::new()
        .route("/price", get(detail::price))
        .route("/assets", get(assets::list).layer(Extension(assets::MadeList::default())))
        .route("/docs", get(docs::page))
        .route("/limits", get(limits::own))
        .route("/health", get(health::readyz))
        .route("/readyz", get(health::readyz))
        .route("/livez", get(health::livez))
        .merge(reports::routes())
        .merge(admin::routes());
    finish(routes, state)
}

/// Routes of the health ports.
pub fn health_router(state: Arc<ApiState>) -> Router {
    let routes = Router::new()
        .route("/health", get(health::readyz))
        .route("/readyz", get(health::readyz))
        .route("/livez", get(health::livez))
        .route("/metrics", get(metrics::metrics));
    finish(routes, state)
}

fn finish(routes: Router<Arc<ApiState>>, state: Arc<ApiState>) -> Router {
    routes
        .method_not_allowed_fallback(other_method)
        .fallback(nowhere)
        .layer(middleware::from_fn_with_state(Arc::clone(&state), every_answer))
        .with_state(state)
}

/// The path exists, the method on it does not.
async fn other_method(method: Method, target: Uri) -> Response {
    let answer = match method {
        Method::OPTIONS => StatusCode::NO_CONTENT.into_response(),
        _ => Problem::from(Code::MethodNotAllowed).into_response(),
    };
    ([(header::ALLOW, docs::methods(target.path()))], answer).into_response()
}

async fn nowhere(method: Method, target: Uri) -> Response {
    // `OPTIONS *` asks about the server, which is there.
    if method == Method::OPTIONS && target.path() == "*" {
        return other_method(method, target).await;
    }
    Problem::from(Code::NotFound).into_response()
}

/// What holds for every answer: none may be kept by a cache, and a node that is going away says so.
async fn every_answer(State(state): Shared, request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    if state.is_draining() {
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

#[cfg(test)]
mod tests;
