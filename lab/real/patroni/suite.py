#!/usr/bin/env python3
"""Patroni's own client of etcd, unchanged, against HOST:PORT.

usage: suite.py HOST:PORT        needs the PyPI package patroni[etcd3]

Two members of a PostgreSQL cluster that does not exist race for its leader's key, hold it, give it up and lose it, as
Patroni's main loop would have them.
"""
import os
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from cases import run  # noqa: E402
from patroni.dcs.etcd3 import Etcd3, LeaseNotFound, PatroniEtcd3Client  # noqa: E402
from patroni.postgresql.mpp import get_mpp  # noqa: E402

HOST, PORT = sys.argv[1].rsplit(":", 1)
SCOPE = f"s{os.getpid()}"


def member(name, ttl=20, **more):
    config = {"host": HOST, "port": int(PORT), "protocol": "http", "scope": SCOPE, "name": name, "namespace": "/service/",
              "ttl": ttl, "retry_timeout": 5, "loop_wait": 1, "patronictl": False, **more}
    return Etcd3(config, get_mpp({}))


def until(what, look, seconds=10):
    deadline = time.monotonic() + seconds
    while not look():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


one, other = member("one"), member("other")


def cluster(of):
    return of.get_cluster()


def finds_the_way():
    assert isinstance(one._client, PatroniEtcd3Client) and one._client.version_prefix == "/v3"
    assert one._client.machines_cache == [f"http://{HOST}:{PORT}"], one._client.machines_cache
    assert one._lease and other._lease and one._lease != other._lease


def initialize():
    assert one.initialize(create_new=True, sysid="7")
    assert not other.initialize(create_new=True, sysid="8"), "a race has one winner"
    until("the other sees it", lambda: cluster(other).initialize == "7")


def members():
    for dcs in (one, other):
        assert dcs.touch_member({"conn_url": f"postgres://{dcs._name}", "role": "replica", "state": "running"})
    until("both see both", lambda: {m.name for m in cluster(one).members} == {m.name for m in cluster(other).members} == {"one", "other"})


def leader():
    assert one.attempt_to_acquire_leader()
    assert not other.attempt_to_acquire_leader()
    until("the other sees the leader", lambda: cluster(other).leader_name == "one")
    seen = cluster(one)
    for _ in range(3):
        assert one.update_leader(cluster(one), 12345, None)
    assert seen.leader.session == one._lease, (seen.leader.session, one._lease)
    until("the optime follows", lambda: cluster(other).status.last_lsn == 12345)
    assert not other.update_leader(cluster(other), 1, None), "who does not lead cannot renew"


def handed_over():
    assert one.delete_leader(cluster(one).leader, 12345)
    until("there is no leader", lambda: cluster(other).is_unlocked())
    assert other.attempt_to_acquire_leader()
    until("the first sees the next", lambda: cluster(one).leader_name == "other")
    assert not one.delete_leader(cluster(other).leader, 1), "who does not lead cannot end it"
    assert other.delete_leader(cluster(other).leader, 1)


def settings():
    assert one.set_config_value('{"ttl": 20}')
    until("the other sees the settings", lambda: cluster(other).config and cluster(other).config.data == {"ttl": 20})
    version = cluster(other).config.version
    assert other.set_config_value('{"ttl": 30}', version)
    assert not one.set_config_value('{"ttl": 40}', version), "an old version is refused"
    assert one.set_history_value('[[1, 2, "x"]]')
    assert one.write_sync_state("one", ["other"], 0, version=None)
    until("synchronous members are seen", lambda: cluster(other).sync.leader == "one")
    assert one.manual_failover("one", "other")
    until("a failover is asked for", lambda: cluster(other).failover and cluster(other).failover.candidate == "other")


def wakes():
    """A change of the leader's key wakes who waits, long before the time is over."""
    cluster(other)
    other.event.clear()
    began = time.monotonic()
    assert one.attempt_to_acquire_leader()
    assert other.watch(None, 10) and time.monotonic() - began < 5
    assert one.delete_leader(cluster(one).leader, 1)


def lost_lease():
    """Whoever stops renewing loses the leader's key and the member's, and not before its time."""
    frozen = member("frozen", ttl=20)
    frozen._ttl = 3
    frozen._client.call_rpc("/lease/revoke", {"ID": frozen._lease})
    frozen._lease = None
    frozen.refresh_lease()
    assert frozen.touch_member({"conn_url": "postgres://frozen"})
    assert frozen.attempt_to_acquire_leader()
    began = time.monotonic()
    until("all see it lead", lambda: cluster(other).leader_name == "frozen")
    until("its time is over", lambda: cluster(other).is_unlocked(), 15)
    assert time.monotonic() - began > 2.5, "not before its time"
    until("its member is gone", lambda: "frozen" not in {m.name for m in cluster(other).members})
    assert other.attempt_to_acquire_leader()
    try:
        frozen._client.put("/x", "1", frozen._lease)
        raise AssertionError("a lease that is over is over")
    except LeaseNotFound:
        pass
    assert frozen._client.lease_keepalive(frozen._lease) in (None, 0), "and is not renewed"


def ends():
    assert one.delete_cluster()
    until("nothing is left", lambda: not cluster(other).members and not cluster(other).initialize)


CASES = [finds_the_way, initialize, members, leader, handed_over, settings, wakes, lost_lease, ends]
run([(case.__name__, case) for case in CASES], (Exception,))
