# SPDX-License-Identifier: MIT
"""What the benchmarks share: commands timed in turn, so that a drift of the machine hits all of them, and medians."""

import contextlib
import ctypes
import mmap
import os
import random
import re
import statistics
import subprocess
import sys
import time
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
BUILD = Path(os.environ.get("MINIVMM_BUILD", REPOSITORY / "build"))
MINIVMM = BUILD / "minivmm"
GUESTS = BUILD / "tests" / "guest"
LINK_RATE = BUILD / "tests/bench/link_rate"
LINK_FLOORS = {"cache": "the same MiB over and over", "memory": "memory to untouched memory"}
MIB = 1 << 20

sys.path[:0] = [str(REPOSITORY / "tests" / part) for part in ("system", "lab")]


def need(*paths):
    for path in paths:
        if not Path(path).exists():
            sys.exit(f"{path} is not there: build first (ninja -C build)")


def p99(values):
    return sorted(values)[len(values) * 99 // 100]


def floors(pages, rest_ms=0):
    """What tests/bench/floors finds for so many pages: {"k": (median, p99), ...} in us."""
    said = subprocess.run([BUILD / "tests/bench/floors", "-r", str(rest_ms), str(max(pages, 1))], capture_output=True, text=True, check=True)
    return {line.split()[0].split("(")[0]: tuple(map(float, line.split()[1:3])) for line in said.stdout.splitlines()}


def warm_up():
    """Where this machine is a virtual one itself, its own host may have taken free memory away, and whoever is the first
    to touch it again waits for that host. Here it is us, and not who is measured."""
    with mmap.mmap(-1, 2304 * MIB, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as memory:
        memory.madvise(mmap.MADV_HUGEPAGE)
        pin = ctypes.c_char.from_buffer(memory)
        ctypes.memset(ctypes.addressof(pin), 1, len(memory))
        del pin


def rate_of_link(kind, where, within=()):
    """MiB a second of one kind of link alone (link_rate.c): a name of it, and one of LINK_FLOORS. `within`: what enters
    the network it is in."""
    warm_up()
    command = [*within, LINK_RATE, "1024", "1", str(MIB), where, kind]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return float(re.search(r"bytes  .*? +(\d+) ", output)[1])


def time_once(command):
    """Seconds from before the fork to the end of the process."""
    begin = time.perf_counter()
    process = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    took = time.perf_counter() - begin
    if process.returncode != 0:
        sys.exit(f"{' '.join(map(str, command))}: exit code {process.returncode}: {process.stderr.decode()}")
    return took


def time_in_turn(commands, runs):
    """{name: [seconds]} of commands {name: argv}, A B C A B C ..., after one round that does not count.

    Each run begins at a random moment of the kernel's tick. A thread that waits for its turn on a busy CPU, or for one
    of KVM's grace periods, often waits for a tick, and so ends many a run: without the dice every next one would begin
    right after a tick, which favours what is shorter than the rest of it.
    """
    times = {name: [] for name in commands}
    for round_number in range(runs + 1):
        for name, command in commands.items():
            time.sleep(random.uniform(0, 0.02))
            took = time_once(command)
            if round_number:
                times[name].append(took)
    return times


@contextlib.contextmanager
def busy_cpu():
    """One CPU of the host has something else to do meanwhile: a command that hands work to many threads shows it."""
    cpu = min(os.sched_getaffinity(0))
    loop = subprocess.Popen(["sh", "-c", "while :; do :; done"], preexec_fn=lambda: os.sched_setaffinity(0, {cpu}))
    try:
        yield
    finally:
        loop.kill()
        loop.wait()


def spread(values, scale=1.0, digits=2):
    """'median (min-max)'"""
    low, middle, high = min(values), statistics.median(values), max(values)
    return f"{middle * scale:.{digits}f} ({low * scale:.{digits}f}-{high * scale:.{digits}f})"


def ratio(values, peer):
    """The ratio pair by pair, as median (min-max)."""
    return spread([a / b for a, b in zip(values, peer)])
