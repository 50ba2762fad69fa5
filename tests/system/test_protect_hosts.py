# SPDX-License-Identifier: MIT
"""A protected Linux guest in one of two lab hosts, over their Ethernet and with a key; a third one has the witness, by
NFS, and the people who use the guest. Then the host of the guest loses its power."""

import subprocess

from labguest import Guest, need_minivmm
from test_migrate_hosts import work
from test_net import wait_until
from test_protect_linux import (Outside, check_disk, check_guest, clocks, definition, end_of_work, make_disk, serve,
                                wait_for)

ROOT = "/root/vms"
WITNESS = "/mnt/shared/witness"
ADDRESS = "10.77.0.50"
# What nfs-utils would do, by hand, as in test_migrate_nfs.py.
SERVE = r"""
modprobe -a nfsd && mount -t nfsd nfsd /proc/fs/nfsd && mkdir -p /srv /var/lib/nfs/v4recovery || exit
mount -t tmpfs none /srv && mkdir /srv/witness && cd /proc/fs/nfsd || exit
echo "-2 -3 +4 +4.1 +4.2" >versions; echo 10 >nfsv4leasetime; echo 10 >nfsv4gracetime
echo "tcp 2049" >portlist && echo 4 >threads && echo Y >v4_end_grace && cd /proc/net/rpc
for client in {clients}; do echo "nfsd $client 2147483647 all" >auth.unix.ip/channel; done
echo "all /srv 2147483647 9218 65534 65534 0" >nfsd.export/channel
echo 'all 1 \x00000000 2147483647 /srv' >nfsd.fh/channel
"""
MOUNT = ("modprobe nfsv4 && mkdir -p /mnt/shared && "
         "timeout 40 mount -t nfs4 -o addr={server},clientaddr={client},vers=4.2 {server}:/ /mnt/shared && "
         "ls " + WITNESS)


def make_hosts(lab):
    """Two for VMs, which they have on a disk, and the one outside."""
    need_minivmm()
    a, b = (lab.host(name, memory=1200, bridge=True, disks=[make_file_system(lab, name)]) for name in "ab")
    c = lab.host("c", memory=700, bridge=True)
    for host in (a, b, c):
        lab.furnish(host, tests=True)
        host.install(lab.build / "minivmm", libraries=["libgnutls.so.30"])
    lab.start()
    c.run(SERVE.format(clients=f"{a.address} {b.address}"), check=True)
    key = c.run("minivmm key", check=True).out.encode()
    for host in (a, b):
        furnish(host, c, key)
    return a, b, c


def make_file_system(lab, name):
    disk = lab.folder / f"{name}.img"
    subprocess.run(["mke2fs", "-q", "-t", "ext4", disk, "96M"], check=True, stdout=subprocess.DEVNULL)
    return disk


def furnish(host, server, key):
    """What it does not keep while it is off; its VMs are on its disk."""
    mount_witness(host, server)
    host.put_bytes(key, "/root/pair.key", mode=0o600)
    host.run(f"mkdir -p {ROOT} && mount /dev/vda {ROOT}", check=True)


def await_vms(host):
    standby = host.spawn(f"exec minivmm standby {ROOT} --listen :7420 --key /root/pair.key")
    standby.wait_for("VMs may come")


def mount_witness(host, server):
    wait_until(lambda: host.run(f"ping -c 1 -W 1 {server.address}").code == 0)
    host.run(MOUNT.format(server=server.address, client=host.address), check=True, timeout=60)


def test_a_host_loses_its_power(lab):
    """F2: the host of a guest is switched off while the guest works, somebody has records kept in it, and somebody types.
    All goes on, with the connections, within seconds: no byte is wrong, every record that was acknowledged is there,
    the file system is clean, and the guest has nothing to complain of. When the host is back it does not run its old
    web1.
    """
    a, b, c = make_hosts(lab)
    make_disk(a, f"{ROOT}/web1")
    await_vms(b)
    with Guest(a, folder=f"{ROOT}/web1", definition=definition("br0")) as vm:
        serve(vm, ADDRESS, c.address)
        work(vm, "/dev/vdb")
        outside = Outside(c, ADDRESS)
        outside.wait_for_more()
        a.run(f"minivmm protect web1 --to {b.address} --key /root/pair.key --witness file:{WITNESS}", check=True,
              timeout=250)
        before = wait_for(a, role="primary", state="paired")
        outside.wait_for_more()
        outside.type()
        clock = clocks(vm, c)
        a.power_cut()
    outside.wait_for_more()
    says = wait_for(b, role="primary", state="solo")
    assert says["generation"] == before["generation"] + 1, f"{says}, before {before}"
    a.start()
    mount_witness(a, c)
    refused = a.run(f"mkdir -p {ROOT} && mount /dev/vda {ROOT} && minivmm run {ROOT}/web1 2>&1")
    assert refused.code == 4 and "taken it over" in refused.out, refused
    with Guest(b, goes_on="minivmm console web1", terminal=(25, 80), until=r"leaves\r*\n") as vm:
        check_guest(vm, c, clock)
        kept = outside.finish()
        end_of_work(vm)
    check_disk(b, f"{ROOT}/web1/disk.img", kept)


test_a_host_loses_its_power.slow = True
test_a_host_loses_its_power.alone = True  # beside three more hosts its guest's programs hardly get to run
test_a_host_loses_its_power.time_limit = 900
