"""Two machines on one link, made of network namespaces: what one hears while the other talks, or attacks.

Run as ``unshare --user --map-root-user --net python mdns_lan.py SOURCE SCENARIO``: no right is needed, and
all of it is gone when it ends. SOURCE is where firstboot and zeroconf come from: a checkout, or the node's
zip.
"""

import os
import random
import select
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, sys.argv[1])

import mdns_packets as packets

from firstboot import confined, mdns
from firstboot.contract import Announcement

NEAR, FAR = "10.9.8.1", "10.9.8.2"
ARP, IPV4 = b"\x08\x06", b"\x08\x00"
MASTER = Announcement(
    "home", "master", "home-1", "joined", addr=FAR, serial="10000000a1b2c3", k3s="v1.33.1+k3s1", since=1_700
)  # fmt: skip


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True)


class Neighbour:
    """The other machine, which does as it is told, line by line."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self.process = process

    def tell(self, line: str) -> None:
        assert self.process.stdin and self.process.stdout
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        assert self.process.stdout.readline() == "done\n", line


@contextmanager
def neighbour(loss: float = 0) -> Iterator[Neighbour]:
    """``loss``: the part of all frames that gets lost, each way, by a lossy switch between the two."""
    command = ["unshare", "--net", sys.executable, __file__, sys.argv[1], "--neighbour"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout and process.stdout.readline() == "up\n"
        if loss:
            ip("link", "add", "eth0", "type", "veth", "peer", "name", "veth0")
            ip("link", "add", "veth1", "type", "veth", "peer", "name", "far0")
            for port in ("veth0", "veth1"):
                ip("link", "set", port, "up")
            threading.Thread(target=switch, args=("veth0", "veth1", loss), daemon=True).start()
        else:
            ip("link", "add", "eth0", "type", "veth", "peer", "name", "far0")
        ip("link", "set", "far0", "netns", str(process.pid))
        ip("address", "add", f"{NEAR}/24", "dev", "eth0")
        ip("link", "set", "eth0", "up")
        try:
            yield Neighbour(process)
        finally:
            process.kill()


def switch(one: str, other: str, loss: float) -> None:
    ports = []
    for name in (one, other):
        port = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
        port.bind((name, 0))
        ports.append(port)
    dice = random.Random(6422)
    while True:
        for port in select.select(ports, [], [])[0]:
            frame, address = port.recvfrom(65536)
            lost = frame[12:14] != ARP and dice.random() < loss  # ARP passes: it is not what is tried
            if address[2] != socket.PACKET_OUTGOING and not lost:
                ports[port is ports[0]].send(unsummed(frame))


def unsummed(frame: bytes) -> bytes:
    """Without UDP's checksum, which virtual interfaces leave to hardware that is not there."""
    if frame[12:14] != IPV4 or frame[23] != socket.IPPROTO_UDP:
        return frame
    at = 14 + (frame[14] & 15) * 4 + 6
    return frame[:at] + b"\0\0" + frame[at + 2 :]


def is_neighbour() -> None:
    sys.stdout.write("up\n")
    sys.stdout.flush()
    announcer, attack = mdns.Announcer(), packets.Attack(FAR, MASTER)
    for line in sys.stdin:
        word, _, rest = line.strip().partition(" ")
        if word == "announce":
            ip("address", "replace", f"{FAR}/24", "dev", "far0")
            ip("link", "set", "far0", "up")
            announcer.say(replace(MASTER, phase=rest or "joined"))
        elif word == "stop":
            announcer.stop()
        elif word == "attack":
            attack.start(rest)
        sys.stdout.write("done\n")
        sys.stdout.flush()


def found(rounds: int, phase: str = "joined", seconds: float = 4) -> int:
    """In which round the master was heard, with ``enough`` ending it early."""

    def is_heard(heard: list[Announcement]) -> bool:
        return replace(MASTER, phase=phase) in heard

    for number in range(1, rounds + 1):
        heard = mdns.browse(seconds, enough=is_heard)
        assert len(heard) <= mdns.MOST
        if is_heard(heard):
            return number
    raise AssertionError(f"not heard in {rounds} rounds")


