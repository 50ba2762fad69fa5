# SPDX-License-Identifier: MIT
"""Both hosts of a protected VM lose power, at any moment, and come back in any order: what the units in
docs/fault-tolerance.md run at boot is run here, "standby" and "run" at both. The last owner's VM goes on, by the witness,
with all that anybody was told; the other one becomes its twin without a person. And where the owner does not come back a
person takes the VM. Two "hosts" on one machine (pairs.py)."""

import contextlib
import json
import os
import random
import signal
import threading
import time

from crashes import CrashPair, is_alive
from echoes import check_disk
from labcommon import REPOSITORY
from pairs import ALERT, Pair
from test_clone import MIB
from test_durable import forget
from test_protect import SOME, need_protect

REFUSED = [3, 4, 5]  # exit codes that RestartPreventExitStatus= has in the units
OFF_LIMIT = 60  # seconds that a client may wait: two boots, and a person's forty seconds


class Hosts(CrashPair):
    """At the level durable, each with a standby at an address that stays."""

    def __init__(self, seed=1):
        Pair.__init__(self)
        self.order = random.Random(seed)
        with contextlib.ExitStack() as stack:
            stack.push(self)
            self.start_primary(pages=64, rate=1000, size=32 * MIB)
            for host in self.hosts:
                self.start_standby(host)
            self.here, self.early = self.a, None
            self.asking = self.clients("udp", "udp", patience=OFF_LIMIT, reboots=True, pause=0.01)
            self.asking.wait_for_more(3)
            stack.pop_all()

    def protect(self, *_):
        return self.here.run("protect", self.name, "--to", self.lines[self.there].address, "--witness",
                             f"file:{self.witness}", "--insecure", "--level", "durable", "--back",
                             self.lines[self.here].address)

    def pair_up(self):
        super().pair_up()
        self.early = self.there, self.disk(self.there).read_bytes()

    # --- power ---

    def cut(self, *hosts):
        """All that runs there ends, and nobody could say who was first."""
        hosts = [host for host in hosts or self.hosts if host.waiting.poll() is None]  # else it has none
        for host in hosts:
            os.kill(host.waiting.pid, signal.SIGSTOP)  # it takes nobody in from here on
        pids = [pid for host in hosts for pid in self.processes(host)]
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        for pid in self.order.sample(pids, len(pids)):
            os.kill(pid, signal.SIGKILL)
        for host in hosts:
            host.waiting.kill()
            host.waiting.wait()
        for pid in pids:
            self.a.wait_until(lambda pid=pid: not is_alive(pid), "the end of a process")
        if self.early and self.early[0] in hosts:
            self.forget_some(*self.early)
        self.early = None

    def forget_some(self, host, early):
        """What a twin's disk was given since its last sync may be lost; its journal has it. An owner's is synced."""
        if (host.root / self.name / ".epochs").exists() and self.owner_by_witness() is not host:
            forget(self.disk(host), early, self.order)

    def boot_standby(self, host):
        """At the address that it has always had."""
        host.waiting = host.begin("standby", ".", "--listen", self.standbys[host], "--insecure")
        line = host.waiting.stderr.readline()
        assert "VMs may come to" in line, line

    def boot_vm(self, host):
        """As the unit does."""
        return host.begin("run", host.root / self.name)

    def record(self):
        last = max(path for path in self.witness.iterdir() if not path.name.startswith("."))
        return dict(line.split(" ", 1) for line in last.read_text().splitlines()[1:])

    def owner_by_witness(self):
        owner = self.record()["owner"]
        for host in self.hosts:
            with contextlib.suppress(FileNotFoundError):
                if json.loads((host.root / self.name / ".protected").read_text())["node"] == owner:
                    return host
        raise AssertionError(f"no folder is {owner}'s")

    def ends_refused(self, host, process):
        host.wait_until(lambda: process.poll() is not None, "the end of who may not run it")
        words = process.stderr.read()
        assert process.returncode in REFUSED, f"{process.returncode}: {words}"

    def goes_on(self, owner):
        """There and nowhere else, with a twin; nothing that anybody was told is gone, or the clients say so."""
        owner.wait_until(lambda: self.runs(owner), "the VM at its owner")
        self.here = owner
        assert not self.runs(self.there) and self.owner_by_witness() is owner
        self.asking.wait_for_more(2)
        self.wait_for(owner, role="primary", state="paired")
        assert "WRONG" not in owner.console(self.name)

    def both_return(self, order):
        """Whoever has it by the witness runs it, whatever the order; the other one is refused, and becomes the twin."""
        owner = self.owner_by_witness()
        other = self.other(owner)
        early_standbys = self.order.random() < 0.5
        first = {"owner first": [owner], "other first": [other], "both": self.order.sample(self.hosts, 2)}[order]
        started = {}
        for hosts in [first, [host for host in self.hosts if host not in first]]:
            for host in hosts:
                if early_standbys:
                    self.boot_standby(host)
                started[host] = self.boot_vm(host)
                if not early_standbys:
                    self.boot_standby(host)
            if other in hosts:
                self.ends_refused(other, started[other])
            if owner in hosts:
                owner.wait_until(lambda: self.runs(owner) or started[owner].poll() is not None, "the owner's VM")
        assert started[owner].poll() is None, started[owner].stderr.read()
        self.goes_on(owner)


