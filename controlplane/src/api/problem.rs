//! Error answers of the control plane: the same documents as a shard's, with a request id besides.
//!
//! The id is random, stands in the body and in `X-Request-Id`, and means nothing outside the log line it leads to.
//! Administration has a few codes of its own, which no price read and no usage record can have.

use crate::cache::CacheError;
use crate::keys::{random_bytes, to_hex};
use crate::store::StoreError;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use dataplane_core::render::{retry_after_s, usual_detail};
use serde_json::{Value, json};
use shared::code::Code;

/// What an administrator is told to wait where a store or a cache is away, s: both are looked for all the time.
const AWAY_RETRY_S: u64 = 1;

/// Why an administrator's wish was not carried out, where no price read could fail so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AdminCode {
    /// The database is away, or its schema is not this program's.
    StoreUnavailable,
    /// The cache is away.
    CacheUnavailable,
    /// What was to be changed has changed in between, or clashes with what is there.
    Conflict,
    /// The body is larger than any that means something.
    BodyTooLarge,
}

impl AdminCode {
    /// Every one.
    pub const ALL: [Self; 4] = [Self::StoreUnavailable, Self::CacheUnavailable, Self::Conflict, Self::BodyTooLarge];

    /// The name in problem documents.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::StoreUnavailable => "store_unavailable",
            Self::CacheUnavailable => "cache_unavailable",
            Self::Conflict => "conflict",
            Self::BodyTooLarge => "body_too_large",
        }
    }

    /// The HTTP status that goes with it.
    #[must_use]
    pub const fn status(self) -> u16 {
        match self {
            Self::StoreUnavailable | Self::CacheUnavailable => 503,
            Self::Conflict => 409,
            Self::BodyTooLarge => 413,
        }
    }

    /// A short human title.
    #[must_use]
    pub const fn title(self) -> &'static str {
        match self {
            Self::StoreUnavailable => "The database cannot be used now",
            Self::CacheUnavailable => "The cache cannot be used now",
            Self::Conflict => "It clashes with what is there",
            Self::BodyTooLarge => "The body is too large",
        }
    }

    /// What it means and what to do.
    #[must_use]
    pub const fn usual_detail(self) -> &'static str {
        match self {
            Self::StoreUnavailable => "Prices are served without it. Try again when it is back; the detail says why.",
            Self::CacheUnavailable => "Prices are served without it. Try again when it is back; the detail says why.",
            Self::Conflict => "Look at what stands there now, and ask again.",
            Self::BodyTooLarge => "Send less at a time.",
        }
    }
}

/// One error answer.
#[derive(Debug)]
pub struct Problem {
    name: &'static str,
    title: &'static str,
    status: u16,
    code: Option<Code>,
    retry_after_s: Option<u64>,
    detail: String,
    more: Vec<(String, Value)>,
}

impl From<Code> for Problem {
    /// The error in its usual words.
    fn from(code: Code) -> Self {
        Self::saying(code, usual_detail(code))
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::NotFound => Self::saying(Code::NotFound, error.to_string()),
            StoreError::Busy(why) => Self::saying(Code::Overloaded, why),
            StoreError::Conflict(why) => Self::administrating(AdminCode::Conflict, why),
            StoreError::Invalid(why) => Self::unprocessable(why, Value::Array(Vec::new())),
            StoreError::Unreachable(_) | StoreError::NotMigrated(_) | StoreError::Broken(_) => {
                Self::administrating(AdminCode::StoreUnavailable, error.to_string())
            }
        }
    }
}

impl From<CacheError> for Problem {
    fn from(error: CacheError) -> Self {
        Self::administrating(AdminCode::CacheUnavailable, error.to_string())
    }
}

impl Problem {
    /// The error in words of its own.
    #[must_use]
    pub fn saying(code: Code, detail: impl Into<String>) -> Self {
        Self {
            name: code.name(),
            title: code.title(),
            status: code.status(),
            code: Some(code),
            retry_after_s: retry_after_s(code, tuning::clock::now().wall_ms),
            detail: detail.into(),
            more: Vec::new(),
        }
    }

    /// An error that only administration has.
    #[must_use]
    pub fn administrating(code: AdminCode, detail: impl Into<String>) -> Self {
        Self {
            name: code.name(),
            title: code.title(),
            status: code.status(),
            code: None,
            retry_after_s: (code.status() == 503).then_some(AWAY_RETRY_S),
            detail: detail.into(),
            more: Vec::new(),
        }
    }

    /// A well-formed wish whose values will not do: 422 `parameter_invalid`, with every fault of it.
    #[must_use]
    pub fn unprocessable(detail: impl Into<String>, errors: Value) -> Self {
        Self { status: 422, ..Self::saying(Code::ParameterInvalid, detail) }.with("errors", errors)
    }

    /// Its HTTP status.
    #[must_use]
    pub const fn status(&self) -> u16 {
        self.status
    }

    /// Its code's name.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// In other words, where it is `code`.
    #[must_use]
    pub fn reworded(self, code: AdminCode, detail: &str) -> Self {
        if self.name != code.name() {
            return self;
        }
        tracing::debug!(detail = self.detail, "told in other words");
        Self { detail: detail.to_owned(), ..self }
    }

    /// The same error with a further member.
    #[must_use]
    pub fn with(mut self, name: &str, value: Value) -> Self {
        self.more.push((name.to_owned(), value));
        self
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let Self { name, title, status, code, retry_after_s, detail, more } = self;
        let id = to_hex(&random_bytes::<8>());
        tracing::debug!(request_id = %id, code = name, detail, "refused");
        let mut document = json!({
            "type": format!("/docs#{name}"),
            "title": title,
            "status": status,
            "code": name,
            "detail": detail,
            "request_id": id,
        });
        if let Some(members) = document.as_object_mut() {
            members.extend(more);
        }
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let kind = [(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"))];
        let mut response = (status, kind, document.to_string()).into_response();
        if let Some(code) = code {
            // Whoever counts the answer reads the code here.
            response.extensions_mut().insert(code);
        }
        let headers = response.headers_mut();
        headers.extend(HeaderValue::from_str(&id).map(|id| (header::HeaderName::from_static("x-request-id"), id)).ok());
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if let Some(seconds) = retry_after_s {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}
