# SPDX-License-Identifier: MIT
"""Snapshots of Linux guests under load, on real kvm-amd in a lab host."""

import json

from labguest import Guest, need_minivmm

ROOT = "/root/snapshots"
VM = f"{ROOT}/web1"
VERIFY = "probe verify /dev/vda jobs=2 depth=16 size=16M block=4k ops=6000 seed=1"


def good(host, *words, timeout=100):
    """What a verb says; an exit code that is not 0 is an error."""
    return host.run(f"cd {ROOT} && minivmm {' '.join(words)} 2>&1", timeout=timeout, check=True).out


def uptime(vm):
    return float(vm.run("cut -d' ' -f1 /proc/uptime"))


def start(host):
    host.run(f"mkdir -p {VM} && truncate -s 64M {VM}/disk.img", check=True)
    return Guest(host, folder=VM, definition={"cpus": 2, "memory": "256M",
                                              "disks": [{"file": "disk.img", "format": "raw"}]})


def work(vm):
    """The disk is written, read and compared, and memory filled and summed, over and over."""
    vm.run("dd if=/dev/urandom of=/run/big bs=1M count=32 2>/dev/null; sha256sum /run/big >/run/sum")
    vm.run(f"({VERIFY} && while sha256sum -c /run/sum >/dev/null && [ ! -e /run/stop ]; do :; done && "
           "echo good >/run/result || echo wrong >/run/result) >/run/log 2>&1 &")


def finish_work(vm):
    vm.run("touch /run/stop; while [ ! -e /run/result ]; do usleep 100000; done", timeout=200)
    result = vm.run("cat /run/result /run/log")
    assert result.startswith("good"), result


def test_a_guest_under_load_is_restored(host):
    """A guest that writes to its disk and memory and compares what it reads goes on through a snapshot, and again from
    it: in the same VM, whose clock goes on without a jump, and in a new one beside it. No kernel complains."""
    need_minivmm()
    try:
        with start(host) as vm:
            work(vm)
            before = uptime(vm)
            said = good(host, "snapshot web1 busy")
            assert "stood still for" in said, said
            after = uptime(vm)
            finish_work(vm)
            vm.expect_clean()
            assert vm.power_off() == 0
        listed = json.loads(good(host, "snapshots web1 --json"))
        assert [(one["name"], one["state"]) for one in listed] == [("busy", "running")], listed
        for name, command in [("web1", f"minivmm restore {VM} busy"),
                              ("web2", f"minivmm run --from {VM}/snapshots/busy {ROOT}/web2")]:
            with Guest(host, goes_on=command) as vm:
                now = uptime(vm)
                assert before - 1 < now < after + 30, f"{name}: uptime {now}, at the snapshot {before} to {after}"
                clock = int(vm.run("cat /sys/class/rtc/rtc0/since_epoch")) - int(host.run("date +%s").out)
                assert -30 < clock < 30, f"the clock of {name} is {clock} s off"
                finish_work(vm)
                vm.expect_clean()
                assert vm.power_off() == 0
    finally:
        host.run(f"rm -rf {ROOT}")


test_a_guest_under_load_is_restored.slow = True  # a minute; tiny guests are restored in many other tests
