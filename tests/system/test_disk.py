# SPDX-License-Identifier: MIT
"""Disks: stock Linux with ext4 on virtio-blk, power cuts, hosts that fail, and what is refused by name."""

import re
import signal
import subprocess
import tempfile
import time
from pathlib import Path

from labcommon import Skip, find_program
from labguest import VMM, Guest, need_minivmm
from test_cli import MINIVMM, expect_error, guest


def install_tools(host):
    """e2fsprogs, for file systems with a journal, which BusyBox cannot make or check."""
    if host.run("test -x /bin/mkfs.ext4").code != 0:
        host.install(find_program("e2fsck"))
        host.install(find_program("mke2fs"), "/bin/mkfs.ext4")


def make_disk(host, path, size="32M", filesystem=False):
    host.run(f"rm -f {path}; truncate -s {size} {path}", check=True)
    if filesystem:
        install_tools(host)
        host.run(f"mkfs.ext4 -q {path}", check=True)


def remove(host, *paths):
    host.run("rm -rf " + " ".join(paths), check=True)


def cut_power_while_writing(host, options, folder):
    """The number of files that the guest saw synced before its VMM was killed."""
    with Guest(host, options) as vm:
        vm.run(f"mount /dev/vda /mnt && mkdir /mnt/{folder}")
        vm.send(f"dd if=/dev/zero of=/mnt/unsynced bs=64k count=400 & probe files write /mnt/{folder} count=5000")
        vm.job.wait_for(r"^synced 25\b", timeout=60)
        vm.kill()
        return int(re.findall(r"^synced (\d+)\r?\n", vm.job.out, re.M)[-1]) + 1


def expect_whole(host, path, folder, count):
    """The journal is replayed, so many files are whole, and fsck finds nothing to mend."""
    host.run(f"modprobe loop; mkdir -p /mnt; mount -o loop {path} /mnt", check=True)
    try:
        host.run(f"probe files check /mnt/{folder} count={count}", check=True)
    finally:
        host.run("umount /mnt", check=True)
    result = host.run(f"e2fsck -fn {path}")
    assert result.code == 0, f"e2fsck: exit code {result.code}\n{result.out}{result.err}"


def test_power_cut(host):
    """After SIGKILL in the middle of writing every fsynced file is whole and fsck finds a clean file system."""
    make_disk(host, "/tmp/a.img", "48M", filesystem=True)
    count = cut_power_while_writing(host, "--disk /tmp/a.img,engine=io_uring", "first")
    expect_whole(host, "/tmp/a.img", "first", count)
    # The second run meets what the first has left, with the other engine.
    second = cut_power_while_writing(host, "--cpus 2 --disk /tmp/a.img,engine=threads", "second")
    expect_whole(host, "/tmp/a.img", "first", count)
    expect_whole(host, "/tmp/a.img", "second", second)
    remove(host, "/tmp/a.img")


test_power_cut.slow = True  # what is asked of the host is asked more of by the next one


def test_power_cut_of_the_host(lab):
    """When the whole host loses its power, and what it has not written to its own disk, every file that the guest saw
    synced is there when it is back, and fsck finds nothing to mend."""
    disk = lab.folder / "disk.img"
    with open(disk, "wb") as file:
        file.truncate(192 << 20)
    host = lab.furnish(lab.host("cut", memory=2000, disks=[disk]), tests=True)
    mount = "mkdir -p /data && mount -t ext4 /dev/vda /data"
    engines = {"a": "engine=io_uring", "b": "engine=threads,cache=writethrough"}
    host.start()
    install_tools(host)
    host.run(f"mkfs.ext4 -q /dev/vda && {mount}", check=True)
    for name in engines:
        make_disk(host, f"/data/{name}.img", "48M", filesystem=True)
    # The file system of the host is at rest: from here on its disk gets what the guest's flushes bring there.
    host.run("sync", check=True)
    disks = " ".join(f"--disk /data/{name}.img,{options}" for name, options in engines.items())
    vm = Guest(host, f"--net none {disks}")  # its end is the host's
    vm.run("mkdir /a /b && mount /dev/vda /a && mount /dev/vdb /b && mkdir /a/files /b/files")
    vm.send("for i in a b; do probe files write /$i/files count=5000 |"
            " while read -r words; do echo \"$i $words\"; done & done; wait")
    enough = r"^a synced 25\b[\s\S]*^b synced 25\b", r"^b synced 25\b[\s\S]*^a synced 25\b"
    vm.job.wait_for("|".join(enough), timeout=60)
    host.power_cut()
    host.start()
    install_tools(host)
    host.run(mount, check=True)
    for name in engines:
        count = int(re.findall(rf"^{name} synced (\d+)\r?\n", vm.job.out, re.M)[-1]) + 1
        expect_whole(host, f"/data/{name}.img", "files", count)


