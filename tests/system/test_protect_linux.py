# SPDX-License-Identifier: MIT
"""A protected Linux guest, on real kvm-amd in a lab host: its process is killed under load, and its twin, in another
folder and runtime folder of the same host, goes on."""

import contextlib
import json
import re
import subprocess
import tempfile
from pathlib import Path

from labguest import Guest, need_minivmm
from test_migrate_hosts import work
from test_net import make_bridge, wait_until
from test_snapshot_linux import finish_work, uptime

ROOT = "/root/protected"
ADDRESS = "192.168.7.2"
THERE = "env MINIVMM_RUNTIME_DIR=/run/there"
# All of it, hosts and guest and twin, has one or two emulated CPUs: what is silent for a second is not dead.
FT = {"heartbeat_ms": 500, "timeout_ms": 5000}
RECORD = 16
SOME = 50  # records
PATIENCE = 20  # seconds that somebody may wait, and the guest's clock may stand still


def definition(bridge):
    disks = [{"file": name, "format": "raw"} for name in ("disk.img", "work.img")]
    return {"cpus": 2, "memory": "128M", "disks": disks, "nets": [{"mode": "bridge", "bridge": bridge}], "ft": FT}


def make_disk(host, folder):
    """The VM's folder, with a file system in one disk, and room to work in the other."""
    with tempfile.TemporaryDirectory() as temporary:
        path = Path(temporary, "disk.img")
        subprocess.run(["mke2fs", "-q", "-t", "ext4", path, "16M"], check=True, stdout=subprocess.DEVNULL)
        host.run(f"mkdir -p {folder} && truncate -s 8M {folder}/work.img", check=True)
        host.put(path, f"{folder}/disk.img")


def check_disk(host, path, kept):
    """Its file system is clean, and has all the records, in their order, and none that nobody has asked for."""
    with tempfile.TemporaryDirectory() as temporary:
        image = Path(temporary, "disk.img")
        host.get(path, image)
        checked = subprocess.run(["e2fsck", "-f", "-n", image], capture_output=True, text=True)
        assert checked.returncode == 0, checked
        data = subprocess.run(["debugfs", "-R", "cat /records", image], capture_output=True, check=True).stdout
    records = [int(data[at:at + RECORD]) for at in range(0, len(data), RECORD)]
    assert records == list(range(1, len(records) + 1)), f"not the numbers up to {len(records)}"
    assert kept <= len(records) <= kept + 1, f"{len(records)} records, of which {kept} were acknowledged"


def serve(vm, address, gateway):
    """The guest has a database and a shell for people outside."""
    vm.run(f"ip address add {address}/24 dev eth0 && ip link set eth0 up && mkdir -p /mnt && mount /dev/vda /mnt")
    vm.run(f"for i in $(seq 20); do ping -c 1 -W 1 {gateway} >/dev/null && break; done")
    vm.run("probe keep /mnt/records tcp:80 >/run/keep 2>&1 & while ! grep -qs serving /run/keep; do usleep 50000; done")
    vm.run("nc -ll -p 22 -e sh >/run/shell 2>&1 &")


class Outside:
    """People outside who use it: one has records kept, one after the other, and one types commands."""

    def __init__(self, host, address):
        self.host, self.typed = host, 0
        host.run("rm -f /run/enough")
        self.asking = host.spawn(f"exec probe ask tcp:{address}:80 until=/run/enough")
        self.shell = host.spawn(f"exec nc {address} 22")
        self.type()

    def kept(self):
        return int((re.findall(r"kept (\d+)\n", self.asking.out) or [0])[-1])

    def wait_for_more(self, count=SOME, timeout=120):
        wanted = self.kept() + count
        wait_until(lambda: self.kept() >= wanted or not self.asking.is_running, timeout)
        assert self.asking.is_running, f"{self.asking.out[-200:]} {self.asking.err}"

    def type(self, timeout=60):
        """The shell over there remembers what was typed before."""
        self.typed += 1
        self.shell.write(f"n=$((n + 1)); echo typed $n\n")
        self.shell.wait_for(rf"typed {self.typed}\n", timeout=timeout)

    def finish(self, patience=PATIENCE):
        """How many records were acknowledged."""
        self.type()
        self.shell.write("exit\n")
        self.host.run("touch /run/enough", check=True)
        assert self.asking.wait(60) == 0, f"{self.asking.out[-200:]} {self.asking.err}"
        kept, longest = re.search(r"all (\d+) kept, longest wait ([0-9.]+) ms", self.asking.out).groups()
        assert float(longest) < patience * 1000, f"somebody has waited long:\n{self.asking.out}"
        return int(kept)


