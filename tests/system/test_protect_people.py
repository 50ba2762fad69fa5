# SPDX-License-Identifier: MIT
"""What people do to a VM while it is protected: it does as they expect, also at its twin, or it is refused, with the
reason. Two "hosts" are two runtime folders of this machine. No lab host is needed."""

import contextlib
import json
import os
import re
import signal
import socket

from frames import Proxy
from pairs import PATIENT
from test_clone import MIB
from test_migrate import SLOW, free_port, hosts, make, start
from vms import freeze

PAGE = 4096


class Protected:
    """web1 at one host, its twin at the other one."""

    def __init__(self, one, other, kernel, until="\n", ft=None, **more):
        self.one, self.other = one, other
        one.make("web1", kernel=kernel, ft={**PATIENT, **(ft or {})}, **more)
        one.start("web1", until=until)
        (one.root / "w").mkdir()
        self.address = other.standby()
        self.twin = other.root / "web1"

    def words(self):
        return ("protect", "web1", "--to", self.address, "--witness", f"file:{self.one.root}/w", "--verify")

    def wait_for_epochs(self):
        """What is so now is at the twin, too."""
        seen = self.one.status("web1")["protection"]["epoch"]
        self.one.wait_until(lambda: self.one.status("web1")["protection"]["acked"] > seen + 1, "epochs")

    def kill(self):
        """The host of web1 dies; the twin goes on."""
        os.kill(self.one.status("web1")["pid"], signal.SIGKILL)
        self.other.wait_until(lambda: self.other.status(self.twin)["state"] in ("running", "paused"), "a takeover")
        return self.other.status(self.twin)


@contextlib.contextmanager
def protected(*what, **more):
    with hosts() as (one, other):
        vm = Protected(one, other, *what, **more)
        one.good(*vm.words())
        yield vm


# --- memory -----------------------------------------------------------------------------------------------------------


def resident(pid):
    """Bytes that a process has of guest memory, which is what it wants huge pages for."""
    with open(f"/proc/{pid}/smaps") as smaps:
        mappings = re.split(r"^(?=[0-9a-f]+-[0-9a-f]+ )", smaps.read(), flags=re.M)
    ours = [mapping for mapping in mappings if re.search(r"^VmFlags:.* hg\b", mapping, re.M)]
    assert ours, f"no guest memory in process {pid}"
    return sum(int(re.search(r"^Rss:\s+(\d+) kB", mapping, re.M).group(1)) << 10 for mapping in ours)


def balloon_guest(pages=7168, rate=10000):
    return {"kernel": "balloon.elf", "until": "balloon: ready", "memory": "32M",
            "boot": {"kernel": "kernel", "cmdline": f"pages={pages} rate={rate}"}}


def rounds(host):
    text = host.console("web1")
    assert "WRONG" not in text, text
    return text.count("round ")


def goes_round(host):
    """The guest has looked at all of its memory."""
    before = rounds(host)
    host.wait_until(lambda: rounds(host) > before + 1, "two rounds of the guest", 60)


def test_a_balloon_is_the_same_at_the_twin():
    """What a balloon takes goes back to both hosts. When one of them dies its size and target are what they were, and the
    guest's memory is right; when it lets go of it, and reports it as free, too."""
    with protected(**balloon_guest()) as vm:
        pids = vm.one.status("web1")["pid"], vm.other.arriving()[0]
        before = [resident(pid) for pid in pids]
        for size in (22, 18):  # 4 MiB come back, and are reported as free before they are used
            vm.one.good("set", "web1", "--balloon", f"{size}M")
            vm.one.wait_until(lambda: vm.one.status("web1")["balloon"] == size * MIB, f"a balloon of {size} MiB")
        assert vm.one.status("web1")["metrics"]["balloon"]["given_back"] >= 4 * MIB, "nothing was reported"
        for pid, bytes_before in zip(pids, before):
            vm.one.wait_until(lambda: resident(pid) < bytes_before - 12 * MIB,
                              f"12 MiB less than {bytes_before >> 20} MiB at each of two hosts")
        goes_round(vm.one)
        status = vm.kill()
        assert (status["balloon"], status["metrics"]["balloon"]["target"]) == (18 * MIB, 18 * MIB), status
        goes_round(vm.other)
        assert vm.other.status(vm.twin)["balloon"] == 18 * MIB
        vm.other.good("set", vm.twin, "--balloon", "8M")
        vm.other.wait_until(lambda: vm.other.status(vm.twin)["balloon"] == 8 * MIB, "a balloon of 8 MiB")
        goes_round(vm.other)


