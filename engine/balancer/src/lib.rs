//! Which of several endpoints gets the next connection.
//!
//! Owns the choice: the cheaper of two drawn at random, where an endpoint's price is a time: what is in flight
//! there times how long an answer takes, plus what its failures cost. A failure counts as a slow answer, not as
//! a fast one; otherwise an endpoint that fails quickly would look the least loaded and draw everybody in
//! (Linkerd's lesson). The two-choice rule is Mitzenmacher's: nearly the balance of asking all, at the cost of
//! asking two, and no herd towards one momentarily idle endpoint.
//!
//! Promises: an endpoint that drains is never picked; one that cannot be reached is left out for a growing
//! time; and as long as any endpoint may be picked, one is, because a guess is better than a refusal.
//! [`Pool::update`] keeps what is known of the endpoints that stay.
//!
//! Never knows a clock, a socket, or what is sent: `now_ms` and random numbers are arguments.

mod member;
mod pool;

pub use member::{Endpoint, Outcome};
pub use pool::Pool;
