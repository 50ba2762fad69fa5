# SPDX-License-Identifier: MIT
"""A VM that is failed over, gets its second copy back without a person, and goes home, again and again: nothing is lost,
nothing grows, and no disk is ever sent as a whole."""

import os
import random
import time
from pathlib import Path

from echoes import check_disk
from pairs import Pair
from test_protect import SOME, finish, need_protect

SETTLED = 2  # the first cycles are not like the others: heaps and files find their sizes
GROWTH = 1 << 20


def rss(pid):
    """Bytes that are in memory and the process's own."""
    fields = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return int(fields["RssAnon"].split()[0]) * 1024


class Books:
    """What processes hold, at the same point of each cycle."""

    def __init__(self):
        self.rows = {}  # name: [(bytes, descriptors)]

    def note(self, name, pid):
        self.rows.setdefault(name, []).append((rss(pid), len(os.listdir(f"/proc/{pid}/fd"))))

    def check(self):
        for name, rows in self.rows.items():
            rows = rows[SETTLED:]
            part = max(1, len(rows) // 4)
            for what, most, values in zip(("bytes of memory", "open files"), (GROWTH, 0), zip(*rows)):
                early, late = (sorted(some)[len(some) // 2] for some in (values[:part], values[-part:]))
                assert late - early <= most, f"{name}: {early} {what} at first, {late} after {len(rows)} cycles"


def cycle(pair, clients, before, books):
    """The host of the VM dies; it goes on at the other one, which takes the first back; it goes home."""
    home, away = pair.a, pair.b
    pair.kill(home)
    clients.wait_for_more(3)
    said = pair.wait_for(away, role="primary", state="paired", generation=lambda now: now > before["generation"])
    assert said["resync"]["what"] == "delta", said["resync"]
    clients.wait_for_more(3)
    away.good("switchover", pair.name)
    said = pair.wait_for(home, role="primary", state="paired")
    clients.wait_for_more(3)
    assert "WRONG" not in home.console(pair.name)
    for host in pair.hosts:
        name = "home" if host is home else "away"
        books.note(f"the standby at {name}", host.waiting.pid)
        books.note(f"the VM at {name}", pair.pid(host))
    return said


def soak(cycles, seed):
    need_protect()
    order, books = random.Random(seed), Books()
    with Pair(back=True) as pair:
        pair.start_primary()
        for host in pair.hosts:
            pair.start_standby(host)
        pair.protect()
        clients = pair.clients("udp", "tcp")
        clients.wait_for_more(SOME)
        before = pair.wait_for(pair.a, role="primary", state="paired")
        for number in range(cycles):
            time.sleep(order.random() * 0.2)  # a random moment, not a wait for something
            try:
                before = cycle(pair, clients, before, books)
            except AssertionError as error:
                raise AssertionError(f"cycle {number}, seed {seed}: {error}") from error
        told = finish(pair, clients, pair.a)
        pair.a.good("stop", pair.name)
        pair.b.wait_until(lambda: not pair.b.arriving(), "the end of the twin")
        assert pair.disks_equal()
        check_disk(pair.disk(pair.b), told)
    books.check()


def test_three_times_there_and_home():
    """Failover, redundancy again, home: three times. Nothing that anybody was told of is lost, connections stay, both
    disks are the same at the end."""
    soak(3, seed=1)


def test_a_hundred_times_there_and_home():
    """The same a hundred times: and nobody holds more memory or files at the end than at the beginning."""
    soak(100, seed=time.time_ns())


test_a_hundred_times_there_and_home.slow = True
test_a_hundred_times_there_and_home.time_limit = 1800
