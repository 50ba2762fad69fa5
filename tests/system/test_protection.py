# SPDX-License-Identifier: MIT
"""Folders of VMs that are protected: who may run them, by a witness in a folder. The marks are made by hand. No lab host
is needed."""

import contextlib
import json
import os
import shutil
import signal

from vms import Folder

US, PEER, THIRD = "00000000000000aa", "00000000000000bb", "00000000000000cc"


def crc32c(data):
    crc = 0xffffffff
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82f63b78 if crc & 1 else 0)
    return crc ^ 0xffffffff


class Protected(Folder):
    """A VM that has run, and the witness."""

    def __init__(self):
        super().__init__()
        self.witness = self.root / ".witness"
        self.witness.mkdir()
        self.web = self.make("web1")
        self.start_and_stop()
        self.uuid = self.identity("web1")["uuid"]

    def start_and_stop(self, name="web1"):
        process = self.start(name)
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0, process.stderr.read()

    def record(self, generation, owner, twin="nobody"):
        text = (f"minivmm witness record 1\nvm {self.uuid}\ngeneration {generation}\nowner {owner}\ntwin {twin}\n"
                f"attempt {generation:032x}\n")
        text += f"crc32c {crc32c(text.encode()):08x}\n"
        (self.witness / f"{self.uuid}.{generation:020}").write_text(text)

    def mark(self, name="web1", **more):
        marks = {"role": "owner", "uuid": self.uuid, "node": US, "generation": 1, "peer_node": PEER, "peer": "hostB:7420",
                 "witness": f"file:{self.witness}", "key": "", "insecure": False, "durable": False, "timeout_ms": 0,
                 "min_us": 0, "max_us": 0, **more}
        (self.root / name / ".protected").write_text(json.dumps(marks))

    def is_marked(self, name="web1"):
        return (self.root / name / ".protected").exists()


@contextlib.contextmanager
def protected(generation=1, owner=US, **more):
    with Protected() as vms:
        vms.record(generation, owner)
        vms.mark(**more)
        yield vms


def test_the_owner_runs_and_stays_protected():
    """What the witness calls ours runs, whatever our folder says that we were; the mark stays, also where the folder gets
    another name."""
    with protected() as vms:
        vms.start_and_stop()
        vms.mark(role="twin")
        vms.start_and_stop()
        vms.mark()
        vms.good("rename", "web1", "web2")
        assert vms.is_marked("web2")
        vms.start_and_stop("web2")
        vms.record(20, PEER)  # each of our starts has made a new one
        vms.bad(4, "web2 belongs to hostB:7420", "run", "web2")


def test_what_another_host_has_does_not_run():
    """A stale folder refuses to run, in the foreground, in the background and for a moment, and names the owner; nothing in
    it has changed. The same for a twin, and where a snapshot would be put back."""
    with protected() as vms:
        vms.good("snapshot", "web1", "before")
        vms.record(2, PEER)
        files = {path.name: path.stat().st_mtime_ns for path in vms.web.iterdir()}
        words = vms.bad(4, r"web1 belongs to hostB:7420, which has taken it over \(generation 2\)", "run", "web1")
        assert "hint: it runs there" in words, words
        vms.bad(4, "web1 belongs to hostB:7420", "run", "web1", "--detach")
        vms.bad(4, "web1 belongs to hostB:7420", "run", "web1", "--ephemeral")
        vms.bad(4, "web1 belongs to hostB:7420", "restore", "web1", "before")
        assert files == {path.name: path.stat().st_mtime_ns for path in vms.web.iterdir()}
        vms.record(3, THIRD)
        vms.bad(4, r"web1 belongs to another host, .*\(generation 3\)", "run", "web1")
        vms.mark(role="twin")
        vms.record(4, PEER, THIRD)
        words = vms.bad(4, r"web1 is a twin: the VM runs at hostB:7420 \(generation 4\)", "run", "web1")
        assert "hint: it takes over by itself, as long as 'minivmm standby' runs here" in words, words
        vms.record(5, PEER)
        words = vms.bad(4, r"web1 is a twin: the VM runs at hostB:7420 \(generation 5\)", "run", "web1")
        assert "hint: it has no twin now, " in words and "by itself" not in words, words
        vms.record(6, US)
        vms.start_and_stop()


def waits_for_the_witness(vms, mend):
    """It is started, stands still and says so, until `mend` has brought the witness back; then it runs."""
    process = vms.begin("run", "web1")
    assert "who may run web1 is not known: witness: " in process.stderr.readline()
    vms.wait_until(lambda: vms.status("web1")["state"] == "asking the witness", "a VM that waits")
    before = vms.console("web1")
    mend()
    assert process.stdout.readline() == "ready\n"  # not one byte of it was there before
    assert vms.console("web1").startswith(before)
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 0, process.stderr.read()


