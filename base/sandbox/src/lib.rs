//! Boxes: namespaces, root file system, init, seccomp, landlock, rlimits, cgroups, shim.
