//! The image store: OCI distribution, layers, unpacking, garbage collection.
