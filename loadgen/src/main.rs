//! `trinity-stress`: the load test as a program. What it does is in `command`; how requests are driven and told of is
//! the library's.
#![forbid(unsafe_code)]

mod command;

fn main() -> std::process::ExitCode {
    command::run()
}
