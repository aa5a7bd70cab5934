//! etcd's messages: names and numbers as in its `rpc.proto`, `kv.proto` of 3.4, as far as they are served.

use crate::codec::{Blob, One, Several, choices, messages};

choices! {
    SortOrder { Unsorted = 0 "NONE", Ascend = 1 "ASCEND", Descend = 2 "DESCEND" }
    SortTarget { Key = 0 "KEY", Version = 1 "VERSION", Create = 2 "CREATE", Mod = 3 "MOD", Value = 4 "VALUE" }
    CompareResult { Equal = 0 "EQUAL", Greater = 1 "GREATER", Less = 2 "LESS", NotEqual = 3 "NOT_EQUAL" }
    CompareTarget { Version = 0 "VERSION", Create = 1 "CREATE", Mod = 2 "MOD", Value = 3 "VALUE", Lease = 4 "LEASE" }
    Filter { NoPut = 0 "NOPUT", NoDelete = 1 "NODELETE" }
    EventType { Put = 0 "PUT", Delete = 1 "DELETE" }
    AlarmAction { Get = 0 "GET", Activate = 1 "ACTIVATE", Deactivate = 2 "DEACTIVATE" }
    AlarmType { Nothing = 0 "NONE", NoSpace = 1 "NOSPACE", Corrupt = 2 "CORRUPT" }
    Serving { Unknown = 0 "UNKNOWN", Serving = 1 "SERVING" }
}

messages! {
    Header { 1 cluster_id: u64, 2 member_id: u64, 3 revision: i64, 4 raft_term: u64 }
    KeyValue {
        1 key: Blob, 2 create_revision: i64, 3 mod_revision: i64, 4 version: i64, 5 value: Blob, 6 lease: i64,
    }

    RangeRequest {
        1 key: Blob, 2 range_end: Blob, 3 limit: i64, 4 revision: i64, 5 sort_order: One<SortOrder>,
        6 sort_target: One<SortTarget>, 7 serializable: bool, 8 keys_only: bool, 9 count_only: bool,
        10 min_mod_revision: i64, 11 max_mod_revision: i64, 12 min_create_revision: i64, 13 max_create_revision: i64,
    }
    RangeResponse { 1 header: Option<Header>, 2 kvs: Vec<KeyValue>, 3 more: bool, 4 count: i64 }
    PutRequest {
        1 key: Blob, 2 value: Blob, 3 lease: i64, 4 prev_kv: bool, 5 ignore_value: bool, 6 ignore_lease: bool,
    }
    PutResponse { 1 header: Option<Header>, 2 prev_kv: Option<KeyValue> }
    DeleteRangeRequest { 1 key: Blob, 2 range_end: Blob, 3 prev_kv: bool }
    DeleteRangeResponse { 1 header: Option<Header>, 2 deleted: i64, 3 prev_kvs: Vec<KeyValue> }
    Compare {
        1 result: One<CompareResult>, 2 target: One<CompareTarget>, 3 key: Blob, 4 version: i64, 5 create_revision: i64,
        6 mod_revision: i64, 7 value: Blob, 8 lease: i64, 64 range_end: Blob,
    }
    RequestOp {
        1 request_range: Option<RangeRequest>, 2 request_put: Option<PutRequest>,
        3 request_delete_range: Option<DeleteRangeRequest>, 4 request_txn: Option<Box<TxnRequest>>,
    }
    ResponseOp {
        1 response_range: Option<RangeResponse>, 2 response_put: Option<PutResponse>,
        3 response_delete_range: Option<DeleteRangeResponse>, 4 response_txn: Option<Box<TxnResponse>>,
    }
    TxnRequest { 1 compare: Vec<Compare>, 2 success: Vec<RequestOp>, 3 failure: Vec<RequestOp> }
    TxnResponse { 1 header: Option<Header>, 2 succeeded: bool, 3 responses: Vec<ResponseOp> }
    CompactionRequest { 1 revision: i64, 2 physical: bool }
    Done { 1 header: Option<Header> }
    Nothing {}

    WatchRequest {
        1 create_request: Option<WatchCreateRequest>, 2 cancel_request: Option<WatchCancelRequest>,
        3 progress_request: Option<Nothing>,
    }
    WatchCreateRequest {
        1 key: Blob, 2 range_end: Blob, 3 start_revision: i64, 4 progress_notify: bool, 5 filters: Several<Filter>,
        6 prev_kv: bool, 7 watch_id: i64, 8 fragment: bool,
    }
    WatchCancelRequest { 1 watch_id: i64 }
    WatchResponse {
        1 header: Option<Header>, 2 watch_id: i64, 3 created: bool, 4 canceled: bool, 5 compact_revision: i64,
        6 cancel_reason: String, 7 fragment: bool, 11 events: Vec<Event>,
    }
    Event { 1 kind "type": One<EventType>, 2 kv: Option<KeyValue>, 3 prev_kv: Option<KeyValue> }

    LeaseGrantRequest { 1 ttl "TTL": i64, 2 id "ID": i64 }
    LeaseGrantResponse { 1 header: Option<Header>, 2 id "ID": i64, 3 ttl "TTL": i64, 4 error: String }
    LeaseRequest { 1 id "ID": i64 }
    LeaseKeepAliveResponse { 1 header: Option<Header>, 2 id "ID": i64, 3 ttl "TTL": i64 }
    LeaseTimeToLiveRequest { 1 id "ID": i64, 2 keys: bool }
    LeaseTimeToLiveResponse {
        1 header: Option<Header>, 2 id "ID": i64, 3 ttl "TTL": i64, 4 granted_ttl "grantedTTL": i64, 5 keys: Vec<Blob>,
    }
    LeaseLeasesResponse { 1 header: Option<Header>, 2 leases: Vec<LeaseRequest> }

    Member {
        1 id "ID": u64, 2 name: String, 3 peer_urls "peerURLs": Vec<String>, 4 client_urls "clientURLs": Vec<String>,
        5 is_learner "isLearner": bool,
    }
    MemberListResponse { 1 header: Option<Header>, 2 members: Vec<Member> }
    AlarmRequest { 1 action: One<AlarmAction>, 2 member_id "memberID": u64, 3 alarm: One<AlarmType> }
    StatusResponse {
        1 header: Option<Header>, 2 version: String, 3 db_size "dbSize": i64, 4 leader: u64, 5 raft_index "raftIndex": u64,
        6 raft_term "raftTerm": u64, 7 raft_applied_index "raftAppliedIndex": u64, 8 errors: Vec<String>,
        9 db_size_in_use "dbSizeInUse": i64, 10 is_learner "isLearner": bool,
    }
    AuthenticateRequest { 1 name: String, 2 password: String }
    HealthRequest { 1 service: String }
    HealthResponse { 1 status: One<Serving> }
}
