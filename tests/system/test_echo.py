# SPDX-License-Identifier: MIT
"""The guest echo and its clients, on which the tests of takeovers stand: a VM at a bridge that counts, and answers when
its count is safe."""

import os
import shutil
import time

from echoes import check_disk
from pairs import LossyWay, Pair
from test_clone import MIB
from test_migrate import ended

ANSWERS = 500


def test_a_connection_goes_along():
    """A VM with clients goes to another host and back. Each answer is right, no count is lost or comes twice, the TCP
    connection stays open all the time, and the disk has everything that anybody was told of, when they were told."""
    with Pair() as pair:
        process = pair.start_primary()
        clients = pair.clients("udp", "tcp")
        clients.wait_for_more(ANSWERS // 5)
        pair.a.good("migrate", "web1", pair.start_standby(pair.b))
        ended(process)
        clients.wait_for_more(ANSWERS // 5)
        shutil.rmtree(pair.a.root / "web1")
        pair.b.good("migrate", "web1", pair.start_standby(pair.a))
        clients.wait_for_more(ANSWERS * 3 // 5)
        told = clients.stop()
        assert check_disk(pair.disk(pair.a), told) == max(told) == len(told) >= 2 * ANSWERS
        assert "WRONG" not in pair.a.console("web1")


def test_a_count_that_was_told_is_there():
    """Killed at any moment, and started again on the same disk, it goes on behind everything that anybody was told of;
    a clean power-off counts what was taken."""
    with Pair() as pair:
        process = pair.start_primary()
        told = {}
        for _ in range(3):
            clients = pair.clients("udp", "udp", "tcp", reboots=True)
            clients.wait_for_more(20)
            process.kill()
            process.wait()
            known = {**told, **clients.tally.told}
            before = check_disk(pair.disk(pair.a), known)
            assert before >= clients.most
            process = pair.start_primary()
            for client in clients.all[:2]:  # they ask again, and their count goes on
                answers = client.answers
                pair.a.wait_until(lambda: client.answers > answers + 2 or client.error, "more answers")
                client.stopped.set()
                client.join(20)
                assert not client.error, client.error
            told = {**told, **clients.tally.told}
        pair.a.good("stop", "web1")
        ended(process)
        assert "power button" in pair.a.console("web1")
        assert check_disk(pair.disk(pair.a), told) >= max(told)


def test_frames_get_lost():
    """Of 200 frames some get lost, come twice, or behind those that were sent later: nobody is told anything wrong, and
    the connection stays open."""
    with Pair() as pair:
        pair.start_primary()
        way = LossyWay(pair.net, pair.ADDRESS, loss=0.05, seed=1)
        pair.callback(way.close)
        clients = pair.clients("udp", "udp", "tcp", "tcp")
        clients.wait_for_more(100)
        told = clients.stop()
        assert way.lost > 10, way.lost
        assert check_disk(pair.disk(pair.a), told) == len(told)


def test_the_checks_notice():
    """What a client or the look at the disk is there for it does notice: a count that goes back, a lost record, another
    content."""
    with Pair() as pair:
        process = pair.start_primary()
        clients = pair.clients("udp")
        clients.wait_for_more(10)
        early = pair.a.root / "early.img"
        shutil.copy(pair.disk(pair.a), early)
        clients.wait_for_more(10)
        process.kill()
        process.wait()
        disk = pair.disk(pair.a)
        for wrong in [early, spoiled(disk, 512 * 5 + 40)]:
            try:
                check_disk(wrong, clients.tally.told)
            except AssertionError:
                pass
            else:
                raise AssertionError(f"nothing was wrong with {wrong}")
        os.replace(early, disk)  # behind everybody's back
        pair.start_primary()
        try:
            clients.wait_for_more(10)
            clients.stop()
        except AssertionError as error:
            assert "went back" in str(error) or "told before" in str(error), error
        else:
            raise AssertionError("nobody noticed that the count went back")


def test_memory_that_is_wrong():
    """A bit of its memory that is not what it was the guest notices, and its clients hear of it."""
    with Pair() as pair:
        process = pair.start_primary(pages=1024)
        clients = pair.clients("udp")
        clients.wait_for_more(10)
        with open(f"/proc/{process.pid}/maps") as maps:
            ranges = [[int(end, 16) for end in line.split()[0].split("-")] for line in maps if "rw-p" in line]
        (start,) = [first for first, behind in ranges if behind - first == 16 * MIB]
        with open(f"/proc/{process.pid}/mem", "r+b", buffering=0) as memory:
            memory.seek(start + 4 * MIB + 100)  # among its pages
            byte = memory.read(1)[0]
            memory.seek(start + 4 * MIB + 100)
            memory.write(bytes([byte ^ 4]))
        pair.a.wait_until(lambda: clients.all[0].error, "somebody who notices")
        assert "the guest has seen" in str(clients.all[0].error), clients.all[0].error
        pair.a.wait_until(lambda: "echo: WRONG: memory of page" in pair.a.console("web1"), "what is wrong")


def test_what_befalls_hosts():
    """A line that is cut lets nothing through, either way, and nobody is told; mended, it brings what was sent. A VM
    that is frozen says nothing; nothing of its frames escapes a sniffer."""
    with Pair(key=True) as pair:
        pair.start_primary()
        clients = pair.clients("udp", "tcp")
        clients.wait_for_more(10)
        sniffer = pair.sniff(0)
        with pair.frozen(pair.a):
            assert clients.become_silent(0.1)
            seen = len(sniffer.frames)
            assert clients.are_silent(0.1) and len(sniffer.frames) == seen
        clients.wait_for_more(10)
        pair.a.wait_until(lambda: len(sniffer.frames) >= seen + 20, "the frames of ten answers to each")
        for ways in [{"back": False}, {"there": False}, {}]:
            address = pair.start_standby(pair.b)
            line = pair.lines[pair.b]
            line.cut(**ways)
            moving = pair.a.begin("migrate", "web1", address, "--key", pair.key_file(pair.a))
            time.sleep(0.5)
            assert moving.poll() is None and not (pair.b.root / "web1").exists(), ways
            line.mend()
            assert moving.wait(20) == 0, moving.stderr.read()
            clients.wait_for_more(10)
            shutil.rmtree(pair.a.root / "web1")
            pair.b.good("migrate", "web1", pair.start_standby(pair.a), "--key", pair.key_file(pair.b))
            shutil.rmtree(pair.b.root / "web1")
        address = pair.start_standby(pair.b)
        pair.lines[pair.b].cut(back=False)
        moving = pair.a.begin("migrate", "web1", address, "--key", pair.key_file(pair.a))
        time.sleep(0.2)
        pair.lines[pair.b].reset()
        pair.lines[pair.b].close()
        assert moving.wait(20) == 1
        clients.wait_for_more(10)
        assert len(clients.stop()) == clients.most


def spoiled(disk, place):
    copy = disk.with_name("spoiled.img")
    shutil.copy(disk, copy)
    with open(copy, "r+b") as image:
        image.seek(place)
        byte = image.read(1)[0]
        image.seek(place)
        image.write(bytes([byte ^ 1]))
    return copy
