# SPDX-License-Identifier: MIT
"""Disks that boot themselves, through our BIOS, on real kvm-amd in a lab host."""

import functools
import gzip
import re
import subprocess
import tempfile
import time
from pathlib import Path

from labcommon import LabTimeout
from labguest import BOOT, COMPLAINTS, need_minivmm, running
from labimage import Images

IMAGES = Images()

GRUB_MENU = r"GNU GRUB +version"
KEY_UP, KEY_DOWN, KEY_LEFT = b"\x1b[A", b"\x1b[B", b"\x1b[D"


# What images/tiny tells GRUB, and what has its menu wait for a key.
COUNTS_DOWN = b"set default=0\nset timeout=1\n"
WAITS = b"set timeout=-1\n".ljust(len(COUNTS_DOWN), b"\n")


@functools.cache
def packed(path, waits=False):
    disk = Path(path).read_bytes()
    if waits:
        assert disk.count(COUNTS_DOWN) == 1, "not one grub.cfg"
        disk = disk.replace(COUNTS_DOWN, WAITS)
    return gzip.compress(disk, 1)


def put_disk(host, path, to, waits=False):
    """A fresh copy, with a menu that waits for a key if that is wanted; most of a disk is empty, and travels better
    packed."""
    host.put_bytes(packed(path, waits), to + ".gz")
    host.run(f"gunzip -f {to}.gz", check=True)
    return to


def run_disk(host, what, options=""):
    """minivmm run, on a terminal."""
    need_minivmm()
    return running(host, f"minivmm run {what} {options}", terminal=(25, 80))


def wait_for_shell(vm):
    vm.wait_for("minivmm guest up", timeout=BOOT)
    vm.wait_for("# ", timeout=30)


def test_a_disk_boots_itself_and_again(host):
    """`minivmm run tiny.img`, and nothing else: GRUB, Linux, a shell, the network, a web page through a forwarded port.
    A reboot goes through the firmware again, and what was written is there; poweroff ends with exit code 0."""
    disk = put_disk(host, IMAGES.tiny_disk(), "/root/tiny.img")
    with run_disk(host, disk, "-p 8081:80") as vm:
        vm.wait_for("tiny.img is a raw disk")
        vm.wait_for(GRUB_MENU, timeout=BOOT)
        wait_for_shell(vm)
        vm.write(b"echo kept >/root/kept; dmesg | grep -cE '%s'\r" % COMPLAINTS.encode())
        vm.wait_for(r"^0\r*$", timeout=30)
        for _ in range(60):
            page = host.run("wget -q -O - http://127.0.0.1:8081/")
            if page.code == 0:
                break
        assert page.code == 0 and "tiny" in page.out, f"no page: {page}"
        vm.write(b"reboot\r")
        vm.wait_for(GRUB_MENU, timeout=BOOT)
        wait_for_shell(vm)
        vm.write(b"cat /root/kept\r")
        vm.wait_for(r"^kept\r*$", timeout=30)
        vm.write(b"poweroff\r")
        assert vm.wait(60) == 0


test_a_disk_boots_itself_and_again.slow = True  # quickstart does it; the menu and GRUB's rescue images stay


def test_the_menu_is_driven_by_keys(host):
    """GRUB's menu takes arrows and Enter over the serial console: the entry that powers off ends with exit code 0."""
    disk = put_disk(host, IMAGES.tiny_disk(), "/root/tiny.img", waits=True)
    with run_disk(host, disk, "--ephemeral") as vm:
        vm.wait_for(GRUB_MENU, timeout=BOOT)
        vm.write(KEY_DOWN * 3 + KEY_UP + KEY_DOWN + b"\r")
        assert vm.wait(60) == 0


def test_what_an_ephemeral_guest_writes_is_forgotten(host):
    """With --ephemeral the guest writes as it likes; the image's bytes stay as they were, and nothing is left behind."""
    disk = put_disk(host, IMAGES.tiny_disk(), "/root/tiny.img")
    before = host.run(f"sha256sum {disk}; ls -A /tmp", check=True).out
    with run_disk(host, disk, "--ephemeral") as vm:
        wait_for_shell(vm)
        vm.write(b"dd if=/dev/urandom of=/root/noise bs=1M count=4 && sync && echo writ''ten && poweroff\r")
        vm.wait_for("written", timeout=60)
        assert vm.wait(60) == 0
    assert host.run(f"sha256sum {disk}; ls -A /tmp", check=True).out == before


