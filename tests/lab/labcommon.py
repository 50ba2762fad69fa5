# SPDX-License-Identifier: MIT
"""What every part of the lab stands on: its errors, where things are, and the programs it needs."""

import contextlib
import fcntl
import os
import shutil
import subprocess
from pathlib import Path

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parent.parent

# The Debian package of each program that the lab calls.
PACKAGES = {
    "qemu-system-x86_64": "qemu-system-x86",
    "busybox": "busybox-static",
    "cc": "gcc",
    "cpio": "cpio",
    "depmod": "kmod",
    "ldd": "libc-bin",
    "e2fsck": "e2fsprogs",
    "mke2fs": "e2fsprogs",
    "mmdebstrap": "mmdebstrap",
    "ssh": "openssh-client",
    "ssh-keygen": "openssh-client",
}


class LabError(Exception):
    """A sentence for a person: what failed, why, and where known the mend."""


class HostLost(LabError):
    """The lab host went away (power cut, panic, power-off) while something waited for it."""


class LabTimeout(LabError):
    """What was waited for did not come in time."""


class Skip(Exception):
    """Raised by a test that cannot be run here; the text says why."""


def build_dir():
    """Where the programs under test are: MINIVMM_BUILD, or build/."""
    return Path(os.environ.get("MINIVMM_BUILD", REPOSITORY / "build")).resolve()


def images_dir(build=None):
    """Where downloaded and built images are kept: MINIVMM_IMAGES, or images/ in the build folder."""
    named = os.environ.get("MINIVMM_IMAGES")
    return Path(named).resolve() if named else Path(build or build_dir()) / "images"


@contextlib.contextmanager
def locked(folder):
    """One process at a time."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def find_program(name):
    # Debian keeps some tools out of an ordinary user's PATH that need no root at all.
    path = os.environ.get("PATH", os.defpath) + os.pathsep + "/usr/sbin" + os.pathsep + "/sbin"
    found = shutil.which(name, path=path)
    if not found:
        raise LabError(f"cannot find {name}; hint: sudo apt-get install {PACKAGES.get(name, name)}")
    return found


def run_tool(argv, what, **options):
    """Runs a tool to its end; a failure becomes a LabError that ends in the tool's last words."""
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, **options)
    if done.returncode != 0:
        words = (done.stderr.strip() or done.stdout.strip() or "no message").splitlines()[-1]
        raise LabError(f"cannot {what}: {words}")
    return done.stdout


def tail(path, lines=15):
    try:
        text = Path(path).read_text(errors="replace")
    except OSError:
        return ""
    return "\n".join(line.rstrip() for line in text.splitlines()[-lines:])
