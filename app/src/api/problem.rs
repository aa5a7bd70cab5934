//! Refusals: a status, a code with a page in `docs/errors/`, what was attempted, and what to do.

use axum::Json;
use axum::extract::rejection::{JsonRejection, QueryRejection};
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use control::SpaceError;
use control::stacks::ApplyError;
use serde::de::DeserializeOwned;
use wire::api::Problem;
use wire::diagnostic::Diagnostic;

/// An answer that is not 2xx.
#[derive(Debug)]
pub(super) struct Refusal {
    status: u16,
    problem: Box<Problem>,
}

impl Refusal {
    pub(super) fn new(status: u16, code: &str, message: impl Into<String>) -> Refusal {
        let (code, message) = (code.to_owned(), message.into());
        let problem = Problem { code, message, hint: String::new(), diagnostics: Vec::new() };
        Refusal { status, problem: Box::new(problem) }
    }

    /// As a component says it.
    pub(super) fn of(status: u16, problem: Problem) -> Refusal {
        Refusal { status, problem: Box::new(problem) }
    }

    /// What it says.
    pub(super) fn problem(&self) -> &Problem {
        &self.problem
    }

    /// Of `what`, as "node n1 was", between reading and writing.
    pub(super) fn changed_meanwhile(what: &str) -> Refusal {
        Refusal::new(409, "B0107", format!("{what} changed by somebody else")).hint("try again")
    }

    pub(super) fn hint(mut self, hint: impl Into<String>) -> Refusal {
        self.problem.hint = hint.into();
        self
    }

    pub(super) fn diagnostics(mut self, diagnostics: Vec<Diagnostic>) -> Refusal {
        self.problem.diagnostics = diagnostics;
        self
    }

    pub(super) fn into_problem(self) -> Problem {
        *self.problem
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::BAD_REQUEST);
        (status, Json(*self.problem)).into_response()
    }
}

impl From<ApplyError> for Refusal {
    fn from(error: ApplyError) -> Refusal {
        let message = error.to_string();
        match error {
            ApplyError::NoStack(_) => Refusal::new(404, "B0102", message).hint("`bramble stack ls` lists the stacks"),
            ApplyError::NoService { .. } => {
                Refusal::new(404, "B0103", message).hint("`bramble service ls` lists the services")
            }
            ApplyError::NoRevision { .. } => {
                Refusal::new(404, "B0104", message).hint("`bramble stack history` lists the revisions that are kept")
            }
            ApplyError::Removing(_) => {
                Refusal::new(409, "B0105", message).hint("wait until it is gone from `bramble stack ls`")
            }
            ApplyError::PortTaken { .. } => {
                Refusal::new(409, "B0106", message).hint("publish another port, or remove the other service's")
            }
            ApplyError::Contended(_) => Refusal::new(409, "B0107", message).hint("look at it again, then try again"),
            ApplyError::Global { .. } => {
                Refusal::new(422, "B0108", message).hint("set `deploy.mode: replicated` to choose a number")
            }
            ApplyError::NoAddress | ApplyError::NoPort => {
                Refusal::new(409, "B0110", message).hint("remove stacks that are not used")
            }
            ApplyError::Space(error) => error.into(),
        }
    }
}

impl From<SpaceError> for Refusal {
    fn from(error: SpaceError) -> Refusal {
        let (message, hint) = (error.to_string(), error.hint());
        let (status, code) = match error {
            SpaceError::DiskFull | SpaceError::SpaceFull { .. } => (507, "B0301"),
            SpaceError::Unavailable(_) | SpaceError::Protocol(_) => (503, "B0302"),
            SpaceError::ValueTooLarge { .. }
            | SpaceError::TooManyOperations { .. }
            | SpaceError::TooManyKeys { .. }
            | SpaceError::TransactionTooLarge { .. } => (413, "B0303"),
            SpaceError::KeyEmpty
            | SpaceError::KeyTooLong { .. }
            | SpaceError::DuplicateKey { .. }
            | SpaceError::NotWritable { .. }
            | SpaceError::NotJson { .. }
            | SpaceError::LeaseNotFound { .. }
            | SpaceError::LeaseDuration { .. }
            | SpaceError::LeaseExists
            | SpaceError::KeyNotFound
            | SpaceError::AnswerTooLarge { .. } => (422, "B0304"),
        };
        Refusal::new(status, code, message).hint(hint)
    }
}

impl From<JsonRejection> for Refusal {
    fn from(rejection: JsonRejection) -> Refusal {
        if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE {
            return Refusal::new(413, "B0203", "the body is larger than 24 MiB")
                .hint("a stack file stays below 10 MiB");
        }
        Refusal::new(400, "B0202", rejection.body_text()).hint("`GET /v1/openapi.json` says what a body looks like")
    }
}

impl From<QueryRejection> for Refusal {
    fn from(rejection: QueryRejection) -> Refusal {
        Refusal::new(400, "B0202", rejection.body_text()).hint("`GET /v1/openapi.json` lists the parameters")
    }
}

/// A JSON body whose refusal is one of ours.
pub(super) struct Body<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Body<T> {
    type Rejection = Refusal;

    async fn from_request(request: Request, state: &S) -> Result<Self, Refusal> {
        let Json(value) = Json::from_request(request, state).await?;
        Ok(Body(value))
    }
}

/// Query parameters whose refusal is one of ours.
pub(super) struct Query<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Query<T> {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        let axum::extract::Query(value) = axum::extract::Query::from_request_parts(parts, state).await?;
        Ok(Query(value))
    }
}

pub(super) async fn wrong_method() -> Refusal {
    Refusal::new(405, "B0205", "this path does not take this method").hint("`GET /v1/openapi.json` lists the methods")
}
