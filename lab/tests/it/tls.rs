//! TLS and HTTP/2 at the front, seen by clients that nobody here wrote.

use crate::probe;
use lab::{Node, Settings, http, node, wait};
use std::path::Path;
use std::process::Command;

/// A node that serves TLS, with one service at `shop.test`.
struct World {
    node: Node,
    https: u16,
    folder: tempfile::TempDir,
}

impl World {
    fn new() -> World {
        let https = node::free_port();
        let arguments = vec!["--https".to_owned(), format!("127.0.0.1:{https}")];
        let node = Node::with(Settings { arguments, ..Settings::default() });
        let route = "x-bramble: {routes: [{host: shop.test, port: 8000}]}";
        node.deployed("shop", &format!("services:\n  web:\n{}", probe::service(node::free_port(), route)));
        let folder = tempfile::tempdir().expect("a temporary folder");
        let world = World { node, https, folder };
        let authority = world.node.json(&["certificate", "authority"]);
        let pem = authority["pem"].as_str().expect("a certificate");
        std::fs::write(world.authority(), pem).expect("a fresh folder takes a file");
        world
    }

    fn authority(&self) -> std::path::PathBuf {
        self.folder.path().join("authority.pem")
    }

    /// What curl says of `https://HOST/`, trusting `authority`; `None` when it refuses.
    fn curl(&self, host: &str, authority: &Path, more: &[&str]) -> Option<String> {
        let output = Command::new("curl")
            .args(["--silent", "--show-error", "--max-time", "20", "--output", "/dev/null", "--cacert"])
            .arg(authority)
            .args(["--write-out", "%{http_version} %{http_code}", "--resolve"])
            .arg(format!("{host}:{}:127.0.0.1", self.https))
            .args(more)
            .arg(format!("https://{host}:{}/", self.https))
            .output()
            .expect("curl runs");
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

fn lacks(program: &str) -> bool {
    let there = Command::new(program).arg("--version").output().is_ok();
    if !there {
        eprintln!("skipped: {program} is not installed");
    }
    !there
}

#[test]
fn curl_trusts_the_nodes_authority_in_both_versions_of_http() {
    if lacks("curl") {
        return;
    }
    let world = World::new();
    let authority = world.authority();
    for (version, expected) in [("--http1.1", "1.1 200"), ("--http2", "2 200")] {
        let said = wait::until("the service answers", 10, || {
            world.curl("shop.test", &authority, &[version]).filter(|said| said.ends_with("200"))
        });
        assert_eq!(said, expected);
    }
    assert_eq!(world.curl("other.test", &authority, &[]), None, "no certificate is for that name");
    let only = "x-bramble: {routes: [{host: only.test, port: 8000, tls: true}]}";
    world.node.deployed("only", &format!("services:\n  web:\n{}", probe::service(node::free_port(), only)));
    let answer = http::request(world.node.http, "GET", "/a?b", &[("host", "only.test")], b"").expect("an answer");
    assert_eq!(answer.status, 308);
    let place = format!("location: https://only.test:{}/a?b\r\n", world.https);
    assert!(answer.head.contains(&place), "{}", answer.head);
    assert_eq!(world.curl("only.test", &authority, &[]).as_deref(), Some("2 200"));
    let plain = format!("http://{}/", world.node.http);
    let output = Command::new("curl")
        .args(["--silent", "--output", "/dev/null", "--http2-prior-knowledge", "--header", "host: shop.test"])
        .args(["--write-out", "%{http_version} %{http_code}", &plain])
        .output()
        .expect("curl runs");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "2 200");
}

#[test]
fn a_certificate_put_into_the_folder_is_shown_without_a_restart() {
    if lacks("curl") || lacks("openssl") {
        return;
    }
    let world = World::new();
    let folder = world.node.data().join("certificates");
    let (certificate, key) = (folder.join("shop.crt"), folder.join("shop.key"));
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "30"])
        .args(["-subj", "/CN=shop.test", "-addext", "subjectAltName=DNS:shop.test"])
        .arg("-keyout")
        .arg(&key)
        .arg("-out")
        .arg(&certificate)
        .output()
        .expect("openssl runs");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let said = wait::until("the new certificate is shown", 10, || world.curl("shop.test", &certificate, &[]));
    assert_eq!(said, "2 200");
    let listed = |source: &str| {
        let all = world.node.json(&["certificate", "ls"]);
        all.as_array().and_then(|all| all.iter().find(|one| one["source"] == source).cloned())
    };
    assert_eq!(listed("shop.crt").expect("it is listed")["names"][0], "shop.test");

    std::fs::remove_file(&key).expect("our own file");
    let problem = wait::until("the missing key is said", 10, || {
        listed("shop.crt").and_then(|one| one["problem"].as_str().filter(|said| !said.is_empty()).map(str::to_owned))
    });
    assert!(problem.contains("key"), "{problem}");
    let authority = world.authority();
    let said = wait::until("the node's own is shown again", 10, || world.curl("shop.test", &authority, &[]));
    assert_eq!(said, "2 200");
}

