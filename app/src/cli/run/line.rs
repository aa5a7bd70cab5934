//! What `bramble run` takes from its line and its terminal.

use crate::cli::failure::Failure;
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};
use std::io::{IsTerminal, Read};
use wire::run::TerminalSize;

/// As `5s`, `200ms`, `2m` or `1h`.
pub(super) fn milliseconds(text: &str) -> Result<u64, String> {
    let units = [("ms", 1.0), ("s", 1_000.0), ("m", 60_000.0), ("h", 3_600_000.0)];
    let amount = units.iter().find_map(|(unit, ms)| Some(text.strip_suffix(unit)?.trim().parse::<f64>().ok()? * ms));
    match amount {
        Some(ms) if ms >= 1.0 && ms.is_finite() => Ok(ms as u64),
        Some(_) | None => Err("write a time as 5s, 200ms or 2m".to_owned()),
    }
}

/// As `64m` or `1g`, with or without a `b`.
pub(super) fn bytes(text: &str) -> Result<u64, String> {
    let lower = text.to_ascii_lowercase();
    let text = lower.strip_suffix("ib").or_else(|| lower.strip_suffix('b')).unwrap_or(&lower);
    let (amount, unit) = match text.char_indices().last() {
        Some((at, 'k')) => (&text[..at], 1 << 10),
        Some((at, 'm')) => (&text[..at], 1 << 20),
        Some((at, 'g')) => (&text[..at], 1 << 30),
        Some(_) | None => (text, 1_u64),
    };
    let amount = amount.parse::<u64>().ok().filter(|amount| *amount > 0);
    amount.and_then(|amount| amount.checked_mul(unit)).ok_or_else(|| "write a size as 64m or 1g".to_owned())
}

pub(super) fn variable(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("write a variable as NAME=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}

/// All that is piped in; nothing from a terminal.
pub(super) fn piped() -> Result<String, Failure> {
    let mut stdin = std::io::stdin();
    if stdin.is_terminal() {
        return Ok(String::new());
    }
    let mut text = String::new();
    stdin.read_to_string(&mut text).map_err(|error| Failure::local(format!("read standard input: {error}")))?;
    Ok(text)
}

pub(super) fn terminal_size() -> TerminalSize {
    match tcgetwinsize(std::io::stdout()) {
        Ok(size) if size.ws_col > 0 && size.ws_row > 0 => TerminalSize { columns: size.ws_col, rows: size.ws_row },
        Ok(_) | Err(_) => TerminalSize { columns: 80, rows: 24 },
    }
}

/// This process's terminal without a life of its own: every key goes to the program. As it was again when dropped.
pub(super) struct Raw(Option<Termios>);

impl Raw {
    pub(super) fn enter() -> Raw {
        let stdin = std::io::stdin();
        let before = tcgetattr(&stdin).ok();
        if let Some(before) = &before {
            let mut raw = before.clone();
            raw.make_raw();
            // Keys then go by lines, which is less, and not nothing.
            let _ = tcsetattr(&stdin, OptionalActions::Now, &raw);
        }
        Raw(before)
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        if let Some(before) = &self.0 {
            let _ = tcsetattr(std::io::stdin(), OptionalActions::Now, before);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_sizes_are_as_people_write_them() {
        let time = |text: &str, expected: Option<u64>| assert_eq!(milliseconds(text).ok(), expected, "{text}");
        time("5s", Some(5_000));
        time("0.5s", Some(500));
        time("200ms", Some(200));
        time("2m", Some(120_000));
        time("5", None);
        time("-1s", None);
        time("0s", None);
        let size = |text: &str, expected: Option<u64>| assert_eq!(bytes(text).ok(), expected, "{text}");
        size("64m", Some(64 << 20));
        size("256M", Some(256 << 20));
        size("1GiB", Some(1 << 30));
        size("1000", Some(1000));
        size("0", None);
        size("m", None);
        size("99999999999g", None);
    }
}
