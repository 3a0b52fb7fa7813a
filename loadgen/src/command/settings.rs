//! The command line's text as values that can be used; everything that cannot be is told at once.

use super::fault::Faults;
use super::levels;
use super::options::Options;
use super::ready_file::ReadyFile;
use super::target::{self, Driven, Place};
use loadgen::job::{Credentials, DatagramFormat, Pace};
use loadgen::plan::Level;
use loadgen::report::condition::{self, Condition};
use loadgen::report::run::Protocol;
use shared::asset::Symbol;
use std::ops::RangeInclusive;
use std::path::Path;
use std::time::Duration;
use tuning::cpus::AllowedCpus;

/// Servers driven at once: each has a row in every table.
const TARGETS_MAX: usize = 64;
/// Highest number of a CPU: what a Linux kernel can be built for.
const CPU_MAX: usize = 8_191;
/// Threads, and CPUs to pin them to.
const THREADS_MAX: usize = 64;

/// A run, as it was asked for. `Debug` is left out: secrets stand in here.
pub struct Settings {
    /// What is driven.
    pub driven: Driven,
    /// Where; at least one.
    pub places: Vec<Place>,
    /// Who asks.
    pub credentials: Credentials,
    /// What a datagram says.
    pub format: DatagramFormat,
    /// What is asked for; empty: what the first target lists.
    pub assets: Vec<Symbol>,
    /// In order; at least one.
    pub levels: Vec<Level>,
    /// When the next request is sent.
    pub pace: Pace,
    /// In flight on a TCP connection.
    pub pipeline: usize,
    /// Datagrams of a train.
    pub train: usize,
    /// Counted of each level.
    pub duration: Duration,
    /// Before that.
    pub warm_up: Duration,
    /// `None`: by the machine.
    pub threads: Option<usize>,
    /// Empty: none pinned.
    pub cpus: Vec<usize>,
    /// When an answer is late.
    pub late_after: Duration,
    /// When it is lost.
    pub lost_after: Duration,
    /// When a price is too old.
    pub age_max: Duration,
    /// What must be reached.
    pub conditions: Vec<Condition>,
    /// The servers' processes; empty: look for them.
    pub pids: Vec<u32>,
    /// Only what went wrong.
    pub quiet: bool,
}

/// Reads the options.
///
/// # Errors
/// With all [`Faults`] at once.
pub fn read(options: &Options) -> anyhow::Result<Settings> {
    let mut reader = Reader { options, ready: None, is_ready_unread: false, faults: Faults::default() };
    reader.ready();
    let settings = reader.settings();
    reader.files();
    reader.connections(&settings);
    reader.faults.or_none()?;
    Ok(settings)
}

struct Reader<'a> {
    options: &'a Options,
    ready: Option<ReadyFile>,
    /// There is one that could not be read: what it may hold is not missing.
    is_ready_unread: bool,
    faults: Faults,
}

