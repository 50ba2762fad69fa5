# SPDX-License-Identifier: MIT
"""Two "hosts" on one Ethernet with clients at it, and a VM that may be on either: a network namespace with a bridge, two
places for VMs with a runtime folder each, and the guest echo.

    with Pair() as pair:
        pair.start_primary()
        pair.start_standby(pair.b)
        pair.protect()
        clients = pair.clients("udp", "tcp")
        clients.wait_for_more(100)
        pair.kill(pair.a)
        clients.wait_for_more(100)
        told = clients.stop()
        check_disk(pair.disk(pair.b), told)

Hosts are told apart by their folders and sockets only: the taps of both join the same bridge, as two hosts' bridges are
one Ethernet. Between them is a Line, which can be cut.
"""

import contextlib
import ctypes
import errno
import fcntl
import json
import os
import random
import select
import signal
import socket
import struct
import subprocess
import threading
import time
from pathlib import Path
from types import SimpleNamespace

from echoes import Clients
from etcds import Etcd, configure
from labcommon import Skip
from test_clone import MIB
from test_migrate import Host, free_port
from vms import freeze

CLONE_NEWNET = 0x40000000
NET_NAMESPACE = "/proc/{}/ns/net"
ETH_P_ALL, PACKET_OUTGOING = 3, 4
TUNSETIFF, IFF_TAP, IFF_NO_PI = 0x400454CA, 2, 0x1000
LIBC = ctypes.CDLL(None, use_errno=True)
PATIENT = {"timeout_ms": 5000}  # all that is to be noticed is a SIGKILL, which is noticed at once
ALERT = {"timeout_ms": 1500}  # somebody is silent, or is waited for; others use the same CPUs
HAS_IT = ["solo", "gated", "paired", "handing over"]  # who is alone, and does not know as yet, holds its output


def need_network():
    if os.geteuid() != 0:
        raise Skip("makes a network namespace with a bridge: needs root")
    if not os.access("/dev/net/tun", os.R_OK | os.W_OK):
        raise Skip("no usable /dev/net/tun")
    result = subprocess.run(["unshare", "--net", "ip", "link", "add", "br0", "type", "bridge"], capture_output=True,
                            text=True)
    if result.returncode != 0:
        raise Skip(f"no bridge in a network namespace here: {result.stderr.strip()}")


class Network:
    """br0 in a namespace of its own. It lives as long as the processes in it, and they end with this object. SETUP
    and SERVER are for sh, which knows a folder as $0."""

    SETUP = """
        ip link set lo up
        ip link add br0 address 02:00:00:00:00:01 type bridge
        ip address add 10.99.0.1/16 dev br0
        ip link set br0 up
        echo ready
    """
    SERVER = "exec sleep infinity"

    def __init__(self, folder="/", errors=None):
        self.server = subprocess.Popen(["unshare", "--net", "sh", "-ec", self.SETUP + self.SERVER, folder],
                                       stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors, text=True)
        if self.server.stdout.readline() != "ready\n":
            self.close()
            raise AssertionError("no bridge in a namespace")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        with contextlib.suppress(OSError):
            ours, its = (os.stat(NET_NAMESPACE.format(who)).st_ino for who in ("self", self.server.pid))
            for process in Path("/proc").glob("[1-9]*") if ours != its else ():
                with contextlib.suppress(OSError):
                    if os.stat(NET_NAMESPACE.format(process.name)).st_ino == its:
                        os.kill(int(process.name), signal.SIGKILL)
        self.server.kill()
        self.server.wait()
        self.server.stdout.close()

    def inside(self, *command):
        return ["nsenter", f"--net={NET_NAMESPACE.format(self.server.pid)}", *map(str, command)]

    def run_all(self, commands, **options):
        """All at once; (exit code, all that it said) of each, in their order."""
        processes = [subprocess.Popen(self.inside(*command), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                      stderr=subprocess.STDOUT, text=True, **options) for command in commands]
        said = [process.communicate(timeout=60)[0] for process in processes]
        return [(process.returncode, words) for process, words in zip(processes, said)]

    def taps(self):
        """Names of the taps at the bridge, the oldest first."""
        (code, said), = self.run_all([("ip", "-json", "link", "show", "type", "tun")])
        assert code == 0, said
        return [link["ifname"] for link in sorted(json.loads(said or "[]"), key=lambda link: link["ifindex"])]

    def enter(self, make):
        """What a function makes there, for everybody here. A thread can be in a namespace alone, and this one does not
        stay."""
        made = []

        def enter():
            with open(NET_NAMESPACE.format(self.server.pid)) as namespace:
                if LIBC.setns(namespace.fileno(), CLONE_NEWNET) == 0:
                    made.append(make())
        thread = threading.Thread(target=enter)
        thread.start()
        thread.join()
        assert made, "cannot enter the network namespace"
        return made[0]

    def socket(self, *kind):
        return self.enter(lambda: socket.socket(*kind))

    def tap(self, name):
        """Its file descriptor."""
        def make():
            fd = os.open("/dev/net/tun", os.O_RDWR)
            fcntl.ioctl(fd, TUNSETIFF, struct.pack("16sH14x", name.encode(), IFF_TAP | IFF_NO_PI))
            return fd
        return self.enter(make)


