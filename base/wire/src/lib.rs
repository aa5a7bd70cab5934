//! The words everybody speaks: specs, resources, API messages, error codes. Plain data, no IO, no clock.
//!
//! A type lives here when two crates on one floor must agree on it, when it is stored in control, or when it
//! crosses the API. Stored types carry serde defaults for every field added later, so that an old record
//! always reads.

pub mod api;
pub mod diagnostic;
pub mod hours;
pub mod identity;
pub mod join;
pub mod resource;
pub mod run;
pub mod spec;
