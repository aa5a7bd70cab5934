//! Series that belong to no single component: services as wanted and as they are.

use control::view::View;
use meter::{Meter, Registration};
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
