# SPDX-License-Identifier: MIT
"""minivmm switchover --all, and the unit that says it when a host is shut down. Two "hosts" are two runtime folders of this
machine. No lab host is needed."""

import contextlib
import os
import re
import signal
import subprocess
import tempfile
import time
from pathlib import Path

from labcommon import REPOSITORY, Skip
from pairs import PATIENT
from test_migrate import hosts
from test_power_cuts import words_of
from test_twin_verbs import goes_on
from vms import freeze

SYSTEMD = Path("/lib/systemd/systemd")
UNITS = ["minivmm@.service", "minivmm-standby.service", "minivmm-handover.service"]
# What is about the system's own manager, or its limits: a manager of units for a user does without.
NOT_A_USERS = r"^(StateDirectory|RequiresMountsFor|LimitRTPRIO|OOMScoreAdjust|Type=notify).*\n"
# In the place of minivmm: notes what it is asked for, and stays where that one would.
NOTES = """#!/bin/sh
echo "begin $*" >>{log}
case $1 in
run | standby) trap 'echo "end $*" >>{log}; exit 0' TERM; while [ -e {log} ]; do sleep 0.05; done ;;
esac
sleep 0.2
echo "end $*" >>{log}
"""
MANAGER = """
mount -t tmpfs none /run
mkdir -p /run/systemd/system
exec {systemd} --user
"""


def states(host):
    """{name: its protection, {} where it has none} of all that have a process there."""
    found = {}
    for row in host.list():
        with contextlib.suppress(AssertionError):  # it ends just now
            found[row["name"]] = host.status(row["folder"]).get("protection") or {}
    return found


def wait_for(host, name, **wanted):
    host.wait_until(lambda: wanted.items() <= states(host).get(name, {}).items(), f"{name} as {wanted} there", 60)


def start(host, *names, ft=PATIENT):
    for name in names:
        host.make(name, kernel="counter.elf", ft=ft)
        host.start(name, until="\n")


def protect(one, other, *names):
    """Each may have its twin at the first host when it has gone over."""
    witness, there, back = one.root / "w", other.standby(), one.standby()
    witness.mkdir()
    for name in names:
        one.good("protect", name, "--to", there, "--witness", f"file:{witness}", "--back", back)


def test_what_has_a_twin_goes():
    """Of a VM with a twin and one without the first goes over, and the second stays, runs on, and is named. A VM that a
    standby has taken over, which is nobody's unit, goes back by the same words; a twin is left alone."""
    with hosts() as (one, other):
        assert "no VM runs here" in one.run("switchover", "--all").stderr
        start(one, "web1", "web2")
        protect(one, other, "web1")
        said = one.run("switchover", "--all")
        assert said.returncode == 0, said
        assert "web1 runs on 127.0.0.1:" in said.stderr and "web2 is not protected: it stays here" in said.stderr, said
        wait_for(other, "web1", role="primary", state="paired")
        assert one.status("web2")["state"] == "running" and "protection" not in one.status("web2")

        said = one.run("switchover", "--all")  # its twin is here now
        assert said.returncode == 0 and "web1" not in said.stderr, said
        wait_for(other, "web1", role="primary", state="paired")
        before = other.console("web1")
        said = other.run("switchover", "--all")
        assert said.returncode == 0 and "web1 runs on 127.0.0.1:" in said.stderr and "web2" not in said.stderr, said
        wait_for(one, "web1", role="primary")
        one.wait_until(lambda: len(one.console("web1")) > len(before), "a word of the guest")
        assert one.status("web2")["state"] == "running"


def test_a_twin_that_does_not_answer():
    """Its VM is not waited for longer than was said, and holds no other one up; it is named, goes on here without a twin,
    and ends by stop as ever."""
    with hosts() as (one, other):
        start(one, "web1", "web2", ft={"timeout_ms": 20000})
        protect(one, other, "web1", "web2")
        wait_for(other, "web1", state="twin")
        wait_for(other, "web2", state="twin")
        twin = next(row["pid"] for row in other.list() if row["name"] == "web1")
        freeze(twin)
        said = one.run("switchover", "--all", "--timeout", 3)
        assert said.returncode == 124, said
        assert "web1 has not gone over within 3 s" in said.stderr and "minivmm status web1" in said.stderr, said
        assert "web2 runs on 127.0.0.1:" in said.stderr, said
        wait_for(one, "web1", role="primary", state="solo")
        goes_on(one)
        os.kill(twin, signal.SIGKILL)
        one.good("stop", "--force", "web1")


def test_without_a_twin_in_step():
    """A protected VM whose twin is gone stays here, is named, and the exit code tells; nothing has happened to it."""
    with hosts() as (one, other):
        start(one, "web1")
        protect(one, other, "web1")
        other.waiting.kill()
        other.good("stop", other.root / "web1")
        wait_for(one, "web1", state="solo")
        one.bad(4, r"web1 has no twin that could go on \(it is solo\)", "switchover", "--all")
        goes_on(one)
        wait_for(one, "web1", role="primary", state="solo")


def test_wrong_words():
    """--all goes with no name, and --timeout with --all only."""
    with hosts(1) as (one,):
        one.bad(2, "--all, or web1: not both\nhint: ", "switchover", "--all", "web1")
        one.bad(2, "--timeout goes with --all\nhint: ", "switchover", "web1", "--timeout", "5")
        one.bad(2, "--timeout 0: a number from 1", "switchover", "--all", "--timeout", "0")


