//! The short and long forms of each key, and what they become.

use crate::support::Case;
use wire::spec::{
    Constraint, DependencyCondition, FileKind, HealthTest, Mode, Mount, MountSource, OnFailure, Port, Protocol,
    Reconcile, RestartCondition, Route, Service, UpdateOrder,
};

/// One service `web` with these lines.
#[track_caller]
fn web(lines: &str) -> Service {
    Case::new().web(lines)
}

fn port(host_ip: Option<&str>, published: Option<u16>, target: u16, protocol: Protocol) -> Port {
    Port { host_ip: host_ip.map(String::from), published, target, protocol, ..Port::default() }
}

#[test]
fn ports_in_every_form() {
    #[track_caller]
    fn check(item: &str, expected: &[Port]) {
        assert_eq!(web(&format!("ports:\n  - {item}")).ports, expected, "{item}");
    }
    use Protocol::{Tcp, Udp};
    check("80", &[port(None, None, 80, Tcp)]);
    check("22:22", &[port(None, Some(22), 22, Tcp)]);
    check("'8080:80/udp'", &[port(None, Some(8080), 80, Udp)]);
    check("127.0.0.1:80:80", &[port(Some("127.0.0.1"), Some(80), 80, Tcp)]);
    check("127.0.0.1::80", &[port(Some("127.0.0.1"), None, 80, Tcp)]);
    check("0.0.0.0:80:80", &[port(None, Some(80), 80, Tcp)]);
    check("'[::1]:80:80'", &[port(Some("::1"), Some(80), 80, Tcp)]);
    check("3000-3001:4000-4001", &[port(None, Some(3000), 4000, Tcp), port(None, Some(3001), 4001, Tcp)]);
    check("3000-3001", &[port(None, None, 3000, Tcp), port(None, None, 3001, Tcp)]);
    check("8000-9000:80", &[port(None, Some(8000), 80, Tcp)]);
    check("{target: 80}", &[port(None, None, 80, Tcp)]);
    check(
        "{target: 80, published: '8080', protocol: udp, mode: ingress, host_ip: 10.0.0.1, name: a, app_protocol: http}",
        &[port(Some("10.0.0.1"), Some(8080), 80, Udp)],
    );
    let exposed = web("expose: ['3000', 53/udp, 8000-8001]").expose;
    assert_eq!(exposed.iter().map(|expose| expose.port).collect::<Vec<_>>(), [3000, 53, 8000, 8001]);
    assert_eq!(exposed[1].protocol, Udp);
}

#[test]
fn volumes_in_every_form() {
    #[track_caller]
    fn check(item: &str, source: MountSource, target: &str, read_only: bool) {
        let file = format!(
            "services:\n  web:\n    image: nginx\n    volumes:\n      - {item}\nvolumes:\n  data:\n  shared: {{external: true}}\n  \
             disk: {{driver_opts: {{type: none, o: bind, device: /mnt/disk}}}}\n  ram: {{driver_opts: {{type: tmpfs, o: 'size=1m'}}}}\n"
        );
        let case = Case::new().variable("HOME", "/home/ann");
        let mounts = &case.stack(&file).services["web"].mounts;
        assert_eq!(mounts, &[Mount { source, target: target.to_string(), read_only }], "{item}");
    }
    let bind = |path: &str| MountSource::Bind { path: path.to_string() };
    let volume = |name: &str| MountSource::Volume { name: name.to_string() };
    check("data:/data", volume("shop_data"), "/data", false);
    check("shared:/data:ro", volume("shared"), "/data", true);
    check("./conf:/etc/conf:ro,z", bind("/srv/shop/conf"), "/etc/conf", true);
    check("../x:/x:rw", bind("/srv/x"), "/x", false);
    check(".:/code", bind("/srv/shop"), "/code", false);
    check("~/d:/d/", bind("/home/ann/d"), "/d", false);
    check("/a//b/../c:/d:cached", bind("/a/c"), "/d", false);
    check("/only/inside", MountSource::Anonymous, "/only/inside", false);
    check("disk:/d", bind("/mnt/disk"), "/d", false);
    check("ram:/d", MountSource::Tmpfs { size_bytes: Some(1 << 20) }, "/d", false);
    check("{type: bind, source: ./c, target: /c, read_only: true}", bind("/srv/shop/c"), "/c", true);
    check("{type: bind, source: c, target: /c, bind: {create_host_path: true}}", bind("/srv/shop/c"), "/c", false);
    check("{type: volume, source: data, target: /c}", volume("shop_data"), "/c", false);
    check("{type: volume, target: /c}", MountSource::Anonymous, "/c", false);
    check(
        "{type: tmpfs, target: /c, tmpfs: {size: 64M}}",
        MountSource::Tmpfs { size_bytes: Some(64 << 20) },
        "/c",
        false,
    );
    let tmpfs = web("tmpfs:\n  - /run:size=64m,mode=1777\n  - /tmp").mounts;
    assert_eq!(tmpfs[0].source, MountSource::Tmpfs { size_bytes: Some(64 << 20) });
    assert_eq!((tmpfs[1].target.as_str(), &tmpfs[1].source), ("/tmp", &MountSource::Tmpfs { size_bytes: None }));
}

