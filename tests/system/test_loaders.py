# SPDX-License-Identifier: MIT
"""Other people's ways to begin than a GPT with GRUB: each boots in a lab host."""

from pathlib import Path

from labguest import BOOT
from test_bios import GRUB_MENU, IMAGES, put_disk, run_disk, wait_for_shell

INSTALLER = "usr/lib/debian-installer/images/12/amd64/text/debian-installer/amd64"


def test_a_disk_with_an_mbr_boots(host):
    """A disk whose partition table is the old one, GRUB in the gap before its only partition, boots to a shell."""
    image = IMAGES.tiny_disk(mbr=True)
    with open(image, "rb") as file:
        sectors = file.read(1024)
    assert sectors[450] == 0x83 and sectors[512:520] != b"EFI PART"
    with run_disk(host, put_disk(host, image, "/root/mbr.img")) as vm:
        vm.wait_for(GRUB_MENU, timeout=BOOT)
        wait_for_shell(vm)
        vm.write(b"cat /sys/class/block/vda1/start; mount\r")
        vm.wait_for(r"^2048\r*$", timeout=30)
        vm.wait_for("/dev/(root|vda1) on / type ext4", timeout=30)
        vm.write(b"poweroff\r")
        assert vm.wait(60) == 0
    host.run("rm /root/mbr.img")


test_a_disk_with_an_mbr_boots.slow = True  # half a minute; the superfloppy goes the same way but for one sector


def test_a_superfloppy_boots(host):
    """A FAT file system that is the whole disk, partition table none, boots by SYSLINUX: its prompt takes our keys, it
    reads kernel and initrd through our INT 13h, and the kernel begins in real mode with our INT 10h, 15h and 16h."""
    host.put(IMAGES.superfloppy(), "/root/superfloppy.img")
    with run_disk(host, "/root/superfloppy.img") as vm:
        vm.wait_for("SYSLINUX [0-9.]+", timeout=BOOT)
        vm.wait_for("boot: ", timeout=30)
        vm.write(b"smell\x7f\x7f\x7fall\r")
        wait_for_shell(vm)
        # In two parts, so that it is not our own echo, torn by what else the guest says, that is found.
        vm.write(b"ls /sys/class/block; echo loo''ked\r")
        seen = vm.wait_for(r"looked").string
        assert b"vda" in bytes(seen) and b"vda1" not in bytes(seen)
        vm.write(b"poweroff\r")
        assert vm.wait(60) == 0
    host.run("rm /root/superfloppy.img")


def test_memtest86_image(host):
    """Memtest86+'s ISO is a disk too (as a CD it wants a floppy emulated): its first sector is memtest's own loader,
    which reads the rest by INT 13h, AH=42h, and then it goes over all of the memory. Its screen is one that we have
    not: what is seen is the memory that it uses."""
    host.put(IMAGES.package("memtest86+") / "usr/lib/memtest86+/memtest86+x64.iso", "/root/memtest.iso")
    with run_disk(host, "/root/memtest.iso", "--memory 64M") as vm:
        vm.wait_for(r"Loading Memtest86\+", timeout=BOOT)
        used = "$(sed -n 's/VmRSS:[^0-9]*//p' /proc/$(pidof minivmm)/status | cut -d' ' -f1)"
        host.run(f"until [ {used} -gt {62 << 10} ]; do usleep 100000; done", timeout=60, check=True)
        vm.write(b"\x01x")
        assert vm.wait(60) == 0
    host.run("rm /root/memtest.iso")


def test_the_debian_installer(host):
    """Debian's installer, kernel and initrd as they are packaged, comes to its first question on the serial console."""
    folder = Path(IMAGES.package("debian-installer-12-netboot-amd64"), INSTALLER)
    host.put(folder / "linux", "/root/installer")
    host.put(folder / "initrd.gz", "/root/installer.gz")
    options = "--memory 900M --cmdline 'console=ttyS0 quiet DEBIAN_FRONTEND=text'"
    with run_disk(host, f"--kernel /root/installer --initrd /root/installer.gz {options}") as vm:
        vm.wait_for("Select a language", timeout=200)
        vm.wait_for(r"English", timeout=60)
        vm.write(b"\x01x")
        assert vm.wait(60) == 0
    host.run("rm /root/installer /root/installer.gz")


test_the_debian_installer.slow = True  # a minute and more, most of it the installer's own start
