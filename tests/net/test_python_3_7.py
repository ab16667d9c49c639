"""What runs on a node is tested by a Python of the node's age, too."""

from pathlib import Path

import pytest
from rig.python37 import Python37

from bake import cache, zipapp
from bake.cache import Home

pytestmark = pytest.mark.node

ROOT = Path(__file__).parent.parent.parent
NODE = ROOT / "tests/unit/node"


@pytest.fixture(scope="module")
def python() -> Python37:
    """From this user's cache."""
    return Python37(cache.home().cache)


def test_it_is_as_old_as_the_nodes(python: Python37) -> None:
    assert python.run("-c", "import sys; print(sys.version_info[:2])").stdout == "(3, 7)\n"


def test_the_agents_own_tests(python: Python37) -> None:
    settings = ["-c", NODE / "pytest-3.7.ini", f"--rootdir={NODE}", f"--confcutdir={NODE}"]
    done = python.run("-m", "pytest", "-q", "-p", "no:cacheprovider", *settings, NODE, path=(ROOT,))
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr
    count = int(done.stdout.splitlines()[-1].split()[0])
    assert count > 250, done.stdout[-400:]


def test_the_zip_starts(python: Python37, tmp_path: Path) -> None:
    built = zipapp.build(Home(tmp_path / "cache", tmp_path / "data"), False, print).path
    done = python.run(built)
    assert (done.returncode, done.stderr) == (1, "usage: firstboot.pyz agent|serve|helper\n")
    imports = "import firstboot.agent, firstboot.helper, firstboot.serve, zeroconf, ifaddr"
    done = python.run("-I", "-c", f"import sys; sys.path.insert(0, {str(built)!r}); {imports}")
    assert (done.returncode, done.stderr) == (0, "")