def test_a_balloon_moves_amid_the_first_sync():
    """It takes and gives while all of the memory goes over: both sides have the same (--verify)."""
    with hosts() as (one, other):
        vm = Protected(one, other, **balloon_guest(rate=1000))
        with Proxy(vm.address, rate=SLOW / 2) as proxy:
            vm.address = proxy.address
            protect = one.begin(*vm.words())
            for size in (24, 0, 24):  # what is taken last was sent before
                one.good("set", "web1", "--balloon", f"{size}M")
                one.wait_until(lambda: one.status("web1")["balloon"] == size * MIB, f"a balloon of {size} MiB")
            assert protect.wait(60) == 0, protect.stderr.read()
            vm.wait_for_epochs()
            assert vm.kill()["balloon"] == 24 * MIB
            goes_round(other)


test_a_balloon_moves_amid_the_first_sync.waits = True


# --- going and standing -----------------------------------------------------------------------------------------------


def test_a_pause_is_kept():
    """A VM that was paused stays protected; its twin stays where it was when it takes over, and goes on from there when
    somebody says so. What is asked of a twin is refused."""
    with protected("counter.elf") as vm:
        vm.other.bad(4, "web1 does not run here: it is a twin\nhint: minivmm status web1", "pause", vm.twin)
        vm.other.bad(4, "web1 does not run here: it is a twin\nhint: ", "set", vm.twin, "--balloon", "1M")
        vm.one.good("pause", "web1")
        vm.wait_for_epochs()
        vm.one.good("resume", "web1")
        counted = vm.one.console("web1").count("\n")
        vm.one.wait_until(lambda: vm.one.console("web1").count("\n") > counted, "the guest after a pause")
        vm.one.good("pause", "web1")
        vm.wait_for_epochs()
        vm.one.good("set", "web1", "--balloon", "1M")  # a wish of which the guest has not heard
        vm.wait_for_epochs()
        assert vm.one.status("web1")["protection"]["state"] == "paired"
        status = vm.kill()
        assert status["state"] == "paused" and status["metrics"]["balloon"]["target"] == MIB, status
        said = vm.other.console("web1")
        assert vm.other.status(vm.twin)["state"] == "paused"
        assert vm.other.console("web1") == said, "it runs"
        vm.other.good("resume", vm.twin)
        console = vm.other.begin("console", vm.twin)
        while "count" not in (line := console.stdout.readline()):
            assert line, console.stderr.read()
        vm.other.wait_until(lambda: vm.other.console("web1").count("\n") > said.count("\n") + 2, "the guest at its twin")


def rarely(**more):
    """A guest that has nothing to say, and next to no epochs by time."""
    return protected("button.elf", until="ready", ft={"epoch": {"max_ms": 10000}, **more})


def test_what_is_set_is_at_the_twin_when_it_is_said():
    """pause, resume and set make an epoch of their own, and return when the twin has it: it goes on as somebody has said,
    however soon it takes over."""
    with rarely() as vm:
        vm.one.good("pause", "web1")
        vm.one.good("resume", "web1")
        vm.one.good("set", "web1", "--balloon", "1M")
        vm.one.good("pause", "web1")
        status = vm.kill()
        assert status["state"] == "paused" and status["metrics"]["balloon"]["target"] == MIB, status
    with rarely() as vm:
        before = len(causes(vm.one))
        vm.one.good("pause", "web1")
        assert causes(vm.one)[before:] == ["set"]
        vm.one.good("unprotect", "web1")
        assert "twin" not in vm.one.run("resume", "web1").stderr


def causes(host):
    return [epoch["cause"] for epoch in json.loads(host.good("epochs", "web1", "--json"))]


