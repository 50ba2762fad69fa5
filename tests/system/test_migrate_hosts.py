# SPDX-License-Identifier: MIT
"""A Linux guest moves between two lab hosts, over their Ethernet and with a key; and hosts lose their power meanwhile."""

from labguest import Guest, need_minivmm
from test_migrate_linux import retransmissions
from test_net import Server, wait_until
from test_snapshot_linux import finish_work, uptime

ROOT = "/root/vms"
ADDRESS = "10.77.0.50"
DEFINITION = {"cpus": 2, "memory": "128M", "disks": [{"file": "disk.img", "format": "raw"}],
              "nets": [{"mode": "bridge", "bridge": "br0"}]}
FRAMES = 2000  # of memory on its way


def make_hosts(lab):
    """Two hosts whose bridges are one Ethernet, with what a link with a key is loaded from."""
    need_minivmm()
    a, b = (lab.furnish(lab.host(name, memory=1300, bridge=True), tests=True) for name in "ab")
    for host in (a, b):
        host.install(lab.build / "minivmm", libraries=["libgnutls.so.30"])
    lab.start()
    a.run(f"mkdir -p {ROOT}/web1 && truncate -s 8M {ROOT}/web1/disk.img", check=True)
    return a, b, a.run("minivmm key", check=True).out.encode()


def await_vms(host, key):
    host.put_bytes(key, "/root/pair.key", mode=0o600)
    host.run(f"mkdir -p {ROOT}", check=True)
    standby = host.spawn(f"exec minivmm standby {ROOT} --listen :7420 --key /root/pair.key")
    standby.wait_for("VMs may come")


def start(a):
    vm = Guest(a, folder=f"{ROOT}/web1", definition=DEFINITION)
    vm.run(f"ip address add {ADDRESS}/24 dev eth0 && ip link set eth0 up")
    vm.run(f"for i in $(seq 20); do ping -c 1 -W 1 {a.address} >/dev/null && break; done")
    return vm


def work(vm, disk="/dev/vda"):
    """The disk is written, read and compared, and memory filled and summed, over and over, but not without a pause: all
    of the machine, guest and TLS and emulated network, has one emulated CPU."""
    vm.run("dd if=/dev/urandom of=/run/big bs=1M count=2 2>/dev/null; sha256sum /run/big >/run/sum")
    verify = f"probe verify {disk} depth=4 size=2M block=4k ops=500 seed=1"
    vm.run(f"(while [ ! -e /run/stop ]; do {verify} && sha256sum -c /run/sum >/dev/null || exec echo wrong >/run/result; "
           "usleep 200000; done; echo good >/run/result) >/run/log 2>&1 &")


def begin_push(vm, host):
    """A connection to a host that carries checked bytes, not quite as many as it could."""
    vm.run("rm -f /run/code /run/enough")
    vm.run(f"(probe push tcp:{host.address}:8000 4G seed=3 pause=200000 until=/run/enough >/run/push 2>&1; "
           "echo $? >/run/code) &")


def finish_push(vm):
    """It is under way until now, comes to its end, and no byte was wrong."""
    assert vm.code("test -e /run/code")[0] == 1, vm.run("cat /run/push")
    vm.run("touch /run/enough; while [ ! -e /run/code ]; do usleep 100000; done", timeout=100)
    assert vm.run("cat /run/code").strip() == "0", vm.run("cat /run/push")


def begin_to_move(lab, a, b):
    """Returns when memory is on its way. LZ4 is less work here than encryption."""
    before = lab.net.counters(b).received
    moving = a.spawn("exec minivmm migrate web1 b --key /root/pair.key --compress --downtime 500 2>&1")
    wait_until(lambda: lab.net.counters(b).received > before + FRAMES or not moving.is_running)
    return moving


def check_untouched(a, vm, moving, before):
    """It did not move, and has noticed nothing."""
    assert moving.wait(60) == 1, moving.out
    vm.job.wait_for("did not move to b, and goes on here")
    vm.run("true")  # what the VMM said came before its answer
    assert uptime(vm) > before
    status = a.run("minivmm list; ls -A /root/vms/web1", check=True).out
    assert "running" in status and ".moved" not in status, status


def test_between_two_hosts(lab):
    """A guest that writes to its disk, sums its memory and has a TCP connection goes to another host. Where that loses
    its power on the way nothing has happened; when it has come there no byte is wrong, the connection goes on without a
    storm of repeated segments, the Ethernet knows where it is, its folder does not run where it was, and when that host
    loses its power the guest does not notice."""
    a, b, key = make_hosts(lab)
    a.put_bytes(key, "/root/pair.key", mode=0o600)
    await_vms(b, key)
    with Server(a, "tcp:8000"), start(a) as vm:
        work(vm)
        begin_push(vm, a)
        before = uptime(vm)
        moving = begin_to_move(lab, a, b)
        b.power_cut()
        b.start()  # what is still sent to it is answered by a reset
        check_untouched(a, vm, moving, before)
        finish_push(vm)

        await_vms(b, key)
        Server(b, "tcp:8000")  # until the end of the host
        begin_push(vm, b)
        moving = begin_to_move(lab, a, b)
        assert moving.wait(250) == 0 and "stood still" in moving.out, moving.out
        assert vm.job.wait(30) == 0
    refused = a.run(f"minivmm run {ROOT}/web1 2>&1")
    assert refused.code == 4 and "moved to b" in refused.out, refused
    a.run(f"for i in $(seq 5); do ping -c 1 -W 1 {ADDRESS} >/dev/null && exit; done; exit 1", check=True)
    a.power_cut()
    with Guest(b, goes_on="minivmm console web1", terminal=(25, 80), until=r"leaves\r*\n") as vm:
        after = uptime(vm)
        assert before < after < before + 200, f"uptime {before}, then {after}"
        finish_push(vm)
        finish_work(vm)
        vm.expect_clean()
        sent, again = retransmissions(vm)
        assert again < 20 + sent / 100, f"{again} of {sent} segments were sent again"
        b.run("minivmm stop --force web1", check=True)


# Two emulated hosts that encrypt: minutes where the machine has other things to do, too.
test_between_two_hosts.slow = True


def test_a_host_that_stays_dark(lab):
    """A target that loses its power while memory is on its way, and says nothing any more, is given up within a minute;
    the guest goes on meanwhile, and afterwards."""
    a, b, key = make_hosts(lab)
    a.put_bytes(key, "/root/pair.key", mode=0o600)
    await_vms(b, key)
    with start(a) as vm:
        work(vm)
        before = uptime(vm)
        moving = begin_to_move(lab, a, b)
        b.power_cut()
        check_untouched(a, vm, moving, before)
        finish_work(vm)
        vm.expect_clean()


test_a_host_that_stays_dark.slow = True
