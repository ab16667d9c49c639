"""What tests of adoption have in common."""

import contextlib
import json
import os
import pty
import shutil
import termios
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from guest.conftest import CLI, Done
from rig.hosts import Host
from rig.lan import Lan

REGISTRIES = "mirrors:\n  docker.io:\n    endpoint: [https://mirror.lan]\n"


def logins(master: Host, *workers: Host) -> list[str]:
    words = ["--master", f"pi@{master.address}"]
    return words + [word for host in workers for word in ("--worker", f"pi@{host.address}")]


def outcomes(done: Done) -> dict[str, dict[str, Any]]:
    """By address."""
    return {one["login"].rpartition("@")[2]: one for one in json.loads(done.out)}


def cluster_file(folder: Path, hosts: list[Host]) -> Path:
    """The first is the master."""
    (folder / "registries.yaml").write_text(REGISTRIES)
    (folder / "registries.yaml").chmod(0o600)
    text = '[cluster]\nname = "home"\nuser = "pi"\nregistries = "registries.yaml"\n'
    for host in hosts:
        role = "master" if host is hosts[0] else "worker"
        text += f'[[node]]\nrole = "{role}"\nhost = "{host.address}"\n'
    (folder / "cluster.toml").write_text(text)
    return folder / "cluster.toml"


def executions(host: Host) -> int:
    """Of Python by sudo, since it is there."""
    return host.run("journalctl -t sudo --no-pager").count("COMMAND=/usr/bin/python3")


def shape(host: Host) -> str:
    """All that an adoption may touch, but for clocks and logs."""
    places = "etc boot usr/local/bin usr/lib/k3s-bake home var/lib/rancher var/lib/k3s-bake"
    script = (
        f"cd /; find {places} -xdev \\( -type f -o -type l \\) ! -name fake-hwclock.data 2>/dev/null |"
        "sort |"
        'while read -r path; do stat -c \'%A %u %g %N\' "$path"; [ -L "$path" ] || md5sum "$path"; done'
    )
    return host.run(script)


def at_a_terminal(
    lan: Lan, environment: dict[str, str], words: Sequence[str], typed: dict[str, str]
) -> tuple[str, int]:
    """What is shown there, and the exit code; each question is answered once. It echoes in the end.

    A question stands in the last line, which it ends. What is typed at anything else would be echoed.
    """
    command = lan.inside(CLI, *words)
    child, terminal = pty.fork()
    if child == 0:
        os.execve(shutil.which(command[0]) or command[0], command, {**os.environ, **environment})
    said, asked, open_questions = "", 0, dict(typed)
    echoes = termios.tcgetattr(terminal)[3] & termios.ECHO
    with contextlib.suppress(OSError):  # its end
        while piece := os.read(terminal, 4096).decode(errors="replace"):
            said += piece
            line = said[asked:].rpartition("\n")[2]
            question = next((words for words in open_questions if words in line), None)
            if question is not None and line.endswith(": "):
                asked = len(said)
                os.write(terminal, open_questions.pop(question).encode())
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert termios.tcgetattr(terminal)[3] & termios.ECHO == echoes
    os.close(terminal)
    return said, code
