# SPDX-License-Identifier: MIT
"""minivmm protect: a VM outlives its host. Failures by their numbers (F1 ...), with the guest echo and clients that note
all that they are told; two "hosts" on one machine (pairs.py).
"""

import contextlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import time

from echoes import check_disk
from labcommon import Skip
from pairs import ALERT, Pair
from test_cli import MINIVMM
from test_migrate import ended

GAP = 5.0  # seconds that a client may have waited, on a busy machine; what is promised is measured elsewhere
SOME = 50  # answers
UNHURRIED = {"timeout_ms": 3000}  # where somebody asks again after a part of that, or waits for a multiple


def need_protect():
    if subprocess.run([MINIVMM, "protect", "--help"], capture_output=True, stdin=subprocess.DEVNULL).returncode != 0:
        raise Skip("minivmm has no verb protect as yet")


@contextlib.contextmanager
def protected(kinds=("udp", "tcp"), both=False, ft=None, **more):
    """A pair whose twin could take over, with clients under way: (pair, clients, what the primary says). `both`: host A
    takes VMs in, too."""
    need_protect()
    with Pair(**more) as pair:
        pair.process = pair.start_primary(ft=ft) if ft else pair.start_primary()
        pair.start_standby(pair.b)
        if both:
            pair.start_standby(pair.a)
        pair.protect()
        says = pair.wait_for(pair.a, role="primary", state="paired")
        clients = pair.clients(*kinds, patience=20)
        clients.wait_for_more(SOME)
        yield pair, clients, says


def finish(pair, clients, host, since=0.0):
    """All clients come to their end, and everything that they were told of is on that host's disk, and nothing else. Nobody
    has waited for long since then."""
    clients.wait_for_more(SOME)
    told = clients.stop()
    assert check_disk(pair.disk(host), told) == max(told) == len(told)
    assert "WRONG" not in host.console("web1")
    assert clients.longest_gap(since) < GAP, f"somebody has waited for {clients.longest_gap(since):.1f} s"
    return told


def check_stale(pair, host, owner):
    """The folder there never runs again by itself, and who has the VM is said."""
    words = host.bad(4, r"web1 .*(taken it over|is a twin)", "run", host.root / "web1")
    assert re.search("hint: ", words), words
    assert pair.owner() is owner


def takes_over(pair, host, before):
    """It has gone on alone: by its journal, since it may have a twin again soon. Gives what it says then. An etcd may have
    made a generation of which nobody heard."""
    def generations():
        return [line["generation"] for event, line in host.journal("web1")
                if event in ("solo", "takeover") and line["generation"] > before["generation"]]
    host.wait_until(generations, "the journal to know that it goes on alone")
    assert pair.etcd or generations()[0] == before["generation"] + 1, f"generations {generations()}, before {before}"
    return pair.wait_for(host, role="primary")


# --- F1, F3: one of them dies ---------------------------------------------------------------------------------------


def test_f1_the_primary_dies():
    """F1: the primary's process is killed under load. The twin goes on: no answer is wrong, no count is lost or comes
    twice, the TCP connection stays open, the VM has a new generation, and the old folder does not run."""
    with protected() as (pair, clients, before):
        pair.kill(pair.a)
        clients.wait_for_more(SOME)
        takes_over(pair, pair.b, before)
        finish(pair, clients, pair.b)
        check_stale(pair, pair.a, pair.b)


def test_f1_with_a_key():
    """The same over a link with a key."""
    with protected(key=True) as (pair, clients, before):
        pair.kill(pair.a)
        clients.wait_for_more(SOME)
        takes_over(pair, pair.b, before)
        finish(pair, clients, pair.b)


REVERSE_ARP = bytes.fromhex("8035 0001 0800 06 04 0003")  # type of the frame; Ethernet, IPv4, a request
ANNOUNCED = 6  # times, within 2.5 s of the takeover (docs/fault-tolerance.md, F1)


def test_f1_the_network_is_told():
    """After a takeover the new host says where the VM's address is now, by RARP, and again, since a frame of the old one may
    come late; then it is quiet."""
    with protected() as (pair, clients, _):
        mac = bytes.fromhex(pair.a.identity("web1")["macs"][0].replace(":", ""))
        sniffers = [pair.sniff(number) for number in range(2)]

        def announced(number):
            return [(at, frame) for at, frame in list(sniffers[number].frames) if frame[12:14] == REVERSE_ARP[:2]]

        clients.wait_for_more(SOME)
        assert not announced(0) and not announced(1), "nobody has moved"
        pair.kill(pair.a)
        pair.b.wait_until(lambda: len(announced(1)) >= ANNOUNCED - 2, "announcements")
        while time.monotonic() < announced(1)[-1][0] + 3:
            clients.wait_for_more(SOME)
        seen = announced(1)  # two that come late may be one
        assert len(seen) <= ANNOUNCED and not announced(0), seen
        for _, frame in seen:
            assert frame[:22] == b"\xff" * 6 + mac + REVERSE_ARP and frame[22:28] == frame[32:38] == mac, frame.hex()
        assert seen[-1][0] - seen[0][0] > 1, [at - seen[0][0] for at, _ in seen]
        finish(pair, clients, pair.b)


