//! A machine's agent: instances of this node.
