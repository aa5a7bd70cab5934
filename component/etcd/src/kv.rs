//! Reading and changing keys: from etcd's words to the space's and back.

use crate::codec::Blob;
use crate::desk::Desk;
use crate::keys;
use crate::room::{Room, SMALL_BYTES};
use crate::status::{self, Code, Status};
use crate::words::{
    CompactionRequest, Compare, CompareResult, CompareTarget, DeleteRangeRequest, DeleteRangeResponse, Done, KeyValue,
    PutRequest, PutResponse, RangeRequest, RangeResponse, RequestOp, ResponseOp, SortOrder, SortTarget, TxnRequest,
    TxnResponse,
};
use control::{
    ANSWER_BYTES_MAX, Committed, Entry, Leasing, Nested, OPERATIONS_MAX, Operation, Outcome, READ_BYTES_MAX,
    RangeError, Ranged, Relation, Target, Txn,
};
use std::cmp::Ordering;
use std::sync::Arc;

/// Keeps the revision below which clients asked to forget. Beside their keys, where none of them reaches.
const COMPACTED: &str = "etcd-compacted";
/// Two that compact at once meet; more than this is somebody's mistake.
const TRIES: usize = 8;

impl Desk {
    pub(crate) async fn range(&self, asked: RangeRequest) -> Result<(RangeResponse, Room), Status> {
        let range = keys::named(&asked.key, &asked.range_end)?;
        if !asked.serializable {
            self.space.barrier().await?;
        }
        let at = u64::try_from(asked.revision).ok().filter(|revision| *revision > 0);
        if at.is_some_and(|revision| revision < self.compacted()) {
            return Err(status::compacted());
        }
        let read = |bytes_max| self.space.range_local_within(&range, limit(&asked), at, bytes_max);
        let mut room = Room::default();
        let mut found = read(SMALL_BYTES);
        if let Err(RangeError::TooLarge { .. }) = found {
            room = self.rooms.answer(READ_BYTES_MAX).await;
            found = read(READ_BYTES_MAX);
        }
        let found = found?;
        let header = Some(self.header(found.revision));
        Ok((RangeResponse { header, ..ranged(&asked, found) }, room))
    }

    pub(crate) async fn put(&self, asked: PutRequest) -> Result<(PutResponse, Room), Status> {
        let (committed, room) = self.commit(Txn::new().and(put(&asked)?)).await?;
        let header = Some(self.header(committed.revision));
        Ok((PutResponse { header, ..put_answered(committed.outcomes.into_iter().next()) }, room))
    }

    pub(crate) async fn delete_range(&self, asked: DeleteRangeRequest) -> Result<(DeleteRangeResponse, Room), Status> {
        let (committed, room) = self.commit(Txn::new().and(delete(&asked)?)).await?;
        let header = Some(self.header(committed.revision));
        Ok((DeleteRangeResponse { header, ..delete_answered(committed.outcomes.into_iter().next()) }, room))
    }

    async fn commit(&self, txn: Txn) -> Result<(Committed, Room), Status> {
        let room = self.room_for(&txn).await;
        Ok((self.space.commit(txn).await?, room))
    }

    /// Room for what a transaction tells. What it will be is known when it has happened: it goes by what there is now.
    async fn room_for(&self, txn: &Txn) -> Room {
        let is_large = self.space.tells_more_local(txn, SMALL_BYTES);
        self.rooms.answer(if is_large { ANSWER_BYTES_MAX } else { 0 }).await
    }

    pub(crate) async fn txn(&self, asked: TxnRequest) -> Result<(TxnResponse, Room), Status> {
        let Nested { compares, success, failure } = transaction(&asked)?;
        let is_read = only_reads(&success) && only_reads(&failure);
        let mut txn = Txn::new();
        txn = compares.into_iter().fold(txn, Txn::when);
        txn = success.into_iter().fold(txn, Txn::and);
        txn = failure.into_iter().fold(txn, Txn::otherwise);
        let room = self.room_for(&txn).await;
        let committed = if is_read { self.space.look(txn).await? } else { self.space.commit(txn).await? };
        let header = self.header(committed.revision);
        Ok((TxnResponse { header: Some(header), ..answered(&asked, committed) }, room))
    }

