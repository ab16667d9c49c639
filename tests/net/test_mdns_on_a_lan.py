"""Multicast DNS for real, between two network namespaces, with the newest zeroconf and with the node's."""

import subprocess
import sys
from pathlib import Path

import pytest

from bake import zipapp
from bake.cache import Home

pytestmark = pytest.mark.net

ROOT = Path(__file__).parent.parent.parent
SCENARIOS = (
    "announced",
    "poisoned",
    "flooded",
    "garbage",
    "lossy",
    "announcer_dies",
    "address_comes_late",
    "confined_child",
)


@pytest.fixture(scope="session", params=["newest", "of the node"])
def source(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where firstboot and zeroconf come from. The node's is the very zip that goes into an image."""
    if request.param == "newest":
        return ROOT
    folder = tmp_path_factory.mktemp("home")
    return zipapp.build(Home(folder / "cache", folder / "data"), False, print).path


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_mdns(source: Path, scenario: str) -> None:
    apart = ["unshare", "--user", "--map-root-user", "--net"]
    script = Path(__file__).with_name("mdns_lan.py")
    done = subprocess.run(
        [*apart, sys.executable, str(script), str(source), scenario],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=180,
    )
    assert done.returncode == 0, done.stdout + done.stderr
