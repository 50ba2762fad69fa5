# SPDX-License-Identifier: MIT
"""minivmm pair, unpair and pairs: two "hosts" with a store of keys each, and a stand-in for ssh that runs what it is told
on this machine, as the other host. Then migrate and protect over addresses that are not the loopback's, without --key."""

import contextlib
import json
import os
import re
import shutil
import stat
import subprocess
import sys

from labcommon import Skip
from pairs import Pair, PairHost
from test_cli import MINIVMM
from test_migrate import Host, ended, free_port, make

HEX = re.compile(r"\b[0-9a-f]{64}\b")
PRINT = re.compile(r"\b[0-9a-f]{32}\b")

# Of SSH_CUT's "3 before kill": at the third question, before or after the other side has heard it, the asking side is
# killed, or both only lose each other ("hang").
SSH = """#!{python}
import json, os, signal, subprocess, sys
options, destination, command = sys.argv[1:3], sys.argv[3], sys.argv[4]
assert options == ["-T", "--"], options
host = destination.split("@")[-1].lower()
with open({log!r}, "a") as log:
    print(json.dumps([destination, command]), file=log)
world = json.load(open({world!r}))
if host not in world:
    print("ssh: connect to host: No route to host", file=sys.stderr)
    sys.exit(255)
os.environ["MINIVMM_KEYS_DIR"] = world[host]
print("Welcome to this host!", flush=True)
cut = os.environ.get("SSH_CUT")
if not cut:
    os.execvp("sh", ["sh", "-c", command])
number, when, how = cut.split()
remote = subprocess.Popen(["sh", "-c", command], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
print(remote.stdout.readline().decode(), end="", flush=True)
for count, line in enumerate(iter(sys.stdin.buffer.readline, b""), 1):
    answer = None
    if count != int(number) or when == "after":
        remote.stdin.write(line)
        remote.stdin.flush()
        answer = remote.stdout.readline()
    if count == int(number):
        if how == "kill":
            os.kill(os.getppid(), signal.SIGKILL)
        break
    sys.stdout.buffer.write(answer)
    sys.stdout.flush()
remote.stdin.close()
sys.exit(remote.wait())
"""


def let_ssh(hosts):
    """Each host gets to the others by ssh NAME; hosts: {name: host}."""
    first = next(iter(hosts.values()))
    tools = first.root / ".tools"
    tools.mkdir()
    (tools / "minivmm").symlink_to(MINIVMM)
    world, log, ssh = tools / "world", tools / "log", tools / "ssh"
    world.write_text(json.dumps({name: host.env["MINIVMM_KEYS_DIR"] for name, host in hosts.items()}))
    ssh.write_text(SSH.format(python=sys.executable, world=str(world), log=str(log)))
    ssh.chmod(0o755)
    for host in hosts.values():
        host.env["PATH"] = f"{tools}:{os.environ['PATH']}"
        host.ssh_log = log


@contextlib.contextmanager
def two_hosts():
    with Host() as a, Host() as b:
        let_ssh({"hosta": a, "hostb": b})
        yield a, b


def store(host):
    return host.root / ".keys"


def keys(host, name):
    """(the key that it calls with, all that it takes)."""
    lines = (store(host) / f"{name}.key").read_text().splitlines()
    return lines[0], {line.split()[-1] for line in [lines[0], *lines[2:]]}


def check_open(a, b):
    """Whichever calls has a key that is good at the other one."""
    (its, ours), (other, others) = keys(a, "hostb"), keys(b, "hosta")
    assert its in others and other in ours, "somebody is locked out"


def check_settled(a, b):
    one, other = keys(a, "hostb"), keys(b, "hosta")
    assert one == other and one[1] == {one[0]}, "both have not one and the same key"
    prints = [PRINT.findall(host.good("pairs")) for host in (a, b)]
    assert len(prints[0]) == 1 and prints[0] == prints[1], prints
    return one[0]


