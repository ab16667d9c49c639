"""Addresses for the machines of a link: as much of DHCP (RFC 2131) as their clients ask for."""

import struct
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network

ROUTER_MAC = bytes.fromhex("52540a090001")
_ETHERNET, _IP, _UDP, _BOOTP = 14, 20, 8, 236
_MAGIC = b"\x63\x82\x53\x63"
_SERVER, _CLIENT = 67, 68  # ports
_DISCOVER, _OFFER, _REQUEST, _ACK, _NAK, _INFORM = 1, 2, 3, 5, 6, 8
_LEASE = 86_400  # seconds
_FIRST = 10
_NETWORK = IPv4Network("10.9.0.0/24")


@dataclass(frozen=True)
class Lan:
    network: IPv4Network = _NETWORK
    internet: bool = False
    """Whether a resolver is given to the machines."""

    @property
    def router(self) -> IPv4Address:
        return self.network[1]

    @property
    def resolver(self) -> IPv4Address:
        return self.network[3]

    def address(self, at: int) -> IPv4Address:
        """Of the machine that is the ``at``-th on the link, counted from 0."""
        return self.network[_FIRST + at]


def asks(frame: bytes) -> bool:
    """Whether an Ethernet frame is for a DHCP server."""
    return (
        len(frame) >= _ETHERNET + _IP + _UDP + _BOOTP + len(_MAGIC)
        and frame[12:14] == b"\x08\x00"  # IPv4
        and frame[23] == 17  # UDP
        and int.from_bytes(frame[_start(frame) - 6 : _start(frame) - 4]) == _SERVER
    )


def reply(frame: bytes, lan: Lan, address: IPv4Address) -> bytes | None:
    """The frame that answers one that asks() is true of; None where there is nothing to say."""
    bootp = frame[_start(frame) :]
    options = _options(bootp[_BOOTP:])
    asked = options.get(53, b"\0")[0]
    wanted = options.get(50) or bootp[12:16]
    if asked == _DISCOVER:
        kind = _OFFER
    elif asked == _REQUEST:
        kind = _ACK if wanted == address.packed else _NAK
    elif asked == _INFORM:
        kind = _ACK
    else:
        return None
    yours = bytes(4) if kind == _NAK else address.packed
    head = struct.pack(
        "!4B4sHH4s4s4s4s", 2, 1, 6, 0, bootp[4:8], 0, 0x8000, bytes(4), yours, bytes(4), bytes(4)
    )
    body = head + bootp[28:44] + bytes(192) + _MAGIC + _answer(kind, lan) + b"\xff"
    return _framed(body.ljust(300, b"\0"), lan)


def _start(frame: bytes) -> int:
    """Where the UDP datagram's content begins."""
    return _ETHERNET + (frame[_ETHERNET] & 15) * 4 + _UDP


def _options(data: bytes) -> dict[int, bytes]:
    """By number; of garbled ones those before the fault."""
    found: dict[int, bytes] = {}
    at = len(_MAGIC) if data.startswith(_MAGIC) else len(data)
    while at + 1 < len(data) and data[at] != 255:
        if data[at] == 0:  # padding
            at += 1
            continue
        size = data[at + 1]
        if size and at + 2 + size <= len(data):
            found[data[at]] = data[at + 2 : at + 2 + size]
        at += 2 + size
    return found


def _answer(kind: int, lan: Lan) -> bytes:
    options = [(53, bytes([kind])), (54, lan.router.packed)]
    if kind != _NAK:
        options += [(51, _LEASE.to_bytes(4)), (1, lan.network.netmask.packed), (3, lan.router.packed)]
        options += [(6, lan.resolver.packed)] if lan.internet else []
    return b"".join(bytes([number, len(value)]) + value for number, value in options)


def _framed(body: bytes, lan: Lan) -> bytes:
    """As UDP to all, without the checksum that UDP may go without."""
    udp = struct.pack("!4H", _SERVER, _CLIENT, _UDP + len(body), 0)
    size = _IP + len(udp) + len(body)
    ip = struct.pack("!BBHHHBBH4s4s", 0x45, 0, size, 0, 0, 64, 17, 0, lan.router.packed, b"\xff" * 4)
    total = sum(struct.unpack("!10H", ip))
    total = (total & 0xFFFF) + (total >> 16)
    checksum = 0xFFFF - ((total & 0xFFFF) + (total >> 16))
    ip = ip[:10] + checksum.to_bytes(2) + ip[12:]
    return b"".join([b"\xff" * 6, ROUTER_MAC, b"\x08\x00", ip, udp, body])