    /// Clients say what they will not ask for again. The space forgets by itself, by count; what was said here is kept
    /// besides, so that every machine refuses the same.
    pub(crate) async fn compact(&self, asked: CompactionRequest) -> Result<Done, Status> {
        self.space.barrier().await?;
        let wanted = u64::try_from(asked.revision).unwrap_or(0);
        for _ in 0..TRIES {
            let stored = self.space.range_local(&control::Range::key(COMPACTED), 1, None)?;
            let before = stored.entries.first();
            if wanted > stored.revision {
                return Err(status::future_revision());
            }
            if before.map_or(0, revision) >= wanted || self.space.compacted() > wanted {
                return Err(status::compacted());
            }
            let same = control::Compare::mod_revision(COMPACTED, before.map_or(0, |entry| entry.mod_revision));
            let txn = Txn::new().when(same).put(COMPACTED, wanted.to_string().into_bytes());
            if self.space.commit(txn).await?.succeeded {
                return Ok(Done { header: Some(self.header(self.space.revision())) });
            }
            self.space.barrier().await?;
        }
        Err(status::too_many_requests())
    }

    /// What happened before this revision clients do not ask for.
    pub(crate) fn compacted(&self) -> u64 {
        let stored = self.space.range_local(&control::Range::key(COMPACTED), 1, None);
        stored.ok().and_then(|stored| stored.entries.first().map(revision)).unwrap_or(0)
    }
}

fn revision(entry: &Entry) -> u64 {
    std::str::from_utf8(&entry.value).ok().and_then(|text| text.parse().ok()).unwrap_or(0)
}

pub(crate) fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// An entry in etcd's words. A lease that is not a client's is not told.
pub(crate) fn key_value(entry: Entry) -> KeyValue {
    KeyValue {
        key: keys::given(&entry.key),
        create_revision: signed(entry.create_revision),
        mod_revision: signed(entry.mod_revision),
        version: signed(entry.version),
        value: entry.value,
        lease: entry.lease.and_then(keys::given_lease).unwrap_or(0),
    }
}

/// How many entries are read to answer: one more than is wanted, to tell that there are more, and all where they are
/// sifted or an order is asked for. etcd sorts without an order, if by something else than the key, what is read so.
fn limit(asked: &RangeRequest) -> usize {
    let sifts = [asked.min_mod_revision, asked.max_mod_revision, asked.min_create_revision, asked.max_create_revision];
    let is_plain = sifts.iter().all(|sift| *sift == 0) && asked.sort_order.0 == SortOrder::Unsorted;
    if asked.count_only {
        return 0;
    }
    match usize::try_from(asked.limit) {
        Ok(limit) if limit > 0 && is_plain => limit.saturating_add(1),
        Ok(_) | Err(_) => usize::MAX,
    }
}

fn is_sorted(asked: &RangeRequest) -> bool {
    asked.sort_target.0 != SortTarget::Key || asked.sort_order.0 == SortOrder::Descend
}

fn ranged(asked: &RangeRequest, found: Ranged) -> RangeResponse {
    let Ranged { entries, count, .. } = found;
    let wanted = usize::try_from(asked.limit).ok().filter(|limit| *limit > 0);
    let mut kvs: Vec<KeyValue> = entries.into_iter().map(key_value).collect();
    let is_within = |number: i64, min: i64, max: i64| (min == 0 || number >= min) && (max == 0 || number <= max);
    kvs.retain(|kv| {
        is_within(kv.mod_revision, asked.min_mod_revision, asked.max_mod_revision)
            && is_within(kv.create_revision, asked.min_create_revision, asked.max_create_revision)
    });
    if is_sorted(asked) {
        // Those that are alike stay in the order of their keys, either way.
        let target = asked.sort_target.0;
        if asked.sort_order.0 == SortOrder::Descend {
            kvs.sort_by(|one, other| compare(target, other, one));
        } else {
            kvs.sort_by(|one, other| compare(target, one, other));
        }
    }
    let more = wanted.is_some_and(|wanted| kvs.len() > wanted);
    kvs.truncate(wanted.unwrap_or(usize::MAX));
    if asked.keys_only {
        kvs.iter_mut().for_each(|kv| kv.value = Blob::default());
    }
    RangeResponse { header: None, kvs, more, count: signed(count) }
}

