# SPDX-License-Identifier: MIT
"""--seed: what is refused, the disk that a guest finds, and cloud-init that believes it."""

import os
import re
import subprocess
import tempfile
from pathlib import Path

from labcommon import find_program
from labguest import BOOT, Guest, need_minivmm
from test_bios import GRUB_MENU, IMAGES, run_disk
from test_cli import expect_error, guest, run

KIND = "ssh-ed25519"
KEY = f"{KIND} AAAAC3NzaC1lZDI1NTE5AAAAI{'A' * 43} anna@home"


def run_with_seed(seed, *more, **options):
    arguments = ("--net", "none", "--memory", "16M", "--kernel", guest("poweroff.elf"))
    return run("run", *arguments, "--seed", seed, *more, **options)


def expect_refused(code, words, seed, *more):
    expect_error(code, words, "run", "--net", "none", "--kernel", guest("poweroff.elf"), "--seed", seed, *more)


def test_seed_usage_errors():
    """Words of --seed that make no sense are named, with the mend, before anything runs."""
    expect_refused(2, '--seed: option "kye" is not known\nhint: did you mean "key"', f"kye={KEY}")
    expect_refused(2, "is not known\nhint: there are: user, key, password, hostname", "")
    expect_refused(2, "--seed: key needs a value", "key")
    expect_refused(2, "nobody could log in\nhint: .*key=FILE.pub", "user=anna,hostname=web1")
    expect_refused(2, 'user "" is no user', f"user=,key={KEY}")
    expect_refused(2, 'user "Anna" is no user.*\nhint: a small letter', f"user=Anna,key={KEY}")
    expect_refused(2, 'hostname "-web" is no host', f"key={KEY},hostname=-web")
    expect_refused(2, "password is empty", "password=")
    expect_refused(2, "password holds a control character", "password=a\nb")
    expect_refused(2, "is no public ssh key", f"key={KIND} AAAA")
    expect_refused(2, "--seed: key needs a file", "key=")
    expect_refused(2, "--seed: key is given twice", f"key={KEY},key={KEY}")
    expect_refused(2, "--seed: user is given twice", f"user=a,user=b,key={KEY}")
    expect_refused(2, "--seed can be given once", f"key={KEY}", "--seed", f"key={KEY}")


def test_seed_key_files():
    """A key file that is missing, private, empty, huge, binary, a folder or something else is named; a good one, one in
    the home folder too, is taken."""
    with tempfile.TemporaryDirectory() as folder:
        there = Path(folder)
        expect_refused(3, "key file .*nowhere.pub: No such file.*\nhint: ssh-keygen", f"key={there}/nowhere.pub")
        for name, content, words in (
            ("private", b"-----BEGIN OPENSSH PRIVATE KEY-----\n", "private key\nhint: the public one.*[.]pub"),
            ("empty", b"", "keys are empty"),
            ("comment", b"# none yet\n\n", "keys are empty"),
            ("text", b"my key is under the mat\n", "is no public ssh key\nhint: .*ssh-ed25519"),
            ("huge", KEY.encode() + b"\n" * (65 << 10), "huge is no file of public keys"),
            ("binary", KEY.encode() + b"\0\n", "binary is no file of public keys"),
            ("second", f"{KEY}\n{KIND} AAAA\n".encode(), "is no public ssh key"),
        ):
            (there / name).write_bytes(content)
            expect_refused(2, words, f"user=anna,key={there}/{name}")
        expect_refused(1, f"cannot read the key file {folder}: Is a directory", f"key={folder}")
        (there / "id.pub").write_text(f"# of both machines\n{KEY}\n\n{KEY}2\n")
        home = {**os.environ, "HOME": folder}
        for name in (f"{folder}/id.pub", "~/id.pub", KEY):
            result = run_with_seed(f"user=anna,key={name}", env=home)
            assert result.returncode == 0, result


def test_a_seed_needs_a_place():
    """The seed is a disk, one more than those that are named: where there is room for none, that is said."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        disks = []
        for number in range(19):
            path = Path(folder, f"{number}.img")
            path.write_bytes(bytes(512))
            disks += ["--disk", str(path)]
        expect_refused(2, "at most [0-9]+ disks", f"key={KEY}", *disks[:38])
        result = run_with_seed(f"key={KEY}", *disks[:36])
        assert result.returncode == 0, result


def test_a_guest_finds_the_seed(host):
    """The seed is the last disk, read-only, an ISO 9660 file system with the label that cloud-init looks for, and has
    in it what was said."""
    need_minivmm()
    host.run("truncate -s 1M /root/data.img", check=True)
    seed = f"user=anna,hostname=web1,key={KEY}"
    with Guest(host, f"--net none --disk /root/data.img --seed '{seed}'") as vm:
        # The guest has no driver for CDs: the volume descriptor's own words.
        assert vm.run("dd if=/dev/vdb bs=1 skip=32769 count=5 2>/dev/null") == "CD001"
        assert vm.run("dd if=/dev/vdb bs=1 skip=32808 count=32 2>/dev/null").rstrip() == "cidata"
        assert vm.run("cat /sys/class/block/vdb/ro /sys/class/block/vda/ro").split() == ["1", "0"]
        for words in ("#cloud-config", 'name: "anna"', 'local-hostname: "web1"', KEY):
            vm.run(f"tr '\\0' '\\n' </dev/vdb | grep -qF '{words}'")
        assert vm.power_off() == 0
    host.run("rm /root/data.img")


def make_key(folder):
    subprocess.run([find_program("ssh-keygen"), "-q", "-t", "ed25519", "-N", "", "-C", "anna@home", "-f",
                    Path(folder, "id")], check=True)
    return Path(folder, "id"), Path(folder, "id.pub")


def test_cloud_init_makes_the_account(lab):
    """Debian with cloud-init, as images/debian makes it, boots to its login prompt; the name that --seed gives is its
    hostname, the user comes in by ssh with his key through a forwarded port, and may use sudo."""
    need_minivmm()
    host = lab.furnish(lab.host("cloud", memory=2000, disks=[IMAGES.cloud_disk()], snapshot=True))
    host.install(find_program("ssh"))
    host.start()
    with tempfile.TemporaryDirectory() as folder:
        private, public = make_key(folder)
        host.put(private, "/root/id")
        host.put(public, "/root/id.pub")
    host.run("chmod 600 /root/id", check=True)
    ssh = ("ssh -i /root/id -p 2222 -o BatchMode=yes -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null"
           " -o LogLevel=ERROR anna@127.0.0.1")
    options = "--memory 512M -p 2222:22 --seed user=anna,key=/root/id.pub,hostname=web1"
    with run_disk(host, "/dev/vda", options) as vm:
        vm.wait_for(GRUB_MENU, timeout=BOOT)
        vm.wait_for(r"login: ", timeout=900)  # the name before it may have cloud-init's own words behind it
        # cloud-init may still be at work, and sshd about to be started anew with host keys.
        host.run(f"until {ssh} true; do sleep 1; done", timeout=300, check=True)
        told = host.run(f"{ssh} 'hostname; id -un; sudo -n id -un; cloud-init status --wait'", timeout=600)
        assert re.fullmatch(r"web1\nanna\nroot\n[.]*\n?status: done\n", told.out), told
        host.run(f"{ssh} sudo poweroff", timeout=60)
        assert vm.wait(200) == 0


test_cloud_init_makes_the_account.slow = True
test_cloud_init_makes_the_account.time_limit = 1800
