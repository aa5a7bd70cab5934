//! Rust source, read far enough for the rules: code without comments and strings, the strings, the functions.
//!
//! A scanner, no parser: it promises to keep lines where they are and never to fail, whatever it is given.

/// One file of Rust, taken apart.
#[derive(Debug)]
pub(crate) struct Source {
    /// The text with comments and the insides of strings and characters blanked, line for line.
    pub(crate) code: String,
    /// String literals with the line each starts at, escapes as written.
    pub(crate) strings: Vec<(usize, String)>,
}

/// Lines from the first to the last, both counted from 1 and included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Lines {
    pub(crate) first: usize,
    pub(crate) last: usize,
}

impl Lines {
    pub(crate) fn count(self) -> usize {
        self.last + 1 - self.first
    }

    pub(crate) fn contains(self, line: usize) -> bool {
        (self.first..=self.last).contains(&line)
    }
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Function {
    pub(crate) name: String,
    pub(crate) lines: Lines,
}

impl Source {
    pub(crate) fn read(text: &str) -> Source {
        let mut scanner = Scanner { bytes: text.as_bytes(), at: 0, line: 1, code: Vec::new(), strings: Vec::new() };
        while scanner.at < scanner.bytes.len() {
            scanner.step();
        }
        Source { code: String::from_utf8_lossy(&scanner.code).into_owned(), strings: scanner.strings }
    }

    /// The bodies of `#[cfg(test)] mod … { }`.
    pub(crate) fn test_modules(&self) -> Vec<Lines> {
        let mut found = Vec::new();
        let mut from = 0;
        while let Some(offset) = self.code[from..].find("#[cfg(test)]") {
            let start = from + offset;
            from = start + 1;
            let rest = self.code[start..].trim_start_matches("#[cfg(test)]").trim_start();
            if !rest.starts_with("mod ") {
                continue;
            }
            if let Some(end) = self.block_end(self.code.len() - rest.len()) {
                found.push(Lines { first: self.line_at(start), last: self.line_at(end) });
            }
        }
        found
    }

    /// Every function with a body, nested ones too.
    pub(crate) fn functions(&self) -> Vec<Function> {
        let mut found = Vec::new();
        for start in words(&self.code, "fn") {
            let name: String = self.code[start + 2..].trim_start().chars().take_while(|c| is_word(*c)).collect();
            if name.is_empty() {
                continue; // The type `fn(u8)`.
            }
            if let Some(end) = self.block_end(start) {
                found.push(Function { name, lines: Lines { first: self.line_at(start), last: self.line_at(end) } });
            }
        }
        found
    }

    /// Lines on which `word` stands in the code.
    pub(crate) fn lines_with(&self, word: &str) -> Vec<usize> {
        words(&self.code, word).map(|at| self.line_at(at)).collect()
    }

    /// Where the item that starts at `start` closes its block; `None` when it ends with `;` instead.
    fn block_end(&self, start: usize) -> Option<usize> {
        let (mut braces, mut others) = (0usize, 0usize);
        for (offset, byte) in self.code.bytes().enumerate().skip(start) {
            match byte {
                b'(' | b'[' => others += 1,
                b')' | b']' => others = others.saturating_sub(1),
                b';' if braces == 0 && others == 0 => return None,
                b'{' => braces += 1,
                b'}' if braces <= 1 => return (braces == 1).then_some(offset),
                b'}' => braces -= 1,
                _ => {}
            }
        }
        None
    }

    fn line_at(&self, offset: usize) -> usize {
        self.code.as_bytes()[..offset].iter().filter(|byte| **byte == b'\n').count() + 1
    }
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Offsets at which `word` stands alone.
fn words<'a>(code: &'a str, word: &'a str) -> impl Iterator<Item = usize> + 'a {
    code.match_indices(word).map(|(at, _)| at).filter(move |&at| {
        !code[..at].chars().next_back().is_some_and(is_word)
            && !code[at + word.len()..].chars().next().is_some_and(is_word)
    })
}

struct Scanner<'a> {
    bytes: &'a [u8],
    at: usize,
    line: usize,
    code: Vec<u8>,
    strings: Vec<(usize, String)>,
}

impl Scanner<'_> {
    fn step(&mut self) {
        let rest = &self.bytes[self.at..];
        if rest.starts_with(b"//") {
            while self.at < self.bytes.len() && self.bytes[self.at] != b'\n' {
                self.blank();
            }
        } else if rest.starts_with(b"/*") {
            self.block_comment();
        } else if let Some((opening, hashes)) = raw_string(rest).filter(|_| !self.after_word()) {
            self.raw_string(opening, hashes);
        } else if rest[0] == b'"' {
            self.string();
        } else if rest[0] == b'\'' {
            self.character();
        } else {
            self.keep();
        }
    }

    /// Copies one byte as code.
    fn keep(&mut self) {
        let byte = self.bytes[self.at];
        self.line += usize::from(byte == b'\n');
        self.code.push(byte);
        self.at += 1;
    }

    /// Passes over one byte; only line ends stay.
    fn blank(&mut self) {
        if self.bytes[self.at] == b'\n' {
            self.keep();
        } else {
            self.code.push(b' ');
            self.at += 1;
        }
    }

