"""Which card becomes which node: names, and what each proves itself with."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from bake import trust
from bake.cache import Home
from bake.card import stamp
from bake.card.source import Source, manifest_of
from bake.card.stamp import Stampable
from bake.spec import Role
from bake.wish import credential_of
from firstboot import certificate, network
from firstboot.addresses import StaticAddress
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


def require(found: Stampable | None, source: Source, address: StaticAddress | None) -> None:
    """UserError where its cards cannot be told a name, or that address."""
    if found is None:
        raise UserError(f"{source.path} has no place for a card's own name and credential", _PLAIN)
    if address and (refusal := network.refusal(found.network_manager, address)):
        raise UserError(f"{address.address} cannot be set there: {refusal}", "Leave it out: DHCP gives one.")


def check_names(found: Stampable, given: Sequence[str], cards: int) -> list[str]:
    """Those that cards of the image are given: ``given``, or its own; none, where they are to be numbered.

    UserError for what cannot be.
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
    for name in given:
        if not is_label(name):
            hint = "Small letters, digits and inner hyphens, 63 at most."
            raise UserError(f"'{name}' cannot be a node's name", hint)
        if list(given).count(name) > 1:
            raise UserError(f"{name} is given to two cards", "Each node has a name of its own.")
    own = found.name or ("" if found.joins else f"{found.cluster}-{found.role}")
    return list(given) or ([own] if own else [])


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
    """A node's own, signed now. ``more``: its address and what goes with it. UserError for too much of it."""
    made = replace(credential_of(cluster, Role(found.role), name), name=name, **more)
    made.to_bytes()
    return made


def serial_of(given: Credential) -> int:
    """The certificate's number, by which it can be revoked."""
    return certificate.read(given.join_certificate).serial
