//! The map and the land: ARCHITECTURE.md has a paragraph for every crate of the house.

use super::Finding;
use super::tree::Tree;

const MAP: &str = "ARCHITECTURE.md";
/// The floors whose crates the map explains one by one.
const FLOORS: [&str; 5] = ["base/", "engine/", "cluster/", "component/", "app/"];

pub(crate) fn check(tree: &Tree) -> Vec<Finding> {
    let Some(map) = tree.find(MAP) else {
        return vec![Finding::new(MAP, 0, "map", "write the map: a paragraph per crate")];
    };
    let mut findings = Vec::new();
    for file in &tree.files {
        let Some(folder) = file.path.strip_suffix("/Cargo.toml") else { continue };
        let Some(name) = FLOORS.iter().find_map(|floor| format!("{folder}/").starts_with(floor).then_some(folder))
        else {
            continue;
        };
        let name = name.rsplit('/').next().unwrap_or(name);
        if !map.text.contains(&format!("**{name}**")) {
            let advice = format!("add a paragraph on **{name}**: what it owns, promises, never knows");
            findings.push(Finding::new(MAP, 0, "map", advice));
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::super::expect;
    use super::check;

    #[test]
    fn every_crate_is_on_the_map() {
        expect(check, &[], &["ARCHITECTURE.md:0: map"]);
        expect(
            check,
            &[
                ("ARCHITECTURE.md", "**wire** owns the words. **app** boots."),
                ("app/Cargo.toml", ""),
                ("base/wire/Cargo.toml", ""),
                ("base/world/Cargo.toml", ""),
                ("example/blog/Cargo.toml", ""),
            ],
            &["ARCHITECTURE.md:0: map"],
        );
    }
}
