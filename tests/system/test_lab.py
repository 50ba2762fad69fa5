# SPDX-License-Identifier: MIT
"""The lab itself: what other system tests rely on."""

import base64
import hashlib
import os
import pty
import select
import signal
import subprocess
import sys
import time

from labcommon import REPOSITORY, HostLost, LabError, LabTimeout

LAB_FOLDER = str(REPOSITORY / "tests" / "lab")

GUEST = (
    "qemu-system-x86_64 -enable-kvm -cpu host -M pc -m 256 -nodefaults -display none -no-reboot"
    " -serial stdio -kernel /root/vmlinuz -initrd /root/guest.cpio.gz"
    " -append 'console=ttyS0 panic=-1 quiet minivmm.run={script}' </dev/null"
)


def expect_error(kind, function, *arguments, **options):
    try:
        function(*arguments, **options)
    except kind as error:
        return str(error)
    raise AssertionError(f"no {kind.__name__} came")


def wait_until_reachable(host, other):
    """The first packets after a start get lost, until the link is up at both ends."""
    host.run(f"until ping -c 1 -W 1 {other.name}; do :; done", timeout=20, check=True)


def can_ping(host, other):
    return host.run(f"ping -c 1 -W 1 {other.name}").code == 0


def echo_requests(host):
    """How many pings have reached the host."""
    rows = host.run("grep ^Icmp: /proc/net/snmp", check=True).out.splitlines()
    return int(dict(zip(*(row.split() for row in rows)))["InEchos"])


# One host


def test_run_returns_code_and_both_streams(host):
    """run() gives the exit code, standard output and standard error, each whole and apart."""
    result = host.run("echo to out; echo to err >&2; cat; exit 3", stdin=b"from stdin\n")
    assert result == (3, "to out\nfrom stdin\n", "to err\n"), result


def test_run_reports_the_signal_that_ended_a_command(host):
    """A command that dies of a signal has the exit code that a shell would give."""
    assert host.run("kill -TERM $$").code == 128 + signal.SIGTERM


def test_output_survives_the_end_of_its_command(host):
    """All that a command wrote before it ended is there, however much and however it ended."""
    result = host.run("seq 1 200000; kill -KILL $$")
    assert result.out == "".join(f"{n}\n" for n in range(1, 200001))


def test_run_does_not_wait_for_what_a_command_left_behind(host):
    """A daemon that keeps the output open does not hold up run()."""
    started = time.monotonic()
    assert host.run("sleep 200 & echo $! >/tmp/left").code == 0
    assert time.monotonic() - started < 60
    host.run("kill $(cat /tmp/left)", check=True)


def test_run_times_out_and_ends_the_command(host):
    """A command that takes too long is killed with its children, and the error names it."""
    message = expect_error(LabTimeout, host.run, "echo working; sleep 1234 | cat", timeout=5)
    assert "sleep 1234" in message and "working" in message, message
    host.run("while pidof sleep; do usleep 10000; done", timeout=60, check=True)


def test_check_makes_an_error_of_a_bad_exit_code(host):
    """run(check=True) names the host, the command, the code and what it said."""
    message = expect_error(LabError, host.run, "echo sorry >&2; false", check=True)
    assert "shared" in message and "exit code 1" in message and "sorry" in message, message


def test_spawned_commands_can_be_talked_to(host):
    """A spawned command streams; several run at once; writes reach it; signals end it."""
    one, two = host.spawn("cat"), host.spawn("while read x; do echo got $x; done; echo over >&2; exit 9")
    two.write("first\n")
    two.wait_for("got first")
    one.write("to the other\n")
    one.wait_for("^to the other$")
    two.write("second\n")
    assert two.wait_for("got (.*)")[1] == b"second"
    two.end_input()
    assert (two.wait(), two.out, two.err) == (9, "got first\ngot second\n", "over\n")
    one.kill()
    assert one.wait() == 128 + signal.SIGKILL


def test_waiting_for_what_never_comes_says_what_came(host):
    """wait_for() fails as soon as the command has ended, with its code and its last words."""
    message = expect_error(LabError, host.spawn("echo no such luck; exit 4").wait_for, "fortune", 30)
    assert "code 4" in message and "no such luck" in message, message


