# SPDX-License-Identifier: MIT
"""minivmm report of a VM that changed hosts: what the journal of one host knows of takeovers, switchovers and the time
without a twin, against what the network saw. Two "hosts" on one machine (pairs.py).
"""

import contextlib
import json
import socket
import struct
import time

from pairs import ETH_P_ALL, PACKET_OUTGOING, Pair
from test_protect import need_protect

TIMEOUT = 1.5  # seconds of silence
LATEST = 10.0  # that are detected on a machine that does much else
SOME = 20  # answers
ACKS = 3  # that a twin remembers (ft/chronicle.h)
SO_RCVBUFFORCE, SO_TIMESTAMPNS = 33, 35
REVERSE_ARP = b"\x80\x35"


class Watcher:
    """When frames came out of a tap: the kernel's stamps, by the wall clock; the socket keeps them until they are asked
    for. A host's own announcement is no word of the guest."""

    def __init__(self, net, tap):
        self.stamps = []
        self.socket = net.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
        self.socket.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        self.socket.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 64 << 20)
        self.socket.bind((tap, 0))
        self.socket.setblocking(False)

    def _receive(self):
        try:
            return self.socket.recvmsg(65536, 128)
        except BlockingIOError:
            return None
        except OSError:  # the tap is gone, which is said once, before what came until then
            return self._receive()

    def read(self):
        """All until now, the oldest first."""
        while message := self._receive():
            frame, about, _, (_, _, kind, *_) = message
            if kind != PACKET_OUTGOING and frame[12:14] != REVERSE_ARP:
                seconds, ns = struct.unpack("qq", about[0][2])
                self.stamps.append(seconds + ns / 1e9)
        return self.stamps


@contextlib.contextmanager
def watched(pair, clients, old):
    """The tap of that name, and the newest one; the client has had answers since. The kernel takes a while to begin
    with its stamps, and until then those are of the reading."""
    watchers = [Watcher(pair.net, tap) for tap in (old, pair.net.taps()[-1])]
    reading = 0
    while not any(stamp < reading for stamp in watchers[0].stamps):
        watchers[0].stamps.clear()
        clients.wait_for_more(SOME)
        reading = time.time()
        watchers[0].read()
    try:
        yield watchers
    finally:
        for watcher in watchers:
            watcher.socket.close()


@contextlib.contextmanager
def watched_pair():
    """Protected, with a client under way; both hosts take VMs in, and are patient with a busy machine."""
    need_protect()
    with Pair(back=True) as pair:
        pair.start_primary(ft={"timeout_ms": int(TIMEOUT * 1000)})
        for host in pair.hosts:
            pair.start_standby(host)
        pair.protect()
        clients = pair.clients("udp", patience=20)
        clients.wait_for_more(SOME)
        yield pair, clients


def report(host):
    said = json.loads(host.good("report", host.root / "web1", "--json"))
    return said, said["protection"]


def report_when(host, what):
    """The first that is so: while a former owner's folder becomes a twin's, its journal is on its way."""
    seen = {}

    def is_so():
        said = host.run("report", host.root / "web1", "--json")
        seen.update(json.loads(said.stdout) if said.returncode == 0 else {})
        return seen and what(seen, seen["protection"])
    try:
        host.wait_until(is_so, "a report")
    except AssertionError as error:
        raise AssertionError(f"{error}: {seen}") from None
    return seen, seen["protection"]


def lines(host, event):
    """Those of the journal, the oldest first."""
    with contextlib.suppress(FileNotFoundError), \
            open(host.root / "web1" / "journal.jsonl", encoding="utf-8") as journal:
        return [line for line in map(json.loads, journal) if line["event"] == event]
    return []


