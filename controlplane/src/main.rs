//! `trinity-beast`: hands the command line to the control plane, on an allocator of its own.
#![forbid(unsafe_code)]

use mimalloc::MiMalloc;
use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    controlplane::command::run()
}