class Sniffer:
    """Frames that come out of a tap from now on: [(time, bytes)]."""

    def __init__(self, net, tap):
        self.frames, self.closed = [], False
        self.socket = net.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
        self.socket.bind((tap, 0))
        self.socket.settimeout(0.2)
        self.thread = threading.Thread(target=self._listen, daemon=True)
        self.thread.start()

    def _listen(self):
        while not self.closed:
            try:
                frame, (_, _, kind, *_) = self.socket.recvfrom(65536)
            except TimeoutError:
                continue
            except OSError as error:
                if error.errno != errno.ENETDOWN:
                    return
                continue  # the tap is gone: what it sent before that is still there
            if kind != PACKET_OUTGOING:
                self.frames.append((time.monotonic(), frame))

    def since(self, when):
        return [frame for at, frame in self.frames if at > when]

    def close(self):
        self.closed = True
        self.thread.join()
        self.socket.close()


class LossyWay:
    """A way of its own to an address, which goes through this process: frames get lost, come late or twice."""

    SETUP = """
        ip link set lossy1 master br0
        ip link set lossy0 up
        ip link set lossy1 up
        ip address add 10.98.0.1/32 dev lossy0
        ip route add $0/32 dev lossy0 src 10.98.0.1
    """

    def __init__(self, net, address, loss, seed):
        self.random, self.loss, self.lost, self.closed = random.Random(seed), loss, 0, False
        self.ends = [net.tap(name) for name in ("lossy0", "lossy1")]
        (code, said), = net.run_all([("sh", "-ec", self.SETUP, address)])
        assert code == 0, said
        self.thread = threading.Thread(target=self._pass, daemon=True)
        self.thread.start()

    def _pass(self):
        late = []  # (when, end, frame)
        while not self.closed:
            ready, _, _ = select.select(self.ends, [], [], 0.001 if late else 0.1)
            for end in ready:
                frame, other = os.read(end, 65536), self.ends[1 - self.ends.index(end)]
                times = 1 if self.random.random() > self.loss else self.random.choice([0, 0, 2])
                self.lost += times == 0
                for _ in range(times):
                    delay = self.random.random() / 100 if self.random.random() < self.loss else 0
                    late.append((time.monotonic() + delay, other, frame))
            now = time.monotonic()
            for _, end, frame in [one for one in late if one[0] <= now]:
                with contextlib.suppress(OSError):
                    os.write(end, frame)
            late = [one for one in late if one[0] > now]

    def close(self):
        self.closed = True
        self.thread.join()
        for end in self.ends:
            os.close(end)


class Line:
    """The connections between two hosts, for a target and through an address of its own. A direction that is cut lets
    nothing through: nobody is told, as with a cable. What was sent meanwhile comes when it is mended."""

    def __init__(self, net, target):
        self.net, self.target = net, target
        self.there, self.back = threading.Event(), threading.Event()  # set: it lets through
        self.mend()
        self.ends, self.lock, self.closed = [], threading.Lock(), False
        self.server = net.socket(socket.AF_INET, socket.SOCK_STREAM)
        self.server.bind(("127.0.0.1", 0))
        self.server.listen()
        self.address = "127.0.0.1:%d" % self.server.getsockname()[1]
        self.accepter = threading.Thread(target=self._accept, daemon=True)
        self.accepter.start()

    def cut(self, there=True, back=True):
        """`there`: what goes to the target; `back`: what comes from it."""
        if there:
            self.there.clear()
        if back:
            self.back.clear()

    def mend(self):
        self.there.set()
        self.back.set()

    def reset(self):
        """All connections end at once, for both. New ones may come."""
        with self.lock:
            ends, self.ends = self.ends, []
        for end in ends:
            with contextlib.suppress(OSError):
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                end.shutdown(socket.SHUT_RDWR)
                end.close()

    def close(self):
        self.closed = True
        self.mend()
        with contextlib.suppress(OSError):
            self.server.shutdown(socket.SHUT_RDWR)
        self.accepter.join()
        self.server.close()
        self.reset()

    def _accept(self):
        while True:
            try:
                one, _ = self.server.accept()
            except OSError:
                return
            threading.Thread(target=self._connect, args=(one,), daemon=True).start()

    def _connect(self, one):
        self.there.wait()
        other = self.net.socket(socket.AF_INET, socket.SOCK_STREAM)
        host, port = self.target.rsplit(":", 1)
        try:
            other.connect((host, int(port)))
        except OSError:
            one.close()
            other.close()
            return
        for end in [one, other]:
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with self.lock:
            self.ends += [one, other]
        threading.Thread(target=self._pass, args=(one, other, self.there), daemon=True).start()
        self._pass(other, one, self.back)

    def takes(self, source, data):
        """For a line that is worse than that; False: this and all behind it is lost."""
        return True

    def _pass(self, source, sink, gate):
        with contextlib.suppress(OSError):
            while True:
                data = source.recv(1 << 18)
                gate.wait()
                if not data or self.closed or not self.takes(source, data):
                    break
                sink.sendall(data)
        for end in [source, sink]:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


