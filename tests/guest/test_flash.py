"""k3s-bake flash onto loop devices: the card that comes out, and what must be refused before it."""

import fcntl
import json
import os
import re
import socket
import stat
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import zstandard

from bake.card import rights
from firstboot.contract import CREDENTIAL, CREDENTIAL_BYTES, Credential
from firstboot.errors import UserError
from guest.conftest import CLI, Done, Run, sha256
from guest.look import Image, tool
from guest.loops import Loop, attached
from guest.terminal import Terminal

pytestmark = [
    pytest.mark.guest,
    pytest.mark.skipif(os.geteuid() != 0, reason="loop devices are made by root alone"),
]

Make = Callable[..., Loop]


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


@pytest.fixture(scope="module")
def worker(cli: Run, base: Path, k3s: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("baked") / "home-worker.img"
    options = ("--cluster", "home", "--base", base, *k3s, "--engine", "e2fs", "--output", output)
    done = cli("image", "--role", "worker", *options)
    assert done.code == 0, done.err
    return output


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


# what is refused: nothing is written then


def refused(
    cli: Run, image: Path, card: Loop, words: str, *options: object, path: Path | None = None
) -> None:
    before = card.head()
    done = cli("flash", image, path or card.path, *options, "--yes")
    assert done.code == 2, done.err + done.out
    assert words in done.error, done.err
    assert done.error.count("hint:") == 1
    assert "Traceback" not in done.err
    assert card.head() == before


def test_what_is_mounted(cli: Run, worker: Path, loop: Make, tmp_path: Path) -> None:
    card = loop(64)
    tool("mkfs.ext4", "-q", card.path)
    (tmp_path / "mnt").mkdir()
    tool("mount", card.path, tmp_path / "mnt")
    try:
        refused(
            cli, worker, card, f"is never written: {card.path.name} is mounted on {tmp_path}/mnt", "--force"
        )
    finally:
        tool("umount", tmp_path / "mnt")


def test_what_stands_for_something_that_is_mounted(
    cli: Run, worker: Path, loop: Make, tmp_path: Path
) -> None:
    """The kernel lets a second loop device be opened alone, whatever becomes of the first."""
    card = loop(64)
    tool("mkfs.ext4", "-q", card.path)
    (tmp_path / "mnt").mkdir()
    tool("mount", card.path, tmp_path / "mnt")
    try:
        with attached(card.path, None) as over:
            refused(cli, worker, card, "it stands for a device", "--force", path=over.path)
        with attached(card.file, None) as beside:
            refused(cli, worker, card, "the file behind it is in use", "--force", path=beside.path)
    finally:
        tool("umount", tmp_path / "mnt")


def test_a_card_that_is_swapped_while_the_question_stands(
    worker: Path, loop: Make, tmp_path: Path, environment: dict[str, str]
) -> None:
    """For one of the same size, in the same reader."""
    card = loop()
    if not Path(f"/sys/block/{card.path.name}/diskseq").exists():
        pytest.skip("this kernel does not count cards: Linux 5.15 does")
    other = tmp_path / "other"
    other.touch()
    os.truncate(other, card.file.stat().st_size)
    flash = Terminal(environment, "flash", worker, card.path)
    flash.expect("Erase it? [y/N]: ")
    tool("losetup", "--detach", card.path)
    tool("losetup", card.path, other)
    flash.say("y")
    assert flash.end() == 2
    assert "is another card now" in flash.heard
    for file in (card.file, other):
        with file.open("rb") as stream:
            assert not any(stream.read(1 << 20))


def test_a_card_that_is_pulled_out_while_the_question_stands(
    worker: Path, loop: Make, tmp_path: Path, environment: dict[str, str]
) -> None:
    """No file comes in its place."""
    node, card = tmp_path / "card", loop()
    os.mknod(node, 0o600 | stat.S_IFBLK, card.path.stat().st_rdev)
    flash = Terminal(environment, "flash", worker, node)
    flash.expect("Erase it? [y/N]: ")
    node.unlink()
    flash.say("y")
    assert flash.end() == 2
    assert "is not there any more" in flash.heard
    assert not node.exists()


def test_what_is_swapped_to(cli: Run, worker: Path, loop: Make) -> None:
    card = loop(64)
    tool("mkswap", card.path)
    done = subprocess.run(["swapon", card.path], capture_output=True)
    if done.returncode:
        pytest.skip("no swap can be turned on here")
    try:
        refused(cli, worker, card, "is swapped to", "--force")
    finally:
        tool("swapoff", card.path)


def test_what_is_claimed_by_another(cli: Run, worker: Path, loop: Make) -> None:
    card = loop()
    handle = os.open(card.path, os.O_RDWR | os.O_EXCL)
    try:
        refused(cli, worker, card, f"{card.path} is in use")
    finally:
        os.close(handle)


def test_what_is_write_protected(cli: Run, worker: Path, loop: Make) -> None:
    card = loop()
    tool("blockdev", "--setro", card.path)
    try:
        refused(cli, worker, card, "it is write-protected")
    finally:
        tool("blockdev", "--setrw", card.path)  # it would outlive the device


def test_what_is_too_small(cli: Run, worker: Path, loop: Make) -> None:
    refused(cli, worker, loop(64), "has 0.1 GB, and the image needs 1.6 GB")


def test_a_partition(cli: Run, worker: Path, loop: Make) -> None:
    card = loop(64)
    tool("sfdisk", "-q", card.path, text="label: dos\nstart=2048\n")
    subprocess.run(["partx", "--add", card.path], capture_output=True, check=False)
    part = Path(f"{card.path}p1")
    if not part.exists():
        pytest.skip("partitions of loop devices do not appear here")
    refused(cli, worker, card, f"{part} is a part of {card.path}", path=part)
    subprocess.run(["partx", "--delete", card.path], capture_output=True, check=False)


def test_one_card_by_two_names(cli: Run, worker: Path, loop: Make, tmp_path: Path) -> None:
    card = loop()
    (tmp_path / "link").symlink_to(card.path)
    refused(cli, worker, card, "is named twice", tmp_path / "link")


def test_the_image_itself(cli: Run, worker: Path, tmp_path: Path) -> None:
    with attached(worker, None) as card:
        refused(cli, worker, card, f"{worker} itself is what {card.path} stands for", "--no-stamp")
    done = cli("flash", worker, worker, "--force", "--no-stamp")
    assert done.code == 2
    assert "is the image itself" in done.error


def test_nobody_to_ask(cli: Run, worker: Path, loop: Make) -> None:
    card = loop()
    done = cli("flash", worker, card.path)
    assert done.code == 2
    assert "nobody is there to be asked" in done.error
    assert not any(card.head())


def test_images_that_are_none(cli: Run, worker: Path, loop: Make, tmp_path: Path) -> None:
    card, spoilt = loop(), tmp_path / "spoilt.img"
    with worker.open("rb") as whole:
        spoilt.write_bytes(whole.read(100 << 20))
    refused(cli, spoilt, card, "is truncated")
    spoilt.write_text("no image at all\n" * 100)
    refused(cli, spoilt, card, "has no partition table")
    spoilt.write_bytes(b"")
    refused(cli, spoilt, card, "has no partition table")
    refused(cli, tmp_path / "none.img", card, "does not exist")
    refused(cli, tmp_path, card, "is not a file")


def test_a_block_map_that_is_garbled(cli: Run, worker: Path, loop: Make, tmp_path: Path) -> None:
    card, copy = loop(), tmp_path / "copy.img"
    copy.symlink_to(worker)
    (tmp_path / "copy.img.bmap").write_text(Path(f"{worker}.bmap").read_text().replace("sha256", "sha1"))
    refused(cli, copy, card, "copy.img.bmap is no block map that k3s-bake knows")
    done = cli("flash", copy, card.path, "--yes", "--no-bmap", "--no-stamp", "--json")
    assert done.code == 0, done.err
    assert outcomes(done)[0]["receipt"]["bytes_written"] == worker.stat().st_size


def test_a_file_is_not_replaced_by_mistake(cli: Run, worker: Path, tmp_path: Path) -> None:
    (tmp_path / "card.img").write_text("mine")
    done = cli("flash", worker, tmp_path / "card.img")
    assert done.code == 2
    assert "is there already" in done.error
    assert (tmp_path / "card.img").read_text() == "mine"
    for path, words in (
        (tmp_path, "neither a device nor a file"),
        (tmp_path / "no/card.img", "there is no folder"),
    ):
        done = cli("flash", worker, path)
        assert done.code == 2
        assert words in done.error


def test_a_name_without_its_folder(cli: Run, worker: Path, loop: Make, tmp_path: Path) -> None:
    card = loop()
    done = cli("flash", worker, card.path.name, cwd=tmp_path)
    assert done.code == 2
    assert f"Do you mean {card.path}?" in done.error
    assert list(tmp_path.glob(card.path.name)) == []


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
