//! The shape of the code, held by a machine: sizes, the crate graph, and what is absent from where.

use cargo_metadata::{CargoOpt, Metadata, MetadataCommand, Package, PackageId};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Longest file, in lines.
const FILE_LINES_MAX: usize = 500;

/// What the top level may hold, besides dot-files and the build directory.
const TOP_LEVEL: [&str; 10] = [
    "Cargo.lock",
    "Cargo.toml",
    "README.md",
    "controlplane",
    "dataplane",
    "deploy",
    "loadgen",
    "shared",
    "tests",
    "tuning",
];

/// Module names that say nothing.
const BANNED_NAMES: [&str; 6] = ["utils", "util", "common", "helpers", "misc", "manager"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the repository").to_owned()
}

/// Every Rust source below `folder` (relative to the root), with its text.
fn sources(folder: &str) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    let mut folders = vec![root().join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("a folder").map(|entry| entry.expect("an entry").path()) {
            let name = entry.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
            if entry.is_dir() && name != "target" && !name.starts_with('.') {
                folders.push(entry);
            } else if name.ends_with(".rs") {
                let text = std::fs::read_to_string(&entry).expect("a text file");
                found.push((entry, text));
            }
        }
    }
    assert!(!found.is_empty(), "no sources below {folder}");
    found
}

fn all_sources() -> Vec<(PathBuf, String)> {
    ["controlplane", "dataplane", "loadgen", "shared", "tests", "tuning"].into_iter().flat_map(sources).collect()
}

/// Lines that are code: no comments, no strings' insides.
fn code_lines(text: &str) -> impl Iterator<Item = (usize, String)> {
    text.lines().enumerate().filter_map(|(number, line)| {
        let code = line.split("//").next().unwrap_or_default();
        let outside: Vec<&str> = code.split('"').step_by(2).collect();
        let code = outside.join("\"\"");
        (!code.trim().is_empty()).then_some((number + 1, code))
    })
}

/// Fails with every line of `folders` in which one of `words` stands as a word of code.
fn forbid(folders: &[&str], words: &[&str], except: &[&str], why: &str) {
    let mut hits = Vec::new();
    for (path, text) in folders.iter().flat_map(|folder| sources(folder)) {
        if except.iter().any(|part| path.to_string_lossy().contains(part)) {
            continue;
        }
        for (number, code) in code_lines(&text) {
            let is_word = |word: &&&str| {
                let mut parts = code.split(|c: char| !(c.is_alphanumeric() || c == '_'));
                parts.any(|part| part == **word)
            };
            hits.extend(words.iter().filter(is_word).map(|word| format!("{}:{number}: {word}", path.display())));
        }
    }
    assert!(hits.is_empty(), "{why}:\n{}", hits.join("\n"));
}

#[test]
fn files_are_rooms_not_halls() {
    let long: Vec<String> = all_sources()
        .into_iter()
        .map(|(path, text)| (path, text.lines().count()))
        .filter(|(_, lines)| *lines > FILE_LINES_MAX)
        .map(|(path, lines)| format!("{}: {lines} lines", path.display()))
        .collect();
    assert!(long.is_empty(), "over {FILE_LINES_MAX} lines:\n{}", long.join("\n"));
}

#[test]
fn every_file_opens_by_saying_why_it_exists() {
    let silent: Vec<String> = all_sources()
        .into_iter()
        .filter(|(_, text)| !text.trim_start().starts_with("//!") && !text.trim_start().starts_with("#![no_main]"))
        .map(|(path, _)| path.display().to_string())
        .collect();
    assert!(silent.is_empty(), "no opening paragraph:\n{}", silent.join("\n"));
}

#[test]
fn no_module_is_called_nothing() {
    for (path, _) in all_sources() {
        let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
        let folder = path.parent().and_then(Path::file_name).and_then(|name| name.to_str()).unwrap_or_default();
        assert!(!BANNED_NAMES.contains(&stem) && !BANNED_NAMES.contains(&folder), "{}", path.display());
    }
}

#[test]
fn the_top_level_is_the_agreed_one() {
    let entries = std::fs::read_dir(root()).expect("the repository");
    let names: BTreeSet<String> = entries
        .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
        .filter(|name| !name.starts_with('.') && name != "target")
        .collect();
    assert_eq!(names, TOP_LEVEL.map(str::to_owned).into_iter().collect());
}

#[test]
fn no_float_on_a_price_path() {
    forbid(&["shared", "dataplane", "controlplane/venues"], &["f32", "f64"], &["/benches/"], "floats (invariant I11)");
}

#[test]
fn no_async_in_the_data_plane() {
    let rivals = ["engine/src/monoio.rs", "engine/src/glommio.rs"];
    forbid(&["shared", "dataplane", "tuning"], &["async", "await"], &rivals, "async (invariants I2, I3)");
    forbid(&["shared", "dataplane", "tuning"], &["tokio"], &[], "tokio (invariant I2)");
}

#[test]
fn unsafe_code_lives_in_the_engines_and_tuning_only() {
    let outside = ["shared", "dataplane/core/src", "controlplane", "loadgen/src"];
    forbid(&outside, &["unsafe"], &[], "unsafe code (invariant I10)");
    for file in [
        "shared/src/lib.rs",
        "dataplane/core/src/lib.rs",
        "controlplane/venues/src/lib.rs",
        "controlplane/aws/src/lib.rs",
        "controlplane/src/lib.rs",
        "controlplane/src/main.rs",
    ] {
        let text = std::fs::read_to_string(root().join(file)).expect(file);
        assert!(text.contains("#![forbid(unsafe_code)]"), "{file} does not forbid unsafe code");
    }
}

