//! What the rest of Bramble sees of telemetry.

mod logs;
mod machine;
mod series;
