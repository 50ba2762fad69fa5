# SPDX-License-Identifier: MIT
"""Networks: the one without rights, taps with offloads and several queues, bridges, passt, and what is refused."""

import re
import shutil
import time

from labcommon import Skip
from labguest import VMM, Guest, need_minivmm, running
from test_cli import GUESTS

MIB = 1 << 20


class Server:
    """`probe serve` in the lab host, on all its addresses."""

    def __init__(self, host, address):
        self.job = host.spawn(f"exec probe serve {address}")
        self.job.wait_for("^serving")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.job.kill()
        self.job.wait()
        self.job.forget()


def wait_until(condition, timeout=30):
    """What the condition gives when it holds."""
    end = time.monotonic() + timeout
    while not (given := condition()):
        assert time.monotonic() < end, f"not within {timeout} s"
        time.sleep(0.2)
    return given


def serve_in_guest(vm, address="tcp:80"):
    vm.run(f"probe serve {address} >/run/serve 2>&1 & while ! grep -qs serving /run/serve; do usleep 50000; done")


def exchange(run, address, size):
    """Checked data both ways."""
    run(f"probe push {address} {size} seed=7 && probe pull {address} {size} seed=9")


def carrier(vm, what="carrier"):
    """A number of the guest's; what the VMM says at the same time stands on lines of its own."""
    return int(re.findall(r"^(\d+)\s*$", vm.run(f"cat /sys/class/net/eth0/{what}"), re.M)[-1])


def kill_helper(host, vm):
    def find():  # a thread that ends in between is not complained of
        return host.run(f"cat /proc/{vm.pid}/task/*/children 2>/dev/null; true", check=True).out.split()

    children = wait_until(find)
    assert len(children) == 1, f"children of minivmm: {children}"
    host.run(f"kill -9 {children[0]}", check=True)


def expect_recovery(host, vm):
    """The interface's other half is killed: the link goes down and up again, once, and the guest is unharmed."""
    before = carrier(vm, "carrier_changes")
    kill_helper(host, vm)
    wait_until(lambda: carrier(vm, "carrier_changes") >= before + 2)
    assert carrier(vm) == 1
    vm.expect_clean()


def test_user_network_needs_no_rights_and_no_world(host):
    """As an ordinary user on a host without a resolver the guest gets 10.0.2.15, reaches the host at 10.0.2.2, and is
    reached by a forwarded port. The helper's death in mid-flight costs connections, not the network."""
    host.run("chmod 666 /dev/kvm; test ! -s /etc/resolv.conf", check=True)
    with Server(host, "tcp:8000"), Guest(host, "--net user -p 8080:80", user="nobody") as vm:
        assert host.run(f"stat -c %U /proc/{vm.pid}", check=True).out.strip() == "nobody"
        assert "eth0 has 10.0.2.15/24, router 10.0.2.2" in vm.run("network")
        exchange(vm.run, "tcp:10.0.2.2:8000", "4M")
        exchange(vm.run, f"tcp:{host.address}:8000", "1M")  # by address translation, as all of the world is
        serve_in_guest(vm)
        exchange(lambda command: host.run(command, check=True), "tcp:127.0.0.1:8080", "4M")
        if VMM == "minivmm":
            vm.run("timeout 60 probe push tcp:10.0.2.2:8000 4G >/run/push 2>&1 &")
            expect_recovery(host, vm)
            assert re.search("usernet|user network", vm.job.err), vm.job.err
            exchange(vm.run, "tcp:10.0.2.2:8000", "1M")
            exchange(lambda command: host.run(command, check=True), "tcp:127.0.0.1:8080", "1M")
        assert vm.power_off() == 0
    assert not host.run("pidof minivmm-usernet").out, "the helper has outlived its VM"


def make_bridge(host):
    # Of itself it has the lowest address of its ports, and another one when a guest's tap goes: whoever knows it by the
    # old one waits until ARP has given that up.
    host.run("brctl addbr br7 && ip link set br7 address 02:00:00:00:07:01 && ip address add 192.168.7.1/24 dev br7 && "
             "ip link set br7 up", check=True)


def make_tap(host, name, kind, address):
    host.run(f"probe tap {name} {kind} && ip address add {address}/24 dev {name} && ip link set {name} up", check=True)


def counter(host, what, interface="tap0"):
    return int(host.run(f"cat /sys/class/net/{interface}/statistics/{what}", check=True).out)


def queue_interrupts(vm):
    """For each receive queue of eth0, how often it spoke, on all CPUs."""
    device = vm.run("basename $(readlink -f /sys/class/net/eth0/device)").strip()
    text = vm.run(f"grep {device}-input /proc/interrupts")
    return [sum(map(int, re.findall(r" (\d+)(?= )", line.split(":")[1]))) for line in text.splitlines()]


