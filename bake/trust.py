"""A cluster's SSH authority, in the operator's own data: it signs what proves masters, cards and operators.

ssh-keygen does all that is secret (bake.ssh_keygen), not a library: it is the field's own tool for OpenSSH's
certificates and revocation lists, asks for a passphrase at the terminal itself, and signs through an agent
where only ``authority.pub`` is here. So what is signed with never passes through our memory.
"""

import stat
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from bake import cache, cluster_store, ssh_keygen
from bake.cluster_store import AUTHORITY, PUBLIC, Issued, Revoked
from bake.ssh_keygen import Wish
from firstboot import certificate
from firstboot.certificate import Certificate
from firstboot.contract import GOLDEN, MASTER, OPERATOR, WORKER, host_alias, is_label, known_hosts
from firstboot.errors import UserError
from firstboot.token import Trust

RENEW = 60 * 86400
"""Seconds: a kept certificate with less left is made anew."""

_KEY, _CERTIFICATE = "key", "key-cert.pub"
_KNOWN_HOSTS = "known_hosts"
Say = Callable[[str], None]


class Proof(NamedTuple):
    """A private key and its certificate, in OpenSSH's forms."""

    key: str
    certificate: str

    def __repr__(self) -> str:
        return "Proof(...)"


@dataclass(frozen=True)
class Cluster:
    name: str
    folder: Path
    public_key: str
    """The authority's: ``ssh-ed25519 AAAA...``, without a comment."""
    say: Say

    @property
    def known_hosts(self) -> str:
        """What a node or an operator knows a master by."""
        return known_hosts(self.name, self.public_key)

    def golden(self, principal: str) -> Proof:
        """The join credential that every card may carry, by principal: the same for each bake, until it is
        revoked or has less than RENEW left."""
        role = {WORKER: "worker", MASTER: "master"}[principal]
        return _proof(self._kept(f"golden-{role}", Wish(f"{GOLDEN}{role}", principal)))

    def card(self, name: str, principal: str) -> Proof:
        """One card's own, each time another. UserError where ``name`` is revoked for good, or is no label."""
        if not is_label(name):
            raise UserError(
                f"'{name}' cannot be a node's name", "Small letters, digits and inner hyphens, 63 at most."
            )
        with self.locked():
            if any(one.name == name and one.serial is None for one in self.revoked()):
                raise UserError(f"the name '{name}' is revoked for good", "Give the card another name.")
            with cluster_store.new_folder(self.folder) as made:
                self._sign(made, Wish(name, principal))
                return _proof(made)

    def host(self) -> Proof:
        """The host key of masters' join services and its certificate, which never expires."""
        wish = Wish(f"host/{self.name}", host_alias(self.name), ssh_keygen.FOREVER, host=True)
        return _proof(self._kept("host", wish))

    def operator(self) -> Trust:
        """Paths of the operator's own key and certificate, and of what masters are known by."""
        kept = self._kept("operator", Wish(f"operator/{self.name}", OPERATOR))
        known = self.folder / _KNOWN_HOSTS
        if cluster_store.read(known) != self.known_hosts:
            cluster_store.write(known, self.known_hosts)
        return Trust(self.name, str(kept / _KEY), str(kept / _CERTIFICATE), str(known))

    def issued(self) -> list[Issued]:
        """All that was signed here, oldest first."""
        return cluster_store.issued(self.folder)

    def revoked(self) -> list[Revoked]:
        return cluster_store.revoked(self.folder)

    def revoke(self, names: Iterable[str]) -> None:
        """Revokes what was signed under these key ids until now, to be delivered to a master.

        A later card may have the name again; a name that was not signed here (a second operator may have done
        it) is revoked for good.
        """
        with self.locked():
            every, before = self.issued(), self.revoked()
            new = []
            for name in dict.fromkeys(names):
                serials: list[int | None] = [one.serial for one in every if one.name == name]
                if not serials and not is_label(name):
                    raise UserError(f"'{name}' is the name of no card", "k3s-bake cluster show lists them.")
                new += [Revoked(name, serial) for serial in serials or [None]]
            cluster_store.write_undelivered(self.folder, [*self.undelivered(), *(one.name for one in new)])
            cluster_store.write_revoked(self.folder, dict.fromkeys([*before, *new]))

    def undelivered(self) -> list[str]:
        """Key ids that are revoked and of which no master knows it yet."""
        return cluster_store.undelivered(self.folder)

    def delivered(self, names: Iterable[str]) -> None:
        """A master took the list with these."""
        done = set(names)
        with self.locked():
            cluster_store.write_undelivered(self.folder, [n for n in self.undelivered() if n not in done])

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Only one process at a time changes the folder."""
        with (
            cache.writing(self.folder),
            cache.locked(self.folder, f"keys of cluster '{self.name}'", self.say),
        ):
            cluster_store.sweep(self.folder)
            yield

    def _kept(self, what: str, wish: Wish) -> Path:
        """A folder with a key and its certificate, made where it is not there or does not do any more."""
        target = self.folder / what
        if self._does(target, wish):
            return target
        with self.locked():
            if not self._does(target, wish):
                with cluster_store.new_folder(self.folder) as made:
                    self._sign(made, wish)
                    cluster_store.place(made, target)
        return target

    def _does(self, kept: Path, wish: Wish) -> bool:
        try:
            found = _certificate(kept)
            public = certificate.public_key((kept / f"{_KEY}.pub").read_text(encoding="ascii"))
            good = (kept / _KEY).stat().st_size > 0
        except (OSError, ValueError):
            return False
        return (
            good
            and (found.key, found.authority) == (public, self.public_key)
            and (found.key_id, found.principals) == (wish.key_id, (wish.principal,))
            and found.expires >= time.time() + RENEW
            and not any(
                one.serial in (None, found.serial) and one.name == wish.key_id for one in self.revoked()
            )
        )

    def _sign(self, made: Path, wish: Wish) -> None:
        """A key and its certificate in ``made``, recorded before anyone can use it."""
        every = self.issued()
        # Of the clock too, so that those of two operators of one cluster do not meet.
        serial = max([time.time_ns() // 1000, *(one.serial + 1 for one in every)])
        ssh_keygen.make_key(made / _KEY)
        ssh_keygen.sign(self.folder / AUTHORITY, made / _KEY, wish, serial)
        found = _certificate(made)
        if found.authority != self.public_key:
            raise UserError(
                f"{self.folder / AUTHORITY} and {PUBLIC} beside it are of two keys",
                "Put both back from what 'k3s-bake cluster export' wrote.",
            )
        expires = None if found.expires == certificate.FOREVER else found.expires
        cluster_store.write_issued(
            self.folder, [*every, Issued(wish.key_id, serial, wish.principal, expires)]
        )


def open_cluster(name: str, home: cache.Home, say: Say) -> Cluster:
    """The cluster's authority, made on first use. UserError where it is damaged or open to others."""
    if not is_label(name):
        raise UserError(
            f"'{name}' cannot be a cluster's name", "Small letters, digits and inner hyphens, 63 at most."
        )
    folder = cluster_store.folder(home)
    target = folder / name
    if not _is_there(target):
        with cache.writing(target):
            folder.chmod(0o700)
            with cache.locked(target, f"keys of cluster '{name}'", say):
                if not _is_there(target):
                    _make(target)
                    say(
                        f"made the signing key of cluster '{name}' in {target}: "
                        f"back it up with k3s-bake cluster export {name} FILE"
                    )
    return _opened(name, target, say)


