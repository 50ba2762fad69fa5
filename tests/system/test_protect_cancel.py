# SPDX-License-Identifier: MIT
"""minivmm protect that somebody does not want any more: unprotect, or the end of the VM, before it is protected."""

import contextlib
import os
import signal
import time

from crashes import Talk
from pairs import ALERT, Pair
from test_clone import MIB
from test_protect import SOME, need_protect

# What is sent there is lost: nobody reads from this tap.
HOLE = """
    ip address add 10.97.0.1/24 dev hole0
    ip link set hole0 up
    ip neighbour add 10.97.0.2 lladdr 02:00:00:00:00:99 nud permanent dev hole0
"""
SYN_SENT = "02"
AT_ONCE = 8  # seconds; connecting by itself takes 10


@contextlib.contextmanager
def alone(rest=0, **more):
    """A pair of which one host has a VM, with clients at it. `rest`: so much of its disk is full, and not its own."""
    need_protect()
    with Pair() as pair:
        pair.line = Talk
        pair.make(pages=64, **more)
        with open(pair.disk(pair.a), "ab") as image:
            image.write(os.urandom(rest))
        pair.start_primary()
        pair.start_standby(pair.b)
        clients = pair.clients("udp", "tcp")
        clients.wait_for_more(SOME)
        yield pair, clients


def begin(pair, to):
    return pair.a.begin("protect", "web1", "--to", to, "--witness", f"file:{pair.witness}", "--insecure")


def into_a_hole(pair):
    """protect, once it connects to where nobody answers."""
    pair.callback(os.close, pair.net.tap("hole0"))
    (code, said), = pair.net.run_all([("sh", "-ec", HOLE)])
    assert code == 0, said
    process = begin(pair, "10.97.0.2:7420")

    def connects():
        (_, table), = pair.net.run_all([("cat", "/proc/net/tcp")])
        return any(line.split()[3] == SYN_SENT for line in table.splitlines()[1:])
    pair.a.wait_until(connects, "connecting")
    return process


def unprotect(pair, process):
    """Ends both, and nothing else."""
    before = time.monotonic()
    pair.a.good("unprotect", "web1")
    assert time.monotonic() - before < AT_ONCE
    errors = process.communicate(timeout=30)[1]
    assert process.returncode == 4 and "web1 was unprotected meanwhile" in errors, errors
    assert pair.a.protection() == {}


def goes_on(pair, clients, dies=True):
    """And can be protected like any other."""
    clients.wait_for_more(SOME)
    pair.protect()
    pair.wait_for(pair.a, role="primary", state="paired")
    clients.wait_for_more(SOME)
    if dies:
        pair.kill(pair.a)
        clients.wait_for_more(SOME)
    clients.stop()


def test_unprotect_while_nobody_answers():
    """An address that swallows everything: unprotect ends what connects to it at once, and the VM goes on."""
    with alone() as (pair, clients):
        unprotect(pair, into_a_hole(pair))
        goes_on(pair, clients)


def test_unprotect_while_nothing_is_said():
    """The same with a host that takes the connection, and says nothing."""
    with alone() as (pair, clients), contextlib.closing(pair.net.socket()) as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        process = begin(pair, "127.0.0.1:%d" % silent.getsockname()[1])
        silent.settimeout(30)
        connection, _ = silent.accept()
        with connection:
            unprotect(pair, process)
        goes_on(pair, clients)


def test_unprotect_in_the_first_sync():
    """The other host freezes in the middle of the first sync: unprotect ends that, the VM goes on, and when the other one
    wakes up it cleans up behind itself."""
    with alone(64 * MIB, ft={"timeout_ms": 60000}) as (pair, clients):
        talk, frozen = pair.lines[pair.b], []

        def freeze():
            frozen.extend(pair.b.arriving())
            os.kill(frozen[0], signal.SIGSTOP)
        with talk.at("BLOCKS", "after", do=freeze) as hit:
            process = begin(pair, talk.address)
            assert hit.wait(30), "no block on its way"
        try:
            unprotect(pair, process)
            clients.wait_for_more(SOME)
        finally:
            os.kill(frozen[0], signal.SIGCONT)
        pair.b.wait_until(lambda: not pair.b.arriving(), "the end of the twin")
        assert not (pair.b.root / "web1").exists()
        goes_on(pair, clients, dies=False)


def test_stop_while_nobody_answers():
    """The VM ends at once, whatever its protection waits for."""
    with alone() as (pair, clients):
        process = into_a_hole(pair)
        clients.stop()
        before = time.monotonic()
        pair.a.good("stop", "--force", "web1")
        assert time.monotonic() - before < AT_ONCE
        process.communicate(timeout=30)
        assert process.returncode != 0


def test_who_waits_may_go():
    """Ctrl-C ends the waiting, not what was asked for: that goes on until it is so, or somebody unprotects the VM."""
    with alone() as (pair, clients):
        process = into_a_hole(pair)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=30)
        pair.a.bad(4, "is just being changed\nhint: minivmm unprotect web1 ends that", "protect", "web1", "--to",
                   pair.lines[pair.b].address, "--witness", f"file:{pair.witness}", "--insecure")
        pair.a.good("unprotect", "web1")
        goes_on(pair, clients)


def test_unprotect_with_a_frozen_twin():
    """A twin that has just stopped is not waited for longer than a silence may be; when it wakes up it is not needed, and
    ends."""
    with alone(ft={"timeout_ms": 6000}) as (pair, clients):  # four times that is how long an answer may take
        pair.protect()
        pair.wait_for(pair.a, role="primary", state="paired")
        with pair.frozen(pair.b) as pid:
            before = time.monotonic()
            pair.a.good("unprotect", "web1")
            assert time.monotonic() - before < 18
            assert pair.a.protection() == {}
            clients.wait_for_more(SOME)
        pair.a.wait_until(lambda: pid not in pair.b.arriving(), "the end of a twin that nobody needs")
        goes_on(pair, clients, dies=False)


def test_who_asks_for_the_twin_that_comes_anyway():
    """A VM that has lost its twin gets one again by itself. Who asks for just that meanwhile waits for it, and is not told
    that it is protected; who asks for another one is."""
    need_protect()
    with Pair() as pair:
        pair.start_primary(ft=ALERT)
        pair.start_standby(pair.b)
        pair.protect()
        words, others = (pair.protect_words(pair.a, pair.b, *more) for more in ([], ["--level", "durable"]))
        with pair.without_witness():
            pair.kill(pair.b)
            pair.wait_for(pair.a, state="alone")
            pair.a.bad(4, "protected already", *others)
            asked = pair.a.begin(*words)
            pair.a.wait_until(lambda: "just being changed" in pair.a.bad(4, "", *others), "that it waits")
        assert asked.wait(30) == 0, asked.stderr.read()
        assert pair.a.protection()["state"] == "paired"
