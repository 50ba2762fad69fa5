# SPDX-License-Identifier: MIT
"""minivmm protect: what is wrong with the other host, or with the line, and does not go away by itself (F7, F8, F9, F11, F12;
tests/system/test_protect.py has the others)."""

import contextlib
import json
import re
import resource
import shutil
import struct
import subprocess
import time
from pathlib import Path

from crashes import CrashPair, Talk
from echoes import check_disk
from labcommon import REPOSITORY, Skip
from pairs import Pair
from test_clone import MIB, mounted
from test_protect import SOME, need_protect, takes_over
from test_protection import crc32c

# --- F7: the twin's disk --------------------------------------------------------------------------------------------


def fill(place):
    with open(place / "filler", "wb", buffering=0) as file:
        for piece in [1 << 16, 512]:
            with contextlib.suppress(OSError):
                while file.write(bytes(piece)) == piece:
                    pass


@contextlib.contextmanager
def on_a_small_disk():
    """A VM at A, and a place for its twin that has room just so; clients are under way."""
    need_protect()
    with Pair() as pair, mounted(pair.b, "tmpfs") as place:
        pair.line = Talk
        pair.process = pair.start_primary(pages=64)
        pair.start_standby(pair.b, "--insecure", place=place)
        clients = pair.clients("udp", "tcp", patience=20)
        clients.wait_for_more(SOME)
        yield pair, clients, place


def goes_on_alone(pair, clients, why):
    says = pair.wait_for(pair.a, role="primary", state="solo", why=lambda text: re.search(why, text or ""))
    clients.wait_for_more(SOME)
    pair.b.wait_until(lambda: not pair.b.arriving(), "the end of the twin")
    assert pair.owner() is pair.a
    return says


def stop(pair, clients):
    told = clients.stop()
    pair.kill(pair.a)
    check_disk(pair.disk(pair.a), told)


def test_f7_no_room_in_the_first_sync():
    """F7: there is no room for the twin's disk. That is said, and the VM goes on; when there is room it gets its twin."""
    with on_a_small_disk() as (pair, clients, place):
        def fill_first(word, _):
            if word == "ACK WELCOME":
                fill(place)

        pair.lines[pair.b].change = fill_first
        said = pair.a.run("protect", "web1", "--to", pair.lines[pair.b].address, "--witness", f"file:{pair.witness}",
                          "--insecure")
        pair.lines[pair.b].change = None
        assert said.returncode != 0 and "No space left" in said.stderr, said
        clients.wait_for_more(SOME)
        (place / "filler").unlink()
        pair.protect()
        pair.wait_for(pair.a, role="primary", state="paired")
        clients.wait_for_more(SOME)
        stop(pair, clients)


def test_f7_no_room_later():
    """The same while it follows: the primary goes on alone and says why, and a twin that lacks a block never takes over;
    when there is room the VM gets a new one."""
    with on_a_small_disk() as (pair, clients, place):
        for _ in range(3):
            pair.pair_again()
            clients.wait_for_more(SOME)
            subprocess.run(["fallocate", "--dig-holes", place / "web1/disk.img"], check=True)
            fill(place)
            goes_on_alone(pair, clients, "No space left")
            (place / "filler").unlink()
        stop(pair, clients)


def test_f7_a_disk_that_fails():
    """The same where its disk takes no more writes, for whatever reason."""
    with on_a_small_disk() as (pair, clients, _):
        pair.protect()
        before, pid = pair.wait_for(pair.a, role="primary", state="paired"), pair.pid(pair.b)
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (4096, 4096))
        takes_over(pair, pair.a, before)
        clients.wait_for_more(SOME)
        pair.b.wait_until(lambda: pair.is_over(pid), "the end of the twin")
        assert pair.owner() is pair.a
        stop(pair, clients)


