"""k3s-bake boot, and the machines that it is made of, with cards that boot in seconds."""

import json
import os
import pty
import re
import select
import shutil
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from guest.conftest import CLI, Run, sha256

from bake.cache import home
from bake.emulator.board import Board
from bake.emulator.kernel import kernel
from bake.emulator.lab import Lab, Setup
from bake.progress import Silent
from boot.tiny import tiny_image
from firstboot.errors import WorkFailed

pytestmark = [pytest.mark.boot, pytest.mark.timeout(1800)]  # emulated, beside others, on two cores


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory, environment: dict[str, str]) -> Iterator[Path]:
    """The image stays as it is, whatever boots it. The kernel is taken from this user's cache."""
    folder = tmp_path_factory.mktemp("tiny")
    (folder / "work").mkdir()
    image = tiny_image(folder / "tiny.img", folder / "work")
    made = kernel(home(), Silent()).kernel.parent
    shutil.copytree(made, Path(environment["K3S_BAKE_HOME"], "cache/emulator", made.name))
    before = sha256(image)
    yield image
    assert sha256(image) == before


def test_two_cards_join_and_that_is_told(cli: Run, tiny: Path) -> None:
    done = cli("boot", tiny, tiny, "--until", "joined", "--json")
    assert done.code == 0, done.err
    events = [json.loads(line) for line in done.out.splitlines()]
    for at, name in enumerate(["tiny.img", "tiny.img#2"]):
        told = [event for event in events if event["machine"] == name]
        what = [event["what"] for event in told]
        assert what[:4] == ["kernel", "restarting", "kernel", "searching"]
        assert told[3]["reason"] == "no-master"
        assert told[3]["node"] == f"tiny-{10 + at}"
    assert {event["machine"] for event in events if event["what"] == "joined"} == {"tiny.img", "tiny.img#2"}