def test_a_command_may_have_a_terminal(host):
    """With terminal= a command gets a pty of that size: line editing, job control, Ctrl-C, Ctrl-D."""
    shell = host.spawn("sh", terminal=(33, 101))
    shell.write("stty size; tty\n")
    shell.wait_for("33 101")
    shell.wait_for("/dev/pts/")
    shell.write("echo ready; cat\n")
    shell.wait_for("^ready")
    # The terminal echoes the word, and cat says it again: cat runs, and Ctrl-C will find it.
    shell.write("meow\n")
    shell.wait_for(r"meow\s+meow")
    shell.write("\x03")
    # Ctrl-C throws away what was typed before it took effect.
    shell.wait_for("# ")
    shell.write("echo code $?\n")
    shell.wait_for("code 130")
    shell.resize(20, 70)
    shell.write("stty size\n")
    shell.wait_for("20 70")
    shell.write("exit 6\n")
    assert shell.wait() == 6


def test_large_files_go_in_and_out_unchanged_and_fast(host):
    """30 MiB are put and got back bit for bit, each in well under ten seconds."""
    data = os.urandom(30 << 20)
    started = time.monotonic()
    host.put_bytes(data, "/root/new/folder/large", mode=0o640)
    assert time.monotonic() - started < 10
    sums = host.run("sha256sum /root/new/folder/large; stat -c %a /root/new/folder/large").out.split()
    assert (sums[0], sums[2]) == (hashlib.sha256(data).hexdigest(), "640")
    started = time.monotonic()
    assert host.get_bytes("/root/new/folder/large") == data
    assert time.monotonic() - started < 10
    host.run("rm -r /root/new", check=True)


def test_a_failed_copy_names_the_file(host):
    """put and get errors carry the path and the reason from inside the host."""
    assert "/root/none: No such file" in expect_error(LabError, host.get_bytes, "/root/none")
    assert "/proc/x: No such file" in expect_error(LabError, host.put_bytes, b"x", "/proc/x")


def test_a_full_disk_fails_a_copy(host):
    """A put that does not fit fails with the reason, and leaves nothing behind."""
    host.run("mkdir /tmp/small && mount -t tmpfs -o size=1m tmpfs /tmp/small", check=True)
    message = expect_error(LabError, host.put_bytes, bytes(4 << 20), "/tmp/small/large")
    assert "No space left" in message, message
    assert host.run("ls /tmp/small; umount /tmp/small; rmdir /tmp/small").out == ""


def test_programs_bring_their_libraries(host):
    """install() makes a dynamically linked program of this machine run in the host."""
    host.install(sys.executable, "/tmp/program/python")
    # It starts far enough to look for its own modules: then all libraries were found.
    assert host.run("/tmp/program/python --version").out.startswith("Python 3")


def test_kvm_is_there(host):
    """A lab host has a /dev/kvm of the kernel's real AMD module, with nested paging."""
    host.run("test -c /dev/kvm", check=True)
    assert "Nested Paging enabled" in host.run("dmesg").out


def test_kvm_runs_a_stock_kernel(lab):
    """Debian's kernel boots on that /dev/kvm, here under QEMU, and runs a script."""
    host = lab.host("a", qemu=True)
    host.add_file(lab.images.kernel(), "/root/vmlinuz")
    host.add_file(lab.images.guest_initramfs(), "/root/guest.cpio.gz")
    host.start()
    script = base64.b64encode(b"grep -o hypervisor /proc/cpuinfo; exit 42").decode()
    result = host.run(GUEST.format(script=script), timeout=120, check=True)
    assert "minivmm guest up" in result.out, result.out
    assert "hypervisor" in result.out and "minivmm guest exit: 42" in result.out, result.out


# Power


def test_a_power_cut_is_noticed_and_survived(lab):
    """A power cut ends what waits for the host; it starts again, with its files but without its memory."""
    host = lab.host("a", memory=600, files={"/etc/lab-test": __file__})
    host.start()
    host.run("touch /root/in-memory", check=True)
    waiting = host.spawn("sleep 1000")
    host.power_cut()
    expect_error(HostLost, waiting.wait, 10)
    assert not host.is_running
    host.start()
    assert host.run("ls /etc/lab-test /root").out == "/etc/lab-test\n\n/root:\n"


def test_a_host_can_be_switched_off(lab):
    """power_off() and a poweroff typed inside both end the machine."""
    host = lab.host("a", memory=600)
    host.start()
    host.power_off()
    assert not host.is_running
    host.start()
    host.spawn("poweroff")
    host.wait_stopped()


test_a_host_can_be_switched_off.slow = True  # of the harness only: tests of several hosts fail without it


