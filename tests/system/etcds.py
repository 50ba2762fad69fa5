# SPDX-License-Identifier: MIT
"""etcd as Debian packages it, on this machine's loopback: one member or several, plain or with TLS.

    with Etcd(3) as etcd:
        etcd.address            "etcd://127.0.0.1:4711,..."
        etcd.kill(0); etcd.start(0)
"""

import base64
import contextlib
import http.client
import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import tempfile
import time
from pathlib import Path

from labcommon import Skip
from test_migrate import free_port

PATIENCE = 60


def free_ports(count):
    ports = set()
    while len(ports) < count:
        ports.add(free_port())
    return list(ports)


class Authority:
    """Signs certificates for 127.0.0.1, in a folder: ca.pem, and NAME.pem with NAME.key."""

    def __init__(self, folder):
        self.folder = Path(folder)
        if not shutil.which("openssl"):
            raise Skip("no openssl: scripts/install-packages test")
        self._run("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", "/CN=ca",
                  "-days", "30", "-keyout", "ca.key", "-out", "ca.pem")

    def _run(self, *words):
        subprocess.run(["openssl", *words], cwd=self.folder, check=True, capture_output=True, stdin=subprocess.DEVNULL)

    def sign(self, name, hosts="IP:127.0.0.1"):
        """Without a common name: etcd's gateway refuses clients with one where it has users."""
        self._run("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", f"/O={name}",
                  "-keyout", f"{name}.key", "-out", f"{name}.csr")
        (self.folder / "ext").write_text(f"subjectAltName={hosts}\n")
        self._run("x509", "-req", "-in", f"{name}.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days",
                  "30", "-extfile", "ext", "-out", f"{name}.pem")


