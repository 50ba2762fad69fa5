# SPDX-License-Identifier: MIT
"""minivmm clone --memory: a VM that runs becomes two. Tiny guests on this machine's /dev/kvm; no lab host is needed."""

import json
import os
import random
import re
import socket
import time

from test_clone import check_moment, is_clean
from test_clone import make as make_sequence
from test_snapshot import counted, is_idle, make, seconds_of, start, stop
from vms import Folder

OWN = ["console.log", "identity.json", "journal.jsonl", "minivmm.log", "vm.json"]


def add(web, **more):
    definition = json.loads((web / "vm.json").read_text())
    (web / "vm.json").write_text(json.dumps({**definition, **more}))


def sequences(folder, name):
    """What the guest has said in this folder, in its order."""
    return [int(number) for number in re.findall(r"^sequence (\d+)\r?$", folder.console(name), re.M)]


def test_a_running_vm_becomes_two():
    """One command: the clone goes on where the original stood, and so does that; it is another VM, whose disks are of
    that very moment and its own; nothing of the way there is left, and when it is started anew it boots."""
    with Folder() as folder, socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        free.close()
        web = make_sequence(folder, sectors=1500)
        add(web, nets=[{"mode": "user", "forwards": [f"127.0.0.1:{port}:80"]}])
        process = folder.start("web1", until="sequence 1024")
        said = folder.run("clone", "--memory", "web1", "web2")
        assert said.returncode == 0, said
        for words in [r"web1 stood still for [\d.]+ ms$", r"web2 runs in the background \(pid \d+\)",
                      "web2 has no port forwards: web1 has them"]:
            assert re.search(words, said.stderr, re.M), said.stderr
        copy = folder.root / "web2"
        folder.wait_until(lambda: len(sequences(folder, "web2")) > 1, "the clone's guest")
        assert sequences(folder, "web2")[0] > 1024, "it has booted"
        assert process.poll() is None and folder.status("web1")["state"] == folder.status("web2")["state"] == "running"
        for key in ["uuid", "generation"]:
            assert folder.identity("web1")[key] != folder.identity("web2")[key]
        assert not set(folder.identity("web1")["macs"]) & set(folder.identity("web2")["macs"])
        stop(folder, "web1", "web2")
        assert check_moment(copy, sectors=1500) >= sequences(folder, "web2")[-1]
        assert check_moment(web, sectors=1500) >= 1024
        assert sorted(os.listdir(copy)) == sorted([*OWN, "a.img", "kernel", "link", "notes", "sub"])
        assert is_clean(folder) and "forwards" not in (copy / "vm.json").read_text()
        folder.start("web2", until="sequence 256\n")  # which only a guest that boots says


def test_what_has_no_memory_to_clone():
    """A VM that does not run, or whose vm.json is no longer the one it was started with, and names that are taken: each
    is refused with what to do, and nothing is made."""
    with Folder() as folder:
        web = make(folder)
        folder.bad(4, "web1 does not run: it has no memory to clone\nhint: leave --memory out", "clone", "--memory",
                   "web1", "web2")
        (web / "memory").write_text("mine\n")
        process = start(folder)
        folder.bad(4, 'web1 has a file "memory"', "clone", "--memory", "web1", "web2")
        (web / "memory").unlink()
        folder.bad(4, "web1 exists already", "clone", "--memory", "web1", "web1")
        add(web, memory="32M")
        folder.bad(4, "vm.json was changed since web1 was started", "clone", "--memory", "web1", "web2")
        assert sorted(os.listdir(folder.root)) == [".run", "web1"] and process.poll() is None


def settle(folder):
    """What became of a clone whose maker was killed: nothing, a VM that runs, or one that says how to go on."""
    if not (folder.root / "web2").exists():
        return "nothing"
    result = folder.run("run", "web2", "--detach")
    assert result.returncode == 4, f"its disks have booted without its memory: {result}"
    if "cut short" in result.stderr:
        assert "hint: minivmm remove --yes" in result.stderr and "clone it again" in result.stderr, result
        return "refused"
    return "runs" if "already running" in result.stderr else None  # it is just being started


def is_removed(folder):
    """Whether there is no clone any more: one that is just being started is not removed at once."""
    folder.run("stop", "--force", "web2")
    folder.run("remove", "--yes", "web2")
    return not (folder.root / "web2").exists()


def test_killed_at_any_moment():
    """SIGKILL of the command at any moment: there is no clone, or one that runs, or one whose start is refused with what
    to do; never one whose disks boot under another VM's memory. The original goes on."""
    rng = random.Random(3)
    with Folder() as folder:
        make(folder)
        vm = start(folder)
        moment = min(seconds_of(lambda: folder.good("clone", "--memory", "web1", "web2")), 0.3)
        found = set()
        for _ in range(20):
            folder.wait_until(lambda: is_removed(folder), "no clone")
            process = folder.begin("clone", "--memory", "web1", "web2")
            time.sleep(rng.uniform(0.5, 1.2) * moment)
            process.kill()
            process.wait()
            folder.wait_until(lambda: is_idle(folder), "the end of what it had begun")
            became = []
            folder.wait_until(lambda: became.append(settle(folder)) or became[-1], "what became of it")
            found.add(became[-1])
            moment *= 1.5 if became[-1] == "nothing" else 0.7  # around the moment when there is a clone, however fast that is
            before = counted(folder)
            folder.wait_until(lambda: counted(folder) > before, "the original")
            assert vm.poll() is None
        assert len(found) > 1, found
