# SPDX-License-Identifier: MIT
"""The harness's side of the agent in a lab host. agent.c documents the protocol.

One thread per host reads the agent's frames and does nothing else, so that the agent can always
write. Everything that thread changes is guarded by one condition per host, which it notifies.
"""

import bisect
import re
import signal
import socket
import struct
import threading
from typing import NamedTuple

from labcommon import HostLost, LabError, LabTimeout

VERSION = 1
MAX_PAYLOAD = 65536
INPUT_WINDOW = 256 * 1024
HEADER = struct.Struct("<IB3xI")

RUN, PUT, GET, INPUT, END, SIGNAL, RESIZE = range(1, 8)
HELLO, OUT, ERR, ROOM, EXIT, FAIL = range(16, 22)

# A frozen host takes no bytes; a test that writes to one anyway should fail, not hang.
SEND_TIMEOUT = 30


def _u32(payload):
    return int.from_bytes(payload, "little")


class Result(NamedTuple):
    code: int
    out: str
    err: str


class Agent:
    """The connection to one run of one lab host; `connection` is our end of its virtio-serial port."""

    def __init__(self, connection, host_name, transcript):
        self.host_name = host_name
        self.changed = threading.Condition()
        self._socket = connection
        self._transcript = transcript
        self._sending = threading.Lock()
        self._jobs = {}
        self._next_job = 0
        self._ready = False
        self._lost = None
        connection.setsockopt(
            socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", SEND_TIMEOUT, 0)
        )
        self._reader = threading.Thread(target=self._read_frames, name=f"agent {host_name}", daemon=True)
        self._reader.start()

    def wait_ready(self, timeout):
        self.wait(lambda: self._ready, timeout, "it to boot")

    def wait(self, condition, timeout, what):
        """Waits for condition(), which is called with the lock held."""
        with self.changed:
            self.changed.wait_for(lambda: condition() or self._lost, timeout)
            if condition():
                return
            if self._lost:
                raise HostLost(f"host {self.host_name}: lost while waiting for {what}: {self._lost}")
        raise LabTimeout(f"host {self.host_name}: {what} did not come within {timeout} s")

    def start(self, kind, payload, title, sink=None):
        with self.changed:
            self._next_job += 1
            job = Job(self, self._next_job, title, sink)
            self._jobs[job.number] = job
        self._note(f"[{job.number}] {title}")
        job.send(kind, payload)
        return job

    def send(self, kind, job, payload=b""):
        with self._sending:
            try:
                self._socket.sendall(HEADER.pack(len(payload), kind, job) + payload)
            except BlockingIOError:
                raise LabTimeout(f"host {self.host_name}: takes no input for {SEND_TIMEOUT} s") from None
            except OSError as error:
                raise HostLost(f"host {self.host_name}: cannot be reached: {error}") from None

    def lost(self, why):
        """From now on nothing will come: everybody who waits is told so."""
        with self.changed:
            if not self._lost:
                self._lost = why
            self.changed.notify_all()

    def close(self):
        try:
            # A plain close would not wake the reader.
            self._socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self._reader.join()
        self._socket.close()
        self._transcript.close()

    def _read_frames(self):
        try:
            stream = self._socket.makefile("rb", buffering=256 * 1024)
            while header := stream.read(HEADER.size):
                length, kind, job = HEADER.unpack(header)
                self._handle(kind, job, stream.read(length))
            self.lost("its machine ended")
        except (OSError, struct.error):
            self.lost("its connection broke")

    def _handle(self, kind, number, payload):
        with self.changed:
            if kind == HELLO:
                self._ready = _u32(payload) == VERSION
            elif job := self._jobs.get(number):
                self._note_frame(job, kind, payload)
                job.handle(kind, payload)
            self.changed.notify_all()

    def forget(self, job):
        with self.changed:
            self._jobs.pop(job.number, None)

    def _note_frame(self, job, kind, payload):
        """The transcript has whole lines: `[job] | output`, `[job] ! errors`."""
        if kind in (OUT, ERR) and job.is_noted:
            *lines, job.unfinished[kind] = (job.unfinished[kind] + payload).split(b"\n")
            self._note_lines(job, kind, lines)
        elif kind == EXIT:
            for stream, line in job.unfinished.items():
                self._note_lines(job, stream, [line] if line else [])
            self._note(f"[{job.number}] exit code {_u32(payload)}")
        elif kind == FAIL:
            self._note(f"[{job.number}] failed: {payload.decode(errors='replace')}")

    def _note_lines(self, job, kind, lines):
        for line in lines:
            text = line.decode(errors="replace").rstrip()
            self._note(f"[{job.number}] {'|' if kind == OUT else '!'} {text}")

    def _note(self, line):
        self._transcript.write(line + "\n")
        self._transcript.flush()


