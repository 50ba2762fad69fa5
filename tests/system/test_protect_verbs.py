# SPDX-License-Identifier: MIT
"""What people type for fault tolerance, and read: protect, unprotect, switchover, epochs, status --watch. Two "hosts" are
two runtime folders of this machine. No lab host is needed."""

import fcntl
import json
import os
import pty
import re
import select
import struct
import subprocess
import termios
import time
from pathlib import Path

from pairs import PATIENT
from test_cli import MINIVMM
from test_migrate import Host, free_port, hosts


def test_wrong_words():
    """Each verb says what is wrong with its words, with the exit code for it and the mend, and the VM goes on
    unprotected."""
    with Host() as one:
        one.make("web1")
        for verb in ("protect", "unprotect", "switchover", "epochs"):
            one.bad(2, f"{verb}: (of )?which VM", verb)
            one.bad(3, "no running VM is called nosuch", verb, "nosuch")
            one.bad(4, "web1 is not running\nhint: minivmm run web1", verb, "web1")
            one.bad(2, "--nosuch", verb, "web1", "--nosuch")
        one.bad(4, "web1 is not running", "status", "--watch", "web1")
        one.bad(3, "folder nosuch: No such file.*\nhint: mkdir -p nosuch; first mount", "standby", "nosuch")
        one.start("web1")
        (one.root / "w").mkdir()
        (one.root / "open.key").write_text("00" * 32)
        (one.root / "open.key").chmod(0o644)
        there = ("--to", f"127.0.0.1:{free_port()}")
        wrong = [
            (2, "protect: where shall its twin be", ()),
            (2, "protect: who shall know which host may run it", there),
            (2, '"fil:w" is no witness\nhint: did you mean file:', (*there, "--witness", "fil:w")),
            (2, "is no whole path", (*there, "--witness", "file:")),
            (3, "witness nosuch: No such file", (*there, "--witness", "file:nosuch")),
            (2, "memry is neither memory nor durable\nhint: did you mean --level memory", ("--level", "memry")),
            (3, "key nosuch: No such file", (*there, "--witness", "file:w", "--key", "nosuch")),
            (4, "open.key.*\nhint: chmod 600", (*there, "--witness", "file:w", "--key", "open.key")),
            (2, "unexpected argument web2", ("web2",)),
            (1, "nobody listens at .*\nhint: start minivmm standby", (*there, "--witness", "file:w")),
        ]
        for code, words, options in wrong:
            one.bad(code, words, "protect", "web1", *options)
            assert one.status("web1")["state"] == "running"
        one.bad(2, "--last 0: a number from 1 to 16384", "epochs", "web1", "--last", "0")
        one.bad(2, "--last 16385: a number", "epochs", "web1", "--last", "16385")
        one.bad(2, "--watch goes with neither", "status", "web1", "--watch", "--json")
        assert "protection" not in one.status("web1")
        one.bad(4, "web1 is not protected", "unprotect", "web1")
        one.bad(4, "web1 is not protected", "switchover", "web1")


def test_what_has_no_twin():
    """A network in user mode, and an ephemeral disk, are refused by name, with the way out where there is one."""
    with Host() as one:
        (one.root / "w").mkdir()
        options = ("--to", "127.0.0.1:1", "--witness", "file:w")
        one.make("web1", nets=[{"mode": "user"}])
        one.start("web1")
        words = one.bad(4, "web1: a network in user mode ends in this host", "protect", "web1", *options)
        assert "hint: a network that moves along is a bridge or a tap" in words, words
        (one.make("web2", disks=[{"file": "disk.img", "format": "raw"}]) / "disk.img").write_bytes(bytes(4096))
        one.start("web2", "--ephemeral")
        one.bad(4, "web2 has an ephemeral disk", "protect", "web2", *options)
        assert os.listdir(one.root / "w") == [] and not (one.root / "web1/.protected").exists()


def test_more_memory_than_there_is():
    """A host that could not keep all of a VM's memory takes it neither as a twin nor for good; the VM goes on, and nothing
    of it is left there."""
    with hosts() as (one, other):
        (one.root / "w").mkdir()
        of_host = dict(line.split()[:2] for line in Path("/proc/meminfo").read_text().splitlines())
        more = (int(of_host["MemTotal:"]) + int(of_host["SwapTotal:"])) // 1024 + 4096
        one.make("web1", memory=f"{more}M")
        one.start("web1")
        address = other.standby()
        words = f"it has {more} MiB of memory, and this host has [0-9]+ MiB to give\nhint: stop something"
        one.bad(4, words, "migrate", "web1", address)
        one.bad(4, words, "protect", "web1", "--to", address, "--witness", f"file:{one.root}/w", "--insecure")
        assert one.status("web1")["state"] == "running" and not (other.root / "web1").exists()


def test_a_vm_without_epochs():
    """Nobody has followed it: an empty list for programs, a sentence for people; list and status have no protection."""
    with Host() as one:
        one.make("web1")
        one.make("web2")
        one.start("web1")
        assert json.loads(one.good("epochs", "web1", "--json")) == []
        result = one.run("epochs", "web1")
        assert (result.returncode, result.stdout) == (0, "") and "nobody has followed it" in result.stderr, result
        assert "protection" not in one.status("web1") and "ft" not in one.status("web1")["metrics"]
        assert [row["protection"] for row in json.loads(one.good("list", "--json"))] == [None, None]


