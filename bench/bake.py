"""The same base and edits through `k3s-bake image` and through virt-customize, in turn: medians and ratio.

virt-customize gets a copy of the base and, for each edit of the plan, its own command for it. On this fstab
(PARTUUID of an MBR disk) it does not mount /boot, so its cmdline.txt lands in the root's empty /boot folder:
not where it would work, but at the same cost. It does no checks, manifest or block map.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from bake import kvm

ROOT = Path(__file__).parent.parent
GOAL = 0.6
"""At most this part of virt-customize's time."""

_SIZES = {"k3s": 43, "airgap": 150}  # MB: an armhf K3s, and its container images


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--runs", type=int, default=3)
    runs = parser.parse_args().runs
    with tempfile.TemporaryDirectory(prefix="k3s-bake-", dir="/var/tmp") as folder:
        work = Path(folder)
        base = Path(_output(sys.executable, str(ROOT / "images/sample/build.py")).strip())
        k3s, airgap = _staged(work)
        options = ["--role", "worker", "--base", str(base), "--k3s", str(k3s), "--airgap", str(airgap)]
        plan = json.loads(_output(_cli(), "image", *options, "--dry-run", "--json"))
        tools: dict[str, Callable[[], None]] = {
            "k3s-bake image": lambda: _bake(options, work),
            "virt-customize": lambda: _customize(base, plan["edits"], k3s, airgap, work),
        }
        times: dict[str, list[float]] = {name: [] for name in tools}
        for number in range(runs):
            for name, tool in tools.items():  # in turn: both meet the same state of this machine
                started = time.monotonic()
                tool()
                times[name].append(time.monotonic() - started)
                print(f"run {number + 1}: {name}: {times[name][-1]:.1f} s", flush=True)
    medians = {name: statistics.median(values) for name, values in times.items()}
    ours, theirs = medians.values()
    print(
        "KVM" if kvm.works() else "emulated",
        f"{len(plan['edits'])} edits, {sum(_SIZES.values())} MB staged",
        sep="; ",
    )
    for name, median in medians.items():
        print(f"{name}: median {median:.1f} s of {runs}")
    print(f"ratio: {ours / theirs:.2f} (goal: at most {GOAL})")
    sys.exit(ours / theirs > GOAL)


def _cli() -> str:
    return str(Path(sys.executable).with_name("k3s-bake"))


def _output(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{command[0]} failed:\n{done.stderr}")
    return done.stdout


def _staged(work: Path) -> tuple[Path, Path]:
    """Files that do not compress, of the sizes that the real ones have."""
    k3s, airgap = work / "k3s", work / "k3s-airgap-images-arm.tar"
    k3s.write_bytes(b"#!/bin/sh\n" + os.urandom(_SIZES["k3s"] * 1_000_000))
    airgap.write_bytes(os.urandom(_SIZES["airgap"] * 1_000_000))
    return k3s, airgap


def _bake(options: list[str], work: Path) -> None:
    _output(_cli(), "image", *options, "--output", str(work / "ours.img"), "--force")


def _customize(
    base: Path, edits: list[dict[str, dict[str, str]]], k3s: Path, airgap: Path, work: Path
) -> None:
    """A copy of the base, then every edit as virt-customize's own command for it."""
    image = work / "theirs.img"
    subprocess.run(["cp", "--sparse=always", base, image], check=True)
    commands: list[str] = []
    for number, entry in enumerate(edits):
        commands += _command(entry["edit"], k3s, airgap, work / f"content{number}")
    script = work / "commands"
    script.write_text("\n".join(commands) + "\n")
    env = dict(os.environ, LIBGUESTFS_BACKEND="direct")
    if not kvm.works():  # as k3s-bake does; where KVM hangs, virt-customize would for ever
        env["LIBGUESTFS_BACKEND_SETTINGS"] = "force_tcg"
    command = ["virt-customize", "--quiet", "--no-network", "--format", "raw", "-a", str(image)]
    subprocess.run([*command, "--commands-from-file", str(script)], env=env, check=True)


def _command(edit: dict[str, str], k3s: Path, airgap: Path, content: Path) -> list[str]:
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


if __name__ == "__main__":
    main()
