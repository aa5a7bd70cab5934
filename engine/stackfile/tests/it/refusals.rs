//! What is wrong with a file is said at its place, all at once, with advice.

use crate::support::{Case, brief, errors, warnings, web_source};

/// The errors of a service `web` with these lines; the file's fourth line is the first of them.
#[track_caller]
fn refused(lines: &str, expected: &[&str]) {
    let report = Case::new().parse(web_source(lines)).report;
    assert_eq!(errors(&report), expected, "{lines}");
}

#[track_caller]
fn warned(lines: &str, expected: &[&str]) {
    let parsed = Case::new().parse(web_source(lines));
    assert_eq!(errors(&parsed.report), Vec::<String>::new(), "{lines}");
    assert_eq!(warnings(&parsed.report), expected, "{lines}");
}

#[track_caller]
fn whole(source: &str, expected: &[&str]) {
    assert_eq!(errors(&Case::new().parse(source).report), expected, "{source}");
}

#[test]
fn unknown_keys_come_with_what_was_meant() {
    let report = Case::new().parse(web_source("prots: [80]\nhealthcheck: {tset: a}\ncolour: red\nx-own: 1")).report;
    let found: Vec<(String, &str)> = report.errors.iter().map(|found| (brief(found), found.hint.as_str())).collect();
    let expected = [
        ("4:5 services.web.prots: unknown key `prots`", "did you mean `ports`?"),
        ("5:19 services.web.healthcheck.tset: unknown key `tset`", "did you mean `test`?"),
        (
            "6:5 services.web.colour: unknown key `colour`",
            "a key of your own starts with `x-`; `services.web` knows no such key",
        ),
    ];
    assert_eq!(found.iter().map(|(line, hint)| (line.as_str(), *hint)).collect::<Vec<_>>(), expected);
}

#[test]
fn keys_in_the_wrong_place_are_led_to_the_right_one() {
    let report = Case::new().parse(web_source("replicas: 2\nlog_opt: {}")).report;
    let hints: Vec<&str> = report.errors.iter().map(|found| found.hint.as_str()).collect();
    assert_eq!(hints, ["it belongs under `deploy`", "it is `logging: options:` now"]);
}

#[test]
fn tags_of_other_programs_are_named() {
    let parsed =
        Case::new().parse(web_source("tty: !env yes\nports: !reset null\nexpose: !override ['80']\nhostname: !!str 1"));
    assert_eq!(warnings(&parsed.report), ["4:15 services.web.tty: the tag `!env` is not honoured"]);
    let web = &parsed.stack.expect("no errors").services["web"];
    assert!(web.tty && web.ports.is_empty() && web.expose.len() == 1 && web.hostname.as_deref() == Some("1"));
}

#[test]
fn yaml_that_is_none() {
    whole("", &["0:0 : the file is empty"]);
    whole("# only a comment\n", &["0:0 : the file is empty"]);
    whole("services", &["1:1 : expected a map with `services:`, found a text"]);
    whole("{}", &["1:1 services: the file declares no services"]);
    whole("services: {}", &["1:1 services: the file declares no services"]);
    whole("services:\n  a: {image: x}\n---\nservices: {}", &["3:1 : the file holds a second document"]);
    whole("a: *b", &["1:4 a: this is not YAML: while parsing node, found unknown anchor"]);
    let tab = Case::new().parse("services:\n\tweb: {image: a}\n").report;
    assert!(tab.errors[0].hint.contains("replace the tab"), "{:?}", tab.errors);
    let colon = Case::new().parse("services:\n  web:\n    image: a: b\n").report;
    assert_eq!((colon.errors[0].line, colon.errors.len()), (3, 1), "{:?}", colon.errors);
}

#[test]
fn keys_that_stand_twice_name_both_places() {
    whole(
        "services:\n  web:\n    image: a\n    image: b\n  web: {image: c}\n",
        &[
            "4:5 services.web.image: the key `image` stands here a second time, first at line 3",
            "5:3 services.web: the key `web` stands here a second time, first at line 2",
        ],
    );
}