test_what_an_ephemeral_guest_writes_is_forgotten.slow = True  # tiny guests look at the same overlay


def test_a_qcow2_disk_boots(host):
    """The same disk as qcow2, compressed: found to be qcow2, boots, keeps what is written."""
    with tempfile.TemporaryDirectory() as folder:
        image = Path(folder, "tiny.qcow2")
        subprocess.run(["qemu-img", "convert", "-q", "-c", "-O", "qcow2", IMAGES.tiny_disk(), image], check=True)
        host.put_bytes(image.read_bytes(), "/root/tiny.qcow2")
        with run_disk(host, "/root/tiny.qcow2") as vm:
            vm.wait_for("tiny.qcow2 is a qcow2 disk")
            wait_for_shell(vm)
            vm.write(b"dd if=/dev/zero bs=1M count=3 of=/root/zeroes && echo kept >/root/kept && reboot\r")
            vm.wait_for(GRUB_MENU, timeout=BOOT)
            wait_for_shell(vm)
            vm.write(b"cat /root/kept && poweroff\r")
            vm.wait_for(r"^kept\r*$", timeout=30)
            assert vm.wait(60) == 0
        image.write_bytes(host.get_bytes("/root/tiny.qcow2"))
        subprocess.run(["qemu-img", "check", "-q", image], check=True)
    host.run("rm /root/tiny.qcow2")


test_a_qcow2_disk_boots.slow = True  # half a minute; that a raw one boots, and what qcow2 reads, is looked at by others


def use_grub_by_our_console(host, image, drive):
    """GRUB's rescue images know nothing of a serial port: their text comes by INT 10h, their keys by INT 16h."""
    disk = put_disk(host, IMAGES.package("grub-rescue-pc") / "usr/lib/grub-rescue" / image, f"/root/{image}")
    with run_disk(host, disk, "--ephemeral") as vm:
        vm.wait_for(GRUB_MENU, timeout=BOOT)
        vm.write(b"c")
        vm.wait_for("grub> ", timeout=BOOT)
        vm.write(b"ecoh by our keys" + KEY_LEFT * 12 + b"\x7f\x7fho\r")  # mended with arrows and backspace
        vm.wait_for(r"[\nH]by our keys", timeout=30)
        vm.write(b"ls\r")
        vm.wait_for(rf"\({drive}\)", timeout=30)
        vm.write(b"halt\r")
        assert vm.wait(60) == 0


def test_grub_rescue_images(host):
    """Debian's GRUB rescue CD and floppy image, both file systems of a CD, boot by El Torito and talk to a person
    through our BIOS alone."""
    use_grub_by_our_console(host, "grub-rescue-cdrom.iso", "cd")
    use_grub_by_our_console(host, "grub-rescue-floppy.img", "cd")


def press_until(vm, key, words):
    """Again and again: who listens is not always there, or not for long."""
    end = time.monotonic() + 60
    while True:
        vm.write(key)
        try:
            return vm.wait_for(words, timeout=0.3)
        except LabTimeout:
            if time.monotonic() > end:
                raise


def test_ipxe_iso(host):
    """iPXE's ISO boots by El Torito and ISOLINUX, finds our network card, and gets an address over it."""
    disk = put_disk(host, IMAGES.package("ipxe") / "usr/lib/ipxe/ipxe.iso", "/root/ipxe.iso")
    with run_disk(host, disk) as vm:
        vm.wait_for("Ctrl-B", timeout=BOOT)
        press_until(vm, b"\x02", "iPXE> ")  # it listens for two seconds only
        vm.write(b"\r")  # behind the keys that came too many
        vm.wait_for("iPXE> ", timeout=30)
        vm.write(b"dhcp && show net0/ip\r")
        vm.wait_for(r"10\.0\.2\.15", timeout=60)
        vm.write(b"\x01x")
        assert vm.wait(60) == 0


def test_memtest86(host):
    """Memtest86+, a Linux kernel by its boot protocol only, runs and finds no fault."""
    host.put(IMAGES.package("memtest86+") / "boot/memtest86+x64.bin", "/root/memtest.bin")
    with run_disk(host, "--kernel /root/memtest.bin --cmdline console=ttyS0,115200 --memory 64M") as vm:
        vm.wait_for("Memtest86", timeout=BOOT)
        vm.wait_for(r"Pass", timeout=60)
        vm.wait_for(r"\d+%", timeout=60)
        vm.write(b"\x01x")
        assert vm.wait(60) == 0
