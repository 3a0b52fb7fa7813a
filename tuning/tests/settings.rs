//! The table of settings: what it says of machines of all kinds, and that the files of this crate say the same.

mod root;

use root::root_with;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use tempfile::TempDir;
use tuning::card::Card;
use tuning::core_plan::CorePlan;
use tuning::machine::Machine;
use tuning::settings::{Finding, Group, Read, SETTINGS, SYSCTL, Setting, Verdict, Wanted, examine};
use tuning::sockets::Limit;

/// A machine with these files, two shards on CPUs 0 and 1, and a card whose driver talks.
fn machine(files: &[(&str, &str)]) -> (TempDir, Machine) {
    let root = root_with(files);
    let limit = Some(Limit { soft: Some(1_024), hard: Some(524_288) });
    let card = Card { receive_grouping: Some(false), send_grouping: Some(true), queues_max: Some(4) };
    let machine = Machine {
        root: root.path().to_owned(),
        plan: Some(CorePlan { shards: vec![Some(0), Some(1)], control: Vec::new() }),
        nofile: limit,
        memlock: limit,
        clock_read_ns: 30,
        cards: BTreeMap::from([("eth0".to_owned(), card)]),
    };
    (root, machine)
}

/// Checks what is found of one setting: value, verdict and remedy of each finding.
#[track_caller]
fn check(files: &[(&str, &str)], name: &str, expected: &[(Option<&str>, Verdict, Option<&str>)]) {
    let (_root, machine) = machine(files);
    let setting = SETTINGS.iter().find(|setting| setting.name == name).expect(name);
    let found = setting.examine(&machine);
    let found: Vec<_> = found.iter().map(|one| (one.value.as_deref(), one.verdict, one.remedy.as_deref())).collect();
    assert_eq!(found, expected, "{name} with {files:?}");
}

use Verdict::{Absent, Differs, Good, LeftAlone, NotReadable};

#[test]
fn a_kernel_setting_is_compared_with_what_the_code_asks_for() {
    let file = "proc/sys/net/core/somaxconn";
    let remedy = Some("sysctl -w net.core.somaxconn=4096");
    check(&[(file, "128\n")], "net.core.somaxconn", &[(Some("128"), Differs, remedy)]);
    check(&[(file, "4096\n")], "net.core.somaxconn", &[(Some("4096"), Good, None)]);
    check(&[(file, "65535\n")], "net.core.somaxconn", &[(Some("65535"), Good, None)]);
    check(&[(file, "many\n")], "net.core.somaxconn", &[(Some("many"), Differs, remedy)]);
    // A container hides it.
    check(&[], "net.core.somaxconn", &[(None, NotReadable, None)]);
    // An older kernel has no such thing.
    check(&[], "kernel.io_uring_disabled", &[(None, Absent, None)]);
    let remedy = Some("sysctl -w kernel.io_uring_disabled=0");
    check(&[("proc/sys/kernel/io_uring_disabled", "2\n")], "kernel.io_uring_disabled", &[(Some("2"), Differs, remedy)]);
}

#[test]
fn of_several_numbers_one_counts_and_the_others_stay() {
    let file = "proc/sys/net/ipv4/udp_mem";
    check(&[(file, "100\t200\t9000\n")], "net.ipv4.udp_mem", &[(Some("100 200 9000"), Good, None)]);
    let remedy = Some("sysctl -w net.ipv4.udp_mem='100 200 5120'");
    check(&[(file, "100\t200\t300\n")], "net.ipv4.udp_mem", &[(Some("100 200 300"), Differs, remedy)]);
}

