# SPDX-License-Identifier: MIT
"""The guest echo and its clients, on which the tests of takeovers stand: a VM at a bridge that counts, and answers when
its count is safe."""

import os
import shutil

from echoes import check_disk
from pairs import LossyWay, Pair
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


def spoiled(disk, place):
    copy = disk.with_name("spoiled.img")
    shutil.copy(disk, copy)
    with open(copy, "r+b") as image:
        image.seek(place)
        byte = image.read(1)[0]
        image.seek(place)
        image.write(bytes([byte ^ 1]))
    return copy
