"""k3s-bake cards on the machine that runs the tests: whatever it is, its own system is not offered."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bake.card import found
from bake.card.devices import Verdict

pytestmark = pytest.mark.net

CLI = Path(sys.executable).with_name("k3s-bake")


def test_what_this_system_stands_on_is_refused() -> None:
    numbers = {line.split()[2] for line in Path("/proc/self/mountinfo").read_text().splitlines()}
    root = Path("/").stat().st_dev
    numbers.add(f"{os.major(root)}:{os.minor(root)}")
    for one in found.devices():
        if numbers & {node.number for node in one.device.all()}:
            assert one.verdict is Verdict.REFUSED, one


def listed() -> list[dict[str, Any]]:
    done = subprocess.run([CLI, "cards", "--json"], capture_output=True, text=True, check=True)
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found


def test_the_command_tells_it_to_people_and_programs() -> None:
    before = listed()
    shown = subprocess.run([CLI, "cards"], capture_output=True, text=True, check=True).stdout
    after = {one["path"] for one in listed()}  # other tests make devices, and take them away
    for one in before:
        assert one["path"] in shown or one["path"] not in after
        assert one["verdict"] in ("card", "doubtful", "refused")
        assert bool(one["reasons"]) == (one["verdict"] != "card")