#[test]
fn commands_split_like_a_shell_splits_them() {
    let service = web("command: sh -c 'echo \"$$HOME\"'\nentrypoint: [/bin/x, a b]");
    assert_eq!(service.command.expect("given"), ["sh", "-c", "echo \"$HOME\""]);
    assert_eq!(service.entrypoint.expect("given"), ["/bin/x", "a b"]);
    assert_eq!(web("command: []").command, Some(Vec::new()));
}

#[test]
fn environment_from_maps_lists_files_and_the_caller() {
    let case = Case::new().variable("FROM_CALLER", "c").file("a.env", "A=file\nB=file\n").file("dir/b.env", "B=second");
    let lines = "env_file:\n  - a.env\n  - {path: ./dir/b.env, required: true}\n  - {path: none.env, required: false}\n\
                 environment:\n  A: over\n  NUMBER: 1.0\n  TRUTH: yes\n  FROM_CALLER:\n  NOWHERE:\n  EMPTY: ''";
    let found = case.web(lines).environment;
    let expected =
        [("A", "over"), ("B", "second"), ("EMPTY", ""), ("FROM_CALLER", "c"), ("NUMBER", "1.0"), ("TRUTH", "yes")];
    assert_eq!(found.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect::<Vec<_>>(), expected);
    let listed = case.web("environment:\n  - A=1\n  - B=x=y\n  - FROM_CALLER\n  - NOWHERE\n  - C=").environment;
    let expected = [("A", "1"), ("B", "x=y"), ("C", ""), ("FROM_CALLER", "c")];
    assert_eq!(listed.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect::<Vec<_>>(), expected);
}

#[test]
fn truths_numbers_and_texts_of_older_yaml() {
    let service =
        web("tty: yes\ninit: on\nread_only: 'true'\nstdin_open: off\nrestart: no\nuser: 1000:1000\nhostname: 0x1f");
    assert!(service.tty && service.init && service.read_only && !service.stdin_open);
    assert_eq!(service.restart.condition, RestartCondition::Never);
    assert_eq!((service.user.as_deref(), service.hostname.as_deref()), (Some("1000:1000"), Some("0x1f")));
}

#[test]
fn health_checks_in_every_form() {
    #[track_caller]
    fn check(test: &str, expected: HealthTest) {
        assert_eq!(web(&format!("healthcheck: {{{test}}}")).healthcheck.expect("given").test, expected, "{test}");
    }
    check("test: curl -f localhost", HealthTest::Shell("curl -f localhost".into()));
    check("test: [CMD, a, b c]", HealthTest::Command(vec!["a".into(), "b c".into()]));
    check("test: [CMD-SHELL, 'a || exit 1']", HealthTest::Shell("a || exit 1".into()));
    check("test: [NONE]", HealthTest::None);
    check("test: NONE", HealthTest::None);
    check("disable: true", HealthTest::None);
    let timed = web(
        "healthcheck:\n  test: a\n  interval: 1m30s\n  timeout: 10\n  retries: 5\n  start_period: 1h\n  start_interval: 2s",
    );
    let timed = timed.healthcheck.expect("given");
    assert_eq!((timed.interval_ms, timed.timeout_ms, timed.retries), (90_000, 10_000, 5));
    assert_eq!((timed.start_period_ms, timed.start_interval_ms), (3_600_000, 2_000));
    let plain = web("healthcheck: {test: a}").healthcheck.expect("given");
    assert_eq!(
        (plain.interval_ms, plain.timeout_ms, plain.retries, plain.start_interval_ms),
        (30_000, 30_000, 3, 5_000)
    );
}

