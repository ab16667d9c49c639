"""What the docs show must work."""

import re
from pathlib import Path

import pytest

from bake import cluster_file
from bake.datastore import ExternalDatastore
from bake.node import CONCERNS
from firstboot.contract import REASONS, TXT_SIZES

pytestmark = pytest.mark.unit

ROOT = Path(__file__).parent.parent.parent
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl me@here"


def test_the_cluster_file_shown_is_one(tmp_path: Path) -> None:
    text = (ROOT / "docs/cluster-file.md").read_text()
    shown = re.findall(r"^    (.*)$|^$", text, re.MULTILINE)
    files = {
        "cluster.toml": "\n".join(shown).replace("~/.ssh/id_ed25519.pub", "key.pub"),
        "key.pub": KEY,
        "token": "K10" + "a" * 64 + "::node:x",
        "psk": "correct-horse",
        "registries.yaml": "mirrors: {}\n",
        "containerd.deb": "",
        "runc.deb": "",
    }
    for name, content in files.items():
        (tmp_path / name).write_text(content)
        (tmp_path / name).chmod(0o600)
    loaded = cluster_file.load(tmp_path / "cluster.toml")
    assert [node.name for node in loaded.nodes] == ["pi-1", "pi-2"]
    assert loaded.authorized_keys == (KEY,)


def test_the_datastores_shown_are_some() -> None:
    text = (ROOT / "docs/cluster-file.md").read_text()
    shown = re.findall(r"`((?:postgres|mysql|https)://[^`]+)`", text)
    assert len([ExternalDatastore(url).places for url in shown]) == 4


def test_every_concern_is_in_the_table() -> None:
    listed = re.findall(r"^\| (\w+) \|", (ROOT / "docs/node.md").read_text(), re.MULTILINE)
    assert [concern.name for concern in CONCERNS] == listed[1 : len(CONCERNS) + 1]


def test_every_reason_and_every_key_of_the_announcement_is_explained() -> None:
    text = (ROOT / "docs/joining.md").read_text()
    first = re.findall(r"^\| `([a-z0-9-]+)` \|", text, re.MULTILINE)
    assert [one for one in first if one in REASONS] == list(REASONS)
    sizes = re.findall(r"^\| `([a-z0-9]+)` \| ([0-9]+) \|", text, re.MULTILINE)
    assert {key: int(size) for key, size in sizes} == TXT_SIZES
