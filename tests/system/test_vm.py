# SPDX-License-Identifier: MIT
"""A VM is a folder: its definition, its identity, its life. Tiny guests on this machine's /dev/kvm."""

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import time

from labcommon import Skip
from test_cli import MINIVMM, Terminal
from vms import Folder


def test_a_folder_is_a_vm():
    """`run FOLDER` boots it, `list` and `status` show it, `stop` presses its power button and waits; the journal tells."""
    with Folder() as vms:
        vms.make("web1")
        assert "web1" in vms.good("list") and vms.status("web1")["state"] == "stopped"
        process = vms.start("web1")
        status = vms.status("web1")
        assert status["state"] == "running" and status["pid"] == process.pid, status
        assert status["folder"] == str(vms.root / "web1") and status["memory"] == 16 << 20, status
        assert [(row["name"], row["state"]) for row in vms.list()] == [("web1", "running")]
        vms.good("stop", "web1")
        assert process.wait(10) == 0
        assert vms.list() == [] and vms.good("list", "-q") == "web1\n"
        assert [event for event, _ in vms.journal("web1")] == ["start", "stop"]
        assert vms.journal("web1")[1][1]["by"] == "person"


def test_in_the_background():
    """`run --detach` ends when the VM runs; one that cannot start says why, with its exit code, and leaves nothing."""
    with Folder() as vms:
        vms.make("web1")
        vms.good("run", "web1", "--detach")
        assert vms.status("web1")["state"] == "running"
        vms.bad(4, r"web1 is already running \(pid \d+\)", "run", "web1", "--detach")
        vms.wait_until(lambda: "ready" in vms.console("web1"), "the guest")
        vms.good("stop", "web1")
        vms.make("web2", boot={"kernel": "nowhere"})
        vms.bad(3, "nowhere: No such file", "run", "web2", "--detach")
        assert vms.list() == []


def test_exactly_one_of_two_wins():
    """Of several that start one folder at once exactly one runs it; the others name the winner."""
    with Folder() as vms:
        vms.make("web1")
        for _ in range(10):
            racers = [subprocess.Popen([MINIVMM, "run", "web1"], env=vms.env, cwd=vms.root, stdin=subprocess.DEVNULL,
                                       stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) for _ in range(4)]
            vms.wait_until(lambda: sum(racer.poll() is None for racer in racers) == 1, "one winner")
            winner = next(racer for racer in racers if racer.poll() is None)
            for racer in racers:
                if racer is not winner:
                    assert racer.returncode == 4 and "web1 is already running" in racer.stderr.read()
            winner.kill()
            winner.wait()
            for racer in racers:
                racer.stderr.close()


def test_copied_and_moved():
    """A copy is a VM of its own and runs beside its original; a moved folder stays what it is; "keep" keeps."""
    with Folder() as vms:
        vms.make("web1", nets=[])
        vms.start("web1")
        first = vms.identity("web1")
        shutil.copytree(vms.root / "web1", vms.root / "web2", symlinks=True)  # of a running one, too
        copy = vms.start("web2")
        second = vms.identity("web2")
        assert {row["name"] for row in vms.list()} == {"web1", "web2"}
        for key in ("uuid", "generation"):
            assert first[key] != second[key]
        assert not set(first["macs"]) & set(second["macs"])
        vms.good("stop", "web1", "web2")
        assert "web2 is a copy" in copy.stderr.read()

        (vms.root / "web1").rename(vms.root / "web3")
        moved = vms.start("web3")
        vms.good("stop", "web3")
        assert vms.identity("web3")["uuid"] == first["uuid"] and "copy" not in moved.stderr.read()

        shutil.copytree(vms.root / "web3", vms.root / "web4")
        definition = json.loads((vms.root / "web4/vm.json").read_text())
        (vms.root / "web4/vm.json").write_text(json.dumps({**definition, "identity": "keep"}))
        vms.start("web4")
        assert vms.identity("web4")["uuid"] == first["uuid"]


