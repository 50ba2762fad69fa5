# SPDX-License-Identifier: MIT
"""The smaller virtio devices under stock Linux: rng, balloon, vsock, console."""

import re

from labguest import VMM, Guest
from test_net import Server, exchange, serve_in_guest, wait_until

MIB = 1 << 20


def try_rng(vm):
    """/dev/hwrng is virtio's, and gives as many bytes as are asked for, different each time."""
    assert vm.run("cat /sys/class/misc/hw_random/rng_current").strip() == "virtio_rng.0"
    # Linux asks for some 64 bytes at a time.
    vm.run("for i in a b; do dd if=/dev/hwrng of=/run/$i bs=4k count=4 iflag=fullblock 2>/dev/null; done")
    assert vm.run("cat /run/a /run/b | wc -c").strip() == "32768"
    # Bytes that look random do not become shorter.
    assert int(vm.run("cat /run/a /run/b | gzip | wc -c")) > 32768


def try_generation_id(vm):
    """Linux finds the VM generation id's device by the names that its driver knows, and switches the device's event on.
    Debian's cloud kernel has no driver for it; with a kernel that has one it binds."""
    device = "/sys/bus/acpi/devices/MVMM0001:00"
    assert vm.run(f"cat {device}/path").strip() == "\\_SB_.VGEN"
    assert "VMGENCTR" in vm.run(f"cat {device}/modalias")
    assert re.search(r"^ *0 +EN +enabled", vm.run("cat /sys/firmware/acpi/interrupts/gpe00"), re.M)
    if vm.code("test -d /sys/bus/acpi/drivers/vmgenid")[0] == 0:
        vm.run("test -e /sys/bus/acpi/drivers/vmgenid/MVMM0001:00")


def vmstat(vm, name):
    return int(re.search(rf"^{name} (\d+)", vm.run("cat /proc/vmstat"), re.M).group(1))


def fill_memory(vm, size):
    vm.run(f"mount -t tmpfs -o size=100% none /mnt && dd if=/dev/zero of=/mnt/f bs=1M count={size >> 20}")


def try_memory(vm):
    """What the guest frees is the host's again within seconds, measured at the VMM's resident memory."""
    before = vm.resident()
    fill_memory(vm, 160 * MIB)
    full = vm.resident()
    assert full > before + 120 * MIB, f"{before >> 20} MiB before, {full >> 20} MiB with a file of 160 MiB"
    vm.run("umount /mnt")
    wait_until(lambda: vm.resident() < full - 120 * MIB)
    # The pages that went are good to use again.
    fill_memory(vm, 160 * MIB)
    assert vm.run("tr -d '\\0' </mnt/f | wc -c").strip() == "0"
    vm.run("umount /mnt")


def try_vsock(host, vm):
    """The host reaches ports of the guest by CONNECT lines at the Unix socket, the guest reaches PATH_PORT; data is
    whole, several connections at once do not mix, and a port without a listener is refused at once."""
    def to_guest(port):
        return f"unix:/run/web1.vsock,{port}" if VMM == "minivmm" else f"vsock:7:{port}"

    def run(command):
        return host.run(command, check=True)

    with Server(host, "unix:/run/web1.vsock_5000" if VMM == "minivmm" else "vsock:5000"):
        serve_in_guest(vm, "vsock:1234")
        # Many times what either side may send before it is told that there is room.
        exchange(run, to_guest(1234), "4M")
        exchange(vm.run, "vsock:2:5000", "4M")
        run(f"for i in 1 2 3 4; do probe push {to_guest(1234)} 1M seed=$i & jobs=\"$jobs $!\"; done;"
            f" probe pull {to_guest(1234)} 1M seed=5 || exit 1; for j in $jobs; do wait $j || exit 1; done")
        assert host.run(f"timeout 20 probe push {to_guest(99)} 1").code == 1, "nobody listens at port 99"
        code, words = vm.code("timeout 20 probe push vsock:2:99 1")
        assert code == 1 and "reset" in words, words


def try_console(vm):
    """hvc0 is the terminal: keys, floods of output without a loss, and its size."""
    lines = vm.run("seq 1 3000 | dd bs=4k iflag=fullblock 2>/dev/null").split()
    assert lines == [str(number) for number in range(1, 3001)], "lines were lost or changed"
    if VMM == "minivmm":
        assert vm.run("stty size </dev/hvc0").strip() == "24 80"
        vm.job.resize(30, 100)
        wait_until(lambda: vm.run("stty size </dev/hvc0").strip() == "30 100")


def test_what_each_device_is_for(host):
    """One guest that has them all: with --console virtio hvc0 is its terminal, Linux sees the VM generation id's device,
    vsock connects both ways, /dev/hwrng gives random bytes, and what the guest frees is the host's again."""
    host.run("modprobe vhost_vsock")
    options = "--cpus 2 --memory 384M --net none --vsock /run/web1.vsock,cid=7 --console virtio"
    with Guest(host, options, console="/dev/hvc0", terminal=(24, 80)) as vm:
        try_console(vm)
        if VMM == "minivmm":
            try_generation_id(vm)
        try_vsock(host, vm)
        try_rng(vm)
        try_memory(vm)
        vm.expect_clean()
        assert vm.power_off() == 0
    assert host.run("ls /run/web1.vsock").code != 0, "the socket was left behind"


def test_balloon_takes_and_gives(host):
    """--balloon takes memory from the guest; when the guest is about to run out of it the balloon gives it back before
    anything is killed."""
    if VMM != "minivmm":
        options = "--net none --memory 384M"
    else:
        options = "--net none --memory 384M --balloon 160M"
    with Guest(host, options) as vm:
        if VMM == "minivmm":
            wait_until(lambda: vmstat(vm, "balloon_inflate") - vmstat(vm, "balloon_deflate") >= 160 * 256)
        available = int(re.search(r"MemAvailable: +(\d+) kB", vm.run("cat /proc/meminfo")).group(1)) << 10
        fill_memory(vm, available + (64 * MIB if VMM == "minivmm" else -32 * MIB))
        assert "oom-kill" not in vm.run("dmesg"), "the guest killed something"
        assert VMM != "minivmm" or vmstat(vm, "balloon_deflate") > 32 * 256
        assert vm.power_off() == 0


test_balloon_takes_and_gives.slow = True  # tiny guests have a balloon, too; try_memory is its other half