def test_what_does_not_join_in_time_is_told_with_its_reason(cli: Run, tiny: Path) -> None:
    for limit in (25, 75, 225):  # a machine that does much else at the time takes its time to boot one
        done = cli("boot", tiny, "--until", "joined", "--timeout", limit)
        if "searching" in done.error:
            break
    assert done.code == 1
    assert re.search(r"^\[ +\d+\.\d s\] tiny\.img: searching \(no-master\)$", done.out, re.MULTILINE)
    assert f"error: not all machines got there in {limit} s; tiny.img: searching (no-master)" in done.error
    assert "No master of this cluster is heard" in done.error
    (folder,) = re.findall(r"consoles said is in (\S+)\.$", done.error)
    assert "k3s-bake: tiny-10: searching" in Path(folder, "tiny.img.log").read_text()
    shutil.rmtree(folder)


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGKILL, -9)])
def test_nothing_is_left_running(
    tiny: Path, environment: dict[str, str], tmp_path: Path, sent: signal.Signals, code: int
) -> None:
    scratch = dict(environment, TMPDIR=str(tmp_path))
    command = [str(CLI), "boot", str(tiny), "--expose", f"{free_port()}:80"]
    with subprocess.Popen(command, env=scratch, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout
        assert b"the kernel starts" in process.stdout.readline()
        children = Path(f"/proc/{process.pid}/task").glob("*/children")
        pids = [int(pid) for path in children for pid in path.read_text().split()]
        assert len(pids) == 2  # the machine and the router
        process.send_signal(sent)
        assert process.wait(120) == code
    end = time.monotonic() + 60
    while any(Path(f"/proc/{pid}/exe").exists() for pid in pids) and time.monotonic() < end:
        time.sleep(0.1)
    assert not any(Path(f"/proc/{pid}/exe").exists() for pid in pids)
    if sent == signal.SIGINT:
        assert list(tmp_path.iterdir()) == []


def test_a_machine_of_its_own(tiny: Path) -> None:
    """Cables, power cuts, ports and clocks, as other tests make use of them."""
    port = free_port()
    setup = Setup(expose={port: 80}, board=Board(memory=128))
    with Lab([tiny, tiny], kernel(home(), Silent()), setup) as lab:
        one, two = lab.machine("tiny"), lab.machine("tiny.img#2")
        one.clock = "2019-01-01T00:00:00"
        one.power_on()
        one.until("sysrq: Resetting")
        one.until("searching")
        assert urllib.request.urlopen(f"http://127.0.0.1:{port}/").read() == b"a tiny node\n"

        one.power_off()  # the card has kept what the first boot wrote
        assert not one.is_on
        assert "init=/sbin/first" not in one.cmdline
        two.power_on()
        two.until("sysrq: Resetting")
        two.until("searching")
        two.port.plugged = False
        one.power_on()
        assert "Resetting" not in one.until("searching")
        one.type(b"busybox date -u +on-%Y; echo it is `busybox cat /proc/device-tree/serial-number`.\n")
        one.until("on-2019")
        one.until(r"it is 0000000000000001\.")
        with pytest.raises(WorkFailed, match="did not say"):
            one.until("joined", 5)
        two.type(b"busybox poweroff -f\n")
        with pytest.raises(WorkFailed, match="before it went off"):
            two.until("never")
        assert not two.is_on

        two.port.plugged = True
        two.power_on()
        one.until("joined")
        two.until("joined")
        two.type(b"busybox wget -q -O - http://10.9.0.10/\n")  # no router comes between
        two.until("a tiny node")


def test_a_terminal_is_the_console(tiny: Path, environment: dict[str, str]) -> None:
    ours, theirs = pty.openpty()
    command = [str(CLI), "boot", str(tiny), "--console"]
    with subprocess.Popen(command, env=environment, stdin=theirs, stdout=theirs, stderr=theirs) as process:
        os.close(theirs)
        read_until(ours, b"searching")
        os.write(ours, b"echo he''ard hello\r")
        read_until(ours, b"heard hello")
        os.write(ours, b"\x1d")
        assert process.wait(120) == 0
    os.close(ours)


def read_until(handle: int, text: bytes) -> None:
    said, end = b"", time.monotonic() + 240
    while text not in said:
        assert time.monotonic() < end, said
        if select.select([handle], [], [], 1)[0]:
            said += os.read(handle, 4096)


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--timeout", "soon"], "'soon' is not a valid float"),
        (["--expose", "http"], "--expose http is no port"),
        (["--expose", "70000"], "--expose 70000 is no port"),
        (["--console", "--until", "login"], "--console goes with neither"),
        (["--console"], "--console takes a terminal"),
        (["--log-dir", "/dev/null/logs"], "cannot make /dev/null/logs"),
    ],
)
def test_options_that_make_no_sense(cli: Run, tiny: Path, options: list[str], words: str) -> None:
    done = cli("boot", tiny, *options)
    assert done.code == 2, done.err
    assert words in done.error
    assert "hint:" in done.error


def test_what_is_no_image(cli: Run, tmp_path: Path) -> None:
    text = tmp_path / "text.img"
    text.write_text("no image")
    for image, words in [
        (text, "no partition table"),
        (tmp_path, "is not a file"),
        (tmp_path / "x", "not exist"),
    ]:
        done = cli("boot", image)
        assert done.code == 2
        assert words in done.error


def test_a_port_that_is_taken(cli: Run, tiny: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = cli("boot", tiny, "--expose", str(port))
    assert done.code == 2
    assert f"port {port} of this machine cannot be had: Address already in use" in done.error


def test_missing_tools_are_named_with_their_packages(
    tiny: Path, environment: dict[str, str], tmp_path: Path
) -> None:
    """With a PATH of its own: /usr/sbin and /sbin are looked into anyway."""
    for tool in ("setpriv", "mtype"):
        (tmp_path / tool).symlink_to(shutil.which(tool) or "")
    done = subprocess.run(
        [CLI, "boot", tiny],
        env=environment | {"PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "qemu-system-arm" in done.stderr
    assert re.search(r"hint: .*sudo apt install .*qemu-system-arm", done.stderr)
