//! The scheduler as its planner meets it.

mod loss;
mod moving;
mod placement;
mod rollouts;
mod world;
