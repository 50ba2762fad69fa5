# SPDX-License-Identifier: MIT
"""minivmm protect --verify: both sides have the same memory and disks after each epoch, and what is not the same is found
and said. Two "hosts" are two runtime folders of this machine. No lab host is needed."""

import contextlib
import os
import re
import signal
import subprocess

from pairs import PATIENT
from test_clone import MIB
from test_migrate import hosts

SIZE = 16 * MIB
PLACE = 13 * MIB + 5  # where no guest writes
EPOCHS = 40
BUSY = "near=50 paced=5 far=1 new=1 flushed=20 wiped=30"


@contextlib.contextmanager
def verified(cmdline, disk=None, kernel="writer.elf", until="writer 1 flushed", back=False):
    """A guest at one host, and its twin at the other one: (one, other). `back`: it gets a twin again when that one takes
    over."""
    with hosts() as (one, other):
        disk = {"file": "disk.img", "format": "raw", **(disk or {})}
        web = one.make("web1", kernel=kernel, ft=PATIENT, disks=[disk],
                       boot={"kernel": "kernel", "cmdline": cmdline})
        subprocess.run(["qemu-img", "create", "-q", "-f", disk["format"], web / "disk.img", str(SIZE)], check=True)
        one.start("web1", until=until)
        (one.root / "w").mkdir()
        words = ("protect", "web1", "--to", other.standby(), "--witness", f"file:{one.root}/w", "--verify")
        words += ("--back", one.standby()) if back else ()
        one.good(*words)
        yield one, other


def protection(host):
    return host.status("web1")["protection"]


def goes_round(host):
    """The guest has done all that it does."""
    def rounds():
        text = host.console("web1")
        assert "FAIL" not in text and "WRONG" not in text, text
        return text.count("flushed") + text.count("steady:")
    before = rounds()
    host.wait_until(lambda: rounds() > before + 2, "rounds of the guest", 60)


def stays_quiet(one, other):
    """Through some epochs, and rounds of the guest, it keeps its twin; then that goes on."""
    first = protection(one)
    goes_round(one)
    one.wait_until(lambda: protection(one)["acked"] > first["acked"] + EPOCHS or
                   protection(one)["generation"] != first["generation"], "epochs", 60)
    last = protection(one)
    assert last["state"] == "paired" and last["generation"] == first["generation"], (first, last)
    os.kill(one.status("web1")["pid"], signal.SIGKILL)
    other.wait_until(lambda: other.status(other.root / "web1")["state"] == "running", "a takeover")
    goes_round(other)


def test_what_is_the_same():
    """While a guest writes, flushes, discards and zeroes nothing is said."""
    with verified(BUSY) as (one, other):
        stays_quiet(one, other)


def test_what_is_under_way():
    """The same where requests are under way when an epoch ends: they come to their end first, and nothing of that is wrong
    for the guest."""
    for more in ({"engine": "threads"}, {"cache": "none"}):
        with verified("pages=16", more, kernel="steady.elf", until="steady: ") as (one, other):
            stays_quiet(one, other)


def test_a_qcow2_disk():
    """Also where the owner's disk is a qcow2 one, and its twin's is raw. What is discarded in one cannot be compared, which
    is said."""
    with verified("near=50 paced=5 far=1 new=1 flushed=20", {"format": "qcow2", "discard": False}) as (one, other):
        stays_quiet(one, other)
    with verified(BUSY, {"format": "qcow2"}) as (one, other):
        stays_quiet(one, other)
        assert re.search(r"disk.img is not compared .*\"discard\": false", one.processes[0].stderr.read())


def spoil(path):
    with open(path, "r+b") as image:
        image.seek(PLACE)
        image.write(b"!")


def test_a_byte_that_is_not_the_same():
    """One byte of the twin's disk is changed behind its back: the next epoch finds it, the disk and the place are said, that
    twin ends, and the next one gets all of the disk."""
    words = rf"disk.img is not the same on both hosts, somewhere in the MiB from byte {13 * MIB}"
    with verified(BUSY) as (one, other):
        def paired_anew():
            says = protection(one)
            return says["state"] == "paired" and says["generation"] >= before["generation"] + 2
        before = protection(one)
        spoil(other.root / "web1/disk.img")
        one.wait_until(paired_anew, "another twin", 60)
        after = protection(one)
        assert after["resync"]["what"] == "full", after
        stays_quiet(one, other)
        said = one.processes[0].stderr.read()
        assert re.search(f"web1 has no twin: .*{words}", said), said


def test_who_takes_over_compares_on():
    """The twin that it gets by itself is compared, too."""
    with verified(BUSY, back=True) as (one, other):
        def paired(what):
            says = other.status(web)["protection"]
            return says["state"] == "paired" and says.get("resync", {}).get("what") == what
        web = other.root / "web1"
        os.kill(one.status("web1")["pid"], signal.SIGKILL)
        other.wait_until(lambda: other.status(web)["state"] == "running", "a takeover")
        other.wait_until(lambda: paired("delta"), "a twin at the first host", 60)
        spoil(one.root / "web1/disk.img")
        other.wait_until(lambda: paired("full"), "another one, with all of the disk", 60)
        goes_round(other)
