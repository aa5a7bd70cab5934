//! One stream at the server: read, answered by its method within its deadline, counted.
//!
//! Owns the order of the checks. hyper drops what is here when the client resets the stream or its connection ends, and
//! the method with it.

use crate::failure::{Code, Failure};
use crate::greeting;
use crate::handler::{Access, Answer, Call, Caller, Handler, Messages, Method, Opening};
use crate::head::{Asked, Shape, write_end};
use crate::inflow::{Inflow, InflowError, whole};
use crate::meters::{Meters, MethodMeters, Outcome};
use crate::outflow::{Item, Outflow};
use crate::settings::{
    CALL_DEADLINE_MAX, MESSAGE_BYTES_MAX, OPENING_BYTES_MAX, Patience, REQUEST_SMALL_BYTES, REQUESTS_KIB_MAX,
    STRANGER_BYTES_MAX,
};
use bytes::Bytes;
use futures::FutureExt;
use http::{Request, Response};
use hyper::body::{Body, Incoming};
use meter::Held;
use std::collections::HashMap;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

/// What all streams of a server share.
pub(crate) struct Desk {
    handler: Arc<dyn Handler>,
    methods: HashMap<&'static str, (Method, Arc<MethodMeters>)>,
    /// For calls nobody has a method for.
    unknown: Arc<MethodMeters>,
    pub(crate) meters: Arc<Meters>,
    pub(crate) patience: Patience,
    /// Memory for requests, in KiB.
    requests: Arc<Semaphore>,
}

/// What the streams of one connection share.
pub(crate) struct Visit {
    pub(crate) desk: Arc<Desk>,
    pub(crate) caller: Caller,
    /// Whether both sides have found a version.
    pub(crate) has_greeted: AtomicBool,
}

/// A call that may go ahead.
struct Admitted {
    method: Method,
    meters: Arc<MethodMeters>,
    asked: Asked,
    deadline: Option<Instant>,
    began: Instant,
}

impl Desk {
    pub(crate) fn new(handler: Arc<dyn Handler>, meters: Arc<Meters>, patience: Patience) -> Desk {
        let methods = handler.methods().into_iter().map(|method| (method.name, (method, meters.method(method.name))));
        Desk {
            methods: methods.collect(),
            handler,
            unknown: meters.method("unknown"),
            meters,
            patience,
            requests: Arc::new(Semaphore::new(REQUESTS_KIB_MAX as usize)),
        }
    }

    /// Room for a request of so many bytes.
    async fn room(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        let large = if bytes > REQUEST_SMALL_BYTES { bytes } else { 0 };
        let kib = u32::try_from(large.div_ceil(1 << 10)).unwrap_or(u32::MAX).min(REQUESTS_KIB_MAX);
        Arc::clone(&self.requests).acquire_many_owned(kib).await.ok()
    }
}

/// Answers a stream.
pub(crate) async fn answer(visit: Arc<Visit>, request: Request<Incoming>) -> Response<Outflow> {
    if request.uri().path() == greeting::PATH {
        let (response, is_understood) = greeting::answer(request.headers(), visit.desk.patience.versions);
        visit.has_greeted.fetch_or(is_understood, Ordering::AcqRel);
        return response;
    }
    let admitted = match admit(&visit, &request) {
        Ok(admitted) => admitted,
        Err(failure) => return refusal(&failure),
    };
    let open = Held::new(&admitted.meters.open);
    let (began, meters) = (admitted.began, Arc::clone(&admitted.meters));
    // A call dropped where it waits was left by whoever called.
    let mut outcome = Outcome::new(&visit.desk.meters, meters, began);
    let body = request.into_body();
    let answered = match admitted.method.shape {
        Shape::Call => call(&visit, admitted, body).await,
        Shape::Watch => watch(&visit, admitted, body, open).await,
        Shape::Tunnel => tunnel(&visit, admitted, body, open).await,
    };
    outcome.set(answered.as_ref().map(|_| ()).map_err(|failure| failure.code));
    answered.unwrap_or_else(|failure| refusal(&failure))
}

