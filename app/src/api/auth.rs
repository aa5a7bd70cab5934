//! Who may call: whoever has the token that `up` printed.

use super::App;
use super::problem::Refusal;
use axum::extract::{Request, State};
use axum::http::header::{AUTHORIZATION, SEC_WEBSOCKET_PROTOCOL};
use axum::middleware::Next;
use axum::response::Response;

/// What is before the token among the protocols that a WebSocket offers.
const OFFERED: &str = "bramble.token.";

pub(super) async fn require(State(app): State<App>, request: Request, next: Next) -> Result<Response, Refusal> {
    let given = request.headers().get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    let token = given.and_then(|value| value.strip_prefix("Bearer "));
    // A browser has no other way to give a WebSocket one.
    let offered = request.headers().get(SEC_WEBSOCKET_PROTOCOL).and_then(|value| value.to_str().ok());
    let offered = offered.into_iter().flat_map(|all| all.split(',')).find_map(|one| one.trim().strip_prefix(OFFERED));
    let token = token.or(offered).unwrap_or_default();
    if same(token.as_bytes(), app.token.as_bytes()) {
        return Ok(next.run(request).await);
    }
    let message = if given.is_none() && offered.is_none() {
        "this needs a token"
    } else {
        "the token is not the one of this cluster"
    };
    Err(Refusal::new(401, "B0201", message)
        .hint("set BRAMBLE_TOKEN to the token `bramble up` printed; it is in the file `token` of the data folder"))
}

/// Compares in a time that depends on the lengths alone.
fn same(one: &[u8], other: &[u8]) -> bool {
    one.len() == other.len() && one.iter().zip(other).fold(0, |differs, (left, right)| differs | (left ^ right)) == 0
}
