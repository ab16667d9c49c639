"""K3s versions: their order, and what a version can do."""

import re
from dataclasses import dataclass, field

from firstboot.errors import UserError

DEFAULT_K3S = "v1.34.9+k3s1"
"""The last minor release whose kubelet takes cgroup v1, which is what Buster runs, without being told to."""

_RELEASE = re.compile(r"v(\d+)\.(\d+)\.(\d+)(?:-(alpha|beta|rc)\.?(\d+))?\+k3s\.?(\d+)")
_STAGES = ("alpha", "beta", "rc", "released")


@dataclass(frozen=True, order=True)
class K3sVersion:
    """``v1.34.9+k3s1`` or ``v1.34.9-rc1+k3s1``; release candidates come before their release."""

    major: int
    minor: int
    patch: int
    stage: tuple[int, int]
    build: int
    tag: str = field(compare=False)

    @staticmethod
    def is_one(text: str) -> bool:
        return _RELEASE.fullmatch(text) is not None

    @classmethod
    def parse(cls, text: str) -> "K3sVersion":
        match = _RELEASE.fullmatch(text)
        if match is None:
            raise UserError(f"'{text}' is not a K3s version", f"like {DEFAULT_K3S}")
        stage = (_STAGES.index(match[4] or "released"), int(match[5] or 0))
        return cls(int(match[1]), int(match[2]), int(match[3]), stage, int(match[6]), text)

    def __str__(self) -> str:
        return self.tag

    @property
    def reads_config_folder(self) -> bool:
        """Whether ``config.yaml.d`` is read beside config.yaml."""
        return (self.major, self.minor) >= (1, 21)

    @property
    def notifies_as_agent(self) -> bool:
        """Whether the agent tells systemd that it is ready; if not, its unit must not be Type=notify.

        From the releases of July 2022 on. An agent that notifies is also served by Type=exec.
        """
        return self._since({22: 12, 23: 9, 24: 3})

    @property
    def has_bundled_bin_option(self) -> bool:
        """Whether ``prefer-bundled-bin`` is known: from the releases of December 2022 on."""
        return self._since({23: 15, 24: 9, 25: 5})

    @property
    def refuses_cgroup_v1(self) -> bool:
        """Whether the kubelet needs ``fail-cgroupv1=false`` where only cgroup v1 is there."""
        return (self.major, self.minor) >= (1, 35)

    def _since(self, backports: dict[int, int]) -> bool:
        """True after the newest minor named, and from the patch named on in each that got a backport."""
        if (self.major, self.minor) > (1, max(backports)):
            return True
        return self.major == 1 and self.minor in backports and self.patch >= backports[self.minor]
