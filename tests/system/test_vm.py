# SPDX-License-Identifier: MIT
"""A VM is a folder: its definition, its identity, its life. Tiny guests on this machine's /dev/kvm."""

import contextlib
import fcntl
import json
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import termios
import threading
import time

from labcommon import Skip
from test_cli import MINIVMM, Terminal
from vms import Folder

F_OFD_SETLK = 37  # fcntl has a name for it since Python 3.13 only


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
        said = copy.stderr.read()
        assert "web2 is a copy" in said and "finds its disks as after a power cut" in said

        (vms.root / "web1").rename(vms.root / "web3")
        moved = vms.start("web3")
        vms.good("stop", "web3")
        assert vms.identity("web3")["uuid"] == first["uuid"] and "copy" not in moved.stderr.read()

        shutil.copytree(vms.root / "web3", vms.root / "web4")
        definition = json.loads((vms.root / "web4/vm.json").read_text())
        (vms.root / "web4/vm.json").write_text(json.dumps({**definition, "identity": "keep"}))
        kept = vms.start("web4")
        assert vms.identity("web4")["uuid"] == first["uuid"]
        vms.good("stop", "web4")
        assert "power cut" not in kept.stderr.read(), "web3 had been stopped"


def test_killed():
    """A VMM that was killed leaves nothing that hinders the next start, which says so in the journal."""
    with Folder() as vms:
        vms.make("web1")
        for _ in range(5):
            process = vms.start("web1")
            process.kill()
            process.wait()
            assert vms.list() == []
            vms.bad(4, "web1 is not running", "pause", "web1")
        process = vms.start("web1")
        vms.good("stop", "web1")
        events = [event for event, _ in vms.journal("web1")]
        assert events == ["start", "lost"] * 5 + ["start", "stop"], events


def test_registers():
    """status --registers tells where each vCPU is, of a VM that runs, is paused, or does not run; and it stays so."""
    with Folder() as vms:
        vms.make("web1", kernel="worker.elf", cpus=2, boot={"kernel": "kernel", "cmdline": "pages=4 rounds=0"})
        vms.start("web1", until="\n")
        for state in ["running", "paused"]:
            text = vms.good("status", "web1", "--registers")
            assert re.findall(r"(?m)^vCPU (\d+):\n  rip [0-9a-f]{16} ", text) == ["0", "1"], text
            assert re.search(r"(?m)^  stack( [0-9a-f]{16}){4}$", text), text
            assert vms.status("web1")["state"] == state
            if state == "running":
                vms.good("pause", "web1")
        vms.good("stop", "--force", "web1")
        vms.bad(4, "web1 does not run|not running", "status", "web1", "--registers")


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
        assert "is not running" in vms.bad(4, "web9", "reset", vms.make("web9"))
        vms.bad(124, "web1 did not power off within 1 s and goes on\nhint: .*--force", "stop", "web1", "--timeout", "1")
        vms.good("stop", "web1", "--force")
        assert process.wait(10) == 0


