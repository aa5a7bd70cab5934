//! Certificates from a public authority, by ACME: which names, when, and what became of it.
//!
//! Owns the order of attempts, one after another. Promises that a failure of the authority leaves everything as it was,
//! that attempts are counted before they begin, and that what was obtained is shown at once. Its folder is [`Folder`]'s.

use super::desk::{Desk, Webhook};
use super::folder::Folder;
use super::{OpenError, now_s};
use crate::config;
use acme::{Account, Challenge, Issued, Ledger, ObtainError};
use gateway::Gateway;
use meter::{Counter, Meter};
use pki::Certificate;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// The longest that nothing is looked at: dates change when somebody sets the clock.
const LOOK: Duration = Duration::from_secs(3_600);
/// The shortest: a date within this second is as good as now.
const BREATH: Duration = Duration::from_secs(1);
/// All of an attempt, with the waiting for validation and for the certificate.
const ATTEMPT_DEADLINE: Duration = Duration::from_secs(600);

/// What there is, by the name it was asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Obtained {
    pub certificates: BTreeMap<String, Arc<Certificate>>,
    pub problems: BTreeMap<String, Problem>,
}

/// Why there is no certificate, or no newer one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    pub why: String,
    pub retry_ms: u64,
}

/// How the keeper of certificates asks for some.
pub struct Asking {
    names: watch::Sender<BTreeSet<String>>,
    pub obtained: watch::Receiver<Obtained>,
    challenge: Challenge,
    /// The authority is somebody's own, and may know their names.
    private: bool,
}

impl Asking {
    /// Asks for certificates for those of `names` that the authority can sign; what was asked for before and is not
    /// among them any more is not renewed.
    pub fn ask(&self, names: &BTreeSet<String>) {
        let wanted = signable(names, self.challenge, self.private);
        self.names.send_if_modified(|before| {
            let changed = *before != wanted;
            *before = wanted;
            changed
        });
    }
}

/// Obtains certificates.
pub struct Worker {
    folder: Folder,
    wanted: config::Acme,
    account: Option<Account>,
    ledger: Ledger,
    gateway: Arc<Gateway>,
    webhook: Option<Webhook>,
    names: watch::Receiver<BTreeSet<String>>,
    obtained: watch::Sender<Obtained>,
    issued: Counter,
    failed: Counter,
}

impl Worker {
    /// Opens the folder in `data`, making it if it is missing.
    pub fn open(
        data: &Path,
        wanted: config::Acme,
        gateway: Arc<Gateway>,
        meter: &Meter,
    ) -> Result<(Worker, Asking), OpenError> {
        let folder = Folder::open(data, &wanted.settings.directory)?;
        let ledger = folder.ledger();
        let (names, asked) = watch::channel(BTreeSet::new());
        let (obtained, seen) = watch::channel(Obtained::default());
        let (challenge, private) = (wanted.challenge, wanted.settings.roots.is_some());
        let attempts = |outcome| {
            let help = "Attempts to obtain a certificate from the public authority.";
            meter.counter("bramble_acme_attempts_total", help, &[("outcome", outcome)])
        };
        let (issued, failed) = (attempts("issued"), attempts("failed"));
        let webhook = wanted.webhook.clone().map(Webhook::new).transpose()?;
        let (account, names_asked) = (None, asked);
        let worker =
            Worker { folder, wanted, account, ledger, gateway, webhook, names: names_asked, obtained, issued, failed };
        Ok((worker, Asking { names, obtained: seen, challenge, private }))
    }

    /// Tells what there is already for the names that were asked for.
    pub fn begin(&mut self) {
        let names = self.names.borrow().clone();
        self.gather(&names);
    }

