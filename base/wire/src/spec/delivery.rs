//! How the requests of a route are carried to instances, and what is told of them afterwards.
//!
//! As with routes, every field has a default that is left out when written.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// Shares are written as parts of one, down to a millionth.
const MILLION: u32 = 1_000_000;

/// How the requests of a route are carried to instances.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default)]
pub struct Delivery {
    /// `None`: as the node says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub access_log: Option<AccessLog>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub balance: Option<Balance>,
    #[serde(skip_serializing_if = "PriorityClass::is_normal")]
    pub priority_class: PriorityClass,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hedge: Option<Hedge>,
    /// How many requests an instance is given at once; the others wait. Of several routes to one port the lowest holds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub in_flight_max: Option<u32>,
}

/// Which instance a request goes to, where it is not the one that has the least to do.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Balance {
    /// The same for the same key, as far as its load allows.
    Hash(HashKey),
    /// The one it went to before, remembered in a cookie of this name; empty for one that is made up.
    Sticky(String),
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HashKey {
    /// The client's.
    Address,
    /// In lower case.
    Header(String),
    Cookie(String),
}

/// What is refused first when there is more to do than can be done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PriorityClass {
    Low,
    #[default]
    Normal,
    High,
}

impl PriorityClass {
    pub const ALL: [PriorityClass; 3] = [PriorityClass::Low, PriorityClass::Normal, PriorityClass::High];

    pub fn is_normal(&self) -> bool {
        *self == PriorityClass::Normal
    }

    pub fn word(self) -> &'static str {
        match self {
            PriorityClass::Low => "low",
            PriorityClass::Normal => "normal",
            PriorityClass::High => "high",
        }
    }
}

/// When a request that may be sent twice is sent to a second instance, because the first lets it wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Hedge {
    AfterMs(u64),
    /// When it has waited for longer than all but one in twenty did.
    P95,
}

/// Which requests are told of in the access log. Those that failed are, and those that were slow, unless it is off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AccessLog {
    Off,
    /// Only what failed or was slow.
    Errors,
    /// So many of a million of the others as well.
    Sampled(u32),
    All,
}

impl AccessLog {
    /// One in a hundred: enough to see what is normal, and nothing a disk or a reader feels.
    pub const DEFAULT: AccessLog = AccessLog::Sampled(10_000);
}

/// The text is not one of the words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NoAccessLog;

impl FromStr for AccessLog {
    type Err = NoAccessLog;

    /// `off`, `errors`, `sampled(0.01)` or `all`.
    fn from_str(text: &str) -> Result<AccessLog, NoAccessLog> {
        match text {
            "off" => return Ok(AccessLog::Off),
            "errors" => return Ok(AccessLog::Errors),
            "all" => return Ok(AccessLog::All),
            _ => {}
        }
        let share = text.strip_prefix("sampled(").and_then(|rest| rest.strip_suffix(')')).ok_or(NoAccessLog)?;
        let (whole, decimals) = share.trim().split_once('.').unwrap_or((share.trim(), ""));
        let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        if whole.is_empty() || !digits(whole) || !digits(decimals) || decimals.len() > 6 {
            return Err(NoAccessLog);
        }
        let millionths: u32 = format!("{decimals:0<6}").parse().map_err(|_| NoAccessLog)?;
        let whole: u32 = whole.parse().map_err(|_| NoAccessLog)?;
        let share = whole.checked_mul(MILLION).and_then(|whole| whole.checked_add(millionths));
        share.filter(|share| *share <= MILLION).map(AccessLog::Sampled).ok_or(NoAccessLog)
    }
}

impl fmt::Display for AccessLog {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AccessLog::Off => out.write_str("off"),
            AccessLog::Errors => out.write_str("errors"),
            AccessLog::Sampled(share) => write!(out, "sampled({})", f64::from(*share) / f64::from(MILLION)),
            AccessLog::All => out.write_str("all"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{AccessLog, NoAccessLog};

    #[test]
    fn the_words_of_an_access_log_are_read_and_written() {
        let check = |text: &str, expected: Result<AccessLog, NoAccessLog>| {
            assert_eq!(text.parse(), expected, "{text}");
            if let Ok(log) = expected {
                assert_eq!(log.to_string().parse(), expected, "{log}");
            }
        };
        check("off", Ok(AccessLog::Off));
        check("errors", Ok(AccessLog::Errors));
        check("all", Ok(AccessLog::All));
        check("sampled(0.01)", Ok(AccessLog::DEFAULT));
        check("sampled(1)", Ok(AccessLog::Sampled(1_000_000)));
        check("sampled(0.000001)", Ok(AccessLog::Sampled(1)));
        check("sampled(0)", Ok(AccessLog::Sampled(0)));
        for wrong in ["", "none", "sampled", "sampled()", "sampled(2)", "sampled(1.5)", "sampled(-1)", "sampled(.5)"] {
            check(wrong, Err(NoAccessLog));
        }
        check("sampled(0.0000001)", Err(NoAccessLog));
        check("sampled(99999999999)", Err(NoAccessLog));
    }
}
