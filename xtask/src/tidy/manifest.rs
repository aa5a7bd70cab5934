//! Rules on manifests: imports go down the floors, heavy dependencies have one owner, versions are chosen at the root.

use super::Finding;
use super::tree::{File, Tree};
use toml::{Table, Value};

/// From the ground up; ARCHITECTURE.md says what each holds.
const FLOORS: [&str; 5] = ["base", "engine", "cluster", "component", "app"];
/// Folders outside the house: they may import everything, and nothing imports them.
const OUTSIDE: [&str; 3] = ["example", "lab", "xtask"];
/// What the base floor itself stands on, each on those before it: the words, the doors, the meters.
const GROUND: [&str; 3] = ["wire", "world", "meter"];

/// Dependencies that cost much to build or that only one crate may know, with the crates that may import them.
/// Tests are free (dev-dependencies): nobody builds them into the product.
const WRAPPERS: [(&str, &[&str]); 25] = [
    ("redb", &["storage"]),
    ("foyer", &["stash"]),
    ("rcgen", &["pki"]),
    ("x509-parser", &["pki"]),
    ("openraft", &["replication"]),
    ("hyper", &["gateway", "bramble", "images", "rpc", "etcd"]),
    ("hyper-util", &["gateway", "bramble", "images", "rpc", "etcd"]),
    ("axum", &["bramble"]),
    ("instant-acme", &["acme"]),
    ("reqwest", &["acme", "images", "bramble"]),
    ("rustls", &["acme", "gateway", "images", "bramble", "rpc"]),
    ("tokio-rustls", &["gateway", "bramble", "rpc"]),
    ("rustls-webpki", &["rpc"]),
    ("landlock", &["sandbox"]),
    ("serde-saphyr", &["stackfile"]),
    ("saphyr-parser", &["stackfile"]),
    ("granit-parser", &["stackfile"]),
    ("tar", &["images"]),
    // Layers there, answers to browsers here.
    ("flate2", &["images", "gateway"]),
    ("brotli", &["gateway"]),
    ("zstd", &["gateway"]),
    ("getrandom", &["world"]),
    ("clap", &["bramble"]),
    ("tracing-subscriber", &["bramble"]),
    // Ours is `meter`; two registries would show half the truth each.
    ("prometheus", &[]),
];

struct Crate<'a> {
    name: String,
    /// The first folder of its path.
    folder: &'a str,
    file: &'a File,
    manifest: Table,
}

impl Crate<'_> {
    fn floor(&self) -> Option<usize> {
        FLOORS.iter().position(|floor| *floor == self.folder)
    }

    fn is_outside(&self) -> bool {
        OUTSIDE.contains(&self.folder)
    }

    /// The line that begins with `word`, for pointing at it.
    fn line_of(&self, word: &str) -> usize {
        let begins = |line: &str| {
            line.trim_start().strip_prefix(word).is_some_and(|rest| rest.starts_with(['.', ' ', '=', '"']))
        };
        self.file.text.lines().position(begins).map_or(0, |at| at + 1)
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Normal,
    Test,
}

pub(crate) fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut crates = Vec::new();
    for file in tree.files.iter().filter(|file| file.name() == "Cargo.toml" && !file.is_below("fixtures")) {
        match file.text.parse::<Table>() {
            Ok(manifest) => crates.extend(read(file, manifest)),
            Err(error) => findings.push(Finding::new(&file.path, 0, "manifest", error.message())),
        }
    }
    for one in &crates {
        placed(one, &mut findings);
        workspace_lints(one, &mut findings);
        one_test_binary(tree, one, &mut findings);
        for (kind, name, value) in dependencies(&one.manifest) {
            let package = value.get("package").and_then(Value::as_str).unwrap_or(name);
            if let Some(other) = crates.iter().find(|other| other.name == package) {
                floors(one, other, kind, &mut findings);
            }
            wrapped(one, package, kind, &mut findings);
            inherited(one, name, value, &mut findings);
        }
    }
    findings
}

/// The manifest of a package; the workspace's own is none.
fn read(file: &File, manifest: Table) -> Option<Crate<'_>> {
    let name = manifest.get("package")?.get("name")?.as_str()?.to_owned();
    let folder = file.path.split('/').next().unwrap_or_default();
    Some(Crate { name, folder, file, manifest })
}