def test_a_frozen_host_stands_still(lab):
    """Between freeze() and thaw() nothing happens in a host; then it goes on as if nothing had been."""
    host = lab.host("a", memory=600)
    host.start()
    ticker = host.spawn("while :; do echo tick; usleep 10000; done")
    ticker.wait_for("tick")
    host.freeze()
    expect_error(LabTimeout, host.spawn("echo awake").wait, 1)
    host.thaw()
    ticker.wait_for("tick")
    assert host.run("echo awake").out == "awake\n"


test_a_frozen_host_stands_still.slow = True  # of the harness only: tests of several hosts fail without it


def test_disks_keep_what_is_written_unless_in_snapshot(lab):
    """A disk image is /dev/vda, and keeps data over a power cut; with snapshot the image never changes."""
    image = lab.folder / "disk.img"
    image.write_bytes(bytes(1 << 20))
    keeper = lab.host("a", memory=600, disks=[image])
    keeper.start()
    keeper.run("echo written | dd of=/dev/vda conv=fsync", check=True)
    keeper.power_cut()
    assert image.read_bytes().startswith(b"written\n")
    guest = lab.host("b", memory=600, disks=[image], snapshot=True)
    guest.start()
    assert guest.run("head -n 1 /dev/vda").out == "written\n"
    guest.run("echo changed | dd of=/dev/vda conv=fsync", check=True)
    guest.power_cut()
    assert image.read_bytes().startswith(b"written\n")


test_disks_keep_what_is_written_unless_in_snapshot.slow = True  # of the harness only: tests of several hosts fail without it


# The network


def test_hosts_reach_each_other_until_the_cable_is_cut(lab):
    """Hosts know each other by name; a cut cable parts them both ways, and healing joins them."""
    a, b = lab.host("a", memory=600), lab.host("b", memory=600)
    lab.start()
    wait_until_reachable(a, b)
    assert can_ping(b, a)
    lab.net.cut(b)
    assert not can_ping(a, b) and not can_ping(b, a)
    lab.net.heal(b)
    assert can_ping(a, b) and can_ping(b, a)


test_hosts_reach_each_other_until_the_cable_is_cut.slow = True  # of the harness only: tests of several hosts fail without it


def test_one_direction_can_be_cut(lab):
    """cut(a, to=b) stops what a sends to b and nothing else: b is still heard by a."""
    a, b = lab.host("a", memory=600), lab.host("b", memory=600)
    lab.start()
    wait_until_reachable(a, b)
    lab.net.cut(a, to=b)
    before = echo_requests(a), echo_requests(b)
    # No answer either way, but for different reasons.
    assert not can_ping(a, b) and not can_ping(b, a)
    assert (echo_requests(a) - before[0], echo_requests(b) - before[1]) == (1, 0)
    lab.net.heal(a, to=b)
    assert can_ping(a, b) and can_ping(b, a)


test_one_direction_can_be_cut.slow = True  # of the harness only: tests of several hosts fail without it


def test_a_bridge_takes_guests_into_the_network(lab):
    """With bridge=True a host's card is a port of br0: what joins br0 with a tap is on the network."""
    a, b = lab.host("a", memory=600), lab.host("b", memory=600, bridge=True)
    lab.start()
    wait_until_reachable(a, b)
    assert b.run("cat /sys/class/net/br0/address").out.strip() == b.mac
    # A veth into another network namespace stands in for a guest; the kernel calls its peer veth0.
    b.run("ip link add tap0 type veth && brctl addif br0 tap0 && ip link set tap0 up", check=True)
    guest = b.spawn("unshare -n sh -c 'echo pid $$; read go; ip address add 10.77.0.99/24 dev veth0;"
                    " ip link set veth0 up; echo up; sleep 1000'")
    pid = guest.wait_for("pid ([0-9]+)")[1].decode()
    b.run(f"ip link set veth0 netns {pid}", check=True)
    guest.write("go\n")
    guest.wait_for("up")
    a.run("until ping -c 1 -W 1 10.77.0.99; do :; done", timeout=20, check=True)


test_a_bridge_takes_guests_into_the_network.slow = True  # of the harness only: tests of several hosts fail without it


def test_a_host_comes_back_to_the_network_after_a_power_cut(lab):
    """The switch forgets a dead host and welcomes it again."""
    a, b = lab.host("a", memory=600), lab.host("b", memory=600)
    lab.start()
    wait_until_reachable(a, b)
    b.power_cut()
    assert not can_ping(a, b)
    b.start()
    wait_until_reachable(a, b)


test_a_host_comes_back_to_the_network_after_a_power_cut.slow = True  # of the harness only: tests of several hosts fail without it