#[test]
fn limits_of_the_process_grow_with_the_shards() {
    check(&[], "nofile", &[(Some("1024 (may be raised to 524288)"), Good, None)]);
    let (_root, mut few) = machine(&[]);
    few.nofile = Some(Limit { soft: Some(1_024), hard: Some(20_000) });
    let nofile = SETTINGS.iter().find(|setting| setting.name == "nofile").expect("it is there");
    let found = &nofile.examine(&few)[0];
    assert_eq!((found.verdict, found.wanted.as_str()), (Differs, "at least 33920"));
    assert!(found.remedy.as_deref().is_some_and(|remedy| remedy.contains("LimitNOFILE=33920")), "{found:?}");
    few.nofile = Some(Limit { soft: None, hard: None });
    assert_eq!(nofile.examine(&few)[0].verdict, Good, "no limit is enough");
    few.nofile = None;
    assert_eq!(nofile.examine(&few)[0].verdict, NotReadable);
    // 524,288 bytes are too little for two rings, unless locked memory is not counted.
    let status = |mask| [("proc/self/status", mask)];
    let (_root, poor) = machine(&status("Name:\tx\nCapEff:\t0000000000000000\n"));
    let memlock = SETTINGS.iter().find(|setting| setting.name == "memlock").expect("it is there");
    assert_eq!(memlock.examine(&poor)[0].verdict, Differs);
    let (_root, root) = machine(&status("Name:\tx\nCapEff:\t000001ffffffffff\n"));
    assert_eq!(memlock.examine(&root)[0].verdict, Good);
}

#[test]
fn a_tracker_that_follows_nothing_costs_nothing() {
    let (name, file) = ("net.netfilter.nf_conntrack_count", "proc/sys/net/netfilter/nf_conntrack_count");
    check(&[], name, &[(None, Absent, None)]);
    check(&[(file, "0\n")], name, &[(Some("0 flows"), Good, None)]);
    let (_root, machine) = machine(&[(file, "12\n")]);
    let found = examine(&machine).into_iter().find(|one| one.name == name).expect("it is there");
    assert!(found.verdict == Differs && found.remedy.is_some_and(|remedy| remedy.contains("notrack")));
}

const LOOPBACK: (&str, &str) = ("sys/class/net/lo/flags", "0x9\n");
const ETHERNET: (&str, &str) = ("sys/class/net/eth0/flags", "0x1003\n");
const BRIDGE: (&str, &str) = ("sys/class/net/docker0/flags", "0x1003\n");
const DOWN: (&str, &str) = ("sys/class/net/eth1/flags", "0x1002\n");
const DEVICE: (&str, &str) = ("sys/class/net/eth0/device/vendor", "0x1af4\n");
const QUEUE: (&str, &str) = ("sys/class/net/eth0/queues/rx-0/rps_cpus", "00000000,00000000\n");
const QUEUE_MOVED: (&str, &str) = ("sys/class/net/eth0/queues/rx-1/rps_cpus", "3\n");

#[test]
fn cards_are_looked_at_and_other_interfaces_only_where_it_matters() {
    let up = [LOOPBACK, ETHERNET, BRIDGE, DOWN, DEVICE, QUEUE, QUEUE_MOVED];
    let with = |more: &[(&'static str, &'static str)]| [&up[..], more].concat();
    let mtus = with(&[("sys/class/net/eth0/mtu", "9001\n"), ("sys/class/net/docker0/mtu", "1200\n")]);
    let remedy = Some("ip link set dev docker0 mtu 1500");
    check(&mtus, "mtu", &[(Some("1200"), Differs, remedy), (Some("9001"), Good, None)]);
    check(&up, "receive queues", &[(Some("2 of 4 that it can have"), Good, None)]);
    check(
        &up[..6],
        "receive queues",
        &[(
            Some("1 of 4 that it can have"),
            Differs,
            Some("tuning/nic-queues.sh eth0 CPU,… ; where the card has no more, a machine whose card has"),
        )],
    );
    let moved = Some("echo 0 | tee /sys/class/net/eth0/queues/rx-*/rps_cpus");
    check(&up, "queues moved by software (RPS)", &[(Some("1 of 2 queues"), Differs, moved)]);
    check(&up[..6], "queues moved by software (RPS)", &[(Some("0 of 1 queues"), Good, None)]);
    check(&up, "GRO", &[(Some("off"), Differs, Some("ethtool -K eth0 gro on"))]);
    check(&up, "GSO", &[(Some("on"), Good, None)]);
    // A container on a bridge sees no card at all, and nothing is said.
    check(&[LOOPBACK, BRIDGE], "GRO", &[]);
    let (_root, mut mute) = machine(&up);
    mute.cards.clear();
    let gro = SETTINGS.iter().find(|setting| setting.name == "GRO").expect("it is there");
    assert_eq!(gro.examine(&mute)[0].verdict, NotReadable);
}

