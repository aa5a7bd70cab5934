//! Whatever the bytes, the parser answers: no panic, no endless work, no empty-handed answer.

use crate::support::{Case, errors};
use proptest::prelude::*;
use proptest::test_runner::RngSeed;

/// Every answer keeps these promises.
fn answers(source: &[u8]) {
    let case = Case::new().file("a.env", "A=1");
    let parsed = case.parse(source);
    assert_eq!(parsed.stack.is_some(), parsed.report.errors.is_empty());
    assert_eq!(parsed.report.ok, parsed.report.errors.is_empty());
    let places: Vec<(u32, u32)> = parsed.report.errors.iter().map(|found| (found.line, found.column)).collect();
    assert!(places.is_sorted(), "errors are in the order of the file");
    stackfile::render(&parsed.report, "f", source);
    stackfile::references(source, &case.variables);
    let _ = stackfile::dotenv(source);
    if let Some(stack) = parsed.stack {
        let context = stackfile::TemplateContext {
            stack: "s",
            service: "w",
            slot: 1,
            task_id: "t",
            node_id: "n",
            node_hostname: "h",
        };
        for service in stack.services.values() {
            let _ = stackfile::fill_templates(service, &context);
        }
    }
}

#[test]
fn bytes_that_are_no_text() {
    let found = |source: &[u8]| errors(&Case::new().parse(source).report);
    assert_eq!(found(b"services:\n  a\xff: 1"), ["2:4 : the file is not UTF-8 text"]);
    assert_eq!(found(b"services:\0"), ["1:10 : the file holds a NUL byte, so it is not a text"]);
    assert_eq!(
        found(&vec![b'a'; 10 << 20]),
        ["0:0 : the file has 10485760 bytes, more than the 4194304 a stack file may have"]
    );
    assert_eq!(found(b"\xef\xbb\xbfservices: {a: {image: x}}"), Vec::<String>::new());
}

#[test]
fn depth_has_an_end() {
    for (open, close) in [("[", "]"), ("{a: ", "}")] {
        let found = errors(&Case::new().parse(format!("a: {}{}", open.repeat(5000), close.repeat(5000))).report);
        assert_eq!(found.len(), 1, "{found:?}");
    }
    let block: String = (0..300).map(|depth| format!("{}a:\n", " ".repeat(depth))).collect();
    assert_eq!(errors(&Case::new().parse(block).report).len(), 1);
}

#[test]
fn aliases_that_multiply_are_stopped() {
    let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x]\n");
    for level in 1..30 {
        let before = format!("*a{}", level - 1);
        bomb.push_str(&format!("a{level}: &a{level} [{}]\n", [before.as_str(); 9].join(", ")));
    }
    let found = errors(&Case::new().parse(bomb).report);
    assert!(found[0].contains("with its aliases written out"), "{found:?}");
    let itself = errors(&Case::new().parse("a: &a [*a]").report);
    assert!(itself[0].contains("inside what it refers to"), "{itself:?}");
}

#[test]
fn much_of_everything_is_refused_not_worked_through() {
    let found = |source: String| errors(&Case::new().parse(source).report);
    let services: String = (0..1100).map(|n| format!("  s{n}: {{image: x, extends: s0}}\n")).collect();
    assert_eq!(found(format!("services:\n{services}")), ["1:1 services: the stack has more than 1000 services"]);
    let ports: String = (1..1200).map(|n| format!("'{n}', ")).collect();
    assert_eq!(
        found(format!("services: {{w: {{image: x, ports: [{ports}]}}}}")),
        ["1:26 services.w.ports: the list has more than 1000 items"]
    );
    let unknown: String = (0..5000).map(|n| format!("    k{n}: 1\n")).collect();
    assert_eq!(found(format!("services:\n  w:\n    image: x\n{unknown}")).len(), 500);
    let chain: String = (0..900).map(|n| format!("  s{n}: {{image: x, depends_on: [s{}]}}\n", (n + 1) % 900)).collect();
    assert_eq!(found(format!("services:\n{chain}")).len(), 1);
}