#[test]
fn deploy_says_how_many_where_and_how() {
    let service = web(
        "deploy:\n  replicas: 3\n  labels: {tier: front}\n  placement:\n    constraints: ['Node.Role==manager', node.Labels.disk != hdd]\n    \
         preferences: [{spread: node.labels.zone}]\n    max_replicas_per_node: 2\n  resources:\n    limits: {cpus: '0.50', memory: 1.5G, pids: 100}\n    \
         reservations: {cpus: 0.25, memory: 64M}\n  restart_policy: {condition: on-failure, delay: 5s, max_attempts: 3, window: 2m}\n  \
         update_config: {parallelism: 2, delay: 10s, failure_action: pause, monitor: 20s, max_failure_ratio: 0.3, order: start-first}\n  \
         rollback_config: {parallelism: 0, order: stop-first}\n  endpoint_mode: vip",
    );
    assert_eq!((service.replicas, service.labels["tier"].as_str()), (3, "front"));
    let constraint = |field: &str, equal, value: &str| Constraint { field: field.into(), equal, value: value.into() };
    let platform = web("platform: linux/amd64\ndeploy: {placement: {constraints: [node.platform.arch != arm64]}}");
    let arch = |equal, value| constraint("node.platform.arch", equal, value);
    assert_eq!(platform.placement.constraints, [arch(true, "x86_64"), arch(false, "aarch64")]);
    let expected = [constraint("node.role", true, "manager"), constraint("node.labels.disk", false, "hdd")];
    assert_eq!(service.placement.constraints, expected);
    assert_eq!(
        (service.placement.spread, service.placement.replicas_per_node_max),
        (vec!["node.labels.zone".into()], Some(2))
    );
    let resources = service.resources;
    assert_eq!((resources.cpu_limit_millis, resources.memory_limit_bytes), (Some(500), Some(3 << 29)));
    assert_eq!((resources.cpu_reserved_millis, resources.memory_reserved_bytes), (250, 64 << 20));
    assert_eq!(resources.pids_limit, Some(100));
    assert_eq!(service.restart.condition, RestartCondition::OnFailure);
    assert_eq!(
        (service.restart.delay_ms, service.restart.attempts_max, service.restart.window_ms),
        (5_000, Some(3), 120_000)
    );
    let update = service.update;
    assert_eq!((update.parallelism, update.delay_ms, update.monitor_ms), (2, 10_000, 20_000));
    assert_eq!((update.on_failure, update.order), (OnFailure::Pause, Some(UpdateOrder::StartFirst)));
    assert!((update.failure_ratio_max - 0.3).abs() < f64::EPSILON);
    assert_eq!((service.rollback.parallelism, service.rollback.order), (0, Some(UpdateOrder::StopFirst)));
}

#[test]
fn restarts_in_the_words_of_compose() {
    let table = [
        ("'no'", RestartCondition::Never, None),
        ("always", RestartCondition::Any, None),
        ("unless-stopped", RestartCondition::Any, None),
        ("on-failure", RestartCondition::OnFailure, None),
        ("on-failure:3", RestartCondition::OnFailure, Some(3)),
    ];
    for (word, condition, attempts) in table {
        let restart = web(&format!("restart: {word}")).restart;
        assert_eq!((restart.condition, restart.attempts_max), (condition, attempts), "{word}");
    }
}

