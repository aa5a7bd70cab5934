//! Texts that hold a quantity: durations, sizes, cores, truths, numbers.
//!
//! Owns the spelling rules; each function says what is wrong in words that follow "`value`". Never knows a key.

/// What is wrong with a text, and what would be right.
pub(crate) type Wrong = (&'static str, &'static str);

const DURATION_HINT: &str = "write a number with a unit: `500ms`, `10s`, `1m30s`, `1h`";
const SIZE_HINT: &str = "write a number with a unit: `64k`, `512M`, `2g`, or plain bytes";
const CPUS_HINT: &str = "write cores as a number, such as `0.5` or `2`";

/// A year: longer waits are typing errors.
const DURATION_MS_MAX: f64 = 366.0 * 24.0 * 3600.0 * 1000.0;
/// An exbibyte: no machine holds it, and sums of a few still fit 64 bits.
const SIZE_BYTES_MAX: f64 = (1u64 << 60) as f64;
/// More cores than any machine has.
const CPUS_MAX: f64 = 100_000.0;

/// `1m30s`, `1.5h`, `200ms`, as Go and compose write it. A bare number counts seconds.
pub(crate) fn duration_ms(text: &str) -> Result<u64, Wrong> {
    let text = text.trim();
    let wrong = ("is not a duration", DURATION_HINT);
    if text.starts_with('-') {
        return Err(("is a negative duration", DURATION_HINT));
    }
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return bounded_duration(text.parse::<f64>().map_err(|_| wrong)? * 1000.0);
    }
    let mut rest = text;
    let mut total = 0.0;
    if rest.is_empty() {
        return Err(wrong);
    }
    while !rest.is_empty() {
        let number_end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or(wrong)?;
        let number: f64 = rest[..number_end].parse().map_err(|_| wrong)?;
        rest = &rest[number_end..];
        let unit_end = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        let factor_ms = match &rest[..unit_end] {
            "ns" => 1e-6,
            "us" | "µs" | "μs" => 1e-3,
            "ms" => 1.0,
            "s" => 1e3,
            "m" => 60e3,
            "h" => 3600e3,
            "d" => 24.0 * 3600e3,
            "w" => 7.0 * 24.0 * 3600e3,
            _ => return Err(wrong),
        };
        total += number * factor_ms;
        rest = &rest[unit_end..];
    }
    bounded_duration(total)
}

fn bounded_duration(ms: f64) -> Result<u64, Wrong> {
    // The cast is exact enough: the bound is far below 2^53.
    if ms <= DURATION_MS_MAX { Ok(ms.ceil() as u64) } else { Err(("is longer than a year", DURATION_HINT)) }
}

/// `64M`, `1.5G`, `512mb`, `1024`: powers of 1024, as docker counts.
pub(crate) fn size_bytes(text: &str) -> Result<u64, Wrong> {
    let text = text.trim();
    if text.starts_with('-') {
        return Err(("is a negative size", SIZE_HINT));
    }
    let number_end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(number_end);
    let number: f64 = number.parse().map_err(|_| ("is not a size", SIZE_HINT))?;
    let shift = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kb" | "ki" | "kib" => 10,
        "m" | "mb" | "mi" | "mib" => 20,
        "g" | "gb" | "gi" | "gib" => 30,
        "t" | "tb" | "ti" | "tib" => 40,
        "p" | "pb" | "pi" | "pib" => 50,
        _ => return Err(("is not a size", SIZE_HINT)),
    };
    let bytes = number * (1u64 << shift) as f64;
    if bytes <= SIZE_BYTES_MAX { Ok(bytes as u64) } else { Err(("is more than any machine has", SIZE_HINT)) }
}

/// Cores in thousandths.
pub(crate) fn cpu_millis(text: &str) -> Result<u64, Wrong> {
    let cores = decimal(text).ok_or(("is not a number of cores", CPUS_HINT))?;
    if cores < 0.0 {
        Err(("is a negative number of cores", CPUS_HINT))
    } else if cores > CPUS_MAX {
        Err(("is more cores than any machine has", CPUS_HINT))
    } else {
        Ok((cores * 1000.0).round() as u64)
    }
}

/// A finite decimal number; `inf`, `nan` and exponents, which Rust would read, are not meant by anybody.
pub(crate) fn decimal(text: &str) -> Option<f64> {
    let text = text.trim();
    let allowed = |c: char| c.is_ascii_digit() || c == '.' || c == '-' || c == '+';
    if text.chars().all(allowed) { text.parse().ok().filter(|number: &f64| number.is_finite()) } else { None }
}

/// A truth in the words of YAML 1.1, which compose files still use.
pub(crate) fn truth(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "yes" | "on" | "y" | "1" => Some(true),
        "false" | "no" | "off" | "n" | "0" => Some(false),
        _ => None,
    }
}

/// A file mode. `0444`, `0o444` and `444` are all octal: nobody means the decimal number.
pub(crate) fn file_mode(text: &str) -> Result<u32, Wrong> {
    let wrong = ("is not a file mode", "write it in octal, such as `0444`");
    let digits = text.strip_prefix("0o").unwrap_or(text);
    let mode = u32::from_str_radix(digits, 8).map_err(|_| wrong)?;
    if mode <= 0o7777 && !digits.starts_with('+') { Ok(mode) } else { Err(wrong) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_like_go_writes_them() {
        let table = [
            ("10s", Some(10_000)),
            ("1m30s", Some(90_000)),
            ("1.5h", Some(5_400_000)),
            ("500ms", Some(500)),
            ("1us", Some(1)),
            ("0s", Some(0)),
            ("7", Some(7_000)),
            ("", None),
            ("10", Some(10_000)),
            ("ten", None),
            ("10x", None),
            ("-3s", None),
            ("1.2.3s", None),
            ("99999999h", None),
            ("s", None),
        ];
        for (text, expected) in table {
            assert_eq!(duration_ms(text).ok(), expected, "{text}");
        }
    }

    #[test]
    fn sizes_are_powers_of_1024() {
        let table = [
            ("64M", Some(64 << 20)),
            ("1.5G", Some(3 << 29)),
            ("512mb", Some(512 << 20)),
            ("1024", Some(1024)),
            ("10 k", Some(10 << 10)),
            ("1Gi", Some(1 << 30)),
            ("-1", None),
            ("many", None),
            ("5x", None),
            ("9999999999p", None),
            ("", None),
        ];
        for (text, expected) in table {
            assert_eq!(size_bytes(text).ok(), expected, "{text}");
        }
    }

    #[test]
    fn other_quantities() {
        assert_eq!(cpu_millis("0.5"), Ok(500));
        assert_eq!(cpu_millis("2"), Ok(2000));
        assert!(cpu_millis("-1").is_err() && cpu_millis("inf").is_err() && cpu_millis("1e9").is_err());
        assert_eq!(truth("Yes"), Some(true));
        assert_eq!(truth("off"), Some(false));
        assert_eq!(truth("maybe"), None);
        assert_eq!(file_mode("0444"), Ok(0o444));
        assert_eq!(file_mode("440"), Ok(0o440));
        assert!(file_mode("0999").is_err() && file_mode("77777").is_err() && file_mode("-1").is_err());
    }
}
