//! What stack files become, seen from outside.

mod keys;
mod samples;
mod support;
