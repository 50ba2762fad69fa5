# SPDX-License-Identifier: MIT
"""A pair of hosts (pairs.py) whose processes are killed at a point that has a name: a word on the line between them, or a
file that one of them has just written.

    with CrashPair() as pair:
        pair.pair_up()
        with pair.talk.at("COMMIT", "before", do=pair.killer(pair.here)):
            ...
        pair.settle()
"""

import contextlib
import ctypes
import json
import os
import random
import signal
import socket
import struct
import threading
import time
from pathlib import Path

from echoes import check_disk
from frames import ACKS, CRC, GREETING, HEADER, KINDS
from pairs import ALERT, LIBC, Line, Pair
from test_protection import crc32c

FT_WORDS = dict(enumerate(["BEAT", "ACK", "OFF", "HAND", "READY", "TAKE"], 1))
IN_MOVED_TO, IN_CREATE = 0x80, 0x100
EVENT = struct.Struct("iIII")


def name_of(frame):
    """ "COMMIT", "ACK WELCOME", "WORD HAND"."""
    kind = KINDS[frame[4]]
    names = {"ACK": ACKS, "WORD": FT_WORDS}.get(kind)
    return f"{kind} {names[struct.unpack_from('<I', frame, HEADER)[0]]}" if names else kind


class Talk(Line):
    """A Line that understands what is said (without a key). At a word, said for the nth time from now on, it calls `do`:
    "before" any of it has passed, but perhaps a part, and then hangs up; or "after" all of it has. `rate`: bytes a
    second, each way, as on a slow line. `spoil`: so many bytes from now on one bit is changed. `change`: gets a word
    and its payload, and may make another one of it, which is said with the right checksum."""

    def __init__(self, net, target):
        self.point, self.rate, self.spoil, self.change = None, None, None, None
        self.hit = threading.Event()
        self.order, self.words = random.Random(1), []
        super().__init__(net, target)

    @contextlib.contextmanager
    def at(self, word, when, do, nth=1):
        """It has happened when the block ends, or never will."""
        self.hit.clear()
        self.words = []
        self.point = [word, when, do, nth]
        try:
            yield self.hit
        finally:
            self.point = None

    def _pass(self, source, sink, gate):
        reader = source.makefile("rb")
        with contextlib.suppress(OSError, EOFError):
            self._send(self._exactly(reader, GREETING), sink, gate)
            while not self.closed and self._pass_frame(reader, sink, gate):
                pass
        for end in [source, sink]:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def _pass_frame(self, reader, sink, gate):
        """False: no more of them."""
        header = self._exactly(reader, HEADER)
        frame = header + self._exactly(reader, struct.unpack_from("<I", header, 8)[0] + CRC)
        word = name_of(frame)
        self.words.append(word)
        other = self.change(word, frame[HEADER:-CRC]) if self.change else None
        if other is not None:
            frame = header + other + struct.pack("<I", crc32c(other))
        point = self._is_point(word)
        if not point:
            return self._send(frame, sink, gate)
        if point[1] == "before":
            sink.sendall(frame[:self.order.randrange(len(frame))])
        else:
            self._send(frame, sink, gate)
        point[2]()
        self.hit.set()
        return point[1] != "before"

    def _is_point(self, word):
        point = self.point
        if not point or point[0] != word:
            return None
        point[3] -= 1
        if point[3] > 0:
            return None
        self.point = None
        return point

    def _send(self, data, sink, gate):
        gate.wait()
        if self.rate:
            time.sleep(len(data) / self.rate)
        if self.spoil is not None:
            self.spoil -= len(data)
            if self.spoil < 0:
                at = self.order.randrange(len(data))
                data = data[:at] + bytes([data[at] ^ 1 << self.order.randrange(8)]) + data[at + 1:]
                self.spoil = None
                self.hit.set()
        try:
            sink.sendall(data)
        except OSError:  # who is gone may have said why, and that is still on its way back
            time.sleep(0.2)
            return False
        return True

    @staticmethod
    def _exactly(reader, length):
        data = reader.read(length)
        if len(data) < length:
            raise EOFError
        return data


class Watch:
    """Calls `do` once, as soon as a file gets a name in a folder that `is_it` knows."""

    def __init__(self, folder, is_it, do):
        self.fd = LIBC.inotify_init1(os.O_CLOEXEC)
        assert self.fd >= 0 and LIBC.inotify_add_watch(self.fd, os.fsencode(folder), IN_CREATE | IN_MOVED_TO) >= 0, \
            f"cannot watch {folder}: {os.strerror(ctypes.get_errno())}"
        self.is_it, self.do, self.hit = is_it, do, threading.Event()
        self.thread = threading.Thread(target=self._watch, daemon=True)
        self.thread.start()

    def _watch(self):
        while not self.hit.is_set():
            events = os.read(self.fd, 65536)
            while events:
                _, _, _, length = EVENT.unpack_from(events)
                name = os.fsdecode(events[EVENT.size:EVENT.size + length].rstrip(b"\0"))
                events = events[EVENT.size + length:]
                if not self.hit.is_set() and self.is_it(name):
                    self.do()
                    self.hit.set()

    def __enter__(self):
        return self.hit

    def __exit__(self, *_):
        if self.hit.is_set():
            self.thread.join()
            os.close(self.fd)  # else a thread still reads from it, and ends with us


