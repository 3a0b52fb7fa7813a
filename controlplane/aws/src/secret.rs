//! A secret of Secrets Manager: its value, asked for once a call.
//!
//! No word of an answer is told on: it could be the secret's.

use super::{cause, settings, shortened};
use aws_sdk_secretsmanager::Client;
use aws_sdk_secretsmanager::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_secretsmanager::operation::get_secret_value::GetSecretValueError;
use std::sync::OnceLock;

/// A secret in AWS Secrets Manager.
pub struct SecretsManager {
    name: String,
    region: String,
    /// Made when it is first used: it reads the environment and files.
    client: OnceLock<Client>,
}

impl SecretsManager {
    /// The secret called `name`, a name or an ARN, in `region`. Nothing is read or asked yet.
    #[must_use]
    pub fn new(name: &str, region: &str) -> Self {
        Self { name: name.to_owned(), region: region.to_owned(), client: OnceLock::new() }
    }

    /// Asks once for its present value, however long that takes.
    ///
    /// # Errors
    /// Why not, and what to do, without any part of the value.
    pub async fn value(&self) -> Result<String, String> {
        let answer = self.client().await.get_secret_value().secret_id(&self.name).send().await;
        let answer = answer.map_err(|error| told(&error))?;
        answer.secret_string.ok_or_else(|| "it holds bytes, not a text: store it as a text".to_owned())
    }

    async fn client(&self) -> Client {
        if let Some(client) = self.client.get() {
            return client.clone();
        }
        let config = settings(&self.region).load().await;
        self.client.get_or_init(|| Client::new(&config)).clone()
    }
}

/// What went wrong, for people.
fn told(error: &SdkError<GetSecretValueError>) -> String {
    match (error, error.code()) {
        (SdkError::ServiceError(_), Some(code)) => match code {
            "ResourceNotFoundException" => {
                "there is none of that name: see that DB_SECRET_NAME and AWS_REGION are right".to_owned()
            }
            "AccessDeniedException" => {
                "reading it is not allowed: allow this role secretsmanager:GetSecretValue on it".to_owned()
            }
            code => format!("Secrets Manager refused with {}", shortened(code)),
        },
        (SdkError::TimeoutError(_), _) => "no answer in time".to_owned(),
        (SdkError::DispatchFailure(_) | SdkError::ConstructionFailure(_), _) => {
            format!("it could not be asked for: {}; see that the network and a role lead there", cause(error))
        }
        // The answer's own words could be the secret's.
        _ => "the answer is not one of Secrets Manager".to_owned(),
    }
}
