# SPDX-License-Identifier: MIT
"""VMs in folders of their own on this machine's /dev/kvm, with tiny guests. No lab host is needed."""

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

from test_cli import MINIVMM, guest


def memory_of(pid):
    """PSS of a process with a VM of more than 16 MiB, in KiB: beside guest RAM, and of guest RAM."""
    areas = []  # [begin, end, PSS in KiB, whether it asks for huge pages]
    with open(f"/proc/{pid}/smaps", encoding="ascii") as smaps:
        for line in smaps:
            first, *rest = line.split()
            if not first.endswith(":"):
                areas.append([*(int(part, 16) for part in first.split("-")), 0, False])
            elif first == "Pss:":
                areas[-1][2] = int(rest[0])
            elif first == "VmFlags:":
                areas[-1][3] = "hg" in rest
    # Guest RAM is what asks for huge pages, and a smaller area right below it, which does not.
    begins = {begin for begin, _, _, huge in areas if huge}
    guest = sum(pss for _, end, pss, huge in areas if huge or end in begins)
    return sum(pss for _, _, pss, _ in areas) - guest, guest


def freeze(pid):
    """Returns when it stands still: a signal is taken by one of its threads, and until that has run the others go on."""
    os.kill(pid, signal.SIGSTOP)
    end = time.monotonic() + 30
    for task in Path(f"/proc/{pid}/task").iterdir():
        while (task / "stat").read_text().rpartition(")")[2].split()[0] != "T":
            assert time.monotonic() < end, f"process {pid} does not stand still"
            time.sleep(0.001)


class Folder:
    """A place for VMs, and the runtime folder of those that run; nothing is left of either."""

    def __init__(self):
        self.root = Path(tempfile.mkdtemp(prefix="minivmm-vms-", dir="/var/tmp"))
        self.env = {**os.environ, "MINIVMM_RUNTIME_DIR": str(self.root / ".run"),
                    "MINIVMM_KEYS_DIR": str(self.root / ".keys")}
        self.processes = []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for process in self.processes:
            process.kill()
            process.wait()
            process.stderr.close()
            process.stdout.close()
        with contextlib.suppress(Exception):
            for row in self.list():
                os.kill(row["pid"], 9)
        shutil.rmtree(self.root, ignore_errors=True)

    def make(self, name, kernel="button.elf", **more):
        """A VM that boots a tiny guest; more goes into its vm.json."""
        there = self.root / name
        there.mkdir(parents=True)
        shutil.copy(guest(kernel), there / "kernel")
        definition = {"memory": "16M", "boot": {"kernel": "kernel"}, "nets": [], **more}
        (there / "vm.json").write_text(json.dumps(definition))
        return there

    def run(self, *arguments, by=(), **options):
        options = {"env": self.env, "cwd": self.root, **options}
        return subprocess.run([*by, MINIVMM, *map(str, arguments)], capture_output=True, text=True, timeout=60,
                              stdin=subprocess.DEVNULL, **options)

    def good(self, *arguments):
        """What it prints; an exit code that is not 0 is an error."""
        result = self.run(*arguments)
        assert result.returncode == 0, f"{arguments}: exit code {result.returncode}: {result.stderr}"
        return result.stdout

    def bad(self, code, words, *arguments):
        """Its words on standard error, where they match and the exit code is right."""
        result = self.run(*arguments)
        assert result.returncode == code, f"{arguments}: exit code {result.returncode}, not {code}: {result.stderr}"
        assert re.search(words, result.stderr), f"{arguments}: no {words!r} in {result.stderr}"
        assert result.stdout == "", result.stdout
        return result.stderr

    def begin(self, *arguments, by=(), stdin=subprocess.DEVNULL):
        """A command that goes on beside us, or does until its VM ends; `by`: the words of what executes it."""
        process = subprocess.Popen([*by, MINIVMM, *map(str, arguments)], env=self.env, cwd=self.root,
                                   stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.processes.append(process)
        return process

    def start(self, name, *options, until="ready", by=()):
        """A VM in the foreground, whose guest has said a word; its words are gathered in .heard."""
        process = self.begin("run", name, *options, by=by)
        heard = ""
        while until and until not in heard:
            line = process.stdout.readline()
            assert line, f"{name} ended with {process.wait()} before {until!r}: {heard}{process.stderr.read()}"
            heard += line
        return process

    def list(self):
        return [row for row in json.loads(self.good("list", "--json")) if row["pid"]]

    def status(self, name):
        return json.loads(self.good("status", name, "--json"))

    def connect(self, name):
        """A connection to the control socket of a VM that runs, or has just begun to and will let us in."""
        client = socket.socket(socket.AF_UNIX)
        client.settimeout(30)

        def is_let_in():
            for info in (self.root / ".run").glob("*/info.json"):
                with contextlib.suppress(FileNotFoundError, ConnectionRefusedError):
                    if json.loads(info.read_text())["name"] == name:
                        client.connect(str(info.with_name("control.sock")))
                        return True
            return False

        self.wait_until(is_let_in, f"the control socket of {name}")
        return client

    def wait_until(self, condition, what, timeout=30):
        end = time.monotonic() + timeout
        while not condition():
            assert time.monotonic() < end, f"{what} did not come within {timeout} s"
            time.sleep(0.01)

    def console(self, name):
        """What console.log has by now."""
        log = self.root / name / "console.log"
        return log.read_text() if log.exists() else ""

    def journal(self, name):
        """(event, line) of each line that is there by now."""
        path = self.root / name / "journal.jsonl"
        lines = path.read_text().splitlines() if path.exists() else []
        return [(line["event"], line) for line in map(json.loads, lines)]

    def identity(self, name):
        return json.loads((self.root / name / "identity.json").read_text())
