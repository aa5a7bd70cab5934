//! Series, logs, alerts.
