"""What a running system needs after its files have changed: from paths to commands. Pure.

Offline nothing of this is needed: the boot itself does it.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from firstboot.contract import AGENT, AUTHORITY, JOIN_UNIT, UNIT

Command = tuple[str, ...]
_UNITS = "/etc/systemd/system/"


@dataclass(frozen=True)
class Wake:
    first: tuple[Command, ...]
    """Before the files change."""
    then: tuple[Command, ...]
    reboot: tuple[str, ...]
    """The paths that take effect at a boot alone."""


def wake(
    changed: Iterable[str],
    *,
    boot: str = "/boot",
    unit: str = "k3s",
    agent: bool = True,
    is_on: bool = False,
    is_new: bool = False,
) -> Wake:
    """``boot`` is where the firmware's files are, ``unit`` K3s's, ``agent``: the node has one. ``is_on``: K3s
    runs or starts; ``is_new``: it had no unit, so that nothing of it can run."""
    paths = sorted(changed)
    first = [command for matches, command in _FIRST if any(map(matches, paths))]
    reboot = tuple(path for path in paths if path in (f"{boot}/cmdline.txt", f"{boot}/config.txt"))
    if _SWITCH in paths:
        stale = tuple(path for path in paths if path.startswith(_RULES))
        reboot += (_SWITCH, *stale) if stale else ()
    if not paths:
        return Wake((), (), ())
    then = [command for matches, command in _THEN if any(map(matches, paths))]
    if AGENT in paths and unit == "k3s":  # workers have no helper
        then.append(("systemctl", "try-restart", "k3s-bake-helper.service"))
    if any(map(_is_of_k3s, paths)) and (is_on or not is_new):
        # One that is still starting, for want of its datastore say, is none that try-restart restarts.
        verb = "restart" if is_on else "try-restart"
        then.append(("systemctl", verb, "--no-block", f"{unit}.service"))
    if agent:
        then.append(("systemctl", "restart", UNIT))
    return Wake(tuple(dict.fromkeys(first)), tuple(dict.fromkeys(then)), reboot)


_SWITCH = "/etc/alternatives/iptables"
_RULES = ("/etc/ufw/", "/etc/iptables/")
"""What the other iptables has loaded of them stays in the kernel, and drops, beside what this one loads; only
a boot does away with it."""


def _under(*starts: str) -> Callable[[str], bool]:
    return lambda path: path.startswith(starts)


def _is_of_k3s(path: str) -> bool:
    inside = path.startswith("/etc/rancher/k3s/") and not path.endswith("token")
    unit = path.startswith((f"{_UNITS}k3s.service", f"{_UNITS}k3s-agent.service"))
    return inside or unit or path == "/usr/local/bin/k3s"


def _is_unit(path: str) -> bool:
    return path.startswith(_UNITS)


_JOIN = (f"{_UNITS}{JOIN_UNIT}", "/etc/k3s-bake/sshd_config", AUTHORITY)
_HELPER = (f"{_UNITS}k3s-bake-helper.socket", f"{_UNITS}sockets.target.wants/k3s-bake-helper.socket")
_FIRST: Sequence[tuple[Callable[[str], bool], Command]] = (
    # Its stop turns its file off, which cannot be done once the file is gone.
    (_under(f"{_UNITS}dphys-swapfile.service", "/var/swap"), ("systemctl", "stop", "dphys-swapfile.service")),
    (_under(f"{_UNITS}zramswap.service"), ("systemctl", "stop", "zramswap.service")),
    (_under("/etc/fstab", f"{_UNITS}dev-zram0.swap", "/etc/rpi/swap.conf.d/"), ("swapoff", "--all")),
)

_REREAD_DHCPCD = ("systemctl", "kill", "--kill-who=main", "--signal=HUP", "dhcpcd.service")
"""As ``dhcpcd --rebind`` does, which starts one where none runs: addresses stay."""

_THEN: Sequence[tuple[Callable[[str], bool], Command]] = (
    (_is_unit, ("systemctl", "daemon-reload")),
    (_under("/etc/hostname"), ("hostname", "--file", "/etc/hostname")),
    (_under("/etc/hostname"), ("systemctl", "try-restart", "avahi-daemon.service")),
    (_under("/etc/ssh/sshd_config"), ("systemctl", "try-reload-or-restart", "ssh.service")),
    (_under(f"{_UNITS}multi-user.target.wants/ssh.service"), ("systemctl", "start", "ssh.service")),
    (_under("/etc/dhcpcd.conf"), _REREAD_DHCPCD),
    (_under("/etc/NetworkManager/"), ("systemctl", "try-reload-or-restart", "NetworkManager.service")),
    (_under("/etc/ufw/"), ("ufw", "reload")),
    (_under("/etc/firewalld/"), ("firewall-cmd", "--reload")),
    (_under("/etc/nftables.conf"), ("systemctl", "try-reload-or-restart", "nftables.service")),
    (_under("/etc/iptables/"), ("netfilter-persistent", "reload")),
    (_under(f"{_UNITS}containerd", "/etc/containerd/"), ("systemctl", "restart", "containerd.service")),
    (_under(*_HELPER), ("systemctl", "restart", "k3s-bake-helper.socket")),
    (_under(*_JOIN), ("systemctl", "try-restart", JOIN_UNIT)),
)
"""In order. What is not installed is not among the changed paths."""
