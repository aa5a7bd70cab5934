//! Who somebody is: names made of keys, never of addresses.
//!
//! Owns the ids of clusters and machines and how certificates write them. An id is what is left of a public key; whoever
//! holds the private one is that machine, whatever address it has today. Pure.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::fmt;
use std::str::FromStr;

/// 160 bits of a digest: two keys with one id are not found by chance, nor one for a given id by trying.
const NODE_BYTES: usize = 20;
/// Five bits each.
const NODE_CHARACTERS: usize = 32;
/// Letters and digits without those a person confuses (Crockford's base 32, lower case).
const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
const CLUSTER_CHARACTERS_MIN: usize = 8;
const CLUSTER_CHARACTERS_MAX: usize = 32;
const SCHEME: &str = "bramble://";
/// As in stack files, with room to spare.
const NAME_BYTES_MAX: usize = 63;

/// The digest of a public key (SHA-256 of its SubjectPublicKeyInfo), whole.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fingerprint(pub [u8; 32]);

/// A machine: the first 160 bits of its key's fingerprint, as 32 letters and digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct NodeId([u8; NODE_BYTES]);

/// A cluster: 8 to 32 lower-case letters and digits, drawn when it begins and kept for good.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct ClusterId(String);

/// Whom a certificate of the cluster is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Principal {
    Node { cluster: ClusterId, node: NodeId },
    Service { cluster: ClusterId, stack: String, service: String },
}

/// What is no name of a machine, cluster or bearer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NoIdentity {
    pub text: String,
    pub wanted: &'static str,
}

impl Fingerprint {
    /// Of a SubjectPublicKeyInfo, as DER.
    pub fn of_key(public: &[u8]) -> Fingerprint {
        Fingerprint(Sha256::digest(public).into())
    }
}

impl NodeId {
    /// Of a SubjectPublicKeyInfo, as DER.
    pub fn of_key(public: &[u8]) -> NodeId {
        let Fingerprint(digest) = Fingerprint::of_key(public);
        let mut bytes = [0; NODE_BYTES];
        bytes.copy_from_slice(&digest[..NODE_BYTES]);
        NodeId(bytes)
    }

    pub const fn from_bytes(bytes: [u8; NODE_BYTES]) -> NodeId {
        NodeId(bytes)
    }

    pub const fn as_bytes(&self) -> &[u8; NODE_BYTES] {
        &self.0
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for five in self.0.chunks(5) {
            let bits = five.iter().fold(0_u64, |bits, byte| bits << 8 | u64::from(*byte));
            for at in (0..8).rev() {
                let letter = ALPHABET[usize::try_from(bits >> (5 * at) & 31).unwrap_or(0)];
                fmt::Write::write_char(out, char::from(letter))?;
            }
        }
        Ok(())
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "NodeId({self})")
    }
}

impl FromStr for NodeId {
    type Err = NoIdentity;

    fn from_str(text: &str) -> Result<NodeId, NoIdentity> {
        let wrong = || NoIdentity { text: shortened(text), wanted: "a machine's id: 32 lower-case letters and digits" };
        if text.len() != NODE_CHARACTERS {
            return Err(wrong());
        }
        let mut bytes = [0; NODE_BYTES];
        for (out, eight) in bytes.chunks_mut(5).zip(text.as_bytes().chunks(8)) {
            let mut bits = 0_u64;
            for letter in eight {
                let value = ALPHABET.iter().position(|known| known == letter).ok_or_else(wrong)?;
                bits = bits << 5 | u64::try_from(value).unwrap_or(0);
            }
            out.copy_from_slice(&bits.to_be_bytes()[3..]);
        }
        Ok(NodeId(bytes))
    }
}

impl From<NodeId> for String {
    fn from(node: NodeId) -> String {
        node.to_string()
    }
}

impl TryFrom<String> for NodeId {
    type Error = NoIdentity;

    fn try_from(text: String) -> Result<NodeId, NoIdentity> {
        text.parse()
    }
}

impl ClusterId {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ClusterId {
    type Err = NoIdentity;

    fn from_str(text: &str) -> Result<ClusterId, NoIdentity> {
        let length_fits = (CLUSTER_CHARACTERS_MIN..=CLUSTER_CHARACTERS_MAX).contains(&text.len());
        if length_fits && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit()) {
            return Ok(ClusterId(text.to_owned()));
        }
        Err(NoIdentity { text: shortened(text), wanted: "a cluster's id: 8 to 32 lower-case letters and digits" })
    }
}

impl fmt::Display for ClusterId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

impl From<ClusterId> for String {
    fn from(cluster: ClusterId) -> String {
        cluster.0
    }
}