/// A file that touches every part of the parser, to be damaged.
const SEED: &str = r#"name: shop
x-base: &base {restart: always, environment: {A: "${A:-b}"}}
services:
  web:
    <<: *base
    image: nginx:1.27
    command: sh -c "echo hi"
    env_file: [a.env, {path: b.env, required: false}]
    ports: ["80:80", {target: 443, published: "8443"}, 3000-3005:3000-3005]
    volumes: [data:/data, ./x:/x:ro, {type: tmpfs, target: /t, tmpfs: {size: 1m}}]
    networks: {front: {aliases: [w]}}
    healthcheck: {test: [CMD, a], interval: 1m30s}
    deploy:
      replicas: 2
      placement: {constraints: ["node.role==manager"]}
      resources: {limits: {cpus: "0.5", memory: 64M}}
      labels: {traefik.http.routers.r.rule: "Host(`a.b`) && (PathPrefix(`/x`) || Path(`/y`))"}
    x-bramble: {egress: ["*.x.org:443"], routes: [{host: a.b, port: 80, methods: [GET],
      headers: {X-A: "1"}, weight: 2, redirect: {to: "https://{host}{path}", status: 301}, allow: [10.0.0.0/8],
      basic_auth: {users: {a: "$$2y$$05$$P6wIgCSN38XRY0s63Vq8C.0CN8TgU2k.wT5jehAHTpNzA4oSI3.qa"}},
      rate_limit: {requests: 5, period: 1s, by: "header:X-K"}, cors: {origins: ["https://a.b"], max_age: 5s}}]}
  db:
    extends: {service: web}
    ports: !override []
    depends_on: {web: {condition: service_healthy}}
    secrets: [{source: s, mode: 0400}]
    hostname: "{{.Task.Slot}}"
networks: {front: }
volumes: {data: {driver_opts: {type: none, o: bind, device: /d}}}
secrets: {s: {content: "x"}}
"#;

/// What damage is done with: the letters that mean something to YAML, to variables and to the keys.
const SCRAPS: [&str; 24] = [
    "\n", " ", ":", ": ", "- ", "[", "]", "{", "}", "\"", "'", "&a ", "*a", "<<: ", "${", "}", "$", "|\n", "#", "!x ",
    "\t", "-1", "ä", "`",
];

/// The same cases every time; other seeds with `PROPTEST_RNG_SEED`.
fn bounded() -> ProptestConfig {
    let given = ProptestConfig::default();
    let rng_seed = match given.rng_seed {
        RngSeed::Random => RngSeed::Fixed(7),
        RngSeed::Fixed(seed) => RngSeed::Fixed(seed),
    };
    ProptestConfig { cases: 300, failure_persistence: None, rng_seed, ..given }
}

proptest! {
    #![proptest_config(bounded())]

    #[test]
    fn damaged_files_are_answered(damage in prop::collection::vec((0..SEED.len(), 0usize..12, 0..SCRAPS.len()), 1..12)) {
        let mut source = SEED.as_bytes().to_vec();
        for (place, cut, scrap) in damage {
            let start = place.min(source.len());
            let end = (start + cut).min(source.len());
            source.splice(start..end, SCRAPS[scrap].bytes());
        }
        answers(&source);
    }

    #[test]
    fn lines_in_any_order_are_answered(order in prop::collection::vec((0usize..26, 0usize..8), 0..40)) {
        let lines: Vec<&str> = SEED.lines().collect();
        let picked: Vec<String> =
            order.iter().map(|(line, indent)| format!("{}{}", " ".repeat(*indent), lines[*line].trim_start())).collect();
        answers(picked.join("\n").as_bytes());
    }

    #[test]
    fn random_bytes_are_answered(source in prop::collection::vec(any::<u8>(), 0..400)) {
        answers(&source);
    }

    #[test]
    fn random_texts_as_values_are_answered(value in "\\PC{0,40}", key in 0usize..19) {
        let keys = [
            "image", "command", "ports", "volumes", "environment", "user", "restart", "deploy", "healthcheck", "tmpfs",
            "mem_limit", "stop_signal", "platform", "extends", "env_file", "expose", "links", "extra_hosts", "x-bramble",
        ];
        let quoted = value.replace('\'', "''");
        answers(format!("services:\n  w:\n    image: x\n    {}: '{quoted}'\n", keys[key]).as_bytes());
        answers(format!("services:\n  w:\n    image: x\n    {}: ['{quoted}']\n", keys[key]).as_bytes());
        answers(format!("services:\n  w:\n    image: x\n    {}: {{'{quoted}': '{quoted}'}}\n", keys[key]).as_bytes());
        answers(format!("services:\n  w:\n    image: x\n    labels: ['traefik.http.routers.r.rule={quoted}']\n").as_bytes());
    }
}