impl Reader<'_> {
    fn ready(&mut self) {
        let Some(path) = self.options.ready_file.as_deref() else { return };
        match ReadyFile::read(path) {
            Ok(ready) => self.ready = Some(ready),
            Err(error) => {
                self.is_ready_unread = true;
                self.faults.add("--ready-file", &path.display().to_string(), &format!("{error:#}"));
            }
        }
    }

    /// A fault: something is not given that the ready file could have held.
    fn missing(&mut self, name: &'static str, bound: &str) {
        if !self.is_ready_unread {
            self.faults.add(name, "", &format!("is missing: {bound}"));
        }
    }

    /// Stdout takes one thing: the tables, or the JSON instead.
    fn files(&mut self) {
        for (name, path) in [("--html", &self.options.html), ("--hdr", &self.options.hdr)] {
            if path.as_deref().is_some_and(|path| path == Path::new("-")) {
                self.faults.add(name, "-", "a file; only --json may be stdout");
            }
        }
    }

    /// Each target must have a connection, or it would never be asked.
    fn connections(&mut self, settings: &Settings) {
        let targets = settings.places.len();
        for Level { number, connections, .. } in settings.levels.iter().filter(|it| it.connections < targets) {
            let bound = format!(
                "a connection for each of {targets} targets: pick other levels (--levels, --level), or fewer targets"
            );
            self.faults.add("--target", &format!("in level {number} with {connections} connections"), &bound);
        }
    }

    fn settings(&mut self) -> Settings {
        let options = self.options;
        let driven = self.driven();
        let format = self.format();
        let levels = levels::chosen(options, &mut self.faults);
        let late_ms = self.number("--late-ms", &options.late_ms, 1..=60_000);
        let lost_ms = self.number("--lost-ms", &options.lost_ms, late_ms..=60_000);
        let age_max_ms = self.number("--age-max-ms", &options.age_max_ms, 1..=86_400_000);
        Settings {
            driven,
            places: self.places(driven),
            credentials: self.credentials(driven, format),
            format,
            assets: self.assets(),
            conditions: self.conditions(driven, &levels),
            levels,
            pace: if options.closed { Pace::Closed } else { Pace::Open },
            pipeline: self.number("--pipeline", &options.pipeline, 1..=64),
            train: self.number("--train", &options.train, 1..=64),
            duration: self.seconds("--duration", &options.duration, 100, 3_600_000),
            warm_up: self.seconds("--warm-up", &options.warm_up, 0, 600_000),
            threads: options.threads.as_ref().map(|text| self.number("--threads", text, 1..=THREADS_MAX)),
            cpus: self.cpus(),
            late_after: Duration::from_millis(late_ms),
            lost_after: Duration::from_millis(lost_ms),
            age_max: Duration::from_millis(age_max_ms),
            pids: self.pids(),
            quiet: options.quiet,
        }
    }

    /// A whole number within bounds; a fault and the lowest one when it is not.
    fn number<T>(&mut self, name: &'static str, text: &str, bounds: RangeInclusive<T>) -> T
    where
        T: std::str::FromStr + PartialOrd + Copy + std::fmt::Display,
    {
        match text.trim().parse() {
            Ok(number) if bounds.contains(&number) => number,
            _ => {
                self.faults.add(name, text, &format!("a whole number from {} to {}", bounds.start(), bounds.end()));
                *bounds.start()
            }
        }
    }

    /// Seconds, perhaps with decimals, between two bounds in ms.
    fn seconds(&mut self, name: &'static str, text: &str, least_ms: u64, most_ms: u64) -> Duration {
        let duration = text.trim().parse().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
        let bounds = Duration::from_millis(least_ms)..=Duration::from_millis(most_ms);
        duration.filter(|duration| bounds.contains(duration)).unwrap_or_else(|| {
            let (least, most) = (bounds.start().as_secs_f64(), bounds.end().as_secs_f64());
            self.faults.add(name, text, &format!("seconds from {least} to {most}"));
            *bounds.start()
        })
    }

    fn driven(&mut self) -> Driven {
        let (tcp, udp) = match self.options.protocol.as_str() {
            "tcp" => (true, false),
            "udp" => (false, true),
            "both" => (true, true),
            other => {
                self.faults.add("--protocol", other, "tcp, udp or both");
                (true, false)
            }
        };
        Driven { tcp, udp }
    }

    fn format(&mut self) -> DatagramFormat {
        match self.options.udp_format.as_str() {
            "json" => DatagramFormat::Json,
            "binary" => DatagramFormat::Binary,
            other => {
                self.faults.add("--udp-format", other, "binary or json");
                DatagramFormat::Binary
            }
        }
    }

    fn places(&mut self, driven: Driven) -> Vec<Place> {
        let options = self.options;
        let tcp_port = self.number("--tcp-port", &options.tcp_port, 1..=u16::MAX);
        let udp_port = self.number("--udp-port", &options.udp_port, 1..=u16::MAX);
        if options.target.is_empty() {
            let Some(ready) = &self.ready else {
                self.missing("--target", &format!("{}; or give --ready-file", target::FORM));
                return Vec::new();
            };
            return vec![Place::of(ready.tcp(), ready.udp(), driven)];
        }
        if options.target.len() > TARGETS_MAX {
            self.faults.add(
                "--target",
                "",
                &format!("{} targets, where at most {TARGETS_MAX} are driven", options.target.len()),
            );
        }
        let mut places = Vec::new();
        for text in &options.target {
            match Place::parse(text, driven, tcp_port, udp_port) {
                Some(place) => places.push(place),
                None => self.faults.add("--target", text, target::FORM),
            }
        }
        places
    }

    fn credentials(&mut self, driven: Driven, format: DatagramFormat) -> Credentials {
        let options = self.options;
        let ready = self.ready.as_ref();
        let key = options.key.clone().or_else(|| ready?.stress_key.clone());
        let id = ready.and_then(|ready| ready.udp_key_id);
        let secret = options.udp_secret.clone().or_else(|| ready?.udp_secret.clone());
        let mut credentials = Credentials::default();
        let binary = driven.udp && format == DatagramFormat::Binary;
        let wants_key = driven.tcp || (driven.udp && format == DatagramFormat::Json);
        match key.unwrap_or_default() {
            key if key.is_empty() && wants_key => {
                self.missing("--key", "the API key, here, in TRINITY_KEY or in --ready-file");
            }
            key if key.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'"' && byte != b'\\') => {
                credentials.key = key;
            }
            _ => self.faults.add(
                "--key",
                "",
                "letters, digits and signs of ASCII, no space, quotation mark or backslash",
            ),
        }
        if !binary {
            return credentials;
        }
        match (&options.udp_key_id, id) {
            (Some(text), _) => credentials.udp_key_id = self.number("--udp-key-id", text, 1..=u32::MAX),
            (None, Some(id)) => credentials.udp_key_id = id,
            (None, None) => self.missing(
                "--udp-key-id",
                "the number of the key, here or in --ready-file; --udp-format json needs none",
            ),
        }
        match secret.map(|text| from_hex(&text)) {
            Some(Some(secret)) => credentials.udp_secret = secret,
            Some(None) => self.faults.add("--udp-secret", "", "32 hex digits"),
            None => self.missing(
                "--udp-secret",
                "32 hex digits, here, in TRINITY_UDP_SECRET or in --ready-file; --udp-format json needs none",
            ),
        }
        credentials
    }

    fn assets(&mut self) -> Vec<Symbol> {
        let mut symbols = Vec::new();
        for text in &self.options.assets {
            match Symbol::new(text.trim().as_bytes()) {
                Some(symbol) => symbols.push(symbol),
                None => self.faults.add("--assets", text, "names of 1 to 16 letters and digits, parted by commas"),
            }
        }
        symbols
    }

    fn cpus(&mut self) -> Vec<usize> {
        let Some(text) = &self.options.cpus else { return Vec::new() };
        match levels::numbers(text, 0, CPU_MAX) {
            Some(cpus) if cpus.len() <= THREADS_MAX => {
                // Where it is not told which there are, the clients find out.
                let allowed = AllowedCpus::read().map_or_else(|_| cpus.clone(), |allowed| allowed.cpus);
                if cpus.iter().any(|cpu| !allowed.contains(cpu)) {
                    self.faults.add("--cpus", text, &format!("CPUs that this process may use: {allowed:?}"));
                }
                cpus
            }
            _ => {
                let bound =
                    format!("numbers and ranges from 0 to {CPU_MAX}, at most {THREADS_MAX} CPUs, such as 2,4-7");
                self.faults.add("--cpus", text, &bound);
                Vec::new()
            }
        }
    }

    fn pids(&mut self) -> Vec<u32> {
        let options = self.options;
        if options.server_pid.is_empty() {
            // The ready file's process is the server only where its addresses are the targets.
            let ready = self.ready.as_ref().filter(|_| options.target.is_empty());
            return ready.map(|ready| ready.pid).into_iter().collect();
        }
        options.server_pid.iter().map(|text| self.number("--server-pid", text, 1..=u32::MAX)).collect()
    }

    fn conditions(&mut self, driven: Driven, levels: &[Level]) -> Vec<Condition> {
        let Some(text) = &self.options.require else { return Vec::new() };
        let parts: Vec<&str> = text.split(',').collect();
        if parts.len() > condition::CONDITIONS_MAX {
            self.faults.add("--require", "", &format!("at most {} conditions", condition::CONDITIONS_MAX));
            return Vec::new();
        }
        let mut conditions = Vec::new();
        for part in parts {
            let Some(condition) = Condition::parse(part) else {
                self.faults.add("--require", part, condition::GRAMMAR);
                continue;
            };
            let is_planned = condition.level().is_none_or(|number| levels.iter().any(|level| level.number == number));
            let is_driven = condition.protocol().is_none_or(|protocol| match protocol {
                Protocol::Tcp => driven.tcp,
                Protocol::Udp => driven.udp,
            });
            if !is_planned {
                self.faults.add("--require", part, "a level that is run");
            }
            if !is_driven {
                self.faults.add("--require", part, "a protocol that is driven (--protocol)");
            }
            conditions.push(condition);
        }
        conditions
    }
}

