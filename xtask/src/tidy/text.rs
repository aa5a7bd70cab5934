//! Rules on every text file: no stray blanks, a last line that ends, no path that exists on one machine only.

use super::Finding;
use super::tree::{File, Tree};

/// Folders of users, on any machine.
const HOMES: [&str; 2] = ["/home/", "/Users/"];
/// Made-up people of examples and tests, and the users of well-known images.
const NOBODY: [&str; 11] = ["user", "app", "node", "dev", "pi", "me", "you", "ann", "alice", "bob", "someone"];
/// Inputs for tests are as they came.
const AS_IT_CAME: [&str; 2] = ["fixtures", "fixture"];

pub(crate) fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in &tree.files {
        if AS_IT_CAME.iter().any(|folder| file.is_below(folder)) || file.name() == "package-lock.json" {
            continue;
        }
        check_file(file, &mut findings);
    }
    findings
}

fn check_file(file: &File, findings: &mut Vec<Finding>) {
    for (at, line) in file.text.lines().enumerate() {
        if line.ends_with([' ', '\t', '\r']) {
            findings.push(Finding::new(&file.path, at + 1, "blanks", "remove the blanks at the end of the line"));
        }
        if let Some(home) = HOMES.iter().find_map(|home| somebody(line, home)) {
            let advice = format!("`{home}` exists on one machine: use a path relative to the checkout");
            findings.push(Finding::new(&file.path, at + 1, "home-path", advice));
        }
    }
    if !file.text.is_empty() && !file.text.ends_with('\n') {
        findings.push(Finding::new(&file.path, file.text.lines().count(), "blanks", "end the last line"));
    }
}

/// The home folder of somebody real, when the line names one.
fn somebody(line: &str, home: &str) -> Option<String> {
    let at = line.find(home)?;
    let name: String =
        line[at + home.len()..].chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '-' || *c == '_').collect();
    let before = line[..at].chars().next_back();
    // `https://example.org/home/page` and `$ROOT/home/x` are no folders of this machine.
    let is_path = before.is_none_or(|c| !c.is_ascii_alphanumeric() && !matches!(c, '/' | '}' | '.' | ')'));
    (is_path && !name.is_empty() && !NOBODY.contains(&name.as_str())).then(|| format!("{home}{name}"))
}

#[cfg(test)]
mod tests {
    use super::super::expect;
    use super::check;

    #[test]
    fn blanks_and_homes_are_found() {
        // Put together here, so that this file does not break the rule it tests.
        let home = ["/ho", "me/carla/x\n"].concat();
        expect(
            check,
            &[
                ("a.md", "good\n\nbad \n"),
                ("b.rs", "no end"),
                ("c.yml", &home),
                ("d.yml", "a: /home/node/x\nb: https://example.org/home/page\n"),
                ("fixtures/e.txt", "as it came \n"),
                ("f.txt", ""),
            ],
            &["a.md:3: blanks", "b.rs:1: blanks", "c.yml:1: home-path"],
        );
    }
}