def test_without_the_witness_it_waits():
    """A witness that is away, or damaged: it is not known who may run the VM, and it waits. One that knows less than the
    folder is wrong, and nothing runs."""
    with protected(generation=2) as vms:
        away, broken = vms.root / ".away", vms.witness / f"{vms.uuid}.{9:020}"
        vms.witness.rename(away)
        waits_for_the_witness(vms, lambda: away.rename(vms.witness))
        broken.write_text("x")
        waits_for_the_witness(vms, broken.unlink)
        vms.mark(generation=30)
        vms.bad(4, r"who may run web1 is not known: the witness says generation \d+, and it was 30 already", "run", "web1")


def test_what_is_damaged_does_not_run():
    """A mark that cannot be read is said, and so is a VM whose copies could not be told from it."""
    with protected() as vms:
        for text, words in (("", "it is empty"), ("{", "no good JSON"), ("{}", '"role"')):
            (vms.web / ".protected").write_text(text)
            vms.bad(5, rf"web1: .protected is damaged: .*{words}", "run", "web1")
            assert ".protected is damaged" in vms.good("status", "web1")
            vms.bad(5, ".protected is damaged", "remove", "--yes", "web1")
        (vms.web / ".protected").unlink()
        os.mkfifo(vms.web / ".protected")
        vms.bad(5, "web1: .protected is damaged: it is no plain file", "run", "web1")
        vms.good("list")
        (vms.web / ".protected").unlink()
        vms.mark()
        definition = json.loads((vms.web / "vm.json").read_text())
        (vms.web / "vm.json").write_text(json.dumps({**definition, "identity": "keep"}))
        vms.bad(5, "a copy would be taken for it", "run", "web1")
        shutil.copytree(vms.web, vms.root / "web2")
        vms.bad(5, "a copy would be taken for it", "run", "web2")


def test_copies_are_not_protected():
    """cp -r, clone, run --from: each is a VM of its own, which runs whoever has the first one; snapshots do not have
    the mark, and going back to one leaves it."""
    with protected() as vms:
        shutil.copytree(vms.web, vms.root / "web2")
        vms.good("snapshot", "web1", "one")
        assert not vms.is_marked("web1/snapshots/one")
        vms.good("restore", "web1", "one")
        assert vms.is_marked()
        vms.record(2, PEER)
        vms.start_and_stop("web2")
        assert not vms.is_marked("web2") and vms.identity("web2")["uuid"] != vms.uuid
        vms.good("clone", "web1", "web3")
        assert not vms.is_marked("web3")
        vms.start_and_stop("web3")
        process = vms.begin("run", "--from", "web1/snapshots/one", "web4")
        vms.wait_until(lambda: "ready" in vms.console("web4"), "web4 ready")
        assert not vms.is_marked("web4") and process.poll() is None
        assert vms.is_marked()
        shutil.copy(vms.web / ".protected", vms.root / "web3")
        process = vms.start("web3")
        assert not vms.is_marked("web3")
        process.kill()
        assert "web3 is not protected: its .protected is of another VM" in process.communicate()[1]


def test_list_status_remove():
    """A twin is listed as one; status says what the folder knows; remove wants --force for both, and neither for copies nor
    for what was protected once."""
    with protected() as vms:
        def row(name):
            return next(row for row in json.loads(vms.good("list", "--json")) if row["name"] == name)

        assert row("web1")["state"] == vms.status("web1")["state"] == "stopped"
        assert "protected as owner of generation 1, peer hostB:7420, witness file:" in vms.good("status", "web1")
        assert vms.status("web1")["protection"]["node"] == US
        vms.bad(4, "web1 is protected, by a twin at hostB:7420", "remove", "--yes", "web1")
        vms.mark(role="twin", peer="")
        assert row("web1")["state"] == vms.status("web1")["state"] == "twin"
        assert "protected as twin of generation 1, peer not known" in vms.good("status", "web1")
        words = vms.bad(4, "web1 is the twin of a VM at another host", "remove", "--yes", "web1")
        assert "--force" in words, words
        shutil.copytree(vms.web, vms.root / "web2")
        assert row("web2")["state"] == "stopped" and "protection" not in vms.status("web2")
        vms.good("remove", "--yes", "web2")
        vms.good("remove", "--yes", "--force", "web1")
        assert not vms.web.exists()
    with protected() as vms:
        vms.mark(role="off")
        vms.good("remove", "--yes", "web1")
        assert not vms.web.exists()
