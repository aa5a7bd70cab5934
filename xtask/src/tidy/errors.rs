//! Error codes and their pages: every `B0123` a program can say is explained, and no page explains what none says.

use super::Finding;
use super::rust::is_test;
use super::source::Source;
use super::tree::Tree;
use std::collections::BTreeMap;

const PAGES: &str = "docs/errors/";

pub(crate) fn check(tree: &Tree) -> Vec<Finding> {
    let said = codes(tree);
    let mut findings = Vec::new();
    for (code, (path, line)) in &said {
        if tree.find(&format!("{PAGES}{code}.md")).is_none() {
            let advice = format!("write {PAGES}{code}.md: what happened, why, what to do (see {PAGES}README.md)");
            findings.push(Finding::new(path, *line, "error-page", advice));
        }
    }
    for file in &tree.files {
        let Some(code) = file.path.strip_prefix(PAGES).and_then(|name| name.strip_suffix(".md")) else { continue };
        if code == "README" {
            continue;
        }
        if !is_code(code) {
            findings.push(Finding::new(&file.path, 0, "error-page", "name the page by its code: B, four digits, .md"));
        } else if !said.contains_key(code) {
            let advice = format!("no program says {code}: remove the page");
            findings.push(Finding::new(&file.path, 0, "error-page", advice));
        } else if !file.text.starts_with(&format!("# {code}: ")) {
            let advice = format!("begin with `# {code}: ` and the error in a few words");
            findings.push(Finding::new(&file.path, 1, "error-page", advice));
        }
    }
    findings
}

/// Each code in a string of the product, with the first place that says it.
fn codes(tree: &Tree) -> BTreeMap<String, (String, usize)> {
    let mut found = BTreeMap::new();
    for file in tree.files.iter().filter(|file| file.path.ends_with(".rs") && !is_test(file)) {
        let source = Source::read(&file.text);
        let tests = source.test_modules();
        for (line, text) in &source.strings {
            if tests.iter().any(|lines| lines.contains(*line)) {
                continue;
            }
            for word in text.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| is_code(word)) {
                found.entry(word.to_owned()).or_insert_with(|| (file.path.clone(), *line));
            }
        }
    }
    found
}

fn is_code(word: &str) -> bool {
    word.len() == 5 && word.starts_with('B') && word[1..].bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::super::expect;
    use super::check;

    #[test]
    fn codes_and_pages_go_together() {
        expect(
            check,
            &[
                ("a/src/lib.rs", "//! `B0009`.\nconst A: &str = \"B0001\";\nconst B: &str = \"see B0002.\";\n"),
                ("a/src/more.rs", "#[cfg(test)]\nmod tests {\n    const A: &str = \"B0003\";\n}\n"),
                ("a/tests/it.rs", "const A: &str = \"B0004\";\n"),
                ("docs/errors/B0001.md", "# B0001: no such stack\n"),
                ("docs/errors/B0005.md", "# B0005: gone\n"),
                ("docs/errors/README.md", "# Errors\n"),
                ("docs/errors/notes.md", ""),
            ],
            &["a/src/lib.rs:3: error-page", "docs/errors/B0005.md:0: error-page", "docs/errors/notes.md:0: error-page"],
        );
        expect(
            check,
            &[("a/src/lib.rs", "const A: &str = \"B0001\";"), ("docs/errors/B0001.md", "No title")],
            &["docs/errors/B0001.md:1: error-page"],
        );
    }
}
