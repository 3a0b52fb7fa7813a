//! A raw HTTP/1.1 client: sends exactly the bytes it is given, so that malformed requests can be made too.

use serde_json::Value;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// One answer.
#[derive(Clone, Debug)]
pub struct Reply {
    /// The status code.
    pub status: u16,
    /// Names in lower case, in order.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
}

impl Reply {
    /// The value of the first header called `name` (lower case).
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(header, _)| header == name).map(|(_, value)| value.as_str())
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    ///
    /// # Panics
    /// When it is not.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error} in {}", self.text()))
    }

    /// The `code` of a problem document.
    ///
    /// # Panics
    /// When it is not one, or its status is not the answer's.
    pub fn code(&self) -> String {
        assert_eq!(self.header("content-type"), Some("application/problem+json"), "{self:?}");
        let problem = self.json();
        assert_eq!(problem["status"], self.status, "{problem}");
        problem["code"].as_str().expect("a code").to_owned()
    }
}

/// A connection that keeps what it read beyond one answer.
pub struct Connection {
    stream: TcpStream,
    unread: Vec<u8>,
}

impl Connection {
    /// Connects.
    pub fn open(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).expect("a connection");
        stream.set_nodelay(true).expect("nodelay");
        Self::of(stream)
    }

    /// A connection that was made before.
    pub fn of(stream: TcpStream) -> Self {
        stream.set_read_timeout(Some(crate::PATIENCE)).expect("a read time-out");
        Self { stream, unread: Vec::new() }
    }

    /// Connects with room for little that is not read yet, so that whoever sends soon has to wait.
    pub fn open_narrow(address: SocketAddr) -> Self {
        let socket = socket2::Socket::new(socket2::Domain::for_address(address), socket2::Type::STREAM, None);
        let socket = socket.expect("a socket");
        socket.set_recv_buffer_size(8 << 10).expect("a small buffer");
        socket.connect(&address.into()).expect("a connection");
        let stream = TcpStream::from(socket);
        stream.set_read_timeout(Some(crate::PATIENCE)).expect("a read time-out");
        Self { stream, unread: Vec::new() }
    }

    /// The socket.
    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// Sends bytes as they are.
    pub fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("the server takes our bytes");
    }

    /// Reads one answer; `None` when the server closed before one began. An answer to `HEAD` has no body.
    pub fn read(&mut self, head_only: bool) -> Option<Reply> {
        let head_end = loop {
            if let Some(at) = self.unread.windows(4).position(|window| window == b"\r\n\r\n") {
                break at + 4;
            }
            if self.fill() == 0 {
                assert!(self.unread.is_empty(), "closed inside a head: {}", String::from_utf8_lossy(&self.unread));
                return None;
            }
        };
        let head = String::from_utf8(self.unread.drain(..head_end).collect()).expect("a head in ASCII");
        let mut lines = head.trim_end().split("\r\n");
        let status_line = lines.next().expect("a status line");
        let status = status_line.split(' ').nth(1).and_then(|text| text.parse().ok()).expect("a status");
        let headers: Vec<(String, String)> = lines
            .map(|line| line.split_once(": ").unwrap_or_else(|| panic!("no header line: {line}")))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
            .collect();
        let mut reply = Reply { status, headers, body: Vec::new() };
        if !head_only && status != 304 && status != 204 {
            reply.body = self.read_body(&reply);
        }
        Some(reply)
    }

    fn read_body(&mut self, reply: &Reply) -> Vec<u8> {
        let length: usize = match reply.header("content-length") {
            Some(text) => text.parse().expect("a length"),
            None => panic!("an answer without a length: {reply:?}"),
        };
        while self.unread.len() < length {
            assert!(self.fill() > 0, "closed inside a body");
        }
        self.unread.drain(..length).collect()
    }

    /// Reads the answer's body part by part, as it is sent where its length was not told before; whether it came to its
    /// end.
    pub fn read_streamed(&mut self) -> Streamed {
        let mut reply = self.read(true).expect("an answer");
        if reply.header("transfer-encoding") != Some("chunked") {
            reply.body = self.read_body(&reply);
            return Streamed { reply, is_whole: true };
        }
        while let Some(length) = self.line() {
            let length = usize::from_str_radix(&length, 16).expect("a chunk's length");
            while self.unread.len() < length + 2 {
                if self.fill() == 0 {
                    return Streamed { reply, is_whole: false };
                }
            }
            reply.body.extend(self.unread.drain(..length));
            self.unread.drain(..2);
            if length == 0 {
                return Streamed { reply, is_whole: true };
            }
        }
        Streamed { reply, is_whole: false }
    }

    /// The next line, without its end; `None` when the server closed before it.
    fn line(&mut self) -> Option<String> {
        loop {
            if let Some(at) = self.unread.windows(2).position(|window| window == b"\r\n") {
                let line = self.unread.drain(..at + 2).take(at).collect();
                return Some(String::from_utf8(line).expect("a line in ASCII"));
            }
            if self.fill() == 0 {
                return None;
            }
        }
    }

    /// Reads until the server closes; what came.
    pub fn read_to_end(&mut self) -> Vec<u8> {
        while self.fill() > 0 {}
        std::mem::take(&mut self.unread)
    }

    /// Whether the server has closed (or reset) the connection; waits for it.
    pub fn is_closed(&mut self) -> bool {
        self.fill() == 0
    }

    fn fill(&mut self) -> usize {
        let mut chunk = [0; 16 * 1_024];
        loop {
            match self.stream.read(&mut chunk) {
                Ok(length) => {
                    self.unread.extend_from_slice(&chunk[..length]);
                    return length;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return 0,
                Err(error) => panic!("reading an answer: {error}"),
            }
        }
    }
}

