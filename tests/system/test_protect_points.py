# SPDX-License-Identifier: MIT
"""minivmm protect: a process is killed at each step of what two hosts say to each other, and at each that the witness hears
of. Afterwards exactly one of them has the VM, or its folder runs, and the other one's does not; clients have seen nothing
wrong, and everything that they were told of is on its disk. One VM goes through all points of a test."""

import threading

from crashes import CrashPair, Watch
from test_protect import need_protect

SYNC = ["FOLLOW", "HELLO", "FILE", "DISK", "OPEN", "ACK WELCOME", "PAGES", "BLOCKS", "STATE", "COMMIT", "WORD ACK"]
EPOCH = ["PAGES", "BLOCKS", "CHANGES", "COMMIT", "WORD ACK"]
WAYS = [(when, who) for when in ["before", "after"] for who in ["primary", "twin"]]
SYNC_POINTS, EPOCH_POINTS, SWITCHOVER_POINTS = (
    [(word, *way) for word in words for way in WAYS]
    for words in [SYNC, EPOCH, ["WORD HAND", "WORD READY", "WORD TAKE"]])
WITNESS_POINTS = [("claim", "record", "primary"), ("claim", "here", "primary"), ("pairing", "record", "primary"),
                  ("pairing", "record", "twin"), ("pairing", "here", "primary"), ("pairing", "here", "twin"),
                  ("switchover", "record", "primary"), ("switchover", "record", "twin"),
                  ("switchover", "here", "primary"), ("switchover", "here", "twin"), ("switchover", "there", "twin"),
                  ("alone", "record", "primary"), ("alone", "here", "primary"),
                  ("takeover", "record", "twin"), ("takeover", "there", "twin")]


def victim(pair, who):
    return pair.killer(pair.here if who == "primary" else pair.there)


class Missed(Exception):
    """The point never came: on a busy machine a pair may lose itself before."""


def reach(hit, what):
    if not hit.wait(10):
        raise Missed(what)


def run_all(points, one, times=1):
    """All points in any order, with one VM."""
    need_protect()
    with CrashPair() as pair:
        for number in range(times):
            for point in pair.order.sample(points, len(points)):
                try:
                    try_point(pair, point, one)
                except Exception as error:
                    raise AssertionError(f"{point}, round {number}: {error}") from error
        pair.finish()


def try_point(pair, point, one):
    for last in [False, False, True]:
        try:
            one(pair, *point)
            break
        except Missed:
            if last:
                raise
        finally:
            pair.settle()


# --- the first sync, and the pairing --------------------------------------------------------------------------------


def in_sync(pair, word, when, who):
    pair.unpair()
    with pair.talk.at(word, when, victim(pair, who)) as hit:
        said = pair.protect()
        reach(hit, f"nobody said {word}: {said} {pair.talk.words[-9:]}")


def test_f13_first_sync():
    """F13: either of them is killed before or after each word of the first sync."""
    run_all(SYNC_POINTS, in_sync)


# --- an epoch -------------------------------------------------------------------------------------------------------


def in_epoch(pair, word, when, who):
    pair.pair_up()
    with pair.talk.at(word, when, victim(pair, who), nth=pair.order.randint(1, 10)) as hit:
        reach(hit, f"nobody said {word}: {pair.talk.words[-9:]}")


def test_epochs():
    """The same for each word of an epoch. F14, between acknowledgement and release, is among them: the acknowledgement
    comes never, or just before the primary is killed."""
    run_all(EPOCH_POINTS, in_epoch)


# --- on purpose -----------------------------------------------------------------------------------------------------


def asked(pair, verb):
    """Somebody asks for that, and may get no answer."""
    here = pair.here

    def ask():
        thread.said = here.run(verb, pair.name)

    thread = threading.Thread(target=ask, daemon=True)
    thread.said = None
    thread.start()
    return thread


def in_switchover(pair, word, when, who):
    pair.pair_up()
    with pair.talk.at(word, when, victim(pair, who)) as hit:
        thread = asked(pair, "switchover")
        reach(hit, f"nobody said {word}: {thread.said} {pair.talk.words[-9:]}")
        thread.join()


def test_switchover():
    """The same for each word of a switchover."""
    run_all(SWITCHOVER_POINTS, in_switchover)


def in_unprotect(pair, when, who):
    pair.pair_up()
    with pair.talk.at("WORD OFF", when, victim(pair, who)) as hit:
        thread = asked(pair, "unprotect")
        reach(hit, f"nobody said OFF: {thread.said} {pair.talk.words[-9:]}")
        thread.join()


def test_unprotect():
    """The same for the word that sends a twin away."""
    run_all(WAYS, in_unprotect)


# --- the witness ----------------------------------------------------------------------------------------------------


def at_witness(pair, doing, step, who):
    """`step`: "record", as soon as the witness has another record; or "here" or "there", where it is on stable storage."""
    if doing in ["claim", "pairing"]:
        pair.unpair(whole=doing == "claim")
    else:
        pair.pair_up()
    host = pair.there if step == "there" else pair.here
    folder, kill = pair.witness if step == "record" else host.root / pair.name, victim(pair, who)

    def is_it(name):
        wanted = not name.startswith(".") if step == "record" else name == ".protected"
        return wanted and pair.has_twin() == (doing == "pairing")

    with Watch(folder, is_it, kill) as hit:
        if doing in ["claim", "pairing"]:
            pair.protect()
        elif doing == "switchover":
            asked(pair, doing).join()
        else:  # the other one is gone
            pair.kill(pair.here if doing == "takeover" else pair.there)
        reach(hit, f"no {step} of a {doing}")


def test_witness():
    """The same where the witness has just heard something, and where one of them has just put that on stable storage: of a
    pairing, of a switchover, of a primary that goes on alone, and of a takeover. F15, the death of a twin in the middle of
    its takeover, is among them."""
    run_all(WITNESS_POINTS, at_witness)


# --- many times -----------------------------------------------------------------------------------------------------


def test_all_points_20_times():
    """All of that, each point 20 times, in another order each time."""
    for points, one in [(SYNC_POINTS, in_sync), (EPOCH_POINTS, in_epoch), (SWITCHOVER_POINTS, in_switchover),
                        (WAYS, in_unprotect), (WITNESS_POINTS, at_witness)]:
        run_all(points, one, times=20)


test_all_points_20_times.slow = True
test_all_points_20_times.time_limit = 3600
