//! Usage through the queue, by the real programs and AWS's own SDK, over moto's SQS: what nodes were asked comes into the
//! database once, whatever happens to messages and to who writes them. Built with the feature `aws` alone.

use harness::eventually;
use harness::history::database::Database;
use harness::http;
use harness::moto::Moto;
use harness::service::{Service, binary};
use std::process::{Child, Command, Output, Stdio};

/// A writer, to be started and told to stop.
struct Writer {
    moto: Moto,
    queue: String,
    database: Database,
}

impl Writer {
    /// A queue whose messages come again after so many seconds, and a new database.
    fn new(visible_again_s: u32) -> Self {
        let moto = Moto::start();
        let queue = moto.queue("usage", visible_again_s);
        Self { moto, queue, database: Database::new_postgres() }
    }

    fn variables(&self) -> Vec<(&'static str, String)> {
        let own = [("SQS_USAGE_LOG_QUEUE_URL", self.queue.clone()), ("DATABASE_URL", self.database.url())];
        self.moto.variables().into_iter().chain(own).collect()
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(binary());
        command.arg("usage-writer").args(words).envs(self.variables()).env("LOG_FORMAT", "text");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn once(&self) -> (Output, String) {
        let output = self.command(&["--once"]).output().expect("trinity-beast runs");
        let said = [&output.stdout[..], &output.stderr[..]].concat();
        let said = String::from_utf8_lossy(&said).into_owned();
        assert!(!said.contains("canary"), "a secret came out:\n{said}");
        (output, said)
    }

    /// A node that sends to the queue.
    fn node(&self) -> Service {
        let variables = self.variables();
        let mut variables: Vec<(&str, &str)> = variables.iter().map(|(name, value)| (*name, value.as_str())).collect();
        variables.push(("CLUSTER_NODE", "n1"));
        Service::demo_with("epoll", &variables)
    }

    /// Requests for prices of this asset that the database knows of.
    fn counted(&self, asset: &str) -> u64 {
        let sum = "SELECT coalesce(sum(requests), 0) FROM usage_logs WHERE endpoint = '/price' AND asset = ";
        self.database.number(&format!("{sum}'{asset}'"))
    }
}

fn ask(node: &Service, asset: &str, times: usize) {
    for _ in 0..times {
        let status = node.get(&format!("/price?asset={asset}")).status;
        assert!(status == 200 || status == 503, "{status}");
    }
}

fn signal(child: &Child, name: &str) {
    let status = Command::new("kill").args([&format!("-{name}"), &child.id().to_string()]).status();
    assert!(status.expect("kill runs").success());
}

#[test]
fn what_was_asked_comes_through_the_queue_once() {
    let writer = Writer::new(2);
    let mut node = writer.node();
    ask(&node, "ETH", 40);
    let waiting = || writer.moto.counts(&writer.queue).0;
    eventually("messages", || (waiting() > 0).then_some(()));
    assert_eq!(writer.counted("ETH"), 0, "nothing goes past the queue");
    // A writer that is killed at any time leaves what it has not deleted.
    let mut killed = writer.command(&[]).spawn().expect("trinity-beast runs");
    eventually("it has taken messages", || (waiting() == 0).then_some(()));
    signal(&killed, "KILL");
    killed.wait().expect("its end");
    ask(&node, "ETH", 2);
    // The node sends its last records before it ends.
    node.signal("TERM");
    assert!(node.wait().success());
    eventually("every request", || {
        let (output, said) = writer.once();
        assert_eq!(output.status.code(), Some(0), "{said}");
        assert!(String::from_utf8_lossy(&output.stdout).starts_with("usage-writer: "), "{said}");
        (writer.counted("ETH") >= 42).then_some(())
    });
    eventually("an empty queue", || {
        writer.once();
        (writer.moto.counts(&writer.queue) == (0, 0)).then_some(())
    });
    assert_eq!(writer.counted("ETH"), 42);
    writer.database.judge_rollups();
}

#[test]
fn what_is_not_ours_is_left_alone_and_a_writer_ends_when_it_is_told() {
    let writer = Writer::new(60);
    let row = r#"[0,1,1793500000000,1793500000000,5,"BTC",7,0,200,0,0,0,0]"#;
    let good = |first: u64| format!(r#"{{"v":1,"node":"n1","segment":9,"first":{first},"rows":[{row}]}}"#);
    let strangers = ["hello".to_owned(), good(1).replace("\"v\":1", "\"v\":2"), good(2).replace("[0,1,", "[0,-1,")];
    let ids: Vec<String> = strangers.iter().map(|body| writer.moto.put(&writer.queue, body)).collect();
    // The same twice, as SQS may do.
    for first in [10, 11, 10] {
        writer.moto.put(&writer.queue, &good(first));
    }
    let (output, said) = writer.once();
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert!(ids.iter().all(|id| said.matches(id.as_str()).count() == 1), "{said}");
    assert!(said.contains("6 messages received, 3 written and deleted, 3 left alone; 2 rows new"), "{said}");
    assert_eq!((writer.counted("BTC"), writer.moto.counts(&writer.queue)), (10, (0, 3)));
    // One that runs on: its health, and its end.
    let mut child = writer.command(&["--health-port", "0"]).spawn().expect("trinity-beast runs");
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(child.stderr.take().expect("its stderr")));
    let address = loop {
        let line = lines.next().expect("it says where").expect("a line");
        if let Some((_, address)) = line.split_once("health=") {
            break address.trim().parse().expect("an address");
        }
    };
    std::thread::spawn(move || lines.for_each(drop));
    writer.moto.put(&writer.queue, &good(12));
    eventually("it is written", || (writer.counted("BTC") == 15).then_some(()));
    assert_eq!(http::get(address, "/readyz", &[]).status, 200);
    let metrics = eventually("it is deleted", || {
        let metrics = http::get(address, "/metrics", &[]).text();
        metrics.contains("tb_usage_writer_messages_written_total 1\n").then_some(metrics)
    });
    assert!(metrics.contains("tb_usage_writer_rows_new_total 1\n"), "{metrics}");
    signal(&child, "TERM");
    assert!(child.wait().expect("its end").success());
}

#[test]
fn what_is_amiss_is_said_in_a_line() {
    let writer = Writer::new(60);
    for (variable, value, expected) in [
        ("SQS_USAGE_LOG_QUEUE_URL", "", "SQS_USAGE_LOG_QUEUE_URL is not set"),
        ("SQS_USAGE_LOG_QUEUE_URL", "http://127.0.0.1:1/1/usage", "the queue cannot be reached"),
        ("SQS_USAGE_LOG_QUEUE_URL", &format!("{}-not", writer.queue), "there is no such queue"),
    ] {
        let output = writer.command(&["--once"]).env(variable, value).output().expect("trinity-beast runs");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{said}");
        let last = said.lines().last().unwrap_or_default();
        assert!(last.starts_with("trinity-beast: ") && last.contains(expected), "{said}");
    }
}