class PairHost(Host):
    """One at the Ethernet."""

    def __init__(self, net):
        super().__init__()
        self.net = net
        self.env["XDG_CONFIG_HOME"] = str(self.root / ".config")

    def run(self, *arguments, **options):
        return super().run(*arguments, by=self.net.inside(), **options)

    def begin(self, *arguments, by=(), **more):
        return super().begin(*arguments, by=[*self.net.inside(), *by], **more)

    def pid(self, name="web1"):
        """Of the process that has this VM, also when it is only its twin; None: no such."""
        return next((row["pid"] for row in self.list() if row["name"] == name), None)

    def protection(self, name="web1"):
        """What the status says about it; {} where the VM is not here or not protected."""
        said = self.run("status", name, "--json")
        return json.loads(said.stdout).get("protection") or {} if said.returncode == 0 else {}


class Pair(contextlib.ExitStack):
    """Two hosts, a witness, and web1 at the first. The witness is a folder, or an etcd of so many members
    with TLS."""

    ADDRESS = "10.99.0.2"
    TIMES = PATIENT

    def __init__(self, key=False, name="web1", back=False, etcd=0):
        super().__init__()
        need_network()
        self.name, self.key, self.back, self.line = name, key, back, Line
        with contextlib.ExitStack() as stack:  # what was made goes again where something is missing
            self.net = stack.enter_context(Network())
            self.a, self.b = (stack.enter_context(PairHost(self.net)) for _ in range(2))
            self.hosts = [self.a, self.b]
            self.witness = self.a.root / "witness"
            self.witness.mkdir()
            self.etcd = stack.enter_context(Etcd(etcd, tls=True, clients=True, net=self.net)) if etcd else None
            for host in self.hosts if etcd else ():
                configure(host.env["XDG_CONFIG_HOME"], **self.etcd.trust())
            self.lines, self.standbys, self.stopped = {}, {}, []
            self.enter_context(stack.pop_all())

    # --- making and starting ---

    def make(self, pages=256, rate=1000, size=8 * MIB, stride=1, words=512, ft=None, **more):
        """web1 at host A. The disk has room for all records of a test. Values of `ft` that are None are left out."""
        ft = {key: value for key, value in {**self.TIMES, **(ft or {})}.items() if value is not None}
        more = {**more, **({"ft": ft} if ft else {})}
        cmdline = f"pages={pages} rate={rate} stride={stride} words={words}"
        self.a.make(self.name, kernel="echo.elf", boot={"kernel": "kernel", "cmdline": cmdline},
                    nets=[{"mode": "bridge", "bridge": "br0"}], disks=[{"file": "disk.img", "format": "raw"}], **more)
        with open(self.disk(self.a), "wb") as image:
            image.truncate(size)

    def start_primary(self, **more):
        if not (self.a.root / self.name).exists():
            self.make(**more)
        return self.a.start(self.name, until="echo: ready")

    def start_standby(self, host, *options, place="."):
        """The address at which VMs may come to it: that of a Line, self.lines[host]."""
        if self.key:
            options = [*options, "--key", self.key_file(host)]
        elif not options:
            options = ["--insecure"]
        self.standbys[host] = host.standby(*options, place=place)
        self.lines[host] = self.line(self.net, self.standbys[host])
        self.callback(self.lines[host].close)
        return self.lines[host].address

    def key_file(self, host):
        path, first = host.root / "pair.key", self.a.root / "pair.key"
        if not first.exists():
            first.touch(mode=0o600)
            first.write_text(self.a.good("key"))
        if path != first:
            path.touch(mode=0o600)
            path.write_text(first.read_text())
        return path

    def clients(self, *kinds, patience=60, **more):
        """They ask from now on."""
        clients = Clients(self.net, self.ADDRESS, patience)
        for kind in kinds:
            clients.add(kind, **more)
        return clients

    # --- protection ---

    def protect(self, host=None, to=None, *options):
        """Returns when the twin could take over."""
        return (host or self.a).good(*self.protect_words(host, to, *options))

    def pair_again(self, host=None):
        """What it says when it has another twin, which it is asked for. It looks for one by itself, too: while that is under
        way somebody may ask in vain."""
        host = host or self.a
        said = host.run(*self.protect_words(host))
        assert said.returncode in (0, 1, 4), said
        return self.wait_for(host, role="primary", state="paired")

    def protect_words(self, host=None, to=None, *options):
        host, to = host or self.a, to or self.other(host or self.a)
        secret = ["--key", self.key_file(host)] if self.key else ["--insecure"]
        if self.back and host in self.lines:  # where it can have its own twin, once it has been taken over
            options = [*options, "--back", self.lines[host].address]
        return ("protect", self.name, "--to", self.lines[to].address, "--witness",
                self.etcd.address if self.etcd else f"file:{self.witness}", *secret, *options)

    def other(self, host):
        return self.b if host is self.a else self.a

    def owner(self):
        """The host whose VM runs and is nobody's twin; None: none says so. Two are an error."""
        owners = [host for host in self.hosts if host not in self.stopped
                  and host.protection(self.name).get("state") in HAS_IT]
        assert len(owners) < 2, "two hosts say that the VM is theirs"
        return owners[0] if owners else None

    def wait_for(self, host, timeout=30, **wanted):
        """Until these fields of its protection are so: a value, or a function of it."""
        seen = {}

        def is_so():
            seen.clear()
            seen.update(host.protection(self.name))
            return all(value(seen.get(key)) if callable(value) else seen.get(key) == value
                       for key, value in wanted.items())
        try:
            host.wait_until(is_so, f"protection {wanted}", timeout)
        except AssertionError as error:
            raise AssertionError(f"{error}; it says {seen}") from None
        return seen

    # --- what befalls them ---

    def pid(self, host):
        """Of the VM there, whatever its role."""
        found = host.pid(self.name)
        if found is None and host in self.standbys:
            found = next(iter(reversed(host.arriving())), None)
        assert found, "no process has the VM there"
        return found

    def kill(self, host):
        """The VM's process, not the standby. Returns when it happened, by the monotonic clock; nothing of it is left
        then: a process that dies holds its locks until all of its threads are gone."""
        pid = self.pid(host)
        when = time.monotonic()
        os.kill(pid, signal.SIGKILL)
        host.wait_until(lambda: self.is_over(pid), "the end of a process")
        return when

    @staticmethod
    def is_over(pid):
        with contextlib.suppress(OSError):  # threads end while we look
            return not any(os.listdir(task / "fd") for task in Path(f"/proc/{pid}/task").iterdir())
        return not Path(f"/proc/{pid}").exists()

    @contextlib.contextmanager
    def frozen(self, host):
        """Stands still until the end of the block; gives its pid. Nobody must ask it anything."""
        pid = self.pid(host)
        freeze(pid)
        self.stopped.append(host)
        try:
            yield pid
        finally:
            self.stopped.remove(host)
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)

    def sniff(self, number):
        """What comes out of a tap, by its age."""
        sniffer = Sniffer(self.net, self.net.taps()[number])
        self.callback(sniffer.close)
        return sniffer

    @contextlib.contextmanager
    def without_witness(self):
        away = self.witness.with_name("witness.away")
        self.witness.rename(away)
        try:
            yield
        finally:
            away.rename(self.witness)

    # --- disks ---

    def disk(self, host):
        return host.root / self.name / "disk.img"

    def disks_equal(self):
        """Byte for byte: only when nothing is on its way between them."""
        with open(self.disk(self.a), "rb") as one, open(self.disk(self.b), "rb") as other:
            while True:
                some, same = one.read(MIB), other.read(MIB)
                if some != same:
                    return False
                if not some:
                    return True


class DirectPair(Pair):
    """With nobody between the hosts who reads and writes what they say, and what vm.json does not say as usual."""

    TIMES = {}

    def start_standby(self, host, *options):
        self.standbys[host] = host.standby("--insecure")
        self.lines[host] = SimpleNamespace(address=self.standbys[host])
