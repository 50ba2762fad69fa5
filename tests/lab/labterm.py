# SPDX-License-Identifier: MIT
"""Connects a command in a lab host to this process's standard streams, through a terminal if it is one."""

import os
import shutil
import signal
import sys
import termios
import threading
import tty

import labagent
from labcommon import LabError

# One read, so that a pasted text does not become many frames.
READ_SIZE = 65536


def run_here(host, command):
    """Runs the command with our stdin, stdout and stderr; returns its exit code.

    From a terminal to a terminal the command gets one of its own in the host, and ours is raw
    meanwhile: every key, Ctrl-C included, is the command's.
    """
    if sys.stdin.isatty() and sys.stdout.isatty():
        return _run_in_terminal(host, command)
    job = host.spawn(command, sink=_write)
    _pump(job, at_end=job.end_input)
    return job.wait(timeout=None)


def _run_in_terminal(host, command):
    stdin = sys.stdin.fileno()
    modes = termios.tcgetattr(stdin)
    kind = os.environ.get("TERM", "vt100")
    job = host.spawn(f"export TERM={kind}; {command}", terminal=_size(), sink=_write)
    signal.signal(signal.SIGWINCH, lambda *_: job.resize(*_size()))
    tty.setraw(stdin)
    try:
        _pump(job, at_end=job.kill)
        return job.wait(timeout=None)
    finally:
        signal.signal(signal.SIGWINCH, signal.SIG_DFL)
        termios.tcsetattr(stdin, termios.TCSADRAIN, modes)


def _size():
    size = shutil.get_terminal_size()
    return size.lines, size.columns


def _write(kind, data):
    stream = 1 if kind == labagent.OUT else 2
    while data:
        data = data[os.write(stream, data) :]


def _pump(job, at_end):
    """Copies our input to the job from a thread, which ends with the process: a read has no other end."""

    def copy():
        try:
            while data := os.read(0, READ_SIZE):
                job.write(data, timeout=None)
            at_end()
        except LabError:
            pass  # the host is gone: who waits for the job is told so

    threading.Thread(target=copy, name="standard input", daemon=True).start()
