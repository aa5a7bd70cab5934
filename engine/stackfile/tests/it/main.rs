//! What stack files become, seen from outside.

mod forms;
mod hostile;
mod keys;
mod refusals;
mod routes;
mod samples;
mod several_files;
mod support;