class Etcd(contextlib.ExitStack):
    """Its members are killed and their data is gone at the end."""

    def __init__(self, count=1, tls=False, clients=False, net=None):
        """`clients`: they must have a certificate, too; `net`: on the loopback of that network (pairs.py)."""
        super().__init__()
        if not shutil.which("etcd"):
            raise Skip("no etcd: scripts/install-packages test")
        self.root = Path(tempfile.mkdtemp(prefix="minivmm-etcd-", dir="/dev/shm"))
        self.callback(shutil.rmtree, self.root, ignore_errors=True)
        self.callback(self.kill_all)
        self.authority = Authority(self.root) if tls else None
        if tls:
            self.authority.sign("server")
            self.authority.sign("client")
        self.tls, self.clients, self.net, self.users = tls, clients, net, False
        ports = free_ports(2 * count)
        self.ports, self.peers = ports[:count], ports[count:]
        self.processes = {}
        for number in range(count):
            self.start(number)
        self.wait()

    @property
    def address(self):
        return "etcd://" + ",".join(f"127.0.0.1:{port}" for port in self.ports)

    def trust(self):
        """What is in etcd.json of who may ask."""
        return {"ca": f"{self.root}/ca.pem", "cert": f"{self.root}/client.pem", "key": f"{self.root}/client.key"}

    def start(self, number):
        scheme = "https" if self.tls else "http"
        url, peer = f"{scheme}://127.0.0.1:{self.ports[number]}", f"http://127.0.0.1:{self.peers[number]}"
        everybody = ",".join(f"n{i}=http://127.0.0.1:{port}" for i, port in enumerate(self.peers))
        more = []
        if self.tls:
            more += ["--cert-file", "server.pem", "--key-file", "server.key"]
        if self.clients:
            more += ["--client-cert-auth", "--trusted-ca-file", "ca.pem"]
        log = open(self.root / f"log{number}", "ab")
        self.processes[number] = subprocess.Popen(
            [*(self.net.inside() if self.net else ()), "etcd", "--name", f"n{number}", "--data-dir", self.root / f"data{number}", "--listen-client-urls", url,
             "--advertise-client-urls", url, "--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer,
             "--initial-cluster", everybody, "--heartbeat-interval", "30", "--election-timeout", "300",
             "--log-level", "error", *more],
            cwd=self.root, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        log.close()

    def kill(self, number, how=signal.SIGKILL):
        process = self.processes.pop(number)
        process.send_signal(how)
        process.wait()

    def kill_all(self):
        for number in list(self.processes):
            self.kill(number)

    @contextlib.contextmanager
    def _connected(self, number):
        way = self.net.socket(socket.AF_INET, socket.SOCK_STREAM) if self.net else socket.socket()
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", self.ports[number])) as connection:
            way.settimeout(5)
            connection.sock = way
            way.connect(("127.0.0.1", self.ports[number]))
            if self.tls:
                context = ssl.create_default_context(cafile=str(self.root / "ca.pem"))
                context.load_cert_chain(self.root / "client.pem", self.root / "client.key")
                connection.sock = context.wrap_socket(way, server_hostname="127.0.0.1")
            yield connection

    def ask(self, path, question, number=None):
        """What a member answers, by its JSON gateway; an OSError where it does not."""
        number = next(iter(self.processes)) if number is None else number
        known = {}
        if self.users and path != "auth/authenticate":
            known["Authorization"] = self.ask("auth/authenticate", {"name": "root", "password": "r"}, number)["token"]
        with self._connected(number) as connection:
            connection.request("POST", f"/v3/{path}", json.dumps(question), known)
            answer = connection.getresponse()
            body = answer.read()
        if answer.status != 200:
            raise OSError(f"etcd says {answer.status}: {body}")
        return json.loads(body)

    def reads(self):
        """How often its first member was asked for records, by whomever."""
        with self._connected(next(iter(self.processes))) as connection:
            connection.request("GET", "/metrics")
            said = connection.getresponse().read().decode()
        return sum(float(line.split()[-1]) for line in said.splitlines()
                   if line.startswith("grpc_server_handled_total{") and 'grpc_method="Range"' in line)

    def wait(self):
        """Until every member that runs sees the majority."""
        until = time.monotonic() + PATIENCE
        for number, process in self.processes.items():
            while True:
                assert process.poll() is None, (self.root / f"log{number}").read_text()
                with contextlib.suppress(OSError, http.client.HTTPException):
                    self.ask("kv/range", {"key": encode("minivmm/")}, number)
                    break
                assert time.monotonic() < until, f"member {number} is not ready"
                time.sleep(0.02)

    def generations(self):
        """{UUID: the generation of its record}."""
        said = self.ask("kv/range", {"key": encode("minivmm/"), "range_end": encode("minivmm0")})
        records = [base64.b64decode(one["value"]).decode().split() for one in said.get("kvs", [])]
        return {record[record.index("vm") + 1]: int(record[record.index("generation") + 1]) for record in records}

    def keep_copy(self, name="copy"):
        """As somebody makes a backup: of members that stand still. Restored by restore_copy()."""
        self.kill_all()
        for number in range(len(self.ports)):
            shutil.copytree(self.root / f"data{number}", self.root / f"{name}{number}")
        self._start_all()

    def restore_copy(self, name="copy"):
        self.kill_all()
        for number in range(len(self.ports)):
            shutil.rmtree(self.root / f"data{number}")
            shutil.copytree(self.root / f"{name}{number}", self.root / f"data{number}")
        self._start_all()

    def _start_all(self):
        for number in range(len(self.ports)):
            self.start(number)
        self.wait()

    def with_users(self):
        """From now on only users may ask: minivmm (password "open sesame") what it needs, reader only to read."""
        for question in [("auth/user/add", {"name": "root", "password": "r"}), ("auth/role/add", {"name": "root"}),
                         ("auth/user/grant", {"user": "root", "role": "root"})]:
            self.ask(*question)
        for user, kind in [("minivmm", "READWRITE"), ("reader", "READ")]:
            self.ask("auth/user/add", {"name": user, "password": "open sesame"})
            self.ask("auth/role/add", {"name": user})
            self.ask("auth/role/grant", {"name": user, "perm": {"permType": kind, "key": encode("minivmm/"),
                                                               "range_end": encode("minivmm0")}})
            self.ask("auth/user/grant", {"user": user, "role": user})
        self.ask("auth/enable", {})
        self.users = True


def encode(text):
    return base64.b64encode(text.encode()).decode()


def configure(folder, **said):
    """etcd.json for who has this folder as XDG_CONFIG_HOME."""
    path = Path(folder) / "minivmm" / "etcd.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch(mode=0o600)
    path.write_text(json.dumps(said))
    os.chmod(path, 0o600)
    return path
