"""Run the distribution's tools: the one place that starts processes and words their failures."""

import os
import subprocess
from collections.abc import Sequence

from firstboot.errors import UserError, WorkFailed

_PACKAGES = {
    "sfdisk": "fdisk",
    "blkid": "util-linux",
    "debugfs": "e2fsprogs",
    "dumpe2fs": "e2fsprogs",
    "e2fsck": "e2fsprogs",
    "fsck.fat": "dosfstools",
    "qemu-system-x86_64": "qemu-system-x86",
}
"""Debian's package for each tool, for the hint when it is missing."""


def run(*command: str, stdin: str = "", accept: Sequence[int] = (0,), timeout: float | None = None) -> str:
    """Standard output of a tool, as text.

    Messages come in English whatever the locale; /sbin is looked into, which an ordinary user's PATH lacks.
    Raises UserError where the tool is missing, WorkFailed with its last words where its exit code is not
    among those accepted.
    """
    env = dict(os.environ, LC_ALL="C", PATH=os.environ.get("PATH", os.defpath) + ":/usr/sbin:/sbin")
    try:
        done = subprocess.run(
            command, input=stdin, capture_output=True, text=True, errors="replace", env=env, timeout=timeout
        )
    except FileNotFoundError as error:
        package = _PACKAGES.get(command[0], command[0])
        raise UserError(f"{command[0]} is not installed", f"sudo apt install {package}") from error
    if done.returncode not in accept:
        words = (done.stderr or done.stdout).strip().splitlines() or [f"exit code {done.returncode}"]
        raise WorkFailed(f"{command[0]} failed: {words[-1]}", "")
    return done.stdout
