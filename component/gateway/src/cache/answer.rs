//! An answer as it is kept, and the sheet that says by what the answers of an address differ.
//!
//! Owns the form of their heads on disk. What is read from there has passed a checksum; it is read carefully all the same.

use bytes::Bytes;
use http::StatusCode;
use http::header::{HeaderMap, HeaderName, HeaderValue};
use httpcache::Terms;
use stash::Kept;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

/// What a head takes beyond its body: more than the largest that an instance may send.
pub(crate) const HEAD_BYTES_MAX: usize = 96 << 10;
/// What a value costs in memory beside its texts.
const OVERHEAD_BYTES: usize = 256;

/// What lies in the stash.
#[derive(Debug, Clone)]
pub(crate) enum Stored {
    Answer(Arc<Answer>),
    /// The headers that choose among several answers, which lie under keys of their own.
    Sheet(Arc<Vec<HeaderName>>),
}

/// An answer and on which terms it is kept.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    pub(crate) terms: Terms,
    /// What the request that it answered had in the headers that it varies by.
    pub(crate) names: Vec<HeaderName>,
    pub(crate) selection: String,
    /// For people, and to be forgotten by.
    pub(crate) address: String,
    pub(crate) service: String,
    /// How often it was given. Counts anew when it comes back from disk.
    pub(crate) hits: Arc<AtomicU64>,
}

impl Kept for Stored {
    fn head(&self) -> Vec<u8> {
        let mut head = Writer::default();
        match self {
            Stored::Sheet(names) => {
                head.number(0);
                head.names(names);
            }
            Stored::Answer(answer) => {
                head.number(1);
                head.number(u64::from(answer.status.as_u16()));
                for number in numbers(&answer.terms) {
                    head.number(number);
                }
                head.names(&answer.names);
                for text in [&answer.selection, &answer.address, &answer.service] {
                    head.text(text.as_bytes());
                }
                head.number(u64::try_from(answer.headers.len()).unwrap_or(u64::MAX));
                for (name, value) in &answer.headers {
                    head.text(name.as_str().as_bytes());
                    head.text(value.as_bytes());
                }
            }
        }
        head.0
    }

    fn body(&self) -> &Bytes {
        static EMPTY: Bytes = Bytes::new();
        match self {
            Stored::Answer(answer) => &answer.body,
            Stored::Sheet(_) => &EMPTY,
        }
    }

    fn read(head: &[u8], body: Bytes) -> Option<Self> {
        let mut head = Reader(head);
        if head.number()? == 0 {
            return Some(Stored::Sheet(Arc::new(head.names()?)));
        }
        let status = StatusCode::from_u16(u16::try_from(head.number()?).ok()?).ok()?;
        let mut terms = [0; 7];
        for number in &mut terms {
            *number = head.number()?;
        }
        let names = head.names()?;
        let mut text = || String::from_utf8(head.text()?.to_vec()).ok();
        let (selection, address, service) = (text()?, text()?, text()?);
        let mut headers = HeaderMap::new();
        for _ in 0..head.number()? {
            let name = HeaderName::from_bytes(head.text()?).ok()?;
            headers.append(name, HeaderValue::from_bytes(head.text()?).ok()?);
        }
        let terms = terms_of(terms);
        let hits = Arc::default();
        Some(Stored::Answer(Arc::new(Answer {
            status,
            headers,
            body,
            terms,
            names,
            selection,
            address,
            service,
            hits,
        })))
    }

    fn size_bytes(&self) -> usize {
        OVERHEAD_BYTES
            + match self {
                Stored::Sheet(names) => names.iter().map(|name| name.as_str().len()).sum(),
                Stored::Answer(answer) => {
                    let headers = answer.headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 64);
                    let texts = answer.selection.len() + answer.address.len() + answer.service.len();
                    answer.body.len() + headers.sum::<usize>() + texts
                }
            }
    }
}

fn numbers(terms: &Terms) -> [u64; 7] {
    let Terms {
        received_ms,
        age_ms,
        fresh_ms,
        stale_while_revalidate_ms,
        stale_if_error_ms,
        stale_if_disconnected_ms,
        always_validate,
    } = *terms;
    let always = u64::from(always_validate);
    [received_ms, age_ms, fresh_ms, stale_while_revalidate_ms, stale_if_error_ms, stale_if_disconnected_ms, always]
}

