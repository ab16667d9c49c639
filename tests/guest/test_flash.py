"""k3s-bake flash onto loop devices: the cards that come out, and who opens them."""

import fcntl
import json
import os
import re
import socket
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import pytest
import zstandard

from bake.card import rights
from firstboot.contract import CREDENTIAL, CREDENTIAL_BYTES, Credential
from firstboot.errors import UserError
from guest.conftest import CLI, Done, Run, sha256
from guest.look import Image, tool
from guest.loops import Make
from guest.terminal import Terminal

pytestmark = [
    pytest.mark.guest,
    pytest.mark.skipif(os.geteuid() != 0, reason="loop devices are made by root alone"),
]


def credential(card: Path) -> Credential:
    """What a card has on its FAT, by mtools: not by the project's code."""
    content = subprocess.run(
        ["mtype", "-i", Image(card).fat, f"::{CREDENTIAL}"], capture_output=True, check=True
    ).stdout
    assert len(content) == CREDENTIAL_BYTES
    found = Credential.from_bytes(content)
    assert found is not None
    return found


def principals(folder: Path, found: Credential) -> str:
    (folder / "certificate").write_text(found.join_certificate)
    return tool("ssh-keygen", "-L", "-f", folder / "certificate")


def outcomes(done: Done) -> list[dict[str, Any]]:
    results: list[dict[str, Any]] = json.loads(done.out)
    return results


def test_cards_that_are_nodes_of_their_own(
    cli: Run, worker: Path, loop: Make, tmp_path: Path, environment: dict[str, str]
) -> None:
    before = sha256(worker)
    one, two = loop(fill=b"used"), loop()
    options = ("--name", "w1", "--name", "w2", "--yes", "--json", "--labels", tmp_path / "labels")
    done = cli("flash", worker, one.path, two.path, *options)
    assert done.code == 0, done.err
    assert sha256(worker) == before
    results = outcomes(done)
    for card, result, name in zip((one, two), results, ("w1", "w2"), strict=True):
        assert result["error"] == ""
        found = credential(card.file)
        assert found.name == name
        told = principals(tmp_path, found)
        assert f'Key ID: "{name}"' in told
        assert f"Serial: {result['receipt']['certificate']}\n" in told
        assert "k3s-worker" in told
        assert found.join_key not in done.out + done.err
        Image(card.file).fsck(tmp_path)
        same(card.file, worker)
        home = Path(environment["K3S_BAKE_HOME"])
        kept = [*home.glob("data/cards/*.json"), *(tmp_path / "labels").iterdir()]
        assert len(kept) >= 6
        assert not any(found.join_key.splitlines()[1] in path.read_text() for path in kept)
    listed = json.loads(cli("cards", "--history", "--json").out)
    assert {one["name"] for one in listed} >= {"w1", "w2"}
    assert "w1" in cli("cards", "--history").out
    assert (tmp_path / "labels/w2.svg").exists()


def same(card: Path, image: Path) -> None:
    """All that the block map names is on the card as in the image, but for the credential."""
    ((at, size),) = json.loads(Path(f"{image}.manifest.json").read_text())["card"]["credential"]
    ranges = re.findall(r"> (\d+)(?:-(\d+))? </Range>", Path(f"{image}.bmap").read_text())
    assert ranges
    with card.open("rb") as mine, image.open("rb") as other:
        for first, last in ranges:
            start, end = int(first) * 4096, (int(last or first) + 1) * 4096
            mine.seek(start)
            other.seek(start)
            written, wanted = bytearray(mine.read(end - start)), bytearray(other.read(end - start))
            if start <= at < end:
                written[at - start : at - start + size] = wanted[at - start : at - start + size]
            assert written == wanted, start


def test_names_that_are_remembered(cli: Run, worker: Path, loop: Make) -> None:
    card = loop()
    assert cli("flash", worker, card.path, "--name", "r1", "--yes").code == 0
    done = cli("flash", worker, card.path, "--name", "r1", "--yes")
    assert done.code == 2
    assert "r1 is the name of a card that was written on" in done.error
    first = credential(card.file)
    assert cli("flash", worker, card.path, "--name", "r1", "--yes", "--again").code == 0
    assert credential(card.file).join_key != first.join_key
    assert cli("flash", worker, card.path, "--yes").code == 0
    assert credential(card.file).name == "home-worker-1"


def test_an_address_of_its_own(cli: Run, worker: Path, loop: Make) -> None:
    card = loop()
    options = (
        "--name",
        "a1",
        "--address",
        "10.0.0.13/24",
        "--gateway",
        "10.0.0.1",
        "--dns",
        "10.0.0.1",
        "--yes",
    )
    done = cli("flash", worker, card.path, *options)
    assert done.code == 0, done.err
    found = credential(card.file)
    assert (found.address, found.gateway, list(found.dns)) == ("10.0.0.13/24", "10.0.0.1", ["10.0.0.1"])


def test_a_packed_image_by_its_manifest(cli: Run, worker: Path, tmp_path: Path) -> None:
    """Of which nothing can be read but from its beginning: a plain file is the card."""
    packed = tmp_path / "home-worker.img.zst"
    with packed.open("wb") as target, worker.open("rb") as source:
        zstandard.ZstdCompressor(1).copy_stream(source, target)
    for beside in (".manifest.json", ".bmap"):
        (tmp_path / f"home-worker.img{beside}").write_bytes(Path(f"{worker}{beside}").read_bytes())
    done = cli("flash", packed, tmp_path / "card.img", "--name", "p1")
    assert done.code == 0, done.err
    card = tmp_path / "card.img"
    assert credential(card).name == "p1"
    assert card.stat().st_mode & 0o077 == 0
    Image(card).fsck(tmp_path)
    (tmp_path / "home-worker.img.manifest.json").write_text("{}")
    done = cli("flash", packed, tmp_path / "other.img", "--name", "p2")
    assert done.code == 2
    assert "home-worker.img.manifest.json is garbled" in done.error
    assert not (tmp_path / "other.img").exists()


