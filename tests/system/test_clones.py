# SPDX-License-Identifier: MIT
"""Many copies of one folder at once: on a bridge in a network namespace of its own, with a DHCP server at it."""

import re
import shutil
import subprocess

from labcommon import Skip
from pairs import Network, need_network
from test_cli import MINIVMM
from vms import Folder

COPIES = 50


class Bridge(Network):
    """With a DHCP server."""

    SERVER = """
        exec dnsmasq --keep-in-foreground --conf-file=/dev/null --pid-file= --port=0 --user=root --interface=br0 \
            --dhcp-range=10.99.1.0,10.99.250.255,1h --dhcp-authoritative --no-ping --log-facility=- \
            --dhcp-leasefile="$0/leases"
    """

    def __init__(self, vms):
        self.leases_file, log = vms.root / "leases", vms.root / "dnsmasq.log"
        with open(log, "wb") as errors:
            super().__init__(vms.root, errors)
        try:
            vms.wait_until(lambda: self.server.poll() is not None or b"DHCP, IP range" in log.read_bytes(), "dnsmasq")
            assert self.server.poll() is None, f"no bridge with a DHCP server: {log.read_text()}"
        except BaseException:
            self.close()
            raise

    def leases(self):
        """{MAC: address}, as the server wrote it."""
        fields = [line.split() for line in self.leases_file.read_text().splitlines()]
        return {line[1]: line[2] for line in fields}


def start_all(vms, bridge, names):
    """At once, in the background: what each said."""
    results = bridge.run_all([(MINIVMM, "run", name, "--detach") for name in names], env=vms.env, cwd=vms.root)
    bad = [(name, *result) for name, result in zip(names, results) if result[0] != 0]
    assert not bad, f"{len(bad)} of {len(names)} did not start, the first: {bad[0]}"
    return [words for _, words in results]


def address(vms, name):
    """(address, MAC) that the guest has told of in this life; a copy's log may begin with its original's."""
    told = dict(map(reversed, re.findall(r"^address (\S+) mac (\S+)\r?\n", vms.console(name), re.M)))
    mac = vms.identity(name)["macs"][0]
    return (told[mac], mac) if mac in told else None


def wait_for_addresses(vms, names):
    missing = set(names)

    def none_missing():
        missing.difference_update([name for name in missing if address(vms, name)])
        return not missing

    try:
        vms.wait_until(none_missing, "an address for everyone", timeout=60)
    except AssertionError as error:
        name = min(missing)
        raise AssertionError(f"{error}: {len(missing)} have none; {name} said: {vms.console(name)}") from error
    return [address(vms, name) for name in names]


def expect_distinct(what, values):
    values = list(values)
    assert len(set(values)) == len(values), f"{len(values)} VMs have {len(set(values))} different {what}"


def test_fifty_copies_at_once():
    """50 plain copies of a running VM's folder, started at once, are 50 VMs: with a UUID, a MAC, a generation and, from
    the DHCP server on their bridge, an address of their own, and each answers there. When they stop nothing is left."""
    need_network()
    if not shutil.which("dnsmasq"):
        raise Skip("no dnsmasq: scripts/install-packages test")
    with Folder() as vms, Bridge(vms) as bridge:
        vms.make("web", kernel="dhcp.elf", memory="4M", nets=[{"mode": "bridge", "bridge": "br0"}])
        assert "is a copy" not in start_all(vms, bridge, ["web"])[0]
        wait_for_addresses(vms, ["web"])
        copies = [f"web{number}" for number in range(1, COPIES + 1)]
        for name in copies:
            subprocess.run(["cp", "-r", "web", name], cwd=vms.root, check=True)
        for name, words in zip(copies, start_all(vms, bridge, copies)):
            assert len(re.findall(f"{name} is a copy", words)) == 1, f"{name} said: {words}"

        everyone = ["web", *copies]
        addresses = wait_for_addresses(vms, everyone)
        expect_distinct("addresses", (ip for ip, _ in addresses))
        expect_distinct("MACs", (mac for _, mac in addresses))
        for key in ("uuid", "generation"):
            expect_distinct(f"{key}s", (vms.identity(name)[key] for name in everyone))
        assert {mac: ip for ip, mac in addresses} == bridge.leases()
        running = {row["name"]: row["state"] for row in vms.list()}
        assert running == dict.fromkeys(everyone, "running"), running
        assert len(bridge.taps()) == len(everyone), bridge.taps()
        silent = [ip for (ip, _), (code, _) in zip(addresses, bridge.run_all(
            ("busybox", "ping", "-c1", "-W2", ip) for ip, _ in addresses)) if code != 0]
        assert not silent, f"no answer from {silent}"

        vms.good("stop", *everyone)
        assert vms.list() == [] and list((vms.root / ".run").iterdir()) == []
        assert bridge.taps() == [], bridge.taps()
        assert all(vms.journal(name)[-1][0] == "stop" for name in everyone)
