//! Which public authority certificates are asked from, and how names are proven to it.

use super::ConfigError;
use crate::cli::AcmeArgs;
use acme::{Binding, Challenge, LETSENCRYPT, LETSENCRYPT_STAGING, Settings};
use std::path::Path;

#[derive(Debug, Clone)]
pub struct Acme {
    pub settings: Settings,
    pub challenge: Challenge,
    /// Where records for [`Challenge::Dns`] are posted to.
    pub webhook: Option<String>,
}

pub(super) fn read(args: &AcmeArgs, has_https: bool) -> Result<Option<Acme>, ConfigError> {
    let Some(given) = &args.acme else { return Ok(None) };
    if !has_https {
        let hint = "certificates are for TLS: say where it is served with --https ADDR";
        return Err(ConfigError::Needs { what: "--acme", needed: "--https", hint });
    }
    let directory = match given.as_str() {
        "letsencrypt" => LETSENCRYPT.to_owned(),
        "letsencrypt-staging" => LETSENCRYPT_STAGING.to_owned(),
        url => address("--acme", url, &["https://"])?,
    };
    for contact in &args.acme_contact {
        if contact.strip_prefix("mailto:").is_none_or(|address| !address.contains('@')) {
            let wrong = "is no address to write to".to_owned();
            let hint = "write it as mailto:ops@example.org";
            return Err(ConfigError::Acme { what: "--acme-contact", given: contact.clone(), wrong, hint });
        }
    }
    let challenge = challenge(args.acme_challenge.as_deref())?;
    let webhook = args.acme_dns_webhook.as_deref();
    let webhook = webhook.map(|url| address("--acme-dns-webhook", url, &["https://", "http://"])).transpose()?;
    if challenge == Challenge::Dns && webhook.is_none() {
        let hint = "say who puts records into the domain name system";
        return Err(ConfigError::Needs { what: "--acme-challenge dns-01", needed: "--acme-dns-webhook", hint });
    }
    let roots = args.acme_ca.as_deref().map(|path| text("--acme-ca", path)).transpose()?;
    let settings = Settings { directory, contact: args.acme_contact.clone(), roots, binding: binding(args)? };
    Ok(Some(Acme { settings, challenge, webhook }))
}

fn challenge(given: Option<&str>) -> Result<Challenge, ConfigError> {
    let Some(given) = given else { return Ok(Challenge::Http) };
    let known = Challenge::ALL.iter().find(|(name, _)| *name == given);
    known.map(|(_, challenge)| *challenge).ok_or_else(|| ConfigError::Acme {
        what: "--acme-challenge",
        given: given.to_owned(),
        wrong: "is no way to prove a name".to_owned(),
        hint: "write http-01, tls-alpn-01 or dns-01",
    })
}

fn binding(args: &AcmeArgs) -> Result<Option<Binding>, ConfigError> {
    let (Some(id), Some(path)) = (&args.acme_binding_id, &args.acme_binding_key) else { return Ok(None) };
    let key = text("--acme-binding-key", path)?;
    match Binding::new(id, key.trim()) {
        Some(binding) => Ok(Some(binding)),
        None => Err(ConfigError::Acme {
            what: "--acme-binding-key",
            given: path.display().to_string(),
            wrong: "holds no key".to_owned(),
            hint: "it is base 64 for URLs, as the authority prints it",
        }),
    }
}

fn address(what: &'static str, given: &str, schemes: &[&str]) -> Result<String, ConfigError> {
    let wrong = match reqwest::Url::parse(given) {
        Ok(url) if url.has_host() && schemes.iter().any(|scheme| given.starts_with(scheme)) => {
            return Ok(given.to_owned());
        }
        Ok(_) => "is not an address that can be asked".to_owned(),
        Err(error) => format!("is not an address: {error}"),
    };
    let hint = "write it as https://acme.example.org/directory; only webhooks may do without TLS";
    Err(ConfigError::Acme { what, given: given.to_owned(), wrong, hint })
}

fn text(what: &'static str, path: &Path) -> Result<String, ConfigError> {
    std::fs::read_to_string(path).map_err(|source| ConfigError::File { what, path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::{LETSENCRYPT, read};
    use crate::cli::AcmeArgs;

    fn given(acme: &str) -> AcmeArgs {
        AcmeArgs { acme: Some(acme.to_owned()), ..AcmeArgs::default() }
    }

    #[test]
    fn short_names_and_defaults_are_understood() {
        assert!(read(&AcmeArgs::default(), false).is_ok_and(|read| read.is_none()));
        let acme = read(&given("letsencrypt"), true).unwrap().unwrap();
        assert_eq!((acme.settings.directory.as_str(), acme.challenge.name()), (LETSENCRYPT, "http-01"));
    }

    #[test]
    fn what_is_wrong_is_named() {
        let check = |args: AcmeArgs, https: bool, expected: &str| {
            let error = read(&args, https).unwrap_err();
            assert!(error.to_string().contains(expected), "{error}");
            assert!(!error.hint().is_empty());
        };
        check(given("letsencrypt"), false, "--acme needs --https");
        check(given("http://ca.test/directory"), true, "http://ca.test/directory");
        check(given("nobody"), true, "nobody");
        let some = |text: &str| Some(text.to_owned());
        check(AcmeArgs { acme_challenge: some("dns-02"), ..given("letsencrypt") }, true, "dns-02");
        check(AcmeArgs { acme_challenge: some("dns-01"), ..given("letsencrypt") }, true, "--acme-dns-webhook");
        check(AcmeArgs { acme_contact: vec!["ops".to_owned()], ..given("letsencrypt") }, true, "ops");
        check(AcmeArgs { acme_ca: Some("/nowhere/ca.pem".into()), ..given("letsencrypt") }, true, "/nowhere/ca.pem");
    }
}
