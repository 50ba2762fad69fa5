# SPDX-License-Identifier: MIT
"""Snapshots that are damaged, forged, copied, or taken of what none can be taken of. With tiny guests; no lab host is
needed."""

import json
import os
import random
import re
import shutil
import subprocess

from test_clone import MIB
from test_clone import make as make_sequence
from test_cli import MINIVMM
from test_snapshot import make, make_with_disks, write_disks, start, restore, stop, hashes, left_in
from vms import Folder

# --- damage -----------------------------------------------------------------------------------------------------


def test_damaged():
    """A file that is missing, shorter, longer, or has one bit flipped anywhere is named, and the VM's folder is as it
    was; so is a manifest of a later format."""
    with Folder() as folder:
        web = make_with_disks(folder)
        start(folder)
        folder.good("snapshot", "web1", "one")
        stop(folder)
        write_disks(web, b"new")
        there = web / "snapshots/one"
        before = hashes(web)
        rng = random.Random(6)
        files = [name for name in hashes(there) if (there / name).is_file() and name != "verified.json"]
        assert sorted(files) == ["a.img", "kernel", "manifest.json", "memory", "state", "sub/b.img", "vm.json"]
        for name in files:
            for how in ["gone", "short", "long", "flip", "flip"]:
                path = there / name
                bytes_ = path.read_bytes()
                path.unlink()
                if how == "short":
                    path.write_bytes(bytes_[:rng.randrange(len(bytes_))])
                elif how == "long":
                    path.write_bytes(bytes_ + b"\0")
                elif how == "flip":
                    at = rng.randrange(len(bytes_))
                    path.write_bytes(bytes_[:at] + bytes([bytes_[at] ^ 1 << rng.randrange(8)]) + bytes_[at + 1:])
                code = 3 if name == "manifest.json" and how == "gone" else 5
                for words in [["restore", "web1", "one"], ["run", "--from", there, "web2"]]:
                    told = folder.bad(code, name, *words)
                    assert code == 3 or re.search("damaged|No such file", told), told
                path.write_bytes(bytes_)
                assert hashes(web) == before and not (folder.root / "web2").exists(), f"{name} {how}"
        restore(folder, "restore", "web1", "one")


