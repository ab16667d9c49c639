"""Memory and cpuset cgroups on: the kubelet does not start without them."""

from collections.abc import Iterator

from bake.bootfiles import lines, with_cgroups
from bake.concerns import Note
from bake.facts import NodeFacts
from bake.spec import NodeSpec
from firstboot.edits import Edit
from firstboot.errors import UserError
from firstboot.snapshot import Probe

PROBES = (Probe("/boot/cmdline.txt"), Probe("/boot/*/cmdline.txt"))


def wants(spec: NodeSpec, facts: NodeFacts) -> Iterator[Edit | Note]:
    if not facts.firmware:
        return  # a boot loader of its own; preflight says where its kernel lacks them
    path = f"{facts.boot}/cmdline.txt"
    text = facts.text(path)
    if text is None:
        raise UserError(f"the image has no {path}", "The Pi's firmware boots with it: is this a Pi's image?")
    if not text.split():
        raise UserError(f"{path} is empty: the kernel would not find its root", "Use a fresh image.")
    _, unread = lines(text)
    if unread:
        yield Note(f"the firmware reads one line of {path}; dropped from those below it: {unread!r}")
    yield facts.rewritten(path, with_cgroups(text, cgroup_v2=facts.may_use_cgroup_v2))