def pair(host, *more):
    result = host.run("pair", *more)
    assert result.returncode == 0, result.stderr
    return result.stderr


# --- the verbs ------------------------------------------------------------------------------------------------------


def test_pair_again_renew_unpair():
    """One command gives both a key, which no command line has seen; again says so; --renew and unpair work at both."""
    with two_hosts() as (a, b):
        assert a.good("pairs") == ""
        said = pair(a, "ops@HostB", "--as", "hosta")
        first = check_settled(a, b)
        assert "paired: this host calls it hostb, and is called hosta there" in said
        assert PRINT.findall(said) == PRINT.findall(a.good("pairs")), said
        for host in (a, b):
            assert stat.S_IMODE(store(host).stat().st_mode) == 0o700
            assert {stat.S_IMODE(file.stat().st_mode) for file in store(host).iterdir()} == {0o600}
        for host, other, its in ((a, "hostb", "hosta"), (b, "hosta", "hostb")):
            assert "they are paired already" in pair(host, other, "--as", its)
            assert check_settled(a, b) == first
        assert "paired anew" in pair(a, "hostb", "--renew")  # --as is remembered
        second = check_settled(a, b)
        assert "paired anew" in pair(b, "hosta", "--renew")
        assert len({first, second, check_settled(a, b)}) == 3
        asked = a.ssh_log.read_text()
        assert json.loads(asked.splitlines()[0]) == ["ops@HostB", "minivmm pair --accept"]
        assert not HEX.search(asked) and not PRINT.search(asked), "a key was on a command line"
        assert a.run("unpair", "hostb").returncode == 0
        assert not list(store(a).glob("*.key")) and not list(store(b).glob("*.key"))
        assert "minivmm pairs" in a.bad(3, "this host has no pair hostb", "unpair", "hostb")


# Questions: show, add, settle.
CUTS = [f"{number} {when} {how}" for number in (1, 2, 3) for when in ("before", "after") for how in ("kill", "hang")]


def cut_short(host, cut, *arguments):
    result = host.run("pair", *arguments, env={**host.env, "SSH_CUT": cut})
    assert result.returncode == (-9 if cut.endswith("kill") else 1), f"{cut}: {result}"
    if cut.endswith("hang"):
        assert "hint: the same command again goes on where this one was cut short" in result.stderr, result.stderr


def test_renew_cut_short():
    """A renewal that ends at any step, however it does, locks nobody out, and is taken up by either side."""
    with two_hosts() as (a, b):
        pair(a, "hostb", "--as", "hosta")
        for cut in CUTS:
            for who, other, its in ((a, "hostb", "hosta"), (b, "hosta", "hostb")):
                before = check_settled(a, b)
                cut_short(a, cut, "hostb", "--renew")
                check_open(a, b)
                for state in (a.good("pairs"), b.good("pairs")):
                    assert "not sound" not in state
                pair(who, other, "--as", its)
                # B, which has not heard of it, lets it be forgotten.
                unheard = cut.startswith("1 ") or (who is b and cut.startswith("2 before"))
                assert (check_settled(a, b) == before) == unheard, f"{cut}: not renewed, or for no reason"


def test_renew_cut_short_twice():
    """Also where it is cut short again, by any side and at any step."""
    with two_hosts() as (a, b):
        pair(a, "hostb", "--as", "hosta")
        for first in CUTS[2::2]:
            for second in CUTS[1::4]:
                cut_short(a, first, "hostb", "--renew")
                b.run("pair", "hosta", "--as", "hostb", "--renew", env={**b.env, "SSH_CUT": second})
                check_open(a, b)
                pair(a, "hostb")
                check_settled(a, b)


def test_first_pairing_cut_short():
    """The first one may end anywhere, too; the same command again ends it."""
    for cut in ("1 before kill", "1 after hang", "2 before kill", "2 after kill", "2 after hang"):
        with two_hosts() as (a, b):
            cut_short(a, cut, "hostb", "--as", "hosta")
            pair(a, "hostb", "--as", "hosta")
            check_settled(a, b)


