//! Who we are to an authority.

use crate::error::ObtainError;
use crate::speech::Speech;
use base64::Engine as _;
use base64::engine::general_purpose::{URL_SAFE, URL_SAFE_NO_PAD};
use instant_acme::{AccountCredentials, ExternalAccountKey, NewAccount};

pub const LETSENCRYPT: &str = "https://acme-v02.api.letsencrypt.org/directory";
pub const LETSENCRYPT_STAGING: &str = "https://acme-staging-v02.api.letsencrypt.org/directory";

/// Which authority, and as whom.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// The URL of its directory.
    pub directory: String,
    /// `mailto:ops@example.org`: whom the authority writes to.
    pub contact: Vec<String>,
    /// PEM: whom to believe that it is the authority. Without, those whom browsers believe.
    pub roots: Option<String>,
    pub binding: Option<Binding>,
}

/// A customer's account that the new one is to belong to (RFC 8555, section 7.3.4).
#[derive(Debug, Clone)]
pub struct Binding {
    pub id: String,
    key: Vec<u8>,
}

impl Binding {
    /// From the key as authorities print it: base 64 for URLs. `None` when it is not that.
    pub fn new(id: &str, key: &str) -> Option<Binding> {
        let key = URL_SAFE_NO_PAD.decode(key).or_else(|_| URL_SAFE.decode(key)).ok()?;
        (!id.is_empty() && !key.is_empty()).then(|| Binding { id: id.to_owned(), key })
    }
}

/// An account with an authority.
pub struct Account {
    pub(crate) inner: instant_acme::Account,
    pub(crate) speech: Speech,
}

impl Account {
    /// Opens the account whose credentials were `kept`, or makes a new one. Returns what is to be kept, if that is new: it
    /// holds the account's private key.
    ///
    /// # Errors
    /// [`ObtainError`].
    pub async fn open(settings: &Settings, kept: Option<&str>) -> Result<(Account, Option<String>), ObtainError> {
        let speech = Speech::new(settings.roots.as_deref())?;
        let read = |error: instant_acme::Error| speech.explain(error);
        let builder = instant_acme::Account::builder_with_http(Box::new(speech.clone()));
        if let Some(kept) = kept {
            let credentials: AccountCredentials =
                serde_json::from_str(kept).map_err(|error| ObtainError::Credentials { why: error.to_string() })?;
            let inner = builder.from_credentials(credentials).await.map_err(|error| {
                if matches!(error, instant_acme::Error::KeyRejected | instant_acme::Error::Crypto) {
                    return ObtainError::Credentials { why: error.to_string() };
                }
                read(error)
            })?;
            return Ok((Account { inner, speech }, None));
        }
        let contact: Vec<&str> = settings.contact.iter().map(String::as_str).collect();
        let wanted = NewAccount { contact: &contact, terms_of_service_agreed: true, only_return_existing: false };
        let binding = settings.binding.as_ref();
        let binding = binding.map(|binding| ExternalAccountKey::new(binding.id.clone(), &binding.key));
        let (inner, credentials) =
            builder.create(&wanted, settings.directory.clone(), binding.as_ref()).await.map_err(read)?;
        let kept =
            serde_json::to_string(&credentials).map_err(|error| ObtainError::Credentials { why: error.to_string() })?;
        Ok((Account { inner, speech }, Some(kept)))
    }
}

#[cfg(test)]
mod tests {
    use super::Binding;

    #[test]
    fn a_bindings_key_is_read_with_and_without_padding() {
        assert_eq!(Binding::new("kid", "AAEC_w").map(|binding| binding.key), Some(vec![0, 1, 2, 255]));
        assert_eq!(Binding::new("kid", "AAEC_w==").map(|binding| binding.key), Some(vec![0, 1, 2, 255]));
        assert!(Binding::new("kid", "").is_none());
        assert!(Binding::new("", "AAEC_w").is_none());
        assert!(Binding::new("kid", "not base 64").is_none());
    }
}
