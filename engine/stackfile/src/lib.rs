//! A compose file to a spec, with every error at its place.