fn terms_of(numbers: [u64; 7]) -> Terms {
    let [received_ms, age_ms, fresh_ms, while_ms, error_ms, disconnected_ms, always] = numbers;
    Terms {
        received_ms,
        age_ms,
        fresh_ms,
        stale_while_revalidate_ms: while_ms,
        stale_if_error_ms: error_ms,
        stale_if_disconnected_ms: disconnected_ms,
        always_validate: always != 0,
    }
}

#[derive(Default)]
struct Writer(Vec<u8>);

impl Writer {
    fn number(&mut self, number: u64) {
        self.0.extend_from_slice(&number.to_le_bytes());
    }

    fn text(&mut self, text: &[u8]) {
        self.number(u64::try_from(text.len()).unwrap_or(u64::MAX));
        self.0.extend_from_slice(text);
    }

    fn names(&mut self, names: &[HeaderName]) {
        self.number(u64::try_from(names.len()).unwrap_or(u64::MAX));
        for name in names {
            self.text(name.as_str().as_bytes());
        }
    }
}

struct Reader<'b>(&'b [u8]);

impl<'b> Reader<'b> {
    fn take(&mut self, length: usize) -> Option<&'b [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn number(&mut self) -> Option<u64> {
        self.take(8)?.try_into().ok().map(u64::from_le_bytes)
    }

    fn text(&mut self) -> Option<&'b [u8]> {
        let length = self.number()?;
        self.take(usize::try_from(length).ok()?)
    }

    fn names(&mut self) -> Option<Vec<HeaderName>> {
        // Each takes some of what is left, so that no number makes this long.
        (0..self.number()?).map(|_| HeaderName::from_bytes(self.text()?).ok()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::{Answer, Stored};
    use bytes::Bytes;
    use http::StatusCode;
    use http::header::{HeaderMap, HeaderName, HeaderValue};
    use httpcache::Terms;
    use proptest::prelude::*;
    use stash::Kept;
    use std::sync::Arc;

    fn same(one: &Stored, other: &Stored) -> bool {
        match (one, other) {
            (Stored::Sheet(one), Stored::Sheet(other)) => one == other,
            (Stored::Answer(one), Stored::Answer(other)) => {
                let parts = |answer: &Answer| {
                    let Answer { status, headers, body, terms, names, selection, address, service, hits: _ } = answer;
                    (
                        (*status, headers.clone(), body.clone(), *terms),
                        (names.clone(), selection.clone(), address.clone(), service.clone()),
                    )
                };
                parts(one) == parts(other)
            }
            (Stored::Sheet(_), Stored::Answer(_)) | (Stored::Answer(_), Stored::Sheet(_)) => false,
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            status in 200_u16..600,
            values in prop::collection::vec("[ -~\u{80}-\u{ff}]{0,9}", 0..4),
            texts in prop::array::uniform3(".{0,9}"),
            ages in prop::array::uniform3(any::<u64>()),
            cut in 1_usize..30,
        ) {
            let mut headers = HeaderMap::new();
            for value in &values {
                headers.append("x-one", HeaderValue::from_bytes(value.as_bytes()).unwrap());
            }
            let [selection, address, service] = texts;
            let [received_ms, age_ms, fresh_ms] = ages;
            let answer = Stored::Answer(Arc::new(Answer {
                status: StatusCode::from_u16(status).unwrap(),
                headers,
                body: Bytes::from_static(b"body"),
                terms: Terms { received_ms, age_ms, fresh_ms, always_validate: age_ms % 2 == 0, ..Terms::default() },
                names: vec![HeaderName::from_static("accept")],
                selection,
                address,
                service,
                hits: Arc::default(),
            }));
            let head = answer.head();
            let read = Stored::read(&head, Bytes::from_static(b"body")).unwrap();
            prop_assert!(same(&answer, &read), "{:?} {:?}", answer, read);
            if values.is_empty() || cut < values.last().unwrap().len() {
                prop_assert!(Stored::read(&head[..head.len() - cut.min(head.len())], Bytes::new()).is_none());
            }
            let sheet = Stored::Sheet(Arc::new(vec![HeaderName::from_static("accept"), HeaderName::from_static("x")]));
            prop_assert!(same(&sheet, &Stored::read(&sheet.head(), Bytes::new()).unwrap()));
        }

        #[test]
        fn nonsense_is_refused(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            let _ = Stored::read(&bytes, Bytes::new());
        }
    }
}