@contextlib.contextmanager
def thin(room):
    """A file system that believes to have more room than `room` has: what does not fit is lost when it is synced."""
    image, point = room / "thin.img", room / "thin"
    point.mkdir()
    with open(image, "wb") as file:
        file.truncate(400 * MIB)
    if subprocess.run(["mkfs.ext4", "-q", "-O", "^has_journal", image]).returncode != 0 or \
            subprocess.run(["mount", "-o", "loop", image, point]).returncode != 0:
        raise Skip("no ext4 can be mounted here")
    try:
        yield point
    finally:
        subprocess.run(["umount", "-l", point], check=True)


def test_f7_a_disk_that_cannot_be_synced():
    """The same where the writes to its disk end well, and only the sync says that they were lost. The log goes on to say so
    when `why` already has what stands in the way of a new twin."""
    need_protect()
    with Pair() as pair, mounted(pair.b, "tmpfs") as room, thin(room) as place:
        process = pair.start_primary(pages=64)
        pair.start_standby(pair.b, "--insecure", place=place)
        clients = pair.clients("udp", "tcp", patience=20)
        clients.wait_for_more(SOME)
        for _ in range(2):
            assert pair.pair_again()["resync"]["what"] == "full"
            clients.wait_for_more(SOME)
            fill(room)
            goes_on_alone(pair, clients, r"cannot write .*(disk\.img|\.arriving): ")
            (room / "filler").unlink()
        stop(pair, clients)
        said = process.stderr.read()
        assert len(re.findall(r"web1 is followed no more: .*cannot write .*disk\.img: ", said)) == 2, said


# --- F7: where the VM runs ------------------------------------------------------------------------------------------


def make_on_a_small_disk(pair):
    """web1 at A, whose folder is a file system of its own. Its disk has all of its blocks."""
    pair.make(pages=64)
    web, made = pair.a.root / "web1", pair.a.root / "made"
    web.rename(made)
    web.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={24 * MIB}", "none", web]).returncode != 0:
        raise Skip("tmpfs cannot be mounted here")
    pair.callback(subprocess.run, ["umount", "-l", web], check=True)
    shutil.copytree(made, web, dirs_exist_ok=True)
    subprocess.run(["fallocate", "--length", str((web / "disk.img").stat().st_size), web / "disk.img"], check=True)
    return web


def cannot_note(text):
    return re.search(r"what it sends waits .*cannot write \.protected: No space left", text or "")


def test_f7_no_room_where_it_runs():
    """F7 at the host where the VM runs: a guest whose disk has its room does not notice, and stays protected. When its twin
    dies it goes on alone, and with a new twin, by the room that was put aside for that. Without that it cannot be noted
    that it is alone: nobody is told anything, `why` says what is so, and with room it goes on. The new twin takes over
    from a primary without room, with all that anybody was told."""
    need_protect()
    with Pair() as pair:
        web = make_on_a_small_disk(pair)
        pair.start_primary()
        pair.start_standby(pair.b)
        pair.protect()
        clients = pair.clients("udp", "tcp")
        clients.wait_for_more(SOME)
        before = pair.wait_for(pair.a, role="primary", state="paired")
        fill(web)
        clients.wait_for_more(10 * SOME)
        says = pair.wait_for(pair.a, role="primary", state="paired")
        assert says["generation"] == before["generation"] and not says["why"], says
        pair.kill(pair.b)
        pair.wait_for(pair.a, role="primary", state="solo")
        clients.wait_for_more(SOME)
        pair.wait_for(pair.a, role="primary", state="paired")
        (web / ".protected.spare").unlink()
        fill(web)
        pair.kill(pair.b)
        says = pair.wait_for(pair.a, role="primary", why=cannot_note)
        assert says["gated"] and clients.become_silent(0.5), says
        (web / "filler").unlink()
        says = pair.wait_for(pair.a, role="primary", state="paired")
        assert says["generation"] > before["generation"] and says["resync"]["what"] == "delta" and not says["why"], says
        clients.wait_for_more(SOME)
        fill(web)
        clients.wait_for_more(SOME)
        pair.kill(pair.a)
        clients.wait_for_more(SOME)
        assert pair.wait_for(pair.b, role="primary", state="solo")["generation"] == says["generation"] + 1
        told = clients.stop()
        assert check_disk(pair.disk(pair.b), told) == max(told) == len(told)


