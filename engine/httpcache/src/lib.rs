//! What a shared HTTP cache may keep, for how long, and for whom (RFC 9111, 5861, 9211, 9213). Pure.
//!
//! Owns the decisions: whether an answer may be stored and on which [`Terms`], whether what is stored may be used for a
//! request now, which headers an answer varies by, how an answer is asked for again and what a 304 changes. It is told
//! what time it is and knows neither where answers are kept nor how they are fetched.
//!
//! Where the RFC leaves a choice, this is what is chosen, and why:
//! - what clients say in `cache-control` is heard only where a [`Policy`] says so: otherwise anybody could make a service
//!   answer everything anew;
//! - an answer that says no lifetime but when it was last modified is fresh for a tenth of its age, at most a day;
//! - of several `max-age` the least counts, and one that cannot be read is nothing;
//! - `s-maxage` forbids stale answers, unless the same answer allows them by `stale-while-revalidate` or
//!   `stale-if-error`: everybody writes the two together;
//! - a service that cannot be reached is answered for with what is there, for as long as a policy says.

mod condition;
mod date;
mod dictionary;
mod directive;
mod invalidation;
mod policy;
mod range;
mod reuse;
mod status;
mod store;
mod terms;
mod vary;

pub use condition::{CONDITIONS, Validators, is_not_modified, renew};
pub use date::{http_date, parse_date};
pub use directive::Directives;
pub use invalidation::{invalidates, same_origin};
pub use policy::Policy;
pub use range::{Part, part};
pub use reuse::{Reuse, Trouble, may_serve_stale, reuse};
pub use status::{Forwarded, cache_status};
pub use store::{Arrival, Refused, is_for_all, storable, stored_headers};
pub use terms::Terms;
pub use vary::{Variance, selection, variance};