def test_the_unit():
    """A shutdown says these words, bounded, and before the VMs' units, the standby and the network end: in the order that is
    the reverse of their start."""
    handover, vm, standby = (words_of(f"minivmm{name}.service") for name in ["-handover", "@", "-standby"])
    *command, limit = handover["ExecStop"][0].split()
    assert command == ["@bindir@/minivmm", "switchover", "--all", "--timeout"], handover
    assert int(limit) < int(handover["TimeoutStopSec"][0]), handover
    assert {"network-online.target", "remote-fs.target", "minivmm-standby.service"} <= {*handover["After"][0].split()}
    assert vm["Before"] == ["minivmm-handover.service"], vm
    assert "minivmm-handover.service" in standby["Wants"][0].split(), "a standby has it by itself"


def groups_of_ours():
    """Folders of the control groups that we are in, one for each hierarchy."""
    places = {}  # what /proc/self/cgroup calls it: where it is
    for line in Path("/proc/mounts").read_text().splitlines():
        _, place, kind, options, *_ = line.split()
        if kind == "cgroup2":
            places[""] = Path(place)
        elif kind == "cgroup":
            places.update(dict.fromkeys(options.split(","), Path(place)))
    found = []
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, names, path = line.split(":", 2)
        place = places.get(names.split(",")[0])
        if place and (place / path.lstrip("/")).is_dir():
            found.append(place / path.lstrip("/"))
    return found


@contextlib.contextmanager
def groups_of_its_own():
    """A manager takes charge of its whole group, whoever else is in it: gives what moves a process into one that is empty."""
    made, parents = [], groups_of_ours()
    if not parents:
        raise Skip("no control groups here")

    def enter():
        for group in made:
            with contextlib.suppress(OSError):  # a cpuset without CPUs, which it does without
                (group / "cgroup.procs").write_text(str(os.getpid()))
    try:
        for parent in parents:
            try:
                made.append(Path(tempfile.mkdtemp(prefix="minivmm-test-", dir=parent)))
            except OSError as error:
                raise Skip(f"no control group of its own here: {error}") from None
        yield enter
    finally:
        for group in made:
            for inner, _, _ in os.walk(group, topdown=False):
                with contextlib.suppress(OSError):  # somebody in it just ends
                    os.rmdir(inner)


@contextlib.contextmanager
def manager(folder, log):
    """A systemd for these units alone, of which it knows nothing but where they are; gives what speaks to it."""
    if os.geteuid() != 0 or not SYSTEMD.exists():
        raise Skip("a systemd of its own needs root, and systemd")
    units, program = folder / "home/.config/systemd/user", folder / "minivmm"
    units.mkdir(parents=True)
    (folder / "run").mkdir(mode=0o700)
    program.write_text(NOTES.format(log=log))
    program.chmod(0o755)
    for name in UNITS:
        text = (REPOSITORY / "cluster/systemd" / name).read_text()
        (units / name).write_text(re.sub(NOT_A_USERS, "", text, flags=re.M).replace("@bindir@/minivmm", str(program)))
    env = {**os.environ, "HOME": str(folder / "home"), "XDG_RUNTIME_DIR": str(folder / "run"),
           "SYSTEMD_LOG_TARGET": "console"}
    with open(folder / "words", "w+") as words, groups_of_its_own() as enter:
        process = subprocess.Popen(["unshare", "-m", "--propagation", "private", "sh", "-ec",
                                    MANAGER.format(systemd=SYSTEMD)],
                                   env=env, stdin=subprocess.DEVNULL, stdout=words, stderr=words, preexec_fn=enter)

        def systemctl(*said):
            return subprocess.run(["nsenter", "-m", "-t", str(process.pid), "systemctl", "--user", *said], env=env,
                                  capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL)
        try:
            end = time.monotonic() + 30
            while not (folder / "run/systemd/private").exists():
                if process.poll() is not None:
                    raise Skip(f"no systemd of its own here: {(folder / 'words').read_text()[-200:].strip()}")
                assert time.monotonic() < end, (folder / "words").read_text()
                time.sleep(0.05)
            yield systemctl, process
        finally:
            process.kill()
            process.wait()


def test_a_shutdown():
    """By a real systemd: a standby that is started has the handover with it. At the shutdown that comes first, as a whole;
    then the VM's own unit ends, and then the standby."""
    ours = Path("/proc/self/cgroup").read_text()
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        log = Path(folder, "log")
        log.touch()
        with manager(Path(folder), log) as (systemctl, process):
            started = systemctl("start", "minivmm-standby", "minivmm@web1")
            assert started.returncode == 0, started
            active = systemctl("is-active", "minivmm-standby", "minivmm@web1", "minivmm-handover")
            assert active.stdout.split() == ["active"] * 3, active
            end = time.monotonic() + 30
            while not {"begin standby /var/lib/minivmm", "begin run /var/lib/minivmm/web1"} <= {*log.read_text().splitlines()}:
                assert time.monotonic() < end, log.read_text()
                time.sleep(0.05)
            log.write_text("")
            assert systemctl("exit").returncode == 0
            process.wait(60)
        assert log.read_text().splitlines() == [
            "begin switchover --all --timeout 60", "end switchover --all --timeout 60",
            "begin switchover web1", "end switchover web1",
            "begin stop /var/lib/minivmm/web1 --timeout 110", "end stop /var/lib/minivmm/web1 --timeout 110",
            "end run /var/lib/minivmm/web1", "end standby /var/lib/minivmm"], log.read_text()
    assert Path("/proc/self/cgroup").read_text() == ours, "its manager has taken others than its own"
