"""A large file of this node for its neighbours that lack it: over HTTP, for as long as this process lasts.

No TLS: whoever takes it knows its sha256 from the operator, and whoever asks has to know that, too. Runs on
the node: Python 3.7, standard library only. Imported where it is used: it takes a Pi a while.
"""

import os
import re
import socketserver
import threading
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any, Tuple

_CHUNK = 1 << 16
_MOST = 8
"""Requests at once; further ones are turned away: the network may be anybody's."""
_SILENCE = 20.0
"""Seconds that a neighbour may take nothing."""


def offer(path: Path, sha256: str, address: str) -> int:
    """The port of ``address``, one of this node's, at which ``/sha256`` is the file from now on.

    The file may be moved or removed then. OSError where it is not there, or the address none of ours.
    """
    server = _Server((address, 0), path, sha256)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return int(server.server_address[1])


class _Server(socketserver.ThreadingTCPServer):
    # Not http.server's own, which asks DNS for the name of the address.
    daemon_threads = True

    def __init__(self, place: Tuple[str, int], path: Path, sha256: str) -> None:
        self.file = os.open(str(path), os.O_RDONLY | os.O_CLOEXEC)
        self.path = "/" + sha256
        self._room = threading.BoundedSemaphore(_MOST)
        try:
            super().__init__(place, _Handler)
        except BaseException:
            os.close(self.file)
            raise

    def process_request(self, request: Any, client_address: Any) -> None:
        if self._room.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._room.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Whoever went away may come again: what they have is gone on with."""


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    server_version, sys_version = "k3s-bake", ""
    timeout = _SILENCE

    def do_GET(self) -> None:
        size = os.fstat(self.server.file).st_size
        asked = re.fullmatch(r"bytes=(\d{1,15})-", self.headers.get("Range", "bytes=0-"))
        if self.path != self.server.path:
            self.send_error(404)
        elif not asked or int(asked.group(1)) >= size:
            self.send_error(416)
        else:
            self._send(int(asked.group(1)), size)

    def _send(self, at: int, size: int) -> None:
        self.send_response(206 if at else 200)
        self.send_header("Content-Length", str(size - at))
        self.send_header("Content-Range", f"bytes {at}-{size - 1}/{size}")
        self.end_headers()
        while True:
            piece = os.pread(self.server.file, _CHUNK, at)
            if not piece:
                return
            self.wfile.write(piece)
            at += len(piece)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 (its name there)
        """Nobody reads it."""
