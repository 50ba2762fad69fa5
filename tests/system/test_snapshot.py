# SPDX-License-Identifier: MIT
"""minivmm snapshot, restore and run --from with tiny guests on this machine's /dev/kvm. No lab host is needed."""

import hashlib
import json
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import time

from labcommon import Skip
from test_clone import MIB, check_moment, mounted
from test_clone import make as make_sequence
from test_cli import MINIVMM
from vms import Folder

COUNT = re.compile(r"^count (\d+)$", re.M)


def make(folder, name="web1", **more):
    """A VM that counts."""
    return folder.make(name, kernel="counter.elf", **more)


def make_with_disks(folder, what=b"old", megabytes=1, name="web1", **more):
    """A VM that counts, and has two disks that it does not touch."""
    web = make(folder, name, disks=[{"file": "a.img", "format": "raw"}, {"file": "sub/b.img", "format": "raw"}], **more)
    (web / "sub").mkdir()
    write_disks(web, what, megabytes)
    return web


def write_disks(web, what, megabytes=1):
    for file in ["a.img", "sub/b.img"]:
        (web / file).write_bytes((what * MIB)[:megabytes * MIB])


def disks_of(web):
    """The word that each disk is full of."""
    return [(web / file).read_bytes()[:3] for file in ["a.img", "sub/b.img"]]


def start(folder, name="web1", least=3):
    return folder.start(name, until=f"count {least}\n")


def counted(folder, name="web1"):
    """What the guest has said last, as far as its log has it by now."""
    return int(["0", *COUNT.findall(folder.console(name))][-1])


def restore(folder, *words, until=COUNT):
    """A VM in the foreground that goes on, and the first whole line that it says."""
    process = folder.begin(*words)
    process.stdout.readline()  # perhaps half of a line
    line = process.stdout.readline()
    assert until.match(line), f"{words} ended with {process.wait()}, heard {line!r}: {process.stderr.read()}"
    return process, line


def end(process):
    process.kill()
    process.wait()


def stop(folder, *names):
    folder.good("stop", "--force", *(names or ["web1"]))


def hashes(folder, *less):
    """What is in a folder, to see whether something has changed."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if name not in less:
            found[name] = (os.readlink(path) if path.is_symlink() else "folder" if path.is_dir() else
                           hashlib.sha256(path.read_bytes()).hexdigest())
    return found


def snapshots(folder, name="web1"):
    return {one["name"]: one["state"] for one in json.loads(folder.good("snapshots", name, "--json"))}


def left_in(web):
    """Names in the folder of snapshots, also hidden ones."""
    return sorted(os.listdir(web / "snapshots")) if (web / "snapshots").exists() else []


def hidden_in(web):
    return [path for path in web.rglob("*") if path.name.startswith(".")]


# --- going on ---------------------------------------------------------------------------------------------------


def test_a_running_vm_goes_on_from_its_snapshot():
    """The VM goes on when its snapshot is taken; a restore goes on at the snapshot's number, each time the same."""
    with Folder() as folder:
        make(folder)
        process = start(folder)
        said = folder.run("snapshot", "web1", "one")
        after = counted(folder)
        assert said.returncode == 0 and "web1 stood still for" in said.stderr, said
        assert "snapshot one is ready: minivmm restore web1 one" in said.stderr, said
        folder.wait_until(lambda: counted(folder) > after + 60, "the guest")
        last = counted(folder)
        stop(folder)
        assert process.wait(10) == 0
        first = set()
        for number in range(3):
            process, line = restore(folder, "restore", "web1", "one")
            first.add(line)
            assert 3 <= int(line.split()[1]) < last - 20, f"{line} is not between 3 and {last}"
            assert folder.status("web1")["state"] == "running"
            end(process) if number else stop(folder)
        assert len(first) == 1, first
        folder.good("restore", "web1", "one", "--detach", "--verify")
        assert folder.status("web1")["state"] == "running"
        stop(folder)
        assert not hidden_in(folder.root / "web1")


