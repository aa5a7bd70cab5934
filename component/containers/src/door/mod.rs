//! The door: every connection a container makes or looks up comes out here, and here it is decided.
//!
//! Inside the box every address is local and every TCP connection to another than 127.0.0.0/8 lands on one listener
//! whose socket we hold. So a container can physically reach nothing but what [`route`] says, at any port, without an
//! address or a packet of its own on the machine's network. Never knows what the bytes mean.

mod dns;
mod name;
mod route;
mod tcp;
mod udp;

use crate::shared::Shared;
use sandbox::Shim;
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, PoisonError};
use wire::resource::Instance;
use world::task::Task;

/// Addresses remembered with the names they were looked up by, per instance: what a busy crawler has in use. The
/// oldest go first; whoever still needs one looks it up again.
const LOOKED_UP_MAX: usize = 4096;

/// Held for as long as the box is attended; dropped, its listeners go back to waiting inside the box.
pub(crate) struct Door {
    _tasks: Vec<Task>,
}

/// What the door's tasks of one instance share.
pub(crate) struct Opening {
    shared: Arc<Shared>,
    instance: Arc<Instance>,
    shim: Arc<Shim>,
    looked_up: Mutex<LookedUp>,
}

#[derive(Default)]
struct LookedUp {
    names: BTreeMap<Ipv4Addr, String>,
    order: std::collections::VecDeque<Ipv4Addr>,
}

impl Opening {
    fn remember(&self, address: Ipv4Addr, name: &str) {
        let mut looked_up = self.looked_up.lock().unwrap_or_else(PoisonError::into_inner);
        if looked_up.names.insert(address, name.to_owned()).is_none() {
            looked_up.order.push_back(address);
        }
        if looked_up.order.len() > LOOKED_UP_MAX
            && let Some(oldest) = looked_up.order.pop_front()
        {
            looked_up.names.remove(&oldest);
        }
    }

    fn name_of(&self, address: Ipv4Addr) -> Option<String> {
        self.looked_up.lock().unwrap_or_else(PoisonError::into_inner).names.get(&address).cloned()
    }

    /// Counts and tells what was refused: nobody should have to guess why a connection does not work.
    fn refused(&self, what: &str, reason: &str) {
        let service = format!("{}/{}", self.instance.stack, self.instance.service);
        let labels = [("service", service.as_str())];
        self.shared.meter.counter("bramble_door_refused_total", "Connections and look-ups refused.", &labels).inc();
        (self.shared.hooks.note)(&self.instance, &format!("{what} refused: {reason}"));
        tracing::info!(instance = self.instance.id, what, reason, "refused at the door");
    }
}

/// Takes over the box's listeners and serves them.
pub(crate) async fn open(shared: &Arc<Shared>, instance: &Arc<Instance>, shim: &Arc<Shim>) -> Door {
    let opening = Arc::new(Opening {
        shared: Arc::clone(shared),
        instance: Arc::clone(instance),
        shim: Arc::clone(shim),
        looked_up: Mutex::new(LookedUp::default()),
    });
    let mut tasks = Vec::new();
    match shim.catch_all().await {
        Ok(Some(listener)) => tasks.push(world::task::spawn("door-tcp", tcp::serve(Arc::clone(&opening), listener))),
        Ok(None) => tracing::debug!(instance = instance.id, "no redirect on this kernel: services are listened for"),
        Err(error) => tracing::warn!(instance = instance.id, %error, "door without its listener"),
    }
    match shim.dns().await {
        Ok((datagrams, streams)) => {
            tasks.push(world::task::spawn("door-dns", dns::serve(Arc::clone(&opening), datagrams, streams)));
        }
        Err(error) => tracing::warn!(instance = instance.id, %error, "door without names"),
    }
    tasks.push(world::task::spawn("door-udp", udp::serve(opening)));
    Door { _tasks: tasks }
}
