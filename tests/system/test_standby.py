# SPDX-License-Identifier: MIT
"""minivmm standby: whom it takes in, and how many. Two "hosts" are two runtime folders of this machine. No lab host is
needed."""

import contextlib
import fcntl
import socket

from pairs import PATIENT
from test_migrate import hosts

COMING = 64  # at once, as cli/standby.c has it
EVER = 1024  # VMs that live
WORDS = 1 << 20  # bytes that may be said of all of them: nobody reads before the end


def strangers(stack, address, count):
    """Connections that say nothing."""
    host, port = address.rsplit(":", 1)
    return [stack.enter_context(socket.create_connection((host, int(port)), 20)) for _ in range(count)]


def take_in(rounds):
    with hosts() as (one, other):
        one.make("web1", kernel="counter.elf", ft=PATIENT)
        one.start("web1", until="\n")
        witness = one.root / "w"
        witness.mkdir()
        address = other.standby(by=("env", "--ignore-signal=CHLD"))
        fcntl.fcntl(other.waiting.stderr, fcntl.F_SETPIPE_SZ, WORDS)

        def protect():
            one.good("protect", "web1", "--to", address, "--witness", f"file:{witness}")

        def settle(count):
            other.wait_until(lambda: len(other.arriving()) == count, f"{count} processes of the standby", 60)

        for _ in range(2):
            protect()
            one.good("unprotect", "web1")
            settle(0)
        protect()
        for _ in range(rounds):
            with contextlib.ExitStack() as stack:
                strangers(stack, address, COMING)
                settle(1 + COMING)
            settle(1)
        with contextlib.ExitStack() as stack:
            strangers(stack, address, COMING)
            settle(1 + COMING)
            (late,) = strangers(stack, address, 1)
            assert late.recv(1) == b"" and len(other.arriving()) == 1 + COMING
        settle(1)
        one.good("unprotect", "web1")
        settle(0)
        protect()
        one.good("unprotect", "web1")
        settle(0)
        other.waiting.terminate()
        words = other.waiting.stderr.read()
        assert words.count("turned away") == 1, words


def test_who_has_come_or_gone_takes_no_place():
    """So many may be coming at once, and one more is turned away. Who has come, and stays as a twin, takes no place among
    them, nor does whoever has gone. That holds where whoever began the standby wants to hear of no child, too."""
    take_in(1)


def test_thousands_who_have_gone_take_no_place():
    """The same when more have come and gone than there may be VMs."""
    take_in(EVER // COMING + 1)


test_thousands_who_have_gone_take_no_place.slow = True
