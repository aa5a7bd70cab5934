#!/usr/bin/env python3
"""nghttp and h2load, the clients of nghttp2, against the gateway: every request of every case is answered as it must be.

usage: suite.py HOST:PORT AUTHORITY        needs nghttp and h2load (Debian's nghttp2-client); the service is that of curl
"""
import hashlib
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
import cases

CASES = []
WRONG = (AssertionError, ValueError, subprocess.TimeoutExpired)
PATIENCE_S = 120
FILE_BYTES = 256_000


def case(test):
    CASES.append((test.__name__, test))


class Nghttp:
    """What nghttp ended with: the statuses it was told, and what it wrote."""

    def __init__(self, *arguments, data=None):
        with tempfile.NamedTemporaryFile() as file:
            more = []
            if data is not None:
                file.write(data)
                file.flush()
                more = ["-d", file.name]
            arguments = [url(part[1:]) if part.startswith("@") else part for part in arguments]
            ask = ["nghttp", "-t", "20s", "-H", f":authority: {AUTHORITY}", *more, *arguments]
            self.done = subprocess.run(ask, capture_output=True, timeout=PATIENCE_S)
        self.said = self.done.stdout.decode(errors="replace")

    def statuses(self):
        """With -v: one for each stream, in the order they came."""
        return [int(status) for status in re.findall(r"recv \(stream_id=\d+\)\S* :status: (\d+)", self.plain())]

    def plain(self):
        return re.sub(r"\x1b\[[0-9;]*m", "", self.said)

    def mirrored(self):
        assert self.done.returncode == 0, self
        return json.loads(self.said)

    def __repr__(self):
        return f"nghttp ended with {self.done.returncode}: {self.done.stderr.decode()[-300:]} {self.plain()[-600:]}"


def url(path):
    return f"http://{TO}{path}"


def h2load(requests, *arguments, bytes_each=None):
    """Loads, and wants every request to succeed."""
    arguments = [f"http://{AUTHORITY}{part[1:]}" if part.startswith("@") else part for part in arguments]
    ask = ["h2load", "-n", str(requests), f"--connect-to={TO}", *arguments]
    done = subprocess.run(ask, capture_output=True, text=True, timeout=PATIENCE_S)
    told = re.search(r"requests: (\d+) total, (\d+) started, (\d+) done, (\d+) succeeded, (\d+) failed", done.stdout)
    assert told and [int(number) for number in told.groups()] == [requests] * 4 + [0], (ask, done.stdout[-700:], done.stderr)
    codes = re.search(r"status codes: (\d+) 2xx", done.stdout)
    assert int(codes.group(1)) == requests, done.stdout
    if bytes_each is not None:
        data = re.search(r"\((\d+)\) data", done.stdout)
        assert int(data.group(1)) == requests * bytes_each, done.stdout


@case
def a_page_is_told():
    got = Nghttp("-v", "@/mirror")
    assert got.statuses() == [200], got


@case
def several_with_weights_are_answered():
    paths = ["@/file?1", "@/pieces", "@/mirror", "@/nothing", "@/file?2", "@/mirror?last"]
    got = Nghttp("-nv", "-p", "256", "-p", "1", "-p", "128", *paths)
    assert sorted(got.statuses()) == [200] * 5 + [204], got
    got = Nghttp("-nv", "--no-dep", *paths)
    assert sorted(got.statuses()) == [200] * 5 + [204], got
    got = Nghttp("-nv", "--no-rfc7540-pri", *paths)
    assert sorted(got.statuses()) == [200] * 5 + [204], got


@case
def the_same_many_times_is_answered_each_time():
    got = Nghttp("-nv", "-m", "300", "@/mirror")
    assert got.statuses() == [200] * 300, got


@case
def more_at_once_than_are_allowed_wait():
    got = Nghttp("-nv", "-M", "1000", "-m", "500", "@/mirror")
    # Those beyond the bound before it is known are refused in a way that says they may be sent again.
    told = re.findall(r"recv RST_STREAM.*?\n.*?error_code=(\w+)", got.plain())
    assert set(told) <= {"REFUSED_STREAM"} and len(got.statuses()) + len(told) == 500, got


@case
def an_upgrade_from_http_1_is_not_taken():
    got = Nghttp("-v", "-u", "-H", f"host: {AUTHORITY}", "@/mirror")
    # It has no way to go on without one (RFC 9113, section 3.1, gave the upgrade up).
    assert "HTTP/1.1 200" in got.plain() and "101" not in got.plain().split("\n\n")[0], got


@case
def any_method_arrives():
    for method in ("HEAD", "OPTIONS", "PUT", "DELETE", "PROPFIND"):
        got = Nghttp("-v", f"-H:method: {method}", "@/mirror")
        assert got.statuses() == [200], got
        assert method == "HEAD" or f'"method": "{method}"' in got.plain(), got


