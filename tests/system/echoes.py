# SPDX-License-Identifier: MIT
"""Clients of the guest echo (tests/guest/echo.c has the formats), who believe nothing, and a look at its disk.

    with Network() as net:
        clients = Clients(net, "10.99.0.2")
        clients.add("udp"), clients.add("tcp")
        clients.wait_for_more(100)      # answers, for each of them
        told = clients.stop()           # {count: Told}; raises where anything was wrong
        assert check_disk(path, told) >= max(told)
"""

import dataclasses
import itertools
import os
import random
import socket
import struct
import threading
import time

PORT, SIZE, SECTOR = 7, 64, 512
REQUEST, ANSWER, RECORD, HEAD = (int.from_bytes(name, "little")
                                 for name in [b"echereuq", b"echanwer", b"echecord", b"echehead"])
WORD = (1 << 64) - 1
PATIENCE = 60  # seconds for one answer, whatever happens meanwhile
AGAIN = 0.1  # until a datagram is sent once more


@dataclasses.dataclass(frozen=True)
class Told:
    """What a client was told of a request; when it first asked and when it was told, by the monotonic clock."""
    client: int
    sequence: int
    words: tuple
    count: int
    sum: int
    asked: float
    told: float


class Wrong(Exception):
    """What no client may ever see."""


class Tally:
    """What all clients know together: an answer counts higher than whatever anybody knew before it was asked for."""

    def __init__(self):
        self.lock = threading.Lock()
        self.told = {}
        self.most = 0

    def add(self, told, most_before):
        with self.lock:
            if told.count in self.told:
                raise Wrong(f"{told} was told before: {self.told[told.count]}")
            if told.count <= most_before:
                raise Wrong(f"the count went back: {told}, after somebody knew {most_before}")
            self.told[told.count] = told
            self.most = max(self.most, told.count)


class Client(threading.Thread):
    """Asks, one request after the other, until it is told to stop. `pause`: seconds between its requests; `reboots`:
    the guest may be another one meanwhile, on the same disk."""

    def __init__(self, tally, pause=0.0, patience=PATIENCE, reboots=False):
        super().__init__(daemon=True)
        self.tally, self.pause, self.patience, self.reboots = tally, pause, patience, reboots
        self.number = int.from_bytes(os.urandom(7), "little") + 1
        self.answers, self.asked_again = 0, 0
        self.error = None
        self.stopped = threading.Event()
        self.visits = self.age = 0
        self.last = None

    def run(self):
        try:
            self.connect()
            for sequence in itertools.count(1):
                if self.stopped.wait(self.pause) if self.pause else self.stopped.is_set():
                    break
                self._one(sequence)
        except Exception as error:  # also what was not expected: the test must hear of it
            self.error = error
        finally:
            self.close()

    def _one(self, sequence):
        words = tuple(random.getrandbits(64) for _ in range(4))
        most, asked = self.tally.most, time.monotonic()
        answer = self.ask(sequence, struct.pack("<8Q", REQUEST, self.number, sequence, *words, 0), asked)
        _, _, _, count, total, wrong, visits, age = answer
        now = time.monotonic()
        if wrong:
            raise Wrong(f"the guest has seen {wrong} wrong things")
        if (visits < self.visits or age < self.age) and not self.reboots:
            raise Wrong(f"the guest went back: {visits} visits and {age} ms, after {self.visits} and {self.age}")
        self.visits, self.age = visits, age
        self.last = Told(self.number, sequence, words, count, total, asked, now)
        self.tally.add(self.last, most)
        self.answers += 1

    def judge(self, data, sequence):
        """The answer's numbers; None where it belongs to an older request, and says the same as it did then."""
        if len(data) != SIZE:
            raise Wrong(f"an answer of {len(data)} bytes")
        answer = struct.unpack("<8Q", data)
        if answer[0] != ANSWER or answer[1] != self.number:
            raise Wrong(f"client {self.number} gets {answer}")
        if answer[2] == sequence:
            return answer
        if self.last and answer[2] == self.last.sequence and answer[3:5] != (self.last.count, self.last.sum):
            raise Wrong(f"told once more, and otherwise: {answer}, before {self.last}")
        if answer[2] > sequence:
            raise Wrong(f"an answer to what was not asked yet: {answer}")
        return None


class UdpClient(Client):
    """Asks again when no answer comes: answers may get lost, but count once."""

    def __init__(self, net, address, *rest, **more):
        super().__init__(*rest, **more)
        self.socket = net.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.address = address

    def connect(self):
        self.socket.connect((self.address, PORT))
        self.socket.settimeout(AGAIN)

    def close(self):
        self.socket.close()

    def ask(self, sequence, request, asked):
        while time.monotonic() < asked + self.patience:
            try:
                self.socket.send(request)
                while True:
                    answer = self.judge(self.socket.recv(2 * SIZE), sequence)
                    if answer:
                        return answer
            except TimeoutError:
                self.asked_again += 1
            except OSError:  # no route to it now, or so
                time.sleep(AGAIN)
                self.asked_again += 1
        raise TimeoutError(f"no answer to datagram {sequence} within {self.patience} s")


