#!/usr/bin/env python3
"""curl's rarer options against the gateway: each case says what RFC 9110 and 9112 ask of one that conforms.

usage: suite.py HOST:PORT AUTHORITY        needs curl 7.68 or later; `clients` beside this folder starts the service, and a
node that trusts 127.0.0.2 to speak for others
"""
import contextlib
import hashlib
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
import cases

FILE = bytes(range(256)) * 1000
CASES = []
WRONG = (AssertionError, IndexError, AttributeError, ValueError, subprocess.TimeoutExpired)
PATIENCE_S = 20
# The address the node takes the PROXY protocol from.
BALANCER = "127.0.0.2"


def case(test):
    CASES.append((test.__name__, test))


class Got:
    """What curl ended with: its code, what it wrote, and what it told of each transfer."""

    def __init__(self, done, heads):
        self.code, self.body, self.complaint = done.returncode, done.stdout, done.stderr.decode(errors="replace").strip()
        self.heads = [head.split("\r\n") for head in heads.decode("latin-1").split("\r\n\r\n") if head]

    def statuses(self):
        return [int(head[0].split(" ")[1]) for head in self.heads]

    def header(self, name):
        """Of the last answer."""
        found = [line.partition(":")[2].strip() for line in self.heads[-1][1:] if line.lower().startswith(f"{name}:")]
        return ", ".join(found) if found else None

    def said(self):
        """What the service says it got."""
        assert self.code == 0 and self.statuses()[-1] == 200, self
        return json.loads(self.body)

    def __repr__(self):
        return f"curl ended with {self.code} ({self.complaint}), {self.heads}, {self.body[:80]!r}"


def command(*arguments):
    usual = ["--silent", "--show-error", "--noproxy", "", "--max-time", str(PATIENCE_S)]
    return ["curl", *usual, "--connect-to", f"{AUTHORITY}:80:{TO}", *arguments]


def curl(*arguments, sends=None, straight=True):
    """Asks; `straight` at the gateway, whatever the names of the addresses are."""
    with tempfile.NamedTemporaryFile() as heads:
        ask = command("--dump-header", heads.name, *arguments)
        if not straight:
            at = ask.index("--connect-to")
            del ask[at : at + 2]
        done = subprocess.run(ask, input=sends, capture_output=True, timeout=3 * PATIENCE_S)
        return Got(done, heads.read())


def url(path):
    return f"http://{AUTHORITY}{path}"


@contextlib.contextmanager
def file_of(data):
    with tempfile.NamedTemporaryFile() as file:
        file.write(data)
        file.flush()
        yield file.name


def headers_of(said, name):
    return [value for key, value in said["headers"] if key == name]


def whole(said, data):
    assert (said["bytes"], said["sha256"]) == (len(data), hashlib.sha256(data).hexdigest()), said


# ---- Expect: 100-continue (RFC 9110, section 10.1.1) -----------------------------------------------------------------


@case
def who_expects_to_be_told_is_told_and_then_sends():
    got = curl("-H", "Expect: 100-continue", "--expect100-timeout", "15", "-d", "hello", url("/mirror"))
    assert got.statuses() == [100, 200], got
    whole(got.said(), b"hello")
    # The gateway has answered it, so nobody behind needs to again.
    assert headers_of(got.said(), "expect") == [], got


@case
def who_expects_it_without_a_body_is_not_told():
    got = curl("-H", "Expect: 100-continue", url("/mirror"))
    assert got.statuses() == [200], got


@case
def a_body_in_chunks_is_waited_for_as_well():
    got = curl("-H", "Expect: 100-continue", "--expect100-timeout", "15", "-T", "-", url("/mirror"), sends=b"x" * 200_000)
    assert got.statuses() == [100, 200], got
    whole(got.said(), b"x" * 200_000)


@case
def who_is_refused_before_is_not_told_to_go_on():
    with file_of(b"y" * 3_000_000) as name:
        got = curl("--connect-to", f"nobody.test:80:{TO}", "-H", "Expect: 100-continue", "-T", name, "http://nobody.test/x")
    assert got.statuses() == [404], got


