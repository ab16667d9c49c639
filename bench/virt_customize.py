"""The edits of a plan through virt-customize (libguestfs-tools), each by its own command.

On this fstab (PARTUUID of an MBR disk) it does not mount /boot, so its cmdline.txt lands in the root's empty
/boot folder: not where it would work, but at the same cost. It does no checks, manifest or block map.
"""

import os
import subprocess
from pathlib import Path

from bake import kvm

Edit = dict[str, str]
"""As ``k3s-bake image --dry-run --json`` tells it."""


def customize(image: Path, edits: list[Edit], k3s: Path, airgap: Path, work: Path) -> None:
    """Carry out the edits on an image, in place."""
    commands: list[str] = []
    for number, edit in enumerate(edits):
        commands += _command(edit, k3s, airgap, work / f"content{number}")
    script = work / "commands"
    script.write_text("\n".join(commands) + "\n")
    env = dict(os.environ, LIBGUESTFS_BACKEND="direct")
    if not kvm.works():  # as k3s-bake does; where KVM hangs, virt-customize would for ever
        env["LIBGUESTFS_BACKEND_SETTINGS"] = "force_tcg"
    command = ["virt-customize", "--quiet", "--no-network", "--format", "raw", "-a", str(image)]
    subprocess.run([*command, "--commands-from-file", str(script)], env=env, check=True)


def _command(edit: Edit, k3s: Path, airgap: Path, content: Path) -> list[str]:
    path = edit["path"]
    folder = f"mkdir {Path(path).parent}"
    if edit["kind"] == "remove":
        return [f"delete {path}"]
    if edit["kind"] == "link":
        return [folder, f"link {edit['target']}:{path}"]
    if edit["kind"] == "place":
        source = k3s if path.endswith("/k3s") else airgap
        return [folder, f"upload {source}:{path}", f"chmod {edit['mode']}:{path}"]
    content.write_text(edit.get("text", ""))
    return [folder, f"upload {content}:{path}", f"chmod {edit['mode']}:{path}"]
