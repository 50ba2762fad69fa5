# SPDX-License-Identifier: MIT
"""minivmm migrate and standby: VMs that go from one "host" to another, with tiny guests on this machine's /dev/kvm. A
host is a place for VMs with a runtime folder of its own. No lab host is needed."""

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import stat
import subprocess
import threading

from frames import Proxy
from labcommon import Skip
from test_clone import MIB, check_moment, mounted
from test_clone import make as make_sequence
from test_life import SLOW_WRITES, writes_in
from vms import Folder

ROUND = re.compile(r"^steady: (\d+)$", re.M)
SEQUENCE = re.compile(r"^sequence (\d+)\r?\n", re.M)
SLOW = 30 * MIB  # a second


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


class Host(Folder):
    """A place for VMs at which others may arrive."""

    def standby(self, *options, place=".", by=()):
        """Its address, once it listens."""
        for _ in range(5):
            address = f"127.0.0.1:{free_port()}"
            self.waiting = self.begin("standby", place, "--listen", address, *options, by=by)
            line = self.waiting.stderr.readline()
            if "cannot listen" not in line:  # somebody has taken the port meanwhile
                break
        assert "VMs may come to" in line, line
        return address

    def arriving(self):
        """Pids of VMs that are coming, or have come, as long as the standby runs."""
        pid = self.waiting.pid
        with open(f"/proc/{pid}/task/{pid}/children") as children:
            return [int(child) for child in children.read().split()]

    def counted(self, name="web1"):
        """The last round of steady that is in the log."""
        text = self.console(name)
        assert "WRONG" not in text, text
        return int(["0", *ROUND.findall(text)][-1])

    def goes_on(self, name="web1"):
        """The guest does something, and finds nothing wrong."""
        self.wait_until(lambda: self.status(self.root / name)["state"] == "running", f"{name} running")
        before = self.counted(name)
        self.wait_until(lambda: self.counted(name) > before, f"another round of {name}")

    def has(self, name="web1"):
        """Whether it runs here, by whatever state."""
        return any(row["name"] == name for row in self.list())


@contextlib.contextmanager
def hosts(count=2):
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(Host()) for _ in range(count)]


