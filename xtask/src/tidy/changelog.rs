//! Changelog fragments: one file per change that users can see, in three lines.

use super::Finding;
use super::tree::Tree;

const FOLDER: &str = "changelog.d/";
const KINDS: [&str; 5] = ["added", "changed", "fixed", "removed", "security"];
/// What changed, whom it touches, what they do now.
const PARTS: [&str; 3] = ["What: ", "Who: ", "Do: "];

pub(crate) fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in &tree.files {
        let Some(name) = file.path.strip_prefix(FOLDER).filter(|name| *name != "README.md") else { continue };
        if !is_fragment(name) {
            let advice = format!("name it `<few-words>.<{}>.md`, in lower case", KINDS.join("|"));
            findings.push(Finding::new(&file.path, 0, "changelog", advice));
        }
        for part in PARTS {
            if !file.text.lines().any(|line| line.starts_with(part) && line.len() > part.len()) {
                let advice = format!("add a line that begins with `{part}`");
                findings.push(Finding::new(&file.path, 0, "changelog", advice));
            }
        }
    }
    findings
}

fn is_fragment(name: &str) -> bool {
    let mut parts = name.split('.');
    let (words, kind, ending, rest) = (parts.next(), parts.next(), parts.next(), parts.next());
    let plain = |words: &str| {
        !words.is_empty()
            && words.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
    };
    words.is_some_and(plain) && kind.is_some_and(|kind| KINDS.contains(&kind)) && ending == Some("md") && rest.is_none()
}

#[cfg(test)]
mod tests {
    use super::super::expect;
    use super::check;

    #[test]
    fn fragments_have_their_form() {
        let good = "What: a.\nWho: b.\nDo: c.\n";
        expect(
            check,
            &[
                ("changelog.d/README.md", ""),
                ("changelog.d/first-cloud.added.md", good),
                ("changelog.d/First.added.md", good),
                ("changelog.d/other.news.md", good),
                ("changelog.d/short.fixed.md", "What: a.\nWho: \n"),
            ],
            &[
                "changelog.d/First.added.md:0: changelog",
                "changelog.d/other.news.md:0: changelog",
                "changelog.d/short.fixed.md:0: changelog",
                "changelog.d/short.fixed.md:0: changelog",
            ],
        );
    }
}
