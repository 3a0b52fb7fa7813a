//! Whether io_uring is to be had here, found out by using it: real size, real flags, a buffer ring, one round trip.

/// Why the ring was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub enum RingRefused {
    /// `EPERM`: a seccomp profile or the `kernel.io_uring_disabled` sysctl. AWS Fargate always.
    Denied,
    /// `ENOSYS`: the kernel is older than io_uring, or built without it.
    Missing,
    /// `EINVAL`: the kernel is too old for the flags or the buffer ring that the engine needs.
    TooOld,
    /// `ENOMEM`: raise the memlock limit. Not a reason to fall back.
    NoMemory,
    /// `EMFILE` or `ENFILE`: raise the nofile limit. Not a reason to fall back.
    NoFiles,
    /// Another errno: shown as it is. Not a reason to fall back.
    Other(i32),
}

/// What the probe found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct RingVerdict {
    /// Whether `FIXED_FD_INSTALL` works (Linux 6.8): accept into direct descriptors.
    pub direct_descriptors: bool,
}

/// Probes io_uring.
///
/// # Errors
/// Why it is not to be had.
pub fn probe() -> Result<RingVerdict, RingRefused> {
    unimplemented!()
}
