//! Sockets of the control plane: those that shards hand over, and its own ports.
//!
//! Both speak through the same HTTP server; both are bounded, and whoever comes beyond the bound is told so in one
//! write and let go. What a request means is not known here.

use super::paced::Paced;
use super::prefixed::Prefixed;
use super::problem::Problem;
use axum::Router;
use axum::extract::Request;
use axum::http::{Version, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use crossbeam_channel::{Receiver, select};
use dataplane_core::render::usual_detail;
use dataplane_engine::HandedOver;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use shared::code::Code;
use std::io::{self, Write};
use std::net::{IpAddr, Shutdown, SocketAddr};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Handed-over requests answered at once. Each holds about 20 KiB: 10 MiB in all. They are few by nature: prices are
/// not among them, and a request that waits for a price waits in a shard.
const HANDED_OVER_MAX: usize = 512;

/// Connections of one of our own ports. Balancers, scrapers and operators come here, not clients.
const CONNECTIONS_MAX: usize = 256;

/// How long a request's head may take, and how long a connection of our own ports may stay idle.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// How long an answer may take to begin: the longest wait for a price, twice. A body may take as long as its reader
/// takes it, see [`STALL_MAX`].
const ANSWER_BEGINS_MAX: Duration = Duration::from_secs(60);

/// How long a reader may take nothing of what waits for it: four times the 5 s of a price's reader, because whoever
/// saves a download may have to wait for a disk, and long enough for a lost packet to be sent again.
const STALL_MAX: Duration = Duration::from_secs(20);

/// Longest head: what the shards read, plus room for a request line that hyper counts differently.
const HEAD_BYTES_MAX: usize = 16 * 1_024;

/// Header fields of one request: what the shards take.
const FIELDS_MAX: usize = 64;

/// Connections waiting to be accepted on our own ports.
const BACKLOG: i32 = 256;

/// Opens one of our own ports. An unspecified IPv6 address listens on both families.
///
/// # Errors
/// One line with the address, the reason and what to do.
pub fn bind(address: IpAddr, port: u16, setting: &str) -> Result<TcpListener, String> {
    let address = SocketAddr::new(address, port);
    open(address).map_err(|error| {
        format!(
            "cannot listen on TCP {address}: {error}; free the port, or set {setting} to another (0: any free port)"
        )
    })
}

fn open(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = socket2::Socket::new(socket2::Domain::for_address(address), socket2::Type::STREAM, None)?;
    if address.ip() == IpAddr::V6(std::net::Ipv6Addr::UNSPECIFIED) {
        socket.set_only_v6(false)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// Accepts on one of our own ports for as long as it is polled.
pub async fn accept(listener: TcpListener, router: Router) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let router = router.layer(middleware::from_fn(begun_in_time)).layer(middleware::from_fn(one_host));
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Mostly no descriptors left: trying again at once would only burn the CPU.
                tracing::warn!(%error, "a connection could not be accepted; raise the open files limit if this repeats");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        match Arc::clone(&places).try_acquire_owned() {
            Ok(place) => drop(tokio::spawn(serve(stream, router.clone(), Keep::Alive, place))),
            Err(_) => turn_away(stream.into_std()),
        }
    }
}

/// Refuses what a shard has refused before it hands a socket over: HTTP/1.1 without exactly one `Host`.
async fn one_host(request: Request, next: Next) -> Response {
    let hosts = request.headers().get_all(header::HOST).iter().count();
    if hosts == 1 || (hosts == 0 && request.version() < Version::HTTP_11) {
        return next.run(request).await;
    }
    let problem = Problem::saying(Code::RequestMalformed, "Send exactly one Host field. The connection is closed.");
    ([(header::CONNECTION, "close")], problem).into_response()
}

/// Tells whoever would wait for an answer without end.
async fn begun_in_time(request: Request, next: Next) -> Response {
    let answer = tokio::time::timeout(ANSWER_BEGINS_MAX, next.run(request)).await;
    answer.unwrap_or_else(|_| Problem::from(Code::Overloaded).into_response())
}

/// Whether a connection lives on after an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Keep {
    Alive,
    Closed,
}

/// Serves one connection; the place is free again when it ends. The head, the answer's begin and each stall of its
/// reader are bounded; how long an answer takes that is read all the while is not.
async fn serve<S>(stream: S, router: Router, keep: Keep, place: OwnedSemaphorePermit)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let mut server = http1::Builder::new();
    server
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(HEAD_BYTES_MAX)
        .max_headers(FIELDS_MAX)
        .keep_alive(keep == Keep::Alive);
    let stream = TokioIo::new(Paced::new(stream, STALL_MAX));
    if let Err(error) = server.serve_connection(stream, TowerToHyperService::new(router)).await {
        tracing::debug!(%error, "a connection ended early");
    }
    drop(place);
}