def make(host, name="web1", pages=16, size=MIB // 2, memory="16M", **more):
    """A VM that notices whatever is lost or comes twice."""
    definition = {"cpus": 2, "boot": {"kernel": "kernel", "cmdline": f"pages={pages}"},
                  "disks": [{"file": "disk.img", "format": "raw"}], **more}
    web = host.make(name, kernel="steady.elf", memory=memory, **definition)
    with open(web / "disk.img", "wb") as image:
        image.truncate(size)
    return web


def start(host, name="web1"):
    return host.start(name, until="steady: ")


def ended(process):
    """The VM is no longer here, and nothing was wrong with that."""
    code = process.wait(20)
    assert code == 0, f"exit code {code}: {process.stderr.read()}"


def check_refused(host, web):
    """What was handed over does not start here, and the reason and the mend are said."""
    words = host.bad(4, "was (moved|handed over) to 127.0.0.1:", "run", web)
    assert f"hint: where it does not, and never will again: remove {web}/.moved" in words, words


# --- there and back -------------------------------------------------------------------------------------------------


def go_there_and_back(moves):
    with hosts() as (one, other):
        make(one, nets=[{"mode": "user"}, {"mode": "user"}])
        addresses = {one: one.standby(), other: other.standby()}
        process = start(one)
        who = one.identity("web1")
        here, there = one, other
        for number in range(moves):
            before = here.counted()
            ways = ["--verify"] + number % 2 * ["--compress"]
            said = here.run("migrate", "web1", addresses[there], *ways)
            assert said.returncode == 0, said.stderr
            assert re.search(rf"web1 runs on {addresses[there]}: .* in \d+ rounds", said.stderr), said.stderr
            assert "it stood still for" in said.stderr, said.stderr
            assert not here.list(), "the source's process is in the way of the VM's return"
            if number == 0:
                ended(process)
            assert here.journal("web1")[-1][0] == "stop" and here.journal("web1")[-1][1]["by"] == "migration"
            check_refused(here, here.root / "web1")
            there.wait_until(lambda: there.counted() > before, "the guest over there")
            now = there.identity("web1")
            assert [now[key] for key in ["uuid", "generation", "macs"]] == \
                   [who[key] for key in ["uuid", "generation", "macs"]], now
            shutil.rmtree(here.root / "web1")
            here, there = there, here
        (row,) = here.list()
        assert (row["name"], row["state"]) == ("web1", "running"), row
        here.good("stop", "--force", "web1")
        process = start(here)
        assert here.identity("web1")["uuid"] == who["uuid"]
        here.good("stop", "--force", "web1")
        ended(process)


def test_there_and_back():
    """A guest that watches its memory, disk, timers and interrupts notices nothing of ten moves. Each source ends well,
    and its folder does not start again; what has come is a VM like any other, and the same one."""
    go_there_and_back(10)


def test_there_and_back_200_times():
    """The same 200 times."""
    go_there_and_back(200)


test_there_and_back_200_times.slow = True
test_there_and_back_200_times.time_limit = 1200


# --- disks ----------------------------------------------------------------------------------------------------------


def test_disks():
    """Both disks are of one moment, that of the memory: the guest writes on without a gap. One of qcow2 becomes raw,
    its name and vm.json say so; files go along, and what is about the VM's life at the source does not."""
    for disk in ["raw", "qcow2"]:
        with hosts() as (one, other):
            web = make_sequence(one, disk=disk, sectors=1500)
            name = "a.img"
            if disk == "qcow2":
                name = "a.qcow2"
                (web / "a.img").rename(web / name)
                definition = json.loads((web / "vm.json").read_text())
                definition["disks"][0] = {"file": name, "format": "qcow2"}
                (web / "vm.json").write_text(json.dumps(definition))
            (web / "secret").write_text("mine\n")
            (web / "secret").chmod(0o600)
            process = one.start("web1", until="sequence 512")
            one.good("snapshot", "web1", "kept-here")
            one.good("migrate", "web1", other.standby(), "--verify")
            ended(process)
            came = other.root / "web1"
            other.wait_until(lambda: SEQUENCE.search(other.console("web1")), "the guest over there")
            said = int(SEQUENCE.search(other.console("web1"))[1])
            other.good("stop", "--force", "web1")
            last = check_moment(came, sectors=1500)
            assert last >= said >= 512, f"{last} on the disks, and the guest said {said}"  # a line may be on its way
            with open(came / "a.img", "rb") as file:
                file.seek(16 * MIB)
                random = file.read(20 * MIB)
            if disk == "raw":
                # What was there at the hand-over is no later than what lies at the target.
                assert 512 <= check_moment(web, sectors=1500) <= said
                with open(web / "a.img", "rb") as file:
                    file.seek(16 * MIB)
                    assert file.read(20 * MIB) == random
            else:
                flat = subprocess.run(["qemu-img", "convert", "-O", "raw", web / name, web / "flat"])
                assert flat.returncode == 0 and not (came / name).exists()
                with open(web / "flat", "rb") as file:
                    file.seek(16 * MIB)
                    assert file.read(20 * MIB) == random
            disks = json.loads((came / "vm.json").read_text())["disks"]
            assert disks == [{"file": "a.img", "format": "raw"}, {"file": "sub/b.img", "format": "raw"}], disks
            assert (came / "a.img").stat().st_size == (came / "sub/b.img").stat().st_size == 64 * MIB
            # b.img is empty but for the sequence.
            assert (came / "sub/b.img").stat().st_blocks * 512 < 8 * MIB
            assert (came / "notes").read_text() == "kept\n" and (came / "secret").read_text() == "mine\n"
            assert stat.S_IMODE((came / "secret").stat().st_mode) == 0o600
            assert not (came / "snapshots").exists()
            process = other.start("web1", until="sequence 256")
            other.good("stop", "--force", "web1")
            ended(process)


def test_what_was_set_goes_along():
    """The limit of a disk, by minivmm set, holds where the VM goes on, and where it goes from there, until it is
    taken away."""
    with hosts(3) as machines:
        addresses = [host.standby() for host in machines]
        make_sequence(machines[0])
        machines[0].start("web1", until="sequence 512")
        machines[0].good("set", "web1", "--disk", "0", "--iops", "20")
        for here, there, address in zip(machines, machines[1:], addresses[1:]):
            here.good("migrate", "web1", address)
            there.wait_until(lambda: there.status("web1")["state"] == "running", "it over there")
            there.wait_until(lambda: 0 < writes_in(there, 2) <= SLOW_WRITES, "the end of what the limit has saved up")
        machines[2].good("set", "web1", "--disk", "0", "--iops", "0")
        machines[2].wait_until(lambda: writes_in(machines[2], 1) > 2 * SLOW_WRITES, "its own speed")


# --- what people hear -----------------------------------------------------------------------------------------------


def test_the_parts_of_a_move():
    """How many rounds it took, how long the VM stood still and for what, and when the network was told; or that
    nothing was, because the guest drives no interface."""
    with hosts() as (one, other):
        make(one, name="deaf", nets=[{"mode": "user"}])
        one.make("web1", kernel="dhcp.elf", memory="4M", nets=[{"mode": "user"}])
        start(one, "deaf")
        one.start("web1", until="address ")
        address = other.standby()
        said = one.run("migrate", "web1", address)
        heard = said.stderr
        assert said.returncode == 0, heard
        assert re.search(r" in \d+ rounds and [\d.]+ s\n", heard), heard
        parts = re.search(r"stood still for ([\d.]+) ms: state ([\d.]+), last pages ([\d.]+), loading ([\d.]+), "
                          r"going on ([\d.]+)\n", heard)
        assert sum(map(float, parts.groups()[1:])) <= float(parts[1]) + 1, heard
        assert re.search(r"its network was told over there [\d.]+ ms after the hand-over\n", heard), heard
        said = one.run("migrate", "deaf", address)
        assert said.returncode == 0, said.stderr
        assert "its network was not told: no interface of its guest is up\n" in said.stderr, said.stderr


# --- keys -----------------------------------------------------------------------------------------------------------


def test_keys():
    """With the same key on both sides it goes; with another one, with one on one side only, or with a file that others
    can read each says what is wrong, and the VM goes on."""
    with hosts() as (one, other):
        make(one)
        process = start(one)
        keys = {}
        for name in ["right", "wrong"]:
            keys[name] = one.root / name
            keys[name].write_text(one.good("key"))
            keys[name].chmod(0o600)
        assert keys["right"].read_text() != keys["wrong"].read_text()
        open_to_all = one.root / "open"
        open_to_all.write_text(keys["right"].read_text())
        open_to_all.chmod(0o644)
        other.bad(4, rf"{open_to_all}.*\nhint: chmod 600", "standby", ".", "--listen", "127.0.0.1:1", "--key",
                  open_to_all)
        plain, closed = other.standby(), other.standby("--key", keys["right"])
        one.bad(4, r"open.*\nhint: chmod 600", "migrate", "web1", closed, "--key", open_to_all)
        one.bad(1, "key", "migrate", "web1", closed, "--key", keys["wrong"])
        one.bad(2, "wants a key\nhint: minivmm pair gives both hosts one", "migrate", "web1", closed)
        one.bad(1, "the keys differ, .*\nhint: .*--key FILE: the same file", "migrate", "web1", plain, "--key", keys["right"])
        one.bad(3, "nowhere", "migrate", "web1", closed, "--key", "nowhere")
        assert os.listdir(other.root) == [".run"] or os.listdir(other.root) == [], os.listdir(other.root)
        one.goes_on()
        one.good("migrate", "web1", closed, "--key", "right")
        ended(process)
        other.goes_on()


def without(library):
    """The words of what executes a program for which this library is not there; skips where that cannot be had."""
    known = subprocess.run(["/sbin/ldconfig", "-p"], capture_output=True, text=True, check=True).stdout
    paths = re.findall(rf"{re.escape(library)} .*=> (\S+)", known)
    hide = "".join(f"mount --bind /dev/null {path} && " for path in paths)
    words = ["unshare", "--mount", "sh", "-c", f'{hide}exec "$0" "$@"']
    if not paths or subprocess.run([*words, "true"], capture_output=True).returncode != 0:
        raise Skip(f"{library} cannot be hidden here")
    return words


def test_without_gnutls():
    """A host that lacks what keys need names the package that has it, on whichever side, and the VM goes on. Without a
    key nobody misses it."""
    with hosts() as (one, other):
        make(one)
        key = one.root / "pair.key"
        key.write_text(one.good("key"))
        key.chmod(0o600)
        bare = without("libgnutls.so.30")
        words = r"a link with a key needs libgnutls.so.30\nhint: sudo apt install libgnutls30"
        process = one.start("web1", until="steady: ", by=bare)
        one.bad(6, words, "migrate", "web1", other.standby("--key", key), "--key", key)
        check_untouched(one, other, [])
        one.good("migrate", "web1", other.standby())
        ended(process)
        shutil.rmtree(one.root / "web1")
        address = one.standby("--key", key, by=bare)
        other.bad(1, "", "migrate", "web1", address, "--key", key)
        check_untouched(other, one, ["pair.key"])
        one.waiting.terminate()
        said = one.waiting.stderr.read()
        assert re.search(words, said), said


# --- what is refused ------------------------------------------------------------------------------------------------


def check_untouched(one, other, before):
    """The VM goes on, could move the next time, and nothing is left of this one."""
    one.goes_on()
    assert not (one.root / "web1/.moved").exists()
    other.wait_until(lambda: left_at(other) == before, f"the end of what is left: {left_at(other)}")


def left_at(host, place=None):
    """Names in a place, without what belongs to the place itself."""
    return sorted(set(os.listdir(place or host.root)) - {".run", ".standby", "fs.img"})


def refuse(one, other, code, words, address, before=()):
    one.bad(code, words, "migrate", "web1", address)
    check_untouched(one, other, list(before))


def test_what_is_refused():
    """What cannot move is told why before anything happens, and the VM goes on."""
    with hosts() as (one, other):
        web = make(one)
        process = start(one)
        address = other.standby()
        refuse(one, other, 1, "nobody listens at .*\nhint: start minivmm standby", f"127.0.0.1:{free_port()}")
        one.bad(3, "", "migrate", "nobody", address)
        one.bad(2, "to which host", "migrate", "web1")
        one.bad(2, "--downtime", "migrate", "web1", address, "--downtime", "0")
        one.bad(4, "not moving", "migrate", "web1", "--cancel")
        one.good("pause", "web1")
        one.bad(4, "web1 stands still, .*\nhint: minivmm resume web1", "migrate", "web1", address)
        one.good("resume", "web1")
        other.make("web1")
        refuse(one, other, 4, "web1 is there already", address, ["web1"])
        assert sorted(os.listdir(other.root / "web1")) == ["kernel", "vm.json"]
        shutil.rmtree(other.root / "web1")
        one.bad(4, "web1 is already running|runs already|is there already", "migrate", "web1", one.standby())
        one.goes_on()
        # Too large to be anything but a disk.
        with open(web / "large", "wb") as file:
            file.truncate(65 * MIB)
        refuse(one, other, 4, "large is too large to go along", address)
        (web / "large").unlink()
        one.good("migrate", "web1", address)
        ended(process)
        other.goes_on()


def test_what_lies_outside_of_the_folder():
    """A disk outside cannot go along, and a kernel outside must be there, too."""
    with hosts() as (one, other):
        web = make(one)
        address = other.standby()
        (web / "disk.img").rename(one.root / "shared.img")
        definition = json.loads((web / "vm.json").read_text())
        definition["disks"][0]["file"] = "../shared.img"
        (web / "vm.json").write_text(json.dumps(definition))
        process = start(one)
        refuse(one, other, 4, "shared.img lies outside of the VM's folder.*\nhint: ", address)
        one.good("stop", "--force", "web1")
        ended(process)
        (one.root / "shared.img").rename(web / "disk.img")
        (web / "kernel").rename(one.root / "linux")
        definition["disks"][0]["file"] = "disk.img"
        definition["boot"]["kernel"] = "../linux"
        (web / "vm.json").write_text(json.dumps(definition))
        process = start(one)
        refuse(one, other, 3, "linux: No such file", address)
        shutil.copy(one.root / "linux", other.root / "linux")
        one.good("migrate", "web1", address)
        ended(process)
        other.goes_on()


def test_places_that_cannot_take_it():
    """A folder that cannot be written, or is too small, ends it, and the VM goes on."""
    with hosts() as (one, other), mounted(other, "tmpfs") as full:
        web = make(one, size=48 * MIB)
        with open(web / "disk.img", "r+b") as image:
            image.seek(8 * MIB)
            image.write(os.urandom(40 * MIB))
        process = start(one)
        address = other.standby(place=full)
        one.bad(1, "No space left", "migrate", "web1", address)
        one.goes_on()
        other.wait_until(lambda: left_at(other, full) == [], "the end of what is left")
        subprocess.run(["mount", "-o", "remount,ro", full], check=True)
        one.bad(1, "Read-only file system", "migrate", "web1", address)
        one.goes_on()
        one.good("stop", "--force", "web1")
        ended(process)


# --- what comes between ---------------------------------------------------------------------------------------------


def who_has_it(one, other, code=None):
    """Afterwards there is exactly one good VM: the host that runs it. `code`: what migrate has answered with."""
    if not (one.root / "web1/.moved").exists():
        assert code in [1, None], code
        check_untouched(one, other, [])
        assert not other.has()
        return one
    assert code in [0, None], code
    one.wait_until(lambda: not one.has(), "the end of the source")
    check_refused(one, one.root / "web1")
    other.goes_on()
    assert (other.root / "web1/.arrived").exists()
    return other


def test_the_connection_ends():
    """Wherever the connection ends, exactly one VM runs afterwards. What was handed over while the connection ended is
    found out by asking."""
    before = ["HELLO", "FILE", "DISK", "OPEN", "ACK WELCOME", "PAGES", "ROUND", "ACK STORED", "STATE", "COMMIT",
              "ACK READY"]
    places = [(at, when) for at in before for when in ["before", "middle"]]
    places += [("GO", "before"), ("GO", "middle"), ("ACK READY", "after"), ("GO", "after"), ("ACK YOURS", "before"),
               ("ACK YOURS", "middle"), ("ACK YOURS", "after")]
    with hosts() as (one, other):
        make(one)
        process = start(one)
        address, back = other.standby(), one.standby()
        found = {}
        for at, when in places:
            with Proxy(address, at, when) as proxy:
                said = one.run("migrate", "web1", proxy.address)
                assert proxy.hit.wait(10), f"nobody said {at}: {proxy.words} {said.stderr}"
                found[at, when] = who_has_it(one, other, said.returncode)
                if at in ["GO", "ACK YOURS"] and (at, when) != ("ACK YOURS", "after"):
                    assert "ASK" in proxy.words and proxy.words[-1] in ["ACK YOURS", "ACK NOT_MINE"], proxy.words
                else:
                    assert "ASK" not in proxy.words or (at, when) == ("ACK READY", "after"), proxy.words
            if found[at, when] == other:
                ended(process)
                shutil.rmtree(one.root / "web1")
                other.good("migrate", "web1", back)
                shutil.rmtree(other.root / "web1")
                one.goes_on()
            other.wait_until(lambda: not other.arriving(), "the end of who took it in")
        for at, when in places:
            if at in before or (at, when) in [("GO", "before"), ("GO", "middle")]:
                assert found[at, when] == one, (at, when)
            elif at == "ACK YOURS":
                assert found[at, when] == other, (at, when)


def test_what_is_not_the_same():
    """With --verify a byte that is not what it should be over there ends the migration, and names its disk and place;
    without it nobody would know."""
    with hosts() as (one, other):
        make(one, size=8 * MIB)
        process = start(one)
        address = other.standby()

        def spoil():  # where the guest does not write, and zeroes are not sent
            (disk,) = other.root.glob("*/disk.img")
            with open(disk, "r+b") as image:
                image.seek(6 * MIB + 5)
                image.write(b"!")

        for way in ["--verify", "--compress"]:
            with Proxy(address, "PAGES", "never", do=spoil) as proxy:
                if way == "--verify":
                    one.bad(1, r"disk.img is not the same on both hosts, somewhere in the MiB from byte 6291456",
                            "migrate", "web1", proxy.address, way)
                    assert who_has_it(one, other, 1) == one
                    continue
                one.good("migrate", "web1", proxy.address, way)
        ended(process)
        with open(other.root / "web1/disk.img", "rb") as image:
            image.seek(6 * MIB + 5)
            assert image.read(1) == b"!"


def test_the_standby_is_gone():
    """Where the target cannot say that it runs the VM, the source stands still and asks, for as long as that takes; and
    believes nobody else."""
    with hosts(3) as (one, other, third):
        make(one)
        process = start(one)

        def lose():
            other.waiting.kill()
            other.waiting.wait()
            proxy.target = third.standby()

        with Proxy(other.standby(), "ACK YOURS", do=lose) as proxy:
            migrate = one.begin("migrate", "web1", proxy.address)
            one.wait_until(lambda: "ACK UNKNOWN" in proxy.words, "another one's answer")
            other.goes_on()
            assert one.status("web1")["state"] == "moving" and migrate.poll() is None
            one.bad(4, "it is too late", "migrate", "web1", "--cancel")
            last = one.counted()
            proxy.target = other.standby()
            assert migrate.wait(20) == 0
        ended(process)
        assert one.counted() == last and who_has_it(one, other) == other


def test_two_of_one_name():
    """While one VM arrives, however slowly, another one of its name is refused, and takes nothing away from it."""
    with hosts(3) as (one, other, third):
        make(one)
        make(third)
        process, second = start(one), start(third)
        address, go_on = other.standby(), threading.Event()
        with Proxy(address, "DISK", "never", do=lambda: go_on.wait(30)) as proxy:
            migrate = one.begin("migrate", "web1", proxy.address)
            one.wait_until(lambda: "DISK" in proxy.words and (other.root / "web1/kernel").exists(), "its folder")
            third.bad(4, "web1 is there already", "migrate", "web1", address)
            third.goes_on()
            go_on.set()
            assert migrate.wait(20) == 0, migrate.stderr.read()
        ended(process)
        third.bad(4, "web1 is there already", "migrate", "web1", address)
        other.goes_on()
        assert second.poll() is None and other.identity("web1")["uuid"] != third.identity("web1")["uuid"]


def test_the_target_is_killed():
    """Before the hand-over the VM goes on at the source as if nothing had been; after it what was there starts again,
    as after any crash. What is left of one that never came does not start, and is in nobody's way."""
    with hosts() as (one, other):
        make(one)
        process = start(one)
        address = other.standby()

        def kill():
            for pid in other.arriving():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

        for at in ["FILE", "ACK WELCOME", "ROUND", "ACK READY", "GO"]:
            with Proxy(address, at, do=kill) as proxy:
                said = one.run("migrate", "web1", proxy.address)
                assert proxy.hit.wait(10) and said.returncode == 1, said
                one.goes_on()
                assert not (one.root / "web1/.moved").exists()
                other.wait_until(lambda: not other.has(), "its end")  # the kernel clears up after a kill
                if (other.root / "web1").exists() and (other.root / "web1/vm.json").exists():
                    words = other.bad(4, "was arriving from another host, and never came whole", "run",
                                      other.root / "web1")
                    assert f"minivmm remove {other.root}/web1" in words, words
        with Proxy(address, "ACK YOURS", when="never", do=kill) as proxy:
            assert one.run("migrate", "web1", proxy.address).returncode == 0
        ended(process)
        check_refused(one, one.root / "web1")
        other.wait_until(lambda: not other.has(), "its end")
        process = start(other)
        other.good("stop", "--force", "web1")
        ended(process)


def test_the_source_is_killed():
    """Before the hand-over its folder starts again as after any crash, and nothing is left at the target; once GO has
    been said the VM is the target's; and where it was to be said, and was not, a person is told what to do."""
    for at, when in [("ROUND", "before"), ("ACK READY", "before"), ("GO", "before"), ("GO", "after")]:
        with hosts() as (one, other):
            make(one)
            process = start(one)
            address = other.standby()
            with Proxy(address, at, when, do=process.kill) as proxy:
                assert one.run("migrate", "web1", proxy.address).returncode != 0 and proxy.hit.wait(10)
                process.wait(10)
                if (at, when) == ("GO", "after"):
                    other.goes_on()
                    check_refused(one, one.root / "web1")
                    continue
                other.wait_until(lambda: left_at(other) == [], f"the end of what is left after {at}")
                assert not other.has()
                if at == "GO":
                    check_refused(one, one.root / "web1")
                    (one.root / "web1/.moved").unlink()
                start(one)


def make_large(host, name="web1", megabytes=40, disk="raw"):
    web = make(host, name, size=MIB)
    block = os.urandom(10 * MIB)
    with open(web / "disk.img", "r+b") as image:
        image.seek(MIB)
        for _ in range(megabytes // 10):
            image.write(block)
    if disk == "qcow2":
        subprocess.run(["qemu-img", "convert", "-O", "qcow2", web / "disk.img", web / "x"], check=True)
        (web / "x").rename(web / "disk.img")
        definition = json.loads((web / "vm.json").read_text())
        definition["disks"][0]["format"] = "qcow2"
        (web / "vm.json").write_text(json.dumps(definition))
    return web


@contextlib.contextmanager
def held(one, address):
    """A migration whose blocks go no further until the function that comes with it is called."""
    go_on = threading.Event()
    with Proxy(address, "BLOCKS", "never", do=lambda: go_on.wait(30)) as proxy:
        process = one.begin("migrate", "web1", proxy.address)
        one.wait_until(lambda: "BLOCKS" in proxy.words or process.poll() is not None, "the first blocks")
        yield process, go_on.set


def test_cancel():
    """A migration that is cancelled ends, the VM goes on, nothing is left of it over there, and the next one comes to
    its end. While it is under way nothing else takes the VM away from it."""
    for disk in ["raw", "qcow2"]:
        with hosts() as (one, other):
            make_large(one, disk=disk)
            process = start(one)
            address = other.standby()
            with held(one, address) as (migrate, let_go):
                one.bad(4, "web1 is just moving to another host", "clone", "web1", "web2")
                one.bad(4, "web1 is just moving to another host", "migrate", "web1", address)
                one.good("migrate", "web1", "--cancel")
                let_go()
                assert migrate.wait(20) == 1
            assert "the migration was cancelled" in migrate.stderr.read()
            check_untouched(one, other, [])
            one.bad(4, "web1 is not moving", "migrate", "web1", "--cancel")
            one.good("migrate", "web1", address)
            ended(process)
            other.goes_on()


def test_the_vm_ends_on_the_way():
    """A VM that is stopped or killed while it moves ends; whoever waits is told; nothing is left over there. After a
    reset it moves on."""
    for disk, hows in [("raw", ["stop", "kill", "reset"]), ("qcow2", ["stop", "pause"])]:
        for how in hows:
            with hosts() as (one, other):
                make_large(one, disk=disk)
                process = start(one)
                with held(one, other.standby()) as (migrate, let_go):
                    if how == "kill":
                        process.kill()
                    elif how == "stop":
                        one.good("stop", "--force", "web1")
                    else:
                        one.good(how, "web1")
                    let_go()
                    code = migrate.wait(20)
                words = migrate.stderr.read()
                if how == "reset":
                    assert code == 0, words
                    ended(process)
                    other.goes_on()
                    continue
                assert code == 4 or (how == "kill" and code == 1), words
                other.wait_until(lambda: left_at(other) == [], f"the end of what is left: {left_at(other)}")
                if how == "stop":
                    assert "ended before it had moved" in words, words
                    ended(process)
                if how == "pause":
                    assert "stands still" in words, words
                    assert one.status("web1")["state"] == "paused"
                    one.good("resume", "web1")
                    one.goes_on()


def test_a_guest_that_writes_all_the_time():
    """It is slowed down until it can move, says so, and notices nothing; and what was asked for and could not be is
    said."""
    with hosts() as (one, other):
        make(one, pages=600)
        process = start(one)
        with Proxy(other.standby(), rate=SLOW) as proxy:
            said = one.run("migrate", "web1", proxy.address, "--downtime", "1")
        assert said.returncode == 0, said.stderr
        ended(process)
        ms = float(re.search(r"it stood still for ([\d.]+) ms", said.stderr)[1])
        assert ("that is longer than --downtime" in said.stderr) == (ms > 1), said.stderr
        assert re.search(r"it wrote faster than the connection, and was slowed down by \d\d %", said.stderr), said
        other.goes_on()


def test_a_full_clone_comes_first():
    """While a clone is being made the VM does not move."""
    with hosts() as (one, other):
        make_large(one)
        start(one)
        clone = one.begin("clone", "web1", "web2")
        disk = one.root / ".web2.new/disk.img"  # which the VM makes: before that the clone is not under way
        one.wait_until(lambda: disk.exists() or clone.poll() is not None, "the clone's disk")
        said = one.run("migrate", "web1", other.standby())
        assert clone.poll() is not None or (said.returncode == 4 and "web1 is just being copied" in said.stderr), said
        assert clone.wait(30) == 0