#[test]
fn limits_of_the_second_version_mean_the_same() {
    let service = web("mem_limit: 512m\nmem_reservation: 64m\ncpus: '1.5'\npids_limit: -1");
    assert_eq!(service.resources.memory_limit_bytes, Some(512 << 20));
    assert_eq!((service.resources.memory_reserved_bytes, service.resources.cpu_limit_millis), (64 << 20, Some(1500)));
    assert_eq!(service.resources.pids_limit, None);
    let limits = web("ulimits: {nofile: 1024, memlock: -1, nproc: {soft: 1, hard: 2}}").ulimits;
    assert_eq!((limits["nofile"].hard, limits["memlock"].soft), (1024, u64::MAX));
    assert_eq!((limits["nproc"].soft, limits["nproc"].hard), (1, 2));
    assert_eq!(web("cap_add: [cap_net_admin, SYS_TIME]").cap_add, ["NET_ADMIN", "SYS_TIME"]);
    let sysctls = web("sysctls: ['net.core.somaxconn=1']").sysctls;
    assert_eq!(sysctls["net.core.somaxconn"], "1");
    assert_eq!(
        web("logging: {driver: json-file, options: {max-size: 10m, max-file: '3'}}").log_size_bytes_max,
        30 << 20
    );
    assert_eq!(web("stop_signal: 9").stop_signal.as_deref(), Some("SIGKILL"));
    assert_eq!(web("stop_signal: SIGRTMIN+3").stop_signal.as_deref(), Some("37"));
    assert_eq!(web("stop_signal: INT").stop_signal.as_deref(), Some("SIGINT"));
}

#[test]
fn networks_attach_by_their_cluster_wide_names() {
    let stack = Case::new().stack(
        "services:\n  web:\n    image: a\n    networks:\n      front: {aliases: [www]}\n      out:\n      old:\n  \
         db: {image: a, container_name: dbc}\n  job: {image: a, network_mode: none}\n  other: {image: a, networks: [default, front]}\n\
         networks:\n  front:\n  out: {external: true}\n  old: {external: {name: legacy}}\n  unused: {name: my-net, internal: true}\n",
    );
    let names = |service: &str| stack.services[service].networks.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names("web"), ["legacy", "out", "shop_front"]);
    assert_eq!(stack.services["web"].networks["shop_front"].aliases, ["www"]);
    assert_eq!((names("db"), names("job")), (vec!["shop_default".to_string()], vec![]));
    assert_eq!(names("other"), ["shop_default", "shop_front"]);
    assert_eq!(stack.services["db"].networks["shop_default"].aliases, ["dbc"]);
    assert_eq!(stack.networks["default"].name, "shop_default");
    assert!(stack.networks["unused"].internal && stack.networks["unused"].name == "my-net");
    let hosts = web("extra_hosts: ['a:10.0.0.1', 'b=::1']").extra_hosts;
    assert_eq!((hosts["a"].as_str(), hosts["b"].as_str()), ("10.0.0.1", "::1"));
    assert_eq!(web("extra_hosts: {a: 10.0.0.1}").extra_hosts["a"], "10.0.0.1");
}

#[test]
fn dependencies_and_links() {
    let stack = Case::new().stack(
        "services:\n  web:\n    image: a\n    depends_on:\n      db: {condition: service_healthy, restart: true}\n      \
         migrate: {condition: service_completed_successfully}\n      gone: {condition: service_started, required: false}\n    \
         links: ['cache:store']\n  db: {image: a}\n  migrate: {image: a}\n  cache: {image: a}\n",
    );
    let web = &stack.services["web"];
    assert_eq!(web.depends_on.keys().collect::<Vec<_>>(), ["cache", "db", "migrate"]);
    assert_eq!((web.depends_on["db"].condition, web.depends_on["db"].restart), (DependencyCondition::Healthy, true));
    assert_eq!(stack.services["migrate"].mode, Mode::ReplicatedJob);
    assert_eq!(stack.services["migrate"].restart.condition, RestartCondition::OnFailure);
    assert_eq!(stack.services["cache"].networks["shop_default"].aliases, ["store"]);
}