def test_keys_that_differ():
    """What is not the same key is said, with both, and replaced only when that is asked for."""
    with two_hosts() as (a, b):
        pair(a, "hostb", "--as", "hosta")
        (store(a) / "hostb.key").unlink()
        a.bad(4, "hostb has a key for a host hosta already, and this host has none\\b.*\nhint: --renew", "pair", "hostb",
              "--as", "hosta")
        pair(a, "hostb", "--as", "hosta", "--renew")
        check_settled(a, b)
        other = a.good("key").strip() + "\nas hostb\n"
        (store(b) / "hosta.key").write_text(other)
        words = a.bad(4, "the keys differ: .* here, .* at hostb\nhint: minivmm pair --renew hostb", "pair", "hostb")
        assert len(set(PRINT.findall(words))) == 2
        assert (store(b) / "hosta.key").read_text() == other
        a.bad(4, "the key for hosta is another one here\nhint: there: minivmm unpair hosta", "unpair", "hostb")
        assert (store(b) / "hosta.key").read_text() == other, "unpair has removed a key of somebody else"
        pair(a, "hostb", "--as", "hosta", "--renew")
        check_settled(a, b)


def test_another_name():
    """A pair that this host has under another name is no reason for another key; the mend leads to the name that is meant,
    and renews no key under the other one's feet."""
    with two_hosts() as (a, b):
        pair(a, "hostb", "--as", "hosta")
        before = keys(a, "hostb")
        for more in ((), ("--renew",)):
            words = b.bad(4, "this host calls 10.0.0.1 hosta already\nhint: ", "pair", "hosta", "--as", "hostb", "--name",
                          "10.0.0.1", *more)
            assert "minivmm pair hosta --name hosta;" in words and "--renew" not in words, words
            assert keys(a, "hostb") == before == keys(b, "hosta")
        assert "are paired already" in pair(b, "hosta", "--name", "hosta")
        b.good("unpair", "hosta", "--name", "hosta")
        pair(b, "hosta", "--as", "hostb", "--name", "10.0.0.1")
        (store(a) / "hostb.key").write_text(b.good("key").strip() + "\nas 10.0.0.1\n")
        b.bad(4, "the keys differ: .*\nhint: minivmm pair --renew hosta --name 10.0.0.1 makes them one", "pair", "hosta",
              "--name", "10.0.0.1")


def test_what_is_in_the_way():
    """Each error of ssh, of the other host, and of the stores has its mend."""
    with two_hosts() as (a, b):
        nothing = a.root / "nothing"
        nothing.mkdir()
        result = a.run("pair", "hostb", env={**a.env, "PATH": str(nothing)})
        assert result.returncode == 6 and "hint: sudo apt install openssh-client" in result.stderr, result
        a.bad(1, "ssh does not get to hostc\nhint: ssh hostc true", "pair", "hostc", "--as", "hosta")
        a.bad(1, "hostb finds no minivmm\nhint: .*--remote-command", "pair", "hostb", "--remote-command",
              "/nonexistent/minivmm")
        a.bad(1, "older, and knows no pairs\nhint: install the same version", "pair", "hostb", "--remote-command",
              "exit 2; :")
        a.bad(1, r"minivmm 9.9 at hostb pairs by version 7, .*\nhint: install the same", "pair", "hostb",
              "--remote-command", "echo minivmm-pair 7 9.9; cat; :")
        a.bad(1, "ended .exit code 0. and said nothing", "pair", "hostb", "--remote-command", "true; :")
        a.bad(1, "is not minivmm pair --accept", "pair", "hostb", "--remote-command", "yes; :")
        for name in ("../x", "a/b", "user@..", "a b", ""):
            a.bad(2, "hint: ", "pair", name)
        a.bad(2, "that is no host for ssh", "pair", "--", "-oProxyCommand=x")
        a.bad(2, "no name of a host", "pair", "hostb", "--as", "../x")
        assert not list(store(a).glob("*.key")), "an error has left a key"
        pair(a, "hostb", "--as", "hosta")
        store(b).chmod(0o750)
        a.bad(4, "hostb: others can get into the folder of keys .*\nhint: chmod 700", "pair", "hostb")
        b.bad(4, "others can get into the folder of keys .*\nhint: chmod 700", "pairs")
        store(b).chmod(0o700)
        (store(a) / "hostb.key").chmod(0o640)
        a.bad(4, "hostb.key can be read or written by others\nhint: chmod 600", "pair", "hostb")
        result = a.run("pairs")
        assert result.returncode == 4 and "not sound" in result.stdout and "hint: chmod 600" in result.stderr, result
        (store(a) / "hostb.key").rename(a.root / "aside")
        (store(a) / "hostb.key").symlink_to(a.root / "aside")
        a.bad(5, "not sound: it is a symbolic link", "pair", "hostb")
        assert a.run("unpair", "hostb").returncode == 0
        assert (a.root / "aside").exists() and not (store(a) / "hostb.key").is_symlink()


