//! Which engine all shards run, and why: decided once, before anything is bound.
//!
//! epoll takes over only where io_uring is *unavailable*. Where it is merely short of something the start is refused,
//! saying what to raise: a node that silently ran slower than its neighbours would be worse than one that did not start.

use crate::facade::StartRefused;
use tuning::ring_probe::{RingRefused, RingVerdict};

/// What `TB_ENGINE` may say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EngineChoice {
    /// io_uring where it is to be had, else epoll, saying why.
    #[default]
    Auto,
    /// io_uring or do not start.
    IoUring,
    /// epoll.
    Epoll,
}

/// What moves bytes for the shards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Engine {
    /// io_uring.
    IoUring,
    /// epoll.
    Epoll,
}

/// The decision.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Chosen {
    pub(crate) engine: Engine,
    /// One line.
    pub(crate) reason: String,
    /// Whether io_uring accepts into direct descriptors.
    pub(crate) direct_descriptors: bool,
}

/// Decides. `probe` is asked only where its answer matters.
pub(crate) fn choose(
    wanted: EngineChoice,
    probe: impl FnOnce() -> Result<RingVerdict, RingRefused>,
) -> Result<Chosen, StartRefused> {
    let epoll = |reason| Chosen { engine: Engine::Epoll, reason, direct_descriptors: false };
    if wanted == EngineChoice::Epoll {
        return Ok(epoll("epoll: TB_ENGINE=epoll".to_owned()));
    }
    match probe() {
        Ok(RingVerdict { direct_descriptors }) => {
            let accepts = if direct_descriptors { "direct" } else { "ordinary (FIXED_FD_INSTALL needs Linux 6.8)" };
            let asked = if wanted == EngineChoice::IoUring { "TB_ENGINE=io_uring; " } else { "" };
            let reason = format!("io_uring: {asked}the probe passed, descriptors are {accepts}");
            Ok(Chosen { engine: Engine::IoUring, reason, direct_descriptors })
        }
        Err(refused) if wanted == EngineChoice::Auto && refused.is_unavailable() => {
            Ok(epoll(format!("epoll: io_uring is {refused}; to have it, {}", refused.remedy())))
        }
        Err(refused) => Err(StartRefused::Engine(format!("io_uring: {refused}: {}", refused.remedy()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use EngineChoice::{Auto, Epoll, IoUring};

    const GOOD: Result<RingVerdict, RingRefused> = Ok(RingVerdict { direct_descriptors: true });
    const OLDER: Result<RingVerdict, RingRefused> = Ok(RingVerdict { direct_descriptors: false });

    #[track_caller]
    fn check(wanted: EngineChoice, probe: Result<RingVerdict, RingRefused>, engine: Option<Engine>, says: &str) {
        match choose(wanted, || probe) {
            Ok(chosen) => {
                assert_eq!(Some(chosen.engine), engine);
                assert!(chosen.reason.contains(says), "{}", chosen.reason);
                assert!(!chosen.reason.contains('\n'));
                assert_eq!(chosen.direct_descriptors, probe == GOOD && chosen.engine == Engine::IoUring);
            }
            Err(refused) => {
                assert_eq!(engine, None, "{refused}");
                assert!(refused.to_string().contains(says), "{refused}");
            }
        }
    }

    #[test]
    fn io_uring_where_it_is_to_be_had() {
        check(Auto, GOOD, Some(Engine::IoUring), "direct");
        check(Auto, OLDER, Some(Engine::IoUring), "ordinary");
        check(IoUring, GOOD, Some(Engine::IoUring), "TB_ENGINE=io_uring");
        check(Epoll, GOOD, Some(Engine::Epoll), "TB_ENGINE=epoll");
    }

    #[test]
    fn unavailable_is_a_reason_to_fall_back_unless_it_was_demanded() {
        for (refused, errno) in
            [(RingRefused::Denied, "EPERM"), (RingRefused::Missing, "ENOSYS"), (RingRefused::TooOld, "EINVAL")]
        {
            check(Auto, Err(refused), Some(Engine::Epoll), errno);
            check(IoUring, Err(refused), None, errno);
        }
    }

    #[test]
    fn a_lack_of_resources_is_not() {
        for (refused, raise) in [(RingRefused::NoMemory, "memlock"), (RingRefused::NoFiles, "nofile")] {
            check(Auto, Err(refused), None, raise);
            check(IoUring, Err(refused), None, raise);
        }
        check(Auto, Err(RingRefused::Other(5)), None, "TB_ENGINE=epoll");
    }

    #[test]
    fn epoll_does_not_probe() {
        assert!(choose(Epoll, || panic!("not asked for")).is_ok());
    }
}