def test_f1_by_reset():
    """F1 without anybody to answer: the connection between them is reset, and both live. One of them goes on."""
    with protected() as (pair, clients, _):
        pair.lines[pair.b].reset()
        clients.wait_for_more(SOME)
        pair.a.wait_until(lambda: pair.owner(), "an owner")
        finish(pair, clients, pair.owner())


def test_f3_the_twin_dies():
    """F3: the twin's process is killed. The primary goes on alone when the witness knows, and nothing is wrong; a twin
    that comes later makes a pair again."""
    with protected() as (pair, clients, before):
        pair.kill(pair.b)
        clients.wait_for_more(SOME)
        takes_over(pair, pair.a, before)
        says = pair.pair_again()
        assert says["generation"] > before["generation"] + 1
        clients.wait_for_more(SOME)
        pair.kill(pair.a)
        takes_over(pair, pair.b, says)
        finish(pair, clients, pair.b)


# --- F4, F16: the line ----------------------------------------------------------------------------------------------


def cut(**ways):
    with protected(ft=ALERT) as (pair, clients, before):
        pids = {host: pair.pid(host) for host in pair.hosts}
        pair.lines[pair.b].cut(**ways)
        clients.wait_for_more(SOME)
        pair.a.wait_until(lambda: pair.owner(), "an owner")
        owner = pair.owner()
        takes_over(pair, owner, before)
        pair.lines[pair.b].mend()
        clients.wait_for_more(SOME)
        time.sleep(0.5)  # what was on its way has come, and changes nothing
        assert pair.owner() is owner
        loser = pids[pair.other(owner)]  # a new twin may be there by now
        owner.wait_until(lambda: pair.is_over(loser), "the end of the one that has lost")
        finish(pair, clients, owner)
        if owner is pair.b:
            check_stale(pair, pair.a, owner)


def test_f4_the_line_is_cut():
    """F4: nothing gets through between them, and both live: exactly one goes on, and the other one ends, also when the
    line is whole again."""
    cut()


def test_f16_one_way():
    """F16: the same where only one way is cut, whichever."""
    cut(back=False)
    cut(there=False)


# --- F5: the zombie -------------------------------------------------------------------------------------------------


def test_f5_a_frozen_primary():
    """F5: the primary stands still, the twin takes over; when the old one goes on it emits no frame any more, and comes
    to its end."""
    with protected(ft=ALERT) as (pair, clients, before):
        zombie = pair.sniff(0)
        assert zombie.frames or not clients.are_silent(0.2)
        with pair.frozen(pair.a):
            clients.wait_for_more(SOME)
            takes_over(pair, pair.b, before)
            clients.wait_for_more(SOME)
        thawed = time.monotonic()
        code = pair.process.wait(20)
        assert code != 0, "a VM that lost its owner ended well"
        clients.wait_for_more(SOME)
        late = zombie.since(thawed)
        assert not late, f"{len(late)} frames of the old primary, the first: {late[0].hex()}"
        finish(pair, clients, pair.b)
        check_stale(pair, pair.a, pair.b)


FIRST, MOST = 334, 1334  # ms that a silence may last, for who runs it: at first, and on a line that is rough


def test_patience_follows_the_line():
    """How long a silence counts is learned from the line, and the twin, who has the longer patience, takes over after
    it; a timeout that is said is just that."""
    with protected(ft={"timeout_ms": None}) as (pair, clients, before):
        assert 0 < before["patience_ms"] <= MOST, before
        most = min(before["patience_ms"], FIRST) * 0.8
        pair.wait_for(pair.a, timeout=60, patience_ms=lambda ms: ms and ms < most)
        pair.wait_for(pair.b, timeout=60, patience_ms=lambda ms: ms and 74 < ms < 400)
        before = pair.wait_for(pair.a, state="paired")
        with pair.frozen(pair.a):
            takes_over(pair, pair.b, before)
            clients.wait_for_more(SOME)
        finish(pair, clients, pair.b)
    with protected(ft={"timeout_ms": 6000}) as (pair, clients, before):
        assert before["patience_ms"] == 4000, before
        pair.wait_for(pair.b, patience_ms=6000)


test_patience_follows_the_line.alone = True  # it measures a line at rest


