//! What stack files become, seen from outside.

mod samples;
mod support;
