//! One port of one simulated exchange: WebSocket, REST and the orders of whoever tests, told apart by the first bytes.

use super::answer;
use super::client::Client;
use super::exchange::Exchange;
use super::fault::{Fault, KINDS};
use super::tally::Tally;
use crate::feeds::stop::Stop;
use axum::Router;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};

/// Connections one simulated exchange holds at once.
const CONNECTIONS_MAX: usize = 256;

/// Longest head we look through for an upgrade.
const HEAD_MAX: usize = 4_096;

/// How long a client may take with its head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);

/// Pause between two looks at an incomplete head.
const HEAD_PAUSE: Duration = Duration::from_millis(5);

/// Pause after a failed accept: descriptors may be short.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Accepts connections until told to stop.
pub async fn run(listener: TcpListener, exchange: Arc<Exchange>, mut stop: Stop) {
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let router = router(Arc::clone(&exchange));
    loop {
        let accepted = tokio::select! {
            biased;
            () = stop.ordered() => return,
            accepted = listener.accept() => accepted,
        };
        let Ok((stream, _)) = accepted else {
            sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let Ok(place) = Arc::clone(&room).try_acquire_owned() else { continue };
        let (exchange, router, mut stop) = (Arc::clone(&exchange), router.clone(), stop.clone());
        tokio::spawn(async move {
            let _place = place;
            // What a client does wrong ends its connection and concerns nobody else.
            let _ = match wants_websocket(&stream).await {
                Ok(true) => websocket(stream, &exchange, stop).await,
                Ok(false) => tokio::select! {
                    () = stop.ordered() => Ok(()),
                    served = http(stream, router) => served,
                },
                Err(fault) => Err(fault),
            };
        });
    }
}

/// Whether the request at the head of `stream` asks for a WebSocket. Takes nothing from the stream.
async fn wants_websocket(stream: &TcpStream) -> io::Result<bool> {
    let mut head = vec![0; HEAD_MAX];
    let look = async {
        loop {
            let length = stream.peek(&mut head).await?;
            let complete = head[..length].windows(4).any(|bytes| bytes == b"\r\n\r\n");
            if complete || length == HEAD_MAX {
                let text = String::from_utf8_lossy(&head[..length]).to_ascii_lowercase();
                return Ok(text.lines().any(|line| line.replace(' ', "") == "upgrade:websocket"));
            }
            if length == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            sleep(HEAD_PAUSE).await;
        }
    };
    timeout(HEAD_TIMEOUT, look).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

async fn websocket(stream: TcpStream, exchange: &Exchange, stop: Stop) -> io::Result<()> {
    if exchange.conditions().borrow().down {
        return Ok(());
    }
    stream.set_nodelay(true)?;
    let socket = timeout(HEAD_TIMEOUT, tokio_tungstenite::accept_async(stream)).await?;
    let socket = socket.map_err(io::Error::other)?;
    let _presence = exchange.enter();
    Client::new(socket, exchange).serve(stop).await;
    Ok(())
}

async fn http(stream: TcpStream, router: Router) -> io::Result<()> {
    let mut server = http1::Builder::new();
    server.timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT);
    let service = TowerToHyperService::new(router);
    server.serve_connection(TokioIo::new(stream), service).await.map_err(io::Error::other)
}

fn router(exchange: Arc<Exchange>) -> Router {
    Router::new()
        .route("/simulator", get(show))
        .route("/simulator/fault", post(order))
        .route("/simulator/requests", get(requests).delete(forget))
        .fallback(answer::rest)
        .with_state(exchange)
}

/// What is wrong with the exchange now, and who listens.
async fn show(State(exchange): State<Arc<Exchange>>) -> Response {
    json(StatusCode::OK, shown(&exchange))
}

/// Makes something go wrong, or right again.
async fn order(State(exchange): State<Arc<Exchange>>, Query(pairs): Query<Vec<(String, String)>>) -> Response {
    match Fault::parse(&pairs) {
        Ok(fault) => {
            tracing::info!(venue = %exchange.venue, ?fault, "simulated exchange ordered");
            exchange.take(&fault);
            json(StatusCode::OK, shown(&exchange))
        }
        Err(error) => json(StatusCode::BAD_REQUEST, serde_json::json!({ "error": error, "kinds": KINDS })),
    }
}

fn shown(exchange: &Exchange) -> serde_json::Value {
    serde_json::json!({
        "venue": exchange.venue.name(),
        "simulated": true,
        "clients": exchange.clients(),
        "instruments": exchange.listed.len(),
        "price_permille": exchange.factor(),
        "conditions": **exchange.conditions().borrow(),
    })
}

/// What was asked over REST.
async fn requests(State(exchange): State<Arc<Exchange>>) -> Response {
    json(StatusCode::OK, serde_json::json!(exchange.tally().shown()))
}

/// Counts afresh.
async fn forget(State(exchange): State<Arc<Exchange>>) -> Response {
    *exchange.tally() = Tally::default();
    requests(State(exchange)).await
}

fn json(status: StatusCode, body: serde_json::Value) -> Response {
    (status, axum::Json(body)).into_response()
}