def test_f5_a_frozen_twin():
    """The same with the twin: the primary goes on alone, and when the twin wakes up it does not take over."""
    with protected(ft=ALERT) as (pair, clients, before):
        with pair.frozen(pair.b) as pid:
            clients.wait_for_more(SOME)
            takes_over(pair, pair.a, before)
        pair.a.wait_until(lambda: pid not in pair.b.arriving(), "the end of a twin that nobody needs")
        clients.wait_for_more(SOME)
        assert pair.owner() is pair.a
        finish(pair, clients, pair.a)


# --- F6: the witness ------------------------------------------------------------------------------------------------


def test_f6_without_the_witness():
    """F6: as long as both live nobody misses the witness, and the status says that it is away. When the twin dies,
    too, nothing leaves the VM, and the status says why, until the witness is back."""
    with protected(ft=UNHURRIED) as (pair, clients, before):
        with pair.without_witness():
            clients.wait_for_more(SOME)
            pair.wait_for(pair.a, state="paired", why=lambda why: "witness" in (why or ""))
            pair.kill(pair.b)
            says = pair.wait_for(pair.a, state="alone")
            assert "witness" in json.dumps(says), f"the status does not say why: {says}"
            assert clients.become_silent(1.0)
        back = time.monotonic()
        clients.wait_for_more(SOME)
        takes_over(pair, pair.a, before)
        finish(pair, clients, pair.a, back)


def test_f6_the_primary_dies_without_the_witness():
    """The same with the primary: the twin waits, and takes over when the witness is back."""
    with protected(ft=UNHURRIED) as (pair, clients, before):
        with pair.without_witness():
            pair.kill(pair.a)
            assert clients.become_silent(1.0)
            assert pair.owner() is None
        back = time.monotonic()
        clients.wait_for_more(SOME)
        takes_over(pair, pair.b, before)
        finish(pair, clients, pair.b, back)


def test_f6_who_waits_for_the_witness_can_be_stopped():
    """A twin that is to go on, and waits for the witness, ends at the second SIGTERM. Nothing is lost: with the witness back
    the VM starts where it ran."""
    with protected(ft=UNHURRIED) as (pair, clients, before):
        with pair.without_witness():
            pair.kill(pair.a)
            pair.wait_for(pair.b, state="claiming", why=lambda why: "witness" in (why or ""))
            log, pid = pair.b.root / "web1/minivmm.log", pair.pid(pair.b)
            os.kill(pid, signal.SIGTERM)
            pair.b.wait_until(lambda: "it feels the power button then" in log.read_text(), "a word about the first one")
            os.kill(pid, signal.SIGTERM)
            pair.b.wait_until(lambda: not pair.b.arriving(), "the end of who waits")
        told = dict(clients.tally.told)
        pair.start_primary()
        pair.wait_for(pair.a, role="primary", generation=lambda is_now: is_now > before["generation"])
        assert check_disk(pair.disk(pair.a), told) >= max(told)


test_f6_who_waits_for_the_witness_can_be_stopped.waits = True


# --- F10: both die --------------------------------------------------------------------------------------------------


def test_f10_both_die():
    """F10: both processes are killed. Exactly one of the folders runs again, in either order of trying, and everything
    that anybody was told of is on its disk."""
    for order in ["ab", "ba"]:
        with protected(ft=UNHURRIED) as (pair, clients, _):
            for host in pair.hosts:
                pair.kill(host)
            told = dict(clients.tally.told)
            started, words = [], []
            for host in [getattr(pair, name) for name in order]:
                process = host.begin("run", "web1")
                host.wait_until(lambda: process.poll() is not None or host.protection().get("role") == "primary",
                                "an answer")
                if process.poll() is None:
                    started.append(host)
                else:
                    assert process.returncode in [3, 4], process.stderr.read()
                    words.append(process.stderr.read())
            assert len(started) == 1, f"{len(started)} folders run: {words}"
            pair.clients("tcp").wait_for_more(SOME)
            check_disk(pair.disk(started[0]), told)


# --- what people do on purpose --------------------------------------------------------------------------------------


def test_switchover():
    """The roles change on purpose, with clients under way, there and back; whoever is the twin then can take over."""
    with protected(both=True, back=True) as (pair, clients, before):
        here = pair.a
        for _ in range(3):
            there = pair.other(here)
            here.good("switchover", "web1")
            says = pair.wait_for(there, role="primary", state="paired")
            assert says["generation"] > before["generation"]
            clients.wait_for_more(SOME)
            assert pair.owner() is there
            here, before = there, says
        pair.kill(here)
        takes_over(pair, pair.other(here), before)
        finish(pair, clients, pair.other(here))


