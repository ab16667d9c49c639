"""cmdline.txt as pure text: the kernel's command line, which the firmware reads as one line."""

import re

CGROUP_WORDS = ("cgroup_enable=cpuset", "cgroup_memory=1", "cgroup_enable=memory")
"""What Raspberry Pi kernels need: since 5.4 they boot with the memory controller off."""

_CONTROLLERS = {"cpuset", "memory"}


def with_cgroups(text: str, *, cgroup_v2: bool) -> str:
    """One line with each needed word once, at the end, and no word that contradicts them.

    All other words of the line that counts stay, in order: `` init=/usr/lib/raspi-config/init_resize.sh``
    too, which Raspbian's own first boot looks for. ``cgroup_v2``: whether the target may run on cgroup v2; if
    not, words that ask for it go.
    """
    contradicts = [_is_ours, _disables] + ([] if cgroup_v2 else [_asks_v2])
    line, _ = lines(text)
    kept = [word for word in line.split() if not any(test(word) for test in contradicts)]
    return " ".join([*kept, *CGROUP_WORDS]) + "\n"


def lines(text: str) -> tuple[str, str]:
    """The first line with a word on it, all that the firmware reads, and what is on those below it."""
    first, *others = [line for line in re.split(r"[\r\n]", text) if line.strip()] or [""]
    return first, " ".join(word for line in others for word in line.split())


def _is_ours(word: str) -> bool:
    return word in CGROUP_WORDS or word.startswith("cgroup_memory=")


def _disables(word: str) -> bool:
    return word.startswith("cgroup_disable=") and bool(_CONTROLLERS & set(word[15:].split(",")))


def _asks_v2(word: str) -> bool:
    return bool(re.fullmatch(r"systemd\.unified_cgroup_hierarchy(=(1|yes|true|on))?", word)) or (
        word.startswith("cgroup_no_v1=") and bool({"all", *_CONTROLLERS} & set(word[13:].split(",")))
    )