/// Starts the thread that takes the shards' sockets until `stop` is dropped.
///
/// # Errors
/// When the thread cannot be started.
pub fn take_hand_overs(
    sockets: Receiver<HandedOver>,
    stop: Receiver<()>,
    router: Router,
    runtime: Handle,
) -> io::Result<JoinHandle<()>> {
    std::thread::Builder::new().name("hand-overs".to_owned()).spawn(move || {
        let places = Arc::new(Semaphore::new(HANDED_OVER_MAX));
        let router = router.layer(middleware::from_fn(begun_in_time));
        loop {
            select! {
                recv(sockets) -> socket => match socket {
                    Ok(socket) => take(socket, &places, &router, &runtime),
                    Err(_) => return,
                },
                recv(stop) -> _ => return,
            }
        }
    })
}

fn take(socket: HandedOver, places: &Arc<Semaphore>, router: &Router, runtime: &Handle) {
    let HandedOver { stream, bytes, .. } = socket;
    let Ok(place) = Arc::clone(places).try_acquire_owned() else { return turn_away(Ok(stream)) };
    let _inside = runtime.enter();
    match stream.set_nonblocking(true).and_then(|()| TcpStream::from_std(stream)) {
        Ok(stream) => drop(runtime.spawn(serve(Prefixed::new(bytes, stream), router.clone(), Keep::Closed, place))),
        Err(error) => tracing::debug!(%error, "a handed-over socket was already gone"),
    }
}