# --- what they were about when it happened --------------------------------------------------------------------------


def be_solo(pair):
    """Its twin's host is off, and the VM goes on alone."""
    pair.pair_up()
    pair.cut(pair.there)
    pair.wait_for(pair.here, role="primary", state="solo")
    pair.asking.wait_for_more(2)


def be_pairing(pair):
    """Somewhere between the first word and the twin that could take over, or just behind that."""
    pair.cut(pair.there)
    pair.wait_for(pair.here, role="primary", state="solo")
    pair.boot_standby(pair.there)
    threading.Thread(target=pair.protect, daemon=True).start()
    time.sleep(pair.order.random() * 0.4)


STATES = {"solo": be_solo, "paired": lambda pair: pair.pair_up(), "pairing": be_pairing}
ORDERS = ["owner first", "other first", "both"]


def one_cut(pair, taken_over, state, order):
    """Begins and ends with a pair."""
    if taken_over:
        there = pair.there
        pair.kill(pair.here)
        there.wait_until(lambda: pair.runs(there), "a takeover")
        pair.here = there
        pair.wait_for(there, role="primary", state="paired")
    STATES[state](pair)
    time.sleep(pair.order.random() * 0.3)
    pair.cut()
    pair.both_return(order)


def cut_often(rounds, seed):
    need_protect()
    with Hosts(seed) as pair:
        pair.pair_up()
        for number, (taken_over, state, order) in enumerate(rounds):
            try:
                one_cut(pair, taken_over, state, order)
            except AssertionError as error:
                raise AssertionError(f"round {number} (seed {seed}): {taken_over=}, {state}, {order}: {error}") from error
        pair.finish()


def test_f10_both_return():
    """F10: the last owner's VM goes on and has its twin again: whichever host is back first, or both at once; before a
    takeover and after one; with a twin, without one, and with one that is just coming."""
    cut_often([(False, "paired", "other first"), (True, "pairing", "both"), (False, "solo", "owner first")], seed=1)


def test_f10_both_return_often():
    """The same a hundred times, at random."""
    order = random.Random(8)
    cut_often([(order.random() < 0.5, order.choice(list(STATES)), order.choice(ORDERS)) for _ in range(100)], seed=8)


test_f10_both_return_often.slow = True
test_f10_both_return_often.time_limit = 3600


def test_f10_in_the_middle_of_a_takeover():
    """The primary's host goes, and the twin's shortly after: before it has claimed the VM, while it does, or just after.
    Who has it then, by the witness, goes on with all that anybody was told."""
    need_protect()
    with Hosts(seed=3) as pair:
        pair.pair_up()
        for after_ms in [0, 20, 80]:
            pair.cut(pair.here)
            time.sleep(after_ms / 1000)
            pair.cut(pair.there)
            pair.both_return("both")
        pair.finish()


# --- the owner is gone for good -------------------------------------------------------------------------------------


def force(pair, host, typed=None):
    """A person at that host; the process."""
    read, write = os.pipe()
    os.write(write, (typed or f"{pair.name}\n").encode())
    os.close(write)
    process = host.begin("run", pair.name, "--force-owner", stdin=read)
    os.close(read)
    return process


def test_f10_the_owner_is_gone():
    """Both lose power, and only the twin's host comes back: it refuses until a person takes the VM for it. At the level
    durable everything that anybody was told is there. When the old owner is back after all it is refused, and becomes
    the twin."""
    need_protect()
    with Hosts(seed=4) as pair:
        pair.pair_up()
        pair.asking.wait_for_more(SOME)
        here, there = pair.here, pair.there
        pair.cut()
        told = dict(pair.asking.tally.told)
        pair.boot_standby(there)
        pair.ends_refused(there, pair.boot_vm(there))
        process = force(pair, there)
        there.wait_until(lambda: pair.runs(there) or process.poll() is not None, "a VM that was taken")
        assert process.poll() is None, process.stderr.read()
        pair.boot_standby(here)
        pair.ends_refused(here, pair.boot_vm(here))
        pair.goes_on(there)
        assert ["forced", "start"] == [event for event, _ in there.journal(pair.name) if event in ("forced", "start")][-2:]
        check_disk(pair.disk(there), told)
        pair.finish()


