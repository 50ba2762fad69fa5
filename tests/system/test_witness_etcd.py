# SPDX-License-Identifier: MIT
"""A real etcd as a witness (Debian's etcd-server): alone, with members that die, with TLS and passwords, and brought back
from an old copy; and a VM that outlives its host by it."""

import contextlib
import os
import signal
import subprocess
import tempfile
import time
import uuid

from echoes import check_disk
from etcds import Authority, Etcd, configure
from labcommon import Skip, build_dir
from pairs import Pair
from test_protect import SOME, UNHURRIED, finish, need_protect, takes_over

TRY = build_dir() / "tests/system/witness_try"


class Asker:
    """Asks a witness by hand, with a configuration of its own."""

    def __init__(self, address):
        if not TRY.exists():
            raise Skip(f"no {TRY}: ninja -C build")
        self.address, self.uuid, self.config = address, str(uuid.uuid4()), None

    def _command(self, *words, known=()):
        env = {**os.environ, "XDG_CONFIG_HOME": str(self.config or "/nonexistent")}
        verb, *rest = map(str, words)
        return dict(args=[TRY, *known, self.address, verb, self.uuid, *rest], env=env, stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def good(self, *words, **more):
        result = subprocess.run(**self._command(*words, **more), timeout=60)
        assert result.returncode == 0, result.stderr
        return result.stdout.strip()

    def bad(self, *words, **more):
        """The sentence and the hint."""
        result = subprocess.run(**self._command(*words, **more), timeout=60)
        assert result.returncode == 1, result
        return result.stderr

    def begin(self, *words):
        return subprocess.Popen(**self._command(*words))


def test_one_member():
    """A record that is not there, the first one, and its exchange; who comes late hears what is there. What another host
    names is only taken where it has a record."""
    with Etcd() as etcd:
        asker = Asker(etcd.address)
        known = [f"known:{asker.uuid}"]
        assert asker.good("read") == "0 0 0"
        assert "has no record of the VM" in asker.bad("read", known=known)
        assert asker.good("give", 0, 7) == "done"
        assert asker.good("give", 0, 8) == "is 1 7 0"
        assert asker.good("give", 1, 8) == "done"
        assert asker.good("read", known=known) == "2 8 0"
        assert etcd.generations() == {asker.uuid: 2}
        etcd.kill(0)
        assert "nobody who listens" in asker.bad("read")
        etcd.start(0)
        etcd.wait()
        assert asker.good("read") == "2 8 0"
        members = etcd.address
        asker.address = f"etcd://127.0.0.1:{etcd.peers[0]}"
        assert "does not answer like an etcd" in asker.bad("read")
        asker.address = members.replace("etcd:", "etcd:http:")
        assert asker.good("read") == "2 8 0"


def check_race(racers, last):
    """Each generation has one winner, or one who was told that it is not known; or one whose answer got lost and who asked
    again when somebody had made the next one from it: he is only told of that one, and it is his no more in any case."""
    won, unknown, late = [], [], []
    for racer in racers:
        said, words = racer.communicate(timeout=60)
        assert racer.returncode == 0, words
        lines = [line.split() for line in said.splitlines()]
        won += [int(number) for what, number in lines if what == "won"]
        unknown += [int(number) for what, number in lines if what == "unknown"]
        late += [int(number) for what, number in lines if what == "late"]
    twice = sorted({number for number in won if won.count(number) > 1})
    assert not twice, f"two winners: {twice[:9]} ..."
    missing = set(range(1, last + 1)) - set(won)
    assert missing <= {*unknown, *late}, f"nobody made {missing - {*unknown, *late}}"
    assert len(missing - {*unknown}) <= 2 * len(racers), f"more than the answers that two deaths lose: {missing}"
    return unknown


def test_members_die():
    """Three members and several who want each generation: while members are killed and come back, one at a time, each
    generation has one winner, and the exchanges go on. Without a majority nobody decides; with it they do again."""
    with Etcd(3) as etcd:
        asker, last = Asker(etcd.address), 400
        racers = [asker.begin("race", owner, last) for owner in (11, 22, 33)]
        wait_for(etcd, asker, 20)
        for number in (0, 2):
            etcd.kill(number)
            before = wait_for(etcd, asker, 0)
            wait_for(etcd, asker, min(before + 20, last))
            etcd.start(number)
            etcd.wait()
        check_race(racers, last)
        assert asker.good("read").split()[0] == str(last)

        etcd.kill(0)
        etcd.kill(1)
        words = asker.bad("give", last, 5)
        assert "no etcd answers" in words and "more than half" in words, words
        etcd.start(1)
        etcd.wait()
        is_now = int(asker.good("read").split()[0])  # what was said without a majority may have been kept, or not
        assert is_now in (last, last + 1)
        assert asker.good("give", is_now, 6) == "done"
        assert asker.good("read") == f"{is_now + 1} 6 0"


def wait_for(etcd, asker, wanted):
    """Until there is a record of that generation; gives the one that there is."""
    until = time.monotonic() + 60
    while time.monotonic() < until:
        with contextlib.suppress(OSError):  # a new leader is not there at once
            is_now = etcd.generations().get(asker.uuid, 0)
            if is_now >= wanted:
                return is_now
    raise AssertionError(f"no generation {wanted}")


def test_a_member_stands_still():
    """One that takes connections and says nothing holds nobody up for good."""
    with Etcd(3) as etcd:
        asker = Asker(etcd.address)
        assert asker.good("give", 0, 7) == "done"
        os.kill(etcd.processes[0].pid, signal.SIGSTOP)
        try:
            assert asker.good("give", 1, 8) == "done"
        finally:
            os.kill(etcd.processes[0].pid, signal.SIGCONT)


def test_tls_and_password():
    """With TLS the member's certificate has to be of the right authority and for its address, and ours of theirs; with
    users only the right password lets us in, and only who may write can open it. What is wrong is said, and the mend."""
    with Etcd(tls=True, clients=True) as etcd, tempfile.TemporaryDirectory() as config:
        asker = Asker(etcd.address)
        root = etcd.root
        plain = asker.bad("read")
        assert "hung up" in plain and '"ca" in' in plain, plain
        asker.config = config
        configure(config, ca=f"{root}/ca.pem")
        words = asker.bad("read")
        assert '"cert" and "key" in' in words, words  # who has not let us in may hang up before he has said why
        ours = etcd.trust()
        configure(config, **ours)
        assert asker.good("give", 0, 7) == "done"

        etcd.with_users()
        words = asker.bad("read")
        assert "wants to know who asks" in words and "etcd.json" in words, words
        configure(config, **ours, user="minivmm", password="guessed")
        words = asker.bad("read")
        assert '"minivmm"' in words and "etcd.json" in words and "guessed" not in words, words
        configure(config, **ours, user="reader", password="open sesame")
        words = asker.bad("read")
        assert "permission denied" in words and "grant-permission" in words, words
        configure(config, **ours, user="minivmm", password="open sesame")
        assert asker.good("give", 1, 8) == "done"
        assert asker.good("read") == "2 8 0"

        with tempfile.TemporaryDirectory() as other:
            Authority(other)
            configure(config, **{**ours, "ca": f"{other}/ca.pem"})
            words = asker.bad("read")
            assert "not trusted" in words and '"ca"' in words, words
        configure(config, **ours, user="minivmm", password="open sesame")
        asker.address = f"etcd://localhost:{etcd.ports[0]}"  # it is for 127.0.0.1 only
        assert "not trusted" in asker.bad("read")
        (etcd.root / "client.key").chmod(0o644)
        assert "read or written by others" in asker.bad("read")


# --- VMs ------------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def protected(members, ft=None):
    """As test_protect.protected, with an etcd of so many members."""
    need_protect()
    with Pair(etcd=members) as pair:
        pair.process = pair.start_primary(ft=ft)
        pair.start_standby(pair.b)
        pair.protect()
        says = pair.wait_for(pair.a, role="primary", state="paired")
        clients = pair.clients("udp", "tcp", patience=20)
        clients.wait_for_more(SOME)
        yield pair, clients, says


def test_a_vm_outlives_its_host():
    """The primary's process is killed, and one member of three with it, as where they share a host; the twin goes on,
    nothing is lost, and the old folder does not run."""
    with protected(3) as (pair, clients, before):
        etcd = pair.etcd
        etcd.kill(0)
        pair.kill(pair.a)
        clients.wait_for_more(SOME)
        says = takes_over(pair, pair.b, before)
        assert list(etcd.generations().values()) == [says["generation"]]
        told = finish(pair, clients, pair.b)
        check_disk(pair.disk(pair.b), told)
        words = pair.a.bad(4, r"web1 .*(taken it over|is a twin)", "run", pair.a.root / "web1")
        assert "hint: " in words


def test_an_old_copy_is_refused():
    """An etcd that was brought back from an old copy knows less than the VM's folder: it does not start, and the cause and
    the mend are said."""
    with protected(1) as (pair, clients, before):
        etcd = pair.etcd
        etcd.keep_copy()
        pair.b.waiting.kill()
        pair.kill(pair.b)
        clients.wait_for_more(SOME)
        takes_over(pair, pair.a, before)
        clients.stop()
        pair.kill(pair.a)
        pair.process.wait()
        etcd.restore_copy()
        assert list(etcd.generations().values()) == [before["generation"]]
        words = pair.a.bad(4, "who may run web1 is not known", "run", pair.a.root / "web1")
        assert f"says generation {before['generation']}" in words and "old copy" in words, words
        assert "hint: " in words and ".protected" in words, words


def test_an_old_copy_is_refused_by_a_twin():
    """The same for a twin whose primary dies: it does not go on by a record that is older than what it knows, says so, and
    asks again. When the etcd knows what it knew, the twin goes on with all that anybody was told."""
    with protected(1, UNHURRIED) as (pair, clients, before):
        etcd = pair.etcd
        etcd.keep_copy()
        pair.kill(pair.b)
        clients.wait_for_more(SOME)
        takes_over(pair, pair.a, before)
        newer = pair.pair_again()
        assert newer["generation"] > before["generation"], newer
        clients.wait_for_more(SOME)
        etcd.keep_copy("newer")
        etcd.restore_copy()
        assert list(etcd.generations().values()) == [before["generation"]]
        twin = pair.pid(pair.b)
        pair.kill(pair.a)
        said = pair.wait_for(pair.b, state="claiming", why=lambda why: "there was a newer one already" in why)
        assert f"the witness says generation {before['generation']}" in said["why"], said
        looks = etcd.reads()
        pair.b.wait_until(lambda: etcd.reads() > looks + 2, "more questions of the twin")
        assert pair.owner() is None and pair.pid(pair.b) == twin
        assert list(etcd.generations().values()) == [before["generation"]]
        etcd.restore_copy("newer")
        clients.wait_for_more(SOME)
        assert takes_over(pair, pair.b, newer)["why"].find("newer one") < 0
        told = clients.stop()
        check_disk(pair.disk(pair.b), told)


def test_a_vm_with_users():
    """The same VM where the etcd wants to know who asks: its address is in vm.json, user and password are in etcd.json, as
    the documents say. Without them, and with a wrong one, protect is refused and says what to do; with them the VM
    outlives its host, also when the etcd was started again since and has forgotten who was let in; the old folder is
    refused by that, and the new one runs again."""
    need_protect()
    with Pair(etcd=1) as pair:
        etcd, ours = pair.etcd, pair.etcd.trust()
        etcd.with_users()
        pair.make(ft={"witness": etcd.address})
        pair.process = pair.start_primary()
        protect = ("protect", "web1", "--to", pair.start_standby(pair.b), "--insecure")
        pair.a.bad(4, r"wants to know who asks(.|\n)*hint: .*etcd\.json", *protect)
        configure(pair.a.env["XDG_CONFIG_HOME"], **ours, user="minivmm", password="guessed")
        words = pair.a.bad(4, r'"minivmm"(.|\n)*hint: .*etcd\.json', *protect)
        assert "guessed" not in words, words
        assert "protection" not in pair.a.status("web1") and etcd.generations() == {}
        for host in pair.hosts:
            configure(host.env["XDG_CONFIG_HOME"], **ours, user="minivmm", password="open sesame")
        pair.a.good(*protect)
        before = pair.wait_for(pair.a, role="primary", state="paired")
        assert before["witness"] == etcd.address and list(etcd.generations().values()) == [before["generation"]]
        clients = pair.clients("udp", "tcp", patience=20)
        clients.wait_for_more(SOME)
        etcd.kill(0)
        etcd.start(0)
        etcd.wait()
        pair.kill(pair.a)
        clients.wait_for_more(SOME)
        takes_over(pair, pair.b, before)
        told = finish(pair, clients, pair.b)
        pair.a.bad(4, r"web1 .*(taken it over|is a twin)", "run", pair.a.root / "web1")
        configure(pair.b.env["XDG_CONFIG_HOME"], **ours, user="reader", password="open sesame")
        pair.b.waiting.kill()
        pair.kill(pair.b)
        process = pair.b.begin("run", "web1")
        said = pair.wait_for(pair.b, state="starting", why=lambda why: "permission denied" in why)
        assert process.poll() is None and pair.b.status("web1")["state"] == "asking the witness", said
        configure(pair.b.env["XDG_CONFIG_HOME"], **ours, user="minivmm", password="open sesame")
        pair.wait_for(pair.b, role="primary", state="solo")
        clients = pair.clients("tcp", patience=60)
        clients.wait_for_more(SOME)
        check_disk(pair.disk(pair.b), {**told, **clients.stop()})