#[test]
fn names_are_lower_case() {
    let report = Case::new().parse("services:\n  My Web: {image: a}\n").report;
    assert_eq!(brief(&report.errors[0]), "2:3 services.My Web: `My Web` cannot be the name of a service");
    assert!(report.errors[0].hint.ends_with("`my-web` would do"), "{}", report.errors[0].hint);
    let long = "a".repeat(64);
    assert_eq!(errors(&Case::new().parse(format!("services:\n  {long}: {{image: a}}\n")).report).len(), 1);
    whole("services: {a: {image: x}}\nvolumes: {'a/b': }", &["2:11 volumes.a/b: `a/b` cannot be the name of a volume"]);
}

#[test]
fn the_stack_has_a_name() {
    let case = Case::new();
    let named = |name, source: &'static str| {
        let input = stackfile::Input { name, ..case.input(source.as_bytes()) };
        let parsed = stackfile::parse(&input);
        (parsed.stack.map(|stack| stack.name), errors(&parsed.report))
    };
    let (plain, own) = ("services: {a: {image: x}}", "name: own\nservices: {a: {image: x}}");
    assert_eq!(named("given", own), (Some("given".into()), vec![]));
    assert_eq!(named("", own), (Some("own".into()), vec![]));
    assert_eq!(named("", plain), (None, vec!["0:0 name: the stack has no name".into()]));
    assert_eq!(named("Bad Name", plain), (None, vec!["0:0 name: `Bad Name` cannot be the name of a stack".into()]));
}

#[test]
fn values_of_the_wrong_kind() {
    refused("ports: 80", &["4:12 services.web.ports: expected a list, found a text"]);
    refused("environment: [[a]]", &["4:19 services.web.environment[0]: expected a text, found a list"]);
    refused("tty: maybe", &["4:10 services.web.tty: `maybe` is not a truth value"]);
    refused(
        "deploy: {replicas: -1}",
        &["4:24 services.web.deploy.replicas: `-1` is not a whole number from 0 to 10000"],
    );
    refused(
        "deploy: {replicas: 99999999999999999999}",
        &["4:24 services.web.deploy.replicas: `99999999999999999999` is not a whole number from 0 to 10000"],
    );
    refused("mem_limit: lots", &["4:16 services.web.mem_limit: `lots` is not a size"]);
    refused("cpus: -2", &["4:11 services.web.cpus: `-2` is a negative number of cores"]);
    refused("stop_grace_period: soon", &["4:24 services.web.stop_grace_period: `soon` is not a duration"]);
    refused(
        "command: \"sh -c 'open\"",
        &["4:14 services.web.command: the line cannot be split into words: a single quote is never closed"],
    );
    refused(
        "deploy: {mode: everywhere}",
        &[
            "4:20 services.web.deploy.mode: `everywhere` is not one of `replicated`, `global`, `replicated-job`, `global-job`",
        ],
    );
    refused(
        "deploy: {mode: global, replicas: 2}",
        &["4:38 services.web.deploy.replicas: a service on every machine has no number of replicas"],
    );
    refused("restart: sometimes", &["4:14 services.web.restart: `sometimes` is not a restart policy"]);
    refused("stop_signal: SIGTREM", &["4:18 services.web.stop_signal: `SIGTREM` is not a signal"]);
    refused("cap_add: [NET_ADMN]", &["4:15 services.web.cap_add[0]: `NET_ADMN` is not a capability"]);
    refused("ulimits: {nofiles: 1}", &["4:24 services.web.ulimits.nofiles: `nofiles` is not a limit"]);
    refused("working_dir: app", &["4:18 services.web.working_dir: the working directory `app` is not absolute"]);
    refused("extra_hosts: ['a:b']", &["4:19 services.web.extra_hosts[0]: `b` is not an address for `a`"]);
    refused(
        "healthcheck: {test: [ls]}",
        &["4:19 services.web.healthcheck.test: a check's list starts with CMD, CMD-SHELL or NONE, not `ls`"],
    );
    refused(
        "hostname: '{{.Task.Nmae}}'",
        &["4:15 services.web.hostname: `{{.Task.Nmae}}` in `hostname` is not a placeholder that can be filled in"],
    );
    refused(
        "user: ''\ncontainer_name: ''\nimage: ''",
        &["6:5 services.web.image: the key `image` stands here a second time, first at line 3"],
    );
    refused("image2: \"\\0\"", &["4:13 services.web.image2: the text holds a NUL character"]);
}

