//! Where secrets come from that no setting holds: a store of secrets that is asked by name.
//!
//! What a secret holds and opens is its user's to know. The one source there is lies behind the feature `aws`, because
//! its SDK would double what is built; everything that uses a source is built and tested without it.

use crate::keys::Secret;
use async_trait::async_trait;
use std::sync::Arc;

/// Whether this program can fetch a secret.
pub const BUILT_IN: bool = cfg!(feature = "aws");

/// One secret, to be fetched as often as is needed.
#[async_trait]
pub trait SecretSource: Send + Sync {
    /// Fetches its present value. May take long: the caller bounds it, and may give it up at any time.
    ///
    /// # Errors
    /// Why not, and what to do, without any part of the value.
    async fn fetch(&self) -> Result<Secret, String>;
}

/// The secret called `name`, a name or an ARN, in AWS Secrets Manager of `region`. Nothing is asked yet.
///
/// # Errors
/// When this program was built without the feature `aws`.
#[cfg(feature = "aws")]
pub fn source(name: &str, region: &str) -> anyhow::Result<Arc<dyn SecretSource>> {
    Ok(Arc::new(aws::SecretsManager::new(name, region)))
}

/// As with the feature; without it, what to do instead.
///
/// # Errors
/// Always.
#[cfg(not(feature = "aws"))]
pub fn source(_name: &str, _region: &str) -> anyhow::Result<Arc<dyn SecretSource>> {
    anyhow::bail!("DB_SECRET_NAME: this program is built without the feature aws: set DATABASE_URL")
}

#[cfg(feature = "aws")]
#[async_trait]
impl SecretSource for aws::SecretsManager {
    async fn fetch(&self) -> Result<Secret, String> {
        self.value().await.map(Secret::new)
    }
}