def test_traffic_is_counted_and_captured(lab):
    """counters() and capture() show the frames that crossed the switch."""
    a, b = lab.host("a", memory=600), lab.host("b", memory=600)
    lab.start()
    wait_until_reachable(a, b)
    before = lab.net.counters(b)
    capture = lab.folder / "ping.pcap"
    lab.net.capture(capture)
    a.run("ping -c 5 -i 0.1 -p a5 b", check=True)
    lab.net.capture(None)
    after = lab.net.counters(b)
    assert after.received - before.received >= 5 and after.sent - before.sent >= 5
    # Five requests and five replies, each with the pattern.
    assert capture.read_bytes().count(b"\xa5" * 32) == 10


test_traffic_is_counted_and_captured.slow = True  # of the harness only: tests of several hosts fail without it


# The command line


def test_a_person_runs_one_command():
    """`lab run` copies in what it is told to, and ends with its command's output and exit code; a file that is not
    there is named."""
    lab = [f"{LAB_FOLDER}/lab", "run", "--memory", "600"]
    result = subprocess.run([*lab, "--with", f"{__file__}:/tmp/here", "--", "sh", "-c", "md5sum </tmp/here; exit 7"],
                            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120)
    with open(__file__, "rb") as file:
        wanted = hashlib.md5(file.read()).hexdigest()
    assert result.returncode == 7 and result.stdout == f"{wanted}  -\n", result
    result = subprocess.run([*lab, "--with", "nowhere", "--", "true"], stdin=subprocess.DEVNULL, capture_output=True,
                            text=True, timeout=120)
    assert result.returncode == 1 and "lab: cannot copy nowhere into the host" in result.stderr, result


def test_a_person_gets_a_shell():
    """`lab shell` is a root shell on a terminal, with /dev/kvm; exit leaves."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.execv(f"{LAB_FOLDER}/lab", ["lab", "shell", "--memory", "600"])
    text, wanted = b"", [(b"# ", b"tty && ls -l /dev/kvm && echo $((1000 + 1))-$(id -u); exit\r"), (b"1001-0", b"")]
    while wanted:
        ready, _, _ = select.select([terminal], [], [], 90)
        assert ready, f"no {wanted[0][0]!r} in {text!r}"
        text += os.read(terminal, 4096)
        if wanted[0][0] in text:
            os.write(terminal, wanted.pop(0)[1])
    while True:
        try:
            text += os.read(terminal, 4096)
        except OSError:  # nobody has the other end any more
            break
    _, status = os.waitpid(pid, 0)
    os.close(terminal)
    assert os.waitstatus_to_exitcode(status) == 0 and b"/dev/pts/" in text and b"10, 232" in text, text


# Nothing is left behind


CHILD = """
import signal, sys, time
from labsession import Lab
signal.signal(signal.SIGINT, signal.default_int_handler)  # who runs the tests may have it ignored
with Lab() as lab:
    host = lab.host("a", memory=600)
    host.launch()
    print(host.pid, lab.folder, flush=True)
    {end}
"""


def lab_in_a_process_that_ends(end, number=None):
    """A lab in a process of its own, which ends by itself or by a signal; returns the lab's folder."""
    child = subprocess.Popen([sys.executable, "-c", CHILD.format(end=end)], stdout=subprocess.PIPE,
                             stderr=subprocess.DEVNULL, text=True, env={**os.environ, "PYTHONPATH": LAB_FOLDER})
    pid, folder = child.stdout.readline().split()
    try:
        machine = os.pidfd_open(int(pid))
    except ProcessLookupError:
        machine = None  # it is gone already
    if number is not None:
        child.send_signal(number)
    child.communicate()
    if machine is not None:
        ended, _, _ = select.select([machine], [], [], 10)
        os.close(machine)
        assert ended, f"the machine {pid} outlived its lab"
    return folder


def test_an_exception_leaves_nothing():
    """After an exception no QEMU and no folder is left."""
    assert not os.path.exists(lab_in_a_process_that_ends("raise SystemExit(1)"))


def test_signals_leave_nothing():
    """SIGINT and SIGTERM end the machines and remove the folder."""
    for number in (signal.SIGINT, signal.SIGTERM):
        assert not os.path.exists(lab_in_a_process_that_ends("time.sleep(1000)", number))


def test_a_killed_harness_leaves_no_machine(lab):
    """After SIGKILL of the harness the kernel ends its machines; the next lab removes the folder."""
    folder = lab_in_a_process_that_ends("time.sleep(1000)", signal.SIGKILL)
    assert os.path.exists(folder)
    with type(lab)():
        assert not os.path.exists(folder)


# Any other lab would remove the folder.
test_a_killed_harness_leaves_no_machine.alone = True