#[test]
fn secrets_and_configs_become_files() {
    let case = Case::new().variable("TOKEN", "from-caller").file("./pw.txt", "pw");
    let stack = case.stack(
        "services:\n  web:\n    image: a\n    secrets:\n      - pw\n      - {source: token, target: t, mode: 0400, uid: '5', gid: '6'}\n    \
         configs:\n      - conf\n      - {source: conf, target: /etc/c}\n\
         secrets:\n  pw: {file: ./pw.txt}\n  token: {environment: TOKEN}\nconfigs:\n  conf: {content: 'x=${TOKEN}'}\n",
    );
    let files = &stack.services["web"].files;
    let brief: Vec<(&str, &str, u32, &str)> = files
        .iter()
        .map(|file| (file.source.as_str(), file.target.as_str(), file.mode, file.content.as_str()))
        .collect();
    let expected = [
        ("pw", "/run/secrets/pw", 0o444, "cHc="),
        ("token", "/run/secrets/t", 0o400, "ZnJvbS1jYWxsZXI="),
        ("conf", "/conf", 0o444, "eD1mcm9tLWNhbGxlcg=="),
        ("conf", "/etc/c", 0o444, "eD1mcm9tLWNhbGxlcg=="),
    ];
    assert_eq!(brief, expected);
    assert_eq!((files[1].uid, files[1].gid, files[1].kind), (Some(5), Some(6), FileKind::Secret));
    let coolify =
        Case::new().web("volumes: [{type: bind, source: ./x.sh, target: /x.sh, mode: 0755, content: 'echo hi'}]");
    let file = &coolify.files[0];
    assert_eq!((file.target.as_str(), file.content.as_str(), file.mode), ("/x.sh", "ZWNobyBoaQ==", 0o755));
}

#[test]
fn volumes_of_another_service() {
    let stack = Case::new().stack(
        "services:\n  a: {image: a, volumes: ['d:/d', 'd:/e'], }\n  b: {image: a, volumes_from: ['a:ro'], volumes: ['/own:/e']}\nvolumes: {d: }\n",
    );
    let mounts: Vec<(&str, bool)> =
        stack.services["b"].mounts.iter().map(|mount| (mount.target.as_str(), mount.read_only)).collect();
    assert_eq!(mounts, [("/e", false), ("/d", true)]);
}

#[test]
fn anchors_aliases_and_merges() {
    let stack = Case::new().stack(
        "x-base: &base\n  restart: always\n  environment: &env {A: 1, B: 2}\nx-more: &more {tty: true, restart: 'no'}\n\
         services:\n  web:\n    <<: [*base, *more]\n    image: a\n    environment:\n      <<: *env\n      B: 3\n  db: {<<: *base, image: a}\n",
    );
    let web = &stack.services["web"];
    assert_eq!(web.restart.condition, RestartCondition::Any, "the first merged map wins");
    assert!(web.tty);
    assert_eq!((web.environment["A"].as_str(), web.environment["B"].as_str()), ("1", "3"));
    assert_eq!(stack.services["db"].environment["B"], "2");
}

#[test]
fn profiles_choose_services() {
    let source = "services:\n  web: {image: a}\n  debug: {image: a, profiles: [debug, test]}\n";
    let names = |case: Case| case.stack(source).services.into_keys().collect::<Vec<_>>();
    assert_eq!(names(Case::new()), ["web"]);
    assert_eq!(names(Case::new().variable("COMPOSE_PROFILES", "x, test")), ["debug", "web"]);
    assert_eq!(names(Case::new().variable("COMPOSE_PROFILES", "*")), ["debug", "web"]);
}

