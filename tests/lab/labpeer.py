# SPDX-License-Identifier: MIT
"""QEMU inside a lab host, as the peer that minivmm's benchmarks are measured against.

It is this machine's own QEMU with its libraries and the firmware that its machines pc, q35 and
microvm load, on a small read-only disk that init mounts at /opt. Inside it is started as anywhere:

    qemu-system-x86_64 -enable-kvm -M microvm -m 256 -nodefaults -display none -serial stdio ...

Network cards want `romfile=` there: boot ROMs for them are not packed.
"""

import shutil
import tempfile
from pathlib import Path

from labcommon import LabError, find_program, run_tool
from lablibs import shared_libraries

FIRMWARE_FOLDERS = ("/usr/share/qemu", "/usr/share/seabios")
FIRMWARE = (
    "bios-256k.bin",
    "bios-microvm.bin",
    "kvmvapic.bin",
    "linuxboot.bin",
    "linuxboot_dma.bin",
    "multiboot.bin",
    "multiboot_dma.bin",
    "pvh.bin",
    "qboot.rom",
)

# The loader is called by name, because a lab host has the libraries of other programs in /lib.
WRAPPER = """\
#!/bin/sh
# SPDX-License-Identifier: MIT
exec /opt/lib/ld-linux-x86-64.so.2 --library-path /opt/lib /opt/lib/qemu -L /opt/share "$@"
"""


def qemu_disk(images):
    """The disk image with QEMU, built once for each version of QEMU."""
    program = find_program("qemu-system-x86_64")
    return images.cached("lab-qemu", [Path(program), Path(__file__)], lambda to: _build(to, program))


def _build(to, program):
    find_program("mke2fs")
    with tempfile.TemporaryDirectory(dir=to.parent) as work:
        root = Path(work)
        for folder in ("bin", "lib", "share"):
            (root / folder).mkdir()
        shutil.copy(program, root / "lib/qemu")
        for library in shared_libraries(program):
            shutil.copy(library, root / "lib")
        for name in FIRMWARE:
            shutil.copy(_firmware(name), root / "share")
        wrapper = root / "bin/qemu-system-x86_64"
        wrapper.write_text(WRAPPER)
        wrapper.chmod(0o755)
        size = sum(path.stat().st_size for path in root.rglob("*") if path.is_file())
        blocks = size * 11 // 10 // 1024 + 4096
        # No journal: nobody writes to it.
        mke2fs = [find_program("mke2fs"), "-q", "-t", "ext4", "-O", "^has_journal", "-m", "0"]
        run_tool([*mke2fs, "-b", "1024", "-d", root, to, f"{blocks}"], "build the disk with QEMU")


def _firmware(name):
    for folder in FIRMWARE_FOLDERS:
        if (Path(folder) / name).exists():
            return Path(folder) / name
    raise LabError(f"cannot find QEMU's {name}; hint: sudo apt-get install qemu-system-x86 seabios")
