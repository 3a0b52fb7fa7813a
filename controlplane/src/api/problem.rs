//! Error answers of the control plane: the same documents as a shard's, with a request id besides.
//!
//! The id is random, stands in the body and in `X-Request-Id`, and means nothing outside the log line it leads to.

use crate::keys::{random_bytes, to_hex};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use dataplane_core::render::{retry_after_s, usual_detail};
use serde_json::{Map, Value, json};
use shared::code::Code;

/// One error answer.
#[derive(Debug)]
pub struct Problem {
    code: Code,
    detail: String,
    more: Map<String, Value>,
}

impl From<Code> for Problem {
    /// The error in its usual words.
    fn from(code: Code) -> Self {
        Self::saying(code, usual_detail(code))
    }
}

impl Problem {
    /// The error in words of its own.
    #[must_use]
    pub fn saying(code: Code, detail: impl Into<String>) -> Self {
        Self { code, detail: detail.into(), more: Map::new() }
    }

    /// The same error with a further member.
    #[must_use]
    pub fn with(mut self, name: &str, value: Value) -> Self {
        self.more.insert(name.to_owned(), value);
        self
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let Self { code, detail, more } = self;
        let id = to_hex(&random_bytes::<8>());
        tracing::debug!(request_id = %id, code = code.name(), detail, "refused");
        let mut document = json!({
            "type": format!("/docs#{}", code.name()),
            "title": code.title(),
            "status": code.status(),
            "code": code.name(),
            "detail": detail,
            "request_id": id,
        });
        if let Some(members) = document.as_object_mut() {
            members.extend(more);
        }
        let status = StatusCode::from_u16(code.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let kind = [(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"))];
        let mut response = (status, kind, document.to_string()).into_response();
        // Whoever counts the answer reads the code here.
        response.extensions_mut().insert(code);
        let headers = response.headers_mut();
        headers.extend(HeaderValue::from_str(&id).map(|id| (header::HeaderName::from_static("x-request-id"), id)).ok());
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if let Some(seconds) = retry_after_s(code, tuning::clock::now().wall_ms) {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}
