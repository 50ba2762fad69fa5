# SPDX-License-Identifier: MIT
"""A host that comes back has nearly all of the VM's disks: only what differs goes over. The guest is the echo, whose
records are so far apart that each is in a block of 4 KiB of its own."""

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import time

from crashes import CrashPair, Talk
from labcommon import Skip
from pairs import Pair, PairHost
from test_clone import MIB
from test_protect import check_disk, need_protect
from test_protect_points import reach, try_point, victim

BLOCK, STRIDE, SIZE, HEAD = 4096, 8, 300 * MIB, 4096
SOME = 300  # answers, each a record
RESYNC = ["LOOK", "LOOKED", "BLOCKS", "STATE", "COMMIT", "WORD ACK"]


@contextlib.contextmanager
def resyncing():
    """A pair at host A and B whose VM has told clients something: (pair, what they were told)."""
    need_protect()
    with Pair(back=True) as pair:
        pair.start_primary(size=SIZE, stride=STRIDE)
        for host in pair.hosts:
            pair.start_standby(host)
        pair.protect()
        yield pair, ask(pair)


def ask(pair, answers=SOME):
    """What clients are told; afterwards nobody writes."""
    clients = pair.clients("udp", "udp", patience=20)
    clients.wait_for_more(answers)
    return clients.stop()


def copy(path, name):
    to = path.with_name(name)
    subprocess.run(["cp", "--sparse=always", path, to], check=True)
    return to


def count_differing(one, other):
    """Blocks."""
    count = 0
    with open(one, "rb") as first, open(other, "rb") as second:
        while True:
            some, same = first.read(MIB), second.read(MIB)
            if not some:
                return count
            if some != same:
                count += sum(some[at:at + BLOCK] != same[at:at + BLOCK] for at in range(0, len(some), BLOCK))


