"""What paths were before, and back. By the node's own Python, too."""

import hashlib
import os
from pathlib import Path

import pytest

from firstboot.before import FOLDER, Before
from firstboot.contract import K3S_CONFIG
from firstboot.edits import Edit, Link, Place, Remove, Write
from firstboot.tree import FolderTree

pytestmark = pytest.mark.unit

UNIT = "/etc/systemd/system/k3s.service"


class Machine:
    def __init__(self, root: Path) -> None:
        self.root = root
        self.tree = FolderTree(str(root), keeps_owners=False)
        self.before = Before(str(root), self.tree)
        for path, text in {
            "etc/hostname": "raspberrypi\n",
            "etc/a": "old\n",
            "etc/gone": "was here\n",
        }.items():
            self.at(path).parent.mkdir(parents=True, exist_ok=True)
            self.at(path).write_text(text)
        self.at("etc/a").chmod(0o640)
        self.at("etc/link").symlink_to("nowhere")

    def at(self, path: str) -> Path:
        return self.root / path.lstrip("/")

    def adopt(self, *edits: Edit) -> None:
        source = self.root / "source"
        source.write_bytes(b"k3s")
        self.before.remember(edits)
        self.tree.apply(edits, {hashlib.sha256(b"k3s").hexdigest(): str(source)})
        source.unlink()

    def shape(self) -> dict:  # type: ignore[type-arg]
        return {
            str(path.relative_to(self.root)): os.readlink(str(path))
            if path.is_symlink()
            else (path.read_bytes(), path.stat().st_mode)
            for path in sorted(self.root.rglob("*"))
            if path.is_symlink() or path.is_file()
        }


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path / "root")


EDITS = (
    Write("/etc/a", b"new\n", 0o600),
    Write(UNIT, b"[Unit]\n"),
    Write("/etc/hostname", b"pi-7\n"),
    Place("/usr/local/bin/k3s", hashlib.sha256(b"k3s").hexdigest(), 3, 0o755),
    Link("/etc/link", "/dev/null"),
    Remove("/etc/gone"),
    Write(K3S_CONFIG, b"a: 1\n", 0o600),
)


def test_all_is_as_it_was(machine: Machine) -> None:
    before = machine.shape()
    machine.adopt(*EDITS)
    machine.at(K3S_CONFIG).write_text("a: 1\nserver: x\n")  # as the agent does
    assert machine.shape() != before
    back, left = machine.before.undo()
    machine.before.forget()
    assert left == []
    assert len(back) == len(EDITS)
    assert machine.shape() == before
    assert not machine.before.is_known()


def test_the_first_adoption_counts(machine: Machine) -> None:
    before = machine.shape()
    machine.adopt(*EDITS)
    machine.adopt(Write("/etc/a", b"newer\n"), Write(UNIT, b"[Service]\n"))
    assert machine.before.undo()[1] == []
    machine.before.forget()
    assert machine.shape() == before


def test_what_a_person_has_changed_is_left_and_named(machine: Machine) -> None:
    machine.adopt(*EDITS)
    machine.at(UNIT).write_text("[Unit]\n# mine\n")
    machine.at("etc/link").unlink()
    back, left = machine.before.undo()
    assert left == ["/etc/link", UNIT]
    assert "/etc/a" in back
    assert machine.at(UNIT).read_text().endswith("# mine\n")


def test_what_was_put_back_by_hand_is_no_change(machine: Machine) -> None:
    machine.adopt(*EDITS)
    machine.at(UNIT).unlink()
    back, left = machine.before.undo()
    assert left == []
    assert UNIT not in back


def test_only_root_reads_what_is_kept(machine: Machine) -> None:
    machine.adopt(*EDITS)
    folder = machine.at(FOLDER)
    assert folder.stat().st_mode & 0o777 == 0o700
    for path in folder.iterdir():
        assert path.stat().st_mode & 0o777 == 0o600


def test_a_cut_between_remembering_and_changing_loses_nothing(machine: Machine) -> None:
    before = machine.shape()
    machine.before.remember(EDITS)
    machine.adopt(*EDITS)
    machine.before.undo()
    machine.before.forget()
    assert machine.shape() == before