/// An answer whose body came in chunks.
pub struct Streamed {
    /// The answer, with as much of its body as came.
    pub reply: Reply,
    /// Whether the body's end came too.
    pub is_whole: bool,
}

/// One GET on a connection of its own, whose answer may be long.
pub fn download(address: SocketAddr, path: &str, headers: &[(&str, &str)]) -> Streamed {
    let mut connection = Connection::open(address);
    connection.send(head("GET", address, path, headers).as_bytes());
    connection.read_streamed()
}

/// The head of a request, but for what a body would add.
fn fields(method: &str, address: SocketAddr, path: &str, headers: &[(&str, &str)]) -> String {
    let mut head = format!("{method} {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n");
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head
}

/// The whole head of a request without a body.
pub fn head(method: &str, address: SocketAddr, path: &str, headers: &[(&str, &str)]) -> String {
    fields(method, address, path, headers) + "\r\n"
}

/// One GET on a connection of its own.
pub fn get(address: SocketAddr, path: &str, headers: &[(&str, &str)]) -> Reply {
    request(address, "GET", path, headers)
}

/// One request without a body on a connection of its own.
pub fn request(address: SocketAddr, method: &str, path: &str, headers: &[(&str, &str)]) -> Reply {
    request_with(address, method, path, headers, None)
}

/// One request on a connection of its own; a body is sent as JSON.
pub fn request_with(
    address: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: Option<&str>,
) -> Reply {
    let mut head = fields(method, address, path, headers);
    if let Some(body) = body {
        head.push_str(&format!("Content-Type: application/json\r\nContent-Length: {}\r\n", body.len()));
    }
    head.push_str("\r\n");
    head.push_str(body.unwrap_or_default());
    let mut connection = Connection::open(address);
    connection.send(head.as_bytes());
    connection.read(method == "HEAD").expect("an answer")
}

/// Sends `bytes` on a connection of its own and gives everything that came until the server closed, at most for
/// [`crate::PATIENCE`].
pub fn exchange(address: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let mut connection = Connection::open(address);
    connection.send(bytes);
    connection.read_to_end()
}

/// A read time-out short enough to say "nothing comes", for tests of silence.
pub const SILENCE: Duration = Duration::from_millis(300);
