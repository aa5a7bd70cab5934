//! One certificate: from the order to the chain.

use crate::account::Account;
use crate::error::ObtainError;
use crate::speech;
use instant_acme::{AuthorizationStatus, ChallengeType, Identifier, NewOrder, Order, OrderStatus, RetryPolicy};
use serde::{Deserialize, Serialize};
use std::io;
use std::pin::Pin;
use std::time::Duration;

/// Authorities look from several places, some of them slow; what takes longer has failed.
const DECIDE: RetryPolicy =
    RetryPolicy::new().initial_delay(Duration::from_millis(250)).backoff(1.5).timeout(Duration::from_secs(120));

/// How it is proven that a name is ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Challenge {
    /// A text at `http://NAME/.well-known/acme-challenge/TOKEN`.
    Http,
    /// A certificate shown at port 443 to whom speaks `acme-tls/1` (RFC 8737).
    TlsAlpn,
    /// A text in the domain name system; the only one for wildcards.
    Dns,
}

impl Challenge {
    /// As RFC 8555 and command lines have it.
    pub const ALL: [(&'static str, Challenge); 3] =
        [("http-01", Challenge::Http), ("tls-alpn-01", Challenge::TlsAlpn), ("dns-01", Challenge::Dns)];

    pub fn name(self) -> &'static str {
        match self {
            Challenge::Http => "http-01",
            Challenge::TlsAlpn => "tls-alpn-01",
            Challenge::Dns => "dns-01",
        }
    }

    fn kind(self) -> ChallengeType {
        match self {
            Challenge::Http => ChallengeType::Http01,
            Challenge::TlsAlpn => ChallengeType::TlsAlpn01,
            Challenge::Dns => ChallengeType::Dns01,
        }
    }
}

/// What the authority is to find.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Proof {
    Http {
        token: String,
        text: String,
    },
    /// The digest goes into the certificate.
    TlsAlpn {
        host: String,
        digest: [u8; 32],
    },
    /// A TXT record.
    Dns {
        name: String,
        value: String,
    },
}

/// An order under way: whoever has this goes on with it.
#[derive(Clone, Serialize, Deserialize)]
pub struct Begun {
    /// Its URL.
    pub order: String,
    /// The private key that the certificate will be for.
    pub key_pem: String,
}

/// A certificate with its chain, and its key.
pub struct Issued {
    pub chain_pem: String,
    pub key_pem: String,
}

/// Something being done for an order, with what went wrong in words.
pub type Doing<'a> = Pin<Box<dyn Future<Output = Result<(), String>> + Send + 'a>>;

/// What an order needs of whoever has it made.
pub trait Desk: Send + Sync {
    /// Keeps the order, so that it outlives us. Called before anything is asked of it.
    ///
    /// # Errors
    /// When it cannot be kept; the order is given up then.
    fn keep(&self, begun: &Begun) -> io::Result<()>;

    /// Makes a private key, as PEM.
    ///
    /// # Errors
    /// In words.
    fn key(&self) -> Result<String, String>;

    /// A certificate signing request (PKCS #10) for `name` by this key.
    ///
    /// # Errors
    /// In words.
    fn request(&self, name: &str, key_pem: &str) -> Result<Vec<u8>, String>;

    /// Shows a proof. When it is done, everybody can see it.
    fn show<'a>(&'a self, proof: &'a Proof) -> Doing<'a>;

    /// Takes a proof back.
    fn take_back<'a>(&'a self, proof: &'a Proof) -> Doing<'a>;
}

impl Account {
    /// Obtains a certificate for `name`. An order `begun` before is gone on with, if the authority still has it.
    ///
    /// # Errors
    /// [`ObtainError`]. May be dropped; proofs that were shown stay then.
    pub async fn obtain(
        &self,
        name: &str,
        challenge: Challenge,
        begun: Option<Begun>,
        desk: &dyn Desk,
    ) -> Result<Issued, ObtainError> {
        let (mut order, begun) = match self.again(begun).await {
            Some(found) => found,
            None => self.begin(name, desk).await?,
        };
        if order.state().status == OrderStatus::Pending {
            let mut shown = Vec::new();
            let proven = self.prove(&mut order, name, challenge, desk, &mut shown).await;
            for proof in &shown {
                if let Err(why) = desk.take_back(proof).await {
                    tracing::warn!(name, why, "a proof for an authority stays where it is");
                }
            }
            proven?;
        }
        let explain = |error| self.speech.explain(error);
        if order.state().status == OrderStatus::Ready {
            let request = desk.request(name, &begun.key_pem);
            let request = request.map_err(|why| ObtainError::Request { name: name.to_owned(), why })?;
            order.finalize_csr(&request).await.map_err(explain)?;
        }
        let chain_pem = order.poll_certificate(&DECIDE).await.map_err(explain)?;
        Ok(Issued { chain_pem, key_pem: begun.key_pem })
    }