def clocks(vm, host):
    """Its uptime, and by how much its clock is ahead of the host's."""
    vm.run("true")  # what the VMM has said meanwhile comes before its answer
    return uptime(vm), int(vm.run("date +%s")) - int(host.run("date +%s", check=True).out)


def check_guest(vm, host, before):
    """It goes on from where it was, with its work, and its kernel has nothing to complain of."""
    check_clocks(vm, host, before, 200)
    finish_work(vm)
    check_kernel(vm)


def check_clocks(vm, host, before, most):
    after = clocks(vm, host)
    assert before[0] <= after[0] < before[0] + most and abs(after[1] - before[1]) < PATIENCE, f"{before}, then {after}"


def check_kernel(vm):
    vm.expect_clean()
    found = vm.run("dmesg | grep -iE 'I/O error|went backwards|clocksource.*(unstable|skew)|aborted'; true")
    assert not found, found


def end_of_work(vm):
    """The guest shuts down in order; what was kept is on the disk. Its database may not have heard yet that the last of
    those who asked is gone."""
    vm.run("n=0; until umount /mnt || [ $n -ge 200 ]; do n=$((n + 1)); usleep 50000; done; ! grep -q ' /mnt ' /proc/mounts")
    vm.send("poweroff")
    assert vm.job.wait(60) == 0


def protection(host, command="minivmm"):
    said = host.run(f"{command} status web1 --json")
    return json.loads(said.out).get("protection") or {} if said.code == 0 else {}


def wait_for(host, command="minivmm", timeout=60, **wanted):
    said = {}

    def is_so():
        said.clear()
        said.update(protection(host, command))
        return all(said.get(key) == value for key, value in wanted.items())
    try:
        wait_until(is_so, timeout)
    except AssertionError:
        raise AssertionError(f"protection {wanted} not within {timeout} s; it says {said}") from None
    return said


def test_a_linux_guest_outlives_its_process(host):
    """The process of a guest is killed while it works, somebody has records kept in it, and somebody types. Both go on
    with their connections; every record that was acknowledged is there, the file system is clean, and the guest has
    nothing to complain of."""
    need_minivmm()
    host.run(f"mkdir -p {ROOT}/there /root/witness", check=True)
    make_disk(host, f"{ROOT}/here/web1")
    make_bridge(host)
    standby = host.spawn(f"{THERE} minivmm standby {ROOT}/there --listen 127.0.0.1:7420")
    try:
        standby.wait_for("VMs may come")
        with Guest(host, folder=f"{ROOT}/here/web1", definition=definition("br7")) as vm:
            serve(vm, ADDRESS, "192.168.7.1")
            work(vm, "/dev/vdb")
            outside = Outside(host, ADDRESS)
            outside.wait_for_more()
            host.run("minivmm protect web1 --to 127.0.0.1:7420 --insecure --witness file:/root/witness", check=True,
                     timeout=200)
            before = wait_for(host, role="primary", state="paired")
            outside.wait_for_more()
            outside.type()
            clock = clocks(vm, host)
            vm.kill()
        outside.wait_for_more()
        says = wait_for(host, f"{THERE} minivmm", role="primary", state="solo")
        assert says["generation"] == before["generation"] + 1, f"{says}, before {before}"
        with Guest(host, goes_on=f"{THERE} minivmm console web1", terminal=(25, 80), until=r"leaves\r*\n") as vm:
            check_guest(vm, host, clock)
            kept = outside.finish()
            end_of_work(vm)
        check_disk(host, f"{ROOT}/there/web1/disk.img", kept)
    finally:
        host.run(f"{THERE} minivmm stop --force web1; ip link set br7 down; brctl delbr br7; "
                 f"rm -rf {ROOT} /root/witness")
        standby.kill()
        standby.wait(30)
        standby.forget()


test_a_linux_guest_outlives_its_process.slow = True  # two minutes