# --- F8: a slow twin ------------------------------------------------------------------------------------------------


def memory_of(pid):
    with contextlib.suppress(OSError, TypeError):  # it ends just now
        return int(re.search(r"VmRSS:\s*(\d+)", Path(f"/proc/{pid}/status").read_text())[1]) * 1024
    return 0


def test_f8_a_slow_line():
    """F8: the twin is at a line that takes less than the guest makes. The guest is slowed down, what waits is bounded, nothing
    gets lost, and all is well again with the line."""
    need_protect()
    with CrashPair(pages=256, rate=2000, ft={"timeout_ms": 3000}) as pair:
        pair.pair_up()
        before, most = memory_of(pair.pid(pair.here)), 0
        pair.talk.rate = 125_000  # bytes a second: 1 Mbit/s
        states, end = set(), time.monotonic() + 6
        while time.monotonic() < end:
            says = pair.here.protection()
            states.add(says.get("state"))
            most = max(most, says.get("held_bytes", 0))
            for pid in pair.processes(pair.here):  # none, where the twin has lost patience first, and has won
                assert memory_of(pid) < before + 160 * MIB
            time.sleep(0.1)
        assert most <= 160 * MIB and states <= {"paired", "alone", "solo", "gated", "deposed", None}, (most, states)
        pair.talk.rate = None
        pair.settle()
        pair.pair_up()
        pair.asking.wait_for_more(SOME)
        there = pair.there
        pair.kill(pair.here)
        pair.settle()
        assert pair.here is there
        pair.finish()


def test_f8_a_guest_that_writes_more_than_the_line_takes():
    """F8: ten times as much as the line takes. The guest is slowed down until both fit, which is said; it stays protected,
    and answers; and it runs as before when the line is as before."""
    need_protect()
    with CrashPair(pages=2048, rate=5000, ft={"timeout_ms": 3000}) as pair:
        pair.pair_up()
        generation = pair.here.protection()["generation"]
        pair.talk.rate = 2_000_000
        pair.wait_for(pair.here, throttle_percent=lambda percent: percent and percent > 50)
        for _ in range(3):
            pair.asking.wait_for_more(1)
            says = pair.here.protection()
            assert says["state"] == "paired" and says["generation"] == generation, says
        pair.talk.rate = None
        says = pair.wait_for(pair.here, state="paired", throttle_percent=0)
        assert says["generation"] == generation, says
        pair.asking.wait_for_more(SOME)
        pair.finish()


test_f8_a_guest_that_writes_more_than_the_line_takes.waits = True


def test_f8_a_slow_line_takes_what_has_changed():
    """F8: the guest writes a little into each of so many pages that the pages as a whole are ten times what the line takes. Only
    what has changed in them goes over, and the guest keeps all of its speed."""
    need_protect()
    with Pair() as pair:
        pair.line = Talk
        pair.start_primary(pages=2048, rate=5000, words=8, ft={"timeout_ms": 3000})
        pair.start_standby(pair.b)
        pair.protect()
        pair.wait_for(pair.a, epoch=lambda epoch: epoch > 20)
        pair.lines[pair.b].rate = 2_000_000

        def goes_well():
            last = json.loads(pair.a.good("epochs", "web1", "--last", 20, "--json"))
            pages = sum(one["raw_pages"] + one["lz4_pages"] + one["delta_pages"] for one in last)
            return (pair.a.protection()["throttle_percent"] == 0 and pages > 20 * 100 and
                    sum(one["wire_bytes"] for one in last) < pages * 4096 / 8)
        pair.a.wait_until(goes_well, "short epochs of a guest at its full speed", 40)
        assert pair.a.protection()["state"] == "paired"


