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
    /// monoio or do not start.
    #[cfg(feature = "monoio")]
    Monoio,
    /// glommio or do not start.
    #[cfg(feature = "glommio")]
    Glommio,
}

impl EngineChoice {
    /// The choice with this name: `auto`, or the name of an engine of this build.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        let engine = || Engine::ALL.iter().find(|engine| engine.name() == name);
        if name == "auto" { Some(Self::Auto) } else { engine().map(|engine| engine.choice()) }
    }
}

/// What moves bytes for the shards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Engine {
    /// io_uring.
    IoUring,
    /// epoll.
    Epoll,
    /// The monoio runtime.
    #[cfg(feature = "monoio")]
    Monoio,
    /// The glommio runtime.
    #[cfg(feature = "glommio")]
    Glommio,
}

impl Engine {
    /// Every engine of this build. The rivals are in it only with the cargo features of their names.
    pub const ALL: &[Self] = &[
        Self::IoUring,
        Self::Epoll,
        #[cfg(feature = "monoio")]
        Self::Monoio,
        #[cfg(feature = "glommio")]
        Self::Glommio,
    ];

    /// Its name in settings, answers and metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::IoUring => "io_uring",
            Self::Epoll => "epoll",
            #[cfg(feature = "monoio")]
            Self::Monoio => "monoio",
            #[cfg(feature = "glommio")]
            Self::Glommio => "glommio",
        }
    }

    /// The choice that runs this engine or none.
    #[must_use]
    pub const fn choice(self) -> EngineChoice {
        match self {
            Self::IoUring => EngineChoice::IoUring,
            Self::Epoll => EngineChoice::Epoll,
            #[cfg(feature = "monoio")]
            Self::Monoio => EngineChoice::Monoio,
            #[cfg(feature = "glommio")]
            Self::Glommio => EngineChoice::Glommio,
        }
    }
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
    match wanted {
        EngineChoice::Epoll => return Ok(epoll("epoll: TB_ENGINE=epoll".to_owned())),
        #[cfg(feature = "monoio")]
        EngineChoice::Monoio => return rival(Engine::Monoio, probe()),
        #[cfg(feature = "glommio")]
        EngineChoice::Glommio => return rival(Engine::Glommio, probe()),
        EngineChoice::Auto | EngineChoice::IoUring => {}
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

/// A rival engine starts where the probe passes, and nowhere else: glommio would panic, and monoio on epoll would be
/// another engine under the same name.
#[cfg(any(feature = "monoio", feature = "glommio"))]
fn rival(engine: Engine, probed: Result<RingVerdict, RingRefused>) -> Result<Chosen, StartRefused> {
    let name = engine.name();
    match probed {
        Ok(_verdict) => {
            let reason = format!("{name}: TB_ENGINE={name}; the probe of io_uring, which it runs on, passed");
            Ok(Chosen { engine, reason, direct_descriptors: false })
        }
        Err(refused) => {
            let remedy = refused.remedy();
            Err(StartRefused::Engine(format!("{name}: io_uring, which it runs on: {refused}: {remedy}")))
        }
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
    fn every_engine_has_a_name_of_its_own() {
        for engine in Engine::ALL {
            assert_eq!(EngineChoice::from_name(engine.name()), Some(engine.choice()));
        }
        assert_eq!(EngineChoice::from_name("auto"), Some(Auto));
        assert_eq!(EngineChoice::from_name("EPOLL"), None);
        assert_eq!(EngineChoice::from_name("monoio").is_some(), cfg!(feature = "monoio"));
        assert_eq!(EngineChoice::from_name("glommio").is_some(), cfg!(feature = "glommio"));
    }

    #[cfg(any(feature = "monoio", feature = "glommio"))]
    #[test]
    fn a_rival_runs_when_it_is_demanded_and_has_its_ring() {
        for rival in &Engine::ALL[2..] {
            check(rival.choice(), GOOD, Some(*rival), &format!("TB_ENGINE={}", rival.name()));
            for (refused, errno) in [(RingRefused::Denied, "EPERM"), (RingRefused::NoMemory, "ENOMEM")] {
                check(rival.choice(), Err(refused), None, errno);
            }
        }
    }

    #[test]
    fn epoll_does_not_probe() {
        assert!(choose(Epoll, || panic!("not asked for")).is_ok());
    }
}
