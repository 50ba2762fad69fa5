# SPDX-License-Identifier: MIT
"""minivmm clone, of VMs that run and of those that do not, with tiny guests. No lab host is needed."""

import contextlib
import json
import os
import shutil
import signal
import struct
import subprocess

from labcommon import Skip
from test_cli import MINIVMM
from vms import Folder

SECTORS, STEP, DISKS = 5000, 7919, 2
MIB = 1 << 20


def make(folder, name="web1", size=64 * MIB, disk="raw", sectors=SECTORS, options=(), content=20 * MIB):
    """A VM whose guest writes a sequence to two disks; the first has some content behind that."""
    web = folder.make(name, kernel="sequence.elf", disks=[{"file": "a.img", "format": disk}, {"file": "sub/b.img"}])
    (web / "sub").mkdir()
    definition = json.loads((web / "vm.json").read_text())
    definition["boot"]["cmdline"] = f"sectors={sectors}"
    (web / "vm.json").write_text(json.dumps(definition))
    (web / "notes").write_text("kept\n")
    (web / "link").symlink_to("notes")
    for file in ["a.img", "sub/b.img"]:
        with open(web / file, "wb") as image:
            image.truncate(size)
    with open(web / "a.img", "r+b") as image:
        image.seek(16 * MIB)
        image.write(os.urandom(content))
    if disk == "qcow2":
        subprocess.run(["qemu-img", "convert", "-O", "qcow2", *options, web / "a.img", web / "x"], check=True)
        (web / "x").rename(web / "a.img")
    return web


def sector_at(image, sector):
    image.seek(sector * 512)
    words = set(struct.unpack("<64Q", image.read(512)))
    assert len(words) == 1, f"sector {sector} is torn"
    return words.pop()