/// Tells whoever is too many, in one write that does not wait.
fn turn_away(stream: io::Result<std::net::TcpStream>) {
    let code = Code::Overloaded;
    let body = format!(
        "{{\"type\":\"/docs#{0}\",\"title\":\"{1}\",\"status\":503,\"code\":\"{0}\",\"detail\":\"{2}\"}}",
        code.name(),
        code.title(),
        usual_detail(code)
    );
    let answer = format!(
        "HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/problem+json\r\nContent-Length: {}\r\n\
         Retry-After: 1\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
    let told = stream.and_then(|mut stream| {
        stream.set_nonblocking(true)?;
        stream.write_all(answer.as_bytes())?;
        stream.shutdown(Shutdown::Write)
    });
    tracing::debug!(told = told.is_ok(), "a connection too many was turned away");
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::routing::get;
    use std::io::Read;
    use std::net::TcpStream as Socket;
    use tokio::io::AsyncReadExt;

    /// A client's socket and the socket as a shard would hand it over, `bytes` read from it so far.
    fn handed_over(bytes: &str) -> (Socket, HandedOver) {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let client = Socket::connect(listener.local_addr().expect("an address")).expect("a connection");
        let stream = listener.accept().expect("the connection").0;
        (client, HandedOver { stream, bytes: bytes.as_bytes().to_vec() })
    }

    fn read_all(mut client: Socket) -> String {
        let mut text = String::new();
        client.read_to_string(&mut text).expect("an answer, then the end");
        text
    }

    /// Bytes of a long answer: many times what is on its way.
    const LONG_BYTES: usize = 256 << 10;

    fn router() -> Router {
        Router::new()
            .route("/here", get(|| async { "found" }))
            .route("/long", get(|| async { "x".repeat(LONG_BYTES) }))
            .route("/never", get(std::future::pending::<()>))
    }

    #[test]
    fn a_handed_over_socket_is_answered_once_and_closed() {
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        let (sockets, receiver) = crossbeam_channel::bounded(4);
        let (stop, stopped) = crossbeam_channel::bounded(1);
        let thread = take_hand_overs(receiver, stopped, router(), runtime.handle().clone()).expect("a thread");
        // Half of the head was read by the shard, half is still to come, and another request waits behind it.
        let (mut client, socket) = handed_over("GET /here HTTP/1.1\r\nHo");
        sockets.send(socket).expect("room");
        client.write_all(b"st: x\r\n\r\nGET /here HTTP/1.1\r\nHost: x\r\n\r\n").expect("sent");
        let text = read_all(client);
        assert!(text.starts_with("HTTP/1.1 200 OK\r\n") && text.ends_with("\r\n\r\nfound"), "{text}");
        assert_eq!(text.matches("HTTP/1.1 200 OK").count(), 1, "{text}");
        assert!(text.contains("connection: close"), "{text}");
        drop(stop);
        thread.join().expect("the thread ends when told");
    }

    #[test]
    fn whoever_is_too_many_is_told_so() {
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        let (client, socket) = handed_over("GET /here HTTP/1.1\r\nHost: x\r\n\r\n");
        take(socket, &Arc::new(Semaphore::new(0)), &router(), runtime.handle());
        let text = read_all(client);
        let (head, body) = text.split_once("\r\n\r\n").expect("a head and a body");
        assert!(head.starts_with("HTTP/1.1 503 ") && head.contains("Retry-After: 1"), "{head}");
        assert!(head.contains(&format!("Content-Length: {}", body.len())), "{head}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(body).expect("JSON")["code"], "overloaded");
    }

    /// Serves one connection that is closed behind its answer; the client's end.
    fn serve_one(request: &str, room: usize) -> tokio::io::DuplexStream {
        let (server, client) = tokio::io::duplex(room);
        let router = router().layer(middleware::from_fn(begun_in_time));
        let place = Arc::new(Semaphore::new(1)).try_acquire_owned().expect("a place");
        let server = Prefixed::new(request.as_bytes().to_vec(), server);
        tokio::spawn(serve(server, router, Keep::Closed, place));
        client
    }

    #[tokio::test(start_paused = true)]
    async fn a_long_answer_may_take_its_time_and_one_that_never_begins_may_not() {
        let mut client = serve_one("GET /long HTTP/1.1\r\nHost: x\r\n\r\n", 4 << 10);
        let (begun, mut total, mut space) = (tokio::time::Instant::now(), 0, vec![0; 4 << 10]);
        loop {
            tokio::time::sleep(STALL_MAX / 2).await;
            let length = client.read(&mut space).await.expect("more");
            total += length;
            if length == 0 {
                break;
            }
        }
        assert!(total > LONG_BYTES && begun.elapsed() > 2 * ANSWER_BEGINS_MAX, "{total} in {:?}", begun.elapsed());

        let mut client = serve_one("GET /never HTTP/1.1\r\nHost: x\r\n\r\n", 4 << 10);
        let mut text = String::new();
        client.read_to_string(&mut text).await.expect("an answer");
        assert!(text.starts_with("HTTP/1.1 503 ") && text.contains("\"overloaded\""), "{text}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_reader_that_stops_is_let_go() {
        let mut client = serve_one("GET /long HTTP/1.1\r\nHost: x\r\n\r\n", 4 << 10);
        client.read_exact(&mut [0; 100]).await.expect("its begin");
        tokio::time::sleep(STALL_MAX + Duration::from_secs(1)).await;
        let mut rest = Vec::new();
        client.read_to_end(&mut rest).await.expect("what was on its way");
        assert!(rest.len() < LONG_BYTES, "{}", rest.len());
    }

    #[tokio::test]
    async fn our_own_ports_take_one_host() {
        let listener = bind(IpAddr::from([127, 0, 0, 1]), 0, "X").expect("a port");
        let address = listener.local_addr().expect("an address");
        let accepting = tokio::spawn(accept(listener, router()));
        for (head, status) in [
            ("GET /here HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", "200 OK"),
            ("GET /here HTTP/1.0\r\n\r\n", "200 OK"),
            ("GET /here HTTP/1.1\r\n\r\n", "400 Bad Request"),
            ("GET /here HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n", "400 Bad Request"),
            ("GET /here HTTP/1.0\r\nHost: x\r\nHost: y\r\n\r\n", "400 Bad Request"),
        ] {
            let asked = tokio::task::spawn_blocking(move || {
                let mut client = Socket::connect(address).expect("a connection");
                client.write_all(head.as_bytes()).expect("sent");
                read_all(client)
            });
            let text = asked.await.expect("an answer");
            assert!(text.get(9..).is_some_and(|text| text.starts_with(status)), "{head:?}: {text}");
            assert_eq!(text.contains("request_malformed"), status.starts_with("400"), "{text}");
        }
        accepting.abort();
    }

    #[tokio::test]
    async fn a_taken_port_is_named_with_its_setting() {
        let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = taken.local_addr().expect("an address").port();
        let refused = bind(IpAddr::from([127, 0, 0, 1]), port, "HEALTH_PORT_LPO").expect_err("taken");
        assert!(refused.contains(&port.to_string()) && refused.contains("HEALTH_PORT_LPO"), "{refused}");
        assert!(bind(IpAddr::from([127, 0, 0, 1]), 0, "X").is_ok());
    }
}
