//! The language of Traefik's rules, as far as a route can say it: hosts, paths, methods, headers, `&&`, `||` and
//! brackets.
//!
//! Pure. `Err` says in words why a rule makes no route.

use super::is_host;
use crate::read::shortened;
use crate::route::forms;
use wire::spec::Conditions;

/// What `||` may multiply to within `&&`.
const ALTERNATIVES_MAX: usize = 64;
/// Nested brackets of a rule.
const DEPTH_MAX: usize = 16;

/// One way to fulfil a rule.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Alternative {
    pub(super) hosts: Vec<String>,
    pub(super) path: String,
    pub(super) conditions: Conditions,
}

pub(super) fn parse_rule(rule: &str) -> Result<Vec<Alternative>, String> {
    let mut parser = RuleParser { rest: rule, depth: 0 };
    let alternatives = parser.any_of()?;
    if parser.rest.trim().is_empty() {
        Ok(alternatives)
    } else {
        Err(format!("`{}` is not understood", shortened(parser.rest.trim())))
    }
}

struct RuleParser<'r> {
    rest: &'r str,
    depth: usize,
}

impl RuleParser<'_> {
    fn take(&mut self, token: &str) -> bool {
        self.rest = self.rest.trim_start();
        match self.rest.strip_prefix(token) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    fn any_of(&mut self) -> Result<Vec<Alternative>, String> {
        let mut found = self.all_of()?;
        while self.take("||") {
            found.extend(self.all_of()?);
            bounded(&found)?;
        }
        Ok(found)
    }

    fn all_of(&mut self) -> Result<Vec<Alternative>, String> {
        let mut found = self.single()?;
        while self.take("&&") {
            let right = self.single()?;
            let mut product = Vec::new();
            for left in &found {
                for right in &right {
                    product.push(joined(left, right)?);
                    bounded(&product)?;
                }
            }
            found = product;
        }
        Ok(found)
    }

    fn single(&mut self) -> Result<Vec<Alternative>, String> {
        if self.take("!") {
            return Err("it holds a negation".to_string());
        }
        if self.take("(") {
            self.depth += 1;
            if self.depth > DEPTH_MAX {
                return Err("its brackets nest too deep".to_string());
            }
            let inside = self.any_of()?;
            self.depth -= 1;
            return if self.take(")") { Ok(inside) } else { Err("a bracket is not closed".to_string()) };
        }
        let name_end = self.rest.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(self.rest.len());
        let name = &self.rest[..name_end];
        self.rest = &self.rest[name_end..];
        let arguments = self.arguments()?;
        matched(name, arguments)
    }

    /// "(`a`, `b`)", in backticks or double quotes.
    fn arguments(&mut self) -> Result<Vec<String>, String> {
        let broken = || "it is not a rule".to_string();
        if !self.take("(") {
            return Err(broken());
        }
        let mut found = Vec::new();
        loop {
            self.rest = self.rest.trim_start();
            let quote = self.rest.chars().next().filter(|c| matches!(c, '`' | '"' | '\'')).ok_or_else(broken)?;
            let inside = &self.rest[1..];
            let end = inside.find(quote).ok_or_else(broken)?;
            found.push(inside[..end].to_string());
            self.rest = &inside[end + 1..];
            if self.take(")") {
                return Ok(found);
            }
            if !self.take(",") {
                return Err(broken());
            }
        }
    }
}

fn bounded(found: &[Alternative]) -> Result<(), String> {
    if found.len() <= ALTERNATIVES_MAX { Ok(()) } else { Err("it has too many alternatives".to_string()) }
}

fn matched(name: &str, arguments: Vec<String>) -> Result<Vec<Alternative>, String> {
    let path = |exact: bool| {
        let one = |path: String| {
            if path.starts_with('/') && !path.contains(['{', '*', '^', ' ']) {
                let conditions = Conditions { exact, ..Conditions::default() };
                Ok(Alternative { path, conditions, ..any() })
            } else {
                Err(format!("`{}` is not a plain path", shortened(&path)))
            }
        };
        arguments.iter().cloned().map(one).collect::<Result<Vec<_>, _>>()
    };
    match name {
        "Host" | "HostHeader" => {
            let hosts: Vec<String> = arguments.iter().map(|host| host.to_ascii_lowercase()).collect();
            match hosts.iter().find(|host| !is_host(host)) {
                Some(wrong) if wrong.is_empty() => {
                    Err("its host is empty, perhaps because a variable is not set".to_string())
                }
                Some(wrong) => Err(format!("`{}` is not a host name", shortened(wrong))),
                None => Ok(vec![Alternative { hosts, ..any() }]),
            }
        }
        "PathPrefix" => path(false),
        "Path" => path(true),
        "Method" => {
            let methods: Result<Vec<String>, _> = arguments.iter().map(|method| forms::method(method)).collect();
            let methods = methods.map_err(|_| "Method() names no method".to_string())?;
            Ok(vec![Alternative { conditions: Conditions { methods, ..Conditions::default() }, ..any() }])
        }
        "Header" | "Headers" => header(&arguments),
        "HostRegexp" | "PathRegexp" => Err(format!("{name}() goes by a pattern")),
        "" => Err("it is not a rule".to_string()),
        other => Err(format!("{}() is not understood", shortened(other))),
    }
}

/// Every request.
fn any() -> Alternative {
    Alternative { path: "/".to_string(), ..Alternative::default() }
}

