"""Requests and answers as they travel: four bytes (how many follow, network order), then compressed JSON.

Both ends use it. Runs on the node: Python 3.7, standard library only.
"""

import json
import struct
import zlib
from typing import Any, BinaryIO, Dict, Mapping, Optional

MOST = 64 << 20
"""Bytes of a request or answer, compressed."""

_SIZE = struct.Struct("!I")


def packed(data: Mapping[str, Any]) -> bytes:
    body = zlib.compress(json.dumps(data).encode("utf-8", "surrogatepass"), 1)
    return _SIZE.pack(len(body)) + body


def send(stream: BinaryIO, data: Mapping[str, Any]) -> None:
    stream.write(packed(data))
    stream.flush()


def receive(stream: BinaryIO) -> Optional[Dict[str, Any]]:
    """None at the end."""
    head = stream.read(_SIZE.size)
    if len(head) < _SIZE.size:
        return None
    body = stream.read(_SIZE.unpack(head)[0])
    found: Dict[str, Any] = json.loads(zlib.decompress(body).decode("utf-8", "surrogatepass"))
    return found
