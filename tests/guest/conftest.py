"""Real images: the sample base, and what k3s-bake makes of it, each made once a worker process."""

import hashlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from guest.loops import Loop, Make, attached

ROOT = Path(__file__).parent.parent.parent
CLI = Path(sys.executable).with_name("k3s-bake")
_LIMIT = 900  # seconds: an appliance under emulation on a loaded machine, and no endless wait


ENGINES = ["e2fs", pytest.param("guestfs", marks=pytest.mark.libguestfs)]


@dataclass(frozen=True)
class Done:
    code: int
    out: str
    err: str

    @property
    def error(self) -> str:
        """The lines that tell a person what was wrong."""
        return "\n".join(line for line in self.err.splitlines() if line.startswith(("error:", "hint:")))


Run = Callable[..., Done]


@pytest.fixture(scope="session")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A cache of this session's own, and a K3S_TOKEN that nothing should ever pick up."""
    return dict(os.environ, K3S_BAKE_HOME=str(tmp_path_factory.mktemp("home")), NO_COLOR="1", COLUMNS="200")


@pytest.fixture(scope="session")
def cli(environment: dict[str, str]) -> Run:
    """Run k3s-bake as a person would."""

    def run(*arguments: object, cwd: Path | None = None) -> Done:
        command = [str(CLI), *map(str, arguments)]
        done = subprocess.run(
            command,
            env=environment,
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_LIMIT,
            check=False,
        )
        return Done(done.returncode, done.stdout, done.stderr)

    return run


@pytest.fixture(scope="session", params=ENGINES)
def engine(request: pytest.FixtureRequest) -> list[str]:
    """Options that name an engine: for tests that get as far as opening an image, each runs on both."""
    return ["--engine", request.param]


@pytest.fixture(scope="session")
def base() -> Path:
    """The sample base, from the cache of this user. Never written to: its tests check that."""
    command = [sys.executable, str(ROOT / "images/sample/build.py"), "--arch", "armhf"]
    return Path(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.strip())


@pytest.fixture(scope="session")
def k3s() -> list[str]:
    """Options that name the K3s to bake in: a real armhf binary where one is given, else the stand-in."""
    real = os.environ.get("K3S_BAKE_TEST_K3S_ARMHF")
    path = real or str(ROOT / "tests/fakes/k3s")
    return ["--k3s", path, "--k3s-version", os.environ.get("K3S_BAKE_TEST_K3S_VERSION", "v1.34.9+k3s1")]


@pytest.fixture
def copy(base: Path, tmp_path: Path) -> Path:
    """A base of the test's own, to spoil."""
    target = tmp_path / "base.img"
    subprocess.run(["cp", "--sparse=always", base, target], check=True)
    return target


def sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@pytest.fixture
def place(tmp_path: Path) -> Path:
    folder = tmp_path / "out"
    folder.mkdir()
    return folder


def refused(done: Done, place: Path, words: str) -> None:
    """One line that says what is wrong, one that helps; no traceback, no output, no litter."""
    assert done.code == 2, done.err
    assert words in done.error
    assert done.error.count("error:") == 1
    assert done.error.count("hint:") == 1
    assert "Traceback" not in done.err
    assert list(place.iterdir()) == []


@pytest.fixture
def loop(tmp_path: Path) -> Iterator[Make]:
    """Makes devices over files of so many MiB."""
    with ExitStack() as stack:
        made: list[Loop] = []

        def make(mib: int = 2048, fill: bytes = b"") -> Loop:
            path = tmp_path / f"card{len(made)}"
            made.append(stack.enter_context(attached(path, mib, fill)))
            return made[-1]

        yield make


@pytest.fixture(scope="session")
def worker(cli: Run, base: Path, k3s: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An image to flash, of a worker without a name."""
    output = tmp_path_factory.mktemp("baked") / "home-worker.img"
    options = ("--cluster", "home", "--base", base, *k3s, "--engine", "e2fs", "--output", output)
    done = cli("image", "--role", "worker", *options)
    assert done.code == 0, done.err
    return output
