//! Languages: what each is called, how its code is compiled and run, and which files of a machine that takes.
//!
//! A language is a small file and no code. Those that come with Bramble are in `languages/`; a file of the same name in the
//! data folder's `languages/` takes the place of one, and others add to them.

use images::Reference;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::Path;
use wire::run::{RunLimits, RunWanted};

/// Where code lies and runs, in its box.
pub const FOLDER: &str = "/box";

/// Those that come with Bramble.
const BUILT_IN: [(&str, &str); 12] = [
    ("bash", include_str!("../languages/bash.toml")),
    ("c", include_str!("../languages/c.toml")),
    ("cpp", include_str!("../languages/cpp.toml")),
    ("go", include_str!("../languages/go.toml")),
    ("haskell", include_str!("../languages/haskell.toml")),
    ("java", include_str!("../languages/java.toml")),
    ("javascript", include_str!("../languages/javascript.toml")),
    ("lua", include_str!("../languages/lua.toml")),
    ("perl", include_str!("../languages/perl.toml")),
    ("python", include_str!("../languages/python.toml")),
    ("ruby", include_str!("../languages/ruby.toml")),
    ("rust", include_str!("../languages/rust.toml")),
];

/// A file that is no language.
#[derive(Debug, thiserror::Error)]
pub enum LanguageError {
    #[error("read the languages in {path}")]
    Read {
        path: String,
        #[source]
        source: std::io::Error,
    },
    #[error("the language {name}: {problem}")]
    Wrong { name: String, problem: String },
}

/// How one language is run. Of its commands, `{main}` is the first file, `{stem}` that without its ending, and
/// `{sources}` are all files with one of its endings.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Language {
    /// The file's.
    #[serde(skip)]
    pub name: String,
    /// For people.
    pub title: String,
    pub aliases: Vec<String>,
    /// Endings of its files, without the dot.
    pub extensions: Vec<String>,
    /// What the first file is called when nobody says.
    pub main: String,
    pub compile: Vec<String>,
    /// What the compiler leaves that running takes: names, `*` stands for anything. Empty: all it made.
    pub keep: Vec<String>,
    pub run: Vec<String>,
    pub env: BTreeMap<String, String>,
    /// Prints which version it is, on the machine itself.
    pub version: Vec<String>,
    pub limits: RunLimits,
    pub example: String,
    pub root: Root,
}

/// Which files of a machine its boxes have. What programs and libraries among them need besides is found out.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Root {
    /// The reference of an image whose files they are, in place of the machine's own.
    pub image: String,
    /// Absolute; without one of them the machine has not got the language.
    pub needs: Vec<String>,
    /// Absolute, `*` stands for anything but `/`; whatever of it there is.
    pub takes: Vec<String>,
    /// Of those, paths that stay behind; `*` stands for anything.
    pub leaves: Vec<String>,
}

impl Language {
    fn parse(name: &str, text: &str) -> Result<Language, LanguageError> {
        let wrong = |problem: String| LanguageError::Wrong { name: name.to_owned(), problem };
        let mut language: Language = toml::from_str(text).map_err(|error| wrong(error.to_string()))?;
        name.clone_into(&mut language.name);
        let plain = |name: &str| {
            !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+#_-".contains(&byte))
        };
        if !language.aliases.iter().map(String::as_str).chain([name]).all(plain) {
            return Err(wrong("its name and aliases may have letters, digits, `+`, `#`, `-` and `_`".to_owned()));
        }
        if language.run.is_empty() {
            return Err(wrong("`run` says how it is run, and is missing".to_owned()));
        }
        let root = &language.root;
        let of_machine = [&root.needs, &root.takes, &root.leaves].into_iter().any(|paths| !paths.is_empty());
        match (root.image.is_empty(), of_machine) {
            (true, _) if root.needs.is_empty() => {
                return Err(wrong("`[root]` says what it takes: `needs` of the machine, or an `image`".to_owned()));
            }
            (false, true) => {
                return Err(wrong(
                    "`image` of `[root]` excludes `needs`, `takes` and `leaves` of the machine".to_owned(),
                ));
            }
            (false, false) => {
                root.image.parse::<Reference>().map_err(|error| wrong(format!("`image` of `[root]`: {error}")))?;
            }
            (true, _) => {}
        }
        if !language.root.needs.iter().chain(&language.root.takes).all(|path| path.starts_with('/')) {
            return Err(wrong("paths of `[root]` begin with `/`".to_owned()));
        }
        if file_name(&language.main).is_err() {
            return Err(wrong("`main` is what its first file is called".to_owned()));
        }
        Ok(language)
    }