#[test]
fn no_queue_is_without_a_bound() {
    let words = ["unbounded", "unbounded_channel", "UnboundedSender", "LinkedList"];
    forbid(&["controlplane", "dataplane", "loadgen", "shared", "tuning"], &words, &[], "unbounded (invariant I5)");
    // `std::sync::mpsc::channel` has no bound either; `sync_channel` has.
    for (path, text) in all_sources() {
        let hit = code_lines(&text).any(|(_, code)| code.contains("mpsc::channel()"));
        assert!(!hit, "{} has a channel without a bound", path.display());
    }
}

#[test]
fn the_core_does_not_touch_the_operating_system() {
    for file in ["shared/src/lib.rs", "dataplane/core/src/lib.rs"] {
        let text = std::fs::read_to_string(root().join(file)).expect(file);
        assert!(text.contains("#![no_std]"), "{file} is not no_std (invariant I1)");
    }
    forbid(&["shared/src", "dataplane/core/src"], &["std"], &[], "std in a no_std crate (invariant I1)");
}

#[test]
fn a_shard_waits_without_a_timeout() {
    for (path, text) in sources("dataplane/engine/src") {
        for (number, code) in code_lines(&text) {
            let waits = code.contains("epoll_wait(") && !code.contains("fn ");
            let with_args = code.contains("submit_with_args") || code.contains("recv_timeout");
            let is_feed = path.ends_with("feed_thread.rs");
            assert!(!with_args || is_feed, "{}:{number}: a wait with a timeout (invariant I12)", path.display());
            assert!(!waits || text.contains("-1"), "{}:{number}: epoll_wait must block", path.display());
        }
    }
}

/// Names of all packages that `package` needs to build for use (not to test), itself included.
fn reachable(metadata: &Metadata, package: &str) -> BTreeSet<String> {
    let packages: BTreeMap<&PackageId, &Package> = metadata.packages.iter().map(|one| (&one.id, one)).collect();
    let nodes = &metadata.resolve.as_ref().expect("a resolved graph").nodes;
    let start = metadata.packages.iter().find(|one| one.name.as_str() == package).expect(package);
    let mut seen = BTreeSet::new();
    let mut waiting = vec![&start.id];
    while let Some(id) = waiting.pop() {
        if !seen.insert(packages[id].name.to_string()) {
            continue;
        }
        let node = nodes.iter().find(|node| node.id == *id).expect("a node for each package");
        let normal = node.deps.iter().filter(|dependency| {
            dependency.dep_kinds.iter().any(|kind| kind.kind == cargo_metadata::DependencyKind::Normal)
        });
        waiting.extend(normal.map(|dependency| &dependency.pkg));
    }
    seen
}

/// Crates that are built only for a rival engine, or for secrets and queues of AWS.
const ON_DEMAND: [&str; 7] =
    ["monoio", "glommio", "futures-lite", "trinity-aws", "aws-config", "aws-sdk-secretsmanager", "aws-sdk-sqs"];

fn metadata(features: Option<CargoOpt>) -> Metadata {
    let mut command = MetadataCommand::new();
    if let Some(features) = features {
        command.features(features);
    }
    command.manifest_path(root().join("Cargo.toml")).exec().expect("cargo metadata")
}

#[test]
fn rivals_and_aws_are_no_part_of_what_is_built_by_default() {
    let (usual, all) = (metadata(None), metadata(Some(CargoOpt::AllFeatures)));
    for name in ON_DEMAND {
        assert!(!reachable(&usual, "trinity-beast").contains(name), "trinity-beast is built with {name}");
        assert!(reachable(&all, "trinity-beast").contains(name), "no feature brings {name} any more");
    }
    assert!(!reachable(&all, "trinity-dataplane-engine").contains("tokio"), "a rival brings tokio (invariant I2)");
    // `cargo metadata` joins the features of every target and of tests; what is really built is told by `cargo tree`.
    for second in ["ring", "native-tls", "openssl"] {
        let mut tree = std::process::Command::new(env!("CARGO"));
        tree.args(["tree", "--locked", "-p", "trinity-beast", "--all-features", "--invert", second]);
        let told = tree.current_dir(root()).output().expect("cargo runs");
        let told = String::from_utf8_lossy(&told.stdout).into_owned();
        assert!(told.is_empty(), "a second cryptography besides aws-lc-rs:\n{told}");
    }
}

#[test]
fn the_planes_are_walled_off() {
    let metadata = metadata(None);
    let banned = ["tokio", "axum", "hyper", "sqlx", "fred", "reqwest", "async-std", "smol"];
    let walled =
        ["trinity-shared", "trinity-dataplane-core", "trinity-dataplane-engine", "trinity-tuning", "trinity-venues"];
    for package in walled {
        let reach = reachable(&metadata, package);
        for name in banned {
            assert!(!reach.contains(name), "{package} reaches {name} (invariant I2)");
        }
    }
    let own = |package: &str| -> BTreeSet<String> {
        let mut reach = reachable(&metadata, package);
        reach.retain(|name| name.starts_with("trinity-") && name != package);
        reach
    };
    let set = |names: &[&str]| names.iter().map(|name| format!("trinity-{name}")).collect::<BTreeSet<_>>();
    assert_eq!(own("trinity-shared"), set(&[]));
    assert_eq!(own("trinity-dataplane-core"), set(&["shared"]));
    assert_eq!(own("trinity-tuning"), set(&["shared"]));
    assert_eq!(own("trinity-venues"), set(&["shared"]));
    assert_eq!(own("trinity-dataplane-engine"), set(&["shared", "dataplane-core", "tuning"]));
    assert_eq!(own("trinity-stress"), set(&["shared", "tuning"]));
    assert_eq!(own("trinity-aws"), set(&[]));
}