/// Every dependency of every section, platform sections included.
fn dependencies(manifest: &Table) -> Vec<(Kind, &str, &Value)> {
    let targets = manifest.get("target").and_then(Value::as_table);
    let tables =
        std::iter::once(manifest).chain(targets.into_iter().flat_map(Table::values).filter_map(Value::as_table));
    let mut found = Vec::new();
    for table in tables {
        for (section, kind) in
            [("dependencies", Kind::Normal), ("build-dependencies", Kind::Normal), ("dev-dependencies", Kind::Test)]
        {
            let entries = table.get(section).and_then(Value::as_table).into_iter().flatten();
            found.extend(entries.map(|(name, value)| (kind, name.as_str(), value)));
        }
    }
    found
}

fn placed(one: &Crate<'_>, findings: &mut Vec<Finding>) {
    if one.floor().is_none() && !one.is_outside() {
        let advice = format!(
            "`{}` stands on no floor: put it under {}, or outside under {}",
            one.name,
            FLOORS.join("/, "),
            OUTSIDE.join("/, ")
        );
        findings.push(Finding::new(&one.file.path, 0, "floor", advice));
    }
}

fn floors(one: &Crate<'_>, other: &Crate<'_>, kind: Kind, findings: &mut Vec<Finding>) {
    let (mine, theirs) = (one.floor(), other.floor());
    let problem = match (mine, theirs) {
        (_, None) => format!("`{}` is outside the house, and nobody imports it", other.name),
        (None, _) => return,
        (Some(mine), Some(theirs)) if theirs < mine => return,
        (Some(mine), Some(theirs)) if theirs == mine && kind == Kind::Test => return,
        (Some(mine), Some(theirs)) if theirs == mine && is_ground_of(&other.name, &one.name) => return,
        (Some(mine), Some(theirs)) if theirs == mine => {
            format!("`{}` is on the same floor ({})", other.name, FLOORS[mine])
        }
        (Some(mine), Some(theirs)) => {
            format!("`{}` is on {}, above {}", other.name, FLOORS[theirs], FLOORS[mine])
        }
    };
    let advice = format!(
        "{problem}: move what both need to a lower floor, or meet in control, or over a trait that a lower floor owns"
    );
    findings.push(Finding::new(&one.file.path, one.line_of(&other.name), "floor", advice));
}

fn is_ground_of(lower: &str, upper: &str) -> bool {
    let place = |name: &str| GROUND.iter().position(|ground| *ground == name);
    place(lower).is_some_and(|lower| place(upper).is_none_or(|upper| lower < upper))
}

fn wrapped(one: &Crate<'_>, package: &str, kind: Kind, findings: &mut Vec<Finding>) {
    let Some((_, owners)) = WRAPPERS.iter().find(|(heavy, _)| *heavy == package) else { return };
    if kind == Kind::Test || one.is_outside() || owners.contains(&one.name.as_str()) {
        return;
    }
    let advice = match owners {
        [] => format!("no crate may import `{package}`"),
        [owner] => format!("only `{owner}` may import `{package}`: ask it for what you need"),
        several => format!("only `{}` may import `{package}`: ask one of them for what you need", several.join("`, `")),
    };
    findings.push(Finding::new(&one.file.path, one.line_of(package), "wrapper", advice));
}

fn inherited(one: &Crate<'_>, name: &str, value: &Value, findings: &mut Vec<Finding>) {
    if one.is_outside() || value.get("workspace").and_then(Value::as_bool) == Some(true) {
        return;
    }
    let advice = format!("write `{name}.workspace = true` and choose its version once, in the root Cargo.toml");
    findings.push(Finding::new(&one.file.path, one.line_of(name), "inherit", advice));
}

fn workspace_lints(one: &Crate<'_>, findings: &mut Vec<Finding>) {
    let inherits = one.manifest.get("lints").and_then(|lints| lints.get("workspace")).and_then(Value::as_bool);
    if inherits != Some(true) {
        findings.push(Finding::new(&one.file.path, 0, "lints", "add `[lints]` with `workspace = true`"));
    }
}

/// Test programs that may stand beside their crate's own, each with its reason.
const SECOND_PROGRAMS: [&str; 1] = [
    // It runs itself again as another user, copied to where that user may start it, and the lists of what it runs are
    // in its own main: the crate's other tests have no business in that.
    "base/sandbox/tests/hostile/main.rs",
];