fn admit(visit: &Visit, request: &Request<Incoming>) -> Result<Admitted, Failure> {
    let (desk, began) = (&visit.desk, world::clock::monotonic());
    let refuse = |meters: &MethodMeters, code: Code, message: String| {
        desk.meters.count(meters, began.elapsed(), Err(code));
        Failure::new(code, message)
    };
    let asked = Asked::read(request.uri().path(), request.headers())?;
    let Some((method, meters)) = desk.methods.get(asked.method.as_str()) else {
        return Err(refuse(&desk.unknown, Code::Unimplemented, format!("there is no method {}", asked.method)));
    };
    match (&visit.caller, method.access) {
        (Caller::Node { .. }, _) => {}
        (Caller::Stranger { .. }, Access::Anyone) if method.shape == Shape::Call => {}
        (Caller::Stranger { .. }, Access::Anyone | Access::Members) => {
            let message = format!("{} is for members of the cluster", method.name);
            return Err(refuse(meters, Code::Unauthenticated, message).with_hint("join with a token first"));
        }
    }
    if !visit.has_greeted.load(Ordering::Acquire) {
        return Err(refuse(meters, Code::FailedPrecondition, "a connection begins with a greeting".to_owned()));
    }
    if asked.shape != method.shape {
        let message = format!("{} is a {}, not a {}", method.name, method.shape.as_str(), asked.shape.as_str());
        return Err(refuse(meters, Code::InvalidArgument, message));
    }
    let limit = match method.shape {
        Shape::Call | Shape::Tunnel => Some(asked.deadline.unwrap_or(CALL_DEADLINE_MAX).min(CALL_DEADLINE_MAX)),
        // It lasts as long as its client wants.
        Shape::Watch => asked.deadline,
    };
    let deadline = limit.and_then(|limit| began.checked_add(limit));
    Ok(Admitted { method: *method, meters: Arc::clone(meters), asked, deadline, began })
}

async fn call(visit: &Visit, admitted: Admitted, body: Incoming) -> Result<Response<Outflow>, Failure> {
    let name = admitted.method.name;
    let work = async {
        let (request, room) = read(visit, body).await?;
        let answer = sound(name, visit.desk.handler.call(admitted.call(visit, request))).await;
        drop(room);
        answer
    };
    let answer: Answer = in_time(name, admitted.deadline, admitted.began, work).await?;
    if answer.bytes.len() > MESSAGE_BYTES_MAX {
        let message = format!("the answer of {name} has {} bytes, more than {MESSAGE_BYTES_MAX}", answer.bytes.len());
        return Err(Failure::new(Code::ResourceExhausted, message));
    }
    let mut response = fine(Outflow::Whole(answer.bytes));
    if let Some(trace) = &answer.trace {
        trace.write(response.headers_mut());
    }
    Ok(response)
}

async fn watch(visit: &Visit, admitted: Admitted, body: Incoming, open: Held) -> Result<Response<Outflow>, Failure> {
    let (name, deadline, began) = (admitted.method.name, admitted.deadline, admitted.began);
    let (request, room) = in_time(name, deadline, began, read(visit, body)).await?;
    // One message waits while another is sent: the method feels whoever does not read.
    let (to, from) = mpsc::channel(1);
    let (call, handler, end) = (admitted.call(visit, request), Arc::clone(&visit.desk.handler), to.clone());
    let task = world::task::spawn("rpc watch", async move {
        let work = sound(name, handler.watch(call, Messages(to)));
        let ended = in_time(name, deadline, began, work).await;
        drop((open, room));
        // Nobody listens any more when this fails.
        drop(end.send(Item::End(ended)).await);
    });
    Ok(fine(Outflow::Messages { from, rest: None, has_ended: false, task: Some(task) }))
}