fn compare(target: SortTarget, one: &KeyValue, other: &KeyValue) -> Ordering {
    match target {
        SortTarget::Key => one.key.cmp(&other.key),
        SortTarget::Version => one.version.cmp(&other.version),
        SortTarget::Create => one.create_revision.cmp(&other.create_revision),
        SortTarget::Mod => one.mod_revision.cmp(&other.mod_revision),
        SortTarget::Value => one.value.cmp(&other.value),
    }
}

fn put(asked: &PutRequest) -> Result<Operation, Status> {
    if asked.key.is_empty() {
        return Err(status::empty_key());
    }
    if asked.ignore_value && !asked.value.is_empty() {
        return Err(status::value_provided());
    }
    if asked.ignore_lease && asked.lease != 0 {
        return Err(status::lease_provided());
    }
    let lease = match asked.lease {
        _ if asked.ignore_lease => Leasing::Keep,
        0 => Leasing::Set(None),
        id => Leasing::Set(Some(keys::stored_lease(id)?)),
    };
    let value = (!asked.ignore_value).then(|| Arc::clone(&asked.value));
    Ok(Operation::Replace { key: keys::stored(&asked.key), value, lease, tell: asked.prev_kv })
}

fn put_answered(outcome: Option<Outcome>) -> PutResponse {
    let prev_kv = match outcome {
        Some(Outcome::Changed { before, .. }) => before.into_iter().next().map(key_value),
        Some(Outcome::Ranged { .. } | Outcome::Nested(_)) | None => None,
    };
    PutResponse { header: None, prev_kv }
}

fn delete(asked: &DeleteRangeRequest) -> Result<Operation, Status> {
    Ok(Operation::DeleteRange { range: keys::named(&asked.key, &asked.range_end)?, tell: asked.prev_kv })
}

fn delete_answered(outcome: Option<Outcome>) -> DeleteRangeResponse {
    match outcome {
        Some(Outcome::Changed { count, before }) => DeleteRangeResponse {
            header: None,
            deleted: signed(count),
            prev_kvs: before.into_iter().map(key_value).collect(),
        },
        Some(Outcome::Ranged { .. } | Outcome::Nested(_)) | None => DeleteRangeResponse::default(),
    }
}

fn transaction(asked: &TxnRequest) -> Result<Nested, Status> {
    if [asked.compare.len(), asked.success.len(), asked.failure.len()].iter().any(|count| *count > OPERATIONS_MAX) {
        return Err(status::too_many_operations());
    }
    let branch = |operations: &[RequestOp]| operations.iter().map(operation).collect::<Result<Vec<_>, _>>();
    Ok(Nested {
        compares: asked.compare.iter().map(condition).collect::<Result<_, _>>()?,
        success: branch(&asked.success)?,
        failure: branch(&asked.failure)?,
    })
}

fn operation(asked: &RequestOp) -> Result<Operation, Status> {
    match asked {
        RequestOp { request_range: Some(asked), .. } => {
            if asked.revision > 0 {
                let message = "bramble: a range in a transaction is as of the transaction: leave its revision out";
                return Err(Status::new(Code::Unimplemented, message));
            }
            let range = keys::named(&asked.key, &asked.range_end)?;
            Ok(Operation::Range { range, limit: limit(asked) })
        }
        RequestOp { request_put: Some(asked), .. } => put(asked),
        RequestOp { request_delete_range: Some(asked), .. } => delete(asked),
        RequestOp { request_txn: Some(asked), .. } => Ok(Operation::Nested(Box::new(transaction(asked)?))),
        RequestOp { request_range: None, request_put: None, request_delete_range: None, request_txn: None } => {
            // As etcd says it for an operation without a request.
            Err(status::key_not_found())
        }
    }
}