class TcpClient(Client):
    """One connection for all its life, which must not end."""

    def __init__(self, net, address, *rest, **more):
        super().__init__(*rest, **more)
        self.socket = net.socket(socket.AF_INET, socket.SOCK_STREAM)
        self.address = address

    def connect(self):
        self.socket.settimeout(self.patience)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.connect((self.address, PORT))

    def close(self):
        self.socket.close()

    def ask(self, sequence, request, asked):
        self.socket.sendall(request)
        data = b""
        while len(data) < SIZE:
            part = self.socket.recv(SIZE - len(data))
            if not part:
                raise Wrong(f"the guest ends the connection, at request {sequence}")
            data += part
        answer = self.judge(data, sequence)
        if not answer:
            raise Wrong(f"the answer to request {sequence} is one to another: {struct.unpack('<8Q', data)}")
        return answer


class Clients:
    """Some of them, who agree with each other."""

    def __init__(self, net, address, patience=PATIENCE):
        self.net, self.address, self.patience = net, address, patience
        self.tally, self.all = Tally(), []

    def add(self, kind, **more):
        types = {"udp": UdpClient, "tcp": TcpClient}
        client = types[kind](self.net, self.address, self.tally, patience=self.patience, **more)
        self.all.append(client)
        client.start()
        return client

    @property
    def most(self):
        """The highest count that anybody knows."""
        return self.tally.most

    def check(self):
        for client in self.all:
            if client.error:
                raise AssertionError(f"{type(client).__name__} after {client.answers} answers: {client.error!r}") \
                    from client.error

    def are_silent(self, seconds):
        """Whether nobody is told anything for so long."""
        return self._most_answers(seconds) == 0

    def become_silent(self, seconds):
        """The same, but for what was on its way, or not yet counted, when this was asked: each has asked one thing."""
        most = self._most_answers(seconds)
        return most == 0 or (most == 1 and self.are_silent(seconds))

    def _most_answers(self, seconds):
        before = [client.answers for client in self.all]
        time.sleep(seconds)
        self.check()
        return max(client.answers - some for client, some in zip(self.all, before))

    def wait_for_more(self, answers, timeout=None):
        """Until each of them has got so many more."""
        wanted = [client.answers + answers for client in self.all]
        end = time.monotonic() + (timeout or self.patience)
        while any(client.answers < some for client, some in zip(self.all, wanted)):
            self.check()
            assert time.monotonic() < end, \
                f"after {timeout or self.patience} s {[client.answers for client in self.all]} answers, not {wanted}"
            time.sleep(0.005)

    def longest_gap(self, since=0.0):
        """The longest time that anybody has waited for an answer since then, in seconds. Of those who ask by UDP: a TCP that
        was not heard tries again after twice as long each time, whether the VM is there again or not."""
        numbers = {client.number for client in self.all if isinstance(client, UdpClient)}
        with self.tally.lock:
            told = list(self.tally.told.values())
        return max((one.told - max(one.asked, since) for one in told if one.client in numbers and one.told > since),
                   default=0.0)

    def stop(self):
        """{count: Told} of everything, when all have got what they asked for last."""
        for client in self.all:
            client.stopped.set()
        for client in self.all:
            client.join(self.patience + 5)
            assert not client.is_alive(), "a client does not come to its end"
        self.check()
        return dict(self.tally.told)


# --- the disk -------------------------------------------------------------------------------------------------------


def _sum(before, words):
    total = before
    for word in words:
        total = (total ^ word) * 0x9E3779B97F4A7C15 & WORD
        total ^= total >> 29
    return total


def read_head(path):
    """The count in a disk's first sector; 0 where there is none."""
    with open(path, "rb") as disk:
        magic, count = struct.unpack("<2Q", disk.read(16).ljust(16, b"\0"))
    return count if magic == HEAD else 0


def check_disk(path, told, head=None, stride=1):
    """Its count, of the head, which may be given. Every record that can be there is, each follows from the one before
    it, and everything that anybody was told of is among them."""
    with open(path, "rb") as disk:
        data = disk.read()
    ring = len(data) // SECTOR - 1
    magic, last, last_sum = struct.unpack_from("<3Q", data)
    assert magic == HEAD, f"{path} has no head"
    assert head is None or last == head, f"the head of {path} counts {last}, not {head}"
    before = None
    for count in range(max(1, last - ring + 1), last + 1):
        words = struct.unpack_from("<10Q", data, (1 + (count - 1) * stride % ring) * SECTOR)
        assert words[:2] == (RECORD, count), f"{path} at count {count} of {last}: {words}"
        assert before in [None, words[8]], f"{path}: record {count} does not follow from the one before it"
        assert _sum(words[8], words[1:8]) == words[9], f"{path}: the sum of record {count}"
        before = words[9]
        if count in told:
            known = told[count]
            assert (known.client, known.sequence, *known.words, known.sum) == (*words[2:8], words[9]), \
                f"{path} has {words}, and a client was told {known}"
    assert before in [None, last_sum], f"{path}: the head's sum is not that of its last record"
    lost = [count for count in told if count > last]
    assert not lost, f"{path} counts {last}, and clients were told of {len(lost)} more, up to {max(lost)}"
    return last
