//! `extends`, `include`, and which files a stack file refers to.

use crate::support::{Case, errors, warnings};
use stackfile::{Reference, ReferenceKind, references};
use std::collections::BTreeMap;

#[test]
fn extends_lays_one_service_over_another() {
    let case = Case::new().file(
        "common/base.yml",
        "services:\n  base:\n    extends: root\n    env_file: app.env\n    volumes: ['./data:/data', './log:/log']\n    command: [a]\n  \
         root: {image: alpine, environment: [A=1, B=1], ports: ['80']}\n",
    );
    let case = case.file("common/app.env", "C=1");
    let stack = case.stack(
        "services:\n  web:\n    extends: {file: ./common/base.yml, service: base}\n    environment: {B: 2}\n    \
         volumes: ['./mine:/data']\n    command: [b]\n    ports: ['81']\n",
    );
    let web = &stack.services["web"];
    assert_eq!(web.image, "alpine");
    let environment: Vec<(&str, &str)> = web.environment.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    assert_eq!(environment, [("A", "1"), ("B", "2"), ("C", "1")]);
    assert_eq!(web.command.as_deref(), Some(&["b".to_string()][..]));
    assert_eq!(web.ports.iter().map(|port| port.target).collect::<Vec<_>>(), [80, 81]);
    let mounts: Vec<String> = web.mounts.iter().map(|mount| format!("{:?}", mount.source)).collect();
    // Paths of the other file start from that file's folder.
    assert_eq!(mounts, ["Bind { path: \"/srv/shop/common/log\" }", "Bind { path: \"/srv/shop/mine\" }"]);
}

#[test]
fn extending_oneself_is_an_error() {
    let parsed =
        Case::new().parse("services:\n  a: {extends: b}\n  b: {extends: {service: a}}\n  c: {image: x, extends: d}\n");
    let found = errors(&parsed.report);
    assert_eq!(
        found,
        [
            "2:16 services.a.extends: services extend each other in a ring: a -> b -> a",
            "3:16 services.b.extends: services extend each other in a ring: b -> a -> b",
            "4:26 services.c.extends: `extends` names `d`, which is no service there"
        ]
    );
}

#[test]
fn include_adds_what_other_files_declare() {
    let case = Case::new()
        .file("db/compose.yml", "services:\n  db: {image: '${IMAGE}', volumes: ['d:/d', './x:/x']}\nvolumes: {d: }\n")
        .file("db/.env", "IMAGE=postgres");
    let stack = case.stack(
        "include:\n  - {path: db/compose.yml, env_file: db/.env}\nservices: {web: {image: a, depends_on: [db]}}\n",
    );
    assert_eq!(stack.services["db"].image, "postgres");
    assert_eq!(stack.volumes["d"].name, "shop_d");
    assert_eq!(format!("{:?}", stack.services["db"].mounts[1].source), "Bind { path: \"/srv/shop/db/x\" }");
    let clash = case.parse("include: [db/compose.yml]\nservices:\n  db: {image: a}\n");
    // Of the other file, the line that brings it in is shown.
    let message =
        "1:11 services.db: in db/compose.yml line 2 column 3: `db` is declared in an included file and at line 3";
    assert!(errors(&clash.report).iter().any(|line| line == message), "{:?}", errors(&clash.report));
    assert!(warnings(&clash.report)[0].contains("variable `IMAGE`"), "{:?}", warnings(&clash.report));
}

#[test]
fn files_that_include_each_other_come_to_an_end() {
    let case =
        Case::new().file("a.yml", "include: [b.yml]\nservices: {a: {image: x}}").file("b.yml", "include: [a.yml]");
    let found = errors(&case.parse("include: [a.yml]\nservices: {w: {image: x}}").report);
    assert!(found.iter().any(|line| line.contains("include each other more than 16 deep")), "{found:?}");
}

#[test]
fn a_file_that_is_not_there_fails_a_deploy_and_not_a_check() {
    let source =
        "services:\n  web:\n    image: a\n    env_file: no.env\n    secrets: [s]\nsecrets:\n  s: {file: no.txt}\n";
    let case = Case::new();
    assert_eq!(
        errors(&case.parse(source).report),
        [
            "4:15 services.web.env_file: the file `no.env` is not there",
            "7:13 secrets.s.file: the file `no.txt` of this secret is not there"
        ]
    );
    let checked = stackfile::check(&case.input(source.as_bytes()));
    assert!(checked.ok);
    assert_eq!(checked.warnings.len(), 2);
}

#[test]
fn references_name_every_file_once() {
    let source = "include: [a.yml, {path: [b.yml], env_file: b.env}]\nservices:\n  w:\n    image: x\n    extends: {file: c.yml, service: s}\n    \
                  env_file: [w.env, {path: o.env, required: false}, '${DIR}/x.env']\n    label_file: l.env\n  v: {env_file: w.env}\n\
                  configs: {c: {file: ./c.txt}}\nsecrets: {s: {file: s.txt}, e: {environment: E}}\n";
    let found = references(source.as_bytes(), &BTreeMap::from([("DIR".to_string(), "sub".to_string())]));
    let reference = |path: &str, required, kind| Reference { path: path.into(), required, kind };
    let expected = [
        reference("a.yml", true, ReferenceKind::Include),
        reference("b.yml", true, ReferenceKind::Include),
        reference("b.env", true, ReferenceKind::EnvFile),
        reference("w.env", true, ReferenceKind::EnvFile),
        reference("o.env", false, ReferenceKind::EnvFile),
        reference("sub/x.env", true, ReferenceKind::EnvFile),
        reference("l.env", true, ReferenceKind::LabelFile),
        reference("c.yml", true, ReferenceKind::Extends),
        reference("./c.txt", true, ReferenceKind::Config),
        reference("s.txt", true, ReferenceKind::Secret),
    ];
    assert_eq!(found, expected);
    assert_eq!(references(b"\xff\x00 {", &BTreeMap::new()), []);
}

#[test]
fn gathering_follows_files_into_files() {
    let there = BTreeMap::from([
        ("common/base.yml", "include: [../more/x.yml]\nservices: {b: {image: a, env_file: ./b.env}}"),
        ("common/b.env", "A=1"),
        (
            "more/x.yml",
            "include: [../common/base.yml]\nsecrets: {s: {file: s.txt}}\nservices: {c: {image: a, secrets: [s]}}",
        ),
        ("more/s.txt", "s"),
    ]);
    let source = b"services: {w: {extends: {file: ./common/base.yml, service: b}}}\ninclude: [more/x.yml]";
    let mut missing = Vec::new();
    let files = stackfile::gather(source, &BTreeMap::new(), &mut |reference| {
        let content = there.get(reference.path.as_str()).map(|text| text.as_bytes().to_vec());
        missing.extend(content.is_none().then(|| reference.path.clone()));
        content
    });
    assert_eq!(files.keys().map(String::as_str).collect::<Vec<_>>(), there.keys().copied().collect::<Vec<_>>());
    assert_eq!(missing, Vec::<String>::new());
    let mut case = Case::new();
    case.files = files;
    // `more/x.yml` and `common/base.yml` include each other, which is said.
    assert!(errors(&case.parse(source).report)[0].contains("include each other"));
}