    /// Runs until nobody asks any more. Owner: the boot list. May be dropped: an order under way is gone on with by
    /// the next one.
    pub async fn run(mut self) {
        loop {
            let names = self.names.borrow_and_update().clone();
            self.gather(&names);
            let now_s = now_s().unsigned_abs();
            let next = names.iter().map(|name| (self.due_s(name, now_s), name)).min();
            let pause = match next {
                Some((due_s, name)) if due_s <= now_s => {
                    self.attempt(name).await;
                    continue;
                }
                Some((due_s, _)) => Duration::from_secs(due_s - now_s).clamp(BREATH, LOOK),
                None => LOOK,
            };
            tokio::select! {
                changed = self.names.changed() => if changed.is_err() { return },
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// Tells what there is for `names`, and what is wrong.
    fn gather(&mut self, names: &BTreeSet<String>) {
        let now_s = now_s();
        let before = self.obtained.borrow().clone();
        let mut obtained = Obtained::default();
        for name in names {
            let known = before.certificates.get(name).cloned();
            let certificate = known.or_else(|| self.folder.certificate(name).map(Arc::new));
            if let Some(certificate) = certificate.filter(|certificate| certificate.not_after_s > now_s) {
                obtained.certificates.insert(name.clone(), certificate);
            }
            let record = self.ledger.names.get(name).filter(|record| !record.problem.is_empty());
            if let Some(record) = record {
                let retry_ms = record.due_s(now_s.unsigned_abs()).saturating_mul(1_000);
                obtained.problems.insert(name.clone(), Problem { why: record.problem.clone(), retry_ms });
            }
        }
        self.obtained.send_if_modified(|shown| {
            let changed = *shown != obtained;
            *shown = obtained;
            changed
        });
    }

    /// When a certificate for `name` is to be asked for.
    fn due_s(&self, name: &str, now_s: u64) -> u64 {
        let renew_at_s = self.obtained.borrow().certificates.get(name).map_or(0, |one| one.renew_at_s());
        self.ledger.due_s(name, now_s).max(u64::try_from(renew_at_s).unwrap_or(0))
    }

    /// One attempt for one name, and what is to be remembered of it.
    async fn attempt(&mut self, name: &str) {
        self.ledger.record(name).begins(now_s().unsigned_abs());
        if !self.remember() {
            // What cannot be counted is not tried: a full disk must not become a flood of orders.
            self.ledger.record(name).failed(now_s().unsigned_abs(), acme::Fault::Refused, None, UNKEPT.to_owned(), 0);
            return;
        }
        let outcome = tokio::time::timeout(ATTEMPT_DEADLINE, self.obtain(name)).await;
        // Whatever became of it: nothing is shown longer than it is looked at.
        self.gateway.prove(gateway::Proofs::default());
        match outcome.unwrap_or(Err(Failure::Authority(ObtainError::Undecided))) {
            Ok(certificate) => {
                tracing::info!(name, issuer = certificate.issuer, "a certificate was obtained");
                self.issued.inc();
                self.ledger.record(name).succeeded();
                self.obtained.send_modify(|shown| {
                    shown.certificates.insert(name.to_owned(), Arc::new(certificate));
                    shown.problems.remove(name);
                });
            }
            Err(failure) => {
                self.failed.inc();
                self.fail(name, &failure);
            }
        }
        self.remember();
    }

    fn fail(&mut self, name: &str, failure: &Failure) {
        let why = wire::diagnostic::chain(failure);
        tracing::warn!(name, error = why, "no certificate could be obtained");
        let (fault, told_s) = match failure {
            Failure::Authority(error) => {
                if error.is_account_gone() {
                    // Some authorities forget, test ones at every start; the next attempt makes a new one.
                    self.account = None;
                    self.folder.forget_account();
                }
                (error.fault(), error.retry_after_s())
            }
            Failure::Unusable { .. } | Failure::Unkept { .. } => (acme::Fault::Refused, None),
        };
        let dice = world::random::number();
        self.ledger.record(name).failed(now_s().unsigned_abs(), fault, told_s, why, dice);
    }

    async fn obtain(&mut self, name: &str) -> Result<Certificate, Failure> {
        let unkept = |source| Failure::Unkept { source };
        if self.account.is_none() {
            let kept = self.folder.account();
            let (account, fresh) = Account::open(&self.wanted.settings, kept.as_deref()).await?;
            if let Some(fresh) = fresh {
                self.folder.keep_account(&fresh).map_err(unkept)?;
            }
            self.account = Some(account);
        }
        let Some(account) = &self.account else { return Err(Failure::Authority(ObtainError::Undecided)) };
        let desk = Desk { folder: &self.folder, name, gateway: &self.gateway, webhook: self.webhook.as_ref() };
        let begun = self.folder.order(name);
        let Issued { chain_pem, key_pem } = account.obtain(name, self.wanted.challenge, begun, &desk).await?;
        let certificate = Certificate::from_pem(&chain_pem, &key_pem).map_err(|source| Failure::Unusable { source })?;
        self.folder.keep_certificate(name, &format!("{key_pem}{chain_pem}")).map_err(unkept)?;
        self.folder.forget_order(name);
        Ok(certificate)
    }

    /// Whether the ledger is on the disk.
    fn remember(&self) -> bool {
        match self.folder.keep_ledger(&self.ledger) {
            Ok(()) => true,
            Err(error) => {
                tracing::warn!(%error, "attempts to obtain certificates cannot be remembered");
                false
            }
        }
    }
}

const UNKEPT: &str = "attempts cannot be counted: the data folder cannot be written to";

#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Authority(#[from] ObtainError),
    #[error("what the authority issued cannot be used")]
    Unusable { source: pki::ReadError },
    #[error("keep what the authority gave")]
    Unkept { source: std::io::Error },
}

/// Those of `names` that the authority can sign: names that the whole world knows, or any with a dot for a private
/// authority. A wildcard takes the domain name system, and makes the names below it needless.
fn signable(names: &BTreeSet<String>, challenge: Challenge, private: bool) -> BTreeSet<String> {
    /// Top-level names that nobody sells (RFC 6761, 6762, 7686, 8375 and ICANN's `internal`).
    const RESERVED: [&str; 9] =
        ["alt", "arpa", "example", "internal", "invalid", "local", "localhost", "onion", "test"];
    let signable = |name: &&String| {
        let bare = name.strip_prefix("*.").unwrap_or(name);
        let Some((_, top)) = bare.rsplit_once('.') else { return false };
        let is_name = !top.is_empty() && !top.bytes().all(|byte| byte.is_ascii_digit());
        let is_wildcard = bare.len() < name.len();
        is_name
            && top != "localhost"
            && (private || !RESERVED.contains(&top))
            && (!is_wildcard || challenge == Challenge::Dns)
    };
    let all: BTreeSet<String> = names.iter().filter(signable).cloned().collect();
    let covered = |name: &String| all.iter().any(|other| other != name && pki::matches(other, name));
    all.iter().filter(|name| !covered(name)).cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::signable;
    use acme::Challenge;
    use std::collections::BTreeSet;

    #[test]
    fn only_names_that_can_be_signed_are_asked_for() {
        let names = ["shop.example.org", "*.example.org", "a.test", "a.localhost", "machine", "10.0.0.1", "a.b.c.net"];
        let names: BTreeSet<String> = names.map(str::to_owned).into();
        let check = |challenge: Challenge, private: bool, expected: &[&str]| {
            let found = signable(&names, challenge, private);
            assert_eq!(found.iter().map(String::as_str).collect::<Vec<_>>(), expected);
        };
        check(Challenge::Http, false, &["a.b.c.net", "shop.example.org"]);
        check(Challenge::TlsAlpn, true, &["a.b.c.net", "a.test", "shop.example.org"]);
        check(Challenge::Dns, false, &["*.example.org", "a.b.c.net"]);
    }
}
