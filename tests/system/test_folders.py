# SPDX-License-Identifier: MIT
"""VMs that are folders, with real Linux guests that boot from their disks, on real kvm-amd in a lab host."""

import json

from labcommon import LabError
from labguest import BOOT, look
from test_bios import IMAGES, put_disk, wait_for_shell

ROOT = "/root/folders"


def good(host, *words, timeout=60):
    """What a verb prints; an exit code that is not 0 is an error."""
    return host.run(f"cd {ROOT} && minivmm {' '.join(words)}", timeout=timeout, check=True).out


def page(host, port):
    return host.run(f"timeout 3 wget -q -O - http://127.0.0.1:{port}/", timeout=30)


def has_page(host, port, tries=60):
    """The guest's web page comes through its port forward; its server is among the last things to start."""
    return any("tiny" in page(host, port).out for _ in range(tries))


def status(host, name):
    return json.loads(good(host, "status", name, "--json"))


def wait_for_shell_on_console(host, name):
    """Attaches to its console, which tells what was said before; waits for the prompt, and leaves by Ctrl-a d."""
    job = host.spawn(f"cd {ROOT} && exec minivmm console {name}", terminal=(25, 80))
    wait_for_shell(job)
    job.write(b"\x01d")
    assert job.wait(30) == 0


def test_a_life_in_folders(host):
    """new, run --detach, cp -r, run: two VMs side by side that differ in all that must differ. Each is paused, resumed,
    steered, watched and reset; a clone of one that runs boots too; they stop by their power buttons; a killed one starts
    again, and the report knows."""
    host.run(f"mkdir -p {ROOT}", check=True)
    put_disk(host, IMAGES.tiny_disk(), f"{ROOT}/tiny.img")
    try:
        live(host)
    except (AssertionError, LabError) as error:
        error.add_note(look(host))
        raise
    finally:
        host.run(f"cd {ROOT} && minivmm stop --force $(minivmm list -q); rm -rf {ROOT}")


def live(host):
    good(host, "new web1 tiny.img --memory 160M -p 8081:80")
    good(host, "run web1 --detach")
    host.run(f"cd {ROOT} && cp -r web1 web2 && sed -i s/8081/8082/ web2/vm.json", check=True)
    good(host, "run web2 --detach")
    wait_for_shell_on_console(host, "web1")
    wait_for_shell_on_console(host, "web2")
    assert has_page(host, 8081) and has_page(host, 8082)
    one, two = status(host, "web1"), status(host, "web2")
    assert one["uuid"] != two["uuid"] and one["nets"][0]["mac"] != two["nets"][0]["mac"]
    assert good(host, "list", "-q").split() == ["web1", "web2"]

    good(host, "pause", "web1")
    assert page(host, 8081).code != 0
    good(host, "resume", "web1")
    assert has_page(host, 8081)
    good(host, "set web1 --net 0 --link down")
    assert page(host, 8081).code != 0
    good(host, "set web1 --net 0 --link up")
    assert has_page(host, 8081)
    good(host, "set web1 --balloon 32M")
    good(host, "reset", "web2")
    assert page(host, 8082).code != 0

    good(host, "stop", "web2", "--timeout", str(BOOT), timeout=2 * BOOT)
    good(host, "clone", "web1", "web3")
    host.run(f"cd {ROOT} && sed -i s/8081/8083/ web3/vm.json && kill -9 {status(host, 'web1')['pid']}", check=True)
    good(host, "run web1 --detach")
    good(host, "run web3 --detach")
    wait_for_shell_on_console(host, "web1")
    wait_for_shell_on_console(host, "web3")
    assert has_page(host, 8083)
    good(host, "stop", "web1", "web3", "--timeout", str(BOOT), timeout=3 * BOOT)

    report = json.loads(good(host, "report", "web1", "--json"))
    assert report["failures"] == 1 and report["starts"] == 2, report
    good(host, "remove", "--yes", "web1", "web2", "web3")
    assert host.run(f"ls {ROOT}").out.split() == ["tiny.img"]


# A minute and a half. The same verbs are driven with tiny guests by test_vm, test_verbs and test_clone.
test_a_life_in_folders.slow = True
