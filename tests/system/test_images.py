# SPDX-License-Identifier: MIT
"""What `minivmm run IMAGE` says of images that cannot be. On this machine; no lab host is needed."""

import os
import struct
import subprocess
import tempfile
from pathlib import Path

from labguest import need_minivmm
from test_cli import expect_error, guest, run


def qemu_img(*arguments):
    subprocess.run(["qemu-img", *map(str, arguments)], check=True, capture_output=True)


def expect_no_boot(code, words, *arguments):
    """With a kernel of its own the machine would run: it is the image that is refused."""
    need_minivmm()
    guest("poweroff.elf")
    expect_error(code, words, "run", "--net", "none", *map(str, arguments))


def test_no_image_at_all():
    """Missing, empty, a folder, a text, a device that is no disk, another format: one line each."""
    with tempfile.TemporaryDirectory() as folder:
        there = Path(folder)
        expect_no_boot(3, "nowhere.img: No such file", there / "nowhere.img")
        (there / "empty.img").touch()
        expect_no_boot(5, "empty.img is empty\nhint: ", there / "empty.img")
        expect_no_boot(5, "is a directory", there)
        (there / "text.img").write_text("This is no disk.\n")
        expect_no_boot(5, "text.img.*text", there / "text.img")
        expect_no_boot(5, "neither a file nor a block device", "/dev/null")
        (there / "packed.img").write_bytes(b"\x1f\x8b\x08\0" + bytes(1020))
        expect_no_boot(5, "gzip.*\nhint: .*gunzip", there / "packed.img")
        qemu_img("create", "-f", "vmdk", there / "a.vmdk", "1M")
        expect_no_boot(5, "VMDK.*\nhint: .*qemu-img convert", there / "a.vmdk")


def test_nothing_bootable():
    """The sentence lists each disk that was tried, and why it was not it."""
    need_minivmm()
    guest("poweroff.elf")
    with tempfile.TemporaryDirectory() as folder:
        zeroes, words = Path(folder, "zeroes.img"), Path(folder, "data.img")
        zeroes.write_bytes(bytes(1 << 20))
        words.write_bytes(b"\xfa" * (1 << 20))
        result = run("run", "--net", "none", str(zeroes), "--disk", str(words))
        assert result.returncode == 1, result
        assert "no bootable disk: " in result.stderr, result.stderr
        assert "zeroes.img" in result.stderr and "data.img" in result.stderr, result.stderr


def corrupt(image, offset, layout, value):
    with open(image, "r+b") as file:
        file.seek(offset)
        file.write(struct.pack(layout, value))


def test_qcow2_that_is_refused():
    """Backing files that are missing, forbidden or in a loop; features that we do not have."""
    with tempfile.TemporaryDirectory() as folder:
        there = Path(folder)
        base, top = there / "base.qcow2", there / "top.qcow2"
        qemu_img("create", "-f", "qcow2", base, "1M")
        qemu_img("create", "-f", "qcow2", "-b", base, "-F", "qcow2", top)
        expect_no_boot(5, "top.qcow2 stands on another image, .*base.qcow2.*\nhint: .*,backing", top)
        base.unlink()
        expect_no_boot(3, "base.qcow2: No such file", "--disk", f"{top},backing")
        qemu_img("create", "-f", "qcow2", "-u", "-b", top, "-F", "qcow2", base, "1M")
        expect_no_boot(5, "loop|itself", "--disk", f"{top},backing")
        strange = there / "strange.qcow2"
        qemu_img("create", "-f", "qcow2", strange, "1M")
        corrupt(strange, 72, ">Q", 1 << 40)
        expect_no_boot(5, "strange.qcow2.*feature", strange)
        secret = there / "secret.qcow2"
        qemu_img("create", "-f", "qcow2", secret, "1M")
        corrupt(secret, 32, ">I", 2)
        expect_no_boot(5, "secret.qcow2.*encrypted", secret)
        apart = there / "apart.qcow2"
        qemu_img("create", "-f", "qcow2", "-o", f"data_file={there}/data,data_file_raw=on", apart, "1M")
        expect_no_boot(5, "apart.qcow2.*(external|data file)", apart)


def test_large_qcow2_on_a_small_disk():
    """3 TiB that lie nowhere yet are a disk like any other: this one has no boot sector."""
    need_minivmm()
    guest("poweroff.elf")
    with tempfile.TemporaryDirectory() as folder:
        large = Path(folder, "large.qcow2")
        qemu_img("create", "-f", "qcow2", large, "3T")
        result = run("run", "--net", "none", str(large))
        assert result.returncode == 1 and "no bootable disk" in result.stderr, result
        assert os.stat(large).st_blocks < 4096


def test_a_raw_disk_stays_raw():
    """What was found raw once is raw, also after its guest has written the header of another format to it."""
    need_minivmm()
    guest("poweroff.elf")
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        disk, other = Path(folder, "disk.img"), Path(folder, "other.qcow2")
        disk.write_bytes(bytes(1 << 20))
        assert "disk.img is a raw disk" in run("run", "--net", "none", str(disk)).stderr
        qemu_img("create", "-f", "qcow2", other, "1M")
        header = other.read_bytes()[:512]
        with open(disk, "r+b") as file:  # as the guest would
            file.write(header)
        assert "disk.img is a raw disk" in run("run", "--net", "none", str(disk)).stderr