def test_taps_and_bridges(host):
    """Over a tap 64 MiB go both ways unharmed, in few large frames: checksum and segmentation offload work. Two queues
    share the work of two CPUs. A VM joins a bridge, makes taps of its own with the MTU asked for, and removes them."""
    make_tap(host, "tap0", "multi", "192.168.9.1")
    make_bridge(host)
    before = set(host.run("ls /sys/class/net", check=True).out.split())
    options = ("--cpus 2 --net tap:tap0,queues=2,mac=02:00:00:00:00:77"
               + (" --net bridge:br7 --net tap,mtu=1400" if VMM == "minivmm" else ""))
    try:
        with Server(host, "tcp:8000"), Guest(host, options) as vm:
            assert vm.run("cat /sys/class/net/eth0/address").strip() == "02:00:00:00:00:77"
            features = vm.run("probe offloads eth0")
            for feature in ("rx-checksum", "tx-checksum", "tso"):
                assert f"{feature} on" in features, features
            vm.run("ip address add 192.168.9.2/24 dev eth0 && ip link set eth0 up")
            vm.run("for i in $(seq 20); do ping -c 1 -W 1 192.168.9.1 >/dev/null && break; done")
            for verb, what in (("push", "rx_packets"), ("pull", "tx_packets")):
                packets = counter(host, what)
                vm.run(f"probe {verb} tcp:192.168.9.1:8000 64M")
                packets = counter(host, what) - packets
                assert packets < 64 * MIB // 4096, f"{verb}: {packets} frames for 64 MiB: no large ones"
            serve_in_guest(vm)
            exchange(lambda command: host.run(command, check=True), "tcp:192.168.9.2:80", "8M")

            for _ in range(5):
                vm.run("all=; for i in 0 1 2 3 4 5 6 7; do taskset -c $((i % 2))"
                       " probe pull tcp:192.168.9.1:8000 1M >/dev/null & all=\"$all $!\"; done; wait $all")
                interrupts = queue_interrupts(vm)
                if min(interrupts) > 10:
                    break
            assert len(interrupts) == 2 and min(interrupts) > 10, f"interrupts of the receive queues: {interrupts}"

            vm.run("ip link set eth0 down && ip link set eth0 address 02:00:00:00:00:88 && ip link set eth0 up")
            vm.run("probe pull tcp:192.168.9.1:8000 1M")
            if VMM == "minivmm":
                vm.run("ip address add 192.168.7.2/24 dev eth1 && ip link set eth1 up")
                vm.run("for i in $(seq 20); do ping -c 1 -W 1 192.168.7.1 >/dev/null && break; done")
                exchange(vm.run, "tcp:192.168.7.1:8000", "4M")
                assert vm.run("cat /sys/class/net/eth2/mtu").strip() == "1400"
            vm.expect_clean()
            assert vm.power_off() == 0
        assert set(host.run("ls /sys/class/net", check=True).out.split()) == before, "network devices were left behind"
    finally:
        host.run("ip link del tap0; ip link set br7 down; brctl delbr br7")


def refused(host, code, words, net, user="root"):
    """minivmm ends at once, with this exit code and a sentence that matches."""
    command = f"exec timeout 20 minivmm run --kernel /root/vmlinuz {net}"
    result = host.run(command if user == "root" else f"su {user} -s /bin/sh -c '{command}'")
    assert result.code == code, f"{net}: exit code {result.code}, not {code}: {result.err}"
    assert re.search(words, result.err), f"{net}: no {words!r} in {result.err}"


def test_networks_that_cannot_be(host):
    """Taps that are busy or missing, missing bridges, missing rights and ports in use are named, with the mend."""
    need_minivmm()
    make_tap(host, "solo", "", "192.168.8.1")
    host.put(GUESTS / "button.elf", "/root/button.elf")
    host.run("chmod 666 /dev/kvm /dev/net/tun; ip link add eth9 type dummy")
    try:
        with running(host, "minivmm run --kernel /root/button.elf --net tap:solo -p 8082:80 --net user") as vm:
            vm.wait_for("ready")
            refused(host, 4, "tap solo is in use", "--net tap:solo")
            refused(host, 4, "port 8082 is in use\nhint: ", "--net user -p 8082:80")
        refused(host, 6, "eth9 is not a tap", "--net tap:eth9")
        refused(host, 6, "there is no bridge br8\nhint: ", "--net bridge:br8")
        refused(host, 6, "eth9 is not a bridge", "--net bridge:eth9")
        refused(host, 6, "no tap mine, and to make one takes CAP_NET_ADMIN\nhint: ", "--net tap:mine", "nobody")
        refused(host, 6, "CAP_NET_ADMIN\nhint: ", "--net tap", "nobody")
        refused(host, 6, "may not take host port 80\nhint: ", "--net user -p 80:80", "nobody")
        refused(host, 6, "passt.*\nhint: .*passt", "--net passt")
        refused(host, 2, "did you mean \"bridge\"", "--net brigde:br0")
        refused(host, 2, "-p works with", "--net none -p 80:80")
        assert not host.run("ls /sys/class/net | grep -E 'mine|^tap|vm'").out, "a device was left behind"
    finally:
        host.run("ip link del solo; ip link del eth9")


def test_passt(host):
    """With passt installed the guest has the host's address, reaches it and is reached, and survives passt's death."""
    need_minivmm()
    program = shutil.which("passt")
    if not program:
        raise Skip("passt is not installed here: sudo apt-get install passt")
    host.install(program)
    host.run("ip route replace default via 10.77.0.254 dev eth0; chmod 666 /dev/kvm; chmod 1777 /tmp", check=True)
    try:
        # passt locks itself in by pivot_root.
        with (Server(host, "tcp:8000"),
              Guest(host, "--net passt -p 8081:80", user="nobody", root_to_pivot=True) as vm):
            said = vm.run("network")
            assert f"eth0 has {host.address}/" in said, said
            exchange(vm.run, "tcp:10.77.0.254:8000", "4M")
            serve_in_guest(vm)
            exchange(lambda command: host.run(command, check=True), "tcp:127.0.0.1:8081", "4M")
            expect_recovery(host, vm)
            exchange(vm.run, "tcp:10.77.0.254:8000", "1M")
            assert vm.power_off() == 0
    finally:
        host.run("ip route del default; rm -f /bin/passt")


test_passt.slow = True  # half a minute
