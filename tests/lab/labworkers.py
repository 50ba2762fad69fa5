# SPDX-License-Identifier: MIT
"""Several processes that share lists of work, and what they print is not mixed.

    for number, verdict in share([long, short], [(0, 1), (0, 1), (1,)], make_worker):

There are three processes here; two take from the second list when nothing is left in the first one.
make_worker() is called in each process and returns a context manager, whose value is called with the
number of each piece of work that this process gets, and returns a byte. What it prints appears as a
whole when it is done. A piece whose process has died on it is missing from what comes back.
"""

import contextlib
import fcntl
import os
import shutil
import signal
import struct
import sys
import tempfile
import traceback

from labmachine import die_with

_NUMBER = struct.Struct("<I")
_RESULT = struct.Struct("<Ic")


def share(lists, processes, make_worker):
    work = [_pipe_of(numbers) for numbers in lists]
    result_out, result_in = os.pipe()
    with tempfile.TemporaryFile() as printing, open(result_out, "rb") as results:
        children = [_start([work[index] for index in order], result_in, printing, make_worker) for order in processes]
        for pipe in work:
            os.close(pipe)
        os.close(result_in)
        try:
            while record := results.read(_RESULT.size):
                yield _RESULT.unpack(record)
        finally:
            for child in children:
                os.kill(child, signal.SIGTERM)
            for child in children:
                os.waitpid(child, 0)


def _pipe_of(numbers):
    """Small reads and writes of a pipe are never torn: so one pipe serves all who take from it."""
    end, begin = os.pipe()
    os.write(begin, b"".join(_NUMBER.pack(number) for number in numbers))
    os.close(begin)
    return end


def _start(work, results, printing, make_worker):
    sys.stdout.flush()
    parent = os.getpid()
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        die_with(parent, signal.SIGTERM)
        _work(work, results, printing, make_worker)
        status = 0
    except (KeyboardInterrupt, SystemExit):
        pass
    except Exception:
        traceback.print_exc()
    finally:
        os._exit(status)


def _work(work, results, printing, make_worker):
    with make_worker() as worker:
        for pipe in work:
            while record := os.read(pipe, _NUMBER.size):
                (number,) = _NUMBER.unpack(record)
                with _gathered(printing):
                    verdict = worker(number)
                os.write(results, _RESULT.pack(number, verdict))


@contextlib.contextmanager
def _gathered(printing):
    """What this process and its children print meanwhile comes out at the end, and while it does, nothing else."""
    kept = os.dup(1), os.dup(2)
    with tempfile.TemporaryFile() as words:
        os.dup2(words.fileno(), 1)
        os.dup2(words.fileno(), 2)
        try:
            yield
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os.dup2(kept[0], 1)
            os.dup2(kept[1], 2)
            os.close(kept[0])
            os.close(kept[1])
            words.seek(0)
            with open(f"/proc/self/fd/{printing.fileno()}", "rb") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                shutil.copyfileobj(words, sys.stdout.buffer)
                sys.stdout.flush()
