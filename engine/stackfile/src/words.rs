//! Lines and words: a command line into its words as a shell would, and the closest of the words that are known.
//!
//! Pure. Never expands variables or globs: that happens in the instance, if its program is a shell.

/// Splits like a POSIX shell: blanks part, quotes and backslashes keep together. `Err` says what is never closed.
pub(crate) fn split(line: &str) -> Result<Vec<String>, &'static str> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut letters = line.chars();
    while let Some(letter) = letters.next() {
        match letter {
            ' ' | '\t' | '\n' | '\r' => words.extend(word.take()),
            '\'' => {
                let word = word.get_or_insert_default();
                loop {
                    match letters.next() {
                        Some('\'') => break,
                        Some(inside) => word.push(inside),
                        None => return Err("a single quote is never closed"),
                    }
                }
            }
            '"' => double_quoted(&mut letters, word.get_or_insert_default())?,
            '\\' => match letters.next() {
                Some('\n') => {}
                Some(escaped) => word.get_or_insert_default().push(escaped),
                None => return Err("a backslash stands at the end"),
            },
            other => word.get_or_insert_default().push(other),
        }
    }
    words.extend(word);
    Ok(words)
}

fn double_quoted(letters: &mut std::str::Chars<'_>, word: &mut String) -> Result<(), &'static str> {
    loop {
        match letters.next() {
            Some('"') => return Ok(()),
            Some('\\') => match letters.next() {
                Some(escaped @ ('"' | '\\' | '$' | '`')) => word.push(escaped),
                Some('\n') => {}
                Some(other) => {
                    word.push('\\');
                    word.push(other);
                }
                None => return Err("a double quote is never closed"),
            },
            Some(inside) => word.push(inside),
            None => return Err("a double quote is never closed"),
        }
    }
}

/// Words longer than this are not typing errors of a key, and comparing them would cost.
const COMPARED_LENGTH_MAX: usize = 40;

/// The known word that was probably meant: at most a third of its letters away.
pub(crate) fn closest<'k>(word: &str, known: impl IntoIterator<Item = &'k str>) -> Option<&'k str> {
    if word.len() > COMPARED_LENGTH_MAX {
        return None;
    }
    let folded = word.to_ascii_lowercase().replace('-', "_");
    known
        .into_iter()
        .map(|candidate| (distance(&folded, &candidate.to_ascii_lowercase().replace('-', "_")), candidate))
        .filter(|(far, candidate)| *far <= (candidate.len() / 3).max(1))
        .min_by_key(|(far, _)| *far)
        .map(|(_, candidate)| candidate)
}

/// Insertions, deletions, replacements and swaps of neighbours between two words (Damerau-Levenshtein, restricted).
fn distance(left: &str, right: &str) -> usize {
    let (left, right): (Vec<char>, Vec<char>) = (left.chars().collect(), right.chars().collect());
    let mut rows = vec![vec![0usize; right.len() + 1]; left.len() + 1];
    rows[0] = (0..=right.len()).collect();
    for (i, row) in rows.iter_mut().enumerate() {
        row[0] = i;
    }
    for i in 1..=left.len() {
        for j in 1..=right.len() {
            let replaced = rows[i - 1][j - 1] + usize::from(left[i - 1] != right[j - 1]);
            let mut best = replaced.min(rows[i - 1][j] + 1).min(rows[i][j - 1] + 1);
            if i > 1 && j > 1 && left[i - 1] == right[j - 2] && left[i - 2] == right[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            rows[i][j] = best;
        }
    }
    rows[left.len()][right.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_split_like_a_shell_splits_them() {
        let table: [(&str, Result<&[&str], &str>); 9] = [
            ("a b  c", Ok(&["a", "b", "c"])),
            ("", Ok(&[])),
            ("sh -c 'echo $HOME; exit'", Ok(&["sh", "-c", "echo $HOME; exit"])),
            (r#"a "b \"c\" \n" d\ e"#, Ok(&["a", r#"b "c" \n"#, "d e"])),
            ("'' x", Ok(&["", "x"])),
            ("--a='b c'd", Ok(&["--a=b cd"])),
            ("'open", Err("a single quote is never closed")),
            ("\"open", Err("a double quote is never closed")),
            ("end\\", Err("a backslash stands at the end")),
        ];
        for (line, expected) in table {
            let expected = expected.map(|words| words.iter().map(ToString::to_string).collect::<Vec<_>>());
            assert_eq!(split(line), expected, "{line}");
        }
    }

    #[test]
    fn the_word_that_was_meant_is_found() {
        let known = ["image", "ports", "healthcheck", "depends_on", "environment"];
        assert_eq!(closest("imgae", known), Some("image"));
        assert_eq!(closest("port", known), Some("ports"));
        assert_eq!(closest("health_check", known), Some("healthcheck"));
        assert_eq!(closest("dependsOn", known), Some("depends_on"));
        assert_eq!(closest("depends-on", known), Some("depends_on"));
        assert_eq!(closest("colour", known), None);
    }
}
