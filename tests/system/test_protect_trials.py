# SPDX-License-Identifier: MIT
"""What befalls whole hosts of a protected Linux guest, by the numbers of docs/fault-tolerance.md: three lab hosts, as in
test_protect_hosts.py. Two have the guest and its twin, the third one the witness and the people who use the guest."""

import contextlib

from labguest import Guest
from test_net import wait_until
from test_protect_hosts import ADDRESS, ROOT, WITNESS, await_vms, furnish, make_hosts
from test_protect_linux import (Outside, check_clocks, check_disk, check_kernel, clocks, definition, end_of_work,
                                make_disk, protection, serve, wait_for)

# Frames of a guest that stood still, which its host's kernel and network card had taken already.
ON_THEIR_WAY = 16
KEY = "/root/pair.key"
LONGEST = 1500  # seconds that a test may take
GAP = 60  # seconds that somebody may wait: all of it, hosts and guest, is emulated by what CPUs there are


def boot(host, vm=None):
    """web1 there. It may wait for its twin, and is filled over there while it boots: all of it on one emulated CPU."""
    return Guest(host, folder=f"{ROOT}/web1", definition=vm, patience=300)


def protect(host, other, *options):
    host.run(f"minivmm protect web1 --to {other.address} --key {KEY} --witness file:{WITNESS} --back {host.address}:7420 "
             + " ".join(options), check=True, timeout=250)
    return wait_for(host, role="primary", state="paired")


def owners(*hosts):
    """Whose guest may be heard; more than one is an error. Who is alone, and does not know as yet, holds its output."""
    found = [host for host in hosts if protection(host).get("state") in ["solo", "gated", "paired", "handing over"]]
    assert len(found) < 2, "two hosts say that the VM is theirs"
    return found


def on_console(host):
    return Guest(host, goes_on="minivmm console web1", terminal=(25, 80), until=r"leaves\r*\n")


def refused(host):
    said = host.run(f"minivmm run {ROOT}/web1 2>&1", timeout=60)
    assert said.code == 4 and ("is a twin" in said.out or "taken it over" in said.out or "the twin of" in said.out), said


def cut_both(c, outside, *hosts):
    """At one moment; how many records were acknowledged until then."""
    for host in hosts:
        host.power_cut()
    for job in (outside.asking, outside.shell):
        job.kill()
        job.wait(30)
    kept = outside.kept()
    for job in (outside.asking, outside.shell):
        job.forget()
    return kept


def check_records(vm, kept):
    """All numbers are there, in their order, and none is missing that was acknowledged: by the guest, because the VMM has
    words of its own on the console. Whoever comes begins anew."""
    wrong = f'sprintf("%015d", NR) != $0 "" {{ bad = 1 }} END {{ print NR, bad + 0; exit bad || NR < {kept} }}'
    vm.run(f"touch /mnt/records; awk '{wrong}' /mnt/records")
    vm.run("rm /mnt/records")


def come_back(host, server, key):
    """All that its units would do, but for run."""
    host.start()
    furnish(host, server, key)
    await_vms(host)


def both_lose_their_power(lab, owner_first):
    a, b, c = make_hosts(lab)
    make_disk(a, f"{ROOT}/web1")
    for host in (a, b):
        await_vms(host)
    key = a.get_bytes(KEY)
    with boot(a, definition("br0")) as vm:
        serve(vm, ADDRESS, c.address)
        outside = Outside(c, ADDRESS)
        outside.wait_for_more()
        protect(a, b, "--level durable")
        outside.wait_for_more()
        kept = cut_both(c, outside, a, b)
    if not owner_first:
        come_back(b, c, key)
        refused(b)
    come_back(a, c, key)
    with boot(a) as vm:
        if owner_first:
            come_back(b, c, key)
            refused(b)
        serve(vm, ADDRESS, c.address)
        check_records(vm, kept)
        outside = Outside(c, ADDRESS)
        outside.wait_for_more()
        wait_for(a, timeout=250, role="primary", state="paired")
        outside.wait_for_more()
        kept = outside.finish(GAP)
        end_of_work(vm)
    check_disk(a, f"{ROOT}/web1/disk.img", kept)


