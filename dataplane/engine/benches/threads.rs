//! What the threads of this process have used.

use std::io;
use tuning::clock;

/// CPU time of this process's threads of that name, or of that name with a number behind it (`shard-0`), ns.
pub fn cpu_ns(name: &str) -> io::Result<u64> {
    let mut sum = 0;
    for entry in std::fs::read_dir("/proc/self/task")? {
        let path = entry?.path();
        let comm = std::fs::read_to_string(path.join("comm")).unwrap_or_default();
        let is_meant = comm.trim_end().strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with('-'));
        let number = path.file_name().and_then(|name| name.to_str()).and_then(|name| name.parse::<i32>().ok());
        if let Some(thread) = number.filter(|_| is_meant) {
            sum += clock::thread_cpu_ns_of(thread)?;
        }
    }
    Ok(sum)
}
