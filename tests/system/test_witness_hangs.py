# SPDX-License-Identifier: MIT
"""A witness whose storage hangs is given up in time, by whoever cannot leave the question to somebody else. No lab host
is needed."""

import contextlib
import select
import signal
from pathlib import Path

from hanging import hanging, mend, why_not
from labcommon import Skip
from test_migrate import hosts, make, start
from test_owner import owned_elsewhere
from test_protection import protected

SILENT = "has not answered for 15 s"
LONG = 120


def need_hanging():
    why = why_not()
    if why:
        raise Skip(f"no file server of one's own: {why}")


def line_of(process):
    """The next line of its errors; that none comes is what these tests are about."""
    assert select.select([process.stderr], [], [], LONG)[0], "not a word"
    return process.stderr.readline()


def test_run_says_so_and_stands_still():
    """The owner's VM waits for the witness, and does not run meanwhile; with the storage back it runs, and ends, whoever
    still hangs there."""
    need_hanging()
    with protected() as vms:
        before = vms.console("web1")
        process = vms.begin("run", "web1", by=hanging(vms.witness))
        said = line_of(process)
        assert f"who may run web1 is not known: file:{vms.witness} {SILENT}" in said, said
        vms.wait_until(lambda: vms.status("web1")["state"] == "asking the witness", "a VM that waits", LONG)
        assert vms.console("web1") == before
        mend(process.pid, vms.witness)
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGTERM)
        assert process.wait(LONG) == 0, process.stderr.read()
        errors = process.stderr.read()
        assert "hint: does its storage hang, or the way to it? web1 starts when the witness answers" in errors, errors


test_run_says_so_and_stands_still.waits = True


def test_restore_is_refused():
    """What would change the folder does not wait: nobody knows whose the VM is."""
    need_hanging()
    with protected() as vms:
        vms.good("snapshot", "web1", "before")
        said = vms.run("restore", "web1", "before", by=hanging(vms.witness))
        assert said.returncode == 4 and SILENT in said.stderr, said


test_restore_is_refused.waits = True


def test_a_twin_is_refused_and_others_are_served():
    """The host that is to have the twin cannot ask the witness: the VM hears of that and runs on, the standby takes in
    another one meanwhile, and nothing is left there. With the storage back the twin comes."""
    need_hanging()
    with hosts() as (a, b):
        witness = a.root / ".witness"
        witness.mkdir()
        a.make("web1")
        a.start("web1")
        make(a, "web2")
        start(a, "web2")
        address = b.standby(by=hanging(witness))
        to = ["--to", address]
        asks = a.begin("protect", "web1", *to, "--witness", f"file:{witness}")
        b.wait_until(b.arriving, "a twin", LONG)
        a.good("migrate", "web2", address)
        b.goes_on("web2")
        said = asks.communicate(timeout=LONG)[1]
        assert asks.returncode != 0 and f"the twin's host asks the witness in vain: file:{witness} {SILENT}" in said, said
        assert a.status("web1")["state"] == "running"
        b.wait_until(lambda: not list(b.root.glob("web1*")), "the end of what came of it", LONG)
        mend(b.waiting.pid, witness)
        a.good("protect", "web1", *to, "--witness", f"file:{witness}")
        a.wait_until(lambda: a.status("web1")["protection"]["state"] == "paired", "a twin", LONG)
        b.goes_on("web2")


def asks(process):
    """It has a thread that asks the witness."""
    def names():
        for task in Path(f"/proc/{process.pid}/task").glob("*/comm"):
            with contextlib.suppress(OSError):
                yield task.read_text().strip()
    return "asker" in names()


def test_who_waits_can_be_stopped():
    """A VM that stands still because its witness hangs ends at one SIGTERM, before that was said and afterwards; its disk and its
    marks are as they were, and it runs when the storage is back."""
    need_hanging()
    with protected() as vms:
        marks = (vms.web / ".protected").read_text()
        process = vms.begin("run", "web1", by=hanging(vms.witness))
        vms.wait_until(lambda: asks(process), "a question", LONG)
        process.send_signal(signal.SIGTERM)
        process.wait(LONG)
        process = vms.begin("run", "web1", by=hanging(vms.witness))
        assert SILENT in line_of(process)
        vms.wait_until(lambda: vms.status("web1")["state"] == "asking the witness", "a VM that waits", LONG)
        process.send_signal(signal.SIGTERM)
        assert process.wait(LONG) == 0, process.stderr.read()
        assert "it did not run here as yet, and ends" in process.stderr.read()
        assert (vms.web / ".protected").read_text() == marks
        vms.start_and_stop()


test_who_waits_can_be_stopped.waits = True


def test_nothing_is_taken():
    """A person who takes the VM of an owner that is gone (--force-owner) hears in time that the witness is silent, too."""
    need_hanging()
    with owned_elsewhere() as vms:
        said = vms.run("run", "web1", "--force-owner", by=hanging(vms.witness))
        assert said.returncode == 4 and "web1 cannot be taken without the witness" in said.stderr, said
        assert SILENT in said.stderr, said


test_nothing_is_taken.waits = True
