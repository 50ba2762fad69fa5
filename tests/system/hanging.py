# SPDX-License-Identifier: MIT
"""A storage that hangs, for one command and what it starts: hanging.py FOLDER COMMAND WORD... The folder is that of a
file server (FUSE) which never answers, in a mount namespace of its own; below it the real one waits (mend)."""

import ctypes
import os
import subprocess
import sys
import tempfile

CLONE_NEWNS, MS_REC, MS_PRIVATE = 0x20000, 0x4000, 0x40000
LIBC = ctypes.CDLL(None, use_errno=True)


def done(ret, what):
    if ret < 0:
        sys.exit(f"{what}: {os.strerror(ctypes.get_errno())}")


def main(folder, *command):
    server = os.open("/dev/fuse", os.O_RDWR)  # which nobody reads, as long as the command has it
    os.set_inheritable(server, True)
    done(LIBC.unshare(CLONE_NEWNS), "unshare")
    done(LIBC.mount(b"none", b"/", None, MS_REC | MS_PRIVATE, None), "mount /")
    options = f"fd={server},rootmode=40000,user_id=0,group_id=0"
    done(LIBC.mount(b"hanging", folder.encode(), b"fuse", 0, options.encode()), f"mount {folder}")
    os.execvp(command[0], command)


def hanging(folder):
    """What a command has to begin with."""
    return [sys.executable, __file__, str(folder)]


def why_not():
    """What is missing here for that, or nothing."""
    with tempfile.TemporaryDirectory() as folder:
        tried = subprocess.run([*hanging(folder), "true"], capture_output=True, text=True, timeout=60,
                               stdin=subprocess.DEVNULL)
    return tried.stderr.strip().splitlines()[-1] if tried.returncode != 0 else ""


def mend(pid, folder):
    """Whoever looks from now on, in the namespace of this process, finds the real one."""
    subprocess.run(["nsenter", f"--mount=/proc/{pid}/ns/mnt", "umount", "--lazy", folder], check=True,
                   stdin=subprocess.DEVNULL)


if __name__ == "__main__":
    main(*sys.argv[1:])
