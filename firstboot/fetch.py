"""A large file from the web to this node, to where ``put`` would have it: resumed, and known by its sha256.

Runs on the node: Python 3.7, standard library only. Imported where it is used: it takes a Pi a while.
"""

import http.client
import socket
import ssl
import time
import urllib.request
from base64 import b64encode
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, NamedTuple, Optional, Tuple
from urllib.error import HTTPError, URLError
from urllib.parse import unquote, urlsplit, urlunsplit

from firstboot.arriving import sha256_of
from firstboot.errors import WorkFailed

Told = Callable[[int], None]

_CHUNK = 1 << 16
_STARTS = 8
"""From the beginning, of one file: a server that knows no ranges, and cuts, might never come to the end."""
_FROM_HERE = "Leave out --fetch node: then it is sent from your machine."
_GOES_ON = "Run it again: it goes on where it was."


class Patience(NamedTuple):
    """In seconds."""

    silence: float = 45.0
    """Between two arrivals of data."""
    waits: Tuple[float, ...] = (1.0, 3.0, 10.0)
    """Before each further try; one that has brought something counts as none."""
    told: float = 1.0
    """Between two words of how far it is."""
    is_peer: bool = False
    """Through no proxy, whatever the environment says, and nowhere else."""
    least: float = 0.0
    """Bytes a second, on average, from _GRACE on."""


FROM_THE_WEB = Patience()
FROM_PEERS = Patience(silence=8.0, waits=(1.0,), is_peer=True, least=50_000.0)
"""The operator has it, too."""

_GRACE = 30.0
"""Seconds from the beginning."""


class _Passing(WorkFailed):
    """A fault that may be gone at the next try."""


def fetch(
    url: str, place: Path, sha256: str, size: int, told: Told, patience: Patience = FROM_THE_WEB
) -> None:
    """``place`` has that sha256 then; what is there already of it is not fetched again.

    ``told`` hears each number of bytes. The URL may hold a user and password: no message shows them.
    WorkFailed with a hint where it cannot be had; OSError where the disk does not take it.
    """
    source = _Source(url, told, patience)
    while True:
        is_new = _size(place) == 0
        source.complete(place, size)
        if sha256_of(place) == sha256:
            return
        place.unlink()
        if is_new:  # else what was there may have been of another version
            raise WorkFailed(f"what {source.host} sends has another sha256 than K3s lists", _FROM_HERE)