def test_a_bad_definition():
    """All that is wrong with a vm.json is told at once, each with file, line, column and key: exit code 5."""
    with Folder() as vms:
        there = vms.make("web1")
        (there / "vm.json").write_text('{\n  "cpu": 2,\n  "memory": "2Q",\n  "nets": [{"mode": "usr"}]\n}\n')
        words = vms.bad(5, "web1/vm.json: 4 errors", "run", "web1")
        for line in ("web1/vm.json:1:1: .* nothing to boot", r'web1/vm.json:2:10: cpu must be "host".*not 2', "web1/vm.json:3:13: memory",
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
        vms.wait_until(lambda: vms.status("again")["state"] == "restarting", "the crash")
        vms.good("pause", "again")  # nothing starts until somebody lets it
        starts = [event for event, _ in vms.journal("again")].count("start")
        time.sleep(2.5)  # longer than the wait that was under way
        assert vms.status("again")["state"] == "paused"
        assert [event for event, _ in vms.journal("again")].count("start") == starts
        vms.good("resume", "again")
        vms.wait_until(lambda: [event for event, _ in vms.journal("again")].count("start") > starts, "the next start")
        vms.wait_until(lambda: vms.status("again")["state"] == "restarting", "the next crash")
        vms.good("reset", "again")  # at once, and not in a while
        vms.wait_until(lambda: [event for event, _ in vms.journal("again")].count("start") > starts + 1, "a start", 3)
        vms.wait_until(lambda: vms.status("again")["state"] == "restarting", "the next crash")
        vms.good("stop", "again")
        assert process.wait(10) == 0
        assert vms.journal("again")[-1][0] == "stop"
        vms.make("off", kernel="poweroff.elf", restart="on-failure")
        assert vms.run("run", "off").returncode == 0
        vms.make("always", kernel="poweroff.elf", restart="always")
        vms.start("always", until="")
        vms.wait_until(lambda: [event for event, _ in vms.journal("always")].count("start") >= 2, "a second start")
        vms.good("stop", "always", "--force")


test_restart_policies.waits = True


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


def test_rename_and_remove_killed_at_any_moment():
    """SIGKILL at any moment of rename and remove: the VM is there whole, under one of its names, and starts, or it is
    gone; what is left of a removed one vanishes with the next."""
    with Folder() as vms:
        for number in range(60):
            verb = [["rename", "web1", "web2"], ["remove", "--yes", "web1"]][number % 2]
            vms.make("web1", kernel="first.elf")
            process = subprocess.Popen([MINIVMM, *verb], env=vms.env, cwd=vms.root, stderr=subprocess.DEVNULL)
            time.sleep(number * 0.0001)
            process.kill()
            process.wait()
            left = [path for path in vms.root.iterdir() if not path.name.startswith(".")]
            assert len(left) == 1 or (verb[0] == "remove" and not left), left
            for path in left:
                assert path.name in verb
                # An identity that is empty was only the lock.
                assert {file for file in os.listdir(path) if (path / file).stat().st_size} == {"kernel", "vm.json"}
                vms.good("run", path, "--no-reboot")
                vms.good("remove", "--yes", path)
        vms.make("web1", kernel="first.elf")
        vms.good("remove", "--yes", "web1")
        assert os.listdir(vms.root) in [[], [".run"]]


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


def test_stopped_is_only_what_does_not_run():
    """A VM that runs and cannot be asked is never called stopped: the error is told, with its exit code."""
    with Folder() as vms:
        vms.make("web1")
        vms.start("web1")
        result = vms.run("status", "web1", env={**vms.env, "MINIVMM_RUNTIME_DIR": "relative"})
        assert result.returncode == 6 and "MINIVMM_RUNTIME_DIR" in result.stderr and not result.stdout, result
        control = next((vms.root / ".run").glob("*/control.sock"))
        with contextlib.ExitStack() as stack:
            for _ in range(64):  # all that it lets in
                client = stack.enter_context(socket.socket(socket.AF_UNIX))
                client.connect(str(control))
            result = vms.run("status", "web1")
            assert result.returncode != 0 and not result.stdout, result
        vms.wait_until(lambda: vms.run("status", "web1").returncode == 0, "room")
        vms.good("stop", "web1", "--force")
        assert vms.status("web1")["state"] == "stopped"


def test_list_follows_a_folder():
    """`list` shows where a running VM's folder is now: moved, with another in its place, outside of what is listed."""
    def rows():
        return sorted((row["state"], row["folder"], row["pid"]) for row in json.loads(vms.good("list", "--json")))

    with Folder() as vms:
        one, two = str(vms.make("web1")), str(vms.root / "web2")
        first = vms.start("web1").pid
        os.rename(one, two)
        assert rows() == [("running", two, first)], rows()
        assert vms.status(two)["folder"] == two
        shutil.copytree(two, one)
        assert rows() == [("running", two, first), ("stopped", one, None)], rows()
        second = vms.start("web1").pid
        assert rows() == sorted([("running", two, first), ("running", one, second)]), rows()
        hidden = vms.root / ".hidden"
        os.rename(two, hidden)
        assert rows() == sorted([("running", str(hidden), first), ("running", one, second)]), rows()
        shutil.rmtree(one)
        vms.make("web1")
        assert ("stopped", one, None) in rows(), rows()  # of the one that was there nothing is left


def test_console_and_signals():
    """What ends `console` by a signal leaves the terminal as it was; after a stop it is raw again; the VM goes on."""
    with Folder() as vms:
        vms.make("web1", kernel="serial.elf")
        vms.start("web1", until="hello")
        os.environ["MINIVMM_RUNTIME_DIR"] = vms.env["MINIVMM_RUNTIME_DIR"]
        try:
            for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGQUIT):
                terminal = Terminal("console", "web1")
                assert b"attached to" in terminal.process.stderr.readline()
                assert terminal.is_raw(), "who types now would be echoed"
                terminal.wait_for(b"hello")
                termios.tcsetattr(terminal.slave, termios.TCSANOW, terminal.before)  # as a shell does
                terminal.process.send_signal(signal.SIGCONT)
                vms.wait_until(terminal.is_raw, "raw mode")
                terminal.process.send_signal(number)
                assert terminal.finish() == 0
        finally:
            del os.environ["MINIVMM_RUNTIME_DIR"]
        assert vms.status("web1")["state"] == "running"