@case
def http_1_0_is_told_nothing():
    got = curl("--http1.0", "-H", "Expect: 100-continue", "--expect100-timeout", "0.2", "-d", "hello", url("/mirror"))
    assert got.statuses() == [200], got
    whole(got.said(), b"hello")


# ---- uploads ---------------------------------------------------------------------------------------------------------


@case
def an_upload_of_unknown_length_comes_in_chunks():
    data = os.urandom(3_000_000)
    got = curl("-T", "-", url("/mirror"), sends=data)
    whole(got.said(), data)
    assert (got.said()["method"], got.said()["framing"]) == ("PUT", "chunked"), got.said()


@case
def an_upload_of_nothing_is_one():
    got = curl("-T", "-", url("/mirror"), sends=b"")
    whole(got.said(), b"")


@case
def a_large_file_is_posted():
    data = os.urandom(20_000_000)
    with file_of(data) as name:
        got = curl("-H", "Content-Type: application/octet-stream", "--data-binary", f"@{name}", url("/mirror"))
    whole(got.said(), data)
    assert got.said()["framing"] == "length", got.said()


@case
def a_form_in_parts_is_posted():
    with file_of(b"z" * 100_000) as name:
        said = curl("-F", f"file=@{name}", "-F", "word=one", url("/mirror")).said()
    assert said["bytes"] > 100_000 and headers_of(said, "content-type")[0].startswith("multipart/form-data"), said


@case
def a_slow_upload_arrives():
    data = os.urandom(300_000)
    with file_of(data) as name:
        whole(curl("--limit-rate", "150k", "-T", name, url("/mirror")).said(), data)


@case
def an_upload_broken_off_is_no_request_to_the_service():
    with file_of(b"x" * 5_000_000) as name:
        got = curl("--max-time", "0.5", "--limit-rate", "100k", "-T", name, url("/mirror/half-way"))
    assert got.code == 28, got
    until = time.monotonic() + 5
    while "/mirror/half-way" not in curl(url("/broken")).said():
        assert time.monotonic() < until, "the service still waits for it"
    assert curl(url("/mirror")).said()["bytes"] == 0


@case
def who_refuses_a_body_is_heard():
    with file_of(b"x" * 8_000_000) as name:
        got = curl("-H", "Expect:", "-T", name, url("/refuse"))
    assert got.statuses()[-1] == 413 and got.body == b"too much", got


@case
def a_body_with_get_arrives():
    said = curl("-X", "GET", "-d", "asked", url("/mirror")).said()
    assert said["method"] == "GET", said
    whole(said, b"asked")


# ---- versions --------------------------------------------------------------------------------------------------------


@case
def http_1_0_is_answered_without_chunks():
    got = curl("--http1.0", url("/pieces"))
    assert got.body == b"one two three" and got.header("transfer-encoding") is None, got
    got = curl("--http1.0", url("/mirror"))
    assert got.said()["version"] == "HTTP/1.1", "the gateway speaks its own version (RFC 9110, section 2.5)"


@case
def http_0_9_is_not_spoken():
    got = curl("--http0.9", url("/mirror"))
    assert got.statuses() == [200], got


@case
def an_upgrade_to_http_2_is_not_taken_and_not_passed_on():
    got = curl("--http2", url("/mirror"))
    assert got.statuses() == [200] and got.heads[-1][0].startswith("HTTP/1.1"), got
    assert headers_of(got.said(), "upgrade") == headers_of(got.said(), "http2-settings") == [], got.said()


@case
def http_2_is_spoken_to_who_knows():
    got = curl("--http2-prior-knowledge", url("/mirror"))
    assert got.heads[-1][0].startswith("HTTP/2 200"), got
    assert headers_of(got.said(), "host") == [AUTHORITY], got.said()