# --- F9: the line changes what is said ------------------------------------------------------------------------------


def test_f9_changed_bits():
    """F9: somewhere in the first sync, or later, a bit is not what it was. Nobody takes that, or dies of it: the pair is
    lost, and made again; and a twin that takes over has nothing wrong."""
    need_protect()
    with CrashPair(seed=9) as pair:
        for number in range(16):
            if number % 2:
                pair.pair_up()
            else:
                pair.unpair()
            pair.talk.hit.clear()
            pair.talk.spoil = pair.order.randrange(400_000)
            if not number % 2:
                pair.protect()
            pair.talk.hit.wait(10)
            pair.settle()
            assert all(host.waiting.poll() is None for host in pair.hosts), "a standby died"
        pair.talk.spoil = None
        pair.pair_up()
        pair.kill(pair.here)
        pair.settle()
        pair.finish()


# --- F11: another one -----------------------------------------------------------------------------------------------


def of_another_version(word, payload):
    return struct.pack("<I", 99) + payload[4:] if word == "FOLLOW" else None


def with_another_model(word, payload, change):
    """A HELLO with what change makes of the section with its model. (core/state.h, vmm/machine_model.c)"""
    if word != "HELLO":
        return None
    begin = payload.index(b"\x05model")
    end = begin + 16 + struct.unpack_from("<I", payload, begin + 12)[0]
    section = payload[begin:end]
    assert payload[end:end + 4] == struct.pack("<I", crc32c(section)), "a model is otherwise"
    section = change(section)
    return payload[:begin] + section + struct.pack("<I", crc32c(section)) + payload[end + 4:]


def with_another_cpu(word, payload):
    """What it says of CPUID leaf 7: all bits of EBX, which no CPU has."""
    def change(section):
        leaf = struct.pack("<III", 7, 0, 1)
        assert section.count(leaf) == 1, "a model is otherwise"
        at = section.index(leaf) + 16  # EAX comes first
        return section[:at] + b"\xff" * 4 + section[at + 4:]

    return with_another_model(word, payload, change)


def with_another_msr(word, payload):
    """In the place of its last MSR one of KVM's own that is not assigned."""
    return with_another_model(word, payload, lambda section: section[:-4] + struct.pack("<I", 0x4b5640ff))


def test_f11_what_does_not_fit():
    """F11: a host with another version of minivmm, or whose CPU lacks what the VM has, is told at once, and the VM goes on."""
    need_protect()
    with CrashPair() as pair:
        for change, code, words in [
                (of_another_version, 4, "speaks version 99 of fault tolerance, this minivmm version 4"),
                (with_another_cpu, 6, "CPU|cpu"), (with_another_msr, 6, "no MSR 0x4b5640ff.*\nhint: .*kernel")]:
            pair.talk.change = change
            said = pair.protect()
            assert said.returncode == code and re.search(words, said.stderr), said
            pair.asking.wait_for_more(3)
            assert pair.here.protection() == {}
            pair.there.wait_until(lambda: not pair.processes(pair.there), "the end of what came")
        pair.talk.change = None
        pair.pair_up()
        pair.finish()


# --- F12: clocks ----------------------------------------------------------------------------------------------------


def test_f12_no_wall_clock():
    """F12: nothing in fault tolerance asks for the time of day, which somebody may set: but for what a VM that comes
    elsewhere is told of it, and for how long ago one went home, which says only when it may go again. (What becomes of
    a clock that is set: test_protect_clock.py.)"""
    allowed = {"departure.c", "copies.c", "protect_home.c"}
    for path in sorted((REPOSITORY / "ft").glob("*.c")):
        asks = re.findall(r"clock_wall_ns|CLOCK_REALTIME|gettimeofday|\btime\(NULL", path.read_text())
        assert not asks or path.name in allowed, f"{path.name} uses {asks}"