def test_a_credential_for_an_authority_that_is_not_here(
    cli: Run, worker: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, environment: dict[str, str]
) -> None:
    monkeypatch.setitem(environment, "K3S_BAKE_HOME", str(tmp_path / "elsewhere"))
    done = cli("flash", worker, tmp_path / "card.img")
    assert done.code == 2
    assert "the signing key of the cluster 'home' is not here" in done.error
    assert cli("flash", worker, tmp_path / "card.img", "--no-stamp").code == 0
    with (tmp_path / "card.img").open("rb") as card, worker.open("rb") as image:
        assert card.read(512) == image.read(512)


def test_cards_for_the_nodes_of_a_file(
    worker: Path, loop: Make, tmp_path: Path, environment: dict[str, str]
) -> None:
    """Asked for one after the other, at a terminal; what is done is not asked for again."""
    file = tmp_path / "cluster.toml"
    nodes = "".join(f'[[node]]\nname = "{name}"\nrole = "worker"\n' for name in ("f1", "f2"))
    file.write_text(f'[cluster]\nname = "home"\n{nodes}')

    one, two = loop(), loop()
    flash = Terminal(environment, "flash", "--file", file, worker)
    for name, card in (("f1", one), ("f2", two)):
        asked = ""
        while asked != str(card.path):  # other tests have devices too
            flash.expect("Erase ")
            flash.expect(f"make it {name}? [y/N]: ")
            asked = flash.before.split()[0]
            flash.say("y" if asked == str(card.path) else "n")
    assert flash.end() == 0, flash.heard
    assert [credential(card.file).name for card in (one, two)] == ["f1", "f2"]
    again = Terminal(environment, "flash", "--file", file, worker)
    again.expect("f1 has a card already")
    assert again.end() == 0


def test_a_person_who_does_not_want_it(worker: Path, loop: Make, environment: dict[str, str]) -> None:
    card = loop()
    flash = Terminal(environment, "flash", worker, card.path)
    flash.expect("Erase it?")
    flash.say("n")
    assert flash.end() == 130
    assert not any(card.head())


# rights


def test_a_person_who_may_not_write_to_it(worker: Path, loop: Make, environment: dict[str, str]) -> None:
    """As a user without any rights, who has the image alone."""
    card = loop()
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        image = Path(folder, "w.img")
        subprocess.run(["cp", "--sparse=always", worker, image], check=True)
        image.chmod(0o644)
        command = [CLI, "flash", image, card.path, "--yes", "--no-stamp"]
        home = {**environment, "K3S_BAKE_HOME": f"{folder}/home"}
        try:
            done = subprocess.run(command, env=home, user=65534, group=65534, capture_output=True, text=True)
        except PermissionError:
            pytest.skip("this checkout is root's alone")
    assert done.returncode == 2, done.stderr
    assert f"you may not write to {card.path}" in done.stderr
    assert "hint:" in done.stderr
    assert not any(card.head())


def test_devices_that_another_process_opens_for_us(loop: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """As sudo would run it: here it has the rights of the test."""
    one, two = loop(64), loop(64)
    said: list[str] = []
    real = os.open

    def not_allowed(path: Any, flags: int, *rest: Any, **more: Any) -> int:
        if str(path).startswith("/dev/loop"):
            raise PermissionError(13, "Permission denied")
        return real(path, flags, *rest, **more)

    with monkeypatch.context() as patched:
        patched.setattr("bake.card.rights.os.open", not_allowed)
        with rights.opened([one.path, two.path], said.append, sudo=()) as targets:
            assert [target.size for target in targets] == [64 << 20] * 2
            assert all(fcntl.fcntl(target.handle, fcntl.F_GETFL) & os.O_DIRECT for target in targets)
            assert "sudo opens it for you" in said[0]
            with pytest.raises(OSError, match="busy"):
                real(one.path, os.O_RDWR | os.O_EXCL)
        held = real(two.path, os.O_RDWR | os.O_EXCL)
        with (
            pytest.raises(UserError, match=f"{two.path} is in use"),
            rights.opened([one.path, two.path], said.append, sudo=()),
        ):
            pass
        os.close(held)
        with (
            pytest.raises(UserError, match="sudo did not let you"),
            rights.opened([one.path], said.append, sudo=("false",)),
        ):
            pass
        with (
            pytest.raises(UserError, match="there is no sudo to ask"),
            rights.opened([one.path], said.append, sudo=("no-such-sudo",)),
        ):
            pass
    os.close(real(one.path, os.O_RDWR | os.O_EXCL))  # nobody holds it any more


@pytest.mark.timeout(60)
def test_whoever_ends_it_while_sudo_asks_waits_for_nobody(
    loop: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The helper comes when nobody listens any more, and ends."""
    one = loop(64)
    real = os.open

    def not_allowed(path: Any, flags: int, *rest: Any, **more: Any) -> int:
        if str(path) == str(one.path):
            raise PermissionError(13, "Permission denied")
        return real(path, flags, *rest, **more)

    def interrupted(listener: socket.socket) -> None:
        raise KeyboardInterrupt

    asks = ("sh", "-c", 'sleep 1; exec "$@"', "sudo")
    with monkeypatch.context() as patched:
        patched.setattr("bake.card.rights.os.open", not_allowed)
        patched.setattr(socket.socket, "accept", interrupted)
        with pytest.raises(KeyboardInterrupt), rights.opened([one.path], lambda line: None, sudo=asks):
            pass
    os.close(real(one.path, os.O_RDWR | os.O_EXCL))
