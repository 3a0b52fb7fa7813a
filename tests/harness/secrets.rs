//! A stand-in for AWS Secrets Manager: one secret behind the real protocol, over HTTP on a port of its own, which
//! answers as a test says.
//!
//! It looks at the question's form and at whose it says it is; signatures are AWS's to check.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

/// Longest wait for the rest of a question.
const QUESTION_MAX: Duration = Duration::from_secs(10);

/// What is answered.
#[derive(Clone, Debug)]
pub enum Held {
    /// This text.
    Text(String),
    /// An error of this name.
    Error(&'static str),
    /// Nothing: the connection is closed.
    Nothing,
    /// Something that is not Secrets Manager's.
    Nonsense(String),
}

struct Shared {
    held: Mutex<Held>,
    asked: AtomicU64,
    ended: AtomicBool,
}

/// The stand-in; ended when dropped.
pub struct SecretsManager {
    address: SocketAddr,
    name: String,
    shared: Arc<Shared>,
}

impl SecretsManager {
    /// Starts one whose only secret is called `name`.
    ///
    /// # Panics
    /// When no port is free.
    pub fn start(name: &str, held: Held) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
        let address = listener.local_addr().expect("its address");
        let shared =
            Arc::new(Shared { held: Mutex::new(held), asked: AtomicU64::new(0), ended: AtomicBool::new(false) });
        let (served, wanted) = (Arc::clone(&shared), name.to_owned());
        thread::spawn(move || {
            for stream in listener.incoming() {
                if served.ended.load(Ordering::Relaxed) {
                    return;
                }
                // One after the other: who asks, asks seldom, and a connection lasts one question.
                let _ = stream.and_then(|stream| serve(&stream, &served, &wanted));
            }
        });
        Self { address, name: name.to_owned(), shared }
    }

    /// Answers otherwise from now on.
    pub fn holds(&self, held: Held) {
        *self.shared.held.lock().unwrap_or_else(PoisonError::into_inner) = held;
    }

    /// Questions so far.
    pub fn asked(&self) -> u64 {
        self.shared.asked.load(Ordering::Relaxed)
    }

    /// Variables that lead a program here, as whom `access_key`, `secret_key` and `session_token` say.
    pub fn variables(&self, access_key: &str, secret_key: &str, session_token: &str) -> Vec<(&'static str, String)> {
        vec![
            ("DB_SECRET_NAME", self.name.clone()),
            ("AWS_REGION", "eu-north-1".to_owned()),
            ("AWS_ENDPOINT_URL_SECRETS_MANAGER", format!("http://{}", self.address)),
            ("AWS_ACCESS_KEY_ID", access_key.to_owned()),
            ("AWS_SECRET_ACCESS_KEY", secret_key.to_owned()),
            ("AWS_SESSION_TOKEN", session_token.to_owned()),
            // Whatever the machine has in its user's files stays out of it.
            ("AWS_CONFIG_FILE", "/dev/null".to_owned()),
            ("AWS_SHARED_CREDENTIALS_FILE", "/dev/null".to_owned()),
            ("AWS_EC2_METADATA_DISABLED", "true".to_owned()),
        ]
    }
}

impl Drop for SecretsManager {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::Relaxed);
        // Wakes it, so that it sees the end.
        let _ = TcpStream::connect(self.address);
    }
}

/// Reads one question and answers it.
fn serve(mut stream: &TcpStream, shared: &Shared, name: &str) -> std::io::Result<()> {
    stream.set_read_timeout(Some(QUESTION_MAX))?;
    let mut reader = BufReader::new(stream);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if reader.read_line(&mut head)? == 0 {
            return Ok(());
        }
    }
    let head = head.to_lowercase();
    let header = |name: &str| head.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default().trim();
    let mut body = vec![0; header("content-length:").parse().unwrap_or(0)];
    reader.read_exact(&mut body)?;
    shared.asked.fetch_add(1, Ordering::Relaxed);
    let question: serde_json::Value = serde_json::from_slice(&body).unwrap_or_default();
    let is_well_formed = header("x-amz-target:") == "secretsmanager.getsecretvalue"
        && header("authorization:").starts_with("aws4-hmac-sha256 credential=")
        && header("authorization:").contains("/eu-north-1/secretsmanager/");
    let held = shared.held.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let (status, answer) = match held {
        Held::Nothing => return Ok(()),
        Held::Nonsense(text) => ("200 OK", text),
        _ if !is_well_formed => error("InvalidRequestException"),
        _ if question["SecretId"] != name => error("ResourceNotFoundException"),
        Held::Error(name) => error(name),
        Held::Text(text) => {
            let members = serde_json::json!({ "ARN": "arn:x", "Name": name, "VersionId": "1", "SecretString": text });
            ("200 OK", members.to_string())
        }
    };
    let length = answer.len();
    let form = "Content-Type: application/x-amz-json-1.1\r\nConnection: close";
    write!(stream, "HTTP/1.1 {status}\r\n{form}\r\nContent-Length: {length}\r\n\r\n{answer}")
}

fn error(name: &str) -> (&'static str, String) {
    ("400 Bad Request", serde_json::json!({ "__type": name, "message": "as the stand-in was told" }).to_string())
}
