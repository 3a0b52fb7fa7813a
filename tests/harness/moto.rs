//! A stand-in for SQS: moto's server, from PyPI, on a free port with queues in memory, ended when dropped.
//!
//! Found as `moto_server` on the path, or where `TB_MOTO_SERVER` says.

use crate::http::{Connection, Reply};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

/// Whose the questions are: moto checks no signature, but reads the service from it.
const WHO: &str =
    "AWS4-HMAC-SHA256 Credential=test/20260101/us-east-1/sqs/aws4_request, SignedHeaders=host, Signature=x";

/// A running server.
pub struct Moto {
    child: Child,
    address: SocketAddr,
}

impl Moto {
    /// Starts one.
    ///
    /// # Panics
    /// When it does not say where it listens: pip install 'moto[server]'.
    pub fn start() -> Self {
        let program = std::env::var("TB_MOTO_SERVER").unwrap_or_else(|_| "moto_server".to_owned());
        let mut command = Command::new(&program);
        command.args(["-H", "127.0.0.1", "-p", "0"]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|why| panic!("{program}: {why}; pip install 'moto[server]'"));
        let mut lines = BufReader::new(child.stderr.take().expect("its stderr")).lines();
        let address = loop {
            let line = lines.next().expect("moto_server says where it listens").expect("a line");
            if let Some((_, address)) = line.split_once("Running on http://") {
                break address.trim().parse().expect("an address");
            }
        };
        // What it says further is taken from it, so that it does not wait for a reader.
        std::thread::spawn(move || lines.for_each(drop));
        Self { child, address }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Makes a queue whose messages come again after `visible_again_s`; its address.
    pub fn queue(&self, name: &str, visible_again_s: u32) -> String {
        let attributes = json!({ "VisibilityTimeout": visible_again_s.to_string() });
        let made = self.ask("CreateQueue", &json!({ "QueueName": name, "Attributes": attributes }));
        made["QueueUrl"].as_str().expect("an address").to_owned()
    }

    /// Puts a message in, whatever it says; its number.
    pub fn put(&self, queue: &str, body: &str) -> String {
        let sent = self.ask("SendMessage", &json!({ "QueueUrl": queue, "MessageBody": body }));
        sent["MessageId"].as_str().expect("a number").to_owned()
    }

    /// Messages that wait, and those received and not deleted.
    pub fn counts(&self, queue: &str) -> (u64, u64) {
        let told = self.ask("GetQueueAttributes", &json!({ "QueueUrl": queue, "AttributeNames": ["All"] }));
        let number =
            |name: &str| told["Attributes"][name].as_str().and_then(|text| text.parse().ok()).expect("a number");
        (number("ApproximateNumberOfMessages"), number("ApproximateNumberOfMessagesNotVisible"))
    }

    /// What a program needs to ask it.
    pub fn variables(&self) -> [(&'static str, String); 4] {
        [
            ("AWS_ACCESS_KEY_ID", "test".to_owned()),
            ("AWS_SECRET_ACCESS_KEY", "canary-secret".to_owned()),
            ("AWS_REGION", "us-east-1".to_owned()),
            ("AWS_EC2_METADATA_DISABLED", "true".to_owned()),
        ]
    }

    fn ask(&self, action: &str, body: &Value) -> Value {
        let (body, host) = (body.to_string(), self.address);
        let head = format!(
            "POST / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nAuthorization: {WHO}\r\n\
             Content-Type: application/x-amz-json-1.0\r\nX-Amz-Target: AmazonSQS.{action}\r\n\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let mut connection = Connection::open(self.address);
        connection.send(head.as_bytes());
        let reply: Reply = connection.read(false).expect("an answer");
        assert_eq!(reply.status, 200, "{action}: {}", reply.text());
        reply.json()
    }
}

impl Drop for Moto {
    fn drop(&mut self) {
        // Our own child, by its id; already ended is fine.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