def test_a_twin_that_has_not_heard_of_a_pause():
    """Where the twin does not acknowledge, and does not count as gone as yet, whoever pauses waits for so long and no longer,
    and hears that it is so here only. The twin hears of it when it can."""
    with rarely(timeout_ms=60000) as vm:
        twin = vm.other.arriving()[0]
        freeze(twin)
        try:
            said = vm.one.run("pause", "web1")
            assert said.returncode == 0 and "its twin has not heard of it as yet" in said.stderr, said.stderr
            assert vm.one.status("web1")["state"] == "paused"
        finally:
            os.kill(twin, signal.SIGCONT)
        vm.one.wait_until(lambda: has_all(vm.one), "an acknowledgement")
        assert vm.kill()["state"] == "paused"


test_a_twin_that_has_not_heard_of_a_pause.waits = True


def test_what_is_set_where_it_is_over():
    """Whose VM has gone on at its twin meanwhile sets nothing of it any more, and hears that."""
    with rarely(timeout_ms=500) as vm:
        pid = vm.one.status("web1")["pid"]
        freeze(pid)
        try:
            said = [vm.one.begin("pause", "web1"), vm.one.begin("set", "web1", "--balloon", "1M")]
            vm.other.wait_until(lambda: vm.other.status(vm.twin)["state"] == "running", "a takeover")
        finally:
            os.kill(pid, signal.SIGCONT)
        for verb in said:
            _, errors = verb.communicate(timeout=30)
            assert verb.returncode != 0, errors
        assert vm.other.status(vm.twin)["state"] == "running"


def has_all(host):
    says = host.status("web1")["protection"]
    return says["epoch"] == says["acked"]


def test_what_does_not_go_with_protection():
    """A snapshot, a clone and a move are refused, and the way out is said, which is one."""
    with protected("counter.elf") as vm:
        ways = "hint: .*minivmm switchover web1; or first minivmm unprotect web1"
        address = f"127.0.0.1:{free_port()}"
        for verb, words in ((("snapshot", "web1", "now"), "be copied"), (("clone", "web1", "web2"), "be copied"),
                            (("clone", "web1", "web2", "--memory"), "be copied"), (("migrate", "web1", address), "move")):
            vm.one.bad(4, f"web1 is protected, and cannot {words} meanwhile\n{ways}", *verb)
        assert not list((vm.one.root / "web1").glob("snapshots/*")) and not (vm.one.root / "web2").exists()
        assert vm.one.status("web1")["protection"]["state"] == "paired"
        vm.one.good("unprotect", "web1")
        vm.one.good("snapshot", "web1", "now")
        vm.one.good("remove-snapshot", "web1", "now")


def test_protected_again_where_it_has_gone():
    """Who unprotects a VM that has gone to its twin's host and back protects it there again: nothing is known of what its
    disks have in common with the folder it came from, and all of them goes over."""
    with hosts() as (one, other):
        make(one, ft=PATIENT)
        start(one)
        (one.root / "w").mkdir()
        there, back = other.standby(), one.standby()
        words = ("protect", "web1", "--to", there, "--witness", f"file:{one.root}/w", "--back", back)
        one.good(*words)
        for host in (one, other):
            host.good("switchover", "web1")
            now, web = (other, other.root / "web1") if host is one else (one, one.root / "web1")
            now.wait_until(lambda: now.status(web).get("protection", {}).get("state") == "paired", "a twin", 60)
        one.good("unprotect", "web1")
        one.good(*words)
        one.goes_on()


def test_what_does_not_go_with_what_begins():
    """From the moment when somebody asks for it, also while the witness has not answered as yet."""
    with hosts() as (one, other), socket.create_server(("127.0.0.1", 0)) as witness:
        one.make("web1", kernel="counter.elf")
        one.start("web1", until="\n")
        address = other.standby()
        protect = one.begin("protect", "web1", "--to", address, "--witness", "etcd://%s:%d" % witness.getsockname())
        with witness.accept()[0]:
            words = "the protection of web1 is just being changed\nhint: minivmm unprotect web1 ends that"
            for verb in (("snapshot", "web1", "now"), ("clone", "web1", "web2"), ("migrate", "web1", address)):
                one.bad(4, words, *verb)
            one.good("unprotect", "web1")
            assert protect.wait(60) == 4, protect.stderr.read()
            one.good("migrate", "web1", address)
