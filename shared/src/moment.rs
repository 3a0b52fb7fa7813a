//! Time as a value: whoever needs it is handed a `Moment`; nobody here reads a clock.

/// One instant, by two clocks read together.
///
/// Ages and deadlines use `mono_ns` only: it never jumps and counts suspended time. `wall_ms` is for showing
/// and for comparing with other machines' clocks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Moment {
    /// Nanoseconds since boot, suspended time included (`CLOCK_BOOTTIME`).
    pub mono_ns: u64,
    /// Unix time, milliseconds UTC.
    pub wall_ms: u64,
}

impl Moment {
    /// Milliseconds since boot.
    #[inline]
    #[must_use]
    pub const fn mono_ms(self) -> u64 {
        self.mono_ns / 1_000_000
    }

    /// Milliseconds from `earlier_mono_ns` until now; 0 when that lies ahead (two clocks read on two cores).
    #[inline]
    #[must_use]
    pub const fn ms_since(self, earlier_mono_ns: u64) -> u64 {
        self.mono_ns.saturating_sub(earlier_mono_ns) / 1_000_000
    }

    /// This moment moved forward by `ms` on both clocks. For tests and simulations.
    #[must_use]
    pub const fn plus_ms(self, ms: u64) -> Self {
        Self { mono_ns: self.mono_ns + ms * 1_000_000, wall_ms: self.wall_ms + ms }
    }
}
