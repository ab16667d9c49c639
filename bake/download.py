"""Fetching files over HTTP: resumed, retried, verified while they stream. The only user of requests.

Proxies, certificate bundles and netrc come from the environment, as requests documents them. It and tenacity
are imported where they are used: most commands fetch nothing, and would start a fifth slower.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import urlsplit

from bake.cache import beside, locked, publish, writing
from bake.digests import sha256_of
from bake.progress import Progress, Silent
from bake.urls import check_mirror, host, shown
from firstboot.errors import UserError, WorkFailed

if TYPE_CHECKING:
    import requests
    import tenacity

_BLOCK = _SMALL_FILE = 1 << 20

T = TypeVar("T")


class _Passing(WorkFailed):
    """A fault that may be gone at the next try."""


@dataclass(frozen=True)
class Patience:
    """How long to put up with a server; all times in seconds."""

    tries: int = 5
    first_wait: float = 1
    longest_wait: float = 30
    connect: float = 10
    read: float = 60
    """Between two arrivals of data, not for the whole file."""


@dataclass(frozen=True)
class Web:
    """The web as one command sees it: directly, through a mirror, or not at all.

    ``mirror`` takes the place of scheme and host: with ``https://mirror.lan/pi``,
    ``https://github.com/k3s-io/k3s/...`` is fetched from ``https://mirror.lan/pi/k3s-io/k3s/...``. The
    path is kept as it is, escapes included. Credentials may stand in the mirror's URL; no message shows them.
    """

    progress: Progress = field(default_factory=Silent)
    mirror: str | None = field(default=None, repr=False)
    offline: bool = False
    patience: Patience = Patience()

    def __post_init__(self) -> None:
        if self.mirror is not None:
            check_mirror(self.mirror)

    def fetch(self, url: str, into: Path, sha256: str | None = None) -> Path:
        """``into``, which is there already with this sha256, or is downloaded.

        What is interrupted stays as ``<into>.part`` and is resumed by the next call, in this process or a
        later one. Raises UserError where the request cannot succeed, WorkFailed where it did not.
        """
        if _is_there(into, sha256):
            return into
        source = self._source(url, into.name)
        with writing(into), locked(into, into.name, self.progress.say):
            if not _is_there(into, sha256):  # another process may have fetched it while this one waited
                part = _Part(beside(into, ".part"), sha256)
                self._patiently(lambda: self._download(source, part, into.name))
                publish(part.path, into)
                part.forget()
        return into

    def text(self, url: str) -> str:
        """A small text file, of 1 MiB at most."""
        source = self._source(url, shown(url))

        def read() -> str:
            with self._get(source) as response, _transfer(source):
                body = response.raw.read(_SMALL_FILE + 1, decode_content=True)
            if len(body) > _SMALL_FILE:
                raise WorkFailed(f"{shown(source)} is larger than a text file of this kind can be")
            return str(body, "utf-8", errors="replace")

        return self._patiently(read)

    def link(self, url: str) -> tuple[str, int]:
        """From where others fetch it, which may hold a mirror's password, and how many bytes it has."""
        source = self._source(url, shown(url))

        def ask() -> int | None:
            with self._get(source) as response:  # its headers; the rest stays where it is
                return response.raw.length_remaining

        size = self._patiently(ask)
        if not size:
            raise WorkFailed(f"{shown(source)} does not say how large it is")
        return source, size

    def redirect(self, url: str) -> str:
        """Where the server sends whoever asks for ``url``, without going there."""
        source = self._source(url, shown(url))

        def ask() -> str:
            with self._get(source, follow=False) as response:
                if location := response.headers.get("Location"):
                    return location
            raise WorkFailed(f"{shown(source)} answered without a redirect")

        return self._patiently(ask)

    def _source(self, url: str, what: str) -> str:
        if self.offline:
            raise UserError(
                f"{what} is not in the cache, and --offline forbids to fetch it",
                "run the same command once without --offline (with --dry-run it only fills the cache)",
            )
        return url if self.mirror is None else self.mirror.rstrip("/") + urlsplit(url).path

    def _patiently(self, work: Callable[[], T]) -> T:
        import tenacity

        def tell(state: tenacity.RetryCallState) -> None:
            if state.outcome is not None and state.next_action is not None:
                self.progress.say(
                    f"{state.outcome.exception()}: trying again in {state.next_action.sleep:.0f} s"
                )

        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(_Passing),
            stop=tenacity.stop_after_attempt(self.patience.tries),
            wait=tenacity.wait_random_exponential(self.patience.first_wait, self.patience.longest_wait),
            before_sleep=tell,
            reraise=True,
        )
        return retrying(work)

    def _download(self, source: str, part: _Part, title: str) -> None:
        have = part.take_up()
        if not have or not part.complete():
            with self._get(source, part.range_headers(have)) as response:
                if response.status_code != 206 or _starts_at(response) != have:
                    part.start_over(response)
                    have = 0
                if response.status_code == 416:
                    raise _Passing(f"{host(source)} has less of {title} than is here already", _RESUME_HINT)
                left = response.raw.length_remaining
                total = None if left is None else have + left
                with part.path.open("ab") as file, self.progress.task(title, total) as advance:
                    advance(have)
                    for block in _blocks(source, response):
                        file.write(block)
                        part.digest.update(block)
                        advance(len(block))
        part.verify(source, resumed=have > 0)

    @contextmanager
    def _get(
        self, url: str, headers: dict[str, str] | None = None, follow: bool = True
    ) -> Iterator[requests.Response]:
        import requests

        # The bytes must be those that the checksum speaks of, so no encoding on the way.
        asked = {"Accept-Encoding": "identity", **(headers or {})}
        limits = (self.patience.connect, self.patience.read)
        try:
            response = requests.get(url, headers=asked, timeout=limits, stream=True, allow_redirects=follow)
        except requests.RequestException as error:
            raise _worded(url, error) from None  # requests' own message may hold the whole URL
        with response:
            if not (response.is_redirect and not follow):
                _check_status(url, response)
            yield response


