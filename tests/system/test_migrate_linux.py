# SPDX-License-Identifier: MIT
"""A Linux guest under load moves, on real kvm-amd in a lab host: to another folder and runtime folder of the same host,
which is all that its source and its target know of each other."""

import re

from labguest import Guest, need_minivmm
from test_net import Server, make_bridge
from test_snapshot_linux import finish_work, uptime, work

ROOT = "/root/moving"
THERE = "env MINIVMM_RUNTIME_DIR=/run/there"


def retransmissions(vm):
    """Segments that its TCP has sent, and those of them that it has sent again."""
    names, numbers = [line.split() for line in vm.run("grep ^Tcp: /proc/net/snmp").splitlines()]
    counts = dict(zip(names, numbers))
    return int(counts["OutSegs"]), int(counts["RetransSegs"])


def test_a_busy_guest_moves(host):
    """Its disk is written and compared, its memory summed, and a TCP connection is under way: it all goes on over there,
    no byte is wrong, the connection survives without a storm of repeated segments, and the clock goes on."""
    need_minivmm()
    host.run(f"mkdir -p {ROOT}/here/web1 {ROOT}/there && truncate -s 64M {ROOT}/here/web1/disk.img", check=True)
    make_bridge(host)
    definition = {"cpus": 2, "memory": "256M", "disks": [{"file": "disk.img", "format": "raw"}],
                  "nets": [{"mode": "bridge", "bridge": "br7"}]}
    standby = host.spawn(f"{THERE} minivmm standby {ROOT}/there --listen 127.0.0.1:7420")
    try:
        standby.wait_for("VMs may come")
        with Server(host, "tcp:8000"):
            with Guest(host, folder=f"{ROOT}/here/web1", definition=definition) as vm:
                vm.run("ip address add 192.168.7.2/24 dev eth0 && ip link set eth0 up")
                vm.run("for i in $(seq 20); do ping -c 1 -W 1 192.168.7.1 >/dev/null && break; done")
                work(vm)
                vm.run("(timeout 250 probe pull tcp:192.168.7.1:8000 80M seed=3 >/run/pull 2>&1; echo $? >/run/code) &")
                before = uptime(vm)
                said = host.run(f"minivmm migrate {ROOT}/here/web1 127.0.0.1:7420 --downtime 500 2>&1", timeout=250)
                assert said.code == 0 and "stood still" in said.out, said.out
                assert "its network was told over there" in said.out, said.out
                assert vm.job.wait(30) == 0
            with Guest(host, goes_on=f"{THERE} minivmm console web1", terminal=(25, 80), until=r"leaves\r*\n") as vm:
                after = uptime(vm)
                assert before < after < before + 200, f"uptime {before}, then {after}"
                vm.run("while [ ! -e /run/code ]; do usleep 100000; done", timeout=250)
                assert vm.run("cat /run/code").strip() == "0", vm.run("cat /run/pull")
                finish_work(vm)
                vm.expect_clean()
                sent, again = retransmissions(vm)
                assert again < 20 + sent / 100, f"{again} of {sent} segments were sent again"
                assert re.search("handed over|moved", host.run(f"minivmm run {ROOT}/here/web1 2>&1").out)
                vm.send("poweroff")
                assert vm.job.wait(60) == 0
    finally:
        host.run(f"{THERE} minivmm stop --force web1; ip link set br7 down; brctl delbr br7; rm -rf {ROOT}")
        standby.kill()
        standby.wait(30)
        standby.forget()


test_a_busy_guest_moves.slow = True  # a minute; tiny guests move in many other tests
