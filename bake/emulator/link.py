"""The link that the machines share: a switch in this process, and where one is asked for a router.

Each port is a pair of datagram sockets, a datagram a frame; QEMU holds the other end (-netdev socket,fd=).
"""

import contextlib
import random
import selectors
import socket
import threading
import time
from collections.abc import Mapping
from ipaddress import IPv4Address

from bake.emulator import dhcp
from bake.emulator.dhcp import Lan
from bake.process import Background, start
from firstboot.errors import WorkFailed

_ROOM = 1 << 20  # bytes under way to a machine; what is more is lost, as in a switch
_FRAME = 65_536
_ARP = b"\x08\x06"
_ROUTER = b"\x52\x55"  # how the network addresses of QEMU's user-mode network begin


class Port:
    """Where a machine, or the router, is plugged in."""

    def __init__(self, address: IPv4Address | None) -> None:
        self.address = address
        """What DHCP gives to the machine; None where the router is."""
        self.plugged = True
        """Set it to False to pull the cable."""
        self.inner, self._outer = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        for end in (self.inner, self._outer):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _ROOM)
        self.inner.setblocking(False)

    @property
    def handle(self) -> int:
        """The open file for QEMU. It outlives a machine that is switched off and on again."""
        return self._outer.fileno()

    def takes(self, frame: bytes) -> bool:
        """QEMU's user-mode network takes every frame for its own: it would answer in the machines' names."""
        return self.plugged and (self.address is not None or frame[:2] == _ROUTER or frame[12:14] == _ARP)

    def drain(self) -> None:
        """Forget what was sent while the machine was off."""
        with contextlib.suppress(BlockingIOError):
            while self._outer.recv(_FRAME, socket.MSG_DONTWAIT):
                pass

    def close(self) -> None:
        self.inner.close()
        self._outer.close()


class Switch:
    """Gives each frame to all other ports, and answers DHCP. Ports are made before it is started.

    ``loss`` is the part of frames, from 0 to 1, that do not arrive; the answers of DHCP always do.
    """

    def __init__(self, lan: Lan, loss: float = 0.0, seed: int = 1) -> None:
        self.loss = loss
        self._lan = lan
        self._chance = random.Random(seed)  # noqa: S311 (no secret: the same frames get lost each time)
        self._ports: list[Port] = []
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._forward, name="switch", daemon=True)

    def port(self, address: IPv4Address | None) -> Port:
        self._ports.append(Port(address))
        return self._ports[-1]

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        self._ended.set()
        if self._thread.ident:
            self._thread.join()
        for port in self._ports:
            port.close()

    def _forward(self) -> None:
        with selectors.DefaultSelector() as selector:
            for port in self._ports:
                selector.register(port.inner, selectors.EVENT_READ, port)
            while not self._ended.is_set():
                for key, _ in selector.select(0.2):
                    with contextlib.suppress(OSError):  # nobody holds the other end just now
                        self._take(key.data, key.data.inner.recv(_FRAME))

    def _take(self, source: Port, frame: bytes) -> None:
        if not source.plugged:
            return
        if dhcp.asks(frame):
            answer = dhcp.reply(frame, self._lan, source.address) if source.address else None
            if answer:
                source.inner.send(answer)
            return
        for port in self._ports:
            if port is not source and port.takes(frame) and self._chance.random() >= self.loss:
                with contextlib.suppress(OSError):  # it is full, or off
                    port.inner.send(frame)


class Router:
    """Between the link and this machine: ports of this machine's loopback lead to one address of the link.

    QEMU's user-mode network in a QEMU without a machine. Without ``lan.internet`` nothing leaves the link.
    """

    def __init__(self, lan: Lan, port: Port, target: IPv4Address, ports: Mapping[int, int]) -> None:
        """``ports`` are those of this machine, each with the one of the target."""
        forwards = [f"hostfwd=tcp:127.0.0.1:{here}-{target}:{there}" for here, there in ports.items()]
        net = [f"net={lan.network}", f"host={lan.router}", f"dns={lan.resolver}", "ipv6=off"]
        net += [f"dhcpstart={lan.network[-6]}", f"restrict={'off' if lan.internet else 'on'}", *forwards]
        self._console, theirs = socket.socketpair()
        with theirs:
            self._process: Background = start(
                *("qemu-system-arm", "-M", "none", "-nodefaults", "-display", "none"),
                *("-netdev", f"socket,id=link,fd={port.handle}", "-netdev", ",".join(["user,id=here", *net])),
                *("-netdev", "hubport,id=a,hubid=0,netdev=link"),
                *("-netdev", "hubport,id=b,hubid=0,netdev=here"),
                console=theirs.fileno(),
                keep_open=[port.handle],
            )
        time.sleep(0.5)  # it ends at once where it does not like its options
        if self._process.poll() is not None:
            words = self._console.recv(4096).decode(errors="replace").strip()
            self._console.close()
            raise WorkFailed(f"the router does not start: {words.splitlines()[-1] if words else 'no reason'}")

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        self._console.close()
