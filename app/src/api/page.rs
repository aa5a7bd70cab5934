//! The dashboard's files, and the page itself for every path that is a view of it.

use super::problem::Refusal;
use axum::extract::Request;
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, IF_NONE_MATCH, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse, Response};

pub(super) async fn serve(request: Request) -> Response {
    let path = request.uri().path();
    if path.starts_with("/v1/") || (request.method() != Method::GET && request.method() != Method::HEAD) {
        return Refusal::new(404, "B0204", format!("nothing is at {path}"))
            .hint("`GET /v1/openapi.json` lists the paths")
            .into_response();
    }
    let name = path.trim_start_matches('/');
    // A name with a dot is a file; anything else is a view of the page, which finds its own way.
    let found = dashboard::asset(if name.is_empty() || !name.contains('.') { dashboard::INDEX } else { name });
    let Some(asset) = found else {
        return Refusal::new(404, "B0204", format!("nothing is at {path}"))
            .hint("the dashboard is at /")
            .into_response();
    };
    let known = request.headers().get(IF_NONE_MATCH).and_then(|value| value.to_str().ok());
    if known == Some(asset.etag.as_str()) {
        return StatusCode::NOT_MODIFIED.into_response();
    }
    let caching = if asset.immutable { "public, max-age=31536000, immutable" } else { "no-cache" };
    let headers = [
        (CONTENT_TYPE, asset.content_type.to_owned()),
        (CACHE_CONTROL, caching.to_owned()),
        (ETAG, asset.etag),
        (CONTENT_SECURITY_POLICY, dashboard::CONTENT_SECURITY_POLICY.to_owned()),
        (X_CONTENT_TYPE_OPTIONS, "nosniff".to_owned()),
    ];
    (headers, asset.bytes.into_owned()).into_response()
}