def test_killed():
    """A VMM that was killed leaves nothing that hinders the next start, which says so in the journal."""
    with Folder() as vms:
        vms.make("web1")
        for _ in range(5):
            process = vms.start("web1")
            process.kill()
            process.wait()
            assert vms.list() == []
            vms.bad(4, "web1 does not run", "pause", "web1")
        process = vms.start("web1")
        vms.good("stop", "web1")
        events = [event for event, _ in vms.journal("web1")]
        assert events == ["start", "lost"] * 5 + ["start", "stop"], events


def test_pause_resume_reset():
    """pause lets it stand still, resume go on, reset boot anew; what is not possible now is exit code 4."""
    with Folder() as vms:
        vms.make("web1", kernel="worker.elf", boot={"kernel": "kernel", "cmdline": "pages=4 rounds=0"})
        process = vms.start("web1", until="\n")
        vms.bad(4, "web1 is not paused", "resume", "web1")
        vms.good("pause", "web1")
        assert vms.status("web1")["state"] == "paused"
        vms.bad(4, "web1 is paused already", "pause", "web1")
        vms.good("resume", "web1")
        assert vms.status("web1")["state"] == "running"
        vms.good("pause", "web1")
        vms.good("reset", "web1")
        assert vms.status("web1")["state"] == "running"
        assert "does not run" in vms.bad(4, "web9", "reset", vms.make("web9"))
        vms.bad(124, "web1 did not power off within 1 s and goes on\nhint: .*--force", "stop", "web1", "--timeout", "1")
        vms.good("stop", "web1", "--force")
        assert process.wait(10) == 0


def test_a_bad_definition():
    """All that is wrong with a vm.json is told at once, each with file, line, column and key: exit code 5."""
    with Folder() as vms:
        there = vms.make("web1")
        (there / "vm.json").write_text('{\n  "cpu": 2,\n  "memory": "2Q",\n  "nets": [{"mode": "usr"}]\n}\n')
        words = vms.bad(5, "web1/vm.json: 4 errors", "run", "web1")
        for line in ("web1/vm.json:1:1: .* nothing to boot", r'web1/vm.json:2:3: .*cpu.*did you mean "cpus"', "web1/vm.json:3:13: memory",
                     'web1/vm.json:4:21: nets.0..mode "usr" is not known; did you mean "user"'):
            assert re.search(line, words), f"no {line} in {words}"
        vms.bad(2, "--cpus is for a disk or kernel; web1 is a VM\nhint: write it into web1/vm.json", "run", "web1",
                "--cpus", "2")
        vms.bad(3, "nowhere", "status", "nowhere")


def test_the_console_from_elsewhere():
    """`console` shows what the guest has said before, keys reach it, Ctrl-a d leaves, and the VM goes on."""
    with Folder() as vms:
        vms.make("web1", kernel="serial.elf")
        os.environ["MINIVMM_RUNTIME_DIR"] = vms.env["MINIVMM_RUNTIME_DIR"]
        try:
            vms.good("run", "web1", "--detach")
            vms.wait_until(lambda: "polled" in vms.console("web1"), "the guest")
            terminal = Terminal("console", str(vms.root / "web1"))
            terminal.wait_for(b"hello from the guest")
            terminal.write(b"one\r\n")
            terminal.wait_for(b"one")
            terminal.write(b"\x01d")
            assert terminal.finish() == 0
            assert vms.status("web1")["state"] == "running"
            terminal = Terminal("console", "web1")
            terminal.wait_for(b"one")
            vms.good("stop", "web1", "--force")
            assert terminal.finish() == 0
        finally:
            del os.environ["MINIVMM_RUNTIME_DIR"]