    /// The order of before, unless it came to an end or is forgotten.
    async fn again(&self, begun: Option<Begun>) -> Option<(Order, Begun)> {
        let begun = begun?;
        match self.inner.order(begun.order.clone()).await {
            Ok(mut order) => (order.state().status != OrderStatus::Invalid).then_some((order, begun)),
            Err(error) => {
                tracing::debug!(order = begun.order, %error, "an order of before is not gone on with");
                None
            }
        }
    }

    async fn begin(&self, name: &str, desk: &dyn Desk) -> Result<(Order, Begun), ObtainError> {
        let identifiers = [Identifier::Dns(name.to_owned())];
        let order = self.inner.new_order(&NewOrder::new(&identifiers)).await;
        let order = order.map_err(|error| self.speech.explain(error))?;
        let key_pem = desk.key().map_err(|why| ObtainError::Request { name: name.to_owned(), why })?;
        let begun = Begun { order: order.url().to_owned(), key_pem };
        desk.keep(&begun).map_err(|source| ObtainError::Keep { source })?;
        Ok((order, begun))
    }

    async fn prove(
        &self,
        order: &mut Order,
        name: &str,
        challenge: Challenge,
        desk: &dyn Desk,
        shown: &mut Vec<Proof>,
    ) -> Result<(), ObtainError> {
        let explain = |error| self.speech.explain(error);
        let mut authorizations = order.authorizations();
        while let Some(authorization) = authorizations.next().await {
            let mut authorization = authorization.map_err(explain)?;
            if authorization.status != AuthorizationStatus::Pending {
                continue;
            }
            let Some(mut offered) = authorization.challenge(challenge.kind()) else {
                return Err(ObtainError::NotOffered { name: name.to_owned(), challenge: challenge.name() });
            };
            let proof = proof(challenge, name, &offered.token, &offered.key_authorization());
            shown.push(proof.clone());
            desk.show(&proof).await.map_err(|why| ObtainError::NotShown { name: name.to_owned(), why })?;
            offered.set_ready().await.map_err(explain)?;
        }
        match order.poll_ready(&DECIDE).await {
            Ok(OrderStatus::Ready | OrderStatus::Valid | OrderStatus::Processing) => Ok(()),
            Ok(OrderStatus::Invalid | OrderStatus::Pending) => Err(self.doubt(order, name, None).await),
            Err(error) => {
                let error = explain(error);
                let is_said = matches!(error, ObtainError::Refused { .. });
                Err(if is_said { self.doubt(order, name, Some(error)).await } else { error })
            }
        }
    }

    /// Why the authority does not believe us: what it says of the challenge tells more than what it says of the order.
    async fn doubt(&self, order: &mut Order, name: &str, of_order: Option<ObtainError>) -> ObtainError {
        let mut authorizations = order.authorizations();
        while let Some(Ok(mut authorization)) = authorizations.next().await {
            let Ok(state) = authorization.refresh().await else { continue };
            let problem = state.challenges.iter().find_map(|challenge| challenge.error.clone());
            if let Some(problem) = problem {
                return ObtainError::NotBelieved { name: name.to_owned(), why: speech::words(&problem) };
            }
        }
        let why = "it does not say why".to_owned();
        of_order.unwrap_or(ObtainError::NotBelieved { name: name.to_owned(), why })
    }
}

fn proof(challenge: Challenge, name: &str, token: &str, authorization: &instant_acme::KeyAuthorization) -> Proof {
    let host = name.strip_prefix("*.").unwrap_or(name);
    match challenge {
        Challenge::Http => Proof::Http { token: token.to_owned(), text: authorization.as_str().to_owned() },
        Challenge::TlsAlpn => {
            let mut digest = [0; 32];
            // SHA-256 has no other length.
            for (to, from) in digest.iter_mut().zip(authorization.digest().as_ref()) {
                *to = *from;
            }
            Proof::TlsAlpn { host: host.to_owned(), digest }
        }
        Challenge::Dns => Proof::Dns { name: format!("_acme-challenge.{host}"), value: authorization.dns_value() },
    }
}
