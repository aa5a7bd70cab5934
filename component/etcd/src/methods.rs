//! Which methods there are, by either name, and who does them.

use crate::codec::Message;
use crate::desk::{Desk, Visit, closed};
use crate::room::Room;
use crate::status::{self, Code, Status};
use crate::transport::{Answer, Format, Inflow};
use crate::watch;
use crate::words::{AlarmRequest, AuthenticateRequest, HealthRequest, LeaseRequest, Nothing};
use bytes::Bytes;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tracing::Instrument;

/// Longer than an election: what takes longer is answered as etcd does.
const REQUEST_DEADLINE: Duration = Duration::from_secs(12);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Method {
    Range,
    Put,
    DeleteRange,
    Txn,
    Compact,
    Watch,
    LeaseGrant,
    LeaseRevoke,
    LeaseKeepAlive,
    LeaseTimeToLive,
    LeaseLeases,
    MemberList,
    Status,
    Alarm,
    Defragment,
    Authenticate,
    Health,
    /// etcd has it, and it is not served.
    Other,
}

/// Name in metrics, in gRPC, and in JSON below `/v3`.
const METHODS: [(Method, &str, &str, &str); 17] = [
    (Method::Range, "range", "etcdserverpb.KV/Range", "kv/range"),
    (Method::Put, "put", "etcdserverpb.KV/Put", "kv/put"),
    (Method::DeleteRange, "delete_range", "etcdserverpb.KV/DeleteRange", "kv/deleterange"),
    (Method::Txn, "txn", "etcdserverpb.KV/Txn", "kv/txn"),
    (Method::Compact, "compact", "etcdserverpb.KV/Compact", "kv/compaction"),
    (Method::Watch, "watch", "etcdserverpb.Watch/Watch", "watch"),
    (Method::LeaseGrant, "lease_grant", "etcdserverpb.Lease/LeaseGrant", "lease/grant"),
    (Method::LeaseRevoke, "lease_revoke", "etcdserverpb.Lease/LeaseRevoke", "lease/revoke"),
    (Method::LeaseKeepAlive, "lease_keep_alive", "etcdserverpb.Lease/LeaseKeepAlive", "lease/keepalive"),
    (Method::LeaseTimeToLive, "lease_time_to_live", "etcdserverpb.Lease/LeaseTimeToLive", "lease/timetolive"),
    (Method::LeaseLeases, "lease_leases", "etcdserverpb.Lease/LeaseLeases", "lease/leases"),
    (Method::MemberList, "member_list", "etcdserverpb.Cluster/MemberList", "cluster/member/list"),
    (Method::Status, "status", "etcdserverpb.Maintenance/Status", "maintenance/status"),
    (Method::Alarm, "alarm", "etcdserverpb.Maintenance/Alarm", "maintenance/alarm"),
    (Method::Defragment, "defragment", "etcdserverpb.Maintenance/Defragment", "maintenance/defragment"),
    (Method::Authenticate, "authenticate", "etcdserverpb.Auth/Authenticate", "auth/authenticate"),
    (Method::Health, "health", "grpc.health.v1.Health/Check", ""),
];

impl Method {
    pub(crate) fn of_grpc(path: &str) -> Method {
        let name = path.trim_start_matches('/');
        METHODS.iter().find(|(_, _, grpc, _)| *grpc == name).map_or(Method::Other, |(method, ..)| *method)
    }

    /// `None`: etcd has no such path either, as far as is known here.
    pub(crate) fn of_json(path: &str) -> Option<Method> {
        let path = ["/v3/", "/v3beta/", "/v3alpha/"].iter().find_map(|start| path.strip_prefix(start))?;
        // Leases were keys' once.
        let path = if path.starts_with("kv/lease/") { path.trim_start_matches("kv/") } else { path };
        let found = METHODS.iter().find(|(.., json)| !json.is_empty() && *json == path);
        found.map(|(method, ..)| *method).or_else(|| is_etcds(path).then_some(Method::Other))
    }

    pub(crate) fn name(self) -> &'static str {
        METHODS.iter().find(|(method, ..)| *method == self).map_or("other", |(_, name, ..)| name)
    }
}

/// What etcd has besides.
fn is_etcds(path: &str) -> bool {
    ["cluster/member/", "maintenance/", "auth/", "lock/", "election/"].iter().any(|start| path.starts_with(start))
}

/// One request, from its head to its answer.
pub(crate) async fn answer(visit: Arc<Visit>, method: Method, format: Format, mut inflow: Inflow) -> Answer {
    let desk = Arc::clone(&visit.desk);
    let name = method.name();
    let began = world::clock::monotonic();
    if let Err(status) = deadline(desk.identify()).await {
        desk.meters.count(name, began.elapsed(), &Err::<(), _>(status.clone()));
        return format.whole::<Nothing>(&Err(status), Bytes::from);
    }
    if method == Method::Watch {
        let (out, from) = mpsc::channel(watch::QUEUE);
        desk.meters.count(name, began.elapsed(), &Ok(()));
        // It ends when its client is gone, for then nobody takes what it sends, and when the server closes.
        world::task::spawn("etcd watches", watch::serve(desk, inflow.small(), out)).detach();
        return format.stream(from);
    }
    if method == Method::LeaseKeepAlive {
        let (out, from) = mpsc::channel(watch::QUEUE);
        // It ends with its client, or when the server closes.
        world::task::spawn("etcd renewals", keep_alive(desk, inflow.small(), out)).detach();
        return format.stream(from);
    }
    let span = tracing::debug_span!("etcd request", method = name);
    let one = One { visit: &visit, format, name, inflow: &mut inflow };
    dispatch(one, method).instrument(span).await
}

