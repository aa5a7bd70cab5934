//! Join tokens: one line of text with which a machine finds its cluster, knows it for the right one, and is let in.
//!
//! Owns the text and what the cluster keeps of it. `bramble1.` is followed by base64url of
//! `length u16 | uses u8 | expires_s i64 | id 8 | secret 32 | authority 32 | role | zone | count u8, addresses | checksum 4`,
//! texts with their length as u8 before them, numbers big-endian; length counts all of it. Promises that a token which
//! lost its end says so, and that the cluster keeps the digest of the secret only. Pure: is given the time and randomness.

use base64::Engine;
use base64::alphabet::URL_SAFE;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::fmt;
use subtle::ConstantTimeEq;
use wire::identity::Fingerprint;

const WORD: &str = "bramble";
const VERSION: u32 = 1;
const ID_BYTES: usize = 8;
const SECRET_BYTES: usize = 32;
/// Enough to tell a typing error; that nobody forged it is the secret's business.
const CHECKSUM_BYTES: usize = 4;
/// A machine asks those of the voters, and there are never more than a handful.
const ADDRESSES_MAX: usize = 8;
/// The longest name of a host with its port.
const ADDRESS_BYTES_MAX: usize = 253 + 6;
const LABEL_BYTES_MAX: usize = 63;
/// Eight of the longest addresses come to 3 KiB; more is another text.
const TEXT_BYTES_MAX: usize = 4_096;

/// Ends that were cut off are to be told from typing errors, so what is left of a group of four is no error.
const ENGINE: GeneralPurpose = GeneralPurpose::new(
    &URL_SAFE,
    GeneralPurposeConfig::new()
        .with_encode_padding(false)
        .with_decode_padding_mode(DecodePaddingMode::RequireNone)
        .with_decode_allow_trailing_bits(true),
);

/// What a person carries from a member to the machine that is to join. Its text is secret.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    pub id: String,
    secret: [u8; SECRET_BYTES],
    pub terms: Terms,
}

/// What a token says besides its secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Terms {
    /// The key of the authority that signed the members' certificates.
    pub authority: Fingerprint,
    /// Members to ask, as `host:port`, the best first.
    pub addresses: Vec<String>,
    /// What the machine is to be.
    pub role: Option<String>,
    /// Where it stands.
    pub zone: Option<String>,
    /// Seconds since 1970.
    pub expires_s: i64,
    pub uses: Uses,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Uses {
    Once,
    Many,
}

/// What the cluster keeps of a token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    pub id: String,
    /// SHA-256 of the secret, in hexadecimal. The secret is random and long, so this is as good as a slow digest.
    pub secret_digest: String,
    pub role: Option<String>,
    pub zone: Option<String>,
    pub expires_s: i64,
    pub uses: Uses,
    /// How many machines have joined with it.
    pub used: u32,
}

/// Why there is no token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MintError {
    #[error("a token needs the address of a member")]
    NoAddress,
    #[error("a token has room for {ADDRESSES_MAX} addresses")]
    TooManyAddresses,
    #[error("`{address}` is no address: it has to be host:port")]
    Address { address: String },
    #[error("`{label}` has more than {LABEL_BYTES_MAX} bytes")]
    Label { label: String },
}

/// Why a text is no token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    #[error("this is no join token")]
    NoToken,
    #[error("the token is cut off")]
    CutOff,
    #[error("the token has a typing error")]
    Typo,
    #[error("the token is of a later version ({version}) than this program knows ({VERSION})")]
    LaterVersion { version: u32 },
}

/// Why a machine is not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("the cluster knows no such token")]
    Unknown,
    #[error("the token's secret is wrong")]
    WrongSecret,
    #[error("the token expired {ago_s} seconds ago")]
    Expired { at_s: i64, ago_s: i64 },
    #[error("the token was for one machine, which has joined")]
    UsedUp,
}

impl ParseError {
    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            ParseError::NoToken => "a token begins with `bramble1.`; a member prints one",
            ParseError::CutOff | ParseError::Typo => "copy the whole line again; it has no spaces and no line breaks",
            ParseError::LaterVersion { .. } => "install the version of bramble the cluster has on this machine",
        }
    }
}

impl Refusal {
    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Refusal::Unknown | Refusal::WrongSecret => "is it a token of this cluster? have a member print a new one",
            Refusal::Expired { .. } | Refusal::UsedUp => "have a member print a new one",
        }
    }
}

