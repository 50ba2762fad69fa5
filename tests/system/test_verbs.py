# SPDX-License-Identifier: MIT
"""Verbs that need no running VM, as a person would try them, and the shell's completion. No lab host is needed."""

import os
import pty
import re
import shutil
import subprocess

from labcommon import REPOSITORY, Skip
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
    verbs = re.findall(r"^  ([a-z-]+) ", run("help").stdout.split("Verbs:")[1].split("\n\n")[0], re.M)
    manual = (REPOSITORY / "man/minivmm.1.scd").read_text()
    assert {"run", "remove-snapshot"} < set(verbs) and len(verbs) > 20
    for verb in verbs:
        if verb != "help":
            result = run(verb, "--help")
            assert result.returncode == 0 and result.stdout.startswith("Example"), f"{verb}: {result}"
            assert f"minivmm {verb}" in result.stdout, f"{verb}: its example is of something else"
            assert re.search(rf"\*(minivmm )?{verb}\*|\*minivmm {verb}", manual), f"the manual knows nothing of {verb}"


def answer(vms, text, *words):
    """Exit code of a command that a person answers at his terminal."""
    master, slave = pty.openpty()
    try:
        process = subprocess.Popen([MINIVMM, *words], env=vms.env, cwd=vms.root, stdin=slave, stdout=slave, stderr=slave)
        heard = b""
        while b"[y/N] " not in heard:
            heard += os.read(master, 1000)
        os.write(master, text)
        return process.wait(30)
    finally:
        os.close(master)
        os.close(slave)


def test_remove_asks():
    """At a terminal remove asks, and only a yes removes; a VM that runs is refused without a question."""
    with Folder() as vms:
        there = vms.make("web1")
        for text in (b"n\n", b"\n", b"yep\n", b"\x04"):
            assert answer(vms, text, "remove", "web1") == 1 and (there / "kernel").exists(), text
        vms.start("web1")
        vms.bad(4, r"web1 is already running \(pid \d+\)", "remove", "--yes", "web1")
        assert (there / "kernel").exists()
        vms.good("stop", "--force", "web1")
        assert answer(vms, b"y\n", "remove", "web1") == 0 and not there.exists()


def complete(folder, *words):
    """What bash offers for the last of the words."""
    script = (f"source {REPOSITORY}/cli/completion/minivmm.bash; COMP_WORDS=(minivmm {' '.join(words)});"
              f" COMP_CWORD={len(words)}; _minivmm; printf '%s\\n' \"${{COMPREPLY[@]}}\"")
    env = {**folder.env, "PATH": f"{os.path.dirname(MINIVMM)}:{os.environ['PATH']}"}
    return set(subprocess.run(["bash", "-c", script], env=env, cwd=folder.root, capture_output=True, text=True,
                              timeout=60, check=True).stdout.split())


def complete_in_zsh(folder, *words):
    """The same of zsh, with its own two functions in our hands: one offers words, the other files."""
    script = ("compadd() { shift; for word; do [[ $word == ${words[CURRENT]}* ]] && print -r -- $word; done }; _files() { };"
              f" complete() {{ local words=(minivmm {' '.join(words)}) CURRENT={len(words) + 1};"
              f" source {REPOSITORY}/cli/completion/_minivmm; }}; complete")
    env = {**folder.env, "PATH": f"{os.path.dirname(MINIVMM)}:{os.environ['PATH']}"}
    result = subprocess.run(["zsh", "-f", "-c", script], env=env, cwd=folder.root, capture_output=True, text=True,
                            timeout=60)
    assert result.stderr == "", result
    return set(result.stdout.split())


def check_completion(complete):
    with Folder() as vms:
        vms.make("web1")
        assert complete(vms, "st") == {"standby", "status", "stop"}
        assert complete(vms, "rem") == {"remove", "remove-snapshot"}
        assert complete(vms, "stop", "--f") == {"--force"}
        assert complete(vms, "clone", "--m") == {"--memory"}
        assert complete(vms, "pair", "--k") == set()
        assert complete(vms, "stop", "w") == {"web1"}
        assert complete(vms, "set", "web1", "--link", "d") == {"down"}
        assert complete(vms, "protect", "web1", "--level", "d") == {"durable"}


def test_completion_in_bash():
    """bash completes verbs, their options, words of options, and VMs."""
    check_completion(complete)


def test_completion_in_zsh():
    """So does zsh."""
    if not shutil.which("zsh"):
        raise Skip("no zsh: scripts/install-packages test")
    check_completion(complete_in_zsh)