@case
def a_body_arrives():
    data = os.urandom(2_000_000)
    for options in ([], ["--no-content-length"], ["-b", "255"], ["--no-content-length", "-b", "100"]):
        said = Nghttp(*options, "@/mirror", data=data).mirrored()
        assert said["sha256"] == hashlib.sha256(data).hexdigest() and said["method"] == "POST", (options, said)


@case
def a_body_with_trailers_arrives():
    said = Nghttp("--trailer", "x-end: yes", "@/mirror", data=b"four" * 10_000).mirrored()
    assert said["bytes"] == 40_000, said


@case
def who_expects_to_be_told_sends_all_the_same():
    said = Nghttp("--expect-continue", "@/mirror", data=b"five!").mirrored()
    assert said["bytes"] == 5, said


@case
def a_head_in_several_frames_arrives():
    said = Nghttp("--continuation", "@/mirror").mirrored()
    long = [value for name, value in said["headers"] if name.startswith("continuation-test-")]
    assert long and len(long[0]) > 1_000, [name for name, _ in said["headers"]]


@case
def padding_is_thrown_away():
    got = Nghttp("-nv", "-b", "256", "-m", "20", "@/mirror")
    assert got.statuses() == [200] * 20, got


@case
def small_windows_are_kept_to():
    for stream, connection in (("1", "16"), ("4", "30"), ("10", "16"), ("30", "16"), ("30", "30")):
        path = "/mirror" if stream == "1" else "/file"
        got = Nghttp("-nv", "-w", stream, "-W", connection, "-m", "3", f"@{path}")
        assert got.statuses() == [200] * 3, (stream, connection, got)
        most = max(int(length) for length in re.findall(r"recv DATA frame <length=(\d+)", got.plain()))
        assert most <= 2 ** int(stream) - 1, (stream, most)


@case
def tables_of_any_size_are_kept_to():
    # Not `-c 0 -c 4096`, two sizes in one SETTINGS: the h2 crate keeps the last, and so does not say that it emptied its
    # table in between (RFC 7541, section 4.2); nghttp ends the connection then.
    for sizes in (["-c", "0"], ["-c", "100000"], ["--encoder-header-table-size", "0"]):
        got = Nghttp("-nv", *sizes, "-m", "20", "@/mirror")
        assert got.statuses() == [200] * 20, (sizes, got)


@case
def trailers_of_answers_arrive():
    got = Nghttp("-v", "@/trailers")
    assert "x-end: it is" in got.plain(), got


@case
def nothing_is_pushed():
    got = Nghttp("-nav", "--no-push", "@/mirror")
    assert got.statuses() == [200] and "PUSH_PROMISE" not in got.plain(), got


@case
def many_streams_succeed():
    # Below what one client may have under way: above it is told to come again (429).
    h2load(20_000, "-c", "10", "-m", "100", "@/nothing", bytes_each=0)
    h2load(2_000, "-c", "10", "-m", "32", "@/file", bytes_each=FILE_BYTES)


@case
def windows_of_a_byte_succeed():
    h2load(20, "-c", "2", "-m", "5", "-w", "1", "@/mirror")
    h2load(200, "-c", "4", "-m", "10", "-w", "12", "-W", "16", "@/file", bytes_each=FILE_BYTES)
    h2load(200, "-c", "4", "-m", "10", "-f", "1048576", "@/file", bytes_each=FILE_BYTES)


@case
def uploads_succeed():
    with tempfile.NamedTemporaryFile() as file:
        file.write(os.urandom(100_000))
        file.flush()
        h2load(2_000, "-c", "10", "-m", "20", "-d", file.name, "@/mirror")
        h2load(1_000, "--h1", "-c", "20", "-d", file.name, "@/mirror")


@case
def connections_at_a_rate_succeed():
    h2load(500, "-c", "100", "-r", "50", "--rate-period", "200ms", "-m", "5", "@/nothing")
    h2load(500, "--h1", "-c", "100", "-r", "50", "--rate-period", "200ms", "@/nothing")


@case
def pipelines_of_http_1_succeed():
    h2load(10_000, "--h1", "-c", "20", "-m", "16", "@/mirror")
    h2load(1_000, "--h1", "-c", "10", "-m", "4", "@/file", bytes_each=FILE_BYTES)


@case
def several_pages_in_turn_succeed():
    h2load(3_000, "-c", "10", "-m", "10", "@/mirror", "@/nothing", "@/gzip", "@/pieces?")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    TO, AUTHORITY = sys.argv[1:]
    cases.run(CASES, WRONG)
