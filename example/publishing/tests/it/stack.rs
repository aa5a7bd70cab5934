//! The stack file beside this crate.

use std::collections::BTreeMap;

#[test]
fn the_stack_file_is_honoured_in_full() {
    let folder = env!("CARGO_MANIFEST_DIR");
    let source = std::fs::read(format!("{folder}/stack.yml")).expect("the stack file is here");
    let (variables, files) = (BTreeMap::new(), BTreeMap::new());
    let input = stackfile::Input {
        name: "publishing",
        source: &source,
        variables: &variables,
        files: &files,
        directory: folder,
    };
    let parsed = stackfile::parse(&input);
    assert_eq!((&parsed.report.errors, &parsed.report.warnings), (&Vec::new(), &Vec::new()));
    let stack = parsed.stack.expect("a file without errors is a stack");
    let web = &stack.services["web"];
    assert_eq!((web.image.as_str(), web.replicas), ("host", 2));
    assert_eq!(web.update.order, Some(wire::spec::UpdateOrder::StartFirst));
    let test = web.healthcheck.as_ref().map(|check| &check.test);
    assert_eq!(test, Some(&wire::spec::HealthTest::Http { port: 8080, path: "/healthz".to_owned() }));
}
