//! One request of a connection that speaks HTTP/3, and its answer.
//!
//! Owns the message each way: its form, its deadlines, and that it ends with the client. Does not know how a request is
//! answered: `exchange` does.

use super::inflow::Inflow;
use super::transport::{Sending, Wire};
use crate::asking::ClientBody;
use crate::body::AnswerBody;
use crate::exchange;
use crate::header;
use crate::http1::{Bad, LineError};
use crate::pulse::Pulse;
use crate::session::Session;
use crate::streams;
use bytes::Bytes;
use h3::error::{Code, StreamError};
use h3::server::{RequestResolver, RequestStream};
use http::header::{CONTENT_LENGTH, DATE, HeaderMap, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use hyper::body::Body;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

/// What is handed on of an answer at once: a client that takes less than this within the deadline for stalls has gone.
const PART_BYTES: usize = 64 << 10;
/// What each header counts besides its letters (RFC 9114, section 4.2.2).
const HEADER_BYTES: usize = 32;

type Stream<S> = RequestStream<S, Bytes>;

/// Why an answer could not be told to its end.
#[derive(Debug, thiserror::Error)]
enum Untold {
    #[error(transparent)]
    Client(#[from] StreamError),
    #[error(transparent)]
    Instance(#[from] LineError),
    #[error("the client takes nothing")]
    Stalled,
}

/// Answers what comes on a stream, unless `through` says that the client has left. `false` when it is no request.
pub(super) async fn serve(
    session: &Arc<Session>,
    resolver: RequestResolver<Wire, Bytes>,
    through: impl Future<Output = impl Send> + Send,
) -> bool {
    let mut through = pin!(through);
    let limits = &session.ground.limits;
    let head = tokio::time::timeout(limits.head_deadline, async {
        let (request, stream) = resolver.resolve_request().await?;
        let (mut sending, mut receiving) = stream.split();
        let Some(length) = length(request.headers()) else {
            sending.stop_stream(Code::H3_MESSAGE_ERROR);
            receiving.stop_sending(Code::H3_MESSAGE_ERROR);
            return Ok(None);
        };
        let body = Inflow::open(receiving, request.method(), length).await;
        Ok::<_, StreamError>(Some((request.map(|()| body), sending)))
    });
    let (request, sending) = tokio::select! {
        biased;
        head = head => match head {
            Ok(Ok(Some(head))) => head,
            Ok(Ok(None) | Err(_)) | Err(_) => return false,
        },
        _ = through.as_mut() => return false,
    };
    let answering = answer(session, request, sending);
    tokio::select! {
        biased;
        told = answering => match told {
            // The connection must not end before the client has all of it.
            Ok(()) => drop(tokio::time::timeout(limits.stall_deadline, through).await),
            Err(error) => tracing::debug!(client = %session.client, %error, "an answer was not told to its end"),
        },
        // Dropped, it ends what it began.
        _ = through.as_mut() => {}
    }
    true
}

async fn answer(session: &Arc<Session>, request: Request<Inflow>, mut sending: Stream<Sending>) -> Result<(), Untold> {
    let pulse = Arc::new(Pulse::new());
    let stream = Arc::new(session.stream(Arc::clone(&pulse)));
    let limits = &session.ground.limits;
    let is_head = request.method() == Method::HEAD;
    if section_bytes(&request) > limits.head_bytes_max {
        return tell(&mut sending, exchange::refuse(&stream, Bad::TooLong), is_head, limits.stall_deadline).await;
    }
    let uploads = !request.body().is_end_stream();
    let response = match exchange::begin(&stream, request.map(|body| ClientBody::Inflow(Box::new(body))), None) {
        Ok(mut admitted) => {
            let answered = {
                let upload = uploads.then(|| session.ground.crowd.watch_upload(session.client.ip(), &pulse));
                let (_seat, shed) = upload.unzip();
                let running = pin!(admitted.run(&stream));
                streams::attentively(&pulse, limits, shed.map(Box::pin), running).await
            };
            admitted.finish(&stream, answered)
        }
        Err(response) => response,
    };
    tell(&mut sending, response, is_head, limits.stall_deadline).await
}

/// How long the body says it is. `None` when the message has no form: a length that is none, or headers that are about
/// one connection (RFC 9114, section 4.2).
#[expect(clippy::option_option, reason = "no length is a good one")]
fn length(headers: &HeaderMap) -> Option<Option<u64>> {
    const OF_CONNECTIONS: [&str; 5] = ["connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade"];
    let te_is_plain = headers.get_all("te").into_iter().all(|te| te.as_bytes().eq_ignore_ascii_case(b"trailers"));
    if !te_is_plain || OF_CONNECTIONS.iter().any(|name| headers.contains_key(*name)) {
        return None;
    }
    let mut lengths = headers.get_all(CONTENT_LENGTH).into_iter();
    let Some(length) = lengths.next() else { return Some(None) };
    let is_number = !length.is_empty() && length.as_bytes().iter().all(u8::is_ascii_digit);
    let one = is_number && lengths.next().is_none();
    length.to_str().ok().filter(|_| one)?.parse().ok().map(Some)
}

/// How large the head is, as the protocol counts.
fn section_bytes<B>(request: &Request<B>) -> usize {
    let headers = request.headers().iter();
    let fields: usize = headers.map(|(name, value)| name.as_str().len() + value.len() + HEADER_BYTES).sum();
    let uri = request.uri();
    fields + uri.path().len() + uri.query().map_or(0, str::len) + uri.authority().map_or(0, |host| host.as_str().len())
}

/// Sends an answer as it comes.
async fn tell(
    sending: &mut Stream<Sending>,
    response: Response<AnswerBody>,
    is_head: bool,
    patience: Duration,
) -> Result<(), Untold> {
    let (mut head, mut body) = response.into_parts();
    let bodiless = head.status == StatusCode::NO_CONTENT || head.status == StatusCode::NOT_MODIFIED;
    header::to_client(&mut head.headers);
    if head.status == StatusCode::NO_CONTENT {
        head.headers.remove(CONTENT_LENGTH);
    }
    if let Some(exact) = body.size_hint().exact().filter(|exact| !(bodiless || is_head && *exact == 0)) {
        head.headers.entry(CONTENT_LENGTH).or_insert_with(|| HeaderValue::from(exact));
    }
    head.headers.entry(DATE).or_insert_with(date);
    within(patience, sending.send_response(Response::from_parts(head, ()))).await?;
    if !bodiless && !is_head {
        while let Some(frame) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
            match frame?.into_data() {
                Ok(mut data) => {
                    while !data.is_empty() {
                        let part = data.split_to(data.len().min(PART_BYTES));
                        within(patience, sending.send_data(part)).await?;
                    }
                }
                Err(frame) => {
                    if let Ok(trailers) = frame.into_trailers() {
                        within(patience, sending.send_trailers(trailers)).await?;
                    }
                }
            }
        }
    }
    drop(body);
    within(patience, sending.finish()).await
}

fn date() -> HeaderValue {
    let now = std::time::UNIX_EPOCH + Duration::from_secs(world::clock::coarse_unix_s());
    HeaderValue::try_from(httpdate::fmt_http_date(now)).expect("a date is plain text")
}

async fn within(patience: Duration, sending: impl Future<Output = Result<(), StreamError>>) -> Result<(), Untold> {
    Ok(tokio::time::timeout(patience, sending).await.map_err(|_| Untold::Stalled)??)
}

#[cfg(test)]
mod tests {
    use super::length;
    use http::header::{HeaderMap, HeaderName, HeaderValue};

    #[test]
    fn what_frames_a_message_elsewhere_has_no_place() {
        let check = |fields: &[(&'static str, &'static str)], expected: Option<Option<u64>>| {
            let fields =
                fields.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
            assert_eq!(length(&fields.clone().collect::<HeaderMap>()), expected, "{:?}", fields.collect::<Vec<_>>());
        };
        check(&[], Some(None));
        check(&[("content-length", "0")], Some(Some(0)));
        check(&[("content-length", "12"), ("te", "trailers")], Some(Some(12)));
        check(&[("content-length", "+12")], None);
        check(&[("content-length", "")], None);
        check(&[("content-length", "1"), ("content-length", "1")], None);
        check(&[("content-length", "99999999999999999999")], None);
        check(&[("transfer-encoding", "chunked")], None);
        check(&[("connection", "upgrade"), ("upgrade", "websocket")], None);
        check(&[("te", "gzip")], None);
    }
}