#[test]
fn settings_of_the_whole_machine_stay_its_own() {
    warned(
        "sysctls: {vm.max_map_count: 262144, net.core.somaxconn: 1}\nsecurity_opt: ['no-new-privileges:true']",
        &[
            "4:33 services.web.sysctls.vm.max_map_count: the kernel's setting `vm.max_map_count` is not honoured",
            "5:20 services.web.security_opt[0]: `no-new-privileges` is not honoured",
        ],
    );
    refused("sysctls: [a]", &["4:15 services.web.sysctls[0]: `a` is not a setting of the kernel with a value"]);
}

#[test]
fn a_missing_variable_is_the_first_thing_to_set() {
    let report = Case::new().parse("services: {web: {image: 'nginx:${TAG}', environment: ['A=${B:?set it}']}}").report;
    let hints: Vec<&str> = report.errors.iter().map(|found| found.hint.as_str()).collect();
    // One error each: what could not be filled in is not complained about a second time.
    let expected = [
        "set the variable `TAG`, which is empty here; write the tag, or leave out the `:`",
        "set it in the environment or in `.env` beside the stack file",
    ];
    assert_eq!(hints, expected);
    let optional = "hostname: $X\nrestart: $X\nworking_dir: $X\nplatform: $X\ncontainer_name: $X";
    warned(optional, &["4:15 services.web.hostname: variable `X` is not set and becomes empty"]);
}

#[test]
fn what_traefik_would_do_and_the_gateway_does_not() {
    warned(
        "ports: [80]\nlabels:\n  - traefik.http.routers.r.rule=Host(`a.b`)\n  - traefik.http.routers.r.middlewares=auth\n  \
         - traefik.http.middlewares.auth.basicauth.users=x\n  - traefik.tcp.routers.t.rule=HostSNI(`*`)",
        &[
            "7:9 services.web.labels[1]: the router `r` makes no route: its middleware `auth` (basicauth) has no password hash for `x`",
            "9:9 services.web.labels[3]: the label `traefik.tcp.routers.t.rule` is not honoured",
        ],
    );
}

#[test]
fn images() {
    whole("services:\n  web: {tty: true}\n", &["2:3 services.web: the service `web` has no image"]);
    whole(
        "services: {web: {image: Nginx}}",
        &["1:25 services.web.image: `Nginx` is not an image reference: names are lower case"],
    );
    whole("services: {web: {image: 'nginx:${TAG}'}}", &["1:25 services.web.image: `nginx:` has an empty tag"]);
}

#[test]
fn ports() {
    refused("ports: [a]", &["4:13 services.web.ports[0]: `a` is not a port: a port is a number"]);
    refused(
        "ports: ['80:80/sctp']",
        &["4:13 services.web.ports[0]: `80:80/sctp` is not a port: the protocol is neither tcp nor udp"],
    );
    refused("ports: [70000]", &["4:13 services.web.ports[0]: `70000` is not a port: ports go up to 65535"]);
    refused(
        "ports: ['1-2:1-3']",
        &["4:13 services.web.ports[0]: `1-2:1-3` is not a port: the two ranges differ in length"],
    );
    refused("ports: ['5-2']", &["4:13 services.web.ports[0]: `5-2` is not a port: the range ends before it begins"]);
    refused(
        "ports: ['x:80:80']",
        &["4:13 services.web.ports[0]: `x:80:80` is not a port: is not an address to listen on"],
    );
    refused("ports: [{published: 80}]", &["4:13 services.web.ports[0]: the port has no `target`"]);
    whole(
        "services:\n  a:\n    image: x\n    ports: ['80:80', '53:53/udp', '127.0.0.1:90:1', '10.0.0.1:90:1']\n  b:\n    image: x\n    \
         ports:\n      - 53:53\n      - 127.0.0.1:80:8080\n      - 90:90\n",
        &[
            "9:9 services.b.ports[1]: port 80/tcp is published twice, already by service `a` at line 4",
            "10:9 services.b.ports[2]: port 90/tcp is published twice, already by service `a` at line 4",
        ],
    );
}

