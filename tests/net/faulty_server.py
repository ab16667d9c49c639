"""An HTTP server on loopback that fails as told, and a proxy that shows who went through it."""

import hashlib
import re
import threading
from collections import defaultdict, deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit


@dataclass(frozen=True)
class Answer:
    """How one request is answered; the defaults answer it well."""

    status: int | None = None
    cut_after: int | None = None
    """Bytes of the body after which the connection is closed."""
    announce_more: int = 0
    """Bytes by which Content-Length is too large."""
    no_length: bool = False
    """Content-Length is left out: the end is when the connection is closed."""
    ignore_range: bool = False
    hold: threading.Event | None = None
    """The body waits for it."""
    location: str | None = None


@dataclass
class Site:
    """What a server serves, in which mood, and what it was asked."""

    port: int
    files: dict[str, bytes] = field(default_factory=dict)
    answers: defaultdict[str, deque[Answer]] = field(default_factory=lambda: defaultdict(deque))
    """By path; each request takes one, and where none is left it is answered well."""
    always: Answer = Answer()
    etags: bool = True
    requests: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    """Path and headers, in order of arrival."""
    arrived: threading.Event = field(default_factory=threading.Event)

    def url(self, path: str, user: str = "") -> str:
        return f"http://{user}127.0.0.1:{self.port}{path}"

    def next_answer(self, path: str) -> Answer:
        queue = self.answers[path]
        return queue.popleft() if queue else self.always

    def ranges(self) -> list[str | None]:
        return [headers.get("Range") for _, headers in self.requests]


class _Quiet(BaseHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass


def _handler(site: Site) -> type[_Quiet]:
    class Handler(_Quiet):
        def do_GET(self) -> None:
            site.requests.append((self.path, dict(self.headers)))
            site.arrived.set()
            answer = site.next_answer(self.path)
            body = site.files.get(self.path)
            if answer.location is not None:
                self.send_response(302)
                self.send_header("Location", answer.location)
                self.end_headers()
            elif answer.status is not None or body is None:
                self.send_error(answer.status or 404)
            else:
                self._send(body, answer)

        def _send(self, body: bytes, answer: Answer) -> None:
            etag = f'"{hashlib.sha256(body).hexdigest()[:16]}"'
            start = 0 if answer.ignore_range else self._start(etag)
            if start >= len(body) > 0:
                self.send_error(416)
                return
            self.send_response(206 if start else 200)
            for name, value in _headers(len(body), start, answer).items():
                self.send_header(name, value)
            if site.etags:
                self.send_header("ETag", etag)
            self.end_headers()
            if answer.hold is not None:
                answer.hold.wait(20)
            self.wfile.write(body[start:][: answer.cut_after])

        def _start(self, etag: str) -> int:
            asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
            same = self.headers.get("If-Range", etag) == etag
            return int(asked[1]) if asked and same else 0

    return Handler


def _headers(size: int, start: int, answer: Answer) -> dict[str, str]:
    headers = {} if answer.no_length else {"Content-Length": str(size - start + answer.announce_more)}
    return headers | ({"Content-Range": f"bytes {start}-{size - 1}/{size}"} if start else {})


def _proxy_handler(origin: Site, seen: list[str]) -> type[_Quiet]:
    class Proxy(_Quiet):
        def do_GET(self) -> None:
            seen.append(self.path)  # a proxy is asked for a whole URL
            connection = HTTPConnection("127.0.0.1", origin.port, timeout=10)
            connection.request("GET", urlsplit(self.path).path)
            response = connection.getresponse()
            body = response.read()
            self.send_response(response.status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
            connection.close()

    return Proxy


@contextmanager
def _running(server: ThreadingHTTPServer) -> Iterator[None]:
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextmanager
def serving() -> Iterator[Site]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Quiet)
    site = Site(server.server_port)
    server.RequestHandlerClass = _handler(site)
    with _running(server):
        yield site


@contextmanager
def proxying(origin: Site) -> Iterator[tuple[str, list[str]]]:
    """The URL of a proxy that finds every host at ``origin``, and the URLs that it was asked for."""
    seen: list[str] = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), _proxy_handler(origin, seen))
    with _running(server):
        yield f"http://127.0.0.1:{server.server_port}", seen