def test_unprotect():
    """Without its twin the VM goes on as an ordinary one: its end is nobody else's beginning, and it starts again."""
    with protected() as (pair, clients, _):
        pair.a.good("unprotect", "web1")
        pair.b.wait_until(lambda: not pair.b.arriving(), "the end of the twin")
        assert pair.a.protection() == {} or pair.a.protection()["state"] == "solo"
        told = finish(pair, clients, pair.a)
        pair.kill(pair.a)
        pair.process.wait()
        time.sleep(0.5)
        assert pair.owner() is None
        pair.start_primary()
        clients = pair.clients("tcp")
        clients.wait_for_more(SOME)
        check_disk(pair.disk(pair.a), {**told, **clients.stop()})


def test_another_witness():
    """After unprotect the VM may have another witness, which has never heard of it. What is left of its twin by the old one
    is in the way, and is not taken for anything."""
    with protected() as (pair, clients, _):
        pair.a.good("unprotect", "web1")
        pair.b.wait_until(lambda: not pair.b.arriving(), "the end of the twin")
        pair.witness = pair.witness.with_name("another")
        pair.witness.mkdir()
        pair.a.bad(4, "is there already\nhint: is it what is left of a twin", "protect", "web1", "--to",
                   pair.lines[pair.b].address, "--witness", f"file:{pair.witness}", "--insecure")
        pair.b.good("remove", "--yes", "--force", "web1")
        pair.protect()
        pair.wait_for(pair.a, role="primary", state="paired")
        clients.wait_for_more(SOME)
        pair.kill(pair.a)
        finish(pair, clients, pair.b)


def test_power_off():
    """When the guest switches itself off both sides come to their end, nobody takes over, and both disks are the
    same. What it said last, which waited for its twin, was said to who runs it, too."""
    with protected() as (pair, clients, _):
        told = finish(pair, clients, pair.a)
        pair.a.good("stop", "web1")
        ended(pair.process)
        assert "power button" in pair.process.stdout.read()
        pair.b.wait_until(lambda: not pair.b.arriving(), "the end of the twin")
        assert pair.owner() is None and "power button" in pair.a.console("web1")
        assert pair.disks_equal()
        check_disk(pair.disk(pair.b), told)


def test_what_is_refused():
    """What cannot be protected is told why, and goes on: without a witness, twice, with a network that cannot move."""
    need_protect()
    with Pair() as pair:
        pair.start_primary()
        address = pair.start_standby(pair.b)
        clients = pair.clients("udp")
        to = ["--to", address, "--insecure"]
        pair.a.bad(2, "--witness", "protect", "web1", *to)
        pair.a.bad(2, "--to", "protect", "web1", "--witness", f"file:{pair.witness}")
        nowhere = pair.a.run("protect", "web1", *to, "--witness", f"file:{pair.a.root}/nowhere")
        assert nowhere.returncode != 0 and "nowhere" in nowhere.stderr, nowhere
        pair.protect()
        pair.a.bad(4, "protected", "protect", "web1", *to, "--witness", f"file:{pair.witness}")
        pair.a.make("web2", kernel="echo.elf", nets=[{"mode": "user"}],
                    disks=[{"file": "disk.img", "format": "raw"}])
        shutil.copy(pair.disk(pair.a), pair.a.root / "web2/disk.img")
        pair.a.start("web2", until="echo: ready")
        pair.a.bad(4, r"user[\s\S]*hint: .*(bridge|tap)", "protect", "web2", *to, "--witness", f"file:{pair.witness}")
        clients.wait_for_more(SOME)
        clients.stop()


# --- many of them ---------------------------------------------------------------------------------------------------


def take_over_often(times, seed):
    """Each survivor gets the other host for its twin again, whose old folder is still there; of three such twins one is
    compared with it in each epoch."""
    order = random.Random(seed)
    with protected(kinds=("udp", "tcp", "tcp"), both=True) as (pair, clients, before):
        here = pair.a
        for number in range(times):
            there = pair.other(here)
            time.sleep(order.random() * 0.2)
            pair.kill(here)
            clients.wait_for_more(5)
            takes_over(pair, there, before)
            pair.protect(there, here, *["--verify"] * (number % 3 == 0))
            before = pair.wait_for(there, role="primary", state="paired")
            clients.wait_for_more(5)
            here = there
            assert "WRONG" not in here.console("web1"), f"takeover {number}, seed {seed}"
        finish(pair, clients, here)


def test_10_takeovers():
    """One after the other, at random moments, each with a new twin: nothing that anybody was told of is ever lost, and
    the connections that were open at the beginning still are at the end."""
    take_over_often(10, seed=1)


def test_1000_takeovers():
    """The same a thousand times."""
    take_over_often(1000, seed=time.time_ns())


test_1000_takeovers.slow = True
test_1000_takeovers.time_limit = 3600