#[test]
fn interrupts_reach_every_serving_cpu_or_the_idle_ones_are_named() {
    let name = "serving CPUs without an interrupt";
    let queues = [ETHERNET, DEVICE, QUEUE, QUEUE_MOVED];
    let irqs =
        [("sys/class/net/eth0/device/msi_irqs/41", "msix\n"), ("sys/class/net/eth0/device/msi_irqs/42", "msix\n")];
    let with = |more: &[(&'static str, &'static str)]| [&queues[..], &irqs[..], more].concat();
    let on = |first, second| {
        with(&[("proc/irq/41/effective_affinity_list", first), ("proc/irq/42/effective_affinity_list", second)])
    };
    check(&on("0\n", "1\n"), name, &[(Some("none"), Good, None)]);
    let remedy = Some("tuning/nic-queues.sh eth0 CPU,… --apply");
    check(&on("0\n", "0\n"), name, &[(Some("1"), Differs, remedy)]);
    // Where the effective one is empty, the wished-for one counts.
    check(
        &with(&[("proc/irq/41/effective_affinity_list", "\n"), ("proc/irq/41/smp_affinity_list", "0-3\n")]),
        name,
        &[(Some("none"), Good, None)],
    );
    check(&with(&[]), name, &[(None, NotReadable, None)]);
    // With fewer queues than shards the queues are the fault.
    check(&[ETHERNET, DEVICE, QUEUE], name, &[]);
}

#[test]
fn cpus_tell_their_governor_idle_states_and_siblings() {
    let governor = |cpu: u32| format!("sys/devices/system/cpu/cpu{cpu}/cpufreq/scaling_governor");
    check(&[], "CPU governor", &[(None, Absent, None)]);
    let remedy = Some("cpupower frequency-set -g performance");
    check(
        &[(&governor(0), "performance\n"), (&governor(1), "powersave\n")],
        "CPU governor",
        &[(Some("performance, powersave"), Differs, remedy)],
    );
    check(&[(&governor(0), "performance\n")], "CPU governor", &[(Some("performance"), Good, None)]);
    let state = "sys/devices/system/cpu/cpu1/cpuidle/state2";
    let (name, latency, disable) = (format!("{state}/name"), format!("{state}/latency"), format!("{state}/disable"));
    let deep = |disabled| [(&*name, "C6\n"), (&*latency, "133\n"), (&*disable, disabled)];
    let remedy = Some("cpupower idle-set -D 50, or processor.max_cstate=1 on the kernel's command line");
    check(&deep("0\n"), "slowest idle state", &[(Some("133 µs (C6)"), Differs, remedy)]);
    check(&deep("1\n"), "slowest idle state", &[(None, Absent, None)]);
    let siblings = |cpu: u32| format!("sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list");
    let alone = [(&*siblings(0), "0,8\n"), (&*siblings(1), "1,9\n")];
    check(&alone, "cores shared by serving CPUs", &[(Some("none share a core"), LeftAlone, None)]);
    let halves = [(&*siblings(0), "0-1\n"), (&*siblings(1), "0-1\n")];
    check(&halves, "cores shared by serving CPUs", &[(Some("one core: 0-1"), LeftAlone, None)]);
}

#[test]
fn what_a_machine_has_only_one_of_is_not_asked_about() {
    let balancing = ("proc/sys/kernel/numa_balancing", "1\n");
    let nodes = |online| ("sys/devices/system/node/online", online);
    check(&[balancing, nodes("0\n")], "kernel.numa_balancing", &[(None, Absent, None)]);
    let remedy = Some("sysctl -w kernel.numa_balancing=0");
    check(&[balancing, nodes("0-1\n")], "kernel.numa_balancing", &[(Some("1"), Differs, remedy)]);
    let swappiness = ("proc/sys/vm/swappiness", "60\n");
    let head = "Filename Type Size Used Priority\n";
    check(&[swappiness, ("proc/swaps", head)], "vm.swappiness", &[(None, Absent, None)]);
    let swapping = format!("{head}/dev/vdb partition 1 0 -2\n");
    let remedy = Some("sysctl -w vm.swappiness=10");
    check(&[swappiness, ("proc/swaps", &swapping)], "vm.swappiness", &[(Some("60"), Differs, remedy)]);
    let huge = ("sys/kernel/mm/transparent_hugepage/defrag", "always defer [defer+madvise] madvise never\n");
    check(&[huge], "transparent_hugepage/defrag", &[(Some("defer+madvise"), Good, None)]);
}

