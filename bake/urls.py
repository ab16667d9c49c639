"""URLs in messages: never with what may be secret in them."""

from urllib.parse import urlsplit

from firstboot.errors import UserError


def check_mirror(mirror: str) -> None:
    """UserError where it cannot take the place of a server. What it says never shows."""
    try:
        parts = urlsplit(mirror)
        sound = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:  # a port that is no number, a bracket that is not closed
        sound = False
    if not sound or parts.query or parts.fragment:
        raise UserError("--mirror is not a plain http or https URL", "like https://mirror.lan/pi")


def host(url: str) -> str:
    """The server's name, for messages."""
    return urlsplit(url).hostname or "the server"


def shown(url: str) -> str:
    """The URL without what may be secret: user, password, query."""
    parts = urlsplit(url)
    port = f":{parts.port}" if parts.port else ""
    return f"{parts.scheme}://{parts.hostname}{port}{parts.path}"
