//! What stack files become, seen from outside.

mod forms;
mod hostile;
mod keys;
mod refusals;
mod routes;
mod samples;
mod secrecy;
mod several_files;
mod support;