def check_takeover(host, clients, old, new):
    """What the newest line says of a takeover, against the frames of the old and the new host, and the only client."""
    host.wait_until(lambda: lines(host, "output"), "the journal's word of the first frame")
    line, silence = lines(host, "takeover")[-1], lines(host, "output")[-1]["silent_ms"] / 1000
    assert not line["planned"], line
    assert line["gap_ms"] <= silence * 1000 + 50, f"{line}, the first frame after {silence} s"
    assert line["gap_ms"] >= line["decide_ms"] + line["load_ms"], line
    began = line["at"] - 0.001  # the guest runs here when that is written, and not before

    def first():
        return min((stamp for stamp in new.read() if stamp >= began), default=None)
    host.wait_until(first, "a frame of the new host")
    seen = first() - max(stamp for stamp in old.read() if stamp < began)
    # All that left the old host after the journal's beginning had been allowed to by an acknowledgement that came later,
    # and the client's every answer needed one: what is counted begins before the last frame, and ends with the first.
    assert seen <= silence + 0.1, f"the journal says {silence:.3f} s, frames were missing for {seen:.3f} s"
    # It begins with the oldest of some last acknowledgements, and each answer needed one of its own.
    to_wall = time.time() - time.monotonic()
    with clients.tally.lock:
        asked = sorted(one.asked + to_wall for one in clients.tally.told.values() if one.told + to_wall < began)
    most = first() - asked[-ACKS]
    assert silence <= most + 0.1, f"the journal says {silence:.3f} s; {ACKS} answers before, {most:.3f} s ago, all was well"
    return line


def paired_again(pair, host):
    """The twin is back; how long there was none, as the report has it. It grows no more."""
    pair.wait_for(host, role="primary", state="paired")
    host.wait_until(lambda: lines(host, "protected"), "the journal's word of the twin")
    _, before = report(host)
    return before


def test_takeovers_are_in_the_report():
    """After a kill and a freeze of the primary: the new host's report has the takeover, what kind of detection it was, a
    gap that is no smaller than what frames show, and the time without a twin, which ends with the next one. The frozen
    one's report knows that another host has it."""
    with watched_pair() as (pair, clients):
        first, second = pair.net.taps()
        with watched(pair, clients, first) as (old, new):
            pair.kill(pair.a)
            clients.wait_for_more(SOME)
            line = check_takeover(pair.b, clients, old, new)
        assert line["why"] == "the connection ended" and line["detect_ms"] < TIMEOUT * 1000, line
        before = paired_again(pair, pair.b)
        said, protection = report(pair.b)
        assert (said["failures"], protection["takeovers"], protection["switchovers"]) == (1, 1, 0), said
        assert abs(said["down"] - line["gap_ms"] / 1000) < 1.0 and 0 < said["availability"] < 1, said
        assert said["mttr"] == said["worst"] == said["down"], said
        assert 0 < before["unprotected"] == protection["unprotected"] <= said["up"], protection
        assert protection["protected"] > before["protected"] > 0, f"{protection}, before {before}"

        with watched(pair, clients, second) as (old, new):
            with pair.frozen(pair.b):
                clients.wait_for_more(SOME)
                line = check_takeover(pair.a, clients, old, new)
            assert line["why"] == "silence", line
            assert TIMEOUT * 1000 <= line["detect_ms"] < LATEST * 1000, line
        said, protection = report(pair.a)  # its first life has come to an end that it did not see
        assert protection["takeovers"] == 1 and protection["gap_worst"] > TIMEOUT, protection
        assert said["failures"] == 2 and protection["ends_unknown"] == 1, said
        said, protection = report_when(pair.b, lambda said, _: said["failures"] == 2)
        assert protection["ends_unknown"] == 1 and protection["elsewhere"] > 0, said


def test_what_is_no_failure_is_none():
    """A switchover is in both reports, and fails nowhere; when the twin dies the VM has not failed, and what its output
    had waited is told."""
    with watched_pair() as (pair, clients):
        pair.a.good("switchover", "web1")
        clients.wait_for_more(SOME)
        said, protection = report_when(pair.a, lambda _, protection: protection["switchovers"])
        assert (said["failures"], said["stops"], protection["switchovers"]) == (0, 0, 1), said
        assert said["availability"] == 1 and protection["elsewhere"] > 0, said
        paired_again(pair, pair.b)
        said, protection = report(pair.b)
        assert (said["failures"], protection["switchovers"], protection["takeovers"]) == (0, 1, 0), said
        assert said["availability"] == 1 and 0 < protection["switchover_worst"] < LATEST, said

        pair.kill(pair.a)
        clients.wait_for_more(SOME)
        pair.b.wait_until(lambda: lines(pair.b, "solo"), "the journal to know that the twin is gone")
        said, protection = report(pair.b)
        assert (said["failures"], protection["twins_lost"]) == (0, 1), said
        assert 0 < protection["held"] == said["down"] < LATEST, said
        assert protection["held"] * 1000 >= lines(pair.b, "alone")[-1]["silent_ms"] - 100, said
