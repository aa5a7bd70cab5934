//! How long a client says it waits: read, kept, and passed on less what has gone by.
//!
//! Owns two headers: `grpc-timeout` as gRPC has it, and `x-request-timeout` in seconds (`30`, `1.5`), or with a unit
//! (`250ms`, `2s`, `1m`). What cannot be read counts for nothing. Pure.

use http::header::{HeaderMap, HeaderName, HeaderValue};
use std::time::Duration;

const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");
const REQUEST_TIMEOUT: HeaderName = HeaderName::from_static("x-request-timeout");
/// Longer ones are no deadline.
const LONGEST: Duration = Duration::from_secs(24 * 3_600);
/// As the protocol of gRPC has it.
const GRPC_DIGITS_MAX: usize = 8;
const DIGITS_MAX: usize = 12;

/// The shorter of what both headers say.
pub(crate) fn asked(headers: &HeaderMap) -> Option<Duration> {
    let text = |name: &HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    let asked = [text(&GRPC_TIMEOUT).and_then(grpc), text(&REQUEST_TIMEOUT).and_then(plain)];
    asked.into_iter().flatten().min().filter(|asked| *asked <= LONGEST)
}

/// Says how much is left, in the headers the client used.
pub(crate) fn pass_on(headers: &mut HeaderMap, left: Duration) {
    let left_ms = left.as_millis();
    for (name, text) in [(GRPC_TIMEOUT, format!("{left_ms}m")), (REQUEST_TIMEOUT, format!("{left_ms}ms"))] {
        if headers.contains_key(&name)
            && let Ok(value) = HeaderValue::try_from(text)
        {
            headers.insert(name, value);
        }
    }
}

fn grpc(text: &str) -> Option<Duration> {
    let unit = text.chars().next_back()?;
    let number = text.strip_suffix(unit).filter(|digits| digits.len() <= GRPC_DIGITS_MAX)?;
    let number = whole(number)?;
    match unit {
        'H' => Some(Duration::from_secs(number * 3_600)),
        'M' => Some(Duration::from_secs(number * 60)),
        'S' => Some(Duration::from_secs(number)),
        'm' => Some(Duration::from_millis(number)),
        'u' => Some(Duration::from_micros(number)),
        'n' => Some(Duration::from_nanos(number)),
        _ => None,
    }
}

fn plain(text: &str) -> Option<Duration> {
    let text = text.trim();
    // `ms` before `s` and `m`, which it ends and begins with.
    let (number, milliseconds) = [("ms", 1), ("s", 1_000), ("m", 60_000)]
        .into_iter()
        .find_map(|(unit, milliseconds)| Some((text.strip_suffix(unit)?, milliseconds)))
        .unwrap_or((text, 1_000));
    let (seconds, fraction) = number.split_once('.').unwrap_or((number, "0"));
    let scale = 10_u64.checked_pow(u32::try_from(fraction.len()).ok()?)?;
    let parts = whole(seconds)? * milliseconds + whole(fraction)?.checked_mul(milliseconds)? / scale;
    Some(Duration::from_millis(parts))
}

fn whole(digits: &str) -> Option<u64> {
    let plain = !digits.is_empty() && digits.len() <= DIGITS_MAX && digits.bytes().all(|byte| byte.is_ascii_digit());
    plain.then(|| digits.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::{asked, pass_on};
    use http::HeaderMap;
    use proptest::prelude::*;
    use std::time::Duration;

    fn headers(name: &'static str, text: &str) -> HeaderMap {
        HeaderMap::from_iter([(http::HeaderName::from_static(name), text.parse().unwrap())])
    }

    #[test]
    fn deadlines_are_read_as_they_are_written() {
        let check = |name: &'static str, text: &str, expected_ms: Option<u64>| {
            assert_eq!(asked(&headers(name, text)), expected_ms.map(Duration::from_millis), "{name}: {text}");
        };
        check("grpc-timeout", "5S", Some(5_000));
        check("grpc-timeout", "250m", Some(250));
        check("grpc-timeout", "1H", Some(3_600_000));
        check("grpc-timeout", "2000000n", Some(2));
        check("grpc-timeout", "123456789S", None);
        check("grpc-timeout", "5", None);
        check("grpc-timeout", "S", None);
        check("grpc-timeout", "-5S", None);
        check("grpc-timeout", "99999999H", None);
        check("x-request-timeout", "30", Some(30_000));
        check("x-request-timeout", "1.5", Some(1_500));
        check("x-request-timeout", "250ms", Some(250));
        check("x-request-timeout", "2s", Some(2_000));
        check("x-request-timeout", "0.25m", Some(15_000));
        check("x-request-timeout", "0", Some(0));
        check("x-request-timeout", "soon", None);
        check("x-request-timeout", "1.", None);
        check("x-request-timeout", "1e9", None);
        let mut both = headers("grpc-timeout", "5S");
        both.extend(headers("x-request-timeout", "2"));
        assert_eq!(asked(&both), Some(Duration::from_secs(2)));
        pass_on(&mut both, Duration::from_millis(1_234));
        assert_eq!(
            (&both["grpc-timeout"], &both["x-request-timeout"]),
            (&"1234m".parse().unwrap(), &"1234ms".parse().unwrap())
        );
        assert_eq!(asked(&both), Some(Duration::from_millis(1_234)));
    }

    proptest! {
        #[test]
        fn any_text_may_be_asked_for(text in "[ -~]{0,30}", digits in "[0-9.]{1,20}[a-zA-Z]{0,2}") {
            for text in [&text, &digits] {
                for name in ["grpc-timeout", "x-request-timeout"] {
                    let _ = asked(&headers(name, text));
                }
            }
        }
    }
}