def test_disks_are_of_the_moment_of_the_memory():
    """Of each snapshot, disks and memory are of one moment: the guest's writes go on from there without a gap."""
    for disk in ["raw", "qcow2"]:
        with Folder() as folder:
            web = make_sequence(folder, disk=disk, sectors=1500)
            folder.start("web1", until="sequence 512")
            lasts = []
            for name in ["one", "two"]:
                folder.good("snapshot", "web1", name)
                if disk == "raw":
                    lasts.append(check_moment(web / "snapshots" / name, sectors=1500))
            stop(folder)
            assert lasts == sorted(set(lasts)), lasts
            for name in ["two", "one"]:
                process, line = restore(folder, "restore", "web1", name, until=re.compile(r"sequence \d+"))
                end(process)
                names = [one["file"] for one in json.loads((web / "vm.json").read_text())["disks"]]
                if disk == "raw" or names[0] == "a.img":
                    last = check_moment(web, names, 1500)
                    assert last >= int(line.split()[1])
            if disk == "raw":
                folder.good("restore", "web1", "two", "--disks")
                assert check_moment(web, sectors=1500) == lasts[1] and folder.list() == []
                folder.start("web1", until="sequence 256")  # it boots anew


def go_on_from_each_other(count):
    with Folder() as folder:
        web = folder.make("web1", kernel="steady.elf", cpus=2, memory="32M",
                          boot={"kernel": "kernel", "cmdline": "pages=64"},
                          disks=[{"file": "disk.img", "format": "raw"}])
        (web / "disk.img").write_bytes(bytes(MIB // 2))
        process = folder.start("web1", until="steady: 1\n")
        for number in range(count):
            folder.good("snapshot", "web1", f"s{number}")
            end(process)
            process = folder.begin("restore", "web1", f"s{number}")
            for _ in range(3):
                line = process.stdout.readline()
                assert line and "WRONG" not in line, f"restore {number}: {line}{process.stderr.read()}"
            if number >= 5:
                folder.good("remove-snapshot", "web1", f"s{number - 5}")
        assert set(snapshots(folder).values()) == {"running"}


def test_nothing_is_lost_on_the_way():
    """A guest that watches its memory, disk, timers and interrupts notices nothing of snapshots, nor of restores, one
    out of the other."""
    go_on_from_each_other(5)


def test_nothing_is_lost_200_times():
    """The same 200 times; older snapshots are removed while it runs."""
    go_on_from_each_other(200)


test_nothing_is_lost_200_times.slow = True
test_nothing_is_lost_200_times.time_limit = 1200


def test_a_guest_that_resets():
    """A guest that has just asked for its reset when the snapshot is taken is reset after the restore, too."""
    with Folder() as folder:
        folder.make("web1", kernel="first.elf")
        process = folder.start("web1", until="")
        folder.wait_until(folder.list, "the VM")
        names = [f"s{number}" for number in range(8)]
        for name in names:
            folder.good("snapshot", "web1", name)
        end(process)
        for name in names:
            folder.good("restore", "web1", name, "--detach")
            folder.wait_until(lambda: exits(folder) > 200, f"its resets after {name}")
            stop(folder)


def exits(folder):
    """How often the guest has left KVM."""
    assert folder.list(), f"the guest has crashed: {folder.journal('web1')[-1]}"
    return sum(Client(folder).call("metrics")["ok"]["vcpus"][0]["exits"].values())


class Client:
    """A program at the VM's control socket."""

    def __init__(self, folder, name="web1"):
        self.socket = folder.connect(name)
        self.text = b""

    def send(self, verb, **arguments):
        self.socket.sendall(json.dumps({"id": 1, "verb": verb, **arguments}).encode() + b"\n")

    def hear(self):
        while b"\n" not in self.text:
            more = self.socket.recv(1 << 20)
            assert more, "the VM has hung up"
            self.text += more
        line, self.text = self.text.split(b"\n", 1)
        return json.loads(line)

    def call(self, verb, **arguments):
        self.send(verb, **arguments)
        return self.hear()


# --- a VM that does not run -------------------------------------------------------------------------------------


def test_a_stopped_vm():
    """Its disks come back, and nothing runs; other files of the folder come back, too, and what is new stays."""
    with Folder() as folder:
        web = make_with_disks(folder)
        (web / "notes").write_text("then\n")
        folder.good("snapshot", "web1", "one")
        assert snapshots(folder) == {"one": "stopped"}
        assert not (web / "snapshots/one/memory").exists()
        before = hashes(web / "snapshots")
        for _ in range(2):
            write_disks(web, b"new")
            (web / "notes").write_text("now\n")
            (web / "later").write_text("stays\n")
            said = folder.run("restore", "web1", "one")
            assert said.returncode == 0 and "minivmm run" in said.stderr, said
            assert disks_of(web) == [b"old", b"old"] and folder.list() == []
            assert (web / "notes").read_text() == "then\n" and (web / "later").read_text() == "stays\n"
        assert hashes(web / "snapshots") == before and not hidden_in(web)
        start(folder)
        stop(folder)


def test_names():
    """A name that is taken, bad or unknown, and a VM that is: each says what and how to go on."""
    with Folder() as folder:
        web = make(folder)
        folder.good("snapshot", "web1")
        (name,) = snapshots(folder)
        assert re.fullmatch(r"20\d\d-\d\d-\d\d-\d{6}", name), name
        folder.good("snapshot", web, "one")
        folder.bad(4, "one exists already", "snapshot", "web1", "one")
        for bad in ["../x", "", ".hidden", "a/b", "/x", "x" * 201, "x\n"]:
            for verb in ["snapshot", "restore", "remove-snapshot"]:
                folder.bad(2, "cannot", verb, "web1", bad)
        for verb in ["restore", "remove-snapshot"]:
            folder.bad(3, "web1 has no snapshot tow\nhint: minivmm snapshots .* lists them", verb, "web1", "tow")
            folder.bad(3, "nobody", verb, "nobody", "one")
            folder.bad(2, "wanted", verb, "web1")
        folder.bad(3, "nobody", "snapshot", "nobody")
        folder.bad(3, "nobody", "snapshots", "nobody")
        assert left_in(web) == sorted([name, "one"]) and os.listdir(folder.root / "web1") != []


def test_a_vm_that_runs_is_not_restored():
    """It is refused with what to do, and the VM and its folder do not feel it."""
    with Folder() as folder:
        web = make_with_disks(folder)
        folder.good("snapshot", "web1", "one")
        process = start(folder)
        before = hashes(web, "console.log", "journal.jsonl")
        for options in [[], ["--disks"], ["--detach"]]:
            folder.bad(4, "web1 is already running.*\nhint: minivmm stop web1", "restore", "web1", "one", *options)
        assert hashes(web, "console.log", "journal.jsonl") == before and process.poll() is None


# --- vm.json ----------------------------------------------------------------------------------------------------


def test_the_definition():
    """Where nobody has changed vm.json it stays as it is, to the byte; else the snapshot's comes back, the other one is
    kept, and a line says so; one that was kept is not lost by another restore."""
    with Folder() as folder:
        web = make_with_disks(folder)
        kept = web / "vm.json.before-restore"
        original = (web / "vm.json").read_text().replace('"sub/b.img", "format": "raw"', '"sub/b.img"')
        (web / "vm.json").write_text(original)  # the snapshot's will name the format
        start(folder)
        folder.good("snapshot", "web1", "one")
        stop(folder)
        process, _ = restore(folder, "restore", "web1", "one")
        stop(folder)
        assert "before-restore" not in process.stderr.read() and not kept.exists()
        assert (web / "vm.json").read_text() == original
        mine = json.dumps({**json.loads(original), "memory": "32M"}, indent=2)
        (web / "vm.json").write_text(mine)
        said = folder.run("restore", "web1", "one", "--disks").stderr
        assert "web1 has the vm.json of the snapshot again; the one until now is vm.json.before-restore" in said, said
        assert json.loads((web / "vm.json").read_text())["memory"] == "16M" and kept.read_text() == mine
        folder.good("restore", "web1", "one", "--disks")
        assert kept.read_text() == mine, "what was written by hand is lost"


def test_a_definition_that_was_changed_while_the_vm_runs():
    """A snapshot that could never be restored is not taken, or it can."""
    with Folder() as folder:
        web = make(folder)
        start(folder)
        definition = json.loads((web / "vm.json").read_text())
        (web / "vm.json").write_text(json.dumps({**definition, "memory": "32M"}))
        taken = folder.run("snapshot", "web1", "one")
        stop(folder)
        if taken.returncode == 0:
            folder.good("restore", "web1", "one", "--detach")
        else:
            assert taken.returncode == 4 and "vm.json" in taken.stderr, taken
            assert left_in(web) == []


# --- a new VM ---------------------------------------------------------------------------------------------------


def test_run_from():
    """A new VM goes on where the snapshot was taken, beside the one that it was taken of: with its own identity and
    disks; the snapshot stays as it was."""
    with Folder() as folder:
        web = make_with_disks(folder)
        original = start(folder)
        folder.good("snapshot", "web1", "one")
        before = hashes(web / "snapshots")
        first = set()
        for name in ["web2", "web3"]:
            process, line = restore(folder, "run", "--from", "web1/snapshots/one", name)
            first.add(line)
            assert folder.status(name)["state"] == "running" and not hidden_in(folder.root / name)
            assert disks_of(folder.root / name) == [b"old", b"old"]
        assert len(first) == 1, first
        assert len(folder.list()) == 3 and original.poll() is None
        for key in ["uuid", "generation"]:
            assert len({folder.identity(name)[key] for name in ["web1", "web2", "web3"]}) == 3
        write_disks(folder.root / "web2", b"new")
        assert disks_of(web) == [b"old", b"old"] and hashes(web / "snapshots") == before
        stop(folder, "web2", "web3")
        folder.good("run", "web2", "--detach")  # it boots like any other
        stop(folder, "web1", "web2")


def test_run_from_a_stopped_vm():
    """A new VM is made of the disks, and boots."""
    with Folder() as folder:
        make_with_disks(folder)
        folder.good("snapshot", "web1", "one")
        process = folder.begin("run", "--from", "web1/snapshots/one", "web2")
        assert process.stdout.readline() == "count 1\n"
        assert folder.identity("web2")["uuid"]


def test_run_from_errors():
    """Each says what is wrong, and nothing is made."""
    with Folder() as folder:
        web = make(folder)
        folder.good("snapshot", "web1", "one")
        start(folder)
        folder.good("snapshot", "web1", "two")
        there = "web1/snapshots/one"
        before = hashes(web, "console.log", "journal.jsonl")
        folder.bad(4, "web1 is there already", "run", "--from", there, "web1")
        folder.bad(2, "what is its name.\nhint: minivmm run --from web1/snapshots/one NAME", "run", "--from", there)
        folder.bad(2, "--ephemeral and --from", "run", "--from", there, "web2", "--ephemeral")
        folder.bad(3, "web1/snapshots/none", "run", "--from", "web1/snapshots/none", "web2")
        folder.bad(3, "web1 is no snapshot", "run", "--from", "web1", "web2")
        folder.bad(4, "is a snapshot, which stays as it is\nhint: .*minivmm run --from web1/snapshots/one NAME", "run",
                   there)
        # What stands in the way shows only when the machine is made: nothing half-made hinders the next one.
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            definition = json.loads((web / "vm.json").read_text())
            stop(folder)
            (web / "vm.json").write_text(json.dumps({**definition, "nets": [
                {"mode": "user", "forwards": [f"127.0.0.1:{taken.getsockname()[1]}:80"]}]}))
            folder.good("snapshot", "web1", "three")
            for _ in range(2):
                folder.bad(4, "in use", "run", "--from", "web1/snapshots/three", "web2")
                assert not (folder.root / "web2").exists()
        del before["vm.json"]
        assert before.items() <= hashes(web).items()


# --- lists ------------------------------------------------------------------------------------------------------


def test_lists_and_removal():
    """snapshots lists them by age, remove-snapshot removes them whole, also while a VM runs that was restored from one;
    what is none is left alone."""
    with Folder() as folder:
        web = make(folder)
        assert snapshots(folder) == {}
        assert folder.good("snapshots", "web1").split() == ["NAME", "TAKEN", "VM", "WAS", "SIZE"]
        assert not (web / "snapshots").exists()
        folder.good("snapshot", "web1", "stopped")
        start(folder)
        for name in ["b", "a"]:
            folder.good("snapshot", "web1", name)
        stop(folder)
        shutil.copytree(web / "snapshots/a", web / "snapshots/bad")
        (web / "snapshots/bad/manifest.json").write_text("{}")
        (web / "snapshots/notes").mkdir()
        (web / "snapshots/.hidden").mkdir()
        found = json.loads(folder.good("snapshots", "web1", "--json"))
        assert {one["name"]: one["state"] for one in found} == {"stopped": "stopped", "b": "running", "a": "running",
                                                               "bad": "damaged"}, found
        assert found[-1]["taken"] >= found[1]["taken"] >= time.time() - 100 and found[-1]["bytes"] > 100000, found
        rows = folder.good("snapshots", "web1").splitlines()
        assert sorted(row.split()[0] for row in rows) == ["NAME", "a", "b", "bad", "stopped"]
        process, _ = restore(folder, "restore", "web1", "a")
        result = folder.run("remove-snapshot", "web1", "a", "none", "b", "bad")
        assert result.returncode == 3 and "has no snapshot none" in result.stderr, result
        folder.bad(4, "notes is no snapshot", "remove-snapshot", "web1", "notes")
        assert left_in(web) == [".hidden", "notes", "stopped"]
        before = counted(folder)
        folder.wait_until(lambda: counted(folder) > before + 10, "the guest goes on")
        folder.good("snapshot", "web1", "a")  # reads all of its memory, of which much is in the removed file
        end(process)
        restore(folder, "restore", "web1", "a")


# --- a full disk ------------------------------------------------------------------------------------------------


def fill_up(folder, leave):
    """All but that many bytes."""
    filler = folder / "filler"
    filler.unlink(missing_ok=True)
    with open(filler, "wb") as file:
        os.posix_fallocate(file.fileno(), 0, max(shutil.disk_usage(folder).free - leave, 1))


def test_a_full_disk():
    """Wherever room ends: a clear error, the VM runs on or is as before, nothing half-made is left; with a little more
    it works."""
    with Folder() as folder, mounted(folder, "tmpfs") as point:
        web = make_with_disks(folder, name="mnt/web1")
        name = "mnt/web1"
        process = folder.start(name, until="count 3\n")
        failed = 0
        for room in range(0, 24 << 20, 300 << 10):
            fill_up(point, room)
            result = folder.run("snapshot", web, "one")
            if result.returncode == 0:
                break
            failed += 1
            assert result.returncode == 1 and "No space left" in result.stderr, result
            assert left_in(web) == [] and process.poll() is None
        assert failed > 5 and snapshots(folder, web) == {"one": "running"}
        (point / "filler").unlink()
        stop(folder, web)
        write_disks(web, b"new")
        before = hashes(web)
        failed = 0
        for room in range(0, 24 << 20, 300 << 10):
            fill_up(point, room)
            result = folder.run("restore", web, "one", "--detach")
            if result.returncode == 0:
                break
            failed += 1
            assert result.returncode == 1 and "No space left" in result.stderr, result
            assert hashes(web) == before
        assert failed > 3 and disks_of(web) == [b"old", b"old"]
        stop(folder, web)


# --- kills ------------------------------------------------------------------------------------------------------


def seconds_of(action):
    begin = time.monotonic()
    action()
    return time.monotonic() - begin


def is_idle(folder):
    """Whether a VM would take another snapshot now: it looks at the folder after that."""
    return "just being" not in Client(folder).call("clone", to="/nowhere/at/all")["error"]["text"]


def test_snapshot_killed_at_any_moment():
    """SIGKILL of the command, or of the VMM, at any moment of a snapshot: it is there whole, or not at all; the next
    one sweeps what was left; a VM whose VMM still runs goes on."""
    rng = random.Random(1)
    with Folder() as folder:
        web = make_with_disks(folder)
        vm = start(folder)
        took = min(seconds_of(lambda: folder.good("snapshot", "web1", "first")), 0.3)
        for number in range(20):
            name = f"s{number}"
            folder.wait_until(lambda: is_idle(folder), "the end of the last one")
            process = folder.begin("snapshot", "web1", name)
            time.sleep(rng.random() * took * 1.2)
            victim = vm if number % 4 == 3 else process
            victim.kill()
            victim.wait()
            code = process.wait(30)
            assert code in ([0, 1, 4] if victim is vm else [0, -9]), f"{code}: {process.stderr.read()}"
            found = snapshots(folder)
            assert code != 0 or name in found
            if victim is vm and name not in found:
                assert [one for one in left_in(web) if name in one] == []
            # Killed before it was asked, the VM had stopped, and its disks were taken.
            states = {"running", "stopped"} if victim is vm else {"running"}
            assert found["first"] == "running" and set(found.values()) <= states, found
            if name in found:
                folder.good("restore", "web1", name, "--disks", "--verify") if victim is vm else None
                folder.good("remove-snapshot", "web1", name)
            if victim is vm:
                vm = start(folder)
            else:
                assert vm.poll() is None
        # The VMM may still be ending the last one.
        folder.wait_until(lambda: folder.run("snapshot", "web1", "last").returncode == 0, "another snapshot")
        assert left_in(web) == ["first", "last"], left_in(web)


def what_is_advised(told):
    """The words of a hint's command."""
    return re.search(r"hint: minivmm (.*?)( does it again)?$", told, re.M).group(1).split()


def test_restore_killed_at_any_moment():
    """SIGKILL at any moment of a restore: the VM is as before, or as the snapshot has it, or its start is refused with
    what to do, and doing that works; its disks are never of two moments."""
    rng = random.Random(2)
    refused = 0
    with Folder() as folder:
        web = make_with_disks(folder, what=b"snp")
        start(folder)
        folder.good("snapshot", "web1", "one")
        stop(folder)
        mine = (web / "vm.json").read_text() + "\n"
        took = min(seconds_of(lambda: folder.good("restore", "web1", "one", "--detach")), 0.2)
        stop(folder)
        for _ in range(20):
            write_disks(web, b"now")
            (web / "vm.json").write_text(mine)
            process = folder.begin("restore", "web1", "one")
            time.sleep(rng.random() * took)
            process.kill()
            process.wait()
            refused += check_after_kill(folder, web)
        assert refused < 20


def check_after_kill(folder, web):
    """1: the start was refused, and what was advised worked."""
    result = folder.run("run", "web1", "--detach")
    assert (web / "vm.json").exists(), "nobody finds this VM any more"
    if result.returncode != 0:
        assert result.returncode == 4 and "cut short" in result.stderr, result
        folder.good(*what_is_advised(result.stderr), "--detach")
    assert disks_of(web) in [[b"snp"] * 2, [b"now"] * 2], disks_of(web)
    assert folder.status("web1")["state"] == "running"
    stop(folder)
    return int(result.returncode != 0)


def test_restore_killed_between_two_names():
    """The same at the moments that come and go too fast to be met by chance: after each renaming and removing."""
    if not shutil.which("strace"):
        raise Skip("strace is missing")
    refused = 0
    with Folder() as folder:
        web = make_with_disks(folder, what=b"snp")
        start(folder)
        folder.good("snapshot", "web1", "one")
        stop(folder)
        mine = (web / "vm.json").read_text() + "\n"
        for call, most in [("renameat", 9), ("renameat2", 3), ("unlinkat", 9)]:
            for number in range(1, most):
                write_disks(web, b"now")
                (web / "vm.json").write_text(mine)
                tracer = ["strace", "-qq", "-e", f"trace={call}", "-e", f"inject={call}:signal=KILL:when={number}"]
                result = subprocess.run([*tracer, MINIVMM, "restore", "web1", "one", "--disks"], env=folder.env,
                                        cwd=folder.root, capture_output=True, text=True, timeout=60,
                                        stdin=subprocess.DEVNULL)
                if result.returncode == 0:
                    break
                if "ptrace" in result.stderr and "renameat" not in result.stderr:
                    raise Skip("nothing can be traced here")
                refused += check_after_kill(folder, web)
    assert refused > 3


def test_run_from_killed_at_any_moment():
    """SIGKILL at any moment of run --from: the new VM is there and starts, or the same command, or what is advised,
    makes it."""
    rng = random.Random(3)
    with Folder() as folder:
        make_with_disks(folder)
        start(folder)
        folder.good("snapshot", "web1", "one")
        stop(folder)
        words = ["run", "--from", "web1/snapshots/one", "web2"]
        took = min(seconds_of(lambda: folder.good(*words, "--detach")), 0.2)
        stop(folder, "web2")
        for _ in range(20):
            folder.good("remove", "--yes", "web2")
            process = folder.begin(*words)
            time.sleep(rng.random() * took)
            process.kill()
            process.wait()
            result = folder.run("run", "web2", "--detach") if (folder.root / "web2").exists() else None
            if not result:
                folder.good(*words, "--detach")
            elif result.returncode != 0:
                assert result.returncode == 4 and "cut short" in result.stderr, result
                for line in re.findall(r"minivmm ([^;]*)", result.stderr.split("hint:")[1]):
                    words_of = [word for word in line.split() if word not in ["does", "it", "again", "anew", "then"]]
                    folder.good(*words_of, *(["--detach"] if words_of[0] == "run" else []))
            assert folder.status("web2")["state"] == "running"
            stop(folder, "web2")


# --- at the same time -------------------------------------------------------------------------------------------


def make_slow(folder):
    """A VM whose snapshot takes a while."""
    web = make_with_disks(folder)
    (web / "a.img").write_bytes(os.urandom(MIB) * 60)
    return web


def test_what_comes_between():
    """A second snapshot, a clone, a stop, a pause, a reset, Ctrl-C: each has its clear outcome, and the VM is well."""
    for how in ["twice", "clone", "stop", "kill", "pause", "reset", signal.SIGINT, signal.SIGTERM]:
        assert any(try_what_comes_between(how) for _ in range(5)), f"{how} came too late each time"


def try_what_comes_between(how):
    """False: too late."""
    with Folder() as folder:
        web = make_slow(folder)
        vm = start(folder)
        process = folder.begin("snapshot", "web1", "one")
        hidden = web / "snapshots/.one.new"
        folder.wait_until(lambda: (hidden / "memory").exists() or process.poll() is not None, "its first file")
        if how in ["twice", "clone"]:
            others = [folder.run(*words) for words in
                      ([["snapshot", "web1", "one"], ["snapshot", "web1", "two"]] if how == "twice" else
                       [["clone", "web1", "web2"]])]
        elif how == "stop":
            stop(folder)
        elif how == "kill":
            vm.kill()
        elif how in ["pause", "reset"]:
            folder.run(how, "web1")
        else:
            process.send_signal(how)
        early = process.poll() is None or process.returncode != 0
        if how == "pause":
            folder.run("resume", "web1")
        code = process.wait(60)
        told = process.stderr.read()
        if not early or (code == 0 and how in ["stop", "kill", signal.SIGINT, signal.SIGTERM]):
            return False
        if how in ["twice", "clone"]:
            assert code == 0, told
            for other in others:
                if other.returncode == 0:
                    return False
                assert other.returncode == 4 and re.search("is just being|exists already", other.stderr), other
        elif how in ["stop", "kill"]:
            assert code == 4 and re.search("web1.*(ended|gone|closed|runs no)", told), f"{code}: {told}"
        elif how == "reset":
            assert code == 0, told
        elif how == "pause":
            assert code == 0 or (code == 4 and "stands still" in told), told
        else:
            assert code == -how and "interrupted" in told, f"{code}: {told}"
        assert left_in(web) == (["one"] if code == 0 else []), left_in(web)
        if how not in ["stop", "kill"]:
            assert vm.poll() is None and folder.status("web1")["state"] == "running"
            folder.wait_until(lambda: folder.run("snapshot", "web1", "three").returncode == 0, "another snapshot")
            stop(folder)
            folder.good("restore", "web1", "three", "--detach")
        elif code == 0:
            folder.good("restore", "web1", "one", "--detach")
        return True


def test_a_clone_into_a_folder_with_other_files():
    """The control socket's verb removes nothing that it has not made."""
    with Folder() as folder:
        make(folder)
        start(folder)
        for name in ["memory", "state"]:
            there = folder.root / f"stuff-{name}"
            there.mkdir()
            (there / name).write_text("mine\n")
            answer = Client(folder).call("clone", to=str(there), memory=True)
            assert "error" in answer, answer
            assert (there / name).read_text() == "mine\n" and os.listdir(there) == [name]


def test_shared_blocks_xfs():
    """Where the file system can, disks are shared; memory and disks are of one moment all the same, and a paused VM can
    have its snapshot taken."""
    with Folder() as folder, mounted(folder, "xfs") as point:
        web = make_sequence(folder, "mnt/web1")
        folder.start(web, until="sequence 256")
        before = shutil.disk_usage(point).free
        folder.good("snapshot", web, "one")
        assert before - shutil.disk_usage(point).free < 12 * MIB
        folder.good("pause", web)
        folder.good("snapshot", web, "two")
        lasts = [check_moment(web / "snapshots" / name) for name in ["one", "two"]]
        assert lasts[0] < lasts[1]
        stop(folder, web)
        for name in ["two", "one"]:
            process, _ = restore(folder, "restore", web, name, until=re.compile(r"sequence \d+"))
            end(process)
            assert check_moment(web) > 256