def solo_without_its_twin(pair):
    """Host A has it alone; host B has what was its twin, and can only be told by the witness."""
    pair.process = pair.start_primary(pages=64, ft=ALERT)
    pair.start_standby(pair.b)
    pair.protect(None, None, "--level", "durable")
    clients = pair.clients("udp", patience=OFF_LIMIT, reboots=True)
    clients.wait_for_more(SOME)
    pair.kill(pair.b)
    pair.standby_there = pair.b.waiting
    pair.standby_there.kill()
    pair.wait_for(pair.a, role="primary", state="solo")
    return clients


def test_f10_the_owner_lives():
    """Somebody takes a VM whose owner lives, and has free output: it hears that from the witness, and has ended before the
    other one begins."""
    need_protect()
    with Pair() as pair:
        solo_without_its_twin(pair)
        process, old = force(pair, pair.b), pair.sniff(0)
        began = time.monotonic()
        code = pair.process.wait(30)
        ended = time.monotonic()
        assert code == 4 and "belongs to another host now" in pair.process.stderr.read(), code
        assert old.since(began), "its output was not free"
        assert pair.b.status(pair.name)["state"] == "asking the witness", "both run"
        pair.b.wait_until(lambda: pair.b.status(pair.name)["state"] == "running", "the VM where it was taken to")
        assert process.poll() is None and not old.since(ended)
        pair.clients("udp", patience=OFF_LIMIT).wait_for_more(SOME)


def test_f10_a_frozen_owner():
    """The same with an owner that stands still meanwhile: it goes on only to ask, and ends. Its guest is asked all the time,
    so that much waits at its door when it wakes up: nothing leaves by it."""
    need_protect()
    with Pair() as pair:
        clients = solo_without_its_twin(pair)
        for _ in range(8):
            clients.add("udp", reboots=True)
        clients.wait_for_more(SOME)
        old = pair.sniff(0)
        clients.wait_for_more(SOME)
        assert old.frames, "nothing is heard of what it sends"
        with pair.frozen(pair.a):
            force(pair, pair.b)
            pair.b.wait_until(lambda: pair.b.status(pair.name)["state"] == "running", "the VM where it was taken to")
            taken = time.monotonic()
        assert pair.process.wait(30) == 4
        pair.clients("udp", patience=OFF_LIMIT).wait_for_more(SOME)
        late = old.since(taken)
        assert not late, f"{len(late)} frames left after it woke up: {late[0].hex()}"
        assert pair.b.status(pair.name)["state"] == "running"


def test_f10_who_answers_is_not_taken_from():
    """Where the owner's standby answers and has the VM, that is said, and what to do instead."""
    need_protect()
    with Pair() as pair:
        pair.process = pair.start_primary(pages=64)
        pair.start_standby(pair.a)
        pair.start_standby(pair.b)
        pair.protect(None, None, "--level", "durable", "--back", pair.lines[pair.a].address)
        pair.kill(pair.b)
        pair.b.waiting.kill()
        process = force(pair, pair.b)
        words = process.communicate(timeout=30)[1]
        assert process.returncode == 4 and f"web1 runs at {pair.lines[pair.a].address}, which answers" in words, words
        assert "switchover web1" in words, words
        assert pair.process.poll() is None


# --- the units ------------------------------------------------------------------------------------------------------


def words_of(unit):
    """{key: [values]} of what a unit of cluster/systemd says."""
    says = {}
    for line in (REPOSITORY / "cluster/systemd" / unit).read_text().splitlines():
        if "=" in line and not line.startswith("#"):
            key, value = line.split("=", 1)
            says.setdefault(key, []).append(value)
    return says


def test_the_units_run_what_is_tested_here():
    """What they execute is what these tests do, and an end that is a refusal is not tried again."""
    vm, standby = words_of("minivmm@.service"), words_of("minivmm-standby.service")
    assert vm["ExecStart"] == ["@bindir@/minivmm run /var/lib/minivmm/%i"], vm
    assert standby["ExecStart"] == ["@bindir@/minivmm standby /var/lib/minivmm"], standby
    assert set(REFUSED) <= set(map(int, vm["RestartPreventExitStatus"][0].split())), vm
    assert standby["KillMode"] == ["process"], "VMs that have taken over would end with their standby"
