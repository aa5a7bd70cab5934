//! Why a request was not done, as the reader sees it and as the log does.

use crate::database::QueryError;
use crate::password::HashError;
use axum::http::{StatusCode, header};
use axum::response::{Html, IntoResponse, Response};
use std::error::Error;

#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error("there is no such page")]
    NotFound,
    #[error("this belongs to somebody else")]
    Forbidden,
    #[error("this form was not made for you, or has grown old")]
    ForgedForm,
    #[error("{0}")]
    Invalid(&'static str),
    #[error("too many attempts")]
    TooMany,
    #[error("too much at once")]
    TooLarge,
    #[error("the database does not answer as it should")]
    Query(#[from] QueryError),
    #[error("the password could not be checked")]
    Password(#[from] HashError),
    #[error("a picture could not be read or written")]
    Picture(#[source] std::io::Error),
}

impl Failure {
    fn status(&self) -> StatusCode {
        match self {
            Failure::NotFound => StatusCode::NOT_FOUND,
            Failure::Forbidden | Failure::ForgedForm => StatusCode::FORBIDDEN,
            Failure::Invalid(_) => StatusCode::UNPROCESSABLE_ENTITY,
            Failure::TooMany => StatusCode::TOO_MANY_REQUESTS,
            Failure::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Failure::Query(_) | Failure::Password(_) | Failure::Picture(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// What the reader can do.
    fn hint(&self) -> &'static str {
        match self {
            Failure::NotFound => "It may have been unpublished or deleted. The search may find it elsewhere.",
            Failure::Forbidden => "Log in as its author to change it.",
            Failure::ForgedForm => "Go back, reload the page and send it again.",
            Failure::Invalid(_) => "Go back and change it; the browser still has what you wrote.",
            Failure::TooMany => "Wait a quarter of an hour and try again.",
            Failure::TooLarge => "Pictures may have 5 MiB, texts 200,000 characters.",
            Failure::Query(_) | Failure::Password(_) | Failure::Picture(_) => {
                "Nothing was changed. Try again in a moment; the operator finds the reason in the log."
            }
        }
    }

    /// The whole chain of causes, for the log.
    fn chain(&self) -> String {
        let mut text = self.to_string();
        let mut source = self.source();
        while let Some(inner) = source {
            text.push_str(": ");
            text.push_str(&inner.to_string());
            source = inner.source();
        }
        text
    }
}

/// Put on an answer for the log to find: what really went wrong.
#[derive(Debug, Clone)]
pub(crate) struct Cause(pub(crate) String);

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let status = self.status();
        let page = crate::view::failure(status.as_u16(), &self.to_string(), self.hint());
        let mut response = (status, Html(page.into_string())).into_response();
        if status == StatusCode::TOO_MANY_REQUESTS {
            response.headers_mut().insert(header::RETRY_AFTER, header::HeaderValue::from_static("900"));
        }
        if status.is_server_error() {
            response.extensions_mut().insert(Cause(self.chain()));
        }
        response
    }
}