async fn tunnel(visit: &Visit, admitted: Admitted, body: Incoming, open: Held) -> Result<Response<Outflow>, Failure> {
    let (name, deadline, began) = (admitted.method.name, admitted.deadline, admitted.began);
    let (accepted, is_accepted) = oneshot::channel();
    let (failed, has_failed) = oneshot::channel();
    let (handler, mut inflow) = (Arc::clone(&visit.desk.handler), Inflow::new(body));
    let request = in_time(name, deadline, began, async {
        inflow.message(OPENING_BYTES_MAX).await.and_then(|opening| opening.ok_or(InflowError::Torn)).map_err(unread)
    });
    let call = admitted.call(visit, request.await?);
    let task = world::task::spawn("rpc tunnel", async move {
        let ended = sound(name, handler.tunnel(call, Opening::new(inflow, accepted))).await;
        drop(open);
        if let Err(Err(failure)) = failed.send(ended) {
            tracing::debug!(method = name, %failure, "a tunnel ended with a failure");
        }
    });
    let opened = in_time(name, deadline, began, async {
        match is_accepted.await {
            Ok(pipe) => Ok(pipe),
            Err(_) => Err(match has_failed.await {
                Ok(Err(failure)) => failure,
                Ok(Ok(())) | Err(_) => Failure::new(Code::Internal, format!("{name} left a tunnel unopened")),
            }),
        }
    });
    let pipe = opened.await?;
    Ok(fine(Outflow::Piped { opening: Bytes::new(), pipe, task: Some(task) }))
}

impl Admitted {
    fn call(&self, visit: &Visit, request: Bytes) -> Call {
        Call {
            method: self.method.name,
            request,
            caller: visit.caller.clone(),
            deadline: self.deadline,
            trace: self.asked.trace.clone(),
        }
    }
}

/// The whole request, and the memory it may take.
async fn read(visit: &Visit, body: Incoming) -> Result<(Bytes, OwnedSemaphorePermit), Failure> {
    let announced =
        body.size_hint().exact().map_or(MESSAGE_BYTES_MAX, |bytes| usize::try_from(bytes).unwrap_or(usize::MAX));
    let max = match &visit.caller {
        Caller::Node { .. } => MESSAGE_BYTES_MAX,
        Caller::Stranger { .. } => STRANGER_BYTES_MAX,
    };
    if announced > max {
        return Err(unread(InflowError::TooLarge { bytes: announced, max }));
    }
    let closed = || Failure::new(Code::Unavailable, "the server is ending");
    let room = visit.desk.room(announced).await.ok_or_else(closed)?;
    let request = whole(body).await.map_err(unread)?;
    Ok((request, room))
}

fn unread(error: InflowError) -> Failure {
    match &error {
        InflowError::TooLarge { .. } => Failure::new(Code::ResourceExhausted, format!("read the request: {error}")),
        InflowError::Cut { .. } => Failure::new(Code::Cancelled, format!("read the request: {error}")),
        InflowError::Torn => Failure::new(Code::InvalidArgument, format!("read the request: {error}")),
    }
}

/// What a method that panics answers: its callers are told, and the connection goes on.
async fn sound<T>(name: &'static str, work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    AssertUnwindSafe(work).catch_unwind().await.unwrap_or_else(|_| {
        tracing::error!(method = name, "a method panicked");
        Err(Failure::new(Code::Internal, format!("{name} failed in a way it should not")))
    })
}

async fn in_time<T>(
    name: &'static str,
    deadline: Option<Instant>,
    began: Instant,
    work: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    let Some(deadline) = deadline else { return work.await };
    tokio::time::timeout_at(deadline.into(), work).await.unwrap_or_else(|_| Err(late(name, deadline - began)))
}

pub(crate) fn late(name: &str, limit: Duration) -> Failure {
    Failure::new(Code::DeadlineExceeded, format!("{name} was not answered within {limit:?}"))
}

fn fine(body: Outflow) -> Response<Outflow> {
    let mut response = Response::new(body);
    write_end(response.headers_mut(), Ok(()));
    response
}

fn refusal(failure: &Failure) -> Response<Outflow> {
    let mut response = Response::new(Outflow::Whole(Bytes::new()));
    write_end(response.headers_mut(), Err(failure));
    response
}
