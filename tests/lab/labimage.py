# SPDX-License-Identifier: MIT
"""Builds what a lab host boots: Debian's cloud kernel, and an initramfs of BusyBox, modules and agent.

Everything is kept in the images folder under names that hold a hash of all inputs, so that a build
that has nothing to do takes milliseconds, and two versions of this program can share the folder.
What has not been used for a day goes when something new is built.
"""

import functools
import hashlib
import os
import subprocess
import tempfile
import time
from pathlib import Path

from labcommon import HERE, REPOSITORY, LabError, find_program, images_dir, locked, run_tool
from labcpio import CpioWriter

# The modules of a lab host, with what they depend on. init loads those that every host needs; the
# rest is there for tests to use.
MODULES = """
    kvm-amd virtio_pci virtio_console virtio_net virtio_blk virtio-rng tun tap bridge vhost_net
    vhost_vsock vsock_loopback vmw_vsock_virtio_transport loop veth dummy xfs btrfs overlay nfsd nfsv4
""".split()

KEEP_UNUSED = 24 * 60 * 60

COMPILER_FLAGS = ["-std=gnu17", "-D_GNU_SOURCE", "-O2", "-Wall", "-Wextra", "-static"]


class Images:
    """The images folder. Each method makes sure, once, that what it returns is there and up to date."""

    def __init__(self, build=None):
        self.folder = images_dir(build)

    @functools.cache
    def kernel(self):
        self._script("fetch-kernel")
        return self.folder / "vmlinuz"

    @functools.cache
    def guest_initramfs(self):
        """The initramfs of a small guest, for minivmm to boot inside a lab host."""
        self._script("make-guest")
        return self.folder / "guest.cpio.gz"

    @functools.cache
    def test_guest_initramfs(self):
        """The same guest with `probe` in it, the program that checks data, for system tests."""
        guest, probe = self.guest_initramfs(), self.probe()
        inputs = [guest, probe, Path(__file__), HERE / "labcpio.py"]
        return self.cached("test-guest", inputs, lambda to: _write_test_guest(to, guest, probe))

    @functools.cache
    def tiny_disk(self, mbr=False):
        """A small disk that boots by itself: GRUB, Debian's kernel, BusyBox. It has a GPT, or just an MBR."""
        if mbr:
            self._script("tiny", "--mbr", self.folder)
            return self.folder / "tiny-mbr.img"
        self._script("tiny")
        return self.folder / "tiny.img"

    @functools.cache
    def cloud_disk(self):
        """Debian 12 with cloud-init. Its building takes minutes: for slow tests."""
        find_program("mmdebstrap")
        folder = self.folder / "cloud"
        self._script("debian", "--cloud-init", folder)
        return folder / "debian.img"

    @functools.cache
    def superfloppy(self):
        """A disk without partitions: a FAT file system whose own boot sector is SYSLINUX, Linux, a small guest."""
        syslinux = self.package("syslinux") / "usr/bin/syslinux"
        mtools = self.package("mtools") / "usr/bin"
        files = {"vmlinuz": self.kernel().resolve(), "guest.gz": self.guest_initramfs()}
        inputs = [syslinux, mtools / "mtools", *files.values(), Path(__file__)]
        return self.cached("superfloppy", inputs, lambda to: _write_superfloppy(to, syslinux, mtools, files))

    def package(self, name):
        """The folder with an unpacked Debian package."""
        folder = self.folder / "packages" / name
        self._script("fetch-package", folder, name)
        return folder

    @functools.cache
    def agent(self):
        source = HERE / "agent.c"
        return self.cached("lab-agent", [source], lambda to: _compile([source], to, "the lab's agent"))

    @functools.cache
    def probe(self):
        """Static, so that it runs in lab hosts and in guests; see probe/probe.h."""
        files = sorted((HERE / "probe").glob("*.[ch]"))
        sources = [path for path in files if path.suffix == ".c"]
        return self.cached("lab-probe", files, lambda to: _compile(sources, to, "probe"))

    @functools.cache
    def host_initramfs(self):
        kernel = self.kernel().resolve()
        busybox = _static_busybox()
        init, agent = HERE / "init", self.agent()
        modules = (self.folder / "modules").resolve()
        # The kernel's name holds its version, and stands for all its modules.
        inputs = [kernel, busybox, init, agent, Path(__file__), HERE / "labcpio.py"]
        return self.cached(
            "lab-host", inputs, lambda to: _write_host_initramfs(to, busybox, init, agent, modules)
        )

    def _script(self, name, *arguments):
        # Not run_tool: these may download for a while, and then it is good to hear from them.
        command = [REPOSITORY / "images" / name, *(arguments or [self.folder])]
        self.folder.mkdir(parents=True, exist_ok=True)
        with locked(self.folder):
            code = subprocess.run(command, stdin=subprocess.DEVNULL).returncode
        if code != 0:
            raise LabError(f"cannot prepare {self.folder}; hint: the line above says why")

    def cached(self, name, inputs, make):
        """The file `name-HASH`, made by make(path) if it is not there; older ones are removed."""
        digest = hashlib.sha256()
        for path in inputs:
            digest.update(path.name.encode() + b"\0")
            digest.update(hashlib.sha256(path.read_bytes()).digest())
        result = self.folder / f"{name}-{digest.hexdigest()[:16]}"
        self.folder.mkdir(parents=True, exist_ok=True)
        with locked(self.folder):
            self._make(name, result, make)
        os.utime(result)
        return result

    def _make(self, name, result, make):
        if not result.exists():
            with tempfile.TemporaryDirectory(dir=self.folder, prefix=f".{name}-") as work:
                make(Path(work) / name)
                os.replace(Path(work) / name, result)
            self._remove_unused(name)

    def _remove_unused(self, name):
        for path in self.folder.glob(f"{name}-*"):
            if time.time() - path.stat().st_mtime > KEEP_UNUSED:
                path.unlink(missing_ok=True)


