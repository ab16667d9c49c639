"""Whether nodes get through to each other at K3s's ports: each listens, and each calls all others.

Runs on the node too: Python 3.7, standard library only.
"""

import contextlib
import select
import socket
import time
from typing import Any, Dict, List, Mapping, Sequence, Set, Tuple

_BEFORE = 1.0
"""Seconds that the others are given to listen, too: they are asked at the same moment."""

_LIMIT = 2.0
"""Seconds to get through by TCP."""

_TIMES, _APART = 3, 0.2
"""UDP: packets get lost."""


def try_out(
    tcp: Sequence[int], udp: Sequence[int], others: Mapping[str, Sequence[int]], word: str, seconds: float
) -> Dict[str, Any]:
    """Listen at ``tcp`` and ``udp`` for so long, and call the ``others``: each address at its TCP ports, and
    at ``udp`` with ``word``.

    ``reached``: by address and port, empty or why not. ``heard``: addresses that ``word`` came from by UDP.
    ``taken``: ports at which something else listens, so that nothing can be heard there.
    """
    taken: List[int] = []
    from concurrent.futures import ThreadPoolExecutor  # brings logging along: for who needs it

    with contextlib.ExitStack() as stack:
        listening = [_listener(stack, port, socket.SOCK_STREAM, taken) for port in tcp]
        hearing = [_listener(stack, port, socket.SOCK_DGRAM, taken) for port in udp]
        with ThreadPoolExecutor(16) as pool:
            calls = {
                (address, port): pool.submit(_call, address, port)
                for address, ports in others.items()
                for port in ports
            }
            said = pool.submit(_say, list(others), udp, word)
            sockets = [one for one in [*listening, *hearing] if one is not None]
            heard = _hear(sockets, word.encode(), time.monotonic() + seconds)
            said.result()
            reached: Dict[str, Dict[str, str]] = {address: {} for address in others}
            for (address, port), call in calls.items():
                reached[address][str(port)] = call.result()
    return {"reached": reached, "heard": sorted(heard), "taken": taken}


def _listener(stack: contextlib.ExitStack, port: int, kind: int, taken: List[int]) -> Any:
    """None where it cannot be had."""
    made = stack.enter_context(socket.socket(socket.AF_INET, kind))
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        made.bind(("", port))
        if kind == socket.SOCK_STREAM:
            made.listen(64)
    except OSError:
        taken.append(port)
        return None
    made.setblocking(False)
    return made


def _hear(sockets: Sequence[socket.socket], word: bytes, end: float) -> Set[str]:
    heard = set()
    while time.monotonic() < end:
        ready, _, _ = select.select(sockets, [], [], max(0.0, end - time.monotonic()))
        for one in ready:
            with contextlib.suppress(OSError):
                if one.type & socket.SOCK_DGRAM:
                    said, (address, _) = one.recvfrom(64)
                    if said == word:
                        heard.add(address)
                else:
                    one.accept()[0].close()
    return heard


def _call(address: str, port: int) -> str:
    time.sleep(_BEFORE)
    return _connected(address, port)


def call_all(places: Sequence[Tuple[str, int]]) -> Dict[str, str]:
    """Why not, by each host and port at which nothing takes a connection by TCP."""
    called = {f"{host}:{port}": _connected(host, port) for host, port in places}
    return {place: why for place, why in called.items() if why}


def _connected(address: str, port: int) -> str:
    try:
        socket.create_connection((address, port), _LIMIT).close()
    except socket.timeout:
        return "no answer"
    except (OSError, ValueError) as error:  # a name that is none in DNS is a UnicodeError
        return str(getattr(error, "strerror", None) or error).lower()
    return ""


def _say(addresses: Sequence[str], ports: Sequence[int], word: str) -> None:
    time.sleep(_BEFORE)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        for _ in range(_TIMES):
            for address in addresses:
                for port in ports:
                    with contextlib.suppress(OSError):
                        one.sendto(word.encode(), (address, port))
            time.sleep(_APART)
