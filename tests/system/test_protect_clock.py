# SPDX-License-Identifier: MIT
"""A protected VM and clocks: its guest keeps KVM's on a page with much else; and somebody sets the host's, in a lab host,
whose clock is its own."""

import json
import time

from labguest import need_minivmm
from test_cli import guest
from test_migrate import hosts, make, start
from test_net import wait_until
from test_protect_linux import protection as said_by
from test_protect_linux import wait_for as wait_for_lab
from test_twin_verbs import kill, protection, wait_for

EPOCHS = 100
ROOT = "/root/clocks"
DEFINITION = {"cpus": 1, "memory": "16M", "boot": {"kernel": "kernel", "cmdline": "pages=16"}, "nets": [],
              "disks": [{"file": "disk.img", "format": "raw"}],
              "ft": {"heartbeat_ms": 100, "timeout_ms": 5000}}  # all of it has one emulated CPU
HOUR, YEAR = 3600, 365 * 86400
JUMPS = [HOUR, -2 * HOUR, 10 * YEAR, -30 * YEAR, 20 * YEAR + HOUR]
LONG = 300  # seconds, of which no part of this test takes as many


def test_the_page_of_the_clock():
    """The twin tries its first state, and no byte of its memory changes, though KVM would write there if it loaded it: the
    epochs after it fit, the twin stays and takes over, and the guest finds nothing wrong."""
    for _ in range(3):
        with hosts() as (one, other):
            make(one, ft={"timeout_ms": 5000})
            start(one)
            (one.root / "w").mkdir()
            one.good("protect", "web1", "--to", other.standby(), "--witness", f"file:{one.root}/w")
            generation = protection(one)["generation"]
            seen = {}

            def enough():
                seen.update(protection(one))
                return seen.get("acked", 0) > EPOCHS or seen.get("state") != "paired"
            one.wait_until(enough, f"{EPOCHS} epochs", 60)
            assert (seen["state"], seen["generation"]) == ("paired", generation), seen
            wait_for(other, "twin")
            kill(one)
            other.goes_on()


def at(place, words=""):
    """On one of two "hosts" in the lab host."""
    return f"cd {ROOT}/{place} && exec env MINIVMM_RUNTIME_DIR=/run/clocks-{place} minivmm {words}".rstrip()


def set_clock(host, jump):
    """By so many seconds, from what it shows now. No more than busybox and the kernel need."""
    before = int(host.run("date +%s", check=True).out)
    host.run(f"date -s @{before + jump}", check=True)
    after = int(host.run("date +%s", check=True).out)
    assert 0 <= after - before - jump < LONG, f"the clock shows {after}, and not {before + jump}"


def spared(host, jump, before):
    """The clock is set, epochs follow each other as they did, and nobody was given up for it."""
    acked = said_by(host, at("a"))["acked"]
    set_clock(host, jump)
    seen = {}

    def enough():
        seen.update(said_by(host, at("a")))
        return seen.get("acked", 0) > acked + 20 or seen.get("state") != "paired"
    wait_until(enough, 120)
    assert (seen["state"], seen["generation"]) == ("paired", before["generation"]), f"after {jump} s: {seen}"


def test_f12_a_clock_is_set(host):
    """F12: somebody sets the clock of both hosts, by an hour, by decades, to and fro. Nobody is given up, epochs go on;
    a twin whose primary dies goes on in spite of that, the guest finds nothing wrong with its time, and the report's gap
    is as long as it was."""
    need_minivmm()
    real, began = int(host.run("date +%s", check=True).out), time.monotonic()
    host.run(f"ip link set lo up && mkdir -p {ROOT}/a/web1 {ROOT}/b {ROOT}/w && truncate -s 1M {ROOT}/a/web1/disk.img",
             check=True)
    host.put(guest("steady.elf"), f"{ROOT}/a/web1/kernel")
    host.put_bytes(json.dumps(DEFINITION).encode(), f"{ROOT}/a/web1/vm.json")
    standby = host.spawn(at("b", "standby . --listen 127.0.0.1:7420"))
    jobs = [standby]
    try:
        standby.wait_for("VMs may come")
        jobs.append(host.spawn(at("a", "run web1")))
        jobs[-1].wait_for("steady: 1", timeout=60)
        host.run(at("a", f"protect web1 --to 127.0.0.1:7420 --witness file:{ROOT}/w"), check=True, timeout=120)
        before = wait_for_lab(host, at("a"), role="primary", state="paired")
        for jump in JUMPS:
            spared(host, jump, before)
        jobs[-1].kill()
        set_clock(host, -HOUR)
        there = at("b")
        says = wait_for_lab(host, there, role="primary", state="solo")
        assert says["generation"] == before["generation"] + 1, f"{says}, before {before}"
        set_clock(host, 2 * HOUR)
        rounds = f"grep -c steady: {ROOT}/b/web1/console.log"
        some = int(host.run(rounds).out or 0)
        wait_until(lambda: int(host.run(rounds).out or 0) > some, 60)
        assert host.run(f"grep WRONG {ROOT}/b/web1/console.log").code == 1
        said = json.loads(host.run(at("b", "report web1 --json"), check=True).out)
        assert said["protection"]["takeovers"] == 1 and 0 < said["protection"]["gap_worst"] < LONG, said
    finally:
        host.run(at("b", "stop --force web1"))
        for job in jobs:
            job.kill()
            job.wait(30)
            job.forget()
        set_clock(host, real + int(time.monotonic() - began) - int(host.run("date +%s").out))
        host.run(f"rm -rf {ROOT}")