def check_moment(web, names=("a.img", "sub/b.img"), sectors=SECTORS):
    """Both disks are as they were at one moment: all numbers up to the last are there, and none later. One write was
    under way, which may be there."""
    found = {}
    for i, name in enumerate(names):
        with open(web / name, "rb") as image:
            for sector in range(sectors):
                found[i, sector] = sector_at(image, sector)
    last = max(found.values())
    expected = dict.fromkeys(found, 0)
    for number in range(1, last + 1):
        expected[(number - 1) % DISKS ^ 1, number // DISKS * STEP % sectors] = number
    wrong = [place for place in found if found[place] != expected[place]]
    assert not wrong, f"{len(wrong)} sectors are not of the moment of {last}"
    return last


def is_clean(folder):
    return not [name for name in os.listdir(folder.root) if name.startswith(".") and name != ".run"]


def test_clone_of_a_running_vm():
    """All disks are of one moment; the guest goes on; the clone has all that is the VM's but its own life; and it runs
    beside it as another VM."""
    with Folder() as folder:
        web = make(folder)
        original = (web / "a.img").stat().st_size
        first = folder.start("web1", until="sequence 512")
        lasts = []
        for i in range(3):
            said = folder.run("clone", "web1", f"copy{i}")
            assert said.returncode == 0 and "stood still for" in said.stderr, said.stderr
            copy = folder.root / f"copy{i}"
            lasts.append(check_moment(copy))
            assert (copy / "a.img").stat().st_size == original
            assert (copy / "notes").read_text() == "kept\n" and os.readlink(copy / "link") == "notes"
            assert sorted(os.listdir(copy)) == ["a.img", "kernel", "link", "notes", "sub", "vm.json"]
            # b.img is empty but for the sequence.
            assert (copy / "sub/b.img").stat().st_blocks * 512 < 8 * MIB
        assert lasts == sorted(set(lasts)) and lasts[0] >= 512
        assert first.poll() is None and is_clean(folder)
        assert json.loads((copy / "vm.json").read_text())["disks"][1]["format"] == "raw"
        folder.start("copy1", until="sequence 256")
        assert len(folder.list()) == 2
        folder.good("stop", "--force", "web1", "copy1")


def test_clone_of_a_qcow2_disk():
    """Without shared blocks the copy is raw, its name and vm.json say so, and the content is right."""
    with Folder() as folder:
        web = make(folder, disk="qcow2")
        (web / "a.img").rename(web / "a.qcow2")
        definition = json.loads((web / "vm.json").read_text())
        definition["disks"][0]["file"] = str(web / "a.qcow2")
        (web / "vm.json").write_text(json.dumps(definition))
        folder.start("web1", until="sequence 512")
        folder.good("clone", web, "web2")
        copy = folder.root / "web2"
        disks = json.loads((copy / "vm.json").read_text())["disks"]
        if disks[0]["format"] == "qcow2":
            raise Skip("this file system shares blocks")
        assert disks[0] == {"file": "a.img", "format": "raw"}
        assert not (copy / "a.qcow2").exists()
        check_moment(copy)
        folder.good("stop", "--force", "web1")
        subprocess.run(["qemu-img", "convert", "-O", "raw", web / "a.qcow2", web / "a.raw"], check=True)
        with open(web / "a.raw", "rb") as one, open(copy / "a.img", "rb") as other:
            one.seek(16 * MIB)
            other.seek(16 * MIB)
            assert one.read() == other.read()


def test_clone_of_a_stopped_vm():
    """Whole, also with its disk's format written down; beside the VM unless the name has a path."""
    with Folder() as folder:
        web = make(folder)
        folder.good("clone", "web1", "web2")
        copy = folder.root / "web2"
        assert subprocess.run(["diff", "-r", "--no-dereference", "-x", "*.json", web, copy]).returncode == 0
        assert json.loads((copy / "vm.json").read_text())["disks"][1] == {"file": "sub/b.img", "format": "raw"}
        (folder.root / "deep").mkdir()
        folder.good("clone", "web1", "deep/web3")
        assert (folder.root / "deep/web3/a.img").exists()
        folder.good("clone", "deep/web3", "web4")
        assert (folder.root / "deep/web4/a.img").exists()
        folder.bad(4, "exists already", "clone", "web1", "web2")
        folder.bad(3, "", "clone", "nobody", "web5")
        folder.bad(2, "wanted", "clone", "web1")
        assert is_clean(folder)


def test_disks_outside_are_refused():
    with Folder() as folder:
        web = make(folder)
        definition = json.loads((web / "vm.json").read_text())
        shutil.copy(web / "sub/b.img", folder.root / "shared.img")
        definition["disks"][1] = {"file": "../shared.img"}
        (web / "vm.json").write_text(json.dumps(definition))
        folder.bad(4, "shared.img lies outside", "clone", "web1", "web2")
        folder.start("web1", until="sequence 256")
        folder.bad(4, "shared.img lies outside", "clone", "web1", "web2")
        folder.good("stop", "--force", "web1")
        definition["disks"][1]["readonly"] = True
        (web / "vm.json").write_text(json.dumps(definition))
        (folder.root / "deep").mkdir()
        folder.good("clone", "web1", "deep/web2")
        disks = json.loads((folder.root / "deep/web2/vm.json").read_text())["disks"]
        assert disks[1]["file"] == str(folder.root / "shared.img")
        folder.good("clone", "web1", "web2")
        assert json.loads((folder.root / "web2/vm.json").read_text())["disks"][1]["file"] == "../shared.img"
        assert is_clean(folder)


def begin(folder, name):
    """A clone that takes its time; returns when the VM has begun to write."""
    process = subprocess.Popen([MINIVMM, "clone", "web1", name], env=folder.env, cwd=folder.root,
                               stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    folder.processes.append(process)
    process.stdout = open(os.devnull)
    hidden = folder.root / f".{name}.new" / "a.img"
    folder.wait_until(lambda: hidden.exists() or process.poll() is not None, "the clone's first file")
    return process


def make_large(folder):
    web = make(folder)
    with open(web / "a.img", "r+b") as image:
        image.truncate(600 * MIB)
        image.seek(40 * MIB)
        block = os.urandom(10 * MIB)
        for _ in range(50):
            image.write(block)
    return web


def test_what_comes_between():
    """Whatever ends a clone: nothing is left of it, or it is whole; and the VM is not hurt."""
    for how in [signal.SIGKILL, signal.SIGINT, "stop", "reset", "kill", "twice"]:
        # On a machine with much to do the clone may be done before anything can come.
        assert any(try_what_comes_between(how) for _ in range(5)), f"{how} came too late each time"


def try_what_comes_between(how):
    """False: too late."""
    with Folder() as folder:
        make_large(folder)
        vm = folder.start("web1", until="sequence 256")
        process = begin(folder, "web2")
        hidden, copy = folder.root / ".web2.new", folder.root / "web2"
        if how == "stop":
            folder.good("stop", "--force", "web1")
        elif how == "kill":
            vm.kill()
        elif how == "reset":
            folder.good("reset", "web1")
        elif how == "twice":
            others = [folder.run("clone", "web1", name) for name in ["web2", "web3"]]
        else:
            process.send_signal(how)
        between = process.poll() is None or process.returncode != 0
        code = process.wait(60)
        if not between or (code == 0 and how not in ["reset", "twice"]):
            return False
        if how in ["stop", "kill"]:
            assert code == 4, process.stderr.read()
        elif how in ["reset", "twice"]:
            assert code == 0, process.stderr.read()
            check_moment(copy)
        else:
            assert code == -how
            folder.wait_until(lambda: not (hidden / "a.img").exists(), "the end of what was begun")
            assert not copy.exists() and vm.poll() is None
            # The VM may still be ending the last one.
            folder.wait_until(lambda: folder.run("clone", "web1", "web2").returncode == 0, "another clone")
            check_moment(copy)
        if how == "twice":
            for other in others:
                assert other.returncode == 4, other
                assert "is just being copied" in other.stderr or "is just being made" in other.stderr, other
        assert is_clean(folder)
        assert copy.exists() == (how not in ["stop", "kill"])
        return True


@contextlib.contextmanager
def mounted(folder, what):
    """A file system of its own; skips where that cannot be had."""
    image, point = folder.root / "fs.img", folder.root / "mnt"
    point.mkdir()
    with open(image, "wb") as file:
        file.truncate(400 * MIB)
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    try:
        # Else btrfs sets a hundred MiB aside for its own tables at some moment, be it within a clone.
        options = ["--mixed"] if what == "btrfs" else []
        made = what == "tmpfs" or subprocess.run([f"mkfs.{what}", *options, image], **quiet).returncode == 0
        mount = (["mount", "-t", "tmpfs", "-o", "size=30M", "none", point] if what == "tmpfs"
                 else ["mount", "-o", "loop", image, point])
        if not made or subprocess.run(mount, **quiet).returncode != 0:
            raise Skip(f"{what} cannot be mounted here")
    except FileNotFoundError:
        raise Skip(f"mkfs.{what} is missing")
    try:
        yield point
    finally:
        subprocess.run(["umount", "-l", point], **quiet)


def test_a_full_disk():
    """The clone fails, the guest goes on, nothing is left."""
    with Folder() as folder, mounted(folder, "tmpfs") as full:
        make_large(folder)
        vm = folder.start("web1", until="sequence 256")
        folder.bad(1, "No space left", "clone", "web1", full / "web2")
        assert vm.poll() is None and os.listdir(full) == []
        folder.good("stop", "--force", "web1")
        folder.bad(1, "No space left", "clone", "web1", full / "web2")
        assert os.listdir(full) == []


def test_shared_blocks_xfs():
    """Where the file system can, the clone takes no space, be the VM paused or not; also of a qcow2 disk."""
    try_shared_blocks("xfs")


def test_shared_blocks_btrfs():
    """The same, on btrfs."""
    try_shared_blocks("btrfs")


def try_shared_blocks(what):
    with Folder() as folder, mounted(folder, what) as point:
        for disk in ["raw", "qcow2"]:
            # So small clusters that most writes need a new one. All that the guest can ever write takes less than most,
            # and what is shared more.
            sectors, content, most = (30000, 56 * MIB, 48 * MIB) if disk == "qcow2" else (SECTORS, 20 * MIB, 12 * MIB)
            web = make(folder, f"mnt/{disk}", 80 * MIB, disk, sectors, ["-o", "cluster_size=512"], content)
            folder.start(web, until="sequence 256")
            for copy in [point / f"copy{i}" for i in range(3)]:
                before = shutil.disk_usage(point).free
                folder.good("clone", web, copy)
                assert before - shutil.disk_usage(point).free < most
                if disk == "qcow2":
                    subprocess.run(["qemu-img", "check", copy / "a.img"], check=True, stdout=subprocess.DEVNULL)
                    subprocess.run(["qemu-img", "convert", "-O", "raw", copy / "a.img", copy / "flat"], check=True)
                check_moment(copy, ["flat" if disk == "qcow2" else "a.img", "sub/b.img"], sectors)
                shutil.rmtree(copy)
            folder.good("pause", web)
            folder.good("clone", web, point / "copy")
            folder.good("stop", "--force", web)
            shutil.rmtree(point / "copy")


def test_a_paused_vm():
    with Folder() as folder:
        make(folder)
        folder.start("web1", until="sequence 256")
        folder.good("pause", "web1")
        result = folder.run("clone", "web1", "web2")
        assert result.returncode in [0, 4], result.stderr
        if result.returncode == 4:
            assert "stands still" in result.stderr and "minivmm resume web1" in result.stderr
            assert is_clean(folder) and not (folder.root / "web2").exists()
        folder.good("resume", "web1")