def exists(name: str, home: cache.Home) -> bool:
    return _is_there(cluster_store.folder(home) / name)


def find_cluster(name: str | None, home: cache.Home, say: Say) -> Cluster:
    """A cluster that is there; None: the only one. UserError that lists them where there is no such."""
    known = cluster_store.names(home)
    listed = (
        f"Known here: {', '.join(known)}." if known else "None is known here: bake an image, or import one."
    )
    if name is None:
        if len(known) != 1:
            raise UserError("which cluster?", f"--cluster NAME says it. {listed}")
        name = known[0]
    if name not in known:
        raise UserError(f"no cluster '{name}' is known here", listed)
    return _opened(name, cluster_store.folder(home) / name, say)


def check_private(folder: Path) -> None:
    """UserError where others than its owner can read the signing key, or change what is beside it."""
    for path, bits, mode in ((folder, 0o022, "700"), (folder / AUTHORITY, 0o077, "600")):
        if path.exists() and stat.S_IMODE(path.stat().st_mode) & bits:
            raise UserError(f"others than you can get at {path}", f"chmod {mode} '{path}'")


def _is_there(target: Path) -> bool:
    return target.is_dir() and any(target.iterdir())


def _opened(name: str, folder: Path, say: Say) -> Cluster:
    check_private(folder)
    public = folder / PUBLIC
    try:
        key = certificate.public_key(public.read_text(encoding="ascii"))
    except (FileNotFoundError, ValueError) as error:
        what = "is garbled" if isinstance(error, ValueError) else "is not there"
        raise UserError(
            f"{public} {what}",
            f"Make it again, ssh-keygen -y -f '{folder / AUTHORITY}' > '{public}', or put all of the folder "
            "back from what 'k3s-bake cluster export' wrote.",
        ) from error
    return Cluster(name, folder, key, say)


def _make(target: Path) -> None:
    with cluster_store.new_folder(target.parent) as made:
        ssh_keygen.make_key(made / AUTHORITY)
        (made / PUBLIC).chmod(0o600)
        cluster_store.place(made, target)


def _certificate(folder: Path) -> Certificate:
    return certificate.read((folder / _CERTIFICATE).read_text(encoding="ascii"))


def _proof(folder: Path) -> Proof:
    key, signed = (folder / name for name in (_KEY, _CERTIFICATE))
    return Proof(key.read_text(encoding="ascii"), signed.read_text(encoding="ascii"))