# --- what they are for ----------------------------------------------------------------------------------------------


class PairedHosts(Pair):
    """At addresses of their own, which are not the loopback's, and paired; nobody stands between them. No interface has
    these addresses: else each would be told that the other one is itself."""

    AT_A, AT_B, AT_C = "10.97.0.1", "10.97.0.3", "10.97.0.4"

    def __init__(self, paired=True):
        super().__init__()
        ways = "ip route add local $0/32 dev lo; for at; do ip route add local $at/32 dev lo src $0; done"
        (code, said), = self.net.run_all([("sh", "-ec", ways, self.AT_A, self.AT_B, self.AT_C)])
        assert code == 0, said
        self.c = self.enter_context(PairHost(self.net))
        let_ssh({self.AT_A: self.a, self.AT_B: self.b, self.AT_C: self.c, "hostb": self.b})
        if paired:
            pair(self.a, self.AT_B, "--as", self.AT_A)

    def wait_for_vms(self, host):
        at = {self.a: self.AT_A, self.b: self.AT_B, self.c: self.AT_C}[host]
        host.waiting = self.standbys[host] = host.begin("standby", ".", "--listen", f"{at}:7420")
        line = host.waiting.stderr.readline()
        assert "VMs may come to" in line, line

    def follow(self, host, to, *more):
        return host.run("protect", "web1", "--to", to, "--witness", f"file:{self.witness}", *more)


def test_migrate_by_pair():
    """A VM goes there and back with no --key. Without a pair it stays, and the mend is said at both."""
    with PairedHosts(paired=False) as hosts:
        a, b = hosts.a, hosts.b
        make(a)
        process = a.start("web1", until="steady: ")
        for host in (a, b):
            hosts.wait_for_vms(host)
        a.bad(2, f"needs a key, and there is none for {hosts.AT_B}\nhint: minivmm pair {hosts.AT_B} makes", "migrate",
              "web1", hosts.AT_B)
        pair(a, hosts.AT_B, "--as", hosts.AT_A)
        a.good("migrate", "web1", hosts.AT_B)
        ended(process)
        shutil.rmtree(a.root / "web1")
        pair(b, hosts.AT_A, "--as", hosts.AT_B, "--renew")
        b.good("migrate", "web1", f"{hosts.AT_A}:7420")
        a.goes_on()
        other = a.good("key").strip() + f"\nas {hosts.AT_A}\n"
        shutil.rmtree(b.root / "web1")
        (store(a) / f"{hosts.AT_B}.key").write_text(other)
        a.bad(1, "the keys differ, this one and that of .*\nhint: minivmm pair", "migrate", "web1", hosts.AT_B)
        a.goes_on()


