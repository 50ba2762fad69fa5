# SPDX-License-Identifier: MIT
"""The lab's Ethernet: a learning switch, in a thread of the harness, whose cables can be pulled.

A host's QEMU connects its network card to a Unix socket of its own and sends each frame behind its
length (u32, big-endian). The switch passes frames on in the same form, so a run of frames for one
port is copied as it is. It needs no privileges and touches no network of this machine.

    net.cut(a)        a hears nobody, and nobody hears a
    net.cut(a, to=b)  b does not hear a any more; a still hears b
    net.heal()        all cables are whole again; net.heal(a) and net.heal(a, to=b) undo one cut
"""

import collections
import selectors
import socket
import struct
import threading
import time
from typing import NamedTuple

from labcommon import LabError

# A port that takes nothing (its host is frozen) loses frames beyond this, as at any switch.
QUEUE_LIMIT = 1 << 20
READ_SIZE = 256 * 1024
LONGEST_FRAME = 65536 + 18

PCAP_HEADER = struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, LONGEST_FRAME, 1)


class Counters(NamedTuple):
    sent: int  # frames from the host that the switch took
    received: int  # frames that the switch handed to the host
    dropped: int  # frames for the host that met a cut cable or a full queue


class _Port:
    def __init__(self, name, listener):
        self.name = name
        self.listener = listener
        self.connection = None
        self.incoming = b""
        self.outgoing = bytearray()
        self.sent = self.received = self.dropped = 0


class Network:
    """The switch. All methods may be called from any thread; a host is named by itself or its name."""

    def __init__(self, folder):
        self._folder = folder
        self._lock = threading.Lock()
        self._ports = {}
        self._where = {}  # MAC address -> port
        self._heard = collections.Counter()  # (name of a port, MAC address) -> frames from there
        self._pulled = set()  # names of ports
        self._silent = set()  # (from, to), names of ports
        self._capture = None
        self._selector = selectors.DefaultSelector()
        self._wake, self._woken = socket.socketpair()
        self._selector.register(self._woken, selectors.EVENT_READ)
        self._thread = threading.Thread(target=self._forward, name="lab switch", daemon=True)
        self._thread.start()

    # What tests do to it

    def cut(self, host, to=None):
        with self._lock:
            if to is None:
                self._pulled.add(_name(host))
            else:
                self._silent.add((_name(host), _name(to)))

    def heal(self, host=None, to=None):
        with self._lock:
            if host is None:
                self._pulled.clear()
                self._silent.clear()
            elif to is None:
                self._pulled.discard(_name(host))
            else:
                self._silent.discard((_name(host), _name(to)))

    def counters(self, host):
        with self._lock:
            port = self._ports[_name(host)]
            return Counters(port.sent, port.received, port.dropped)

    def heard(self, host, mac):
        """How many frames with this source ("52:54:...") have come from that host."""
        with self._lock:
            return self._heard[_name(host), bytes.fromhex(mac.replace(":", ""))]

    def capture(self, path):
        """Writes every frame that enters the switch to a pcap file from now on; None ends it."""
        with self._lock:
            if self._capture:
                self._capture.close()
            self._capture = open(path, "wb") if path else None
            if self._capture:
                self._capture.write(PCAP_HEADER)

    # What hosts do with it

    def path(self, host):
        return self._folder / f"{_name(host)}.net"

    def plug(self, host):
        """The host's port, which its QEMU may connect to from now on."""
        with self._lock:
            if host.name in self._ports:
                return
            listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            listener.bind(str(self.path(host)))
            listener.listen()
            listener.setblocking(False)
            self._ports[host.name] = _Port(host.name, listener)
        self._tell()

    def close(self):
        if self._thread.is_alive():
            self._wake.close()
            self._thread.join()
        self.capture(None)

    # The thread

    def _tell(self):
        self._wake.send(b"!")

    def _forward(self):
        with self._selector:
            while True:
                for key, events in self._selector.select():
                    with self._lock:
                        if key.fileobj is self._woken:
                            if not self._woken.recv(64):
                                self._close_all()
                                return
                            self._watch_listeners()
                        elif key.fileobj is key.data.listener:
                            self._accept(key.data)
                        elif key.fileobj is key.data.connection:
                            self._serve(key.data, events)

    def _watch_listeners(self):
        known = {key.fileobj for key in self._selector.get_map().values()}
        for port in self._ports.values():
            if port.listener not in known:
                self._selector.register(port.listener, selectors.EVENT_READ, port)

    def _accept(self, port):
        self._unplug(port)
        port.connection, _ = port.listener.accept()
        port.connection.setblocking(False)
        self._selector.register(port.connection, selectors.EVENT_READ, port)

    def _unplug(self, port):
        """The port has lost its carrier: what was learned and queued there is void."""
        if port.connection is None:
            return
        self._selector.unregister(port.connection)
        port.connection.close()
        port.connection = None
        port.incoming = b""
        port.outgoing.clear()
        self._where = {mac: where for mac, where in self._where.items() if where is not port}

    def _serve(self, port, events):
        try:
            if events & selectors.EVENT_WRITE:
                self._flush(port)
            if events & selectors.EVENT_READ:
                data = port.connection.recv(READ_SIZE)
                if not data:
                    self._unplug(port)
                    return
                self._take(port, port.incoming + data if port.incoming else data)
        except BlockingIOError:
            pass
        except OSError:
            self._unplug(port)

    def _take(self, port, data):
        """Forwards the whole frames in data and keeps the rest for later."""
        start, end = 0, len(data)
        receivers = set()
        while end - start >= 4:
            length = int.from_bytes(data[start : start + 4], "big")
            if length > LONGEST_FRAME:
                raise OSError("not a frame")
            following = start + 4 + length
            if following > end:
                break
            self._pass_on(port, data[start:following], receivers)
            start = following
        port.incoming = data[start:]
        for receiver in receivers:
            self._flush_or_unplug(receiver)

    def _pass_on(self, port, framed, receivers):
        if port.name in self._pulled:
            port.dropped += 1
            return
        port.sent += 1
        target, source = framed[4:10], framed[10:16]
        self._where[source] = port
        self._heard[port.name, source] += 1
        if self._capture:
            self._record(framed)

        known = None if target[0] & 1 else self._where.get(target)
        for receiver in (known,) if known else self._ports.values():
            if receiver is port or receiver.connection is None:
                continue
            if (
                receiver.name in self._pulled
                or (port.name, receiver.name) in self._silent
                or len(receiver.outgoing) > QUEUE_LIMIT
            ):
                receiver.dropped += 1
                continue
            receiver.received += 1
            receiver.outgoing += framed
            receivers.add(receiver)

    def _flush_or_unplug(self, port):
        try:
            self._flush(port)
        except OSError:
            self._unplug(port)

    def _flush(self, port):
        try:
            sent = port.connection.send(port.outgoing)
            del port.outgoing[:sent]
        except BlockingIOError:
            pass
        wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE if port.outgoing else 0)
        if self._selector.get_key(port.connection).events != wanted:
            self._selector.modify(port.connection, wanted, port)

    def _record(self, framed):
        now = time.time()
        length = len(framed) - 4
        header = struct.pack("<IIII", int(now), int(now % 1 * 1e6), length, length)
        self._capture.write(header + framed[4:])

    def _close_all(self):
        for port in self._ports.values():
            self._unplug(port)
            port.listener.close()
        self._woken.close()


def _name(host):
    if isinstance(host, str):
        return host
    if not hasattr(host, "name"):
        raise LabError(f"{host!r} is no host of this lab")
    return host.name