def test_a_clone_of_a_guest_that_writes(host):
    """A guest in the middle of writing is cloned, without reflinks: it goes on, and the clone is as after a power cut,
    with every file that was synced before; it boots, as a VM of its own."""
    need_minivmm()
    host.run("rm -rf /root/web1 /root/web2; mkdir /root/web1", check=True)
    make_disk(host, "/root/web1/data.img", "48M", filesystem=True)
    definition = {"disks": [{"file": "data.img", "format": "raw"}], "nets": [], "memory": "256M"}
    with Guest(host, folder="/root/web1", definition=definition) as vm:
        serial = vm.run("cat /sys/block/vda/serial").strip()
        seen = [vm.run("cat /sys/class/dmi/id/product_uuid").strip().lower()]
        vm.run("mount /dev/vda /mnt && mkdir /mnt/first")
        number = vm.send("dd if=/dev/zero of=/mnt/unsynced bs=64k count=200 & probe files write /mnt/first count=150")
        vm.job.wait_for(r"^synced 25\b", timeout=60)
        cloned = host.run("cd /root && minivmm clone web1 web2", timeout=120, check=True)
        assert vm.answer(number)[0] == 0, "the guest's writing failed"
        vm.run("sync && umount /mnt")
        assert vm.power_off() == 0
    expect_whole(host, "/root/web2/data.img", "first", 25)
    expect_whole(host, "/root/web1/data.img", "first", 150)
    with Guest(host, folder="/root/web2") as vm:
        vm.run("mount /dev/vda /mnt && [ $(ls /mnt/first | wc -l) -ge 25 ] && umount /mnt")
        assert len(serial) == 20 and vm.run("cat /sys/block/vda/serial").strip() not in ("", serial)
        seen.append(vm.run("cat /sys/class/dmi/id/product_uuid").strip().lower())
        assert vm.power_off() == 0
    uuids = re.findall(r'"uuid": "(.*?)"', host.run("cat /root/web1/identity.json /root/web2/identity.json", check=True).out)
    assert len(set(uuids)) == 2 and uuids == seen, f"{uuids}, their guests saw {seen}; {cloned}"
    remove(host, "/root/web1", "/root/web2")


test_a_clone_of_a_guest_that_writes.slow = True  # test_clone does it with tiny guests


def test_every_byte_at_every_depth(host):
    """What is written is what is read: depths 1 to 64, blocks of 512 bytes to 256 KiB, two queues on two CPUs,
    io_uring and threads, through the page cache and past it to a block device."""
    for name in "abc":
        make_disk(host, f"/tmp/{name}.img", "8M")
    host.run("modprobe loop; losetup /dev/loop6 /tmp/c.img", check=True)
    options = ("--cpus 2 --disk /tmp/a.img,engine=io_uring,queues=2 --disk /tmp/b.img,engine=threads,queues=2"
               f" --disk /dev/loop6,direct{',queues=1' if VMM == 'minivmm' else ''}")
    try:
        with Guest(host, options) as vm:
            assert vm.run("ls /sys/block/vda/mq /sys/block/vdb/mq").split().count("1") == 2, "no second queue"
            for depth, block, size, ops in ((1, "4k", "512k", 100), (4, "512", "128k", 300), (16, "64k", "8M", 100),
                                            (64, "4k", "4M", 500), (8, "256k", "8M", 20)):
                for disk in "abc" if depth in (1, 64) else "ab":
                    vm.run(f"probe verify /dev/vd{disk} jobs=2 depth={depth} block={block} size={size} ops={ops}")
            vm.expect_clean()
            assert vm.power_off() == 0
    finally:
        host.run("losetup -d /dev/loop6")
    # What the guest wrote is in the file, not only in the VMM's head: the last pattern, read here.
    assert host.run("cmp /tmp/a.img /tmp/b.img").code == 0, "the same writes gave different files"
    remove(host, "/tmp/[abc].img")


def disk_usage(host, path):
    """KiB of the host that a file occupies."""
    return int(host.run(f"du -k {path}", check=True).out.split()[0])


