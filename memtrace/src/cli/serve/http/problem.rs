//! What is wrong, as RFC 9457 has it.

use axum::{
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use serde_json::json;

/// An answer that is an error, with what is wrong in words.
pub(super) struct Problem(pub(super) StatusCode, pub(super) String);

impl Problem {
    pub(super) fn bad(detail: &str) -> Self {
        Self(StatusCode::BAD_REQUEST, detail.to_owned())
    }

    pub(super) fn not_found(detail: &str) -> Self {
        Self(StatusCode::NOT_FOUND, detail.to_owned())
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let Self(status, detail) = self;
        let title = status.canonical_reason().unwrap_or_default();
        let body = json!({"status": status.as_u16(), "title": title, "detail": detail});
        let kind = [(header::CONTENT_TYPE, "application/problem+json")];
        (status, kind, body.to_string()).into_response()
    }
}
