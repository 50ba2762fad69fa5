# SPDX-License-Identifier: MIT
"""Verbs that need no running VM, as a person would try them, and the shell's completion. No lab host is needed."""

import os
import re
import subprocess

from labcommon import REPOSITORY
from test_cli import MINIVMM, run
from vms import Folder


def test_new_rename_remove_report_check():
    """new, rename, remove, report and check VM: what they do, what they refuse, and that nothing half-made is left,
    also by a kill, a full disk and several at once."""
    result = subprocess.run([REPOSITORY / "tests/system/verb-checks", MINIVMM], capture_output=True, text=True,
                            timeout=250, stdin=subprocess.DEVNULL)
    assert re.search(r"^\d+ checks, 0 wrong$", result.stdout, re.M), result.stdout + result.stderr


def test_every_verb_has_help():
    """Each verb that `help` names has a --help, which begins with an example; all are in the manual."""
    verbs = re.findall(r"^  ([a-z]+) ", run("help").stdout.split("Verbs:")[1].split("\n\n")[0], re.M)
    manual = (REPOSITORY / "man/minivmm.1.scd").read_text()
    assert len(verbs) > 10
    for verb in verbs:
        if verb != "help":
            result = run(verb, "--help")
            assert result.returncode == 0 and result.stdout.startswith("Example"), f"{verb}: {result}"
            assert f"minivmm {verb}" in result.stdout, f"{verb}: its example is of something else"
            assert re.search(rf"\*(minivmm )?{verb}\*|\*minivmm {verb}", manual), f"the manual knows nothing of {verb}"


def complete(folder, *words):
    """What bash offers for the last of the words."""
    script = (f"source {REPOSITORY}/cli/completion/minivmm.bash; COMP_WORDS=(minivmm {' '.join(words)});"
              f" COMP_CWORD={len(words)}; _minivmm; printf '%s\\n' \"${{COMPREPLY[@]}}\"")
    env = {**folder.env, "PATH": f"{os.path.dirname(MINIVMM)}:{os.environ['PATH']}"}
    return set(subprocess.run(["bash", "-c", script], env=env, cwd=folder.root, capture_output=True, text=True,
                              timeout=60, check=True).stdout.split())


def test_completion():
    """bash completes verbs, their options, and VMs."""
    with Folder() as vms:
        vms.make("web1")
        assert complete(vms, "st") == {"standby", "status", "stop"}
        assert complete(vms, "stop", "--f") == {"--force"}
        assert complete(vms, "stop", "w") == {"web1"}