class CrashPair(Pair):
    """Clients are under way all the time, who know that the guest may begin anew from its disk. `here` has the VM, `there`
    is to have its twin."""

    TIMES = ALERT

    def __init__(self, seed=1, **more):
        super().__init__()
        self.order = random.Random(seed)
        self.line = Talk
        with contextlib.ExitStack() as stack:
            stack.push(self)
            self.start_primary(**{"pages": 64, "rate": 1000, **more})
            for host in self.hosts:
                self.start_standby(host)
            self.here = self.a
            self.asking = self.clients("udp", "udp", patience=20, reboots=True)
            stack.pop_all()

    @property
    def there(self):
        return self.other(self.here)

    @property
    def talk(self):
        """The line on which the VM is followed."""
        return self.lines[self.there]

    # --- who is where ---

    def pid(self, host):
        """Without a question to anybody: also for those who are just coming."""
        found = self.processes(host)
        assert found, "no process has the VM there"
        return found[-1]

    def killer(self, host):
        pid = None if host is self.there else self.pid(host)
        return lambda: os.kill(pid or self.pid(host), signal.SIGKILL)

    def processes(self, host):
        return [pid for pid in host.arriving() if is_alive(pid)] + \
               [process.pid for process in host.processes if process is not host.waiting and process.poll() is None]

    def runs(self, host):
        """How the VM runs there, where it is nobody's twin, and that is known for good; else None."""
        if not self.processes(host):
            return None
        said = host.run("status", self.name, "--json")
        if said.returncode != 0:
            return None
        status = json.loads(said.stdout)
        protection = status.get("protection") or {"role": "primary", "state": "solo"}
        known = protection.get("role") == "primary" and protection.get("state") in ["solo", "paired"]
        return protection["state"] if known and status["state"] == "running" else None

    def claims(self, host):
        """It has given the other one up, and asks the witness."""
        return self.processes(host) and host.protection(self.name).get("state") == "claiming"

    # --- what befalls them ---

    def protect(self, *_):
        """What it says; that may be a refusal. Now and then both sides are compared in each epoch: who does not have what
        the other one has is no twin."""
        return self.here.run("protect", self.name, "--to", self.talk.address, "--witness", f"file:{self.witness}",
                             "--insecure", *["--verify"] * (self.order.randrange(4) == 0))

    def pair_up(self):
        """There may be a twin already, or one may be just coming."""
        self.protect()
        self.wait_for(self.here, role="primary", state="paired")
        self.asking.wait_for_more(3)

    def unpair(self, whole=False):
        """It has no twin, and none is coming; or it is not protected at all."""
        if self.here.protection().get("state") not in [None, *([] if whole else ["solo"])]:
            self.here.good("unprotect", self.name)

    def has_twin(self):
        """By what the witness has heard last."""
        last = max(path for path in self.witness.iterdir() if not path.name.startswith("."))
        return "twin nobody" not in last.read_text()

    def settle(self, timeout=30):
        """Until exactly one has the VM; where nobody has it, exactly one folder runs. Then that is `here`."""
        end = time.monotonic() + timeout
        while True:
            how = {host: self.runs(host) for host in self.hosts}
            there = [host for host in self.hosts if how[host]]
            assert list(how.values()) != ["solo", "solo"], "both run it, and nobody holds anything back"
            if len(there) == 1 and not self.claims(self.other(there[0])):
                break  # else one has not heard yet that its twin has taken over, or is about to
            if not any(self.processes(host) for host in self.hosts):
                there = [self.run_again()]
                break
            assert time.monotonic() < end, f"nobody runs the VM after {timeout} s"
            time.sleep(0.01)
        self.here = there[0]
        other = self.there
        other.wait_until(lambda: self.here.protection().get("state") == "paired" or not self.processes(other),
                         "the end of the other one")
        if not self.processes(other):
            self.refuses(other)
        self.asking.wait_for_more(2)
        assert "WRONG" not in self.here.console(self.name)
        for host in self.hosts:
            log = host.root / self.name / "minivmm.log"
            check_same(log.read_text() if log.exists() else "")

    def refuses(self, host):
        said = host.run("run", host.root / self.name)
        assert said.returncode in [3, 4, 5], f"another folder runs, too: {said}"

    def run_again(self):
        """Both folders are tried, in any order."""
        started = []
        for host in self.order.sample(self.hosts, 2):
            process = host.begin("run", host.root / self.name, by=())
            host.wait_until(lambda: process.poll() is not None or self.runs(host), "an answer")
            if process.poll() is None:
                started.append(host)
            else:
                words = process.stderr.read()
                assert process.returncode in [3, 4, 5], f"{host.root} ends with {process.returncode}: {words}"
        assert len(started) == 1, f"{len(started)} folders run: {[host.root for host in started]}"
        return started[0]

    def finish(self):
        """Everything that anybody was told of is on the disk."""
        told = self.asking.stop()
        self.kill(self.here)
        check_disk(self.disk(self.here), told)
        assert max(told) == len(told), "a count is missing"
        for process in [process for host in self.hosts for process in host.processes]:
            check_same(process.stderr.read() if process.poll() is not None else "")
        return told


def check_same(log):
    """No twin was found to lack what its owner has (--verify)."""
    found = [line for line in log.splitlines() if "not the same on both hosts" in line]
    assert not found, found


def is_alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX"
    except OSError:
        return False