#[test]
fn h2load_runs_a_hundred_streams() {
    if lacks("h2load") {
        return;
    }
    let world = World::new();
    let output = Command::new("h2load")
        .args(["--requests=2000", "--clients=1", "--max-concurrent-streams=100", "--connect-to"])
        .arg(format!("127.0.0.1:{}", world.https))
        .arg("https://shop.test/")
        .output()
        .expect("h2load runs");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("2000 succeeded, 0 failed, 0 errored, 0 timeout"), "{said}");
}

/// An authority, and what it signs, made by openssl.
struct Signing {
    folder: tempfile::TempDir,
}

impl Signing {
    fn new() -> Signing {
        let signing = Signing { folder: tempfile::tempdir().expect("a temporary folder") };
        signing.openssl(
            &["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"],
            &["-days", "30", "-subj", "/CN=clients", "-keyout", "ca.key", "-out", "ca.pem"],
        );
        signing
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.folder.path().join(name)
    }

    fn openssl(&self, arguments: &[&str], more: &[&str]) {
        let output = Command::new("openssl")
            .args(arguments)
            .args(more)
            .current_dir(self.folder.path())
            .stdin(std::process::Stdio::null())
            .output()
            .expect("openssl runs");
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    }

    /// `NAME.pem` and `NAME.key`, signed for this use.
    fn sign(&self, name: &str, subject: &str, extensions: &str) {
        let (key, csr, pem, ext) =
            (format!("{name}.key"), format!("{name}.csr"), format!("{name}.pem"), format!("{name}.ext"));
        std::fs::write(self.path(&ext), extensions).expect("a fresh folder takes a file");
        self.openssl(
            &["req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"],
            &["-subj", subject, "-keyout", &key, "-out", &csr],
        );
        self.openssl(
            &["x509", "-req", "-in", &csr, "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial"],
            &["-days", "10", "-extfile", &ext, "-out", &pem],
        );
    }
}

