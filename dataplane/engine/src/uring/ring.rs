//! The ring itself: entries in, completions out, and how many operations the kernel still holds.
//!
//! Knowing that number is what makes it safe to free memory at the end: nothing is freed before it is zero.

use super::operation;
use io_uring::squeue::Entry;
use io_uring::{CompletionQueue, SubmissionQueue, Submitter, cqueue};
use std::io;
use tuning::ring_probe::COMPLETION_ENTRIES;

/// What the kernel says of an operation.
#[derive(Clone, Copy, Debug)]
pub(super) struct Completion {
    pub(super) number: u64,
    pub(super) result: i32,
    flags: u32,
}

impl Completion {
    /// Whether the operation goes on: more completions will come.
    #[inline]
    pub(super) fn goes_on(self) -> bool {
        cqueue::more(self.flags)
    }

    /// The receive buffer that was filled.
    #[inline]
    pub(super) fn buffer(self) -> Option<u16> {
        cqueue::buffer_select(self.flags)
    }

    /// The errno of a failure, 0 of a success.
    #[inline]
    pub(super) fn errno(self) -> i32 {
        if self.result < 0 { -self.result } else { 0 }
    }
}

/// One shard's ring.
pub(super) struct Ring<'ring> {
    submitter: Submitter<'ring>,
    entries: SubmissionQueue<'ring>,
    completions: CompletionQueue<'ring>,
    /// Operations pushed whose last completion was not taken.
    outstanding: u64,
    overflows: u64,
    taken: Vec<Completion>,
}

impl<'ring> Ring<'ring> {
    pub(super) fn new(
        submitter: Submitter<'ring>,
        entries: SubmissionQueue<'ring>,
        completions: CompletionQueue<'ring>,
    ) -> Self {
        let taken = Vec::with_capacity(COMPLETION_ENTRIES as usize);
        Self { submitter, entries, completions, outstanding: 0, overflows: 0, taken }
    }

    /// Times the completion queue was found to have overflowed.
    pub(super) fn overflows(&self) -> u64 {
        self.overflows
    }

    /// Queues an entry for the next submission; submits at once when the queue is full.
    ///
    /// # Safety
    /// What the entry points at must stay where it is until the operation's last completion.
    #[inline]
    pub(super) unsafe fn push(&mut self, entry: &Entry) {
        self.outstanding += 1;
        // SAFETY: the caller's promise.
        while unsafe { self.entries.push(entry) }.is_err() {
            // An error is for now: memory is short, or completions must be taken before more is submitted.
            if self.submit(0).is_err() {
                self.take();
            }
        }
    }

    /// Submits what is queued and waits for at least one completion. Interruptions and shortages are no errors: the
    /// caller takes completions and comes back.
    ///
    /// # Errors
    /// What the kernel says that will not pass.
    #[inline]
    pub(super) fn wait(&mut self) -> io::Result<()> {
        match self.submit(1).map_err(|error| (error.raw_os_error(), error)) {
            Ok(()) | Err((Some(libc::EINTR | libc::EAGAIN | libc::EBUSY), _)) => Ok(()),
            Err((_, error)) => Err(error),
        }
    }

    #[inline]
    fn submit(&mut self, wanted: usize) -> io::Result<()> {
        self.entries.sync();
        // The library asks the kernel to bring parked completions along when there are any.
        self.overflows += u64::from(self.entries.cq_overflow());
        let submitted = self.submitter.submit_and_wait(wanted).map(drop);
        self.entries.sync();
        submitted
    }

    /// Takes every completion that is there.
    #[inline]
    pub(super) fn take(&mut self) {
        self.completions.sync();
        for entry in &mut self.completions {
            let completion = Completion { number: entry.user_data(), result: entry.result(), flags: entry.flags() };
            self.outstanding -= u64::from(!completion.goes_on());
            self.taken.push(completion);
        }
        self.completions.sync();
    }

    /// How many completions were taken that the loop is not done with.
    #[inline]
    pub(super) fn taken(&self) -> usize {
        self.taken.len()
    }

    /// The completion at `place`, which must be below [`Ring::taken`].
    #[inline]
    pub(super) fn at(&self, place: usize) -> Completion {
        self.taken[place]
    }

    /// The loop is done with the first `count` completions.
    #[inline]
    pub(super) fn forget(&mut self, count: usize) {
        self.taken.drain(..count);
    }

    /// Ends every operation and waits until the kernel holds none; `false` when the ring does not answer any more.
    pub(super) fn quiesce(&mut self) -> bool {
        self.take();
        while self.outstanding > 0 {
            // SAFETY: it points at nothing.
            unsafe { self.push(&operation::cancel_all()) };
            if self.wait().is_err() {
                return false;
            }
            self.take();
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::uring::operation::{Kind, nudge, timer};
    use io_uring::IoUring;
    use io_uring::types::Timespec;

    /// A ring of the engine's flags, but with this few entries. `None` where there is no io_uring.
    fn small(entries: u32, completions: u32) -> Option<IoUring> {
        let mut builder = tuning::ring_probe::ring_builder();
        builder.setup_cqsize(completions);
        match builder.build(entries) {
            Ok(ring) => Some(ring),
            Err(error) => {
                eprintln!("skipped: no io_uring here: {error}");
                None
            }
        }
    }

    #[test]
    fn nothing_is_lost_when_both_queues_overflow() {
        let Some(mut ring) = small(8, 16) else { return };
        let (submitter, entries, completions) = ring.split();
        let mut ring = Ring::new(submitter, entries, completions);
        for _ in 0..100 {
            // SAFETY: it points at nothing.
            unsafe { ring.push(&nudge()) };
        }
        let mut seen = 0;
        while seen < 100 {
            ring.wait().expect("the ring answers");
            ring.take();
            let count = ring.taken();
            let list = (0..count).map(|place| ring.at(place));
            assert!(list.into_iter().all(|one| one.errno() == 0 && !one.goes_on() && one.buffer().is_none()));
            seen += count;
            ring.forget(count);
        }
        assert_eq!((seen, ring.outstanding), (100, 0));
        assert!(ring.overflows() > 0, "100 completions do not fit 16 places");
    }

    #[test]
    fn the_end_waits_for_what_is_in_flight() {
        static LONG: Timespec = Timespec::new().sec(3_600);
        let Some(mut ring) = small(8, 16) else { return };
        let (submitter, entries, completions) = ring.split();
        let mut ring = Ring::new(submitter, entries, completions);
        for _ in 0..20 {
            // SAFETY: the period is static.
            unsafe { ring.push(&timer(&LONG)) };
        }
        assert!(ring.quiesce());
        assert_eq!(ring.outstanding, 0);
        let timers = (0..ring.taken()).filter(|place| ring.at(*place).number == Kind::Timer.alone()).count();
        assert_eq!(timers, 20, "each was ended");
    }
}
