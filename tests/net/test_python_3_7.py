"""What runs on a node is tested by a Python of the node's age, too."""

import hashlib
from pathlib import Path

import pytest
from faulty_server import Answer, Site
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


def test_a_file_from_the_web(python: Python37, site: Site, tmp_path: Path) -> None:
    """Cut off, gone on with, and then refused where it leads to."""
    body = bytes(range(256)) * 4000
    site.files["/k3s"] = body
    site.answers["/k3s"].extend([Answer(cut_after=100_000), Answer()])
    place, sha256 = str(tmp_path / "k3s"), hashlib.sha256(body).hexdigest()
    call = (site.url("/k3s"), place, sha256, len(body))
    script = (
        "from pathlib import Path; from firstboot.fetch import Patience, fetch; "
        f"call = list({call!r}); call[1] = Path(call[1]); told = []; "
        "fetch(*call, told.append, Patience(waits=(0.0,))); print(sum(told))"
    )
    done = python.run("-c", script, path=(ROOT,))
    assert (done.stdout, done.stderr) == (f"{len(body)}\n", "")
    assert Path(place).read_bytes() == body
    Path(place).unlink()
    site.answers["/k3s"].append(Answer(location=site.url("/elsewhere")))
    assert "leads to a server without TLS" in python.run("-c", script, path=(ROOT,)).stderr


def test_a_file_from_a_neighbour(python: Python37, tmp_path: Path) -> None:
    """Offered, cut off, and gone on with: both ends are nodes."""
    body = bytes(range(256)) * 4000
    sha256 = hashlib.sha256(body).hexdigest()
    (tmp_path / "k3s").write_bytes(body)
    (tmp_path / "part").write_bytes(body[:5000])
    script = (
        "from pathlib import Path; from firstboot.fetch import FROM_PEERS, fetch; "
        "from firstboot.offer import offer; told = []; "
        f"folder, sha256 = Path({str(tmp_path)!r}), {sha256!r}; "
        "port = offer(folder / 'k3s', sha256, '127.0.0.1'); url = f'http://127.0.0.1:{port}/{sha256}'; "
        f"fetch(url, folder / 'part', sha256, {len(body)}, told.append, FROM_PEERS); print(sum(told))"
    )
    done = python.run("-c", script, path=(ROOT,))
    assert (done.stdout, done.stderr) == (f"{len(body) - 5000}\n", "")
    assert (tmp_path / "part").read_bytes() == body
