"""What a running machine says of itself."""

import pytest

from firstboot import machine

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    ("line", "is_so"),
    [
        ("console=tty1 root=PARTUUID=9730496b-02 rootwait quiet", False),
        ("boot=overlay console=tty1 root=PARTUUID=9730496b-02", True),
        ("overlayroot=tmpfs console=tty1", True),
        ("console=tty1 overlayroot=tmpfs:recurse=0", True),
        ("overlayroot=disabled", False),
        ("overlayroot=device:dev=/dev/sda1", False),
        ("notboot=overlay boot=overlays", False),
    ],
)
def test_a_root_in_memory_is_told_by_the_kernels_command_line(line, is_so):
    assert machine.is_volatile(["", f"{line}\n"]) is is_so


@pytest.fixture(autouse=True)
def no_programs(monkeypatch):
    monkeypatch.setattr(machine, "run", lambda command, **_: (1, b"", ""))


@pytest.mark.parametrize("path", ["proc/cmdline", "boot/cmdline.txt", "boot/firmware/cmdline.txt"])
def test_the_next_boots_command_line_counts_too(tmp_path, path):
    assert machine.facts(str(tmp_path))["volatile"] is False
    place = tmp_path / path
    place.parent.mkdir(parents=True)
    place.write_text("boot=overlay console=tty1\n")
    assert machine.facts(str(tmp_path))["volatile"] is True


def test_what_can_be_written_to_is_not_read_only(tmp_path):
    (tmp_path / "etc").mkdir()
    assert machine.facts(str(tmp_path))["read_only"] == []
