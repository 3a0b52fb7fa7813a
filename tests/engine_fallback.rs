//! io_uring denied to the process by a seccomp filter, as AWS Fargate and default container profiles do.

use harness::service::{Service, binary};
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter};
use std::process::{Command, Stdio};

/// Runs `action` on a thread that may not use io_uring: its calls end with `errno`. Processes started there inherit it.
fn without_io_uring<T: Send>(errno: i32, action: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let thread = scope.spawn(move || {
            let calls = [libc::SYS_io_uring_setup, libc::SYS_io_uring_enter, libc::SYS_io_uring_register];
            let rules = calls.into_iter().map(|call| (call, Vec::new())).collect();
            let architecture = std::env::consts::ARCH.try_into().expect("an architecture with seccomp");
            let denied = SeccompAction::Errno(errno.unsigned_abs());
            let filter = SeccompFilter::new(rules, SeccompAction::Allow, denied, architecture).expect("a filter");
            let program: BpfProgram = filter.try_into().expect("a program");
            seccompiler::apply_filter(&program).expect("the filter holds");
            action()
        });
        thread.join().expect("the thread ends")
    })
}

#[test]
fn auto_says_so_once_and_serves_on_epoll() {
    for (errno, word) in [(libc::EPERM, "EPERM"), (libc::ENOSYS, "ENOSYS")] {
        let service = without_io_uring(errno, || Service::demo("auto"));
        assert_eq!(service.ready()["engine"], "epoll");
        service.await_price("BTC", 2);
        let said = service.log().lines().filter(|line| line.contains(word)).count();
        assert_eq!(said, 1, "{word} in the log:\n{}", service.log());
        let engine = service.admin("/admin/engine").json();
        assert_eq!(engine["engine"], "epoll");
        assert!(engine["reason"].as_str().is_some_and(|reason| reason.contains(word)), "{engine}");
    }
}

#[test]
fn a_forced_engine_does_not_start_without_its_ring() {
    let output = without_io_uring(libc::EPERM, || {
        let mut command = Command::new(binary());
        command.args(["demo"]).env("TB_ENGINE", "io_uring").env("TCP_PORT_LPO", "0").env("UDP_PORT_LPO", "0");
        command
            .env("TCP_PORT_LRS", "0")
            .env("UDP_PORT_LRS", "0")
            .env("HEALTH_PORT_LPO", "0")
            .env("HEALTH_PORT_LRS", "0");
        command.stdin(Stdio::null()).output().expect("it runs")
    });
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("EPERM") && said.contains("TB_ENGINE"), "{said}");
}
