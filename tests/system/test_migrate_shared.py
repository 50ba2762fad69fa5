# SPDX-License-Identifier: MIT
"""minivmm migrate --shared-disk: VMs whose disks stay where they are, in a folder that both "hosts" see."""

import contextlib
import fcntl
import json
import os
import re
import shutil
import struct
import subprocess

from frames import Proxy
from test_clone import MIB
from test_migrate import Host, check_refused, check_untouched, ended, hosts, left_at, start

DISKS = ["raw", "qcow2"]
F_OFD_SETLK = 37


@contextlib.contextmanager
def shared_hosts():
    """Two of them, and what they share: (one, other, a folder)."""
    with Host() as third, hosts() as (one, other):
        yield one, other, third.root


def make(host, shared, disk="raw", name="web1", file=None, link=None, base=None, **more):
    """A VM that notices whatever is lost, with its disk in `shared`: by its whole path, or as `file`, or behind a link.
    A qcow2 disk stands on another one, which is only read, `base` in its own words."""
    image = shared / f"{name}.{disk}"
    if disk == "qcow2":
        below = shared / "base.raw"
        subprocess.run(["qemu-img", "create", "-q", "-f", "raw", below, str(MIB // 2)], check=True)
        subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", "-b", base or below, "-F", "raw", image],
                       cwd=shared, check=True)
        more["backing"] = True
    else:
        with open(image, "wb") as file_of:
            file_of.truncate(MIB // 2)
    about = {"file": file or link or str(image), "format": disk, **more}
    web = host.make(name, kernel="steady.elf", cpus=2, boot={"kernel": "kernel", "cmdline": "pages=16"}, disks=[about])
    if link:
        (web / link).symlink_to(image)
    return image


def pid_of(host, name="web1"):
    return next(row["pid"] for row in host.list() if row["name"] == name)


def writers(image):
    """Pids that have this file open for writing."""
    found, stat = set(), image.stat()
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            for fd in os.listdir(f"/proc/{pid}/fd"):
                there = os.stat(f"/proc/{pid}/fd/{fd}")
                if (there.st_dev, there.st_ino) == (stat.st_dev, stat.st_ino):
                    with open(f"/proc/{pid}/fdinfo/{fd}") as info:
                        if int(re.search(r"flags:\s*(\d+)", info.read())[1], 8) & os.O_ACCMODE:
                            found.add(int(pid))
    return found


class Lock:
    """Somebody else who has the disk."""

    def __init__(self, image):
        self.fd = os.open(image, os.O_RDWR)
        fcntl.fcntl(self.fd, F_OFD_SETLK, struct.pack("hhqqi4x", fcntl.F_WRLCK, 0, 0, 0, 0))

    def let_go(self):
        os.close(self.fd)


def one_good_vm(one, other, image, code=None):
    """Afterwards exactly one of both runs it, whose alone the disk is: who."""
    if not (one.root / "web1/.moved").exists():
        assert code in [1, 4, None], code
        check_untouched(one, other, [])
        assert not other.has()
        who = one
    else:
        assert code in [0, None], code
        one.wait_until(lambda: not one.has(), "the end of the source")
        check_refused(one, one.root / "web1")
        other.goes_on()
        who = other
    assert writers(image) == {pid_of(who)}, f"{writers(image)} have it open, not {pid_of(who)}"
    return who


def move(host, address, code=0):
    said = host.run("migrate", "web1", address, "--shared-disk")
    assert said.returncode == code, said.stderr
    return said.stderr


def test_there_and_back():
    """A guest that watches its disk notices nothing of moves in which the disk stays where it is: by its whole path or
    behind a link, raw or qcow2 that stands on another one. Whoever runs it has the disk, and nobody else."""
    for disk in DISKS:
        for link in [None, "disk.img"]:
            with shared_hosts() as (one, other, shared):
                image = make(one, shared, disk, link=link)
                addresses = {one: one.standby(), other: other.standby()}
                start(one)
                here, there = one, other
                for _ in range(4):
                    assert writers(image) == {pid_of(here)}
                    before = here.counted()
                    words = move(here, addresses[there])
                    assert re.search(r"its disks stayed where they are, and changed hands in [\d.]+ ms", words), words
                    here.wait_until(lambda: not here.list(), "the end of the source")
                    there.wait_until(lambda: there.counted() > before, "the guest over there")
                    assert one_good_vm(here, there, image) == there
                    assert set(os.listdir(there.root / "web1")) >= {"vm.json", "kernel"}
                    (about,) = json.loads((there.root / "web1/vm.json").read_text())["disks"]
                    assert about["format"] == disk and about["file"] == (link or str(image)), about
                    assert [path for path in (there.root / "web1").rglob("*") if path.is_file() and
                            not path.is_symlink() and path.stat().st_size >= MIB // 2] == []
                    shutil.rmtree(here.root / "web1")
                    here, there = there, here
                here.good("stop", "--force", "web1")
                here.wait_until(lambda: not here.list(), "its end")
                assert writers(image) == set()
                if disk == "qcow2":
                    subprocess.run(["qemu-img", "check", "-q", image], check=True)
                start(here)
                here.good("stop", "--force", "web1")


def test_what_is_refused():
    """What is not the same file at both ends is named before anything happens, and the VM goes on with its disk."""
    for disk in DISKS:
        with shared_hosts() as (one, other, shared):
            image = make(one, shared, disk, file="../disks/here", base="base.raw")
            address = other.standby()
            for host in [one, other]:
                (host.root / "disks").mkdir()
            (one.root / "disks/here").symlink_to(image)
            if disk == "qcow2":
                for host in [one, other]:
                    (host.root / "disks/base.raw").symlink_to(shared / "base.raw")
            there = other.root / "disks/here"
            start(one)

            def refused(code, words):
                said = move(one, address, code)
                assert re.search(words, said), said
                assert writers(image) == {pid_of(one)}
                check_untouched(one, other, ["disks"])

            refused(3, f"cannot open {other.root}/web1/../disks/here: No such file or directory")
            shutil.copy(image, there)
            refused(4, f"{other.root}/web1/../disks/here is not the file that the VM has open, or its file system")
            there.unlink()
            with open(there, "wb") as file:
                file.truncate(MIB)
            refused(4, "is not the file that the VM has open") if disk == "raw" else refused(5, "here")
            # Another VM has what lies there.
            lock = Lock(there)
            refused(4, "is not the file that the VM has open") if disk == "raw" else refused(5, "here")
            lock.let_go()
            there.unlink()
            there.mkdir()
            refused(5, "is a directory")
            there.rmdir()
            if disk == "qcow2":
                there.symlink_to(image)
                (other.root / "disks/base.raw").unlink()
                refused(3, "disks/base.raw: No such file")
                (other.root / "disks/base.raw").symlink_to(shared / "base.raw")
                there.unlink()
            there.symlink_to(image)
            move(one, address)
            assert one_good_vm(one, other, image) == other


def test_disks_in_the_folder():
    """A disk that lies in the VM's folder is left behind with it, so it cannot be shared; without the option, one that
    lies outside cannot go along. Both say how it can be."""
    with shared_hosts() as (one, other, shared):
        image = make(one, shared)
        address = other.standby()
        process = start(one)
        one.bad(4, "web1.raw lies outside of the VM's folder.*\nhint: .*--shared-disk", "migrate", "web1", address)
        one.good("stop", "--force", "web1")
        ended(process)
        web = one.root / "web1"
        shutil.copy(image, web / "disk.img")
        definition = json.loads((web / "vm.json").read_text())
        for file in ["disk.img", "link.img"]:
            definition["disks"][0]["file"] = file
            (web / "vm.json").write_text(json.dumps(definition))
            if file == "link.img":
                (web / file).symlink_to("disk.img")
            process = start(one)
            said = move(one, address, 4)
            assert re.search(r"(disk|link).img lies in the VM's folder, which is left behind.*\nhint: ", said), said
            check_untouched(one, other, [])
            one.good("stop", "--force", "web1")
            ended(process)


def test_readonly_disks():
    """What the guest only reads is not locked away from anybody: one that both see is opened there, too, and a small one
    in the folder goes along."""
    with shared_hosts() as (one, other, shared):
        image = make(one, shared)
        web = one.root / "web1"
        for path in [shared / "cd.img", web / "small.img"]:
            path.write_bytes(os.urandom(MIB))
        definition = json.loads((web / "vm.json").read_text())
        definition["disks"] += [{"file": str(shared / "cd.img"), "format": "raw", "readonly": True},
                                {"file": "small.img", "format": "raw", "readonly": True}]
        (web / "vm.json").write_text(json.dumps(definition))
        address = other.standby()
        start(one)
        move(one, address)
        assert one_good_vm(one, other, image) == other
        assert (other.root / "web1/small.img").read_bytes() == (web / "small.img").read_bytes()
        assert not (other.root / "web1/cd.img").exists()


def test_the_connection_ends():
    """Wherever the connection ends, exactly one VM runs afterwards, and has the disk."""
    before = ["SHARED", "ACK WELCOME", "STATE", "ACK READY", "RELEASED", "ACK OPENED"]
    places = [(at, when) for at in before for when in ["before", "middle"]]
    places += [("RELEASED", "after"), ("ACK OPENED", "after"), ("GO", "before"), ("GO", "middle"), ("GO", "after"),
               ("ACK YOURS", "before"), ("ACK YOURS", "after")]
    for disk in DISKS:
        with shared_hosts() as (one, other, shared):
            image = make(one, shared, disk)
            process = start(one)
            address, back = other.standby(), one.standby()
            for at, when in places:
                with Proxy(address, at, when) as proxy:
                    said = one.run("migrate", "web1", proxy.address, "--shared-disk")
                    assert proxy.hit.wait(10), f"nobody said {at}: {proxy.words} {said.stderr}"
                    who = one_good_vm(one, other, image, said.returncode)
                if at in before or (at, when) in [("GO", "before"), ("GO", "middle")]:
                    assert (who == one) or (at, when) == ("ACK OPENED", "after"), (at, when)
                if who == other:
                    shutil.rmtree(one.root / "web1")
                    move(other, back)
                    assert one_good_vm(other, one, image) == one
                    shutil.rmtree(other.root / "web1")
                other.wait_until(lambda: not other.arriving(), "the end of who took it in")
            assert process.poll() is not None
            one.good("stop", "--force", "web1")
            one.wait_until(lambda: not one.list(), "its end")
            if disk == "qcow2":
                subprocess.run(["qemu-img", "check", "-q", image], check=True)


def test_somebody_takes_the_disk():
    """A lock that somebody takes when the source has let go of it: the target cannot open the disk, and says so; the
    source stands still until it has its disk again, and goes on."""
    for disk in DISKS:
        with shared_hosts() as (one, other, shared):
            image = make(one, shared, disk)
            start(one)
            locks = []
            with Proxy(other.standby(), "RELEASED", "first", do=lambda: locks.append(Lock(image))) as proxy:
                migrate = one.begin("migrate", "web1", proxy.address, "--shared-disk")
                one.wait_until(lambda: "ERROR" in proxy.words, "the target's refusal")
                other.wait_until(lambda: left_at(other) == [], f"the end of what is left: {left_at(other)}")
                assert one.status("web1")["state"] == "moving" and migrate.poll() is None
                locks[0].let_go()
                assert migrate.wait(20) == 4
                words = migrate.stderr.read()
                assert f"{image} is in use by another VM" in words, words
            assert one_good_vm(one, other, image) == one
            move(one, other.standby())
            assert one_good_vm(one, other, image) == other


def test_the_vm_is_stopped_without_its_disk():
    """One that stands still because somebody has its disk can be ended, and starts when the disk is free."""
    with shared_hosts() as (one, other, shared):
        image = make(one, shared)
        process = start(one)
        locks = []
        with Proxy(other.standby(), "RELEASED", "first", do=lambda: locks.append(Lock(image))) as proxy:
            migrate = one.begin("migrate", "web1", proxy.address, "--shared-disk")
            one.wait_until(lambda: "ERROR" in proxy.words, "the target's refusal")
            one.bad(4, "moving", "migrate", "web1", proxy.address)
            one.bad(4, "moving", "reset", "web1")
            one.good("stop", "--force", "web1")
            ended(process)
            assert migrate.wait(20) != 0
        one.bad(4, "in use by another VM", "run", "web1")
        locks[0].let_go()
        start(one)
        assert one_good_vm(one, other, image) == one


def test_one_of_both_is_killed():
    """Whoever is killed leaves no lock behind: before the hand-over the VM is the source's, after it the target's."""
    for disk in DISKS:
        with shared_hosts() as (one, other, shared):
            image = make(one, shared, disk)
            process = start(one)
            address = other.standby()

            def kill_target():
                for pid in other.arriving():
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, 9)

            for at in ["ACK WELCOME", "RELEASED", "ACK OPENED", "GO"]:
                with Proxy(address, at, do=kill_target) as proxy:
                    said = one.run("migrate", "web1", proxy.address, "--shared-disk")
                    assert proxy.hit.wait(10) and said.returncode == 1, said
                    one.goes_on()
                    assert not (one.root / "web1/.moved").exists() and writers(image) == {pid_of(one)}
            for at in ["RELEASED", "ACK OPENED"]:
                with Proxy(address, at, do=process.kill) as proxy:
                    assert one.run("migrate", "web1", proxy.address, "--shared-disk").returncode != 0
                    process.wait(10)
                    other.wait_until(lambda: left_at(other) == [], f"the end of what is left after {at}")
                process = start(one)
                assert one_good_vm(one, other, image) == one
            with Proxy(address, "GO", "after", do=process.kill) as proxy:
                assert one.run("migrate", "web1", proxy.address, "--shared-disk").returncode != 0
                process.wait(10)
            assert one_good_vm(one, other, image) == other


def test_cancel_and_pause():
    """A migration with shared disks that is cancelled, or whose VM is paused, leaves it with its disk."""
    with shared_hosts() as (one, other, shared):
        image = make(one, shared)
        start(one)
        address = other.standby()
        for how in ["cancel", "pause"]:
            words = ["migrate", "web1", "--cancel"] if how == "cancel" else ["pause", "web1"]
            with Proxy(address, "ROUND", "never", do=lambda words=words: one.good(*words)) as proxy:
                said = one.run("migrate", "web1", proxy.address, "--shared-disk")
                assert proxy.hit.wait(10) and said.returncode in [1, 4], said
            if how == "pause":
                one.good("resume", "web1")
            assert one_good_vm(one, other, image) == one
