# SPDX-License-Identifier: MIT
"""All devices at work at once, while the machine is reset, frozen and unplugged. `stress` does the same for longer."""

import random
import time

from labguest import VMM, Guest
from test_net import Server, make_tap

ADDRESS = "192.168.6.2/24 dev eth0"
# Both disks and both networks, data checked to the last byte; `failed` and a name where one is wrong.
WORK = {
    "disk a": "probe verify /dev/vda jobs=2 depth=32 size=4M block=4k ops=500 seed={seed}",
    "disk b": "probe verify /dev/vdb depth=8 size=8M block=64k ops=100 seed={seed}",
    "tap out": "timeout 100 probe push tcp:192.168.6.1:8000 8M seed={seed}",
    "tap in": "timeout 100 probe pull tcp:192.168.6.1:8000 8M seed={seed}",
    "user in": "timeout 100 probe pull tcp:10.0.2.2:8000 2M seed={seed}",
    "rng": "dd if=/dev/hwrng of=/dev/null bs=4k count=8",
    "memory": "dd if=/dev/zero of=/run/big bs=1M count=48",
}


def set_up_guest(vm):
    vm.run(f"ip address add {ADDRESS} && ip link set eth0 up && network eth1")
    vm.run("for i in $(seq 20); do ping -c 1 -W 1 192.168.6.1 >/dev/null && break; done")


def start_work(vm, seed):
    """In the background: the console stays free for a reset."""
    jobs = ""
    for name, command in WORK.items():
        log = f"/run/log-{name.replace(' ', '-')}"
        jobs += f"{{ {command.format(seed=seed)} >{log} 2>&1 || {{ echo failed: {name}; cat {log}; }} }} & "
    vm.run(f"( {jobs}wait; rm -f /run/big ) >/run/work 2>&1 & work=$!")


def finish_work(vm, what):
    output = vm.run("wait $work; cat /run/work", timeout=200)
    assert "failed" not in output, f"{what}: {output}"


def freeze(host, vm):
    """The whole VMM stands still for a moment, as on a host that swaps."""
    host.run(f"kill -STOP {vm.pid}; sleep 1; kill -CONT {vm.pid}", check=True)


def unplug(host, _vm):
    """The tap loses what is sent meanwhile."""
    host.run("ip link set tap6 down; sleep 1; ip link set tap6 up", check=True)


def flood(_host, vm):
    """A long line of keys, and a long answer."""
    vm.run("# " + "x" * 3000)
    vm.run("seq 1 500")


def stress(host, seconds, seed, say=lambda line: None):
    """Rounds of work until the time is over, each with a disturbance; the first is a reset in mid-flight."""
    dice = random.Random(seed)
    host.run("truncate -s 8M /tmp/sa.img /tmp/sb.img", check=True)
    make_tap(host, "tap6", "multi", "192.168.6.1")
    options = ("--cpus 2 --disk /tmp/sa.img,engine=io_uring,queues=2 --disk /tmp/sb.img,engine=threads"
               " --net tap:tap6,queues=2 --net user")
    end = time.monotonic() + seconds
    count = 0
    try:
        with Server(host, "tcp:8000"), Guest(host, options) as vm:
            set_up_guest(vm)
            while count == 0 or time.monotonic() < end:
                count += 1
                start_work(vm, seed + count)
                if count == 1 or dice.random() < 0.3:
                    time.sleep(dice.uniform(0.2, 2))
                    say(f"round {count}: reset")
                    vm.reset()
                    set_up_guest(vm)
                    continue
                disturb = dice.choice((freeze, unplug, flood))
                say(f"round {count}: {disturb.__name__}")
                disturb(host, vm)
                finish_work(vm, f"seed {seed}, round {count}")
                vm.expect_clean()
            # Whatever happened, it works.
            start_work(vm, seed)
            finish_work(vm, f"seed {seed}, the end")
            vm.expect_clean()
            assert VMM != "minivmm" or "error" not in vm.job.err, vm.job.err
            assert vm.power_off() == 0
    finally:
        host.run("ip link del tap6; rm -f /tmp/s[ab].img")
    return count


def test_disks_networks_and_resets(host):
    """Disks, networks, rng and memory under load, reset in mid-flight, frozen, unplugged: no byte is wrong."""
    stress(host, 15, seed=int(time.time()))


test_disks_networks_and_resets.slow = True  # most of a minute; each part has its own test


def test_minutes_of_stress(host):
    """The same for as long as it takes to see what comes rarely."""
    assert stress(host, 300, seed=int(time.time())) > 1


test_minutes_of_stress.slow = True
test_minutes_of_stress.time_limit = 900