impl TryFrom<String> for ClusterId {
    type Error = NoIdentity;

    fn try_from(text: String) -> Result<ClusterId, NoIdentity> {
        text.parse()
    }
}

impl Principal {
    pub fn cluster(&self) -> &ClusterId {
        match self {
            Principal::Node { cluster, .. } | Principal::Service { cluster, .. } => cluster,
        }
    }

    /// Whether `uri` claims to be one of ours, rightly written or not.
    pub fn is_claimed_by(uri: &str) -> bool {
        uri.starts_with(SCHEME)
    }
}

impl fmt::Display for Principal {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Principal::Node { cluster, node } => write!(out, "{SCHEME}{cluster}/node/{node}"),
            Principal::Service { cluster, stack, service } => {
                write!(out, "{SCHEME}{cluster}/service/{stack}/{service}")
            }
        }
    }
}

impl FromStr for Principal {
    type Err = NoIdentity;

    fn from_str(text: &str) -> Result<Principal, NoIdentity> {
        let wrong = || NoIdentity {
            text: shortened(text),
            wanted: "bramble://CLUSTER/node/NODE or bramble://CLUSTER/service/STACK/SERVICE",
        };
        let (cluster, rest) = text.strip_prefix(SCHEME).and_then(|rest| rest.split_once('/')).ok_or_else(wrong)?;
        let cluster = cluster.parse()?;
        let mut parts = rest.split('/');
        match (parts.next(), parts.next(), parts.next(), parts.next()) {
            (Some("node"), Some(node), None, None) => Ok(Principal::Node { cluster, node: node.parse()? }),
            (Some("service"), Some(stack), Some(service), None) if is_name(stack) && is_name(service) => {
                Ok(Principal::Service { cluster, stack: stack.to_owned(), service: service.to_owned() })
            }
            _ => Err(wrong()),
        }
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(out, "{byte:02x}"))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Fingerprint({self})")
    }
}

impl fmt::Display for NoIdentity {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "`{}` is not {}", self.text, self.wanted)
    }
}

impl std::error::Error for NoIdentity {}

fn is_name(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-' || byte == b'_';
    !text.is_empty() && text.len() <= NAME_BYTES_MAX && text.bytes().all(plain)
}

/// What a message shows of a text that came from anywhere.
fn shortened(text: &str) -> String {
    text.chars().take(NAME_BYTES_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::{ClusterId, NodeId, Principal};

    #[test]
    fn an_id_is_read_as_it_is_written() {
        let node = NodeId::of_key(b"a public key");
        let text = node.to_string();
        assert_eq!(text.len(), 32);
        assert_eq!(text.parse::<NodeId>().unwrap(), node);
        assert_eq!(serde_json::from_str::<NodeId>(&serde_json::to_string(&node).unwrap()).unwrap(), node);
        assert_eq!(NodeId::from_bytes([0; 20]).to_string(), "0".repeat(32));
        assert_eq!(NodeId::from_bytes([255; 20]).to_string(), "z".repeat(32));
        assert_ne!(NodeId::of_key(b"another"), node);
    }

    #[test]
    fn what_is_no_id_is_refused() {
        let check = |text: &str| assert!(text.parse::<NodeId>().is_err(), "{text}");
        check("");
        check(&"0".repeat(31));
        check(&"0".repeat(33));
        check(&"O".repeat(32));
        check(&"i".repeat(32));
        check(&"ü".repeat(16));
        for cluster in ["", "short", "Capital1", "with-hyphen", &"a".repeat(33)] {
            assert!(cluster.parse::<ClusterId>().is_err(), "{cluster}");
        }
    }

    #[test]
    fn a_principal_is_read_as_it_is_written() {
        let cluster: ClusterId = "0123456789abcdef".parse().unwrap();
        let node = NodeId::of_key(b"a public key");
        let check = |principal: Principal| {
            assert_eq!(principal.to_string().parse::<Principal>().unwrap(), principal);
        };
        check(Principal::Node { cluster: cluster.clone(), node });
        check(Principal::Service { cluster: cluster.clone(), stack: "shop".to_owned(), service: "web-1".to_owned() });
        let node = node.to_string();
        for wrong in [
            String::new(),
            format!("https://{cluster}/node/{node}"),
            format!("bramble://{cluster}"),
            format!("bramble://{cluster}/node/{node}/more"),
            format!("bramble://{cluster}/node/"),
            format!("bramble://{cluster}/service/shop"),
            format!("bramble://{cluster}/service/shop/"),
            format!("bramble://{cluster}/service/../web"),
            format!("bramble:///node/{node}"),
        ] {
            assert!(wrong.parse::<Principal>().is_err(), "{wrong}");
        }
    }
}
