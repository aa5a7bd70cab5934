//! Capabilities: what a box may own at each level of trust, and giving the rest up for good.

use crate::failure::{During, Failure, Step};
use crate::names::{CAPABILITY_COUNT, capability};
use crate::spec::{BoxSpec, Trust};
use rustix::io::Errno;
use rustix::thread::{CapabilitySet, CapabilitySets};

/// What Docker gives, without those that mean something only outside a user namespace (MKNOD, AUDIT_WRITE, NET_RAW).
const USUAL: [&str; 11] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "NET_BIND_SERVICE",
    "SYS_CHROOT",
    "SETFCAP",
];
/// What may be asked for besides: bounded by the box's own namespaces and of no use against the kernel by itself.
/// SYS_ADMIN, NET_ADMIN, SYS_MODULE and their like open the doors that user namespaces are criticised for: the
/// network is the agent's, mounts are ours.
const GRANTABLE: [&str; 9] = [
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_NICE",
    "SYS_PTRACE",
    "DAC_READ_SEARCH",
    "LEASE",
    "SYS_RESOURCE",
    "NET_BROADCAST",
];

/// The capabilities container root may own.
pub(crate) fn allowed(spec: &BoxSpec) -> u64 {
    if spec.trust == Trust::Untrusted {
        return 0;
    }
    let bits = |names: &[&str]| names.iter().filter_map(|name| capability(name)).fold(0, |all, bit| all | bit);
    let all = |list: &[String]| list.iter().any(|name| name.eq_ignore_ascii_case("ALL"));
    let named = |list: &[String]| list.iter().filter_map(|name| capability(name)).fold(0, |bits, bit| bits | bit);
    let grantable = bits(&USUAL) | bits(&GRANTABLE);
    let mut allowed = bits(&USUAL);
    if all(&spec.cap_drop) {
        allowed = 0;
    }
    if all(&spec.cap_add) {
        allowed = grantable;
    }
    // As Docker: what is named wins over ALL on the other side.
    allowed &= !named(&spec.cap_drop);
    allowed | (named(&spec.cap_add) & grantable)
}

/// What init keeps besides, to start programs as other users.
pub(crate) fn of_init(spec: &BoxSpec) -> u64 {
    let single = matches!(spec.ids, crate::spec::Ids::Single);
    let needed: &[&str] = match (spec.trust, single) {
        (Trust::Untrusted, true) => &[],
        (Trust::Untrusted, false) => &["SETGID", "SETUID"],
        (Trust::Host | Trust::Service, _) => &["SETGID", "SETUID", "KILL"],
    };
    needed.iter().filter_map(|name| capability(name)).fold(allowed(spec), |bits, bit| bits | bit)
}

/// Takes all but `kept` out of what this process and its children can ever have.
pub(crate) fn bound(kept: u64) -> Result<(), Failure> {
    for number in 0..CAPABILITY_COUNT {
        if kept & (1 << number) != 0 {
            continue;
        }
        match rustix::thread::remove_capability_from_bounding_set(CapabilitySet::from_bits_retain(1 << number)) {
            // INVAL: an older kernel that does not know it.
            Ok(()) | Err(Errno::INVAL) => {}
            Err(errno) => return Err(Failure::new(Step::Confine, "bounding capabilities", errno)),
        }
    }
    Ok(())
}

/// Has exactly `kept`, effective and permitted.
pub(crate) fn keep(kept: u64) -> Result<(), Failure> {
    let kept = CapabilitySet::from_bits_retain(kept);
    let sets = CapabilitySets { effective: kept, permitted: kept, inheritable: CapabilitySet::empty() };
    rustix::thread::set_capabilities(None, sets).during(Step::Confine, || "dropping capabilities".to_owned())
}

#[cfg(test)]
mod tests {
    use super::allowed;
    use crate::names::capability;
    use crate::spec::{BoxSpec, Root, Trust};

    #[test]
    fn named_capabilities_win_over_all() {
        let check = |add: &[&str], drop: &[&str], name: &str, expected: bool| {
            let owned = |list: &[&str]| list.iter().map(|name| (*name).to_owned()).collect();
            let mut spec = BoxSpec::new("x", Trust::Service, Root::Host);
            (spec.cap_add, spec.cap_drop) = (owned(add), owned(drop));
            let bit = capability(name).unwrap();
            assert_eq!(allowed(&spec) & bit != 0, expected, "+{add:?} -{drop:?}: {name}");
        };
        check(&[], &[], "CHOWN", true);
        check(&[], &[], "SYS_ADMIN", false);
        check(&["SYS_ADMIN"], &[], "SYS_ADMIN", false);
        check(&["CAP_SYS_NICE"], &[], "SYS_NICE", true);
        check(&[], &["chown"], "CHOWN", false);
        check(&["NET_BIND_SERVICE"], &["ALL"], "NET_BIND_SERVICE", true);
        check(&["NET_BIND_SERVICE"], &["ALL"], "CHOWN", false);
        check(&["ALL"], &["CHOWN"], "CHOWN", false);
    }

    #[test]
    fn strangers_own_nothing() {
        let mut spec = BoxSpec::new("x", Trust::Untrusted, Root::Host);
        spec.cap_add = vec!["ALL".to_owned()];
        assert_eq!(allowed(&spec), 0);
    }
}