def test_what_a_disk_tells_and_refuses(host):
    """The guest sees serial number, block size, cache mode and the lock on a read-only disk; what it trims is given
    back to the host; what it zeroes reads as zeroes."""
    make_disk(host, "/tmp/a.img", "48M", filesystem=True)
    make_disk(host, "/tmp/b.img", "4M")
    make_disk(host, "/tmp/c.img", "4M")
    host.run("echo read only >/tmp/c.img; truncate -s 4M /tmp/c.img", check=True)
    options = ("--disk /tmp/a.img --disk /tmp/b.img,serial=WEB1-DATA,block-size=4096,cache=writethrough"
               " --disk /tmp/c.img,readonly")
    with Guest(host, options) as vm:
        facts = "$(cat serial)/$(cat queue/logical_block_size)/$(cat queue/write_cache)/$(cat ro)/$(cat size)"
        told = [vm.run(f"cd /sys/block/{disk}; echo {facts}").strip() for disk in ("vda", "vdb", "vdc")]
        assert told == [f"/512/write back/0/{48 << 11}", f"WEB1-DATA/4096/write through/0/{4 << 11}",
                        f"/512/write back/1/{4 << 11}"], told

        code, words = vm.code("dd if=/dev/zero of=/dev/vdc bs=4k count=1 conv=fsync")
        assert code != 0 and re.search("not permitted|Read-only", words), words
        assert vm.run("head -c 9 /dev/vdc") == "read only"

        vm.run("mount /dev/vda /mnt && dd if=/dev/urandom of=/mnt/big bs=1M count=20 && sync", timeout=120)
        full = disk_usage(host, "/tmp/a.img")
        assert full > 20000, full
        vm.run("rm /mnt/big && sync && fstrim /mnt && umount /mnt")
        left = disk_usage(host, "/tmp/a.img")
        assert left < full - 18000, f"{full} KiB before fstrim, {left} after"

        vm.run("probe verify /dev/vdb size=4M block=64k depth=8")
        vm.run("blkdiscard -s /dev/vdb || blkdiscard /dev/vdb")
        assert vm.run("tr -d '\\0' </dev/vdb | wc -c").strip() == "0"
        vm.expect_clean()
        assert vm.power_off() == 0
    assert host.run("head -c 9 /tmp/c.img").out == "read only"
    assert host.run("e2fsck -fn /tmp/a.img").code == 0
    remove(host, "/tmp/[abc].img")


def seconds(vm, command):
    begin = time.monotonic()
    vm.run(command)
    return time.monotonic() - begin


def test_a_host_that_fails(host):
    """A full host disk gives the guest I/O errors, and the person one line; the VM lives, and writes again when there
    is room. A file that shrinks gives I/O errors behind its end. Limits hold."""
    host.run("mkdir -p /tmp/small && mount -t tmpfs -o size=4m none /tmp/small", check=True)
    try:
        make_disk(host, "/tmp/small/a.img", "16M")
        for name in "bcd":
            make_disk(host, f"/tmp/{name}.img", "8M")
        options = ("--disk /tmp/small/a.img --disk /tmp/b.img --disk /tmp/c.img,limit=1M"
                   " --disk /tmp/d.img,limit=200iops")
        with Guest(host, options) as vm:
            for _ in range(3):
                code, words = vm.code("dd if=/dev/zero of=/dev/vda bs=64k oflag=direct")
                assert code != 0 and "error" in words, words
            host.run("mount -o remount,size=32m /tmp/small", check=True)
            vm.run("probe verify /dev/vda block=64k depth=16")
            if VMM == "minivmm":
                lines = [line for line in vm.job.err.splitlines() if "/tmp/small/a.img" in line]
                assert len(lines) == 1 and "No space left" in lines[0], vm.job.err
                host.run("truncate -s 4M /tmp/b.img", check=True)
                vm.run("dd if=/dev/vdb of=/dev/null bs=64k count=64 iflag=direct")
                assert vm.code("dd if=/dev/vdb of=/dev/null bs=64k skip=80 iflag=direct")[0] != 0
            # A second's worth may come at once.
            assert seconds(vm, "dd if=/dev/vdc of=/dev/null bs=64k count=64 iflag=direct") > 2, "4 MiB at 1 MiB/s"
            assert seconds(vm, "dd if=/dev/vdd of=/dev/null bs=4k count=600 iflag=direct") > 1.5, "600 at 200 a second"
            assert vm.power_off() == 0
    finally:
        host.run("umount /tmp/small; rmdir /tmp/small")
    remove(host, "/tmp/[bcd].img")


# --- on this machine, without a lab host --------------------------------------------------------


