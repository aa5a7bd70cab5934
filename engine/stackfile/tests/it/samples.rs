//! Real stack files, which are other people's and lie beside the checkout. Absent, the tests say so and pass.

use crate::support::Case;
use std::path::{Path, PathBuf};

fn folder() -> Option<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/stacks");
    if folder.is_dir() {
        return Some(folder);
    }
    println!("skipped: no sample stacks at {}", folder.display());
    None
}

/// The sample with every file that it refers to at hand.
fn loaded(source: &[u8]) -> Case {
    let case = Case::new();
    let wanted = stackfile::references(source, &case.variables);
    wanted.iter().fold(case, |case, reference| case.file(&reference.path, "secret"))
}

#[test]
fn every_sample_is_right() {
    let Some(folder) = folder() else { return };
    let listed = std::fs::read_dir(folder.join("awesome-compose")).expect("the samples can be listed");
    let mut paths: Vec<PathBuf> = listed.map(|entry| entry.expect("an entry").path()).collect();
    paths.push(folder.join("ghost.yml"));
    paths.sort();
    assert!(paths.len() >= 40, "only {} samples", paths.len());
    let mut wrong = Vec::new();
    for path in &paths {
        let name = path.file_name().expect("a file").to_string_lossy();
        let source = std::fs::read(path).expect("a sample can be read");
        let parsed = loaded(&source).parse(&source);
        println!("{}", stackfile::render(&parsed.report, &name, &source));
        if parsed.stack.is_none() {
            wrong.push(name.to_string());
        }
        // Without what it refers to it cannot be deployed, but checking says it is right.
        let bare = Case::new();
        if !stackfile::check(&bare.input(&source)).ok {
            wrong.push(format!("{name} checked alone"));
        }
    }
    assert_eq!(wrong, Vec::<String>::new());
}

#[test]
fn ghost_is_what_the_course_means() {
    let Some(folder) = folder() else { return };
    let source = std::fs::read(folder.join("ghost.yml")).expect("the sample can be read");
    let parsed = Case::new().parse(&source);
    assert_eq!(parsed.report.warnings, []);
    let stack = parsed.stack.expect("no errors");
    assert!(stack.networks["ghost_network"].external);
    let blog = &stack.services["blog"];
    assert_eq!((blog.replicas, blog.image.as_str()), (3, "ghost:4-alpine"));
    assert_eq!((blog.ports[0].published, blog.ports[0].target), (Some(2368), 2368));
    assert!(blog.depends_on.contains_key("db") && blog.networks.contains_key("ghost_network"));
    assert_eq!(blog.environment["database__client"], "mysql");
    let constraint = &stack.services["db"].placement.constraints[0];
    assert_eq!(
        (constraint.field.as_str(), constraint.equal, constraint.value.as_str()),
        ("node.role", true, "manager")
    );
}