/// The verdicts on what the kernel lost, by name.
fn lost(files: &[(&str, &str)]) -> BTreeMap<&'static str, (Option<String>, Verdict)> {
    let (_root, machine) = machine(files);
    let findings = examine(&machine).into_iter().filter(|finding| finding.group == Group::Lost);
    findings.map(|finding| (finding.name, (finding.value, finding.verdict))).collect()
}

#[test]
fn losses_are_shares_of_what_came() {
    let files = [
        ("proc/stat", "cpu  100 0 100 5000 0 0 0 20 0 0\ncpu0 1 1 1 1 1 1 1 1 1 1\n"),
        ("proc/net/softnet_stat", "000f4240 00000000 00000100\n000f4240 00000001 00000000\n"),
        (
            "proc/net/snmp",
            "Tcp: ActiveOpens PassiveOpens\nTcp: 5 900\nUdp: InDatagrams OutDatagrams RcvbufErrors SndbufErrors\n\
             Udp: 1000000 1000000 11 10\n",
        ),
        ("proc/net/netstat", "TcpExt: SyncookiesSent ListenOverflows\nTcpExt: 3 100\nIpExt: InNoRoutes\nIpExt: 0\n"),
    ];
    let found = lost(&files);
    let expected = [
        ("time stolen by the hypervisor", "9.0 %", Differs),
        ("packets dropped before a socket", "1 of 2000000", Good),
        ("budget of a receive turn used up", "256 of 2000000", Good),
        ("datagrams dropped, receive buffer full", "11 of 1000000", Differs),
        ("datagrams dropped, send buffer full", "10 of 1000000", Good),
        ("connections refused, backlog full", "100 of 1000", Differs),
    ];
    for (name, value, verdict) in expected {
        assert_eq!(found[name], (Some(value.to_owned()), verdict), "{name}");
    }
    assert_eq!(found["periods stopped by the CPU quota"].1, Absent, "there is no quota");
}

#[test]
fn nothing_that_cannot_be_read_is_an_error() {
    // Files that are not text, are empty, or are nonsense, at every place that is read.
    let (_root, whole) = machine(&[]);
    for nonsense in ["", "\n", "-", "\u{0}", "99999999999999999999999", "a b c d e f g h i"] {
        let files: Vec<(String, &str)> = [
            "proc/stat",
            "proc/swaps",
            "proc/self/status",
            "proc/net/snmp",
            "proc/net/netstat",
            "proc/net/softnet_stat",
            "sys/class/net/eth0/flags",
            "sys/devices/system/node/online",
            "proc/sys/net/ipv4/ip_local_port_range",
        ]
        .into_iter()
        .map(str::to_owned)
        .chain(SETTINGS.iter().map(|setting| format!("proc/sys/{}", setting.name.replace('.', "/"))))
        .filter(|path| !path.contains("queues") && !path.contains(' '))
        .map(|path| (path, nonsense))
        .collect();
        let files: Vec<(&str, &str)> = files.iter().map(|(path, text)| (path.as_str(), *text)).collect();
        let (_root, broken) = machine(&files);
        assert!(examine(&broken).len() >= examine(&whole).len(), "{nonsense:?}");
    }
}

/// A file of this crate.
fn file(name: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).expect(name)
}

/// A kernel setting that `sysctl.conf` sets: what is wanted hangs on no machine, and is for a node.
fn is_set_by_file(setting: &Setting) -> bool {
    let is_fixed = !matches!(setting.wanted, Wanted::AtLeastFor(..) | Wanted::LeftAlone);
    setting.remedy == SYSCTL && is_fixed && setting.group != Group::Generator
}

