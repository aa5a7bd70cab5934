//! What this machine can do for boxes, and what is missing, in sentences for people.

use crate::cgroup;

/// What [`capabilities`] found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Capabilities {
    /// Control groups whose limits hold for whole boxes, by controller.
    pub cgroups: Vec<String>,
    /// Highest landlock ABI; 0 without.
    pub landlock_abi: i32,
    pub user_namespaces: bool,
    /// `newuidmap` and `newgidmap` are there and this user has a range.
    pub id_ranges: bool,
    /// A sentence for each lack.
    pub lacks: Vec<String>,
}

/// Looks at the machine. Starts nothing.
pub fn capabilities() -> Capabilities {
    let mut found = Capabilities::default();
    found.cgroups = cgroup::places().iter().map(|(controller, _)| format!("{controller:?}").to_lowercase()).collect();
    found
}
