//! Configuration, from the environment only. The one reader of it; every wrong value is reported at once.

use std::fmt;
use std::path::PathBuf;

/// What differs between one deployment and the next.
#[derive(Debug, Clone)]
pub struct Config {
    /// `PORT`, 8080 unless said otherwise.
    pub port: u16,
    /// `DATA_DIR`: database and pictures, shared by all instances. `./data` unless said otherwise.
    pub data_dir: PathBuf,
    /// `BASE_URL`: where readers find the blog, without a slash at the end. With `https:` cookies travel encrypted only.
    pub base_url: String,
    /// `BLOG_NAME`: the title on every page.
    pub blog_name: String,
    /// `INSTANCE`: shown at the foot of every page, so that one sees who answered. Empty: not shown.
    pub instance: String,
    /// `TRUST_FORWARDED=yes`: a proxy stands in front, so the client is the last address in `X-Forwarded-For`.
    pub trust_forwarded: bool,
    /// Memory one password check takes. No variable: making it cheap is for tests.
    pub password_memory_kib: u32,
}

/// OWASP's recommendation for Argon2id with two passes.
pub const PASSWORD_MEMORY_KIB: u32 = 19 * 1024;

/// A variable with a value that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    variable: &'static str,
    value: String,
    expected: &'static str,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={:?} is not {}", self.variable, self.value, self.expected)
    }
}

impl Config {
    pub fn from_environment() -> Result<Config, Vec<Problem>> {
        #[expect(clippy::disallowed_methods, reason = "this is the one reader of the environment")]
        Config::read(|name| std::env::var(name).ok())
    }

    /// Reads the variables through `get`, so that a test needs no environment.
    pub fn read(get: impl Fn(&str) -> Option<String>) -> Result<Config, Vec<Problem>> {
        let mut problems = Vec::new();
        let text =
            |name: &str, default: &str| get(name).filter(|value| !value.is_empty()).unwrap_or(default.to_owned());
        let port = text("PORT", "8080");
        let port_number = port.parse().unwrap_or_else(|_| {
            problems.push(Problem { variable: "PORT", value: port, expected: "a port, 1 to 65535" });
            0
        });
        let base_url = text("BASE_URL", "http://localhost:8080").trim_end_matches('/').to_owned();
        let host = base_url.strip_prefix("http://").or_else(|| base_url.strip_prefix("https://"));
        if host.is_none_or(|host| host.is_empty() || host.contains(['/', ' '])) {
            let expected = "a URL without a path, such as https://blog.example.org";
            problems.push(Problem { variable: "BASE_URL", value: base_url.clone(), expected });
        }
        let trust = text("TRUST_FORWARDED", "no");
        let trust_forwarded = match trust.as_str() {
            "yes" | "true" | "1" => true,
            "no" | "false" | "0" => false,
            _ => {
                problems.push(Problem { variable: "TRUST_FORWARDED", value: trust, expected: "yes or no" });
                false
            }
        };
        if !problems.is_empty() {
            return Err(problems);
        }
        Ok(Config {
            port: port_number,
            data_dir: PathBuf::from(text("DATA_DIR", "data")),
            base_url,
            blog_name: text("BLOG_NAME", "Publishing"),
            instance: text("INSTANCE", ""),
            trust_forwarded,
            password_memory_kib: PASSWORD_MEMORY_KIB,
        })
    }

    /// Whether readers come over TLS.
    pub(crate) fn is_secure(&self) -> bool {
        self.base_url.starts_with("https://")
    }
}

#[cfg(test)]
mod tests {
    use super::Config;

    fn check(variables: &[(&str, &str)], expected: Result<u16, &[&str]>) {
        let get = |name: &str| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
        let read = Config::read(get).map(|config| config.port);
        let read = read.map_err(|problems| problems.iter().map(ToString::to_string).collect::<Vec<_>>());
        assert_eq!(read, expected.map_err(|lines| lines.iter().map(|line| (*line).to_owned()).collect()));
    }

    #[test]
    fn every_wrong_value_is_named() {
        check(&[], Ok(8080));
        check(&[("PORT", "9000"), ("BASE_URL", "https://b.example/"), ("TRUST_FORWARDED", "1")], Ok(9000));
        check(
            &[("PORT", "many"), ("BASE_URL", "b.example"), ("TRUST_FORWARDED", "perhaps")],
            Err(&[
                "PORT=\"many\" is not a port, 1 to 65535",
                "BASE_URL=\"b.example\" is not a URL without a path, such as https://blog.example.org",
                "TRUST_FORWARDED=\"perhaps\" is not yes or no",
            ]),
        );
    }
}
