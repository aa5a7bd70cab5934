//! What answers over TLS say of another way to the same listener.
//!
//! Owns the header. Does not know how that way is served.

use http::header::{ALT_SVC, HeaderMap, HeaderValue};
use std::sync::OnceLock;

/// Nothing until the other way is open.
#[derive(Default)]
pub(crate) struct Offer(OnceLock<HeaderValue>);

impl Offer {
    /// HTTP/3 is served at `port` from now on; clients may remember it for so long.
    #[cfg(feature = "http3")]
    pub(crate) fn open(&self, port: u16, seconds: u32) {
        let value = HeaderValue::try_from(format!("h3=\":{port}\"; ma={seconds}"));
        drop(self.0.set(value.expect("numbers are plain text")));
    }

    /// Says so, where the instance has not said something else.
    pub(crate) fn tell(&self, headers: &mut HeaderMap) {
        if let Some(value) = self.0.get() {
            headers.entry(ALT_SVC).or_insert_with(|| value.clone());
        }
    }
}