#[test]
fn volumes() {
    refused("volumes: ['dta:/d']", &["4:15 services.web.volumes[0]: there is no volume `dta`"]);
    refused("volumes: ['data']", &["4:15 services.web.volumes[0]: `data` is not a path inside the container"]);
    refused("volumes: ['/a:b']", &["4:15 services.web.volumes[0]: `b` is not a path inside the container"]);
    refused(
        "volumes: ['C:\\a:/b:ro:x']",
        &["4:15 services.web.volumes[0]: `C:\\a:/b:ro:x` has too many `:` for a volume"],
    );
    refused("volumes: ['/a:/b:rx']", &["4:15 services.web.volumes[0]: `rx` is not an option of a volume"]);
    refused("volumes: ['/a:/b', '/c:/b/']", &["4:24 services.web.volumes[1]: something is mounted at `/b` already"]);
    refused("volumes: ['/a:/']", &["4:15 services.web.volumes[0]: nothing can be mounted at `/`"]);
    refused(
        "volumes: [{type: npipe, source: a, target: /b}]",
        &["4:22 services.web.volumes[0].type: `npipe` is not one of `bind`, `volume`, `tmpfs`"],
    );
    refused("volumes: [{type: bind, target: /b}]", &["4:15 services.web.volumes[0]: the bind has no `source`"]);
    let mut case = Case::new();
    case.directory = "";
    let report = case.parse(web_source("volumes: ['./a:/b', '/c:/d']")).report;
    assert_eq!(
        errors(&report),
        ["4:15 services.web.volumes[0]: `./a` is relative, and the stack file's folder is not known"]
    );
}

#[test]
fn what_is_referred_to_must_be_declared() {
    refused("networks: [frnt]", &["4:16 services.web.networks[0]: there is no network `frnt`"]);
    refused(
        "secrets: [a]\nconfigs: [{source: b}]",
        &[
            "4:15 services.web.secrets[0]: there is no secret `a`",
            "5:24 services.web.configs[0].source: there is no config `b`",
        ],
    );
    refused(
        "depends_on: [db]\nlinks: ['x:y']",
        &[
            "4:18 services.web.depends_on[0]: there is no service `db`",
            "5:13 services.web.links[0]: there is no service `x`",
        ],
    );
    refused(
        "volumes_from: [db, 'container:x']",
        &[
            "4:20 services.web.volumes_from[0]: there is no service `db`",
            "4:24 services.web.volumes_from[1]: volumes come from services of this stack only",
        ],
    );
    refused("depends_on: [web]", &["4:18 services.web.depends_on[0]: the service `web` refers to itself"]);
    whole(
        "services: {a: {image: x}}\nsecrets: {s: {external: true}, t: {}}",
        &[
            "2:25 secrets.s.external: external secrets are not kept apart from stacks",
            "2:32 secrets.t: the secret has no content",
        ],
    );
    whole(
        "services:\n  a: {image: x, depends_on: [b]}\n  b: {image: x, profiles: [p]}\n",
        &["2:30 services.a.depends_on[0]: the service `b` is left out by its profiles"],
    );
}

#[test]
fn rings_show_every_step() {
    whole(
        "services:\n  a: {image: x, depends_on: [b]}\n  b:\n    image: x\n    depends_on:\n      - c\n  c:\n    image: x\n    depends_on:\n      a: {condition: service_started}\n",
        &[
            "2:30 services.a.depends_on[0]: services depend on each other in a ring: a -> b (line 2), b -> c (line 6), c -> a (line 10)",
        ],
    );
}

