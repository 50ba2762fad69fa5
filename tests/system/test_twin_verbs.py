# SPDX-License-Identifier: MIT
"""What people ask of a VM where it does not run: at its twin, and where it is just arriving or leaving. Two "hosts" are two
runtime folders of this machine. No lab host is needed."""

import contextlib
import os
import signal
from pathlib import Path

from frames import Proxy
from pairs import ALERT, PATIENT
from test_migrate import check_untouched, ended, hosts, left_at, make, make_large, start, who_has_it


def protection(host):
    """What the status says about it; {} where the VM is not here, or its process just ends."""
    said = host.run("status", host.root / "web1", "--json")
    return host.status(host.root / "web1").get("protection") or {} if said.returncode == 0 else {}


def wait_for(host, state):
    host.wait_until(lambda: protection(host).get("state") == state, f"protection {state}")


def pid_at(host):
    return next((row["pid"] for row in host.list() if row["name"] == "web1"), None)


def gone(pid):
    """Nothing of it is left but its number."""
    with contextlib.suppress(OSError):
        return not any(os.listdir(task / "fd") for task in Path(f"/proc/{pid}/task").iterdir())
    return not Path(f"/proc/{pid}").exists()


def kill(host):
    pid = pid_at(host)
    os.kill(pid, signal.SIGKILL)
    host.wait_until(lambda: gone(pid), "the end of a process")


def goes_on(host):
    """The guest says something more."""
    before = len(host.console("web1"))
    host.wait_until(lambda: len(host.console("web1")) > before, "a word of the guest")


@contextlib.contextmanager
def pair(kernel="counter.elf", until="\n", ft=PATIENT):
    """web1 at one host, its twin at the other, and the path of the witness."""
    with hosts() as (one, other):
        one.make("web1", kernel=kernel, ft=ft)
        one.start("web1", until=until)
        witness = one.root / "w"
        witness.mkdir()
        one.good("protect", "web1", "--to", other.standby(), "--witness", f"file:{witness}")
        wait_for(other, "twin")
        yield one, other, witness


def test_the_end_of_a_twin():
    """stop, or a signal, where the twin is ends the twin and nothing else: the VM goes on alone, gets a twin again, and
    that one takes over."""
    for how in ["stop", "signal"]:
        with pair() as (one, other, _):
            pid = pid_at(other)
            if how == "stop":
                said = other.run("stop", other.root / "web1", "--timeout", 20)
                assert said.returncode == 0 and "it was a twin, and did not run" in said.stderr, said
            else:
                os.kill(pid, signal.SIGTERM)
            other.wait_until(lambda: gone(pid), "the twin's end")
            goes_on(one)
            other.wait_until(lambda: pid_at(other) not in [None, pid], "another twin")
            wait_for(one, "paired")
            kill(one)
            goes_on(other)
            assert protection(other)["role"] == "primary"


def test_what_a_twin_refuses():
    """Whatever changes a VM is refused at its twin, with a hint that names the host to ask; the protection is as it was,
    and the twin takes over."""
    with pair() as (one, other, witness):
        web = other.root / "web1"
        there = f"there: minivmm {{}} web1"
        before = protection(one)["generation"]
        for verb, *more in [("pause",), ("resume",), ("reset",), ("set", "--balloon", "8M")]:
            words = other.bad(4, "web1 does not run here: it is a twin", verb, web, *more)
            assert "hint: minivmm status web1" in words, words
        to = ("--to", "127.0.0.1:1", "--witness", f"file:{witness}", "--insecure")
        for verb, *more in [("unprotect",), ("switchover",), ("protect", *to)]:
            words = other.bad(4, "web1 is the twin of a VM that runs at 127.0.0.1", verb, web, *more)
            assert f"hint: {there.format(verb)}" in words, words
        for verb, *more in [("clone", "web2"), ("migrate", "127.0.0.1:1"), ("snapshot", )]:
            words = other.bad(4, "web1 is the twin of a VM that runs at 127.0.0.1", verb, web, *more)
            assert "minivmm stop" not in words, words
        for verb, *more in [("run",), ("rename", "web2"), ("remove", "--yes")]:
            words = other.run(verb, web, *more)
            assert words.returncode == 4 and "minivmm stop" not in words.stderr, words
            assert "is the twin of a VM that runs at" in words.stderr, words
        seen = protection(one)
        assert (seen["state"], seen["generation"]) == ("paired", before), seen
        kill(one)
        goes_on(other)
        assert protection(other)["role"] == "primary"
        other.good("pause", web)
        other.good("resume", web)
        other.good("unprotect", web)
        goes_on(other)


