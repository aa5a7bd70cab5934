//! Rules on the dashboard's sources: types are said, never waved through with `any`.

use super::Finding;
use super::tree::Tree;

const BEFORE: [&str; 6] = [": any", "as any", "<any", "| any", "any[]", "& any"];

pub(crate) fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in tree.files.iter().filter(|file| file.path.ends_with(".ts") || file.path.ends_with(".svelte")) {
        for (at, line) in file.text.lines().enumerate() {
            if says_any(line) {
                let advice = "say the type; `unknown` when it is not known, and narrow it";
                findings.push(Finding::new(&file.path, at + 1, "any", advice));
            }
        }
    }
    findings
}

/// Whether a line of TypeScript uses the type. Prose goes on after the word; a type is followed by a sign or nothing.
fn says_any(line: &str) -> bool {
    let code = line.split("//").next().unwrap_or(line);
    BEFORE.iter().any(|form| {
        code.match_indices(form).any(|(at, _)| {
            let before = code[..at].chars().next_back();
            let after = code[at + form.len()..].chars().next();
            let starts = !form.starts_with('a') || !before.is_some_and(char::is_alphanumeric);
            starts && after.is_none_or(|c| ";,)>]}=|&[".contains(c))
        })
    })
}

#[cfg(test)]
mod tests {
    use super::super::expect;
    use super::check;

    #[test]
    fn the_type_is_found_and_prose_is_not() {
        expect(
            check,
            &[
                ("web/a.ts", "let a: any;\nlet b: Many;\nlet c = d as any;\nlet e: Map<string, any[]>;\n"),
                ("web/b.svelte", "<p>note: any machine, as any other</p>\n// let a: any;\n"),
                ("web/c.mjs", "/** @type {any} */\n"),
            ],
            &["web/a.ts:1: any", "web/a.ts:3: any", "web/a.ts:4: any"],
        );
    }
}