#[test]
fn placement() {
    refused(
        "deploy: {placement: {constraints: [node.rloe == a]}}",
        &["4:40 services.web.deploy.placement.constraints[0]: `node.rloe` is nothing to place by"],
    );
    refused(
        "deploy: {placement: {constraints: [gpu]}}",
        &["4:40 services.web.deploy.placement.constraints[0]: `gpu` is not a constraint"],
    );
    refused(
        "deploy: {placement: {max_replicas_per_node: 1}}\nx-bramble: {max_per_node: 2}",
        &[
            "5:31 services.web.x-bramble.max_per_node: `max_per_node` and `deploy.placement.max_replicas_per_node` say different things",
        ],
    );
    refused(
        "x-bramble: {max_per_node: 0, disconnect: {lost_after: 200h, reconcile: best, stop_after: 1s, replace: true}}",
        &[
            "4:31 services.web.x-bramble.max_per_node: `0` is not a whole number from 1 to 10000",
            "4:59 services.web.x-bramble.disconnect.lost_after: `lost_after` is longer than a week",
            "4:76 services.web.x-bramble.disconnect.reconcile: `best` is not one of `keep-replacement`, `keep-original`",
            "4:94 services.web.x-bramble.disconnect.stop_after: `stop_after` is too short",
            "4:98 services.web.x-bramble.disconnect.replace: unknown key `replace`",
        ],
    );
    refused(
        "deploy: {resources: {limits: {memory: 1M}, reservations: {memory: 2M}}}",
        &["4:71 services.web.deploy.resources.reservations.memory: more is reserved than the limit allows"],
    );
    refused(
        "deploy: {replicas: 2}\nscale: 3",
        &["5:12 services.web.scale: `scale` and `deploy.replicas` say different things"],
    );
    refused(
        "mem_limit: 1g\ndeploy: {resources: {limits: {memory: 2g}}}",
        &["4:16 services.web.mem_limit: `mem_limit` and `deploy.resources.limits.memory` say different things"],
    );
    refused(
        "network_mode: service:db\nports: [80]",
        &["4:19 services.web.network_mode: a service cannot share another one's network"],
    );
}

#[test]
fn bramble_keys_are_checked() {
    refused("x-bramble: {rotes: []}", &["4:17 services.web.x-bramble.rotes: unknown key `rotes`"]);
    refused(
        "x-bramble: {routes: [{host: 'a b'}]}",
        &[
            "4:26 services.web.x-bramble.routes[0]: the route has no `port`",
            "4:33 services.web.x-bramble.routes[0].host: `a b` is not a host name",
        ],
    );
    refused(
        "x-bramble: {egress: ['http://a']}",
        &["4:26 services.web.x-bramble.egress[0]: `http://a` is not a destination"],
    );
    refused("x-bramble: {with: [db]}", &["4:24 services.web.x-bramble.with[0]: there is no service `db`"]);
    refused(
        "x-bramble: {healthcheck: {http: health}}",
        &["4:37 services.web.x-bramble.healthcheck.http: `health` is not a port and path"],
    );
    refused(
        "x-bramble: {healthcheck: {interval: 1s}}",
        &["4:17 services.web.x-bramble.healthcheck: the check needs either `http` or `tcp`"],
    );
    whole("x-bramble: {}\nservices: {a: {image: x}}", &["1:1 x-bramble: `x-bramble` belongs to a service"]);
}

#[test]
fn warnings_say_what_happens_instead() {
    warned("network_mode: host", &["4:19 services.web.network_mode: `network_mode: host` is not honoured"]);
    warned(
        "volumes: ['${MEDIA}:/media']",
        &[
            "4:15 services.web.volumes[0]: variable `MEDIA` is not set and becomes empty",
            "4:15 services.web.volumes[0]: the volume's source is empty, perhaps because a variable is not set",
        ],
    );
    warned(
        "volumes: ['/var/run/docker.sock:/s']",
        &["4:15 services.web.volumes[0]: the socket of a container engine is not handed out"],
    );
    warned(
        "environment:\n  A: x-${ONE}\n  B: ${ONE}${TWO}",
        &[
            "5:12 services.web.environment.A: variable `ONE` is not set and becomes empty",
            "6:10 services.web.environment.B: variable `TWO` is not set and becomes empty",
        ],
    );
    warned(
        "environment: [SERVICE_FQDN_APP_3000, 'P=${SERVICE_PASSWORD_DB}']",
        &[
            "4:19 services.web.environment[0]: variable `SERVICE_FQDN_APP_3000` is not set: Coolify would make it up, here it stays unset",
            "4:42 services.web.environment[1]: variable `SERVICE_PASSWORD_DB` is not set: Coolify would make it up, here it is empty",
        ],
    );
    warned(
        "container_name: one\ndeploy: {replicas: 2}",
        &["4:21 services.web.container_name: 2 instances cannot all have the name `one`"],
    );
    warned(
        "labels: ['traefik.http.routers.r.rule=HostRegexp(`.+`)']\nports: [80]",
        &["4:14 services.web.labels[0]: the rule of the router `r` makes no route: HostRegexp() goes by a pattern"],
    );
    warned("security_opt: ['no-new-privileges:false']\nprivileged: false", &[]);
    warned(
        "environment: {A: '{{.Task.Slt}}', B: '{{ json . }}', C: '{{.Task.Slot}}'}",
        &[
            "4:22 services.web.environment.A: `{{.Task.Slt}}` in `environment` is not a placeholder that can be filled in",
        ],
    );
    warned("ports: [{target: 80, mode: host}]", &["4:32 services.web.ports[0].mode: `mode: host` is not honoured"]);
    warned(
        "extra_hosts: ['host.docker.internal:host-gateway']",
        &["4:19 services.web.extra_hosts[0]: `host-gateway` is not honoured: instances have no way to their machine"],
    );
    let required = Case::new().parse(web_source("environment: {A: '${A:?set me}'}")).report;
    assert_eq!(errors(&required), ["4:22 services.web.environment.A: variable `A` is required: set me"]);
}