def write_ahead(pair, host, region):
    """As if the VM had written there just before it died: marked, and told to nobody. (ft/changes_file.h)"""
    with open(host.root / "web1/.changes", "r+b") as note, open(pair.disk(host), "r+b") as disk:
        note.seek(HEAD + region // 8)
        bits = note.read(1)[0]
        note.seek(HEAD + region // 8)
        note.write(bytes([bits | 1 << region % 8]))
        disk.seek(region * MIB + 3 * BLOCK)
        disk.write(b"nobody has heard of this".ljust(BLOCK, b"!"))


def disks_become_equal(pair):
    pair.a.wait_until(pair.disks_equal, "equal disks")


def comes_back(pair, here, before, zeroes=0):
    """The other host's twin is whole again; what that took. `before`: the disk that it had; so many bytes of what it
    gets are zeroes, which are not sent."""
    expected = BLOCK * count_differing(before, pair.disk(here))
    pair.lines[pair.other(here)].mend()
    resync = pair.wait_for(here, role="primary", state="paired")["resync"]
    assert resync["what"] == "delta" and not resync["why"], resync
    assert resync["disk_bytes"] == SIZE
    assert expected - zeroes <= resync["sent_bytes"] <= 1.1 * expected + BLOCK, f"{resync}, and {expected} differ"
    assert resync["sum_bytes"] <= resync["looked_bytes"] // 200
    return resync


def test_the_old_primary_comes_back():
    """After a takeover the old host becomes the twin with the disks that it has: what travels is what has changed, and
    what it was ahead; then both have the same, and it takes over in its turn."""
    with resyncing() as (pair, told):
        pair.lines[pair.a].cut()
        writing = pair.clients("udp", "udp", patience=20)
        writing.wait_for_more(50)
        pair.kill(pair.a)
        writing.wait_for_more(SOME)
        told = {**told, **writing.stop()}
        write_ahead(pair, pair.a, 200)
        before = copy(pair.disk(pair.a), "before.img")
        comes_back(pair, pair.b, before, zeroes=BLOCK)
        disks_become_equal(pair)
        told.update(ask(pair))
        pair.kill(pair.b)
        pair.wait_for(pair.a, role="primary", state=lambda state: state in ["solo", "paired"])
        told.update(ask(pair, 20))
        check_disk(pair.disk(pair.a), told, stride=STRIDE)
        says = pair.wait_for(pair.a, state="paired")
        assert says["resync"]["what"] == "delta", says


def test_the_twin_comes_back():
    """A twin that has died comes back in the same way, again and again, also when the VM has ended meanwhile and has
    started again, in order or not."""
    with resyncing() as (pair, told):
        for end in ["kill", "stop"]:
            pair.lines[pair.b].cut(back=False)  # no new twin, and its death is heard of
            pair.kill(pair.b)
            pair.wait_for(pair.a, state="solo")
            told.update(ask(pair, 50))
            if end == "kill":
                pair.kill(pair.a)
            else:
                pair.a.good("stop", "web1")
            pair.a.wait_until(lambda: pair.a.pid() is None, "the end of the VM")
            pair.start_primary()
            told.update(ask(pair, 50))
            comes_back(pair, pair.a, copy(pair.disk(pair.b), "before.img"))
            disks_become_equal(pair)
        told.update(ask(pair))
        pair.kill(pair.a)
        pair.wait_for(pair.b, role="primary")
        check_disk(pair.disk(pair.b), told, stride=STRIDE)


def test_a_third_host_in_vain():
    """It is to have its twin at a third host, and that one dies, or the VM's own host, when a part of the disk is over
    there: what it has in common with the twin that it had before is not forgotten for that."""
    with resyncing() as (pair, told), PairHost(pair.net) as third:
        talk = Talk(pair.net, third.standby("--insecure"))
        pair.callback(talk.close)
        for dies in ["the third", "the VM"]:
            pair.lines[pair.b].cut(back=False)
            pair.kill(pair.b)
            pair.wait_for(pair.a, state="solo")
            told.update(ask(pair, 50))

            def kill(dies=dies):
                os.kill(third.arriving()[0] if dies == "the third" else pair.pid(pair.a), signal.SIGKILL)
            with talk.at("BLOCKS", "after", kill) as hit:
                said = pair.a.run("protect", "web1", "--to", talk.address, "--witness", f"file:{pair.witness}", "--insecure")
                assert hit.wait(30) and said.returncode != 0, said
            talk.cut()
            if dies == "the VM":
                pair.a.wait_until(lambda: pair.a.pid() is None, "the end of the VM")
                pair.start_primary()
            told.update(ask(pair, 50))
            pair.lines[pair.b].mend()
            says = pair.pair_again() if dies == "the third" else pair.wait_for(pair.a, role="primary", state="paired")
            resync = says["resync"]
            assert resync["what"] == "delta" and 100 * BLOCK <= resync["sent_bytes"] <= MIB, f"{dies}: {resync}"
            disks_become_equal(pair)
            talk.mend()
        told.update(ask(pair))
        pair.kill(pair.a)
        pair.wait_for(pair.b, role="primary")
        check_disk(pair.disk(pair.b), told, stride=STRIDE)


def gets_everything(change, why):
    with resyncing() as (pair, told):
        pair.lines[pair.a].cut()
        pair.kill(pair.a)
        pair.wait_for(pair.b, role="primary", state="solo")
        change(pair)
        pair.lines[pair.a].mend()
        resync = pair.wait_for(pair.b, state="paired")["resync"]
        assert resync["what"] == "full" and why in resync["why"], resync
        disks_become_equal(pair)
        told.update(ask(pair, 20))
        check_disk(pair.disk(pair.b), told, stride=STRIDE)


def test_a_disk_that_was_replaced():
    """Where the old disk is not the same file any more all of it goes over, and it is said why."""
    def replace(pair):
        copy(pair.disk(pair.a), "new.img").rename(pair.disk(pair.a))
    gets_everything(replace, "disk.img is another file")


def test_without_a_note():
    """The same where nothing is known of what has changed there."""
    gets_everything(lambda pair: os.unlink(pair.a.root / "web1/.changes"), "nothing in common")


def test_a_note_that_cannot_be_read():
    """A host that cannot read its note says so, and becomes no twin until it can: what it has stays as it is."""
    with resyncing() as (pair, told):
        note, before = pair.a.root / "web1/.changes", copy(pair.disk(pair.a), "before.img")
        pair.lines[pair.a].cut()
        pair.kill(pair.a)
        pair.wait_for(pair.b, role="primary", state="solo")
        if subprocess.run(["chattr", "+i", note], capture_output=True).returncode != 0:
            raise Skip("no file can be made immutable here")
        try:
            pair.lines[pair.a].mend()
            pair.wait_for(pair.b, state="solo", why=lambda why: "web1: cannot read .changes: Operation not" in (why or ""))
            pair.a.wait_until(note.exists, "the folder back in its place")
        finally:
            for left in pair.a.root.glob("**/.changes"):
                subprocess.run(["chattr", "-i", left], check=True)
        comes_back(pair, pair.b, before)
        told.update(ask(pair, 20))
        check_disk(pair.disk(pair.b), told, stride=STRIDE)


def test_unprotected_in_between():
    """What a VM writes without protection is not noted: the next twin gets all of it."""
    with resyncing() as (pair, _):
        assert (pair.a.root / "web1/.changes").exists()
        pair.a.good("unprotect", "web1")
        assert not (pair.a.root / "web1/.changes").exists()
        ask(pair, 20)
        pair.b.wait_until(lambda: not pair.b.arriving(), "the end of the twin")
        shutil.rmtree(pair.b.root / "web1")  # of a VM that is protected no more
        pair.protect()
        resync = pair.wait_for(pair.a, state="paired")["resync"]
        assert resync["what"] == "full", resync
        disks_become_equal(pair)


def test_a_qcow2_disk():
    """What a guest sees of a qcow2 disk is compared, too; on the other host it is raw, and who has it as qcow2 gets all
    of it once."""
    need_protect()
    if not shutil.which("qemu-img"):
        raise Skip("no qemu-img")
    with Pair(back=True) as pair:
        pair.make(size=SIZE, stride=STRIDE)
        web = pair.a.root / "web1"
        subprocess.run(["qemu-img", "convert", "-O", "qcow2", web / "disk.img", web / "disk.qcow2"], check=True)
        (web / "disk.img").unlink()
        definition = json.loads((web / "vm.json").read_text())
        definition["disks"] = [{"file": "disk.qcow2", "format": "qcow2"}]
        (web / "vm.json").write_text(json.dumps(definition))
        pair.start_primary()
        for host in pair.hosts:
            pair.start_standby(host)
        pair.protect()
        told = ask(pair)
        pair.lines[pair.b].cut(back=False)
        pair.kill(pair.b)
        pair.wait_for(pair.a, state="solo")
        told.update(ask(pair, 50))
        pair.lines[pair.b].mend()
        resync = pair.wait_for(pair.a, state="paired")["resync"]
        assert resync["what"] == "delta" and 50 * BLOCK <= resync["sent_bytes"] <= MIB, resync
        pair.kill(pair.a)
        resync = pair.wait_for(pair.b, role="primary", state="paired")["resync"]
        assert resync["what"] == "full" and "not in the folder" in resync["why"], resync
        told.update(ask(pair, 20))
        check_disk(pair.disk(pair.b), told, stride=STRIDE)


# --- many of them ---------------------------------------------------------------------------------------------------


def go_there_and_back(times, seed, *options, key=False):
    """Takeovers and lost twins at random moments, with clients under way; never is all of a disk sent."""
    need_protect()
    order = random.Random(seed)
    with Pair(key=key, back=True) as pair:
        pair.start_primary(size=SIZE, stride=STRIDE)
        for host in pair.hosts:
            pair.start_standby(host)
        pair.protect(pair.a, pair.b, *options)
        clients = pair.clients("udp", "tcp", patience=20)
        here = pair.a
        for number in range(times):
            clients.wait_for_more(order.randrange(50))
            twin_dies = order.random() < 0.3
            newer = here.protection()["generation"] + 2  # the loss, and the next pair
            pair.kill(pair.other(here) if twin_dies else here)
            here = here if twin_dies else pair.other(here)
            says = pair.wait_for(here, role="primary", state="paired", generation=lambda known, newer=newer: known >= newer)
            resync = says["resync"]
            assert resync["what"] == "delta", f"{number}, seed {seed}: {resync}"
        told = clients.stop()
        disks_become_equal(pair)
        check_disk(pair.disk(here), told, stride=STRIDE)


def test_durable_with_a_key():
    """The same where the twin keeps a journal, and over a link with a key."""
    go_there_and_back(3, 1, "--level", "durable", key=True)


def test_1000_cycles():
    """A thousand times, and not one full copy."""
    go_there_and_back(1000, time.time_ns())


test_1000_cycles.slow = True
test_1000_cycles.time_limit = 3600

# --- crashes --------------------------------------------------------------------------------------------------------


def in_resync(pair, word, when, who):
    """One of them is killed at that word, and the next try sends what differs, too."""
    pair.pair_up()
    pair.killer(pair.there)()
    pair.wait_for(pair.here, state="solo")
    known = pair.asking.most
    with pair.talk.at(word, when, victim(pair, who)) as hit:
        # It looks for a twin by itself, too, and perhaps before these have come.
        pair.a.wait_until(lambda: pair.asking.most > known + 40 or hit.is_set(), "some answers")
        pair.protect()
        reach(hit, f"nobody said {word}: {pair.talk.words[-9:]}")
    pair.settle()
    pair.pair_up()
    resync = pair.here.protection()["resync"]
    assert resync["what"] == "delta", resync


def crash(points):
    need_protect()
    with CrashPair(size=64 * MIB, stride=STRIDE) as pair:
        for point in points:
            try:
                try_point(pair, point, in_resync)
            except Exception as error:
                raise AssertionError(f"{point}: {error}") from error
        told = pair.asking.stop()
        pair.kill(pair.here)
        check_disk(pair.disk(pair.here), told, stride=STRIDE)


def test_crashes_in_a_resync():
    """Either of them is killed while a twin is brought up to date: the next try does not begin from nothing."""
    crash([("LOOKED", "after", "twin"), ("BLOCKS", "after", "primary"), ("COMMIT", "before", "twin"),
           ("WORD ACK", "before", "primary")])


def test_all_crashes_in_a_resync():
    """The same at each of its words."""
    crash([(word, when, who) for word in RESYNC for when in ["before", "after"] for who in ["primary", "twin"]])


test_all_crashes_in_a_resync.slow = True
test_all_crashes_in_a_resync.time_limit = 900