    /// A command with the files of a run in it.
    pub fn command(&self, command: &[String], files: &[String]) -> Vec<String> {
        let main = files.first().map_or(self.main.as_str(), String::as_str);
        let stem = main.rsplit_once('.').map_or(main, |(stem, _)| stem);
        let is_source = |name: &&String| {
            let ending = name.rsplit_once('.').map_or("", |(_, ending)| ending);
            self.extensions.iter().any(|extension| extension == ending)
        };
        let mut sources: Vec<&String> = files.iter().filter(is_source).collect();
        if sources.is_empty() {
            sources.extend(files.first());
        }
        let mut made = Vec::new();
        for word in command {
            if word == "{sources}" {
                made.extend(sources.iter().map(|name| (*name).clone()));
            } else {
                made.push(word.replace("{main}", main).replace("{stem}", stem));
            }
        }
        made
    }
}

/// All languages there are.
#[derive(Debug, Clone, Default)]
pub struct Languages {
    all: Vec<Language>,
}

impl Languages {
    /// Those that come with Bramble, with those of a folder, if there is one.
    pub fn open(folder: &Path) -> Result<Languages, LanguageError> {
        let mut all = BTreeMap::new();
        for (name, text) in BUILT_IN {
            all.insert(name.to_owned(), Language::parse(name, text)?);
        }
        let read = |source| LanguageError::Read { path: folder.display().to_string(), source };
        let entries = match std::fs::read_dir(folder) {
            Ok(entries) => entries.collect::<Result<Vec<_>, _>>().map_err(read)?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(read(error)),
        };
        for entry in entries {
            let path = entry.path();
            let (Some(name), Some("toml")) = (
                path.file_stem().and_then(|stem| stem.to_str()),
                path.extension().and_then(|extension| extension.to_str()),
            ) else {
                continue;
            };
            let text = std::fs::read_to_string(&path).map_err(read)?;
            all.insert(name.to_owned(), Language::parse(name, &text)?);
        }
        Ok(Languages { all: all.into_values().collect() })
    }

    pub fn all(&self) -> &[Language] {
        &self.all
    }

    /// By its name or an alias, in any case.
    pub fn named(&self, name: &str) -> Option<&Language> {
        let is = |known: &str| known.eq_ignore_ascii_case(name);
        self.all.iter().find(|language| is(&language.name) || language.aliases.iter().any(|alias| is(alias)))
    }

    /// By the ending of a file's name.
    pub fn of_file(&self, name: &str) -> Option<&Language> {
        let (_, ending) = name.rsplit_once('.')?;
        self.all.iter().find(|language| language.extensions.iter().any(|extension| extension == ending))
    }

    /// The language of a run: as it says, or as its first file's name does.
    pub fn of_run(&self, wanted: &RunWanted) -> Result<&Language, String> {
        let known = || {
            let names: Vec<&str> = self.all.iter().map(|language| language.name.as_str()).collect();
            names.join(", ")
        };
        if !wanted.language.is_empty() {
            return self
                .named(&wanted.language)
                .ok_or_else(|| format!("no language is called {:?}; there are {}", wanted.language, known()));
        }
        let name = wanted.files.first().map_or("", |file| file.name.as_str());
        self.of_file(name).ok_or_else(|| format!("the name {name:?} says no language; there are {}", known()))
    }
}

/// A name below the program's folder, or what is wrong with it.
pub fn file_name(name: &str) -> Result<(), String> {
    const NAME_BYTES_MAX: usize = 255;
    let part = |part: &str| !matches!(part, "" | "." | "..") && part.len() <= NAME_BYTES_MAX;
    let fine = name.len() <= 4 * NAME_BYTES_MAX && !name.contains('\0') && name.split('/').all(part);
    if fine { Ok(()) } else { Err(format!("{name:?} is no name of a file below the program's folder")) }
}