const BAD: &str = r#"services:
  web:
    imgae: nginx
    ports:
      - "80:80"
      - "eighty"
    volumes:
      - dta:/data
    depends_on: [db, cahce]
    restart: sometimes
  db:
    image: Postgres:12
    ports: ["80:5432"]
    privileged: true
    environment:
      PASSWORD: ${DB_PASSWORD}
  cache:
    image: redis
volumes:
  data:
"#;

const BAD_REPORT: &str = r#"error: the service `web` has no image
 --> compose.yml:2:3
  |
2 |   web:
  |   ^
  = at: services.web
  = hint: set `image:`, or `image: host` to run a program of the machine

error: unknown key `imgae`
 --> compose.yml:3:5
  |
3 |     imgae: nginx
  |     ^
  = at: services.web.imgae
  = hint: did you mean `image`?

error: `eighty` is not a port: a port is a number
 --> compose.yml:6:9
  |
6 |       - "eighty"
  |         ^
  = at: services.web.ports[1]
  = hint: write `80`, `8080:80`, `127.0.0.1:8080:80/udp` or `3000-3005:3000-3005`

error: there is no volume `dta`
 --> compose.yml:8:9
  |
8 |       - dta:/data
  |         ^
  = at: services.web.volumes[0]
  = hint: did you mean `data`?

error: there is no service `cahce`
 --> compose.yml:9:22
  |
9 |     depends_on: [db, cahce]
  |                      ^
  = at: services.web.depends_on[1]
  = hint: did you mean `cache`?

error: `sometimes` is not a restart policy
  --> compose.yml:10:14
   |
10 |     restart: sometimes
   |              ^
   = at: services.web.restart
   = hint: write `no`, `always`, `on-failure`, `on-failure:3` or `unless-stopped`

error: `Postgres:12` is not an image reference: names are lower case
  --> compose.yml:12:12
   |
12 |     image: Postgres:12
   |            ^
   = at: services.db.image
   = hint: write the name in small letters

error: port 80/tcp is published twice, already by service `web` at line 5
  --> compose.yml:13:13
   |
13 |     ports: ["80:5432"]
   |             ^
   = at: services.db.ports[0]
   = hint: publish one of them at another port

warning: `privileged` is not honoured
  --> compose.yml:14:5
   |
14 |     privileged: true
   |     ^
   = at: services.db.privileged
   = hint: the instance runs without privileges; name what it needs in `cap_add`

warning: variable `DB_PASSWORD` is not set and becomes empty
  --> compose.yml:16:17
   |
16 |       PASSWORD: ${DB_PASSWORD}
   |                 ^
   = at: services.db.environment.PASSWORD
   = hint: set it in the environment or in `.env`, or write `${DB_PASSWORD:-default}`

"#;

#[test]
fn a_report_shows_all_at_once_as_a_compiler_does() {
    let report = Case::new().parse(BAD).report;
    assert_eq!(stackfile::render(&report, "compose.yml", BAD.as_bytes()), BAD_REPORT);
}