def test_f10_the_owners_host_returns_first(lab):
    """F10: both hosts are switched off at one moment, in the middle of work, and come back one after the other, first that
    of the guest. The guest boots where it ran last and nowhere else, its file system is whole, every record that was
    acknowledged is there, and it gets its twin again without a person."""
    both_lose_their_power(lab, owner_first=True)


def test_f10_the_twins_host_returns_first(lab):
    """The same where the twin's host is back first, while nobody is there who knows more: it runs nothing."""
    both_lose_their_power(lab, owner_first=False)


def test_f5_a_host_stands_still(lab):
    """F5: the host of the guest is frozen, as a whole, until its twin has gone on, and longer; then it thaws. Whoever uses
    the guest notices nothing of that: the old process ends, by itself and refused, nothing that it says leaves its host, and
    the Ethernet goes on leading to the new one."""
    a, b, c = make_hosts(lab)
    make_disk(a, f"{ROOT}/web1")
    await_vms(b)
    with boot(a, definition("br0")) as vm:
        serve(vm, ADDRESS, c.address)
        mac = vm.run("cat /sys/class/net/eth0/address").strip()
        outside = Outside(c, ADDRESS)
        outside.wait_for_more()
        before = protect(a, b)
        outside.wait_for_more()
        clock = clocks(vm, c)
        a.freeze()
        outside.wait_for_more()
        says = wait_for(b, role="primary", state="solo")
        assert says["generation"] == before["generation"] + 1, f"{says}, before {before}"
        outside.wait_for_more()
        sent = lab.net.heard(a, mac)
        a.thaw()
        assert vm.job.wait(60) == 4, vm.job.seen[-2000:]
    outside.wait_for_more()
    late = lab.net.heard(a, mac) - sent
    assert late <= ON_THEIR_WAY, f"{late} frames of the guest have left its old host"
    assert owners(a, b) == [b]
    refused(a)
    with on_console(b) as vm:
        check_clocks(vm, c, clock, LONGEST)
        check_kernel(vm)
        kept = outside.finish(GAP)
        end_of_work(vm)
    check_disk(b, f"{ROOT}/web1/disk.img", kept)


def test_f16_one_way_is_cut(lab):
    """F16: of the two directions between the hosts one is cut, then, when they are a pair again, the other one; both see the
    witness and the people. Each time exactly one host has the guest, which goes on, and when the line is whole the other one
    becomes its twin again."""
    a, b, c = make_hosts(lab)
    make_disk(a, f"{ROOT}/web1")
    for host in (a, b):
        await_vms(host)
    with boot(a, definition("br0")) as vm:
        serve(vm, ADDRESS, c.address)
        outside = Outside(c, ADDRESS)
        outside.wait_for_more()
        before = protect(a, b)
        outside.wait_for_more()
        clock = clocks(vm, c)
        for silent, deaf in [(a, b), (b, a)]:
            lab.net.cut(silent, to=deaf)
            wait_until(lambda: any(protection(host).get("generation", 0) > before["generation"] and
                                   protection(host).get("state") == "solo" for host in owners(a, b)), 60)
            owner, = owners(a, b)
            outside.wait_for_more()
            assert owners(a, b) == [owner]
            lab.net.heal()
            before = wait_for(owner, timeout=250, role="primary", state="paired")
            outside.wait_for_more()
            assert owners(a, b) == [owner]
        with contextlib.ExitStack() as stack:
            last = vm if vm.job.is_running else stack.enter_context(on_console(owner))
            check_clocks(last, c, clock, LONGEST)
            check_kernel(last)
            kept = outside.finish(GAP)
            end_of_work(last)
    check_disk(owner, f"{ROOT}/web1/disk.img", kept)


for trial in (test_f10_the_owners_host_returns_first, test_f10_the_twins_host_returns_first, test_f5_a_host_stands_still,
              test_f16_one_way_is_cut):
    trial.slow = True  # minutes
    trial.alone = True  # beside three more hosts their guest's programs hardly get to run
    trial.time_limit = LONGEST
