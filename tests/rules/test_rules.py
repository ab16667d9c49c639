"""The rules of the house, held by the machine: rooms, doors, linters, sizes."""

import ast
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.rules

ROOT = Path(__file__).parent.parent.parent
ROOMS = ("firstboot", "bake", "k3s_bake")
"""From the ground floor up: a room imports from those before it and from itself."""

DOORS = {
    "asyncssh": {"k3s_bake/ssh.py"},
    "click": {"k3s_bake/cli"},
    "debian": {"bake/containerd_archive.py"},
    "filelock": {"bake/cache.py"},
    "guestfs": {"bake/appliance.py"},
    "ifaddr": {"firstboot/mdns.py"},
    "jinja2": {"bake/render.py"},
    "platformdirs": {"bake/cache.py"},
    "requests": {"bake/download.py"},
    "rich": {"k3s_bake"},
    # kvm and fat: its time-out's name.
    "subprocess": {"bake/process.py", "bake/kvm.py", "bake/fat.py", "firstboot/programs.py"},
    "tenacity": {"bake/download.py"},
    "urllib3": {"bake/download.py"},
    "yaml": {"k3s_bake/kubeconfig.py"},
    "zeroconf": {"firstboot/mdns.py"},
    "zstandard": {"bake/unpack.py"},
}
"""Each dependency, and the one place that imports it."""


def _sources(*folders: str) -> list[Path]:
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


def _imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield node.module or ""


@pytest.mark.parametrize("path", _sources(*ROOMS), ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_run_one_way_and_through_doors(path: Path) -> None:
    place = path.relative_to(ROOT).as_posix()
    room = ROOMS.index(place.partition("/")[0])
    allowed = {*ROOMS[: room + 1], *sys.stdlib_module_names}
    for name in _imports(path):
        package = name.partition(".")[0]
        if package in DOORS:
            assert any(place == door or place.startswith(f"{door}/") for door in DOORS[package]), (
                f"{place} imports {package}, whose door is {DOORS[package]}"
            )
        else:
            assert package in allowed, f"{place} may not import {name}"


def test_every_dependency_has_a_door_and_a_lower_bound() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    modules = {"python-debian": "debian", "pyyaml": "yaml"}
    packages = [line.partition(">=")[0] for line in project["dependencies"]]
    names = {modules.get(package, package) for package in packages}
    assert all(">=" in line for line in project["dependencies"])
    assert names == DOORS.keys() - {"guestfs", "subprocess"}  # the distribution's, the standard library's


@pytest.mark.parametrize("path", _sources("firstboot"), ids=lambda path: path.name)
def test_what_runs_on_the_node_is_python_3_7(path: Path) -> None:
    ast.parse(path.read_text(encoding="utf-8"), feature_version=(3, 7))


@pytest.mark.parametrize("path", _sources(*ROOMS, "images", "bench"), ids=lambda p: str(p.relative_to(ROOT)))
def test_files_stay_short(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 300


@pytest.mark.parametrize(
    "command",
    [
        ["ruff", "check", "."],
        ["ruff", "format", "--check", "."],
        ["mypy"],
        ["mypy", "--strict", *map(str, _sources("images", "bench"))],
    ],
    ids=["ruff check", "ruff format", "mypy", "mypy images bench"],
)
def test_linters(command: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
