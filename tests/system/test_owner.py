# SPDX-License-Identifier: MIT
"""minivmm run --force-owner: a VM whose owner is gone for good is taken by a person, who types its name. The marks are
made by hand, as in test_protection.py; test_power_cuts.py has whole hosts."""

import contextlib
import json
import re
import signal
import subprocess

from test_cli import MINIVMM
from test_migrate import free_port, hosts
from test_protection import PEER, US, Protected


@contextlib.contextmanager
def owned_elsewhere(generation=3, owner=PEER, **more):
    """web1 belonged to this folder, and somebody else has taken it over; or, by `more`, it is a twin."""
    with Protected() as vms:
        vms.record(generation, owner)
        vms.mark(**{"peer": f"127.0.0.1:{free_port()}", "insecure": True, **more})
        yield vms


def begin(vms, typed, *more, name="web1"):
    """The VM's process, which has been told a line; it lives until the block's end at most."""
    process = subprocess.Popen([MINIVMM, "run", name, "--force-owner", *more], env=vms.env, cwd=vms.root,
                               stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    vms.processes.append(process)
    with contextlib.suppress(BrokenPipeError):
        process.stdin.write(typed)
        process.stdin.flush()
    return process


def refused(vms, code, words, *more, typed="web1\n", name="web1"):
    """It is, and neither the folder nor the witness has changed."""
    def look():
        return {path.name: path.read_bytes() for path in [*vms.witness.iterdir(), *vms.web.glob(".protected")]}

    before = look()
    process = begin(vms, typed, *more, name=name)
    said = process.communicate(timeout=30)[1]
    assert process.returncode == code and re.search(words, said), (process.returncode, said)
    assert look() == before
    return said


def runs(vms, process):
    """Until its guest is ready; all that it has said is told."""
    assert process.stdout.readline() == "ready\n", process.stderr.read()
    process.send_signal(signal.SIGTERM)
    said = process.communicate(timeout=30)[1]
    assert process.returncode == 0, said
    return said


def marks(vms):
    return json.loads((vms.web / ".protected").read_text())


def test_the_name_is_typed():
    """What is known is shown first; the name is typed, and the VM is this folder's: by the witness, in its folder and in its
    journal. From then on it is run as ever."""
    with owned_elsewhere() as vms:
        vms.bad(4, "hint: .*minivmm run web1 --force-owner", "run", "web1")
        process = begin(vms, "web1\n")
        vms.wait_until(lambda: vms.status("web1")["state"] == "asking the witness", "a VM that waits for its owner")
        forced = (vms.witness / f"{vms.uuid}.{4:020}").read_text()
        assert f"owner {US}" in forced and "twin ffffffffffffffff" in forced, forced
        assert marks(vms)["role"] == "owner" and marks(vms)["generation"] == 4, marks(vms)
        said = runs(vms, process)
        for words in [rf"web1 belongs to 127.0.0.1:\d+ \(node {PEER}, generation 3 since 20\d\d-.*\), and had no twin",
                      "This folder was its owner until generation 1", "127.0.0.1:.* does not answer: ",
                      "Lost is what the VM has done since then, also what others have been told of",
                      "it becomes the twin, and its own changes are gone", "both run",
                      r"web1 is taken from 127.0.0.1:\d+ \(generation 4\)"]:
            assert re.search(words, said), f"no {words!r} in {said}"
        events = [(event, line) for event, line in vms.journal("web1") if event in ["forced", "start", "stop"]]
        assert ["forced", "start", "stop"] == [event for event, _ in events][-3:] and events[-3][1]["generation"] == 4
        vms.start_and_stop()
        refused(vms, 4, "web1 is this folder's already")


test_the_name_is_typed.waits = True


def test_nothing_else_will_do():
    """Not by habit, and not by accident: the name exactly, once, and only for what can be taken."""
    with owned_elsewhere() as vms:
        for typed in ["y\n", "yes\n", "\n", "web\n", "web1 \n", "Web1\n", "web1" * 200 + "\n", "x" * 4000 + "web1\n"]:
            refused(vms, 2, "web1 stays its owner's: its name was not typed", typed=typed)
        said = vms.run("run", "web1", "--force-owner")
        assert said.returncode == 2 and "its name was not typed" in said.stderr, said
        refused(vms, 2, "--force-owner is for a VM's folder", "--ephemeral")
        vms.bad(2, "--force-owner is for a VM's folder", "run", "--force-owner", "web1/kernel")
        vms.bad(2, "--torn goes with --force-owner", "run", "web1", "--torn")
        vms.make("web2")
        refused(vms, 4, "web2 is not protected", name="web2")
        (vms.web / ".arriving").write_text("0" * 32 + "\n")
        refused(vms, 4, "web1 was arriving from another host, and never came whole", "--torn")
        (vms.web / ".arriving").unlink()
        vms.mark(role="off")
        refused(vms, 4, "web1 is not protected")


def test_a_twin_that_may_be_torn():
    """A twin's disks are of one moment at the level durable. Else a second word is asked for; and a folder that runs is
    nobody's to take."""
    with owned_elsewhere(role="twin") as vms:
        said = refused(vms, 4, "web1 was a twin at the level memory: its disks may have one part of an epoch")
        assert re.search("hint: .*--force-owner --torn", said), said
        assert "This folder has followed it since generation 1" in runs(vms, begin(vms, "web1\n", "--torn"))
    with owned_elsewhere(role="twin", durable=True) as vms:
        process = begin(vms, "web1\n")
        vms.wait_until(lambda: vms.status("web1")["state"] == "asking the witness", "a VM that waits for its owner")
        said = begin(vms, "web1\n").communicate(timeout=30)[1]
        assert "web1 is already running" in said and "'minivmm switchover' there" in said, said
        runs(vms, process)


test_a_twin_that_may_be_torn.waits = True


def test_the_witness_decides():
    """Without the witness nothing is taken; nor by one whose records went back, or that knows nothing of the VM."""
    with owned_elsewhere() as vms:
        away = vms.root / ".away"
        vms.witness.rename(away)
        process = begin(vms, "web1\n")
        said = process.communicate(timeout=30)[1]
        assert process.returncode == 4 and "web1 cannot be taken without the witness" in said, said
        away.rename(vms.witness)
        vms.mark(generation=9)
        refused(vms, 4, "the witness says generation 3, and it was 9 already")
        vms.mark()
        for record in vms.witness.glob(f"{vms.uuid}*"):
            record.unlink()
        process = begin(vms, "web1\n")
        assert process.wait(30) == 4, process.stderr.read()


def test_a_standby_that_cannot_read():
    """A standby answers, and a process of its host has a folder whose record cannot be read: it is not said that the VM does
    not run there, but that nobody knows, and where to look. What can be read is said as ever."""
    with hosts(1) as (other,), owned_elsewhere() as vms:
        other.make("web9")
        other.start("web9")
        vms.mark(peer=other.standby(), insecure=True)
        assert "answers: a standby is there, in whose folder the VM does not run." in refused(vms, 2, "", typed="no\n")
        (other.root / "web9" / ".protected").write_text("x")
        said = refused(vms, 2, "cannot read all of its folders; whether the VM runs there is not known", typed="no\n")
        assert "See there first: 'minivmm list'" in said and "does not run" not in said, said


def test_in_the_background():
    """The question comes first, the background then."""
    with owned_elsewhere() as vms:
        process = begin(vms, "web1\n", "--detach")
        assert process.wait(30) == 0, process.stderr.read()
        vms.wait_until(lambda: "ready" in vms.console("web1"), "a VM in the background")
        vms.good("stop", "web1")
