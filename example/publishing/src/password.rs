//! Passwords: hashed with Argon2id, a few at a time. Knows no accounts.

use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher, PasswordVerifier};
use argon2::{Algorithm, Argon2, Params, Version};
use std::sync::Arc;
use tokio::sync::Semaphore;

/// Checks at the same time: each takes a core and [`crate::config::PASSWORD_MEMORY_KIB`], and the machine is a small one.
const CHECKS_MAX: usize = 2;
const PASSES: u32 = 2;
const SALT_BYTES: usize = 16;

/// The one way to fail: the hash in the database is none, or the machine has no memory.
#[derive(Debug, thiserror::Error)]
#[error("cannot compute a password hash: {0}")]
pub(crate) struct HashError(String);

#[derive(Clone)]
pub(crate) struct Passwords {
    params: Params,
    turns: Arc<Semaphore>,
}

impl Passwords {
    pub(crate) fn new(memory_kib: u32) -> Passwords {
        let params = Params::new(memory_kib.max(Params::MIN_M_COST), PASSES, 1, None).expect("constants within bounds");
        Passwords { params, turns: Arc::new(Semaphore::new(CHECKS_MAX)) }
    }

    /// The text to keep instead of the password.
    pub(crate) async fn hash(&self, password: String) -> Result<String, HashError> {
        self.compute(move |argon2| {
            let mut salt = [0; SALT_BYTES];
            world::random::fill(&mut salt);
            let hash: PasswordHash = argon2.hash_password_with_salt(password.as_bytes(), &salt).map_err(describe)?;
            Ok(hash.to_string())
        })
        .await
    }

    /// Whether `password` is the one behind `kept`. Without one, as when there is no such user, it takes as long and
    /// is wrong, so that nobody learns who has an account.
    pub(crate) async fn matches(&self, password: String, kept: Option<String>) -> Result<bool, HashError> {
        self.compute(move |argon2| {
            let Some(kept) = kept else {
                let _: PasswordHash =
                    argon2.hash_password_with_salt(password.as_bytes(), &[0; SALT_BYTES]).map_err(describe)?;
                return Ok(false);
            };
            let hash = PasswordHash::new(&kept).map_err(describe)?;
            Ok(argon2.verify_password(password.as_bytes(), &hash).is_ok())
        })
        .await
    }

    async fn compute<T: Send + 'static>(
        &self,
        work: impl FnOnce(Argon2<'static>) -> Result<T, HashError> + Send + 'static,
    ) -> Result<T, HashError> {
        let turn = Arc::clone(&self.turns).acquire_owned().await.map_err(describe)?;
        let params = self.params.clone();
        let done = tokio::task::spawn_blocking(move || {
            let value = work(Argon2::new(Algorithm::Argon2id, Version::V0x13, params));
            drop(turn);
            value
        });
        done.await.map_err(describe)?
    }
}

fn describe(error: impl std::fmt::Display) -> HashError {
    HashError(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::Passwords;

    #[tokio::test]
    async fn only_the_password_matches() {
        let passwords = Passwords::new(64);
        let kept = passwords.hash("correct horse".into()).await.expect("a hash");
        assert!(kept.starts_with("$argon2id$"));
        assert!(passwords.matches("correct horse".into(), Some(kept.clone())).await.expect("an answer"));
        assert!(!passwords.matches("wrong horse".into(), Some(kept)).await.expect("an answer"));
        assert!(!passwords.matches("any".into(), None).await.expect("an answer"));
        assert!(passwords.matches("any".into(), Some("nonsense".into())).await.is_err());
    }
}