def _static_busybox():
    path = Path(find_program("busybox"))
    if subprocess.run(["ldd", path], capture_output=True).returncode == 0:
        raise LabError(f"{path} is not statically linked; hint: sudo apt-get install busybox-static")
    return path


def _compile(sources, to, what):
    compiler = os.environ.get("CC", "cc").split()
    find_program(compiler[0])
    run_tool([*compiler, *COMPILER_FLAGS, "-o", to, *sources], f"compile {what}")


SUPERFLOPPY_MENU = b"""\
SERIAL 0 115200
PROMPT 1
TIMEOUT 600
DEFAULT nothing
LABEL small
  LINUX vmlinuz
  INITRD guest.gz
  APPEND console=ttyS0 quiet
"""


def _write_superfloppy(to, syslinux, mtools, files):
    # mformat asks a real disk for its geometry; a file has none.
    sectors, heads, track = 24 << 11, 16, 63
    with open(to, "wb") as stream:
        stream.truncate(sectors * 512)
    geometry = ["-T", str(sectors), "-h", str(heads), "-s", str(track)]
    run_tool([mtools / "mformat", "-i", to, *geometry, "::"], "make a FAT file system")
    menu = to.with_name("syslinux.cfg")
    menu.write_bytes(SUPERFLOPPY_MENU)
    for name, path in {"syslinux.cfg": menu, **files}.items():
        run_tool([mtools / "mcopy", "-i", to, path, f"::{name}"], f"copy {path} to a FAT file system")
    # It calls mtools by their names.
    environment = {**os.environ, "PATH": f"{mtools}{os.pathsep}{os.environ.get('PATH', os.defpath)}"}
    run_tool([syslinux, "--install", to], "install SYSLINUX", env=environment)


def _write_test_guest(to, guest, probe):
    with open(to, "wb") as stream:
        stream.write(guest.read_bytes())
        # What follows a compressed archive begins at a multiple of 4.
        stream.write(b"\0" * (-stream.tell() % 4))
        cpio = CpioWriter(stream)
        cpio.file("bin/probe", probe.read_bytes(), 0o755)
        cpio.finish()


def _write_host_initramfs(to, busybox, init, agent, modules):
    with open(to, "wb") as stream:
        cpio = CpioWriter(stream)
        for folder in "dev proc sys run tmp root opt etc lib usr var/log".split():
            cpio.folder(folder)
        # One folder of programs and one of libraries, whatever name a program uses for them.
        for link, target in (
            ("sbin", "bin"),
            ("lib64", "lib"),
            ("usr/bin", "../bin"),
            ("usr/sbin", "../bin"),
            ("usr/lib", "../lib"),
            ("usr/lib64", "../lib"),
            ("var/run", "../run"),
            ("etc/mtab", "/proc/mounts"),
        ):
            cpio.symlink(link, target)
        cpio.copy("bin/busybox", busybox)
        for applet in run_tool([busybox, "--list"], "list busybox's applets").split():
            if applet != "busybox":
                cpio.symlink(f"bin/{applet}", "busybox")
        cpio.copy("init", init)
        cpio.copy("bin/agent", agent)
        cpio.file("etc/passwd", b"root::0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/sh\n")
        cpio.file("etc/group", b"root:x:0:\nkvm:x:101:\nnogroup:x:65534:\n")
        cpio.file("etc/profile", b"export PS1='\\h:\\w# '\n")
        for name, data in _pack_modules(modules).items():
            cpio.file(name, data)
        cpio.finish()


def _pack_modules(modules):
    """The wanted modules with their dependencies and a fresh index, as {name in the archive: bytes}.

    Debian makes the index when a kernel is installed, which ours never was.
    """
    version = modules.name
    depmod = find_program("depmod")
    with tempfile.TemporaryDirectory() as work:
        # depmod writes beside what it reads, and the kernel tree is not ours to change.
        index = Path(work, "lib/modules", version)
        index.mkdir(parents=True)
        for entry in modules.iterdir():
            (index / entry.name).symlink_to(entry)
        run_tool([depmod, "-b", work, version], "index the kernel's modules")
        depends = {}
        for line in (index / "modules.dep").read_text().splitlines():
            path, _, needs = line.partition(":")
            depends[path] = needs.split()
        by_name = {_module_name(path): path for path in depends}

        chosen = set()
        for name in MODULES:
            path = by_name.get(_module_name(name))
            if path is None:
                raise LabError(f"the kernel {version} has no module {name}; hint: see MODULES in {__file__}")
            chosen.update([path, *depends[path]])

        packed = {}
        small = Path(work, "small")
        for path in sorted(chosen):
            data = (modules / path).read_bytes()
            packed[f"lib/modules/{version}/{path}"] = data
            copy = small / "lib/modules" / version / path
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(data)
        for name in ("modules.builtin", "modules.order"):
            (small / "lib/modules" / version / name).write_bytes((modules / name).read_bytes())
        run_tool([depmod, "-b", small, version], "index the lab's modules")
        for name in ("modules.dep", "modules.alias", "modules.symbols", "modules.builtin"):
            source = small / "lib/modules" / version / name
            packed[f"lib/modules/{version}/{name}"] = source.read_bytes()
    return packed


def _module_name(path):
    """Modules are known by their file's name, where - and _ are the same letter."""
    return os.path.basename(path).removesuffix(".ko").replace("-", "_")
