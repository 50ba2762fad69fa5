# SPDX-License-Identifier: MIT
"""A VM that has lost a host: another one of ft.peers gets the twin, and the VM goes home to ft.preferred by itself. With
the guest echo, clients that note what they are told, and "hosts" on one machine (pairs.py)."""

import contextlib
import json
import re
import time
from pathlib import Path

from echoes import check_disk
from pairs import Pair, PairHost
from test_life import Watcher
from test_protect import SOME, need_protect


@contextlib.contextmanager
def hosts_of(count, **ft):
    """A pair with so many hosts, each with a standby, and web1 at the first; ft.peers names them all. What ft says of a
    host is its number: preferred=0."""
    need_protect()
    with Pair() as pair:
        while len(pair.hosts) < count:
            pair.hosts.append(pair.enter_context(PairHost(pair.net)))
        peers = [pair.start_standby(host) for host in pair.hosts]
        if "preferred" in ft:
            ft["preferred"] = peers[ft["preferred"]]
        pair.make(ft={"peers": peers, **ft})
        pair.process = pair.start_primary()
        yield pair, peers


def protect(pair, peers, *options):
    pair.a.good("protect", "web1", "--witness", f"file:{pair.witness}", "--insecure", "--back", peers[0], *options)


def hear(watcher, name, **wanted):
    """The next event of that name and with these fields, and the names of all that came before it."""
    before = []
    while (event := watcher.hear_any())["event"] != name or any(event[key] != wanted[key] for key in wanted):
        before.append(event["event"])
    return event, before


def locked_kib(pid):
    return int(re.search(r"^VmLck:\s*(\d+) kB", Path(f"/proc/{pid}/status").read_text(), re.M)[1])


def test_another_host_gets_the_twin():
    """Nobody says where the twin shall be: the first of the list that is not this host has it. When that one is gone for
    good the VM gets another one, at the next host, which can take over."""
    with hosts_of(3, peers_after_s=1) as (pair, peers):
        third = pair.hosts[2]
        protect(pair, peers)
        before = pair.wait_for(pair.a, state="paired", peer=peers[1])
        clients = pair.clients("udp", "tcp")
        clients.wait_for_more(SOME)
        pair.b.waiting.kill()
        pair.kill(pair.b)
        says = pair.wait_for(pair.a, state="paired", peer=peers[2])
        follows = third.protection()["twin"]
        assert follows["memory"] == "locked" and locked_kib(pair.pid(third)) >= 16 << 10, follows
        assert says["generation"] > before["generation"]
        assert json.loads((pair.a.root / "web1/.protected").read_text())["peer"] == peers[2]
        clients.wait_for_more(SOME)
        pair.kill(pair.a)
        pair.wait_for(third, role="primary")
        clients.wait_for_more(SOME)
        told = clients.stop()
        assert check_disk(pair.disk(third), told) == len(told)
        third.wait_until(lambda: locked_kib(pair.pid(third)) < 16 << 10, "memory that is not locked any more")


def test_the_first_sync_is_cut_short():
    """The VM dies before anybody has had all of it, and nobody has said where its twin shall be: when it runs again it
    looks for one by itself."""
    with hosts_of(2) as (pair, peers):
        saved = pair.a.root / "web1/.protected"
        pair.lines[pair.b].cut()
        asks = pair.a.begin("protect", "web1", "--witness", f"file:{pair.witness}", "--insecure", "--back", peers[0])
        pair.a.wait_until(lambda: saved.exists() and json.loads(saved.read_text())["generation"], "a record of its own")
        pair.wait_for(pair.a, state="solo", peer=peers[1])
        pair.kill(pair.a)
        asks.wait()
        assert json.loads(saved.read_text())["peer"] == ""
        pair.lines[pair.b].mend()
        pair.start_primary()
        pair.wait_for(pair.a, role="primary", state="paired", peer=peers[1])


def test_the_former_one_is_waited_for():
    """As long as it may be booting nobody else gets the VM; when it is back it has its twin again, by itself, and who
    watches hears how far that is."""
    with hosts_of(3, peers_after_s=600) as (pair, peers):
        protect(pair, peers)
        pair.wait_for(pair.a, state="paired", peer=peers[1])
        address = pair.standbys[pair.b]
        pair.b.waiting.kill()
        pair.b.waiting.wait()
        pair.kill(pair.b)
        pair.wait_for(pair.a, state="solo", why=lambda why: why and peers[1] in why)
        watcher = Watcher(pair.a, "web1")
        pair.b.begin("standby", ".", "--listen", address, "--insecure")
        event, before = hear(watcher, "protection", state="paired")
        assert event["peer"] == peers[1] and "protect-progress" in before, (event, before)
        assert not pair.hosts[2].arriving()


test_the_former_one_is_waited_for.waits = True


def test_this_host_itself_is_refused():
    """A twin on the VM's own host would die with it: said by a name of this host, it is refused, with the way out."""
    with hosts_of(2) as (pair, peers):
        to = "10.99.0.1:" + peers[1].rsplit(":", 1)[1]
        words = pair.a.bad(4, "10.99.0.1:.* is this host itself", "protect", "web1", "--to", to, "--witness",
                           f"file:{pair.witness}", "--insecure")
        assert "hint: name another host" in words, words
        assert pair.a.protection() == {}


def test_home():
    """The VM goes home by itself when all was well for long enough: each time that takes twice as long, and somebody who
    moves it away is not contradicted, until it has been home again."""
    with hosts_of(2, preferred=0, preferred_after_s=1) as (pair, peers):
        watcher = Watcher(pair.a, "web1")
        protect(pair, peers)
        event, _ = hear(watcher, "home", state="here")
        assert event["preferred"] == peers[0] and event["moves"] == 0, event
        clients = pair.clients("udp", "tcp")
        for moves in range(2):
            clients.wait_for_more(SOME)
            when = pair.kill(pair.a)
            says = pair.wait_for(pair.a, role="primary", state="paired", home=lambda home: home["state"] == "here")
            assert says["home"]["moves"] == moves + 1, says
            assert time.monotonic() - when > 2 ** moves, "it went home before all was well for long enough"
        pair.a.good("switchover", "web1")
        says = pair.wait_for(pair.b, state="paired", home=lambda home: home["state"] == "stays")["home"]
        assert "in_s" not in says and "somebody has moved it away" in says["why"], says
        clients.wait_for_more(SOME)
        pair.b.good("switchover", "web1")
        pair.wait_for(pair.a, state="paired", home=lambda home: home["state"] == "here" and home["moves"] == 3)
        pair.kill(pair.a)
        says = pair.wait_for(pair.b, state="paired", home=lambda home: home and home["state"] == "waits")["home"]
        assert says["moves"] == 3 and 0 < says["in_s"] <= 8, says
        clients.wait_for_more(SOME)
        told = clients.stop()
        assert check_disk(pair.disk(pair.b), told) == len(told)