def announced() -> None:
    assert mdns.browse(5) == []  # no address yet: at once
    with neighbour() as other:
        assert mdns.lan_addresses() == [NEAR]
        assert mdns.browse(0.6) == []
        other.tell("announce")
        started = time.monotonic()
        found(1)
        assert time.monotonic() - started < 3, "enough did not end it"
        other.tell("announce blocked")
        found(2, "blocked")
        time.sleep(1.5)  # what was said of the earlier record has passed
        assert mdns.browse(1.5) == [replace(MASTER, phase="blocked")]
        other.tell("stop")
        assert mdns.browse(1.5) == []


def poisoned() -> None:
    if "pyz" in sys.argv[1]:  # else the newest zeroconf, which minds it no more
        import zeroconf

        try:
            zeroconf.DNSIncoming(packets.POISON)
        except RecursionError:
            pass
        else:
            raise AssertionError("the packet is no poison for this zeroconf")
    attacked("poison", 5)


def attacked(how: str, rounds: int) -> None:
    with neighbour() as other:
        other.tell("announce")
        other.tell(f"attack {how}")
        before = memory()
        found(rounds)
        mdns.browse(4)
        grown = memory() - before
        assert grown < 16 << 10, f"grown by {grown} kB"


def memory() -> int:
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS"))


def flooded() -> None:
    attacked("flood", 5)


def garbage() -> None:
    with neighbour() as other:
        other.tell("announce")
        other.tell("attack garbage")
        found(3)
        heard = mdns.browse(3)
        assert heard == [MASTER], heard


def lossy() -> None:
    with neighbour(loss=0.6) as other:
        other.tell("announce")
        numbers = [found(8) for _ in range(4)]
    sys.stdout.write(f"rounds: {numbers}\n")


def lan() -> None:
    ip("link", "add", "eth0", "type", "veth", "peer", "name", "veth0")
    for port in ("veth0", "eth0"):
        ip("link", "set", port, "up")
    ip("address", "add", f"{FAR}/24", "dev", "eth0")


def announcer_dies() -> None:
    """Of itself: check starts another. With its parent killed: it ends, too."""
    lan()
    announcer = mdns.Announcer()
    announcer.say(MASTER)
    found(3)
    first = announcer._child
    assert first is not None
    os.kill(first._pid, 9)
    time.sleep(0.2)
    announcer.check()
    assert announcer._child is not first
    found(3)
    announcer.stop()

    read_end, write_end = os.pipe()
    parent = os.fork()
    if parent == 0:
        announcer.say(MASTER)
        assert announcer._child
        os.write(write_end, str(announcer._child._pid).encode())
        time.sleep(60)
    child = int(os.read(read_end, 20))
    time.sleep(1)
    os.kill(parent, 9)
    os.waitpid(parent, 0)
    end = time.monotonic() + 60
    while alive(child):
        assert time.monotonic() < end, "it outlives its parent"
        time.sleep(0.1)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def address_comes_late() -> None:
    announcer = mdns.Announcer()
    announcer.say(MASTER)
    announcer.check()
    assert announcer._child is None
    lan()
    announcer.check()
    found(3)
    announcer.stop()


def confined_child() -> None:
    def uses(size: int) -> bytes:
        def work(pipe: int) -> None:
            kept = bytearray(size)
            os.write(pipe, b"%d" % len(kept))

        child = confined.Child(work, speaks=True)
        said = os.read(child.pipe, 100)
        child.end(2)
        return said

    assert uses(32 << 20) == b"%d" % (32 << 20)
    assert uses(confined.MEMORY + (8 << 20)) == b""
    child = confined.Child(lambda pipe: time.sleep(60), speaks=True, seconds=0.3)
    started = time.monotonic()
    assert os.read(child.pipe, 1) == b""
    assert time.monotonic() - started < 5
    child.end()
    assert child.ended()


if __name__ == "__main__":
    ip("link", "set", "lo", "up")
    if sys.argv[2] == "--neighbour":
        is_neighbour()
    else:
        globals()[sys.argv[2]]()