@case
def uploads_over_http_2_arrive_of_whatever_length():
    data = os.urandom(5_000_000)
    whole(curl("--http2-prior-knowledge", "-T", "-", url("/mirror"), sends=data).said(), data)
    with file_of(data) as name:
        whole(curl("--http2-prior-knowledge", "--data-binary", f"@{name}", url("/mirror")).said(), data)


# ---- what is asked for ----------------------------------------------------------------------------------------------


@case
def a_coding_that_is_understood_is_taken_off_by_the_client_alone():
    got = curl("--compressed", url("/gzip"))
    assert got.body == FILE and got.header("content-encoding") == "gzip", got
    got = curl(url("/gzip"))
    assert got.body == FILE and got.header("content-encoding") is None, got


@case
def parts_are_parts():
    for wanted, part in (("0-99", FILE[:100]), ("255990-", FILE[255990:]), ("-10", FILE[-10:])):
        got = curl("-r", wanted, url("/file"))
        assert got.statuses() == [206] and got.body == part, (wanted, got)
    got = curl("-r", "999999999-", url("/file"))
    assert got.statuses() == [416] and got.header("content-range") == f"bytes */{len(FILE)}", got


@case
def a_download_broken_off_is_resumed():
    with file_of(FILE[:100_000]) as name:
        got = curl("-C", "-", "-o", name, url("/file"))
        with open(name, "rb") as file:
            assert got.statuses() == [206] and file.read() == FILE, got


@case
def what_did_not_change_is_not_sent_again():
    got = curl("-H", 'If-None-Match: "one"', url("/file"))
    assert got.statuses() == [304] and got.body == b"" and got.header("etag") == '"one"', got


@case
def a_head_has_the_length_and_no_body():
    got = curl("--head", url("/file"))
    assert got.header("content-length") == str(len(FILE)), got
    got = curl("--head", url("/pieces"))
    assert got.statuses() == [200] and got.code == 0, got


@case
def an_answer_without_a_length_ends_with_the_connection():
    assert curl(url("/to-the-end")).body == b"no length"


@case
def nothing_is_said_with_204():
    got = curl(url("/nothing"))
    assert got.statuses() == [204] and got.header("content-length") is None and got.header("transfer-encoding") is None, got


@case
def a_server_as_a_whole_is_asked_for_its_options():
    got = curl("-X", "OPTIONS", "--request-target", "*", url("/"))
    assert got.said()["target"] == "*" and got.said()["method"] == "OPTIONS", got.said()


@case
def methods_nobody_knows_arrive():
    for method in ("PATCH", "DELETE", "PROPFIND", "M-SEARCH", "PURGE", "BREW", "get", "A!#$%&'*+-.^_`|~"):
        assert curl("-X", method, url("/mirror")).said()["method"] == method


@case
def methods_that_are_none_are_refused():
    for method in ("G(T", "GET,", "G@T"):
        assert curl("-X", method, url("/mirror")).statuses() == [400], method


@case
def trace_shows_nothing_the_gateway_knows():
    got = curl("-X", "TRACE", "-H", "Cookie: secret=1", url("/mirror"))
    assert got.statuses()[-1] in (200, 405), got


@case
def a_tunnel_is_not_opened():
    got = curl("--proxytunnel", "-x", f"http://{TO}", url("/mirror"))
    assert got.code == 56 and got.statuses() == [405], got


@case
def a_path_arrives_as_it_is():
    for path in (
        "/mirror/a/../b/./c",
        "/mirror//double///slash",
        "/mirror/%2e%2e/up",
        "/mirror/a%2Fb%2fc",
        "/mirror/%C3%A4?q=%C3%A4&x=%00",
        "/mirror;v=1,2:3@!$&'()*+=~?a?b/c",
        "/mirror?" + "x=y&" * 10 + "[]=1",
    ):
        said = curl("--path-as-is", "--globoff", url(path)).said()
        assert said["target"] == path, (path, said["target"])


@case
def a_path_with_more_dots_than_folders_leads_to_no_other_route():
    got = curl("--path-as-is", url("/../../etc/passwd"))
    assert got.statuses() == [200] and got.said()["target"] == "/../../etc/passwd", got