def test_watch_without_a_terminal():
    """One line a second, with events between them as they come, until the VM has ended."""
    with Host() as one:
        one.make("web1")
        one.start("web1")
        watch = one.begin("status", "web1", "--watch")
        first = watch.stdout.readline()
        assert re.fullmatch(r"\d\d:\d\d:\d\d running, not protected\n", first), first
        one.good("pause", "web1")
        while "paused, why: asked" not in (line := watch.stdout.readline()):
            assert line == "" or line[9:] == "running, not protected\n", line
        assert watch.stdout.readline()[9:] == "paused, not protected\n"
        one.good("stop", "--force", "web1")
        text, errors = watch.communicate(timeout=30)
        assert (watch.returncode, errors) == (0, ""), errors
        assert text.endswith("web1 has ended here\n") and "\033" not in text, text


def read_until(master, enough, timeout=30):
    text, end = "", time.monotonic() + timeout
    while not enough(text):
        ready, _, _ = select.select([master], [], [], max(0, end - time.monotonic()))
        assert ready, f"not within {timeout} s: {text!r}"
        text += os.read(master, 65536).decode()
    return text


def test_watch_on_a_terminal():
    """It draws over what it has drawn, each line cut to the width; events stay above; Ctrl-C ends it, and not the VM."""
    with Host() as one:
        one.make("web1")
        one.start("web1")
        master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 21, 0, 0))

        def own_terminal():
            os.setsid()
            fcntl.ioctl(slave, termios.TIOCSCTTY, 0)

        watch = subprocess.Popen([MINIVMM, "status", "web1", "--watch"], env=one.env, cwd=one.root, stdin=slave,
                                 stdout=slave, stderr=slave, preexec_fn=own_terminal)
        try:
            text = read_until(master, lambda text: "\033[J" in text)
            first = text.split("\033[J")[0]
            assert re.fullmatch(r"web1, running, for \d\033\[K\r\nprotected no\033\[K\r\n", first), repr(text)
            one.good("pause", "web1")
            text = read_until(master, lambda text: "paused" in text and text.endswith("\033[J"))
            (drawn,) = [part for part in text.split("\033[J") if "paused, why" in part]
            assert re.fullmatch(r"\033\[2A\r+\d\d:\d\d:\d\d paused, why\033\[K\r\nweb1, paused, for \d ?\033\[K\r\n"
                                r"protected no\033\[K\r\n", drawn), repr(text)
            os.write(master, b"\x03")
            assert watch.wait(30) == -2
        finally:
            watch.kill()
            watch.wait()
            os.close(master)
            os.close(slave)
        assert one.status("web1")["state"] == "paused"


def test_what_is_seen_of_a_protected_vm():
    """protect ends with a line that says it; list, status, watch and epochs tell both sides; unprotect and switchover say
    what has become of it."""
    with hosts() as (one, other):
        one.make("web1", kernel="counter.elf", ft=PATIENT)
        one.start("web1", until="\n")
        (one.root / "w").mkdir()
        address = other.standby()
        watch = one.begin("status", "web1", "--watch")
        watch.stdout.readline()
        result = one.run("protect", "web1", "--to", address, "--witness", "file:w")
        assert result.returncode == 0, result
        assert re.fullmatch(rf"minivmm: web1 is protected: a twin follows at {address}, "
                            r"(ready after|\S+ [KM]?i?B went over in) \d+\.\d s; level memory, generation \d+\n",
                            result.stderr), result.stderr
        one.bad(4, "web1 is protected already, by 127", "protect", "web1", "--to", address, "--witness", "file:w")
        assert "web1  running, protected  " in one.good("list")
        assert [row["protection"] for row in one.list()] == ["paired"]
        assert [(row["state"], row["protection"]) for row in other.list()] == [("a twin", "twin")]
        one.wait_until(lambda: one.status("web1")["metrics"]["ft"]["epochs"] > 5, "some epochs")
        text = one.good("status", "web1")
        for line in (f"protected yes: its twin at {address} goes on when this host dies", r"witness   file:/\S+/w, gen",
                     r"epochs    \d+, acknowledged to \d+; ", r"pauses    median \d+\.\d\d ms, p99 ", "commit    median ",
                     "rates     ", "held      .* wait for its twin"):
            assert re.search(f"^{line}", text, re.M), f"no {line!r} in {text}"
        text = other.good("status", other.root / "web1")
        assert re.search("^twin      ready: it goes on when the VM is lost", text, re.M), text
        table = one.good("epochs", "web1", "--last", 3).splitlines()
        assert table[0].split()[:3] == ["EPOCH", "CAUSE", "PAUSE"] and len(table) == 4, table
        assert len(json.loads(one.good("epochs", "web1", "-n", 16384, "--json"))) > 5
        result = one.run("unprotect", "web1")
        assert (result.returncode, result.stderr) == (0, "minivmm: web1 is not protected any more, and goes on here\n"), result
        assert "protection" not in one.status("web1")
        one.good("protect", "web1", "--to", address, "--witness", "file:w", "--level", "durable", "--verify")
        assert one.status("web1")["protection"]["level"] == "durable"
        result = one.run("switchover", "web1")
        assert result.returncode == 0, result
        assert re.fullmatch(rf"minivmm: web1 runs on {address}: it took \d+\.\d ms\n", result.stderr), result.stderr
        text, errors = watch.communicate(timeout=30)
        assert (watch.returncode, errors) == (0, ""), errors
        assert "protection: paired, generation " in text, text
        assert "stopped, by: switchover\nweb1 has ended here\n" in text, text
        other.wait_until(lambda: other.status(other.root / "web1")["state"] == "running", "web1 there")
        text = other.good("status", other.root / "web1")
        assert re.search(r"^before    it was the twin, and took over in \d+", text, re.M), text
