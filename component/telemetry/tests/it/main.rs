//! What the rest of Bramble sees of telemetry.

mod alerts;
mod logs;
mod machine;
mod requests;
mod series;
mod whole;