def test_damage_that_nobody_has_touched():
    """What a disk forgets by itself is found by --verify, which no other restore has the time for."""
    with Folder() as folder:
        web = make_with_disks(folder)
        start(folder)
        folder.good("snapshot", "web1", "one")
        stop(folder)
        there = web / "snapshots/one"
        for name in ["a.img", "memory"]:
            with open(there / name, "r+b") as file:
                file.seek(5000)
                byte = file.read(1)
                file.seek(5000)
                file.write(bytes([byte[0] ^ 1]))
            stamps = json.loads((there / "verified.json").read_text())
            now = os.stat(there / name)
            stamps["files"][name] = [now.st_ino, now.st_ctime_ns // 10 ** 9, now.st_ctime_ns % 10 ** 9]
            (there / "verified.json").write_text(json.dumps(stamps))
            folder.bad(5, f"{name} is damaged", "restore", "web1", "one", "--disks", "--verify")
            folder.good("restore", "web1", "one", "--disks")
            with open(there / name, "r+b") as file:
                file.seek(5000)
                file.write(byte)


def test_a_copied_folder():
    """A VM that was copied with its snapshots can be restored from them; their files are read once, and then known."""
    with Folder() as folder:
        web = make_with_disks(folder)
        start(folder)
        folder.good("snapshot", "web1", "one")
        stop(folder)
        copy = folder.root / "web2"
        subprocess.run(["cp", "-r", web, copy], check=True)
        stamps = copy / "snapshots/one/verified.json"
        copied = stamps.read_text()
        for number in range(2):
            process, _ = restore(folder, "restore", "web2", "one")
            stop(folder, "web2")
            if number == 0:
                fresh = stamps.read_text()
                inode = stamps.stat().st_ino
                assert fresh != copied and json.loads(fresh)["files"].keys() == json.loads(copied)["files"].keys()
        assert stamps.read_text() == fresh and stamps.stat().st_ino == inode


def crc32c(data):
    table = []
    for number in range(256):
        for _ in range(8):
            number = number >> 1 ^ (0x82f63b78 if number & 1 else 0)
        table.append(number)
    sum_ = 0xffffffff
    for byte in data:
        sum_ = table[(sum_ ^ byte) & 255] ^ sum_ >> 8
    return f"{sum_ ^ 0xffffffff:08x}"


def forge(there, change):
    """A manifest and stamps that fit, and say what somebody wants them to."""
    facts = json.loads((there / "manifest.json").read_text())["snapshot"]
    facts["paused_ms"] = 1
    change(facts)
    sum_ = crc32c(json.dumps(facts, sort_keys=True, separators=(",", ":")).encode())
    (there / "manifest.json").write_text(json.dumps({"crc32c": sum_, "snapshot": facts}))
    stamps = {}
    for name in facts["files"]:
        if (there / name).exists():
            now = os.stat(there / name)
            stamps[name] = [now.st_ino, now.st_ctime_ns // 10 ** 9, now.st_ctime_ns % 10 ** 9]
    (there / "verified.json").write_text(json.dumps({"crc32c": sum_, "files": stamps}))


def test_forged():
    """A snapshot by somebody who means harm can neither crash the VMM nor reach anything but the VM's own files."""
    with Folder() as folder:
        web = make_with_disks(folder)
        outside = folder.root / "outside"
        outside.mkdir()
        (outside / "b.img").write_text("not yours\n")
        start(folder)
        folder.good("snapshot", "web1", "good")
        stop(folder)
        before = hashes(web, "snapshots/bad")

        def attempt(prepare, change, *options, code=5):
            there = web / "snapshots/bad"
            shutil.copytree(web / "snapshots/good", there, symlinks=True)
            prepare(there)
            forge(there, change)
            result = folder.run("restore", "web1", "bad", *options)
            shutil.rmtree(there)
            assert result.returncode == code, f"exit code {result.returncode}: {result.stderr}"
            assert hashes(web) == before and os.listdir(outside) == ["b.img"]
            assert (outside / "b.img").read_text() == "not yours\n"

        def shorten(there):
            os.truncate(there / "memory", 65536)

        attempt(shorten, lambda facts: facts["files"]["memory"].update(size=65536))

        def link(there):
            shutil.rmtree(there / "sub")
            (there / "sub").symlink_to("../../../outside")

        attempt(link, lambda facts: facts["files"].update({"sub/b.img": {"size": 10}}))
        for name in ["identity.json", "journal.jsonl", "console.log", ".restoring", "snapshots/good/vm.json", "../x",
                     "/etc/x", "sub/../../x", "sub/.b.img.new"]:
            def make_it(there):
                if not name.startswith((".", "/", "sub/..")) or name == ".restoring":
                    (there / name).parent.mkdir(parents=True, exist_ok=True)
                    (there / name).write_text("evil")

            attempt(make_it, lambda facts: facts["files"].update({name: {"size": 4}}))
        # The VM's own folder may lead elsewhere, too.
        shutil.rmtree(web / "sub")
        (web / "sub").symlink_to("../outside")
        result = folder.run("restore", "web1", "good", "--disks")
        assert (outside / "b.img").read_text() == "not yours\n" and os.listdir(outside) == ["b.img"], result


def test_pipes_in_the_place_of_files():
    """Nobody waits for what a pipe will say."""
    with Folder() as folder:
        web = make(folder)
        folder.good("snapshot", "web1", "one")
        for name in ["manifest.json", "verified.json", "vm.json"]:
            text = (web / "snapshots/one" / name).read_bytes()
            (web / "snapshots/one" / name).unlink()
            os.mkfifo(web / "snapshots/one" / name)
            for words in [["snapshots", "web1"], ["restore", "web1", "one"]]:
                subprocess.run([MINIVMM, *words], env=folder.env, cwd=folder.root, timeout=5,
                               stdin=subprocess.DEVNULL, capture_output=True)
            (web / "snapshots/one" / name).unlink()
            (web / "snapshots/one" / name).write_bytes(text)


def test_links_to_snapshots():
    """The folder of snapshots may lie elsewhere."""
    with Folder() as folder:
        web = make(folder)
        (folder.root / "large").mkdir()
        (web / "snapshots").symlink_to("../large")
        start(folder)
        folder.good("snapshot", "web1", "one")
        stop(folder)
        restore(folder, "restore", "web1", "one")
        stop(folder)
        folder.good("remove-snapshot", "web1", "one")


def test_disks_with_the_names_of_a_snapshots_files():
    """They are copied like others, or refused with the name."""
    with Folder() as folder:
        names = ["memory", "state", "manifest.json"]
        web = make(folder, disks=[{"file": name, "format": "raw"} for name in names])
        for name in names:
            (web / name).write_bytes(b"old" * MIB)
        cloned = folder.run("clone", "web1", "web2")
        assert cloned.returncode == 0 and all((folder.root / "web2" / name).exists() for name in names), cloned
        taken = folder.run("snapshot", "web1", "one")
        assert taken.returncode == 4 and "memory" in taken.stderr, taken


def test_an_ephemeral_run():
    """Its disks end with the run, and its memory knows what was on them: no snapshot of both can be right."""
    with Folder() as folder:
        web = make_sequence(folder)
        folder.start("web1", "--ephemeral", until="sequence 1024")
        folder.bad(4, "ephemeral", "snapshot", "web1", "one")
        assert left_in(web) == []