def test_restart_policies():
    """"on-failure" and "always" start a crashed guest again, later each time; "no" does not; a person's stop counts."""
    with Folder() as vms:
        vms.make("no", kernel="triple.elf")
        assert vms.run("run", "no").returncode == 7
        assert [event for event, _ in vms.journal("no")] == ["start", "crash"]
        vms.make("again", kernel="triple.elf", restart="on-failure")
        process = vms.start("again", until="")
        vms.wait_until(lambda: [event for event, _ in vms.journal("again")].count("start") >= 2, "a second start")
        vms.wait_until(lambda: vms.status("again")["state"] == "crashed", "the crash")
        vms.good("stop", "again")
        assert process.wait(10) == 0
        vms.make("off", kernel="poweroff.elf", restart="on-failure")
        assert vms.run("run", "off").returncode == 0
        vms.make("always", kernel="poweroff.elf", restart="always")
        vms.start("always", until="")
        vms.wait_until(lambda: [event for event, _ in vms.journal("always")].count("start") >= 2, "a second start")
        vms.good("stop", "always", "--force")


def test_names_and_places():
    """Names with spaces and UTF-8, a path of 200 characters, a link to a folder: all are VMs like others."""
    with Folder() as vms:
        for name in ("Büro Nr. 1", "/".join(["x" * 40] * 5), "-dash"):
            vms.make(name)
            process = vms.start(f"./{name}")
            assert vms.status(f"./{name}")["state"] == "running"
            vms.good("stop", f"./{name}")
            assert process.wait(10) == 0
        (vms.root / "link").symlink_to("Büro Nr. 1")
        vms.start("link")
        assert vms.list()[0]["name"] == "Büro Nr. 1"
        vms.good("stop", "Büro Nr. 1")


def test_signals():
    """SIGTERM is the power button, also in the background; a second one ends the VM: exit code 1."""
    with Folder() as vms:
        vms.make("web1")
        vms.good("run", "web1", "--detach")
        vms.wait_until(lambda: "ready" in vms.console("web1"), "the guest")
        os.kill(vms.status("web1")["pid"], signal.SIGTERM)
        vms.wait_until(lambda: vms.list() == [], "its end")
        assert vms.journal("web1")[-1][1]["by"] == "signal"


def test_killed_at_any_moment():
    """SIGKILL at any moment of a start: the folder starts again at once, with one identity, and nothing is left."""
    with Folder() as vms:
        vms.make("web1")
        uuids = set()
        for number in range(60):
            process = subprocess.Popen([MINIVMM, "run", "web1"], env=vms.env, cwd=vms.root, stdin=subprocess.DEVNULL,
                                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            time.sleep(number * 0.0002)  # from before main() to a guest that runs
            process.kill()
            process.wait()
            if (vms.root / "web1/identity.json").exists() and (vms.root / "web1/identity.json").read_text():
                uuids.add(vms.identity("web1")["uuid"])
        vms.start("web1")
        uuids.add(vms.identity("web1")["uuid"])
        assert len(uuids) == 1, uuids
        assert len(list((vms.root / ".run").iterdir())) == 1
        vms.good("stop", "web1")


def test_where_it_cannot_run():
    """A folder that cannot be written, and one on a full disk, are refused in words, or run; nothing is lost."""
    if os.geteuid() != 0:
        raise Skip("mounts file systems")
    with Folder() as vms:
        there = vms.make("web1")
        before = (there / "vm.json").read_bytes()
        for options, what in (("ro,size=1M", "web1 is on a read-only file system"), ("size=152k", "")):
            mounted = vms.root / "mounted"
            mounted.mkdir(exist_ok=True)
            subprocess.run(["mount", "-t", "tmpfs", "-o", "rw,size=1M", "none", mounted], check=True)
            try:
                shutil.copytree(there, mounted / "web1")
                subprocess.run(["mount", "-o", f"remount,{options}", mounted], check=True)
                if what:
                    vms.bad(1, what, "run", mounted / "web1")
                else:
                    fill_up(mounted)
                    result = vms.run("run", mounted / "web1", "--detach")
                    assert result.returncode == 0 or "No space left" in result.stderr, result
                    if result.returncode == 0:
                        vms.good("stop", mounted / "web1")
                assert (mounted / "web1/vm.json").read_bytes() == before
            finally:
                subprocess.run(["umount", "-l", mounted], check=True)


def fill_up(folder):
    with contextlib.suppress(OSError), open(folder / "filler", "wb") as file:
        while True:
            file.write(bytes(4096))
            file.flush()
