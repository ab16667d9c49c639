"""Machines that are to be nodes call each other at K3s's ports."""

import asyncio
import secrets
from collections.abc import Mapping, Sequence
from typing import Any

from bake.spec import Role
from k3s_bake import preflight
from k3s_bake.adopt import Machine

_CALLS = 4.0
"""Seconds for which nodes listen to each other."""


async def try_ports(machines: Sequence[Machine]) -> None:
    """All at once: each calls the others while they listen. What does not get through is in its outcome."""
    there = {one.outcome.address: one for one in machines if one.outcome.address}
    masters = {address for address, one in there.items() if one.candidate.role is Role.MASTER}
    word = secrets.token_hex(8)

    async def one(address: str, machine: Machine) -> tuple[str, Mapping[str, Any]]:
        machine.tell("calling the others")
        others = {each: [preflight.API] if each in masters else [] for each in there if each != address}
        tcp = [preflight.API] if address in masters else []
        udp = [preflight.VXLAN]
        return address, await machine.remote.call(
            "reach", tcp=tcp, udp=udp, others=others, word=word, seconds=_CALLS
        )

    answers = await asyncio.gather(*(one(*each) for each in there.items()), return_exceptions=True)
    told = dict(answer for answer in answers if not isinstance(answer, BaseException))
    for address, problems in preflight.unreachable(told, masters).items():
        there[address].outcome.problems += problems
