//! Links between documents: what a page points at within the project is there.

use super::Finding;
use super::tree::{File, Tree};

pub(crate) fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in tree.files.iter().filter(|file| file.path.ends_with(".md")) {
        let mut fenced = false;
        for (at, line) in file.text.lines().enumerate() {
            fenced ^= line.starts_with("```");
            for target in targets(line).filter(|_| !fenced) {
                if !leads_somewhere(tree, file, target) {
                    let advice = format!("`{target}` leads nowhere: mend the path, from {}", folder(file));
                    findings.push(Finding::new(&file.path, at + 1, "link", advice));
                }
            }
        }
    }
    findings
}

/// What stands between `](` and `)`, outside of code.
fn targets(line: &str) -> impl Iterator<Item = &str> {
    let pieces = line.split('`').step_by(2).flat_map(|text| text.split("](").skip(1));
    pieces.filter_map(|rest| rest.split_once(')').map(|(target, _)| target))
}

fn leads_somewhere(tree: &Tree, file: &File, target: &str) -> bool {
    let path = target.split('#').next().unwrap_or_default();
    if path.is_empty() || path.contains(':') || path.starts_with('<') {
        return true; // A place on the same page, or an address outside.
    }
    let mut parts: Vec<&str> = folder(file).split('/').filter(|part| !part.is_empty() && *part != ".").collect();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." if parts.pop().is_none() => return false,
            ".." => {}
            name => parts.push(name),
        }
    }
    let path = parts.join("/");
    path.is_empty()
        || tree.find(&path).is_some()
        || tree.files.iter().any(|file| file.path.strip_prefix(&path).is_some_and(|rest| rest.starts_with('/')))
}

fn folder(file: &File) -> &str {
    file.path.rsplit_once('/').map_or(".", |(folder, _)| folder)
}

#[cfg(test)]
mod tests {
    use super::super::expect;
    use super::check;

    #[test]
    fn links_lead_somewhere() {
        expect(
            check,
            &[
                ("README.md", "[a](docs/a.md#part), [docs](docs/)\n[b](docs/b.md)\n`[c](c.md)`\n```\n[d](d.md)\n```\n"),
                ("docs/a.md", "[up](../README.md) [web](https://example.org) [here](#here)\n[out](../../x)\n"),
            ],
            &["README.md:2: link", "docs/a.md:2: link"],
        );
    }
}
