//! Cases measured in turn, round by round, and shown: what the benches without sockets have in common.
//!
//! Arguments that do not begin with `--` are parts of the names of the cases wanted; `--rounds=N` asks for fewer rounds,
//! where instructions are counted and not time (`tuning/trial`).

/// Rounds where none are asked for.
const ROUNDS: usize = 9;

/// One thing to measure.
pub struct Case<'a> {
    pub name: String,
    /// How often it is done in a round.
    pub count: usize,
    /// Does it once; is told how often it was done in this round before.
    pub once: Box<dyn FnMut(usize) + 'a>,
}

/// CPU time of this thread, ns: what others do on the machine meanwhile is not counted.
fn cpu_ns() -> u64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").expect("Linux with scheduler statistics");
    text.split(' ').next().and_then(|field| field.parse().ok()).expect("a number")
}

/// Measures the cases wanted and shows the median over rounds of each.
pub fn show(mut cases: Vec<Case<'_>>) {
    let told = std::env::args().find_map(|argument| argument.strip_prefix("--rounds=")?.parse().ok());
    let rounds: usize = told.unwrap_or(ROUNDS).clamp(1, 100);
    let wanted: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with("--")).collect();
    cases.retain(|case| wanted.is_empty() || wanted.iter().any(|part| case.name.contains(part.as_str())));
    let mut times = vec![Vec::new(); cases.len()];
    for _ in 0..rounds {
        for (case, times) in cases.iter_mut().zip(&mut times) {
            let start = cpu_ns();
            (0..case.count).for_each(&mut case.once);
            times.push((cpu_ns() - start) / case.count as u64);
        }
    }
    for (case, mut times) in cases.into_iter().zip(times) {
        times.sort_unstable();
        println!("{:>7} ns  {}", times[rounds / 2], case.name);
    }
}
