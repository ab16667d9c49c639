"""A datastore that is not the masters' own: PostgreSQL, MySQL or MariaDB, or an etcd that somebody else runs.

The forms are those of K3s's ``datastore-endpoint``, which kine takes apart, but for the password: that never
stands in them. What is refused here is never repeated, as a password may be in it.
"""

import re
from dataclasses import dataclass, field
from urllib.parse import quote, unquote

from firstboot.errors import UserError

_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_HOST = rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[0-9A-Fa-f:.]+\])"
_PLACE = rf"{_HOST}(?::[0-9]{{1,5}})?"
_VALUES = r"[A-Za-z0-9._~%=&:,+-]"
_FORMS = {
    # As Go's net/url takes a user: what it does not take would be in its error, and so in K3s's log.
    "postgres": re.compile(
        r"(?P<user>(?:[A-Za-z0-9._~!$&'()*+,;=-]|%[0-9A-Fa-f]{2})+)@"
        rf"(?P<places>{_PLACE})(?:/[A-Za-z0-9_-]*)?(?:\?(?:{_VALUES}|/)*)?"
    ),
    # As ParseDSN of go-sql-driver/mysql: the last '/' is before the database, so none may come later.
    "mysql": re.compile(
        rf"(?P<user>[A-Za-z0-9._~@$+-]+)@tcp\((?P<places>{_PLACE})\)/[A-Za-z0-9_$-]*(?:\?{_VALUES}*)?"
    ),
    "https": re.compile(rf"(?P<places>{_HOST}:[0-9]{{1,5}}(?:,https://{_HOST}:[0-9]{{1,5}})*)"),
    "http": re.compile(rf"(?P<places>{_HOST}:[0-9]{{1,5}}(?:,http://{_HOST}:[0-9]{{1,5}})*)"),
}
_PORTS = {"postgres": 5432, "mysql": 3306}
_EXAMPLES = {
    "postgres": "like postgres://k3s@10.0.0.9:5432/k3s",
    "mysql": "like mysql://k3s@tcp(10.0.0.9:3306)/k3s",
    "https": "like https://10.0.0.9:2379,https://10.0.0.10:2379",
    "http": "like http://10.0.0.9:2379,http://10.0.0.10:2379",
}
_OTHER_NAMES = {"postgresql": "postgres", "mariadb": "mysql", "etcd": "https"}
_SECRET = re.compile(r"[?&](ssl)?pass(wd|word)?=", re.IGNORECASE)


@dataclass(frozen=True)
class ExternalDatastore:
    """UserError from its constructor for what K3s does not take, or would log with the password in it."""

    url: str
    """K3s's ``datastore-endpoint`` without the password."""
    password: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        _check_url(self.url)
        if self.password is None:
            return
        if self.is_etcd:
            raise _no_etcd_user("password")
        if not self.password or not self.password.isprintable():
            raise UserError("that cannot be a datastore's password", "One line of letters and signs.")

    @property
    def is_etcd(self) -> bool:
        return self.url.startswith("http")

    @property
    def endpoint(self) -> str:
        """With the password."""
        if self.password is None:
            return self.url
        user, _, place = self.url.rpartition("@")
        # go-sql-driver/mysql takes a password as it is, up to the last '@'; in a URL it is escaped.
        password = self.password if user.startswith("mysql:") else quote(self.password, safe="")
        return f"{user}:{password}@{place}"

    @property
    def places(self) -> tuple[tuple[str, int], ...]:
        """Hosts and ports where it listens."""
        scheme, _, rest = self.url.partition("://")
        found = _FORMS[scheme].fullmatch(rest)
        listed = re.sub("https?://", "", found["places"]).split(",") if found else []
        return tuple(_place(text, _PORTS.get(scheme, 0)) for text in listed)

    @property
    def state(self) -> tuple[str, frozenset[tuple[str, int]], str]:
        """Where what it keeps is, whoever asks for it and how: another value is another cluster's state."""
        scheme, _, rest = self.url.partition("://")
        _, _, database = rest.partition("?")[0].rpartition("@")[2].partition("/")
        # Where none is named kine takes this one; of an etcd the rest of the list is no database.
        return scheme, frozenset(self.places), "" if self.is_etcd else database or "kubernetes"


def _place(text: str, default: int) -> tuple[str, int]:
    found = re.fullmatch(rf"({_HOST})(?::([0-9]+))?", text)
    if found is None:
        raise ValueError("no host and port")
    return found[1].strip("[]"), int(found[2] or default)


def _check_url(url: str) -> None:
    scheme, _, rest = url.partition("://")
    known = _OTHER_NAMES.get(scheme, scheme)
    if ":" in (rest or url).rpartition("@")[0] or _SECRET.search(unquote(rest)):
        raise UserError("secrets do not belong in this file: use datastore_password_file")
    if known not in _FORMS:
        raise UserError("that is no datastore that K3s knows", ", or ".join(_EXAMPLES.values()))
    if known in ("http", "https") and "@" in rest:
        raise _no_etcd_user("user")
    found = _FORMS[known].fullmatch(rest) if known == scheme else None
    if found is None:
        raise UserError("that is no datastore's URL", _EXAMPLES[known])
    if any(not 0 < int(port) < 1 << 16 for port in re.findall(rf"{_HOST}:([0-9]+)", found["places"])):
        raise UserError("that is no datastore's URL: no port has that number", _EXAMPLES[known])


def _no_etcd_user(what: str) -> UserError:
    hint = "datastore-cafile, datastore-certfile and datastore-keyfile in [k3s.config] name files there."
    return UserError(f"K3s shows etcd a certificate, no {what}", hint)