@case
def a_long_target_arrives_and_one_too_long_is_refused():
    path = "/mirror?" + "x" * 20_000
    assert curl(url(path)).said()["target"] == path
    got = curl(url("/mirror?" + "x" * 60_000))
    assert got.statuses() in ([414], [431]), got


@case
def a_header_without_a_value_is_one():
    said = curl("-H", "X-Nothing;", "-H", "X-Twice: a", "-H", "X-Twice: b", url("/mirror")).said()
    assert headers_of(said, "x-nothing") == [""] and headers_of(said, "x-twice") == ["a", "b"], said
    assert curl(url("/mirror")).header("x-empty") == ""


@case
def a_header_beyond_ascii_arrives():
    said = curl("-H", "X-Odd: \u00e4\u00f6 \t tab", url("/mirror")).said()
    assert headers_of(said, "x-odd")[0].encode("latin-1").decode() == "\u00e4\u00f6 \t tab", said


@case
def headers_of_one_connection_go_no_further():
    said = curl("-H", "Connection: close, X-Hop", "-H", "X-Hop: 1", "-H", "TE: trailers", "-H", "Keep-Alive: timeout=5", url("/mirror")).said()
    for name in ("x-hop", "te", "keep-alive"):
        assert headers_of(said, name) == [], (name, said)


@case
def a_host_is_needed_and_is_one():
    assert curl("-H", "Host:", url("/mirror")).statuses() == [400]
    assert curl("-H", f"Host: {AUTHORITY}", "-H", f"Host: {AUTHORITY}", url("/mirror")).statuses() in ([200], [400])
    assert curl("-H", "Host: a b", url("/mirror")).statuses() == [400]
    assert curl("-H", f"Host: {AUTHORITY.upper()}.:80", url("/mirror")).statuses() == [200]


@case
def lengths_that_contradict_are_refused():
    for headers in (
        ["Content-Length: 5", "Transfer-Encoding: chunked"],
        ["Content-Length: five"],
        ["Transfer-Encoding: gzip, chunked"],
        ["Transfer-Encoding: gzip"],
    ):
        arguments = [part for header in headers for part in ("-H", header)]
        got = curl(*arguments, "-d", "hello", url("/mirror"))
        assert got.statuses() == [400], (headers, got)


@case
def cookies_come_and_go():
    with tempfile.NamedTemporaryFile() as jar:
        got = curl("-c", jar.name, url("/cookies"))
        assert got.header("set-cookie") == "a=1; Path=/, b=2; Path=/", got
        for version in ("--http1.1", "--http2-prior-knowledge"):
            said = curl(version, "-b", jar.name, url("/mirror")).said()
            assert [sorted(value.split("; ")) for value in headers_of(said, "cookie")] == [["a=1", "b=2"]], said


@case
def what_is_elsewhere_is_asked_for_there():
    for status, method, left in ((301, "GET", 0), (303, "GET", 0), (307, "POST", 4), (308, "POST", 4)):
        got = curl("-L", "-d", "four", url(f"/redirect?{status}"))
        assert got.statuses() == [status, 200], got
        assert (got.said()["method"], got.said()["bytes"]) == (method, left), got.said()


# ---- answers ---------------------------------------------------------------------------------------------------------


@case
def chunks_are_whole_on_the_wire():
    got = curl("--raw", url("/pieces"))
    pieces = re.findall(rb"([0-9a-f]+)\r\n(.*?)\r\n", got.body)
    assert got.body.endswith(b"0\r\n\r\n") and b"".join(piece for _, piece in pieces) == b"one two three", got


@case
def trailers_that_were_announced_follow():
    got = curl("--raw", "-H", "TE: trailers", "-H", "Connection: TE", url("/trailers"))
    assert got.header("trailer").lower() == "x-end" and got.body.lower().endswith(b"0\r\nx-end: it is\r\n\r\n"), got
    got = curl("--http2-prior-knowledge", "-v", url("/trailers"))
    assert got.body == b"one two three" and "x-end: it is" in got.complaint, got