impl Token {
    /// Makes a token and what the cluster keeps of it, out of 40 random bytes.
    ///
    /// # Errors
    /// [`MintError`].
    pub fn mint(terms: Terms, random: &[u8; ID_BYTES + SECRET_BYTES]) -> Result<(Token, Record), MintError> {
        if terms.addresses.is_empty() {
            return Err(MintError::NoAddress);
        }
        if terms.addresses.len() > ADDRESSES_MAX {
            return Err(MintError::TooManyAddresses);
        }
        if let Some(address) = terms.addresses.iter().find(|address| !is_address(address)) {
            return Err(MintError::Address { address: address.clone() });
        }
        if let Some(label) = [&terms.role, &terms.zone].into_iter().flatten().find(|label| !is_label(label)) {
            return Err(MintError::Label { label: label.clone() });
        }
        let (id, secret) = random.split_at(ID_BYTES);
        let mut token = Token { id: hex::encode(id), secret: [0; SECRET_BYTES], terms };
        token.secret.copy_from_slice(secret);
        let record = Record {
            id: token.id.clone(),
            secret_digest: digest(secret),
            role: token.terms.role.clone(),
            zone: token.terms.zone.clone(),
            expires_s: token.terms.expires_s,
            uses: token.terms.uses,
            used: 0,
        };
        Ok((token, record))
    }

    /// Reads what a person pasted; white space around it is none of its.
    ///
    /// # Errors
    /// [`ParseError`].
    pub fn parse(text: &str) -> Result<Token, ParseError> {
        let text = text.trim();
        let (version, body) =
            text.strip_prefix(WORD).and_then(|rest| rest.split_once('.')).ok_or(ParseError::NoToken)?;
        match version.parse::<u32>() {
            Ok(VERSION) => {}
            Ok(version) if version > VERSION => return Err(ParseError::LaterVersion { version }),
            Ok(_) | Err(_) => return Err(ParseError::NoToken),
        }
        if text.len() > TEXT_BYTES_MAX {
            return Err(ParseError::Typo);
        }
        let bytes = decode(body)?;
        let (length, _) = bytes.split_first_chunk().ok_or(ParseError::CutOff)?;
        if bytes.len() < usize::from(u16::from_be_bytes(*length)) {
            return Err(ParseError::CutOff);
        }
        let (content, checksum) = bytes.split_last_chunk::<CHECKSUM_BYTES>().ok_or(ParseError::Typo)?;
        if bytes.len() > usize::from(u16::from_be_bytes(*length)) || check(content) != *checksum {
            return Err(ParseError::Typo);
        }
        read(content).ok_or(ParseError::Typo)
    }

    /// The one line. Whoever has it can join.
    pub fn text(&self) -> String {
        let terms = &self.terms;
        let mut out = vec![0, 0, u8::from(terms.uses == Uses::Many)];
        out.extend(terms.expires_s.to_be_bytes());
        out.extend(hex::decode(&self.id).unwrap_or_default());
        out.extend(self.secret);
        out.extend(terms.authority.0);
        push(&mut out, terms.role.as_deref().unwrap_or_default());
        push(&mut out, terms.zone.as_deref().unwrap_or_default());
        out.push(u8::try_from(terms.addresses.len()).unwrap_or(u8::MAX));
        terms.addresses.iter().for_each(|address| push_long(&mut out, address));
        let length = u16::try_from(out.len() + CHECKSUM_BYTES).unwrap_or(u16::MAX);
        out[..2].copy_from_slice(&length.to_be_bytes());
        let checksum = check(&out);
        out.extend(checksum);
        format!("{WORD}{VERSION}.{}", ENGINE.encode(out))
    }

    /// What is shown to a member, as [`admit`] takes it.
    pub fn secret(&self) -> String {
        hex::encode(self.secret)
    }
}

/// Whether whoever presents `secret` for the token of this `record` is let in at `now_s`. To whom the secret is not
/// known nothing is said of the token.
///
/// # Errors
/// [`Refusal`].
pub fn admit(record: Option<&Record>, now_s: i64, secret: &str) -> Result<(), Refusal> {
    let record = record.ok_or(Refusal::Unknown)?;
    let presented = digest(&hex::decode(secret).unwrap_or_default());
    if !bool::from(presented.as_bytes().ct_eq(record.secret_digest.as_bytes())) {
        return Err(Refusal::WrongSecret);
    }
    if now_s >= record.expires_s {
        return Err(Refusal::Expired { at_s: record.expires_s, ago_s: now_s.saturating_sub(record.expires_s) });
    }
    match record.uses {
        Uses::Once if record.used > 0 => Err(Refusal::UsedUp),
        Uses::Once | Uses::Many => Ok(()),
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Token").field("id", &self.id).field("terms", &self.terms).finish_non_exhaustive()
    }
}

