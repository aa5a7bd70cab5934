//! Where proofs for a public authority are shown: at the gateway, or in the domain name system by somebody's webhook.

use super::folder::Folder;
use super::{OpenError, now_s};
use acme::{Begun, Doing, Proof};
use gateway::{Gateway, Proofs};
use serde::Serialize;
use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

/// A webhook answers when everybody can see the record, and that takes name servers a while.
const WEBHOOK_DEADLINE: Duration = Duration::from_secs(180);
/// What is repeated of its answer when it refuses.
const WEBHOOK_LETTERS_MAX: usize = 200;

/// What an order for one name needs.
pub(super) struct Desk<'w> {
    pub(super) folder: &'w Folder,
    pub(super) name: &'w str,
    pub(super) gateway: &'w Gateway,
    pub(super) webhook: Option<&'w Webhook>,
}

impl acme::Desk for Desk<'_> {
    fn keep(&self, begun: &Begun) -> io::Result<()> {
        self.folder.keep_order(self.name, begun)
    }

    fn key(&self) -> Result<String, String> {
        pki::key().map_err(|error| error.to_string())
    }

    fn request(&self, name: &str, key_pem: &str) -> Result<Vec<u8>, String> {
        pki::request(name, key_pem).map_err(|error| wire::diagnostic::chain(&error))
    }

    fn show<'a>(&'a self, proof: &'a Proof) -> Doing<'a> {
        Box::pin(async move {
            match proof {
                Proof::Http { token, text } => {
                    let texts = BTreeMap::from([(token.clone(), text.clone())]);
                    self.gateway.prove(Proofs { texts, certificates: Vec::new() });
                    Ok(())
                }
                Proof::TlsAlpn { host, digest } => {
                    let certificate = pki::proving(host, digest, now_s()).map_err(|error| error.to_string())?;
                    self.gateway.prove(Proofs { texts: BTreeMap::new(), certificates: vec![Arc::new(certificate)] });
                    Ok(())
                }
                Proof::Dns { name, value } => self.tell(Action::Present, name, value).await,
            }
        })
    }

    fn take_back<'a>(&'a self, proof: &'a Proof) -> Doing<'a> {
        Box::pin(async move {
            match proof {
                Proof::Http { .. } | Proof::TlsAlpn { .. } => {
                    self.gateway.prove(Proofs::default());
                    Ok(())
                }
                Proof::Dns { name, value } => self.tell(Action::Cleanup, name, value).await,
            }
        })
    }
}

impl Desk<'_> {
    async fn tell(&self, action: Action, name: &str, value: &str) -> Result<(), String> {
        match self.webhook {
            Some(webhook) => webhook.tell(&Told { action, name, value }).await,
            None => Err("no webhook was named for records".to_owned()),
        }
    }
}

#[derive(Debug, Clone, Copy, Serialize)]
#[serde(rename_all = "snake_case")]
enum Action {
    Present,
    Cleanup,
}

/// What is posted.
#[derive(Serialize)]
struct Told<'t> {
    action: Action,
    name: &'t str,
    value: &'t str,
}

/// Puts TXT records into the domain name system and takes them out.
pub(super) struct Webhook {
    client: reqwest::Client,
    url: String,
}

impl Webhook {
    pub(super) fn new(url: String) -> Result<Webhook, OpenError> {
        let client = reqwest::Client::builder()
            .timeout(WEBHOOK_DEADLINE)
            // Only the app's configuration reads the environment.
            .no_proxy()
            .build()
            .map_err(|source| OpenError::Webhook { url: url.clone(), source })?;
        Ok(Webhook { client, url })
    }

    async fn tell(&self, told: &Told<'_>) -> Result<(), String> {
        let asked = self.client.post(&self.url).json(told).send().await;
        let mut answer = asked.map_err(|error| format!("the webhook does not answer: {error}"))?;
        if answer.status().is_success() {
            return Ok(());
        }
        let status = answer.status();
        let said = answer.chunk().await.ok().flatten().unwrap_or_default();
        let said: String = String::from_utf8_lossy(&said).chars().take(WEBHOOK_LETTERS_MAX).collect();
        Err(format!("the webhook answers {status}: {}", said.trim()))
    }
}
