//! Placement and rollout: what is wanted and what is there, to steps.
