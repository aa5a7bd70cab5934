//! Series that belong to no single component: services as wanted and as they are, certificates and their ends.

use crate::certificates::Shown;
use control::view::View;
use meter::{Meter, Registration};
use scheduler::Pressure;
use tokio::sync::watch;
use wire::resource::{Presence, Wanted};
use wire::spec::Mode;

/// Instances wanted and ready, per service.
pub fn services(meter: &Meter, view: View) -> Registration {
    meter.collector(move |samples| {
        let snapshot = view.borrow().clone();
        for (stack, service, spec) in snapshot.services() {
            let mine = || snapshot.instances_of(stack, service).filter(|instance| instance.wanted == Wanted::Running);
            let ready = mine().filter(|one| snapshot.statuses.get(&one.id).is_some_and(|status| status.ready)).count();
            let wanted = match spec.mode {
                Mode::Replicated => spec.replicas as usize,
                // Jobs end, and a global service is wanted where it is.
                Mode::Global | Mode::ReplicatedJob => mine().count(),
            };
            let labels = [("stack", stack), ("service", service)];
            samples.gauge("bramble_service_instances_wanted", "Instances wanted.", &labels, wanted as f64);
            samples.gauge("bramble_service_instances_ready", "Instances ready.", &labels, ready as f64);
        }
        samples.gauge("bramble_stacks", "Stacks wanted.", &[], snapshot.stacks.len() as f64);
    })
}

/// Which machines of the cluster are there, as those who watch them have agreed.
pub fn machines(meter: &Meter, view: View) -> Registration {
    meter.collector(move |samples| {
        let snapshot = view.borrow().clone();
        for member in snapshot.members.values().filter(|member| !member.revoked) {
            let up = match snapshot.presence(&member.id) {
                Presence::Up | Presence::Silent { .. } => 1.0,
                Presence::Down { .. } => 0.0,
            };
            let labels = [("machine", member.id.as_str()), ("host", member.hostname.as_str())];
            samples.gauge("bramble_cluster_machine_up", "Whether a machine of the cluster is there.", &labels, up);
        }
    })
}

/// How busy machines are, as they have reported, and what runs where its owner wants it gone.
pub fn loads(meter: &Meter, view: View) -> Registration {
    meter.collector(move |samples| {
        let snapshot = view.borrow().clone();
        for (id, machine) in &snapshot.machines {
            let Some(load) = &machine.load else { continue };
            let labels = [("machine", id.as_str()), ("host", machine.node.hostname.as_str())];
            let mut gauge = |name, help, value| samples.gauge(name, help, &labels, value);
            let share = |part: u64, whole: u64| if whole == 0 { 0.0 } else { part as f64 / whole as f64 };
            let busy = share(load.cpu_busy_millis, u64::from(machine.node.cores) * 1_000);
            gauge("bramble_cluster_machine_cpu_busy", "Busy share of a machine's cores, 0 to 1.", busy);
            let used = machine.node.memory_bytes.saturating_sub(load.memory_available_bytes);
            let used = share(used, machine.node.memory_bytes);
            gauge("bramble_cluster_machine_memory_used", "Share of a machine's memory that is used, 0 to 1.", used);
            let help = "Share of time in which something on a machine waited for processor, memory or disk, 0 to 1.";
            gauge("bramble_cluster_machine_waiting", help, f64::from(load.psi_percent) / 100.0);
            let help = "Cores of a machine used by programs that are not ours.";
            gauge("bramble_cluster_machine_owner_cpu_cores", help, load.owner_cpu_millis as f64 / 1_000.0);
            let help = "Memory of a machine used by programs that are not ours.";
            gauge("bramble_cluster_machine_owner_memory_bytes", help, load.owner_memory_bytes as f64);
            let here = || snapshot.instances.values().filter(|one| one.node == *id && one.wanted == Wanted::Running);
            let pressed = match machine.pressure {
                Pressure::Pressed { .. } => here().count(),
                Pressure::Calm | Pressure::Rising { .. } | Pressure::Easing { .. } => 0,
            };
            let help = "Instances on a machine that waits more than its owner allows.";
            gauge("bramble_cluster_machine_pressed_instances", help, pressed as f64);
        }
    })
}

/// How old the last backup of the state of record is; nothing if there never was one.
pub fn backups(meter: &Meter, view: View) -> Registration {
    meter.collector(move |samples| {
        let last = view.borrow().last_backup.clone();
        if let Some(last) = last {
            let age_s = world::clock::unix_ms().saturating_sub(last.at_ms) as f64 / 1_000.0;
            let help = "Since the state of record was last written to a file, whole.";
            samples.gauge("bramble_cluster_backup_age_seconds", help, &[], age_s);
        }
    })
}

/// Cores that compute wrong, on every machine that is there.
pub fn cores(meter: &Meter, view: View) -> Registration {
    meter.collector(move |samples| {
        let snapshot = view.borrow().clone();
        for machine in snapshot.machines.values() {
            let node = &machine.node;
            for fault in &node.faults {
                let core = fault.core.to_string();
                let labels = [
                    ("machine", node.id.as_str()),
                    ("host", node.hostname.as_str()),
                    ("core", core.as_str()),
                    ("test", fault.test.as_str()),
                    ("expected", fault.expected.as_str()),
                    ("got", fault.got.as_str()),
                ];
                samples.gauge("bramble_selftest_core_wrong", "Whether a core computes wrong.", &labels, 1.0);
            }
        }
    })
}

/// How long each certificate is good for, and how many files are none.
pub fn certificates(meter: &Meter, shown: watch::Receiver<Shown>) -> Registration {
    meter.collector(move |samples| {
        let now_ms = world::clock::unix_ms();
        let shown = shown.borrow().clone();
        for state in shown.states.iter().filter(|state| state.problem.is_empty()) {
            let name = state.names.first().map_or("", String::as_str);
            let labels = [("name", name), ("source", state.source.as_str())];
            let left_s = state.not_after_ms.saturating_sub(now_ms) as f64 / 1_000.0;
            samples.gauge("bramble_certificate_left_seconds", "Until a certificate ends.", &labels, left_s);
        }
        for state in shown.states.iter().filter(|state| !state.last_error.is_empty()) {
            let labels = [("name", state.names.first().map_or("", String::as_str))];
            let help = "A public authority gives no certificate, or no newer one.";
            samples.gauge("bramble_certificate_unobtainable", help, &labels, 1.0);
        }
        let unusable = shown.states.iter().filter(|state| !state.problem.is_empty()).count();
        samples.gauge("bramble_certificates_unusable", "Certificate files that are none.", &[], unusable as f64);
    })
}
