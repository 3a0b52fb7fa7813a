//! The database as the place where records are delivered to.

use super::outlet::{Delivery, Outlet, OutletError};
use crate::store::{Committed, Store, StoreError, UsageSpan};
use async_trait::async_trait;
use std::sync::Arc;

/// See the module.
pub struct StoreOutlet(Arc<dyn Store>);

impl StoreOutlet {
    /// One that commits to this store.
    #[must_use]
    pub const fn new(store: Arc<dyn Store>) -> Self {
        Self(store)
    }
}

impl From<StoreError> for OutletError {
    fn from(fault: StoreError) -> Self {
        match fault {
            StoreError::Unreachable(_) | StoreError::NotMigrated(_) => Self::Away(fault.to_string()),
            _ => Self::Refused(fault.to_string()),
        }
    }
}

#[async_trait]
impl Outlet for StoreOutlet {
    fn kind(&self) -> &'static str {
        "database"
    }

    async fn position(&self, node: &str, segment: u64) -> Result<Option<u64>, OutletError> {
        Ok(Some(self.0.usage_position(node, segment).await?))
    }

    async fn deliver(&self, delivery: &Delivery) -> Result<u64, OutletError> {
        let Delivery { node, segment, from, to, rows } = delivery;
        let span = UsageSpan { node, segment: *segment, from: *from, to: *to };
        Ok(match self.0.commit_usage(span, rows).await? {
            Committed::Done => *to,
            Committed::Elsewhere(place) => place,
        })
    }
}
