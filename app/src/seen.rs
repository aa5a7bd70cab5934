//! Series that belong to no single component: services as wanted and as they are, and the state of record's group.

use control::view::View;
use meter::{Meter, Registration};
use replication::Group;
use wire::resource::Wanted;
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

/// How the state of record's group is.
pub fn group(meter: &Meter, group: Group) -> Registration {
    meter.collector(move |samples| {
        let now = group.overview();
        let number = |index: Option<u64>| index.unwrap_or(0) as f64;
        samples.counter("bramble_control_log_writes_total", "Durable writes of the log.", &[], now.writes as f64);
        samples.gauge("bramble_control_last_index", "Newest entry of the log.", &[], number(now.last_index));
        samples.gauge("bramble_control_applied_index", "Newest entry applied.", &[], number(now.applied_index));
        samples.gauge(
            "bramble_control_leads",
            "1 while this member leads.",
            &[],
            f64::from(u8::from(now.leader == Some(now.node))),
        );
        samples.gauge(
            "bramble_control_disk_full",
            "1 while a write waits for room.",
            &[],
            f64::from(u8::from(now.disk_full)),
        );
    })
}
