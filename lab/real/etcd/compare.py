#!/usr/bin/env python3
"""The same requests to Bramble and to etcd, and whether both answer the same.

usage: compare.py OURS THEIRS [COUNT] [SEED]        each HOST:PORT; THEIRS is etcd 3.4 with nothing in it

Everything is compared: status, texts, codes, bodies. Headers are not, and revisions only by their order: Bramble's own
writes take some, so that ours skip numbers; one of ours has to stand for one of theirs, always the same, in the same order.
First come cases that somebody thought of, then COUNT requests (default 500) made up from SEED.
"""
import base64
import json
import random
import sys
import urllib.error
import urllib.request

OURS, THEIRS = sys.argv[1], sys.argv[2]
COUNT = int(sys.argv[3]) if len(sys.argv) > 3 else 500
SEED = int(sys.argv[4]) if len(sys.argv) > 4 else random.randrange(1 << 32)
REVISIONS = {"create_revision", "mod_revision", "compact_revision"}


def b(text):
    return base64.b64encode(text if isinstance(text, bytes) else text.encode()).decode()


class Side:
    def __init__(self, address):
        self.address, self.named, self.revision = address, {}, 0

    def fill(self, body):
        """`$name` is the revision after the step of that name, here."""
        if isinstance(body, dict):
            return {key: self.fill(value) for key, value in body.items()}
        if isinstance(body, list):
            return [self.fill(value) for value in body]
        if isinstance(body, str) and body.startswith("$"):
            name, _, more = body[1:].partition("+")
            return str(self.named[name] + int(more or 0))
        return body

    def ask(self, path, body):
        data = json.dumps(self.fill(body)).encode() if body is not None else b""
        request = urllib.request.Request(f"http://{self.address}{path}", data, {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=20) as answer:
                return answer.status, json.loads(answer.read())
        except urllib.error.HTTPError as error:
            text = error.read().decode()
            return error.code, json.loads(text) if text.startswith("{") else text.strip()

    def watch(self, create, count):
        """What a watch tells: `count` events, or its end."""
        data = json.dumps({"create_request": self.fill(create)}).encode()
        request = urllib.request.Request(f"http://{self.address}/v3/watch", data, {"Content-Type": "application/json"})
        told, events = [], 0
        with urllib.request.urlopen(request, timeout=20) as answer:
            for line in answer:
                result = json.loads(line)["result"]
                told.append({key: value for key, value in result.items() if key not in ("header", "events")})
                told.extend(result.get("events", []))
                events += len(result.get("events", []))
                if events >= count or result.get("canceled"):
                    # How changes are bundled is nobody's promise.
                    break
        return [one for one in told if one][: count + 1]


class Differ(Exception):
    pass


class Judge:
    def __init__(self):
        self.pairs = {}

    def same(self, ours, theirs, where=""):
        if isinstance(ours, dict) and isinstance(theirs, dict):
            keys = (ours.keys() | theirs.keys()) - {"header"}
            for key in sorted(keys):
                if key not in ours or key not in theirs:
                    raise Differ(f"{where}/{key}: ours {ours.get(key)!r}, theirs {theirs.get(key)!r}")
                if key in REVISIONS:
                    self.pair(int(ours[key]), int(theirs[key]), f"{where}/{key}")
                else:
                    self.same(ours[key], theirs[key], f"{where}/{key}")
        elif isinstance(ours, list) and isinstance(theirs, list):
            if len(ours) != len(theirs):
                raise Differ(f"{where}: {len(ours)} of ours, {len(theirs)} of theirs\n{ours}\n{theirs}")
            for at, (one, other) in enumerate(zip(ours, theirs)):
                self.same(one, other, f"{where}/{at}")
        elif ours != theirs:
            raise Differ(f"{where}: ours {ours!r}, theirs {theirs!r}")

    def pair(self, ours, theirs, where):
        if self.pairs.setdefault(theirs, ours) != ours:
            raise Differ(f"{where}: their revision {theirs} was our {self.pairs[theirs]} and is our {ours}")

    def in_order(self):
        ours = [self.pairs[theirs] for theirs in sorted(self.pairs)]
        if ours != sorted(set(ours)):
            raise Differ(f"revisions are in another order: {ours}")


ours, theirs, judge = Side(OURS), Side(THEIRS), Judge()


def step(path, body, name=None):
    answers = []
    for side in (ours, theirs):
        status, answer = side.ask(path, body)
        answers.append((status, answer))
        if isinstance(answer, dict) and "header" in answer:
            revision = int(answer["header"].get("revision", 0))
            if revision < side.revision and not path.startswith("/v3/kv/range"):
                raise Differ(f"{side.address}: revision {revision} after {side.revision}")
            side.revision = max(side.revision, revision)
        side.named[name or "last"] = side.revision
    try:
        judge.same(answers[0][0], answers[1][0], "status")
        judge.same(answers[0][1], answers[1][1])
    except Differ as differ:
        raise Differ(f"{path} {json.dumps(body)}\n  {differ}\n  ours   {answers[0]}\n  theirs {answers[1]}") from None


def put(key, value, name=None, **more):
    step("/v3/kv/put", {"key": b(key), "value": b(value), **more}, name)


def get(key, end=None, **more):
    step("/v3/kv/range", {"key": b(key), **({"range_end": b(end)} if end is not None else {}), **more})


def watch(create, count):
    judge.same(ours.watch(create, count), theirs.watch(create, count), f"watch {create}")


def op_range(key, end=None, **more):
    return {"request_range": {"key": b(key), **({"range_end": b(end)} if end is not None else {}), **more}}


def op_put(key, value, **more):
    return {"request_put": {"key": b(key), "value": b(value), **more}}


def op_delete(key, end=None, **more):
    return {"request_delete_range": {"key": b(key), **({"range_end": b(end)} if end is not None else {}), **more}}


def op_txn(compare=(), success=(), failure=()):
    return {"request_txn": {"compare": list(compare), "success": list(success), "failure": list(failure)}}


def txn(compare=(), success=(), failure=()):
    step("/v3/kv/txn", {"compare": list(compare), "success": list(success), "failure": list(failure)})


def thought_of():
    get("none")
    put("a", "1", "first")
    put("a", "2", prev_kv=True)
    put("b", "", prev_kv=True)
    put(b"\xff\x00\x80", b"\x00\xff")
    watch({"key": b("a"), "start_revision": "1"}, 2)
    get("a", revision="1")
    get("a")
    get(b"\x00", b"\x00")
    get("a", "c", keys_only=True)
    get("a", "c", count_only=True)
    get("a", "c", limit=1)
    get("a", "c", limit="1", sort_order="DESCEND", sort_target="MOD")
    get("a", "c", sortOrder="DESCEND")
    get("c", "a")
    get("a", revision="$first")
    get("a", "\0", revision="$first+1")
    get("a", revision="$last+1000")
    get("a", "z", min_mod_revision="$first+1")
    get("a", "z", max_create_revision="$first", limit=1)
    # Mistakes.
    step("/v3/kv/range", {})
    step("/v3/kv/range", {"key": ""})
    step("/v3/kv/put", {"value": b("x")})
    step("/v3/kv/deleterange", {})
    step("/v3/kv/put", {"key": b("a"), "value": b("x"), "ignore_value": True})
    step("/v3/kv/put", {"key": b("a"), "lease": "1", "ignore_lease": True})
    step("/v3/kv/put", {"key": b("nowhere"), "ignore_value": True})
    step("/v3/kv/put", {"key": b("a"), "lease": "424242"})
    step("/v3/kv/put", {"key": b("big"), "value": b("x" * (1600 * 1024))})
    # Leases.
    step("/v3/lease/grant", {"TTL": "100", "ID": "7"})
    step("/v3/lease/grant", {"TTL": "100", "ID": "7"})
    step("/v3/lease/grant", {"TTL": "99999999999", "ID": "9"})
    put("leased/1", "x", lease="7")
    put("leased/2", "y", lease=7)
    put("leased/1", "z", ignore_lease=True, prev_kv=True)
    step("/v3/kv/put", {"key": b("leased/1"), "ignore_value": True, "lease": "7", "prev_kv": True})
    get("leased/", "leased0")
    step("/v3/lease/timetolive", {"ID": "424242", "keys": True})
    step("/v3/lease/leases", {})
    step("/v3/kv/lease/leases", {})
    txn([{"key": b("leased/1"), "target": "LEASE", "lease": "7"}], [op_range("leased/1")])
    step("/v3/lease/revoke", {"ID": "7"})
    step("/v3/lease/revoke", {"ID": "7"})
    get("leased/", "leased0")
    # Transactions.
    exists = {"key": b("a"), "target": "VERSION", "result": "GREATER", "version": "0"}
    txn()
    txn([exists], [op_put("t", "1", prev_kv=True), op_range("t"), op_delete("b", prev_kv=True), op_range("a", "z")])
    txn([{**exists, "result": "LESS"}], [op_put("t", "2")], [op_range("t"), op_range("a", "z", limit=1, sort_order="DESCEND")])
    txn([exists], [op_txn([exists], [op_put("n", "1"), op_range("n")], [op_put("n", "2")]), op_put("m", "1")])
    txn([exists], [op_put("q", "1"), op_txn([{"key": b("q"), "target": "CREATE", "create_revision": "0"}], [op_range("q")])])
    txn([], [op_put("a", "1"), op_put("a", "2")])
    txn([], [op_put("a", "1"), op_delete("a", "b")])
    txn([], [op_delete("x"), op_delete("x", "z"), op_delete("x")])
    txn([], [op_put("a", "1"), op_txn([], [op_put("a", "2")])])
    txn([], [op_txn([], [op_put("a2", "1")], [op_put("a2", "2")])])
    txn([], [op_put(f"many/{number:03}", "x") for number in range(128)])
    txn([], [op_put(f"many/{number:03}", "x") for number in range(129)])
    txn([], [op_put("gone", "1", lease="424242")])
    txn([], [op_range("gone")])
    txn([{"key": b("many/"), "range_end": b("many0"), "target": "VERSION", "version": "1"}], [op_range("many/", "many0", count_only=True)])
    txn([{"key": b("many/"), "range_end": b("many0"), "target": "VERSION", "version": "2"}], [op_range("a")], [op_range("b")])
    txn([{"key": b("zz"), "target": "VALUE", "value": b("x"), "result": "NOT_EQUAL"}], [op_range("a")], [op_range("a", count_only=True)])
    txn([{"key": b("a"), "target": "VALUE", "value": b("2")}], [op_delete("many/", "many0")])
    txn([{}], [op_range("a")])
    txn([], [{"request_put": {}}])
    step("/v3/kv/deleterange", {"key": b("none")})
    step("/v3/kv/deleterange", {"key": b("t"), "prev_kv": True})
    # Watches.
    put("w/1", "1", "watched")
    put("w/2", "1")
    put("w/1", "2")
    step("/v3/kv/deleterange", {"key": b("w/1")})
    txn([], [op_put("w/3", "1"), op_put("w/4", "1"), op_delete("w/2")])
    every = {"key": b("w/"), "range_end": b("w0"), "start_revision": "$watched"}
    watch(every, 7)
    watch({**every, "prev_kv": True}, 7)
    watch({**every, "filters": ["NOPUT"]}, 2)
    watch({**every, "filters": ["NODELETE"], "key": b("w/1"), "range_end": ""}, 2)
    watch({"start_revision": "$watched", "range_end": b("\0")}, 7)
    # Forgetting.
    put("c", "1", "old")
    put("c", "2", "compacted")
    put("c", "3")
    step("/v3/kv/compaction", {"revision": "$compacted"})
    step("/v3/kv/compaction", {"revision": "$compacted"})
    step("/v3/kv/compaction", {"revision": "$compacted+1000"})
    get("c", revision="$old")
    get("c", revision="$compacted")
    get("c")
    watch({"key": b("c"), "start_revision": "$old"}, 1)
    # The rest.
    step("/v3/auth/authenticate", {"name": "root", "password": "x"})
    step("/v3/maintenance/alarm", {})
    step("/v3/maintenance/defragment", {})
    step("/v3/kv/nothing", {})
    step("/nothing", {})


def made_up(dice):
    names = ["r/a", "r/b", "r/c", "r/d", b"r/\x00", b"r/\xff", b"r/\xc3\xa9", "r/aa"]

    def key():
        return dice.choice(names)

    def end():
        return dice.choice([None, None, "r0", "\0", key()])

    def options():
        found = {}
        if dice.random() < 0.3:
            found["limit"] = dice.randrange(0, 4)
        if dice.random() < 0.3:
            found["sort_order"] = dice.choice(["NONE", "ASCEND", "DESCEND"])
            # Values and versions are the same for several keys, and sorting such is nobody's promise.
            found["sort_target"] = dice.choice(["KEY", "MOD"] if plain else ["KEY"])
        for flag in ("keys_only", "count_only"):
            if dice.random() < 0.1:
                found[flag] = True
        return found

    def compare():
        target = dice.choice(["VERSION", "CREATE", "MOD", "VALUE", "LEASE"])
        found = {"key": b(key()), "target": target, "result": dice.choice(["EQUAL", "GREATER", "LESS", "NOT_EQUAL"])}
        if dice.random() < 0.2:
            found["range_end"] = b("r0")
        if target == "VERSION":
            found["version"] = str(dice.randrange(0, 4))
        elif target == "VALUE":
            found["value"] = b(str(dice.randrange(0, 4)))
        elif target == "LEASE":
            found["lease"] = str(dice.choice([0, 71, 72]))
        elif dice.random() < 0.8:
            found["create_revision" if target == "CREATE" else "mod_revision"] = "$kept"
        return found

    def lease():
        return {"lease": str(dice.choice([71, 72]))} if dice.random() < 0.2 else {}

    def operation(depth):
        kind = dice.randrange(0, 4 if depth else 3)
        if kind == 0:
            return op_put(key(), str(dice.randrange(0, 4)), prev_kv=dice.random() < 0.3, **lease())
        if kind == 1:
            return op_range(key(), end(), **options())
        if kind == 2:
            # An end of "\0" etcd forgets where it looks for keys changed twice.
            return op_delete(key(), dice.choice([None, None, "r0", key()]), prev_kv=dice.random() < 0.5)
        return op_txn(*branches(depth - 1))

    def branches(depth):
        return ([compare() for _ in range(dice.randrange(0, 3))],
                [operation(depth) for _ in range(dice.randrange(0, 4))],
                [operation(depth) for _ in range(dice.randrange(0, 4))])

    for number in (71, 72):
        step("/v3/lease/grant", {"TTL": "3600", "ID": str(number)})
    put("r/a", "0", "kept")
    for number in range(COUNT):
        kind, plain = dice.random(), True
        if kind < 0.3:
            put(key(), str(dice.randrange(0, 4)), prev_kv=dice.random() < 0.3, **lease())
        elif kind < 0.5:
            at = {"revision": "$kept"} if dice.random() < 0.3 else {}
            get(key(), end(), **options(), **at)
        elif kind < 0.6:
            step("/v3/kv/deleterange", {"key": b(key()), **({"range_end": b("r0")} if dice.random() < 0.1 else {}), "prev_kv": True})
        else:
            plain = False
            txn(*branches(2))
        if dice.random() < 0.05:
            put("r/kept", str(number), "kept")
    watch({"key": b("r/"), "range_end": b("r0"), "start_revision": "$kept"}, 1)


try:
    thought_of()
    print(f"seed {SEED}")
    made_up(random.Random(SEED))
    judge.in_order()
except Differ as differ:
    print(f"they differ: {differ}")
    sys.exit(1)
print(f"the same in all; {len(judge.pairs)} revisions compared")
