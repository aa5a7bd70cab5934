//! What a client speaks, told from its first bytes.
//!
//! Owns the rule: HTTP/1 is a whole request line, nothing less. `GET key` is Redis, `PRI * HTTP/2.0` is HTTP/2,
//! 0x16 is TLS; all those are for the instance to understand. Pure.

/// The longest method taken for one; the longest registered has 17 (IANA, `UPDATEREDIRECTREF`).
const METHOD_BYTES_MAX: usize = 17;
/// A longer first line than this is not waited for: the HTTP parser refuses it by itself.
pub(crate) const LINE_BYTES_MAX: usize = 8 << 10;

/// What the first bytes say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Http,
    Other,
    /// Could be HTTP; more bytes will tell.
    Unsure,
}

/// Judges the first bytes of a connection.
pub(crate) fn judge(bytes: &[u8]) -> Verdict {
    // RFC 9112, section 2.2: empty lines before a request are to be ignored.
    let mut bytes = bytes;
    while let Some(rest) = bytes.strip_prefix(b"\r\n") {
        bytes = rest;
    }
    if bytes.is_empty() || bytes == b"\r" {
        return Verdict::Unsure;
    }
    let method_end = bytes.iter().position(|byte| !is_method_byte(*byte));
    let Some(at) = method_end else {
        return if bytes.len() <= METHOD_BYTES_MAX { Verdict::Unsure } else { Verdict::Other };
    };
    if at == 0 || at > METHOD_BYTES_MAX || bytes.get(at) != Some(&b' ') {
        return Verdict::Other;
    }
    let rest = bytes.get(at + 1..).unwrap_or_default();
    let Some(first) = rest.first() else { return Verdict::Unsure };
    // Origin form, `*`, an absolute target; `CONNECT host:port` too, so that it is refused in HTTP's words.
    if !(*first == b'/' || *first == b'*' || first.is_ascii_alphanumeric() || *first == b'[') {
        return Verdict::Other;
    }
    let Some(end) = rest.iter().position(|byte| *byte == b'\n') else {
        let plausible = rest.iter().all(|byte| *byte > b' ' && *byte != 0x7f || *byte == b' ' || *byte == b'\r');
        return match plausible {
            true if rest.len() > LINE_BYTES_MAX => Verdict::Http,
            true => Verdict::Unsure,
            false => Verdict::Other,
        };
    };
    let line = rest.get(..end).unwrap_or_default();
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    if line.ends_with(b" HTTP/1.1") || line.ends_with(b" HTTP/1.0") { Verdict::Http } else { Verdict::Other }
}

fn is_method_byte(byte: u8) -> bool {
    byte.is_ascii_uppercase() || byte == b'-'
}

#[cfg(test)]
mod tests {
    use super::{Verdict, judge};

    #[test]
    fn only_a_whole_request_line_is_http() {
        let check = |bytes: &[u8], expected| assert_eq!(judge(bytes), expected, "{}", bytes.escape_ascii());
        check(b"GET / HTTP/1.1\r\n", Verdict::Http);
        check(b"\r\nM-SEARCH * HTTP/1.0\r\nHost", Verdict::Http);
        check(b"GET http://a/ HTTP/1.1\n", Verdict::Http);
        check(b"CONNECT a:1 HTTP/1.1\r\n", Verdict::Http);
        check(b"GET key\r\n", Verdict::Other);
        check(b"GET /key\r\n", Verdict::Other);
        check(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", Verdict::Other);
        check(b"\x16\x03\x01\x02\x00", Verdict::Other);
        check(b"SSH-2.0-x\r\n", Verdict::Other);
        check(b"EHLO a b\r\n", Verdict::Other);
        check(b"*1\r\n$4\r\nPING\r\n", Verdict::Other);
        check(b"GET \x00", Verdict::Other);
        check(&[b'A'; 18], Verdict::Other);
        check(b"", Verdict::Unsure);
        check(b"\r", Verdict::Unsure);
        check(b"GET", Verdict::Unsure);
        check(b"GET ", Verdict::Unsure);
        check(b"GET /index.html HTTP/1.", Verdict::Unsure);
    }

    #[test]
    fn a_verdict_does_not_depend_on_how_bytes_are_cut() {
        let line = b"OPTIONS /a?b=c HTTP/1.1\r\n";
        for end in 0..line.len() {
            assert_eq!(judge(&line[..end]), Verdict::Unsure, "{end}");
        }
    }
}
