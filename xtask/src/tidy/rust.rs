//! Rules on Rust files: each says what it is, fits a screen per function and a sitting per file, and asks for no `unsafe`.

use super::Finding;
use super::source::{Lines, Source};
use super::tree::{File, Tree};

/// A file is read in one sitting.
const FILE_LINES_MAX: usize = 600;
/// A function is read without scrolling. Counted here and not by clippy, because this takes a second and no build.
const FUNCTION_LINES_MAX: usize = 70;

/// Where `unsafe` may stand, and why.
const UNSAFE: [(&str, &str); 4] = [
    ("base/address/src/sys", "addresses of links and filters of sockets are not in rustix"),
    ("base/sandbox/src/sys", "it is the project's one door to the kernel"),
    ("base/world/src/memory", "it is the one door to the allocator"),
    ("base/world/src/net", "what a socket has still on its way is not in rustix"),
];

pub(crate) fn check(tree: &Tree) -> Vec<Finding> {
    tree.files.iter().filter(|file| file.path.ends_with(".rs")).flat_map(check_file).collect()
}

fn check_file(file: &File) -> Vec<Finding> {
    let source = Source::read(&file.text);
    let mut findings = Vec::new();
    no_unsafe(file, &source, &mut findings);
    if is_test(file) {
        return findings;
    }
    module_doc(file, &mut findings);
    let tests = source.test_modules();
    file_length(file, &tests, &mut findings);
    for function in source.functions() {
        let length = function.lines.count();
        if length > FUNCTION_LINES_MAX && !tests.iter().any(|lines| lines.contains(function.lines.first)) {
            let advice = format!(
                "`{}` has {length} lines, {FUNCTION_LINES_MAX} is the limit: split it where both halves get a name",
                function.name
            );
            findings.push(Finding::new(&file.path, function.lines.first, "function-length", advice));
        }
    }
    findings
}

/// Files that only tests are made of.
pub(crate) fn is_test(file: &File) -> bool {
    file.is_below("tests") || file.is_below("benches") || matches!(file.name(), "tests.rs" | "test.rs")
}

fn module_doc(file: &File, findings: &mut Vec<Finding>) {
    let first = file.text.lines().find(|line| !line.trim().is_empty() && !line.starts_with("#!["));
    if !first.is_some_and(|line| line.starts_with("//!")) {
        let advice = "begin with `//!`: what this file owns, promises and never knows";
        findings.push(Finding::new(&file.path, 1, "module-doc", advice));
    }
}

fn file_length(file: &File, tests: &[Lines], findings: &mut Vec<Finding>) {
    let all = file.text.lines().count();
    let length = all - tests.iter().map(|lines| lines.count()).sum::<usize>().min(all);
    if length > FILE_LINES_MAX {
        let advice = format!(
            "{length} lines without tests, {FILE_LINES_MAX} is the limit: split it where both halves get a name"
        );
        findings.push(Finding::new(&file.path, FILE_LINES_MAX, "file-length", advice));
    }
}

fn no_unsafe(file: &File, source: &Source, findings: &mut Vec<Finding>) {
    let allowed =
        |(place, _): &(&str, &str)| file.path.starts_with(&format!("{place}/")) || file.path == format!("{place}.rs");
    if UNSAFE.iter().any(allowed) {
        return;
    }
    for line in source.lines_with("unsafe") {
        let places: Vec<String> = UNSAFE.iter().map(|(place, why)| format!("{place} ({why})")).collect();
        let advice = format!("`unsafe` may stand only in {}: use a safe wrapper, rustix has most", places.join(", "));
        findings.push(Finding::new(&file.path, line, "unsafe", advice));
    }
}

#[cfg(test)]
mod tests {
    use super::super::expect;
    use super::{FILE_LINES_MAX, FUNCTION_LINES_MAX, check};

    #[test]
    fn a_file_says_what_it_is() {
        expect(
            check,
            &[
                ("a/src/good.rs", "//! Good.\n"),
                ("a/src/attributes.rs", "\n#![expect(x)]\n//! Good.\n"),
                ("a/src/bad.rs", "use x;\n"),
                ("a/src/empty.rs", ""),
                ("a/tests/it/main.rs", "mod x;\n"),
            ],
            &["a/src/bad.rs:1: module-doc", "a/src/empty.rs:1: module-doc"],
        );
    }

    #[test]
    fn lengths_count_without_tests() {
        let line = "const A: u8 = 1;\n";
        let long = format!("//! A.\n{}", line.repeat(FILE_LINES_MAX));
        let tested = format!("//! A.\n#[cfg(test)]\nmod tests {{\n{}}}\n", line.repeat(FILE_LINES_MAX));
        let function = |lines: usize| format!("//! A.\nfn f() {{\n{}}}\n", "    g();\n".repeat(lines - 2));
        let test_function = format!("//! A.\n#[cfg(test)]\nmod tests {{\nfn f() {{\n{}}}\n}}\n", "g();\n".repeat(99));
        expect(
            check,
            &[
                ("a/src/long.rs", &long),
                ("a/src/tested.rs", &tested),
                ("a/src/screen.rs", &function(FUNCTION_LINES_MAX)),
                ("a/src/scroll.rs", &function(FUNCTION_LINES_MAX + 1)),
                ("a/src/test_scroll.rs", &test_function),
                ("a/tests/it/long.rs", &long),
            ],
            &["a/src/long.rs:600: file-length", "a/src/scroll.rs:2: function-length"],
        );
    }

    #[test]
    fn unsafe_has_one_room() {
        expect(
            check,
            &[
                ("base/sandbox/src/sys.rs", "//! A.\nunsafe fn f() {}\n"),
                ("base/sandbox/src/sys/fork.rs", "//! A.\nunsafe fn f() {}\n"),
                ("base/sandbox/src/system.rs", "//! A.\nunsafe fn f() {}\n"),
                (
                    "base/world/src/lib.rs",
                    "//! unsafe.\n// unsafe\n#![deny(unsafe_code)]\nconst A: &str = \"unsafe\";\n",
                ),
                ("base/world/tests/it.rs", "fn f() {\n    unsafe {}\n}\n"),
            ],
            &["base/sandbox/src/system.rs:2: unsafe", "base/world/tests/it.rs:2: unsafe"],
        );
    }
}
