//! An answer that does not go to the client as the instance sent it: coded, or with a page in its place.
//!
//! Owns the walk of its bytes through a coder. Promises that what the instance has sent is on its way before the wait
//! for what follows, and that an answer which broke off is not ended as if it were whole.

use crate::body::AnswerBody;
use crate::coding::Encoder;
use crate::http1::LineError;
use crate::rule::{Pass, describe};
use crate::streams::Place;
use bytes::Bytes;
use http::{HeaderMap, Response};
use hyper::body::{Body, Frame, SizeHint};
use std::pin::Pin;
use std::task::{Context, Poll};

/// As much of an answer that is replaced is read, so that its connection can be used again.
const REPLACED_BYTES_MAX: usize = 64 << 10;

type Polled = Poll<Option<Result<Frame<Bytes>, LineError>>>;

pub(crate) struct Reshaped {
    body: AnswerBody,
    work: Work,
    pub(crate) place: Option<Place>,
}

enum Work {
    Code {
        encoder: Encoder,
        /// Bytes were taken in since the last flush.
        holds: bool,
    },
    /// What follows the last byte.
    Trailers(HeaderMap),
    Replace(Bytes),
    /// It broke off, which is kept back until the client has what came before.
    Broken(LineError),
    Done,
}

/// All that the rules of a route do to an instance's answer.
pub(crate) fn dress(pass: &Pass, mut response: Response<AnswerBody>) -> Response<AnswerBody> {
    let status = response.status();
    pass.note(status);
    let page = pass.page(status, response.headers_mut());
    pass.to_client(response.headers_mut());
    if let Some(page) = page {
        return response.map(|body| Reshaped::with(body, Work::Replace(page)));
    }
    let length = response.body().size_hint().exact();
    let coding = pass.coding(status, response.headers_mut(), length).filter(|_| !response.body().is_end_stream());
    let Some((coding, encoder)) = coding.and_then(|coding| Some((coding, Encoder::new(coding)?))) else {
        return response;
    };
    describe(coding, response.headers_mut());
    response.map(|body| Reshaped::with(body, Work::Code { encoder, holds: false }))
}

impl Reshaped {
    fn with(body: AnswerBody, work: Work) -> AnswerBody {
        AnswerBody::Reshaped(Box::new(Reshaped { body, work, place: None }))
    }

    fn poll_coded(&mut self, cx: &mut Context<'_>) -> Polled {
        match self.coded(cx) {
            Ok(polled) => polled.map(|bytes| bytes.map(|bytes| Ok(Frame::data(bytes)))),
            Err(error) => {
                self.work = Work::Broken(error);
                // Told at once, the server would drop what it has not written yet; a pause lets it.
                cx.waker().wake_by_ref();
                Poll::Pending
            }
        }
    }

    /// The next bytes of the coding; `None` when there are no more.
    fn coded(&mut self, cx: &mut Context<'_>) -> Result<Poll<Option<Bytes>>, LineError> {
        let some = |bytes: Bytes| (!bytes.is_empty()).then_some(bytes);
        while let Work::Code { encoder, holds } = &mut self.work {
            let frame = match Pin::new(&mut self.body).poll_frame(cx) {
                Poll::Ready(Some(frame)) => frame?,
                Poll::Ready(None) => return Ok(Poll::Ready(some(self.finish(Work::Done)?))),
                Poll::Pending if std::mem::take(holds) => {
                    return Ok(some(encoder.flush().map_err(LineError::Coding)?)
                        .map_or(Poll::Pending, |bytes| Poll::Ready(Some(bytes))));
                }
                Poll::Pending => return Ok(Poll::Pending),
            };
            let coded = match frame.into_data() {
                Ok(data) => {
                    *holds |= !data.is_empty();
                    encoder.push(&data).map_err(LineError::Coding)?
                }
                // They follow the last bytes of the coding, of which there are always some.
                Err(frame) => self.finish(Work::Trailers(frame.into_trailers().unwrap_or_default()))?,
            };
            if let Some(coded) = some(coded) {
                return Ok(Poll::Ready(Some(coded)));
            }
        }
        Ok(Poll::Ready(None))
    }

    /// The last bytes of the coding, and then `next`.
    fn finish(&mut self, next: Work) -> Result<Bytes, LineError> {
        match std::mem::replace(&mut self.work, next) {
            Work::Code { encoder, .. } => encoder.finish().map_err(LineError::Coding),
            Work::Trailers(_) | Work::Replace(_) | Work::Broken(_) | Work::Done => Ok(Bytes::new()),
        }
    }

    fn poll_rest(&mut self) -> Polled {
        match std::mem::replace(&mut self.work, Work::Done) {
            Work::Trailers(trailers) => Poll::Ready(Some(Ok(Frame::trailers(trailers)))),
            Work::Broken(error) => Poll::Ready(Some(Err(error))),
            Work::Code { .. } | Work::Replace(_) | Work::Done => Poll::Ready(None),
        }
    }

    /// Reads what is there of the answer already, and no more.
    fn read_away(&mut self, cx: &mut Context<'_>) {
        let mut left = REPLACED_BYTES_MAX;
        while let Poll::Ready(Some(Ok(frame))) = Pin::new(&mut self.body).poll_frame(cx) {
            let length = frame.data_ref().map_or(0, Bytes::len);
            match left.checked_sub(length.max(1)) {
                Some(rest) => left = rest,
                None => break,
            }
        }
        self.body.forgo();
    }
}

impl Body for Reshaped {
    type Data = Bytes;
    type Error = LineError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Polled {
        match &mut self.work {
            Work::Code { .. } => self.poll_coded(cx),
            Work::Replace(page) => {
                let page = std::mem::take(page);
                self.work = Work::Done;
                self.read_away(cx);
                if page.is_empty() { Poll::Ready(None) } else { Poll::Ready(Some(Ok(Frame::data(page)))) }
            }
            Work::Trailers(_) | Work::Broken(_) | Work::Done => self.poll_rest(),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.work {
            Work::Done => true,
            Work::Replace(page) => page.is_empty(),
            Work::Code { .. } | Work::Trailers(_) | Work::Broken(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.work {
            Work::Replace(page) => SizeHint::with_exact(u64::try_from(page.len()).unwrap_or(u64::MAX)),
            Work::Done => SizeHint::with_exact(0),
            Work::Code { .. } | Work::Trailers(_) | Work::Broken(_) => SizeHint::default(),
        }
    }
}

impl Drop for Reshaped {
    fn drop(&mut self) {
        // A page that was never asked for, as for HEAD, or an empty one. What is complete settles itself.
        if matches!(self.work, Work::Replace(_)) && !self.body.is_end_stream() {
            self.body.forgo();
        }
    }
}