def test_protect_by_pair():
    """A twin by the pair's key, the way back after a takeover with the same, and a renewal while they are connected: that
    connection goes on, the next one has the new key."""
    with PairedHosts() as hosts:
        a, b = hosts.a, hosts.b
        hosts.start_primary()
        for host in (a, b):
            hosts.wait_for_vms(host)
        said = hosts.follow(a, hosts.AT_B, "--back", hosts.AT_A)
        assert said.returncode == 0, said.stderr
        for host, name in ((a, hosts.AT_B), (b, hosts.AT_A)):
            saved = json.loads((host.root / "web1/.protected").read_text())
            assert saved["key"] == str(store(host) / f"{name}.key"), saved
        before = hosts.wait_for(a, role="primary", state="paired")
        pair(a, hosts.AT_B, "--renew")
        hosts.wait_for(a, state="paired", epoch=lambda epoch: epoch > before["epoch"] + 5)
        hosts.kill(a)
        hosts.wait_for(b, role="primary", state="paired", timeout=60)  # host A is its twin now, by the new key
        assert json.loads((b.root / "web1/.protected").read_text())["peer"].startswith(hosts.AT_A)


def test_one_pair_for_two_lines():
    """Two lines between two hosts have the key of one pair, whose name is the address that --to begins with. Paired by
    another name they have none, and protect says so."""
    with PairedHosts(paired=False) as hosts:
        a, b, lines = hosts.a, hosts.b, f"{hosts.AT_B},{hosts.AT_C}"
        b.waiting = b.begin("standby", ".", "--listen", f"{hosts.AT_B}:7420", "--listen", f"{hosts.AT_C}:7420")
        assert "VMs may come to" in b.waiting.stderr.readline()
        hosts.start_primary()
        pair(a, "hostb", "--as", hosts.AT_A)
        said = hosts.follow(a, lines)
        assert said.returncode == 2 and f"there is none for {hosts.AT_B}" in said.stderr, said
        a.good("unpair", "hostb")
        pair(a, "hostb", "--name", hosts.AT_B, "--as", hosts.AT_A)
        said = hosts.follow(a, lines)
        assert said.returncode == 0, said.stderr
        hosts.wait_for(a, state="paired", paths=lambda ways: [way["alive"] for way in ways or []] == [True, True])


def test_each_host_has_its_own_key():
    """When the host of the twin is gone for good, another one of ft.peers gets it, by the key of that pair."""
    with PairedHosts() as hosts:
        pair(hosts.a, hosts.AT_C, "--as", hosts.AT_A)
        hosts.make(ft={"peers": [hosts.AT_B, hosts.AT_C], "peers_after_s": 0})
        hosts.start_primary()
        for host in (hosts.b, hosts.c):
            hosts.wait_for_vms(host)
        hosts.a.good("protect", "web1", "--witness", f"file:{hosts.witness}")
        hosts.wait_for(hosts.a, state="paired", peer=hosts.AT_B)
        hosts.b.waiting.kill()
        hosts.kill(hosts.b)
        hosts.wait_for(hosts.a, state="paired", peer=hosts.AT_C)
        saved = json.loads((hosts.a.root / "web1/.protected").read_text())
        assert saved["key"].endswith(f"{hosts.AT_C}.key"), saved


def test_a_key_that_is_taken_away():
    """After unpair what is connected goes on, and does not come back: not with a key that somebody remembers."""
    with PairedHosts() as hosts:
        a, b = hosts.a, hosts.b
        hosts.start_primary()
        hosts.wait_for_vms(b)
        assert hosts.follow(a, hosts.AT_B).returncode == 0
        before = hosts.wait_for(a, state="paired")
        assert a.run("unpair", hosts.AT_B).returncode == 0
        hosts.wait_for(a, state="paired", epoch=lambda epoch: epoch > before["epoch"] + 5)
        os.kill(b.arriving()[-1], 9)
        why = hosts.wait_for(a, state="solo", why=lambda text: text and "cannot read the key" in text)
        assert why["role"] == "primary"
        pair(a, hosts.AT_B, "--as", hosts.AT_A)
        hosts.wait_for(a, role="primary", state="paired", timeout=60)