class _Part:
    """An unfinished download, its running hash, and the ETag of the file that it is a part of."""

    def __init__(self, path: Path, sha256: str | None) -> None:
        self.path = path
        self.sha256 = sha256
        self.digest = hashlib.sha256()
        self._tag = beside(path, ".etag")

    def take_up(self) -> int:
        """Bytes already here, hashed again."""
        self.digest = hashlib.sha256()
        if not self.path.is_file():
            return 0
        have = 0
        with self.path.open("rb") as file:
            while block := file.read(_BLOCK):
                self.digest.update(block)
                have += len(block)
        return have

    def complete(self) -> bool:
        return self.digest.hexdigest() == self.sha256

    def range_headers(self, have: int) -> dict[str, str]:
        """Without an ETag only a checksum can tell a part of the old file from one of the new."""
        tag = self._tag.read_text(encoding="latin-1") if self._tag.is_file() else ""
        if not have or not (tag or self.sha256):
            return {}
        return {"Range": f"bytes={have}-", **({"If-Range": tag} if tag else {})}

    def start_over(self, response: requests.Response) -> None:
        self.forget()
        self.digest = hashlib.sha256()
        tag = response.headers.get("ETag", "")
        if tag.startswith('"'):  # a weak one (W/"...") does not promise the same bytes
            self._tag.write_text(tag, encoding="latin-1")

    def verify(self, source: str, *, resumed: bool) -> None:
        """A resumed part may mix two versions of the file, so it gets one more try from the beginning."""
        if self.sha256 is None or self.complete():
            return
        self.forget()
        raise (_Passing if resumed else WorkFailed)(
            f"{shown(source)} has sha256 {self.digest.hexdigest()}, expected {self.sha256}",
            "the file was changed or damaged on its way: try another network or mirror",
        )

    def forget(self) -> None:
        self.path.unlink(missing_ok=True)
        self._tag.unlink(missing_ok=True)


def _is_there(path: Path, sha256: str | None) -> bool:
    return path.is_file() and (sha256 is None or sha256_of(path) == sha256)


def _blocks(source: str, response: requests.Response) -> Iterator[bytes]:
    """The body as sent; a body shorter than announced raises like any other cut."""
    while True:
        with _transfer(source):
            block = response.raw.read(_BLOCK, decode_content=False)
        if not block:
            return
        yield block


@contextmanager
def _transfer(source: str) -> Iterator[None]:
    from urllib3.exceptions import HTTPError as TransferError

    try:
        yield
    except TransferError:
        raise _Passing(f"the connection to {host(source)} broke off", _RESUME_HINT) from None


def _starts_at(response: requests.Response) -> int | None:
    match = re.match(r"bytes (\d+)-", response.headers.get("Content-Range", ""))
    return int(match[1]) if match else None


_RESUME_HINT = "run the command again: it goes on where it stopped"
_NETWORK_HINT = "check the network and the proxy settings, or name a mirror with --mirror"


def _worded(url: str, error: requests.RequestException) -> WorkFailed | UserError:
    import requests

    server = host(url)
    if isinstance(error, requests.exceptions.SSLError):
        return WorkFailed(
            f"{server} shows a certificate that is not trusted",
            "check this machine's clock; REQUESTS_CA_BUNDLE names a private authority",
        )
    if isinstance(error, requests.exceptions.ProxyError):
        return _Passing(f"the proxy for {server} does not answer", _NETWORK_HINT)
    if isinstance(error, requests.Timeout):
        return _Passing(f"{server} does not answer in time", _NETWORK_HINT)
    if isinstance(error, requests.ConnectionError):
        return _Passing(f"{server} cannot be reached", _NETWORK_HINT)
    if isinstance(error, ValueError):  # a malformed URL, or a malformed proxy in the environment
        return UserError(f"{shown(url)}: this URL, or the proxy's, is malformed", _NETWORK_HINT)
    return WorkFailed(f"{shown(url)} cannot be fetched ({type(error).__name__})", _NETWORK_HINT)


def _check_status(url: str, response: requests.Response) -> None:
    status = response.status_code
    if status in (200, 206, 416):  # 416: whoever asked for a range deals with it
        return
    message = f"{shown(url)} answered {status} {response.reason}"
    if status >= 500 or status == 429:
        raise _Passing(message, "the server is in trouble: try again later, or name a mirror with --mirror")
    raise UserError(message, "check the name and version asked for, and the mirror if one is set")