class _Source:
    def __init__(self, url: str, told: Told, patience: Patience) -> None:
        parts = urlsplit(url)
        self.host = parts.hostname or "the server"
        self._url = urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
        self._credentials = ""
        if parts.username:
            pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
            self._credentials = "Basic " + b64encode(pair.encode()).decode()
        handlers = [urllib.request.ProxyHandler({}), _Stays] if patience.is_peer else [_Redirects]
        self._opener = urllib.request.build_opener(*handlers)
        self._told = told
        self._patience = patience
        self._untold = 0
        self._starts = 0
        self._begun = self._spoken = time.monotonic()
        self._came = 0

    def complete(self, place: Path, size: int) -> None:
        """So many bytes are there then."""
        failed, most = 0, _size(place)
        while True:
            self._check_pace()
            self._say()  # even if it is nothing: whoever waits knows that it is tried
            have = _size(place)
            if have == size:
                return
            try:
                self._more(place, have if have < size else 0, size)
            except _Passing:
                failed = 0 if _size(place) > most else failed + 1
                most = max(most, _size(place))
                if failed > len(self._patience.waits):
                    raise
                time.sleep(self._patience.waits[max(failed - 1, 0)])

    def _more(self, place: Path, have: int, size: int) -> None:
        with self._opened(place, have, size) as response:
            if not _goes_on(response, have):
                have = 0
                self._count_start()
            announced = response.headers.get("Content-Length", "")
            if announced.isdigit() and have + int(announced) > size:
                raise self._other_size(place, "more", size)
            with place.open("r+b" if place.is_file() else "wb") as target:
                target.truncate(have)
                target.seek(have)
                for piece in self._pieces(response):
                    have += len(piece)
                    if have > size:
                        raise self._other_size(place, "more", size)
                    target.write(piece)
                    self._count(len(piece))
        if have < size:
            raise _Passing(f"the connection to {self.host} broke off", _GOES_ON)

    def _count_start(self) -> None:
        self._starts += 1
        if self._starts > _STARTS:
            raise WorkFailed(f"{self.host} cuts it off, and begins anew each time", _FROM_HERE)

    def _opened(self, place: Path, have: int, size: int) -> Any:
        headers = {"User-Agent": "k3s-bake", **_range(have)}
        request = urllib.request.Request(self._url, headers=headers)  # noqa: S310 (the operator's own)
        if self._credentials:
            request.add_unredirected_header("Authorization", self._credentials)
        try:
            return self._opener.open(request, timeout=self._patience.silence)
        except HTTPError as error:
            error.close()
            if error.code == 416 and have:  # there is no more of it
                raise self._other_size(place, "less", size) from None
            raise self._answered(error.code) from None
        except URLError as error:
            raise self._unreachable(error.reason) from None
        except (OSError, http.client.HTTPException):
            raise _Passing(f"{self.host} does not answer it", _FROM_HERE) from None

    def _pieces(self, response: http.client.HTTPResponse) -> Iterator[bytes]:
        while True:
            try:
                piece = response.read1(_CHUNK)  # what there is: read waits until it is so much
            except (OSError, http.client.HTTPException):
                raise _Passing(f"the connection to {self.host} broke off", _GOES_ON) from None
            if not piece:
                return
            yield piece

    def _answered(self, code: int) -> WorkFailed:
        kind = _Passing if code >= 500 or code == 429 else WorkFailed
        return kind(f"{self.host} answers it with {code}", _FROM_HERE)

    def _unreachable(self, reason: Any) -> WorkFailed:
        if isinstance(reason, ssl.SSLCertVerificationError):
            return WorkFailed(
                f"{self.host} shows it a certificate that it does not trust: {reason.verify_message}",
                f"Are its clock (timedatectl) and its package ca-certificates right? {_FROM_HERE}",
            )
        if isinstance(reason, socket.gaierror):
            return _Passing(f"it finds no address of {self.host}", _FROM_HERE)
        words = getattr(reason, "strerror", None) or reason
        return _Passing(f"it does not reach {self.host}: {words}", _FROM_HERE)

    def _other_size(self, place: Path, how: str, size: int) -> WorkFailed:
        if place.is_file():
            place.unlink()
        return WorkFailed(f"{self.host} sends {how} than the {size} bytes that it should be", _FROM_HERE)

    def _check_pace(self) -> None:
        passed = time.monotonic() - self._begun
        if passed > _GRACE and self._came < self._patience.least * passed:
            raise WorkFailed(f"{self.host} is too slow", _FROM_HERE)

    def _count(self, size: int) -> None:
        self._untold += size
        self._came += size
        self._check_pace()
        if time.monotonic() - self._spoken >= self._patience.told:
            self._say()

    def _say(self) -> None:
        self._told(self._untold)
        self._untold, self._spoken = 0, time.monotonic()


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Releases lie on another server than they are asked for at."""

    def redirect_request(
        self, req: urllib.request.Request, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> Optional[urllib.request.Request]:
        if urlsplit(newurl).scheme != "https":
            raise WorkFailed(f"{urlsplit(req.full_url).hostname} leads to a server without TLS", _FROM_HERE)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


class _Stays(urllib.request.HTTPRedirectHandler):
    """Nobody but whom the operator has named is asked."""

    def redirect_request(self, req: urllib.request.Request, *_: Any, **__: Any) -> None:
        raise WorkFailed(f"{urlsplit(req.full_url).hostname} leads elsewhere", _FROM_HERE)


def _range(have: int) -> Dict[str, str]:
    return {"Range": f"bytes={have}-"} if have else {}


def _goes_on(response: Any, have: int) -> bool:
    """The answer is what was asked for, and not all of it from the beginning."""
    at = response.headers.get("Content-Range", "")
    return response.status == 206 and bool(at.startswith(f"bytes {have}-"))


def _size(place: Path) -> int:
    return place.stat().st_size if place.is_file() else 0
