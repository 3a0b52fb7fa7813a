//! Who asks, and how much they may ask: the key directory, allowances, marks, leases.
//!
//! A key's text is never kept here, only its SHA-256. This module does not know how a key travels in a request.

mod allowance;
mod directory;
mod gate;
mod leases;
mod marks;
mod overlay;
mod sharing;
mod table;

pub use allowance::SecondState;
pub use directory::{KeyDirectory, Keys};
pub use gate::{Admitted, Caller, Gate, KeyMemo};
pub use overlay::Amendment;
pub use sharing::{KeySecond, Sharing};

use core::hint::black_box;
use sha2::{Digest, Sha256};

/// SHA-256 of a key's text: how a key is stored everywhere.
#[must_use]
pub fn hash_text(text: &[u8]) -> [u8; 32] {
    Sha256::digest(text).into()
}

/// Whether two secrets of one length are the same, in a time that does not depend on where they differ.
#[must_use]
pub(crate) fn same_secret<const N: usize>(one: &[u8; N], other: &[u8; N]) -> bool {
    let difference = one.iter().zip(other).fold(0, |sum, (one, other)| sum | (one ^ other));
    black_box(difference) == 0
}
