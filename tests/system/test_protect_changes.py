# SPDX-License-Identifier: MIT
"""What befalls a VM while it is protected, other than the death of a host: its twin goes on from there."""

from echoes import check_disk
from pairs import Pair
from test_protect import SOME, need_protect


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
