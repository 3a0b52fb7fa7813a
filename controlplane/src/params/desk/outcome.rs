//! What came of a wish for other parameters, as whoever wished is told. How it came is not known here.

use crate::params::check::ParameterFault;
use crate::store::StoreError;
use serde::Serialize;

/// One parameter that changed; secrets are masked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Change {
    /// Its name.
    pub name: String,
    /// The text before; `null`: no row.
    pub from: Option<String>,
    /// The text after.
    pub to: Option<String>,
}

/// What a reload did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Reloaded {
    /// What is in force now and was not before.
    pub changed: Vec<Change>,
    /// Names among them that do nothing in this version.
    pub without_effect: Vec<String>,
    /// What could not be brought into force on this node, and what to do.
    pub not_applied: Vec<String>,
}

/// What a change of rows did.
#[derive(Debug)]
pub struct Put {
    /// Rows that changed.
    pub stored: Vec<Change>,
    /// What the reload did, where one was asked for; when it failed the rows are stored all the same.
    pub reloaded: Option<Result<Reloaded, DeskError>>,
}

/// Why the desk did not do what was asked. What was in force is in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeskError {
    /// The set will not do: every fault of it.
    Faults(Vec<ParameterFault>),
    /// The store.
    Store(StoreError),
}

impl From<StoreError> for DeskError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// What reloads of this node have come to since its start; those that follow another node's are among them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DeskCounts {
    /// Sets taken over.
    pub reloads: u64,
    /// Sets refused for what stood in them.
    pub refused: u64,
}