fn only_reads(operations: &[Operation]) -> bool {
    operations.iter().all(|operation| match operation {
        Operation::Range { .. } | Operation::Get { .. } | Operation::List { .. } => true,
        Operation::Nested(nested) => only_reads(&nested.success) && only_reads(&nested.failure),
        Operation::Put { .. }
        | Operation::Delete { .. }
        | Operation::DeletePrefix { .. }
        | Operation::DeleteRange { .. }
        | Operation::Replace { .. } => false,
    })
}

fn condition(asked: &Compare) -> Result<control::Compare, Status> {
    let range = keys::named(&asked.key, &asked.range_end)?;
    let relation = match asked.result.0 {
        CompareResult::Equal => Relation::Equal,
        CompareResult::Greater => Relation::Greater,
        CompareResult::Less => Relation::Less,
        CompareResult::NotEqual => Relation::NotEqual,
    };
    // What is less than nothing is nowhere; it compares as nothing does.
    let number = |number: i64| u64::try_from(number).unwrap_or(0);
    let target = match asked.target.0 {
        CompareTarget::Version => Target::Version(number(asked.version)),
        CompareTarget::Create => Target::CreateRevision(number(asked.create_revision)),
        CompareTarget::Mod => Target::ModRevision(number(asked.mod_revision)),
        CompareTarget::Value => Target::Value(Arc::clone(&asked.value)),
        CompareTarget::Lease if asked.lease == 0 => Target::Lease(0),
        CompareTarget::Lease => Target::Lease(keys::stored_lease(asked.lease)?),
    };
    let end = (!asked.range_end.is_empty()).then_some(range.end);
    Ok(control::Compare { key: range.start, end, relation, target })
}

/// What became of a transaction, in the order it was asked.
fn answered(asked: &TxnRequest, committed: Committed) -> TxnResponse {
    let Committed { succeeded, revision, outcomes, .. } = committed;
    let header = || Some(crate::words::Header { revision: signed(revision), ..Default::default() });
    let branch = if succeeded { &asked.success } else { &asked.failure };
    let responses = branch.iter().zip(outcomes).map(|(asked, outcome)| match (asked, outcome) {
        (RequestOp { request_range: Some(asked), .. }, Outcome::Ranged { entries, count }) => {
            let answer = RangeResponse { header: header(), ..ranged(asked, Ranged { revision, entries, count }) };
            ResponseOp { response_range: Some(answer), ..ResponseOp::default() }
        }
        (RequestOp { request_put: Some(_), .. }, outcome) => {
            let answer = PutResponse { header: header(), ..put_answered(Some(outcome)) };
            ResponseOp { response_put: Some(answer), ..ResponseOp::default() }
        }
        (RequestOp { request_delete_range: Some(_), .. }, outcome) => {
            let answer = DeleteRangeResponse { header: header(), ..delete_answered(Some(outcome)) };
            ResponseOp { response_delete_range: Some(answer), ..ResponseOp::default() }
        }
        (RequestOp { request_txn: Some(asked), .. }, Outcome::Nested(committed)) => {
            let answer = TxnResponse { header: header(), ..answered(asked, committed) };
            ResponseOp { response_txn: Some(Box::new(answer)), ..ResponseOp::default() }
        }
        // One outcome for each, in order: what is left has none.
        (_, Outcome::Ranged { .. } | Outcome::Changed { .. } | Outcome::Nested(_)) => ResponseOp::default(),
    });
    TxnResponse { header: None, succeeded, responses: responses.collect() }
}