def run_with(disk, *more):
    """The arguments of a run that needs no network and would power off by itself."""
    return ["run", "--net", "none", "--kernel", guest("poweroff.elf"), "--disk", disk, *more]


def test_bad_disks():
    """A disk that is missing, a directory, another kind of device, empty or of an odd size is named, with its mend."""
    need_minivmm()
    with tempfile.TemporaryDirectory() as folder:
        expect_error(3, "cannot open .*nowhere.img: No such file", *run_with(f"{folder}/nowhere.img"))
        expect_error(5, "is a directory", *run_with(folder))
        expect_error(5, "/dev/null is neither a file nor a block device", *run_with("/dev/null"))
        image = Path(folder, "odd.img")
        image.touch()
        expect_error(5, "odd.img is empty\nhint: truncate -s", *run_with(str(image)))
        image.write_bytes(bytes(1000))
        expect_error(5, "odd.img.*1000.*512.*\nhint: .*is this a disk image", *run_with(str(image)))
        image.write_bytes(bytes(512))
        expect_error(5, "4096", *run_with(f"{image},block-size=4096"))
        expect_error(4, "odd.img is a disk of this VM already", *run_with(str(image), "--disk", str(image)))
        subprocess.run([MINIVMM, *run_with(str(image))], check=True, timeout=60, stdin=subprocess.DEVNULL)


def test_disk_usage_errors():
    """Options of a disk that are wrong are named, with the nearest that is right, and exit 2."""
    need_minivmm()
    for words, wanted in (("x,readonyl", "hint: did you mean \"readonly\""), ("x,cache=fast", "cache \"fast\""),
                          ("x,engine=aio", "engine \"aio\""), ("x,format=vmdk", "format \"vmdk\""),
                          ("x,format", "needs a value"), ("x,backing,format=raw", "no other"),
                          ("x,backing=y", "no value"), ("x,queues=0", "queues"), ("x,readonly=yes", "no value"),
                          ("x,limit", "needs a value"), ("x,block-size=1000", "512 or 4096"), (",readonly", "missing"),
                          ("x,serial=" + "9" * 21, "20 characters"), ("x,limit=manyiops", "limit")):
        expect_error(2, wanted, *run_with(words))


def test_read_only_places():
    """A file that may not be written is refused by name with the mend: readonly, which then works."""
    need_minivmm()
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "a.img").write_bytes(bytes(1 << 20))
        for option, code in (("", 1), (",readonly", 0)):
            command = " ".join(["exec", MINIVMM, *run_with(f"{folder}/a.img{option}")])
            script = f"mount --bind {folder} {folder} && mount -o remount,bind,ro {folder} && {command}"
            result = subprocess.run(["unshare", "--mount", "sh", "-c", script], capture_output=True, text=True,
                                    timeout=60, stdin=subprocess.DEVNULL)
            if "unshare" in result.stderr or "mount:" in result.stderr:
                raise Skip(f"a read-only mount cannot be arranged here: {result.stderr.strip()}")
            assert result.returncode == code, result.stderr
            if code != 0:
                assert re.search("a.img for writing: Read-only.*\nhint: .*readonly", result.stderr), result.stderr


class Running:
    """minivmm with a guest that waits for its power button."""

    def __init__(self, disk):
        command = [MINIVMM, "run", "--net", "none", "--kernel", guest("button.elf"), "--disk", disk]
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                        stderr=subprocess.PIPE)

    def __enter__(self):
        while b"ready" not in (line := self.process.stdout.readline()):
            assert line, self.process.stderr.read()
        return self

    def __exit__(self, *_):
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(30) == 0
        self.process.stdout.close()
        self.process.stderr.close()


def test_locks():
    """A disk in use by another VM is refused, exit 4, and the holder's pid named; readers may share; a killed VM
    leaves no lock behind."""
    need_minivmm()
    with tempfile.NamedTemporaryFile(suffix=".img") as file:
        file.truncate(1 << 20)
        path = file.name
        with Running(path) as first:
            for option in ("", ",readonly"):
                holder = rf"{path} is in use by another VM \(pid {first.process.pid}\)"
                expect_error(4, holder, *run_with(path + option))
        with Running(path + ",readonly"), Running(path + ",readonly"):
            expect_error(4, "is in use by another VM", *run_with(path))
        killed = Running(path)
        killed.__enter__()
        killed.process.send_signal(signal.SIGKILL)
        killed.process.wait()
        subprocess.run([MINIVMM, *run_with(path)], check=True, timeout=60, stdin=subprocess.DEVNULL)
