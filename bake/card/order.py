"""Which card becomes which node: names, and what each proves itself with."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from bake import trust
from bake.cache import Home
from bake.card import receipt, stamp
from bake.card.receipt import Receipt
from bake.card.source import Source, manifest_of
from bake.card.stamp import Stampable
from bake.spec import Role
from bake.wish import credential_of
from firstboot import certificate
from firstboot.contract import Credential, is_label
from firstboot.errors import UserError

_PLAIN = "Bake it without --no-agent, or leave --name out: it is written as it is then."


def stampable(source: Source) -> Stampable | None:
    """What the image's cards can be told; None: nothing."""
    if source.packed:
        found = stamp.of_manifest(manifest_of(source))
        if found is None:
            raise UserError(
                f"{source.path} is packed and has no manifest beside it, so that no card can be stamped",
                f"Put {manifest_of(source).name} there; --no-stamp writes it as it is.",
            )
        return found
    return stamp.of_image(source.path)


def require(found: Stampable | None, source: Source, *, address: bool) -> None:
    """UserError where its cards cannot be told a name, or an address."""
    if found is None:
        raise UserError(f"{source.path} has no place for a card's own name and credential", _PLAIN)
    if address and not found.addressed:
        raise UserError(
            f"the agent in {source.path} sets no address that its card brings along",
            "Bake it again, with a base that has dhcpcd, NetworkManager or systemd-networkd.",
        )


def names(
    found: Stampable, given: Sequence[str], cards: int, history: Sequence[Receipt], *, again: bool
) -> list[str]:
    """One a card. Those that are not given: the image's own for a single card, else numbered.

    UserError for a name that is none, or that another card has, unless it is given ``again``.
    """
    if given and len(given) != cards:
        raise UserError(
            f"{len(given)} --name for {cards} cards", "Give --name once for each card, or not at all."
        )
    if cards > 1 and not found.joins:
        raise UserError(
            "a master that starts a cluster is one card: of two there would be two clusters",
            "Further masters are of another image: k3s-bake image --role master --join.",
        )
    if not given and found.name and cards > 1:
        raise UserError(
            f"the image is of {found.name} alone", "Give each card a --name, or bake an image without one."
        )
    had = receipt.named(history, found.cluster)
    own = found.name or ("" if found.joins else f"{found.cluster}-{found.role}")
    chosen: list[str] = list(given) or ([own] if own else [])
    for name in chosen:
        if not is_label(name):
            raise UserError(
                f"'{name}' cannot be a node's name", "Small letters, digits and inner hyphens, 63 at most."
            )
        if chosen.count(name) > 1:
            raise UserError(f"{name} is given to two cards", "Each node has a name of its own.")
        if name in had and given and not again:
            earlier = had[name]
            raise UserError(
                f"{name} is the name of a card that was written on {earlier.written[:10]}",
                "--again, if that one is gone or is this one; else another name.",
            )
    while len(chosen) < cards:
        chosen.append(receipt.next_name({*had, *chosen}, found.cluster, found.role))
    return chosen


def cluster_of(found: Stampable, home: Home, say: trust.Say) -> trust.Cluster:
    """The authority that the image's nodes know. UserError where it is not the one that is kept here."""
    if not trust.exists(found.cluster, home):
        raise UserError(
            f"the signing key of the cluster '{found.cluster}' is not here",
            "It is where the image was baked, in your own home: 'k3s-bake cluster export' there and 'import' "
            "here; or --no-stamp.",
        )
    cluster = trust.find_cluster(found.cluster, home, say)
    if cluster.known_hosts != found.known_hosts:
        raise UserError(
            f"the image was baked for another cluster '{found.cluster}' than the one that is known here",
            "Bake it again here, or 'k3s-bake cluster import' what was exported there; or --no-stamp.",
        )
    return cluster


def credential(cluster: trust.Cluster, found: Stampable, name: str, more: dict[str, Any]) -> Credential:
    """A node's own, signed now. ``more``: its address and what goes with it."""
    return replace(credential_of(cluster, Role(found.role), name), name=name, **more)


def serial_of(given: Credential) -> int:
    """The certificate's number, by which it can be revoked."""
    return certificate.read(given.join_certificate).serial