/// Each test program links the whole crate again; on two cores that is what a build waits for.
fn one_test_binary(tree: &Tree, one: &Crate<'_>, findings: &mut Vec<Finding>) {
    let folder = one.file.path.trim_end_matches("Cargo.toml");
    let is_program = |file: &&File| {
        let inside = file.path.strip_prefix(folder).and_then(|path| path.strip_prefix("tests/"));
        inside.is_some_and(|path| path.ends_with("/main.rs") || (path.ends_with(".rs") && !path.contains('/')))
    };
    let counted = |file: &&File| is_program(file) && !SECOND_PROGRAMS.contains(&file.path.as_str());
    for extra in tree.files.iter().filter(counted).skip(1) {
        let advice = "a crate has one integration test program: make this a module of the other";
        findings.push(Finding::new(&extra.path, 0, "one-test-binary", advice));
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Tree, expect};
    use super::check;

    fn manifest(name: &str, rest: &str) -> String {
        format!("[package]\nname = \"{name}\"\n[lints]\nworkspace = true\n{rest}")
    }

    fn imports(name: &str, others: &[&str]) -> String {
        let lines: String = others.iter().map(|other| format!("{other}.workspace = true\n")).collect();
        manifest(name, &format!("[dependencies]\n{lines}"))
    }

    #[test]
    fn imports_go_down() {
        expect(
            check,
            &[
                ("app/Cargo.toml", &imports("bramble", &["control", "wire"])),
                ("base/wire/Cargo.toml", &imports("wire", &["world"])),
                ("base/world/Cargo.toml", &imports("world", &[])),
                ("base/storage/Cargo.toml", &imports("storage", &["world", "images"])),
                ("base/images/Cargo.toml", &imports("images", &["control"])),
                ("cluster/control/Cargo.toml", &imports("control", &["wire", "blog"])),
                ("example/blog/Cargo.toml", &imports("blog", &["control", "bramble"])),
            ],
            &[
                "base/wire/Cargo.toml:6: floor",
                "base/storage/Cargo.toml:7: floor",
                "base/images/Cargo.toml:6: floor",
                "cluster/control/Cargo.toml:7: floor",
            ],
        );
    }

    #[test]
    fn tests_may_look_sideways_but_not_up() {
        let dev = |name: &str, other: &str| manifest(name, &format!("[dev-dependencies]\n{other}.workspace = true\n"));
        expect(
            check,
            &[
                ("base/images/Cargo.toml", &dev("images", "storage")),
                ("base/storage/Cargo.toml", &dev("storage", "control")),
                ("cluster/control/Cargo.toml", &dev("control", "axum")),
            ],
            &["base/storage/Cargo.toml:6: floor"],
        );
    }

    #[test]
    fn the_advice_names_both_floors() {
        let tree = Tree::of(&[
            ("base/images/Cargo.toml", &imports("images", &["control"])),
            ("cluster/control/Cargo.toml", &imports("control", &[])),
        ]);
        let found = check(&tree);
        assert!(found[0].advice.starts_with("`control` is on cluster, above base: "), "{}", found[0].advice);
    }

    #[test]
    fn a_heavy_dependency_has_its_owner() {
        expect(
            check,
            &[
                ("base/storage/Cargo.toml", &imports("storage", &["redb"])),
                ("base/images/Cargo.toml", &imports("images", &["redb"])),
                ("base/meter/Cargo.toml", &imports("meter", &["prometheus"])),
                (
                    "base/world/Cargo.toml",
                    &manifest(
                        "world",
                        "[target.'cfg(unix)'.dependencies]\nraft = { workspace = true, package = \"openraft\" }\n",
                    ),
                ),
                ("example/blog/Cargo.toml", &imports("blog", &["axum"])),
            ],
            &[
                "base/images/Cargo.toml:6: wrapper",
                "base/meter/Cargo.toml:6: wrapper",
                "base/world/Cargo.toml:0: wrapper",
            ],
        );
    }

    #[test]
    fn the_house_is_uniform() {
        expect(
            check,
            &[
                ("attic/Cargo.toml", &imports("attic", &[])),
                ("base/images/Cargo.toml", "[package]\nname = \"images\"\n[dependencies]\nhex = \"1\"\n"),
                ("base/images/tests/it/main.rs", ""),
                ("base/images/tests/it/part.rs", ""),
                ("base/images/tests/more.rs", ""),
                ("base/wire/Cargo.toml", "[package"),
                ("example/blog/Cargo.toml", &manifest("blog", "[dependencies]\nhex = \"1\"\n")),
                ("Cargo.toml", "[workspace]\n"),
            ],
            &[
                "base/wire/Cargo.toml:0: manifest",
                "attic/Cargo.toml:0: floor",
                "base/images/Cargo.toml:0: lints",
                "base/images/tests/more.rs:0: one-test-binary",
                "base/images/Cargo.toml:4: inherit",
            ],
        );
    }
}
