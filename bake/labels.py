"""Labels and taints that a kubelet takes: with any other it does not start."""

import re

from firstboot.errors import UserError

_NAME = r"[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?"
_KEY = rf"([a-z0-9]([a-z0-9.-]{{0,251}}[a-z0-9])?/)?{_NAME}"
_LABEL = re.compile(rf"{_KEY}=({_NAME})?")
_TAINT = re.compile(rf"{_KEY}(=({_NAME})?)?:(NoSchedule|PreferNoSchedule|NoExecute)")
# The kubelet refuses to start with labels of Kubernetes' own name spaces, but for these (KEP 279).
_KEPT = re.compile(
    r"(?!([^/]*\.)?(node|kubelet)\.kubernetes\.io/)([^/]*\.)?(kubernetes|k8s)\.io/(?P<name>[^=]*)=.*"
)
_NODES_OWN = {"hostname", "os", "arch", "region", "zone", "instance-type"}


def check_node_label(text: str) -> str:
    """Return it. UserError where it is no ``key=value``, or one that no node may give itself."""
    if not _LABEL.fullmatch(text):
        raise UserError(f"{text[:80]!r} is not a Kubernetes label", "like disk=ssd")
    kept = _KEPT.fullmatch(text)
    if kept and kept["name"] not in _NODES_OWN:
        raise UserError(f"no node may give itself {text!r}", "kubectl label node sets it later")
    return text


def check_taint(text: str) -> str:
    """Return it. UserError where it is no ``key=value:Effect`` or ``key:Effect``."""
    if not _TAINT.fullmatch(text):
        raise UserError(f"{text[:80]!r} is not a taint", "like gpu=yes:NoSchedule")
    return text
