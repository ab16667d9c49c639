from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from firstboot import board, node
from firstboot.contract import (
    K3S_AGENT_TOKEN,
    K3S_CONFIG,
    K3S_PASSWORD,
    K3S_TOKEN,
    NodeConfig,
)
from firstboot.edits import Write
from firstboot.node import Node
from firstboot.token import Grant

pytestmark = pytest.mark.unit

CA = "a" * 64
GRANT = Grant(f"K10{CA}::node:s3cret", "https://10.0.0.2:6443", CA, "v1.34.9+k3s1", 1_700_000_000)


class Root:
    """A node's root, and what its programs were asked."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.asked: list[list[str]] = []
        self.answers: dict[str, bytes] = {}
        self.node = Node(str(path), self.run)

    def run(self, command: list[str], **_: object) -> tuple[int, bytes, str]:
        self.asked.append(command)
        return 0, self.answers.get(Path(command[0]).name, b""), ""

    def at(self, path: str) -> Path:
        return self.path / path.lstrip("/")


@pytest.fixture
def root(tmp_path: Path) -> Root:
    return Root(tmp_path)


def test_what_k3s_needs_to_join(root: Root) -> None:
    root.at(K3S_CONFIG).parent.mkdir(parents=True)
    root.at(K3S_CONFIG).write_text(
        '# Written by k3s-bake.\nnode-name: "k3s-worker"\nwith-node-id: true\nlog: "x"\n'
    )
    assert not root.node.is_let_in(CA, GRANT.server)
    root.node.configure_joining(GRANT, "pi-7")
    assert root.node.is_let_in(CA, GRANT.server)
    assert not root.node.is_let_in("b" * 64, GRANT.server)
    assert not root.node.is_let_in(CA, "https://10.0.0.3:6443")
    assert root.at(K3S_TOKEN).read_text() == GRANT.token + "\n"
    config = root.at(K3S_CONFIG).read_text().splitlines()
    assert config[0] == "# Written by k3s-bake."
    assert set(config[1:]) == {
        'node-name: "pi-7"',
        'log: "x"',
        'server: "https://10.0.0.2:6443"',
        f'token-file: "{K3S_TOKEN}"',
    }
    for path in (K3S_TOKEN, K3S_CONFIG, K3S_PASSWORD):
        assert root.at(path).stat().st_mode & 0o777 == 0o600
    password = root.at(K3S_PASSWORD).read_text()
    assert len(password.strip()) == 32
    root.node.configure_joining(GRANT, "pi-7")
    assert root.at(K3S_PASSWORD).read_text() == password, "another one would be refused for good"


def test_a_further_master_takes_the_agents_token_over(root: Root) -> None:
    """Agents log in to any of the masters by it."""
    grant = Grant(f"K10{CA}::server:s3cret", GRANT.server, CA, "", 1_700_000_000, "agents")
    root.node.configure_joining(grant, "m2")
    assert root.at(K3S_AGENT_TOKEN).read_text() == "agents\n"
    assert f'agent-token-file: "{K3S_AGENT_TOKEN}"' in root.at(K3S_CONFIG).read_text().splitlines()
    assert "agents" not in repr(grant)


def test_what_a_person_wrote_in_the_configuration_stays(root: Root) -> None:
    theirs = (
        "kube-apiserver-arg:\n  - v=2\nkubelet-arg:\n  - v=2\ntls-san:\n  - fd00::1\n  - fd00::2\n# note: x\n"
    )
    root.at(K3S_CONFIG).parent.mkdir(parents=True)
    root.at(K3S_CONFIG).write_text(f'node-name: "x"\n{theirs}')
    root.node.configure_leading("m1")
    text = root.at(K3S_CONFIG).read_text()
    assert theirs in text
    assert text.startswith('node-name: "m1"\n')
    before = root.at(K3S_CONFIG).stat().st_ino
    root.node.configure_leading("m1")
    assert root.at(K3S_CONFIG).stat().st_ino == before, "what is so already is not written again"


def test_a_card_that_takes_no_more_writes_stops_nobody(
    root: Root, capsys: pytest.CaptureFixture[str]
) -> None:
    root.at("/etc").mkdir(exist_ok=True)
    root.at("/etc/avahi").write_text("in the way")
    root.node.try_to_write(Write("/etc/avahi/services/x", b""))
    assert "/etc/avahi/services/x" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("said", "starting"),
    [
        ("SubState=start\nNRestarts=0\n", True),
        ("SubState=start-pre\n", True),  # an older systemd counts nothing
        ("SubState=start\nNRestarts=7\n", False),
        ("SubState=auto-restart\nNRestarts=1\n", False),
        ("", False),
    ],
)
def test_a_unit_that_starts_for_the_first_times(said: str, starting: bool) -> None:
    found = Node("/nonexistent", lambda *_, **__: (0, said.encode(), ""))
    assert found.is_starting("k3s") is starting


def test_an_empty_password_counts_as_none(root: Root) -> None:
    root.at(K3S_PASSWORD).parent.mkdir(parents=True)
    root.at(K3S_PASSWORD).write_text("")
    root.node.make_password()
    assert root.at(K3S_PASSWORD).read_text().strip()


def test_a_leading_master_has_a_token_for_agents_of_its_own(root: Root) -> None:
    root.node.configure_leading("home-master")
    made = root.at(K3S_AGENT_TOKEN).read_text()
    assert len(made.strip()) == 32
    assert f'agent-token-file: "{K3S_AGENT_TOKEN}"' in root.at(K3S_CONFIG).read_text()
    root.node.configure_leading("home-master")
    assert root.at(K3S_AGENT_TOKEN).read_text() == made


def test_the_name_is_the_hosts(root: Root) -> None:
    root.at("/etc").mkdir(exist_ok=True)
    root.at("/etc/hosts").write_text("127.0.0.1\tlocalhost\n127.0.1.1\traspberrypi\n")
    root.node.set_name("pi-7")
    assert root.at("/etc/hostname").read_text() == "pi-7\n"
    assert root.at("/etc/hosts").read_text() == "127.0.0.1\tlocalhost\n127.0.1.1\tpi-7\n"


def test_the_master_moves(root: Root) -> None:
    root.node.configure_joining(GRANT, "pi-7")
    assert root.node.point_at("https://[2001:db8::2]:6443")
    assert 'server: "https://[2001:db8::2]:6443"' in root.at(K3S_CONFIG).read_text()
    assert not root.node.point_at("https://evil.example:6443")
    assert "evil" not in root.at(K3S_CONFIG).read_text()


def test_what_systemd_and_the_journal_are_asked(root: Root) -> None:
    root.node.start("k3s-agent")
    assert root.asked == [
        ["systemctl", "enable", "k3s-agent"],
        ["systemctl", "start", "--no-block", "k3s-agent"],
    ]
    root.answers = {"systemctl": b"active\n", "journalctl": b'...\nmsg="Node password rejected, ..."\n'}
    assert root.node.is_active("k3s")
    assert root.node.is_rejected("k3s-agent")
    root.answers = {"systemctl": b"activating\n", "journalctl": b"all well"}
    assert not root.node.is_active("k3s")
    assert not root.node.is_rejected("k3s-agent")
    root.answers = {"k3s": b"k3s version v1.34.9+k3s1 (abcdef12)\ngo version go1.24\n"}
    assert root.node.k3s_version() == "v1.34.9+k3s1"


def test_what_is_not_done_is_in_the_journal(capsys: pytest.CaptureFixture[str]) -> None:
    def run(command: list[str], **_: object) -> tuple[int, bytes, str]:
        return {"good": (0, b"", "all well"), "bad": (4, b"", "one\ntwo\n"), "mute": (4, b"", "")}[command[0]]

    for command in ("good", "bad", "mute"):
        Node("/nonexistent", run).order(command, "dhcpcd")
    assert capsys.readouterr().out == "bad dhcpcd: two\nmute dhcpcd: it ends with 4\n"


@given(st.dictionaries(st.from_regex("[a-z][a-z-]{0,20}", fullmatch=True), st.text()))
def test_other_keys_stay(keys: dict[str, str]) -> None:
    kept = {key: value for key, value in keys.items() if key not in ("server", "with-node-id")}
    text = "".join(f"{key}: {json.dumps(value)}\n" for key, value in keys.items())
    found = dict(line.split(": ", 1) for line in node.with_keys(text, {"server": "x"}).splitlines())
    assert found == {**{key: json.dumps(value) for key, value in kept.items()}, "server": '"x"'}


# boards


@pytest.mark.parametrize(
    ("sources", "serial"),
    [
        (("10000000a1b2c3d4\0", "Serial : 1\n", "x"), "10000000a1b2c3d4"),
        ((None, "Hardware\t: BCM2835\nSerial\t\t: 00000000A1B2C3D4\n", "x"), "00000000a1b2c3d4"),
        (("0000000000000000\0", "Serial\t\t: 0000000000000000\n", "0123abcd\n"), "0123abcd"),
        ((None, None, "; rm -rf /"), "rmrf"),
        ((None, "", ""), ""),
    ],
)
def test_a_boards_number(sources: tuple[str | None, ...], serial: str) -> None:
    assert board.serial_of(*sources) == serial


@pytest.mark.parametrize(
    ("controllers", "cgroups", "there"),
    [
        (None, "#subsys_name\thierarchy\tnum_cgroups\tenabled\ncpu\t2\t1\t1\nmemory\t9\t70\t1\n", True),
        (None, "cpu\t2\t1\t1\nmemory\t0\t1\t0\n", False),
        (None, "", False),
        ("cpuset cpu io memory pids", "memory\t0\t1\t0\n", True),
        ("cpuset cpu io pids", "memory\t0\t1\t1\n", False),
    ],
)
def test_the_memory_cgroup(controllers: str | None, cgroups: str, there: bool) -> None:
    assert board.has_memory_cgroup(controllers, cgroups) is there


def test_names() -> None:
    worker, serial = NodeConfig("home", "worker"), "10000000a1b2c3d4"
    assert board.name_of(worker, "", serial) == "home-b2c3d4"
    assert board.name_of(worker, "pi-7", serial) == "pi-7"
    named = NodeConfig("home", "worker", name="pi-1")
    assert board.name_of(named, "", serial) == "pi-1"
    assert board.name_of(named, "pi-7", serial) == "pi-7", "the card's own is the later word"
    assert board.name_of(NodeConfig("home", "master", joins=False), "", serial) == "home-master"
    assert board.name_of(NodeConfig("home", "master"), "", serial) == "home-b2c3d4"


def test_when_a_file_has_changed(tmp_path: Path) -> None:
    node = Node(str(tmp_path))
    file = tmp_path / "file"
    assert node.changed("/file") == 0
    file.write_text("")
    os.utime(file, (5, 1_600_000_000.7))
    assert node.changed("/file") == 1_600_000_000
    os.utime(file, (5, 1 << 33))  # by a clock that was ahead: nobody waits until then
    assert node.changed("/file") == 0