def test_stop_in_the_middle_of_a_takeover():
    """A twin that has asked the witness for the VM is its only hope: it takes over, and then the guest feels the power
    button. The VM can be started there again. At once, it ends; the VM is where it was."""
    for how in ["stop", "force"]:
        with pair("button.elf", "ready", ALERT) as (one, other, witness):
            web, away = other.root / "web1", witness.with_name("away")
            witness.rename(away)
            kill(one)
            wait_for(other, "claiming")
            if how == "force":
                other.good("stop", "--force", web)
                away.rename(witness)
                one.start("web1")
                continue
            pid = pid_at(other)
            other.bad(124, "did not power off within 1 s", "stop", web, "--timeout", 1)
            away.rename(witness)
            other.wait_until(lambda: gone(pid), "the guest's end")
            events = [event for event, _ in other.journal("web1")]
            assert events[-3:] == ["takeover", "start", "stop"] and other.journal("web1")[-1][1]["by"] == "person", events
            other.start("web1")


test_stop_in_the_middle_of_a_takeover.waits = True


def test_stop_where_it_arrives():
    """A VM that is stopped while it arrives does not come: migrate says so, and it goes on where it was, complete; the
    next one comes to its end."""
    for at in ["BLOCKS", "GO"]:
        with hosts() as (one, other):
            make_large(one)
            process, address, said = start(one), other.standby(), []

            def stop():
                web = other.root / "web1"
                for verb in [("pause", web), ("set", web, "--balloon", "8M"), ("reset", web)]:
                    said.append(other.run(*verb))
                said.append(other.run("clone", web, "web2"))
                said.append(other.run("rename", web, "web2"))
                said.append(other.run("stop", web, "--timeout", 20))
            proxy = Proxy(address, at, "first", do=stop)
            migrate = one.begin("migrate", "web1", proxy.address)
            code, words = migrate.wait(30), migrate.stderr.read()
            proxy.close()
            assert code == 4 and "web1 was stopped at the target while it arrived" in words, (code, words)
            one.wait_until(lambda: len(said) == 6, "the end of stop")
            *refused, stopped = said
            for result in refused:
                assert result.returncode == 4 and "arriving" in result.stderr, result
            assert stopped.returncode == 0 and "it was arriving, and did not run" in stopped.stderr, stopped
            other.wait_until(lambda: left_at(other) == [], f"the end of what is left: {left_at(other)}")
            check_untouched(one, other, [])
            one.good("migrate", "web1", address)
            ended(process)
            other.goes_on()


def test_stop_as_soon_as_it_has_come():
    """From the moment at which the VM is the target's it runs there, and a stop is the power button, to which this guest
    does not listen."""
    with hosts() as (one, other):
        make(one)
        start(one)
        said = []

        def stop():
            said.append(other.run("stop", other.root / "web1", "--timeout", 1))
        proxy = Proxy(other.standby(), "ACK YOURS", "first", do=stop)
        migrate = one.begin("migrate", "web1", proxy.address)
        code = migrate.wait(30)
        proxy.close()
        assert code == 0 and said[0].returncode == 124, (migrate.stderr.read(), said)
        assert who_has_it(one, other, code) is other


def test_what_comes_too_late_is_refused():
    """In the last pause nothing can be set any more, nor paused: it would be lost. Afterwards it can, there, or here where
    the move failed."""
    words = (("set", "web1", "--disk", "0", "--iops", "20"), ("pause", "web1"))
    with hosts() as (one, other):
        make(one)
        start(one)
        address = other.standby()
        for at, when, code, where in (("ACK READY", "before", 1, one), ("GO", "first", 0, other)):
            heard = []
            with Proxy(address, at, when, do=lambda: heard.extend([one.run(*what) for what in words])) as proxy:
                moved = one.run("migrate", "web1", proxy.address)
                assert proxy.hit.wait(10) and moved.returncode == code, moved.stderr
            assert [said.returncode for said in heard] == [4, 4], heard
            for said in heard:
                assert "web1 is just moving, and would not take this along\nhint: " in said.stderr, said.stderr
            where.wait_until(lambda: where.has() and where.status("web1")["state"] == "running", "the end of the pause")
            for verb in (*words, ("resume", "web1")):
                where.good(*verb)
