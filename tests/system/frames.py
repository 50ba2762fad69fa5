# SPDX-License-Identifier: MIT
"""What two hosts say to each other (ft/moving.h): its words, and somebody between them who understands them."""

import contextlib
import socket
import struct
import threading
import time

GREETING, HEADER, CRC = 16, 32, 4
KINDS = dict(enumerate(["HELLO", "SUMS", "STATE", "COMMIT", "FILE", "DISK", "OPEN", "PAGES", "BLOCKS", "ROUND", "ACK",
                        "ERROR", "GO", "ASK", "COMPARE", "SHARED", "RELEASED", "FOLLOW", "WORD", "CHANGES", "BASE",
                        "LOOK", "LOOKED", "SYNCED", "SETTINGS"], 1))
ACKS = dict(enumerate(["WELCOME", "STORED", "READY", "YOURS", "NOT_MINE", "UNKNOWN", "OPENED", "ANNOUNCED"], 1))


class HungUp(Exception):
    """Who is sent something takes no more."""


class Proxy:
    """Stands between two hosts, and understands what they say (without a key). At the word `at`, "GO" or "ACK READY",
    said for the `nth` time, it calls `do`, and hangs up before that word is passed on, in its middle, after it, or
    never; or calls it "first", before the word is passed on, and never hangs up. Later connections are passed on whole. `rate`: bytes a second, as on a slow line."""

    def __init__(self, target, at=None, when="before", nth=1, do=None, rate=None):
        self.target, self.at, self.when, self.nth, self.do, self.rate = target, at, when, nth, do, rate
        self.words, self.hit, self.over = [], threading.Event(), False
        self.server = socket.create_server(("127.0.0.1", 0))
        self.address = "127.0.0.1:%d" % self.server.getsockname()[1]
        self.connections = 0
        self.accepter = threading.Thread(target=self._accept, daemon=True)
        self.accepter.start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.server.shutdown(socket.SHUT_RDWR)  # close() alone wakes nobody up
        self.accepter.join()
        self.server.close()

    def _accept(self):
        while True:
            try:
                one, _ = self.server.accept()
            except OSError:
                return
            self.connections += 1
            first = self.connections == 1
            host, port = self.target.rsplit(":", 1)
            try:
                other = socket.create_connection((host, int(port)))
            except OSError:
                one.close()
                continue
            for source, sink in [(one, other), (other, one)]:
                threading.Thread(target=self._pass, args=(source, sink, first), daemon=True).start()
            del one, other, source, sink  # they are closed when both threads end

    @staticmethod
    def _send(sink, data):
        try:
            sink.sendall(data)
        except OSError:
            raise HungUp from None

    def _pass(self, source, sink, first):
        ends = [source, sink]
        try:
            reader = source.makefile("rb")
            self._send(sink, self._exactly(reader, GREETING))
            while True:
                header = self._exactly(reader, HEADER)
                kind, length = KINDS[header[4]], struct.unpack_from("<I", header, 8)[0]
                frame = header + self._exactly(reader, length + CRC)
                if kind == "ACK":
                    kind += " " + ACKS[struct.unpack_from("<I", frame, HEADER)[0]]
                if first and self.over:  # an answer, before the connection is closed
                    return
                self.words.append(kind)
                if self.rate:
                    time.sleep(len(frame) / self.rate)
                if not (first and kind == self.at and self.words.count(kind) == self.nth):
                    self._send(sink, frame)
                    continue
                if self.when == "first":
                    self.do()
                self.over = self.when not in ["never", "first"]
                self._send(sink, frame[:{"before": 0, "middle": len(frame) // 2}.get(self.when, len(frame))])
                if self.do and self.when != "first":
                    self.do()
                self.hit.set()
                if self.over:
                    return
        except HungUp:
            ends = []  # what it has said before goes the other way, and its end is heard there
        except (OSError, EOFError):
            pass
        finally:
            for end in ends:
                with contextlib.suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)

    @staticmethod
    def _exactly(reader, length):
        data = reader.read(length)
        if len(data) < length:
            raise EOFError
        return data