def test_a_vm_starts_without_its_pair():
    """A protected VM whose pair is taken away while it is off starts, and says why it has no twin. Paired again it has
    one."""
    with PairedHosts() as hosts:
        process = hosts.start_primary()
        hosts.wait_for_vms(hosts.b)
        assert hosts.follow(hosts.a, hosts.AT_B).returncode == 0
        hosts.wait_for(hosts.a, state="paired")
        hosts.a.good("stop", "--force", "web1")
        ended(process)
        assert hosts.a.run("unpair", hosts.AT_B).returncode == 0
        hosts.start_primary()
        why = hosts.wait_for(hosts.a, state="solo", why=lambda text: text and "cannot read the key" in text)
        assert why["role"] == "primary"
        pair(hosts.a, hosts.AT_B, "--as", hosts.AT_A)
        hosts.wait_for(hosts.a, role="primary", state="paired", timeout=60)


# --- by a real ssh --------------------------------------------------------------------------------------------------

SSHD = """
Port {port}
ListenAddress 127.0.0.1
HostKey {there}/host
AuthorizedKeysFile {there}/user.pub
StrictModes no
PermitRootLogin yes
UsePAM no
PidFile none
SetEnv MINIVMM_KEYS_DIR={keys}
"""
SSH_CONFIG = """
Host hostb
  HostName 127.0.0.1
  Port {port}
  IdentityFile {there}/user
  UserKnownHostsFile {there}/known
  StrictHostKeyChecking accept-new
"""


@contextlib.contextmanager
def real_ssh(a, b):
    """sshd as host B, which host A calls hostb."""
    program = shutil.which("sshd", path="/usr/sbin:/usr/local/sbin")
    if not program or not shutil.which("ssh") or os.geteuid() != 0:
        raise Skip("needs root, sshd and ssh (Debian: sudo apt install openssh-server openssh-client)")
    there, port = a.root / ".ssh", free_port()
    there.mkdir()
    os.makedirs("/run/sshd", exist_ok=True)
    for name in ("host", "user"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", there / name], check=True)
    for name, text in (("sshd", SSHD), ("ssh", SSH_CONFIG)):
        (there / f"{name}.conf").write_text(text.format(port=port, there=there, keys=store(b)))
    tools = a.root / ".tools"
    tools.mkdir()
    (tools / "ssh").write_text(f'#!/bin/sh\nexec {shutil.which("ssh")} -F {there}/ssh.conf "$@"\n')
    (tools / "ssh").chmod(0o755)
    a.env["PATH"] = f"{tools}:{os.environ['PATH']}"
    with subprocess.Popen([program, "-D", "-e", "-f", there / "sshd.conf"], stdin=subprocess.DEVNULL,
                          stderr=subprocess.PIPE, text=True) as server:
        try:
            assert "listening" in server.stderr.readline(), "sshd does not listen"
            yield
        finally:
            server.kill()


def test_pair_by_real_ssh():
    """OpenSSH on both sides: pair, --renew and unpair with a command for the shell there, and the mend where the host is
    not known or has no minivmm in its PATH."""
    with Host() as a, Host() as b, real_ssh(a, b):
        there = ["--remote-command", f"env true; {MINIVMM}"]
        pair(a, "hostb", "--as", "hosta", *there)
        first = check_settled(a, b)
        pair(a, "hostb", "--renew", *there)
        assert check_settled(a, b) != first
        a.bad(1, "ssh does not get to hostc.invalid\nhint: ssh hostc.invalid true", "pair", "hostc.invalid")
        a.bad(1, "hostb finds no minivmm\nhint: ", "pair", "hostb", "--remote-command", "no-such-minivmm")
        check_settled(a, b)
        assert a.run("unpair", "hostb", *there).returncode == 0
        assert not list(store(b).glob("*.key"))


test_pair_by_real_ssh.slow = True
