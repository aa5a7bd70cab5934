//! What of a spec an instance is made of: two services of one shape need no restart to become each other.

use wire::spec::{Disconnect, Placement, Service, UpdatePolicy};

/// The shape of `service`, as a hash over its stored form.
///
/// What only the gateway, the planner or the door read from the current revision (published ports, routes,
/// replicas, placement, policies, dependencies) is left out: changing it must not restart anything. When an instance stops
/// by itself is not: those that count whether it has go by its record.
pub fn shape(service: &Service) -> String {
    let formed = Service {
        replicas: 0,
        placement: Placement::default(),
        update: UpdatePolicy::default(),
        rollback: UpdatePolicy::default(),
        disconnect: Disconnect { stop_after_ms: service.disconnect.stop_after_ms, ..Disconnect::default() },
        ports: Vec::new(),
        routes: Vec::new(),
        egress: Vec::new(),
        depends_on: std::collections::BTreeMap::new(),
        ..service.clone()
    };
    let bytes = serde_json::to_vec(&formed).expect("a spec is plain data with string keys");
    format!("{:032x}", fnv1a(&bytes))
}

/// FNV-1a of 128 bits: stable over releases, which the standard library's hasher does not promise. Not for
/// security: who may write a stack file may write any shape.
fn fnv1a(bytes: &[u8]) -> u128 {
    const OFFSET: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
    const PRIME: u128 = 0x0000_0000_0100_0000_0000_0000_0000_013b;
    bytes.iter().fold(OFFSET, |hash, byte| (hash ^ u128::from(*byte)).wrapping_mul(PRIME))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of the service below, as the first version wrote it: another one would restart every instance with an upgrade.
    const STORED: &str = "8d5e420a737b344e692c4cb4e0e202bf";

    #[test]
    fn scaling_keeps_the_shape_and_another_image_changes_it() {
        let service = Service { image: "a".into(), ..Service::default() };
        assert_eq!(shape(&service), shape(&Service { replicas: 9, ..service.clone() }));
        assert_ne!(shape(&service), shape(&Service { image: "b".into(), ..service.clone() }));
        assert_ne!(shape(&service), shape(&Service { restart_count: 1, ..service.clone() }));
    }

    #[test]
    fn what_becomes_of_it_when_its_machine_is_away_is_no_part_of_it() {
        let service = Service { image: "a".into(), ..Service::default() };
        let disconnect = Disconnect { lost_after_ms: 1, ..Disconnect::default() };
        assert_eq!(shape(&service), shape(&Service { disconnect, ..service.clone() }));
        let disconnect = Disconnect { stop_after_ms: Some(10_000), ..Disconnect::default() };
        assert_ne!(shape(&service), shape(&Service { disconnect, ..service.clone() }), "but when it stops is");
    }

    #[test]
    fn a_newer_version_finds_the_shape_that_an_older_one_has_stored() {
        let service = Service { image: "a".into(), ..Service::default() };
        assert_eq!(shape(&service), STORED);
    }
}
