# SPDX-License-Identifier: MIT
"""A VM that is failed over, gets its second copy back without a person, and goes home, again and again, and one whose
twin dies again and again: nothing is lost, nothing grows, and no disk is ever sent as a whole."""

import collections
import contextlib
import os
import random
import re
import statistics
import time
from pathlib import Path

from echoes import check_disk
from pairs import Pair
from test_protect import SOME, finish, need_protect
from test_resync import disks_become_equal

SETTLED = 1  # the first row of a process is not like the others: its heap finds its size
STEADY = 0.3  # seconds; it reads the witness's folder now and then, or somebody just comes
GROWTH = 1 << 20  # bytes, of one process, from its first settled row to its last
CONNECTED = "03"  # /proc/net/unix


def own_memory(pid):
    """Bytes that are in memory and the process's own."""
    fields = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return int(fields["RssAnon"].split()[0]) * 1024


def links(pid):
    """What its descriptors lead to."""
    found = []
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # it closes just now
            found.append(os.readlink(link))
    return found


def files(pid):
    """What is open, without numbers: {kind: how many}."""
    return collections.Counter(re.sub(r"\[\d+\]", "", link) for link in links(pid))


def is_asked(pid):
    """Whether somebody still has a connection to one of its sockets: a status that has just ended, say."""
    ours = set(links(pid))
    sockets = [line.split() for line in Path(f"/proc/{pid}/net/unix").read_text().splitlines()[1:]]
    return any(len(row) > 7 and row[5] == CONNECTED and f"socket:[{row[6]}]" in ours for row in sockets)


def growth(values):
    """From the first to the last, by that half of the time which says less: an epoch that is larger than any before is a
    step, and memory that is lost is lost in each cycle."""
    third = -(-len(values) // 3)
    if len(values) < 3:
        return 0
    first, last = statistics.median(values[:third]), statistics.median(values[-third:])
    middle = statistics.median_low(values[third:-third] or values)
    return min(middle - first, last - middle) * 2 * (len(values) - 1) / (len(values) - third)


def test_what_is_growth():
    """Of rows as they have been: steps are none; an eighth of GROWTH in each of twelve cycles is."""
    steps = [22536192, 22409216, 22523904, 22433792, 22601728, 23490560, 23437312, 23834624]
    assert growth(steps) <= GROWTH and growth([0]) == 0
    for at in range(9):
        assert growth([0] * at + [5 * GROWTH] * (8 - at)) == 0
    order = random.Random(2)
    for _ in range(100):
        noise = [order.randrange(GROWTH // 8) for _ in range(13)]
        assert growth(noise) <= GROWTH < growth([at * GROWTH // 8 + more for at, more in enumerate(noise)])


class Books:
    """What processes hold when the guest stands still and nobody asks, at the same point of each cycle."""

    def __init__(self):
        self.memory = collections.defaultdict(list)  # (name, pid): [bytes]
        self.files = {}  # (name, kind of cycle): what was open after the first of them

    def note(self, pair, name, cycle, pid):
        now = {}

        def is_as_before():
            now["open"] = files(pid)
            return now["open"] == self.files[name, cycle]

        def is_steady():
            first = files(pid)
            time.sleep(STEADY)
            self.files[name, cycle] = files(pid)
            return first == self.files[name, cycle]

        pair.a.wait_until(lambda: not is_asked(pid), f"silence of {name}")
        if (name, cycle) not in self.files:
            pair.a.wait_until(is_steady, f"the same files of {name} twice")
        try:
            pair.a.wait_until(is_as_before, "the same files", 5)
        except AssertionError:
            first, last = self.files[name, cycle], now["open"]
            raise AssertionError(f"{name} has {last - first} more files open, and {first - last} less") from None
        self.memory[name, pid].append(own_memory(pid))

    def check(self, least):
        """One process has had the VM for so many cycles at least."""
        assert max(len(rows) for (name, _), rows in self.memory.items() if "VM" in name) >= least
        for (name, _), rows in self.memory.items():
            more = growth(rows[SETTLED:])
            assert more <= GROWTH, f"{name} has {more:.0f} bytes of memory more after {len(rows)} cycles: {rows}"


def look(pair, books, cycle):
    """The guest stands still: both disks are the same, and nobody holds more than in the cycle before."""
    pair.a.good("pause", pair.name)
    disks_become_equal(pair)
    for host, where in [(pair.a, "home"), (pair.b, "away")]:
        books.note(pair, f"the standby at {where}", "", host.waiting.pid)
        books.note(pair, f"the VM at {where}", cycle, pair.pid(host))
    pair.a.good("resume", pair.name)


def is_paired_again(pair, host, before):
    """What it says then; of the disks it has sent what differs."""
    said = pair.wait_for(host, role="primary", state="paired", generation=lambda now: now > before["generation"])
    assert said["resync"]["what"] == "delta", said["resync"]
    return said


def there_and_home(pair, clients, before, books):
    """The host of the VM dies; it goes on at the other one, which takes the first back; it goes home."""
    home, away = pair.a, pair.b
    pair.kill(home)
    clients.wait_for_more(3)
    before = is_paired_again(pair, away, before)
    clients.wait_for_more(3)
    away.good("switchover", pair.name)
    before = is_paired_again(pair, home, before)
    clients.wait_for_more(3)
    look(pair, books, "failover")
    return before


def without_twin(pair, clients, before, books):
    """The twin dies, and gets its place back when somebody asks for it, which is sooner than by itself."""
    pair.kill(pair.b)
    clients.wait_for_more(3)
    pair.pair_again()
    before = is_paired_again(pair, pair.a, before)
    clients.wait_for_more(3)
    look(pair, books, "death")
    return before


def soak(failovers, deaths, seed):
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
        for number in range(failovers + deaths):
            time.sleep(order.random() * 0.2)  # a random moment, not a wait for something
            one = there_and_home if number < failovers else without_twin
            try:
                before = one(pair, clients, before, books)
            except AssertionError as error:
                raise AssertionError(f"cycle {number}, seed {seed}: {error}") from error
        told = finish(pair, clients, pair.a)
        pair.a.good("stop", pair.name)
        pair.b.wait_until(lambda: not pair.b.arriving(), "the end of the twin")
        assert pair.disks_equal()
        check_disk(pair.disk(pair.b), told)
    books.check(deaths + 1)


def test_there_and_home_and_without_a_twin():
    """Failover, redundancy again, home: twice; then the twin dies eight times, so that one cycle with larger epochs, as
    others at work on the machine make them, is not taken for growth. Nothing that anybody was told of is lost, connections
    stay, both disks are the same each time, and nobody holds more files than the first time, or a MiB of memory more."""
    soak(2, 8, seed=1)


def test_a_hundred_times_there_and_home():
    """The same a hundred times, and thirty times without the twin."""
    soak(100, 30, seed=time.time_ns())


test_a_hundred_times_there_and_home.slow = True
test_a_hundred_times_there_and_home.time_limit = 1800
