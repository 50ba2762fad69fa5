# SPDX-License-Identifier: MIT
"""Finds the shared libraries that a program needs, so that it can go where there are none."""

import subprocess

from labcommon import LabError, find_program, run_tool


def shared_libraries(path, extra=()):
    """The paths of the libraries that a program is linked with, and of `extra`, given by soname."""
    found = set()
    # ldd fails for a static program or a script, which is no error here.
    for program in [str(path), *_find_libraries(extra)]:
        done = subprocess.run([find_program("ldd"), program], capture_output=True, text=True)
        for line in done.stdout.splitlines():
            if "not found" in line:
                raise LabError(f"{path} needs {line.split()[0]}, which is not installed here")
            found.update(word for word in line.split() if word.startswith("/"))
        if program != str(path):
            found.add(program)
    return sorted(found)


def _find_libraries(sonames):
    if not sonames:
        return []
    paths = {}
    for line in run_tool([find_program("ldconfig"), "-p"], "list the shared libraries").splitlines():
        name, arrow, path = line.strip().partition(" => ")
        if arrow and "x86-64" in name:
            paths.setdefault(name.split()[0], path)
    missing = [name for name in sonames if name not in paths]
    if missing:
        raise LabError(f"cannot find the library {missing[0]} here")
    return [paths[name] for name in sonames]