    fn blank_many(&mut self, count: usize) {
        for _ in 0..count.min(self.bytes.len() - self.at) {
            self.blank();
        }
    }

    /// Whether the byte before belongs to a name, as the `r` of `for"…"` would.
    fn after_word(&self) -> bool {
        self.at > 0 && is_word(char::from(self.bytes[self.at - 1]))
    }

    fn block_comment(&mut self) {
        let mut depth = 0usize;
        while self.at < self.bytes.len() {
            let rest = &self.bytes[self.at..];
            if rest.starts_with(b"/*") {
                depth += 1;
                self.blank_many(2);
            } else if rest.starts_with(b"*/") {
                depth -= 1;
                self.blank_many(2);
                if depth == 0 {
                    return;
                }
            } else {
                self.blank();
            }
        }
    }

    fn raw_string(&mut self, opening: usize, hashes: usize) {
        let line = self.line;
        self.blank_many(opening);
        let start = self.at;
        let closing: Vec<u8> = std::iter::once(b'"').chain(std::iter::repeat_n(b'#', hashes)).collect();
        while self.at < self.bytes.len() && !self.bytes[self.at..].starts_with(&closing) {
            self.blank();
        }
        self.found(line, start);
        self.blank_many(closing.len());
    }

    fn string(&mut self) {
        let line = self.line;
        self.keep();
        let start = self.at;
        while self.at < self.bytes.len() && self.bytes[self.at] != b'"' {
            let escaped = self.bytes[self.at] == b'\\';
            self.blank_many(if escaped { 2 } else { 1 });
        }
        self.found(line, start);
        if self.at < self.bytes.len() {
            self.keep();
        }
    }

    /// `'x'` and `'\n'`, but not the lifetime `'x`.
    fn character(&mut self) {
        let rest = &self.bytes[self.at + 1..];
        let length = match rest.first() {
            Some(b'\\') => rest.iter().skip(2).position(|byte| *byte == b'\'').map(|at| at + 4),
            // A character is at most four bytes of UTF-8.
            Some(_) => rest.iter().take(5).skip(1).position(|byte| *byte == b'\'').map(|at| at + 3),
            None => None,
        };
        let lifetime = rest.get(1) != Some(&b'\'') && rest.first().is_some_and(|byte| is_word(char::from(*byte)));
        match length {
            Some(length) if !lifetime || !rest[0].is_ascii() => self.blank_many(length),
            _ => self.keep(),
        }
    }

    fn found(&mut self, line: usize, start: usize) {
        self.strings.push((line, String::from_utf8_lossy(&self.bytes[start..self.at]).into_owned()));
    }
}

/// The length of `r#"`, `br"`, `cr##"` and the number of hashes, when a raw string starts here.
fn raw_string(rest: &[u8]) -> Option<(usize, usize)> {
    let prefix = if rest.starts_with(b"r") {
        1
    } else if rest.starts_with(b"br") || rest.starts_with(b"cr") {
        2
    } else {
        return None;
    };
    let hashes = rest[prefix..].iter().take_while(|byte| **byte == b'#').count();
    (rest.get(prefix + hashes) == Some(&b'"')).then_some((prefix + hashes + 1, hashes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, code: &str, strings: &[(usize, &str)]) {
        let source = Source::read(text);
        assert_eq!(source.code, code);
        let found: Vec<(usize, &str)> = source.strings.iter().map(|(line, text)| (*line, text.as_str())).collect();
        assert_eq!(found, strings);
    }

    #[test]
    fn comments_and_strings_leave_the_code() {
        check("a // \"b\"\nc", "a       \nc", &[]);
        check("a /* b /* c */ \n d */ e", "a              \n      e", &[]);
        check(r#"f("{ \" }", '{', '\'')"#, r#"f("      ",    ,     )"#, &[(1, r#"{ \" }"#)]);
        check("r#\"a \" b\"# x", "           x", &[(1, "a \" b")]);
        check("fn f<'a>(x: &'a str) {}", "fn f<'a>(x: &'a str) {}", &[]);
        check("'é' + 'b'", "     +    ", &[]);
        check("\"open", "\"    ", &[(1, "open")]);
    }

    #[test]
    fn functions_are_found_with_their_lines() {
        let source = Source::read("fn a() {\n    fn b(x: [u8; 4]) -> u8 { 1 }\n}\ntrait T {\n    fn c();\n}\n");
        let found = source.functions();
        assert_eq!(found.len(), 2);
        assert_eq!(found[0], Function { name: "a".into(), lines: Lines { first: 1, last: 3 } });
        assert_eq!(found[1], Function { name: "b".into(), lines: Lines { first: 2, last: 2 } });
    }

    #[test]
    fn test_modules_are_found() {
        let source = Source::read("x\n#[cfg(test)]\nmod tests {\n    { }\n}\n#[cfg(test)]\nmod other;\n");
        assert_eq!(source.test_modules(), [Lines { first: 2, last: 5 }]);
    }

    #[test]
    fn a_torn_file_is_no_reason_to_fail() {
        for text in ["'", "\"", "r#\"", "/*", "\\", "'\\", "fn", "fn a() {", "#[cfg(test)]mod", "b'", "é'"] {
            let source = Source::read(text);
            source.functions();
            source.test_modules();
        }
    }
}