/// Whether a text is like a pattern, in which `*` stands for anything.
pub fn is_like(text: &str, pattern: &str) -> bool {
    match pattern.split_once('*') {
        None => text == pattern,
        Some((before, after)) => text.strip_prefix(before).is_some_and(|rest| {
            let mut starts = rest.char_indices().map(|(at, _)| at).chain([rest.len()]);
            starts.any(|at| is_like(&rest[at..], after))
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use wire::run::RunFile;

    #[test]
    fn all_that_come_with_it_are_languages() {
        let languages = Languages::open(Path::new("/nonexistent")).expect("they parse");
        assert_eq!(languages.all().len(), BUILT_IN.len());
        let mut names: Vec<String> = Vec::new();
        for language in languages.all() {
            assert!(!language.title.is_empty() && !language.example.is_empty(), "{}", language.name);
            names.extend(language.aliases.iter().chain([&language.name]).cloned());
        }
        let all = names.len();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), all, "each name is one language's");
    }

    #[test]
    fn files_of_the_data_folder_add_to_them_and_say_what_is_wrong() {
        let folder = tempfile::tempdir().expect("a folder");
        let check = |text: &str, expected: &str| {
            std::fs::write(folder.path().join("tcl.toml"), text).expect("written");
            match Languages::open(folder.path()) {
                Ok(languages) => assert_eq!(languages.named("TCL").map_or("", |one| one.title.as_str()), expected),
                Err(error) => assert!(error.to_string().contains(expected), "{error}"),
            }
        };
        check(
            "title = 'Tcl'\nmain = 'main.tcl'\nrun = ['/usr/bin/tclsh', '{main}']\n[root]\nneeds = ['/usr/bin/tclsh']",
            "Tcl",
        );
        check("run = ['x']", "`needs`");
        check("main = 'x'\n[root]\nneeds = ['/x']", "`run`");
        check("main = '../x'\nrun = ['x']\n[root]\nneeds = ['/x']", "`main`");
        check("main = 'x'\nrun = ['x']\n[root]\nneeds = ['x']", "begin with `/`");
        check("rum = ['x']", "rum");
    }

    #[test]
    fn a_run_says_its_language_or_its_file_does() {
        let languages = Languages::open(Path::new("/nonexistent")).expect("they parse");
        let check = |language: &str, file: &str, expected: Result<&str, &str>| {
            let files = vec![RunFile { name: file.to_owned(), ..RunFile::default() }];
            let wanted = RunWanted { language: language.to_owned(), files, ..RunWanted::default() };
            match (languages.of_run(&wanted), expected) {
                (Ok(found), Ok(name)) => assert_eq!(found.name, name),
                (Err(said), Err(part)) => assert!(said.contains(part), "{said}"),
                (found, _) => panic!("{found:?}, not {expected:?}"),
            }
        };
        check("C++", "x", Ok("cpp"));
        check("", "a.py", Ok("python"));
        check("", "a.b.rs", Ok("rust"));
        check("", "noname", Err("no language"));
        check("brainf", "a.py", Err("there are bash, c"));
    }

    #[test]
    fn commands_have_the_files_of_the_run() {
        let language = Language { extensions: vec!["c".to_owned()], main: "main.c".to_owned(), ..Language::default() };
        let check = |command: &[&str], files: &[&str], expected: &[&str]| {
            let own = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
            assert_eq!(language.command(&own(command), &own(files)), expected);
        };
        check(&["gcc", "{sources}", "-o", "{stem}"], &["a.c", "a.h", "b.c"], &["gcc", "a.c", "b.c", "-o", "a"]);
        check(&["run", "{main}"], &["odd"], &["run", "odd"]);
        check(&["gcc", "{sources}"], &["odd"], &["gcc", "odd"]);
    }

    #[test]
    fn names_of_files_stay_below_the_folder() {
        let check = |name: &str, fine: bool| assert_eq!(file_name(name).is_ok(), fine, "{name}");
        check("main.c", true);
        check("src/lib/main.c", true);
        for name in ["", "/etc/passwd", "../x", "a/../b", "a//b", "a/", ".", "a\0b", &"x".repeat(256)] {
            check(name, false);
        }
    }

    #[test]
    fn a_star_stands_for_anything() {
        let check =
            |text: &str, pattern: &str, like: bool| assert_eq!(is_like(text, pattern), like, "{text} {pattern}");
        check("/usr/lib/python3.11", "/usr/lib/python3*", true);
        check("/usr/lib/python3.11/test/x", "*/test/*", true);
        check("/usr/lib/python3", "/usr/lib/python3", true);
        check("/usr/lib/perl", "/usr/lib/python3*", false);
        check("", "*", true);
    }
}