#[test]
fn sysctl_conf_sets_what_the_table_wants() {
    let text = file("sysctl.conf");
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let set: BTreeMap<&str, &str> = lines
        .map(|line| line.split_once('=').unwrap_or_else(|| panic!("not a setting: {line}")))
        // A dash before the name: no fault where the kernel lacks it.
        .map(|(name, value)| (name.trim().trim_start_matches('-'), value.trim()))
        .collect();
    let nowhere = Machine::default();
    let wanted: BTreeMap<&str, String> = SETTINGS
        .iter()
        .filter(|setting| is_set_by_file(setting))
        .map(|setting| (setting.name, setting.wanted.value(&nowhere)))
        .collect();
    let wanted: BTreeMap<&str, &str> = wanted.iter().map(|(name, value)| (*name, value.as_str())).collect();
    assert_eq!(set, wanted, "sysctl.conf (left) and src/settings/table.rs (right) differ");
    for setting in SETTINGS.iter().filter(|setting| is_set_by_file(setting)) {
        let may_lack = !matches!(setting.read, Read::Sysctl(_));
        assert_eq!(text.contains(&format!("\n-{} =", setting.name)), may_lack, "the dash of {}", setting.name);
    }
}

#[test]
fn the_readme_has_the_table() {
    let readme = file("README.md");
    let rows: Vec<String> = SETTINGS
        .iter()
        .map(|setting| {
            format!("| `{}` | {} | {} | {} |", setting.name, setting.wanted.rule(), setting.why, setting.known)
        })
        .collect();
    let missing: Vec<&String> = rows.iter().filter(|row| !readme.contains(row.as_str())).collect();
    assert!(missing.is_empty(), "README.md lacks, word for word:\n{missing:#?}");
    let section =
        readme.split("\n## Settings\n").nth(1).and_then(|rest| rest.split("\n## ").next()).expect("a section");
    let shown = section.lines().filter(|line| line.starts_with("| `"));
    let known: BTreeSet<&str> = rows.iter().map(String::as_str).collect();
    let extra: Vec<&str> = shown.filter(|line| !known.contains(line)).collect();
    assert!(extra.is_empty(), "README.md has, and the table has not:\n{extra:#?}");
}

#[test]
fn every_setting_has_a_reason_and_a_remedy() {
    let mut names = BTreeSet::new();
    for setting in SETTINGS {
        assert!(names.insert(setting.name), "{} stands twice", setting.name);
        assert!(!setting.why.is_empty() && !setting.known.is_empty(), "{} has no reason", setting.name);
        let is_left = matches!(setting.wanted, Wanted::LeftAlone);
        assert_eq!(setting.remedy.is_empty(), is_left, "{}: a remedy, or nothing wanted", setting.name);
    }
    assert!(SETTINGS.is_sorted_by_key(|setting| setting.group), "the groups are not in the report's order");
}

#[test]
fn limits_conf_and_the_unit_grant_what_the_largest_node_wants() {
    let (_root, mut machine) = machine(&[]);
    machine.plan = Some(CorePlan { shards: vec![None; 63], control: Vec::new() });
    let wanted = |name: &str| -> u64 {
        let setting = SETTINGS.iter().find(|setting| setting.name == name).expect(name);
        setting.wanted.value(&machine).parse().expect("a number")
    };
    let unit = file("../deploy/trinity-beast.service");
    let of = |name: &str| unit.lines().find_map(|line| line.strip_prefix(name)).expect(name).to_owned();
    let files: u64 = of("LimitNOFILE=").parse().expect("a number");
    let mebibytes: u64 = of("LimitMEMLOCK=").trim_end_matches('M').parse().expect("mebibytes");
    assert!(files >= wanted("nofile"), "{files} descriptors are not {}", wanted("nofile"));
    assert!(mebibytes << 20 >= wanted("memlock"), "{mebibytes} MiB are not {} bytes", wanted("memlock"));
    let limits = file("limits.conf");
    for (kind, item, value) in [
        ("hard", "nofile", files),
        ("soft", "nofile", files),
        ("hard", "memlock", mebibytes << 10),
        ("soft", "memlock", mebibytes << 10),
    ] {
        let line = ["trinity", kind, item, &value.to_string()];
        let is_line = |text: &str| text.split_whitespace().eq(line);
        assert!(limits.lines().any(is_line), "limits.conf lacks {line:?}");
    }
}

/// A finding as the report's text has it.
#[test]
fn a_finding_is_named_with_its_interface() {
    let (_root, machine) = machine(&[ETHERNET, ("sys/class/net/eth0/mtu", "576\n")]);
    let names: Vec<String> =
        examine(&machine).iter().filter(|one| one.verdict == Differs).map(Finding::to_string).collect();
    assert!(names.contains(&"mtu of eth0".to_owned()), "{names:?}");
}