/// Reads 32 hex digits.
fn from_hex(text: &str) -> Option<[u8; 16]> {
    let digits = text.trim();
    if digits.len() != 32 || !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let number = u128::from_str_radix(digits, 16).ok()?;
    Some(number.to_be_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    const USUAL: [&str; 2] = ["--target=127.0.0.1", "--key=canary"];

    fn settings(arguments: &[&str]) -> anyhow::Result<Settings> {
        read(&Options::try_parse_from(["trinity-stress"].iter().chain(arguments)).expect("options"))
    }

    #[track_caller]
    fn good(arguments: &[&str]) -> Settings {
        settings(arguments).unwrap_or_else(|error| panic!("{error:#}"))
    }

    /// Checks that these arguments have so many faults, of these names.
    #[track_caller]
    fn check(arguments: &[&str], names: &[&str]) {
        let told = settings(&[&USUAL, arguments].concat()).map(|_| ()).map_err(|error| error.to_string());
        match told {
            Ok(()) => assert!(names.is_empty(), "{arguments:?} are taken"),
            Err(told) => {
                let lines: Vec<&str> = told.lines().skip(1).map(str::trim_start).collect();
                assert_eq!(lines.len(), names.len(), "{told}");
                for (line, name) in lines.iter().zip(names) {
                    assert!(line.starts_with(name), "{name}: {told}");
                }
                assert!(!told.contains("canary"), "{told}");
            }
        }
    }

    #[test]
    fn defaults_are_as_help_says() {
        let settings = good(&USUAL);
        assert_eq!((settings.levels.len(), settings.pipeline, settings.train), (13, 1, 1));
        assert_eq!((settings.duration, settings.warm_up), (Duration::from_secs(10), Duration::from_secs(1)));
        assert_eq!((settings.late_after, settings.lost_after), (Duration::from_secs(1), Duration::from_secs(2)));
        assert_eq!(settings.driven, Driven { tcp: true, udp: false });
    }

    #[test]
    fn everything_that_is_wrong_is_told_at_once() {
        check(&[], &[]);
        let cpus = AllowedCpus::read().expect("the CPUs that this test may use").cpus;
        check(&[&format!("--cpus={}", cpus[0])], &[]);
        check(&["--cpus=8191"], &["--cpus 8191: CPUs that this process may use: ["]);
        check(&["--duration=0.5", "--warm-up=0", "--require=success>=99.9,L3:tcp:p99<5ms"], &[]);
        check(&["--pipeline=0", "--train=65", "--duration=nan"], &["--pipeline 0", "--train 65", "--duration nan"]);
        check(&["--protocol=icmp", "--udp-format=xml"], &["--protocol icmp", "--udp-format xml"]);
        check(&["--late-ms=100", "--lost-ms=99"], &["--lost-ms 99: a whole number from 100 to"]);
        check(&["--levels=14"], &["--levels 14"]);
        check(&["--level=1@0", "--level=x"], &["--level 1@0", "--level x"]);
        check(&["--levels=1", "--require=L3:lost=0"], &["--require L3:lost=0: a level"]);
        check(&["--require=udp:lost=0,fast"], &["--require udp:lost=0: a protocol", "--require fast"]);
        check(&["--assets=BTC,,no-such"], &["--assets:", "--assets no-such"]);
        check(&["--protocol=udp"], &["--udp-key-id: is missing", "--udp-secret: is missing"]);
        check(&["--protocol=udp", "--udp-format=json"], &[]);
        check(&["--protocol=udp", "--udp-key-id=0", "--udp-secret=canary"], &["--udp-key-id 0", "--udp-secret: 32"]);
        check(&["--key=canary\"2"], &["--key: letters"]);
        check(&["--key=canary\\2"], &["--key: letters"]);
        check(&["--html=-", "--hdr=-", "--json=-"], &["--html -: a file", "--hdr -: a file"]);
        check(&["--target=a,b", "--level=2@9", "--level=3@9"], &["--target in level 1 with 2 connections"]);
        check(&["--ready-file=/no/such", "--train=0"], &["--ready-file /no/such: cannot", "--train 0"]);
        check(&["--key=canary 2", "--target=a:b"], &["--target a:b", "--key: letters"]);
        check(&["--server-pid=0", "--threads=0"], &["--threads 0", "--server-pid 0"]);
    }

    #[test]
    fn without_a_target_or_a_key_both_are_missed() {
        let told = settings(&[]).map(|_| ()).expect_err("missing").to_string();
        assert!(told.contains("--target: is missing") && told.contains("--key: is missing"), "{told}");
    }

    #[test]
    fn a_ready_file_stands_for_what_is_not_given() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("ready.json");
        let text = r#"{"lpo_tcp":"127.0.0.1:7001","lpo_udp":"0.0.0.0:7002","pid":4242,"stress_key":"from-file",
            "udp_key_id":9,"udp_secret":"000102030405060708090a0b0c0d0e0f"}"#;
        std::fs::write(&path, text).expect("a file");
        let file = format!("--ready-file={}", path.display());
        let from_file = good(&[&file, "--protocol=both"]);
        assert_eq!((from_file.credentials.key.as_str(), from_file.credentials.udp_key_id), ("from-file", 9));
        assert_eq!(from_file.credentials.udp_secret[15], 15);
        assert_eq!((from_file.places[0].name.as_str(), from_file.pids.as_slice()), ("127.0.0.1:7001", &[4_242][..]));
        let explicit = good(&[&file, "--key=mine", "--target=127.0.0.2"]);
        assert_eq!((explicit.credentials.key.as_str(), explicit.places[0].name.as_str()), ("mine", "127.0.0.2"));
        assert!(explicit.pids.is_empty());
        let unread =
            settings(&["--ready-file=/no/such/file", "--protocol=both"]).map(|_| ()).expect_err("no such file");
        assert!(!unread.to_string().contains("missing"), "{unread}");
    }
}