fn decode(body: &str) -> Result<Vec<u8>, ParseError> {
    // One character too many of a group of four is what a cut leaves, and holds no byte.
    let body =
        if body.len() % 4 == 1 { body.split_at_checked(body.len() - 1).map_or("", |(whole, _)| whole) } else { body };
    ENGINE.decode(body).map_err(|_| ParseError::Typo)
}

fn read(content: &[u8]) -> Option<Token> {
    let (_length, rest) = content.split_first_chunk::<2>()?;
    let ([uses], rest) = rest.split_first_chunk()?;
    let (expires_s, rest) = rest.split_first_chunk()?;
    let (id, rest) = rest.split_first_chunk::<ID_BYTES>()?;
    let (secret, rest) = rest.split_first_chunk::<SECRET_BYTES>()?;
    let (authority, rest) = rest.split_first_chunk::<32>()?;
    let (role, rest) = take(rest)?;
    let (zone, rest) = take(rest)?;
    let ([count], mut rest) = rest.split_first_chunk()?;
    let mut addresses = Vec::new();
    for _ in 0..*count {
        let (address, more) = take_long(rest)?;
        addresses.push(address);
        rest = more;
    }
    let some = |label: String| if label.is_empty() { None } else { Some(label) };
    let uses = match uses {
        0 => Uses::Once,
        1 => Uses::Many,
        2..=u8::MAX => return None,
    };
    let sound = rest.is_empty()
        && (1..=ADDRESSES_MAX).contains(&addresses.len())
        && addresses.iter().all(|address| is_address(address))
        && is_label(&role)
        && is_label(&zone);
    sound.then(|| Token {
        id: hex::encode(id),
        secret: *secret,
        terms: Terms {
            authority: Fingerprint(*authority),
            addresses,
            role: some(role),
            zone: some(zone),
            expires_s: i64::from_be_bytes(*expires_s),
            uses,
        },
    })
}

fn push(out: &mut Vec<u8>, text: &str) {
    out.push(u8::try_from(text.len()).unwrap_or(u8::MAX));
    out.extend(text.bytes());
}

fn push_long(out: &mut Vec<u8>, text: &str) {
    out.extend(u16::try_from(text.len()).unwrap_or(u16::MAX).to_be_bytes());
    out.extend(text.bytes());
}

fn take(bytes: &[u8]) -> Option<(String, &[u8])> {
    let ([length], rest) = bytes.split_first_chunk()?;
    cut(rest, usize::from(*length))
}

fn take_long(bytes: &[u8]) -> Option<(String, &[u8])> {
    let (length, rest) = bytes.split_first_chunk()?;
    cut(rest, usize::from(u16::from_be_bytes(*length)))
}

fn cut(bytes: &[u8], length: usize) -> Option<(String, &[u8])> {
    let (text, rest) = bytes.split_at_checked(length)?;
    Some((String::from_utf8(text.to_vec()).ok()?, rest))
}

fn check(content: &[u8]) -> [u8; CHECKSUM_BYTES] {
    let mut checksum = [0; CHECKSUM_BYTES];
    checksum.copy_from_slice(&Sha256::digest(content)[..CHECKSUM_BYTES]);
    checksum
}

fn digest(secret: &[u8]) -> String {
    hex::encode(Sha256::digest(secret))
}

fn is_address(text: &str) -> bool {
    let port = text.rsplit_once(':').filter(|(host, _)| !host.is_empty()).map(|(_, port)| port.parse::<u16>());
    text.len() <= ADDRESS_BYTES_MAX && text.bytes().all(|byte| byte.is_ascii_graphic()) && matches!(port, Some(Ok(1..)))
}

fn is_label(text: &str) -> bool {
    text.len() <= LABEL_BYTES_MAX
}

#[cfg(test)]
mod tests {
    use super::{MintError, ParseError, Refusal, Terms, Token, Uses, admit};
    use proptest::prelude::*;
    use wire::identity::Fingerprint;

    fn terms() -> Terms {
        Terms {
            authority: Fingerprint([7; 32]),
            addresses: vec!["10.0.0.1:7400".to_owned(), "[fe80::1]:7400".to_owned(), "one.lab.test:7400".to_owned()],
            role: Some("worker".to_owned()),
            zone: None,
            expires_s: 2_000,
            uses: Uses::Once,
        }
    }

