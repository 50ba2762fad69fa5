# SPDX-License-Identifier: MIT
"""minivmm protect --level durable: what anybody was told survives that both hosts lose power, in the twin's folder, too.
With the guest echo and two "hosts" on one machine, as in test_protect.py."""

import contextlib
import os
import random
import re
import signal
import subprocess
import time
from pathlib import Path

from echoes import check_disk
from pairs import Pair
from test_clone import MIB
from test_protect import SOME, check_stale, finish, need_protect, takes_over
from vms import freeze

SECTOR = 512


@contextlib.contextmanager
def protected_at(level, begin=lambda pair: None, kinds=("udp", "tcp")):
    need_protect()
    with Pair() as pair:
        pair.process = pair.start_primary()
        begin(pair)
        pair.start_standby(pair.b)
        pair.protect(None, None, "--level", level)
        says = pair.wait_for(pair.a, role="primary", state="paired")
        assert says["level"] == level, says
        clients = pair.clients(*kinds, patience=20)
        clients.wait_for_more(SOME)
        yield pair, clients, says


def journal(pair, host):
    return host.root / "web1/.epochs"


def test_f1_durable():
    """F1 at the level durable: the twin's journal has what the clients were told; the twin goes on, and then there is
    no journal that could bring old blocks back."""
    with protected_at("durable") as (pair, clients, before):
        assert journal(pair, pair.b).stat().st_size > 0
        assert not journal(pair, pair.a).exists()
        pair.kill(pair.a)
        clients.wait_for_more(SOME)
        takes_over(pair, pair.b, before)
        assert not journal(pair, pair.b).exists()
        finish(pair, clients, pair.b)
        check_stale(pair, pair.a, pair.b)


def has_files(pid):
    """Open ones: a thread that is still in the kernel has its own way to them."""
    try:
        return any(Path(f"/proc/{pid}").glob("task/*/fd/*"))
    except OSError:  # a thread has gone while we looked
        return True


def lose_power(pair):
    """Both at once, as far as anybody can tell."""
    pids = [pair.pid(host) for host in pair.hosts]
    freeze(pids[0])
    for pid in reversed(pids):
        os.kill(pid, signal.SIGKILL)
    for host, pid in zip(pair.hosts, pids):
        host.wait_until(lambda: not has_files(pid), "the end of a process")


def forget(path, early, order):
    """Of what was written since `early` the disk has some sectors, and lacks others."""
    now = path.read_bytes()
    assert len(now) == len(early)
    if now == early:
        return 0
    lost, mixed = 0, bytearray(now)
    for at in range(0, len(now), SECTOR):
        if now[at:at + SECTOR] != early[at:at + SECTOR] and order.random() < 0.5:
            mixed[at:at + SECTOR] = early[at:at + SECTOR]
            lost += 1
    path.write_bytes(mixed)
    return lost


def is_whole(path, told):
    try:
        check_disk(path, told)
    except AssertionError:
        return False
    return True


def lose_both(seed):
    order = random.Random(seed)
    with protected_at("durable") as (pair, clients, _):
        early = pair.disk(pair.b).read_bytes()
        clients.wait_for_more(SOME + order.randrange(200))
        lose_power(pair)
        told, folder = dict(clients.tally.told), pair.b.root / "web1"
        pair.b.wait_until(lambda: not pair.b.arriving(), "the end of the twin")
        lost = forget(pair.disk(pair.b), early, order)
        assert lost > SOME and not is_whole(pair.disk(pair.b), told), f"seed {seed}: nothing was lost, {lost} sectors"
        pair.b.bad(4, "web1 is a twin", "run", "web1")
        assert journal(pair, pair.b).exists() and not is_whole(pair.disk(pair.b), told)
        # Its owner is gone for good: somebody decides that.
        (folder / ".protected").unlink()
        pair.b.good("clone", "web1", "web2")
        assert not (pair.b.root / "web2/.epochs").exists() and not journal(pair, pair.b).exists()
        check_disk(pair.b.root / "web2/disk.img", told)
        check_disk(pair.disk(pair.b), told)


def test_f10_what_was_told_survives_in_the_twins_journal():
    """F10 at the level durable: both hosts lose power at once, and of what the twin's disk was given since its last sync
    any part is lost. The folder does not run, being a twin's; when somebody takes it for the VM, everything that anybody
    was told of is on its disk, and in its copies."""
    lose_both(seed=1)


def test_f10_often():
    """The same many times."""
    for _ in range(50):
        lose_both(seed=time.time_ns())


test_f10_often.slow = True
test_f10_often.time_limit = 3600


def test_f10_the_twins_folder_runs():
    """And the VM itself goes on from there: told what was done, it counts on from what the clients knew."""
    with protected_at("durable") as (pair, clients, _):
        early = pair.disk(pair.b).read_bytes()
        clients.wait_for_more(SOME)
        lose_power(pair)
        told = dict(clients.tally.told)
        pair.b.wait_until(lambda: not pair.b.arriving(), "the end of the twin")
        forget(pair.disk(pair.b), early, random.Random(2))
        (pair.b.root / "web1/.protected").unlink()
        process = pair.b.start("web1", until="echo: ready")
        assert not journal(pair, pair.b).exists()
        assert "WRONG" not in pair.b.console("web1")
        again = pair.clients("udp")
        again.wait_for_more(SOME)
        more = again.stop()
        assert min(more) > max(told)
        check_disk(pair.disk(pair.b), {**told, **more})
        process.kill()


def small(pair):
    """Host B's file system has no room."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={24 * MIB}", "none", pair.b.root], check=True)
    pair.callback(subprocess.run, ["umount", "-l", pair.b.root], check=True)


def fill(folder):
    with open(folder / "filler", "wb", buffering=0) as filler, contextlib.suppress(OSError):
        while True:
            filler.write(bytes(8 * SECTOR))


def test_f7_the_journal_cannot_be_written():
    """F7 at the level durable: the twin's file system is full. It tells the primary so, and follows no more; the VM goes
    on, with all that anybody was told."""
    with protected_at("durable", begin=small) as (pair, clients, before):
        fill(pair.b.root)
        clients.wait_for_more(SOME)
        pair.a.wait_until(lambda: pair.owner(), "an owner")
        owner = pair.owner()
        takes_over(pair, owner, before)
        finish(pair, clients, owner)
        pair.kill(pair.a) if owner is pair.a else None
        said = pair.process.communicate()[1]
        assert re.search(r"web1 is followed no more: cannot write .*/\.epochs: No space left", said), said


def test_f7_the_disk_cannot_be_written():
    """F7 at the level memory: what was acknowledged cannot be applied. Such a twin never takes over, or it would lose
    that."""
    with protected_at("memory", begin=small) as (pair, clients, before):
        fill(pair.b.root)
        clients.wait_for_more(SOME)
        takes_over(pair, pair.a, before)
        pair.b.wait_until(lambda: not pair.b.arriving(), "the end of the twin")
        finish(pair, clients, pair.a)