#[test]
fn routes_from_traefik_labels() {
    let route = |hosts: &[&str], path: &str, port: u16| Route {
        hosts: hosts.iter().map(ToString::to_string).collect(),
        path_prefix: path.into(),
        port,
        ..Route::default()
    };
    let listed = web(
        "labels:\n  - traefik.enable=true\n  - traefik.http.routers.r.rule=Host(`a.org`) || Host(`b.org`) && PathPrefix(`/x`)\n  \
         - traefik.http.routers.r.entrypoints=websecure\n  - traefik.http.services.s.loadbalancer.server.port=8080",
    );
    let tls = |route: Route| Route { tls: true, ..route };
    assert_eq!(listed.routes, [tls(route(&["a.org"], "/", 8080)), tls(route(&["b.org"], "/x", 8080))]);
    let deployed = web(
        "expose: ['3000']\ndeploy:\n  labels:\n    traefik.http.routers.r.rule: Host(`a.org`) && PathPrefix(`/api`)\n    \
         traefik.http.routers.r.priority: 7\n    traefik.http.routers.r.middlewares: cut@docker\n    \
         traefik.http.middlewares.cut.stripprefix.prefixes: /api",
    );
    assert_eq!(deployed.routes, [Route { strip_prefix: true, priority: 7, ..route(&["a.org"], "/api", 3000) }]);
    let elsewhere = Case::new().stack(
        "services:\n  web: {image: a, expose: ['80'], labels: ['traefik.http.routers.r.rule=PathPrefix(`/x`)', traefik.http.routers.r.middlewares=cut]}\n  \
         proxy: {image: a, labels: {traefik.http.middlewares.cut.stripprefix.prefixes: /x}}\n",
    );
    assert!(elsewhere.services["web"].routes[0].strip_prefix, "another service may declare the middleware");
    let disabled = web("labels: ['traefik.enable=false', 'traefik.http.routers.r.rule=Host(`a.org`)']");
    assert_eq!(disabled.routes, []);
}

#[test]
fn where_instances_go_and_what_becomes_of_them_when_a_machine_is_away() {
    let stack = Case::new().stack(
        "services:\n  web:\n    image: a\n    deploy: {placement: {constraints: [node.zone == a], preferences: [{spread: Node.Zone}]}}\n    \
         x-bramble:\n      stack_with: [db]\n      never_with: batch\n      max_per_node: 2\n      \
         disconnect: {lost_after: 90s, stop_after: 10s, reconcile: keep-original}\n  db: {image: a}\n  batch: {image: a}\n",
    );
    let web = &stack.services["web"];
    assert_eq!((&web.placement.with, &web.placement.without), (&vec!["db".to_string()], &vec!["batch".to_string()]));
    assert_eq!((web.placement.replicas_per_node_max, &web.placement.spread), (Some(2), &vec!["node.zone".to_string()]));
    assert_eq!((web.disconnect.lost_after_ms, web.disconnect.reconcile), (90_000, Reconcile::KeepOriginal));
    let db = &stack.services["db"];
    assert_eq!((db.disconnect.lost_after_ms, db.disconnect.reconcile), (0, Reconcile::KeepReplacement));
    assert_eq!((web.disconnect.stop_after_ms, db.disconnect.stop_after_ms), (Some(10_000), None));
}

#[test]
fn what_compose_has_no_words_for() {
    let stack = Case::new().stack(
        "services:\n  web:\n    image: a\n    x-bramble:\n      routes:\n        - {host: Shop.example.org, path: /api, port: 8080, strip_prefix: true, priority: -1, tls: yes}\n        \
         - {hosts: [a.org, '*.b.org'], port: 80}\n      egress: [api.example.org:443, 10.0.0.0/8, '*.x.org', '[::1]:5432', '*']\n      \
         with: [db]\n      without: batch\n      healthcheck: {http: 8080/health, interval: 5s}\n      update: {order: stop-first}\n  \
         db: {image: a, x-bramble: {healthcheck: {tcp: 5432}}}\n  batch: {image: a}\n",
    );
    let web = &stack.services["web"];
    let first = &web.routes[0];
    assert_eq!((first.hosts[0].as_str(), first.path_prefix.as_str(), first.port), ("shop.example.org", "/api", 8080));
    assert_eq!((first.strip_prefix, first.priority, first.tls), (true, -1, true));
    assert_eq!(web.routes[1].hosts, ["a.org", "*.b.org"]);
    assert_eq!(web.egress, ["api.example.org:443", "10.0.0.0/8", "*.x.org", "[::1]:5432", "*"]);
    assert_eq!((&web.placement.with, &web.placement.without), (&vec!["db".to_string()], &vec!["batch".to_string()]));
    let check = web.healthcheck.as_ref().expect("given");
    assert_eq!((&check.test, check.interval_ms), (&HealthTest::Http { port: 8080, path: "/health".into() }, 5_000));
    assert_eq!(web.update.order, Some(UpdateOrder::StopFirst));
    assert_eq!(stack.services["db"].healthcheck.as_ref().expect("given").test, HealthTest::Tcp { port: 5432 });
}
