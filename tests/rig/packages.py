"""Debian packages for hosts that run: of a host's own suite, which this machine's apt may not be of."""

import subprocess
from pathlib import Path

from bake import debian_mirror
from rig.hosts import Host

_PLACE = "root/packages"


def fetched(host: Host, cache: Path, names: list[str]) -> list[Path]:
    """Their files, in the folder ``cache``; what is there is not fetched again."""
    suite = host.run(". /etc/os-release; echo $VERSION_CODENAME")
    folder = cache / f"packages-{suite}"
    missing = [name for name in names if not list(folder.glob(f"{name}_*.deb"))]
    if missing:
        (folder / "lists/partial").mkdir(parents=True, exist_ok=True)
        (folder / "sources.list").write_text(f"deb {debian_mirror.mirror()} {suite} main\n")
        options = [
            f"Dir::State::Lists={folder}/lists",
            "Dir::State::status=/dev/null",
            f"Dir::Etc::sourcelist={folder}/sources.list",
            "Dir::Etc::sourceparts=-",
            f"Dir::Cache={folder}",
            "APT::Architecture=amd64",
            "APT::Sandbox::User=root",
        ]
        for words in (["update"], ["download", *missing]):
            apt = ["apt-get", *(word for option in options for word in ("-o", option)), *words]
            done = subprocess.run(apt, cwd=folder, capture_output=True, text=True, check=False)
            assert done.returncode == 0, f"apt-get {words}: {done.stderr}"
    return [next(folder.glob(f"{name}_*.deb")) for name in names]


def installed(host: Host, cache: Path, names: list[str]) -> None:
    """As a person does it there: by its own dpkg."""
    folder = host.path(_PLACE)
    folder.mkdir()
    for file in fetched(host, cache, names):
        (folder / file.name).write_bytes(file.read_bytes())
    host.run(f"cd /{_PLACE} && DEBIAN_FRONTEND=noninteractive dpkg -i *.deb && rm -r /{_PLACE}")
