# SPDX-License-Identifier: MIT
"""What befalls a VM while it is protected, other than the death of a host: its twin goes on from there."""

import socket
import struct
import time

from echoes import PORT, check_disk
from pairs import Pair
from test_protect import SOME, need_protect

KEYBOARD, ACPI, TRIPLE_FAULT = range(3)  # how the guest echo resets itself
RESET = int.from_bytes(b"echreset", "little")


def test_reset():
    """A protected VM is reset, and again. Its memory is the same on both sides in each epoch (--verify), it stays
    protected, and the twin goes on with what it was after that."""
    need_protect()
    with Pair() as pair:
        pair.start_primary(pages=64)
        pair.start_standby(pair.b)
        pair.protect(None, None, "--verify")
        first = pair.wait_for(pair.a, role="primary", state="paired")
        epoch = first["epoch"]
        for _ in range(3):
            clients = pair.clients("udp", "tcp")
            clients.wait_for_more(SOME)
            clients.stop()
            pair.a.good("reset", "web1")
            epoch = pair.wait_for(pair.a, state="paired", acked=lambda acked, least=epoch: acked > least)["epoch"]
        clients = pair.clients("udp", "tcp")  # of the VM after the last reset
        clients.wait_for_more(SOME)
        before = pair.wait_for(pair.a, state="paired")
        assert before["generation"] == first["generation"], "it was without a twin meanwhile"
        pair.kill(pair.a)
        clients.wait_for_more(SOME)
        told = clients.stop()
        after = pair.wait_for(pair.b, role="primary")
        assert after["generation"] > before["generation"], (before, after)
        pair.kill(pair.b)
        assert check_disk(pair.disk(pair.b), told) >= max(told)


def reset_by(pair, way):
    with pair.net.socket(socket.AF_INET, socket.SOCK_DGRAM) as ours:
        ours.sendto(struct.pack("<8Q", RESET, way, *[0] * 6), (pair.ADDRESS, PORT))


def starts(host):
    return host.console("web1").count("echo: ready")


def test_a_reset_by_the_guest():
    """The guest resets itself, by the keyboard controller and by ACPI, and crashes, so that its restart policy starts it
    again: it comes back each time, and stays protected, and its memory is the same on both sides (--verify)."""
    need_protect()
    with Pair() as pair:
        pair.start_primary(pages=64, restart="on-failure")
        pair.start_standby(pair.b)
        pair.protect(None, None, "--verify")
        first = pair.wait_for(pair.a, role="primary", state="paired")
        clients = pair.clients("udp", "udp", reboots=True)
        for way in (KEYBOARD, ACPI, TRIPLE_FAULT):
            clients.wait_for_more(SOME)
            before = starts(pair.a)
            reset_by(pair, way)
            pair.a.wait_until(lambda least=before: starts(pair.a) > least, f"a start after a reset, {way}")
        clients.wait_for_more(SOME)
        last = pair.wait_for(pair.a, state="paired")
        assert last["generation"] == first["generation"], "it was without a twin meanwhile"
        assert [event for event, _ in pair.a.journal("web1")].count("crash") == 1
        pair.kill(pair.a)
        clients.wait_for_more(SOME)
        told = clients.stop()
        assert check_disk(pair.disk(pair.b), told) >= max(told)


def test_a_death_amid_a_reset():
    """Its host dies when the guest has just been reset, or is about to reset itself, or waits for its restart after a crash: the twin
    goes on with a VM that is right, from before or after that, and nobody has been told anything that is not so."""
    need_protect()
    with Pair(back=True) as pair:
        pair.start_primary(pages=64, restart="on-failure")
        for host in pair.hosts:
            pair.start_standby(host)
        pair.protect()
        clients = pair.clients("udp", "udp", reboots=True)
        owner = pair.a
        for way, seconds in ((KEYBOARD, 0.002), (ACPI, 0.01), (None, 0), (TRIPLE_FAULT, 0.3)):
            pair.wait_for(owner, role="primary", state="paired")
            clients.wait_for_more(SOME)
            if way is None:
                owner.good("reset", "web1")
            else:
                reset_by(pair, way)
            time.sleep(seconds)
            pair.kill(owner)
            owner = pair.other(owner)
            clients.wait_for_more(SOME)
        told = clients.stop()
        assert "WRONG" not in owner.console("web1")
        pair.kill(owner)
        assert check_disk(pair.disk(owner), told) >= max(told)


def test_what_was_set_holds():
    """A cable that was pulled out and the limit of a disk, by minivmm set, are the same where the twin goes on, and at the
    twin of that one, until they are set anew."""
    need_protect()
    with Pair(back=True) as pair:
        pair.start_primary(pages=64)
        for host in pair.hosts:
            pair.start_standby(host)
        pair.a.good("set", "web1", "--disk", "0", "--iops", "20")  # before, and...
        pair.protect()
        clients = pair.clients("udp")
        clients.wait_for_more(3)
        pair.a.good("set", "web1", "--net", "0", "--link", "down")  # ...while it is protected
        owner = pair.a
        for _ in range(2):
            seen = pair.wait_for(owner, role="primary", state="paired")["epoch"]
            pair.wait_for(owner, acked=lambda acked, least=seen: acked > least + 1)
            pair.kill(owner)
            owner = pair.other(owner)
            pair.wait_for(owner, role="primary")
        assert clients.are_silent(0.3), "the cable is in again"
        owner.good("set", "web1", "--net", "0", "--link", "up")
        clients.wait_for_more(1)
        begin = time.monotonic()
        clients.wait_for_more(15)  # each of them writes twice
        assert time.monotonic() - begin > 0.7, "the disk has no limit"
        owner.good("set", "web1", "--disk", "0", "--iops", "0")
        clients.wait_for_more(SOME)
        clients.stop()
