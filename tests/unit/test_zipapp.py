"""The agent's zip: what is in it, that it is the same every time, and what it does without a network."""

import hashlib
import io
import zipfile
from pathlib import Path

import pytest

from bake import process, zipapp
from bake.cache import Home
from firstboot.errors import UserError, WorkFailed

pytestmark = pytest.mark.unit

LIBRARY = {
    "thing/__init__.py": b"one = 1\n",
    "thing/py.typed": b"",
    "thing/test_thing.py": b"",
    "thing/tests/helper.py": b"",
    "thing/_fast.so": b"\x7fELF",
    "thing-1.0.dist-info/METADATA": b"",
}


def wheel(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as opened:
        for name, content in files.items():
            opened.writestr(name, content)
    return buffer.getvalue()


class Index:
    """Stands in for pip: puts a wheel where it is told to."""

    def __init__(self, content: bytes) -> None:
        self.content: bytes | None = content
        self.asked: list[tuple[str, ...]] = []

    def __call__(self, *command: str) -> str:
        self.asked.append(command)
        if self.content is None:
            raise WorkFailed("python3 failed: ERROR: https://me:hunter2@index does not answer")
        (Path(command[command.index("--dest") + 1]) / "thing-1.0-py3-none-any.whl").write_bytes(self.content)
        return ""


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "cache", tmp_path / "data")


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Index:
    content = wheel(LIBRARY)
    requirements = tmp_path / "requirements.txt"
    requirements.write_text(f"thing==1.0 --hash=sha256:{hashlib.sha256(content).hexdigest()}\n")
    monkeypatch.setattr(zipapp, "_REQUIREMENTS", requirements)
    index = Index(content)
    monkeypatch.setattr(process, "run", index)
    return index


def said(line: str) -> None:
    pass


def test_it_holds_the_agent_and_its_libraries_and_no_more(home: Home, index: Index) -> None:
    built = zipapp.build(home, False, said)
    with zipfile.ZipFile(built.path) as opened:
        names = opened.namelist()
        assert opened.read("__main__.py") == b"from firstboot.__main__ import main\n\nmain()\n"
        assert opened.read("firstboot/errors.py") == (zipapp._SOURCES / "errors.py").read_bytes()
    assert {name for name in names if name.startswith("thing")} == {"thing/__init__.py", "thing/py.typed"}
    own = {f"firstboot/{path.name}" for path in zipapp._SOURCES.glob("*.py")}
    assert {name for name in names if name.startswith("firstboot/")} == own
    assert names == sorted(names)
    assert built.name == "firstboot.pyz"
    assert built.sha256 == hashlib.sha256(built.path.read_bytes()).hexdigest()


def test_it_is_fetched_once_and_the_same_bytes_wherever_it_is_made(home: Home, index: Index) -> None:
    first = zipapp.build(home, False, said)
    assert zipapp.build(home, True, said) == first
    other = zipapp.build(Home(home.cache.parent / "other", home.data), False, said)
    assert other.sha256 == first.sha256
    assert len(index.asked) == 2
    assert {"--require-hashes", "--no-deps", "--only-binary"} <= set(index.asked[0])
    assert not list(home.cache.rglob("*.part"))


def test_other_sources_make_another_file(home: Home, index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    first = zipapp.build(home, False, said)
    monkeypatch.setattr(zipapp, "_MAIN", b"pass\n")
    assert zipapp.build(home, False, said).path != first.path


def test_offline_and_not_in_the_cache_is_said(home: Home, index: Index) -> None:
    with pytest.raises(UserError, match=r"thing 1\.0 .*not in the cache") as caught:
        zipapp.build(home, True, said)
    assert caught.value.hint
    assert index.asked == []


def test_a_wheel_that_changed_in_the_cache_is_fetched_again(home: Home, index: Index) -> None:
    first = zipapp.build(home, False, said)
    (kept,) = (home.cache / "firstboot/wheels").glob("*.whl")
    kept.write_bytes(b"cut off")
    with pytest.raises(UserError):
        zipapp.build(home, True, said)
    assert zipapp.build(home, False, said) == first


def test_another_wheel_than_the_pinned_one_goes_nowhere(home: Home, index: Index) -> None:
    index.content = wheel({"thing/__init__.py": b"evil\n"})
    with pytest.raises(WorkFailed, match="something else"):
        zipapp.build(home, False, said)
    assert not list((home.cache / "firstboot").glob("*.pyz"))


def test_what_pip_says_is_not_repeated(home: Home, index: Index) -> None:
    index.content = None
    with pytest.raises(WorkFailed, match="cannot fetch") as caught:
        zipapp.build(home, False, said)
    assert "hunter2" not in str(caught.value) + caught.value.hint


def test_the_real_pins_are_pure_wheels_for_python_3_7() -> None:
    pins = zipapp.pinned((Path(zipapp.__file__).parent.parent / "firstboot/requirements.txt").read_text())
    assert [(pin.package, pin.version) for pin in pins] == [("zeroconf", "0.38.7"), ("ifaddr", "0.2.0")]