@case
def a_slow_reader_gets_all_of_it():
    got = curl("--limit-rate", "200k", url("/file"))
    assert got.body == FILE, got.code


@case
def a_reader_who_leaves_takes_nobody_along():
    got = curl("--max-time", "0.1", url("/pieces"))
    assert got.code == 28, got
    assert curl(url("/file")).body == FILE


@case
def hints_come_before_the_answer():
    got = curl(url("/early"))
    assert got.statuses() == [103, 102, 200] and got.body == b"done", got
    assert got.heads[0][1:] == ["link: </style.css>; rel=preload"], got


@case
def http_1_0_is_given_no_hints():
    got = curl("--http1.0", url("/early"))
    assert got.statuses() == [200] and got.body == b"done", got


# ---- connections -----------------------------------------------------------------------------------------------------


@case
def requests_follow_each_other_on_one_connection():
    # Over HTTP/1 alone: with prior knowledge of HTTP/2, curl 7.88 calls every reuse a failure, whoever answers.
    paths = (("/file", []), ("/nothing", []), ("/pieces", []), ("/file", ["-r", "0-9"]), ("/mirror", ["-d", "x"]), ("/file", ["--head"]))
    # What is asked for after `--next` knows nothing of the options before.
    asks = [[*command("--write-out", "%{stderr}%{num_connects} ", *more)[1:], url(path)] for path, more in paths]
    ask = [part for number, one in enumerate(asks) for part in (["--next", *one] if number else one)]
    done = subprocess.run(["curl", *ask], capture_output=True, timeout=PATIENCE_S)
    assert done.stderr.split() == [b"1", b"0", b"0", b"0", b"0", b"0"], done.stderr


@case
def many_at_once_are_answered():
    # Over HTTP/1 alone, as above.
    with tempfile.TemporaryDirectory() as folder:
        got = curl("--parallel", "--parallel-max", "50", "-o", f"{folder}/#1", url("/file?[1-200]"))
        sizes = [os.path.getsize(os.path.join(folder, name)) for name in os.listdir(folder)]
        assert got.code == 0 and sizes == [len(FILE)] * 200, (got.code, got.complaint, sizes)


@case
def a_proxy_is_asked_in_whole_addresses():
    said = curl("-x", f"http://{TO}", url("/mirror?a"), straight=False).said()
    assert said["target"] == "/mirror?a" and headers_of(said, "host") == [AUTHORITY], said
    # The target says for whom it is, whatever the header does (RFC 9112, section 3.2.2).
    said = curl("-x", f"http://{TO}", "-H", "Host: other.test", url("/mirror"), straight=False).said()
    assert headers_of(said, "host") == [AUTHORITY], said
    assert headers_of(said, "proxy-connection") == [], said


@case
def another_name_finds_no_route():
    assert curl("--connect-to", f"::{TO}", "http://nobody.test/mirror").statuses() == [404]


@case
def options_of_the_socket_make_no_difference():
    for options in (["--tcp-fastopen"], ["--tcp-nodelay"], ["--no-tcp-nodelay"], ["--keepalive-time", "1"], ["--no-keepalive"], ["--ipv4"]):
        assert curl(*options, url("/mirror")).statuses() == [200], options


@case
def a_balancer_that_is_trusted_names_its_client():
    said = curl("--interface", BALANCER, "--haproxy-protocol", url("/mirror")).said()
    assert headers_of(said, "x-forwarded-for")[0].split(", ")[0] == BALANCER, said


@case
def nobody_else_may_name_a_client():
    got = curl("--haproxy-protocol", url("/mirror"))
    assert got.statuses() == [400], got
    said = curl("-H", "X-Forwarded-For: 9.9.9.9", url("/mirror")).said()
    assert headers_of(said, "x-forwarded-for") == ["127.0.0.1"], said


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    TO, AUTHORITY = sys.argv[1:]
    cases.run(CASES, WRONG)