async fn dispatch(one: One<'_>, method: Method) -> Answer {
    let (desk, here) = (Arc::clone(&one.visit.desk), one.visit.here);
    match method {
        Method::Range => one.large(|asked| desk.range(asked)).await,
        Method::Put => one.large(|asked| desk.put(asked)).await,
        Method::DeleteRange => one.large(|asked| desk.delete_range(asked)).await,
        Method::Txn => one.large(|asked| desk.txn(asked)).await,
        Method::Compact => one.whole(|asked| desk.compact(asked)).await,
        Method::LeaseGrant => one.whole(|asked| desk.lease_grant(asked)).await,
        Method::LeaseRevoke => one.whole(|asked| desk.lease_revoke(asked)).await,
        Method::LeaseTimeToLive => one.large(|asked| desk.lease_time_to_live(asked)).await,
        Method::LeaseLeases => one.large(|_: Nothing| desk.lease_leases()).await,
        Method::MemberList => one.whole(|_: Nothing| async { Ok(desk.members(here)) }).await,
        Method::Status => one.whole(|_: Nothing| async { Ok(desk.status()) }).await,
        Method::Alarm => one.whole(|asked: AlarmRequest| async move { desk.alarms(&asked) }).await,
        // Nothing is ever fragmented: whoever does this every night need not know.
        Method::Defragment => one.whole(|_: Nothing| async { Ok(desk.done()) }).await,
        Method::Authenticate => {
            one.whole(|_: AuthenticateRequest| async { Err::<Nothing, _>(status::auth_not_enabled()) }).await
        }
        Method::Health => one.whole(|_: HealthRequest| async { Ok(Desk::health()) }).await,
        Method::Watch | Method::LeaseKeepAlive | Method::Other => one.refuse(unserved()),
    }
}

fn unserved() -> Status {
    Status::new(Code::Unimplemented, "bramble: this method of etcd is not served: see docs/etcd.md")
}

/// A request that has one answer.
struct One<'a> {
    visit: &'a Visit,
    format: Format,
    name: &'static str,
    inflow: &'a mut Inflow,
}

impl One<'_> {
    async fn whole<Asked: Message, Told: Message, Doing>(self, act: impl FnOnce(Asked) -> Doing) -> Answer
    where
        Doing: Future<Output = Result<Told, Status>>,
    {
        self.large(|asked| {
            let doing = act(asked);
            async { Ok((doing.await?, Room::default())) }
        })
        .await
    }

    /// As [`One::whole`], of an answer that may be large and has room for that.
    async fn large<Asked: Message, Told: Message, Doing>(self, act: impl FnOnce(Asked) -> Doing) -> Answer
    where
        Doing: Future<Output = Result<(Told, Room), Status>>,
    {
        // A body of nothing asks with nothing said.
        let asked = deadline(self.inflow.next()).await.map(Option::unwrap_or_default);
        // How long a client takes to ask is no time of ours.
        let began = world::clock::monotonic();
        let ended = match asked {
            Ok(asked) => deadline(act(asked)).await,
            Err(status) => Err(status),
        };
        let took = began.elapsed();
        self.visit.desk.meters.count(self.name, took, &ended);
        match &ended {
            Ok(_) => tracing::debug!(method = self.name, ?took, "a client of etcd was answered"),
            Err(status) => tracing::debug!(method = self.name, ?took, %status, "a client of etcd was refused"),
        }
        let (ended, room) = match ended {
            Ok((told, room)) => (Ok(told), room),
            Err(status) => (Err(status), Room::default()),
        };
        self.format.whole(&ended, |answer| room.hold(answer, &self.visit.late))
    }

    fn refuse(&self, status: Status) -> Answer {
        let ended = Err::<Nothing, _>(status);
        self.visit.desk.meters.count(self.name, Duration::ZERO, &ended);
        self.format.whole(&ended, Bytes::from)
    }
}

async fn deadline<T>(work: impl Future<Output = Result<T, Status>>) -> Result<T, Status> {
    tokio::time::timeout(REQUEST_DEADLINE, work).await.unwrap_or_else(|_| Err(status::timed_out()))
}

/// Renews leases for as long as their client asks.
async fn keep_alive(
    desk: Arc<Desk>,
    mut inflow: Inflow,
    out: mpsc::Sender<Result<crate::words::LeaseKeepAliveResponse, Status>>,
) {
    let _held = meter::Held::new(&desk.meters.streams);
    let mut closing = desk.closing.clone();
    loop {
        let asked = tokio::select! {
            asked = inflow.next::<LeaseRequest>() => asked,
            () = out.closed() => return,
            () = closed(&mut closing) => Err(status::stopped()),
        };
        let ended = match asked {
            Ok(Some(asked)) => {
                let began = world::clock::monotonic();
                let ended = deadline(desk.lease_keep_alive(asked)).await;
                desk.meters.count(Method::LeaseKeepAlive.name(), began.elapsed(), &ended);
                ended
            }
            Ok(None) => return,
            Err(status) => Err(status),
        };
        let is_over = ended.is_err();
        if out.send(ended).await.is_err() || is_over {
            return;
        }
    }
}
