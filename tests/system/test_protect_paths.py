# SPDX-License-Identifier: MIT
"""minivmm protect over two lines between the hosts: whichever of them is cut, the VM stays paired and its clients get their
answers; with both cut it is as with one that is."""

import contextlib
import threading

from echoes import check_disk
from pairs import Line, Pair
from test_protect import SOME, need_protect


class LargeLost(Line):
    """While `lost` is set, no large piece comes through, and nothing that comes after one: a line with a wrong MTU."""

    LARGE = 1400

    def __init__(self, net, target):
        self.lost = threading.Event()
        super().__init__(net, target)

    def takes(self, source, data):
        if self.lost.is_set() and len(data) > self.LARGE:
            while source.recv(1 << 18):
                pass
            return False
        return True


class TwoLines(contextlib.ExitStack):
    """A pair whose hosts have two lines, paired, with clients that ask all the time."""

    def __init__(self, **more):
        super().__init__()
        need_protect()
        with contextlib.ExitStack() as stack:
            self.pair = stack.enter_context(Pair(key=True))
            pair = self.pair
            pair.make(ft={"timeout_ms": 4500, "heartbeat_ms": 50}, **more)  # a line is bad after a third of that
            pair.start_primary()
            for host in pair.hosts:
                pair.start_standby(host)
            self.lines, back = ([LargeLost(pair.net, pair.standbys[host]) for _ in range(2)] for host in [pair.b, pair.a])
            for line in self.lines + back:
                stack.callback(line.close)
            there, back = (",".join(line.address for line in lines) for lines in [self.lines, back])
            pair.a.good("protect", "web1", "--to", there, "--back", back, "--witness", f"file:{pair.witness}", "--key",
                        pair.key_file(pair.a))
            self.clients = pair.clients("udp", "tcp")
            self.clients.wait_for_more(SOME)
            self.enter_context(stack.pop_all())

    def wait_for_paths(self, host, *wanted):
        """Which of the paths are there; the one by which epochs go is '*'."""
        def are_so(paths):
            return [("*" if path["active"] else "") + ("there" if path["alive"] else "away")
                    for path in paths or []] == list(wanted)
        return self.pair.wait_for(host, paths=are_so)

    def moves_once(self, befall, *wanted):
        """What befalls a line makes the stream go to the other one."""
        before = self.pair.a.protection()["path_moves"]
        befall()
        says = self.wait_for_paths(self.pair.a, *wanted)
        assert says["path_moves"] == before + 1, (before, says)

    def wait_for_winner(self):
        """Who goes on alone, by what the witness has said."""
        winners = []

        def is_winner(says):
            return says.get("role") == "primary" and says["state"] in ("solo", "gated", "paired") and \
                says["generation"] > self.generation

        def is_found():
            winners[:] = [host for host in self.pair.hosts if is_winner(host.protection())]
            return winners
        self.pair.a.wait_until(is_found, "one of the two that goes on")
        return winners[0]

    def goes_on(self):
        """Paired as before, in the same generation, and the clients are answered."""
        self.clients.wait_for_more(SOME)
        says = self.pair.a.protection()
        assert says["state"] == "paired" and says["generation"] == self.generation, says

    def run(self):
        pair = self.pair
        self.generation = self.wait_for_paths(pair.a, "*there", "there")["generation"]
        self.wait_for_paths(pair.b, "*there", "there")


def test_one_line_after_the_other():
    """Line 1 is cut and mended, then line 2 in one direction, then line 1 is reset: the VM stays paired, and the stream
    stays where it is until that line is bad. With both cut one of the two goes on, as with one line."""
    with TwoLines() as two:
        pair, (first, second) = two.pair, two.lines
        two.run()
        two.moves_once(first.cut, "away", "*there")
        two.goes_on()
        first.mend()
        two.wait_for_paths(pair.a, "there", "*there")
        two.moves_once(lambda: second.cut(there=False), "*there", "away")
        two.goes_on()
        second.mend()
        two.wait_for_paths(pair.a, "*there", "there")
        two.moves_once(first.reset, "there", "*there")
        two.goes_on()
        said = pair.a.good("status", "web1")
        assert f"{second.address}, there for" in said and "epochs go by it" in said, said
        for line in two.lines:
            line.cut()
        winner = two.wait_for_winner()
        two.clients.wait_for_more(SOME)
        assert pair.owner() is winner
        told = two.clients.stop()
        pair.kill(winner)
        check_disk(pair.disk(winner), told)


def test_large_pieces_get_lost():
    """A line that lets only small packets through (its MTU is wrong) is left like one that is cut, and is no path until it
    is mended. When the VM's process is killed its twin knows, and gets a twin over the two lines back."""
    with TwoLines() as two:
        pair, (first, _) = two.pair, two.lines
        two.run()
        first.lost.set()
        two.wait_for_paths(pair.a, "away", "*there")
        two.goes_on()
        first.lost.clear()
        two.wait_for_paths(pair.a, "there", "*there")
        two.goes_on()
        pair.kill(pair.a)
        pair.wait_for(pair.b, role="primary", state="paired")
        two.wait_for_paths(pair.b, "*there", "there")
        two.clients.wait_for_more(SOME)
        told = two.clients.stop()
        pair.kill(pair.b)
        check_disk(pair.disk(pair.b), told)
