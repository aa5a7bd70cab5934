//! Password hashes as `htpasswd` writes them: bcrypt, apr1 and SHA1.
//!
//! Pure and slow: not for the event loop. Promises to compare in constant time. apr1 is written out here: it is
//! thirty lines over MD5, and no crate for it is kept up.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use md5::{Digest, Md5};
use sha1::Sha1;
use subtle::ConstantTimeEq;

const APR1: &str = "$apr1$";
const APR1_ROUNDS: usize = 1_000;
/// Longer salts are cut, as Apache cuts them.
const APR1_SALT_BYTES_MAX: usize = 8;
const SHA: &str = "{SHA}";
/// The order of digits in which apr1 is written, which is not that of base 64.
const APR1_DIGITS: &[u8; 64] = b"./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// Whether `password` has this hash. A hash of no known form fits nothing.
pub(crate) fn fits(hash: &str, password: &[u8]) -> bool {
    if let Some(rest) = hash.strip_prefix(APR1) {
        let (salt, digest) = rest.split_once('$').unwrap_or((rest, ""));
        apr1(salt.as_bytes(), password).as_bytes().ct_eq(digest.as_bytes()).into()
    } else if let Some(digest) = hash.strip_prefix(SHA) {
        STANDARD.encode(Sha1::digest(password)).as_bytes().ct_eq(digest.as_bytes()).into()
    } else {
        bcrypt::verify(password, hash).unwrap_or(false)
    }
}

/// MD5 as Apache repeats it, from `crypt` of FreeBSD.
fn apr1(salt: &[u8], password: &[u8]) -> String {
    let salt = &salt[..salt.len().min(APR1_SALT_BYTES_MAX)];
    let first = Md5::new().chain_update(password).chain_update(salt).chain_update(password).finalize();
    let mut whole = Md5::new().chain_update(password).chain_update(APR1).chain_update(salt);
    for start in (0..password.len()).step_by(first.len()) {
        whole.update(&first[..first.len().min(password.len() - start)]);
    }
    let mut bits = password.len();
    while bits > 0 {
        // Not meant so by its author, but so it is.
        whole.update(if bits & 1 == 1 { &[0] } else { &password[..1] });
        bits >>= 1;
    }
    let mut digest = whole.finalize();
    for round in 0..APR1_ROUNDS {
        let mut next = Md5::new();
        let odd = round % 2 == 1;
        next.update(if odd { password } else { &digest });
        if round % 3 != 0 {
            next.update(salt);
        }
        if round % 7 != 0 {
            next.update(password);
        }
        next.update(if odd { &digest[..] } else { password });
        digest = next.finalize();
    }
    written(&digest)
}

/// The digest's bytes in apr1's order, six bits at a time.
fn written(digest: &[u8]) -> String {
    let byte = |at: usize| digest.get(at).copied().map_or(0, u32::from);
    let mut text = String::with_capacity(22);
    let mut write = |mut bits: u32, digits: usize| {
        for _ in 0..digits {
            let digit = usize::try_from(bits & 0x3f).unwrap_or_default();
            text.push(char::from(APR1_DIGITS[digit]));
            bits >>= 6;
        }
    };
    for [high, middle, low] in [[0, 6, 12], [1, 7, 13], [2, 8, 14], [3, 9, 15], [4, 10, 5]] {
        write(byte(high) << 16 | byte(middle) << 8 | byte(low), 4);
    }
    write(byte(11), 2);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Made by `htpasswd -nb`, with `-B`, `-m` and `-s`, and by `openssl passwd -apr1`.
    const VECTORS: &[(&str, &str)] = &[
        ("secret", "$apr1$WiGqi9ti$Uiz6FrIwSGrjmw93AKevy1"),
        ("secret", "{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ="),
        ("secret", "$2y$04$P6wIgCSN38XRY0s63Vq8C.0CN8TgU2k.wT5jehAHTpNzA4oSI3.qa"),
        ("a", "$apr1$W8gpySbU$glJJVsLZtp7AMX5Fwivhr/"),
        ("a", "{SHA}hvfkN/qlp/zhXR3cuerq6jd2Z7g="),
        ("exactly16letters", "$apr1$7FHK7Aiq$GzCB7hKIe4UJxKglWaM8J."),
        ("exactly16letters", "{SHA}zvQkg4MgEeUAAhTwa28TdU0CXMI="),
        ("a longer password than sixteen", "$apr1$v3gHWQcG$/WGWlG10K.2r1LVjUoijn1"),
        ("a longer password than sixteen", "{SHA}wjtQwKRk/f5DZ64XxxHVEBReWPk="),
        ("päß wörd", "$apr1$5onpM5pw$PMk5mLQ7Co8LcS4VKuOhO/"),
        ("päß wörd", "{SHA}OIXDB3kp9I451NQYSgNz2p5xKYU="),
        ("päß wörd", "$2y$04$yt.Fb7L91R3hgiXVhWzDluyNTU8/YmaTher9fXdwmGgCwmtCj0vWK"),
        ("xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx", "$apr1$HU1u.zyy$Cm5YISYCxNCvS3nqIfRnj/"),
        ("xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx", "{SHA}RzcqeydWnSUGPfXLv3YG9hWo7Co="),
        ("", "$apr1$ab$S8K6Sgp3W8c9Jb6LxgywZ."),
        ("secret", "$apr1$12345678$0lqb/6VUFP8JY/s/jTrIk0"),
    ];

    #[test]
    fn hashes_of_htpasswd_fit_their_passwords_only() {
        for (password, hash) in VECTORS {
            assert!(fits(hash, password.as_bytes()), "{password} {hash}");
            assert!(!fits(hash, format!("{password}x").as_bytes()), "{password} {hash}");
            assert!(!fits(hash, b"else"), "{password} {hash}");
        }
    }

    #[test]
    fn what_is_no_hash_fits_nothing() {
        for hash in ["", "plain", "$apr1$", "$apr1$salt", "{SHA}", "$2y$", "$2y$05$short", "$1$salt$x", "$2y$99$x"] {
            assert!(!fits(hash, b""), "{hash}");
            assert!(!fits(hash, b"plain"), "{hash}");
        }
    }
}
