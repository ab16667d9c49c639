"""What a person types while machines become nodes."""

import subprocess
import time
from pathlib import Path

import pytest
from rig.lan import Lan
from rig.running import Person
from rig.secrets import Watch

from ssh.adopting import at_a_terminal
from ssh.conftest import Machines

pytestmark = pytest.mark.ssh


@pytest.mark.timeout(120)  # a question that nobody answers
def test_passwords_are_typed_at_a_terminal(
    machines: Machines,
    lan: Lan,
    environment: dict[str, str],
    person: Person,
    watch: Watch,
    adopting: list[str],
    tmp_path: Path,
) -> None:
    """The login's, and sudo's: asked for once, a restart or not; shown nowhere; and wrong ones told."""
    watch.typed |= {"correct-horse", "battery-staple"}
    (host,) = machines(10)
    host.run("echo 'pi ALL=(ALL) ALL' > /etc/sudoers.d/010_pi-nopasswd; rm /home/pi/.ssh/authorized_keys")
    subprocess.run(host.command("chpasswd"), input=b"pi:correct-horse\n", check=True)
    words = ("preflight", "--worker", f"pi@{host.address}", "--accept-new")
    typed = {"password: ": "correct-horse\n", "sudo password of pi": "battery-staple\n"}
    typed["sudo password of"] = "battery-staple\n"  # once more
    said, code = at_a_terminal(lan, {**environment, "HOME": str(person.home)}, words, typed)
    assert "the sudo password of pi is wrong" in said
    assert code == 2
    typed["sudo password of"] = "correct-horse\n"
    said, code = at_a_terminal(lan, {**environment, "HOME": str(person.home)}, words, typed)
    assert "fit" in said
    assert code == 0

    typed = {"password: ": "correct-horse\n", "sudo password of pi": "correct-horse\n"}
    page = tmp_path / "page.html"
    words = (*adopting, "--master", f"pi@{host.address}", "--report", str(page), "--json")
    shown, code = at_a_terminal(lan, {**environment, "HOME": str(person.home)}, words, typed)
    assert code == 0, shown
    assert '"phase": "rebooting"' in shown
    assert '"ready": true' in shown
    kept = [path for path in Path(environment["K3S_BAKE_HOME"], "data").rglob("*") if path.is_file()]
    told = {"the terminal": said + shown} | {str(path): path.read_text("latin-1") for path in [page, *kept]}
    assert len(kept) > 3
    assert [where for where, text in told.items() if any(word in text for word in watch.typed)] == []


@pytest.mark.timeout(120)  # what it is about is an end that does not come
def test_ctrl_c_at_a_question_ends_it_at_once_and_leaves_the_terminal_as_it_was(
    machines: Machines, lan: Lan, environment: dict[str, str], person: Person
) -> None:
    (host,) = machines(10)
    host.run("rm /home/pi/.ssh/authorized_keys")
    words = ("preflight", "--worker", f"pi@{host.address}", "--accept-new")
    began = time.monotonic()
    typed = {"password: ": "\x03"}
    said, _ = at_a_terminal(lan, {**environment, "HOME": str(person.home)}, words, typed)
    assert "interrupted" in said
    assert time.monotonic() - began < 20
