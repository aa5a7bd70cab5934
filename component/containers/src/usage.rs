//! What each running instance uses, sampled while it runs.

use crate::shared::Shared;
use std::sync::Arc;
use std::time::Duration;
use wire::api::Usage;

/// Often enough for a live graph, rarely enough to cost nothing.
const SAMPLE_EVERY: Duration = Duration::from_secs(5);

/// Runs for as long as the agent. May be dropped anywhere.
pub(crate) async fn sample(shared: Arc<Shared>) {
    let mut ticks = tokio::time::interval(SAMPLE_EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    loop {
        ticks.tick().await;
        let live: Vec<_> = shared.live().values().cloned().collect();
        for one in live {
            // A box that has just ended answers nothing; the next round does not ask it.
            let Ok(read) = one.shim.usage().await else { continue };
            let now_ms = world::clock::unix_ms();
            let mut live = shared.live();
            let Some(entry) = live.get_mut(&one.instance.id) else { continue };
            let cpu_cores = match entry.cpu_before {
                Some((usec, at_ms)) if now_ms > at_ms => {
                    read.cpu_usec.saturating_sub(usec) as f64 / ((now_ms - at_ms) as f64 * 1000.0)
                }
                Some(_) | None => 0.0,
            };
            entry.cpu_before = Some((read.cpu_usec, now_ms));
            entry.usage = Usage {
                cpu_cores,
                memory_bytes: read.memory_bytes,
                read_bytes: read.read_bytes,
                written_bytes: read.written_bytes,
                received_bytes: read.received_bytes,
                sent_bytes: read.sent_bytes,
                processes: read.processes,
            };
        }
    }
}

/// Registers the instances' series with the meter.
pub(crate) fn register(shared: &Arc<Shared>) -> meter::Registration {
    let weak = Arc::downgrade(shared);
    shared.meter.collector(move |samples| {
        let Some(shared) = weak.upgrade() else { return };
        for (id, live) in shared.live().iter() {
            let (stack, service) = (live.instance.stack.as_str(), live.instance.service.as_str());
            let labels = [("instance", id.as_str()), ("stack", stack), ("service", service)];
            // A counter that starts at 0 and jumps to what was used before looks like a burst that never was.
            if live.cpu_before.is_none() {
                continue;
            }
            let usage = &live.usage;
            samples.gauge("bramble_instance_cpu_cores", "Cores used.", &labels, usage.cpu_cores);
            samples.gauge("bramble_instance_memory_bytes", "Memory used.", &labels, usage.memory_bytes as f64);
            samples.gauge("bramble_instance_processes", "Processes.", &labels, usage.processes as f64);
            let counters = [
                ("bramble_instance_read_bytes_total", "Read from disk.", usage.read_bytes),
                ("bramble_instance_written_bytes_total", "Written to disk.", usage.written_bytes),
                ("bramble_instance_received_bytes_total", "Received.", usage.received_bytes),
                ("bramble_instance_sent_bytes_total", "Sent.", usage.sent_bytes),
            ];
            for (name, help, value) in counters {
                samples.counter(name, help, &labels, value as f64);
            }
        }
        let snapshot = shared.view.borrow().clone();
        for (id, status) in &snapshot.statuses {
            let Some(instance) = snapshot.instances.get(id) else { continue };
            let labels = [("instance", id.as_str()), ("stack", &instance.stack), ("service", &instance.service)];
            let (restarts, ready) = (f64::from(status.restarts), f64::from(u8::from(status.ready)));
            samples.counter("bramble_instance_restarts_total", "Starts after the first.", &labels, restarts);
            samples.gauge("bramble_instance_ready", "1 while requests may go to it.", &labels, ready);
        }
    })
}
