# SPDX-License-Identifier: MIT
"""Writes cpio archives of the "newc" kind, which is what the kernel unpacks as its initramfs.

Layout, by the kernel's Documentation/driver-api/early-userspace/buffer-format.rst: for each entry an
ASCII header of 110 bytes, the name with a final 0, zeros up to a multiple of 4, the data, and zeros
again; the end is an entry called TRAILER!!!. The kernel takes several archives in a row, and a file
in a later one replaces the same name from an earlier one.
"""

import os
import stat


class CpioWriter:
    """Archive entries in the order of the calls; missing parent folders are added on the way."""

    def __init__(self, stream):
        self._stream = stream
        self._folders = {""}
        self._count = 0

    def _entry(self, name, mode, data=b""):
        self._count += 1
        encoded = name.encode() + b"\0"
        fields = [self._count, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(encoded), 0]
        header = b"070701" + b"".join(b"%08x" % field for field in fields)
        for part in (header + encoded, data):
            self._stream.write(part)
            self._stream.write(b"\0" * (-len(part) % 4))

    def _parents(self, name):
        parent = os.path.dirname(name)
        if parent not in self._folders:
            self.folder(parent)

    def folder(self, name, mode=0o755):
        name = name.strip("/")
        if name not in self._folders:
            self._parents(name)
            self._folders.add(name)
            self._entry(name, stat.S_IFDIR | mode)

    def file(self, name, data, mode=0o644):
        name = name.strip("/")
        self._parents(name)
        self._entry(name, stat.S_IFREG | mode, data)

    def copy(self, name, path):
        """The file at path, with its permission bits."""
        with open(path, "rb") as source:
            self.file(name, source.read(), stat.S_IMODE(os.fstat(source.fileno()).st_mode))

    def symlink(self, name, target):
        name = name.strip("/")
        self._parents(name)
        self._entry(name, stat.S_IFLNK | 0o777, target.encode())

    def finish(self):
        self._entry("TRAILER!!!", 0)
