//! What a member may be for others: who decides about roles and leases while it leads, the gateway, the holder of leases.

use super::lease::{Holder, Lessor};
use super::roles::Roles;
use super::{Cluster, Ground, acting, fences};
use rpc::Peers;
use std::collections::BTreeSet;
use std::sync::Arc;
use tokio::sync::watch::{self, Receiver};
use world::task::Task;

impl Cluster {
    /// Decides about roles while this machine leads, and takes up its own. Says who is to vote.
    pub(super) fn take_part(
        &self,
        ground: &Ground,
        peers: &Peers,
        lessor: Arc<Lessor>,
    ) -> (Vec<Task>, Receiver<Option<BTreeSet<u64>>>) {
        let Ground { group, space, view, .. } = ground.clone();
        let (voters, votes) = watch::channel(None);
        let roles = Roles {
            group: group.clone(),
            space: space.clone(),
            view: view.clone(),
            lessor: Arc::clone(&lessor),
            meter: self.meter.clone(),
            voters,
        };
        let ((hold, held), (stop, stopped)) = (watch::channel(None), watch::channel(0));
        let acting = acting::Acting {
            me: self.me.clone(),
            view: view.clone(),
            held,
            stopped: stop,
            gateway: Arc::clone(&self.gateway),
            meter: self.meter.clone(),
        };
        let holder = Holder {
            me: self.me.clone(),
            group,
            space,
            view,
            peers: peers.clone(),
            lessor,
            meter: self.meter.clone(),
            held: hold,
            stopped,
        };
        let tasks = vec![
            world::task::spawn("cluster roles", roles.assign()),
            world::task::spawn("gateway lease", holder.hold()),
            world::task::spawn("acting gateway", acting.act()),
        ];
        (tasks, votes)
    }

    /// Has leases on what must not run where it is cut off, and gives them while this machine leads.
    pub(super) fn fence(&self, ground: &Ground, peers: &Peers, lessor: Arc<fences::Lessor>) -> [Task; 2] {
        let Ground { group, space, view, .. } = ground.clone();
        let holder = fences::Holder {
            me: self.me.clone(),
            group: group.clone(),
            space: space.clone(),
            view: view.clone(),
            peers: peers.clone(),
            lessor: Arc::clone(&lessor),
            leases: self.leases.clone(),
        };
        let fences = fences::Fences { group, space, view, lessor, meter: self.meter.clone() };
        [world::task::spawn("leases on instances", holder.hold()), world::task::spawn("fences", fences.answer())]
    }
}