#[test]
fn a_route_asks_curl_for_a_certificate() {
    if lacks("curl") || lacks("openssl") {
        return;
    }
    let world = World::new();
    let (signing, strangers) = (Signing::new(), Signing::new());
    for signing in [&signing, &strangers] {
        signing.sign("ann", "/O=Shop/CN=ann", "extendedKeyUsage=clientAuth\nsubjectAltName=URI:spiffe://shop/ann\n");
    }
    let authority = std::fs::read_to_string(signing.path("ca.pem")).expect("our own file");
    world.node.file("clients.pem", authority);
    let route =
        "x-bramble: {routes: [{host: guarded.test, port: 8000, tls: true, client_certificates: {authority: clients}}]}";
    let tell = "self.reply(str(self.headers.get('x-forwarded-client-cert')))";
    let service = probe::service(node::free_port(), route)
        .replace(r#"self.reply(\"slot \" + os.environ.get(\"SLOT\", \"?\"))"#, tell);
    assert!(service.contains(tell), "{service}");
    world
        .node
        .deployed("guarded", &format!("services:\n  web:\n{service}configs:\n  clients: {{file: ./clients.pem}}\n"));
    let trusted = world.authority();
    let asked = |signing: Option<&Signing>| {
        let mut command = Command::new("curl");
        command.args(["--silent", "--max-time", "20", "--write-out", " %{http_code}", "--cacert"]).arg(&trusted);
        command.args(["--header", "x-forwarded-client-cert: Hash=forged"]);
        command.args(["--resolve", &format!("guarded.test:{}:127.0.0.1", world.https)]);
        if let Some(signing) = signing {
            command.arg("--cert").arg(signing.path("ann.pem")).arg("--key").arg(signing.path("ann.key"));
        }
        let output = command.arg(format!("https://guarded.test:{}/", world.https)).output().expect("curl runs");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let known =
        wait::until("the route serves", 10, || Some(asked(Some(&signing))).filter(|said| said.ends_with("200")));
    assert!(known.contains("CN=ann") && known.contains(";URI=spiffe://shop/ann"), "{known}");
    assert!(!known.contains("forged"), "{known}");
    let nobody = asked(None);
    assert!(nobody.ends_with("403") && nobody.contains("B0625"), "{nobody}");
    let stranger = asked(Some(&strangers));
    assert!(stranger.ends_with("000"), "the handshake ends: {stranger}");
}

#[test]
fn tls_is_carried_to_a_program_that_ends_it() {
    if lacks("curl") || lacks("openssl") {
        return;
    }
    let world = World::new();
    let signing = Signing::new();
    signing.sign("inside", "/CN=inside", "subjectAltName=DNS:inside.test\n");
    for file in ["inside.pem", "inside.key"] {
        world.node.file(file, std::fs::read(signing.path(file)).expect("our own file"));
    }
    let program = "import http.server, ssl\n\
        class H(http.server.BaseHTTPRequestHandler):\n    \
        def do_GET(self):\n        self.send_response(200)\n        self.end_headers()\n        self.wfile.write(b'inside')\n    \
        def log_message(self, *a): pass\n\
        s = http.server.ThreadingHTTPServer(('0.0.0.0', 8443), H)\n\
        c = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)\n\
        c.load_cert_chain('/inside.pem', '/run/secrets/inside.key')\n\
        s.socket = c.wrap_socket(s.socket, server_side=True)\n\
        s.serve_forever()\n";
    let file = format!(
        "services:\n  web:\n    image: host\n    command: {}\n    configs: [inside.pem]\n    secrets: [inside.key]\n    \
         x-bramble:\n      routes: [{{host: inside.test, port: 8443, tls: passthrough}}]\n      healthcheck: {{tcp: 8443}}\n\
         configs:\n  inside.pem: {{file: ./inside.pem}}\nsecrets:\n  inside.key: {{file: ./inside.key}}\n",
        probe::python(program)
    );
    world.node.deployed("inside", &file);
    let root = signing.path("ca.pem");
    let said = wait::until("the program answers", 20, || world.curl("inside.test", &root, &[]));
    assert!(said.ends_with("200"), "{said}");
    assert!(world.curl("shop.test", &world.authority(), &[]).is_some(), "the others are opened as before");
    let answer = http::request(world.node.http, "GET", "/a", &[("host", "inside.test")], b"").expect("an answer");
    assert!(answer.status == 308 && answer.head.contains("location: https://inside.test:"), "{}", answer.head);
}

#[test]
fn an_answer_of_the_authority_beside_a_certificate_is_shown_with_it() {
    if lacks("openssl") {
        return;
    }
    let world = World::new();
    let signing = Signing::new();
    signing.sign("stapled", "/CN=stapled", "subjectAltName=DNS:shop.test\n");
    // What a responder would say: that this serial number is good.
    let mut serial = Command::new("openssl");
    serial.args(["x509", "-noout", "-serial", "-in"]).arg(signing.path("stapled.pem"));
    let serial = serial.output().expect("openssl runs").stdout;
    let serial = String::from_utf8_lossy(&serial).trim().trim_start_matches("serial=").to_owned();
    let index = format!("V\t351231235959Z\t\t{serial}\tunknown\t/CN=stapled\n");
    std::fs::write(signing.path("index.txt"), index).expect("our own folder");
    signing.openssl(
        &["ocsp", "-index", "index.txt", "-CA", "ca.pem", "-rsigner", "ca.pem", "-rkey", "ca.key"],
        &["-issuer", "ca.pem", "-cert", "stapled.pem", "-ndays", "7", "-respout", "stapled.ocsp"],
    );
    let folder = world.node.data().join("certificates");
    for (from, to) in [("stapled.ocsp", "shop.ocsp"), ("stapled.key", "shop.key"), ("stapled.pem", "shop.crt")] {
        std::fs::copy(signing.path(from), folder.join(to)).expect("the node's folder takes files");
    }
    let status = || {
        let output = Command::new("openssl")
            .args([
                "s_client",
                "-status",
                "-servername",
                "shop.test",
                "-connect",
                &format!("127.0.0.1:{}", world.https),
            ])
            .stdin(std::process::Stdio::null())
            .output()
            .expect("openssl runs");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let said =
        wait::until("the answer is shown", 10, || Some(status()).filter(|said| said.contains("OCSP Response Data")));
    assert!(said.contains("OCSP Response Status: successful") && said.contains("Cert Status: good"), "{said}");
    std::fs::write(folder.join("shop.ocsp"), b"nothing").expect("our own file");
    let problem = wait::until("what is wrong with it is said", 10, || {
        let all = world.node.json(&["certificate", "ls"]);
        let row = all.as_array().and_then(|all| all.iter().find(|one| one["source"] == "shop.crt").cloned());
        row.and_then(|one| one["problem"].as_str().filter(|said| !said.is_empty()).map(str::to_owned))
    });
    assert!(problem.contains("OCSP"), "{problem}");
}

#[test]
fn a_published_port_ends_tls_and_tells_its_program_of_clients() {
    if lacks("curl") {
        return;
    }
    let world = World::new();
    let (secure, told) = (node::free_port(), node::free_port());
    let program = "import socketserver\n\
        class H(socketserver.StreamRequestHandler):\n    \
        def handle(self):\n        line = self.rfile.readline().strip()\n        \
        while self.rfile.readline().strip(): pass\n        \
        self.wfile.write(b'HTTP/1.0 200 OK\\r\\n\\r\\n' + line)\n\
        class S(socketserver.ThreadingTCPServer):\n    allow_reuse_address = True\n\
        S(('0.0.0.0', 8001), H).serve_forever()\n";
    let front = "x-bramble: {tls: true}";
    let port = |published: u16, target: u16, front: &str| {
        format!("{{host_ip: 127.0.0.1, published: {published}, target: {target}, {front}}}")
    };
    let file = format!(
        "services:\n  web:\n{}  raw:\n    image: host\n    command: {}\n    ports: [{}]\n    x-bramble: {{healthcheck: {{tcp: 8001}}}}\n",
        probe::service(node::free_port(), "").replace("ports: [", &format!("ports: [{}, ", port(secure, 8000, front))),
        probe::python(program),
        port(told, 8001, "x-bramble: {tls: true, proxy_protocol: v1}"),
    );
    world.node.deployed("ports", &file);
    let authority = world.authority();
    let asked = |port: u16| {
        let output = Command::new("curl")
            .args(["--silent", "--show-error", "--max-time", "20", "--http1.1", "--cacert"])
            .arg(&authority)
            .args(["--resolve", &format!("localhost:{port}:127.0.0.1"), &format!("https://localhost:{port}/")])
            .output()
            .expect("curl runs");
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let said = wait::until("the service answers", 20, || asked(secure));
    assert!(said.starts_with("slot "), "{said}");
    let said = wait::until("the program answers", 20, || asked(told));
    assert!(said.starts_with("PROXY TCP4 127.0.0.1 127.0.0.1 ") && said.ends_with(&told.to_string()), "{said}");
}