/// A name and the value it must have.
fn header(arguments: &[String]) -> Result<Vec<Alternative>, String> {
    let [name, value] = arguments else { return Err("Header() takes a name and a value".to_string()) };
    let (Ok(name), Ok(value)) = (forms::header_name(name), forms::header_value(value)) else {
        return Err(format!("`{}` is not a header", shortened(name)));
    };
    if value.is_empty() || name == "host" {
        return Err("Header() is asked for what it cannot say".to_string());
    }
    let conditions = Conditions { headers: [(name, value)].into(), ..Conditions::default() };
    Ok(vec![Alternative { conditions, ..any() }])
}

/// Both at once.
fn joined(left: &Alternative, right: &Alternative) -> Result<Alternative, String> {
    let hosts = match (left.hosts.is_empty(), right.hosts.is_empty()) {
        (true, _) => right.hosts.clone(),
        (_, true) => left.hosts.clone(),
        (false, false) => return Err("it asks for two hosts at once".to_string()),
    };
    let (ours, theirs) = (&left.conditions, &right.conditions);
    let (path, exact) = match (left.path.as_str(), right.path.as_str()) {
        ("/", _) if !ours.exact => (right.path.clone(), theirs.exact),
        (_, "/") if !theirs.exact => (left.path.clone(), ours.exact),
        _ => return Err("it asks for two paths at once".to_string()),
    };
    let methods = match (ours.methods.is_empty(), theirs.methods.is_empty()) {
        (true, _) => theirs.methods.clone(),
        (_, true) => ours.methods.clone(),
        (false, false) => return Err("it asks for two methods at once".to_string()),
    };
    let mut headers = ours.headers.clone();
    for (name, value) in &theirs.headers {
        if headers.insert(name.clone(), value.clone()).is_some_and(|known| known != *value) {
            return Err("it asks for two values of one header".to_string());
        }
    }
    Ok(Alternative { hosts, path, conditions: Conditions { exact, methods, headers, plain: false } })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(rule: &str, expected: Result<&[(&[&str], &str)], &str>) {
        let found = parse_rule(rule);
        match expected {
            Ok(expected) => {
                let found = found.unwrap_or_else(|wrong| panic!("{rule}: {wrong}"));
                let found: Vec<(Vec<&str>, &str)> = found
                    .iter()
                    .map(|one| (one.hosts.iter().map(String::as_str).collect(), one.path.as_str()))
                    .collect();
                let expected: Vec<(Vec<&str>, &str)> = expected.iter().map(|(h, p)| (h.to_vec(), *p)).collect();
                assert_eq!(found, expected, "{rule}");
            }
            Err(part) => {
                let wrong = found.expect_err(rule);
                assert!(wrong.contains(part), "{rule}: {wrong}");
            }
        }
    }

    #[test]
    fn rules_become_alternatives() {
        check("Host(`A.example.org`)", Ok(&[(&["a.example.org"], "/")]));
        check("Host(`a.b`, `c.d`)", Ok(&[(&["a.b", "c.d"], "/")]));
        check("Host(`a.b`) && PathPrefix(`/api`)", Ok(&[(&["a.b"], "/api")]));
        check(
            "(Host(`a`) || Host(`b`)) && (PathPrefix(`/x`) || Path(`/y`))",
            Ok(&[(&["a"], "/x"), (&["a"], "/y"), (&["b"], "/x"), (&["b"], "/y")]),
        );
        check("Path(`/`)", Ok(&[(&[], "/")]));
        check("Host(\"a.b\")", Ok(&[(&["a.b"], "/")]));
    }

    #[test]
    fn what_a_route_cannot_say_makes_none() {
        check("HostRegexp(`.+`)", Err("pattern"));
        check("!Host(`a`)", Err("negation"));
        check("Host(`a`) && Header(`x`)", Err("Header()"));
        check("Header(`x`, `1`) && Header(`x`, `2`)", Err("two values"));
        check("Method(`GET`) && Method(`PUT`)", Err("two methods"));
        check("ClientIP(`10.0.0.1`)", Err("ClientIP()"));
        check("Host(``)", Err("empty"));
        check("Host(`a`) && Host(`b`)", Err("two hosts"));
        check("Host(`a`", Err("not a rule"));
        check("Host(a)", Err("not a rule"));
        check("Host(`a`) nonsense", Err("not understood"));
        check("", Err("not a rule"));
        check("PathPrefix(`/{id}`)", Err("plain path"));
        check(&"(".repeat(100), Err("too deep"));
        let doubling = "(PathPrefix(`/a`) || PathPrefix(`/b`))";
        check(&[doubling; 3].join(" && "), Err("two paths"));
        let hosts = ["(Host(`a`) || Host(`b`))"; 40].join(" || ");
        check(&hosts, Err("too many"));
    }

    #[test]
    fn conditions_come_along() {
        let found = parse_rule("Path(`/x`) && Method(`get`, `PUT`) && Header(`X-A`, `1`) && Header(`b`, `2`)");
        let [one] = &found.expect("a rule")[..] else { panic!("one way") };
        assert_eq!((one.path.as_str(), one.conditions.exact), ("/x", true));
        assert_eq!(one.conditions.methods, ["GET", "PUT"]);
        assert_eq!(one.conditions.headers, [("x-a", "1"), ("b", "2")].map(|(n, v)| (n.into(), v.into())).into());
    }

    #[test]
    fn alternatives_multiply() {
        let many = "(Host(`a`) || Host(`b`) || Host(`c`)) && (PathPrefix(`/a`) || PathPrefix(`/b`))";
        assert_eq!(parse_rule(many).expect("six").len(), 6);
    }
}