def test_console_without_a_terminal():
    """At the end of its input `console` shows what the guest says for as long as it runs."""
    with Folder() as vms:
        vms.make("web1", kernel="serial.elf")
        vms.start("web1", until="hello")
        process = subprocess.Popen([MINIVMM, "console", "web1"], env=vms.env, cwd=vms.root, stdin=subprocess.PIPE,
                                   stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        vms.processes.append(process)
        process.stdin.write(b"typed\r\n")
        process.stdin.close()
        heard = b""
        while b"typed" not in heard:  # echoed by the guest, after the end of the input
            byte = process.stdout.read(1)
            assert byte, (process.wait(10), heard, process.stderr.read())
            heard += byte
        assert process.poll() is None
        vms.good("stop", "web1", "--force")
        assert process.wait(10) == 0


# Has a runtime folder as a VM has it that starts, or ends: locked, but nobody answers until so many have looked at it.
ALMOST_A_VM = r"""
import ctypes, fcntl, json, os, pathlib, socket, struct, sys, time
IN_CLOSE_NOWRITE, EVENT_SIZE = 0x10, 16
base, looks, answers = pathlib.Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]
uuid = "00000000-0000-4000-8000-000000000001"
os.umask(0o077)
(base / uuid).mkdir(parents=True)
with open(base / uuid / "info.json", "w") as info:
    json.dump({"uuid": uuid, "name": "ghost", "folder": None, "pid": os.getpid(), "started": 1}, info)
    info.flush()
    fcntl.fcntl(info, fcntl.F_OFD_SETLK, struct.pack("hhqqi4x", fcntl.F_WRLCK, 0, 0, 0, 0))
    libc = ctypes.CDLL(None)
    watch = libc.inotify_init()
    assert libc.inotify_add_watch(watch, info.name.encode(), IN_CLOSE_NOWRITE) > 0
    print("locked", flush=True)
    for _ in range(looks):
        os.read(watch, EVENT_SIZE)
    server = socket.socket(socket.AF_UNIX)
    if answers:
        server.bind(str(base / uuid / "control.sock"))
        server.listen()
    for answer in answers:
        client, _ = server.accept()
        request = json.loads(client.makefile().readline())
        if answer != "hang up":
            client.sendall(json.dumps({"id": request["id"], "ok": {"state": answer}}).encode() + b"\n")
        client.close()
    time.sleep(0.5)  # who has asked may wait for the end
"""


@contextlib.contextmanager
def almost_a_vm(vms, looks, *answers):
    process = subprocess.Popen([sys.executable, "-c", ALMOST_A_VM, vms.env["MINIVMM_RUNTIME_DIR"], str(looks), *answers],
                               stdout=subprocess.PIPE)
    try:
        assert process.stdout.readline() == b"locked\n"
        yield
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
        shutil.rmtree(vms.env["MINIVMM_RUNTIME_DIR"])


def test_while_it_starts_or_ends():
    """A verb waits for a VM that starts, and sees the end of one that ends; `stop` has got what it wanted then."""
    with Folder() as vms:
        with almost_a_vm(vms, 2, "running", "paused"):
            assert vms.status("ghost")["state"] == "running"
            vms.good("pause", "ghost")
        with almost_a_vm(vms, 2):
            vms.bad(4, "ghost has ended", "pause", "ghost")
        for answers in ([], ["hang up"], ["stopping"]):
            with almost_a_vm(vms, 2, *answers):
                assert vms.run("stop", "ghost").returncode == 0
        with almost_a_vm(vms, 1 << 30):
            vms.bad(4, "ghost is starting or ending", "pause", "ghost")


test_while_it_starts_or_ends.waits = True


def test_asked_at_any_moment():
    """Asked again and again from before its start to after its end a VM is stopped or runs, and no verb gets lost."""
    with Folder() as vms:
        vms.make("web1")
        for _ in range(5):
            starter = subprocess.Popen([MINIVMM, "run", "web1", "--detach"], env=vms.env, cwd=vms.root,
                                       stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            vms.wait_until(lambda: vms.status("web1")["state"] == "running", "its start")
            assert starter.wait(10) == 0
            stopper = subprocess.Popen([MINIVMM, "stop", "web1", "--force"], env=vms.env, cwd=vms.root,
                                       stderr=subprocess.DEVNULL)
            vms.wait_until(lambda: vms.status("web1")["state"] == "stopped", "its end")
            assert stopper.wait(10) == 0
        for _ in range(20):
            vms.good("run", "web1", "--detach")
            stoppers = [subprocess.Popen([MINIVMM, "stop", "web1", "--force"], env=vms.env, cwd=vms.root,
                                         stderr=subprocess.PIPE, text=True) for _ in range(3)]
            results = [(stopper.communicate(timeout=30)[1], stopper.returncode) for stopper in stoppers]
            for words, code in results:
                assert code == 0 or (code == 4 and "is not running" in words), results
            assert 0 in [code for _, code in results]


def test_the_power_button_is_pressed_again():
    """A guest that did not feel the power button because it had just begun to boot is stopped all the same."""
    with Folder() as vms:
        vms.make("web1")
        vms.good("run", "web1", "--detach")
        vms.good("stop", "web1", "--timeout", "30")
        assert vms.list() == []


test_the_power_button_is_pressed_again.waits = True


def test_names_do_nothing_to_a_terminal():
    """Text for people has '?' for what a terminal would obey; JSON has the names as they are."""
    with Folder() as vms:
        name = "we\x1b[31mb\x9b1\u202e\u00e4"
        vms.make(name)
        for arguments in (["list"], ["list", "-q"], ["status", name]):
            text = vms.good(*arguments)
            assert "we?[31mb?1?\u00e4" in text and text.replace("\n", "").isprintable(), repr(text)
        assert vms.status(name)["name"] == name


def test_what_means_nothing_is_refused():
    """`list` of a file, `set` without a change or without saying of what: exit code 2, whether the VM runs or not."""
    with Folder() as vms:
        vms.make("web1")
        vms.bad(2, "web1/vm.json is no folder", "list", "web1/vm.json")
        vms.bad(3, "nowhere", "list", "nowhere")
        for words, *options in (("nothing to change",), ("of which --disk", "--iops", "5"), ("of which --net", "--link", "up"),
                                ("of this disk", "--disk", "0"), ("of this interface", "--net", "0"),
                                ("at a time", "--net", "0", "--balloon", "1M"),
                                ("of which --disk, or --net", "--bandwidth", "1M")):
            vms.bad(2, words, "set", "web1", *options)


def test_a_detached_vm_and_signals_of_job_control():
    """SIGCONT and SIGWINCH mean nothing to a VM without a terminal: it runs on."""
    with Folder() as vms:
        vms.make("web1")
        vms.good("run", "web1", "--detach")
        vms.wait_until(lambda: "ready" in vms.console("web1"), "the guest")
        pid = vms.status("web1")["pid"]
        for number in (signal.SIGCONT, signal.SIGWINCH, signal.SIGCONT):
            os.kill(pid, number)
        os.kill(pid, signal.SIGTERM)  # comes after them
        vms.wait_until(lambda: vms.list() == [], "its end")
        assert vms.journal("web1")[-1][1]["by"] == "signal"


def test_what_is_no_log():
    """A pipe, a link or a second name of a file in a log's place is not written to; the VM runs without that log."""
    with Folder() as vms:
        there = vms.make("web1")
        precious = vms.root / "precious"
        for make in (os.mkfifo, lambda path: path.symlink_to(precious), lambda path: path.hardlink_to(precious)):
            precious.write_text("precious")
            for name in ("minivmm.log", "console.log", "journal.jsonl"):
                make(there / name)
            result = vms.run("run", "web1", "--detach")
            assert result.returncode == 0, result
            assert "cannot write minivmm.log: " in result.stderr and "journal.jsonl" in result.stderr, result.stderr
            vms.good("stop", "web1", "--force")
            vms.wait_until(lambda: vms.list() == [], "its end")
            assert precious.read_text() == "precious"
            for name in ("minivmm.log", "console.log", "journal.jsonl"):
                (there / name).unlink()


def test_a_mistyped_name():
    """What names nothing is told with what was probably meant, before anything is begun for it."""
    with Folder() as vms:
        vms.make("button")
        (vms.root / "debian.img").write_bytes(bytes(512))
        for options in ((), ("--detach",)):
            words = vms.bad(3, "there is no butto here\nhint: did you mean button", "run", "butto", *options)
            assert len(words.splitlines()) == 2, words
            vms.bad(3, "there is no debain.img here\nhint: did you mean debian.img", "run", "debain.img", *options)
        vms.bad(3, "cannot open ./butto: No such file.*\nhint: did you mean button", "run", "./butto")
        vms.make("gone", disks=[{"file": "disk.img"}])
        vms.bad(3, "cannot open .*gone/disk.img: No such file", "run", "gone")
        assert not (vms.root / "gone/identity.json").exists()
        assert not (vms.root / ".run").exists() or list((vms.root / ".run").iterdir()) == []


def test_a_folder_of_somebody_else():
    """Root is told whose vm.json it obeys; what it makes in that folder belongs to the folder's owner."""
    if os.geteuid() != 0:
        raise Skip("is about root")
    with Folder() as vms:
        there = vms.make("web1")
        for path in (there, *there.iterdir()):
            os.chown(path, 65534, 65534)
        vms.root.chmod(0o755)
        result = vms.run("run", "web1", "--detach")
        assert result.returncode == 0, result
        assert result.stderr.count("web1/vm.json belongs to nobody, and decides which files") == 1, result.stderr
        vms.wait_until(lambda: "ready" in vms.console("web1"), "the guest")
        vms.good("stop", "web1")
        vms.wait_until(lambda: vms.list() == [], "its end")
        names = {path.name for path in there.iterdir()}
        assert {"console.log", "identity.json", "journal.jsonl", "minivmm.log"} <= names, names
        assert {path.stat().st_uid for path in there.iterdir()} == {65534}


def test_a_copy_that_is_renamed_has_no_past():
    """`rename` settles what a copy is, as its first run does: a VM of its own, without its original's journal."""
    with Folder() as vms:
        vms.make("web1")
        vms.start("web1")
        vms.good("stop", "web1")
        vms.wait_until(lambda: vms.list() == [], "its end")
        shutil.copytree(vms.root / "web1", vms.root / "copy")
        renamed = vms.run("rename", "copy", "web2")
        assert renamed.returncode == 0 and "web2 is a copy" in renamed.stderr, renamed
        assert vms.identity("web2")["uuid"] != vms.identity("web1")["uuid"]
        assert vms.journal("web2") == [] and len(vms.journal("web1")) == 2
        vms.good("rename", "web1", "web3")
        assert len(vms.journal("web3")) == 2


def test_a_folder_that_is_in_use():
    """A lock that no running VM has is waited for a little, and said to be what it is."""
    with Folder() as vms:
        there = vms.make("web1")
        vms.start("web1")
        vms.bad(4, r"web1 is already running \(pid \d+\)\nhint: minivmm stop web1", "rename", "web1", "web2")
        vms.good("stop", "web1")
        vms.wait_until(lambda: vms.list() == [], "its end")
        with open(there / "identity.json", "r+b") as file:
            fcntl.fcntl(file, F_OFD_SETLK, struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0))
            vms.bad(4, rf"web1 is in use \(pid {os.getpid()}\)", "run", "web1")
            threading.Timer(0.3, file.close).start()
            vms.good("rename", "web1", "web2")