class Job:
    """A command or a file transfer in a lab host.

    `code` is None until it ends. `out` and `err` hold what came so far; `seen` holds both in the
    order of their arrival, and is what wait_for() searches where it is not told to search `out`.
    """

    def __init__(self, agent, number, title, sink):
        self.agent = agent
        self.number = number
        self.title = title
        self.code = None
        self.is_noted = sink is None
        self.unfinished = {OUT: b"", ERR: b""}
        self._failure = None
        self._room = INPUT_WINDOW
        self._sink = sink
        self._out = bytearray()
        self._err = bytearray()
        self._seen = bytearray()
        self._searched = 0  # of _seen
        self._ends = []  # of the pieces of output: (in _out, in _seen)

    # What comes from the agent; with the agent's lock held.

    def handle(self, kind, payload):
        if kind in (OUT, ERR):
            if self._sink:
                self._sink(kind, payload)
            else:
                (self._out if kind == OUT else self._err).extend(payload)
                self._seen.extend(payload)
                if kind == OUT:
                    self._ends.append((len(self._out), len(self._seen)))
        elif kind == ROOM:
            self._room += _u32(payload)
        elif kind == EXIT:
            self.code = _u32(payload)
        elif kind == FAIL:
            self._failure = payload.decode(errors="replace")

    # What a test does.

    @property
    def out_bytes(self):
        with self.agent.changed:
            return bytes(self._out)

    @property
    def out(self):
        return self.out_bytes.decode(errors="replace")

    @property
    def err(self):
        with self.agent.changed:
            return self._err.decode(errors="replace")

    @property
    def seen(self):
        with self.agent.changed:
            return self._seen.decode(errors="replace")

    @property
    def is_running(self):
        return self.code is None and self._failure is None

    def wait(self, timeout=60):
        """The exit code: of the command, or 128 + the signal that ended it."""
        self._wait(lambda: not self.is_running, timeout, "its end")
        return self.code

    def wait_for(self, pattern, timeout=60, stream="seen"):
        """Waits for a regular expression in the output after the previous match; returns the match. stream: "out"
        where what comes on standard error at the same time may not stand in between."""
        expression = re.compile(pattern.encode() if isinstance(pattern, str) else pattern, re.MULTILINE)
        match = None

        def found():
            nonlocal match
            if stream == "out":
                match = expression.search(self._out, self._place_in_out(self._searched))
            else:
                match = expression.search(self._seen, self._searched)
            return match or not self.is_running

        self._wait(found, timeout, f"/{pattern}/")
        if match is None:
            raise LabError(
                f"{self._name()}: ended with code {self.code} before /{pattern}/ came{self._last_words()}"
            )
        self._searched = self._place_in_seen(match.end()) if stream == "out" else match.end()
        return match

    def _place_in_out(self, place):
        number = bisect.bisect_left(self._ends, place, key=lambda end: end[1])
        before = self._ends[number - 1][0] if number else 0
        if number == len(self._ends):
            return before
        out, seen = self._ends[number]
        return max(before, out - (seen - place))

    def _place_in_seen(self, place):
        out, seen = self._ends[bisect.bisect_left(self._ends, place, key=lambda end: end[0])]
        return seen - (out - place)

    def write(self, data, timeout=60):
        data = data.encode() if isinstance(data, str) else data
        view = memoryview(data)
        while len(view) > 0:
            self._wait(lambda: self._room > 0 or not self.is_running, timeout, "its reading of our input")
            if not self.is_running:
                return
            with self.agent.changed:
                piece = view[: min(self._room, MAX_PAYLOAD)]
                self._room -= len(piece)
            self.send(INPUT, bytes(piece))
            view = view[len(piece) :]

    def end_input(self):
        self.send(END)

    def signal(self, number):
        """Sends a signal to the command and all its children that stayed in its process group."""
        self.send(SIGNAL, struct.pack("<I", number))

    def kill(self):
        self.signal(signal.SIGKILL)

    def resize(self, rows, columns):
        self.send(RESIZE, struct.pack("<HH", rows, columns))

    def send(self, kind, payload=b""):
        self.agent.send(kind, self.number, payload)

    def forget(self):
        """Drops what the harness remembers of this job, and what may still come."""
        self.agent.forget(self)

    def _wait(self, condition, timeout, what):
        try:
            self.agent.wait(condition, timeout, f"{what} ({self.title})")
        except LabTimeout as error:
            raise LabTimeout(f"{error}{self._last_words()}") from None
        if self._failure:
            raise LabError(f"{self._name()}: {self._failure}")

    def _name(self):
        return f"host {self.agent.host_name}: {self.title}"

    def _last_words(self):
        words = self.seen.strip()
        return f"; its last words: {words[-400:]!r}" if words else "; it said nothing"
