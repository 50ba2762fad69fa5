# SPDX-License-Identifier: MIT
"""migrate --shared-disk over a real NFS, in a lab host that is its server, and its client twice."""

import json
import subprocess
import tempfile
from pathlib import Path

from labguest import need_minivmm
from test_cli import guest

ROOT = "/root/nfs"
# What nfs-utils would do, by hand: nobody needs them for one export, and a tmpfs has no number of its own. By the two
# versions the server takes them for two clients, as two hosts would be.
SERVE = r"""
modprobe -a nfsd nfsv4 && ip link set lo up && mount -t nfsd nfsd /proc/fs/nfsd
mkdir -p /srv /mnt/a /mnt/b /var/lib/nfs/v4recovery && mount -t tmpfs none /srv && cd /proc/fs/nfsd
echo "-2 -3 +4 +4.1 +4.2" >versions; echo 10 >nfsv4leasetime; echo 10 >nfsv4gracetime
echo "tcp 2049" >portlist && echo 4 >threads && echo Y >v4_end_grace && cd /proc/net/rpc
echo "nfsd 127.0.0.1 2147483647 all" >auth.unix.ip/channel
echo "all /srv 2147483647 9218 65534 65534 0" >nfsd.export/channel
echo 'all 1 \x00000000 2147483647 /srv' >nfsd.fh/channel
for at in a:4.2 b:4.1; do
    timeout 20 mount -t nfs4 -o addr=127.0.0.1,clientaddr=127.0.0.1,vers=${at#*:} 127.0.0.1:/ /mnt/${at%:*} || exit
done
"""
PLACES = {"a": "/mnt/a", "b": "/mnt/b", "server": "/srv"}


class Place:
    """A place for VMs in the lab host, which sees the disks in its own way."""

    def __init__(self, host, name, sees, port):
        self.host, self.root, self.address = host, f"{ROOT}/{name}", f"127.0.0.1:{port}"
        self.env = f"env MINIVMM_RUNTIME_DIR=/run/nfs-{name}"
        host.run(f"mkdir -p {self.root} && ln -s {sees} {self.root}/disks", check=True)
        self.waiting = host.spawn(f"{self.env} minivmm standby {self.root} --listen {self.address}")
        self.waiting.wait_for("VMs may come")

    def run(self, words, **options):
        return self.host.run(f"cd {self.root} && {self.env} minivmm {words}", **options)

    def wait_for_rounds(self):
        """The guest goes on, and has found nothing wrong."""
        log = f"{self.root}/web1/console.log"
        self.host.run(f"n=$(grep -c steady: {log}); for i in $(seq 300); do "
                      f"[ $(grep -c steady: {log}) -gt ${{n:-0}} ] && exit; usleep 100000; done; exit 1", check=True)
        assert self.host.run(f"grep WRONG {log}").code == 1

    def close(self):
        self.run("stop --force web1")
        self.waiting.kill()
        self.waiting.wait(30)
        self.waiting.forget()


def images():
    """{name: bytes}: a raw disk, and one of qcow2 that stands on another."""
    with tempfile.TemporaryDirectory() as folder:
        for words in ["raw web1.raw 512K", "raw base.raw 512K", "qcow2 -b base.raw -F raw web1.qcow2"]:
            subprocess.run(["qemu-img", "create", "-q", "-f", *words.split()], cwd=folder, check=True)
        return {path.name: path.read_bytes() for path in Path(folder).iterdir()}


def test_disks_on_nfs(host):
    """A VM moves between two clients and the server itself, and its disk stays where it is: marks and locks are seen
    across, and what one has written the next one reads. What is only of the same name is refused."""
    need_minivmm()
    host.run(SERVE, check=True)
    places = []
    try:
        for name, data in images().items():
            host.put_bytes(data, f"/srv/{name}")
        for port, (name, sees) in enumerate(PLACES.items(), 7431):
            places.append(Place(host, name, sees, port))
        for disk in ["raw", "qcow2"]:
            here, *others = places
            definition = {"cpus": 1, "memory": "16M", "boot": {"kernel": "kernel", "cmdline": "pages=16"}, "nets": [],
                          "disks": [{"file": f"../disks/web1.{disk}", "format": disk, "backing": disk == "qcow2"}]}
            host.run(f"mkdir {here.root}/web1", check=True)
            host.put_bytes(json.dumps(definition).encode(), f"{here.root}/web1/vm.json")
            host.put(guest("steady.elf"), f"{here.root}/web1/kernel")
            here.run("run --detach web1", check=True)
            here.wait_for_rounds()
            for there in [*others, here]:
                said = here.run(f"migrate web1 {there.address} --shared-disk 2>&1", timeout=60)
                assert said.code == 0 and "changed hands in" in said.out, said.out
                there.wait_for_rounds()
                host.run(f"rm -r {here.root}/web1", check=True)
                here = there
            there = others[0]
            more = "format=raw" if disk == "raw" else "format=qcow2,backing"
            for other in others:
                said = other.run(f"run --net none --disk disks/web1.{disk},{more} 2>&1", timeout=60)
                assert said.code == 4 and "is in use by another VM" in said.out, said.out
            host.run(f"rm {there.root}/disks && mkdir {there.root}/disks && cp /srv/* {there.root}/disks", check=True)
            said = here.run(f"migrate web1 {there.address} --shared-disk 2>&1", timeout=60)
            assert said.code == 4 and "is not the file that the VM has open" in said.out, said.out
            host.run(f"rm -r {there.root}/disks && ln -s {PLACES['b']} {there.root}/disks", check=True)
            here.wait_for_rounds()
            here.run("stop --force web1", check=True)
            host.run(f"rm -r {here.root}/web1", check=True)
    finally:
        for place in places:
            place.close()
        host.run(f"rm -rf {ROOT}; umount /mnt/a /mnt/b; echo 0 >/proc/fs/nfsd/threads; umount -l /srv")


test_disks_on_nfs.slow = True  # half a minute
