//! Which of several endpoints gets the next connection.
//!
//! Owns the choice. By default that is the cheaper of two drawn at random by weight, where an endpoint's price is a
//! time: how long an answer takes, times what is in flight there for its weight, plus what its failures cost. The
//! weight counts for as much as the endpoint's machine has to spare. A failure counts as a slow answer, not as a fast
//! one; otherwise an endpoint that fails quickly would look the least loaded and draw everybody in (Linkerd's lesson).
//! The two-choice rule is Mitzenmacher's: nearly the balance of asking all, at the cost of asking two, and no herd
//! towards one momentarily idle endpoint. [`Choice`] has the other rules.
//!
//! An endpoint that refuses connections, fails several times in a row, or much more often than the others, is left
//! out for a growing time, then tried with single requests (a circuit breaker with its three states). Nothing is
//! forgiven for waiting alone, and nothing is held against an endpoint untried: who is doubtful gets a trickle of
//! trials, paced by time and by what the others are asked, and a few successes in a row make it a full member.
//!
//! Promises: an endpoint that drains is never picked, nor a full one; and as long as any other endpoint is listed, one
//! is, because a guess is better than a refusal. [`Pool::update`] keeps what is known of the endpoints that stay.
//! [`Pool::pick`] and [`Pool::done`] allocate nothing and take time in proportion to the endpoints.
//!
//! Never knows a clock, a socket, or what is sent: `now_ms` and random numbers are arguments.

mod draw;
mod endpoint;
mod latency;
mod member;
mod pool;
mod settings;

pub use endpoint::{Breaker, Cause, Choice, Endpoint, NotPicked, Outcome, Seen};
pub use pool::Pool;
pub use settings::Settings;