    #[test]
    fn a_token_is_read_as_it_was_made() {
        let (token, _) = Token::mint(terms(), &[9; 40]).unwrap();
        let text = token.text();
        assert!(text.starts_with("bramble1.") && text.len() < 300, "{text}");
        assert!(text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte)), "{text}");
        assert_eq!(Token::parse(&format!("  {text}\n")).unwrap(), token);
        assert!(!format!("{token:?}").contains(&token.secret()));
    }

    #[test]
    fn each_way_to_get_it_wrong_has_its_word() {
        let text = Token::mint(terms(), &[9; 40]).unwrap().0.text();
        let check = |text: &str, expected: ParseError| assert_eq!(Token::parse(text).unwrap_err(), expected, "{text}");
        check("", ParseError::NoToken);
        check("hello", ParseError::NoToken);
        check("brambles are thorny.", ParseError::NoToken);
        check("bramble0.AAAA", ParseError::NoToken);
        check("bramble1.", ParseError::CutOff);
        check("bramble12.AAAA", ParseError::LaterVersion { version: 12 });
        for end in "bramble1.".len()..text.len() {
            check(&text[..end], ParseError::CutOff);
        }
        check(&format!("{text}AAAA"), ParseError::Typo);
        check(&text.replacen("AAA", "AAB", 1), ParseError::Typo);
        check(&text.replace('.', ".!"), ParseError::Typo);
    }

    #[test]
    fn what_does_not_fit_is_not_made() {
        let check = |change: &dyn Fn(&mut Terms), expected: fn(&MintError) -> bool| {
            let mut terms = terms();
            change(&mut terms);
            let error = Token::mint(terms, &[9; 40]).unwrap_err();
            assert!(expected(&error), "{error}");
        };
        check(&|terms| terms.addresses.clear(), |error| *error == MintError::NoAddress);
        check(&|terms| terms.addresses = vec!["a:1".to_owned(); 9], |error| *error == MintError::TooManyAddresses);
        check(&|terms| terms.addresses[0] = "a".to_owned(), |error| matches!(error, MintError::Address { .. }));
        check(&|terms| terms.addresses[0] = "a:0".to_owned(), |error| matches!(error, MintError::Address { .. }));
        check(&|terms| terms.zone = Some("z".repeat(64)), |error| matches!(error, MintError::Label { .. }));
    }

    #[test]
    fn a_machine_is_let_in_while_the_token_lasts() {
        let (token, mut record) = Token::mint(terms(), &[9; 40]).unwrap();
        assert!(!format!("{record:?}").contains(&token.secret()));
        let secret = token.secret();
        assert_eq!(admit(Some(&record), 1_999, &secret), Ok(()));
        assert_eq!(admit(None, 1_999, &secret), Err(Refusal::Unknown));
        assert_eq!(admit(Some(&record), 2_060, &secret), Err(Refusal::Expired { at_s: 2_000, ago_s: 60 }));
        for wrong in ["", "zz", &secret[1..], &"00".repeat(32)] {
            assert_eq!(admit(Some(&record), 2_060, wrong), Err(Refusal::WrongSecret), "{wrong}");
        }
        record.used = 1;
        assert_eq!(admit(Some(&record), 1_999, &secret), Err(Refusal::UsedUp));
        record.uses = Uses::Many;
        assert_eq!(admit(Some(&record), 1_999, &secret), Ok(()));
    }

    proptest! {
        #[test]
        fn any_text_may_be_pasted(text in "(?s).{0,200}", body in "[A-Za-z0-9_-]{0,300}") {
            let _ = Token::parse(&text);
            let _ = Token::parse(&format!("bramble1.{text}"));
            let guessed = Token::parse(&format!("bramble1.{body}"));
            prop_assert!(guessed.is_err());
        }

        #[test]
        fn one_wrong_letter_is_noticed(at in 0_usize..10_000, letter in "[A-Za-z0-9_-]") {
            let text = Token::mint(terms(), &[9; 40]).unwrap().0.text();
            let at = "bramble1.".len() + at % (text.len() - "bramble1.".len());
            let changed = format!("{}{letter}{}", &text[..at], &text[at + 1..]);
            // The last letter has bits that no byte holds.
            prop_assume!(changed != text && at + 1 < text.len());
            let read = Token::parse(&changed);
            prop_assert!(read.is_err());
        }

        #[test]
        fn any_token_survives_its_text(
            random in proptest::collection::vec(any::<u8>(), 40),
            expires_s in any::<i64>(),
            hosts in proptest::collection::vec("[a-z0-9.-]{1,60}:[1-9][0-9]{0,3}", 1..8),
            role in proptest::option::of("[a-z]{1,63}"),
        ) {
            let terms = Terms { addresses: hosts, expires_s, role, uses: Uses::Many, ..terms() };
            let (token, _) = Token::mint(terms, &random.try_into().unwrap()).unwrap();
            prop_assert_eq!(Token::parse(&token.text()).unwrap(), token);
        }
    }
}
